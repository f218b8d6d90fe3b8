//! What two logs' histories of one name are to each other (threat 8): the same,
//! one behind the other, or apart.
//!
//! Compared is what was seen, by SHA-256: of the signing and encryption keys of
//! a mailbox, of the POK set and the org signet of a domain. Custody, signers
//! and texts do not count, so an organization's rollover over all its mailboxes
//! (RESIGNED) changes nothing here, and whatever one mirror has logged and the
//! other not yet is a lag, whatever its event. That nothing was there
//! (WITHDRAWN, RECORD_WITHDRAWN, DNSSEC_BOGUS) is nobody's signature and no
//! sight: the last one stands.
//!
//! Left out: what follows from it, which takes fresh visits on both sides.

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::Hash;
use super::entry::DomainObservation;
use crate::dime::Timestamp;
use crate::dime::signet::Signet;

/// What a name was seen with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keys {
    Mailbox(Hash),
    Domain {
        poks: Hash,
        /// `None`: the DX could not be asked then. It differs from none.
        org_signet: Option<Hash>,
    },
}

/// One version that was seen with something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sight {
    pub version: u64,
    /// By the log's word.
    pub seen: Timestamp,
    pub keys: Keys,
}

/// What a log says that it saw of one name, oldest first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sights {
    list: Vec<Sight>,
    tip: Option<Sight>,
    /// When the tip was last seen.
    last_seen: Timestamp,
    /// The DX was last asked then, with or without success.
    attempted_at: Timestamp,
    /// Every version there ever was is accounted for.
    whole: bool,
}

/// Which of the two.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Side {
    Ours,
    Theirs,
}

/// What two histories are to each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Relation {
    /// The same tip.
    Same,
    /// This side's tip is in the other's past.
    Lag(Side),
    /// Neither tip was ever seen by the other.
    Diverged,
    /// One side has nothing, or not enough of it is here.
    Unknown,
}

impl Keys {
    pub fn of_mailbox(signet: &Signet) -> Keys {
        let hash = Sha256::new()
            .chain_update(signet.signing_key())
            .chain_update(signet.encryption_key())
            .finalize();
        Keys::Mailbox(hash.into())
    }

    /// The POKs of an entry ascend, each once.
    pub fn of_domain(entry: &DomainObservation<'_>) -> Keys {
        let mut poks = Sha256::new();
        for pok in entry.poks.iter() {
            poks.update(pok);
        }
        let org_signet = entry.org_signet.map(|blob| blob.sha256);
        Keys::Domain { poks: poks.finalize().into(), org_signet }
    }

    fn agree(&self, other: &Keys) -> bool {
        match (self, other) {
            (
                Keys::Domain { poks, org_signet: Some(org) },
                Keys::Domain { poks: others, org_signet: Some(other) },
            ) => poks == others && org == other,
            (Keys::Domain { poks, .. }, Keys::Domain { poks: others, .. }) => poks == others,
            (one, other) => one == other,
        }
    }

    /// For a total order that both sides share.
    fn order(&self) -> (&Hash, Option<&Hash>) {
        match self {
            Keys::Mailbox(hash) => (hash, None),
            Keys::Domain { poks, org_signet } => (poks, org_signet.as_ref()),
        }
    }
}

impl Sights {
    /// `current` is the version in force, 0 for none; `confirmed_at` when that
    /// was last seen, 0 for never, as [`super::receipt::Seen`] says. The tip is
    /// what was seen last, in force or not: a fork that is served, or what is in
    /// force if that was seen again since.
    pub fn new(
        list: Vec<Sight>,
        current: u64,
        confirmed_at: Timestamp,
        attempted_at: Timestamp,
        whole: bool,
    ) -> Sights {
        let last = list.last().copied();
        let in_force = list.iter().rfind(|sight| sight.version == current).copied();
        let (tip, last_seen) = match (in_force, last) {
            (Some(in_force), Some(last)) if in_force.version == last.version => {
                (Some(in_force), confirmed_at.max(in_force.seen))
            }
            (Some(in_force), Some(last)) if confirmed_at > last.seen => {
                (Some(in_force), confirmed_at)
            }
            (_, last) => (last, last.map_or(Timestamp::default(), |last| last.seen)),
        };
        Sights { list, tip, last_seen, attempted_at, whole }
    }

