//! Comparing names with peers: what changed here, what a peer's log shows
//! differently, and what a peer suspects, is asked of peers until it is clear
//! (design §6, threats 8 and 22). [`super::comparison`] says what follows from
//! an answer; this asks, at a bounded pace, and keeps what is not over.
//!
//! A version that shows no other keys (RESIGNED, REISSUED, RECORD_CHANGED) asks
//! nobody: a rollover of a thousand mailboxes is one question, about the domain.
//!
//! Each peer has room of its own: for one that does not answer the log is not read
//! further, and for the others it is.
//!
//! What a peer keeps back (it does not let us ask, or for a day says that it cannot
//! see what is seen here, or shows no history) is a [`Reserve`], a condition that is
//! shown.
//!
//! On disk: `Table::Comparisons`, `name LF peer's origin` -> JSON, so that what
//! goes on outlives the process, and in `Table::Peers` how far the log was read
//! for each. A suspicion that finds no room is a row that is put aside, and taken up
//! when there is some: a peer that fills its room, or shows much at once, hides nothing
//! by it. An index that is lost loses comparisons that went on, and no evidence.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::Error;
use super::ask::{Face, Said};
use super::comparison::{Comparison, Heard, Outcome, Pace, Step};
use super::tally::Tally;
use crate::clock::Clock;
use crate::dime::{Domain, Name, Timestamp};
use crate::log::Log;
use crate::log::answer::{Answerer, Question, Span};
use crate::proof::entry::{Entry, Event, Events, Kind};
use crate::proof::note::{SigningKey, VerifierKey};
use crate::proof::policy::Policy;
use crate::proof::receipt::{self, Asker, Receipt, Statement};
use crate::proof::relation::Side;
use crate::store::State;
use crate::store::rows::{self, Labelled};
use crate::store::state::{Batch, Range, Table};

/// Comparisons that are kept, at most: about 1 kB each. Every peer has an equal
/// part of them; while that is full the log is not read further for it, and its
/// suspicions are not heard.
pub const PENDING: usize = 10_000;
/// Questions that one peer is asked at once.
const AT_ONCE: usize = 4;
/// Between two questions to one peer.
const SPACING: Duration = Duration::from_millis(50);
/// Suspicions that wait for the loop; whoever has more waits with them.
const SUSPECTS: usize = 256;
/// Longest sleep of the loop, so that a clock set by hand is noticed.
const NAP: Duration = Duration::from_millis(250);
/// For what a visit logged to be published here.
const PUBLISHING: Duration = Duration::from_secs(10);
/// Of one step, both visits included.
const STEP: Duration = Duration::from_secs(600);
/// Entries read between two looks at what is due.
const READ: u64 = 256;
/// Rows read between two, for what was put aside.
const ROWS: usize = 1000;
/// Rows of `Table::Peers`, with the peer's origin behind it: entries of our log
/// that were read for it, in decimal.
const CURSOR: &str = "crosscheck/read/";

/// Events that come with keys of their own.
const NEW_KEYS: Events = Events::of(&[
    Event::FirstSeen,
    Event::Rotated,
    Event::Gap,
    Event::Restarted,
    Event::Forked,
    Event::Reverted,
    Event::PokAdded,
    Event::PokRemoved,
    Event::PokReplaced,
    Event::OrgSignetChanged,
]);

/// Visits names here.
#[async_trait]
pub trait Look: Send + Sync {
    /// Looks at the name now; the log's version of it that came of it, 0 if it
    /// is as it was. An error is in words without names.
    async fn look(&self, name: &Name) -> Result<u64, String>;
}

/// Takes what was found.
#[async_trait]
pub trait Raise: Send + Sync {
    /// Files it, durably; says whether there was room. Called again after a
    /// failure, and if there was none.
    async fn raise(&self, found: &Found) -> Result<bool, String>;
}

/// Two mirrors that differ for good.
#[derive(Clone, Debug)]
pub struct Found {
    pub what: What,
    pub name: Name,
    pub at: Timestamp,
    /// With all of the history, verified.
    pub ours: Receipt,
    pub theirs: Receipt,
    /// Fresh visits, by turns: the log whose mirror looked, and when, by our clock.
    pub looks: Vec<(String, Timestamp)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    SplitView,
    UpdateWithheld,
}

