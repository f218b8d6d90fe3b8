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
//! the following. A tree that was held against a log stays known in its archive, so
//! that the operator's word about it lasts.

use std::sync::Arc;
use std::time::Duration;

use futures::stream::{self, StreamExt as _};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::follow::{Follower, Halt};
use super::{Error, Mirror, Peer};
use crate::client::follow::{Fork, LogSource, Relation};
use crate::errors::with_sources;
use crate::proof::checkpoint::SignedCheckpoint;
use crate::proof::note::MAX_NOTE;

/// Polls of a log's own checkpoint between two rounds: a minute.
const POLLS: u32 = 6;
/// How long one mirror may take to tell of one log.
const LIMIT: Duration = Duration::from_secs(10);
/// Mirrors that are asked at one time.
const AT_ONCE: usize = 8;
/// Words about one log that wait to be looked into; others come again.
const WAITING: usize = 16;

/// What came of asking a mirror, to be looked into by the log's follower.
pub(super) enum Word {
    /// The log signed this tree, and it is not larger than what was followed.
    Signed(SignedCheckpoint),
    Fork(Box<Fork>),
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
    words: mpsc::Sender<Word>,
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
    pub(super) fn about(
        &mut self,
        peer: &Arc<Peer>,
        mirrors: &[Mirror],
    ) -> Result<mpsc::Receiver<Word>, Error> {
        let (words, heard) = mpsc::channel(WAITING);
        for other in mirrors.iter().filter(|other| other.log != *peer.key()) {
            let kept = other.archive_of(peer.key())?;
            let (peer, words) = (Arc::clone(peer), words.clone());
            self.questions.push(Question { peer, kept, words });
        }
        Ok(heard)
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
                if let Some(word) = self.compare(signed).await {
                    let _ = self.words.try_send(word);
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
        let (ours, theirs) = (held.checkpoint(), signed.checkpoint());
        if theirs == ours || theirs.size == 0 {
            return None;
        }
        if theirs.size <= ours.size {
            return Some(Word::Signed(signed));
        }
        match self.kept.relate(&held, &signed).await {
            Ok(Relation::Fork(fork)) => Some(Word::Fork(fork)),
            Ok(_) => None,
            Err(error) => {
                let (peer, error) = (self.peer.origin(), with_sources(&error));
                tracing::debug!(peer, error, "what another mirror was shown proves nothing");
                None
            }
        }
    }
}

impl Follower {
    /// Looks into what another mirror was shown. A fork that was held against the log
    /// before is none again.
    pub(super) async fn hear(&mut self, word: Word) -> Result<(), Halt> {
        if self.replay.is_none() {
            return Ok(());
        }
        let (tree, found) = match word {
            Word::Fork(fork) => (fork.larger.checkpoint().clone(), Err(self.forked(*fork))),
            Word::Signed(signed) => (signed.checkpoint().clone(), self.target(signed).await),
        };
        match found {
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
}
