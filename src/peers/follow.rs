//! One peer's log, followed: each new entry is fetched, replayed to the same
//! directory root, and every blob that it names is fetched and verified, before
//! it counts as followed and may be cosigned.
//!
//! A page of at most 16,384 entries at a time goes through, in this order:
//! entries in the signed tree, blobs, replay, archive, position. Killed
//! anywhere, the next start reads the archive up to its position and goes on
//! there. An archive that cannot be read is followed anew, with the signed
//! checkpoint remembered, and accuses nobody.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures::stream::{self, StreamExt as _};
use sha2::{Digest as _, Sha256};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::archive::{Archive, Kept};
use super::clocks::{self, Clocks};
use super::gossip::Words;
use super::{Condition, Error, Options, Peer, Rooms, Status, evidence};
use crate::client::follow::{self, Fetched, MAX_BLOB, Page, Relation};
use crate::dime::{Rejection, Timestamp};
use crate::directory::{self, Directory, Place};
use crate::errors::with_sources;
use crate::proof::checkpoint::SignedCheckpoint;
use crate::proof::dnssec::Anchor;
use crate::proof::entry::{Blob, DomainObservation, Entry, Kind};
use crate::proof::incident::{self, Incident};
use crate::proof::note::KeyType;
use crate::proof::observation;
use crate::proof::replay::{self, Expected, Replayer, Stop};
use crate::proof::tile::WIDTH;
use crate::proof::wire::{Malformed, Reader, Writer};

/// Entries whose blobs are fetched at one time.
const AT_ONCE: usize = 8;
/// When a log is followed for the first time, a blob may have been withdrawn if its
/// entry is older than this, milliseconds (threat 15).
const WITHDRAWABLE: u64 = 24 * 3_600_000;
/// How long another mirror may take to give a blob that was withdrawn.
const OTHERS: Duration = Duration::from_secs(10);
/// A log that publishes nothing for longer is stale, milliseconds.
const STALE: u64 = 3_600_000;
/// Entries between two snapshots of a peer's map, at least.
const SNAPSHOT: u64 = 50_000;
/// Bytes of blobs that are fetched on one day, for each entry that may be followed:
/// record, org signet and DNSSEC chain of an ordinary domain.
const BLOBS_PER_ENTRY: u64 = 16 * 1024;
/// Pause after a failure of our own.
const PAUSE: Duration = Duration::from_secs(5);

/// A map that nobody looks behind.
pub(super) fn map_options(place: &Place) -> directory::Options {
    let place = place.clone();
    directory::Options { follow: true, place, ..directory::Options::default() }
}

/// Follows one peer.
pub(super) struct Follower {
    pub(super) peer: Arc<Peer>,
    pub(super) rooms: Arc<Rooms>,
    options: Options,
    hinted: mpsc::Receiver<SignedCheckpoint>,
    words: Words,
    pub(super) kept: Kept,
    /// Leaves that the log had when its end was reached first.
    began: Option<u64>,
    /// Bytes of blobs that may still be fetched today.
    room: AtomicU64,
    /// `None` until the archive was read, and after a failure.
    pub(super) replay: Option<Replay>,
    /// Entries of the partial bundle.
    partial: Vec<Bytes>,
    /// Size of the last snapshot.
    snapshot: u64,
    /// Only a new version of this program gets further.
    outdated: Option<Condition>,
    /// The entry that was to be accused and proved nothing.
    pub(super) doubted: Option<u64>,
    clocks: Arc<Clocks>,
    /// When its end was reached last, and where that was.
    looked: Option<(Instant, u64)>,
    /// By cosigner: the size of the last checkpoint with its cosignature.
    cosigned_by: HashMap<String, u64>,
}

pub(super) struct Replay {
    pub(super) replayer: Replayer,
    pub(super) map: Arc<Directory>,
}

/// Why following stopped for now.
pub(super) enum Halt {
    Condition(Condition),
    Fault(Box<Accusation>),
}

/// What a peer is to be accused of, before that was judged.
pub(super) struct Accusation {
    pub(super) incident: Incident,
    /// The entry that breaks a rule.
    pub(super) index: Option<u64>,
    pub(super) words: String,
}

impl From<Accusation> for Halt {
    fn from(accusation: Accusation) -> Halt {
        Halt::Fault(Box::new(accusation))
    }
}

