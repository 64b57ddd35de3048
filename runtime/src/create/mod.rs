//! Creation: from a plan to a container whose first process waits to execute its payload.
//!
//! ```text
//!  maker (one thread)                             first process
//!  spawn():
//!    open the namespaces to join
//!   MakeCgroup:
//!    make the cgroup, set its limits
//!   Clone:
//!    clone3(all namespaces, into the cgroup) ---> v1: write 0 to each hierarchy's `tasks`
//!    user namespace: write uid_map, gid_map
//!    Go (only with new ids, or after Cloned) ---> join, unshare the cgroup namespace
//!  step():                                        attach the root at root.path, mount the rest onto it
//!   Serve:                                 <----- Console (a terminal's other end)
//!                                          <----- RunHooks (only if there are any)
//!   Hooks:
//!    prestart, createRuntime hooks
//!    HooksDone ---------------------------------> createContainer hooks, pivot_root, masks, names, sysctls
//!                                                 identity, capabilities, closes the maker's descriptors
//!   Serve:                                 <----- SeccompListener (only if the filter notifies an agent)
//!    ListenerTaken ----------------------------->
//!                                          <----- Ready
//!    Created(container)
//!  Container::recorded():
//!    Recorded (only with an exec fifo) ---------> waits at the gate: this socket, or the exec fifo
//!  Container::start():
//!    Start -------------------------------------> startContainer hooks, seccomp, execve
//!    poststart hooks                       <----- end of stream: the payload runs, or has left its last words
//! ```
//! The maker's side is a list of stages. A stage that has to wait (the hooks today; a cgroup manager that answers later,
//! like systemd) puts its descriptor into the epoll of [`Creating`] and is pending: `spawn` returns there too.
//!
//! Wherever the first process fails, it says `Failed` and exits; wherever the maker fails, or drops what it holds, it
//! kills and collects the first process, removes the cgroup and runs the poststop hooks. Until there is a record of it, the
//! first process dies with its maker.
//!
//! In a joined PID namespace the processes of other containers see the first process from its first moment on, while it
//! can still reach the host's files. It is not dumpable, which keeps out every process that lacks CAP_SYS_PTRACE in the
//! host's user namespace. A container that has this capability and shares the PID namespace can take the first process
//! over, here as with runc: only a process inside can mount a procfs, so it has to be there before the root is complete.
//! (An exec has no such time: see [`crate::exec`].)
//!
//! Only when a user namespace is joined, or a new one is combined with joined ones, there is a process in between: it
//! joins, clones the first process as its sibling (`CLONE_PARENT`), says `Cloned` and exits. The first process waits for
//! `Go` then too: the two share their end of the socket, and nothing the first process says may arrive before its maker
//! knows of it.

mod clone;
mod container;
mod error;
mod first_process;
mod gate;
mod namespaces;
mod undo;

pub use container::{Container, Starting};
pub use error::{CreateError, StartError};

use crate::cgroup::{self, CgroupPlan};
use crate::hooks::HookRun;
use crate::id::ContainerId;
use crate::identity::Outside;
use crate::payload::{Birth, FromMaker, LastWords, ToMaker, wait_readable};
use crate::plan::{Gate, IdMaps, Plan, Stdio};
use crate::rootfs;
use crate::seccomp::Listener;
use crate::state::{Facts, Status};
use clone::Unborn;
use container::OpenedBy;
use coracle_linux::cgroup::Cgroup;
use coracle_linux::namespace::Namespaces;
use coracle_linux::pidfd::Pid;
use coracle_linux::process::{Child, Exit};
use coracle_linux::socket;
use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd, RawFd};
use std::path::PathBuf;
use std::task::{Poll, ready};

/// A container that is being created. Poll its descriptor, then [`step`](Self::step).
#[derive(Debug)]
pub struct Creating {
    id: ContainerId,
    facts: Facts,
    socket: OwnedFd,
    /// Readable when there is something to do: the socket is in it, and what else a stage waits for.
    epoll: OwnedFd,
    stage: Stage,
    cgroup: Option<Cgroup>,
    /// The first process, and the process in between until it has said `Cloned`.
    birth: Birth,
    console: Option<OwnedFd>,
    listener: Option<Listener>,
    warnings: Vec<String>,
    id_maps: Option<IdMaps>,
    waits_for_go: bool,
    waits_for_maker: bool,
    has_filter: bool,
    /// Until the container has them.
    words: Option<LastWords>,
    mark: Option<PathBuf>,
    outside: Outside,
    /// With a user namespace that is joined: whose ids are known when the first process is in it.
    streams: Option<(Stdio, u32)>,
}

