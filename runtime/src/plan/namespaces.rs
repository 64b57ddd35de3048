//! Namespaces: which are new, which are joined, and whose ids are whose.

use super::PlanError;
use coracle_linux::namespace::Namespaces;
use oci_spec::runtime::{Linux, LinuxIdMapping, LinuxNamespace, LinuxNamespaceType};
use std::os::fd::OwnedFd;
use std::path::PathBuf;

/// The namespaces of a container.
#[derive(Debug)]
pub(crate) struct NamespacePlan {
    /// The kinds that are made for it.
    pub(crate) new: Namespaces,
    /// Kinds it joins; the user namespace, if any, is the first.
    pub(crate) join: Vec<Join>,
    /// `uid_map` and `gid_map` of a new user namespace, as the kernel reads them.
    pub(crate) id_maps: Option<IdMaps>,
    /// Lines for `/proc/PID/timens_offsets` of a new time namespace.
    pub(crate) time_offsets: Option<String>,
}

/// A namespace to join.
#[derive(Debug)]
pub(crate) struct Join {
    pub(crate) kind: Namespaces,
    pub(crate) source: JoinSource,
}

#[derive(Debug)]
pub(crate) enum JoinSource {
    Path(PathBuf),
    Fd(OwnedFd),
}

/// Id maps in the kernel's text form (user_namespaces(7)).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct IdMaps {
    pub(crate) uid: String,
    pub(crate) gid: String,
}

impl NamespacePlan {
    /// Whether ids inside differ from ids outside.
    pub(crate) fn has_user(&self) -> bool {
        self.new.contains(Namespaces::USER) || self.joins(Namespaces::USER)
    }

    pub(crate) fn joins(&self, kind: Namespaces) -> bool {
        self.join.iter().any(|join| join.kind == kind)
    }

    /// Whether the container sees another namespace of this kind than its maker (a joined one may still be the same).
    pub(crate) fn has(&self, kind: Namespaces) -> bool {
        self.new.contains(kind) || self.joins(kind)
    }

    /// Whether one clone cannot do it. A new PID namespace must belong to the joined user namespace, and what was
    /// joined may belong to the outer one: for both, a process has to join first and clone then.
    pub(crate) fn needs_process_between(&self) -> bool {
        let joins_besides_pid = self.join.iter().any(|join| join.kind != Namespaces::PID);
        self.joins(Namespaces::USER) || (self.new.contains(Namespaces::USER) && joins_besides_pid)
    }

    /// Whether the first process does nothing before its maker lets it: its ids are not mapped yet, or another process has
    /// made it and its maker does not know of it yet.
    pub(crate) fn first_process_waits(&self) -> bool {
        self.id_maps.is_some() || self.needs_process_between()
    }
}

pub(super) fn plan(linux: &Linux, by_fd: Vec<(Namespaces, OwnedFd)>) -> Result<NamespacePlan, PlanError> {
    let listed = linux.namespaces().as_deref().unwrap_or_default();
    let mut plan = NamespacePlan {
        new: Namespaces::empty(),
        join: Vec::new(),
        id_maps: None,
        time_offsets: None,
    };
    let given = by_fd
        .iter()
        .fold(Namespaces::empty(), |all, (kind, _)| all | *kind);
    let mut seen = Namespaces::empty();
    for (index, namespace) in listed.iter().enumerate() {
        let kind = kind_of(namespace.typ());
        if seen.contains(kind) {
            let value = namespace.typ().to_string();
            return Err(PlanError::invalid(
                format!("linux.namespaces[{index}].type"),
                value,
                "is listed twice",
            ));
        }
        seen |= kind;
        if !given.contains(kind) {
            add(&mut plan, index, kind, namespace)?;
        }
    }
    let by_fd = by_fd.into_iter().map(|(kind, fd)| Join {
        kind,
        source: JoinSource::Fd(fd),
    });
    plan.join.extend(by_fd);
    // A joined user namespace first: only in it there may be the right to join the others.
    plan.join.sort_by_key(|join| join.kind != Namespaces::USER);
    if !plan.has(Namespaces::MNT) {
        let value = "a container without a mount namespace of its own";
        return Err(PlanError::invalid("linux.namespaces", value, "is not supported"));
    }
    plan.id_maps = id_maps(linux, &plan)?;
    plan.time_offsets = time_offsets(linux, &plan)?;
    Ok(plan)
}

fn add(
    plan: &mut NamespacePlan,
    index: usize,
    kind: Namespaces,
    entry: &LinuxNamespace,
) -> Result<(), PlanError> {
    match entry.path().as_ref().filter(|path| !path.as_os_str().is_empty()) {
        None => plan.new |= kind,
        Some(path) if path.is_absolute() => {
            plan.join.push(Join {
                kind,
                source: JoinSource::Path(path.clone()),
            });
        }
        Some(path) => {
            let field = format!("linux.namespaces[{index}].path");
            return Err(PlanError::invalid(
                field,
                path.display(),
                "is not an absolute path",
            ));
        }
    }
    Ok(())
}

