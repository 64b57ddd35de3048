//! Tables, chains, rules and sets.

use super::super::{Attributes, Message, NetlinkError, Socket};
use nix::errno::Errno;

use super::comment::{comment, read_comment};
use super::{APPEND, CREATE, EXCLUSIVE, Expressions, request};

const NEW_TABLE: u16 = 0;
const DELETE_TABLE: u16 = 2;
const NEW_CHAIN: u16 = 3;
pub(super) const GET_CHAIN: u16 = 4;
const DELETE_CHAIN: u16 = 5;
const NEW_RULE: u16 = 6;
const DELETE_RULE: u16 = 8;
const NEW_SET: u16 = 9;
const GET_SET: u16 = 10;
const DELETE_SET: u16 = 11;

pub(super) const TABLE_NAME: u16 = 1;
pub(super) const TABLE_USERDATA: u16 = 6;
const CHAIN_TABLE: u16 = 1;
const CHAIN_NAME: u16 = 3;
const CHAIN_HOOK: u16 = 4;
const CHAIN_POLICY: u16 = 5;
const CHAIN_TYPE: u16 = 7;
const CHAIN_USERDATA: u16 = 12;
const HOOK_NUMBER: u16 = 1;
const HOOK_PRIORITY: u16 = 2;
pub(super) const RULE_TABLE: u16 = 1;
pub(super) const RULE_CHAIN: u16 = 2;
const RULE_EXPRESSIONS: u16 = 4;
pub(super) const RULE_USERDATA: u16 = 7;
const SET_TABLE: u16 = 1;
const SET_NAME: u16 = 2;
const SET_FLAGS: u16 = 3;
const SET_KEY_TYPE: u16 = 4;
const SET_KEY_LENGTH: u16 = 5;
const SET_DATA_TYPE: u16 = 6;
const SET_DATA_LENGTH: u16 = 7;
const SET_ID: u16 = 10;
const SET_USERDATA: u16 = 13;
/// Userdata of a set as nft reads it: type 0 (byte order of keys), length, 1 (the machine's).
const HOST_ORDER: [u8; 6] = [0, 4, 1, 0, 0, 0];
const SET_IS_MAP: u32 = 8;
const POLICY_DROP: u32 = 0;
const POLICY_ACCEPT: u32 = 1;

/// Where in a packet's way a chain stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hook {
    /// Before the routing decision.
    Prerouting = 0,
    /// On its way through this host.
    Forward = 2,
    /// Made by this host.
    Output = 3,
    /// About to leave.
    Postrouting = 4,
}

/// What a base chain may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChainKind {
    /// Accept and drop.
    Filter,
    /// Translate addresses; sees the first packet of a connection only.
    Nat,
}

/// How a chain is tied to a hook.
#[derive(Debug, Clone, Copy)]
pub struct BaseChain {
    /// Filter or nat.
    pub kind: ChainKind,
    /// Where.
    pub hook: Hook,
    /// Order among the chains of that hook; lower is earlier.
    pub priority: i32,
}

/// A chain that exists.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chain {
    /// Table it is in.
    pub table: String,
    /// Its name.
    pub name: String,
    /// Its comment.
    pub comment: Option<String>,
    /// What no rule decides about is dropped (a base chain's policy).
    pub drops: bool,
}

/// What a set maps its keys to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SetKind {
    /// Nothing: membership only.
    Set,
    /// Bytes of this nft data type and length.
    Map {
        /// Data type as nft numbers them, for listings.
        data_type: u32,
        /// In bytes.
        data_bytes: u32,
    },
}

/// A set to make.
#[derive(Debug, Clone, Copy)]
pub struct Set<'a> {
    /// Its name.
    pub name: &'a str,
    /// Key type as nft numbers them, for listings; parts of a concatenation are six bits each.
    pub key_type: u32,
    /// In bytes; parts of a concatenation are padded to four.
    pub key_bytes: u32,
    /// What keys map to.
    pub kind: SetKind,
    /// Keys are in the machine's byte order (interface names are, for nft); only listings depend on it.
    pub host_order: bool,
}

/// Makes a table; refused with `EEXIST` when there is one.
pub fn add_table(name: &str, text: &str) -> Message {
    request("make table", NEW_TABLE, CREATE | EXCLUSIVE)
        .with_text(TABLE_NAME, name)
        .with(TABLE_USERDATA, &comment(text))
}

/// Deletes a table with all that is in it.
pub fn delete_table(name: &str) -> Message {
    request("delete table", DELETE_TABLE, 0).with_text(TABLE_NAME, name)
}