    /// What was seen last.
    pub fn tip(&self) -> Option<&Sight> {
        self.tip.as_ref()
    }

    pub fn list(&self) -> &[Sight] {
        &self.list
    }

    /// When the tip was last seen; 0: never.
    pub fn last_seen(&self) -> Timestamp {
        self.last_seen
    }

    /// When the DX was last asked, by the log's word; 0: it gives none.
    pub fn attempted_at(&self) -> Timestamp {
        self.attempted_at
    }

    /// Whether every version that there ever was is accounted for.
    pub fn is_whole(&self) -> bool {
        self.whole
    }

    fn has(&self, keys: &Keys) -> bool {
        self.list.iter().any(|sight| sight.keys.agree(keys))
    }
}

impl Relation {
    /// Of two histories of the same name. The two sides see the same of it, with
    /// the sides exchanged.
    pub fn of(ours: &Sights, theirs: &Sights) -> Relation {
        let (Some(our_tip), Some(their_tip)) = (&ours.tip, &theirs.tip) else {
            return Relation::Unknown;
        };
        if our_tip.keys.agree(&their_tip.keys) {
            return Relation::Same;
        }
        match (theirs.has(&our_tip.keys), ours.has(&their_tip.keys)) {
            (true, false) => Relation::Lag(Side::Ours),
            (false, true) => Relation::Lag(Side::Theirs),
            (true, true) => {
                let age = |sights: &Sights, tip: &Sight| (sights.last_seen, tip.seen);
                let ours = (age(ours, our_tip), our_tip.keys.order());
                let theirs = (age(theirs, their_tip), their_tip.keys.order());
                Relation::Lag(if ours < theirs { Side::Ours } else { Side::Theirs })
            }
            (false, false) if ours.whole && theirs.whole => Relation::Diverged,
            (false, false) => Relation::Unknown,
        }
    }
}

