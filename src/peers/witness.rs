//! `add-checkpoint` of C2SP tlog-witness, for the peers' logs and no others.
//!
//! Our cosignature says more than append-only: that we replayed the log to the
//! same directory root, and that every public blob which its entries name was
//! there and right (see `proto/README.md`). So it waits, for two seconds at
//! most, until the peer was followed to that size.
//!
//! What was cosigned is remembered twice, both durable before any signature: in the
//! store, as one line of trees for all processes that share it (`peers::memory`),
//! and in the guard file, which no backup takes back. The larger counts, and is
//! brought into the store first. While the own log's memory is in doubt nothing is
//! cosigned (threat 12).

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use sha2::{Digest as _, Sha256};
use tokio::sync::{Mutex, watch};

use super::memory::Memory;
use super::{Condition, Error, Peer, Rooms, Standing, Status, succession};
use crate::dime::Timestamp;
use crate::errors::with_sources;
use crate::log::reader::PublicBlob;
use crate::proof::Hash;
use crate::proof::checkpoint::{AddCheckpoint, Checkpoint, SignedCheckpoint};
use crate::proof::entry::{Entry, Kind};
use crate::proof::merkle;

/// How far a directory root's time may be from our clock, milliseconds (threat 14).
pub const MAX_OFFSET: u64 = 300_000;
/// Seconds after which to come back, while following catches up.
const SOON: u32 = 1;
/// The same while a head of now may be under way: a mirror that was away shows
/// its last one first.
const NEXT: u32 = 5;
/// The same while something must be done by people.
const LATER: u32 = 60;
/// Of guard and store one is not what it was: only people can say which.
const TWO_TREES: &str = "this mirror has kept two trees of one size that it cosigned";
const OTHERS: &str = "another process of this mirror cosigns this log just now";
/// Times that other processes on the store may come first, for one request.
const TRIES: usize = 3;

/// What a request is answered with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// 200: the signature line.
    Cosigned(String),
    /// 400
    Malformed(String),
    /// 403: not signed by a log that we trust, or we no longer do.
    Untrusted(String),
    /// 404
    UnknownOrigin,
    /// 409: the size that was cosigned last.
    Conflict(u64),
    /// 422: it does not continue what was cosigned.
    Inconsistent(String),
    /// 503, with seconds.
    Later(u32, String),
    /// 500: for our log lines only.
    Failed(String),
}

/// Cosigns peers' checkpoints.
pub struct Witness {
    rooms: Arc<Rooms>,
    patience: Duration,
    seats: BTreeMap<String, Seat>,
    /// Peers were asked what was cosigned here.
    begun: watch::Sender<bool>,
}

/// One peer with our memory of it.
struct Seat {
    peer: Arc<Peer>,
    /// Held from the comparison to the answer. `None` until it was read. Another
    /// process on the store may know of more: what is built on it finds out.
    memory: Mutex<Option<Memory>>,
    /// Set once its predecessor, if it has one, was seen to be rightly followed.
    founded: OnceLock<()>,
}

impl std::fmt::Debug for Witness {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Witness").finish_non_exhaustive()
    }
}

impl Answer {
    pub fn status(&self) -> u16 {
        match self {
            Answer::Cosigned(_) => 200,
            Answer::Malformed(_) => 400,
            Answer::Untrusted(_) => 403,
            Answer::UnknownOrigin => 404,
            Answer::Conflict(_) => 409,
            Answer::Inconsistent(_) => 422,
            Answer::Later(..) => 503,
            Answer::Failed(_) => 500,
        }
    }
}

impl Witness {
    pub(super) fn new(
        peers: &[Arc<Peer>],
        rooms: Arc<Rooms>,
        patience: Duration,
        begun: watch::Sender<bool>,
    ) -> Witness {
        let seat = |peer: &Arc<Peer>| {
            let seat =
                Seat { peer: Arc::clone(peer), memory: Mutex::new(None), founded: OnceLock::new() };
            (peer.origin().to_owned(), seat)
        };
        let seats = peers.iter().map(seat).collect();
        Witness { rooms, patience, seats, begun }
    }

    pub fn peers(&self) -> impl Iterator<Item = &Arc<Peer>> {
        self.seats.values().map(|seat| &seat.peer)
    }

    /// `POST add-checkpoint`.
    pub async fn add_checkpoint(&self, body: &[u8]) -> Answer {
        let answer = match self.judge(body).await {
            Ok(answer) | Err(Refused::Answer(answer)) => answer,
            Err(Refused::Failed(error)) => Answer::Failed(with_sources(&error)),
        };
        let status = answer.status().to_string();
        self.rooms.metrics.requests.with_label_values(&[&status]).inc();
        answer
    }

