//! The audit of one log: from its checkpoint over every entry to the directory
//! root, with the bytes behind the entries, its cosignatures and its age.
//!
//! Faults are sticky: they are written down with their evidence and come up
//! again at every start. A fork, a wrong root or a broken rule ends the
//! following for good; bytes that say something else than their entry do not.
//! Everything else is a condition (threat 17).
//!
//! In the folder: `held.json`, the newest signed checkpoint, written down before
//! its entries are read, since a fork is a fork whatever they are; `book`, see
//! there, often a little behind; `faults.json`. Whoever is killed in between
//! reads the last stretch again.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::stream::{self, StreamExt as _};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use tokio::sync::mpsc;

use super::accuse::{self, Accused, Shown};
use super::book::{Book, MAX_BOOK, MAX_ENDS};
use super::compare::Seen;
use super::evidence::{self, Claim, Found};
use super::{Error, Folder, Notice, Tree, Weight};
use crate::client::follow::{self, LogSource, Page, Position, Relation};
use crate::client::{DnsRoot, Policy};
use crate::clock::Clock;
use crate::dime::{Domain, Name, Timestamp};
use crate::errors::with_sources;
use crate::proof::Label;
use crate::proof::checkpoint::{Checkpoint, SignedCheckpoint};
use crate::proof::dnssec::{self, Anchor};
use crate::proof::entry::{self, Entry, Kind};
use crate::proof::incident::Counterpart;
use crate::proof::map::MapProof;
use crate::proof::merkle::leaf_hash;
use crate::proof::note::{MAX_NOTE, VerifierKey};
use crate::proof::policy::{MAX_FUTURE, Quorum};
use crate::proof::replay::{
    self, Broken, Change, Expected, MapEngine as _, Replayer, Stop, Tip, Unknown,
};

/// Blobs fetched from one log at one time.
const AT_ONCE: usize = 8;
/// The state is kept at least so often while much is read.
const KEEP: Duration = Duration::from_secs(60);
/// Entries whose bytes a log owes: with so many it is followed no further until it
/// serves some. One page more can come above that.
pub const MAX_OWED: usize = 10_000;
/// Faults that are written down, at most.
const MAX_FAULTS: usize = 1000;
/// How long it may take to find the earlier one of two entries that do not fit
/// together, and to prove both; the fault is told of whether it comes to that or not.
const SEARCH: Duration = Duration::from_secs(30);
/// Bundles that are fetched for it at most: half a million entries, mostly 80 MB.
const SEARCHED: u64 = 2048;
/// Longest file with a checkpoint, bytes.
const MAX_HELD: u64 = 2 * MAX_NOTE as u64;
/// Longest file of faults, bytes.
const MAX_FAULTS_FILE: u64 = 4 << 20;
/// The one condition that leaves nothing to be wished for: the log has ended.
const ENDED: &str = "CLOSED";

/// Which log, and whom to believe about it.
#[derive(Clone, Debug)]
pub struct Options {
    pub url: String,
    /// The log's own; its name is the origin.
    pub key: VerifierKey,
    pub policy: Policy,
    pub root: DnsRoot,
    /// [`MAX_OWED`].
    pub max_owed: usize,
}

/// One log on its way through an audit.
#[derive(Debug)]
pub struct Follower {
    source: LogSource,
    policy: Policy,
    /// Which DNS root the chains must lead to, and whether another one is a fault
    /// from the first chain on.
    anchors: Vec<Anchor>,
    only: bool,
    max_owed: usize,
    /// Of the folder's files.
    prefix: String,
    held: Option<Held>,
    /// The one before it: entries, and when it was the newest.
    seen_before: Option<(u64, Timestamp)>,
    book: Book,
    /// Where the book on disk stands, and when it was written.
    kept: (u64, Instant),
    /// It owes something there.
    kept_owing: bool,
    replayer: Replayer,
    /// Entries fetched: those of the book, and the beginning of a batch.
    reached: Position,
    /// That beginning.
    batch: Vec<(u64, Bytes)>,
    faults: Vec<Fault>,
    /// Conditions that were told and last.
    standing: BTreeSet<&'static str>,
    /// Entries that were told to be owed.
    accused: BTreeSet<u64>,
    told_faults: bool,
    ear: Option<mpsc::Sender<Notice>>,
}

/// The newest checkpoint that the log signed.
#[derive(Debug)]
struct Held {
    checkpoint: SignedCheckpoint,
    /// When it was the newest, by our clock.
    seen_at: Timestamp,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct HeldFile {
    checkpoint: String,
    seen_at: u64,
    url: String,
}

/// What the log will not be forgiven.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Fault {
    kind: String,
    message: String,
    at: u64,
    evidence: Option<PathBuf>,
    /// Nothing behind it can be followed.
    ends: bool,
}

