//! Accepts in the chain FORWARD of iptables: `ip filter` and `ip6 filter`.
//!
//! ```text
//!  FORWARD (policy drop, or rules that drop)
//!    jump CORACLE-FORWARD                      first of all, with the comment "coracle"
//!  CORACLE-FORWARD
//!    to the container, of a known connection   accept, with the owner as comment
//!    from the container                        accept, with the owner as comment
//! ```
//!
//! A packet has to pass every chain of a hook, so that no table of ours can undo what another one drops: the accept has to
//! be in that chain. Docker, ufw and many others set its policy to drop. Table and chain are made when they are missing,
//! as iptables makes them: a policy may come later than the container.

use super::{ATTEMPTS, RulesError, is_race};
use crate::owner::{Owner, network_of};
use coracle_linux::netlink::nftables::{
    self, BaseChain, ChainKind, CtKey, Expressions, Family, Hook, Register, Rule, Verdict,
};
use coracle_linux::netlink::{Message, NetlinkError, Protocol, Socket};
use nix::errno::Errno;
use std::net::IpAddr;

const TABLE: &str = "filter";
const CHAIN: &str = "FORWARD";
const OWN_CHAIN: &str = "CORACLE-FORWARD";
/// Comment of the jump.
const JUMP: &str = "coracle";
/// Comment of a table that was made here.
const TABLE_COMMENT: &str = "Coracle CNI";
const FAMILIES: [Family; 2] = [Family::V4, Family::V6];
const ESTABLISHED_OR_RELATED: u16 = 2 | 4;

/// The chains of this host.
pub(crate) struct Forward(Socket);

/// How the state of a connection is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    /// So that iptables can read it.
    Iptables,
    /// For a kernel without `nft_compat`, where iptables cannot be in use on nf_tables.
    Native,
}

impl Forward {
    /// Opens the way to the rules of the program's network namespace.
    pub(crate) fn open() -> Result<Self, RulesError> {
        Ok(Self(Socket::open(Protocol::Netfilter)?))
    }

    /// Accepts what these addresses send, and the answers to it.
    pub(crate) fn accept(&mut self, owner: &Owner, addresses: &[IpAddr]) -> Result<(), RulesError> {
        for family in FAMILIES {
            let mine: Vec<_> = addresses.iter().filter(|one| family_of(one) == family).collect();
            if mine.is_empty() {
                continue;
            }
            let rules = |form| -> Vec<Message> {
                let of = |address: &&IpAddr| accepts(**address, form, &owner.comment());
                mine.iter().flat_map(of).collect()
            };
            match self.add(family, &rules(Form::Iptables)) {
                Err(RulesError::Kernel(error)) if error.errno() == Some(Errno::ENOENT) => {
                    self.add(family, &rules(Form::Native))?;
                }
                other => other?,
            }
        }
        Ok(())
    }

