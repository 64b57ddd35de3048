//! Rules that exist, and tables for one family of addresses only: those that iptables keeps.
//!
//! iptables refuses a table in which there is something that it cannot read. So what is added to its tables is written as
//! it would write it itself: see [`Expressions::iptables_state`](super::Expressions::iptables_state).

use super::super::{Attributes, Message, NetlinkError, Socket};
use super::comment::read_comment;
use super::object::{
    Chain, GET_CHAIN, RULE_CHAIN, RULE_TABLE, RULE_USERDATA, TABLE_NAME, TABLE_USERDATA, read_chains,
};
use super::{Expressions, add_rule, request};
use nix::errno::Errno;

const GET_TABLE: u16 = 1;
const GET_RULE: u16 = 7;
const DELETE_RULE: u16 = 8;
const NEW_RULE: u16 = 6;
const RULE_HANDLE: u16 = 3;
const RULE_EXPRESSIONS: u16 = 4;
const CREATE: u16 = 0x400;

/// A table for packets of one family. Tables of different families may share a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// IPv4.
    V4 = 2,
    /// IPv6.
    V6 = 10,
}

/// A rule that exists.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// Its number in its table.
    pub handle: u64,
    /// Its comment.
    pub comment: Option<String>,
}

impl Family {
    /// The same request about a table of this family.
    pub fn of(self, message: Message) -> Message {
        message.of_family(self as u8)
    }

    /// The comment of a table; none when there is no such table, or it has none.
    pub fn table_comment(self, socket: &mut Socket, table: &str) -> Result<Option<String>, NetlinkError> {
        let message = request("read table", GET_TABLE, 0).with_text(TABLE_NAME, table);
        let found = none_if_missing(socket.fetch(&self.of(message)))?;
        let comment = |body: &Vec<u8>| {
            Attributes(body.get(4..)?)
                .find(TABLE_USERDATA)
                .and_then(read_comment)
        };
        Ok(found.iter().find_map(comment))
    }

    /// The chains of a table; none when there is no such table.
    pub fn chains(self, socket: &mut Socket, table: &str) -> Result<Vec<Chain>, NetlinkError> {
        let message = self.of(request("list chains", GET_CHAIN, 0));
        read_chains(socket, &message, table)
    }

    /// The rules of a chain, in order; none when there is no such chain.
    pub fn rules(self, socket: &mut Socket, table: &str, chain: &str) -> Result<Vec<Rule>, NetlinkError> {
        let message = request("list rules", GET_RULE, 0)
            .with_text(RULE_TABLE, table)
            .with_text(RULE_CHAIN, chain);
        let found = none_if_missing(socket.dump(&self.of(message)))?;
        let rule = |body: &Vec<u8>| {
            let attributes = Attributes(body.get(4..)?);
            let of_chain = attributes.text(RULE_TABLE)? == table && attributes.text(RULE_CHAIN)? == chain;
            let handle: [u8; 8] = attributes.find(RULE_HANDLE)?.try_into().ok()?;
            of_chain.then(|| Rule {
                handle: u64::from_be_bytes(handle),
                comment: attributes.find(RULE_USERDATA).and_then(read_comment),
            })
        };
        Ok(found.iter().filter_map(rule).collect())
    }

    /// Adds a rule behind the others.
    pub fn append_rule(self, table: &str, chain: &str, expressions: Expressions, text: &str) -> Message {
        self.of(add_rule(table, chain, expressions, text))
    }

    /// Adds a rule before all others.
    pub fn insert_rule(self, table: &str, chain: &str, expressions: Expressions, text: &str) -> Message {
        let message = request("insert rule", NEW_RULE, CREATE)
            .with_text(RULE_TABLE, table)
            .with_text(RULE_CHAIN, chain)
            .with_nested(RULE_EXPRESSIONS, |list| expressions.append_to(list))
            .with(RULE_USERDATA, &super::comment(text));
        self.of(message)
    }

    /// Deletes a rule; refused with `ENOENT` when it is not there.
    pub fn delete_rule(self, table: &str, chain: &str, handle: u64) -> Message {
        let message = request("delete rule", DELETE_RULE, 0)
            .with_text(RULE_TABLE, table)
            .with_text(RULE_CHAIN, chain)
            .with(RULE_HANDLE, &handle.to_be_bytes());
        self.of(message)
    }
}

fn none_if_missing(found: Result<Vec<Vec<u8>>, NetlinkError>) -> Result<Vec<Vec<u8>>, NetlinkError> {
    match found {
        Err(error) if error.errno() == Some(Errno::ENOENT) => Ok(Vec::new()),
        other => other,
    }
}
