//! [`State`] in a folder, by `sled` 0.34.7.
//!
//! `sled` loses writes in a power cut, and can panic on a damaged folder. So
//! nothing in it is the truth, and [`Sled::open`] reads every row once, on a
//! thread whose panic is caught, unless it was closed in order and its files are
//! as they were then: what it returns is either usable or [`Error::Damaged`], and
//! then [`set_aside`] makes room for a new one. A panic in a later operation is
//! caught too and is the same error, and the next opening reads every row. What is
//! not caught: a failed allocation, which ends the process; the next start would
//! meet it again, and the folder must then be moved by hand.
//!
//! On disk: `sled`'s own files in the folder, and beside it `<folder>.lock`,
//! whose lock is held while the state is open, and `<folder>.clean` while it is
//! closed in order. One tree; a row's key is the number of its table, one byte,
//! and then its key.

use std::fs::{File, TryLockError};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use async_trait::async_trait;

use super::state::{Applied, Batch, MAX_SCAN, REWRITE, Range, Row, State, Table, check_batch};
use super::{Error, clean};

/// Bytes of pages that the engine keeps in memory.
const CACHE: u64 = 64 << 20;
/// The engine writes out by itself this often, milliseconds.
const FLUSH_EVERY: u64 = 1000;
/// Writes and expectations of a batch that is applied at once.
const SHORT: usize = 8;
/// Rows of a scan that is made at once, at most.
const SHORT_SCAN: usize = 64;
/// How often the engine's own lock is tried, and the pause between two tries.
const LOCK_TRIES: usize = 500;
const LOCK_PAUSE: Duration = Duration::from_millis(10);

/// The embedded engine. Cheap to clone; closed when the last clone goes.
#[derive(Clone)]
pub struct Sled(Arc<Inner>);

struct Inner {
    db: ::sled::Db,
    /// Shared by scans and reads, alone for batches: no read sees half a batch.
    turn: RwLock<()>,
    /// Dropped after `db`.
    closing: Closing,
}

/// Says that the folder was closed in order, if it was.
struct Closing {
    folder: PathBuf,
    /// All that was applied is in the files, as far as we know.
    is_whole: AtomicBool,
    /// Held for its lock.
    _lock: File,
}

impl Drop for Inner {
    fn drop(&mut self) {
        let flushed = catch_unwind(AssertUnwindSafe(|| self.db.flush()));
        if !matches!(flushed, Ok(Ok(_))) {
            self.closing.is_whole.store(false, Ordering::Relaxed);
        }
    }
}

impl Drop for Closing {
    fn drop(&mut self) {
        if !self.is_whole.load(Ordering::Relaxed) || std::thread::panicking() {
            return;
        }
        if let Err(error) = clean::say(&self.folder, &beside(&self.folder, "clean")) {
            tracing::warn!(%error, "the next start reads the whole index");
        }
    }
}

impl Sled {
    /// Opens the state in `folder` (made if missing), reads every row unless it
    /// was closed in order, and says what it found. Blocks while it reads: some
    /// ten seconds a million rows, else less than one.
    ///
    /// # Errors
    /// [`Error::InUse`]: another process, or this one, has it open.
    /// [`Error::Damaged`]: it cannot be read; [`set_aside`] it and rebuild.
    pub fn open(folder: &Path) -> Result<Sled, Error> {
        let lock = lock(folder)?;
        settle(folder)?;
        let was_closed =
            clean::take(folder, &beside(folder, "clean")).map_err(|source| Error::Folder {
                doing: "remove the word beside",
                path: folder.display().to_string(),
                source,
            })?;
        let target = folder.to_path_buf();
        let opened = std::thread::Builder::new()
            .name("state-open".into())
            .spawn(move || if was_closed { engine(&target) } else { open_and_read(&target) })
            .map_err(|error| Error::State {
                doing: "start a thread to open",
                source: error.into(),
            })?
            .join();
        let db = match opened {
            Ok(outcome) => outcome.map_err(|error| classify("open", folder, error))?,
            Err(panic) => return Err(damaged(folder, panic_text(panic.as_ref()))),
        };
        let is_whole = AtomicBool::new(true);
        let closing = Closing { folder: folder.to_path_buf(), is_whole, _lock: lock };
        Ok(Sled(Arc::new(Inner { db, turn: RwLock::new(()), closing })))
    }

