//! The end of the log in memory: what the next commit is built on, and the one
//! place where a commit is checked, ours or another's, before it counts.

use std::sync::Arc;

use bytes::Bytes;

use super::Error;
use super::chain::Step;
use super::commit::LogRecord;
use crate::directory::{self, Directory};
use crate::proof::Hash;
use crate::proof::merkle::leaf_hash;
use crate::proof::replay::{self, Change, EngineStop, Expected, MapEngine, Position, Replayer};
use crate::proof::tile::{BundleCoordinate, Edge, Tile, encode_bundle, new_bundles};

/// Entries in a full bundle.
const BUNDLE: u64 = 256;

/// A bundle and its bytes.
type Bundle = (BundleCoordinate, Bytes);

/// The log up to one commit.
#[derive(Clone, Debug)]
pub struct Tip {
    expected: Expected,
    /// The directory over all entries so far; its committed head is ours.
    pub map: Arc<Directory>,
    /// After the last directory root.
    pub position: Position,
    pub edge: Edge,
    /// Entries of the partial bundle, at most 255.
    bundle: Vec<Bytes>,
    /// Number of the next commit.
    pub next: u64,
    /// SHA-256 of the last commit; of the log record before commit 0.
    pub hash: Hash,
}

/// A tree that has grown by one batch, and everything that follows from it.
#[derive(Clone, Debug)]
pub struct Grown {
    position: Position,
    edge: Edge,
    bundle: Vec<Bytes>,
    /// Root of the tree.
    pub root: Hash,
    pub size: u64,
    /// The directory root that closes the batch.
    pub directory: replay::Batch,
    /// Number of the batch in the directory, to publish it by.
    pub map_batch: u64,
    pub tiles: Vec<Tile>,
    pub bundles: Vec<Bundle>,
}

/// A map whose batch was applied already, when its root was computed.
struct Applied<'a>(&'a Directory);

impl MapEngine for Applied<'_> {
    type Error = directory::Error;

    fn tip(&self, label: &crate::proof::Label) -> Option<replay::Tip> {
        self.0.tip(label)
    }

    fn apply(&mut self, _: &[Change]) -> Result<replay::Head, EngineStop<directory::Error>> {
        Ok(self.0.committed().into())
    }

    fn head(&self) -> replay::Head {
        self.0.committed().into()
    }
}

impl Tip {
    /// Before commit 0.
    pub fn empty(record: &LogRecord, hash: Hash, map: Arc<Directory>) -> Tip {
        let expected = Expected { origin: record.origin.clone(), log_key: record.log_key };
        let position = Replayer::new(expected.clone()).position();
        Tip { expected, map, position, edge: Edge::new(), bundle: Vec::new(), next: 0, hash }
    }

    /// At a position that a snapshot kept, with its map, edge and partial bundle.
    pub fn restored(
        record: &LogRecord,
        map: Arc<Directory>,
        position: Position,
        edge: Edge,
        bundle: Vec<Bytes>,
        next: u64,
        hash: Hash,
    ) -> Tip {
        let expected = Expected { origin: record.origin.clone(), log_key: record.log_key };
        Tip { expected, map, position, edge, bundle, next, hash }
    }

    /// Leaves.
    pub fn size(&self) -> u64 {
        self.position.size
    }

    /// What these entries, closed by their directory root, would make of the
    /// log. Every rule of `proof::replay` is checked; the map has been applied
    /// before and is only compared. Nothing is changed.
    pub fn grown_applied(&self, n: u64, entries: &[Bytes]) -> Result<Grown, Error> {
        self.grown(n, entries, &mut Applied(&self.map))
    }

