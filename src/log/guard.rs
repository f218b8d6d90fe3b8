//! The guard file: what this machine has committed and cosigned, kept outside
//! the blob store, so that blobs restored from an old backup cannot make it
//! sign a second history.
//!
//! A text file of at most 1 MiB, replaced whole, fsynced with its folder:
//!
//! ```text
//! syndicate guard v1
//! own <origin> <commit n> <size> <root, hexadecimal>
//! shown <origin> <size> <root, hexadecimal>
//! cosigned <origin> <size> <root, hexadecimal>
//! ```
//!
//! `shown` is the newest tree under the own log's signature that others hold and
//! this store does not: it goes when the store has it (threat 12).
//!
//! It only goes forward, also when two processes share it: each change is made
//! under the lock of `<file>.lock`. Left out: what a guard that does not fit
//! means, which `log::recover` decides.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::File;
use std::io::{self, ErrorKind, Write as _};
use std::path::{Path, PathBuf};

use crate::proof::Hash;

const HEADER: &str = "syndicate guard v1";
const MAX_FILE: u64 = 1 << 20;

/// The file. Its methods block for an fsync or two.
#[derive(Clone, Debug)]
pub struct Guard {
    path: PathBuf,
}

/// The tip of the own log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OwnMark {
    /// Number of the commit.
    pub n: u64,
    pub size: u64,
    pub root: Hash,
}

/// What the file says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Marks {
    pub own: Option<(String, OwnMark)>,
    /// What others have shown with the own log's signature: origin, size, root.
    pub shown: Option<(String, u64, Hash)>,
    /// By origin: size and root last cosigned.
    pub cosigned: BTreeMap<String, (u64, Hash)>,
}

impl Guard {
    /// The guard at this path, which need not exist yet.
    pub fn new(path: &Path) -> Guard {
        Guard { path: path.to_path_buf() }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What it says; `None` if there is no file. A file that is not one of ours
    /// is an error, never taken for a missing one.
    pub fn read(&self) -> io::Result<Option<Marks>> {
        match std::fs::metadata(&self.path) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
            Ok(meta) if meta.len() > MAX_FILE => return Err(damaged("it is too long")),
            Ok(_) => {}
        }
        parse(&std::fs::read_to_string(&self.path)?).map(Some)
    }

    /// Moves the own mark forward to `mark`, durably. A mark behind the one in
    /// the file changes nothing; one beside it (the same commit with another
    /// root, or another origin) is refused.
    pub fn advance(&self, origin: &str, mark: OwnMark) -> io::Result<()> {
        self.change(|marks| {
            if let Some((known, old)) = &marks.own {
                if known != origin {
                    return Err(damaged("it guards a log of another origin"));
                }
                if old.n == mark.n && *old != mark {
                    return Err(damaged("it knows this commit with another root"));
                }
                if old.n >= mark.n {
                    return Ok(false);
                }
            }
            marks.move_to(origin, mark);
            Ok(true)
        })
    }

    /// Sets the own mark by the operator's word, also backwards.
    pub fn accept(&self, origin: &str, mark: OwnMark) -> io::Result<()> {
        self.change(|marks| {
            marks.move_to(origin, mark);
            Ok(true)
        })
    }

    /// Writes down that others hold a tree with the own log's signature that is
    /// not here. A smaller one than is known changes nothing.
    pub fn shown(&self, origin: &str, size: u64, root: Hash) -> io::Result<()> {
        self.change(|marks| {
            if marks.shown.as_ref().is_some_and(|(_, known, _)| *known >= size) {
                return Ok(false);
            }
            marks.shown = Some((origin.to_owned(), size, root));
            Ok(true)
        })
    }

    /// Moves what was cosigned of another log forward to what others can show of
    /// it, durably; never back. Says whether that was news.
    pub fn raise_cosigned(&self, origin: &str, size: u64, root: Hash) -> io::Result<bool> {
        let mut news = false;
        self.change(|marks| {
            news = marks.cosigned.get(origin).is_none_or(|(known, _)| *known < size);
            if news {
                marks.cosigned.insert(origin.to_owned(), (size, root));
            }
            Ok(news)
        })?;
        Ok(news)
    }

