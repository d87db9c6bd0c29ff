//! The desired state that `--watch` follows: files are looked at, a Git branch is fetched by a
//! thread of its own, and the secrets file counts with both.

use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::{
        Arc,
        mpsc::{Receiver, TryRecvError},
    },
    time::{Duration, Instant},
};

use rand::RngExt as _;
use reconcile_core::model::{HostName, RefusedSource, Revision, sha256_hex};
use reconcile_engine::{
    Leased,
    lease::Held,
    watch::{Current, Refresh, Source},
};
use reconcile_git::{Follower, GitError, follow::Waker};
use reconcile_spec::{ValidSpec, valid::SecretsSource};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::{
    base::Base,
    cli::Cli,
    commands::{Prepared, Watched, prepare_again},
    failure::Failure,
    output,
    source::{self, Origin, Texts},
    triggers::{self, Triggers},
};

/// A text that was not taken is tried again after this: a disk was full, a command timed out.
const AGAIN: Duration = Duration::from_secs(30);

/// After this long it is said that a text is not ready yet, and a newer one does not wait for it. A
/// program for secrets is stopped before.
const LATE: Duration = Duration::from_secs(120);

/// Why a text was not taken, and when.
type Broken = Option<(RefusedSource, Instant)>;

type Made = Result<Arc<Prepared>, Failure>;

/// A text that is being made ready.
struct Making {
    texts: Texts,
    why: Why,
    made: Receiver<Made>,
    /// Gone once nobody waits for it any more.
    _wanted: Arc<()>,
    began: Instant,
    /// That it takes long was said.
    told: bool,
}

/// Why a text is made ready.
enum Why {
    /// It is the newest.
    Newest,
    /// It was not taken, for this reason.
    Again(RefusedSource),
    /// It was in force before the one that is refused.
    Before { refused: RefusedSource, broken: Broken, since: Option<u64> },
}

impl Why {
    /// Why what comes of it is only looked by.
    fn only_looks(&self) -> Option<String> {
        match self {
            Self::Before { since, .. } => since.map(source::only_looks),
            Self::Newest | Self::Again(_) => None,
        }
    }
}

/// The desired state of one cluster, followed.
pub(crate) struct Followed<'a> {
    cli: &'a Cli,
    cluster: String,
    origin: Arc<Origin>,
    follower: Option<Follower>,
    /// Digest of the files, where the origin is a path.
    seen: Option<String>,
    /// The last text that could be read.
    last: Option<Texts>,
    /// The commit in force.
    commit: Option<String>,
    /// What was in force before this process, until something of its own is; and since when, where it
    /// is a copy of a file.
    fallback: Option<(Texts, Option<u64>)>,
    /// Why the newest text cannot be had.
    refused: Option<RefusedSource>,
    /// To be said at the next look: the text just put in force is not the newest.
    say: Option<RefusedSource>,
    /// The secrets file and what opens it, once they are known, and their digest.
    secrets: Vec<PathBuf>,
    seen_secrets: String,
    dirty: mpsc::Sender<()>,
    triggers: Triggers,
    /// Under which lease it is done.
    held: Arc<Held>,
    /// What is in force, and whether it is to begin anew under another lease.
    good: Option<(Arc<Prepared>, Option<Revision>)>,
    anew: bool,
    /// Why the last text was not taken, and when: what failed for a passing reason is tried again.
    broken: Broken,
    making: Option<Making>,
    /// Of whom the lease is asked, whether it is, and a word when the file names others or is only now
    /// gone by.
    voters: BTreeMap<HostName, String>,
    only_looks: bool,
    moved: CancellationToken,
}

