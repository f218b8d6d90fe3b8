//! A word beside a folder, that it was closed in order and how its files were
//! then: who finds it so need not read it all to know that it is whole.
//!
//! On disk: `<folder>.clean`, a line for each file of the folder: its path in it,
//! its size in bytes, and when it was last written, nanoseconds since 1970. It is
//! written after all files are durable, and removed before the folder is opened
//! again. Files that were changed meanwhile by others do not match it. Left out:
//! a disk that changes bytes and says nothing.

use std::fmt::Write as _;
use std::fs::File;
use std::io;
use std::path::Path;
use std::time::{Duration, SystemTime};

/// Times of files move in steps of up to 10 ms: a file that is changed within
/// the step it was last written in looks as before.
const STEP: Duration = Duration::from_millis(12);
/// Longest word that is read, bytes.
const MAX_WORD: u64 = 1 << 20;

/// Makes every file of the folder durable, and writes the word.
pub(super) fn say(folder: &Path, word: &Path) -> io::Result<()> {
    let mut newest = SystemTime::UNIX_EPOCH;
    for path in files(folder)? {
        let file = File::open(&path)?;
        file.sync_all()?;
        newest = newest.max(file.metadata()?.modified()?);
    }
    if newest.elapsed().is_ok_and(|age| age < STEP) {
        std::thread::sleep(STEP);
    }
    File::open(folder)?.sync_all()?;
    let text = describe(folder)?;
    std::fs::write(word, text)?;
    File::open(word)?.sync_all()?;
    sync_parent(word)
}

/// Takes the word away, and says whether it was there and holds.
pub(super) fn take(folder: &Path, word: &Path) -> io::Result<bool> {
    let said = match std::fs::metadata(word) {
        Ok(found) if found.len() <= MAX_WORD => std::fs::read_to_string(word).ok(),
        Ok(_) => None,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(error),
    };
    std::fs::remove_file(word)?;
    sync_parent(word)?;
    let is_so = |said| describe(folder).is_ok_and(|found| found == said);
    Ok(said.is_some_and(is_so))
}

fn describe(folder: &Path) -> io::Result<String> {
    let mut text = String::new();
    for path in files(folder)? {
        let found = std::fs::metadata(&path)?;
        let written = found.modified()?.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let name = path.strip_prefix(folder).unwrap_or(&path).display();
        let _ = writeln!(text, "{name} {} {}", found.len(), written.as_nanos());
    }
    Ok(text)
}

/// Every file below the folder, in order.
fn files(folder: &Path) -> io::Result<Vec<std::path::PathBuf>> {
    let (mut found, mut folders) = (Vec::new(), vec![folder.to_path_buf()]);
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder)? {
            let entry = entry?;
            let list = if entry.file_type()?.is_dir() { &mut folders } else { &mut found };
            list.push(entry.path());
        }
    }
    found.sort();
    Ok(found)
}

fn sync_parent(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => File::open(parent)?.sync_all(),
        _ => File::open(".")?.sync_all(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_word_holds_once_and_for_these_files_only() {
        let place = tempfile::tempdir().unwrap();
        let (folder, word) = (place.path().join("state"), place.path().join("state.clean"));
        std::fs::create_dir_all(folder.join("blobs")).unwrap();
        let file = folder.join("blobs").join("7");
        std::fs::write(&file, "bytes").unwrap();
        assert!(!take(&folder, &word).unwrap());
        say(&folder, &word).unwrap();
        assert!(take(&folder, &word).unwrap());
        assert!(!take(&folder, &word).unwrap(), "it was taken");
        // The same size, and at once.
        say(&folder, &word).unwrap();
        std::fs::write(&file, "other").unwrap();
        assert!(!take(&folder, &word).unwrap());
        say(&folder, &word).unwrap();
        std::fs::write(folder.join("more"), "").unwrap();
        assert!(!take(&folder, &word).unwrap());
        say(&folder, &word).unwrap();
        std::fs::remove_file(&file).unwrap();
        assert!(!take(&folder, &word).unwrap());
    }
}
