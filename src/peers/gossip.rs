//! What the other mirrors were shown of a log, held against what was followed here.
//!
//! A log that shows one history to one mirror and another to a second is replayed
//! and cosigned by both, and neither finds it out from the log. So in every round
//! each other mirror is asked, on its monitoring paths, for the newest checkpoint of
//! that log that it followed, and the newest that it cosigned.
//!
//! Only the log's own signature counts, and only what its tiles prove: those of the
//! larger tree, from the other mirror's archive or from ours. Whatever else a mirror
//! says, or does not say, accuses nobody, and keeps nobody waiting: it is asked beside
//! the following. A fork that is proved waits for nothing: whatever the log has drawn
//! out, by tiles or blobs that drip, is cut off for it. A tree that was held against a
//! log stays known in its archive, so that the operator's word about it lasts.

use std::sync::Arc;
use std::time::Duration;

use futures::stream::{self, StreamExt as _};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::follow::{Follower, Halt};
use super::{Error, Mirror, Peer};
use crate::client::follow::{Fork, LogSource, Relation};
use crate::errors::with_sources;
use crate::proof::checkpoint::{Checkpoint, SignedCheckpoint};
use crate::proof::note::MAX_NOTE;

/// Polls of a log's own checkpoint between two rounds: a minute.
const POLLS: u32 = 6;
/// How long one mirror may take to tell of one log.
const LIMIT: Duration = Duration::from_secs(10);
/// Mirrors that are asked at one time.
const AT_ONCE: usize = 8;
/// Words about one log that wait to be looked into; others come again.
const WAITING: usize = 16;

/// What came of asking a mirror.
enum Word {
    /// The log signed this tree, it is not larger than what was followed, and what is
    /// kept here does not tell: to be looked into.
    Signed(SignedCheckpoint),
    Fork(Shown),
}

/// A tree that another mirror was shown, and the proof that it is of another history.
pub(super) struct Shown {
    pub tree: Checkpoint,
    pub fork: Box<Fork>,
}

/// What a log's follower hears.
pub(super) struct Words {
    pub signed: mpsc::Receiver<SignedCheckpoint>,
    /// Proved; apart from the others, so that none of them is in its way.
    pub forks: mpsc::Receiver<Shown>,
}

/// Asks the mirrors about each other's logs.
pub(super) struct Gossip {
    questions: Vec<Question>,
    every: Duration,
}

/// One log, and one other mirror.
struct Question {
    peer: Arc<Peer>,
    /// Where that mirror keeps what it followed of the log.
    kept: LogSource,
    signed: mpsc::Sender<SignedCheckpoint>,
    forks: mpsc::Sender<Shown>,
}

impl Gossip {
    /// `poll` is between two looks at a log's own checkpoint.
    pub(super) fn new(poll: Duration) -> Gossip {
        Gossip { questions: Vec::new(), every: poll.saturating_mul(POLLS) }
    }

    /// Has all mirrors but its own asked about a log.
    ///
    /// # Errors
    /// A URL that is none.
    pub(super) fn about(&mut self, peer: &Arc<Peer>, mirrors: &[Mirror]) -> Result<Words, Error> {
        let (signed, signed_heard) = mpsc::channel(WAITING);
        // One is enough.
        let (forks, forks_heard) = mpsc::channel(1);
        for other in mirrors.iter().filter(|other| other.log != *peer.key()) {
            let kept = other.archive_of(peer.key())?;
            let (peer, signed, forks) = (Arc::clone(peer), signed.clone(), forks.clone());
            self.questions.push(Question { peer, kept, signed, forks });
        }
        Ok(Words { signed: signed_heard, forks: forks_heard })
    }

    pub(super) async fn run(self, shutdown: CancellationToken) {
        let mut round = tokio::time::interval(self.every);
        round.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = shutdown.cancelled() => return,
                _ = round.tick() => {}
            }
            let all: Vec<_> = self.questions.iter().map(Question::ask).collect();
            let all = stream::iter(all).buffer_unordered(AT_ONCE).collect::<()>();
            if shutdown.run_until_cancelled(all).await.is_none() {
                return;
            }
        }
    }
}

