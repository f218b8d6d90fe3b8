//! One name compared with one peer, step by step (threat 8): pure, with time as
//! an argument.
//!
//! The first question is for what the peer knows. If the two histories differ,
//! both sides visit the name again, ours first, theirs after it, and once more
//! after [`Pace::recheck`]. A *split view* is a difference that all of these
//! show: DIVERGED, or the same side with the same tip behind. A visit counts if
//! the receipt that follows it says that the tip was seen since the last one:
//! whoever could not ask the DX has seen nothing, and is accused of nothing. An
//! *update withheld* is a peer that for [`Pace::withheld`] answers with the same
//! old tip, and neither says that it saw it again nor that it tried in vain. If it
//! says that it tried, nobody can tell whether it did: that is *unseen*, which is
//! shown and accuses nobody. So is *unshown*: for as long nothing came of the peer but
//! what is no receipt of the name, or that one should come later; or what it showed
//! is not enough of its history to tell.
//!
//! On disk: JSON, one row of `Table::Comparisons`.

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::dime::Timestamp;
use crate::proof::relation::{Keys, Relation, Side, Sights};

/// Between the two visits of one side.
pub const RECHECK: u64 = 60_000;
/// After so long the same lag is an update withheld.
pub const WITHHELD: u64 = 24 * 3_600_000;
/// Parts of [`Pace::withheld`] that a peer may be silent without starting anew.
const SILENCES: u64 = 12;
/// Longest wait between two questions, milliseconds.
const LONGEST: u64 = 3_600_000;
/// Visits that must show the same, of each side.
const ROUNDS: u8 = 2;

/// How fast it goes, milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pace {
    pub recheck: u64,
    pub withheld: u64,
}

impl Default for Pace {
    fn default() -> Pace {
        Pace { recheck: RECHECK, withheld: WITHHELD }
    }
}

/// A comparison that is not over.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Comparison {
    began: u64,
    due: u64,
    /// Questions in a row that brought nothing.
    failures: u32,
    dispute: Option<Dispute>,
    /// A difference that was raised: it is not raised again until then.
    raised: Option<Raised>,
    /// Since when the peer has answered and shown nothing; 0: the last answer did.
    #[serde(default)]
    unshown_since: u64,
    /// The peer's log has this version: a receipt of less is none.
    #[serde(default)]
    least: u64,
}

/// A difference that was seen at least once.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Dispute {
    /// `None`: diverged.
    lag: Option<Side>,
    /// Of what differs: both tips.
    tips: String,
    since: u64,
    answered: u64,
    ours_seen: u64,
    theirs_seen: u64,
    /// Fresh visits that showed it, ours and theirs by turns, by our clock.
    looks: Vec<(Side, u64)>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Raised {
    tips: String,
    until: u64,
    /// Not raised but shown: [`Outcome::Unseen`].
    #[serde(default)]
    unseen: bool,
    /// The same: too little of the peer's history was there to tell.
    #[serde(default)]
    unshown: bool,
}

/// What to do next, once it is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Ask the peer for what it knows.
    Ask,
    /// Visit the name here, then ask the peer for a visit.
    Look,
}

/// What came of a step.
#[derive(Clone, Copy, Debug)]
pub enum Heard<'a> {
    /// Both receipts, verified, and when our own visit ended if there was one.
    Both { ours: &'a Sights, theirs: &'a Sights, looked: Option<Timestamp> },
    /// The peer is at it, or over its quota; ask again after so long, milliseconds.
    Later(u64),
    /// No answer.
    Nothing,
    /// None that holds.
    Wrong,
    /// The peer does not let us ask.
    Refused,
}

/// How it ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    Same,
    /// One side has nothing of the name.
    Unknown,
    /// With the visits that showed it, by our clock.
    SplitView(Vec<(Side, Timestamp)>),
    UpdateWithheld,
    /// The peer owes the new key for as long, and says that it tried.
    Unseen,
    /// The same difference was raised not long ago.
    Known,
    Refused,
    /// Nothing came of it for longer than an update may be withheld.
    GivenUp,
}

