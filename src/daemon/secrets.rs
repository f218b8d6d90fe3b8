//! The keys of a mirror: files of mode 600, made at the first start.
//!
//! `log.key` is the signing key in the text form of signed notes, its name is
//! the origin; `vrf.key` is the VRF's seed in hexadecimal. Both are fixed by
//! the log's genesis entry for its life: losing one ends the log.
//!
//! `cosigner.key` signs other logs' checkpoints, and nothing else; its statement
//! is that the mirror replayed the log to the same directory root. `peer.key`
//! signs requests to peers. Both are made when they are missing, and can be
//! replaced at any time.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{ErrorKind, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context as _, bail, ensure};
use zeroize::Zeroizing;

use crate::dime::{Rejection, Timestamp};
use crate::log::Keys;
use crate::proof::note::{SigningKey, VerifierKey};
use crate::proof::vrf::SecretKey;

/// Largest key file, bytes.
const MAX_KEY: u64 = 4096;

/// What the log signs and hides with, and what the mirror says to others with.
pub struct Secrets {
    log: SigningKey,
    vrf: Arc<SecretKey>,
    /// Type 04, named `<origin>/cosigner`.
    pub cosigner: SigningKey,
    /// Type 01, named `<origin>/peer`.
    pub peer: SigningKey,
}

/// A file of [`SigningKey`] text with the ending of its name, and how it is made.
type Dedicated = (&'static str, &'static str, fn(&str, &[u8; 32]) -> Result<SigningKey, Rejection>);
const COSIGNER: Dedicated = ("cosigner.key", "cosigner", SigningKey::cosigner);
const PEER: Dedicated = ("peer.key", "peer", SigningKey::ed25519);

impl Secrets {
    /// Reads both keys, or makes both if neither is there. `origin` names a
    /// new log; for an old one it may be absent and must not differ.
    pub fn load_or_make(folder: &Path, origin: Option<&str>) -> anyhow::Result<Secrets> {
        let (log_file, vrf_file) = (folder.join("log.key"), folder.join("vrf.key"));
        let (log, vrf) = match (read(&log_file)?, read(&vrf_file)?) {
            (Some(log), Some(vrf)) => parse(&log, &vrf)
                .with_context(|| format!("cannot read the keys in {}", folder.display()))?,
            (None, None) => {
                let made = make(folder, origin)?;
                tracing::info!(origin = made.0.name(), "made the keys of a new log");
                made
            }
            (Some(_), None) => bail!("{} is there, but not {}", show(&log_file), show(&vrf_file)),
            (None, Some(_)) => bail!("{} is there, but not {}", show(&vrf_file), show(&log_file)),
        };
        if let Some(origin) = origin {
            ensure!(
                origin == log.name(),
                "the keys in {} are of the log {}, the configuration names {origin}",
                folder.display(),
                log.name(),
            );
        }
        let cosigner = dedicated(folder, log.name(), COSIGNER)?;
        let peer = dedicated(folder, log.name(), PEER)?;
        Ok(Secrets { log, vrf, cosigner, peer })
    }

    /// Reads the keys of a mirror that has them all, and makes none: after a
    /// restore another key would stand where the old one belongs.
    pub fn load(folder: &Path, origin: Option<&str>) -> anyhow::Result<Secrets> {
        for (file, ..) in [COSIGNER, PEER] {
            let path = folder.join(file);
            ensure!(
                path.exists(),
                "{} is missing: put it back from a backup, or start the mirror to have another \
                 made, of which its peers must be told",
                show(&path),
            );
        }
        Secrets::load_or_make(folder, origin)
    }

