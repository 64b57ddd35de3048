//! nf_tables rules of attachments: elements of the sets of [`layout`], each with its owner in the comment.
//!
//! Adding is optimistic: elements only, one transaction. What is missing (the table, the chains of a network) is made when
//! the kernel says that it is.

pub(crate) mod forward;
pub(crate) mod layout;

use crate::failure::Coded;
use crate::owner::{Owner, network_of};
use coracle_cni_protocol::Code;
use coracle_linux::netlink::nftables::{
    self, Element, elements_add, elements_delete, elements_list, elements_read,
};
use coracle_linux::netlink::{Message, NetlinkError, Protocol, Socket};
use layout::{NetworkChain, TABLE};
use nix::errno::Errno;
use std::collections::HashSet;

/// How often a transaction is tried again when others change the ruleset meanwhile.
const ATTEMPTS: u32 = 50;

/// Rules could not be changed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RulesError {
    /// The kernel refused.
    #[error("nf_tables rules")]
    Kernel(#[from] NetlinkError),
    /// Somebody else has this key.
    #[error("{what} is already used by {owner}")]
    Taken {
        /// The key in words.
        what: String,
        /// The comment of the element there.
        owner: String,
    },
    /// The ruleset changed faster than it could be changed.
    #[error("nf_tables rules kept changing")]
    Unstable,
}

impl Coded for RulesError {
    fn code(&self) -> Code {
        Code::INTERNAL
    }
}

/// An element to add.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    /// Its set.
    pub(crate) set: String,
    /// The element, its comment naming the owner.
    pub(crate) element: Element,
    /// What to do when the key is there already.
    pub(crate) when_taken: WhenTaken,
}

/// What to do when an element's key is there already.
#[derive(Debug, Clone)]
pub(crate) enum WhenTaken {
    /// Another attachment's is stale: the address was given to this one. It gives way.
    Replace,
    /// Another attachment's is in use: that is an error, which names the key so.
    Refuse(String),
    /// It is the network's, and there it stays.
    Share,
}

/// A place in a set.
pub(crate) type Key = (String, Vec<u8>);

/// The rules of this host.
pub(crate) struct Rules(Socket);

impl Rules {
    /// Opens the way to the rules of the program's network namespace.
    pub(crate) fn open() -> Result<Self, RulesError> {
        Ok(Self(Socket::open(Protocol::Netfilter)?))
    }

    /// Fails when the kernel has no nf_tables.
    pub(crate) fn usable(&mut self) -> Result<(), RulesError> {
        nftables::generation(&mut self.0)?;
        Ok(())
    }

    /// Adds elements, all or none. `chains` are those of the network that they are for.
    pub(crate) fn add(
        &mut self,
        entries: &[Entry],
        network: &str,
        chains: &[NetworkChain],
    ) -> Result<(), RulesError> {
        if entries.is_empty() {
            return Ok(());
        }
        let changes = additions(entries);
        for _ in 0..ATTEMPTS {
            let refused = match nftables::commit(&mut self.0, None, changes.clone()) {
                Ok(()) => return Ok(()),
                Err(error) => error,
            };
            match refused.errno() {
                Some(Errno::ENOENT) => self.set_up(network, chains)?,
                Some(Errno::EEXIST | Errno::EBUSY) => {
                    if self.replace(entries)? {
                        return Ok(());
                    }
                }
                _ => return Err(refused.into()),
            }
        }
        Err(RulesError::Unstable)
    }

    /// Whether there is an element, whoever owns it.
    pub(crate) fn has(&mut self, (set, key): &Key) -> Result<bool, RulesError> {
        Ok(elements_read(&mut self.0, TABLE, set, key)?.is_some())
    }

    /// Of these places, those whose elements belong to the owner.
    pub(crate) fn owned(&mut self, owner: &Owner, places: &[Key]) -> Result<Vec<Key>, RulesError> {
        self.with_comment(&owner.comment(), places)
    }

    /// Of these places, those whose elements have this comment.
    pub(crate) fn with_comment(&mut self, comment: &str, places: &[Key]) -> Result<Vec<Key>, RulesError> {
        let mut found = Vec::new();
        for (set, key) in places {
            let element = elements_read(&mut self.0, TABLE, set, key)?;
            if element.is_some_and(|element| element.comment == comment) {
                found.push((set.clone(), key.clone()));
            }
        }
        Ok(found)
    }

    /// All places whose comment passes the test, in sets whose names begin with one of these. Reads all elements.
    pub(crate) fn find(
        &mut self,
        sets: &[&str],
        test: impl Fn(&str) -> bool,
    ) -> Result<Vec<Key>, RulesError> {
        let mut found = Vec::new();
        for set in nftables::set_names(&mut self.0, TABLE)? {
            if sets.iter().any(|begin| set.starts_with(begin)) {
                let elements = elements_list(&mut self.0, TABLE, &set)?;
                let own = elements.into_iter().filter(|element| test(&element.comment));
                found.extend(own.map(|element| (set.clone(), element.key)));
            }
        }
        Ok(found)
    }

