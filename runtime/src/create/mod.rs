//! Creation: from a plan to a container whose first process waits to execute its payload.
//!
//! ```text
//!  maker (one thread)                             first process
//!  spawn():
//!    open the namespaces to join
//!    make the cgroup, set its limits
//!    clone3(all namespaces, into the cgroup) ---> v1: write 0 to each hierarchy's `tasks`
//!    user namespace: write uid_map, gid_map
//!    Go (only with new ids, or after Cloned) ---> join, unshare the cgroup namespace
//!                                                 attach the root at root.path, mount the rest onto it
//!  step():                                 <----- Console (a terminal's other end)
//!                                          <----- RunHooks (only if there are any)
//!    prestart, createRuntime hooks
//!    HooksDone ---------------------------------> createContainer hooks, pivot_root, masks, names, sysctls
//!                                                 identity, capabilities, seccomp
//!                                          <----- SeccompListener (only if the filter notifies an agent)
//!    ListenerTaken ----------------------------->
//!                                          <----- Ready
//!    Created(container)                           waits at the gate: this socket, or the exec fifo
//!  Container::start():
//!    Start -------------------------------------> startContainer hooks, execve
//!    poststart hooks                       <----- end of stream: the payload runs
//! ```
//! Wherever the first process fails, it says `Failed` and exits; wherever the maker fails, or drops what it holds, it
//! kills and collects the first process and removes the cgroup. Until it is ready, the first process dies with its maker.
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

mod container;
mod error;
mod first_process;
mod gate;
mod namespaces;

pub(crate) use container::wait_readable;
pub use container::{Container, Starting};
pub(crate) use error::describe;
pub use error::{CreateError, StartError};

use crate::cgroup::Cgroup;
use crate::hooks::HookRun;
use crate::payload::{Birth, FromMaker, ToMaker};
use crate::plan::{ContainerId, Gate, Plan};
use crate::rootfs::{self, Prepared};
use crate::seccomp::Listener;
use crate::state::{Facts, Status};
use coracle_linux::namespace::Namespaces;
use coracle_linux::pidfd::{self, Pid};
use coracle_linux::process::{self, Child, Clone, Exit};
use coracle_linux::socket;
use first_process::Inherited;
use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd, RawFd};

/// How far something that does not block has come.
#[derive(Debug, PartialEq, Eq)]
pub enum Step<T> {
    /// Poll its descriptor and step again.
    Pending,
    /// It is done.
    Done(T),
}

/// A container that is being created.
#[derive(Debug)]
pub struct Creating {
    id: ContainerId,
    facts: Facts,
    socket: OwnedFd,
    epoll: OwnedFd,
    /// The first process, and the process in between until it has said `Cloned`.
    birth: Birth,
    cgroup: Option<Cgroup>,
    console: Option<OwnedFd>,
    listener: Option<Listener>,
    warnings: Vec<String>,
    hooks: Option<HookRun>,
    id_maps: Option<crate::plan::IdMaps>,
    waits_for_go: bool,
    waits_for_maker: bool,
}

/// Makes the container's first process and returns at once.
///
/// # Errors
/// Says what could not be made; nothing is left of it then.
pub fn spawn(plan: Plan) -> Result<Creating, CreateError> {
    let joined = namespaces::open(&plan.namespaces, &plan.sysctls)?;
    let prepared = rootfs::prepare(&plan).map_err(CreateError::Prepare)?;
    let (ours, theirs) = socket::message_pair().map_err(CreateError::Channel)?;
    let epoll = epoll::create(CreateFlags::CLOEXEC).map_err(|errno| CreateError::Channel(errno.into()))?;
    epoll::add(&epoll, &ours, EventData::new_u64(0), EventFlags::IN)
        .map_err(|errno| CreateError::Channel(errno.into()))?;
    let mut creating = Creating {
        id: plan.id.clone(),
        facts: Facts::of(&plan),
        socket: ours,
        epoll,
        birth: Birth::default(),
        cgroup: None,
        console: None,
        listener: plan.seccomp.as_ref().and_then(|filter| filter.listener.clone()),
        warnings: Vec::new(),
        hooks: None,
        id_maps: plan.namespaces.id_maps.clone(),
        waits_for_go: plan.namespaces.first_process_waits(),
        waits_for_maker: plan.options.gate == Gate::Maker,
    };
    let cgroup = creating.cgroup.insert(Cgroup::create(&plan.cgroup)?);
    creating.warnings.extend_from_slice(cgroup.warnings());
    creating.clone_first_process(plan, joined, prepared, theirs)?;
    creating.let_go()?;
    Ok(creating)
}

impl Creating {
    /// The id of the first process, once it exists (a process in between makes it a moment later).
    #[must_use]
    pub fn pid(&self) -> Option<Pid> {
        self.birth.process().map(|process| process.pid)
    }