/// What a log that was not fetched is in.
pub(super) fn kind_of(error: &follow::Error) -> &'static str {
    match error {
        follow::Error::Http(_) | follow::Error::Status { .. } => "UNREACHABLE",
        follow::Error::Checkpoint { .. } => "NO_CHECKPOINT",
        follow::Error::Served { .. } => "WRONG_TILES",
    }
}

/// Of a log's files in the folder.
fn prefix_of(key: &VerifierKey) -> String {
    hex::encode(&Sha256::digest(key.to_string())[..8])
}

/// Where the log of this key was followed, if it was.
pub(super) fn followed_at(key: &VerifierKey, folder: &Folder) -> Result<Option<String>, Error> {
    let file = folder.read(&format!("{}/held.json", prefix_of(key)), MAX_HELD)?;
    let held = file.and_then(|bytes| serde_json::from_slice::<HeldFile>(&bytes).ok());
    Ok(held.map(|held| held.url))
}

/// How far a round has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    pub entries: u64,
    /// Entries that the log has.
    pub of: u64,
    pub labels: u64,
}

/// What one round brought.
#[derive(Debug, Default)]
pub struct Round {
    /// What was not [told](Follower::tell) at once.
    pub notices: Vec<Notice>,
    /// Domains with new entries.
    pub touched: BTreeSet<Domain>,
    /// A fault was found, now or before, or bytes are owed.
    pub alarm: bool,
    /// The log could not be checked to its end, or not all of it.
    pub unchecked: bool,
    raised: BTreeSet<&'static str>,
    ear: Option<mpsc::Sender<Notice>>,
}

impl Round {
    /// One that could check nothing.
    pub(super) fn in_vain(notice: Option<Notice>) -> Round {
        let notices = notice.into_iter().collect();
        Round { notices, unchecked: true, ..Round::default() }
    }

    fn tell(&mut self, notice: Notice) {
        let told = match &self.ear {
            Some(ear) => ear.try_send(notice).map_err(mpsc::error::TrySendError::into_inner),
            None => Err(notice),
        };
        self.notices.extend(told.err());
    }

    /// Whether all of the log was checked and found as it should be, cosignatures
    /// and age included.
    pub fn is_well(&self) -> bool {
        let conditions = self.raised.iter().any(|kind| *kind != ENDED);
        !self.alarm && !self.unchecked && !conditions
    }
}

/// What replaying a page brought.
#[derive(Default)]
struct Replayed {
    claims: Vec<Claim>,
    /// Roots dated long before they came.
    late: Option<(u64, Timestamp)>,
    stop: Option<Stopped>,
}

enum Stopped {
    Unknown(Unknown),
    Fault { index: u64, broken: Broken, before: BTreeMap<Label, Option<Tip>> },
}

impl Follower {
    /// Takes up what is kept of the log, or begins anew. Says so if what was kept
    /// was damaged.
    pub fn open(
        options: Options,
        folder: &Folder,
        now: Timestamp,
    ) -> Result<(Follower, Vec<Notice>), Error> {
        let Options { url, key, policy, root, max_owed } = options;
        let prefix = prefix_of(&key);
        let mut notices = Vec::new();
        let mut damaged = |what: String| {
            let message = format!("{what}. The log is read again from its first entry.");
            let origin = key.name();
            notices.push(Notice::new(now, Weight::Condition, "STATE_DAMAGED", origin, message));
        };
        let book = match folder.read(&format!("{prefix}/book"), MAX_BOOK)? {
            None => Book::default(),
            Some(bytes) => match Book::read(&bytes, &key.to_string()) {
                // Written by an older version, which could not judge all of it.
                Ok(book) if book.replay.unknown.is_some_and(|u| u.format == entry::FORMAT) => {
                    Book::default()
                }
                Ok(book) => book,
                Err(damage) => {
                    damaged(damage.to_string());
                    Book::default()
                }
            },
        };
        let source = LogSource::new(&url, key.clone())?;
        let held = match folder.read(&format!("{prefix}/held.json"), MAX_HELD)? {
            None => None,
            Some(bytes) => match Held::read(&bytes, &source) {
                Some(held) => Some(held),
                None => {
                    damaged("the kept checkpoint is damaged".to_owned());
                    None
                }
            },
        };
        // What was replayed counts only behind a checkpoint that others are held to.
        let book = if held.is_none() { Book::default() } else { book };
        let faults = match folder.read(&format!("{prefix}/faults.json"), MAX_FAULTS_FILE)? {
            None => Vec::new(),
            Some(bytes) => serde_json::from_slice(&bytes).map_err(|error| Error::Memory {
                path: folder.at(&format!("{prefix}/faults.json")),
                why: error.to_string(),
            })?,
        };
        let public_key = key.public_key().copied().unwrap_or_default();
        let expected = Expected { origin: key.name().to_owned(), log_key: public_key };
        let (anchors, only) = match root {
            DnsRoot::Public => (dnssec::iana(), false),
            DnsRoot::Only(anchors) => (anchors, true),
        };
        let follower = Follower {
            source,
            policy,
            anchors,
            only,
            max_owed,
            prefix,
            held,
            seen_before: None,
            kept: (book.replay.size, Instant::now()),
            kept_owing: !book.owed.is_empty(),
            replayer: Replayer::resume(expected, book.replay.clone()),
            reached: book.position.clone(),
            book,
            batch: Vec::new(),
            faults,
            standing: BTreeSet::new(),
            accused: BTreeSet::new(),
            told_faults: false,
            ear: None,
        };
        Ok((follower, notices))
    }