impl Question {
    /// What comes in time.
    async fn ask(&self) {
        let asking = async {
            let (followed, cosigned) = tokio::join!(self.read("followed"), self.read("checkpoint"));
            let cosigned = cosigned.filter(|cosigned| {
                followed.as_ref().is_none_or(|f| f.checkpoint() != cosigned.checkpoint())
            });
            for signed in followed.into_iter().chain(cosigned) {
                // What finds no room comes again in the next round.
                match self.compare(signed).await {
                    Some(Word::Signed(signed)) => drop(self.signed.try_send(signed)),
                    Some(Word::Fork(fork)) => drop(self.forks.try_send(fork)),
                    None => {}
                }
            }
        };
        let _ = tokio::time::timeout(LIMIT, asking).await;
    }

    async fn read(&self, path: &str) -> Option<SignedCheckpoint> {
        let answer = self.kept.site().get(path, MAX_NOTE).await.ok()?;
        let note = (answer.status == 200).then_some(answer.body)?;
        self.kept.read_checkpoint(&note).ok()
    }

    async fn compare(&self, signed: SignedCheckpoint) -> Option<Word> {
        let held = self.peer.standing().signed?;
        let (ours, theirs) = (held.checkpoint(), signed.checkpoint().clone());
        if theirs == *ours || theirs.size == 0 {
            return None;
        }
        let related = match theirs.size > ours.size {
            true => self.kept.relate(&held, &signed).await,
            false => match self.kept_here(&held, &signed).await {
                Some(related) => Ok(related),
                None => return Some(Word::Signed(signed)),
            },
        };
        match related {
            // What was filed before is no news.
            Ok(Relation::Fork(fork)) => {
                let known = self.peer.archive().is_held_against(&theirs).await;
                (!known.unwrap_or(false)).then_some(Word::Fork(Shown { tree: theirs, fork }))
            }
            Ok(_) => None,
            Err(error) => {
                let (peer, error) = (self.peer.origin(), with_sources(&error));
                tracing::debug!(peer, error, "what another mirror was shown proves nothing");
                None
            }
        }
    }

    /// What a tree that is not larger is to the one followed, by what is kept of that;
    /// `None` if it is damaged, or was followed further meanwhile.
    async fn kept_here(
        &self,
        held: &SignedCheckpoint,
        shown: &SignedCheckpoint,
    ) -> Option<Relation> {
        let (ours, theirs) = (held.checkpoint(), shown.checkpoint());
        if theirs.size == ours.size {
            return self.kept.relate(held, shown).await.ok();
        }
        let kept = self.peer.archive().consistency(theirs.size, ours).await;
        let (prefix, proof) = kept.ok()?;
        if prefix == theirs.root {
            return Some(Relation::Older);
        }
        let (smaller, larger) = (shown.clone(), held.clone());
        Some(Relation::Fork(Box::new(Fork { smaller, larger, prefix, proof })))
    }
}

impl Follower {
    /// Looks into what another mirror was shown.
    pub(super) async fn hear(&mut self, signed: SignedCheckpoint) -> Result<(), Halt> {
        if self.replay.is_none() {
            return Ok(());
        }
        let tree = signed.checkpoint().clone();
        match self.target(signed).await {
            Err(Halt::Condition(why)) => {
                let peer = self.peer.origin();
                tracing::debug!(peer, ?why, "what another mirror was shown proves nothing");
                Ok(())
            }
            Err(_) if self.archive().is_held_against(&tree).await? => Ok(()),
            Err(fault) => Err(fault),
            Ok(_) => Ok(()),
        }
    }

    /// A fork is proved, and whatever was being done has ended where it was.
    pub(super) async fn cut_off(&mut self, shown: Shown) -> Result<(), Halt> {
        // The map may be ahead of the archive.
        self.replay = None;
        let archive = self.archive();
        if archive.fault().await?.is_some() || archive.is_held_against(&shown.tree).await? {
            return Ok(());
        }
        Err(self.forked(*shown.fork))
    }
}
