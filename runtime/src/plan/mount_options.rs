//! Mount options: the names of mount(8) that runc knows, sorted into what the kernel's calls want.

use coracle_linux::mount::{Attr, Change, Propagation};

/// What a list of options asks for.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct MountOptions {
    /// It is a bind mount (`bind`, `rbind`).
    pub(crate) bind: bool,
    /// With everything below its source (`rbind`).
    pub(crate) recursive_bind: bool,
    /// Only the attributes of a mount that is there already change (`remount`).
    pub(crate) remount: bool,
    /// For this mount alone.
    pub(crate) attributes: Change,
    /// For this mount and those below (`rro` and the like).
    pub(crate) recursive: Change,
    /// Propagation, and whether it is for those below too.
    pub(crate) propagation: Option<(Propagation, bool)>,
    /// What the file system itself is told: flags, and `key=value`.
    pub(crate) data: Vec<(String, Option<String>)>,
    /// The tmpfs begins with a copy of what it covers (`tmpcopyup`).
    pub(crate) copy_up: bool,
    /// An option we know and cannot do.
    pub(crate) unsupported: Option<String>,
}

impl MountOptions {
    pub(crate) fn parse<S: AsRef<str>>(options: &[S]) -> Self {
        let mut parsed = Self::default();
        for option in options.iter().flat_map(|option| split(option.as_ref())) {
            parsed.add(option);
        }
        parsed
    }

    fn add(&mut self, option: &str) {
        if self.add_kind(option) || self.add_propagation(option) || self.add_superblock_flag(option) {
            return;
        }
        if let Some(effect) = attribute(option) {
            apply(&mut self.attributes, effect);
        } else if let Some(effect) = option.strip_prefix('r').and_then(attribute) {
            apply(&mut self.recursive, effect);
        } else {
            match option.split_once('=') {
                Some((key, value)) => self.data.push((key.to_owned(), Some(value.to_owned()))),
                None => self.data.push((option.to_owned(), None)),
            }
        }
    }

    fn add_kind(&mut self, option: &str) -> bool {
        match option {
            "bind" => self.bind = true,
            "rbind" => (self.bind, self.recursive_bind) = (true, true),
            "remount" => self.remount = true,
            "tmpcopyup" => self.copy_up = true,
            "idmap" | "ridmap" => self.unsupported = Some(option.to_owned()),
            _ => return false,
        }
        true
    }

    fn add_propagation(&mut self, option: &str) -> bool {
        let found = propagation(option);
        if found.is_some() {
            self.propagation = found;
        }
        found.is_some()
    }

    /// Flags of the superblock. Those that name a default of a new file system say nothing.
    fn add_superblock_flag(&mut self, option: &str) -> bool {
        match option {
            "sync" | "dirsync" | "mand" | "lazytime" | "iversion" => {
                self.data.push((option.to_owned(), None));
            }
            "defaults" | "async" | "nomand" | "nolazytime" | "noiversion" | "silent" | "loud" | "" => {}
            _ => return false,
        }
        true
    }
}

/// One string can hold several options, as mount(8) has them: at commas that are neither escaped (overlayfs) nor quoted
/// (SELinux's contexts).
fn split(options: &str) -> Vec<&str> {
    let (mut parts, mut start) = (Vec::new(), 0);
    let (mut escaped, mut quoted) = (false, false);
    for (place, byte) in options.bytes().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => quoted = !quoted,
            b',' if !quoted => {
                parts.push(&options[start..place]);
                start = place + 1;
            }
            _ => {}
        }
    }
    parts.push(&options[start..]);
    parts
}

/// A propagation by name, and whether it is recursive.
pub(crate) fn propagation(name: &str) -> Option<(Propagation, bool)> {
    let plain = |name: &str| match name {
        "private" => Some(Propagation::Private),
        "shared" => Some(Propagation::Shared),
        "slave" => Some(Propagation::Slave),
        "unbindable" => Some(Propagation::Unbindable),
        _ => None,
    };
    let recursive = || name.strip_prefix('r').and_then(plain).map(|found| (found, true));
    plain(name).map(|found| (found, false)).or_else(recursive)
}

