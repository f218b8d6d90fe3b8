//! A domain's signets in a folder: what `syndicate dx` serves.
//!
//! ```text
//! DIR/org.signet               the org signet; or several org*.signet
//! DIR/users/alice.signet       a mailbox with one signet
//! DIR/users/alice/1-*.signet   a mailbox with a chain, oldest first
//! ```
//!
//! File names are in lower case and sort by the number they begin with, then by
//! name; the last is current. Files are binary or armoured, and are read anew
//! for each question: who rotates a key puts the next file there. Write it under
//! another name and rename it, so that nobody is served half a file.
//! Nothing is validated here but the form: a DX says what its owner says.

use std::fs;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use async_trait::async_trait;

use super::dmtp::{Answer, Signets};
use crate::dime::signet::{Fingerprint, Kind, Signet};
use crate::dime::{Address, Domain, armor};

/// Largest file read, bytes: 1 MiB of signet in armour.
const MAX_FILE: u64 = 2 << 20;
/// Most signets of one name.
const MAX_CHAIN: usize = 1024;
const ENDING: &str = ".signet";

/// A folder with the signets of one domain.
#[derive(Clone, Debug)]
pub struct Folder {
    domain: Domain,
    folder: PathBuf,
}

impl Folder {
    pub fn new(domain: Domain, folder: impl Into<PathBuf>) -> Folder {
        Folder { domain, folder: folder.into() }
    }

    pub fn domain(&self) -> &Domain {
        &self.domain
    }

    /// All org signets, oldest first.
    pub fn org_signets(&self) -> io::Result<Vec<Signet>> {
        let mut paths = files(&self.folder)?;
        paths.retain(|path| file_name(path).starts_with("org"));
        Ok(read_all(&paths, Kind::Org))
    }

    /// All signets of a mailbox, oldest first.
    pub fn user_signets(&self, address: &Address) -> io::Result<Vec<Signet>> {
        // A slash is legal in a local part, and would leave the folder.
        if address.domain() != &self.domain || address.local().contains(['/', '\\']) {
            return Ok(Vec::new());
        }
        let users = self.folder.join("users");
        let mut paths = files(&users.join(address.local()))?;
        if paths.is_empty() {
            paths.push(users.join(format!("{}{ENDING}", address.local())));
        }
        Ok(read_all(&paths, Kind::User))
    }
}

/// The signet files of a folder in their order; none if there is no such folder.
fn files(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut paths = Vec::new();
    for entry in entries {
        let path = entry?.path();
        if file_name(&path).ends_with(ENDING) && paths.len() < MAX_CHAIN {
            paths.push(path);
        }
    }
    paths.sort_by_cached_key(|path| {
        let name = file_name(path).to_owned();
        let digits: String = name
            .trim_start_matches("org")
            .trim_start_matches(['-', '_', '.'])
            .chars()
            .take_while(char::is_ascii_digit)
            .collect();
        (digits.parse::<u64>().unwrap_or(0), name)
    });
    Ok(paths)
}

fn file_name(path: &Path) -> &str {
    path.file_name().and_then(|name| name.to_str()).unwrap_or_default()
}

/// The signets that can be read; for the others there is a warning. The path
/// is not in it: it names a mailbox.
fn read_all(paths: &[PathBuf], kind: Kind) -> Vec<Signet> {
    let mut signets = Vec::new();
    for path in paths {
        match read(path) {
            Ok(Some(signet)) if signet.kind() == kind => signets.push(signet),
            Ok(Some(_)) => tracing::warn!("a file of the folder is another kind of signet"),
            Ok(None) => {}
            Err(error) => tracing::warn!(%error, "a file of the folder is no signet"),
        }
    }
    signets
}

/// One file; `None` if it is not there.
fn read(path: &Path) -> Result<Option<Signet>, Box<dyn std::error::Error + Send + Sync>> {
    let mut bytes = Vec::new();
    match fs::File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        file => file?.take(MAX_FILE).read_to_end(&mut bytes)?,
    };
    let binary = if armor::is_armored(&bytes) { armor::decode(&bytes)?.1 } else { bytes };
    Ok(Some(Signet::decode(&binary)?))
}

#[async_trait]
impl Signets for Folder {
    async fn org(&self, domain: &Domain, at: Option<&Fingerprint>) -> Answer<Signet> {
        if domain != &self.domain {
            return Answer::NotFound;
        }
        let folder = self.clone();
        pick(off_thread(move || folder.org_signets()).await, at)
    }

    async fn user(&self, address: &Address, at: Option<&Fingerprint>) -> Answer<Signet> {
        let (folder, address) = (self.clone(), address.clone());
        pick(off_thread(move || folder.user_signets(&address)).await, at)
    }

    async fn history(
        &self,
        address: &Address,
        start: Option<&Fingerprint>,
        stop: Option<&Fingerprint>,
    ) -> Answer<Vec<Signet>> {
        let (folder, address) = (self.clone(), address.clone());
        match off_thread(move || folder.user_signets(&address)).await {
            Ok(signets) => stretch(&signets, start, stop)
                .map_or(Answer::NotFound, |chain| Answer::Found(chain.to_vec())),
            Err(()) => Answer::Unavailable,
        }
    }
}

async fn off_thread<T: Send + 'static>(
    read: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> Result<T, ()> {
    match tokio::task::spawn_blocking(read).await {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => {
            tracing::error!(%error, "the folder of signets cannot be read");
            Err(())
        }
        Err(_) => Err(()),
    }
}

pub(crate) fn pick(signets: Result<Vec<Signet>, ()>, at: Option<&Fingerprint>) -> Answer<Signet> {
    let Ok(signets) = signets else { return Answer::Unavailable };
    let mut newest_first = signets.into_iter().rev();
    let found = match at {
        Some(at) => newest_first.find(|signet| signet.matches(at)),
        None => newest_first.next(),
    };
    found.map_or(Answer::NotFound, Answer::Found)
}

/// The links from `start` to `stop` within one chain. A signet without custody
/// begins a chain, and no history crosses that (§7.1, §7.3).
pub(crate) fn stretch<'a>(
    signets: &'a [Signet],
    start: Option<&Fingerprint>,
    stop: Option<&Fingerprint>,
) -> Option<&'a [Signet]> {
    let position = |print: &Fingerprint| signets.iter().rposition(|signet| signet.matches(print));
    let begins = |signet: &Signet| signet.custody().is_none();
    let first = match start {
        Some(start) => position(start)?,
        None => {
            let last = match stop {
                Some(stop) => position(stop)?,
                None => signets.len().checked_sub(1)?,
            };
            signets.get(..=last)?.iter().rposition(begins).unwrap_or(0)
        }
    };
    let beyond = signets.get(first + 1..)?;
    let end = beyond.iter().position(begins).map_or(signets.len(), |at| first + 1 + at);
    let end = match stop {
        Some(stop) => position(stop).filter(|at| *at < end)? + 1,
        None => end,
    };
    signets.get(first..end).filter(|chain| !chain.is_empty())
}
