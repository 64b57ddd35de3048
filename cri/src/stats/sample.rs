//! The background sample: how fast CPU time grows, and how large the writable layers are.

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use coracle_linux::tree;

use crate::cgroup::Hierarchies;
use crate::clock::now;
use crate::pods::{Pods, Progress};

/// How fast a writable layer is walked: slow enough not to be noticed.
const ENTRIES_PER_SECOND: u32 = 20_000;
const NANOSECONDS: u128 = 1_000_000_000;

/// The latest samples, by container or sandbox id.
#[derive(Debug, Default)]
pub(crate) struct Samples {
    cpu: Mutex<HashMap<String, Cpu>>,
    layers: Mutex<HashMap<String, Layer>>,
}

#[derive(Debug, Clone, Copy)]
struct Cpu {
    at: i64,
    total_ns: u64,
    nano_cores: Option<u64>,
}

/// Size of a writable layer.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Layer {
    /// Nanoseconds since the epoch.
    pub(crate) at: i64,
    pub(crate) bytes: u64,
    pub(crate) inodes: u64,
}

impl Samples {
    /// Billionths of a core; none before the second sample.
    pub(crate) fn nano_cores(&self, id: &str) -> Option<u64> {
        lock(&self.cpu).get(id)?.nano_cores
    }

    /// None before the first sample.
    pub(crate) fn writable_layer(&self, id: &str) -> Option<Layer> {
        lock(&self.layers).get(id).copied()
    }

    /// All writable layers together.
    pub(crate) fn all_layers(&self) -> Layer {
        let none = Layer {
            at: now(),
            bytes: 0,
            inodes: 0,
        };
        lock(&self.layers).values().fold(none, |sum, layer| Layer {
            at: sum.at,
            bytes: sum.bytes.saturating_add(layer.bytes),
            inodes: sum.inodes.saturating_add(layer.inodes),
        })
    }

    /// The container is gone.
    pub(crate) fn forget(&self, id: &str) {
        lock(&self.cpu).remove(id);
        lock(&self.layers).remove(id);
    }

    fn add_cpu(&self, id: &str, at: i64, total_ns: u64) {
        let mut all = lock(&self.cpu);
        let nano_cores = all.get(id).and_then(|last| rate(last, at, total_ns));
        all.insert(
            id.to_owned(),
            Cpu {
                at,
                total_ns,
                nano_cores,
            },
        );
    }

    fn keep_cpu(&self, ids: &HashSet<String>) {
        lock(&self.cpu).retain(|id, _| ids.contains(id));
    }
}

/// CPU time used between two samples, per second of time.
fn rate(last: &Cpu, at: i64, total_ns: u64) -> Option<u64> {
    let elapsed = u128::try_from(at.checked_sub(last.at)?)
        .ok()
        .filter(|elapsed| *elapsed > 0)?;
    let used = u128::from(total_ns.checked_sub(last.total_ns)?);
    u64::try_from(used * NANOSECONDS / elapsed).ok()
}

/// What is sampled, and how often.
#[derive(Debug, Clone)]
pub(crate) struct Sampler {
    pub(crate) pods: Arc<Pods>,
    pub(crate) hierarchies: Hierarchies,
    pub(crate) samples: Arc<Samples>,
    /// Directory of the containers' directories.
    pub(crate) layers: PathBuf,
    pub(crate) period: Duration,
}

impl Sampler {
    /// Samples for as long as the daemon lives. CPU and layers apart: a large layer must not delay the CPU.
    pub(crate) fn start(self) {
        let cpu = self.clone();
        tokio::spawn(async move {
            loop {
                cpu.sample_cpu();
                tokio::time::sleep(cpu.period).await;
            }
        });
        tokio::spawn(async move {
            loop {
                self.sample_layers().await;
                tokio::time::sleep(self.period).await;
            }
        });
    }