    pub fn origin(&self) -> &str {
        self.source.origin()
    }

    pub fn url(&self) -> &str {
        self.source.site().url()
    }

    /// What the log has seen of domains.
    pub fn domains(&self) -> &BTreeMap<Domain, Arc<Seen>> {
        &self.book.domains
    }

    /// What is found goes there at once from now on, and to the end of a round only
    /// where there is no room: a log makes a round as long as it likes.
    pub fn tell(&mut self, ear: mpsc::Sender<Notice>) {
        self.ear = Some(ear);
    }

    /// One look: everything from where it was up to the newest checkpoint.
    pub async fn round(
        &mut self,
        folder: &Folder,
        clock: &Clock,
        progress: &mut (dyn FnMut(Progress) + Send),
    ) -> Result<Round, Error> {
        let mut round = Round { ear: self.ear.clone(), ..Round::default() };
        self.tell_faults(clock.now(), &mut round);
        if !self.faults.iter().any(|fault| fault.ends) {
            self.look(folder, clock, progress, &mut round).await?;
        }
        // Faults and what is owed stand; conditions that were not met are over.
        round.alarm |= !self.faults.is_empty() || !self.accused.is_empty();
        let over: Vec<&str> = self.standing.difference(&round.raised).copied().collect();
        for kind in over {
            self.standing.remove(kind);
            let message = format!("{kind} is over.");
            round.tell(self.notice(clock.now(), Weight::News, "OVER", message));
        }
        Ok(round)
    }

    async fn look(
        &mut self,
        folder: &Folder,
        clock: &Clock,
        progress: &mut (dyn FnMut(Progress) + Send),
        round: &mut Round,
    ) -> Result<(), Error> {
        let target = match self.source.checkpoint().await {
            Ok(target) => target,
            Err(error) => {
                self.unchecked(clock.now(), &error, round);
                return Ok(());
            }
        };
        let looked_at = clock.now();
        self.judge_signatures(&target, looked_at, round);
        if !self.goes_on(&target, folder, looked_at, round).await? {
            return Ok(());
        }
        self.hold(folder, &target, looked_at)?;
        let before = self.book.replay.size;
        let reached = self.follow(&target, folder, clock, progress, round).await?;
        self.ask_again(before, folder, clock, &target, round).await?;
        if !reached {
            return Ok(());
        }
        // In every round: what was not judged once is not judged by being old.
        let unknown = self.replayer.unknown();
        if let Some(unknown) = unknown {
            self.upgrade(clock.now(), unknown, round);
        }
        if let Err(fault) = self.replayer.finish() {
            if unknown.is_some() {
                // Perhaps this program does not know a root when it sees one.
                return Ok(());
            }
            let message = format!("The signed tree ends inside a batch: {fault}.");
            let accused = Accused::Rule(fault.broken.rule());
            let (before, index) = (BTreeMap::new(), fault.index);
            let file = self.accuse_batch(&target, &before, index, accused, clock).await;
            self.fault(folder, clock.now(), "RULE", message, true, file, round)?;
            return Ok(());
        }
        self.judge_age(clock.now(), round);
        self.keep(folder, before != self.book.replay.size)?;
        if before != self.book.replay.size {
            let (size, labels) = (self.book.replay.size, self.book.tree.labels());
            let message = format!(
                "Checked to entry {size}: {} new ones, {labels} labels, directory root of {}.",
                size - before,
                self.book.replay.time
            );
            let news = self.notice(clock.now(), Weight::News, "FOLLOWED", message);
            round.tell(news.with("size", size).with("labels", labels));
        }
        Ok(())
    }

