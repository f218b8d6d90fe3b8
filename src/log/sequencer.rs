//! The one writer: takes drafts, makes a batch, commits it, and does what
//! follows from the commit.
//!
//! A round may stop at any await: the process is killed, or a store fails. At
//! each a comment says what then lies in the stores. The rule: before the
//! commit nothing counts, after it everything can be done again.
//!
//! Several sequencers may work on one store, by design or by mistake: commit n
//! is created by one, and all others go on from it.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::chain::{Chain, Step};
use super::commit::{self, Batch, Commit, MAX_COMMIT, Payload, PrivateRecord, sha256};
use super::guard::OwnMark;
use super::ledger::Ledger;
use super::segment::Upkeep;
use super::tip::{Grown, Tip};
use super::{
    Blocked, Error, Head, Log, Placed, Predecessor, Refused, Remedy, Waiting, index, publish,
};
use crate::dime::{Domain, Timestamp};
use crate::directory;
use crate::errors::with_sources;
use crate::proof::draft::{Draft, Place, UserDraft};
use crate::proof::entry::{DirectoryRoot, Entry, Genesis, Kind};
use crate::proof::note::MAX_NOTE;
use crate::proof::replay::{Change, EngineStop};
use crate::proof::{Hash, Label};
use crate::store::blobs::Claim;
use crate::store::keys;
use crate::store::rows::{self, DomainRow, UserRow};

/// Pause after a failed round; it doubles up to a minute.
const PAUSE: Duration = Duration::from_millis(200);
const MAX_PAUSE: Duration = Duration::from_secs(60);
/// How often a node that does not sequence looks for others' commits.
const FOLLOW: Duration = Duration::from_secs(2);
/// A batch is closed when its signets have this many bytes.
const MAX_SIGNETS: usize = 32 << 20;

/// The writer of a log. Only one is made for each [`Log`].
pub struct Sequencer {
    log: Log,
    chain: Chain,
    tip: Tip,
    pool: mpsc::Receiver<Waiting>,
    /// Taken from the pool, in the order of their coming.
    waiting: VecDeque<Waiting>,
    stage: Stage,
    /// A commit that was followed while signing was not allowed.
    unsigned: Option<Box<Committed>>,
    /// Another sequencer was faster: there may be more of its commits.
    lost: bool,
    /// When the last batch was committed here.
    last_batch: Option<Instant>,
    /// Whether anybody gathers cosignatures: not before the log runs.
    gathers: bool,
    /// Entries come back that this log has signed before (`log::takeback`).
    pub(super) takes_back: bool,
    /// The first commit of those whose private records were lost, not yet marked.
    pub(super) unmarked: Option<u64>,
    upkeep: Upkeep,
}

/// How far a round has come. It goes on there after a failure.
enum Stage {
    /// Nothing has been written that must be resolved.
    Idle,
    /// The commit may or may not exist: only reading it tells.
    Claiming(Box<Prepared>),
    /// The commit exists; what follows from it is not all done.
    Following(Box<Committed>),
}

/// A batch with everything that must be written before its commit.
struct Made {
    step: Step,
    grown: Grown,
    blobs: Vec<(Hash, Bytes)>,
    records: Vec<Bytes>,
    drafts: Vec<(Waiting, Placed)>,
}

/// A batch whose objects are written, and that waits for its commit.
struct Prepared {
    step: Step,
    grown: Grown,
    /// The directory's batch before this one, to go back to.
    map_before: u64,
    drafts: Vec<(Waiting, Placed)>,
}

/// A commit that exists, ours or another's.
struct Committed {
    step: Step,
    grown: Grown,
    drafts: Vec<(Waiting, Placed)>,
}

/// What a label is, with what the batch that is being made does to it.
#[derive(Clone, Copy)]
struct Standing {
    version: u64,
    current: u64,
    /// As whoever reads the name's row knows it: 0 if that is gone.
    known: u64,
    held_until: Option<Timestamp>,
}

impl Sequencer {
    pub(super) fn new(log: Log, tip: Tip, pool: mpsc::Receiver<Waiting>) -> Sequencer {
        let chain = Chain::new(log.0.store.private.clone())
            .with_ledger(Ledger::beside(&log.0.options.guard));
        Sequencer {
            log,
            chain,
            tip,
            pool,
            waiting: VecDeque::new(),
            stage: Stage::Idle,
            unsigned: None,
            lost: false,
            last_batch: None,
            gathers: false,
            takes_back: false,
            unmarked: None,
            upkeep: Upkeep::default(),
        }
    }