    fn sample_cpu(&self) {
        let containers = self.pods.containers().into_iter();
        let containers = containers
            .filter(|container| is_running(container.progress()))
            .map(|container| (container.id.clone(), container.record().cgroup));
        let sandboxes = self.pods.sandboxes().into_iter();
        let sandboxes = sandboxes
            .filter(|sandbox| sandbox.is_ready())
            .map(|sandbox| (sandbox.id.clone(), sandbox.record().cgroup_parent));
        let mut seen = HashSet::new();
        for (id, cgroup) in containers.chain(sandboxes) {
            if let Some(total) = self.hierarchies.cpu_ns(&cgroup) {
                self.samples.add_cpu(&id, now(), total);
            }
            seen.insert(id);
        }
        self.samples.keep_cpu(&seen);
    }

    /// A container that has ended writes no more: it is looked at once after its end.
    async fn sample_layers(&self) {
        // One may have been forgotten while it was measured.
        lock(&self.samples.layers).retain(|id, _| self.pods.container(id).is_some());
        for container in self.pods.containers() {
            let finished_at = container.exit().map_or(i64::MAX, |exit| exit.finished_at);
            let last = self.samples.writable_layer(&container.id);
            if last.is_some_and(|last| last.at > finished_at) {
                continue;
            }
            let upper = self.layers.join(&container.id).join("upper");
            let at = now();
            let used = tokio::task::spawn_blocking(move || tree::measure(&upper, ENTRIES_PER_SECOND)).await;
            // Removed meanwhile, or a disk that fails: the last figure stays until there is another.
            if let Ok(Ok(used)) = used
                && self.pods.container(&container.id).is_some()
            {
                let layer = Layer {
                    at,
                    bytes: used.bytes,
                    inodes: used.inodes,
                };
                lock(&self.samples.layers).insert(container.id.clone(), layer);
            }
        }
    }
}

fn is_running(progress: Progress) -> bool {
    matches!(progress, Progress::Running { .. })
}

/// One insert or look at a time: a panic elsewhere leaves the map whole.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pods::{Container, Sandbox};
    use crate::store::{ContainerRecord, SandboxRecord};

    #[test]
    fn two_samples_make_a_rate() {
        let samples = Samples::default();
        samples.add_cpu("a", 1_000_000_000, 500);
        assert_eq!(samples.nano_cores("a"), None);
        samples.add_cpu("a", 3_000_000_000, 1_000_000_500);
        assert_eq!(samples.nano_cores("a"), Some(500_000_000));
        // A counter that went back (a new cgroup of the same name) and a clock that did.
        samples.add_cpu("a", 4_000_000_000, 0);
        assert_eq!(samples.nano_cores("a"), None);
        samples.add_cpu("a", 3_000_000_000, 10);
        assert_eq!(samples.nano_cores("a"), None);
    }

    #[tokio::test]
    async fn a_file_below_a_path_that_is_too_long_to_be_named_counts() {
        use rustix::fs::{Mode, OFlags, mkdirat, openat};

        let directory = tempfile::tempdir().unwrap();
        let upper = directory.path().join("c/upper");
        std::fs::create_dir_all(&upper).unwrap();
        let name = "n".repeat(200);
        let mut place = std::os::fd::OwnedFd::from(std::fs::File::open(&upper).unwrap());
        for _ in 0..50 {
            mkdirat(&place, &name, Mode::RWXU).unwrap();
            place = openat(&place, &name, OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).unwrap();
        }
        let flags = OFlags::CREATE | OFlags::WRONLY | OFlags::CLOEXEC;
        let mut file = std::fs::File::from(openat(&place, "large", flags, Mode::RUSR | Mode::WUSR).unwrap());
        std::io::Write::write_all(&mut file, &vec![1; 1 << 20]).unwrap();

        let pods = Arc::new(Pods::default());
        let sandbox = Arc::new(Sandbox::new(SandboxRecord::default()));
        let record = ContainerRecord {
            id: "c".to_owned(),
            ..ContainerRecord::default()
        };
        pods.add_container(Arc::new(Container::new(sandbox, record)));
        let sampler = Sampler {
            pods,
            hierarchies: Hierarchies::discover().unwrap(),
            samples: Arc::default(),
            layers: directory.path().to_owned(),
            period: Duration::from_secs(1),
        };
        sampler.sample_layers().await;
        let layer = sampler.samples.writable_layer("c").unwrap();
        assert!(layer.bytes >= 1 << 20 && layer.inodes == 52, "{layer:?}");
        tree::remove(&upper).unwrap();
    }
}