    /// The keys of the log that takes over from one whose keys are in `old`:
    /// another log key and, if asked for, another VRF key. What is there already
    /// is kept. The DMTP face keeps its certificate, which records pin.
    pub fn succeed(
        old: &Path,
        new: &Path,
        origin: &str,
        new_vrf_key: bool,
    ) -> anyhow::Result<Secrets> {
        make_folder(new)?;
        let vrf_file = new.join("vrf.key");
        if read(&vrf_file)?.is_none() {
            let text = match new_vrf_key {
                true => Zeroizing::new(hex::encode(*random()?)),
                false => read(&old.join("vrf.key"))?.context("the old VRF key is missing")?,
            };
            write_new(&vrf_file, text.trim_end())?;
        }
        if read(&new.join("log.key"))?.is_none() {
            let key = SigningKey::ed25519(origin, &*random()?)?;
            write_new(&new.join("log.key"), &key.to_secret_text())?;
        }
        if let (Some(text), None) = (read(&old.join("dmtp.key"))?, read(&new.join("dmtp.key"))?) {
            write_new(&new.join("dmtp.key"), text.trim_end())?;
        }
        // No secret, and readable by all as it is made.
        let (from, to) = (old.join("dmtp.crt"), new.join("dmtp.crt"));
        if from.exists() && !to.exists() {
            let text = fs::read_to_string(&from);
            let text = text.with_context(|| format!("cannot read {}", show(&from)))?;
            write_new(&to, text.trim_end())?;
        }
        fs::File::open(new).and_then(|folder| folder.sync_all())?;
        Secrets::load_or_make(new, Some(origin))
    }

    /// Puts a key that serves one purpose aside, as `<name>.<time>`, and makes
    /// another one. Gives the name of the file that was put aside.
    pub fn rotate(folder: &Path, which: Rotated, now: Timestamp) -> anyhow::Result<String> {
        let (file, ..) = which.dedicated();
        let aside = format!("{file}.{}", now.millis());
        let log = read(&folder.join("log.key"))?.context("there is no log key")?;
        let log: SigningKey = log.trim_end().parse().context("log.key")?;
        if read(&folder.join(file))?.is_some() {
            fs::rename(folder.join(file), folder.join(&aside))
                .with_context(|| format!("cannot rename {}", show(&folder.join(file))))?;
        }
        dedicated(folder, log.name(), which.dedicated())?;
        Ok(aside)
    }

    /// Refuses a file that others can read.
    pub fn is_for_its_owner(path: &Path) -> anyhow::Result<()> {
        let facts = fs::metadata(path).with_context(|| format!("cannot read {}", show(path)))?;
        let mode = facts.permissions().mode() & 0o777;
        ensure!(
            mode & 0o077 == 0,
            "{} can be read by others (mode {mode:o}): chmod 600 {}",
            path.display(),
            path.display(),
        );
        Ok(())
    }

    pub fn origin(&self) -> &str {
        self.log.name()
    }

    /// What clients verify checkpoints with.
    pub fn verifier(&self) -> VerifierKey {
        self.log.verifier()
    }

    pub fn keys(&self) -> Keys {
        Keys { log: self.log.clone(), vrf: Arc::clone(&self.vrf) }
    }
}

fn parse(log: &str, vrf: &str) -> anyhow::Result<(SigningKey, Arc<SecretKey>)> {
    let log: SigningKey = log.trim_end().parse().context("log.key")?;
    let mut seed = Zeroizing::new([0; 32]);
    hex::decode_to_slice(vrf.trim_end(), &mut *seed).context("vrf.key")?;
    Ok((log, Arc::new(SecretKey::from_seed(&seed))))
}

fn make(folder: &Path, origin: Option<&str>) -> anyhow::Result<(SigningKey, Arc<SecretKey>)> {
    let (log_seed, vrf_seed) = (random()?, random()?);
    let origin = match origin {
        Some(origin) => origin.to_owned(),
        // A name for trying things out; a public mirror is given one.
        None => format!("localhost/log-{}", hex::encode(&random()?[..4])),
    };
    let log = SigningKey::ed25519(&origin, &log_seed)?;
    make_folder(folder)?;
    write_new(&folder.join("log.key"), &log.to_secret_text())?;
    write_new(&folder.join("vrf.key"), &Zeroizing::new(hex::encode(*vrf_seed)))?;
    fs::File::open(folder).and_then(|folder| folder.sync_all())?;
    Ok((log, Arc::new(SecretKey::from_seed(&vrf_seed))))
}

fn make_folder(folder: &Path) -> anyhow::Result<()> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(folder)
        .with_context(|| format!("cannot make {}", folder.display()))
}

/// A key that can be replaced in place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rotated {
    Cosigner,
    Peer,
}

impl Rotated {
    fn dedicated(self) -> Dedicated {
        match self {
            Rotated::Cosigner => COSIGNER,
            Rotated::Peer => PEER,
        }
    }
}