fn id_maps(linux: &Linux, plan: &NamespacePlan) -> Result<Option<IdMaps>, PlanError> {
    let uid = linux.uid_mappings().as_deref().unwrap_or_default();
    let gid = linux.gid_mappings().as_deref().unwrap_or_default();
    if !plan.new.contains(Namespaces::USER) {
        let given = !(uid.is_empty() && gid.is_empty());
        if given && !plan.has_user() {
            let why = "makes no sense: linux.namespaces lists no user namespace";
            return Err(PlanError::invalid("linux.uidMappings", "a map of ids", why));
        }
        return Ok(None);
    }
    let uid = id_map("linux.uidMappings", uid)?;
    let gid = id_map("linux.gidMappings", gid)?;
    Ok(Some(IdMaps { uid, gid }))
}

/// The kernel checks for overlaps when the map is written, but answers only EINVAL; here the field is named.
fn id_map(field: &'static str, entries: &[LinuxIdMapping]) -> Result<String, PlanError> {
    if entries.is_empty() {
        return Err(PlanError::Missing {
            field: field.to_owned(),
        });
    }
    if entries.len() > MAX_EXTENTS {
        let why = "are more than the kernel takes, 340";
        return Err(PlanError::invalid(
            field,
            format!("{} entries", entries.len()),
            why,
        ));
    }
    let mut text = String::new();
    for (index, entry) in entries.iter().enumerate() {
        let shown = || format!("{} {} {}", entry.container_id(), entry.host_id(), entry.size());
        let ends = [entry.container_id(), entry.host_id()].map(|first| first.checked_add(entry.size()));
        if entry.size() == 0 || ends.contains(&None) {
            return Err(PlanError::invalid(
                format!("{field}[{index}]"),
                shown(),
                "is not a range of ids",
            ));
        }
        let before = &entries[..index];
        if before.iter().any(|other| overlaps(other, entry)) {
            return Err(PlanError::invalid(
                format!("{field}[{index}]"),
                shown(),
                "overlaps an earlier entry",
            ));
        }
        text.push_str(&shown());
        text.push('\n');
    }
    Ok(text)
}

/// user_namespaces(7), since 4.15.
const MAX_EXTENTS: usize = 340;

fn overlaps(a: &LinuxIdMapping, b: &LinuxIdMapping) -> bool {
    let ranges = |a: u32, a_size: u32, b: u32, b_size: u32| {
        u64::from(a) < u64::from(b) + u64::from(b_size) && u64::from(b) < u64::from(a) + u64::from(a_size)
    };
    ranges(a.container_id(), a.size(), b.container_id(), b.size())
        || ranges(a.host_id(), a.size(), b.host_id(), b.size())
}

fn time_offsets(linux: &Linux, plan: &NamespacePlan) -> Result<Option<String>, PlanError> {
    let Some(offsets) = linux
        .time_offsets()
        .as_ref()
        .filter(|offsets| !offsets.is_empty())
    else {
        return Ok(None);
    };
    if !plan.new.contains(Namespaces::TIME) {
        let why = "makes no sense: linux.namespaces lists no new time namespace";
        return Err(PlanError::invalid("linux.timeOffsets", "an offset", why));
    }
    let mut text = String::new();
    for (clock, offset) in offsets {
        if !matches!(clock.as_str(), "monotonic" | "boottime") {
            return Err(PlanError::invalid(
                "linux.timeOffsets",
                clock,
                "is neither monotonic nor boottime",
            ));
        }
        let (secs, nanosecs) = (offset.secs().unwrap_or(0), offset.nanosecs().unwrap_or(0));
        if nanosecs >= 1_000_000_000 {
            let field = format!("linux.timeOffsets.{clock}.nanosecs");
            return Err(PlanError::invalid(field, nanosecs, "is a second or more"));
        }
        text.push_str(&format!("{clock} {secs} {nanosecs}\n"));
    }
    Ok(Some(text))
}

/// The kernel's flag for a kind of the specification.
#[must_use]
pub fn kind_of(kind: LinuxNamespaceType) -> Namespaces {
    match kind {
        LinuxNamespaceType::Mount => Namespaces::MNT,
        LinuxNamespaceType::Cgroup => Namespaces::CGROUP,
        LinuxNamespaceType::Uts => Namespaces::UTS,
        LinuxNamespaceType::Ipc => Namespaces::IPC,
        LinuxNamespaceType::User => Namespaces::USER,
        LinuxNamespaceType::Pid => Namespaces::PID,
        LinuxNamespaceType::Network => Namespaces::NET,
        LinuxNamespaceType::Time => Namespaces::TIME,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_map_has_as_many_entries_as_the_kernel_takes() {
        let entries = |count: u32| -> Vec<LinuxIdMapping> {
            let entry = |id: u32| serde_json::json!({"containerID": id, "hostID": id, "size": 1});
            let all = (0..count).map(entry).map(serde_json::from_value);
            all.collect::<Result<_, _>>().unwrap()
        };
        assert!(id_map("linux.uidMappings", &entries(340)).is_ok());
        let error = id_map("linux.uidMappings", &entries(341))
            .unwrap_err()
            .to_string();
        assert!(error.contains("linux.uidMappings: 341 entries"), "{error}");
    }
}
