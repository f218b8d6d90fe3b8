//! A state folder: few files, written whole or not at all, for their owner only
//! (mode 600), by one process at a time.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{ErrorKind, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use super::Error;

/// Most files that a listing looks at.
const MAX_FILES: usize = 100_000;

/// The folder, locked for this process.
#[derive(Debug)]
pub struct Folder {
    path: PathBuf,
    /// Held while the folder is open.
    _lock: File,
}

impl Folder {
    /// Makes it (mode 700) if it is not there. [`Error::InUse`] if another
    /// process has it open.
    pub fn open(path: &Path) -> Result<Folder, Error> {
        make(path)?;
        let place = path.join("lock");
        let mut options = OpenOptions::new();
        options.create(true).truncate(false).write(true).mode(0o600);
        let lock = options.open(&place).map_err(failed("open", &place))?;
        match lock.try_lock() {
            Ok(()) => Ok(Folder { path: path.to_owned(), _lock: lock }),
            Err(TryLockError::WouldBlock) => Err(Error::InUse { path: path.to_owned() }),
            Err(TryLockError::Error(source)) => Err(failed("lock", &place)(source)),
        }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Where a file is or will be.
    pub fn at(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// A whole file of at most `limit` bytes; `None` if there is none.
    pub fn read(&self, name: &str, limit: u64) -> Result<Option<Vec<u8>>, Error> {
        let path = self.at(name);
        let file = match File::open(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            other => other.map_err(failed("open", &path))?,
        };
        let mut bytes = Vec::new();
        file.take(limit.saturating_add(1))
            .read_to_end(&mut bytes)
            .map_err(failed("read", &path))?;
        match bytes.len() as u64 > limit {
            true => Err(Error::Size { path, limit }),
            false => Ok(Some(bytes)),
        }
    }

    /// Replaces a file, durably: after a crash it is the old one or the new one.
    pub fn write(&self, name: &str, bytes: &[u8]) -> Result<PathBuf, Error> {
        let path = self.at(name);
        let parent = path.parent().unwrap_or(&self.path);
        make(parent)?;
        let next = path.with_extension("next");
        let write = || {
            let mut options = OpenOptions::new();
            options.create(true).truncate(true).write(true).mode(0o600);
            let mut file = options.open(&next)?;
            file.write_all(bytes)?;
            file.sync_all()?;
            fs::rename(&next, &path)?;
            File::open(parent)?.sync_all()
        };
        write().map_err(failed("write", &path))?;
        Ok(path)
    }

    /// Names of the files below `folder` that end with `ending`, with `folder`.
    pub fn list(&self, folder: &str, ending: &str) -> Result<Vec<String>, Error> {
        let path = self.at(folder);
        let entries = match fs::read_dir(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            other => other.map_err(failed("list", &path))?,
        };
        let mut names = Vec::new();
        for entry in entries.take(MAX_FILES) {
            let name = entry.map_err(failed("list", &path))?.file_name();
            if let Some(name) = name.to_str().filter(|name| name.ends_with(ending)) {
                names.push(format!("{folder}/{name}"));
            }
        }
        names.sort();
        Ok(names)
    }
}

fn make(path: &Path) -> Result<(), Error> {
    DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(failed("make", path))
}

fn failed(attempt: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Error {
    let path = path.to_owned();
    move |source| Error::Folder { attempt, path, source }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn files_are_replaced_whole_and_kept_to_their_owner() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("state");
        let folder = Folder::open(&path).unwrap();
        assert!(matches!(Folder::open(&path), Err(Error::InUse { .. })));
        assert_eq!(folder.read("watch/one.json", 10).unwrap(), None);
        folder.write("watch/one.json", b"one").unwrap();
        folder.write("watch/one.json", b"another").unwrap();
        assert_eq!(folder.read("watch/one.json", 10).unwrap().unwrap(), b"another");
        assert!(matches!(folder.read("watch/one.json", 3), Err(Error::Size { .. })));
        assert_eq!(folder.list("watch", ".json").unwrap(), ["watch/one.json"]);
        for (name, mode) in [("watch", 0o700), ("watch/one.json", 0o600)] {
            let facts = fs::metadata(path.join(name)).unwrap();
            assert_eq!(facts.permissions().mode() & 0o777, mode, "{name}");
        }
        drop(folder);
        Folder::open(&path).unwrap();
    }
}
