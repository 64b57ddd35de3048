//! The one task that owns a played pod: it starts containers in their order, sees them end, starts them again.
//!
//! ```text
//! observe (ListContainers, ContainerStatus) -> progress::next -> start (CreateContainer, StartContainer) -> ...
//! ```
//! The daemon is asked again and again, as a kubelet does, so nothing is lost when it restarts in between.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use coracle_cri_api::runtime_v1::{ContainerState, PodSandboxState};

use super::super::client::{Client, ClientError};
use super::super::error::chain;
use super::super::plan::{ContainerPlan, Facts, PodPlan, log_path};
use super::super::pods;
use super::PlayError;
use super::end::Running;
use super::follow::Follower;
use super::images::Present;
use super::progress::{End, Next, Phase, Role, Slot, next};
use super::voice::Voice;
use super::{rotate, volumes};

/// How often the daemon is asked.
const INTERVAL: Duration = Duration::from_millis(250);
/// The most of a container's last words that is shown: the kubelet's limit.
const LAST_WORDS: usize = 4096;

/// A pod whose sandbox runs.
#[derive(Debug)]
pub(super) struct Driver<'a> {
    client: &'a Client,
    plan: &'a PodPlan,
    voice: &'a Voice,
    sandbox: String,
    /// Init containers first, as in the plan.
    members: Vec<Member<'a>>,
    pod_ips: Vec<String>,
    follow: bool,
    /// Whether the daemon's absence has been reported.
    reported_away: bool,
    rotated: Instant,
}

/// A container with its progress.
#[derive(Debug)]
struct Member<'a> {
    plan: &'a ContainerPlan,
    slot: Slot,
    image: Present,
    follower: Option<Follower>,
    /// The attempt before, kept until the next one runs.
    previous: Option<String>,
}