    /// Opens the state in `folder`; one that is damaged is set aside and a new,
    /// empty one is opened, to be filled by whoever can rebuild it.
    pub fn open_or_new(folder: &Path) -> Result<Sled, Error> {
        match Sled::open(folder) {
            Err(error) if error.is_damage() => {
                let aside = set_aside(folder)?;
                tracing::warn!(%error, aside = %aside.display(), "set a damaged state aside");
                Sled::open(folder)
            }
            other => other,
        }
    }

    /// The same here and now, if nobody is in the way: a few microseconds, since
    /// pages are in memory most of the time and writes go to a buffer. To wake
    /// another thread and be woken by it costs many times that, and a visit
    /// reads and writes a dozen rows. `None`: take [`Sled::run`].
    fn run_now<T>(
        &self,
        doing: &'static str,
        operation: impl FnOnce(&Inner) -> Option<::sled::Result<T>>,
    ) -> Option<Result<T, Error>> {
        match catch_unwind(AssertUnwindSafe(|| operation(&self.0))) {
            Ok(outcome) => outcome.map(|done| done.map_err(|error| self.failed(doing, error))),
            Err(panic) => Some(Err(self.panicked(panic.as_ref()))),
        }
    }

    /// Runs one engine operation on a thread that may block, its panic caught.
    async fn run<T: Send + 'static>(
        &self,
        doing: &'static str,
        operation: impl FnOnce(&Inner) -> ::sled::Result<T> + Send + 'static,
    ) -> Result<T, Error> {
        let inner = self.0.clone();
        let outcome = tokio::task::spawn_blocking(move || {
            catch_unwind(AssertUnwindSafe(|| operation(&inner)))
        })
        .await;
        match outcome {
            Ok(Ok(Ok(value))) => Ok(value),
            Ok(Ok(Err(error))) => Err(self.failed(doing, error)),
            Ok(Err(panic)) => Err(self.panicked(panic.as_ref())),
            Err(error) => Err(Error::State { doing, source: error.into() }),
        }
    }

    fn failed(&self, doing: &'static str, error: ::sled::Error) -> Error {
        self.0.closing.is_whole.store(false, Ordering::Relaxed);
        classify(doing, &self.0.closing.folder, error)
    }

    fn panicked(&self, panic: &(dyn std::any::Any + Send)) -> Error {
        self.0.closing.is_whole.store(false, Ordering::Relaxed);
        damaged(&self.0.closing.folder, panic_text(panic))
    }
}

#[async_trait]
impl State for Sled {
    async fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, Error> {
        let key = row_key(table, key);
        let now = self.run_now("read", |inner| {
            let _turn = inner.turn.try_read().ok()?;
            Some(inner.db.get(&key).map(|found| found.map(|value| value.to_vec())))
        });
        if let Some(read) = now {
            return read;
        }
        self.run("read", move |inner| {
            let _turn = inner.turn.read().unwrap_or_else(PoisonError::into_inner);
            Ok(inner.db.get(key)?.map(|value| value.to_vec()))
        })
        .await
    }

    async fn scan(&self, table: Table, range: Range, limit: usize) -> Result<Vec<Row>, Error> {
        let start = row_key(table, &range.start);
        let end = match &range.end {
            Some(end) => row_key(table, end),
            None => vec![number(table) + 1],
        };
        if start >= end {
            return Ok(Vec::new());
        }
        let limit = limit.min(MAX_SCAN);
        if limit <= SHORT_SCAN {
            let now = self.run_now("scan", |inner| {
                let _turn = inner.turn.try_read().ok()?;
                Some(rows(&inner.db, &start, &end, limit))
            });
            if let Some(scanned) = now {
                return scanned;
            }
        }
        self.run("scan", move |inner| {
            let _turn = inner.turn.read().unwrap_or_else(PoisonError::into_inner);
            rows(&inner.db, &start, &end, limit)
        })
        .await
    }

