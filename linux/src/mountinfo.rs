//! The mounts of a process, as `/proc/PID/mountinfo` lists them (proc_pid_mountinfo(5)).
//!
//! ```text
//!  36 35 98:0 /root /point rw,noatime shared:1 master:2 - ext4 /dev/root rw,errors=continue
//!  |  |  |    |     |      |          |                   |    |         '- super options
//!  |  |  |    |     |      |          |                   |    '- source
//!  |  |  |    |     |      |          |                   '- file system
//!  |  |  |    |     |      |          '- optional fields, any number: how mounts propagate
//!  |  |  |    |     |      '- options of the mount
//!  |  |  |    |     '- where it is mounted
//!  |  |  |    '- which directory of the file system that is
//!  |  |  '- device
//!  '--'- the mount's id and that of the mount it lies on
//! ```
//!
//! Text is only split while it is read; paths are copied only when they are asked for.

use std::ffi::OsString;
use std::io;
use std::os::unix::ffi::OsStringExt as _;
use std::path::{Path, PathBuf};

/// The mount table of one process at one moment, in mount order: a later mount covers an earlier one of the same place.
#[derive(Clone, Debug)]
pub struct MountInfo {
    text: Vec<u8>,
}

/// One line of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mount<'t> {
    device: (u32, u32),
    root: &'t [u8],
    point: &'t [u8],
    options: &'t [u8],
    propagation: &'t [u8],
    file_system: &'t [u8],
    source: &'t [u8],
    super_options: &'t [u8],
}

impl MountInfo {
    /// The mounts that this process sees.
    ///
    /// # Errors
    /// procfs is not mounted.
    pub fn of_this_process() -> io::Result<Self> {
        std::fs::read("/proc/self/mountinfo").map(Self::from_text)
    }

    /// A table that was read before.
    #[must_use]
    pub fn from_text(text: impl Into<Vec<u8>>) -> Self {
        Self { text: text.into() }
    }

    /// Its mounts, in mount order. A line that does not have the form above is left out.
    pub fn mounts(&self) -> impl DoubleEndedIterator<Item = Mount<'_>> {
        self.text.split(|byte| *byte == b'\n').filter_map(Mount::parse)
    }

    /// The mount that holds `path`, which must be absolute and without links: of those with the longest mount point the
    /// latest.
    #[must_use]
    pub fn holding(&self, path: &Path) -> Option<Mount<'_>> {
        let holding = self.mounts().filter_map(|mount| {
            let point = mount.point();
            path.starts_with(&point)
                .then(|| (point.components().count(), mount))
        });
        // The last of equals.
        holding.max_by_key(|(depth, _)| *depth).map(|(_, mount)| mount)
    }
}

impl<'t> Mount<'t> {
    fn parse(line: &'t [u8]) -> Option<Self> {
        let mut fields = line.split(|byte| *byte == b' ');
        let device = device(fields.nth(2)?)?;
        let (root, point) = (fields.next()?, fields.next()?);
        let options = fields.next()?;
        // What is between the options and the dash, as one slice: a blank that is part of a field is escaped.
        let mut optional = 0;
        let length = loop {
            match fields.next()? {
                b"-" => break optional,
                field => optional += field.len() + 1,
            }
        };
        let start = line.len() - fields.clone().map(|field| field.len() + 1).sum::<usize>() - 2 - length;
        Some(Self {
            device,
            root,
            point,
            options,
            propagation: line.get(start..start + length)?,
            file_system: fields.next()?,
            source: fields.next()?,
            super_options: fields.next()?,
        })
    }

    /// The device number of its file system, major and minor: `st_dev` of what is on it.
    #[must_use]
    pub fn device(&self) -> (u32, u32) {
        self.device
    }

    /// Where it is mounted.
    #[must_use]
    pub fn point(&self) -> PathBuf {
        path(self.point)
    }

    /// Which directory or file of its file system is mounted there.
    #[must_use]
    pub fn root(&self) -> PathBuf {
        path(self.root)
    }

    /// What was mounted: a device, a name without a meaning, or what the file system makes of it.
    #[must_use]
    pub fn source(&self) -> PathBuf {
        path(self.source)
    }

    /// Whether the file system is of this type (`ext4`, `cgroup2`).
    #[must_use]
    pub fn is(&self, file_system: &str) -> bool {
        self.file_system == file_system.as_bytes()
    }