    async fn judge(&self, body: &[u8]) -> Result<Answer, Refused> {
        let request = AddCheckpoint::parse(body)
            .map_err(|rejection| Answer::Malformed(rejection.to_string()))?;
        let checkpoint = request.checkpoint.checkpoint();
        // SPEC: "If the checkpoint origin is unknown, the witness MUST respond
        // with a 404", before it looks at the signatures.
        let seat = self.seats.get(&checkpoint.origin).ok_or(Answer::UnknownOrigin)?;
        // SPEC: 403 if no signature verifies against a trusted key, or one by a
        // trusted name and key ID fails.
        let verified = request.checkpoint.verify([seat.peer.key()]);
        if !verified.is_ok_and(|verified| !verified.is_empty()) {
            return Ok(Answer::Untrusted("not signed by this log's key".into()));
        }
        // SPEC: "old MUST be equal to or lower than the checkpoint size", else 400.
        if request.old > checkpoint.size {
            return Ok(Answer::Malformed("the old size is above the new one".into()));
        }
        self.check_against_memory(seat, &request, &mut *seat.memory.lock().await).await?;
        self.check_followed(seat, &request.checkpoint).await?;

        // From here on one at a time: compare, persist, sign.
        let mut memory = seat.memory.lock().await;
        let mut known = self.check_against_memory(seat, &request, &mut memory).await?;
        if !*self.begun.borrow() {
            let why = "this mirror asks its peers first what it signed before";
            return Ok(Answer::Later(SOON, why.into()));
        }
        if self.rooms.log.blocked().is_some_and(|blocked| blocked.doubts_memory()) {
            let why = "this mirror is not sure of what it signed before";
            return Ok(Answer::Later(LATER, why.into()));
        }
        for _ in 0..TRIES {
            // What was found meanwhile counts.
            if let Some(answer) = verdict(&seat.peer.standing()) {
                return Ok(answer);
            }
            if let Some(line) = self.cosign(seat, &request.checkpoint, &known, &mut memory).await? {
                return Ok(Answer::Cosigned(line));
            }
            *memory = None;
            known = self.check_against_memory(seat, &request, &mut memory).await?;
        }
        Ok(Answer::Later(SOON, OTHERS.into()))
    }

    /// The checks that rest on what was cosigned last, which they give.
    async fn check_against_memory(
        &self,
        seat: &Seat,
        request: &AddCheckpoint,
        memory: &mut Option<Memory>,
    ) -> Result<Memory, Refused> {
        let memory = match memory {
            Some(memory) if memory.size == request.old => memory,
            _ => memory.insert(self.remember(seat).await?),
        };
        let Checkpoint { size, root, .. } = request.checkpoint.checkpoint();
        // SPEC: "The witness MUST check that the old size matches the size of
        // the latest checkpoint it cosigned", 0 if none; else 409.
        if request.old != memory.size {
            return Err(Answer::Conflict(memory.size).into());
        }
        // SPEC: 422 for everything that the proof does not show. An empty tree
        // has one root; from it, and between equal trees, the proof is empty.
        if *size == 0 && *root != merkle::empty_root() {
            return Err(Answer::Inconsistent("an empty tree has another root".into()).into());
        }
        if let Err(rejection) = request.verify(&memory.root) {
            // It is signed: if the log has forked, following finds the proof.
            seat.peer.hint(request.checkpoint.clone());
            return Err(Answer::Inconsistent(rejection.message).into());
        }
        Ok(memory.clone())
    }

    /// The checks that make it more than a witness: replayed to this very tree,
    /// which ends with a directory root of about now.
    async fn check_followed(&self, seat: &Seat, signed: &SignedCheckpoint) -> Result<(), Refused> {
        if signed.checkpoint().size == 0 {
            return Ok(());
        }
        loop {
            let standing = self.wait(seat, signed).await?;
            match self.check_tree(seat, signed, &standing).await {
                // It was followed further meanwhile, and partial tiles went.
                Err(Refused::Failed(Error::Kept { .. }))
                    if seat.peer.standing().size != standing.size => {}
                checked => return checked,
            }
        }
    }

    /// The same with what was followed so far.
    async fn check_tree(
        &self,
        seat: &Seat,
        signed: &SignedCheckpoint,
        standing: &Standing,
    ) -> Result<(), Refused> {
        let Checkpoint { size, root, .. } = signed.checkpoint();
        let followed = match standing.size == *size {
            true => standing.root,
            false => seat.peer.archive().root_at(*size, standing.size).await?,
        };
        if followed != *root {
            seat.peer.hint(signed.clone());
            let why = "another tree was followed at this size";
            return Err(Answer::Inconsistent(why.into()).into());
        }
        let last = seat.peer.archive().entry(*size - 1, standing.size).await?;
        let entry = Entry::decode(&last).ok();
        let time = entry.filter(|entry| matches!(entry.kind, Kind::Root(_))).map(|e| e.time);
        let Some(time) = time else {
            return Err(Answer::Inconsistent("its last leaf is no directory root".into()).into());
        };
        let now = self.rooms.clock.now();
        if time.since(now).max(now.since(time)) > MAX_OFFSET {
            let why = format!("its directory root is of {time}, this clock says {now}");
            let after = if time < now { NEXT } else { LATER };
            return Err(Answer::Later(after, why).into());
        }
        self.check_succession(seat, standing.size).await
    }

