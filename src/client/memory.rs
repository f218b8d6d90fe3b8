//! What logs have signed for this client: the largest checkpoint of each, kept
//! from one call to the next, so that no log can go back or show another past.
//!
//! One file for each log, `log-<64 hex digits>.json`, named by the SHA-256 of
//! the log's verifier key: `{"key","checkpoint","genesis"}`, the signed note as
//! text and entry 0 in base64. A file is written beside its name, synced, and
//! renamed; the folder is for its owner only. Whoever can write there can make
//! a log look forked, or its past forgotten.
//!
//! A smaller checkpoint that is a prefix of the kept one is older, no fault
//! (threat 28). One that cannot be shown to be either is not believed. What is
//! kept never changes for a fork: the log stays forked until its file is removed.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::follow::{self, Fork, LogSource, Relation};
use crate::dime::Rejection;
use crate::errors::with_sources;
use crate::proof::checkpoint::SignedCheckpoint;
use crate::proof::note::VerifierKey;

/// Longest kept file, bytes: a note and an entry.
const MAX_FILE: u64 = 256 * 1024;
/// How often a write is tried that another process gets in the way of.
const TRIES: usize = 5;

/// Why the memory is of no use. Our failure, or somebody wrote into it.
#[derive(Debug, thiserror::Error)]
pub enum MemoryError {
    #[error("there is no home folder to remember checkpoints in; name one")]
    Homeless,
    #[error("cannot use the memory of checkpoints at {path}")]
    Io { path: PathBuf, source: io::Error },
    #[error("{path} is no memory of this log: {rejection}")]
    Damaged { path: PathBuf, rejection: Rejection },
    #[error("{path} is changed by somebody else all the time")]
    Contended { path: PathBuf },
}

/// A folder of remembered checkpoints.
#[derive(Clone, Debug)]
pub struct Memory {
    folder: PathBuf,
}

/// What is kept of one log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Remembered {
    /// The largest that was accepted, as the log signed it.
    pub checkpoint: SignedCheckpoint,
    /// Entry 0.
    pub genesis: Bytes,
}

/// What a signed checkpoint is to what is remembered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Continuity {
    /// Nothing was known of this log; now this is.
    First,
    Same,
    /// It continues what is kept, and is kept now.
    Grown,
    /// A prefix of what is kept.
    Older,
    /// Two histories, both signed.
    Fork(Box<Fork>),
    /// Nobody showed that it continues what is kept; why.
    Unproved(String),
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Kept {
    key: String,
    checkpoint: String,
    genesis: String,
}

impl Memory {
    /// Opens a folder, which is made if it is not there.
    pub fn open(folder: impl Into<PathBuf>) -> Result<Memory, MemoryError> {
        let folder = folder.into();
        let made = DirBuilder::new().recursive(true).mode(0o700).create(&folder);
        made.map_err(|source| MemoryError::Io { path: folder.clone(), source })?;
        Ok(Memory { folder })
    }

