//! What a receipt is worth to somebody with this policy at this time.

use super::Policy;
use crate::dime::Timestamp;
use crate::proof::dnssec::{self, Anchor};
use crate::proof::receipt::{self, Asker, Backing, Fault, Note, Receipt, Statement, Verdict};

/// The outcome, from best to worst.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Judgement {
    /// The policy stands behind it, and it is fresh.
    Verified(Statement, Backing),
    /// The policy stands behind it, but it was the latest only as of
    /// `Backing::as_of`, too long ago.
    Old(Statement, Backing),
    /// It agrees with itself. Without a policy no more can be said.
    SignerUnknown(Statement),
    /// It does not hold.
    Refused(Fault),
}

/// Which DNS root the evidence has to lead to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum DnsRoot {
    /// The public one. A chain that leads elsewhere counts for nothing, and a
    /// note says so: mirrors of private roots can still be asked.
    #[default]
    Public,
    /// These keys and no others: a chain that leads elsewhere is a fault.
    Only(Vec<Anchor>),
}

/// Judges a receipt. Without a policy the best outcome is
/// [`Judgement::SignerUnknown`].
pub fn judge(
    receipt: &Receipt,
    policy: Option<&Policy>,
    root: &DnsRoot,
    now: Timestamp,
) -> Judgement {
    let verify = |policy| match root {
        DnsRoot::Only(anchors) => {
            let asker = Asker { policy, anchors, ..Asker::default() };
            receipt::verify(receipt, &asker, now)
        }
        DnsRoot::Public => {
            let asker = Asker { policy, anchors: &dnssec::iana(), ..Asker::default() };
            match receipt::verify(receipt, &asker, now) {
                Err(Fault::DnssecChain(_)) => {
                    let again = receipt::verify(receipt, &Asker { anchors: &[], ..asker }, now);
                    again.map(on_its_word)
                }
                other => other,
            }
        }
    };
    match (verify(policy), policy) {
        (Ok(Verdict::Trusted(statement, backing)), _) => Judgement::Verified(statement, backing),
        (Ok(Verdict::SelfConsistent(statement)), _) => Judgement::SignerUnknown(statement),
        // What it would have said in its time.
        (Err(Fault::Stale { as_of }), Some(policy)) => {
            let mut ageless = policy.clone();
            ageless.max_age = u64::MAX;
            match verify(Some(&ageless)) {
                Ok(Verdict::Trusted(statement, backing)) => {
                    Judgement::Old(statement, Backing { as_of, ..backing })
                }
                Ok(Verdict::SelfConsistent(_)) => Judgement::Refused(Fault::Stale { as_of }),
                Err(fault) => Judgement::Refused(fault),
            }
        }
        (Err(fault), _) => Judgement::Refused(fault),
    }
}

/// Says of a verdict that the DNSSEC evidence behind it did not count.
fn on_its_word(mut verdict: Verdict) -> Verdict {
    let (Verdict::SelfConsistent(statement) | Verdict::Trusted(statement, _)) = &mut verdict;
    statement.notes.push(Note::DnssecUnchecked);
    verdict
}

impl Judgement {
    pub fn is_verified(&self) -> bool {
        matches!(self, Judgement::Verified(..))
    }

    /// What the receipt says, if it holds at all.
    pub fn statement(&self) -> Option<&Statement> {
        match self {
            Judgement::Verified(statement, _)
            | Judgement::Old(statement, _)
            | Judgement::SignerUnknown(statement) => Some(statement),
            Judgement::Refused(_) => None,
        }
    }

    pub fn backing(&self) -> Option<&Backing> {
        match self {
            Judgement::Verified(_, backing) | Judgement::Old(_, backing) => Some(backing),
            Judgement::SignerUnknown(_) | Judgement::Refused(_) => None,
        }
    }
}