    /// Whether a checkpoint goes on from the newest one; says what it is if not.
    async fn goes_on(
        &mut self,
        target: &SignedCheckpoint,
        folder: &Folder,
        now: Timestamp,
        round: &mut Round,
    ) -> Result<bool, Error> {
        let Checkpoint { size, root, .. } = target.checkpoint();
        let Some(held) = self.held.as_ref().map(|held| held.checkpoint.clone()) else {
            return Ok(true);
        };
        // An older one is known here, also when its mirror cannot show how it
        // fits into what came later.
        let end = self.book.ends.get(size).filter(|_| *size < held.checkpoint().size);
        if end == Some(root) {
            self.older(target, now, round);
            return Ok(false);
        }
        let belied = end.is_some();
        match self.source.relate(&held, target).await {
            Ok(Relation::Same | Relation::Newer) if *size >= self.reached.size() => {
                return Ok(true);
            }
            Ok(Relation::Fork(fork)) => {
                let message = format!(
                    "The log key signed two histories: one of {} entries and one of {}.",
                    fork.smaller.checkpoint().size,
                    fork.larger.checkpoint().size
                );
                let file = accuse::fork(self.source.key(), now, &fork);
                self.fault(folder, now, "FORK", message, true, file, round)?;
            }
            _ if belied => {
                let message = format!(
                    "The log key signed a tree of {size} entries that is not the one that was \
                     checked. The mirror does not serve what would prove it to others."
                );
                self.fault(folder, now, "FORK", message, true, None, round)?;
            }
            Err(error) if *size >= held.checkpoint().size => self.unchecked(now, &error, round),
            Ok(_) | Err(_) => self.older(target, now, round),
        }
        Ok(false)
    }

    /// Writes a checkpoint down that goes on from the last one.
    fn hold(
        &mut self,
        folder: &Folder,
        target: &SignedCheckpoint,
        now: Timestamp,
    ) -> Result<(), Error> {
        let (checkpoint, url) = (target.to_string(), self.url().to_owned());
        let held = HeldFile { checkpoint, seen_at: now.millis(), url };
        let file = serde_json::to_vec(&held).unwrap_or_default();
        folder.write(&format!("{}/held.json", self.prefix), &file)?;
        let before = self.held.replace(Held { checkpoint: target.clone(), seen_at: now });
        self.seen_before = before.map(|held| (held.checkpoint.checkpoint().size, held.seen_at));
        Ok(())
    }

    /// Reads and replays up to the checkpoint; says whether it came to its end.
    async fn follow(
        &mut self,
        target: &SignedCheckpoint,
        folder: &Folder,
        clock: &Clock,
        progress: &mut (dyn FnMut(Progress) + Send),
        round: &mut Round,
    ) -> Result<bool, Error> {
        while self.reached.size() < target.checkpoint().size {
            if self.book.owed.len() >= self.max_owed {
                round.unchecked = true;
                let message = format!(
                    "What is behind {} entries could not be fetched; until some of it is \
                     served, the log is followed no further.",
                    self.book.owed.len()
                );
                self.condition(clock.now(), "OWING", message, round);
                return Ok(false);
            }
            let page = match self.source.page(&self.reached, target).await {
                Ok(page) => page,
                Err(error) => {
                    self.unchecked(clock.now(), &error, round);
                    return Ok(false);
                }
            };
            let replayed = self.replay(&page, &mut round.touched);
            if let Some((index, time)) = replayed.late {
                let message = format!(
                    "The directory root at entry {index} is dated {time}, when the log was seen \
                     without it minutes later. A stalled mirror does that, and so does one that \
                     dates back."
                );
                self.condition(clock.now(), "LATE_ROOT", message, round);
            }
            // Whoever is stopped while they are looked into owes that to the next run:
            // the book stands behind them already.
            for claim in &replayed.claims {
                self.book.owed.insert(claim.index, claim.entry.to_vec());
            }
            self.examine(replayed.claims, target, folder, clock, round).await?;
            match replayed.stop {
                None => {}
                Some(Stopped::Unknown(unknown)) => {
                    self.reached = self.book.position.clone();
                    self.batch.clear();
                    self.upgrade(clock.now(), unknown, round);
                    return Ok(false);
                }
                Some(Stopped::Fault { index, broken, before }) => {
                    let message = format!("Entry {index} breaks a rule: {broken}.");
                    let rule = broken.rule();
                    let (kind, accused) = match broken {
                        Broken::Root | Broken::Labels { .. } => {
                            ("DIRECTORY_ROOT", Accused::Root(rule))
                        }
                        _ => ("RULE", Accused::Rule(rule)),
                    };
                    let pair = self.accuse_pair(target, index, &broken, clock);
                    let file = match tokio::time::timeout(SEARCH, pair).await {
                        Ok(Some(file)) => Some(file),
                        _ => self.accuse_batch(target, &before, index, accused, clock).await,
                    };
                    self.fault(folder, clock.now(), kind, message, true, file, round)?;
                    return Ok(false);
                }
            }
            self.reached = page.position;
            progress(Progress {
                entries: self.reached.size(),
                of: target.checkpoint().size,
                labels: self.book.tree.labels(),
            });
            if self.kept.1.elapsed() > KEEP {
                self.keep(folder, true)?;
            }
        }
        Ok(true)
    }

