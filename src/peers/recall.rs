//! What the peers remember of this mirror, asked for before anything is signed
//! (threat 12): the folder, the guard or both may be of an old backup, and a log
//! that goes on from there signs a second history.
//!
//! Each peer is asked on its monitoring path for the newest checkpoint of ours that
//! it followed or cosigned, and for the newest checkpoints of all mirrors that it saw
//! with our cosignature. Only signatures count, ours on our log, ours beside the
//! log's own on others': whoever lies can show less than it knows, and so makes
//! us no more careful than its silence would.
//!
//! | Own memory | What is asked for | What follows |
//! | --- | --- | --- |
//! | in order | one round, three seconds | something larger of ours: in doubt |
//! | in doubt (guard missing, older, damaged; store older) | until n − f of n peers have shown one of ours and told of every log, f = ⌊(n−1)/3⌋ | see below |
//!
//! Then the guard is raised to all that was shown. What is missing here comes back
//! from a peer that kept it (`log::takeback`). The log goes on when it is as long
//! as the largest tree that anybody, the guard included, knows of, and holds every
//! one of them; else it stays as it is and says what is missing.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::future::join_all;
use futures::stream::{self, StreamExt as _};
use sha2::{Digest as _, Sha256};
use tokio_util::sync::CancellationToken;

use super::{Error, Mirror, Options, Rooms, Witness};
use crate::client::Site;
use crate::client::follow::{Fetched, LogSource, Position};
use crate::errors::with_sources;
use crate::log::reader::PublicBlob;
use crate::log::{self, Blocked, Head, Remedy, Sequencer};
use crate::proof::Hash;
use crate::proof::checkpoint::SignedCheckpoint;
use crate::proof::entry::{Entry, Kind};
use crate::proof::note::{MAX_NOTE, VerifierKey};
use crate::store::keys;

/// How long one peer may take to tell.
const LIMIT: Duration = Duration::from_secs(3);
/// Logs that one peer is asked about at one time.
const AT_ONCE: usize = 8;

/// Asks the peers. Cheap to clone.
#[derive(Clone)]
pub struct Recall {
    rooms: Arc<Rooms>,
    witness: Arc<Witness>,
    peers: Arc<Vec<Asked>>,
    poll: Duration,
}

/// One peer, and where it keeps what it knows of our log.
struct Asked {
    site: Site,
    log: VerifierKey,
    ours: LogSource,
}

impl Asked {
    fn new(mirror: &Mirror, key: &VerifierKey) -> Result<Asked, Error> {
        let (site, ours) = (Site::new(&mirror.url)?, mirror.archive_of(key)?);
        Ok(Asked { site, log: mirror.log.clone(), ours })
    }

    /// The newest checkpoint of ours that it followed, and that it knows of; and
    /// whether it answered both times.
    async fn remembers(&self) -> (Option<SignedCheckpoint>, Option<SignedCheckpoint>, bool) {
        let (followed, cosigned) =
            tokio::join!(get(self.ours.site(), "followed"), get(self.ours.site(), "checkpoint"));
        let answered = followed.is_some() && cosigned.is_some();
        let ours = |note: Option<Option<Bytes>>| self.ours.read_checkpoint(&note??).ok();
        let followed = ours(followed);
        let both = [ours(cosigned), followed.clone()].into_iter().flatten();
        let newest = both.max_by_key(|signed| signed.checkpoint().size);
        (followed, newest, answered)
    }
}

/// The newest tree that each of these mirrors has seen under a log's key, and which
/// mirror that is. To be asked before anything is signed where no [`Recall`] runs: in an
/// empty store it would be a second history, in one of an old backup too. Mirrors that
/// do not answer within three seconds know nothing, as when all are new.
///
/// # Errors
/// A URL that is none.
pub async fn known_to(
    mirrors: &[Mirror],
    key: &VerifierKey,
) -> Result<Vec<(String, SignedCheckpoint)>, Error> {
    let peers = mirrors.iter().map(|mirror| Asked::new(mirror, key));
    let peers: Vec<Asked> = peers.collect::<Result<_, _>>()?;
    let asked = peers.iter().map(async |peer| {
        let (_, newest, _) = tokio::time::timeout(LIMIT, peer.remembers()).await.ok()?;
        Some((peer.log.name().to_owned(), newest?))
    });
    Ok(join_all(asked).await.into_iter().flatten().collect())
}