    /// The options of this mount alone (`rw`, `nosuid`). One that is not UTF-8 is left out.
    pub fn options(&self) -> impl Iterator<Item = &'t str> {
        words(self.options, b',')
    }

    /// The options of the file system, which all its mounts have in common; for a cgroup v1 mount its controllers. One
    /// that is not UTF-8 is left out.
    pub fn super_options(&self) -> impl Iterator<Item = &'t str> {
        words(self.super_options, b',')
    }

    /// Its peer group: mounts made here appear at its peers, and theirs here.
    #[must_use]
    pub fn peer_group(&self) -> Option<u32> {
        self.group("shared:")
    }

    /// The peer group of its master: mounts made there appear here.
    #[must_use]
    pub fn master(&self) -> Option<u32> {
        self.group("master:")
    }

    /// Whether it has a peer group.
    #[must_use]
    pub fn is_shared(&self) -> bool {
        self.peer_group().is_some()
    }

    /// Whether it has a master.
    #[must_use]
    pub fn is_slave(&self) -> bool {
        self.master().is_some()
    }

    fn group(&self, tag: &str) -> Option<u32> {
        words(self.propagation, b' ').find_map(|field| field.strip_prefix(tag)?.parse().ok())
    }
}

fn device(field: &[u8]) -> Option<(u32, u32)> {
    let (major, minor) = std::str::from_utf8(field).ok()?.split_once(':')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

fn words(text: &[u8], separator: u8) -> impl Iterator<Item = &str> {
    text.split(move |byte| *byte == separator)
        .filter_map(|word| std::str::from_utf8(word).ok())
        .filter(|word| !word.is_empty())
}

/// Blank, tab, line feed, backslash and `#` are written as a backslash and three octal digits.
fn path(field: &[u8]) -> PathBuf {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((first, after)) = rest.split_first() {
        let (byte, after) = match (first, after) {
            (b'\\', [a @ b'0'..=b'3', b @ b'0'..=b'7', c @ b'0'..=b'7', after @ ..]) => {
                ((a - b'0') << 6 | (b - b'0') << 3 | (c - b'0'), after)
            }
            _ => (*first, after),
        };
        bytes.push(byte);
        rest = after;
    }
    PathBuf::from(OsString::from_vec(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::ffi::OsStrExt as _;

    const TEXT: &str = "\
1 0 8:1 / / rw - ext4 a rw
2 1 8:2 / /data rw,nosuid shared:5 - ext4 /dev/my\\040disk rw,errors=continue
3 2 8:3 /sub /data/in\\040ner rw master:6 propagate_from:2 - ext4 c rw
garbage
4 2 8:3 / /data rw shared:7 master:8 unbindable - ext4 c rw
5 2 8:3 / /data/too short - ext4
6 2 0:29 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct
";

    #[test]
    fn every_field_of_a_line_is_found() {
        let info = MountInfo::from_text(TEXT);
        let mounts: Vec<_> = info.mounts().collect();
        assert_eq!(mounts.len(), 5);
        let data = mounts[1];
        assert_eq!(data.point(), Path::new("/data"));
        assert_eq!(data.source(), Path::new("/dev/my disk"));
        assert_eq!(data.options().collect::<Vec<_>>(), ["rw", "nosuid"]);
        assert_eq!(
            data.super_options().collect::<Vec<_>>(),
            ["rw", "errors=continue"]
        );
        assert_eq!(
            (data.device(), data.peer_group(), data.master()),
            ((8, 2), Some(5), None)
        );
        assert!(data.is_shared() && !data.is_slave() && data.is("ext4") && !data.is("ext"));
        let inner = mounts[2];
        assert_eq!(
            (inner.point(), inner.root()),
            ("/data/in ner".into(), "/sub".into())
        );
        assert_eq!(inner.master(), Some(6));
        assert!(inner.is_slave() && !inner.is_shared());
        assert!(mounts[3].is_shared() && mounts[3].is_slave());
        assert!(!mounts[0].is_shared() && !mounts[0].is_slave());
        assert_eq!(
            mounts[4].super_options().collect::<Vec<_>>(),
            ["rw", "cpu", "cpuacct"]
        );
    }

    #[test]
    fn a_path_is_unescaped_byte_by_byte() {
        assert_eq!(path(b"/a\\040b\\134c\\011\\012\\043"), Path::new("/a b\\c\t\n#"));
        // A byte that is not UTF-8 and an escape that is cut off stay as they are.
        assert_eq!(path(b"/\xff\\04").as_os_str().as_bytes(), b"/\xff\\04");
        assert_eq!(path(b"/\\").as_os_str().as_bytes(), b"/\\");
        assert_eq!(path(b"/\\777").as_os_str().as_bytes(), b"/\\777");
    }

    #[test]
    fn the_mount_that_holds_a_path_is_the_deepest_and_latest() {
        let info = MountInfo::from_text(TEXT);
        let held = |at: &str| info.holding(Path::new(at)).unwrap();
        assert_eq!(held("/dat").point(), Path::new("/"));
        assert!(held("/data/x").is_shared() && held("/data/x").is_slave());
        assert_eq!(held("/data/in ner/y").root(), Path::new("/sub"));
        assert!(MountInfo::from_text("").holding(Path::new("/")).is_none());
    }

    #[test]
    fn this_process_has_a_root() {
        let info = MountInfo::of_this_process().unwrap();
        assert_eq!(info.holding(Path::new("/")).unwrap().point(), Path::new("/"));
    }
}
