//! The other mirrors: their logs are followed and replayed here, and cosigned
//! if everything in them is right; ours is given to them to be cosigned.
//!
//! `follow` runs one task for each peer, `feeder` one for each that
//! cosigns us, and [`Witness`] answers `add-checkpoint`. A *fault* is proved by
//! the peer's own signature (two histories, a broken rule of a format we know):
//! it is kept, raised once, and ends cosigning until the operator clears it. The
//! evidence is judged first: where it convicts nobody by itself, all is replayed on
//! a new map, and only what is found again is raised, as our word. A *condition*
//! (stale, unreachable, over its quota, a newer format, bytes that are not served)
//! ends by itself and accuses nobody (threat 17).
//!
//! [`Recall`] asks them what they know of us, before anything is signed: what this
//! mirror's own memory may have lost (threat 12). Their clocks, taken together,
//! stop a mirror whose own is wrong (threat 14). `gossip` holds what each of them was
//! shown of the others' logs against what was followed here.
//!
//! [`crosscheck`] compares what two logs say about one name, and [`domains`] has
//! peers' domains looked at here.

pub mod archive;
pub mod ask;
mod clocks;
pub mod comparison;
pub mod crosscheck;
pub mod domains;
mod evidence;
mod feeder;
mod follow;
mod gossip;
mod memory;
mod metrics;
mod recall;
mod succession;
pub mod tally;
mod witness;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use sha2::{Digest as _, Sha256};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::client::follow::LogSource;
use crate::client::{HttpError, Site};
use crate::clock::Clock;
use crate::dime::{Rejection, Timestamp};
use crate::directory::{self, Directory, Place};
use crate::log::Log;
use crate::proof::Hash;
use crate::proof::checkpoint::SignedCheckpoint;
use crate::proof::dnssec::Anchor;
use crate::proof::incident::Incident;
use crate::proof::note::{SigningKey, VerifierKey};
use crate::proof::replay::Unknown;
use crate::store;
use archive::Archive;

pub use metrics::Metrics;
pub use recall::{Recall, known_to};
pub use witness::{Answer, Witness};

/// Between two looks at a peer's checkpoint, when it does not bring it itself.
pub const POLL: Duration = Duration::from_secs(10);
/// How long `add-checkpoint` waits until the peer was followed so far.
pub const PATIENCE: Duration = Duration::from_secs(2);
/// Of one label in a map, in memory or on disk.
pub const BYTES_PER_LABEL: u64 = 120;
/// Checkpoints that wait to be followed, of one peer; more are dropped, since
/// the newest is fetched anyway.
const HINTS: usize = 8;

/// Another mirror.
#[derive(Clone, Debug)]
pub struct Mirror {
    pub url: String,
    /// Its log's key; the name is the origin.
    pub log: VerifierKey,
    /// What it cosigns us with, if it does.
    pub cosigner: Option<VerifierKey>,
}

impl Mirror {
    /// Where it keeps what it followed of the log of this key.
    fn archive_of(&self, log: &VerifierKey) -> Result<LogSource, Error> {
        let folder = hex::encode(Sha256::digest(log.name().as_bytes()));
        let url = format!("{}/{folder}", self.url.trim_end_matches('/'));
        Ok(LogSource::new(&url, log.clone())?)
    }
}

/// A public C2SP witness, which does not replay.
#[derive(Clone, Debug)]
pub struct PublicWitness {
    pub url: String,
    pub key: VerifierKey,
    /// Requests a day that it takes, not 0.
    pub qpd: u32,
}

/// How the room is run.
#[derive(Clone, Debug)]
pub struct Options {
    pub mirrors: Vec<Mirror>,
    pub witnesses: Vec<PublicWitness>,
    /// Entries of one peer on one day, once its end was reached.
    pub entries_per_day: u64,
    pub poll: Duration,
    pub patience: Duration,
    /// Where the maps of the peers are.
    pub maps: Place,
    /// Keys of the DNS root that DNSSEC chains must lead to.
    pub anchors: Vec<Anchor>,
}

