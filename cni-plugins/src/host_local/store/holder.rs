//! Who has an address, and how files say so.

use std::path::Path;

/// A container's interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Holder {
    container_id: String,
    ifname: String,
}

impl Holder {
    /// Both names are checked by the skeleton: no `/`, no `:`.
    pub(crate) fn new(container_id: &str, ifname: &str) -> Self {
        Self {
            container_id: container_id.to_owned(),
            ifname: ifname.to_owned(),
        }
    }

    /// The container.
    pub(crate) fn container_id(&self) -> &str {
        &self.container_id
    }

    /// Whether an attachment is this holder, or may be: very old files do not say which interface has the address.
    pub(crate) fn may_be(&self, container_id: &str, ifname: &str) -> bool {
        self.container_id == container_id && (self.ifname.is_empty() || self.ifname == ifname)
    }

    /// What stands in the file of an address.
    pub(super) fn content(&self) -> String {
        format!("{}\r\n{}", self.container_id, self.ifname)
    }

    /// Name of its file in the directory of owners; each has a colon.
    pub(super) fn file_name(&self) -> String {
        format!("{}:{}", self.container_id, self.ifname)
    }

    /// `CONTAINER\r\nINTERFACE`; very old files lack the interface.
    pub(super) fn of_content(content: &str) -> Option<Self> {
        let mut lines = content.lines().map(str::trim).filter(|line| !line.is_empty());
        Some(Self::new(lines.next()?, lines.next().unwrap_or_default()))
    }

    /// The holder of an owner's file.
    pub(super) fn of_file_name(path: &Path) -> Option<Self> {
        let (container_id, ifname) = path.file_name()?.to_str()?.split_once(':')?;
        Some(Self::new(container_id, ifname))
    }
}

impl std::fmt::Display for Holder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} ({})", self.container_id, self.ifname)
    }
}