/// What one peer can prove.
#[derive(Default)]
struct Told {
    /// The newest checkpoint of ours that it knows of.
    ours: Option<SignedCheckpoint>,
    /// The newest whose tree it keeps.
    followed: Option<SignedCheckpoint>,
    /// Of each log: the newest that we cosigned.
    cosigned: Vec<(String, u64, Hash)>,
    /// It answered all that it was asked.
    whole: bool,
}

impl std::fmt::Debug for Recall {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Recall").finish_non_exhaustive()
    }
}

impl Recall {
    pub(super) fn new(
        options: &Options,
        rooms: Arc<Rooms>,
        witness: Arc<Witness>,
    ) -> Result<Recall, Error> {
        let record = rooms.log.record();
        let unusable = |rejection| Error::Key { origin: record.origin.clone(), rejection };
        let key = VerifierKey::ed25519(&record.origin, &record.log_key).map_err(unusable)?;
        let peers = options.mirrors.iter().map(|mirror| Asked::new(mirror, &key));
        let peers: Vec<Asked> = peers.collect::<Result<_, _>>()?;
        Ok(Recall { rooms, witness, peers: Arc::new(peers), poll: options.poll })
    }

    /// Comes back when the log may go on, or is told to stop. Meanwhile it is
    /// served, and what others commit in the same store is followed.
    ///
    /// # Errors
    /// Fatal ones of the log alone.
    pub async fn run(
        &self,
        sequencer: &mut Sequencer,
        stop: &CancellationToken,
    ) -> Result<(), log::Error> {
        if !self.peers.is_empty() {
            self.until_settled(sequencer, stop).await?;
        }
        self.witness.begin();
        Ok(())
    }

    async fn until_settled(
        &self,
        sequencer: &mut Sequencer,
        stop: &CancellationToken,
    ) -> Result<(), log::Error> {
        let mut asked = false;
        loop {
            let answers = tokio::select! {
                answers = self.ask_all() => answers,
                () = stop.cancelled() => return Ok(()),
            };
            match self.weigh(sequencer, &answers).await {
                Ok(true) => return Ok(()),
                Ok(false) => {}
                Err(Error::Log(error)) if error.remedy() == Remedy::Fatal => {
                    tracing::error!(error = with_sources(&error), "the log cannot be taken back");
                }
                Err(error) => {
                    tracing::warn!(error = with_sources(&error), "peers were asked in vain")
                }
            }
            if !std::mem::replace(&mut asked, true) {
                let (shown, needed) = (shown(&answers), self.needed());
                tracing::warn!(shown, needed, "waiting for what peers remember of this log");
            }
            // Others on the same store may go on; whoever waits is told why.
            match sequencer.round().await {
                Err(error) if error.remedy() == Remedy::Fatal => return Err(error),
                _ => {}
            }
            tokio::select! {
                () = tokio::time::sleep(self.poll) => {}
                () = stop.cancelled() => return Ok(()),
            }
        }
    }

    /// Answers that must be in before a doubt ends: all but those that may be liars.
    fn needed(&self) -> usize {
        let n = self.peers.len();
        n - (n.saturating_sub(1)) / 3
    }

    async fn ask_all(&self) -> Vec<Told> {
        join_all(self.peers.iter().map(|peer| self.ask(peer))).await
    }

    /// What comes in time.
    async fn ask(&self, peer: &Asked) -> Told {
        let mut told = Told::default();
        let Told { ours, followed, cosigned, .. } = &mut told;
        let of_us = async {
            let answered;
            (*followed, *ours, answered) = peer.remembers().await;
            answered
        };
        let own = self.rooms.cosigner.verifier();
        let by = hex::encode(Sha256::digest(own.name().as_bytes()));
        let paths = self.peers.iter().map(|other| &other.log).flat_map(|log| {
            let folder = hex::encode(Sha256::digest(log.name().as_bytes()));
            let kept = (log, format!("{folder}/cosigned-by/{by}"));
            let served = (*log == peer.log).then(|| (log, "checkpoint".to_owned()));
            [Some(kept), served].into_iter().flatten()
        });
        let notes: Vec<_> =
            paths.map(async |(log, path)| (log, get(&peer.site, &path).await)).collect();
        let of_others = async {
            let mut notes = stream::iter(notes).buffer_unordered(AT_ONCE);
            let mut answered = true;
            while let Some((log, note)) = notes.next().await {
                answered &= note.is_some();
                cosigned.extend(note.flatten().and_then(|note| cosigned_here(&note, log, &own)));
            }
            answered
        };
        // What came before the time was up counts, but it is not all.
        let both = async { tokio::join!(of_us, of_others) };
        told.whole = matches!(tokio::time::timeout(LIMIT, both).await, Ok((true, true)));
        told
    }

