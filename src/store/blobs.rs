//! Objects under names: the truth. Any `object_store` engine; a folder by default.
//!
//! Left out: what the objects mean. Names are in [`super::keys`].

use std::fmt;
use std::path::{Path as FilePath, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::stream::{BoxStream, StreamExt, TryStreamExt};
use object_store::local::LocalFileSystem;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::prefix::PrefixStore;
use object_store::{
    GetOptions, GetRange, ObjectMeta, ObjectStore, ObjectStoreExt, PutMode, PutPayload,
};

use super::Error;
use crate::dime::Timestamp;

/// How often [`Blobs::claim`] tries before it gives the outcome up as unknown.
const CLAIM_TRIES: u32 = 5;
/// Pause before the second try; it doubles each time.
const CLAIM_PAUSE: Duration = Duration::from_millis(50);

/// Objects in one place.
///
/// * Durability: a write that returned `Ok` survives a power cut. In a folder,
///   the file, its folder, and every folder made for it are fsynced first
///   (ext4 and XFS keep hard links and renames in order with that).
/// * Consistency: an object appears whole or not at all, and every later read
///   sees it. Of several [`Blobs::put_if_absent`] of one name exactly one
///   creates it; [`Blobs::probe`] finds stores that do not keep this promise.
/// * Concurrency: any number of tasks and processes. Cheap to clone.
///
/// An error of a write leaves the outcome unknown: the object may exist.
#[derive(Clone)]
pub struct Blobs {
    objects: Arc<dyn ObjectStore>,
    place: Arc<str>,
    folder: Option<Arc<FilePath>>,
}

/// The two places of one mirror: what everybody may read, and what nobody may.
#[derive(Clone, Debug)]
pub struct Store {
    pub public: Blobs,
    pub private: Blobs,
}

/// What a put-if-absent did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Created {
    /// The object was made by this call.
    Created,
    /// The store says that it was there already. It may have been made by an
    /// earlier attempt of this same call: [`Blobs::claim`] looks.
    Exists,
}

/// Who has a name that only one can have.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub enum Claim {
    /// The object holds our bytes, durably.
    Won,
    /// The object holds these bytes of somebody else.
    Lost(Bytes),
}

/// What the start-up probe found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Probe {
    /// Of two that create one name, one is refused: commits may live here.
    Fences,
    /// Both succeeded, or the later replaced the earlier: commits must not.
    Overwrites,
}

/// An object as a listing shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    pub key: String,
    /// Bytes.
    pub size: u64,
    pub modified: Timestamp,
}

impl fmt::Debug for Blobs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Blobs({})", self.place)
    }
}

impl Store {
    /// Two folders in `folder`: `public`, and `private` that only the owner may enter.
    pub fn folder(folder: &FilePath) -> Result<Store, Error> {
        Ok(Store {
            public: Blobs::folder(&folder.join("public"))?,
            private: Blobs::private_folder(&folder.join("private"))?,
        })
    }

    /// Two stores that end with the process.
    pub fn memory() -> Store {
        Store { public: Blobs::memory(), private: Blobs::memory() }
    }
}

impl Blobs {
    /// Objects in any engine. `place` names it in errors, such as `s3://bucket/prefix`.
    pub fn new(objects: Arc<dyn ObjectStore>, place: &str) -> Blobs {
        Blobs { objects, place: place.into(), folder: None }
    }

    /// Objects that end with the process.
    pub fn memory() -> Blobs {
        Blobs::new(Arc::new(InMemory::new()), "memory")
    }

    /// Files in a folder, which is made if it is missing.
    pub fn folder(folder: &FilePath) -> Result<Blobs, Error> {
        make_folder(folder, 0o755)?;
        Blobs::open_folder(folder)
    }

    /// Files in a folder that only its owner may enter (mode 0700).
    pub fn private_folder(folder: &FilePath) -> Result<Blobs, Error> {
        make_folder(folder, 0o700)?;
        Blobs::open_folder(folder)
    }

    fn open_folder(folder: &FilePath) -> Result<Blobs, Error> {
        let files = LocalFileSystem::new_with_prefix(folder).map_err(|source| Error::Object {
            doing: "open",
            key: ".".into(),
            place: folder.display().to_string(),
            source: source.into(),
        })?;
        Ok(Blobs {
            // False by default: without it nothing here would be durable.
            objects: Arc::new(files.with_fsync(true)),
            place: folder.display().to_string().into(),
            folder: Some(folder.into()),
        })
    }

    /// This place, its operations going through `wrap`: how tests break it.
    pub fn wrapped(
        &self,
        wrap: impl FnOnce(Arc<dyn ObjectStore>) -> Arc<dyn ObjectStore>,
    ) -> Blobs {
        Blobs { objects: wrap(self.objects.clone()), ..self.clone() }
    }