impl From<Error> for Halt {
    fn from(error: Error) -> Halt {
        Halt::Condition(Condition::Ours(with_sources(&error)))
    }
}

impl From<follow::Error> for Halt {
    fn from(error: follow::Error) -> Halt {
        let words = with_sources(&error);
        Halt::Condition(match error {
            follow::Error::Http(_) => Condition::Unreachable(words),
            follow::Error::Status { status: 429 | 500..=599, .. } => Condition::Unreachable(words),
            _ => Condition::Unserved(words),
        })
    }
}

impl Follower {
    pub(super) fn new(
        peer: Arc<Peer>,
        rooms: Arc<Rooms>,
        options: Options,
        hinted: mpsc::Receiver<SignedCheckpoint>,
        words: Words,
        clocks: Arc<Clocks>,
    ) -> Follower {
        Follower {
            peer,
            rooms,
            options,
            hinted,
            words,
            kept: Kept::default(),
            began: None,
            room: AtomicU64::new(0),
            replay: None,
            partial: Vec::new(),
            snapshot: 0,
            outdated: None,
            doubted: None,
            clocks,
            looked: None,
            cosigned_by: HashMap::new(),
        }
    }

    pub(super) async fn run(mut self, shutdown: CancellationToken) {
        let mut poll = tokio::time::interval(self.options.poll);
        poll.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let (nobody, silence) = mpsc::channel(1);
        drop(nobody);
        let mut forks = std::mem::replace(&mut self.words.forks, silence);
        loop {
            // A log that has forked chooses how long a step takes, and what hints wait.
            let found = tokio::select! {
                biased;
                () = shutdown.cancelled() => return,
                Some(shown) = forks.recv() => self.cut_off(shown).await,
                stepped = self.next(&mut poll) => stepped,
            };
            if let Err(halt) = found {
                self.halt(halt, &shutdown).await;
            }
        }
    }

    /// Waits for the next thing to do, and does it. What other mirrors were shown goes
    /// first: there are few words a minute, and hints without end.
    async fn next(&mut self, poll: &mut tokio::time::Interval) -> Result<(), Halt> {
        tokio::select! {
            biased;
            Some(signed) = self.words.signed.recv() => self.hear(signed).await,
            hint = self.hinted.recv() => self.step(hint).await,
            _ = poll.tick() => self.step(None).await,
        }
    }

    /// Goes as far as the newest checkpoint.
    async fn step(&mut self, hint: Option<SignedCheckpoint>) -> Result<(), Halt> {
        if let Some(words) = self.archive().fault().await? {
            self.replay = None;
            self.peer.set_status(Status::Fault(words));
            return Ok(());
        }
        if let Some(outdated) = &self.outdated {
            return Err(Halt::Condition(outdated.clone()));
        }
        if self.replay.is_none() {
            self.restore().await?;
        }
        let (new, published) = match hint {
            Some(hint) => (hint, None),
            None => {
                let new = self.peer.source.checkpoint().await?;
                (new.clone(), Some(new))
            }
        };
        let target = self.target(new).await?;
        while self.kept.position.size() < target.checkpoint().size {
            self.page(&target).await?;
        }
        self.finish(&target).await?;
        self.read_clock(&target);
        match published {
            Some(published) => Ok(self.keep_cosigners(&published).await?),
            None => Ok(()),
        }
    }

    /// Takes the time of a root that has just come as the peer's clock.
    fn read_clock(&mut self, target: &SignedCheckpoint) {
        let Some(replay) = &self.replay else { return };
        let (at, size) = (Instant::now(), target.checkpoint().size);
        let (theirs, ours) = (replay.replayer.position().time, self.rooms.clock.now());
        let is_new = self.looked.is_none_or(|(_, known)| known < size);
        let just_now = self.looked.is_some_and(|(before, _)| at - before < clocks::LOOK);
        self.looked = Some((at, size));
        if is_new && size > 0 && (just_now || theirs > ours) {
            let verdict = self.clocks.saw(self.peer.origin(), theirs, ours, at);
            self.rooms.log.doubt_clock(verdict);
        }
    }