impl<'a> Driver<'a> {
    /// `images` in the order of the plan's containers.
    pub(super) fn new(
        client: &'a Client,
        plan: &'a PodPlan,
        voice: &'a Voice,
        sandbox: String,
        images: Vec<Present>,
        follow: bool,
    ) -> Driver<'a> {
        let now = Instant::now();
        let init = plan
            .init
            .iter()
            .map(|c| (c, if c.sidecar { Role::Sidecar } else { Role::Init }));
        let all = init.chain(plan.main.iter().map(|container| (container, Role::Main)));
        let member = |((plan, role), image)| Member {
            plan,
            slot: Slot::new(role, now),
            image,
            follower: None,
            previous: None,
        };
        let members = all.zip(images).map(member).collect();
        Driver {
            client,
            plan,
            voice,
            sandbox,
            members,
            pod_ips: Vec::new(),
            follow,
            reported_away: false,
            rotated: now,
        }
    }

    /// Until the pod has ended by itself. Can be dropped at any time and followed by [`Driver::end`].
    pub(super) async fn run(&mut self) -> Result<End, PlayError> {
        self.pod_ips = self.addresses().await?;
        loop {
            match self.observe().await {
                Ok(()) => self.reported_away = false,
                Err(error) if error.is_unreachable() => self.report_away(&error),
                Err(error) => return Err(error.into()),
            }
            let slots: Vec<Slot> = self.members.iter().map(|member| member.slot.clone()).collect();
            match next(&slots, Instant::now()) {
                Next::Start(index) if !self.can_start(index).await? => {
                    self.voice
                        .say("its sandbox has ended: no container can be started again");
                    return Ok(End::Failed);
                }
                Next::Start(index) => self.start(index).await?,
                Next::Finished(end) => return Ok(end),
                Next::Wait => tokio::time::sleep(INTERVAL).await,
            }
            self.rotate_logs().await;
        }
    }

    /// What has to be stopped: as the daemon sees it, since the driver may have been dropped in the middle of a start.
    pub(super) async fn to_stop(&self) -> Vec<Running> {
        let role = |name: &str| {
            self.members
                .iter()
                .find(|member| member.plan.name == name)
                .map(|m| m.slot.role)
        };
        let running = |name: &str, id: &str| Running {
            name: name.to_owned(),
            id: id.to_owned(),
            sidecar: role(name) == Some(Role::Sidecar),
        };
        let Ok(mut there) = self.client.list_containers(Some(&self.sandbox)).await else {
            return self
                .running()
                .map(|(member, id)| running(&member.plan.name, id))
                .collect();
        };
        there.retain(|container| container.state() == ContainerState::ContainerRunning);
        // Sidecars end in the reverse order of their start.
        there.sort_by_key(|container| std::cmp::Reverse(container.created_at));
        there
            .iter()
            .map(|container| running(pods::container_name(container), &container.id))
            .collect()
    }

    /// The containers that run, the last of the manifest first.
    fn running(&self) -> impl Iterator<Item = (&Member<'a>, &str)> {
        self.members
            .iter()
            .rev()
            .filter_map(|member| match &member.slot.phase {
                Phase::Running { id } => Some((member, id.as_str())),
                _ => None,
            })
    }

    /// Prints what the containers wrote last.
    pub(super) async fn finish_logs(&mut self) {
        for member in &mut self.members {
            if let Some(follower) = member.follower.take() {
                follower.finish().await;
            }
        }
    }

    async fn addresses(&self) -> Result<Vec<String>, ClientError> {
        let network = self
            .client
            .sandbox_status(&self.sandbox)
            .await?
            .and_then(|status| status.network);
        let Some(network) = network else {
            return Ok(Vec::new());
        };
        let all = std::iter::once(network.ip).chain(network.additional_ips.into_iter().map(|ip| ip.ip));
        Ok(all.filter(|ip| !ip.is_empty()).collect())
    }

    /// Looks which of the running containers have ended.
    async fn observe(&mut self) -> Result<(), ClientError> {
        if self.running().next().is_none() {
            return Ok(());
        }
        let there = self.client.list_containers(Some(&self.sandbox)).await?;
        for index in 0..self.members.len() {
            let Some(Member {
                slot:
                    Slot {
                        phase: Phase::Running { id },
                        ..
                    },
                ..
            }) = self.members.get(index)
            else {
                continue;
            };
            let state = there
                .iter()
                .find(|container| container.id == *id)
                .map(|container| container.state());
            let ended = match state {
                Some(ContainerState::ContainerExited) => self.how_it_ended(index, &id.clone()).await?,
                // Somebody has removed it.
                None => Some(Ended {
                    code: 137,
                    text: "it was removed".to_owned(),
                }),
                Some(_) => None,
            };
            if let Some(ended) = ended {
                self.ended(index, &ended).await;
            }
        }
        Ok(())
    }

    async fn how_it_ended(&self, index: usize, id: &str) -> Result<Option<Ended>, ClientError> {
        let status = match self.client.container_status(id).await {
            Err(error) if error.is_not_found() => return Ok(None),
            status => status?,
        };
        let Some(status) = status else { return Ok(None) };
        let mut text = format!("ended with exit code {}", status.exit_code);
        if !status.reason.is_empty() {
            text.push_str(&format!(" ({})", status.reason));
        }
        let words = self
            .members
            .get(index)
            .map(|member| last_words(&member.plan.termination_file));
        if let Some(words) = words.filter(|words| !words.is_empty()) {
            text.push_str(&format!(": {words}"));
        }
        Ok(Some(Ended {
            code: status.exit_code,
            text,
        }))
    }

    async fn ended(&mut self, index: usize, ended: &Ended) {
        let policy = self.plan.restart_policy;
        let Some(member) = self.members.get_mut(index) else {
            return;
        };
        if let Some(follower) = member.follower.take() {
            follower.finish().await;
        }
        if let Phase::Running { id } = &member.slot.phase {
            member.previous = Some(id.clone());
        }
        let now = Instant::now();
        let again = member.slot.ended(ended.code, policy, now);
        let then = match again.map(|at| at.saturating_duration_since(now).as_secs()) {
            None => String::new(),
            Some(0) => "; starting it again".to_owned(),
            Some(wait) => format!("; starting it again in {wait} s"),
        };
        self.voice
            .say(&format!("container {}: {}{then}", member.plan.name, ended.text));
    }

    /// Whether the sandbox is still there for a restart. (The first start says by itself why it fails.)
    async fn can_start(&self, index: usize) -> Result<bool, ClientError> {
        if self
            .members
            .get(index)
            .is_none_or(|member| member.slot.starts == 0)
        {
            return Ok(true);
        }
        match self.client.sandbox_status(&self.sandbox).await {
            Ok(status) => Ok(status.is_some_and(|status| status.state() == PodSandboxState::SandboxReady)),
            Err(error) if error.is_not_found() => Ok(false),
            // The daemon is away for a while: starting will say so.
            Err(error) if error.is_unreachable() => Ok(true),
            Err(error) => Err(error),
        }
    }

    /// Creates and starts the next attempt. What fails the first time would fail for ever; later it is tried again.
    async fn start(&mut self, index: usize) -> Result<(), PlayError> {
        let Some(member) = self.members.get(index) else {
            return Ok(());
        };
        let starts = member.slot.starts;
        match self.create_and_start(index).await {
            Ok(id) => {
                self.started(index, id).await;
                Ok(())
            }
            Err(PlayError::Client(error)) if error.is_unreachable() => {
                self.report_away(&error);
                tokio::time::sleep(INTERVAL).await;
                Ok(())
            }
            Err(error) if starts == 0 => Err(error),
            Err(error) => {
                self.ended(
                    index,
                    &Ended {
                        code: 128,
                        text: chain(&error),
                    },
                )
                .await;
                Ok(())
            }
        }
    }

    async fn create_and_start(&self, index: usize) -> Result<String, PlayError> {
        let Some(member) = self.members.get(index) else {
            return Err(PlayError::Internal);
        };
        let name = &member.plan.name;
        let facts = Facts {
            attempt: member.slot.starts,
            pod_ips: self.pod_ips.clone(),
            image_ref: member.image.id.clone(),
            image_user: member.image.user.clone(),
        };
        let config = member.plan.config(&facts)?;
        volumes::make_termination_file(name, &member.plan.termination_file)?;
        let sandbox_config = self.plan.sandbox.clone();
        let id = self
            .client
            .create_container(name, &self.sandbox, config, sandbox_config)
            .await?;
        match self.client.start_container(name, &id).await {
            Ok(()) => Ok(id),
            Err(error) => {
                // The attempt's name must be free for the next one. The first error is the one that matters.
                let _ = self.client.remove_container(name, &id).await;
                Err(error.into())
            }
        }
    }

    async fn started(&mut self, index: usize, id: String) {
        let logs = self.plan.place.logs();
        let Some(member) = self.members.get_mut(index) else {
            return;
        };
        let name = member.plan.name.clone();
        self.voice.say(&format!("container {name} started"));
        if self.follow {
            let path = logs.join(log_path(&name, member.slot.starts));
            member.follower = Some(Follower::start(self.voice.clone(), name.clone(), path));
        }
        member.slot.phase = Phase::Running { id };
        member.slot.starts += 1;
        let oldest = member.slot.starts.checked_sub(3);
        if let Some(previous) = member.previous.take() {
            // It stays for as long as it can be looked at; if it cannot be removed now, the sandbox's end removes it.
            let _ = self.client.remove_container(&name, &previous).await;
        }
        if let Some(oldest) = oldest {
            rotate::remove(&logs.join(log_path(&name, oldest)));
        }
    }

    async fn rotate_logs(&mut self) {
        if self.rotated.elapsed() < rotate::INTERVAL {
            return;
        }
        self.rotated = Instant::now();
        for (member, id) in self.running() {
            let attempt = member.slot.starts.saturating_sub(1);
            let path: PathBuf = self.plan.place.logs().join(log_path(&member.plan.name, attempt));
            if rotate::is_due(&path) {
                rotate::rotate(self.client, &member.plan.name, id, &path, self.voice).await;
            }
        }
    }

    fn report_away(&mut self, error: &ClientError) {
        if !self.reported_away {
            self.voice.say(&format!("{}; waiting for it", chain(error)));
            self.reported_away = true;
        }
    }
}

#[derive(Debug)]
struct Ended {
    code: i32,
    text: String,
}

/// What the container left in its termination file, on one line.
fn last_words(path: &std::path::Path) -> String {
    use std::io::Read;
    let mut bytes = Vec::new();
    let Ok(file) = std::fs::File::open(path) else {
        return String::new();
    };
    let _ = file.take(LAST_WORDS as u64).read_to_end(&mut bytes);
    String::from_utf8_lossy(&bytes).trim().to_owned()
}
