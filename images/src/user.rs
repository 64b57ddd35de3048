//! The users of an image: `USER` and CRI's run_as_user against the image's own /etc/passwd and /etc/group.
//!
//! The rules are runc's and docker's: a name must be in passwd, a number need not be; without a group the user's primary group
//! from passwd applies (0 when there is none) together with all groups that list the user; an explicit group replaces them all.

use crate::image::Image;
use crate::lookup::LookupError;
use crate::store::Store;

/// A resolved user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    /// User id.
    pub uid: u32,
    /// Primary group id.
    pub gid: u32,
    /// Supplementary groups from the image, without the primary one.
    pub groups: Vec<u32>,
    /// Home directory, `/` when unknown.
    pub home: String,
    /// Login name, when the image knows one.
    pub name: Option<String>,
}

/// Why a user cannot be resolved.
#[derive(Debug, thiserror::Error)]
pub enum UserError {
    /// Not in /etc/passwd.
    #[error("user {0:?} is not in the image's /etc/passwd")]
    UnknownUser(String),
    /// Not in /etc/group.
    #[error("group {0:?} is not in the image's /etc/group")]
    UnknownGroup(String),
    /// A number that is no id.
    #[error("{0:?} is not a user or group id (0 to 4294967294)")]
    BadId(String),
    /// The files cannot be read.
    #[error(transparent)]
    Lookup(#[from] LookupError),
}

/// Resolves `USER[:GROUP]`, names or numbers; empty means root.
pub fn resolve(store: &Store, image: &Image, spec: &str) -> Result<User, UserError> {
    Accounts::load(store, image)?.resolve(spec)
}

/// Resolves numeric ids; without `gid` the primary group from passwd. Groups that list the user are always included, as CRI asks.
pub fn resolve_ids(store: &Store, image: &Image, uid: u32, gid: Option<u32>) -> Result<User, UserError> {
    Ok(Accounts::load(store, image)?.resolve_ids(uid, gid))
}

/// The parsed passwd and group files of an image.
#[derive(Clone, Debug, Default)]
pub struct Accounts {
    users: Vec<Account>,
    groups: Vec<Group>,
}

#[derive(Clone, Debug)]
struct Account {
    name: String,
    uid: u32,
    gid: u32,
    home: String,
}

#[derive(Clone, Debug)]
struct Group {
    name: String,
    gid: u32,
    members: Vec<String>,
}

impl Accounts {
    /// Reads the files; missing ones are empty, and so is what is no file or of no sensible size: users by number need
    /// neither.
    pub fn load(store: &Store, image: &Image) -> Result<Self, LookupError> {
        let read = |path| match store.read_file(image, path) {
            Err(
                odd
                @ (LookupError::NotAFile { .. } | LookupError::TooLarge { .. } | LookupError::Loop { .. }),
            ) => {
                tracing::warn!(image = image.id, "taken as empty: {odd}");
                Ok(Vec::new())
            }
            read => Ok::<_, LookupError>(read?.unwrap_or_default()),
        };
        Ok(Self::parse(&read("etc/passwd")?, &read("etc/group")?))
    }

    /// Parses the two files; lines that are not entries are skipped, as the C library does.
    pub fn parse(passwd: &[u8], group: &[u8]) -> Self {
        let users = fields(passwd).filter_map(|f| {
            let field = |at: usize| f.get(at).cloned();
            Some(Account {
                name: field(0)?,
                uid: id(&field(2)?)?,
                gid: id(&field(3)?)?,
                home: field(5).unwrap_or_default(),
            })
        });
        let groups = fields(group).filter_map(|f| {
            let field = |at: usize| f.get(at).cloned();
            let members = field(3).unwrap_or_default();
            let members = members
                .split(',')
                .map(|m| m.trim().to_owned())
                .filter(|m| !m.is_empty());
            Some(Group {
                name: field(0)?,
                gid: id(&field(2)?)?,
                members: members.collect(),
            })
        });
        Self {
            users: users.collect(),
            groups: groups.collect(),
        }
    }

    /// See the function of the same name.
    pub fn resolve(&self, spec: &str) -> Result<User, UserError> {
        let (user, group) = spec
            .split_once(':')
            .map_or((spec, None), |(user, group)| (user, Some(group)));
        let mut resolved = match user {
            "" => self.resolve_ids(0, None),
            user => self.user(user)?,
        };
        if let Some(group) = group.filter(|group| !group.is_empty()) {
            resolved.gid = self.group(group)?;
            resolved.groups.clear();
        }
        Ok(resolved)
    }

    /// See the function of the same name.
    pub fn resolve_ids(&self, uid: u32, gid: Option<u32>) -> User {
        let account = self.users.iter().find(|account| account.uid == uid);
        let gid = gid.or_else(|| account.map(|account| account.gid)).unwrap_or(0);
        let member = |group: &&Group| account.is_some_and(|account| group.members.contains(&account.name));
        let mut groups: Vec<u32> = self
            .groups
            .iter()
            .filter(member)
            .map(|group| group.gid)
            .filter(|own| *own != gid)
            .collect();
        groups.sort_unstable();
        groups.dedup();
        User {
            uid,
            gid,
            groups,
            home: account
                .map(|account| account.home.clone())
                .filter(|h| !h.is_empty())
                .unwrap_or_else(|| "/".to_owned()),
            name: account.map(|account| account.name.clone()),
        }
    }

