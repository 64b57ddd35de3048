//! nf_tables: tables, chains, rules, sets and maps, changed in transactions.
//!
//! A transaction is a batch of messages between two brackets: the kernel does all of it or nothing. With a
//! [`Generation`] it is also a compare-and-swap: refused with `ERESTART` when the ruleset changed since that was read.
//! Source: include/uapi/linux/netfilter/nf_tables.h and nfnetlink.h.

mod comment;
mod element;
mod expression;
mod object;
mod rule;

pub use comment::comment;
pub use element::{Data, Element, elements_add, elements_delete, elements_list, elements_read};
pub use expression::{Base, CtKey, Expressions, MetaKey, Register, Verdict};
pub use object::{
    BaseChain, Chain, ChainKind, Hook, Set, SetKind, add_chain, add_rule, add_set, add_table, chains,
    delete_chain, delete_set, delete_table, flush_chain, set_names,
};
pub use rule::{Family, Rule};

use super::{Attributes, Message, NetlinkError, Socket};

const SUBSYSTEM: u16 = 10;
const BATCH_BEGIN: u16 = 0x10;
const BATCH_END: u16 = 0x11;
const BATCH_GENERATION: u16 = 1;
const GET_GENERATION: u16 = 16;
const GENERATION_ID: u16 = 1;
/// Rules for IPv4 and IPv6 in one table (`NFPROTO_INET`).
const INET: u8 = 1;

const CREATE: u16 = 0x400;
const EXCLUSIVE: u16 = 0x200;
const APPEND: u16 = 0x800;

/// The number of a state of the whole ruleset.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Generation(u32);

/// The present generation.
pub fn generation(socket: &mut Socket) -> Result<Generation, NetlinkError> {
    let found = socket.fetch(&request("read generation", GET_GENERATION, 0))?;
    let body = found
        .first()
        .and_then(|body| body.get(4..))
        .ok_or(NetlinkError::Malformed)?;
    Attributes(body)
        .be32(GENERATION_ID)
        .map(Generation)
        .ok_or(NetlinkError::Malformed)
}

/// Does all these changes or none; with a generation only if nothing changed since.
pub fn commit(
    socket: &mut Socket,
    since: Option<Generation>,
    changes: Vec<Message>,
) -> Result<(), NetlinkError> {
    let mut begin = bracket("begin nf_tables transaction", BATCH_BEGIN);
    if let Some(Generation(id)) = since {
        begin = begin.with_be32(BATCH_GENERATION, id);
    }
    let mut batch = vec![begin];
    batch.extend(changes);
    batch.push(bracket("end nf_tables transaction", BATCH_END));
    socket.transaction(&batch)
}

fn bracket(label: &'static str, kind: u16) -> Message {
    let [high, low] = SUBSYSTEM.to_be_bytes();
    Message::new(label, kind, 0, &[0, 0, high, low])
}

/// `struct nfgenmsg`: family, version, resource.
fn request(label: &'static str, kind: u16, flags: u16) -> Message {
    Message::new(label, SUBSYSTEM << 8 | kind, flags, &[INET, 0, 0, 0])
}