    /// Renames a file that cannot be read as a guard, so that one can be made.
    pub fn set_aside(&self) -> io::Result<()> {
        match self.read() {
            Err(error) if error.kind() == ErrorKind::InvalidData => {
                std::fs::rename(&self.path, self.beside("damaged"))
            }
            other => other.map(drop),
        }
    }

    /// Moves what was cosigned of another log from one tree to the next, durably.
    /// Says whether it did: not if something else is known of that log, larger than
    /// `from` or of its size, which another process may have cosigned meanwhile.
    pub fn cosigned(&self, origin: &str, from: (u64, Hash), to: (u64, Hash)) -> io::Result<bool> {
        let mut fits = true;
        self.change(|marks| {
            let known = marks.cosigned.get(origin).copied();
            fits = known.is_none_or(|known| [from, to].contains(&known) || known.0 < from.0);
            if !fits || known == Some(to) {
                return Ok(false);
            }
            marks.cosigned.insert(origin.to_owned(), to);
            Ok(true)
        })?;
        Ok(fits)
    }

    fn change(&self, edit: impl FnOnce(&mut Marks) -> io::Result<bool>) -> io::Result<()> {
        let folder = match self.path.parent() {
            Some(folder) if !folder.as_os_str().is_empty() => folder,
            _ => Path::new("."),
        };
        std::fs::create_dir_all(folder)?;
        let lock = File::options().create(true).append(true).open(self.beside("lock"))?;
        lock.lock()?;
        let mut marks = self.read()?.unwrap_or_default();
        if !edit(&mut marks)? {
            return Ok(());
        }
        let fresh = self.beside("new");
        let mut file = File::create(&fresh)?;
        file.write_all(print(&marks).as_bytes())?;
        file.sync_all()?;
        std::fs::rename(&fresh, &self.path)?;
        File::open(folder)?.sync_all()
    }

    fn beside(&self, suffix: &str) -> PathBuf {
        let mut name = self.path.as_os_str().to_owned();
        name.push(".");
        name.push(suffix);
        name.into()
    }
}

impl Marks {
    fn move_to(&mut self, origin: &str, mark: OwnMark) {
        self.own = Some((origin.to_owned(), mark));
        if self.shown.as_ref().is_some_and(|(_, size, _)| *size <= mark.size) {
            self.shown = None;
        }
    }
}

fn print(marks: &Marks) -> String {
    let mut text = format!("{HEADER}\n");
    if let Some((origin, mark)) = &marks.own {
        let OwnMark { n, size, root } = mark;
        let _ = writeln!(text, "own {origin} {n} {size} {}", hex::encode(root));
    }
    if let Some((origin, size, root)) = &marks.shown {
        let _ = writeln!(text, "shown {origin} {size} {}", hex::encode(root));
    }
    for (origin, (size, root)) in &marks.cosigned {
        let _ = writeln!(text, "cosigned {origin} {size} {}", hex::encode(root));
    }
    text
}

fn parse(text: &str) -> io::Result<Marks> {
    let mut lines = text.lines();
    if lines.next() != Some(HEADER) {
        return Err(damaged("its first line is not a guard's"));
    }
    let mut marks = Marks::default();
    for line in lines {
        let words: Vec<&str> = line.split(' ').collect();
        match words.as_slice() {
            ["own", origin, n, size, root] if marks.own.is_none() => {
                let mark = OwnMark { n: number(n)?, size: number(size)?, root: hash(root)? };
                marks.own = Some(((*origin).to_owned(), mark));
            }
            ["shown", origin, size, root] if marks.shown.is_none() => {
                marks.shown = Some(((*origin).to_owned(), number(size)?, hash(root)?));
            }
            ["cosigned", origin, size, root] => {
                marks.cosigned.insert((*origin).to_owned(), (number(size)?, hash(root)?));
            }
            _ => return Err(damaged("a line is not a guard's")),
        }
    }
    Ok(marks)
}