impl Outcome {
    /// For metrics.
    pub fn as_str(&self) -> &'static str {
        match self {
            Outcome::Same => "same",
            Outcome::Unknown => "unknown",
            Outcome::SplitView(_) => "split-view",
            Outcome::UpdateWithheld => "update-withheld",
            Outcome::Unseen => "unseen",
            Outcome::Known => "known",
            Outcome::Refused => "refused",
            Outcome::GivenUp => "given-up",
        }
    }
}

impl Comparison {
    pub fn new(now: Timestamp) -> Comparison {
        let now = now.millis();
        Comparison {
            began: now,
            due: now,
            failures: 0,
            dispute: None,
            raised: None,
            unshown_since: 0,
            least: 0,
        }
    }

    pub fn due(&self) -> Timestamp {
        Timestamp::from_millis(self.due)
    }

    pub fn step(&self) -> Step {
        match self.dispute {
            None => Step::Ask,
            Some(_) => Step::Look,
        }
    }

    /// Whether it is only kept so that a difference is not raised again.
    pub fn is_over(&self) -> bool {
        self.raised.is_some() && self.dispute.is_none() && self.due == u64::MAX
    }

    /// Whether the peer said for so long that it cannot see what is seen here, and has
    /// shown nothing else since.
    pub fn is_unseen(&self) -> bool {
        self.raised.as_ref().is_some_and(|raised| raised.unseen)
    }

    /// Whether for so long the peer has answered and not shown what would tell.
    pub fn is_unshown(&self, pace: &Pace, now: Timestamp) -> bool {
        let since = now.millis().saturating_sub(self.unshown_since);
        self.raised.as_ref().is_some_and(|raised| raised.unshown)
            || self.unshown_since != 0 && since >= pace.withheld
    }

    /// The peer's log is known to have this version of the name.
    pub fn expect(&mut self, version: u64) {
        self.least = self.least.max(version);
    }

    /// The version that its receipt must have.
    pub fn least(&self) -> u64 {
        self.least
    }

    /// Until when it is kept for that.
    pub fn kept_until(&self) -> Timestamp {
        Timestamp::from_millis(self.raised.as_ref().map_or(0, |raised| raised.until))
    }

    /// Something changed: begins anew, unless it goes on.
    pub fn again(&mut self, now: Timestamp) {
        if self.is_over() {
            let (raised, least) = (self.raised.take(), self.least);
            *self = Comparison { raised, least, ..Comparison::new(now) };
        } else if self.dispute.is_none() {
            self.due = self.due.min(now.millis());
        }
    }

    /// Takes what a step brought; `Some` when it is over.
    pub fn hear(&mut self, heard: Heard<'_>, pace: &Pace, now: Timestamp) -> Option<Outcome> {
        let age = now.millis().saturating_sub(self.began);
        match heard {
            Heard::Both { .. } | Heard::Refused => self.unshown_since = 0,
            Heard::Later(_) | Heard::Wrong if self.unshown_since == 0 => {
                self.unshown_since = now.millis();
            }
            Heard::Later(_) | Heard::Wrong | Heard::Nothing => {}
        }
        let outcome = match heard {
            Heard::Refused => Some(Outcome::Refused),
            Heard::Later(wait) => {
                self.due = now.millis().saturating_add(wait.clamp(1, LONGEST));
                None
            }
            Heard::Nothing | Heard::Wrong => {
                self.failures = self.failures.saturating_add(1);
                let doubled = pace.recheck.saturating_mul(1 << self.failures.min(16));
                self.due = now.millis().saturating_add(doubled.min(LONGEST));
                None
            }
            Heard::Both { ours, theirs, looked } => {
                self.failures = 0;
                self.compare(ours, theirs, looked, pace, now)
            }
        };
        match outcome {
            None if age > pace.withheld.saturating_mul(2) => {
                if self.is_unshown(pace, now) {
                    self.keep_unshown(pace, now);
                }
                Some(Outcome::GivenUp)
            }
            outcome => outcome,
        }
    }

