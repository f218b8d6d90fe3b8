//! From answers to one verdict: pure, and nothing but counting.
//!
//! What counts are receipts of logs of the policy, by operator: two logs of one
//! operator are one voice, and a host is none (threat 3).

use std::collections::BTreeSet;
use std::fmt;

use crate::proof::policy::default_quorum;

/// What a check comes to, in the order of its exit codes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Enough operators have the key that is seen here, latest and fresh.
    Agreed,
    /// Nobody who is believed says anything about the name.
    Unknown,
    /// What is seen here, or two logs, or two states of one log, contradict
    /// each other.
    Split,
    /// Too few logs could be asked.
    Unreachable,
    /// The key seen here changed without the old one's consent, not long ago.
    Held,
    /// A log has another key of the same history: one of the two is behind.
    Lagging,
    /// The key was not seen lately by the logs, or cannot be seen from here.
    Unconfirmed,
}

/// What one log's proof is to what is seen here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// The same key, latest, fresh, not held.
    Agrees,
    /// The same key, held.
    Held,
    /// Its key is an older one of the history.
    Behind,
    /// The key seen here is an older one of its history.
    Ahead,
    /// An older state of the log than it has shown before.
    Older,
    /// Another key, that does not belong to what is seen here.
    Apart,
    /// Too old, or not seen at the mail host for too long, or withdrawn.
    Unconfirmed,
    /// It holds nothing of the name in force.
    Absent,
    /// It does not say enough to be compared.
    Unsure,
}

/// What there is to count.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    /// Whether anybody is believed.
    pub policy: bool,
    /// Whether there is anything of one's own to compare with.
    pub own: bool,
    /// Operators that have to agree.
    pub needed: usize,
    /// Operator and standing of each proof.
    pub proofs: Vec<(usize, Standing)>,
    /// Logs that were caught with two histories.
    pub forks: usize,
    /// Logs of the policy without a proof.
    pub unanswered: usize,
    /// Answers of any kind.
    pub answers: usize,
}

/// How many of so many operators have to agree unless told otherwise: so many
/// that two keys cannot both have them, liars included; all where there are few.
pub fn needed_of(operators: usize) -> usize {
    default_quorum(operators).min(operators)
}

impl Tally {
    /// Distinct operators whose proof agrees.
    pub fn agreeing(&self) -> usize {
        let agree = self.proofs.iter().filter(|(_, standing)| *standing == Standing::Agrees);
        agree.map(|(operator, _)| operator).collect::<BTreeSet<_>>().len()
    }

    fn any(&self, wanted: &[Standing]) -> bool {
        self.proofs.iter().any(|(_, standing)| wanted.contains(standing))
    }

    /// The first that applies. A contradiction weighs more than any agreement:
    /// those who agree may be shown the same forgery.
    pub fn verdict(&self) -> Verdict {
        use Standing::{Ahead, Apart, Behind, Held, Older, Unconfirmed};
        let reached = self.needed > 0 && self.agreeing() >= self.needed;
        match () {
            () if self.answers == 0 => Verdict::Unreachable,
            () if !self.policy => Verdict::Unknown,
            () if self.forks > 0 || self.any(&[Apart]) => Verdict::Split,
            () if self.proofs.is_empty() && self.unanswered > 0 => Verdict::Unreachable,
            () if self.any(&[Held]) => Verdict::Held,
            () if !self.own => Verdict::Unconfirmed,
            () if reached => Verdict::Agreed,
            () if self.any(&[Behind, Ahead, Older]) => Verdict::Lagging,
            () if self.any(&[Unconfirmed]) => Verdict::Unconfirmed,
            () if self.unanswered > 0 => Verdict::Unreachable,
            () => Verdict::Unknown,
        }
    }
}