    /// Begins with a commit whose follow-up may not be done.
    pub(super) async fn finish(&mut self, step: Step, grown: Grown) -> Result<(), Error> {
        self.stage = Stage::Following(Box::new(Committed { step, grown, drafts: vec![] }));
        self.resolve().await
    }

    /// Runs rounds until `shutdown`, then a last one for what is in the pool.
    ///
    /// # Errors
    /// Only fatal ones: the process is to end, and the next start finds out
    /// what is durable.
    pub async fn run(mut self, shutdown: CancellationToken) -> Result<(), Error> {
        let ended = self.rounds(&shutdown).await;
        self.upkeep.end().await;
        ended
    }

    async fn rounds(&mut self, shutdown: &CancellationToken) -> Result<(), Error> {
        let mut pause = PAUSE;
        self.gathers = true;
        loop {
            self.wait(shutdown).await;
            match self.round().await {
                Ok(_) => pause = PAUSE,
                Err(error) if error.remedy() == Remedy::Fatal => return Err(error),
                Err(error) => {
                    if let Error::Directory(directory::Error::Pending { pending, .. }) = error {
                        self.log.set_blocked(Some(Blocked::Unpublished { changes: pending }));
                    }
                    warn!(error = with_sources(&error), "a round failed and is tried again");
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(MAX_PAUSE);
                    if shutdown.is_cancelled() {
                        return Ok(());
                    }
                    continue;
                }
            }
            if shutdown.is_cancelled() && self.is_empty() {
                return Ok(());
            }
        }
    }

    fn is_empty(&self) -> bool {
        self.waiting.is_empty() && self.pool.is_empty() && matches!(self.stage, Stage::Idle)
    }

    /// Sleeps until a batch is due, or shutdown.
    async fn wait(&mut self, shutdown: &CancellationToken) {
        let options = &self.log.0.options;
        let (interval, urgent_interval) = (options.interval, options.urgent_interval);
        while !shutdown.is_cancelled() {
            let since = self.last_batch.map_or(Duration::MAX, |last| last.elapsed());
            let urgent = self.waiting.iter().any(|waiting| waiting.urgent);
            let least = if urgent { urgent_interval } else { interval };
            if !self.waiting.is_empty() && since >= least {
                return;
            }
            let blocked = self.log.blocked().is_some();
            if self.waiting.is_empty() && (blocked || self.heartbeat_due()) {
                // Nobody waits: look after the log itself, not too often.
                tokio::select! {
                    () = tokio::time::sleep(if blocked { FOLLOW } else { PAUSE }) => {}
                    () = shutdown.cancelled() => {}
                }
                return;
            }
            let nap = if self.waiting.is_empty() {
                Duration::from_secs(1)
            } else {
                least.saturating_sub(since)
            };
            tokio::select! {
                () = tokio::time::sleep(nap) => {}
                () = shutdown.cancelled() => {}
                taken = self.pool.recv(), if self.waiting.len() < commit::MAX_ENTRIES => {
                    match taken {
                        Some(waiting) => self.waiting.push_back(waiting),
                        // No handle is left: only shutdown and heartbeats remain.
                        None => tokio::time::sleep(nap).await,
                    }
                }
            }
        }
    }

    fn heartbeat_due(&self) -> bool {
        let since = self.log.0.clock.now().since(self.tip.position.time);
        since >= self.log.0.options.heartbeat.as_millis() as u64
    }

    /// One round: finishes what an earlier one left, then sequences what waits,
    /// or a heartbeat if one is due. Gives the number of the commit it made;
    /// `None` if there was nothing to do or sequencing is blocked.
    ///
    /// # Errors
    /// [`Error::remedy`] says whether to call again or to end the process.
    pub async fn round(&mut self) -> Result<Option<u64>, Error> {
        self.resolve().await?;
        self.sign_what_waits().await?;
        if std::mem::take(&mut self.lost) {
            self.follow().await?;
        }
        while self.waiting.len() < commit::MAX_ENTRIES {
            let Ok(waiting) = self.pool.try_recv() else { break };
            self.waiting.push_back(waiting);
        }
        self.waiting.retain(|waiting| !waiting.is_abandoned());
        let time = match self.time() {
            Ok(_) if self.is_carrying() => {
                self.block(Blocked::Carrying).await?;
                return Ok(None);
            }
            Ok(time) => time,
            Err(blocked) => {
                self.block(blocked).await?;
                return Ok(None);
            }
        };
        if self.unmarked.is_some() {
            self.mark_lost(time).await?;
        }
        if self.waiting.is_empty() && !self.heartbeat_due() {
            return Ok(None);
        }
        let drafts = self.choose();
        let prepared = self.prepare(time, drafts).await?;
        self.stage = Stage::Claiming(Box::new(prepared));
        let n = self.tip.next;
        self.resolve().await?;
        self.last_batch = Some(Instant::now());
        self.maintain().await?;
        Ok(Some(n))
    }

