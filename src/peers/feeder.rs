//! Gives our checkpoints to one cosigner and takes its cosignatures: the
//! client's side of C2SP tlog-witness.
//!
//! A mirror gets every head as soon as it is signed, since publication waits
//! for it; a public witness the newest published one, as often as it takes
//! requests. Whatever it answers beside a cosignature of now costs only time: what it
//! says of a larger tree of ours is not believed without our signature (threat 12).

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::Rooms;
use super::witness::MAX_OFFSET;
use crate::client::Site;
use crate::dime::Timestamp;
use crate::errors::with_sources;
use crate::log::{Cosignature, Head};
use crate::proof::checkpoint::{AddCheckpoint, SignedCheckpoint};
use crate::proof::note::{MAX_NOTE, Signature, VerifierKey};

/// Tries with another old size for one head.
const CONFLICTS: usize = 3;
/// Pause after a failure; it doubles.
const PAUSE: Duration = Duration::from_secs(1);
const MAX_PAUSE: Duration = Duration::from_secs(60);
/// Longest pause that a cosigner may ask for.
const MAX_RETRY_AFTER: u64 = 3600;

pub(super) struct Feeder {
    site: Site,
    key: VerifierKey,
    /// Requests a day of a public witness; `None` for a mirror.
    qpd: Option<u32>,
    rooms: Arc<Rooms>,
    /// Set when it is sure which head is our newest.
    begun: watch::Receiver<bool>,
    /// The size that it has cosigned last, as far as we know.
    known: u64,
}

/// What came of one submission.
enum Outcome {
    Cosigned,
    /// Come back, after so long if it says so.
    Later(Option<Duration>, String),
}

impl Feeder {
    pub(super) fn new(
        site: Site,
        key: VerifierKey,
        qpd: Option<u32>,
        rooms: Arc<Rooms>,
        begun: watch::Receiver<bool>,
    ) -> Feeder {
        Feeder { site, key, qpd, rooms, begun, known: 0 }
    }

    pub(super) async fn run(mut self, shutdown: CancellationToken) {
        let feeding = async {
            if self.begun.wait_for(|begun| *begun).await.is_err() {
                return;
            }
            let mut heads = self.rooms.log.watch_heads();
            let (mut done, mut pause) = (0, PAUSE);
            loop {
                let Some(head) = self.head().filter(|head| head.size > done) else {
                    if heads.changed().await.is_err() {
                        return;
                    }
                    continue;
                };
                let began = Instant::now();
                match self.submit(&head).await {
                    Outcome::Cosigned => {
                        (done, pause) = (head.size, PAUSE);
                        self.count("cosigned");
                    }
                    Outcome::Later(after, why) => {
                        self.count("refused");
                        tracing::debug!(cosigner = self.key.name(), why, "not cosigned");
                        tokio::time::sleep(after.unwrap_or(pause)).await;
                        pause = (pause * 2).min(MAX_PAUSE);
                    }
                }
                if let Some(qpd) = self.qpd {
                    let spacing = Duration::from_secs(86_400) / qpd;
                    tokio::time::sleep(spacing.saturating_sub(began.elapsed())).await;
                }
            }
        };
        tokio::select! {
            () = feeding => {}
            () = shutdown.cancelled() => {}
        }
    }

    fn head(&self) -> Option<Head> {
        match self.qpd {
            None => self.rooms.log.signed(),
            Some(_) => self.rooms.log.heads().published,
        }
    }

    fn count(&self, outcome: &str) {
        self.rooms.metrics.submissions.with_label_values(&[self.key.name(), outcome]).inc();
    }

    async fn submit(&mut self, head: &Head) -> Outcome {
        for _ in 0..CONFLICTS {
            match self.ask(head).await {
                Ok(Some(outcome)) => return outcome,
                Ok(None) => {}
                Err(error) => return Outcome::Later(None, with_sources(&error)),
            }
        }
        Outcome::Later(None, "it changes its mind about what it has cosigned".into())
    }

    /// One request; `None` if it has cosigned another size than we thought.
    async fn ask(&mut self, head: &Head) -> Result<Option<Outcome>, super::Error> {
        let later = |after: Option<u64>, why: String| {
            let after = after.map(|secs| Duration::from_secs(secs.clamp(1, MAX_RETRY_AFTER)));
            Ok(Some(Outcome::Later(after, why)))
        };
        let Some(note) = &head.checkpoint else { return later(None, "not signed".into()) };
        let Ok(signed) = SignedCheckpoint::parse(note) else {
            return later(None, "our own checkpoint cannot be read".into());
        };
        let proof = match self.known {
            0 => Vec::new(),
            known => self.rooms.log.reader().consistency(known, head.size).await?,
        };
        let request = AddCheckpoint { old: self.known, proof, checkpoint: signed.clone() };
        let body = request.to_string().into();
        let kind = "text/plain; charset=utf-8";
        let answer = self.site.post("add-checkpoint", kind, "*/*", body, MAX_NOTE).await?;
        match answer.status {
            200 => {}
            409 => {
                let said =
                    std::str::from_utf8(&answer.body).ok().and_then(|t| t.trim().parse().ok());
                return match said {
                    Some(size) if size <= head.size => {
                        self.known = size;
                        Ok(None)
                    }
                    // Only our own signature could show it.
                    Some(size) => later(Some(60), format!("it says that it cosigned size {size}")),
                    None => later(Some(60), "409 without a size".into()),
                };
            }
            status => {
                let words: String = String::from_utf8_lossy(&answer.body)
                    .chars()
                    .filter(|c| !c.is_control())
                    .take(200)
                    .collect();
                return later(answer.retry_after, format!("{status}: {words}"));
            }
        }
        // As the standard says: append its lines, and read the note.
        let mut whole = signed.to_string().into_bytes();
        whole.extend_from_slice(&answer.body);
        let Ok(cosigned) = SignedCheckpoint::parse(&whole) else {
            return later(Some(60), "its answer is no signature".into());
        };
        let ours = signed.note().signatures();
        let lines = cosigned.note().signatures().iter().skip(ours.len());
        let claimed: Vec<&Signature> = lines.filter(|line| self.key.claims(line)).collect();
        let made = |line: &&Signature| self.key.verify(cosigned.note().text(), &line.body).ok();
        let times: Vec<Option<Timestamp>> =
            claimed.iter().filter_map(made).map(|verified| verified.time).collect();
        if times.is_empty() || times.len() != claimed.len() {
            return later(Some(60), "its cosignature does not verify".into());
        }
        // Others count none of another time: nothing may be published on it.
        let now = self.rooms.clock.now();
        for at in times.into_iter().flatten() {
            if at.since(now).max(now.since(at)) > MAX_OFFSET {
                return later(
                    Some(60),
                    format!("its cosignature is of {at}, this clock says {now}"),
                );
            }
        }
        let cosignatures: Vec<Cosignature> = claimed
            .into_iter()
            .map(|line| Cosignature {
                key: self.key.clone(),
                signature: line.clone(),
                counts: self.qpd.is_none(),
            })
            .collect();
        self.known = head.size;
        self.rooms.log.cosign(head.size, &cosignatures).await?;
        Ok(Some(Outcome::Cosigned))
    }
}