/// What a peer keeps back when names are compared. It ends by itself and accuses
/// nobody: a peer's mail hosts may be out of its reach indeed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reserve {
    /// It refused the last question.
    pub refuses: bool,
    /// Names that it said for a day, within the last one, that it looked for in vain.
    pub unseen: usize,
    /// Names that it was asked about for a day, within the last one, without showing
    /// enough of its history.
    pub unshown: usize,
}

impl fmt::Display for Reserve {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Reserve { refuses: true, .. } => f.write_str("it does not let us ask"),
            Reserve { unseen: 0, unshown: 0, .. } => f.write_str("nothing is kept back"),
            Reserve { unseen, unshown: 0, .. } => {
                write!(f, "it says that it cannot see what changed here (names: {unseen})")
            }
            Reserve { unseen: 0, unshown, .. } => {
                write!(f, "it does not show its history (names: {unshown})")
            }
            Reserve { unseen, unshown, .. } => write!(
                f,
                "it says that it cannot see what changed here (names: {unseen}), and does not \
                 show its history (names: {unshown})"
            ),
        }
    }
}

/// Tells of names that may differ, and hears what peers keep back. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Handle {
    suspects: mpsc::Sender<Suspect>,
    reserves: watch::Receiver<BTreeMap<String, Reserve>>,
}

/// A name that may differ.
struct Suspect {
    origin: String,
    name: Name,
    /// Which the peer's log has.
    version: u64,
}

impl Handle {
    /// Has a name compared with the peer of this origin, whose log shows it in this
    /// version. Returns when it was taken.
    pub async fn suspect(&self, origin: &str, name: Name, version: u64) {
        let _ = self.suspects.send(Suspect { origin: origin.to_owned(), name, version }).await;
    }

    /// The same of a name that the peer asks about. Returns at once; if there is no
    /// room, nobody is told: it asks again.
    pub fn suspect_too(&self, origin: &str, name: Name) {
        let _ = self.suspects.try_send(Suspect { origin: origin.to_owned(), name, version: 0 });
    }

    /// What the peer of this origin keeps back, if it does.
    pub fn reserve(&self, origin: &str) -> Option<Reserve> {
        self.reserves.borrow().get(origin).copied()
    }
}

/// What the task works with.
pub struct Rooms {
    pub log: Log,
    pub answers: Arc<Answerer>,
    pub clock: Clock,
    /// Signs requests to peers, and nothing else.
    pub key: SigningKey,
    pub look: Arc<dyn Look>,
    pub raise: Arc<dyn Raise>,
    pub tally: Tally,
}

/// The task, not yet running.
pub struct CrossCheck {
    asker: Arc<Asking>,
    peers: Vec<Asked>,
    suspects: mpsc::Receiver<Suspect>,
    /// By origin, of those who keep something back.
    reserves: watch::Sender<BTreeMap<String, Reserve>>,
    kept: HashMap<Key, Comparison>,
    running: HashSet<Key>,
    /// Something changed during its step.
    missed: HashSet<Key>,
}

/// A peer, and how it stands with asking it.
struct Asked {
    face: Arc<Face>,
    /// What is due when, and nothing that a step is going on for.
    queue: BTreeSet<(Timestamp, Name)>,
    /// Comparisons that are kept with it.
    kept: usize,
    /// How many those may be.
    room: usize,
    /// Steps going on, and when it may be asked again.
    busy: usize,
    free_at: Instant,
    /// Entries of our log that were read for it.
    read: u64,
    /// It refused the last question.
    refuses: bool,
    /// Where to look for what was put aside; `None`: there is nothing.
    aside: Option<Range>,
}

/// What is on disk of a name and a peer.
#[derive(Serialize, Deserialize)]
struct Row {
    #[serde(flatten)]
    comparison: Comparison,
    /// There was no room.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    aside: bool,
}

/// A peer, by its number, and a name.
type Key = (usize, Name);

/// What a step needs.
struct Asking {
    rooms: Rooms,
    own: Policy,
    pace: Pace,
}