    /// The tip was accepted: what waited for that is done.
    pub(super) async fn sign_what_waits(&mut self) -> Result<(), Error> {
        if self.may_sign()
            && let Some(unsigned) = self.unsigned.take()
        {
            self.stage = Stage::Following(unsigned);
            self.resolve().await?;
        }
        Ok(())
    }

    /// Whether what is committed may be signed: what was signed before may, even
    /// while the rest of it is missing.
    fn may_sign(&self) -> bool {
        self.takes_back || self.log.standing_block().is_none()
    }

    /// Finishes the commit and what follows from it; afterwards the stage is idle.
    pub(super) async fn resolve(&mut self) -> Result<(), Error> {
        loop {
            match std::mem::replace(&mut self.stage, Stage::Idle) {
                Stage::Idle => return Ok(()),
                Stage::Claiming(prepared) => self.claim(prepared).await?,
                Stage::Following(mut committed) => match self.follow_up(&mut committed).await {
                    Ok(()) => self.acknowledge(*committed),
                    Err(error) => {
                        self.stage = Stage::Following(committed);
                        return Err(error);
                    }
                },
            }
        }
    }

    /// The batch's time by the clock rules (threat 14): never before the last
    /// root, and not while the clock is plainly wrong.
    pub(super) fn time(&self) -> Result<Timestamp, Blocked> {
        if let Some(blocked) = self.log.standing_block() {
            return Err(blocked);
        }
        if self.tip.position.closed {
            return Err(Blocked::Closed);
        }
        let options = &self.log.0.options;
        let (now, last) = (self.log.0.clock.now(), self.tip.position.time);
        if self.tip.next == 0 {
            return Ok(now.max(Timestamp::from_millis(1)));
        }
        if let Some(by) = self.log.clock_doubt() {
            return Err(Blocked::ClockOff { by });
        }
        if now < last {
            let behind = last.since(now);
            let most = options.clock_behind.as_millis() as u64;
            return if behind <= most { Ok(last) } else { Err(Blocked::ClockBehind { behind }) };
        }
        let ahead = now.since(last);
        if ahead > options.clock_ahead.as_millis() as u64 && !self.log.clock_accepted() {
            return Err(Blocked::ClockAhead { ahead });
        }
        Ok(now)
    }

    /// Whether labels of the predecessor are missing.
    fn is_carrying(&self) -> bool {
        let carrying = self.tip.position.carrying.as_ref();
        carrying.is_some_and(|carrying| carrying.done() < carrying.labels())
    }

    /// One batch made by hand, with its private records: all steps of a round.
    pub(super) async fn write(
        &mut self,
        time: Timestamp,
        entries: Vec<Bytes>,
        records: Vec<Bytes>,
    ) -> Result<(), Error> {
        self.write_as(time, entries, records, |_| true).await
    }

    /// The same, if the batch comes out as it should.
    pub(super) async fn write_as(
        &mut self,
        time: Timestamp,
        entries: Vec<Bytes>,
        records: Vec<Bytes>,
        as_it_should: impl FnOnce(&Batch) -> bool,
    ) -> Result<(), Error> {
        self.resolve().await?;
        let map_before = self.tip.map.committed().batch;
        let closed = self.close(time, entries, &records).and_then(|closed| {
            let wrong = || Error::broken(self.tip.next, "its entries make another batch");
            if as_it_should(&closed.0.batch) { Ok(closed) } else { Err(wrong()) }
        });
        let (step, grown) = match closed {
            Ok(closed) => closed,
            Err(error) => {
                self.tip.map.rollback(map_before)?;
                return Err(error);
            }
        };
        let prepared = Prepared { step, grown, map_before, drafts: Vec::new() };
        if let Err(error) = self.write_objects(&prepared.step, &[], records).await {
            self.discard(prepared)?;
            return Err(error);
        }
        self.stage = Stage::Claiming(Box::new(prepared));
        self.resolve().await
    }

