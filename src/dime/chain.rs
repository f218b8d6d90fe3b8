//! What a signet is to the ones known before it: custody and links
//! (reference §7.3).
//!
//! A transparency log records, it does not refuse: a key that changed without
//! custody is a valid signet and an alarm. Custody proves possession of the old
//! signing key, and binds neither name nor predecessor; entries do that.

use std::fmt;

use super::Rejection;
use super::signet::{Kind, Level, Signet, field};
use super::user::ValidUserSignet;

/// What a valid user signet is to the current chain of its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Link {
    /// Nothing was known.
    Anchor,
    /// The tip again, byte for byte.
    Same,
    /// The tip's signing key signed it over.
    Extend,
    /// The tip's request under another signature of the organization.
    Resign,
    /// The tip's crypto part with other text or identifier.
    Reissue,
    /// It has a custody signature, by nobody we know.
    Gap,
    /// It has no custody signature: the old chain ends here.
    Restart,
    /// A second child of a link that already has one.
    Fork,
    /// An ancestor of the tip.
    Revert,
}

/// How loudly a link asks for attention.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Severity {
    Info,
    Warn,
    Alarm,
}

impl Link {
    pub const fn severity(self) -> Severity {
        match self {
            Link::Anchor | Link::Same | Link::Extend | Link::Resign | Link::Reissue => {
                Severity::Info
            }
            Link::Gap | Link::Revert => Severity::Warn,
            Link::Restart | Link::Fork => Severity::Alarm,
        }
    }
}

impl fmt::Display for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Link::Anchor => "anchor",
            Link::Same => "same",
            Link::Extend => "extend",
            Link::Resign => "resign",
            Link::Reissue => "reissue",
            Link::Gap => "gap",
            Link::Restart => "restart",
            Link::Fork => "fork",
            Link::Revert => "revert",
        })
    }
}

/// Places `next` in the chain `known`, oldest link first, tip last. Costs one
/// Ed25519 verification when it extends the tip, one per known link otherwise.
pub fn link(known: &[Signet], next: &ValidUserSignet) -> Link {
    let next = next.signet();
    let Some((tip, ancestors)) = known.split_last() else {
        return Link::Anchor;
    };
    if tip.bytes() == next.bytes() {
        return Link::Same;
    }
    if same(tip, next, Level::Crypto) {
        return Link::Reissue;
    }
    if same(tip, next, Level::Ssr) {
        return Link::Resign;
    }
    if ancestors.iter().any(|ancestor| same(ancestor, next, Level::Ssr)) {
        return Link::Revert;
    }
    if next.custody().is_none() {
        return Link::Restart;
    }
    if custody(tip, next).is_ok() {
        return Link::Extend;
    }
    if ancestors.iter().rev().any(|ancestor| custody(ancestor, next).is_ok()) {
        return Link::Fork;
    }
    Link::Gap
}

/// Checks that `previous`'s signing key signed `next` over. Both are user
/// signets, or `next` is a request; anything else, a missing field 4 and a
/// signature that does not verify are refused with `custody`.
pub fn custody(previous: &Signet, next: &Signet) -> Result<(), Rejection> {
    if previous.kind() != Kind::User {
        let message = format!("the previous signet is of kind {}, not user", previous.kind());
        return Err(Rejection::new("custody", message));
    }
    if next.custody().is_none() {
        return Err(Rejection::new("custody", "there is no custody signature"));
    }
    next.verify_field(field::CUSTODY, &previous.signing_key()).map_err(|refused| {
        let rule = if refused.rule == "G5" { "G5" } else { "custody" };
        Rejection::new(rule, format!("field 4 by the previous key: {}", refused.message))
    })
}

/// Whether both have a defined fingerprint at `level`, and the same one.
fn same(one: &Signet, other: &Signet, level: Level) -> bool {
    one.part(level).is_some_and(|part| other.part(level) == Some(part))
}

/// What a valid org signet is to the last one known for its domain. Org signets
/// have no custody (reference A31).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum OrgLink {
    /// Nothing was known.
    Anchor,
    /// The same bytes.
    Same,
    /// The same keys and crypto signature with other text or identifier.
    Reissue,
    /// Another crypto part: other keys, or the same signed anew.
    Change,
}

/// Compares `next` with the last org signet known for the domain.
pub fn link_org(known: Option<&Signet>, next: &Signet) -> OrgLink {
    match known {
        None => OrgLink::Anchor,
        Some(known) if known.bytes() == next.bytes() => OrgLink::Same,
        Some(known) if same(known, next, Level::Crypto) => OrgLink::Reissue,
        Some(_) => OrgLink::Change,
    }
}

/// What happened to the set of POKs in a record.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PokChange {
    pub added: Vec<[u8; 32]>,
    pub removed: Vec<[u8; 32]>,
    /// Both sets have keys and none in common: nothing connects them.
    pub replaced: bool,
}

impl PokChange {
    pub fn is_none(&self) -> bool {
        self.added.is_empty() && self.removed.is_empty()
    }

    pub const fn severity(&self) -> Severity {
        if self.replaced { Severity::Alarm } else { Severity::Info }
    }
}

