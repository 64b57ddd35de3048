//! Addresses in use, on disk, in upstream's form: one file per address in `<dataDir>/<network>`, named by the address,
//! holding container and interface; `last_reserved_ip.N` and `lock` beside them.
//!
//! ```text
//!  10.1.0.5          "CONTAINER\r\nINTERFACE"
//!  last_reserved_ip.0
//!  lock              flock(2), exclusive
//!  .owners/CONTAINER:INTERFACE    ours: the boot, then the addresses; found without reading all files
//!  .boot             ours: the boot in which the addresses were last looked through
//! ```
//!
//! The owner's file is written before the address's file and removed after it, so whatever kills the program, a DEL
//! finds what was begun. An address file that is empty is what a crash of another program left: it is free.
//! Nothing is synced to disk: addresses do not outlive the boot they were given out in.

mod files;
mod holder;

pub(crate) use files::StoreError;
pub(crate) use holder::Holder;

use rustix::fs::{FlockOperation, flock};
use std::fs::{self, File};
use std::net::IpAddr;
use std::path::{Path, PathBuf};

const LOCK: &str = "lock";
const OWNERS: &str = ".owners";
const BOOT: &str = ".boot";
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";
/// In the owner's file of an address that upstream's plugin gave out: nobody knows in which boot.
const UNKNOWN_BOOT: &str = "-";

/// The store of one network, locked.
#[derive(Debug)]
pub(crate) struct Store {
    dir: PathBuf,
    boot: String,
    _lock: File,
}

impl Store {
    /// Opens and locks a store, making it if needed. In a new boot, addresses of earlier ones are freed first: no
    /// container survives a reboot.
    pub(crate) fn open(dir: &Path) -> Result<Self, StoreError> {
        fs::create_dir_all(dir).map_err(|source| files::failed("make", dir, source))?;
        let path = dir.join(LOCK);
        let lock = File::options().create(true).append(true).open(&path);
        let lock = lock.map_err(|source| files::failed("open", &path, source))?;
        flock(&lock, FlockOperation::LockExclusive)
            .map_err(|error| files::failed("lock", &path, error.into()))?;
        let boot = fs::read_to_string(BOOT_ID)
            .map_err(|source| files::failed("read", Path::new(BOOT_ID), source))?;
        let store = Self {
            dir: dir.to_owned(),
            boot: boot.trim().to_owned(),
            _lock: lock,
        };
        store.index()?;
        if files::read(&dir.join(BOOT))?.as_deref() != Some(&store.boot) {
            store.sweep()?;
            // It only saves the next one from looking again: a full disk does not keep a DEL from freeing.
            let _ = files::write(&dir.join(BOOT), &store.boot);
        }
        Ok(store)
    }

    /// Opens a store that exists; a missing one, or one that nobody came to lock, holds nothing.
    pub(crate) fn open_existing(dir: &Path) -> Result<Option<Self>, StoreError> {
        if dir.join(LOCK).exists() {
            Self::open(dir).map(Some)
        } else {
            Ok(None)
        }
    }

    /// The addresses of a holder.
    pub(crate) fn addresses(&self, holder: &Holder) -> Result<Vec<IpAddr>, StoreError> {
        let mut found = Vec::new();
        for address in self.noted(holder)? {
            if self.is_held_by(address, holder)? {
                found.push(address);
            }
        }
        Ok(found)
    }

    /// Takes an address; false when somebody has it.
    pub(crate) fn reserve(&self, address: IpAddr, holder: &Holder) -> Result<bool, StoreError> {
        let path = self.dir.join(address.to_string());
        // Empty: a crash of another program, for under the lock nobody is between making and writing the file.
        if files::read(&path)?.is_some_and(|content| !content.trim().is_empty()) {
            return Ok(false);
        }
        let mut noted = self.noted(holder)?;
        if !noted.contains(&address) {
            noted.push(address);
            self.note(holder, &self.boot, &noted)?;
        }
        files::write(&path, &holder.content())?;
        Ok(true)
    }