    /// Keeps, for each other mirror, the newest checkpoint that it cosigned: it
    /// may lose its own memory of that (threat 12).
    async fn keep_cosigners(&mut self, published: &SignedCheckpoint) -> Result<(), Error> {
        let size = published.checkpoint().size;
        let keys = self.options.mirrors.iter().filter_map(|mirror| mirror.cosigner.clone());
        for key in keys {
            if published.verify([&key]).is_err() {
                continue;
            }
            let known = match self.cosigned_by.get(key.name()) {
                Some(known) => *known,
                None => {
                    let name = Sha256::digest(key.name().as_bytes()).into();
                    let kept = self.archive().cosigned_by(&name).await?;
                    let kept = kept.and_then(|kept| SignedCheckpoint::parse(&kept).ok());
                    kept.map_or(0, |kept| kept.checkpoint().size)
                }
            };
            if size > known {
                let note = published.to_string().into();
                self.archive().keep_cosigned_by(key.name(), note).await?;
            }
            self.cosigned_by.insert(key.name().to_owned(), size.max(known));
        }
        Ok(())
    }

    /// The checkpoint to go to: the larger of the new one and the one that was
    /// accepted before. They must agree.
    pub(super) async fn target(&mut self, new: SignedCheckpoint) -> Result<SignedCheckpoint, Halt> {
        let Some(held) = self.kept.signed.clone() else {
            self.kept.signed = Some(new.clone());
            return Ok(new);
        };
        let (old, young) = (held.checkpoint(), new.checkpoint());
        let followed = self.kept.position.size();
        if young.size < old.size && young.size <= followed {
            // Mostly one that we have seen before: our own tiles tell.
            if self.archive().root_at(young.size, followed).await? == young.root {
                return Ok(held);
            }
            // They also prove it of a log that was set back, whose own tiles of
            // what it signed are gone.
            if followed == old.size {
                match self.archive().consistency(young.size, old).await {
                    Ok((prefix, proof)) if prefix != young.root => {
                        let (smaller, larger) = (new, held);
                        return Err(self.forked(follow::Fork { smaller, larger, prefix, proof }));
                    }
                    // Ours are damaged: the peer's tell.
                    Ok(_) | Err(Error::Kept { .. }) => {}
                    Err(error) => return Err(error.into()),
                }
            }
        }
        let one_page = young.size.saturating_sub(followed) < u64::from(WIDTH);
        if young.size > old.size && followed == old.size && one_page {
            // Its entries will make its root, or they are looked into.
            return Ok(new);
        }
        match self.peer.source.relate(&held, &new).await? {
            Relation::Same | Relation::Older => Ok(held),
            Relation::Newer => {
                self.kept.signed = Some(new.clone());
                Ok(new)
            }
            Relation::Fork(fork) => Err(self.forked(*fork)),
        }
    }

    /// Takes the next page on the way to `target`.
    async fn page(&mut self, target: &SignedCheckpoint) -> Result<(), Halt> {
        let now = self.rooms.clock.now();
        if self.kept.allowance(self.options.entries_per_day, now) == 0 {
            return Err(Halt::Condition(Condition::OverQuota));
        }
        let page = match self.peer.source.page(&self.kept.position, target).await {
            Ok(page) => page,
            Err(error) => return Err(self.not_in_tree(error, target).await),
        };
        if self.kept.signed.as_ref().is_none_or(|s| s.checkpoint().size < target.checkpoint().size)
        {
            self.kept.signed = Some(target.clone());
        }
        let per_day = self.options.entries_per_day.saturating_mul(BLOBS_PER_ENTRY);
        let room = self.kept.blob_allowance(per_day.max(MAX_BLOB), now);
        self.room.store(room, Ordering::Relaxed);
        let checked = self.check_blobs(&page, target).await;
        let fetched = room - self.room.load(Ordering::Relaxed);
        self.kept.count_blobs(fetched, now);
        if checked.is_err() && fetched > 0 {
            // They are kept, and need not be fetched again tomorrow.
            self.archive().keep(&self.kept).await?;
        }
        checked?;
        self.replay_page(&page, target).await?;

        // Killed here: the page is replayed again after the next start.
        let before = page.first;
        let after = page.position.size();
        let written = async {
            self.peer.archive.write(&page, &mut self.partial).await?;
            self.kept.count(after - before, now);
            self.kept.position = page.position.clone();
            self.kept.labels = self.replay.as_ref().map_or(0, |on| on.map.committed().labels);
            self.kept.unjudged = self.first_unknown();
            self.peer.archive.keep(&self.kept).await
        };
        if let Err(error) = written.await {
            // The map is ahead of the archive: read that again.
            self.replay = None;
            return Err(error.into());
        }
        self.show(None);
        for heard in &self.rooms.heard {
            heard.heard(self.peer.origin(), before, &page.entries).await;
        }
        // Killed here: partial tiles of the smaller tree stay; harmless. Whoever
        // misses them while reading sees that it was followed further.
        Ok(self.peer.archive.prune(before, after).await?)
    }