impl<'a> Followed<'a> {
    /// Begins to follow what `-f` names.
    pub(crate) fn start(
        cli: &'a Cli,
        cluster: &str,
        dirty: mpsc::Sender<()>,
    ) -> Result<Self, Failure> {
        let origin = Arc::new(source::origin(cli)?);
        let (mut follower, mut fallback) = (None, None);
        if let Origin::Path(..) = origin.as_ref() {
            // One that cannot be read does not serve; the file as it is may.
            let in_force = origin.in_force().unwrap_or_else(|failure| {
                output::note(&failure.text());
                None
            });
            fallback = in_force;
        }
        if let Origin::Git(mirror) = origin.as_ref() {
            fallback = match mirror.in_force() {
                Ok(in_force) => in_force.map(|snapshot| (Texts::committed(mirror, snapshot), None)),
                Err(GitError::Refused { .. }) => None,
                Err(error) => return Err(source::unread(&error)),
            };
            let every = Duration::from_secs(cli.git.git_interval);
            let pause = move || every.mul_f64(1.0 - rand::rng().random::<f64>() / 5.0);
            let dirty = dirty.clone();
            // Full: a look is due anyhow. Closed: the loop ends.
            let looked = move || {
                let _due = dirty.try_send(());
            };
            let started = Follower::start(mirror.as_ref().clone(), pause, looked);
            follower =
                Some(started.map_err(|error| Failure::from_error("follow the branch", &error))?);
        }
        Ok(Self {
            cli,
            cluster: cluster.to_owned(),
            origin,
            follower,
            seen: None,
            last: None,
            commit: None,
            fallback,
            refused: None,
            say: None,
            secrets: Vec::new(),
            seen_secrets: String::new(),
            dirty,
            triggers: Triggers::default(),
            held: Held::none(),
            good: None,
            anew: false,
            broken: None,
            making: None,
            voters: BTreeMap::new(),
            only_looks: false,
            moved: CancellationToken::new(),
        })
    }

    /// What is in force, if anything was taken yet.
    pub(crate) fn prepared(&self) -> Option<Arc<Prepared>> {
        self.good.as_ref().map(|(prepared, _)| Arc::clone(prepared))
    }

    /// The lease is asked of these servers, unless this is only looked by; cancelled when the file names
    /// others, or is good.
    pub(crate) fn elect(&mut self, prepared: &Prepared) -> CancellationToken {
        self.voters = voters(prepared);
        self.only_looks = prepared.desired.only_looks.is_some();
        self.moved = CancellationToken::new();
        self.moved.clone()
    }

    /// What is in force is done under this lease from here on.
    pub(crate) fn begin(&mut self, held: &Arc<Held>) {
        self.held = Arc::clone(held);
        self.anew = self.good.is_some();
    }

    /// What is in force, under the lease.
    fn in_force(&self) -> Option<Refresh<Leased<Watched>>> {
        let (held, (prepared, revision)) = (&self.held, self.good.as_ref()?);
        prepared.fleet.carry(held.claimant());
        Some(Refresh::Changed(Box::new(Current {
            desired: prepared.desired.clone(),
            fleet: Leased { fleet: Watched(Arc::clone(prepared)), held: Arc::clone(held) },
            revision: revision.clone(),
        })))
    }

    /// For whoever hears of a push.
    pub(crate) fn waker(&self) -> Option<Waker> {
        self.follower.as_ref().map(Follower::waker)
    }

    /// A text other than the last one, or why there is none.
    fn news(&mut self) -> Option<Result<Texts, Failure>> {
        let (Some(follower), Origin::Git(mirror)) = (&self.follower, self.origin.as_ref()) else {
            let texts = self.origin.texts();
            let digest = sha256_hex(
                match &texts {
                    Ok(texts) => format!("{:?}", texts.files),
                    Err(failure) => failure.text(),
                }
                .as_bytes(),
            );
            if self.seen.replace(digest.clone()) == Some(digest) {
                return None;
            }
            return Some(texts);
        };
        let news = follower.news()?.map_err(|error| source::unread(&error));
        Some(news.map(|snapshot| Texts::committed(mirror, snapshot)))
    }

    fn secrets_digest(&self) -> String {
        let mut text = String::new();
        for path in &self.secrets {
            text.push_str(&match std::fs::read(path) {
                Ok(content) => sha256_hex(&content),
                Err(error) => error.to_string(),
            });
        }
        text
    }