    /// The folder `prefix` of this place as a place of its own.
    pub fn below(&self, prefix: &str) -> Result<Blobs, Error> {
        let prefix = path(prefix)?;
        let folder = self.folder.as_ref().map(|folder| folder.join(prefix.as_ref()).into());
        Ok(Blobs {
            place: format!("{}/{prefix}", self.place).into(),
            folder,
            objects: Arc::new(PrefixStore::new(self.objects.clone(), prefix)),
        })
    }

    /// Where the objects are, for people.
    pub fn place(&self) -> &str {
        &self.place
    }

    fn fault(&self, doing: &'static str, key: &str, source: object_store::Error) -> Error {
        let (key, place) = (key.to_owned(), self.place.to_string());
        if is_unsynced(&source) {
            return Error::Unsynced { key, place, source: source.into() };
        }
        Error::Object { doing, key, place, source: source.into() }
    }

    async fn write(&self, key: &str, bytes: Bytes, mode: PutMode) -> Result<Created, Error> {
        match self.objects.put_opts(&path(key)?, PutPayload::from(bytes), mode.into()).await {
            Ok(_) => Ok(Created::Created),
            Err(object_store::Error::AlreadyExists { .. }) => Ok(Created::Exists),
            // Some engines answer a refused If-None-Match this way.
            Err(object_store::Error::Precondition { .. }) => Ok(Created::Exists),
            Err(source) => Err(self.fault("write", key, source)),
        }
    }

    /// Writes an object, replacing what was there. Only for the few objects
    /// that change, and for bytes that are the same whoever writes them.
    pub async fn overwrite(&self, key: &str, bytes: Bytes) -> Result<(), Error> {
        self.write(key, bytes, PutMode::Overwrite).await.map(drop)
    }

    /// Creates an object, or says that it exists. An error leaves it unknown
    /// whether it was created, and `Exists` may be this call's own retry:
    /// use [`Blobs::claim`] where that matters.
    pub async fn put_if_absent(&self, key: &str, bytes: Bytes) -> Result<Created, Error> {
        self.write(key, bytes, PutMode::Create).await
    }

    /// Creates an object of which only one writing may ever exist, and finds
    /// out who made it by reading. Idempotent: after an error, claim again with
    /// the same bytes. `limit` is for reading the other's bytes.
    ///
    /// # Errors
    /// Those of reading, or of five writes after none of which the object was
    /// there: the outcome is then unknown.
    pub async fn claim(&self, key: &str, bytes: Bytes, limit: u64) -> Result<Claim, Error> {
        let mut pause = CLAIM_PAUSE;
        let mut last = None;
        for attempt in 0..CLAIM_TRIES {
            if attempt > 0 {
                tokio::time::sleep(pause).await;
                pause *= 2;
            }
            match self.put_if_absent(key, bytes.clone()).await {
                Ok(Created::Created) => return Ok(Claim::Won),
                Err(error) if error.is_fatal() => return Err(error),
                Err(error) => last = Some(error),
                Ok(Created::Exists) => {}
            }
            // A store's own retry may have met its first attempt, and a failed
            // answer may hide a success: only the object itself tells.
            match self.get(key, limit).await? {
                Some(found) if found == bytes => {
                    self.settle(key).await?;
                    return Ok(Claim::Won);
                }
                Some(found) => {
                    self.settle(key).await?;
                    return Ok(Claim::Lost(found));
                }
                None => {}
            }
        }
        Err(last.unwrap_or_else(|| self.contradiction(key)))
    }

    /// The store says "exists" and "not found" of one object, again and again.
    fn contradiction(&self, key: &str) -> Error {
        let source = "it exists for writing and not for reading".into();
        self.fault("create", key, object_store::Error::Generic { store: "blobs", source })
    }

    /// Writes an object whose bytes follow from its name or from a commit. If
    /// it is there, it must hold the same bytes ([`Error::Differs`]).
    pub async fn put(&self, key: impl AsRef<str>, bytes: Bytes) -> Result<(), Error> {
        let key = key.as_ref();
        let limit = bytes.len() as u64;
        match self.claim(key, bytes, limit).await {
            Ok(Claim::Won) => Ok(()),
            Ok(Claim::Lost(_)) | Err(Error::TooLarge { .. }) => {
                Err(Error::Differs { key: key.to_owned(), place: self.place.to_string() })
            }
            Err(error) => Err(error),
        }
    }

    /// The whole object, if it exists and has at most `limit` bytes.
    pub async fn get(&self, key: &str, limit: u64) -> Result<Option<Bytes>, Error> {
        self.read(key, GetOptions::default(), limit).await
    }