    /// Replays the entries of a page, batch by batch.
    fn replay(&mut self, page: &Page, touched: &mut BTreeSet<Domain>) -> Replayed {
        let mut replayed = Replayed::default();
        let mut boundary = None;
        let mut tree = self.reached.edge().frontier();
        for (at, entry) in page.entries.iter().enumerate() {
            let index = page.first + at as u64;
            tree.push(leaf_hash(entry));
            self.batch.push((index, entry.clone()));
            let before = self.tips_before(entry);
            match self.replayer.push(&mut self.book.tree, entry.clone()) {
                Ok(None) => {}
                Ok(Some(batch)) => {
                    boundary = Some(at + 1);
                    self.book.root = batch.root.root;
                    self.book.ends.insert(tree.size(), tree.root());
                    if self.book.ends.len() > MAX_ENDS {
                        self.book.ends.pop_first();
                    }
                    replayed.late = replayed.late.or(self.is_late(batch.index, batch.time));
                    self.take(touched, &mut replayed.claims);
                }
                Err(Stop::Fault(fault)) => {
                    let (index, broken) = (fault.index, fault.broken);
                    replayed.stop = Some(Stopped::Fault { index, broken, before });
                    break;
                }
                Err(Stop::Unknown(unknown)) => {
                    replayed.stop = Some(Stopped::Unknown(unknown));
                    break;
                }
                Err(Stop::Engine(never)) => match never {},
            }
        }
        if let Some(count) = boundary {
            let leaves: Vec<_> = page.entries.iter().take(count).map(|e| leaf_hash(e)).collect();
            let (edge, _) = self.reached.edge().integrate(&leaves);
            self.book.position = Position::at(edge);
            self.book.replay = self.replayer.position();
        }
        replayed
    }

    /// What the map holds of the labels of a batch that this entry closes: only
    /// evidence against a wrong root needs it.
    fn tips_before(&self, entry: &Bytes) -> BTreeMap<Label, Option<Tip>> {
        if !matches!(Entry::decode(entry).map(|entry| entry.kind), Ok(Kind::Root(_))) {
            return BTreeMap::new();
        }
        self.labels_of_batch().map(|label| (label, self.book.tree.tip(&label))).collect()
    }

    fn labels_of_batch(&self) -> impl Iterator<Item = Label> {
        self.batch
            .iter()
            .filter_map(|(index, entry)| Change::of(*index, entry.clone()).ok().flatten())
            .map(|change| change.label)
    }

    /// A batch that fits: notes its domains, and what is to be looked into.
    fn take(&mut self, touched: &mut BTreeSet<Domain>, claims: &mut Vec<Claim>) {
        for (index, entry) in self.batch.drain(..) {
            let Ok(Entry { time, kind: Kind::Domain(said), .. }) = Entry::decode(&entry) else {
                continue;
            };
            if let Ok(domain) = said.domain.parse::<Domain>() {
                let seen = self.book.domains.entry(domain.clone()).or_default();
                Arc::make_mut(seen).add(&said, time);
                touched.insert(domain);
            }
            claims.push(Claim { index, entry: entry.clone() });
        }
    }

    /// A root that came later than its date lets it, by our clock.
    fn is_late(&self, index: u64, time: Timestamp) -> Option<(u64, Timestamp)> {
        let (size, seen_at) = self.seen_before?;
        (index >= size && time.plus(MAX_FUTURE) < seen_at).then_some((index, time))
    }

    /// Looks into the bytes behind entries that are owed; what is settled is not
    /// owed any more.
    async fn examine(
        &mut self,
        claims: Vec<Claim>,
        target: &SignedCheckpoint,
        folder: &Folder,
        clock: &Clock,
        round: &mut Round,
    ) -> Result<(), Error> {
        let (source, anchors) = (&self.source.clone(), &self.anchors.clone());
        let looked = claims.into_iter().map(|claim| async move {
            let found = evidence::examine(source, &claim, anchors).await;
            (claim, found)
        });
        // Each is judged as it comes: one that is slow keeps back no other's fault.
        let mut looked = stream::iter(looked.collect::<Vec<_>>()).buffered(AT_ONCE);
        while let Some((claim, found)) = looked.next().await {
            let index = claim.index;
            let settled = !matches!(found, Ok(Found::Unserved { .. }) | Err(_));
            let was_accused = self.accused.remove(&index);
            self.found(claim, found, was_accused, target, folder, clock, round).await?;
            if settled {
                self.book.owed.remove(&index);
            }
        }
        Ok(())
    }