fn number(word: &str) -> io::Result<u64> {
    word.parse().map_err(|_| damaged("a number is none"))
}

fn hash(word: &str) -> io::Result<Hash> {
    let mut hash = [0; 32];
    hex::decode_to_slice(word, &mut hash).map_err(|_| damaged("a hash is none"))?;
    Ok(hash)
}

fn damaged(what: &str) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, what.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mark(n: u64) -> OwnMark {
        OwnMark { n, size: n * 2 + 2, root: [n as u8; 32] }
    }

    #[test]
    fn goes_forward_only() {
        let folder = tempfile::tempdir().unwrap();
        let guard = Guard::new(&folder.path().join("deep/guard"));
        assert_eq!(guard.read().unwrap(), None);
        guard.advance("log.example", mark(3)).unwrap();
        guard.advance("log.example", mark(2)).unwrap();
        guard.advance("log.example", mark(3)).unwrap();
        assert_eq!(guard.read().unwrap().unwrap().own, Some(("log.example".into(), mark(3))));
        assert!(guard.advance("log.example", OwnMark { root: [0; 32], ..mark(3) }).is_err());
        assert!(guard.advance("other.example", mark(9)).is_err());
        guard.accept("log.example", mark(1)).unwrap();
        assert_eq!(guard.read().unwrap().unwrap().own, Some(("log.example".into(), mark(1))));
    }

    #[test]
    fn remembers_what_was_cosigned() {
        let folder = tempfile::tempdir().unwrap();
        let guard = Guard::new(&folder.path().join("guard"));
        let tree = |n: u8| (u64::from(n), [n; 32]);
        let known = || guard.read().unwrap().unwrap().cosigned["peer.example"];
        let cosigned = |from, to| guard.cosigned("peer.example", from, to).unwrap();
        assert!(cosigned(tree(0), tree(5)));
        assert!(cosigned(tree(5), tree(5)));
        assert!(cosigned(tree(0), tree(5)), "it was done before");
        // Another process has gone on, or gone another way.
        for (from, to) in [(tree(4), tree(9)), (tree(0), (5, [6; 32])), ((5, [6; 32]), tree(9))] {
            assert!(!cosigned(from, to));
        }
        assert_eq!(known(), tree(5));
        guard.advance("log.example", mark(1)).unwrap();
        // The store knew more than this machine.
        assert!(cosigned(tree(8), tree(9)));
        assert_eq!(known(), tree(9));
        assert!(guard.read().unwrap().unwrap().own.is_some());
    }

    #[test]
    fn what_others_have_shown_stays_until_it_is_here() {
        let folder = tempfile::tempdir().unwrap();
        let guard = Guard::new(&folder.path().join("guard"));
        guard.shown("log.example", 8, [8; 32]).unwrap();
        guard.shown("log.example", 4, [4; 32]).unwrap();
        guard.advance("log.example", mark(2)).unwrap();
        let shown = || guard.read().unwrap().unwrap().shown;
        assert_eq!(shown(), Some(("log.example".into(), 8, [8; 32])));
        guard.advance("log.example", mark(3)).unwrap();
        assert_eq!(shown(), None, "it is 8 leaves long");
        assert!(guard.raise_cosigned("peer.example", 5, [5; 32]).unwrap());
        for (size, root) in [(5, [6; 32]), (4, [4; 32])] {
            assert!(!guard.raise_cosigned("peer.example", size, root).unwrap());
        }
        assert_eq!(guard.read().unwrap().unwrap().cosigned["peer.example"], (5, [5; 32]));
    }

    #[test]
    fn damage_is_not_absence() {
        let folder = tempfile::tempdir().unwrap();
        let guard = Guard::new(&folder.path().join("guard"));
        for damage in ["", "garbage", "syndicate guard v1\nown a b c d\n"] {
            std::fs::write(guard.path(), damage).unwrap();
            assert!(guard.read().is_err(), "{damage:?}");
            assert!(guard.advance("log.example", mark(1)).is_err());
        }
        guard.set_aside().unwrap();
        assert_eq!(guard.read().unwrap(), None);
        guard.set_aside().unwrap();
    }
}