    /// It is over, and shown for as long as an update may be withheld.
    fn keep_unshown(&mut self, pace: &Pace, now: Timestamp) {
        let (tips, until) = (String::new(), now.millis().saturating_add(pace.withheld));
        self.raised = Some(Raised { tips, until, unseen: false, unshown: true });
        (self.dispute, self.due) = (None, u64::MAX);
    }

    fn compare(
        &mut self,
        ours: &Sights,
        theirs: &Sights,
        looked: Option<Timestamp>,
        pace: &Pace,
        now: Timestamp,
    ) -> Option<Outcome> {
        let lag = match Relation::of(ours, theirs) {
            Relation::Same => return Some(Outcome::Same),
            Relation::Unknown => {
                if theirs.tip().is_some() && !theirs.is_whole() && ours.tip().is_some() {
                    self.keep_unshown(pace, now);
                }
                return Some(Outcome::Unknown);
            }
            Relation::Lag(side) => Some(side),
            Relation::Diverged => None,
        };
        let tips = tips(ours, theirs);
        // What was only shown may turn out to be more.
        let raised = self.raised.as_ref().filter(|raised| !raised.unseen && !raised.unshown);
        if raised.is_some_and(|raised| raised.tips == tips && raised.until > now.millis()) {
            return Some(Outcome::Known);
        }
        let going_on = self.dispute.take().filter(|dispute| {
            // Apart stays apart, with whatever keys; a lag is one of its tips.
            dispute.lag == lag && (lag.is_none() || dispute.tips == tips)
        });
        let Some(mut dispute) = going_on else {
            // At once, unless it changes all the time.
            let first = looked.is_none();
            self.due = now.millis().saturating_add(if first { 0 } else { pace.recheck });
            self.dispute = Some(Dispute::new(lag, tips, ours, theirs, now));
            return None;
        };
        let silence = now.millis().saturating_sub(dispute.answered);
        if silence > pace.withheld / SILENCES {
            dispute.since = now.millis();
        }
        dispute.answered = now.millis();
        dispute.tips = tips;
        let fresh = ours.last_seen().millis() > dispute.ours_seen
            && theirs.last_seen().millis() > dispute.theirs_seen;
        let outcome = match looked {
            Some(looked) if fresh => {
                dispute.ours_seen = ours.last_seen().millis();
                dispute.theirs_seen = theirs.last_seen().millis();
                dispute.looks.push((Side::Ours, looked.millis()));
                dispute.looks.push((Side::Theirs, now.millis().max(looked.millis())));
                let enough = dispute.looks.len() >= usize::from(ROUNDS) * 2;
                enough.then(|| Outcome::SplitView(dispute.looks()))
            }
            _ if !dispute.is_owed(ours, theirs, pace, now) => None,
            _ if has_tried(ours, theirs) => Some(Outcome::Unseen),
            _ => Some(Outcome::UpdateWithheld),
        };
        // A side that does not get to see anything is asked less and less often, and
        // often enough that its silence is its own.
        let waited = now.millis().saturating_sub(dispute.since);
        let rarest = LONGEST.min(pace.withheld / (2 * SILENCES)).max(pace.recheck);
        let wait = if fresh { pace.recheck } else { pace.recheck.max(waited / 8).min(rarest) };
        self.due = now.millis().saturating_add(wait);
        if outcome.is_some() {
            let until = now.millis().saturating_add(pace.withheld);
            let unseen = outcome == Some(Outcome::Unseen);
            self.raised = Some(Raised { tips: dispute.tips, until, unseen, unshown: false });
            self.due = u64::MAX;
            return outcome;
        }
        self.dispute = Some(dispute);
        None
    }
}