    /// Bytes `start` to `end` (exclusive) of an object, fewer if it is shorter.
    pub async fn get_range(&self, key: &str, start: u64, end: u64) -> Result<Option<Bytes>, Error> {
        let range = Some(GetRange::Bounded(start..end));
        self.read(key, GetOptions { range, ..GetOptions::default() }, end.saturating_sub(start))
            .await
    }

    async fn read(
        &self,
        key: &str,
        options: GetOptions,
        limit: u64,
    ) -> Result<Option<Bytes>, Error> {
        let found = match self.objects.get_opts(&path(key)?, options).await {
            Ok(found) => found,
            Err(object_store::Error::NotFound { .. }) => return Ok(None),
            Err(source) => return Err(self.fault("read", key, source)),
        };
        let size = found.range.end.saturating_sub(found.range.start);
        if size > limit {
            let (key, place) = (key.to_owned(), self.place.to_string());
            return Err(Error::TooLarge { key, place, size, limit });
        }
        match found.bytes().await {
            Ok(bytes) => Ok(Some(bytes)),
            // Deleted between opening and reading.
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(source) => Err(self.fault("read", key, source)),
        }
    }

    /// Size and date of an object, if it exists.
    pub async fn head(&self, key: &str) -> Result<Option<Found>, Error> {
        match self.objects.head(&path(key)?).await {
            Ok(meta) => Ok(Some(found(meta))),
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(source) => Err(self.fault("look at", key, source)),
        }
    }

    /// All objects under a folder, as they come: in order from object stores,
    /// in no order from a folder. `prefix` is whole path segments.
    pub fn list(&self, prefix: &str) -> BoxStream<'static, Result<Found, Error>> {
        let blobs = self.clone();
        let prefix = prefix.trim_end_matches('/').to_owned();
        let start = match path(&prefix) {
            Ok(start) => start,
            Err(error) => return futures::stream::once(async { Err(error) }).boxed(),
        };
        self.objects
            .list(Some(&start))
            .map_ok(found)
            .map_err(move |source| blobs.fault("list", &prefix, source))
            .boxed()
    }

    /// All objects under a folder in order of their keys, if they are at most `limit`.
    pub async fn list_all(&self, prefix: &str, limit: usize) -> Result<Vec<Found>, Error> {
        let mut all = Vec::new();
        let mut listing = self.list(prefix);
        while let Some(next) = listing.try_next().await? {
            if all.len() == limit {
                let (prefix, place) = (prefix.to_owned(), self.place.to_string());
                return Err(Error::TooMany { prefix, place, limit });
            }
            all.push(next);
        }
        all.sort_by(|a: &Found, b: &Found| a.key.cmp(&b.key));
        Ok(all)
    }

    /// The names one level below a folder: of objects, and of folders.
    /// Meant for folders of bounded width.
    pub async fn names(&self, prefix: &str) -> Result<Vec<String>, Error> {
        let listed = self
            .objects
            .list_with_delimiter(Some(&path(prefix)?))
            .await
            .map_err(|source| self.fault("list", prefix, source))?;
        let mut names: Vec<String> = listed
            .common_prefixes
            .iter()
            .chain(listed.objects.iter().map(|object| &object.location))
            .filter_map(|location| location.filename().map(str::to_owned))
            .collect();
        names.sort();
        Ok(names)
    }

    /// Deletes an object; that it is missing already is no error. In a folder
    /// the deletion is durable, and a folder left empty goes too.
    pub async fn delete(&self, key: &str) -> Result<(), Error> {
        match self.objects.delete(&path(key)?).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => {}
            Err(source) => return Err(self.fault("delete", key, source)),
        }
        let Some(root) = self.folder.clone() else { return Ok(()) };
        let Some(parent) = root.join(key).parent().map(FilePath::to_path_buf) else {
            return Ok(());
        };
        self.blocking(key, move || {
            if parent.as_path() == &*root {
                return sync_folder(&parent);
            }
            // Only an empty folder can be removed, so a file that is just being
            // written stops this.
            match std::fs::remove_dir(&parent) {
                Ok(()) => parent.parent().map_or(Ok(()), sync_folder),
                Err(_) => sync_folder(&parent),
            }
        })
        .await
    }

    /// Makes an object that was found durable, whoever wrote it: in a folder
    /// its file and all folders above are fsynced. Object stores need nothing.
    pub async fn settle(&self, key: &str) -> Result<(), Error> {
        let Some(root) = self.folder.clone() else { return Ok(()) };
        let file = root.join(key);
        self.blocking(key, move || {
            std::fs::File::open(&file)?.sync_all()?;
            for folder in file.ancestors().skip(1) {
                sync_folder(folder)?;
                if folder == &*root {
                    break;
                }
            }
            Ok(())
        })
        .await
    }

    /// Runs a file operation where it may block; any failure is [`Error::Unsynced`].
    async fn blocking(
        &self,
        key: &str,
        operation: impl FnOnce() -> std::io::Result<()> + Send + 'static,
    ) -> Result<(), Error> {
        let outcome = tokio::task::spawn_blocking(operation).await;
        let unsynced = |source: Box<dyn std::error::Error + Send + Sync>| Error::Unsynced {
            key: key.to_owned(),
            place: self.place.to_string(),
            source,
        };
        match outcome {
            Ok(Ok(())) => Ok(()),
            // A folder or file that was deleted meanwhile needs no durability.
            Ok(Err(error)) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
            Ok(Err(error)) => Err(unsynced(error.into())),
            Err(error) => Err(unsynced(error.into())),
        }
    }

    /// Finds out whether put-if-absent refuses a second writer here: two
    /// concurrent creates of one new name under `prefix`, and a third later.
    /// Use the prefix of the real objects, since rules may differ by prefix.
    pub async fn probe(&self, prefix: &str) -> Result<Probe, Error> {
        let mut name = [0u8; 16];
        getrandom::fill(&mut name).map_err(|_| Error::Key { key: "random".into() })?;
        let key = format!("{prefix}/probe-{}", hex::encode(name));
        let (first, second) = tokio::join!(
            self.put_if_absent(&key, Bytes::from_static(b"first")),
            self.put_if_absent(&key, Bytes::from_static(b"second")),
        );
        let outcome = self.judge_probe(&key, first, second).await;
        // Left behind if this fails: small, and in nobody's way.
        let _ = self.delete(&key).await;
        outcome
    }

    async fn judge_probe(
        &self,
        key: &str,
        first: Result<Created, Error>,
        second: Result<Created, Error>,
    ) -> Result<Probe, Error> {
        // Exactly one must have been told that it created the object.
        let winner: &[u8] = match (first, second) {
            (Ok(Created::Created), Ok(Created::Created)) => return Ok(Probe::Overwrites),
            (Ok(Created::Created), Ok(Created::Exists)) => b"first",
            (Ok(Created::Exists), Ok(Created::Created)) => b"second",
            // A conflict refused the other: a legal answer of S3.
            (Ok(Created::Created), Err(_)) => b"first",
            (Err(_), Ok(Created::Created)) => b"second",
            (Err(error), _) | (_, Err(error)) => return Err(error),
            (Ok(Created::Exists), Ok(Created::Exists)) => return Err(self.contradiction(key)),
        };
        let third = self.put_if_absent(key, Bytes::from_static(b"third")).await?;
        let kept = self.get(key, 16).await?;
        let fences = third == Created::Exists && kept.as_deref() == Some(winner);
        Ok(if fences { Probe::Fences } else { Probe::Overwrites })
    }
}