impl Options {
    pub fn new(anchors: Vec<Anchor>) -> Options {
        Options {
            mirrors: Vec::new(),
            witnesses: Vec::new(),
            entries_per_day: 200_000,
            poll: POLL,
            patience: PATIENCE,
            maps: Place::Memory,
            anchors,
        }
    }
}

/// What the room works with.
pub struct Rooms {
    pub log: Log,
    pub clock: Clock,
    /// Signs peers' checkpoints, and nothing else.
    pub cosigner: SigningKey,
    pub accuse: Arc<dyn Accuse>,
    /// Who hears of what peers log.
    pub heard: Vec<Arc<dyn Heard>>,
    pub metrics: Metrics,
}

/// Takes accusations.
#[async_trait]
pub trait Accuse: Send + Sync {
    /// Files what a peer's own signature convicts it of, durably. Called again
    /// after a failure or a restart.
    async fn accuse(&self, incident: &Incident) -> Result<(), String>;
}

/// Hears what peers log.
#[async_trait]
pub trait Heard: Send + Sync {
    /// Entries of a peer's log, from leaf `first` on: replayed, checked and
    /// kept. Called in order; after a crash perhaps not for the last ones.
    async fn heard(&self, origin: &str, first: u64, entries: &[Bytes]);
}

/// What a map takes, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MapRoom {
    /// Of the log that it is the map of.
    pub origin: String,
    pub bytes: u64,
    /// In a file, and in memory only as far as there is room.
    pub on_disk: bool,
}

/// How it stands with a peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Status {
    /// What is kept is being read.
    Starting,
    /// On the way to the end of its log.
    Behind,
    /// All of it was followed, and nothing is wrong.
    Good,
    Condition(Condition),
    /// In words; it stays until the operator clears it.
    Fault(String),
}

/// What keeps a peer from being cosigned and is no fault of honesty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Condition {
    Unreachable(String),
    /// Its answers are not those of the tree that it signed, or bytes that an
    /// entry names are not there.
    Unserved(String),
    /// An entry of a format that this version does not know: upgrade.
    UnknownFormat(String),
    OverQuota,
    /// Nothing new for more than an hour.
    Stale,
    /// DNSSEC chains lead to a root key that is not among ours.
    OtherAnchor,
    /// We failed: store, memory.
    Ours(String),
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Status::Starting => f.write_str("starting"),
            Status::Behind => f.write_str("behind"),
            Status::Good => f.write_str("good"),
            Status::Condition(condition) => condition.fmt(f),
            Status::Fault(words) => write!(f, "FAULT, {words}"),
        }
    }
}

impl fmt::Display for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Condition::Unreachable(why) => write!(f, "unreachable: {why}"),
            Condition::Unserved(what) => write!(f, "not served: {what}"),
            Condition::UnknownFormat(what) => write!(f, "upgrade this mirror: {what}"),
            Condition::OverQuota => f.write_str("over its quota of entries for today"),
            Condition::Stale => f.write_str("nothing new for more than an hour"),
            Condition::OtherAnchor => {
                f.write_str("its DNSSEC evidence leads to a root key that this mirror has not")
            }
            Condition::Ours(why) => write!(f, "this mirror failed: {why}"),
        }
    }
}