impl Dispute {
    fn new(
        lag: Option<Side>,
        tips: String,
        ours: &Sights,
        theirs: &Sights,
        now: Timestamp,
    ) -> Dispute {
        Dispute {
            lag,
            tips,
            since: now.millis(),
            answered: now.millis(),
            ours_seen: ours.last_seen().millis(),
            theirs_seen: theirs.last_seen().millis(),
            looks: Vec::new(),
        }
    }

    fn looks(&self) -> Vec<(Side, Timestamp)> {
        self.looks.iter().map(|(side, at)| (*side, Timestamp::from_millis(*at))).collect()
    }

    /// Whether the peer owes the new key: it has answered all the time, and we saw
    /// the new one after it says to have seen the old one.
    fn is_owed(&self, ours: &Sights, theirs: &Sights, pace: &Pace, now: Timestamp) -> bool {
        self.lag == Some(Side::Theirs)
            && now.millis().saturating_sub(self.since) >= pace.withheld
            && ours.last_seen() >= theirs.last_seen()
    }
}

/// Whether the peer says that it tried since we saw the new key, and could not.
fn has_tried(ours: &Sights, theirs: &Sights) -> bool {
    let new_since = ours.tip().is_some_and(|tip| theirs.attempted_at() > tip.seen);
    theirs.attempted_at() > theirs.last_seen() && new_since
}