    /// Frees what a holder has, and returns it.
    pub(crate) fn release(&self, holder: &Holder) -> Result<Vec<IpAddr>, StoreError> {
        let held = self.addresses(holder)?;
        for address in &held {
            files::remove(&self.dir.join(address.to_string()))?;
        }
        files::remove(&self.owner_file(holder))?;
        // Under the lock nobody is writing one: a killed ADD left it.
        files::remove(&self.owner_file(holder).with_file_name(files::NEW))?;
        Ok(held)
    }

    /// Frees everything whose holder is not to be kept, and returns it.
    pub(crate) fn retain(&self, keep: impl Fn(&Holder) -> bool) -> Result<Vec<IpAddr>, StoreError> {
        let mut freed = Vec::new();
        for (address, path) in self.files()? {
            let holder = files::read(&path)?.as_deref().and_then(Holder::of_content);
            if !holder.is_some_and(|holder| keep(&holder)) {
                files::remove(&path)?;
                freed.push(address);
            }
        }
        for path in files::list(&self.dir.join(OWNERS))? {
            if !Holder::of_file_name(&path).is_some_and(|holder| keep(&holder)) {
                files::remove(&path)?;
            }
        }
        Ok(freed)
    }

    /// How many addresses are in use.
    pub(crate) fn count(&self) -> Result<usize, StoreError> {
        Ok(self.files()?.len())
    }

    /// The address given last from a set of ranges.
    pub(crate) fn last(&self, set: usize) -> Result<Option<IpAddr>, StoreError> {
        Ok(files::read(&self.dir.join(format!("last_reserved_ip.{set}")))?
            .and_then(|text| text.trim().parse().ok()))
    }

    /// Remembers the address given last.
    pub(crate) fn set_last(&self, set: usize, address: IpAddr) -> Result<(), StoreError> {
        files::write(
            &self.dir.join(format!("last_reserved_ip.{set}")),
            &address.to_string(),
        )
    }

    /// Frees addresses of earlier boots.
    pub(crate) fn sweep(&self) -> Result<(), StoreError> {
        for path in files::list(&self.dir.join(OWNERS))? {
            let text = files::read(&path)?.unwrap_or_default();
            let boot = text.lines().next().unwrap_or_default();
            if boot == self.boot || boot == UNKNOWN_BOOT {
                continue;
            }
            match Holder::of_file_name(&path) {
                Some(holder) => drop(self.release(&holder)?),
                None => files::remove(&path)?,
            }
        }
        Ok(())
    }

    /// Makes the owners' files once for a directory that upstream's plugin filled.
    fn index(&self) -> Result<(), StoreError> {
        let dir = self.dir.join(OWNERS);
        if dir.is_dir() {
            return Ok(());
        }
        let files = self.files()?;
        if files.is_empty() {
            return Ok(());
        }
        let new = self.dir.join(".owners.new");
        fs::create_dir_all(&new).map_err(|source| files::failed("make", &new, source))?;
        for (address, path) in files {
            let Some(holder) = files::read(&path)?.as_deref().and_then(Holder::of_content) else {
                continue;
            };
            let file = new.join(holder.file_name());
            let before = files::read(&file)?.unwrap_or_else(|| UNKNOWN_BOOT.to_owned());
            files::write(&file, &format!("{before}\n{address}"))?;
        }
        fs::rename(&new, &dir).map_err(|source| files::failed("rename", &new, source))
    }

    fn noted(&self, holder: &Holder) -> Result<Vec<IpAddr>, StoreError> {
        let text = files::read(&self.owner_file(holder))?.unwrap_or_default();
        Ok(text
            .lines()
            .skip(1)
            .filter_map(|line| line.parse().ok())
            .collect())
    }

    fn note(&self, holder: &Holder, boot: &str, addresses: &[IpAddr]) -> Result<(), StoreError> {
        let lines: Vec<_> = addresses.iter().map(IpAddr::to_string).collect();
        let owners = self.dir.join(OWNERS);
        fs::create_dir_all(&owners).map_err(|source| files::failed("make", &owners, source))?;
        files::replace(&self.owner_file(holder), &format!("{boot}\n{}", lines.join("\n")))
    }

    fn is_held_by(&self, address: IpAddr, holder: &Holder) -> Result<bool, StoreError> {
        let content = files::read(&self.dir.join(address.to_string()))?;
        // Empty and noted: begun by the holder and never finished.
        Ok(content.is_some_and(|content| {
            content.trim().is_empty() || Holder::of_content(&content).as_ref() == Some(holder)
        }))
    }