impl Side {
    pub fn other(self) -> Side {
        match self {
            Side::Ours => Side::Theirs,
            Side::Theirs => Side::Ours,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NEVER: Timestamp = Timestamp::from_millis(0);

    fn at(seconds: u64) -> Timestamp {
        Timestamp::from_secs(seconds)
    }

    fn mailbox(key: u8) -> Keys {
        Keys::Mailbox([key; 32])
    }

    fn domain(poks: u8, org: u8) -> Keys {
        Keys::Domain { poks: [poks; 32], org_signet: (org != 0).then_some([org; 32]) }
    }

    /// Versions 1, 2, … seen at seconds 10, 20, …
    fn seen(keys: &[Keys], current: u64, confirmed: u64) -> Sights {
        let list = (1..).zip(keys).map(|(version, keys)| Sight {
            version,
            seen: at(10 * version),
            keys: *keys,
        });
        Sights::new(list.collect(), current, at(confirmed), at(confirmed), true)
    }

    fn chain(keys: &[u8]) -> Sights {
        let keys: Vec<Keys> = keys.iter().copied().map(mailbox).collect();
        seen(&keys, keys.len() as u64, 0)
    }

    /// Both ways round.
    fn check(ours: &Sights, theirs: &Sights, expected: Relation) {
        assert_eq!(Relation::of(ours, theirs), expected);
        let mirrored = match expected {
            Relation::Lag(side) => Relation::Lag(side.other()),
            other => other,
        };
        assert_eq!(Relation::of(theirs, ours), mirrored);
    }

    #[test]
    fn a_crawl_behind_is_a_lag_whatever_the_event() {
        // ROTATED or RESTARTED: only the keys count.
        check(&chain(&[1, 2]), &chain(&[1]), Relation::Lag(Side::Theirs));
        check(&chain(&[1, 2, 3]), &chain(&[1, 2]), Relation::Lag(Side::Theirs));
        // Whoever came later saw less of the past, and the same now.
        check(&chain(&[1, 2, 3]), &chain(&[3]), Relation::Same);
        check(&chain(&[1, 2, 3]), &chain(&[2]), Relation::Lag(Side::Theirs));
        // RESIGNED, REISSUED: other versions of the same keys.
        check(&chain(&[1, 1, 1]), &chain(&[1]), Relation::Same);
        check(&chain(&[1, 2, 2]), &chain(&[1]), Relation::Lag(Side::Theirs));
    }

    #[test]
    fn a_rollover_and_a_restart_are_no_divergence() {
        let steps = [domain(1, 1), domain(2, 1), domain(2, 2), domain(3, 2)];
        for behind in 1..steps.len() {
            let (new, old) = (seen(&steps, 4, 0), seen(&steps[..behind], behind as u64, 0));
            check(&new, &old, Relation::Lag(Side::Theirs));
        }
        // One of them could not reach the DX: that is no other org signet.
        check(&seen(&[domain(1, 0)], 1, 0), &seen(&[domain(1, 1)], 1, 0), Relation::Same);
        let swapped = seen(&[domain(1, 0), domain(2, 0)], 2, 0);
        check(&swapped, &seen(&[domain(1, 1)], 1, 0), Relation::Lag(Side::Theirs));
    }

    #[test]
    fn keys_that_the_other_never_saw_are_apart() {
        check(&chain(&[1, 9]), &chain(&[1, 2]), Relation::Diverged);
        check(&chain(&[9]), &chain(&[1, 2]), Relation::Diverged);
        check(&seen(&[domain(9, 9)], 1, 0), &seen(&[domain(1, 1)], 1, 0), Relation::Diverged);
        check(
            &seen(&[domain(1, 1), domain(1, 9)], 2, 0),
            &seen(&[domain(1, 1), domain(1, 2)], 2, 0),
            Relation::Diverged,
        );
    }

    #[test]
    fn what_is_served_counts_and_not_what_is_in_force() {
        // FORKED, served still: version 2 is seen, 1 stays in force.
        let fork = |confirmed| seen(&[mailbox(1), mailbox(9)], 1, confirmed);
        check(&fork(10), &chain(&[9]), Relation::Same);
        check(&fork(10), &chain(&[1]), Relation::Lag(Side::Theirs));
        // And served no longer.
        check(&fork(30), &chain(&[1]), Relation::Same);
        assert_eq!(fork(30).last_seen(), at(30));
        assert_eq!(fork(10).last_seen(), at(20));
        // REVERTED: the first key again, which stays an old one.
        let reverted = seen(&[mailbox(1), mailbox(2), mailbox(1)], 2, 20);
        check(&reverted, &chain(&[1]), Relation::Same);
        check(&reverted, &chain(&[1, 2]), Relation::Lag(Side::Theirs));
    }

    #[test]
    fn of_two_that_know_both_tips_the_earlier_lags() {
        let (one, other) = (seen(&[mailbox(1), mailbox(2)], 2, 40), chain(&[2, 1]));
        check(&one, &other, Relation::Lag(Side::Theirs));
        check(&chain(&[1, 2]), &chain(&[2, 1]), Relation::of(&chain(&[1, 2]), &chain(&[2, 1])));
    }

    #[test]
    fn nothing_and_too_little_are_unknown() {
        check(&chain(&[]), &chain(&[1]), Relation::Unknown);
        check(&chain(&[]), &chain(&[]), Relation::Unknown);
        let part = Sights::new(chain(&[3]).list().to_vec(), 1, NEVER, NEVER, false);
        check(&part, &chain(&[1]), Relation::Unknown);
        check(&part, &chain(&[3]), Relation::Same);
        check(&part, &chain(&[1, 3, 4]), Relation::Lag(Side::Ours));
    }
}