    /// Begins to make a text ready, on a thread of its own: secrets may come from a program that
    /// hangs, and a fetch may hold the mirror for minutes. Nothing else waits for either.
    fn load(&mut self, texts: Texts, why: Why) -> Refresh<Leased<Watched>> {
        let parsed = source::parse(self.cli, &texts).and_then(|source| {
            // The lock and the journal are those of the cluster that the watch began with.
            let one = source.clusters.len() == 1;
            let spec = source
                .clusters
                .into_iter()
                .find(|spec| spec.name.as_str() == self.cluster)
                .filter(|_| one)
                .ok_or_else(|| {
                    Failure::new(format!("the file is no longer of cluster {} alone", self.cluster))
                })?;
            if let SecretsSource::File(path) = &spec.secrets {
                let identity = source.base.identity().map(|(path, _)| path);
                self.secrets = identity.into_iter().chain([source.base.resolve(path)]).collect();
            }
            Ok((spec, source.base))
        });
        self.seen_secrets = self.secrets_digest();
        let receiver =
            parsed.and_then(|(spec, base)| self.make(spec, base, texts.clone(), why.only_looks()));
        match receiver {
            Ok((wanted, made)) => {
                let began = Instant::now();
                let told = false;
                self.making = Some(Making { texts, why, made, _wanted: wanted, began, told });
                Refresh::Unchanged
            }
            Err(failure) => self.made(&texts, why, Err(failure)),
        }
    }

    fn make(
        &self,
        spec: ValidSpec,
        base: Base,
        texts: Texts,
        only_looks: Option<String>,
    ) -> Result<(Arc<()>, Receiver<Made>), Failure> {
        let wanted = Arc::new(());
        let still = Arc::downgrade(&wanted);
        let (ready, made) = std::sync::mpsc::sync_channel(1);
        let (origin, before) = (Arc::clone(&self.origin), self.prepared());
        let (dirty, runtime) = (self.dirty.clone(), tokio::runtime::Handle::current());
        let work = move || {
            let _entered = runtime.enter();
            let before = before.as_ref().map(|prepared| &prepared.fleet);
            let made = prepare_again(&spec, &base, before).and_then(|mut prepared| {
                prepared.desired.only_looks = only_looks;
                if prepared.desired.only_looks.is_some() {
                    return Ok(Arc::new(prepared));
                }
                // One that was passed by is not to be noted as in force after the newer one.
                if still.strong_count() == 0 {
                    return Err(Failure::new("a newer desired state was taken meanwhile"));
                }
                origin.accept(&texts)?;
                Ok(Arc::new(prepared))
            });
            let due = made.is_ok();
            // Closed: the loop has ended. Full: a look is due anyhow.
            if ready.send(made).is_ok() && due {
                let _due = dirty.try_send(());
            }
        };
        let thread = std::thread::Builder::new().name("source".to_owned()).spawn(work);
        thread.map_err(|error| Failure::from_error("make the desired state ready", &error))?;
        Ok((wanted, made))
    }

    /// Takes note of a text that is ready, or is not to be had.
    fn made(&mut self, texts: &Texts, why: Why, made: Made) -> Refresh<Leased<Watched>> {
        let taken = self.put_in_force(texts, made);
        match (why, taken) {
            (Why::Newest, Refresh::Broken(refused)) => {
                let broken = self.broken.clone();
                self.fall_back(refused, broken)
            }
            (Why::Newest, changed) => {
                self.fallback = None;
                self.say.clone_from(&self.refused);
                changed
            }
            (Why::Again(said), Refresh::Broken(refused)) if refused == said => Refresh::Unchanged,
            (Why::Again(_), other) => other,
            (Why::Before { refused, broken, since }, changed) => {
                self.broken = broken;
                if !matches!(changed, Refresh::Changed(_)) {
                    return Refresh::Broken(refused);
                }
                if since.is_none() {
                    self.last.get_or_insert(texts.clone());
                }
                self.say = Some(refused);
                changed
            }
        }
    }