    /// Entries did not make the signed root: bad service, or another history?
    async fn not_in_tree(&self, error: follow::Error, target: &SignedCheckpoint) -> Halt {
        if let (follow::Error::Served { .. }, Some(held)) = (&error, &self.kept.signed)
            && let Ok(Relation::Fork(fork)) = self.peer.source.relate(held, target).await
        {
            return self.forked(*fork);
        }
        error.into()
    }

    /// Fetches, verifies and keeps the blobs that a page's entries name.
    async fn check_blobs(&self, page: &Page, target: &SignedCheckpoint) -> Result<(), Halt> {
        let entries = (page.first..).zip(&page.entries);
        let has_failed = &AtomicBool::new(false);
        let checks: Vec<_> = entries
            // What cannot be read is for the replay to judge.
            .filter(|(_, bytes)| {
                Entry::decode(bytes).is_ok_and(|entry| matches!(entry.kind, Kind::Domain(_)))
            })
            .map(|(index, bytes)| async move {
                if has_failed.load(Ordering::Relaxed) {
                    return Ok(());
                }
                let checked = self.check_entry(index, bytes, page, target).await;
                has_failed.fetch_or(checked.is_err(), Ordering::Relaxed);
                checked
            })
            .collect();
        // What was begun is finished: its bytes are counted, and are to be kept.
        let checked: Vec<Result<(), Halt>> = stream::iter(checks).buffered(AT_ONCE).collect().await;
        checked.into_iter().collect()
    }

    async fn check_entry(
        &self,
        index: u64,
        bytes: &Bytes,
        page: &Page,
        target: &SignedCheckpoint,
    ) -> Result<(), Halt> {
        let Ok(Entry { kind: Kind::Domain(entry), time, .. }) = Entry::decode(bytes) else {
            return Ok(());
        };
        let record = self.blob(entry.record, index, time).await?;
        let org_signet = self.blob(entry.org_signet, index, time).await?;
        let dnssec_chain = self.blob(entry.dnssec_chain, index, time).await?;
        let behind = observation::Bytes {
            record: record.as_deref(),
            org_signet: org_signet.as_deref(),
            dnssec_chain: dnssec_chain.as_deref(),
        };
        match self.verify(&entry, time, &behind) {
            Ok(()) => Ok(()),
            Err(rejection) if rejection.rule == "dnssec-anchor" => {
                Err(Halt::Condition(Condition::OtherAnchor))
            }
            Err(rejection) => {
                let blobs = [record, org_signet, dnssec_chain].into_iter().flatten().collect();
                let leaves = vec![self.leaf(target, &page.tiles, index, bytes).await];
                let broken = evidence::Broken { leaves, blobs, ..evidence::Broken::default() };
                let (rule, why) = (rejection.rule, &rejection.message);
                Err(self.broken(target, index, rule, why, broken).into())
            }
        }
    }

    fn verify(
        &self,
        entry: &DomainObservation<'_>,
        time: Timestamp,
        behind: &observation::Bytes<'_>,
    ) -> Result<(), Rejection> {
        observation::verify(entry, time, behind, &self.options.anchors)
    }