    /// `$XDG_STATE_HOME/syndicate`, else `~/.local/state/syndicate`.
    pub fn default_folder() -> Result<PathBuf, MemoryError> {
        let absolute = |name: &str| {
            std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute())
        };
        absolute("XDG_STATE_HOME")
            .or_else(|| absolute("HOME").map(|home| home.join(".local/state")))
            .map(|state| state.join("syndicate"))
            .ok_or(MemoryError::Homeless)
    }

    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The file of one log.
    pub fn path(&self, key: &VerifierKey) -> PathBuf {
        let hash = Sha256::digest(key.to_string());
        self.folder.join(format!("log-{}.json", hex::encode(hash)))
    }

    /// What is kept of a log.
    pub fn recall(&self, key: &VerifierKey) -> Result<Option<Remembered>, MemoryError> {
        let path = self.path(key);
        let failed = |source| MemoryError::Io { path: path.clone(), source };
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(failed(error)),
        };
        let mut bytes = Vec::new();
        file.take(MAX_FILE + 1).read_to_end(&mut bytes).map_err(failed)?;
        match read(&bytes, key) {
            Ok(remembered) => Ok(Some(remembered)),
            Err(rejection) => Err(MemoryError::Damaged { path, rejection }),
        }
    }

    /// Keeps `new` if `before` is what is kept still; says whether it was. No
    /// other process comes between.
    fn keep(
        &self,
        key: &VerifierKey,
        before: Option<&Remembered>,
        new: &Remembered,
    ) -> Result<bool, MemoryError> {
        let failed = |source| MemoryError::Io { path: self.folder.clone(), source };
        let lock = self.folder.join("lock");
        let mut options = OpenOptions::new();
        let lock = options.create(true).truncate(false).write(true).mode(0o600).open(lock);
        let lock = lock.map_err(failed)?;
        lock.lock().map_err(failed)?;
        if self.recall(key)?.as_ref() != before {
            return Ok(false);
        }
        self.write(&self.path(key), &encode(new, key)).map_err(failed)?;
        Ok(true)
    }

    fn write(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        // Under the lock, so that nobody else writes beside it.
        let beside = path.with_extension("new");
        let mut options = OpenOptions::new();
        let mut file = options.create(true).truncate(true).write(true).mode(0o600).open(&beside)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&beside, path)?;
        // Killed here: the new file may or may not be the one found.
        File::open(&self.folder)?.sync_all()
    }

    /// Compares a checkpoint, whose signatures the caller has verified, with
    /// what is kept, and keeps it if it continues that. The log's tiles are
    /// fetched from `source` if the two differ.
    pub async fn hold(
        &self,
        source: &LogSource,
        checkpoint: &SignedCheckpoint,
        genesis: &Bytes,
    ) -> Result<Continuity, MemoryError> {
        let key = source.key();
        let new = Remembered { checkpoint: checkpoint.clone(), genesis: genesis.clone() };
        for _ in 0..TRIES {
            let before = self.on_disk(key, |memory, key| memory.recall(key)).await?;
            let outcome = match &before {
                None => Continuity::First,
                Some(before) if before.genesis != *genesis => {
                    let other = "it begins with another entry than before";
                    match relate(source, &before.checkpoint, checkpoint).await {
                        fork @ Continuity::Fork(_) => fork,
                        _ => Continuity::Unproved(other.to_owned()),
                    }
                }
                Some(before) => relate(source, &before.checkpoint, checkpoint).await,
            };
            if !matches!(outcome, Continuity::First | Continuity::Grown) {
                return Ok(outcome);
            }
            let new = new.clone();
            let keep = move |memory: &Memory, key: &_| memory.keep(key, before.as_ref(), &new);
            if self.on_disk(key, keep).await? {
                return Ok(outcome);
            }
        }
        Err(MemoryError::Contended { path: self.path(key) })
    }

    /// Files are slow; other tasks go on.
    async fn on_disk<T: Send + 'static>(
        &self,
        key: &VerifierKey,
        work: impl FnOnce(&Memory, &VerifierKey) -> Result<T, MemoryError> + Send + 'static,
    ) -> Result<T, MemoryError> {
        let (memory, key) = (self.clone(), key.clone());
        let done = tokio::task::spawn_blocking(move || work(&memory, &key)).await;
        done.unwrap_or_else(|lost| {
            let source = io::Error::other(lost);
            Err(MemoryError::Io { path: self.folder.clone(), source })
        })
    }
}

async fn relate(source: &LogSource, held: &SignedCheckpoint, new: &SignedCheckpoint) -> Continuity {
    match source.relate(held, new).await {
        Ok(Relation::Same) => Continuity::Same,
        Ok(Relation::Newer) => Continuity::Grown,
        Ok(Relation::Older) => Continuity::Older,
        Ok(Relation::Fork(fork)) => Continuity::Fork(fork),
        Err(error) => {
            let sizes = (new.checkpoint().size, held.checkpoint().size);
            Continuity::Unproved(match (error, sizes) {
                (follow::Error::Http(error), _) => with_sources(&error),
                (error, (new, held)) if new < held => {
                    format!("it has signed {held} entries before and now shows {new}: {error}")
                }
                (error, _) => error.to_string(),
            })
        }
    }
}