/// What a step brought.
enum Brought {
    Both {
        ours: Box<(Receipt, Statement)>,
        theirs: Box<(Receipt, Statement)>,
        looked: Option<Timestamp>,
    },
    Later(u64),
    Nothing,
    Wrong,
    Refused,
}

impl fmt::Debug for CrossCheck {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CrossCheck").finish_non_exhaustive()
    }
}

impl CrossCheck {
    pub fn new(rooms: Rooms, peers: Vec<Face>, pace: Pace) -> Result<(CrossCheck, Handle), Error> {
        let (sender, suspects) = mpsc::channel(SUSPECTS);
        let record = rooms.log.record();
        let own = VerifierKey::ed25519(&record.origin, &record.log_key).and_then(Policy::of_log);
        let origin = record.origin.clone();
        let mut own = own.map_err(|rejection| Error::Key { origin, rejection })?;
        own.max_age = u64::MAX;
        let (reserves, shown) = watch::channel(BTreeMap::new());
        let room = PENDING / peers.len().max(1);
        let task = CrossCheck {
            asker: Arc::new(Asking { rooms, own, pace }),
            peers: peers.into_iter().map(|face| Asked::new(face, room)).collect(),
            suspects,
            reserves,
            kept: HashMap::new(),
            running: HashSet::new(),
            missed: HashSet::new(),
        };
        Ok((task, Handle { suspects: sender, reserves: shown }))
    }

    /// Compares until told to stop. A step that goes on then is done again.
    ///
    /// # Errors
    /// If our own rows cannot be read or written.
    pub async fn run(mut self, shutdown: CancellationToken) -> Result<(), Error> {
        if self.peers.is_empty() {
            self.suspects.close();
            shutdown.cancelled().await;
            return Ok(());
        }
        let mut heads = self.asker.rooms.log.watch_heads();
        self.load().await?;
        let mut steps: JoinSet<(Key, Brought)> = JoinSet::new();
        loop {
            let more = self.read_log().await? | self.take_up().await?;
            self.begin(&mut steps);
            self.let_go().await?;
            let nap = if more { Duration::ZERO } else { self.nap() };
            tokio::select! {
                () = shutdown.cancelled() => return Ok(()),
                Some(ended) = steps.join_next(), if !steps.is_empty() => {
                    let (key, brought) = ended?;
                    self.ended(key, brought).await?;
                }
                Some(Suspect { origin, name, version }) = self.suspects.recv() => {
                    let found = self.peers.iter().position(|peer| peer.face.origin() == origin);
                    if let Some(peer) = found {
                        self.compare(peer, &name, version).await?;
                    }
                }
                changed = heads.changed(), if !more => {
                    if changed.is_err() {
                        return Ok(());
                    }
                }
                () = tokio::time::sleep(nap) => {}
            }
        }
    }

    fn state(&self) -> &dyn State {
        &**self.asker.rooms.log.state()
    }

    fn now(&self) -> Timestamp {
        self.asker.rooms.clock.now()
    }

    async fn load(&mut self) -> Result<(), Error> {
        let published = self.asker.rooms.log.heads().published.map_or(0, |head| head.size);
        let state = Arc::clone(self.asker.rooms.log.state());
        for peer in &mut self.peers {
            let cursor = state.get(Table::Peers, &peer.cursor()).await?;
            let cursor = cursor.and_then(|bytes| std::str::from_utf8(&bytes).ok()?.parse().ok());
            // At the first start there is nothing that changed.
            peer.read = cursor.unwrap_or(published).min(published);
        }
        let mut range = Range::all();
        loop {
            let page = self.state().scan(Table::Comparisons, range.clone(), 1000).await?;
            let Some((last, _)) = page.last() else { return Ok(()) };
            range = range.after(last);
            for (key, value) in page {
                match self.parse(&key, &value) {
                    Some((key, row)) if row.aside => {
                        if let Some(peer) = self.peers.get_mut(key.0) {
                            peer.aside = Some(Range::all());
                        }
                    }
                    Some((key, row)) => self.put(key, row.comparison),
                    // Of a peer that is none any more.
                    None => self.delete(&key).await?,
                }
            }
        }
    }