/// What the maker does next, in this order. The hooks come while the first process is served, which goes on after them.
#[derive(Debug)]
enum Stage {
    /// The cgroup is made and its limits are set. Undone by its removal.
    MakeCgroup(Box<Unborn>),
    /// The first process is cloned into it. Undone by its end.
    Clone(Box<Unborn>),
    /// What the first process says is done, until it is ready.
    Serve,
    /// The hooks of the runtime run, and the first process waits for them. Undone by their end.
    Hooks(Box<HookRun>),
    /// It has failed: what hooks have set up, the poststop hooks take down.
    Undo(CreateError, Box<HookRun>),
}

/// Begins a creation and takes it as far as it goes without waiting, to the container's first process at the latest.
///
/// # Errors
/// Says what could not be made; nothing is left of it then.
pub fn spawn(plan: Plan) -> Result<Creating, CreateError> {
    let mut creating = Creating::begin(plan)?;
    while creating.is_unborn() && creating.advance()?.is_ready() {}
    Ok(creating)
}

impl Creating {
    fn begin(mut plan: Plan) -> Result<Self, CreateError> {
        let joined = namespaces::open(&plan.namespaces, &plan.sysctls)?;
        let prepared = rootfs::prepare(&plan, joined.all()).map_err(CreateError::Prepare)?;
        let (ours, theirs) = socket::message_pair().map_err(CreateError::Channel)?;
        let epoll =
            epoll::create(CreateFlags::CLOEXEC).map_err(|errno| CreateError::Channel(errno.into()))?;
        watch(&epoll, ours.as_fd())?;
        Ok(Self {
            id: plan.id.clone(),
            facts: Facts::of(&plan),
            socket: ours,
            epoll,
            cgroup: None,
            birth: Birth::default(),
            console: None,
            listener: plan.seccomp.as_ref().and_then(|filter| filter.listener.clone()),
            warnings: plan.warnings.clone(),
            id_maps: plan.namespaces.id_maps.clone(),
            waits_for_go: plan.namespaces.first_process_waits(),
            waits_for_maker: plan.options.gate == Gate::Maker,
            has_filter: plan.seccomp.is_some(),
            words: match &plan.options.gate {
                Gate::Maker => LastWords::anonymous(),
                Gate::Fifo { last_words, .. } => LastWords::in_file(last_words),
            }
            .map(Some)
            .map_err(CreateError::LastWords)?,
            mark: plan.options.mark.clone(),
            outside: match plan.namespaces.has_user() {
                true => plan.identity.take_outside(),
                false => Outside::default(),
            },
            streams: match plan.namespaces.joins(Namespaces::USER) {
                true => Some((
                    plan.stdio.try_clone().map_err(CreateError::Channel)?,
                    plan.process.uid,
                )),
                false => None,
            },
            stage: Stage::MakeCgroup(Box::new(Unborn {
                plan,
                joined,
                prepared,
                socket: theirs,
            })),
        })
    }

    /// The id of the first process, once it exists: before that, the cgroup is made, or a process in between is at work.
    #[must_use]
    pub fn pid(&self) -> Option<Pid> {
        self.birth.process().map(|process| process.pid)
    }

    /// Goes on as far as it can without waiting.
    ///
    /// # Errors
    /// Says what failed, in the first process too. What was made is undone.
    pub fn step(&mut self) -> Poll<Result<Container, CreateError>> {
        loop {
            match ready!(self.advance()) {
                Ok(None) => {}
                Ok(Some(container)) => return Poll::Ready(Ok(container)),
                Err(error) => {
                    if let Some(undone) = self.undo(error) {
                        return Poll::Ready(Err(undone));
                    }
                }
            }
        }
    }

    /// Does one stage, or of [`Stage::Serve`] one message. The container is there after the last one.
    fn advance(&mut self) -> Poll<Result<Option<Container>, CreateError>> {
        match std::mem::replace(&mut self.stage, Stage::Serve) {
            Stage::MakeCgroup(unborn) => {
                self.make_cgroup(&unborn.plan.cgroup)?;
                self.stage = Stage::Clone(unborn);
            }
            Stage::Clone(unborn) => {
                self.clone_first_process(*unborn)?;
                self.let_go()?;
            }
            Stage::Serve => match ToMaker::receive(self.socket.as_fd()).map_err(CreateError::Channel)? {
                None => return Poll::Pending,
                Some(ToMaker::Ready) => return Poll::Ready(self.ready().map(Some)),
                Some(message) => self.handle(message)?,
            },
            Stage::Hooks(mut hooks) => {
                if hooks.step()?.is_pending() {
                    self.stage = Stage::Hooks(hooks);
                    return Poll::Pending;
                }
                self.send(FromMaker::HooksDone)?;
            }
            Stage::Undo(error, mut hooks) => {
                // A failure to undo does not take the place of what failed first.
                if matches!(hooks.step(), Poll::Pending) {
                    self.stage = Stage::Undo(error, hooks);
                    return Poll::Pending;
                }
                return Poll::Ready(Err(error));
            }
        }
        Poll::Ready(Ok(None))
    }