    /// Whether the log may go on, after everything that can be done about it.
    async fn weigh(&self, sequencer: &mut Sequencer, answers: &[Told]) -> Result<bool, Error> {
        let log = &self.rooms.log;
        let news = self.raise(answers).await?;
        let Some(tip) = log.heads().committed else { return Ok(true) };
        let newest = answers.iter().filter_map(|told| told.ours.as_ref());
        let newest = newest.max_by_key(|signed| signed.checkpoint().size);
        let signed = newest.map_or(0, |signed| signed.checkpoint().size);
        match log.blocked() {
            // Nothing that peers say can make a store refuse a second writer.
            Some(Blocked::NoFence) => return Ok(true),
            Some(blocked) if blocked.doubts_memory() => {}
            _ if signed > tip.size => {
                let Head { size, root, .. } = tip;
                log.doubt_memory(Blocked::PeersAhead { size, root, signed });
            }
            _ => return Ok(self.all_are_ours(answers, &tip).await?),
        }
        if news > 0 {
            tracing::info!(logs = news, "peers remember more of what was cosigned here");
        }
        if shown(answers) < self.needed() {
            return Ok(false);
        }
        if !self.all_are_ours(answers, &tip).await? {
            return Ok(false);
        }
        if signed > tip.size {
            self.take_back(sequencer, answers).await?;
        }
        self.settle(sequencer).await
    }

    /// Raises the guard to what was shown: of our log, if it is more than is here,
    /// and of those that we cosigned. Says of how many that was news.
    async fn raise(&self, answers: &[Told]) -> Result<usize, Error> {
        let log = &self.rooms.log;
        let here = log.heads().committed.map_or(0, |head| head.size);
        let ours = answers.iter().filter_map(|told| told.ours.as_ref());
        let shown: Vec<SignedCheckpoint> =
            ours.filter(|signed| signed.checkpoint().size > here).cloned().collect();
        let cosigned: Vec<(String, u64, Hash)> =
            answers.iter().flat_map(|told| told.cosigned.clone()).collect();
        let guard = log.guard().clone();
        let raised = tokio::task::spawn_blocking(move || {
            // One that cannot be read holds nothing; it goes when the doubt ends.
            if guard.read().is_err_and(|error| error.kind() == std::io::ErrorKind::InvalidData) {
                return Ok(0);
            }
            for signed in &shown {
                let tree = signed.checkpoint();
                guard.shown(&tree.origin, tree.size, tree.root)?;
            }
            let mut news = 0;
            for (origin, size, root) in &cosigned {
                news += usize::from(guard.raise_cosigned(origin, *size, *root)?);
            }
            Ok(news)
        });
        let news = raised.await?.map_err(|source| Error::Guard { doing: "raise", source })?;
        if news > 0 {
            self.witness.read_anew().await;
        }
        Ok(news)
    }