    fn parse(&self, key: &[u8], value: &[u8]) -> Option<(Key, Row)> {
        let (name, origin) = std::str::from_utf8(key).ok()?.split_once('\n')?;
        let peer = self.peers.iter().position(|peer| peer.face.origin() == origin)?;
        Some(((peer, name.parse().ok()?), serde_json::from_slice(value).ok()?))
    }

    fn row(&self, (peer, name): &Key) -> Vec<u8> {
        let origin = self.peers.get(*peer).map_or("", |peer| peer.face.origin());
        format!("{name}\n{origin}").into_bytes()
    }

    fn put(&mut self, key: Key, comparison: Comparison) {
        let peer = self.peers.get_mut(key.0);
        if let Some(peer) = peer {
            peer.queue.insert((comparison.due(), key.1.clone()));
            peer.kept += usize::from(!self.kept.contains_key(&key));
        }
        self.kept.insert(key, comparison);
    }

    fn take(&mut self, key: &Key) -> Option<Comparison> {
        let comparison = self.kept.remove(key)?;
        if let Some(peer) = self.peers.get_mut(key.0) {
            peer.queue.remove(&(comparison.due(), key.1.clone()));
            peer.kept = peer.kept.saturating_sub(1);
        }
        Some(comparison)
    }

    async fn delete(&self, row: &[u8]) -> Result<(), Error> {
        let mut batch = Batch::new();
        batch.delete(Table::Comparisons, row);
        let _ = self.state().apply(batch).await?;
        Ok(())
    }

    async fn keep(&mut self, key: Key, comparison: Comparison) -> Result<(), Error> {
        self.write(&key, &Row { comparison: comparison.clone(), aside: false }).await?;
        self.put(key, comparison);
        Ok(())
    }

    async fn write(&self, key: &Key, row: &Row) -> Result<(), Error> {
        let mut batch = Batch::new();
        // A comparison is numbers and hashes: it always has a JSON.
        let json = serde_json::to_vec(row).unwrap_or_default();
        batch.put(Table::Comparisons, self.row(key), json);
        let _ = self.state().apply(batch).await?;
        Ok(())
    }

    async fn put_aside(&mut self, key: &Key, comparison: Comparison) -> Result<(), Error> {
        self.write(key, &Row { comparison, aside: true }).await?;
        if let Some(peer) = self.peers.get_mut(key.0) {
            peer.aside = Some(Range::all());
        }
        Ok(())
    }

    /// Goes on looking for what was put aside, of peers whose room is half empty again;
    /// `true`: there is more to look through.
    async fn take_up(&mut self) -> Result<bool, Error> {
        let mut more = false;
        for number in 0..self.peers.len() {
            let Some(peer) = self.peers.get_mut(number).filter(|peer| peer.is_half_empty()) else {
                continue;
            };
            let Some(range) = peer.aside.take() else { continue };
            let page = self.state().scan(Table::Comparisons, range.clone(), ROWS).await?;
            let rest = page.last().map(|(last, _)| range.after(last));
            let mut left = false;
            for (key, value) in page {
                let row = self.parse(&key, &value);
                let Some((key, row)) = row.filter(|(key, row)| key.0 == number && row.aside) else {
                    continue;
                };
                left |= !self.has_room(number);
                if self.has_room(number) {
                    self.keep(key, row.comparison).await?;
                }
            }
            if let Some(peer) = self.peers.get_mut(number) {
                // One that is put aside meanwhile begins anew.
                let next = if left { Some(Range::all()) } else { rest };
                peer.aside = peer.aside.take().or(next);
                more |= peer.aside.is_some() && peer.is_half_empty();
            }
        }
        Ok(more)
    }

    fn has_room(&self, peer: usize) -> bool {
        self.peers.get(peer).is_some_and(Asked::has_room)
    }

