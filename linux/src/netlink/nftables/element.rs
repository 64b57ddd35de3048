//! Elements of sets and maps, each with a comment that names its owner.

use super::super::{Attributes, Message, NetlinkError, Socket};
use super::comment::{comment, read_comment};
use super::{CREATE, EXCLUSIVE, request};
use nix::errno::Errno;

const NEW_ELEMENT: u16 = 12;
const GET_ELEMENT: u16 = 13;
const DELETE_ELEMENT: u16 = 14;
const LIST_TABLE: u16 = 1;
const LIST_SET: u16 = 2;
const LIST_ELEMENTS: u16 = 3;
const LIST_ITEM: u16 = 1;
const ELEMENT_KEY: u16 = 1;
const ELEMENT_DATA: u16 = 2;
const ELEMENT_USERDATA: u16 = 6;
pub(super) const DATA_VALUE: u16 = 1;
/// Elements per message: an attribute ends at 64 KiB and an element takes up to some 400 bytes.
const PER_MESSAGE: usize = 100;

/// What a key maps to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Data {
    /// In a set: nothing.
    None,
    /// In a map: these bytes.
    Value(Vec<u8>),
}

/// An element of a set or map.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Element {
    /// The key; parts of a concatenation padded to four bytes.
    pub key: Vec<u8>,
    /// What it maps to.
    pub data: Data,
    /// Who owns it.
    pub comment: String,
}

/// Adds elements. Exclusive ones are refused with `EEXIST` when one of the keys is taken, others when it maps to
/// something else.
pub fn elements_add(table: &str, set: &str, elements: &[Element], exclusive: bool) -> Vec<Message> {
    let one = |element: &Element, item: Message| {
        let item = item.with_nested(ELEMENT_KEY, |key| key.with(DATA_VALUE, &element.key));
        let item = match &element.data {
            Data::None => item,
            Data::Value(bytes) => item.with_nested(ELEMENT_DATA, |data| data.with(DATA_VALUE, bytes)),
        };
        item.with(ELEMENT_USERDATA, &comment(&element.comment))
    };
    let flags = if exclusive { CREATE | EXCLUSIVE } else { CREATE };
    elements
        .chunks(PER_MESSAGE)
        .map(|part| list("add elements", NEW_ELEMENT, flags, table, set, part, one))
        .collect()
}

/// Deletes elements; refused with `ENOENT` when one of the keys is not there.
pub fn elements_delete(table: &str, set: &str, keys: &[Vec<u8>]) -> Vec<Message> {
    let one = |key: &Vec<u8>, item: Message| item.with_nested(ELEMENT_KEY, |data| data.with(DATA_VALUE, key));
    keys.chunks(PER_MESSAGE)
        .map(|part| list("delete elements", DELETE_ELEMENT, 0, table, set, part, one))
        .collect()
}

/// The element with this key.
pub fn elements_read(
    socket: &mut Socket,
    table: &str,
    set: &str,
    key: &[u8],
) -> Result<Option<Element>, NetlinkError> {
    let one = |key: &Vec<u8>, item: Message| item.with_nested(ELEMENT_KEY, |data| data.with(DATA_VALUE, key));
    let message = list("read element", GET_ELEMENT, 0, table, set, &[key.to_vec()], one);
    match socket.fetch(&message) {
        Ok(bodies) => Ok(bodies.iter().flat_map(|body| parse(body)).next()),
        Err(error) if error.errno() == Some(Errno::ENOENT) => Ok(None),
        Err(error) => Err(error),
    }
}

/// All elements of a set; none when the set does not exist.
pub fn elements_list(socket: &mut Socket, table: &str, set: &str) -> Result<Vec<Element>, NetlinkError> {
    let message = request("list elements", GET_ELEMENT, 0)
        .with_text(LIST_TABLE, table)
        .with_text(LIST_SET, set);
    match socket.dump(&message) {
        Ok(bodies) => Ok(bodies.iter().flat_map(|body| parse(body)).collect()),
        Err(error) if error.errno() == Some(Errno::ENOENT) => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

fn list<T>(
    label: &'static str,
    kind: u16,
    flags: u16,
    table: &str,
    set: &str,
    items: &[T],
    one: impl Fn(&T, Message) -> Message,
) -> Message {
    request(label, kind, flags)
        .with_text(LIST_TABLE, table)
        .with_text(LIST_SET, set)
        .with_nested(LIST_ELEMENTS, |mut list| {
            for item in items {
                list = list.with_nested(LIST_ITEM, |element| one(item, element));
            }
            list
        })
}

fn parse(body: &[u8]) -> Vec<Element> {
    let attributes = Attributes(body.get(4..).unwrap_or_default());
    let items = attributes
        .inside(LIST_ELEMENTS)
        .filter(|(kind, _)| *kind == LIST_ITEM);
    items
        .filter_map(|(_, item)| {
            let item = Attributes(item);
            Some(Element {
                key: item.inside(ELEMENT_KEY).find(DATA_VALUE)?.to_vec(),
                data: item
                    .inside(ELEMENT_DATA)
                    .find(DATA_VALUE)
                    .map_or(Data::None, |bytes| Data::Value(bytes.to_vec())),
                comment: item
                    .find(ELEMENT_USERDATA)
                    .and_then(read_comment)
                    .unwrap_or_default(),
            })
        })
        .collect()
}