    /// Where the log comes from, seen once.
    async fn check_succession(&self, seat: &Seat, followed: u64) -> Result<(), Refused> {
        if seat.founded.get().is_some() {
            return Ok(());
        }
        let first = seat.peer.archive().entry(0, followed).await?;
        let Ok(Entry { kind: Kind::Genesis(genesis), .. }) = Entry::decode(&first) else {
            return Err(Answer::Inconsistent("its first leaf is no genesis entry".into()).into());
        };
        let private = &self.rooms.log.store().private;
        match succession::check(private, &genesis).await? {
            Ok(()) => {
                let _ = seat.founded.set(());
                Ok(())
            }
            Err(why) => Err(Answer::Later(LATER, why).into()),
        }
    }

    /// Waits until the peer was followed so far.
    async fn wait(&self, seat: &Seat, signed: &SignedCheckpoint) -> Result<Standing, Refused> {
        let size = signed.checkpoint().size;
        let mut watch = seat.peer.watch();
        if watch.borrow().size < size {
            seat.peer.hint(signed.clone());
        }
        let settled = |standing: &Standing| standing.size >= size || verdict(standing).is_some();
        let waited = tokio::time::timeout(self.patience, watch.wait_for(settled)).await;
        drop(waited);
        let standing = seat.peer.standing();
        match verdict(&standing) {
            Some(answer) => Err(answer.into()),
            None if standing.size >= size => Ok(standing),
            None => {
                let why = format!("followed to {} so far: {}", standing.size, standing.status);
                Err(Answer::Later(SOON, why).into())
            }
        }
    }

    /// Persists and signs, in this order. `None` if another process on the store, or
    /// at the guard, has gone on from `known` meanwhile: then nothing is signed.
    async fn cosign(
        &self,
        seat: &Seat,
        signed: &SignedCheckpoint,
        known: &Memory,
        memory: &mut Option<Memory>,
    ) -> Result<Option<String>, Error> {
        let Checkpoint { origin, size, root, .. } = signed.checkpoint().clone();
        // Killed from here on: store and guard may be ahead of what was answered,
        // which the next request's 409 tells.
        if (known.size, known.root) != (size, root) {
            match known.followed_by(seat.peer.archive(), size, root).await? {
                Some(next) => *memory = Some(next),
                None => return Ok(None),
            }
        }
        let (guard, from) = (self.rooms.log.guard().clone(), (known.size, known.root));
        let moved =
            tokio::task::spawn_blocking(move || guard.cosigned(&origin, from, (size, root)))
                .await?
                .map_err(|source| Error::Guard { doing: "write to", source })?;
        if !moved {
            return Ok(None);
        }
        let now = self.rooms.clock.now();
        let line = signed.cosign(&self.rooms.cosigner, now);
        // For monitors: the log's own signature and ours, nobody else's.
        let mut note = signed.note().clone();
        for other in signed.note().signatures() {
            if !seat.peer.key().claims(other) {
                note.remove(other);
            }
        }
        note.replace(line.clone());
        seat.peer.archive().keep_cosigned(note.to_string().into()).await?;
        Ok(Some(format!("{line}\n")))
    }

    /// What was cosigned last, from all places. What the store does not know yet
    /// comes into it, so that every process on it does.
    async fn remember(&self, seat: &Seat) -> Result<Memory, Refused> {
        let archive = seat.peer.archive();
        let (guard, origin) = (self.rooms.log.guard().clone(), seat.peer.origin().to_owned());
        let marks = tokio::task::spawn_blocking(move || guard.read())
            .await
            .map_err(Error::from)?
            .map_err(|source| Error::Guard { doing: "read", source })?;
        let marked = marks.and_then(|marks| marks.cosigned.get(&origin).copied());
        let shown = match archive.cosigned().await? {
            Some(note) => {
                let kept = SignedCheckpoint::parse(&note)
                    .map_err(|rejection| Error::Kept { what: rejection.to_string() })?;
                Some((kept.checkpoint().size, kept.checkpoint().root))
            }
            None => None,
        };
        for _ in 0..TRIES {
            let memory = Memory::read(archive).await?;
            let newest = [marked, shown].into_iter().flatten().max();
            let is_other =
                newest.is_some_and(|(size, root)| size == memory.size && root != memory.root);
            seat.peer.set_doubt(is_other.then_some(TWO_TREES));
            if is_other {
                return Err(Answer::Later(LATER, TWO_TREES.into()).into());
            }
            let Some((size, root)) = newest else { return Ok(memory) };
            if size <= memory.size {
                return Ok(memory);
            }
            if let Some(memory) = memory.followed_by(archive, size, root).await? {
                return Ok(memory);
            }
        }
        Err(Answer::Later(SOON, OTHERS.into()).into())
    }