    /// Goes on as far as it can without waiting.
    ///
    /// # Errors
    /// Says what failed, in the first process too. What was made is undone.
    pub fn step(&mut self) -> Result<Step<Container>, CreateError> {
        loop {
            if let Some(hooks) = &mut self.hooks {
                match hooks.step()? {
                    Step::Pending => return Ok(Step::Pending),
                    Step::Done(()) => self.hooks = None,
                }
                FromMaker::HooksDone
                    .send(self.socket.as_fd())
                    .map_err(CreateError::Channel)?;
            }
            match ToMaker::receive(self.socket.as_fd()).map_err(CreateError::Channel)? {
                None => return Ok(Step::Pending),
                Some(ToMaker::Ready) => return self.created().map(Step::Done),
                Some(message) => self.handle(message)?,
            }
        }
    }

    /// Steps until it is done, waiting.
    pub fn finish(mut self) -> Result<Container, CreateError> {
        loop {
            if let Step::Done(container) = self.step()? {
                return Ok(container);
            }
            container::wait_readable(self.as_fd()).map_err(CreateError::Channel)?;
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
                epoll::add(&self.epoll, &hooks, EventData::new_u64(0), EventFlags::IN)
                    .map_err(|errno| CreateError::Channel(errno.into()))?;
                self.hooks = Some(hooks);
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
        FromMaker::ListenerTaken
            .send(self.socket.as_fd())
            .map_err(CreateError::Channel)
    }

    fn created(&mut self) -> Result<Container, CreateError> {
        let socket = self.socket.try_clone().map_err(CreateError::Channel)?;
        let (Some(process), Some(cgroup)) = (self.birth.take(), self.cgroup.take()) else {
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
            socket: self.waits_for_maker.then_some(socket),
        })
    }

    /// The first process ended without a word: the kernel killed it, or somebody did.
    fn died(&self) -> CreateError {
        let exit = self.birth.exit();
        let killed = self.cgroup.as_ref().and_then(|cgroup| cgroup.oom_kills().ok()?);
        match exit {
            Some(Exit::Signal(_)) if killed.is_some_and(|count| count > 0) => CreateError::OutOfMemory,
            exit => CreateError::FirstProcessDied(exit),
        }
    }

    fn clone_first_process(
        &mut self,
        plan: Plan,
        joined: namespaces::Joined,
        prepared: Prepared,
        theirs: OwnedFd,
    ) -> Result<(), CreateError> {
        let Some(cgroup) = &self.cgroup else { return Ok(()) };
        let join = cgroup.join()?;
        let in_between = plan.namespaces.needs_process_between();
        let how = Clone {
            namespaces: if in_between {
                Namespaces::empty()
            } else {
                in_clone(plan.namespaces.new)
            },
            cgroup: join.into.as_ref().map(AsFd::as_fd),
            sibling: false,
        };
        // A PID namespace is joined for children only: the maker goes in for the length of the clone.
        let pid_namespace = joined.pid_namespace().filter(|_| !in_between);
        let home = pid_namespace.map(namespaces::visit_pid_namespace).transpose()?;
        let socket = theirs.as_fd();
        let maker = pidfd::open(rustix::process::getpid()).map_err(CreateError::Clone)?;
        let made = process::clone(&how, || {
            let inherited = Inherited {
                plan,
                prepared,
                cgroup,
                join: &join,
                socket,
                maker: maker.as_fd(),
            };
            match in_between {
                true => first_process::between(inherited, &joined),
                false => first_process::main(inherited, Some(&joined)),
            }
        });
        let left = home.map(namespaces::PidNamespaceVisit::leave).transpose();
        let made = made.map_err(CreateError::Clone)?;
        self.birth = match in_between {
            true => Birth::through(made),
            false => Birth::direct(made),
        };
        left.map(drop)
    }

    /// Lets the first process begin, once it is known and has its ids.
    fn let_go(&mut self) -> Result<(), CreateError> {
        let Some(process) = self.birth.process().filter(|_| self.waits_for_go) else {
            return Ok(());
        };
        self.waits_for_go = false;
        if let Some(maps) = self.id_maps.take() {
            namespaces::map_ids(process.pid, &maps)?;
        }
        FromMaker::Go
            .send(self.socket.as_fd())
            .map_err(CreateError::Channel)
    }

    fn state(&self, status: Status) -> Vec<u8> {
        self.facts
            .state(status, self.birth.process().map(|process| process.pid))
    }
}

/// The namespaces that are made by the clone itself. The cgroup namespace is made after the process has joined its
/// cgroups, the time namespace after its offsets are written.
fn in_clone(new: Namespaces) -> Namespaces {
    new.difference(Namespaces::CGROUP | Namespaces::TIME)
}

impl AsFd for Creating {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.epoll.as_fd()
    }
}

impl Drop for Creating {
    /// Undoes what was made, in reverse. After success nothing is left here to undo.
    fn drop(&mut self) {
        self.hooks = None;
        self.birth.end(self.socket.as_fd());
        if let Some(cgroup) = self.cgroup.take() {
            let _ = cgroup.remove();
        }
    }
}