/// Reads a key that serves one purpose, or makes it.
fn dedicated(folder: &Path, origin: &str, which: Dedicated) -> anyhow::Result<SigningKey> {
    let (file, ending, new) = which;
    let (path, name) = (folder.join(file), format!("{origin}/{ending}"));
    let Some(text) = read(&path)? else {
        let key = new(&name, &*random()?)?;
        write_new(&path, &key.to_secret_text())?;
        fs::File::open(folder).and_then(|folder| folder.sync_all())?;
        return Ok(key);
    };
    let key: SigningKey = text.trim_end().parse().with_context(|| show(&path).to_string())?;
    let kind = new(&name, &[0; 32])?.kind();
    ensure!(key.kind() == kind, "{} is a key for something else", show(&path));
    Ok(key)
}

fn show(path: &Path) -> std::path::Display<'_> {
    path.display()
}

fn random() -> anyhow::Result<Zeroizing<[u8; 32]>> {
    let mut bytes = Zeroizing::new([0; 32]);
    getrandom::fill(&mut *bytes).context("the machine gives no random bytes")?;
    Ok(bytes)
}

/// `None` if there is no such file. Refuses one that others can read.
fn read(path: &Path) -> anyhow::Result<Option<Zeroizing<String>>> {
    let facts = match fs::metadata(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        other => other.with_context(|| format!("cannot read {}", path.display()))?,
    };
    Secrets::is_for_its_owner(path)?;
    ensure!(facts.len() <= MAX_KEY, "{} is too large for a key", path.display());
    let text = fs::read_to_string(path);
    Ok(Some(Zeroizing::new(text.with_context(|| format!("cannot read {}", path.display()))?)))
}

/// Writes a file that was not there, for its owner only, and syncs it.
fn write_new(path: &Path, text: &str) -> anyhow::Result<()> {
    let write = || {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
        file.write_all(text.as_bytes())?;
        file.write_all(b"\n")?;
        file.sync_all()
    };
    write().with_context(|| format!("cannot write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_made_once_and_kept_to_their_owner() {
        let folder = tempfile::tempdir().unwrap();
        let keys = folder.path().join("keys");
        let made = Secrets::load_or_make(&keys, Some("a.example/log")).unwrap();
        let read = Secrets::load_or_make(&keys, None).unwrap();
        assert_eq!(made.verifier().to_string(), read.verifier().to_string());
        assert_eq!(made.keys().vrf.public(), read.keys().vrf.public());
        let mode = fs::metadata(keys.join("log.key")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);

        let other = Secrets::load_or_make(&keys, Some("b.example/log")).err().unwrap();
        assert!(other.to_string().contains("a.example/log"), "{other}");
        // What serves one purpose can be replaced; a key of another kind cannot stand in.
        assert_eq!(made.cosigner.verifier().name(), "a.example/log/cosigner");
        assert_eq!(made.cosigner.verifier(), read.cosigner.verifier());
        fs::remove_file(keys.join("cosigner.key")).unwrap();
        let missing = Secrets::load(&keys, None).err().unwrap();
        assert!(missing.to_string().contains("cosigner.key is missing"), "{missing}");
        assert!(!keys.join("cosigner.key").exists());
        let rotated = Secrets::load_or_make(&keys, None).unwrap();
        assert_ne!(made.cosigner.verifier(), rotated.cosigner.verifier());
        assert_eq!(made.peer.verifier(), rotated.peer.verifier());
        fs::copy(keys.join("peer.key"), keys.join("cosigner.key")).unwrap();
        let swapped = Secrets::load_or_make(&keys, None).err().unwrap();
        assert!(swapped.to_string().contains("something else"), "{swapped}");
        fs::remove_file(keys.join("cosigner.key")).unwrap();
        fs::set_permissions(keys.join("vrf.key"), fs::Permissions::from_mode(0o644)).unwrap();
        let open = Secrets::load_or_make(&keys, None).err().unwrap();
        assert!(open.to_string().contains("chmod 600"), "{open}");
        fs::remove_file(keys.join("vrf.key")).unwrap();
        assert!(Secrets::load_or_make(&keys, None).is_err());
    }
}