    /// Whether every tree that was shown, up to the tip, is one of this log's.
    async fn all_are_ours(&self, answers: &[Told], tip: &Head) -> Result<bool, log::Error> {
        for signed in answers.iter().filter_map(|told| told.ours.as_ref()) {
            let tree = signed.checkpoint();
            if tree.size <= tip.size && self.rooms.log.root_at(tree.size).await? != Some(tree.root)
            {
                self.rooms.log.doubt_memory(Blocked::PeersDiffer { signed: tree.size });
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Takes entries back from whoever keeps the most, then from the next.
    async fn take_back(&self, sequencer: &mut Sequencer, answers: &[Told]) -> Result<(), Error> {
        let mut keepers: Vec<(&Asked, &SignedCheckpoint)> = (self.peers.iter().zip(answers))
            .filter_map(|(peer, told)| Some((peer, told.followed.as_ref()?)))
            .collect();
        keepers.sort_by_key(|(_, followed)| std::cmp::Reverse(followed.checkpoint().size));
        for (peer, followed) in keepers {
            match self.take_back_from(sequencer, peer, followed).await {
                Ok(()) => {}
                Err(Error::Log(error)) if error.remedy() == Remedy::Fatal => {
                    return Err(error.into());
                }
                Err(error) => {
                    let (peer, error) = (peer.log.name(), with_sources(&error));
                    tracing::warn!(peer, error, "a peer does not give our entries back");
                }
            }
        }
        Ok(())
    }

    async fn take_back_from(
        &self,
        sequencer: &mut Sequencer,
        peer: &Asked,
        target: &SignedCheckpoint,
    ) -> Result<(), Error> {
        let mut position = Position::at(sequencer.tip().edge.clone());
        let (first, end) = (position.size(), target.checkpoint().size);
        // Of a batch whose end is on the next page.
        let mut batch: Vec<Bytes> = Vec::new();
        while position.size() < end {
            let page = peer.ours.page(&position, target).await?;
            for entry in page.entries {
                let decoded = Entry::decode(&entry);
                let closes = decoded.is_ok_and(|entry| matches!(entry.kind, Kind::Root(_)));
                batch.push(entry);
                if closes {
                    let blobs = self.blobs(peer, &batch).await?;
                    sequencer.take_back(&batch, &blobs).await?;
                    batch.clear();
                }
            }
            position = page.position;
        }
        if end > first {
            let peer = peer.log.name();
            tracing::warn!(peer, first, end, "took back entries that were missing here");
        }
        Ok(())
    }

    /// The blobs that a batch names, from here or from the peer. One that is
    /// nowhere is told and left out: this log has signed its entry long ago.
    async fn blobs(&self, peer: &Asked, batch: &[Bytes]) -> Result<Vec<(Hash, Bytes)>, Error> {
        let mut found = Vec::new();
        for entry in batch {
            let Ok(Entry { kind: Kind::Domain(domain), .. }) = Entry::decode(entry) else {
                continue;
            };
            let named = [domain.record, domain.org_signet, domain.dnssec_chain];
            for blob in named.into_iter().flatten() {
                if self.rooms.log.reader().blob(&blob.sha256).await? != PublicBlob::Missing {
                    continue;
                }
                match peer.ours.blob(&blob).await? {
                    Fetched::Here(bytes) => found.push((blob.sha256, bytes)),
                    Fetched::Withdrawn | Fetched::Missing => {
                        let blob = keys::blob(&blob.sha256);
                        tracing::warn!(blob, "a blob that an entry of ours names is lost");
                    }
                }
            }
        }
        Ok(found)
    }

    /// Ends the doubt if nothing that is known was signed beyond the tip.
    async fn settle(&self, sequencer: &mut Sequencer) -> Result<bool, Error> {
        let log = &self.rooms.log;
        let Some(Head { size, root, .. }) = log.heads().committed else { return Ok(false) };
        let guard = log.guard().clone();
        let marks = match tokio::task::spawn_blocking(move || guard.read()).await? {
            Err(error) if error.kind() == std::io::ErrorKind::InvalidData => Ok(None),
            other => other,
        };
        let marks = marks.map_err(|source| Error::Guard { doing: "read", source })?;
        if let Some(marks) = marks {
            let own = marks.own.map(|(_, mark)| (mark.size, mark.root));
            let shown = marks.shown.map(|(_, size, root)| (size, root));
            for (signed, known) in own.into_iter().chain(shown) {
                if signed > size {
                    log.doubt_memory(Blocked::PeersAhead { size, root, signed });
                    return Ok(false);
                }
                if log.root_at(signed).await? != Some(known) {
                    log.doubt_memory(Blocked::GuardDiffers { size, root });
                    return Ok(false);
                }
            }
        }
        log.accept_tip(size, root).await?;
        tracing::warn!(size, "peers remember nothing beyond this log's end: it goes on");
        let _ = sequencer.round().await?;
        Ok(true)
    }
}

/// Peers that have shown a checkpoint of ours, and told of all logs.
fn shown(answers: &[Told]) -> usize {
    answers.iter().filter(|told| told.ours.is_some() && told.whole).count()
}

/// A note of a peer, or that it has none; `None` if it did not say.
async fn get(site: &Site, path: &str) -> Option<Option<Bytes>> {
    let answer = site.get(path, MAX_NOTE).await.ok()?;
    match answer.status {
        200 => Some(Some(answer.body)),
        429 | 500.. => None,
        _ => Some(None),
    }
}

/// What a note of this log says that we cosigned.
fn cosigned_here(note: &[u8], log: &VerifierKey, own: &VerifierKey) -> Option<(String, u64, Hash)> {
    let signed = SignedCheckpoint::parse(note).ok()?;
    let tree = signed.checkpoint();
    let by_both = tree.origin == log.name()
        && [log, own].into_iter().all(|key| signed.verify([key]).is_ok_and(|by| !by.is_empty()));
    by_both.then(|| (tree.origin.clone(), tree.size, tree.root))
}
