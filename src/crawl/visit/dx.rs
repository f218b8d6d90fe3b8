//! The DX of one visit.

use std::time::Duration;

use super::{Failure, REOPENINGS, Visitor};
use crate::crawl::Outcome;
use crate::crawl::frontier::Insist;
use crate::dime::record::Record;
use crate::dime::{Dnssec, Domain, Timestamp};
use crate::dmtp::Held;
use crate::dmtp::client::{self, Fault, Phase, Session, Spoiled};

/// How often, and how long at most each time, a visit waits for a host that has its
/// hands full with us.
const WAITS: u32 = 5;
const WAIT: Duration = Duration::from_secs(2);

/// The DX of one visit: a connection that is opened again when it broke.
pub(super) struct Dx<'a> {
    /// Signets that are fetched, whatever the DX says of them; all that were seen
    /// before the domain's last entry too.
    pub(super) insist: Insist,
    pub(super) since: Timestamp,
    pub(super) visitor: &'a Visitor,
    pub(super) domain: &'a Domain,
    pub(super) record: &'a Record,
    pub(super) dnssec: Dnssec,
    pub(super) session: Option<Session>,
    /// Signets that this session has given; one that was kept gave some before.
    pub(super) given: u32,
    pub(super) reopenings: u32,
    /// For the org signet, which the visit keeps to its end.
    pub(super) held: Option<Held>,
}

impl Dx<'_> {
    pub(super) async fn session(&mut self) -> Result<&mut Session, Failure> {
        if self.session.is_none() {
            if self.reopenings == 0 {
                let detail = "the connection broke too often".to_owned();
                return Err(Failure::new(Outcome::Dx("truncated"), detail));
            }
            self.reopenings -= 1;
            let reached = self.reopened().await?;
            self.given = u32::from(reached.is_kept());
            self.session = Some(reached);
        }
        self.session.as_mut().ok_or_else(|| Failure::new(Outcome::Ours, "no session".to_owned()))
    }

    /// The connection that broke made room for this one, but for those who came
    /// in between.
    async fn reopened(&self) -> Result<Session, Failure> {
        let mut waits = 0;
        loop {
            let reached = self.visitor.reach(self.domain, self.record, self.dnssec).await;
            match reached {
                Err(Failure { outcome: Outcome::HostBusy, later: Some(at), .. })
                    if waits < WAITS =>
                {
                    waits += 1;
                    let wait = at.since(self.visitor.rooms.clock.now());
                    tokio::time::sleep(Duration::from_millis(wait).min(WAIT)).await;
                }
                reached => return reached.map(|(session, _)| session),
            }
        }
    }

    /// The last reply is kept to the end of the visit.
    pub(super) fn hold(&mut self) {
        self.held = self.session.as_mut().map(Session::held);
    }

    /// The session is good: whatever breaks later is another break.
    pub(super) fn gave(&mut self) {
        self.given += 1;
        self.reopenings = REOPENINGS;
    }

    /// Whether the host may only have ended a session that was used for long
    /// enough. Its goodbye is text that nothing asked for, so it is malformed.
    pub(super) fn is_used_up(&self, error: &client::Error) -> bool {
        use client::Error::{Malformed, Refused, Slow, Truncated};
        let ended = match error {
            Truncated | Malformed(_) | Slow(Phase::Session) => true,
            Refused { code, .. } => *code == 421,
            _ => false,
        };
        ended && self.given > 0
    }

    /// Keeps the session for other domains of the host, if it was of use, or
    /// says goodbye.
    pub(super) async fn leave(&mut self, good: bool) {
        let kept = &self.visitor.options.dmtp.kept;
        let over = match (self.session.take(), good) {
            (Some(session), true) => kept.put(session),
            (session, _) => session,
        };
        if let Some(session) = over {
            session.quit().await;
        }
    }

    /// What came in the place of a signet. Ask before [`Dx::judge`].
    pub(super) fn spoiled(&self, error: &client::Error) -> Option<Spoiled> {
        self.session.as_ref()?.spoiled(error)
    }

    /// After any error but an answer a session is of no more use.
    pub(super) fn judge(&mut self, error: &client::Error) -> Failure {
        let closing = matches!(error, client::Error::Refused { code: 421, .. });
        if error.fault() != Fault::Answer || closing {
            self.session = None;
        }
        self.visitor.of_dx(error)
    }
}