    /// Reads what the log published, for each peer as far as there is room;
    /// `true`: there is more.
    async fn read_log(&mut self) -> Result<bool, Error> {
        let log = self.asker.rooms.log.clone();
        let size = log.heads().published.map_or(0, |head| head.size);
        // Those that are furthest behind, and whoever they come up with.
        let Some(from) = self.peers.iter().filter_map(|peer| peer.wants(size)).min() else {
            return Ok(false);
        };
        let mut index = from;
        while index < size.min(from.saturating_add(READ)) {
            let here = |(_, peer): &(usize, &Asked)| peer.wants(size) == Some(index);
            let readers: Vec<usize> =
                self.peers.iter().enumerate().filter(here).map(|(number, _)| number).collect();
            if readers.is_empty() {
                break;
            }
            let Some(entry) = log.reader().entry(index).await? else { break };
            let name = self.new_keys_of(&entry).await?;
            index += 1;
            for peer in readers {
                if let Some(name) = &name {
                    self.compare(peer, name, 0).await?;
                }
                if let Some(peer) = self.peers.get_mut(peer) {
                    peer.read = index;
                }
            }
        }
        let mut batch = Batch::new();
        for peer in self.peers.iter().filter(|peer| (from + 1..=index).contains(&peer.read)) {
            batch.put(Table::Peers, peer.cursor(), peer.read.to_string());
        }
        if index == from {
            return Ok(false);
        }
        let _ = self.state().apply(batch).await?;
        Ok(self.peers.iter().any(|peer| peer.wants(size).is_some()))
    }

    /// The name that an entry shows with other keys than before, if it does.
    async fn new_keys_of(&self, entry: &[u8]) -> Result<Option<Name>, Error> {
        Ok(match Entry::decode(entry).map(|entry| entry.kind) {
            Ok(Kind::Domain(seen)) if seen.events.intersects(NEW_KEYS) => {
                seen.domain.parse::<Domain>().ok().map(Name::Domain)
            }
            Ok(Kind::User(seen)) if seen.events.intersects(NEW_KEYS) => {
                let row: Option<Labelled> = rows::find(self.state(), &seen.label.0).await?;
                row.map(|row| row.name)
            }
            _ => None,
        })
    }

    /// Begins a comparison, or begins it anew. `version` is known to be in the peer's
    /// log.
    async fn compare(&mut self, peer: usize, name: &Name, version: u64) -> Result<(), Error> {
        let Some(asked) = self.peers.get(peer).filter(|peer| peer.face.may_know(name)) else {
            return Ok(());
        };
        let (key, has_room) = ((peer, name.clone()), asked.has_room());
        if self.running.contains(&key) {
            if let Some(comparison) = self.kept.get_mut(&key) {
                comparison.expect(version);
            }
            self.missed.insert(key);
            return Ok(());
        }
        let now = self.now();
        let comparison = match self.take(&key) {
            Some(mut comparison) => {
                comparison.again(now);
                comparison.expect(version);
                comparison
            }
            None => {
                let mut comparison = Comparison::new(now);
                comparison.expect(version);
                if !has_room {
                    return self.put_aside(&key, comparison).await;
                }
                comparison
            }
        };
        self.keep(key, comparison).await
    }

    /// Begins the steps that are due, as far as each peer may be asked.
    fn begin(&mut self, steps: &mut JoinSet<(Key, Brought)>) {
        let (now, instant) = (self.now(), Instant::now());
        for (number, peer) in self.peers.iter_mut().enumerate() {
            if peer.busy >= AT_ONCE || peer.free_at > instant {
                continue;
            }
            let Some((due, name)) = peer.queue.first().cloned() else { continue };
            if due > now {
                continue;
            }
            let (key, face) = ((number, name.clone()), Arc::clone(&peer.face));
            let Some(comparison) = self.kept.get(&key) else { continue };
            (peer.busy, peer.free_at) = (peer.busy + 1, instant + SPACING);
            peer.queue.remove(&(due, name));
            self.running.insert(key.clone());
            let (asker, step) = (Arc::clone(&self.asker), comparison.step());
            let least = comparison.least();
            steps.spawn(async move {
                let brought = asker.step(&face, &key.1, step, least);
                let brought = tokio::time::timeout(STEP, brought).await;
                (key, brought.unwrap_or(Brought::Nothing))
            });
        }
    }