    /// Serves on without sequencing: tells those who wait, and follows others.
    async fn block(&mut self, blocked: Blocked) -> Result<(), Error> {
        self.log.set_blocked(Some(blocked));
        for waiting in self.waiting.drain(..) {
            waiting.answer(Err(Refused::Blocked(blocked)));
        }
        self.follow().await
    }

    /// Goes on over all commits of others that are there.
    async fn follow(&mut self) -> Result<(), Error> {
        while let Some(step) = self.chain.step(self.tip.next).await? {
            self.go_on(step)?;
            // Killed here: the commit is another's and exists; it is followed
            // at the next start.
            self.resolve().await?;
        }
        Ok(())
    }

    /// Checks another's commit and goes on to it.
    fn go_on(&mut self, step: Step) -> Result<(), Error> {
        let grown = self.tip.follow(&step)?;
        self.stage = Stage::Following(Box::new(Committed { step, grown, drafts: vec![] }));
        Ok(())
    }

    /// As many drafts as one batch may hold, domains first in the order of
    /// their coming, then mailboxes by label (threat 21).
    fn choose(&mut self) -> Vec<Waiting> {
        let mut signets = 0;
        let mut chosen = Vec::new();
        while let Some(next) = self.waiting.front() {
            signets += match &next.draft {
                Draft::User(draft) => draft.signet.as_ref().map_or(0, Bytes::len),
                Draft::Domain(_) | Draft::Forget { .. } => 0,
            };
            // One place is the directory root's.
            if chosen.len() + 1 >= self.log.0.options.batch || signets > MAX_SIGNETS {
                break;
            }
            chosen.extend(self.waiting.pop_front());
        }
        chosen.sort_by_key(|waiting| match waiting.draft {
            Draft::Domain(_) => None,
            Draft::User(_) | Draft::Forget { .. } => Some(waiting.label),
        });
        chosen
    }

    /// Makes the batch and writes its objects. On an error the drafts wait again.
    async fn prepare(&mut self, time: Timestamp, drafts: Vec<Waiting>) -> Result<Prepared, Error> {
        let map_before = self.tip.map.committed().batch;
        let Made { step, grown, blobs, records, drafts } = match self.make(time, drafts).await {
            Ok(made) => made,
            Err((error, drafts)) => {
                self.give_back(drafts);
                self.tip.map.rollback(map_before)?;
                return Err(error);
            }
        };
        let prepared = Prepared { step, grown, map_before, drafts };
        match self.write_objects(&prepared.step, &blobs, records).await {
            Ok(()) => Ok(prepared),
            Err(error) => {
                // The objects written so far are orphans: their batch names a
                // commit that some other batch will have.
                self.discard(prepared)?;
                Err(error)
            }
        }
    }

    /// Gives drafts their places and closes the batch with the next directory
    /// root. Drafts that cannot have a place are answered here.
    async fn make(
        &mut self,
        time: Timestamp,
        drafts: Vec<Waiting>,
    ) -> Result<Made, (Error, Vec<Waiting>)> {
        let n = self.tip.next;
        let first = self.tip.size();
        let mut entries: Vec<Bytes> = Vec::with_capacity(drafts.len() + 2);
        let (mut blobs, mut records) = (Vec::new(), Vec::new());
        let mut placed: Vec<(Waiting, Placed)> = Vec::with_capacity(drafts.len());
        let mut standings: HashMap<Label, Standing> = HashMap::new();
        if n == 0 {
            entries.push(self.genesis(time));
        }
        let mut drafts = drafts.into_iter();
        while let Some(waiting) = drafts.next() {
            let found = match self.standing(&waiting, &standings).await {
                Ok(standing) => {
                    let place = self.place(&waiting, &standing, time, &standings);
                    place.map(|place| (standing, place))
                }
                Err(error) => Err(error),
            };
            let (standing, place) = match found {
                Ok(found) => found,
                Err(error) => {
                    let rest = placed.into_iter().map(|(waiting, _)| waiting);
                    return Err((error, rest.chain([waiting]).chain(drafts).collect()));
                }
            };
            if waiting.after.is_some_and(|after| after != standing.known) {
                waiting.answer(Err(Refused::MovedOn { version: standing.version }));
                continue;
            }
            let made = match waiting.draft.place(&place) {
                Ok(made) => made,
                Err(error) => {
                    waiting.answer(Err(Refused::Unplaceable(error)));
                    continue;
                }
            };
            let index = first + entries.len() as u64;
            let held_until = held_until(&made.entry);
            let (version, current) = (made.version, made.current);
            let standing = Standing { version, current, known: version, held_until };
            standings.insert(waiting.label, standing);
            entries.push(made.entry);
            blobs.extend(made.blobs);
            if let Some(private) = made.private {
                let record = PrivateRecord {
                    index,
                    address: private.address,
                    payload: private.payload,
                    opening: private.opening,
                    signet: private.signet.map(|(_, bytes)| bytes),
                };
                records.push(record.encode());
            }
            let size = 0;
            placed.push((waiting, Placed { index, version: made.version, size }));
        }
        match self.close(time, entries, &records) {
            Ok((step, grown)) => {
                for (_, place) in &mut placed {
                    place.size = grown.size;
                }
                Ok(Made { step, grown, blobs, records, drafts: placed })
            }
            Err(error) => Err((error, placed.into_iter().map(|(waiting, _)| waiting).collect())),
        }
    }