    #[allow(clippy::too_many_arguments)] // one step of `examine`
    async fn found(
        &mut self,
        claim: Claim,
        found: Result<Found, follow::Error>,
        was_accused: bool,
        target: &SignedCheckpoint,
        folder: &Folder,
        clock: &Clock,
        round: &mut Round,
    ) -> Result<(), Error> {
        let (now, index) = (clock.now(), claim.index);
        let about = |notice: Notice| match Entry::decode(&claim.entry).map(|entry| entry.kind) {
            Ok(Kind::Domain(said)) => match said.domain.parse() {
                Ok(domain) => notice.about(&Name::Domain(domain)).with("index", index),
                Err(_) => notice.with("index", index),
            },
            _ => notice.with("index", index),
        };
        match found {
            Ok(Found::True { chain }) if was_accused => {
                self.book.rooted |= chain;
                let message = format!("The bytes behind entry {index} are served now, and true.");
                let news = self.notice(now, Weight::News, "SERVED", message);
                round.tell(about(news));
            }
            Ok(Found::True { chain }) => self.book.rooted |= chain,
            Ok(Found::Withdrawn) => {
                let message = format!("The operator withdrew bytes behind entry {index}.");
                let news = self.notice(now, Weight::News, "WITHDRAWN", message);
                round.tell(about(news));
            }
            // Its other chains do lead there, so it is not our root key that is old.
            Ok(Found::OtherRoot) if self.only || self.book.rooted => {
                let message = format!(
                    "The DNSSEC chain behind entry {index} leads to a DNS root that is not the \
                     one believed. Which root is the right one is our word."
                );
                self.fault(folder, now, "DNSSEC", message, false, None, round)?;
            }
            Ok(Found::OtherRoot) => {
                let message = "DNSSEC chains of this log lead to another root than the public \
                               one (--trust-anchor): they were not checked.";
                self.condition(now, "OTHER_DNS_ROOT", message.to_owned(), round);
            }
            Ok(Found::Unserved { what }) => {
                if !was_accused {
                    let message = format!(
                        "Entry {index} names a {what} that the log does not serve, so what it \
                         says cannot be checked. This is our word; anybody can try."
                    );
                    let leaves = vec![(index, claim.entry.clone())];
                    let accused = Accused::Unserved(what);
                    let file = self.accuse(target, leaves, vec![], vec![], accused, clock).await;
                    let mut alarm =
                        about(self.notice(now, Weight::Alarm, "BLOB_UNSERVED", message));
                    alarm.evidence = self.write(folder, now, "unserved", file)?;
                    round.tell(alarm);
                }
                self.accused.insert(index);
            }
            Ok(Found::False { part, rule, message, blobs }) => {
                let kind = match part {
                    "org-signet" => "ORG_SIGNET",
                    "dnssec-chain" => "DNSSEC",
                    _ => "RECORD",
                };
                let message = format!("Entry {index} is not what its bytes say: {message}.");
                let leaves = vec![(index, claim.entry.clone())];
                let accused = Accused::Rule(rule);
                let file = self.accuse(target, leaves, vec![], blobs, accused, clock).await;
                self.fault(folder, now, kind, message, false, file, round)?;
            }
            Err(error) => {
                // No answer is not the bytes.
                if was_accused {
                    self.accused.insert(index);
                }
                self.unchecked(now, &error, round);
            }
        }
        Ok(())
    }

    /// Asks again for what was owed before this round, which began at `size`.
    async fn ask_again(
        &mut self,
        size: u64,
        folder: &Folder,
        clock: &Clock,
        target: &SignedCheckpoint,
        round: &mut Round,
    ) -> Result<(), Error> {
        let owed = self.book.owed.range(..size);
        let claims: Vec<Claim> = owed
            .map(|(index, entry)| Claim { index: *index, entry: entry.clone().into() })
            .collect();
        self.examine(claims, target, folder, clock, round).await
    }

    /// The cosignatures, by the policy.
    fn judge_signatures(&mut self, target: &SignedCheckpoint, now: Timestamp, round: &mut Round) {
        let policy = self.policy.clone();
        match policy.evaluate(target, now) {
            Err(refused) => {
                let message = format!("A signature on the checkpoint is refused: {refused}.");
                self.condition(now, "SIGNATURE", message, round);
            }
            Ok(verdict) => {
                if let Quorum::NotMet(lacks) = &verdict.quorum {
                    let lacks: Vec<String> = lacks.iter().map(ToString::to_string).collect();
                    let message = format!("The policy's quorum is not met: {}.", lacks.join("; "));
                    self.condition(now, "QUORUM", message, round);
                } else if verdict.replaying.is_some_and(|replaying| !replaying.holds()) {
                    let message = "Too few of the cosigners are ones that replay the log.";
                    self.condition(now, "QUORUM", message.to_owned(), round);
                }
            }
        }
    }