    async fn apply(&self, batch: Batch) -> Result<Applied, Error> {
        check_batch(&batch)?;
        if batch.writes.len() + batch.expectations.len() <= SHORT {
            let now = self.run_now("write to", |inner| {
                let _turn = inner.turn.try_write().ok()?;
                Some(apply(&inner.db, &batch))
            });
            if let Some(applied) = now {
                return applied;
            }
        }
        self.run("write to", move |inner| {
            let _turn = inner.turn.write().unwrap_or_else(PoisonError::into_inner);
            apply(&inner.db, &batch)
        })
        .await
    }

    /// The folder is locked to one process.
    fn is_shared(&self) -> bool {
        false
    }

    async fn flush(&self) -> Result<(), Error> {
        self.run("flush", |inner| inner.db.flush().map(drop)).await
    }
}

/// Whoever calls has the turn to read.
fn rows(db: &::sled::Db, start: &[u8], end: &[u8], limit: usize) -> ::sled::Result<Vec<Row>> {
    let bare = |(key, value): (::sled::IVec, ::sled::IVec)| {
        (key.get(1..).unwrap_or_default().to_vec(), value.to_vec())
    };
    db.range(start..end).take(limit).map(|row| row.map(bare)).collect()
}

/// Whoever calls has the turn to write.
fn apply(db: &::sled::Db, batch: &Batch) -> ::sled::Result<Applied> {
    for (table, key, expected) in &batch.expectations {
        if db.get(row_key(*table, key))?.as_deref() != expected.as_deref() {
            return Ok(Applied::Conflict);
        }
    }
    let mut writes = ::sled::Batch::default();
    for (table, key, value) in &batch.writes {
        match value {
            Some(value) => writes.insert(row_key(*table, key), value.as_slice()),
            None => writes.remove(row_key(*table, key)),
        }
    }
    db.apply_batch(writes)?;
    Ok(Applied::Applied)
}

/// Copies every row into new files and deletes the old ones, which keep the
/// bytes of deleted rows, and a state that was set aside. The copy lacks the
/// [`REWRITE`] row. Blocks: about as long as two openings.
///
/// # Errors
/// As [`Sled::open`]; the old files are then still there, or complete new ones.
pub fn rewrite(folder: &Path) -> Result<(), Error> {
    let _lock = lock(folder)?;
    let (fresh, old) = (beside(folder, "new"), beside(folder, "old"));
    remove(&fresh)?;
    let (from, to) = (folder.to_path_buf(), fresh.clone());
    let copied = std::thread::Builder::new()
        .name("state-copy".into())
        .spawn(move || copy(&from, &to))
        .map_err(|error| Error::State { doing: "start a thread to copy", source: error.into() })?
        .join();
    match copied {
        Ok(outcome) => outcome.map_err(|error| classify("copy", folder, error))?,
        Err(panic) => return Err(damaged(folder, panic_text(panic.as_ref()))),
    }
    remove(&old)?;
    let fault =
        |source| Error::Folder { doing: "replace", path: folder.display().to_string(), source };
    std::fs::rename(folder, &old).map_err(fault)?;
    // Killed here: the next opening finishes it.
    std::fs::rename(&fresh, folder).map_err(fault)?;
    remove(&old)?;
    remove(&beside(folder, "damaged"))
}

fn copy(from: &Path, to: &Path) -> ::sled::Result<()> {
    let (from, to) = (open_and_read(from)?, open_and_read(to)?);
    let mark = row_key(Table::Meta, REWRITE);
    for row in from.iter() {
        let (key, value) = row?;
        if key != mark {
            to.insert(key, value)?;
        }
    }
    to.flush().map(drop)
}