/// Makes a chain, with a hook a base chain with policy accept; refused with `EEXIST` when there is one.
pub fn add_chain(table: &str, name: &str, base: Option<BaseChain>, text: &str) -> Message {
    let message = request("make chain", NEW_CHAIN, CREATE | EXCLUSIVE)
        .with_text(CHAIN_TABLE, table)
        .with_text(CHAIN_NAME, name);
    let message = if text.is_empty() {
        message
    } else {
        message.with(CHAIN_USERDATA, &comment(text))
    };
    let Some(base) = base else { return message };
    let kind = match base.kind {
        ChainKind::Filter => "filter",
        ChainKind::Nat => "nat",
    };
    message
        .with_nested(CHAIN_HOOK, |hook| {
            hook.with_be32(HOOK_NUMBER, base.hook as u32)
                .with(HOOK_PRIORITY, &base.priority.to_be_bytes())
        })
        .with_be32(CHAIN_POLICY, POLICY_ACCEPT)
        .with_text(CHAIN_TYPE, kind)
}

/// Deletes an empty chain that nothing jumps to.
pub fn delete_chain(table: &str, name: &str) -> Message {
    request("delete chain", DELETE_CHAIN, 0)
        .with_text(CHAIN_TABLE, table)
        .with_text(CHAIN_NAME, name)
}

/// Deletes all rules of a chain.
pub fn flush_chain(table: &str, name: &str) -> Message {
    request("flush chain", DELETE_RULE, 0)
        .with_text(RULE_TABLE, table)
        .with_text(RULE_CHAIN, name)
}

/// Appends a rule.
pub fn add_rule(table: &str, chain: &str, expressions: Expressions, text: &str) -> Message {
    let message = request("add rule", NEW_RULE, CREATE | APPEND)
        .with_text(RULE_TABLE, table)
        .with_text(RULE_CHAIN, chain)
        .with_nested(RULE_EXPRESSIONS, |list| expressions.append_to(list));
    if text.is_empty() {
        message
    } else {
        message.with(RULE_USERDATA, &comment(text))
    }
}

/// Makes a set or map; refused with `EEXIST` when there is one. `id` must be unique in the transaction.
pub fn add_set(table: &str, set: &Set<'_>, id: u32) -> Message {
    let message = request("make set", NEW_SET, CREATE | EXCLUSIVE)
        .with_text(SET_TABLE, table)
        .with_text(SET_NAME, set.name)
        .with_be32(SET_KEY_TYPE, set.key_type)
        .with_be32(SET_KEY_LENGTH, set.key_bytes)
        .with_be32(SET_ID, id);
    let message = if set.host_order {
        message.with(SET_USERDATA, &HOST_ORDER)
    } else {
        message
    };
    match set.kind {
        SetKind::Set => message.with_be32(SET_FLAGS, 0),
        SetKind::Map {
            data_type,
            data_bytes,
        } => message
            .with_be32(SET_FLAGS, SET_IS_MAP)
            .with_be32(SET_DATA_TYPE, data_type)
            .with_be32(SET_DATA_LENGTH, data_bytes),
    }
}

/// Deletes a set that no rule uses.
pub fn delete_set(table: &str, name: &str) -> Message {
    request("delete set", DELETE_SET, 0)
        .with_text(SET_TABLE, table)
        .with_text(SET_NAME, name)
}

/// The names of a table's sets and maps; none when there is no such table.
pub fn set_names(socket: &mut Socket, table: &str) -> Result<Vec<String>, NetlinkError> {
    let found = match socket.dump(&request("list sets", GET_SET, 0).with_text(SET_TABLE, table)) {
        Err(error) if error.errno() == Some(Errno::ENOENT) => return Ok(Vec::new()),
        other => other?,
    };
    Ok(found
        .iter()
        .filter_map(|body| Attributes(body.get(4..)?).text(SET_NAME))
        .collect())
}

/// All chains of a table.
pub fn chains(socket: &mut Socket, table: &str) -> Result<Vec<Chain>, NetlinkError> {
    read_chains(socket, &request("list chains", GET_CHAIN, 0), table)
}

pub(super) fn read_chains(
    socket: &mut Socket,
    message: &Message,
    table: &str,
) -> Result<Vec<Chain>, NetlinkError> {
    let found = socket.dump(message)?;
    let chains = found.iter().filter_map(|body| {
        let attributes = Attributes(body.get(4..)?);
        Some(Chain {
            table: attributes.text(CHAIN_TABLE)?,
            name: attributes.text(CHAIN_NAME)?,
            comment: attributes.find(CHAIN_USERDATA).and_then(read_comment),
            drops: attributes.be32(CHAIN_POLICY) == Some(POLICY_DROP),
        })
    });
    Ok(chains.filter(|chain| chain.table == table).collect())
}