    /// A name of passwd first: names may consist of digits.
    fn user(&self, user: &str) -> Result<User, UserError> {
        match self.users.iter().find(|account| account.name == user) {
            Some(account) => {
                let mut resolved = self.resolve_ids(account.uid, Some(account.gid));
                // Several names may share a uid; the one that was asked for counts.
                resolved.name = Some(account.name.clone());
                Ok(resolved)
            }
            None => Ok(self.resolve_ids(
                number(user)?.ok_or_else(|| UserError::UnknownUser(user.to_owned()))?,
                None,
            )),
        }
    }

    fn group(&self, group: &str) -> Result<u32, UserError> {
        match self.groups.iter().find(|own| own.name == group) {
            Some(own) => Ok(own.gid),
            None => number(group)?.ok_or_else(|| UserError::UnknownGroup(group.to_owned())),
        }
    }
}

/// `None` when it is a name; an error when it is a number but no id (-1 means "unchanged" to the kernel).
fn number(text: &str) -> Result<Option<u32>, UserError> {
    if !text.bytes().all(|b| b.is_ascii_digit()) {
        return Ok(None);
    }
    match text.parse::<u32>() {
        Ok(id) if id != u32::MAX => Ok(Some(id)),
        _ => Err(UserError::BadId(text.to_owned())),
    }
}

/// Of an entry; -1 is none (see [`number`]).
fn id(text: &str) -> Option<u32> {
    text.parse().ok().filter(|id| *id != u32::MAX)
}

fn fields(file: &[u8]) -> impl Iterator<Item = Vec<String>> + '_ {
    file.split(|b| *b == b'\n')
        .map(|line| String::from_utf8_lossy(line).trim().to_owned())
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .map(|line| line.split(':').map(str::to_owned).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn accounts() -> Accounts {
        let passwd = b"root:x:0:0:root:/root:/bin/sh\n#no\nbroken\nweb:x:1000:1001:Web:/srv/web:/bin/sh\n42:x:7:8::/h:\n";
        let group = b"root:x:0:\nweb:x:1001:\nlogs:x:50:web,root\nvideo:x:44: web \n";
        Accounts::parse(passwd, group)
    }

    #[test]
    fn users_are_resolved_as_docker_does() {
        let accounts = accounts();
        let ids = |spec: &str| {
            accounts
                .resolve(spec)
                .map(|u| (u.uid, u.gid, u.groups, u.home))
                .unwrap()
        };
        assert_eq!(ids(""), (0, 0, vec![50], "/root".to_owned()));
        assert_eq!(ids("web"), (1000, 1001, vec![44, 50], "/srv/web".to_owned()));
        assert_eq!(ids("1000"), (1000, 1001, vec![44, 50], "/srv/web".to_owned()));
        assert_eq!(ids("web:logs"), (1000, 50, vec![], "/srv/web".to_owned()));
        assert_eq!(ids("5:6"), (5, 6, vec![], "/".to_owned()));
        assert_eq!(ids("5"), (5, 0, vec![], "/".to_owned()));
        assert_eq!(ids("42").0, 7, "a name of digits is a name");
        assert_eq!(ids("1000:"), ids("1000"));
    }

    #[test]
    fn an_odd_line_spoils_no_other() {
        let mut passwd =
            b"\xff:x:1:1\n+::::::\nbad:x:-1:0::/a:\nhuge:x:99999999999:0::/b:\nnone:x:4294967295:0::/:\n\0\n"
                .to_vec();
        passwd.extend(vec![b'x'; 1 << 20]);
        passwd.extend(b"\nweb:x:7:8:\xe9:/srv:/bin/sh\r\nlast:x:10:10::/last");
        let group = b"\xff\xfe\nadm:x:-4:web\nlogs:x:50:\xff,web\nno:x\nvideo:x:44:web";
        let accounts = Accounts::parse(&passwd, group);
        let web = accounts.resolve("web").unwrap();
        assert_eq!((web.uid, web.gid, web.home.as_str()), (7, 8, "/srv"));
        assert_eq!(web.groups, [44, 50]);
        assert_eq!(accounts.resolve("last").unwrap().home, "/last");
        for unknown in ["bad", "huge", "none"] {
            assert!(accounts.resolve(unknown).is_err(), "{unknown}");
        }
    }

    #[test]
    fn unknown_names_and_bad_numbers_are_errors() {
        let accounts = accounts();
        for (spec, want) in [
            ("nobody", "nobody"),
            ("web:nogroup", "nogroup"),
            ("4294967295", "not a user or group id"),
            ("0:99999999999", "not a user or group id"),
            ("-1", "-1"),
        ] {
            let error = accounts.resolve(spec).unwrap_err().to_string();
            assert!(error.contains(want), "{spec}: {error}");
        }
    }

    #[test]
    fn memberships_count_with_an_explicit_cri_group() {
        let user = accounts().resolve_ids(1000, Some(50));
        assert_eq!((user.gid, user.groups), (50, vec![44]));
    }
}
