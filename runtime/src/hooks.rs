//! Hooks: programs of the bundle that run at fixed points of a container's life (config.md, "POSIX-platform Hooks").
//!
//! A hook gets the container's state on its standard input and exactly the environment that is listed. It runs in a
//! session of its own, so that when its time is up it ends with all it has started.
//!
//! [`HookRun`] runs a list of them without blocking: input and output are memory files, so there is nothing to feed or
//! to drain, only an end to wait for.

use crate::plan::HookPlan;
use coracle_linux::pidfd::Signal;
use coracle_linux::process::{self, Exit};
use coracle_linux::spawn::{Child, Spawn};
use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::retry_on_intr;
use rustix::time::{Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec};
use std::collections::VecDeque;
use std::ffi::CString;
use std::io::{self, Read, Seek, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::task::Poll;
use std::time::Duration;

/// A hook that failed.
#[derive(Debug, thiserror::Error)]
pub enum HookError {
    /// It cannot be started.
    #[error("starting {field} {path}")]
    Start {
        /// The hook's field.
        field: String,
        /// Its program.
        path: String,
        /// Why.
        source: io::Error,
    },
    /// It ended badly.
    #[error("{field} {path} {how}{said}")]
    Failed {
        /// The hook's field.
        field: String,
        /// Its program.
        path: String,
        /// How it ended.
        how: String,
        /// What it printed, after a colon.
        said: String,
    },
    /// Several did, of those that all run.
    #[error("{}", sentence(.0))]
    Several(Vec<HookError>),
    /// The kernel refused something that waiting needs.
    #[error("waiting for {field} {path}")]
    Wait {
        /// The hook's field.
        field: String,
        /// Its program.
        path: String,
        /// Why.
        source: io::Error,
    },
}

/// Hooks that are running, one after the other. Poll the descriptor, then [`step`](Self::step).
#[derive(Debug)]
pub struct HookRun {
    todo: VecDeque<HookPlan>,
    state: Vec<u8>,
    epoll: OwnedFd,
    running: Option<Running>,
    /// Those of a stage that all run, until the last has ended; `None` where the first ends the stage.
    failed: Option<Vec<HookError>>,
}

#[derive(Debug)]
struct Running {
    hook: HookPlan,
    child: Child,
    output: std::fs::File,
    timer: Option<OwnedFd>,
}

impl HookRun {
    /// Starts the first of these hooks; each is given `state` (the JSON of the container's state) as its input. The first
    /// that fails is the last that runs.
    pub(crate) fn start(hooks: Vec<HookPlan>, state: Vec<u8>) -> Result<Self, HookError> {
        let mut run = Self::prepare(hooks, state)?;
        run.start_next()?;
        Ok(run)
    }

    /// The same for hooks that clean up: each runs, whatever becomes of those before it (runtime.md, "Lifecycle", 13).
    pub(crate) fn start_all(hooks: Vec<HookPlan>, state: Vec<u8>) -> Result<Self, HookError> {
        let mut run = Self::prepare(hooks, state)?;
        run.failed = Some(Vec::new());
        run.go_on();
        Ok(run)
    }

    fn prepare(hooks: Vec<HookPlan>, state: Vec<u8>) -> Result<Self, HookError> {
        let epoll = match (epoll::create(CreateFlags::CLOEXEC), hooks.first()) {
            (Ok(epoll), _) => epoll,
            (Err(errno), first) => {
                let (field, path) = first
                    .map(|hook| (hook.field.clone(), hook.path.clone()))
                    .unwrap_or_default();
                return Err(HookError::Start {
                    field,
                    path,
                    source: errno.into(),
                });
            }
        };
        Ok(Self {
            todo: hooks.into(),
            state,
            epoll,
            running: None,
            failed: None,
        })
    }

    /// Goes on as far as it can without waiting.
    ///
    /// # Errors
    /// A hook that cannot be started, fails, or takes longer than it may. Those after it do not run, but where all are to.
    pub fn step(&mut self) -> Poll<Result<(), HookError>> {
        while let Some(running) = &mut self.running {
            let ended = match running.finished() {
                Ok(false) => return Poll::Pending,
                Ok(true) => Ok(()),
                Err(error) => Err(error),
            };
            self.running = None;
            match &mut self.failed {
                Some(failed) => {
                    failed.extend(ended.err());
                    self.go_on();
                }
                None => {
                    ended?;
                    self.start_next()?;
                }
            }
        }
        let mut failed = self.failed.take().unwrap_or_default();
        Poll::Ready(match failed.len() {
            0 => Ok(()),
            1 => failed.pop().map_or(Ok(()), Err),
            _ => Err(HookError::Several(failed)),
        })
    }

    /// Starts the next that can be started.
    fn go_on(&mut self) {
        while self.running.is_none() && !self.todo.is_empty() {
            if let Err(error) = self.start_next() {
                self.failed.get_or_insert_default().push(error);
            }
        }
    }

    /// Runs all that is left, waiting.
    ///
    /// # Errors
    /// As [`HookRun::step`].
    pub fn finish(mut self) -> Result<(), HookError> {
        while self.step()?.is_pending() {
            retry_on_intr(|| poll(&mut [PollFd::new(&self.epoll, PollFlags::IN)], None))
                .map_err(|errno| self.wait_error(errno.into()))?;
        }
        Ok(())
    }

    fn start_next(&mut self) -> Result<(), HookError> {
        let Some(hook) = self.todo.pop_front() else {
            return Ok(());
        };
        let running = Running::start(hook, &self.state)?;
        let watch = |fd| epoll::add(&self.epoll, fd, EventData::new_u64(0), EventFlags::IN);
        let watched = [
            Some(running.child.pidfd.as_fd()),
            running.timer.as_ref().map(AsFd::as_fd),
        ];
        let added = watched.into_iter().flatten().try_for_each(watch);
        self.running = Some(running);
        added.map_err(|errno| self.wait_error(errno.into()))
    }

    fn wait_error(&self, source: io::Error) -> HookError {
        let hook = self.running.as_ref().map(|running| &running.hook);
        let (field, path) = hook
            .map(|hook| (hook.field.clone(), hook.path.clone()))
            .unwrap_or_default();
        HookError::Wait { field, path, source }
    }
}

impl AsFd for HookRun {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.epoll.as_fd()
    }
}

