//! Where a container is in its life, and the steps from one phase to the next. See the drawing in `driver/mod.rs`.
//!
//! A step takes the phase by value and says which one follows, so nothing of it can be forgotten on the way.

use std::mem;

use coracle_linux::process::Exit;
use coracle_runtime::{StartError, Starting};
use coracle_shim_api::pod::CreateContainerResponse;
use tokio::sync::oneshot;

use super::Live;
use super::request::Kept;
use crate::call::Reply;

/// Where a container is in its life; holds what exists then.
pub(crate) enum Phase {
    Creating {
        reply: Reply<CreateContainerResponse>,
        kept: Kept,
        /// Dropping it gives the creation up.
        go_on: Option<oneshot::Sender<()>>,
    },
    Created(Box<Live>),
    Running(Box<Live>),
    Ending(Box<Live>, Exit),
    Stopped(Box<Live>, Exit),
    /// The rest is with the task that removes it.
    Removing(Exit),
    /// Only within one of the steps below.
    Changing,
}

impl Phase {
    /// The word for it.
    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::Creating { .. } => "being created",
            Self::Created(_) => "created",
            Self::Running(_) => "running",
            Self::Ending(..) | Self::Stopped(..) | Self::Removing(_) => "stopped",
            Self::Changing => "between two states",
        }
    }

    /// Created -> Running, unless it cannot be started. `None`: it is in another phase.
    pub(crate) fn start(&mut self) -> Option<Result<Starting, StartError>> {
        let mut result = None;
        *self = match mem::replace(self, Self::Changing) {
            Self::Created(mut live) => match result.insert(live.container.start()) {
                Ok(_) => Self::Running(live),
                Err(_) => Self::Created(live),
            },
            other => other,
        };
        result
    }

    /// Created, Running -> Ending: the first process has been collected. False: it is in another phase.
    pub(crate) fn exit(&mut self, exit: Exit) -> bool {
        let (next, ended) = match mem::replace(self, Self::Changing) {
            Self::Created(mut live) | Self::Running(mut live) => {
                live.claim = None;
                (Self::Ending(live, exit), true)
            }
            other => (other, false),
        };
        *self = next;
        ended
    }

    /// Ending -> Stopped: nothing of it is left that runs or writes. False: it is in another phase.
    pub(crate) fn settle(&mut self) -> bool {
        let (next, settled) = match mem::replace(self, Self::Changing) {
            Self::Ending(live, exit) => (Self::Stopped(live, exit), true),
            other => (other, false),
        };
        *self = next;
        settled
    }

    /// Stopped -> Removing: what is left of it, for the task that removes it. `None`: it is in another phase.
    pub(crate) fn lend(&mut self) -> Option<Box<Live>> {
        let mut lent = None;
        *self = match mem::replace(self, Self::Changing) {
            Self::Stopped(live, exit) => {
                lent = Some(live);
                Self::Removing(exit)
            }
            other => other,
        };
        lent
    }

    /// Removing -> Stopped: it could not be removed.
    pub(crate) fn give_back(&mut self, live: Box<Live>) {
        *self = match mem::replace(self, Self::Changing) {
            Self::Removing(exit) => Self::Stopped(live, exit),
            other => other,
        };
    }

    /// What there is of the container, while the driver has it.
    pub(crate) fn live(&self) -> Option<&Live> {
        match self {
            Self::Created(live) | Self::Running(live) | Self::Ending(live, _) | Self::Stopped(live, _) => {
                Some(live)
            }
            Self::Creating { .. } | Self::Removing(_) | Self::Changing => None,
        }
    }
}