    async fn ended(&mut self, key: Key, brought: Brought) -> Result<(), Error> {
        self.running.remove(&key);
        if let Some(peer) = self.peers.get_mut(key.0) {
            peer.busy = peer.busy.saturating_sub(1);
            match &brought {
                Brought::Refused => peer.refuses = true,
                Brought::Both { .. } => peer.refuses = false,
                Brought::Later(_) | Brought::Nothing | Brought::Wrong => {}
            }
        }
        let missed = self.missed.remove(&key);
        let Some(before) = self.take(&key) else { return Ok(()) };
        let mut comparison = before.clone();
        let (now, pace) = (self.now(), self.asker.pace);
        let heard = match &brought {
            Brought::Both { ours, theirs, looked } => {
                Heard::Both { ours: &ours.1.sights, theirs: &theirs.1.sights, looked: *looked }
            }
            Brought::Later(seconds) => Heard::Later(seconds.saturating_mul(1000)),
            Brought::Nothing => Heard::Nothing,
            Brought::Wrong => Heard::Wrong,
            Brought::Refused => Heard::Refused,
        };
        let outcome = comparison.hear(heard, &pace, now);
        let Some(outcome) = outcome else {
            if missed {
                comparison.again(now);
            }
            return self.keep(key, comparison).await;
        };
        if let Some(found) = self.found(&key, &outcome, brought, now) {
            let filed = self.asker.rooms.raise.raise(&found).await;
            if let Err(error) = &filed {
                tracing::error!(%error, "a difference between mirrors could not be filed");
            }
            if !filed.unwrap_or(false) {
                // The last step is done once more.
                let mut again = before;
                again.hear(Heard::Nothing, &pace, now);
                return self.keep(key, again).await;
            }
        }
        // Killed here: it is filed, and found once more.
        self.asker.rooms.tally.compared(outcome.as_str());
        if missed {
            // In one write: what changed during the step is never without a row.
            match comparison.is_over() {
                true => comparison.again(now),
                false => {
                    let least = comparison.least();
                    comparison = Comparison::new(now);
                    comparison.expect(least);
                }
            }
        } else if !comparison.is_over() {
            return self.delete(&self.row(&key)).await;
        }
        self.keep(key, comparison).await
    }

    fn found(
        &self,
        (peer, name): &Key,
        outcome: &Outcome,
        brought: Brought,
        at: Timestamp,
    ) -> Option<Found> {
        let (what, looks) = match outcome {
            Outcome::SplitView(looks) => (What::SplitView, looks.clone()),
            Outcome::UpdateWithheld => (What::UpdateWithheld, Vec::new()),
            _ => return None,
        };
        let Brought::Both { ours, theirs, .. } = brought else { return None };
        let (own, other) = (&ours.1.origin, self.peers.get(*peer)?.face.origin());
        let origin = |side| match side {
            Side::Ours => own.clone(),
            Side::Theirs => other.to_owned(),
        };
        let looks = looks.into_iter().map(|(side, at)| (origin(side), at)).collect();
        let name = name.clone();
        Some(Found { what, name, at, ours: ours.0, theirs: theirs.0, looks })
    }

    /// Counts, and lets go of what need not be remembered any more.
    async fn let_go(&mut self) -> Result<(), Error> {
        let now = self.now();
        let mut open = 0;
        let mut old = Vec::new();
        let pace = self.asker.pace;
        let refuses = |peer: &Asked| Reserve { refuses: peer.refuses, ..Reserve::default() };
        let mut reserves: Vec<Reserve> = self.peers.iter().map(refuses).collect();
        for (key, comparison) in &self.kept {
            if let Some(reserve) = reserves.get_mut(key.0) {
                reserve.unseen += usize::from(comparison.is_unseen());
                reserve.unshown += usize::from(comparison.is_unshown(&pace, now));
            }
            match comparison.is_over() {
                true if comparison.kept_until() <= now => old.push(key.clone()),
                true => {}
                false => open += 1,
            }
        }
        self.asker.rooms.tally.comparing(open);
        self.show(&reserves);
        for key in old {
            self.take(&key);
            self.delete(&self.row(&key)).await?;
        }
        Ok(())
    }

    fn show(&self, reserves: &[Reserve]) {
        let peers = self.peers.iter().zip(reserves);
        let kept = peers.filter(|(_, reserve)| **reserve != Reserve::default());
        let now: BTreeMap<String, Reserve> =
            kept.map(|(peer, reserve)| (peer.face.origin().to_owned(), *reserve)).collect();
        self.reserves.send_if_modified(|before| {
            for (origin, reserve) in &now {
                if before.get(origin) != Some(reserve) {
                    tracing::warn!(peer = origin, %reserve, "names are not compared in full");
                }
            }
            let news = *before != now;
            *before = now;
            news
        });
    }