/// Finishes a [`rewrite`] that was cut off.
fn settle(folder: &Path) -> Result<(), Error> {
    let (fresh, old) = (beside(folder, "new"), beside(folder, "old"));
    if !folder.exists() && old.exists() && fresh.exists() {
        let path = folder.display().to_string();
        std::fs::rename(&fresh, folder).map_err(|source| Error::Folder {
            doing: "replace",
            path,
            source,
        })?;
    }
    remove(&old)?;
    remove(&fresh)
}

/// Deletes a folder, or a file in its place; none is fine.
fn remove(path: &Path) -> Result<(), Error> {
    let removed =
        if path.is_dir() { std::fs::remove_dir_all(path) } else { std::fs::remove_file(path) };
    match removed {
        Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
            Err(Error::Folder { doing: "delete", path: path.display().to_string(), source })
        }
        _ => Ok(()),
    }
}

/// Moves a damaged state away, to `<folder>.damaged`, so that a new one can be
/// opened; an older one there is deleted. The caller rebuilds.
pub fn set_aside(folder: &Path) -> Result<PathBuf, Error> {
    let _lock = lock(folder)?;
    let aside = beside(folder, "damaged");
    let fault = |doing: &'static str, source| Error::Folder {
        doing,
        path: folder.display().to_string(),
        source,
    };
    let gone = |error: &std::io::Error| error.kind() == std::io::ErrorKind::NotFound;
    remove(&aside)?;
    match std::fs::rename(folder, &aside) {
        Err(error) if !gone(&error) => Err(fault("set aside", error)),
        _ => Ok(aside),
    }
}

/// Whoever calls holds our lock. The engine's is then held by a thread of an
/// engine that was closed in this process, for as long as its last write takes.
fn engine(folder: &Path) -> ::sled::Result<::sled::Db> {
    let config = ::sled::Config::new().path(folder).cache_capacity(CACHE);
    let config = config.flush_every_ms(Some(FLUSH_EVERY));
    for _ in 0..LOCK_TRIES {
        match config.open() {
            Err(::sled::Error::Io(error)) if is_locked(&error) => std::thread::sleep(LOCK_PAUSE),
            opened => return opened,
        }
    }
    config.open()
}

/// The engine's word for that its lock is taken.
fn is_locked(error: &std::io::Error) -> bool {
    error.to_string().contains("could not acquire lock")
}

/// Opens, and reads every row: damage shows on first read, not only on open.
fn open_and_read(folder: &Path) -> ::sled::Result<::sled::Db> {
    let db = engine(folder)?;
    for row in db.iter() {
        row?;
    }
    Ok(db)
}

/// Takes the lock beside the folder. `sled` has one too, whose refusal looks
/// like any other failed read.
fn lock(folder: &Path) -> Result<File, Error> {
    let path = beside(folder, "lock");
    let fault = |source| Error::Folder { doing: "lock", path: path.display().to_string(), source };
    if let Some(parent) = folder.parent() {
        std::fs::create_dir_all(parent).map_err(fault)?;
    }
    let file = File::options().create(true).append(true).open(&path).map_err(fault)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(Error::InUse { path: folder.display().to_string() }),
        Err(TryLockError::Error(source)) => Err(fault(source)),
    }
}

fn beside(folder: &Path, suffix: &str) -> PathBuf {
    let mut name = folder.as_os_str().to_owned();
    name.push(".");
    name.push(suffix);
    name.into()
}

fn number(table: Table) -> u8 {
    // At most a handful of tables; the order of declaration is their number.
    Table::ALL.iter().position(|known| *known == table).map_or(0xfe, |at| at as u8)
}

fn row_key(table: Table, key: &[u8]) -> Vec<u8> {
    let mut row = Vec::with_capacity(key.len() + 1);
    row.push(number(table));
    row.extend_from_slice(key);
    row
}

fn damaged(folder: &Path, message: String) -> Error {
    Error::Damaged { path: folder.display().to_string(), message }
}

fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    panic
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| panic.downcast_ref::<&str>().copied())
        .map_or_else(|| "the engine panicked".into(), |text| format!("the engine panicked: {text}"))
}