    /// `GET <SHA-256 of the origin>/checkpoint`: what we cosigned last of it.
    /// `None` if nothing, or for an origin that is no peer's.
    pub async fn cosigned(&self, sha256_of_origin: &Hash) -> Result<Option<Bytes>, Error> {
        match self.kept(sha256_of_origin) {
            Some(peer) => peer.archive().cosigned().await,
            None => Ok(None),
        }
    }

    /// From now on peers' checkpoints are cosigned, and ours are given to them.
    pub(super) fn begin(&self) {
        self.begun.send_replace(true);
    }

    /// What was cosigned last is read anew: it was raised in the guard.
    pub(super) async fn read_anew(&self) {
        for seat in self.seats.values() {
            *seat.memory.lock().await = None;
        }
    }

    fn kept(&self, sha256_of_origin: &Hash) -> Option<&Arc<Peer>> {
        self.peers().find(|peer| {
            let hash: Hash = Sha256::digest(peer.origin().as_bytes()).into();
            hash == *sha256_of_origin
        })
    }

    /// `GET <SHA-256 of the origin>/followed`: the newest checkpoint that was
    /// followed to its end. All that its tree holds is kept here.
    pub fn followed(&self, sha256_of_origin: &Hash) -> Option<Bytes> {
        let signed = self.kept(sha256_of_origin)?.standing().signed?;
        Some(signed.to_string().into())
    }

    /// `GET <SHA-256 of the origin>/cosigned-by/<SHA-256 of a key's name>`: the
    /// last checkpoint seen with that mirror's cosignature.
    pub async fn cosigned_by(
        &self,
        sha256_of_origin: &Hash,
        sha256_of_name: &Hash,
    ) -> Result<Option<Bytes>, Error> {
        match self.kept(sha256_of_origin) {
            Some(peer) => peer.archive().cosigned_by(sha256_of_name).await,
            None => Ok(None),
        }
    }

    /// `GET <SHA-256 of the origin>/tile/…`: of what was followed. `path` is one
    /// of tlog-tiles.
    pub async fn resource(
        &self,
        sha256_of_origin: &Hash,
        path: &str,
    ) -> Result<Option<Bytes>, Error> {
        match self.kept(sha256_of_origin) {
            Some(peer) => peer.archive().resource(path).await,
            None => Ok(None),
        }
    }

    /// `GET <SHA-256 of the origin>/v1/blob/<SHA-256>`: a blob that its entries
    /// name, unless this mirror's operator withdrew it.
    pub async fn blob(&self, sha256_of_origin: &Hash, sha256: &Hash) -> Result<PublicBlob, Error> {
        let Some(peer) = self.kept(sha256_of_origin) else { return Ok(PublicBlob::Missing) };
        if let PublicBlob::Withdrawn = self.rooms.log.reader().blob(sha256).await? {
            return Ok(PublicBlob::Withdrawn);
        }
        let found = peer.archive().blob(sha256).await?;
        Ok(found.map_or(PublicBlob::Missing, PublicBlob::Here))
    }

    /// Time of the newest directory root among the peers, 0 without one.
    pub fn newest_root(&self) -> Timestamp {
        self.peers().map(|peer| peer.standing().time).max().unwrap_or_default()
    }
}

/// The answer that a standing alone decides. A status comes and goes: what was
/// not judged in the entries themselves stays, whatever it says.
fn verdict(standing: &Standing) -> Option<Answer> {
    if let Status::Fault(words) = &standing.status {
        return Some(Answer::Untrusted(format!("no longer trusted: {words}")));
    }
    if let Some(unknown) = standing.unknown {
        let why = Condition::UnknownFormat(unknown.to_string()).to_string();
        return Some(Answer::Later(LATER, why));
    }
    match &standing.status {
        Status::Condition(condition @ Condition::UnknownFormat(_)) => {
            Some(Answer::Later(LATER, condition.to_string()))
        }
        _ if standing.carrying => {
            Some(Answer::Later(LATER, "labels of the log before are missing".into()))
        }
        _ => None,
    }
}

/// Why a request is not cosigned.
enum Refused {
    Answer(Answer),
    Failed(Error),
}

impl From<Answer> for Refused {
    fn from(answer: Answer) -> Refused {
        Refused::Answer(answer)
    }
}

impl From<Error> for Refused {
    fn from(error: Error) -> Refused {
        Refused::Failed(error)
    }
}