    fn is_unborn(&self) -> bool {
        matches!(self.stage, Stage::MakeCgroup(_) | Stage::Clone(_))
    }

    /// Steps until it is done, waiting.
    ///
    /// # Errors
    /// As [`Creating::step`].
    pub fn finish(mut self) -> Result<Container, CreateError> {
        loop {
            if let Poll::Ready(container) = self.step()? {
                return Ok(container);
            }
            wait_readable(self.as_fd()).map_err(CreateError::Channel)?;
        }
    }

    fn handle(&mut self, message: ToMaker) -> Result<(), CreateError> {
        match message {
            ToMaker::Cloned(pid, pidfd) => {
                self.birth.cloned(Child { pid, pidfd });
                self.let_go()
            }
            ToMaker::RunHooks => {
                let state = self.state(Status::Creating);
                let hooks = HookRun::start(self.facts.hooks.of_runtime(), state)?;
                watch(&self.epoll, hooks.as_fd())?;
                self.stage = Stage::Hooks(Box::new(hooks));
                Ok(())
            }
            ToMaker::Console(fd) => {
                self.console = Some(fd);
                Ok(())
            }
            ToMaker::SeccompListener(number) => self.hand_over_listener(number),
            ToMaker::Warning(text) => {
                self.warnings.push(text);
                Ok(())
            }
            ToMaker::Failed(text) => Err(CreateError::FirstProcess(text)),
            ToMaker::Ready | ToMaker::End => Err(self.died()),
        }
    }

    fn hand_over_listener(&mut self, number: RawFd) -> Result<(), CreateError> {
        if let (Some(listener), Some(process)) = (&self.listener, self.birth.process()) {
            listener.deliver(process, number, &self.state(Status::Creating))?;
        }
        self.send(FromMaker::ListenerTaken)
    }

    fn ready(&mut self) -> Result<Container, CreateError> {
        if let Some(process) = self.birth.process() {
            self.outside.set_limits(process.pid)?;
        }
        self.created()
    }

    fn created(&mut self) -> Result<Container, CreateError> {
        let socket = self.socket.try_clone().map_err(CreateError::Channel)?;
        let (Some(process), Some(cgroup), Some(words)) =
            (self.birth.take(), self.cgroup.take(), self.words.take())
        else {
            return Err(self.died());
        };
        Ok(Container {
            id: self.id.clone(),
            pid: process.pid,
            pidfd: process.pidfd,
            cgroup,
            console: self.console.take(),
            warnings: std::mem::take(&mut self.warnings),
            facts: std::mem::take(&mut self.facts),
            gate: match self.waits_for_maker {
                true => OpenedBy::Maker(socket, words),
                false => OpenedBy::Fifo(socket),
            },
        })
    }

    /// The first process ended without a word: the kernel killed it, or somebody did.
    fn died(&self) -> CreateError {
        let exit = self.birth.exit();
        if let Some(text) = self.words.as_ref().and_then(LastWords::read) {
            return CreateError::FirstProcess(text);
        }
        let killed = self.cgroup.as_ref().and_then(|cgroup| cgroup.oom_kills().ok()?);
        match exit {
            Some(Exit::Signal(_)) if killed.is_some_and(|count| count > 0) => CreateError::OutOfMemory,
            exit if self.has_filter => CreateError::FirstProcessFiltered(exit),
            exit => CreateError::FirstProcessDied(exit),
        }
    }

    fn make_cgroup(&mut self, plan: &CgroupPlan) -> Result<(), CreateError> {
        let created = cgroup::create(plan)?;
        self.cgroup = Some(created.cgroup);
        if let Some(mark) = &self.mark {
            std::os::unix::fs::symlink(&self.facts.bundle, mark).map_err(|source| CreateError::Mark {
                path: mark.clone(),
                source,
            })?;
        }
        self.warnings.extend(created.warnings);
        Ok(())
    }

    fn send(&self, message: FromMaker) -> Result<(), CreateError> {
        message.send(self.socket.as_fd()).map_err(CreateError::Channel)
    }

    fn state(&self, status: Status) -> Vec<u8> {
        self.facts
            .state(status, self.birth.process().map(|process| process.pid))
    }
}

/// Adds `fd` to what the creation waits for.
fn watch(epoll: &OwnedFd, fd: BorrowedFd<'_>) -> Result<(), CreateError> {
    epoll::add(epoll, fd, EventData::new_u64(0), EventFlags::IN)
        .map_err(|errno| CreateError::Channel(errno.into()))
}

impl AsFd for Creating {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.epoll.as_fd()
    }
}