    fn nap(&self) -> Duration {
        let now = self.now();
        let mut first = self.peers.iter().filter_map(|peer| peer.queue.first());
        let due = first.any(|(due, _)| *due <= now);
        if due { SPACING } else { NAP }
    }
}

impl Asked {
    fn new(face: Face, room: usize) -> Asked {
        let (face, queue) = (Arc::new(face), BTreeSet::new());
        let free_at = Instant::now();
        let (kept, busy, read, refuses, aside) = (0, 0, 0, false, None);
        Asked { face, queue, kept, room, busy, free_at, read, refuses, aside }
    }

    fn cursor(&self) -> Vec<u8> {
        format!("{CURSOR}{}", self.face.origin()).into_bytes()
    }

    fn has_room(&self) -> bool {
        self.kept < self.room
    }

    fn is_half_empty(&self) -> bool {
        self.kept <= self.room / 2
    }

    /// The entry that is to be read for it next, of a log of this size.
    fn wants(&self, size: u64) -> Option<u64> {
        (self.has_room() && self.read < size).then_some(self.read)
    }
}

impl Asking {
    async fn step(&self, peer: &Face, name: &Name, step: Step, least: u64) -> Brought {
        let looked = match step {
            Step::Ask => None,
            Step::Look => match self.rooms.look.look(name).await {
                Ok(version) => Some((version, self.rooms.clock.now())),
                Err(error) => {
                    tracing::debug!(%error, "a name to compare could not be visited");
                    return Brought::Nothing;
                }
            },
        };
        let ours = match self.ours(name, looked.map_or(0, |(version, _)| version)).await {
            Ok(ours) => ours,
            Err(error) => {
                tracing::warn!(%error, "no receipt of our own to compare");
                return Brought::Nothing;
            }
        };
        let now = self.rooms.clock.now();
        let said = peer.ask(&self.rooms.key, name, looked.is_some(), now).await;
        let (origin, looked) = (peer.origin(), looked.map(|(_, at)| at));
        match said {
            Ok(Said::Receipt(_, statement)) if statement.latest < least => {
                tracing::debug!(%origin, "a peer shows less than its log has");
                Brought::Wrong
            }
            Ok(Said::Receipt(receipt, statement)) => Brought::Both {
                ours: Box::new(ours),
                theirs: Box::new((*receipt, *statement)),
                looked,
            },
            Ok(Said::Later(seconds)) => Brought::Later(seconds),
            Ok(Said::Refused(status)) => {
                tracing::debug!(%origin, status, "a peer does not let us ask");
                Brought::Refused
            }
            Ok(Said::Wrong(why)) => {
                tracing::warn!(%origin, %why, "a peer's receipt does not hold");
                Brought::Wrong
            }
            Err(error) => {
                tracing::debug!(%origin, %error, "a peer could not be asked");
                Brought::Nothing
            }
        }
    }

    /// What we say of the name ourselves, at a head that has this version.
    async fn ours(&self, name: &Name, version: u64) -> Result<(Receipt, Statement), String> {
        let question = Question { name: name.clone(), span: Span::Whole, has_genesis: false };
        let published = async {
            loop {
                let receipt = self.rooms.answers.receipt(&question).await;
                let receipt = receipt.map_err(|error| error.to_string())?;
                if receipt.latest() >= version {
                    return Ok::<_, String>(receipt);
                }
                tokio::time::sleep(SPACING).await;
            }
        };
        let receipt = tokio::time::timeout(PUBLISHING, published).await;
        let receipt = receipt.map_err(|_| "nothing is published".to_owned())??;
        let asker = receipt::Asker { policy: Some(&self.own), ..Asker::default() };
        let verdict = receipt::verify(&receipt, &asker, self.rooms.clock.now());
        let statement = verdict.map_err(|fault| fault.to_string())?.statement().clone();
        Ok((receipt, statement))
    }
}