/// What an option does to the attributes: which bits it sets, which it clears.
fn attribute(option: &str) -> Option<(Attr, Attr)> {
    let none = Attr::empty();
    Some(match option {
        "ro" => (Attr::RDONLY, none),
        "rw" => (none, Attr::RDONLY),
        "nosuid" => (Attr::NOSUID, none),
        "suid" => (none, Attr::NOSUID),
        "nodev" => (Attr::NODEV, none),
        "dev" => (none, Attr::NODEV),
        "noexec" => (Attr::NOEXEC, none),
        "exec" => (none, Attr::NOEXEC),
        "nodiratime" => (Attr::NODIRATIME, none),
        "diratime" => (none, Attr::NODIRATIME),
        "nosymfollow" => (Attr::NOSYMFOLLOW, none),
        "symfollow" => (none, Attr::NOSYMFOLLOW),
        "noatime" => (Attr::NOATIME, Attr::ATIME_FIELD),
        "strictatime" => (Attr::STRICTATIME, Attr::ATIME_FIELD),
        // All three mean the kernel's default, relatime.
        "relatime" | "norelatime" | "atime" | "nostrictatime" => (none, Attr::ATIME_FIELD),
        _ => return None,
    })
}

/// The later of two contradicting options wins.
fn apply(change: &mut Change, (set, clear): (Attr, Attr)) {
    change.set = change.set.difference(clear) | set;
    // An access time is set and its whole field cleared in one call: mount_setattr(2) wants both.
    change.clear = change.clear.difference(set.difference(Attr::ATIME_FIELD)) | clear;
}

/// Every name in the tables above, sorted, for `features`; options that only one file system has are not among them.
pub const KNOWN: &[&str] = &[
    "async",
    "atime",
    "bind",
    "defaults",
    "dev",
    "diratime",
    "dirsync",
    "exec",
    "iversion",
    "lazytime",
    "loud",
    "mand",
    "noatime",
    "nodev",
    "nodiratime",
    "noexec",
    "noiversion",
    "nolazytime",
    "nomand",
    "norelatime",
    "nostrictatime",
    "nosuid",
    "nosymfollow",
    "private",
    "ratime",
    "rbind",
    "rdev",
    "rdiratime",
    "relatime",
    "remount",
    "rexec",
    "rnoatime",
    "rnodev",
    "rnodiratime",
    "rnoexec",
    "rnorelatime",
    "rnostrictatime",
    "rnosuid",
    "rnosymfollow",
    "ro",
    "rprivate",
    "rrelatime",
    "rro",
    "rrw",
    "rshared",
    "rslave",
    "rstrictatime",
    "rsuid",
    "rsymfollow",
    "runbindable",
    "rw",
    "shared",
    "silent",
    "slave",
    "strictatime",
    "suid",
    "symfollow",
    "sync",
    "tmpcopyup",
    "unbindable",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_known_name_is_understood() {
        for name in KNOWN {
            let parsed = MountOptions::parse(&[name]);
            let flags = ["sync", "dirsync", "mand", "lazytime", "iversion"];
            assert!(
                parsed.data.is_empty() || flags.contains(name),
                "{name}: {parsed:?}"
            );
            assert_eq!(parsed.unsupported, None);
        }
        assert!(KNOWN.is_sorted());
    }

    #[test]
    fn the_last_of_two_contradictions_wins() {
        let parsed = MountOptions::parse(&["ro", "rw", "suid", "nosuid", "noatime", "strictatime"]);
        assert_eq!(parsed.attributes.set, Attr::NOSUID | Attr::STRICTATIME);
        assert_eq!(parsed.attributes.clear, Attr::RDONLY | Attr::ATIME_FIELD);
    }

    #[test]
    fn the_rest_is_for_the_file_system() {
        let parsed = MountOptions::parse(&["mode=755", "newinstance", "rro", "rbind", "rslave"]);
        let data = vec![
            ("mode".to_owned(), Some("755".to_owned())),
            ("newinstance".to_owned(), None),
        ];
        assert_eq!(parsed.data, data);
        assert_eq!(parsed.recursive.set, Attr::RDONLY);
        assert!(parsed.recursive_bind && parsed.bind);
        assert_eq!(parsed.propagation, Some((Propagation::Slave, true)));
    }

    #[test]
    fn options_can_be_joined_by_commas() {
        let parsed = MountOptions::parse(&["nosuid,ro,mode=755", r#"context="a:b,c",lowerdir=/x\,y:/z"#]);
        assert_eq!(
            parsed,
            MountOptions::parse(&[
                "nosuid",
                "ro",
                "mode=755",
                r#"context="a:b,c""#,
                r"lowerdir=/x\,y:/z"
            ])
        );
        let keys: Vec<_> = parsed.data.iter().map(|(key, _)| key.as_str()).collect();
        assert_eq!(keys, ["mode", "context", "lowerdir"]);
        assert_eq!(parsed.attributes.set, Attr::NOSUID | Attr::RDONLY);
    }
}