impl Running {
    fn start(hook: HookPlan, state: &[u8]) -> Result<Self, HookError> {
        match Self::try_start(&hook, state) {
            Ok((child, output, timer)) => Ok(Self {
                hook,
                child,
                output,
                timer,
            }),
            Err(source) => Err(HookError::Start {
                field: hook.field,
                path: hook.path,
                source,
            }),
        }
    }

    fn try_start(hook: &HookPlan, state: &[u8]) -> io::Result<(Child, std::fs::File, Option<OwnedFd>)> {
        let mut input = memory_file(c"hook-state")?;
        input.write_all(state)?;
        input.rewind()?;
        let output = memory_file(c"hook-output")?;
        let timer = hook.timeout.map(timer).transpose()?;
        let text = |texts: &[String]| {
            texts
                .iter()
                .cloned()
                .map(CString::new)
                .collect::<Result<Vec<_>, _>>()
        };
        let spawn = Spawn {
            program: CString::new(hook.path.as_str())?,
            args: text(&hook.args)?,
            env: text(&hook.env)?,
            descriptors: &[input.as_fd(), output.as_fd(), output.as_fd()],
            own_session: true,
        };
        Ok((spawn.start()?, output, timer))
    }

    /// Whether it has ended, well.
    fn finished(&mut self) -> Result<bool, HookError> {
        let how = match process::try_wait(self.child.pidfd.as_fd()) {
            Ok(Some(Exit::Code(0))) => return Ok(true),
            Ok(Some(Exit::Code(code))) => format!("exited with {code}"),
            Ok(Some(Exit::Signal(signal))) => format!("was killed by signal {signal}"),
            Ok(None) if self.is_overdue() => {
                self.kill();
                let seconds = self.hook.timeout.unwrap_or_default().as_secs();
                format!("took longer than its timeout of {seconds} s")
            }
            Ok(None) => return Ok(false),
            Err(source) => {
                let (field, path) = (self.hook.field.clone(), self.hook.path.clone());
                return Err(HookError::Wait { field, path, source });
            }
        };
        let (field, path) = (self.hook.field.clone(), self.hook.path.clone());
        Err(HookError::Failed {
            field,
            path,
            how,
            said: self.said(),
        })
    }

    fn is_overdue(&self) -> bool {
        let mut expirations = [0; 8];
        self.timer
            .as_ref()
            .is_some_and(|timer| rustix::io::read(timer, &mut expirations).is_ok())
    }

    /// Ends it and everything in its session, and collects it.
    fn kill(&self) {
        let _ = rustix::process::kill_process_group(self.child.pid, Signal::KILL);
        let _ = process::wait(self.child.pidfd.as_fd());
    }

    /// The end of what it printed.
    fn said(&mut self) -> String {
        const MOST: u64 = 4096;
        let mut text = Vec::new();
        let length = self.output.metadata().map_or(0, |file| file.len());
        let _ = self.output.seek(io::SeekFrom::Start(length.saturating_sub(MOST)));
        let _ = (&self.output).take(MOST).read_to_end(&mut text);
        let text = String::from_utf8_lossy(&text);
        if text.trim().is_empty() {
            String::new()
        } else {
            format!(": {}", text.trim())
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Dropped before its end, it is ended. One whose end was collected is not found any more.
        if let Ok(None) = process::try_wait(self.child.pidfd.as_fd()) {
            self.kill();
        }
    }
}

/// Each with its causes.
fn sentence(errors: &[HookError]) -> String {
    let chain = |error: &HookError| {
        let error: &(dyn std::error::Error + 'static) = error;
        let causes = std::iter::successors(Some(error), |&error| error.source());
        causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
    };
    errors.iter().map(chain).collect::<Vec<_>>().join("; ")
}

fn memory_file(name: &std::ffi::CStr) -> io::Result<std::fs::File> {
    Ok(rustix::fs::memfd_create(name, rustix::fs::MemfdFlags::CLOEXEC)?.into())
}

fn timer(after: Duration) -> io::Result<OwnedFd> {
    let flags = TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK;
    let timer = rustix::time::timerfd_create(TimerfdClockId::Monotonic, flags)?;
    let value = Timespec::try_from(after).map_err(io::Error::other)?;
    let once = Itimerspec {
        it_interval: Timespec {
            tv_sec: 0,
            tv_nsec: 0,
        },
        it_value: value,
    };
    rustix::time::timerfd_settime(&timer, TimerfdTimerFlags::empty(), &once)?;
    Ok(timer)
}