    /// Whether these addresses are accepted.
    pub(crate) fn accepts(&mut self, owner: &Owner, addresses: &[IpAddr]) -> Result<bool, RulesError> {
        let comment = owner.comment();
        for family in FAMILIES {
            let wanted = addresses.iter().filter(|one| family_of(one) == family).count();
            let rules = family.rules(&mut self.0, TABLE, OWN_CHAIN)?;
            let found = rules
                .iter()
                .filter(|rule| rule.comment.as_ref() == Some(&comment));
            if found.count() < wanted * 2 || wanted > 0 && self.jumps(family)?.is_empty() {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Deletes the rules whose comment passes the test; returns whether there were any.
    pub(crate) fn remove(&mut self, test: impl Fn(&str) -> bool) -> Result<bool, RulesError> {
        let mut removed = false;
        for family in FAMILIES {
            removed |= self.change(|forward| {
                let rules = family.rules(&mut forward.0, TABLE, OWN_CHAIN)?;
                let fits = |rule: &&Rule| rule.comment.as_deref().is_some_and(&test);
                let delete = |rule: &Rule| family.delete_rule(TABLE, OWN_CHAIN, rule.handle);
                Ok(rules.iter().filter(fits).map(delete).collect())
            })?;
        }
        Ok(removed)
    }

    /// Deletes the rules of a network's attachments that are not to be kept.
    pub(crate) fn collect(&mut self, network: &str, keep: &[Owner]) -> Result<(), RulesError> {
        let keep: Vec<_> = keep.iter().map(Owner::comment).collect();
        self.remove(|comment| network_of(comment) == network && !keep.iter().any(|kept| kept == comment))?;
        Ok(())
    }

    /// Deletes all rules of a network, and the chain when nothing of any network is left.
    pub(crate) fn remove_network(&mut self, network: &str) -> Result<(), RulesError> {
        self.remove(|comment| network_of(comment) == network)?;
        for family in FAMILIES {
            self.change(|forward| forward.clean_up(family))?;
        }
        Ok(())
    }

    fn add(&mut self, family: Family, rules: &[Message]) -> Result<(), RulesError> {
        let mut made = false;
        for _ in 0..ATTEMPTS {
            let mut changes = Vec::new();
            let generation = nftables::generation(&mut self.0)?;
            let jumps = !self.jumps(family)?.is_empty();
            if !jumps {
                let jump = Expressions::new()
                    .counter()
                    .verdict(Verdict::Jump(OWN_CHAIN.to_owned()));
                changes.push(family.insert_rule(TABLE, CHAIN, jump, JUMP));
            }
            changes.extend_from_slice(rules);
            // With a jump there, the rules depend on nothing that others change.
            match nftables::commit(&mut self.0, Some(generation).filter(|_| !jumps), changes) {
                Ok(()) => return Ok(()),
                Err(error) if error.errno() == Some(Errno::ENOENT) && !made => {
                    self.make_chains(family)?;
                    made = true;
                }
                Err(error) if error.errno() == Some(Errno::ERESTART) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(RulesError::Unstable)
    }

    /// Makes what is missing of table and chains, as iptables would.
    fn make_chains(&mut self, family: Family) -> Result<(), RulesError> {
        let forward = BaseChain {
            kind: ChainKind::Filter,
            hook: Hook::Forward,
            priority: 0,
        };
        let wanted = [
            nftables::add_table(TABLE, TABLE_COMMENT),
            nftables::add_chain(TABLE, CHAIN, Some(forward), ""),
            nftables::add_chain(TABLE, OWN_CHAIN, None, ""),
        ];
        for message in wanted {
            match nftables::commit(&mut self.0, None, vec![family.of(message)]) {
                Err(error) if error.errno() != Some(Errno::EEXIST) => return Err(error.into()),
                Ok(()) | Err(_) => {}
            }
        }
        Ok(())
    }

    fn jumps(&mut self, family: Family) -> Result<Vec<Rule>, NetlinkError> {
        let mut rules = family.rules(&mut self.0, TABLE, CHAIN)?;
        rules.retain(|rule| rule.comment.as_deref() == Some(JUMP));
        Ok(rules)
    }

    /// What takes the empty chain back, and the table if nobody else has put anything into it.
    fn clean_up(&mut self, family: Family) -> Result<Vec<Message>, NetlinkError> {
        let chains = family.chains(&mut self.0, TABLE)?;
        let is_there = chains.iter().any(|chain| chain.name == OWN_CHAIN);
        if !is_there || !family.rules(&mut self.0, TABLE, OWN_CHAIN)?.is_empty() {
            return Ok(Vec::new());
        }
        let jumps = self.jumps(family)?;
        let others = chains
            .iter()
            .any(|chain| chain.name != OWN_CHAIN && (chain.name != CHAIN || chain.drops));
        let own_table = family.table_comment(&mut self.0, TABLE)?.as_deref() == Some(TABLE_COMMENT);
        if own_table && !others && family.rules(&mut self.0, TABLE, CHAIN)?.len() == jumps.len() {
            return Ok(vec![family.of(nftables::delete_table(TABLE))]);
        }
        let delete = |rule: &Rule| family.delete_rule(TABLE, CHAIN, rule.handle);
        let mut changes: Vec<_> = jumps.iter().map(delete).collect();
        changes.push(family.of(nftables::delete_chain(TABLE, OWN_CHAIN)));
        Ok(changes)
    }

    /// Makes the changes that `plan` finds in one transaction, which only succeeds when nothing changed since it looked.
    /// Returns whether there were any.
    fn change(
        &mut self,
        plan: impl Fn(&mut Self) -> Result<Vec<Message>, NetlinkError>,
    ) -> Result<bool, RulesError> {
        for _ in 0..ATTEMPTS {
            let generation = nftables::generation(&mut self.0)?;
            let changes = plan(self)?;
            if changes.is_empty() {
                return Ok(false);
            }
            match nftables::commit(&mut self.0, Some(generation), changes) {
                Ok(()) => return Ok(true),
                Err(error) if is_race(&error) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(RulesError::Unstable)
    }
}

fn family_of(address: &IpAddr) -> Family {
    match address {
        IpAddr::V4(_) => Family::V4,
        IpAddr::V6(_) => Family::V6,
    }
}

fn accepts(address: IpAddr, form: Form, comment: &str) -> [Message; 2] {
    let family = family_of(&address);
    let v6 = address.is_ipv6();
    let bytes = match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    };
    let to = Expressions::new()
        .destination(v6, Register(0))
        .equals(Register(0), &bytes);
    let to = match form {
        Form::Iptables => to.iptables_state(ESTABLISHED_OR_RELATED),
        Form::Native => to
            .ct(CtKey::State, Register(0))
            .any_bit(Register(0), u32::from(ESTABLISHED_OR_RELATED)),
    };
    let from = Expressions::new()
        .source(v6, Register(0))
        .equals(Register(0), &bytes);
    [to, from].map(|rule| {
        let rule = rule.counter().verdict(Verdict::Accept);
        family.append_rule(TABLE, OWN_CHAIN, rule, comment)
    })
}