    fn genesis(&self, time: Timestamp) -> Bytes {
        let record = &self.log.0.record;
        let genesis = Genesis {
            origin: &record.origin,
            log_key: record.log_key,
            vrf_key: record.vrf_key,
            predecessor: self.log.0.options.predecessor.as_ref().map(Predecessor::of_genesis),
        };
        Entry::new(time, Kind::Genesis(genesis)).encode().into()
    }

    /// What a draft's label is now: from this batch, else from the directory and
    /// the name's row, which is as far as the tip.
    async fn standing(
        &self,
        waiting: &Waiting,
        standings: &HashMap<Label, Standing>,
    ) -> Result<Standing, Error> {
        if let Some(standing) = standings.get(&waiting.label) {
            return Ok(*standing);
        }
        let tip = self.tip.map.tip(&waiting.label);
        let (version, current) = tip.map_or((0, 0), |tip| (tip.version, tip.current));
        let state = &*self.log.0.state;
        let row = match &waiting.draft {
            Draft::Domain(draft) => {
                let key = Domain::as_str(&draft.domain).as_bytes();
                let row = rows::find::<DomainRow>(state, key).await?;
                row.map(|row| (row.version, row.held_until))
            }
            Draft::User(UserDraft { address, .. }) | Draft::Forget { address } => {
                let row = rows::find::<UserRow>(state, &rows::user_key(address)).await?;
                row.map(|row| (row.version, row.held_until))
            }
        };
        let (known, held_until) = row.unwrap_or_default();
        let held_until = held_until.map(Timestamp::from_millis);
        Ok(Standing { version, current, known, held_until })
    }

