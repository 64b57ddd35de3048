//! `process.capabilities`: five sets, cut to what this process holds.

use std::str::FromStr as _;

use oci_spec::runtime::{Capabilities, LinuxCapabilities};
use rustix::thread::{self, CapabilitySet};

use super::{IdentityError, refused};

const FIELD: &str = "process.capabilities";

/// The sets a process gets; without a field all of them are empty.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct CapabilitySets {
    /// The most an execve can give.
    pub(crate) bounding: CapabilitySet,
    /// What the process can make effective.
    pub(crate) permitted: CapabilitySet,
    /// What counts now.
    pub(crate) effective: CapabilitySet,
    /// What an execve of a file with capabilities passes on.
    pub(crate) inheritable: CapabilitySet,
    /// What any execve keeps.
    pub(crate) ambient: CapabilitySet,
}

/// The capability of this name (`CAP_` and case are optional), as a set of one.
#[must_use]
pub(crate) fn by_name(name: &str) -> Option<CapabilitySet> {
    let known = caps::Capability::from_str(&caps::to_canonical(name)).ok()?;
    Some(CapabilitySet::from_bits_retain(known.bitmask()))
}

/// The names of all capabilities there are, in the kernel's order.
#[must_use]
pub(crate) fn known() -> Vec<String> {
    let mut all: Vec<caps::Capability> = caps::all().into_iter().collect();
    all.sort_by_key(caps::Capability::index);
    all.iter().map(ToString::to_string).collect()
}

pub(super) fn plan(capabilities: Option<&LinuxCapabilities>) -> CapabilitySets {
    let set = |of: fn(&LinuxCapabilities) -> &Option<Capabilities>| {
        let named = capabilities.and_then(|capabilities| of(capabilities).as_ref());
        named
            .into_iter()
            .flatten()
            .filter_map(|name| by_name(&name.to_string()))
            .collect()
    };
    CapabilitySets {
        bounding: set(LinuxCapabilities::bounding),
        permitted: set(LinuxCapabilities::permitted),
        effective: set(LinuxCapabilities::effective),
        inheritable: set(LinuxCapabilities::inheritable),
        ambient: set(LinuxCapabilities::ambient),
    }
}

impl CapabilitySets {
    /// Takes everything else out of the bounding set.
    pub(super) fn drop_bounding(&self) -> Result<(), IdentityError> {
        for number in 0..64 {
            let one = CapabilitySet::from_bits_retain(1 << number);
            if self.bounding.contains(one) {
                continue;
            }
            match thread::remove_capability_from_bounding_set(one) {
                Ok(()) => {}
                // The first number that this kernel has no capability for.
                Err(rustix::io::Errno::INVAL) => break,
                Err(errno) => return Err(refused(FIELD, "drop from the bounding set")(errno)),
            }
        }
        Ok(())
    }

    /// Gives all capabilities away that are neither in one of the sets nor `needed` on the way there.
    pub(super) fn keep_beside(&self, needed: CapabilitySet) -> Result<(), IdentityError> {
        let held = thread::capabilities(None).map_err(refused(FIELD, "read the own ones"))?;
        let own = self.permitted | self.effective | self.inheritable | self.ambient;
        let kept = held.permitted & (own | needed);
        let sets = thread::CapabilitySets {
            permitted: kept,
            effective: kept,
            inheritable: held.inheritable,
        };
        thread::set_capabilities(None, sets).map_err(refused(FIELD, "give away"))
    }

    /// Sets the other four, as far as this process may: what it does not hold, it cannot give. Where a filter will need
    /// CAP_SYS_ADMIN and these sets lack it, it stays permitted, as the [`Privilege`] that is returned.
    pub(super) fn apply(&self, for_filter: bool) -> Result<Option<Privilege>, IdentityError> {
        let held = thread::capabilities(None).map_err(refused(FIELD, "read the own ones"))?;
        let permitted = self.permitted & held.permitted;
        let sets = thread::CapabilitySets {
            permitted,
            effective: self.effective & permitted,
            inheritable: self.inheritable & (held.permitted | held.inheritable),
        };
        let admin = CapabilitySet::SYS_ADMIN & held.permitted;
        let privilege = (for_filter && !sets.effective.contains(admin)).then(|| Privilege {
            raised: thread::CapabilitySets {
                permitted: permitted | admin,
                effective: sets.effective | admin,
                ..sets
            },
            given_up: sets,
        });
        let now = privilege.as_ref().map_or(sets, Privilege::kept);
        thread::set_capabilities(None, now).map_err(refused(FIELD, "set"))?;
        thread::set_keep_capabilities(false).map_err(refused(FIELD, "end keeping them"))?;
        self.raise_ambient(sets.permitted & sets.inheritable)?;
        Ok(privilege)
    }

    fn raise_ambient(&self, possible: CapabilitySet) -> Result<(), IdentityError> {
        thread::clear_ambient_capability_set().map_err(refused(FIELD, "clear the ambient set"))?;
        let wanted = self.ambient & possible;
        for number in (0..64).filter(|number| wanted.bits() & (1 << number) != 0) {
            let one = CapabilitySet::from_bits_retain(1 << number);
            thread::configure_capability_in_ambient_set(one, true)
                .map_err(refused(FIELD, "raise in the ambient set"))?;
        }
        Ok(())
    }
}

/// CAP_SYS_ADMIN beside the sets of a process, for one call: to load a filter without no_new_privs (seccomp(2)).
#[derive(Clone, Copy, Debug)]
pub(super) struct Privilege {
    raised: thread::CapabilitySets,
    given_up: thread::CapabilitySets,
}

impl Privilege {
    /// Permitted, so that it can be raised, and of no effect yet.
    fn kept(&self) -> thread::CapabilitySets {
        thread::CapabilitySets {
            permitted: self.raised.permitted,
            ..self.given_up
        }
    }

    pub(super) fn raise(&self) -> Result<(), IdentityError> {
        thread::set_capabilities(None, self.raised).map_err(refused(FIELD, "raise CAP_SYS_ADMIN"))
    }

    pub(super) fn give_up(&self) -> std::io::Result<()> {
        Ok(thread::set_capabilities(None, self.given_up)?)
    }
}