    fn put_in_force(&mut self, texts: &Texts, made: Made) -> Refresh<Leased<Watched>> {
        match made {
            Ok(prepared) => {
                let before = std::mem::take(&mut self.triggers);
                self.triggers = triggers::follow(&prepared, &self.dirty, before);
                self.commit = texts.revision.as_ref().map(|revision| revision.commit.clone());
                self.broken = None;
                let elected = voters(&prepared) == self.voters
                    && prepared.desired.only_looks.is_some() == self.only_looks;
                let moved = !self.voters.is_empty() && !elected;
                self.good = Some((prepared, texts.revision.clone()));
                if moved {
                    // Nothing of it is done before those who are named now have granted it.
                    self.moved.cancel();
                    return Refresh::Elsewhere;
                }
                self.in_force().unwrap_or(Refresh::Unchanged)
            }
            Err(failure) => {
                let refused = failure.of(texts.revision.as_ref()).refusal(self.origin.file());
                self.broken = Some((refused.clone(), Instant::now()));
                Refresh::Broken(refused)
            }
        }
    }

    /// Tries a text that was not taken once more; the same words are not said again.
    fn again(&mut self, texts: Texts) -> Refresh<Leased<Watched>> {
        let Some((said, _)) = self.broken.clone().filter(|(_, at)| at.elapsed() >= AGAIN) else {
            return Refresh::Unchanged;
        };
        self.load(texts, Why::Again(said))
    }

    /// At the start, where a text does not serve, the one before it does.
    fn fall_back(&mut self, refused: RefusedSource, broken: Broken) -> Refresh<Leased<Watched>> {
        let Some((texts, since)) = self.fallback.take() else { return Refresh::Broken(refused) };
        self.load(texts, Why::Before { refused, broken, since })
    }
}

/// The servers that grant the lease, and where they are.
fn voters(prepared: &Prepared) -> BTreeMap<HostName, String> {
    let servers = prepared.desired.servers.iter();
    servers.map(|(name, server)| (name.clone(), server.address.clone())).collect()
}

impl Source for Followed<'_> {
    type Fleet = Leased<Watched>;

    fn refresh(&mut self) -> Refresh<Leased<Watched>> {
        if std::mem::take(&mut self.anew)
            && let Some(good) = self.in_force()
        {
            // What is in force under the new lease may still not be the newest.
            let broken = self.broken.as_ref().map(|(refused, _)| refused.clone());
            self.say = self.refused.clone().or(broken);
            return good;
        }
        if let Some(refused) = self.say.take() {
            return Refresh::Broken(refused);
        }
        if let Some(making) = &mut self.making {
            let made = match making.made.try_recv() {
                Ok(made) => Some(made),
                Err(TryRecvError::Empty) if making.began.elapsed() < LATE => {
                    return Refresh::Unchanged;
                }
                Err(TryRecvError::Empty) if !std::mem::replace(&mut making.told, true) => {
                    let late = Failure::new(format!(
                        "it is not ready after {} s: the secrets, or the mirror of the repository, \
                         cannot be read",
                        LATE.as_secs()
                    ));
                    let late = late.of(making.texts.revision.as_ref());
                    return Refresh::Broken(late.refusal(self.origin.file()));
                }
                Err(TryRecvError::Empty) => None,
                Err(TryRecvError::Disconnected) => {
                    Some(Err(Failure::new("making the desired state ready was cut off")))
                }
            };
            if let Some(made) = made
                && let Some(Making { texts, why, .. }) = self.making.take()
            {
                return self.made(&texts, why, made);
            }
        }
        match self.news() {
            Some(Err(failure)) => {
                let refused = failure.refusal(self.origin.file());
                self.refused = Some(refused.clone());
                self.fall_back(refused, None)
            }
            Some(Ok(texts)) => {
                self.making = None;
                let was_refused = self.refused.take().is_some();
                let commit = texts.revision.as_ref().map(|revision| &revision.commit);
                let in_force = commit.is_some() && commit == self.commit.as_ref();
                self.last = Some(texts.clone());
                // The branch is back at what is in force: what was refused is not tried again.
                let was_broken = self.broken.take().is_some();
                match self.in_force() {
                    Some(good) if in_force && was_broken && !was_refused => good,
                    _ if in_force && !was_refused => Refresh::Unchanged,
                    _ => self.load(texts, Why::Newest),
                }
            }
            None if self.making.is_some() => Refresh::Unchanged,
            None => match self.last.clone() {
                Some(texts) if self.secrets_digest() != self.seen_secrets => {
                    self.load(texts, Why::Newest)
                }
                Some(texts) => self.again(texts),
                None => Refresh::Unchanged,
            },
        }
    }
}