    /// A blob from the archive, the peer or, where its operator withdrew it, another
    /// mirror; `None` if the entry names none, or it may be passed over.
    async fn blob(
        &self,
        blob: Option<Blob>,
        index: u64,
        time: Timestamp,
    ) -> Result<Option<Bytes>, Halt> {
        let Some(blob) = blob else { return Ok(None) };
        if let Some(bytes) = self.archive().blob(&blob.sha256).await?
            && blob.names(&bytes)
        {
            return Ok(Some(bytes));
        }
        // Before it is asked for, since others are asked for at the same time.
        let take = |room: u64| room.checked_sub(blob.length);
        if self.room.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take).is_err() {
            return Err(Halt::Condition(Condition::OverQuota));
        }
        let fetched = self.fetch(&blob, index, time).await;
        match &fetched {
            Ok(Some(bytes)) => self.archive().keep_blob(&blob.sha256, bytes.clone()).await?,
            _ => {
                self.room.fetch_add(blob.length, Ordering::Relaxed);
            }
        }
        fetched
    }

    /// The same from the peer, or from others.
    async fn fetch(&self, blob: &Blob, index: u64, time: Timestamp) -> Result<Option<Bytes>, Halt> {
        let missing = |what: String| {
            let words = format!("blob {} {what}", hex::encode(blob.sha256));
            Err(Halt::Condition(Condition::Unserved(words)))
        };
        match self.peer.source.blob(blob).await? {
            Fetched::Here(bytes) => Ok(Some(bytes)),
            Fetched::Missing => missing("is missing, or has other bytes".into()),
            Fetched::Withdrawn if self.may_pass_over(blob, index, time).await? => Ok(None),
            Fetched::Withdrawn => match self.blob_of_others(blob).await? {
                Some(bytes) => Ok(Some(bytes)),
                None => {
                    let word = format!("syndicate peers pass-over {}", self.peer.origin());
                    missing(format!("was withdrawn before it was checked here; {word}"))
                }
            },
        }
    }

    /// Whether a withdrawn blob need not be seen: by the operator's word, or if its
    /// entry is old and was there before this log was followed. An entry that came
    /// since is not cosigned unseen, however long its log holds the bytes back, and
    /// whether or not it is followed anew meanwhile.
    async fn may_pass_over(&self, blob: &Blob, index: u64, time: Timestamp) -> Result<bool, Error> {
        let is_old = self.rooms.clock.now().since(time) > WITHDRAWABLE;
        let was_there = self.began.is_none_or(|began| index < began);
        Ok(is_old && was_there || self.archive().is_passed_over(&blob.sha256).await?)
    }

    /// What another mirror kept of it, when it followed the log in time.
    async fn blob_of_others(&self, blob: &Blob) -> Result<Option<Bytes>, Error> {
        let mirrors = self.options.mirrors.iter();
        for other in mirrors.filter(|other| other.log != *self.peer.key()) {
            let kept = other.archive_of(self.peer.key())?;
            let asked = tokio::time::timeout(OTHERS, kept.blob(blob)).await;
            if let Ok(Ok(Fetched::Here(bytes))) = asked {
                return Ok(Some(bytes));
            }
        }
        Ok(None)
    }

    /// Replays a page where it may block.
    async fn replay_page(&mut self, page: &Page, target: &SignedCheckpoint) -> Result<(), Halt> {
        let Some(replay) = self.replay.take() else {
            return Err(Halt::Condition(Condition::Ours("nothing to replay on".into())));
        };
        let entries = page.entries.clone();
        let (replay, outcome) = tokio::task::spawn_blocking(move || push_all(replay, entries))
            .await
            .map_err(Error::from)?;
        let stop = match outcome {
            Ok(()) => {
                self.replay = Some(replay);
                return Ok(());
            }
            Err(stop) => stop,
        };
        Err(match stop {
            Stop::Fault(fault) => self.accusation(page, target, &fault).await.into(),
            Stop::Unknown(unknown) => {
                let condition = Condition::UnknownFormat(unknown.to_string());
                self.outdated = Some(condition.clone());
                Halt::Condition(condition)
            }
            Stop::Engine(error) => Error::from(error).into(),
        })
    }

    pub(super) fn forked(&self, fork: follow::Fork) -> Halt {
        let (one, other) = (fork.smaller.checkpoint().size, fork.larger.checkpoint().size);
        let words = format!("fork: the signed trees of {one} and {other} entries contradict");
        let key = self.peer.key().clone();
        let follow::Fork { smaller, larger, prefix, proof } = fork;
        let fork = incident::Fork { key, smaller, larger, prefix, proof };
        let (observer, at) = (self.observer(), self.rooms.clock.now());
        let incident = Incident::log_fork(&observer, at, fork);
        Halt::Fault(Box::new(Accusation { incident, index: None, words }))
    }

    pub(super) fn broken(
        &self,
        target: &SignedCheckpoint,
        index: u64,
        rule: &str,
        why: &str,
        broken: evidence::Broken,
    ) -> Accusation {
        let entries = incident::Entries {
            key: self.peer.key().clone(),
            checkpoint: target.clone(),
            leaves: broken.leaves,
            tips: broken.tips,
            blobs: broken.blobs,
            rule: rule.to_owned(),
        };
        let (observer, at) = (self.observer(), self.rooms.clock.now());
        let incident = match rule {
            "directory-root" | "labels" => Incident::directory_root_wrong(&observer, at, entries),
            _ => Incident::rule_broken(&observer, at, entries),
        };
        let words = format!("entry {index} breaks the rule {rule}: {why}");
        Accusation { incident, index: Some(index), words }
    }

    pub(super) fn anchors(&self) -> &[Anchor] {
        &self.options.anchors
    }

    fn observer(&self) -> String {
        self.rooms.log.record().origin.clone()
    }

    /// At the end of a signed tree: its last leaf must be a directory root.
    async fn finish(&mut self, target: &SignedCheckpoint) -> Result<(), Halt> {
        let Some(replay) = &self.replay else { return Ok(()) };
        let size = target.checkpoint().size;
        if size == 0 {
            return Ok(());
        }
        let unknown = replay.replayer.unknown();
        if let Err(fault) = replay.replayer.finish() {
            if let Some(unknown) = unknown {
                // Perhaps this program does not know a root when it sees one.
                return Err(Halt::Condition(Condition::UnknownFormat(unknown.to_string())));
            }
            let entry = self.archive().entry(size - 1, size).await?;
            let leaves = vec![self.leaf(target, &[], size - 1, &entry).await];
            let broken = evidence::Broken { leaves, ..evidence::Broken::default() };
            let why = fault.broken.to_string();
            let rule = fault.broken.rule();
            return Err(self.broken(target, size - 1, rule, &why, broken).into());
        }
        if self.began.is_none() {
            self.archive().keep_began(size).await?;
            self.began = Some(size);
        }
        if !self.kept.caught_up {
            self.kept.caught_up = true;
            self.archive().keep(&self.kept).await?;
        }
        let time = replay.replayer.position().time;
        self.show(Some(target.clone()));
        self.peer.set_status(match unknown {
            Some(unknown) => Status::Condition(Condition::UnknownFormat(unknown.to_string())),
            None if self.rooms.clock.now().since(time) > STALE => {
                Status::Condition(Condition::Stale)
            }
            None => Status::Good,
        });
        if unknown.is_none() {
            self.write_snapshot().await?;
        }
        Ok(())
    }

    /// Lets others see how far it is.
    fn show(&self, signed: Option<SignedCheckpoint>) {
        let Some(replay) = &self.replay else { return };
        let position = &self.kept.position;
        let (size, root) = (position.size(), position.root());
        let (place, labels) = (replay.replayer.position(), replay.map.committed().labels);
        let unknown = replay.replayer.unknown();
        let carrying = place.carrying.as_ref().is_some_and(|carrying| !carrying.is_complete());
        self.peer.standing.send_modify(|standing| {
            if matches!(standing.status, Status::Starting | Status::Condition(_)) {
                standing.status = Status::Behind;
            }
            (standing.size, standing.root) = (size, root);
            (standing.time, standing.labels) = (place.time, labels);
            standing.carrying = carrying;
            standing.unknown = unknown;
            if signed.is_some() {
                standing.signed = signed;
            }
        });
    }

    /// What a halt means for the status. A fault is filed, also while the mirror
    /// stops: what was found is not to be found again.
    async fn halt(&mut self, halt: Halt, shutdown: &CancellationToken) {
        let judged = match halt {
            Halt::Condition(condition) => Err(condition),
            Halt::Fault(accusation) => match self.judged(&accusation).await {
                Ok(incident) => Ok((incident, accusation.words)),
                Err(error) => Err(Condition::Ours(with_sources(&error))),
            },
        };
        let (incident, words) = match judged {
            Ok(fault) => fault,
            Err(condition) => {
                let ours = matches!(condition, Condition::Ours(_));
                self.peer.set_status(Status::Condition(condition));
                if ours {
                    shutdown.run_until_cancelled(tokio::time::sleep(PAUSE)).await;
                }
                return;
            }
        };
        // The map may hold what was refused.
        self.replay = None;
        self.peer.set_status(Status::Fault(words.clone()));
        // Killed before the fault is kept: it is found again, and filed again.
        loop {
            let filed = self.rooms.accuse.accuse(&incident).await;
            let kept = match filed {
                Ok(()) => self.keep(&words, &incident).await.map_err(|e| with_sources(&e)),
                Err(error) => Err(error),
            };
            match kept {
                Ok(()) => break,
                Err(error) => tracing::error!(error, "a peer's fault could not be filed"),
            }
            if shutdown.run_until_cancelled(tokio::time::sleep(PAUSE)).await.is_none() {
                return;
            }
        }
        self.rooms.metrics.accusations.with_label_values(&[self.peer.origin()]).inc();
    }

    async fn keep(&self, words: &str, incident: &Incident) -> Result<(), Error> {
        self.archive().keep_fault(words).await?;
        // Killed here: the fork is found once more when the operator has cleared it.
        if let incident::Evidence::Fork(fork) = &incident.evidence {
            for signed in [&fork.smaller, &fork.larger] {
                self.archive().hold_against(signed.checkpoint()).await?;
            }
        }
        Ok(())
    }

    pub(super) fn archive(&self) -> &Archive {
        &self.peer.archive
    }

    /// Reads the archive: position, map, partial bundle.
    async fn restore(&mut self) -> Result<(), Error> {
        self.peer.set_status(Status::Starting);
        let kept = match self.archive().kept().await {
            Ok(kept) => kept,
            Err(Error::Kept { what }) => {
                tracing::warn!(peer = self.peer.origin(), what, "a peer is followed anew");
                None
            }
            Err(error) => return Err(error),
        };
        self.began = match self.archive().began().await? {
            Some(began) => Some(began),
            None => self.followed_before(kept.as_ref()).await?,
        };
        self.kept = kept.unwrap_or_default();
        let read = match self.read_back().await {
            // This version judges what an older one only kept.
            Ok(()) if self.first_unknown() != self.kept.unjudged => {
                let what = format!("entry {} was not judged", self.kept.unjudged);
                Err(Error::Kept { what })
            }
            read => read,
        };
        match read {
            Ok(()) => {}
            Err(error @ (Error::Store(_) | Error::Directory(_))) => return Err(error),
            Err(error) => {
                // Ours to lose, and nobody's fault: the signed checkpoint stays.
                let why = with_sources(&error);
                tracing::warn!(peer = self.peer.origin(), why, "a peer is followed anew");
                self.kept = Kept { signed: self.kept.signed.take(), ..Kept::default() };
                self.archive().keep(&self.kept).await?;
                self.read_back().await?;
            }
        }
        self.show(
            self.kept
                .signed
                .clone()
                .filter(|signed| signed.checkpoint().size == self.kept.position.size()),
        );
        Ok(())
    }

    /// How far an earlier build had followed it, and judged what it followed: that
    /// kept no word of where it began. `None` if it never reached the end.
    async fn followed_before(&self, kept: Option<&Kept>) -> Result<Option<u64>, Error> {
        let size = match kept {
            Some(kept) if !kept.caught_up => return Ok(None),
            Some(Kept { unjudged: 0, position, .. }) => position.size(),
            Some(kept) => kept.unjudged,
            None => match self.archive().cosigned_size().await? {
                0 => return Ok(None),
                size => size,
            },
        };
        self.archive().keep_began(size).await?;
        Ok(Some(size))
    }

    /// Index of the first entry of an unknown format, 0 for none: entry 0 never is.
    fn first_unknown(&self) -> u64 {
        let unknown = self.replay.as_ref().and_then(|replay| replay.replayer.unknown());
        unknown.map_or(0, |unknown| unknown.index)
    }

    pub(super) async fn read_back(&mut self) -> Result<(), Error> {
        let size = self.kept.position.size();
        // The old map goes before there is a new one: there may be room for one.
        self.show_map(Arc::new(Directory::new(map_options(&self.options.maps))));
        let mut replay = self.newest_snapshot(size).await?;
        self.snapshot = replay.replayer.position().size;
        let width = u64::from(WIDTH);
        let mut next = self.snapshot;
        while next < size {
            let bundle = self.archive().bundle(next / width, size).await?;
            let entries: Vec<Bytes> = bundle.into_iter().skip((next % width) as usize).collect();
            next += entries.len() as u64;
            let pushed = tokio::task::spawn_blocking(move || push_all(replay, entries)).await?;
            replay = pushed.0;
            pushed.1.map_err(|stop| match stop {
                Stop::Engine(ours) => Error::Directory(ours),
                stop => Error::Kept { what: stop.to_string() },
            })?;
        }
        self.partial = match size % width {
            0 => Vec::new(),
            _ => self.archive().bundle(size / width, size).await?,
        };
        self.show_map(Arc::clone(&replay.map));
        self.replay = Some(replay);
        Ok(())
    }

    fn show_map(&self, map: Arc<Directory>) {
        *self.peer.map.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = map;
    }

    /// The newest usable map in the archive, or an empty one.
    async fn newest_snapshot(&self, most: u64) -> Result<Replay, Error> {
        let expected = self.expected()?;
        let options = map_options(&self.options.maps);
        for size in directory::sizes(self.archive().blobs()).await? {
            if size > most {
                continue;
            }
            let restored = directory::restore(self.archive().blobs(), size, options.clone()).await;
            let restored = match restored {
                Ok(Some(restored)) => restored,
                // An older one would find no room either.
                Err(error @ directory::Error::File(_)) => return Err(error.into()),
                Ok(None) | Err(_) => continue,
            };
            let Ok(position) = read_notes(&restored.notes) else { continue };
            if position.size == size {
                let replayer = Replayer::resume(expected, position);
                return Ok(Replay { replayer, map: Arc::new(restored.directory) });
            }
        }
        let map = Arc::new(Directory::new(options));
        Ok(Replay { replayer: Replayer::new(expected), map })
    }

    fn expected(&self) -> Result<Expected, Error> {
        let key = self.peer.key();
        let log_key = key.public_key().copied().filter(|_| key.kind() == KeyType::Ed25519);
        let log_key = log_key.ok_or_else(|| Error::Kept { what: "no log key".into() })?;
        Ok(Expected { origin: self.peer.origin().to_owned(), log_key })
    }

    /// Writes the map out when enough has come since, so that the next start
    /// is short; older ones go.
    async fn write_snapshot(&mut self) -> Result<(), Error> {
        let Some(replay) = &self.replay else { return Ok(()) };
        let position = replay.replayer.position();
        let head = replay.map.committed();
        let is_at_rest = !position.closed && position.carrying.is_none();
        if !is_at_rest || position.size - self.snapshot < SNAPSHOT.max(head.labels / 4) {
            return Ok(());
        }
        let (blobs, notes) = (self.archive().blobs(), write_notes(&position));
        directory::write(&replay.map, blobs, head.batch, position.size, &notes).await?;
        for old in directory::sizes(blobs).await? {
            if old < position.size {
                directory::delete(blobs, old).await?;
            }
        }
        self.snapshot = position.size;
        Ok(())
    }
}

/// Pushes entries until one stops it.
pub(super) fn push_all(
    mut replay: Replay,
    entries: Vec<Bytes>,
) -> (Replay, Result<(), Stop<directory::Error>>) {
    let map = Arc::clone(&replay.map);
    let mut engine: &Directory = &map;
    for entry in entries {
        if let Err(stop) = replay.replayer.push(&mut engine, entry) {
            return (replay, Err(stop));
        }
    }
    (replay, Ok(()))
}

/// The replay's place, beside a snapshot of its map.
fn write_notes(position: &replay::Position) -> Vec<u8> {
    let mut writer = Writer::new();
    writer.uint(1, position.size).uint(2, position.time.millis()).bytes(3, &position.vrf_key);
    writer.finish()
}

fn read_notes(bytes: &[u8]) -> Result<replay::Position, Malformed> {
    let mut reader = Reader::new(bytes);
    let (size, time) = (reader.required_uint(1)?, reader.uint(2)?);
    let vrf_key = reader.hash(3)?;
    reader.end()?;
    let time = Timestamp::from_millis(time);
    Ok(replay::Position { size, time, vrf_key, closed: false, unknown: None, carrying: None })
}