impl Verdict {
    pub const ALL: [Verdict; 7] = [
        Verdict::Agreed,
        Verdict::Unknown,
        Verdict::Split,
        Verdict::Unreachable,
        Verdict::Held,
        Verdict::Lagging,
        Verdict::Unconfirmed,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            Verdict::Agreed => "AGREED",
            Verdict::Unknown => "UNKNOWN",
            Verdict::Split => "SPLIT",
            Verdict::Unreachable => "UNREACHABLE",
            Verdict::Held => "HELD",
            Verdict::Lagging => "LAGGING",
            Verdict::Unconfirmed => "UNCONFIRMED",
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Standing {
    pub fn as_str(self) -> &'static str {
        match self {
            Standing::Agrees => "agrees",
            Standing::Held => "held",
            Standing::Behind => "behind",
            Standing::Ahead => "ahead",
            Standing::Older => "older-state",
            Standing::Apart => "apart",
            Standing::Unconfirmed => "unconfirmed",
            Standing::Absent => "absent",
            Standing::Unsure => "unsure",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Standing::*;
    use super::*;

    fn tally(proofs: &[(usize, Standing)]) -> Tally {
        Tally {
            policy: true,
            own: true,
            needed: 3,
            proofs: proofs.to_vec(),
            forks: 0,
            unanswered: 3 - proofs.len().min(3),
            answers: 3,
        }
    }

    #[test]
    fn the_worst_that_applies_is_the_verdict() {
        let same = [(0, Agrees), (1, Agrees), (2, Agrees)];
        let with = |last| [(0, Agrees), (1, Agrees), (2, last)];
        for (proofs, verdict) in [
            (&same[..], Verdict::Agreed),
            (&same[..2], Verdict::Unreachable),
            (&[], Verdict::Unreachable),
            (&with(Held), Verdict::Held),
            (&with(Behind), Verdict::Lagging),
            (&with(Ahead), Verdict::Lagging),
            (&with(Older), Verdict::Lagging),
            (&with(Apart), Verdict::Split),
            (&with(Unconfirmed), Verdict::Unconfirmed),
            (&with(Absent), Verdict::Unknown),
            (&with(Unsure), Verdict::Unknown),
            (&[(0, Apart), (1, Held), (2, Behind)], Verdict::Split),
            (&[(0, Held), (1, Behind), (2, Agrees)], Verdict::Held),
            (&[(0, Absent), (1, Absent), (2, Absent)], Verdict::Unknown),
        ] {
            assert_eq!(tally(proofs).verdict(), verdict, "{proofs:?}");
        }
        // A smaller quorum lets one be behind, and none be apart.
        let two = |last| Tally { needed: 2, ..tally(&with(last)) };
        assert_eq!(two(Behind).verdict(), Verdict::Agreed);
        assert_eq!(two(Absent).verdict(), Verdict::Agreed);
        assert_eq!(two(Held).verdict(), Verdict::Held);
        assert_eq!(two(Apart).verdict(), Verdict::Split);
    }

    #[test]
    fn operators_are_counted_and_not_logs() {
        let proofs = [(0, Agrees), (0, Agrees), (1, Agrees)];
        let tally = Tally { unanswered: 0, ..tally(&proofs) };
        assert_eq!(tally.agreeing(), 2);
        assert_eq!(tally.verdict(), Verdict::Unknown);
        assert_eq!(Tally { needed: 2, ..tally }.verdict(), Verdict::Agreed);
    }

    #[test]
    fn without_policy_or_own_view_nobody_agrees() {
        let same = [(0, Agrees), (1, Agrees), (2, Agrees)];
        let nobody = Tally { policy: false, needed: 0, ..tally(&[]) };
        assert_eq!(nobody.verdict(), Verdict::Unknown);
        assert_eq!(Tally { answers: 0, ..nobody }.verdict(), Verdict::Unreachable);
        assert_eq!(Tally { own: false, ..tally(&same) }.verdict(), Verdict::Unconfirmed);
        assert_eq!(Tally { forks: 1, ..tally(&same) }.verdict(), Verdict::Split);
        // A policy without logs asks for nothing, and nothing is enough for it.
        assert_eq!(Tally { needed: 0, ..tally(&[]) }.verdict(), Verdict::Unreachable);
    }

    #[test]
    fn all_of_few_and_most_of_many() {
        let needed: Vec<usize> = (0..8).map(needed_of).collect();
        assert_eq!(needed, [0, 1, 2, 3, 3, 4, 4, 5]);
    }
}