/// Damage, unless it is plainly the operating system that refuses.
fn classify(doing: &'static str, folder: &Path, error: ::sled::Error) -> Error {
    use std::io::ErrorKind;
    match error {
        ::sled::Error::Io(io) => match io.kind() {
            ErrorKind::PermissionDenied
            | ErrorKind::StorageFull
            | ErrorKind::QuotaExceeded
            | ErrorKind::ReadOnlyFilesystem
            | ErrorKind::Interrupted
            | ErrorKind::OutOfMemory => Error::State { doing, source: io.into() },
            _ if is_locked(&io) => Error::InUse { path: folder.display().to_string() },
            _ => damaged(folder, io.to_string()),
        },
        other => damaged(folder, other.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::testing;

    #[tokio::test]
    async fn keeps_the_contract() {
        let folder = tempfile::tempdir().unwrap();
        testing::state_contract(&Sled::open(&folder.path().join("state")).unwrap()).await;
    }

    #[tokio::test]
    async fn reopens_with_what_was_flushed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state");
        let state = Sled::open(&path).unwrap();
        let mut batch = Batch::new();
        batch.put(Table::Meta, "indexed", "7");
        assert_eq!(state.apply(batch).await.unwrap(), Applied::Applied);
        state.flush().await.unwrap();
        drop(state);
        let again = Sled::open(&path).unwrap();
        assert_eq!(again.get(Table::Meta, b"indexed").await.unwrap(), Some(b"7".to_vec()));
    }

    /// Whether the next opening would read every row.
    fn is_said(folder: &Path) -> bool {
        beside(folder, "clean").exists()
    }

    #[tokio::test]
    async fn only_what_was_closed_in_order_is_believed_unread() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state");
        let state = Sled::open(&path).unwrap();
        let mut batch = Batch::new();
        for row in 0..2000u32 {
            batch.put(Table::Users, row.to_be_bytes(), vec![row as u8; 300]);
        }
        assert_eq!(state.apply(batch).await.unwrap(), Applied::Applied);
        assert!(!is_said(&path), "it is open");
        drop(state);
        assert!(is_said(&path));
        // The engine takes stock of its log when it opens it.
        drop(Sled::open(&path).unwrap());
        assert!(is_said(&path));

        // Damage that only reading finds: the word is for other files.
        let db = path.join("db");
        let mut bytes = std::fs::read(&db).unwrap();
        let from = bytes.len() / 8;
        bytes[from..].iter_mut().for_each(|byte| *byte ^= 0x5a);
        std::fs::write(&db, &bytes).unwrap();
        assert!(Sled::open(&path).is_err_and(|error| error.is_damage()));
        assert!(!is_said(&path));

        // With a word that holds it is met by whoever reads, as an error; and
        // then there is no word.
        clean::say(&path, &beside(&path, "clean")).unwrap();
        match Sled::open(&path) {
            Ok(state) => {
                assert!(state.scan(Table::Users, Range::all(), 10_000).await.is_err());
                drop(state);
            }
            Err(error) => assert!(error.is_damage(), "{error}"),
        }
        assert!(!is_said(&path));
    }

    #[tokio::test]
    async fn what_was_deleted_is_in_no_file_of_the_rewritten_one() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state");
        let state = Sled::open(&path).unwrap();
        let mut batch = Batch::new();
        batch.put(Table::Users, "gone", "quetzalcoatl");
        batch.put(Table::Users, "stays", "montezuma");
        batch.put(Table::Meta, REWRITE, "1");
        assert_eq!(state.apply(batch).await.unwrap(), Applied::Applied);
        state.flush().await.unwrap();
        let mut batch = Batch::new();
        batch.delete(Table::Users, "gone");
        assert_eq!(state.apply(batch).await.unwrap(), Applied::Applied);
        drop(state);
        std::fs::create_dir(beside(&path, "damaged")).unwrap();
        std::fs::write(beside(&path, "damaged").join("db"), "quetzalcoatl").unwrap();
        assert!(holds(folder.path(), b"quetzalcoatl"), "else this test tests nothing");
        rewrite(&path).unwrap();
        assert!(!holds(folder.path(), b"quetzalcoatl"));
        let state = Sled::open(&path).unwrap();
        assert_eq!(state.get(Table::Users, b"stays").await.unwrap(), Some(b"montezuma".to_vec()));
        assert_eq!(state.get(Table::Meta, REWRITE).await.unwrap(), None);
        drop(state);

        // Cut off between its two renames.
        std::fs::rename(&path, beside(&path, "new")).unwrap();
        std::fs::create_dir(beside(&path, "old")).unwrap();
        let state = Sled::open(&path).unwrap();
        assert_eq!(state.get(Table::Users, b"stays").await.unwrap(), Some(b"montezuma".to_vec()));
        assert!(!beside(&path, "old").exists());
    }

    fn holds(folder: &Path, needle: &[u8]) -> bool {
        let has = |path: &PathBuf| {
            let bytes = std::fs::read(path).unwrap();
            bytes.windows(needle.len()).any(|window| window == needle)
        };
        files(folder).iter().any(has)
    }

    #[test]
    fn a_second_opener_is_told_that_it_is_in_use() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state");
        let _open = Sled::open(&path).unwrap();
        assert!(matches!(Sled::open(&path), Err(Error::InUse { .. })));
        assert!(matches!(set_aside(&path), Err(Error::InUse { .. })));
    }

    /// As when the last write of an engine that was just closed takes long.
    #[test]
    fn the_engines_lock_is_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state");
        drop(Sled::open(&path).unwrap());
        let held = File::options().write(true).open(path.join("db")).unwrap();
        held.lock().unwrap();
        std::thread::scope(|scope| {
            let opening = scope.spawn(|| Sled::open(&path).map(drop));
            // It is tried at once; what is tried later finds it free.
            std::thread::sleep(20 * LOCK_PAUSE);
            drop(held);
            opening.join().unwrap().unwrap();
        });
    }

    /// Fills every file of a state with garbage, in part or whole, many times:
    /// what opens must be readable, everything else must be reported as damage.
    #[tokio::test]
    async fn garbage_is_damage_and_never_ends_the_process() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state");
        let mut reported = 0;
        let mut random = 0x9e37_79b9_7f4a_7c15u64;
        let mut next = move || {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            random
        };
        for round in 0..40 {
            let state = Sled::open(&path).unwrap();
            let mut batch = Batch::new();
            for row in 0..200u32 {
                batch.put(Table::Users, format!("key {row}"), vec![row as u8; 300]);
            }
            assert_eq!(state.apply(batch).await.unwrap(), Applied::Applied);
            state.flush().await.unwrap();
            drop(state);
            for file in files(&path) {
                let mut bytes = std::fs::read(&file).unwrap();
                match round % 4 {
                    0 => bytes.iter_mut().for_each(|byte| *byte = next() as u8),
                    1 => bytes.iter_mut().for_each(|byte| *byte = 0xff),
                    2 => bytes.truncate(bytes.len() / 2),
                    _ if !bytes.is_empty() => {
                        for _ in 0..50 {
                            let at = next() as usize % bytes.len().min(20_000);
                            bytes[at] = next() as u8;
                        }
                    }
                    _ => {}
                }
                std::fs::write(&file, bytes).unwrap();
            }
            match Sled::open(&path) {
                Ok(state) => {
                    let _ = state.scan(Table::Users, Range::all(), 1000).await;
                }
                Err(error) => {
                    assert!(error.is_damage(), "round {round}: {error}");
                    reported += 1;
                }
            }
            let fresh = Sled::open_or_new(&path).unwrap();
            drop(fresh);
            set_aside(&path).unwrap();
        }
        assert!(reported > 0, "no damage was ever noticed");
    }

    fn files(folder: &Path) -> Vec<PathBuf> {
        let mut found = Vec::new();
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() { found.extend(files(&path)) } else { found.push(path) }
        }
        found
    }
}