/// What went wrong in this room, on our side.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("the peers room could not use its store")]
    Store(#[from] store::Error),
    #[error("the peers room could not use a directory")]
    Directory(#[from] directory::Error),
    #[error("a peer cannot be asked")]
    Http(#[from] HttpError),
    #[error("a peer cannot be followed")]
    Follow(#[from] crate::client::follow::Error),
    /// What is kept of a peer cannot be read; it is followed anew.
    #[error("what is kept of a peer is damaged: {what}")]
    Kept { what: String },
    /// What seemed to be a peer's fault may be damage of our own.
    #[error("what was found in a peer's log is not proved, and is looked at anew: {what}")]
    Unproved { what: String },
    #[error("the log could not take a cosignature")]
    Log(#[from] crate::log::Error),
    #[error("could not {doing} the guard")]
    Guard {
        doing: &'static str,
        #[source]
        source: std::io::Error,
    },
    #[error("the key of {origin} cannot be used: {rejection}")]
    Key { origin: String, rejection: Rejection },
    #[error("the machine gives no random bytes")]
    Random,
    #[error("the own log is configured as a peer: {origin}")]
    Own { origin: String },
    #[error("a task of the peers room was cut off")]
    Task(#[from] tokio::task::JoinError),
}

/// How far a peer was followed.
#[derive(Clone, Debug)]
pub struct Standing {
    /// Entries replayed, with all that they name checked.
    pub size: u64,
    /// Of the tree over them.
    pub root: Hash,
    /// The largest checkpoint that was followed to its end.
    pub signed: Option<SignedCheckpoint>,
    /// Of its directory root.
    pub time: Timestamp,
    pub labels: u64,
    /// Labels of its predecessor are still being carried over.
    pub carrying: bool,
    /// The first of these entries whose format this version does not know. None
    /// of what comes behind it was judged.
    pub unknown: Option<Unknown>,
    /// Why nothing of it is cosigned, whatever its status: what was cosigned before
    /// contradicts itself here.
    pub doubt: Option<&'static str>,
    pub status: Status,
}

/// One peer, as its tasks and the witness share it.
#[derive(Debug)]
pub struct Peer {
    source: LogSource,
    archive: Archive,
    standing: watch::Sender<Standing>,
    hints: mpsc::Sender<SignedCheckpoint>,
    /// Its map; a fresh one while it is read back.
    map: std::sync::Mutex<Arc<Directory>>,
}

impl Peer {
    pub fn origin(&self) -> &str {
        self.source.origin()
    }

    pub fn key(&self) -> &VerifierKey {
        self.source.key()
    }

    pub fn source(&self) -> &LogSource {
        &self.source
    }

    /// What is kept of its log.
    pub fn archive(&self) -> &Archive {
        &self.archive
    }

    pub fn standing(&self) -> Standing {
        self.standing.borrow().clone()
    }

    /// Tells of every step.
    pub fn watch(&self) -> watch::Receiver<Standing> {
        self.standing.subscribe()
    }

    /// Its directory as replayed here.
    pub fn map(&self) -> Arc<Directory> {
        self.map.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone()
    }

    /// Has a signed checkpoint followed soon.
    fn hint(&self, signed: SignedCheckpoint) {
        let _ = self.hints.try_send(signed);
    }

    /// Shows that what was cosigned of it is in doubt, or is so no longer.
    fn set_doubt(&self, doubt: Option<&'static str>) {
        self.standing.send_if_modified(|standing| {
            let news = standing.doubt != doubt;
            if let Some(doubt) = doubt.filter(|_| news) {
                tracing::error!(peer = self.origin(), doubt, "a peer is not cosigned");
            }
            standing.doubt = doubt;
            news
        });
    }

    fn set_status(&self, status: Status) {
        self.standing.send_if_modified(|standing| {
            let news = standing.status != status;
            if news {
                let origin = self.origin();
                match &status {
                    Status::Fault(_) => tracing::error!(peer = origin, %status, "a peer"),
                    Status::Condition(_) => tracing::warn!(peer = origin, %status, "a peer"),
                    _ => tracing::debug!(peer = origin, %status, "a peer"),
                }
                standing.status = status;
            }
            news
        });
    }
}

/// All peers, not yet running.
pub struct Peers {
    peers: Vec<Arc<Peer>>,
    witness: Arc<Witness>,
    recall: Recall,
    followers: Vec<follow::Follower>,
    feeders: Vec<feeder::Feeder>,
    gossip: gossip::Gossip,
    maps: Place,
}

impl Peers {
    /// Makes the room; nothing is asked or read before [`Peers::run`].
    ///
    /// # Errors
    /// A URL that is none, the own log among the peers.
    pub fn new(options: Options, rooms: Rooms) -> Result<Peers, Error> {
        let origin = rooms.log.record().origin.clone();
        let (mut peers, mut followers, mut feeders) = (Vec::new(), Vec::new(), Vec::new());
        let rooms = Arc::new(rooms);
        let clocks = Arc::new(clocks::Clocks::new(options.mirrors.len()));
        let begun = watch::Sender::new(false);
        let mut gossip = gossip::Gossip::new(options.poll);
        for mirror in &options.mirrors {
            if *mirror.log.name() == origin {
                return Err(Error::Own { origin });
            }
            let (hints, hinted) = mpsc::channel(HINTS);
            let (size, root) = archive::nothing();
            let standing = Standing {
                size,
                root,
                signed: None,
                time: Timestamp::default(),
                labels: 0,
                carrying: false,
                unknown: None,
                doubt: None,
                status: Status::Starting,
            };
            let peer = Arc::new(Peer {
                source: LogSource::new(&mirror.url, mirror.log.clone())?,
                archive: Archive::new(&rooms.log.store().private, mirror.log.name())?,
                standing: watch::Sender::new(standing),
                hints,
                map: std::sync::Mutex::new(Arc::new(Directory::new(follow::map_options(
                    &options.maps,
                )))),
            });
            followers.push(follow::Follower::new(
                Arc::clone(&peer),
                Arc::clone(&rooms),
                options.clone(),
                hinted,
                gossip.about(&peer, &options.mirrors)?,
                Arc::clone(&clocks),
            ));
            if let Some(cosigner) = &mirror.cosigner {
                let site = Site::new(&mirror.url)?;
                let (rooms, begun) = (Arc::clone(&rooms), begun.subscribe());
                feeders.push(feeder::Feeder::new(site, cosigner.clone(), None, rooms, begun));
            }
            peers.push(peer);
        }
        for witness in &options.witnesses {
            let site = Site::new(&witness.url)?;
            let qpd = Some(witness.qpd.max(1));
            let (rooms, begun) = (Arc::clone(&rooms), begun.subscribe());
            feeders.push(feeder::Feeder::new(site, witness.key.clone(), qpd, rooms, begun));
        }
        rooms.metrics.follow(&peers);
        let witness = Arc::new(Witness::new(&peers, Arc::clone(&rooms), options.patience, begun));
        let recall = Recall::new(&options, rooms, Arc::clone(&witness))?;
        let maps = options.maps;
        Ok(Peers { peers, witness, recall, followers, feeders, gossip, maps })
    }

    /// Answers `add-checkpoint`.
    pub fn witness(&self) -> &Arc<Witness> {
        &self.witness
    }

    pub fn peers(&self) -> &[Arc<Peer>] {
        &self.peers
    }

    /// What is to run before the sequencer does.
    pub fn recall(&self) -> Recall {
        self.recall.clone()
    }

    /// What the maps take: the own one, always in memory, and each peer's as it
    /// was left (threat 26).
    pub async fn room(&self, log: &Log) -> Vec<MapRoom> {
        let room = |origin: &str, labels: u64, on_disk| {
            let bytes = labels * BYTES_PER_LABEL;
            MapRoom { origin: origin.to_owned(), bytes, on_disk }
        };
        let mut all = vec![room(&log.record().origin, log.directory().committed().labels, false)];
        let on_disk = self.maps != Place::Memory;
        for peer in &self.peers {
            // What cannot be read is followed anew, and is small at first.
            let kept = peer.archive.kept().await.ok().flatten().unwrap_or_default();
            all.push(room(peer.origin(), kept.labels, on_disk));
        }
        all
    }

    /// Follows and feeds until told to stop.
    ///
    /// # Errors
    /// None that a peer can cause; a panic of a task.
    pub async fn run(self, shutdown: CancellationToken) -> Result<(), Error> {
        let mut tasks = JoinSet::new();
        for follower in self.followers {
            let shutdown = shutdown.clone();
            tasks.spawn(follower.run(shutdown));
        }
        for feeder in self.feeders {
            let shutdown = shutdown.clone();
            tasks.spawn(feeder.run(shutdown));
        }
        tasks.spawn(self.gossip.run(shutdown.clone()));
        tasks.spawn(async move { shutdown.cancelled().await });
        while let Some(ended) = tasks.join_next().await {
            ended?;
        }
        Ok(())
    }
}