/// A key as a path; refuses empty segments, dots and characters that would be encoded.
fn path(key: &str) -> Result<Path, Error> {
    match Path::parse(key) {
        Ok(path) if path.as_ref() == key => Ok(path),
        _ => Err(Error::Key { key: key.to_owned() }),
    }
}

fn found(meta: ObjectMeta) -> Found {
    Found {
        key: meta.location.as_ref().to_owned(),
        size: meta.size,
        modified: Timestamp::from_millis(
            u64::try_from(meta.last_modified.timestamp_millis()).unwrap_or(0),
        ),
    }
}

/// Whether a folder store's error means that a file was written and not synced.
/// Its error type is private, so the engine's own words are looked for, and a
/// hard link or rename that failed late counts too.
fn is_unsynced(error: &object_store::Error) -> bool {
    let object_store::Error::Generic { store: "LocalFileSystem", source } = error else {
        return false;
    };
    let text = source.to_string();
    ["Unable to sync", "Unable to rename", "Unable to copy file"]
        .iter()
        .any(|known| text.starts_with(known))
}

/// Makes a folder and, for a private one, takes everybody else's rights away.
fn make_folder(folder: &FilePath, mode: u32) -> Result<(), Error> {
    use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
    let fault = |doing: &'static str, source: std::io::Error| Error::Folder {
        doing,
        path: folder.display().to_string(),
        source,
    };
    let fresh: Vec<PathBuf> =
        folder.ancestors().take_while(|path| !path.exists()).map(PathBuf::from).collect();
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(mode)
        .create(folder)
        .map_err(|source| fault("make", source))?;
    for made in &fresh {
        if let Some(parent) = made.parent().filter(|parent| !parent.as_os_str().is_empty()) {
            sync_folder(parent).map_err(|source| fault("sync the folder above", source))?;
        }
    }
    if mode == 0o700 {
        let rights = std::fs::Permissions::from_mode(mode);
        std::fs::set_permissions(folder, rights).map_err(|source| fault("protect", source))?;
    }
    Ok(())
}

fn sync_folder(folder: &FilePath) -> std::io::Result<()> {
    std::fs::File::open(folder)?.sync_all()
}