fn encode(new: &Remembered, key: &VerifierKey) -> Vec<u8> {
    let kept = Kept {
        key: key.to_string(),
        checkpoint: new.checkpoint.note().to_string(),
        genesis: STANDARD.encode(&new.genesis),
    };
    // Three strings always serialize.
    let mut bytes = serde_json::to_vec_pretty(&kept).unwrap_or_default();
    bytes.push(b'\n');
    bytes
}

fn read(bytes: &[u8], key: &VerifierKey) -> Result<Remembered, Rejection> {
    let refuse = |why: String| Rejection::new("memory", why);
    if bytes.len() as u64 > MAX_FILE {
        return Err(refuse("it is longer than 256 KiB".to_owned()));
    }
    let kept: Kept = serde_json::from_slice(bytes).map_err(|error| refuse(error.to_string()))?;
    if kept.key != key.to_string() {
        return Err(refuse("it is about another log".to_owned()));
    }
    let checkpoint = SignedCheckpoint::parse(kept.checkpoint.as_bytes())?;
    if checkpoint.verify([key])?.is_empty() || checkpoint.checkpoint().origin != key.name() {
        return Err(refuse("the log has not signed it".to_owned()));
    }
    let genesis = STANDARD.decode(&kept.genesis).map_err(|error| refuse(error.to_string()))?;
    Ok(Remembered { checkpoint, genesis: genesis.into() })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;
    use crate::dime::Timestamp;
    use crate::proof::checkpoint::Checkpoint;
    use crate::proof::note::SigningKey;

    fn signed(key: &SigningKey, size: u64, byte: u8) -> Remembered {
        let checkpoint = Checkpoint::new(key.name(), size, [byte; 32]).unwrap();
        let checkpoint = checkpoint.sign(key, Timestamp::from_secs(1_795_449_600)).unwrap();
        Remembered { checkpoint, genesis: Bytes::from_static(b"genesis") }
    }

    #[test]
    fn what_is_kept_comes_back_for_its_log_alone() {
        let place = tempfile::tempdir().unwrap();
        let memory = Memory::open(place.path().join("a/b")).unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(memory.folder()), 0o700);
        let [one, other] = ["log.example/1", "log.example/2"]
            .map(|name| SigningKey::ed25519(name, &[name.len() as u8; 32]).unwrap());
        let key = one.verifier();
        assert_eq!(memory.recall(&key).unwrap(), None);
        let (small, large) = (signed(&one, 7, 1), signed(&one, 9, 2));
        assert!(memory.keep(&key, None, &small).unwrap());
        assert_eq!(memory.recall(&key).unwrap().as_ref(), Some(&small));
        assert_eq!(mode(&memory.path(&key)), 0o600);
        assert_eq!(memory.recall(&other.verifier()).unwrap(), None);
        // Whoever compared with something else has to compare again.
        assert!(!memory.keep(&key, None, &large).unwrap());
        assert!(memory.keep(&key, Some(&small), &large).unwrap());
        assert_eq!(memory.recall(&key).unwrap(), Some(large));
    }

    #[test]
    fn what_the_log_has_not_signed_is_damage() {
        let place = tempfile::tempdir().unwrap();
        let memory = Memory::open(place.path()).unwrap();
        let [one, other] =
            [1, 2].map(|seed| SigningKey::ed25519("log.example/1", &[seed; 32]).unwrap());
        let key = one.verifier();
        let path = memory.path(&key);
        let good = encode(&signed(&one, 7, 1), &key);
        let text = String::from_utf8(good.clone()).unwrap();
        for bad in [
            encode(&signed(&other, 7, 1), &key),
            encode(&signed(&one, 7, 1), &other.verifier()),
            good[..good.len() / 2].to_vec(),
            text.replace("\\n7\\n", "\\n8\\n").into_bytes(),
            vec![b' '; MAX_FILE as usize + 1],
        ] {
            fs::write(&path, bad).unwrap();
            assert!(matches!(memory.recall(&key), Err(MemoryError::Damaged { .. })));
        }
        fs::write(&path, good).unwrap();
        assert!(memory.recall(&key).unwrap().is_some());
    }
}