    fn owner_file(&self, holder: &Holder) -> PathBuf {
        self.dir.join(OWNERS).join(holder.file_name())
    }

    fn files(&self) -> Result<Vec<(IpAddr, PathBuf)>, StoreError> {
        let address = |path: PathBuf| Some((path.file_name()?.to_str()?.parse().ok()?, path));
        Ok(files::list(&self.dir)?.into_iter().filter_map(address).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn an_address_has_one_holder_until_it_is_released() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let (a, b) = (Holder::new("a", "eth0"), Holder::new("b", "eth0"));
        assert!(store.reserve(ip("10.0.0.2"), &a).unwrap());
        assert!(!store.reserve(ip("10.0.0.2"), &b).unwrap());
        assert!(store.reserve(ip("fd00::2"), &a).unwrap());
        assert_eq!(
            fs::read_to_string(dir.path().join("10.0.0.2")).unwrap(),
            "a\r\neth0"
        );
        assert_eq!(store.release(&b).unwrap(), Vec::<IpAddr>::new());
        assert_eq!(store.release(&a).unwrap(), [ip("10.0.0.2"), ip("fd00::2")]);
        assert_eq!(store.release(&a).unwrap(), Vec::<IpAddr>::new());
        assert_eq!(store.count().unwrap(), 0);
        assert!(files::list(&dir.path().join(OWNERS)).unwrap().is_empty());
    }

    #[test]
    fn a_repeated_release_leaves_the_next_holder_alone() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let (a, b) = (Holder::new("a", "eth0"), Holder::new("b", "eth0"));
        store.note(&a, &store.boot, &[ip("10.0.0.2")]).unwrap();
        store.reserve(ip("10.0.0.2"), &b).unwrap();
        assert!(store.release(&a).unwrap().is_empty());
        assert_eq!(store.addresses(&b).unwrap(), [ip("10.0.0.2")]);
    }

    #[test]
    fn upstreams_files_are_taken_over_and_its_crashes_cleaned() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("10.0.0.2"), "old\r\neth0").unwrap();
        fs::write(dir.path().join("10.0.0.3"), "").unwrap();
        let store = Store::open(dir.path()).unwrap();
        let old = Holder::new("old", "eth0");
        assert_eq!(store.addresses(&old).unwrap(), [ip("10.0.0.2")]);
        assert!(
            store
                .reserve(ip("10.0.0.3"), &Holder::new("new", "eth0"))
                .unwrap()
        );
        store.sweep().unwrap();
        assert_eq!(store.release(&old).unwrap(), [ip("10.0.0.2")]);
    }

    #[test]
    fn a_new_boot_frees_what_the_last_one_gave_out() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        store
            .reserve(ip("10.0.0.2"), &Holder::new("now", "eth0"))
            .unwrap();
        let old = Holder::new("old", "eth0");
        store.note(&old, "another-boot", &[ip("10.0.0.3")]).unwrap();
        files::write(&dir.path().join("10.0.0.3"), &old.content()).unwrap();
        files::write(&dir.path().join(BOOT), "another-boot").unwrap();
        drop(store);
        let store = Store::open(dir.path()).unwrap();
        assert_eq!(
            store.addresses(&Holder::new("now", "eth0")).unwrap(),
            [ip("10.0.0.2")]
        );
        assert!(store.addresses(&old).unwrap().is_empty());
        assert_eq!(store.count().unwrap(), 1);
    }

    #[test]
    fn retain_frees_exactly_what_is_stale() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        for n in 2..6 {
            store
                .reserve(ip(&format!("10.0.0.{n}")), &Holder::new(&format!("c{n}"), "eth0"))
                .unwrap();
        }
        fs::write(dir.path().join("10.0.0.9"), "").unwrap();
        let keep = Holder::new("c3", "eth0");
        store.retain(|holder| *holder == keep).unwrap();
        assert_eq!(
            store.files().unwrap().iter().map(|f| f.0).collect::<Vec<_>>(),
            [ip("10.0.0.3")]
        );
        assert_eq!(files::list(&dir.path().join(OWNERS)).unwrap().len(), 1);
    }
}