/// Names a pair of tips.
fn tips(ours: &Sights, theirs: &Sights) -> String {
    let mut hash = Sha256::new();
    for sights in [ours, theirs] {
        match sights.tip().map(|tip| tip.keys) {
            None => hash.update([0]),
            Some(Keys::Mailbox(keys)) => hash.update(keys),
            Some(Keys::Domain { poks, org_signet }) => {
                hash.update(poks);
                hash.update(org_signet.unwrap_or_default());
            }
        }
    }
    hex::encode(hash.finalize())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proof::relation::Sight;

    const PACE: Pace = Pace { recheck: 60_000, withheld: WITHHELD };
    const MINUTE: u64 = 60_000;
    const HOUR: u64 = 60 * MINUTE;

    fn at(millis: u64) -> Timestamp {
        Timestamp::from_millis(1_800_000_000_000 + millis)
    }

    /// What a mirror says: the keys it saw, each with its time, and when it last
    /// saw the tip and last tried to.
    fn mirror(seen: &[(u8, u64)], confirmed: u64, tried: u64) -> Sights {
        let list = (1..).zip(seen).map(|(version, (key, time))| Sight {
            version,
            seen: at(*time),
            keys: Keys::Mailbox([*key; 32]),
        });
        Sights::new(list.collect(), seen.len() as u64, at(confirmed), at(tried), true)
    }

    /// A mirror that has just looked.
    fn looking(seen: &[(u8, u64)], now: u64) -> Sights {
        mirror(seen, now, now)
    }

    struct Case {
        comparison: Comparison,
        now: u64,
    }

    impl Case {
        fn new() -> Case {
            Case { comparison: Comparison::new(at(0)), now: 0 }
        }

        /// Takes the next step when it is due; both answer within a second.
        fn step(&mut self, answer: impl Fn(u64) -> (Sights, Sights)) -> Option<Outcome> {
            self.now = self.now.max(self.comparison.due().since(at(0))) + 1000;
            let (ours, theirs) = answer(self.now);
            let looked = (self.comparison.step() == Step::Look).then(|| at(self.now - 500));
            // Kept rows come back as they were.
            let row = serde_json::to_vec(&self.comparison).unwrap();
            self.comparison = serde_json::from_slice(&row).unwrap();
            let heard = Heard::Both { ours: &ours, theirs: &theirs, looked };
            self.comparison.hear(heard, &PACE, at(self.now))
        }

        fn hear(&mut self, heard: Heard<'_>) -> Option<Outcome> {
            self.now = self.now.max(self.comparison.due().since(at(0))) + 1000;
            self.comparison.hear(heard, &PACE, at(self.now))
        }
    }

    const OLD: &[(u8, u64)] = &[(1, 10)];
    const NEW: &[(u8, u64)] = &[(1, 10), (2, 20)];
    const FORGED: &[(u8, u64)] = &[(1, 10), (9, 20)];

    #[test]
    fn a_split_view_takes_two_visits_of_each_by_turns() {
        for (ours, theirs) in [(FORGED, OLD), (OLD, FORGED), (NEW, FORGED), (FORGED, NEW)] {
            let mut case = Case::new();
            let views = |now| (looking(ours, now), looking(theirs, now));
            assert_eq!(case.comparison.step(), Step::Ask);
            assert_eq!(case.step(views), None);
            assert_eq!(case.comparison.step(), Step::Look);
            assert_eq!(case.step(views), None);
            let first = case.now;
            let Some(Outcome::SplitView(looks)) = case.step(views) else { panic!() };
            let sides: Vec<Side> = looks.iter().map(|(side, _)| *side).collect();
            assert_eq!(sides, [Side::Ours, Side::Theirs, Side::Ours, Side::Theirs]);
            assert!(looks.windows(2).all(|pair| pair[0].1 <= pair[1].1));
            assert!(case.now - first >= PACE.recheck);
            // Raised once, however often somebody asks.
            assert!(case.comparison.is_over());
            case.comparison.again(at(case.now));
            assert_eq!(case.step(views), Some(Outcome::Known));
            case.comparison.again(at(case.now + WITHHELD + 1));
        }
    }

    #[test]
    fn a_crawl_behind_catches_up() {
        let mut case = Case::new();
        assert_eq!(case.step(|now| (looking(NEW, now), mirror(OLD, 10, 10))), None);
        assert_eq!(case.step(|now| (looking(NEW, now), looking(NEW, now))), Some(Outcome::Same));
    }

    #[test]
    fn a_name_that_changes_all_the_time_is_no_split_view() {
        let mut case = Case::new();
        for step in 0..50u8 {
            // The other one is always one key behind, by whatever turn.
            let all: Vec<(u8, u64)> = (0..=step + 1).map(|key| (key, u64::from(key))).collect();
            let behind = &all[..all.len() - 1];
            let outcome = case.step(|now| match step % 2 {
                0 => (looking(&all, now), looking(behind, now)),
                _ => (looking(behind, now), looking(&all, now)),
            });
            assert_eq!(outcome, None, "{step}");
        }
    }

    #[test]
    fn whoever_cannot_ask_the_dx_is_accused_of_nothing() {
        // The peer tries and its DX does not answer, or so it says, for a day.
        let mut case = Case::new();
        loop {
            match case.step(|now| (looking(NEW, now), mirror(OLD, 10, now))) {
                None => assert!(case.now < WITHHELD + 2 * HOUR),
                outcome => break assert_eq!(outcome, Some(Outcome::Unseen)),
            }
        }
        assert!(case.now >= WITHHELD && case.comparison.is_unseen());
        assert!(case.comparison.kept_until() >= at(case.now + WITHHELD));
        // Kept for a day, and hiding nothing: now both look.
        case.comparison.again(at(case.now));
        let views = |now| (looking(NEW, now), looking(OLD, now));
        assert_eq!((case.step(views), case.step(views)), (None, None));
        assert!(case.comparison.is_unseen());
        assert!(matches!(case.step(views), Some(Outcome::SplitView(_))));
        assert!(!case.comparison.is_unseen());
        // We cannot ask it, and the peer goes on seeing the old key.
        let mut case = Case::new();
        loop {
            match case.step(|now| (mirror(NEW, 20, now), looking(OLD, now))) {
                None => {}
                outcome => break assert_eq!(outcome, Some(Outcome::GivenUp)),
            }
        }
    }

    #[test]
    fn an_update_is_withheld_after_a_day_of_the_same_answer() {
        let mut case = Case::new();
        let stale = |now| (looking(NEW, now), mirror(OLD, 10, 15));
        let outcome = loop {
            match case.step(stale) {
                None => assert!(case.now < WITHHELD + 2 * HOUR),
                Some(outcome) => break outcome,
            }
        };
        assert_eq!(outcome, Outcome::UpdateWithheld);
        assert!(case.now >= WITHHELD);
    }

    #[test]
    fn an_outage_of_a_day_is_no_update_withheld() {
        let mut case = Case::new();
        let stale = |now| (looking(NEW, now), mirror(OLD, 10, 15));
        assert_eq!(case.step(stale), None);
        while case.now < 25 * HOUR {
            assert_eq!(case.hear(Heard::Nothing), None);
        }
        // Back, and not yet done with its first visit.
        assert_eq!(case.step(stale), None);
        assert_eq!(case.step(|now| (looking(NEW, now), looking(NEW, now))), Some(Outcome::Same));
    }

    /// A peer that answers and shows nothing is accused of nothing, and seen.
    #[test]
    fn what_is_not_shown_for_a_day_is_kept() {
        for wrong in [false, true] {
            let mut case = Case::new();
            assert_eq!(case.step(|now| (looking(NEW, now), looking(OLD, now))), None);
            let heard = if wrong { Heard::Wrong } else { Heard::Later(1000) };
            let mut began = None;
            while case.hear(heard).is_none() {
                let began = *began.get_or_insert(case.now);
                let shown = case.comparison.is_unshown(&PACE, at(case.now));
                assert_eq!(shown, case.now - began >= WITHHELD);
                // What nobody answers is no answer.
                assert_eq!(case.hear(Heard::Nothing), None);
            }
            assert!(case.comparison.is_over() && case.comparison.is_unshown(&PACE, at(case.now)));
            // A day longer; and until it shows what it has.
            assert!(case.comparison.kept_until() >= at(case.now + WITHHELD));
            case.comparison.again(at(case.now));
            assert!(case.comparison.is_unshown(&PACE, at(case.now)));
            let same = case.step(|now| (looking(NEW, now), looking(NEW, now)));
            assert_eq!(same, Some(Outcome::Same));
        }
    }

    /// A history that begins late says neither that the keys seen here were there
    /// before, nor that they were not.
    #[test]
    fn part_of_a_history_ends_nothing_unseen() {
        let part = Sights::new(looking(&[(9, 20)], 30).list().to_vec(), 1, at(30), at(30), false);
        let mut case = Case::new();
        let outcome = case.step(|now| (looking(OLD, now), part.clone()));
        assert_eq!(outcome, Some(Outcome::Unknown));
        assert!(case.comparison.is_over() && case.comparison.is_unshown(&PACE, at(case.now)));
        // What it shows is the same key: all is well.
        let mut case = Case::new();
        let outcome = case.step(|now| (looking(&[(1, 5), (9, 20)], now), part.clone()));
        assert_eq!(outcome, Some(Outcome::Same));
        // Ours has the gap.
        let mut case = Case::new();
        let outcome = case.step(|now| (part.clone(), looking(OLD, now)));
        assert_eq!(outcome, Some(Outcome::Unknown));
        assert!(!case.comparison.is_unshown(&PACE, at(case.now)));
    }

    #[test]
    fn waits_are_bounded_and_end() {
        let mut case = Case::new();
        let mut questions = 0;
        let outcome = loop {
            questions += 1;
            if let Some(outcome) = case.hear(Heard::Nothing) {
                break outcome;
            }
        };
        assert_eq!(outcome, Outcome::GivenUp);
        assert!((40..100).contains(&questions), "{questions}");
        let mut case = Case::new();
        assert_eq!(case.hear(Heard::Later(u64::MAX)), None);
        assert!(case.comparison.due() <= at(case.now + LONGEST));
        assert_eq!(case.hear(Heard::Refused), Some(Outcome::Refused));
        let nothing = Sights::default();
        let mut case = Case::new();
        assert_eq!(case.step(|now| (looking(NEW, now), nothing.clone())), Some(Outcome::Unknown));
    }
}