    /// Deletes what `select` finds, in one transaction that only succeeds when nothing changed since it looked.
    pub(crate) fn remove(
        &mut self,
        select: impl Fn(&mut Self) -> Result<Vec<Key>, RulesError>,
    ) -> Result<Vec<Key>, RulesError> {
        for _ in 0..ATTEMPTS {
            let generation = nftables::generation(&mut self.0)?;
            let keys = select(self)?;
            if keys.is_empty() {
                return Ok(keys);
            }
            match nftables::commit(&mut self.0, Some(generation), deletions(&keys)) {
                Ok(()) => return Ok(keys),
                Err(error) if is_race(&error) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(RulesError::Unstable)
    }

    /// Deletes what belongs to an attachment. With `places` only these are looked at; without, all elements of the sets.
    pub(crate) fn remove_owner(
        &mut self,
        owner: &Owner,
        places: &[Key],
        sets: &[&str],
    ) -> Result<Vec<Key>, RulesError> {
        let comment = owner.comment();
        self.remove(|rules| match places {
            [] => rules.find(sets, |found| found == comment),
            places => rules.owned(owner, places),
        })
    }

    /// Deletes what belongs to attachments of the network that are not to be kept.
    pub(crate) fn collect(
        &mut self,
        network: &str,
        keep: &[Owner],
        sets: &[&str],
    ) -> Result<Vec<Key>, RulesError> {
        let keep: HashSet<_> = keep.iter().map(Owner::comment).collect();
        self.remove(|rules| {
            rules.find(sets, |comment| {
                // A comment without slash is the network's own and stays as long as the network.
                comment.contains('/') && network_of(comment) == network && !keep.contains(comment)
            })
        })
    }

    /// Deletes everything of a network, and the table when nothing of any network is left.
    pub(crate) fn remove_network(&mut self, network: &str) -> Result<(), RulesError> {
        self.remove(|rules| rules.find(&[""], |comment| network_of(comment) == network))?;
        for _ in 0..ATTEMPTS {
            let generation = nftables::generation(&mut self.0)?;
            let chains = nftables::chains(&mut self.0, TABLE)?;
            if chains.is_empty() {
                return Ok(());
            }
            let of_networks: Vec<_> = chains.iter().filter(|chain| chain.comment.is_some()).collect();
            let (own, others): (Vec<_>, Vec<_>) = of_networks
                .into_iter()
                .partition(|chain| network_of(chain.comment.as_deref().unwrap_or_default()) == network);
            let changes = if others.is_empty() && self.find(&[""], |_| true)?.is_empty() {
                vec![nftables::delete_table(TABLE)]
            } else {
                own.iter()
                    .flat_map(|chain| delete_network_chain(&chain.name))
                    .collect()
            };
            match nftables::commit(&mut self.0, Some(generation), changes) {
                Ok(()) => return Ok(()),
                Err(error) if is_race(&error) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(RulesError::Unstable)
    }

    /// Makes the table and the network's chains, unless somebody was faster.
    fn set_up(&mut self, network: &str, chains: &[NetworkChain]) -> Result<(), RulesError> {
        let mut wanted = vec![layout::table()];
        wanted.extend(chains.iter().map(|chain| chain.messages(network)));
        for changes in wanted {
            match nftables::commit(&mut self.0, None, changes) {
                Err(error) if error.errno() != Some(Errno::EEXIST) => return Err(error.into()),
                _ => {}
            }
        }
        Ok(())
    }

    /// Adds where keys are taken: the owner's own and stale elements give way, exclusive ones of others do not.
    /// False when the ruleset changed meanwhile.
    fn replace(&mut self, entries: &[Entry]) -> Result<bool, RulesError> {
        let generation = nftables::generation(&mut self.0)?;
        let mut old = Vec::new();
        for entry in entries
            .iter()
            .filter(|entry| !matches!(entry.when_taken, WhenTaken::Share))
        {
            let Some(found) = elements_read(&mut self.0, TABLE, &entry.set, &entry.element.key)? else {
                continue;
            };
            if let (WhenTaken::Refuse(what), true) =
                (&entry.when_taken, found.comment != entry.element.comment)
            {
                return Err(RulesError::Taken {
                    what: what.clone(),
                    owner: found.comment,
                });
            }
            old.push((entry.set.clone(), entry.element.key.clone()));
        }
        let mut changes = deletions(&old);
        changes.extend(additions(entries));
        match nftables::commit(&mut self.0, Some(generation), changes) {
            Ok(()) => Ok(true),
            Err(error) if is_race(&error) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }
}

/// Another transaction came between: try again.
fn is_race(error: &NetlinkError) -> bool {
    matches!(
        error.errno(),
        Some(Errno::ERESTART | Errno::ENOENT | Errno::EEXIST | Errno::EBUSY)
    )
}

fn additions(entries: &[Entry]) -> Vec<Message> {
    let one = |entry: &Entry| {
        let exclusive = !matches!(entry.when_taken, WhenTaken::Share);
        elements_add(TABLE, &entry.set, std::slice::from_ref(&entry.element), exclusive)
    };
    entries.iter().flat_map(one).collect()
}

fn deletions(keys: &[Key]) -> Vec<Message> {
    let mut sets: Vec<_> = keys.iter().map(|(set, _)| set.as_str()).collect();
    sets.sort_unstable();
    sets.dedup();
    let of = |set: &str| -> Vec<Vec<u8>> {
        keys.iter()
            .filter(|(other, _)| other == set)
            .map(|(_, key)| key.clone())
            .collect()
    };
    sets.into_iter()
        .flat_map(|set| elements_delete(TABLE, set, &of(set)))
        .collect()
}

/// The chain of a network and the set of its name.
fn delete_network_chain(name: &str) -> [Message; 3] {
    [
        nftables::flush_chain(TABLE, name),
        nftables::delete_chain(TABLE, name),
        nftables::delete_set(TABLE, name),
    ]
}
