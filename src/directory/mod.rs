//! The verifiable map from label to the whole history of that label.
//!
//! A [`Directory`] holds, for every label, its newest version, the version in
//! force and the chain over all its entries, in a path-compressed binary trie
//! (`proof/map`). It is a deterministic function of the log: whoever applies
//! the same changes has the same root.
//!
//! Two heads: *committed* is the newest that was applied, *served* the newest
//! that was published. Proofs are always made at the served head, whatever has
//! been applied since: what a batch replaced is kept until it is published.
//!
//! Left out: entries, signatures, the VRF, and which entry follows which
//! (`proof::replay` holds those rules and drives this engine).

/// What one log entry does to the map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Change {
    pub label: [u8; 32],
    /// The version that this entry is; exactly one more than the label's last.
    pub version: u64,
    /// The version in force after it; 0 for none.
    pub current: u64,
    /// RFC 6962 leaf hash of the entry's bytes.
    pub leaf: [u8; 32],
}

/// What the map holds of one label.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LabelState {
    pub version: u64,
    /// The version in force; 0 for none.
    pub current: u64,
    pub chain: [u8; 32],
}

/// One state of the whole map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// Batches applied so far, this one included; counts from 0 at the empty
    /// map or at the snapshot.
    pub batch: u64,
    pub root: [u8; 32],
    pub labels: u64,
}

/// How a directory is run.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Threads for one large batch, 1 to 64.
    pub threads: usize,
    /// Changes applied but not yet published, at most.
    pub pending: u64,
    /// Publish every batch at once (replayers that serve no lookups).
    pub follow: bool,
}

/// Changes waiting for publication, at most: the default of [`Options::pending`].
pub const PENDING_CHANGES: u64 = 100_000;

/// Why a batch, a publication or a snapshot was not done.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("apply to label {}: version {found} where {expected} comes next", hex::encode(.label))]
    Version { label: [u8; 32], expected: u64, found: u64 },
    #[error("apply to label {}: current {current} above version {version}", hex::encode(.label))]
    Current { label: [u8; 32], version: u64, current: u64 },
    #[error("apply {batch} changes: {pending} wait for publication, at most {limit} may")]
    Pending { pending: u64, batch: u64, limit: u64 },
    #[error("apply: this map holds at most {0} labels and versions in one shard")]
    Full(u32),
    #[error("go to batch {asked}: kept are {first} to {last}")]
    Head { asked: u64, first: u64, last: u64 },
    #[error("read snapshot: {0}")]
    Snapshot(&'static str),
}

/// An answer about one label at the served head.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lookup {
    pub head: Head,
    /// None: the label is not in the map, and `proof` proves that.
    pub state: Option<LabelState>,
    pub proof: MapProof,
}

/// The path of a label, or where it leaves the tree. Becomes `proof::map`'s.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MapProof {
    /// From the leaf up: prefix length in bits, and hash of the other child.
    pub path: Vec<(u8, [u8; 32])>,
    pub end: MapEnd,
}

/// What stands where a label leaves the tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MapEnd {
    /// The label itself is there.
    Present,
    Empty,
    Leaf {
        label: [u8; 32],
        version: u64,
        chain: [u8; 32],
    },
    Inner {
        length: u8,
        prefix: [u8; 32],
        left: [u8; 32],
        right: [u8; 32],
    },
}

/// The map, shared between one writer and any number of readers.
#[derive(Debug)]
pub struct Directory {
    options: Options,
}

impl Directory {
    /// An empty map.
    pub fn new(options: Options) -> Directory {
        Directory { options }
    }

    /// Applies one batch, all of it or nothing, and gives the committed head.
    pub fn apply(&self, _changes: &[Change]) -> Result<Head, Error> {
        let _ = self.options;
        todo!()
    }

    /// Serves the head of `batch` from now on, and forgets what came before it.
    pub fn publish(&self, _batch: u64) -> Result<Head, Error> {
        todo!()
    }

    /// Takes back every batch after `batch`, which is not older than the served head.
    pub fn rollback(&self, _batch: u64) -> Result<Head, Error> {
        todo!()
    }

    pub fn committed(&self) -> Head {
        todo!()
    }

    pub fn served(&self) -> Head {
        todo!()
    }

    /// The label at the committed head.
    pub fn state(&self, _label: &[u8; 32]) -> Option<LabelState> {
        todo!()
    }

    /// The label at the served head, with its proof.
    pub fn lookup(&self, _label: &[u8; 32]) -> Lookup {
        todo!()
    }
}
