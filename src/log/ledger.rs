//! What was erased, written down outside the blob store and outside its
//! backups: numbers and labels, no name. Applied at every start, so that what a
//! restored backup brings back goes again.
//!
//! A text file `<guard>.erased` of at most 256 MiB, replaced whole, fsynced with
//! its folder:
//!
//! ```text
//! syndicate erased v1
//! record <commit n> <number of the private record in it>
//! label <label, hexadecimal> <version of its last FORGOTTEN>
//! ```
//!
//! It only grows. Two processes that share it change it under the lock of
//! `<file>.lock`.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::File;
use std::io::{self, ErrorKind, Write as _};
use std::path::{Path, PathBuf};

use super::Error;
use super::erase::Erased;
use crate::proof::Hash;

const HEADER: &str = "syndicate erased v1";
const MAX_FILE: u64 = 256 << 20;

/// The file.
#[derive(Clone, Debug)]
pub struct Ledger {
    path: PathBuf,
}

/// What the file says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Marks {
    pub records: Erased,
    /// By label: the version of its last FORGOTTEN.
    pub labels: BTreeMap<Hash, u64>,
}

impl Ledger {
    /// The one that belongs to a guard file.
    pub fn beside(guard: &Path) -> Ledger {
        Ledger { path: with_suffix(guard, "erased") }
    }

    /// What it says; a missing file says nothing.
    ///
    /// # Errors
    /// A file that cannot be read, or is not one of ours: what was erased must
    /// not come back because of it.
    pub async fn read(&self) -> Result<Marks, Error> {
        let ledger = self.clone();
        self.told("read", tokio::task::spawn_blocking(move || ledger.read_now()).await?)
    }

    /// Adds marks, durably. Those that are there already change nothing.
    pub async fn add(&self, marks: Marks) -> Result<(), Error> {
        if marks == Marks::default() {
            return Ok(());
        }
        let ledger = self.clone();
        self.told("write to", tokio::task::spawn_blocking(move || ledger.add_now(marks)).await?)
    }

    fn told<T>(&self, doing: &'static str, outcome: io::Result<T>) -> Result<T, Error> {
        let path = self.path.display().to_string();
        outcome.map_err(|source| Error::Ledger { doing, path, source })
    }

    fn read_now(&self) -> io::Result<Marks> {
        match std::fs::metadata(&self.path) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Marks::default()),
            Err(error) => return Err(error),
            Ok(meta) if meta.len() > MAX_FILE => return Err(damaged("it is too long")),
            Ok(_) => {}
        }
        parse(&std::fs::read_to_string(&self.path)?)
    }

    fn add_now(&self, added: Marks) -> io::Result<()> {
        let folder = match self.path.parent() {
            Some(folder) if !folder.as_os_str().is_empty() => folder,
            _ => Path::new("."),
        };
        std::fs::create_dir_all(folder)?;
        let lock = with_suffix(&self.path, "lock");
        let lock = File::options().create(true).append(true).open(lock)?;
        lock.lock()?;
        let known = self.read_now()?;
        let mut marks = known.clone();
        for (n, records) in added.records {
            marks.records.entry(n).or_default().extend(records);
        }
        for (label, version) in added.labels {
            let last = marks.labels.entry(label).or_default();
            *last = version.max(*last);
        }
        if marks == known {
            return Ok(());
        }
        let fresh = with_suffix(&self.path, "new");
        let mut file = File::create(&fresh)?;
        file.write_all(print(&marks).as_bytes())?;
        file.sync_all()?;
        std::fs::rename(&fresh, &self.path)?;
        File::open(folder)?.sync_all()
    }
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".");
    name.push(suffix);
    name.into()
}

fn print(marks: &Marks) -> String {
    let mut text = format!("{HEADER}\n");
    for (n, records) in &marks.records {
        for record in records {
            let _ = writeln!(text, "record {n} {record}");
        }
    }
    for (label, version) in &marks.labels {
        let _ = writeln!(text, "label {} {version}", hex::encode(label));
    }
    text
}

fn parse(text: &str) -> io::Result<Marks> {
    let mut lines = text.lines();
    if lines.next() != Some(HEADER) {
        return Err(damaged("its first line is not that of a list of what was erased"));
    }
    let mut marks = Marks::default();
    let malformed = || damaged("a line is none");
    for line in lines {
        let words: Vec<&str> = line.split(' ').collect();
        match words.as_slice() {
            ["record", n, record] => {
                let n = n.parse().map_err(|_| malformed())?;
                let record = record.parse().map_err(|_| malformed())?;
                marks.records.entry(n).or_default().insert(record);
            }
            ["label", label, version] => {
                let mut hash = [0; 32];
                hex::decode_to_slice(label, &mut hash).map_err(|_| malformed())?;
                marks.labels.insert(hash, version.parse().map_err(|_| malformed())?);
            }
            _ => return Err(malformed()),
        }
    }
    Ok(marks)
}

fn damaged(what: &str) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, what.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn it_grows_and_refuses_what_is_none() {
        let folder = tempfile::tempdir().unwrap();
        let ledger = Ledger::beside(&folder.path().join("guard"));
        assert_eq!(ledger.read().await.unwrap(), Marks::default());
        let first = Marks { records: [(3, [1, 2].into())].into(), labels: [([7; 32], 4)].into() };
        ledger.add(first).await.unwrap();
        let second = Marks {
            records: [(3, [2, 5].into()), (9, [0].into())].into(),
            labels: [([7; 32], 2), ([8; 32], 1)].into(),
        };
        ledger.add(second).await.unwrap();
        let all = Marks {
            records: [(3, [1, 2, 5].into()), (9, [0].into())].into(),
            labels: [([7; 32], 4), ([8; 32], 1)].into(),
        };
        assert_eq!(ledger.read().await.unwrap(), all);
        std::fs::write(&ledger.path, format!("{HEADER}\nrecord 3\n")).unwrap();
        assert!(matches!(ledger.read().await, Err(Error::Ledger { .. })));
        let more = Marks { labels: [([9; 32], 1)].into(), ..Marks::default() };
        assert!(ledger.add(more).await.is_err());
    }
}