    /// How old the newest directory root is.
    fn judge_age(&mut self, now: Timestamp, round: &mut Round) {
        let replay::Position { time, closed, .. } = self.book.replay;
        if closed {
            let message = "The log has ended; its closing entry names the one that goes on.";
            self.condition(now, ENDED, message.to_owned(), round);
        } else if time > now.plus(MAX_FUTURE) {
            let message = format!("The newest directory root is dated {time}, in the future.");
            self.condition(now, "CLOCK", message, round);
        } else if now.since(time) > self.policy.max_age {
            let message = format!("The newest directory root is of {time}.");
            self.condition(now, "STALE", message, round);
        }
    }

    fn older(&mut self, target: &SignedCheckpoint, now: Timestamp, round: &mut Round) {
        let Checkpoint { size, .. } = target.checkpoint();
        let message = format!(
            "An older state is served: {size} entries, {} were seen before.",
            self.held.as_ref().map_or(0, |held| held.checkpoint.checkpoint().size)
        );
        self.condition(now, "OLDER", message, round);
    }

    fn upgrade(&mut self, now: Timestamp, unknown: Unknown, round: &mut Round) {
        round.unchecked = true;
        let message = format!("Upgrade this program: {unknown}. Nothing is said against the log.");
        self.condition(now, "UPGRADE", message, round);
    }

    fn unchecked(&mut self, now: Timestamp, error: &follow::Error, round: &mut Round) {
        round.unchecked = true;
        self.condition(now, kind_of(error), format!("{}.", with_sources(error)), round);
    }

    fn notice(
        &self,
        now: Timestamp,
        weight: Weight,
        kind: &'static str,
        message: String,
    ) -> Notice {
        Notice::new(now, weight, kind, self.origin(), message).with("url", self.url())
    }

    /// Says it when it begins.
    fn condition(
        &mut self,
        now: Timestamp,
        kind: &'static str,
        message: String,
        round: &mut Round,
    ) {
        round.raised.insert(kind);
        if self.standing.insert(kind) {
            round.tell(self.notice(now, Weight::Condition, kind, message));
        }
    }

    /// What was found before this process began.
    fn tell_faults(&mut self, now: Timestamp, round: &mut Round) {
        if std::mem::replace(&mut self.told_faults, true) {
            return;
        }
        for fault in &self.faults {
            let when = Timestamp::from_millis(fault.at);
            let message = format!("Found at {when}: {} {}", fault.kind, fault.message);
            let mut alarm = self.notice(now, Weight::Alarm, "FAULT_STANDS", message);
            alarm.evidence.clone_from(&fault.evidence);
            round.tell(alarm.with("fault", fault.kind.clone()));
        }
    }

    #[allow(clippy::too_many_arguments)] // what is written down of a fault
    fn fault(
        &mut self,
        folder: &Folder,
        now: Timestamp,
        kind: &'static str,
        message: String,
        ends: bool,
        file: Option<Bytes>,
        round: &mut Round,
    ) -> Result<(), Error> {
        let evidence = self.write(folder, now, &kind.to_lowercase(), file)?;
        let mut alarm = self.notice(now, Weight::Alarm, kind, message.clone());
        alarm.evidence.clone_from(&evidence);
        round.tell(alarm);
        let at = now.millis();
        // One that ends the following comes last, and must not be lost.
        if ends || self.faults.len() < MAX_FAULTS {
            self.faults.push(Fault { kind: kind.to_owned(), message, at, evidence, ends });
        }
        let file = serde_json::to_vec(&self.faults).unwrap_or_default();
        folder.write(&format!("{}/faults.json", self.prefix), &file)?;
        Ok(())
    }

    fn write(
        &self,
        folder: &Folder,
        now: Timestamp,
        kind: &str,
        file: Option<Bytes>,
    ) -> Result<Option<PathBuf>, Error> {
        let Some(file) = file else { return Ok(None) };
        let hash = hex::encode(&Sha256::digest(&file)[..4]);
        let name = format!("incidents/{}-{kind}-{hash}.json", now.millis());
        folder.write(&name, &file).map(Some)
    }