/// Compares two sets of POKs; order and repetition do not count.
pub fn pok_change(old: &[[u8; 32]], new: &[[u8; 32]]) -> PokChange {
    let only = |these: &[[u8; 32]], those: &[[u8; 32]]| {
        let mut only: Vec<_> = these.iter().filter(|key| !those.contains(key)).copied().collect();
        only.sort_unstable();
        only.dedup();
        only
    };
    let overlap = old.iter().any(|key| new.contains(key));
    PokChange {
        added: only(new, old),
        removed: only(old, new),
        replaced: !old.is_empty() && !new.is_empty() && !overlap,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dime::key::{Owner, PrivateKey};
    use crate::dime::org::{self, ValidOrgSignet};
    use crate::dime::signet::build::{self, Content, SignTo};
    use crate::dime::signet::{Dialect, SecondaryKey};
    use crate::dime::user;

    const SOK: [u8; 32] = [2; 32];

    fn key(owner: Owner, number: u8) -> PrivateKey {
        PrivateKey::from_secrets(owner, [number; 32], [number; 32]).unwrap()
    }

    fn org(pok: u8) -> ValidOrgSignet {
        let pok = key(Owner::Org, pok);
        let sok = SecondaryKey { permissions: 1, key: crate::dime::ed25519::public_key(&SOK) };
        let signet = build::org(&pok, Dialect::L, &[sok], &[], SignTo::Full).unwrap();
        org::validate(&signet, &[pok.signing_key()], None).unwrap()
    }

    /// The signet of user key `number`, signed over by key `previous`.
    fn user(number: u8, previous: Option<u8>) -> ValidUserSignet {
        signed(number, previous, &[1; 32], SignTo::Full)
    }

    fn signed(
        number: u8,
        previous: Option<u8>,
        seed: &[u8; 32],
        to: SignTo<'_>,
    ) -> ValidUserSignet {
        let previous = previous.map(|previous| key(Owner::User, previous));
        let key = key(Owner::User, number);
        let request = build::request(&key, Dialect::L, previous.as_ref()).unwrap();
        let signet = build::user(&request, seed, &[], to).unwrap();
        user::validate(&signet, &org(1), None).unwrap()
    }

    fn known(links: &[(u8, Option<u8>)]) -> Vec<Signet> {
        links.iter().map(|(number, previous)| user(*number, *previous).signet().clone()).collect()
    }

    #[test]
    fn every_link_has_its_condition() {
        let chain = known(&[(10, None), (11, Some(10)), (12, Some(11))]);
        assert_eq!(link(&[], &user(10, None)), Link::Anchor);
        assert_eq!(link(&[], &user(11, Some(10))), Link::Anchor);
        assert_eq!(link(&chain, &user(12, Some(11))), Link::Same);
        assert_eq!(link(&chain, &user(13, Some(12))), Link::Extend);
        let by_sok = signed(12, Some(11), &SOK, SignTo::Full);
        assert_eq!(link(&chain, &by_sok), Link::Resign);
        let named = signed(12, Some(11), &[1; 32], SignTo::Id("a@example.com"));
        assert_eq!(link(&chain, &named), Link::Reissue);
        assert_eq!(link(&chain, &user(13, Some(99))), Link::Gap);
        assert_eq!(link(&chain, &user(13, None)), Link::Restart);
        assert_eq!(link(&chain, &user(13, Some(11))), Link::Fork);
        assert_eq!(link(&chain, &user(13, Some(10))), Link::Fork);
        assert_eq!(link(&chain, &user(11, Some(10))), Link::Revert);
        assert_eq!(link(&chain, &signed(10, None, &SOK, SignTo::Crypto)), Link::Revert);
    }

    #[test]
    fn the_same_keys_without_their_custody_are_a_restart() {
        let chain = known(&[(10, None), (11, Some(10))]);
        assert_eq!(link(&chain, &user(11, None)), Link::Restart);
    }

    #[test]
    fn custody_needs_a_user_signet_and_its_key() {
        let next = user(11, Some(10));
        assert!(custody(user(10, None).signet(), next.signet()).is_ok());
        let rule = |previous: &Signet, next: &Signet| custody(previous, next).unwrap_err().rule;
        assert_eq!(rule(user(12, None).signet(), next.signet()), "custody");
        assert_eq!(rule(org(1).signet(), next.signet()), "custody");
        assert_eq!(rule(user(10, None).signet(), user(11, None).signet()), "custody");
    }

    #[test]
    fn org_signets_are_compared_by_their_crypto_part() {
        let pok = key(Owner::Org, 1);
        let make =
            |contents: &[Content], to| build::org(&pok, Dialect::L, &[], contents, to).unwrap();
        let plain = make(&[], SignTo::Full);
        let named = make(&[Content::text(16, "Example")], SignTo::Id("example.com"));
        assert_eq!(link_org(None, &plain), OrgLink::Anchor);
        assert_eq!(link_org(Some(&plain), &plain), OrgLink::Same);
        assert_eq!(link_org(Some(&plain), &named), OrgLink::Reissue);
        assert_eq!(link_org(Some(&plain), org(1).signet()), OrgLink::Change);
    }

    #[test]
    fn pok_sets_are_sets() {
        let change = |old: &[u8], new: &[u8]| {
            let keys = |bytes: &[u8]| bytes.iter().map(|byte| [*byte; 32]).collect::<Vec<_>>();
            pok_change(&keys(old), &keys(new))
        };
        assert!(change(&[1, 2], &[2, 1, 1]).is_none());
        assert_eq!(change(&[1], &[1, 2]).added, [[2; 32]]);
        assert_eq!(change(&[1, 2], &[2]).removed, [[1; 32]]);
        assert_eq!(change(&[1, 2], &[2, 3]).severity(), Severity::Info);
        assert!(change(&[1, 2], &[3]).replaced);
        assert!(!change(&[], &[3]).replaced);
    }
}