    fn grown(
        &self,
        n: u64,
        entries: &[Bytes],
        map: &mut impl MapEngine<Error = directory::Error>,
    ) -> Result<Grown, Error> {
        let mut replayer = Replayer::resume(self.expected.clone(), self.position.clone());
        let mut closed = None;
        for (i, entry) in entries.iter().enumerate() {
            let batch = replayer.push(map, entry.clone()).map_err(|stop| match stop {
                replay::Stop::Fault(fault) => Error::Rule { n, fault },
                replay::Stop::Unknown(unknown) => Error::Unknown { n, unknown },
                replay::Stop::Engine(error) => Error::Directory(error),
            })?;
            if batch.is_some() && i + 1 != entries.len() {
                return Err(Error::broken(n, "entries behind the directory root"));
            }
            closed = batch;
        }
        let Some(directory) = closed else {
            return Err(Error::broken(n, "the last entry is not a directory root"));
        };
        let leaves: Vec<Hash> = entries.iter().map(|entry| leaf_hash(entry)).collect();
        let (edge, tiles) = self.edge.integrate(&leaves);
        let (bundle, bundles) = self.bundled(n, entries, edge.size())?;
        Ok(Grown {
            position: replayer.position(),
            root: edge.root(),
            size: edge.size(),
            edge,
            bundle,
            directory,
            map_batch: self.map.committed().batch,
            tiles,
            bundles,
        })
    }

    /// The bundles that are new with these entries, and the partial one after them.
    fn bundled(
        &self,
        n: u64,
        entries: &[Bytes],
        size: u64,
    ) -> Result<(Vec<Bytes>, Vec<Bundle>), Error> {
        let all: Vec<Bytes> = self.bundle.iter().chain(entries).cloned().collect();
        let start = self.size() - self.bundle.len() as u64;
        let mut bundles = Vec::new();
        for at in new_bundles(self.size(), size) {
            let from = at.index.saturating_mul(BUNDLE).saturating_sub(start) as usize;
            let part = all.get(from..from + usize::from(at.width));
            let part = part.ok_or_else(|| Error::broken(n, "a bundle reaches past its entries"))?;
            let bytes = encode_bundle(part).map_err(|error| Error::broken(n, error.to_string()))?;
            bundles.push((at, bytes.into()));
        }
        let keep = (size % BUNDLE) as usize;
        let rest = all.get(all.len().saturating_sub(keep)..).unwrap_or_default().to_vec();
        Ok((rest, bundles))
    }

    /// Checks a commit that lies in the store and goes on to it. On an error
    /// nothing has changed.
    pub fn follow(&mut self, step: &Step) -> Result<Grown, Error> {
        let n = step.commit.n;
        if n != self.next || step.commit.previous != self.hash {
            return Err(Error::broken(n, "it does not follow the commit before it"));
        }
        let before = self.map.committed().batch;
        let mut map: &Directory = &self.map;
        let grown = self
            .grown(n, &step.batch.entries, &mut map)
            .and_then(|grown| check(step, &grown).map(|()| grown));
        match grown {
            Ok(grown) => {
                self.accept(step, &grown);
                Ok(grown)
            }
            Err(error) => {
                self.map.rollback(before)?;
                Err(error)
            }
        }
    }

    /// Goes on to a commit that was checked, its map applied.
    pub fn accept(&mut self, step: &Step, grown: &Grown) {
        self.position = grown.position.clone();
        self.edge = grown.edge.clone();
        self.bundle = grown.bundle.clone();
        self.next = step.commit.n + 1;
        self.hash = step.hash;
    }
}

/// Whether a commit says what its entries make.
fn check(step: &Step, grown: &Grown) -> Result<(), Error> {
    let commit = &step.commit;
    let what = if commit.size != grown.size {
        "size"
    } else if commit.root != grown.root {
        "root"
    } else if commit.directory_root != grown.directory.root.root {
        "directory root"
    } else if commit.labels != grown.directory.root.labels {
        "number of labels"
    } else if commit.time != grown.directory.time {
        "time"
    } else {
        return Ok(());
    };
    Err(Error::broken(commit.n, format!("its {what} is not what its entries make")))
}