    /// Evidence of two entries: the one that breaks a rule, and an earlier one that
    /// it does not fit to, where two can show the rule.
    async fn accuse_pair(
        &self,
        target: &SignedCheckpoint,
        index: u64,
        broken: &Broken,
        clock: &Clock,
    ) -> Option<Bytes> {
        let (_, entry) = self.batch.iter().find(|(at, _)| *at == index)?;
        let counterpart = Counterpart::of(broken, entry)?;
        let before = self.batch.iter().rev().skip_while(|(at, _)| *at >= index);
        let found = match before.into_iter().find(|(_, entry)| counterpart.is(entry)) {
            Some(found) => found.clone(),
            None => {
                let tree = target.checkpoint();
                let bundle = |number| self.source.bundle_of(number, tree);
                let wanted = |entry: &[u8]| counterpart.is(entry);
                let first = self.book.replay.size;
                follow::newest_before(first, SEARCHED, bundle, wanted).await.ok()??
            }
        };
        let (leaves, accused) = (vec![found, (index, entry.clone())], Accused::Rule(broken.rule()));
        self.accuse(target, leaves, vec![], vec![], accused, clock).await
    }

    /// Evidence that a batch breaks a rule, or does not make its directory root:
    /// the root before it, all its entries, and what the map held of their labels.
    async fn accuse_batch(
        &self,
        target: &SignedCheckpoint,
        before: &BTreeMap<Label, Option<Tip>>,
        index: u64,
        accused: Accused,
        clock: &Clock,
    ) -> Option<Bytes> {
        // The map without the batch that was refused.
        let mut old = Tree::new();
        self.book.tree.for_each(|label, tip| match before.get(label) {
            None => old.insert(*label, *tip),
            Some(Some(tip)) => old.insert(*label, *tip),
            Some(None) => {}
        });
        old.root();
        let mut leaves = Vec::new();
        if let Some(last) = self.book.replay.size.checked_sub(1) {
            leaves.push((last, self.source.entry(last, target.checkpoint()).await.ok()?));
        }
        leaves.extend(self.batch.iter().cloned());
        let mut tips: Vec<_> =
            before.iter().map(|(label, tip)| (*label, *tip, old.prove(label))).collect();
        if leaves.len() > accuse::MAX_LEAVES {
            // The leaf alone: testimony that can be reproduced.
            leaves.retain(|(at, _)| *at == index);
            tips.clear();
        }
        self.accuse(target, leaves, tips, vec![], accused, clock).await
    }

    async fn accuse(
        &self,
        target: &SignedCheckpoint,
        leaves: Vec<(u64, Bytes)>,
        tips: Vec<(Label, Option<Tip>, MapProof)>,
        blobs: Vec<Bytes>,
        accused: Accused,
        clock: &Clock,
    ) -> Option<Bytes> {
        let mut proved = Vec::new();
        for (index, entry) in leaves {
            // Without its inclusion an entry accuses nobody.
            let path = self.source.inclusion(index, target.checkpoint()).await.ok()?;
            proved.push((index, entry, path));
        }
        let shown = Shown { checkpoint: target.clone(), leaves: proved, tips, blobs };
        accuse::entries(self.source.key(), clock.now(), shown, accused, &self.anchors)
    }

    /// Something is owed, or was when the book was written: what is settled is not looked
    /// into again by the next run.
    fn owes(&self) -> bool {
        self.kept_owing || !self.book.owed.is_empty()
    }

    /// Writes the book, if it is worth it.
    fn keep(&mut self, folder: &Folder, changed: bool) -> Result<(), Error> {
        if !changed && !self.owes() {
            return Ok(());
        }
        // What is little behind is read again faster than everything is written.
        let (kept, at) = self.kept;
        let behind = self.book.replay.size - kept.min(self.book.replay.size);
        if kept > 0 && behind < self.book.tree.labels() / 10 && at.elapsed() < KEEP {
            return Ok(());
        }
        let key = self.source.key().to_string();
        folder.write(&format!("{}/book", self.prefix), &self.book.write(&key))?;
        self.kept = (self.book.replay.size, Instant::now());
        self.kept_owing = !self.book.owed.is_empty();
        Ok(())
    }

    /// At the end: what is in memory goes to disk.
    pub fn close(mut self, folder: &Folder) -> Result<(), Error> {
        if self.kept.0 != self.book.replay.size || self.owes() {
            self.kept.0 = 0;
            self.keep(folder, true)?;
        }
        Ok(())
    }
}

impl Held {
    fn read(bytes: &[u8], source: &LogSource) -> Option<Held> {
        let file: HeldFile = serde_json::from_slice(bytes).ok()?;
        let checkpoint = source.read_checkpoint(file.checkpoint.as_bytes()).ok()?;
        Some(Held { checkpoint, seen_at: Timestamp::from_millis(file.seen_at) })
    }
}