    /// Where a draft goes, by what its label and its domain are now.
    fn place<'a>(
        &'a self,
        waiting: &Waiting,
        standing: &Standing,
        time: Timestamp,
        standings: &HashMap<Label, Standing>,
    ) -> Result<Place<'a>, Error> {
        let domain = Label::of_domain(waiting.draft.domain());
        let domain_current = match standings.get(&domain) {
            Some(standing) => standing.current,
            None => self.tip.map.tip(&domain).map_or(0, |tip| tip.current),
        };
        Ok(Place {
            time,
            version: standing.version + 1,
            previous_current: standing.current,
            held_until: standing.held_until,
            origin: &self.log.0.record.origin,
            label: waiting.label,
            opening: random()?,
            domain_current,
        })
    }

    /// Applies the batch to the directory, closes it with the new root, and
    /// checks the whole as any replayer would, before anything is written.
    fn close(
        &mut self,
        time: Timestamp,
        mut entries: Vec<Bytes>,
        records: &[Bytes],
    ) -> Result<(Step, Grown), Error> {
        let n = self.tip.next;
        let first = self.tip.size();
        let malformed = |fault| Error::broken(n, format!("an entry of our own: {fault}"));
        let mut changes = Vec::with_capacity(entries.len());
        for (index, entry) in (first..).zip(&entries) {
            changes.extend(Change::of(index, entry.clone()).map_err(malformed)?);
        }
        changes.sort_by_key(|change| (change.label, change.index));
        let head = if changes.is_empty() {
            self.tip.map.committed()
        } else {
            self.tip.map.apply(&changes).map_err(|stop| match stop {
                EngineStop::Fault(fault) => Error::Rule { n, fault },
                EngineStop::Engine(error) => Error::Directory(error),
            })?
        };
        let covered = first + entries.len() as u64;
        let root = DirectoryRoot { root: head.root, labels: head.labels, covered };
        entries.push(Entry::new(time, Kind::Root(root)).encode().into());
        let grown = self.tip.grown_applied(n, &entries)?;
        let batch = Batch { n, previous: self.tip.hash, entries };
        let batch_bytes = batch.encode();
        let commit = Commit {
            n,
            previous: self.tip.hash,
            batch: sha256(&batch_bytes),
            size: grown.size,
            root: grown.root,
            directory_root: head.root,
            labels: head.labels,
            time,
            records: records.iter().map(|record| sha256(record)).collect(),
            fence: self.log.0.record.fence,
        };
        let bytes = commit.encode();
        let step = Step { hash: sha256(&bytes), bytes, commit, batch_bytes, batch };
        Ok((step, grown))
    }

    /// Writes everything that the commit will name. Nothing of it counts yet.
    async fn write_objects(
        &self,
        step: &Step,
        blobs: &[(Hash, Bytes)],
        records: Vec<Bytes>,
    ) -> Result<(), Error> {
        let store = &self.log.0.store;
        // Killed here or after: blobs that no entry names. Harmless, and the
        // next visit writes the same ones.
        publish::write_blobs(&store.public, blobs).await?;
        if !records.is_empty() {
            let n = step.commit.n;
            let payload = Payload { n, records };
            // Killed after: a payload whose batch does not exist; swept later.
            store.private.put(keys::payload(n, &step.commit.batch), payload.encode()).await?;
        }
        // Killed after: a batch meant for a commit that will name another; swept later.
        store.private.put(keys::batch(&step.commit.batch), step.batch_bytes.clone()).await?;
        Ok(())
    }

    /// Creates the commit: the only step that decides anything.
    async fn claim(&mut self, prepared: Box<Prepared>) -> Result<(), Error> {
        let n = prepared.step.commit.n;
        let bytes = prepared.step.bytes.clone();
        // Killed before: nothing happened, the submitters were told nothing.
        // Killed after: the batch is in the log; the next start finishes it.
        // An error leaves it open which: the same bytes are claimed again.
        let private = &self.log.0.store.private;
        match private.claim(&keys::commit(n), bytes, MAX_COMMIT).await {
            Ok(Claim::Won) => {
                let Prepared { step, grown, drafts, .. } = *prepared;
                self.tip.accept(&step, &grown);
                let committed = Committed { step, grown, drafts };
                self.stage = Stage::Following(Box::new(committed));
                Ok(())
            }
            Ok(Claim::Lost(_)) => {
                warn!(commit = n, "another sequencer made this commit; following it");
                self.discard(*prepared)?;
                self.lost = true;
                self.follow_one(n).await
            }
            Err(error) => {
                self.stage = Stage::Claiming(prepared);
                Err(error.into())
            }
        }
    }

    async fn follow_one(&mut self, n: u64) -> Result<(), Error> {
        let step = self.chain.step(n).await?.ok_or(Error::Moved { n })?;
        self.go_on(step)
    }

    /// Takes a batch back that was not committed; its drafts wait again.
    fn discard(&mut self, prepared: Prepared) -> Result<(), Error> {
        self.give_back(prepared.drafts.into_iter().map(|(waiting, _)| waiting).collect());
        self.tip.map.rollback(prepared.map_before)?;
        Ok(())
    }

    fn give_back(&mut self, drafts: Vec<Waiting>) {
        for waiting in drafts.into_iter().rev() {
            self.waiting.push_front(waiting);
        }
    }

    /// Everything after the commit. Each step may be done again.
    async fn follow_up(&mut self, committed: &mut Committed) -> Result<(), Error> {
        let Committed { step, grown, .. } = committed;
        let n = step.commit.n;
        // Killed here: as after the commit.
        self.check_place(step).await?;
        let mut head = Head::of(step, grown);
        self.log.set_committed(&head);
        if !self.may_sign() {
            return self.look_on(step, head, grown.map_batch).await;
        }
        // Killed before: the guard is one commit behind the blobs, which the
        // next start accepts. Killed after: they are equal.
        self.log.advance_guard(OwnMark { n, size: grown.size, root: grown.root }).await?;
        // Killed before or in between: some tiles are missing, and no
        // checkpoint needs them yet; the next start writes them again.
        publish::write_tiles(&self.log.0.store.public, grown).await?;
        // Killed here: the tree is readable, its checkpoint is not signed yet.
        let stale = self.chain.exists(n + 1).await?;
        if !stale {
            // Killed before or after: the next start signs the same note.
            let shared = &self.log.0;
            let origin = &shared.record.origin;
            let note = publish::checkpoint(&shared.keys.log, origin, grown.size, grown.root)?;
            shared.store.public.put(keys::checkpoint(grown.size), note.clone()).await?;
            let look = !self.gathers;
            head.checkpoint = Some(self.log.open_to_cosigners(grown.size, &note, look).await?);
            // From here on cosigners are asked, while the index is brought on.
            self.log.set_committed(&head);
        }
        // Killed before: the index is behind, and the next start brings it on.
        // It comes before the answer and before the head moves, so that whoever
        // is told of an entry also finds it.
        index::index(&*self.log.0.state, &self.chain, step).await?;
        let options = &self.log.0.options;
        if self.gathers && options.publish_quorum > 0 && head.checkpoint.is_some() {
            // Killed here: the next start publishes with what was written down.
            self.log.gather(grown.size, options.publish_quorum, options.quorum_deadline).await;
        }
        self.log.publish(head, grown.map_batch)
    }

    /// What is left of the follow-up while this node must not sign: the index,
    /// and the head if somebody else has signed it.
    async fn look_on(&self, step: &Step, mut head: Head, map_batch: u64) -> Result<(), Error> {
        index::index(&*self.log.0.state, &self.chain, step).await?;
        let key = keys::checkpoint(head.size);
        head.checkpoint = self.log.0.store.public.get(&key, MAX_NOTE as u64).await?;
        if head.checkpoint.is_some() { self.log.publish(head, map_batch) } else { Ok(()) }
    }

    /// A number may have been merged away and so be free again (threat 27).
    /// Merging deletes ascending, and after the floor was raised: so if commit
    /// n could be created and n−1 is still there, n was never merged.
    async fn check_place(&self, step: &Step) -> Result<(), Error> {
        let n = step.commit.n;
        let Some(before) = n.checked_sub(1) else { return Ok(()) };
        let below = match self.chain.commit_bytes(before).await? {
            Some(bytes) => Some(sha256(&bytes)),
            None => self.chain.below_floor(n).await?,
        };
        if below == Some(step.commit.previous) {
            return Ok(());
        }
        Err(Error::Superseded { n })
    }

    /// Tells the submitters. Killed before: they were told nothing, and find
    /// their entries in the index when they look again.
    fn acknowledge(&mut self, committed: Committed) {
        // Whoever is answered finds it so, and may give the next word.
        self.log.set_blocked(self.log.standing_block());
        if !self.may_sign() {
            self.unsigned = Some(Box::new(committed));
        } else {
            let Committed { step, grown, drafts, .. } = committed;
            if !drafts.is_empty() {
                info!(
                    commit = step.commit.n,
                    size = grown.size,
                    entries = drafts.len(),
                    "committed"
                );
            }
            for (waiting, placed) in drafts {
                waiting.answer(Ok(placed));
            }
        }
    }

    /// Merges old commits and prunes partial tiles, when there is enough.
    async fn maintain(&mut self) -> Result<(), Error> {
        let shared = self.log.0.clone();
        self.upkeep
            .after_round(&shared.options, &shared.store, &shared.state, &self.chain, &self.tip)
            .await
    }

    pub(super) fn log(&self) -> &Log {
        &self.log
    }

    pub(super) fn chain(&self) -> &Chain {
        &self.chain
    }

    /// The tip, for tests and for maintenance by hand.
    pub fn tip(&self) -> &Tip {
        &self.tip
    }
}

/// The hold in an entry that was just made.
fn held_until(entry: &[u8]) -> Option<Timestamp> {
    match Entry::decode(entry).ok()?.kind {
        Kind::Domain(domain) => domain.held_until,
        Kind::User(user) => user.held_until,
        _ => None,
    }
}

fn random() -> Result<[u8; 32], Error> {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes).map_err(|_| Error::Random)?;
    Ok(bytes)
}
