//! Observations on their way into the log, and what becomes of one when it is
//! given its place: the entry, the blobs that it names, what only the log's owner
//! keeps.

use bytes::Bytes;
use sha2::{Digest, Sha256};

use super::entry::{
    Blob, Coalesced, DomainObservation, Entry, Events, Forgotten, Holder, Kind, Level, Misfit,
    Poks, SignetFacts, UserObservation, UserPayload, current_after,
};
use super::label::{self, Label};
use super::wire::Malformed;
use super::{Hash, vrf};
use crate::dime::{Address, Dnssec, Domain, Timestamp};

/// An observation that waits for its place in the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Draft {
    Domain(DomainDraft),
    User(UserDraft),
    /// Erasure of a mailbox (threat 9). A domain cannot be forgotten.
    Forget {
        address: Address,
    },
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DomainDraft {
    pub domain: Domain,
    /// Any order; at most [`MAX_POKS`](super::entry::MAX_POKS) different ones count.
    pub poks: Vec<[u8; 32]>,
    pub dnssec: Dnssec,
    /// Text of the management record.
    pub record: Option<Bytes>,
    /// Bytes as received.
    pub org_signet: Option<Bytes>,
    pub dnssec_chain: Option<Bytes>,
    pub events: Events,
    /// Hold the name this long after the entry's time, milliseconds.
    pub hold: Option<u64>,
    pub coalesced: Option<Coalesced>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UserDraft {
    pub address: Address,
    /// Bytes as received; absent for WITHDRAWN.
    pub signet: Option<Bytes>,
    /// The next three are there with the signet and only with it.
    pub level: Option<Level>,
    /// For fields 6, 253, 255 as present: 0 the POK, n the n-th SOK.
    pub signers: Vec<u32>,
    /// SHA-256 of the body up to and with the crypto signature.
    pub crypto_sha256: Option<Hash>,
    pub observed: Timestamp,
    /// The version of the domain's entry that it was validated under; `None`
    /// for the one in force when this draft gets its place, which is that of
    /// the same visit if the domain changed.
    pub domain_version: Option<u64>,
    pub events: Events,
    /// Hold the name this long after the entry's time, milliseconds.
    pub hold: Option<u64>,
    pub coalesced: Option<Coalesced>,
}

/// Where a draft goes.
#[derive(Clone, Debug)]
pub struct Place<'a> {
    /// Of the entry; for users that of their batch's root.
    pub time: Timestamp,
    /// The label's next version.
    pub version: u64,
    /// `current` of the label's last entry, 0 if there is none.
    pub previous_current: u64,
    /// The hold of the label's last entry: it goes on while it runs.
    pub held_until: Option<Timestamp>,
    pub origin: &'a str,
    pub label: Label,
    /// 32 random bytes; for users.
    pub opening: [u8; 32],
    /// `current` of the domain's last entry, for users.
    pub domain_current: u64,
}

/// A draft that has become an entry, with all that must be stored with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placed {
    /// At most [`MAX_ENTRY`](super::entry::MAX_ENTRY) bytes.
    pub entry: Bytes,
    pub label: Label,
    pub version: u64,
    pub current: u64,
    /// Public blobs that the entry names, by SHA-256.
    pub blobs: Vec<(Hash, Bytes)>,
    /// What only the log's owner keeps; for users.
    pub private: Option<Private>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Private {
    pub address: Address,
    /// The encoded [`UserPayload`].
    pub payload: Bytes,
    pub opening: [u8; 32],
    /// The signet with its SHA-256.
    pub signet: Option<(Hash, Bytes)>,
}

/// Why a draft cannot become an entry: our own failure, or crawl's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unplaceable {
    #[error("the events do not fit: {0}")]
    Misfit(#[from] Misfit),
    #[error("the draft makes no legal entry: {0}")]
    Malformed(#[from] Malformed),
}

impl Draft {
    /// The domain, or the mailbox's.
    pub fn domain(&self) -> &Domain {
        match self {
            Draft::Domain(draft) => &draft.domain,
            Draft::User(draft) => draft.address.domain(),
            Draft::Forget { address } => address.domain(),
        }
    }

    /// The label; costs a VRF evaluation for a mailbox.
    pub fn label(&self, key: &vrf::SecretKey) -> Label {
        match self {
            Draft::Domain(draft) => Label::of_domain(&draft.domain),
            Draft::User(UserDraft { address, .. }) | Draft::Forget { address } => {
                Label::of_address(key, address)
            }
        }
    }

    /// The entry at `place`, its blobs and its private part. What it returns
    /// decodes again.
    pub fn place(&self, place: &Place<'_>) -> Result<Placed, Unplaceable> {
        let placed = match self {
            Draft::Domain(draft) => draft.place(place)?,
            Draft::User(draft) => draft.place(place)?,
            Draft::Forget { .. } => {
                if place.version <= 1 {
                    return Err(Misfit::NothingToForget.into());
                }
                let kind =
                    Kind::Forgotten(Forgotten { label: place.label, version: place.version });
                Placed {
                    entry: Entry::new(place.time, kind).encode().into(),
                    label: place.label,
                    version: place.version,
                    current: 0,
                    blobs: Vec::new(),
                    private: None,
                }
            }
        };
        Entry::decode(&placed.entry)?;
        Ok(placed)
    }
}

impl DomainDraft {
    fn place(&self, place: &Place<'_>) -> Result<Placed, Misfit> {
        let current =
            current_after(Holder::Domain, self.events, place.version, place.previous_current)?;
        let mut poks = self.poks.clone();
        poks.sort_unstable();
        poks.dedup();
        let mut blobs: Vec<(Hash, Bytes)> = Vec::new();
        let mut name = |bytes: &Option<Bytes>| {
            bytes.as_ref().filter(|bytes| !bytes.is_empty()).map(|bytes| {
                let blob = Blob::of(bytes);
                blobs.push((blob.sha256, bytes.clone()));
                blob
            })
        };
        let observation = DomainObservation {
            domain: self.domain.as_str(),
            version: place.version,
            current,
            poks: Poks::new(&poks),
            dnssec: self.dnssec,
            record: name(&self.record),
            org_signet: name(&self.org_signet),
            dnssec_chain: name(&self.dnssec_chain),
            events: self.events,
            held_until: place.hold(self.hold),
            coalesced: self.coalesced,
        };
        Ok(Placed {
            entry: Entry::new(place.time, Kind::Domain(observation)).encode().into(),
            label: place.label,
            version: place.version,
            current,
            blobs,
            private: None,
        })
    }
}

impl UserDraft {
    fn place(&self, place: &Place<'_>) -> Result<Placed, Unplaceable> {
        let current =
            current_after(Holder::User, self.events, place.version, place.previous_current)?;
        let signet =
            self.signet.as_ref().map(|bytes| (Sha256::digest(bytes).into(), bytes.clone()));
        let facts = match (&signet, self.crypto_sha256, self.level) {
            (Some((sha256, _)), Some(crypto_sha256), Some(level)) => Some(SignetFacts {
                sha256: *sha256,
                crypto_sha256,
                level,
                signers: self.signers.clone(),
            }),
            (None, None, None) => None,
            _ => {
                return Err(
                    Malformed::Value(1, "the facts about a signet are not all there").into()
                );
            }
        };
        let payload = UserPayload {
            signet: facts,
            observed: self.observed,
            domain_version: self.domain_version.unwrap_or(place.domain_current),
        }
        .encode();
        UserPayload::decode(&payload)?;
        let commitment = label::commitment(
            &place.opening,
            place.origin,
            &place.label,
            place.version,
            &self.address,
            &payload,
        );
        let observation = UserObservation {
            label: place.label,
            version: place.version,
            current,
            commitment,
            events: self.events,
            held_until: place.hold(self.hold),
            coalesced: self.coalesced,
        };
        Ok(Placed {
            entry: Entry::new(place.time, Kind::User(observation)).encode().into(),
            label: place.label,
            version: place.version,
            current,
            blobs: Vec::new(),
            private: Some(Private {
                address: self.address.clone(),
                payload: payload.into(),
                opening: place.opening,
                signet,
            }),
        })
    }
}

impl Place<'_> {
    /// The later of the new hold's end and that of a hold that still runs.
    fn hold(&self, millis: Option<u64>) -> Option<Timestamp> {
        let new = millis.filter(|&millis| millis > 0).map(|millis| self.time.plus(millis));
        let running = self.held_until.filter(|&until| until > self.time);
        new.max(running)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proof::entry::Event;

    const T: Timestamp = Timestamp::from_millis(1_795_449_843_123);

    fn key() -> vrf::SecretKey {
        vrf::SecretKey::from_seed(&[9; 32])
    }

    fn domain_draft() -> DomainDraft {
        DomainDraft {
            domain: "example.com".parse().unwrap(),
            poks: vec![[2; 32], [1; 32], [2; 32]],
            dnssec: Dnssec::Secure,
            record: Some(Bytes::from_static(b"ver=1 pok=x")),
            org_signet: Some(Bytes::from_static(b"org signet")),
            dnssec_chain: Some(Bytes::from_static(b"chain")),
            events: Event::FirstSeen.into(),
            hold: None,
            coalesced: None,
        }
    }

    fn user_draft() -> UserDraft {
        UserDraft {
            address: "alice@example.com".parse().unwrap(),
            signet: Some(Bytes::from_static(b"signet")),
            level: Some(Level::Id),
            signers: vec![0, 1, 0],
            crypto_sha256: Some([4; 32]),
            observed: T,
            domain_version: None,
            events: Event::FirstSeen.into(),
            hold: None,
            coalesced: None,
        }
    }

    fn place(label: Label) -> Place<'static> {
        Place {
            time: T,
            version: 1,
            previous_current: 0,
            held_until: None,
            origin: "log.example/1",
            label,
            opening: [3; 32],
            domain_current: 5,
        }
    }

    #[test]
    fn a_domain_gets_its_place() {
        let draft = Draft::Domain(domain_draft());
        let placed = draft.place(&place(draft.label(&key()))).unwrap();
        let entry = Entry::decode(&placed.entry).unwrap();
        let Kind::Domain(domain) = &entry.kind else { panic!("{entry:?}") };
        assert_eq!(domain.domain, "example.com");
        assert_eq!((domain.version, domain.current), (1, 1));
        assert_eq!(domain.poks.to_vec(), [[1; 32], [2; 32]]);
        assert_eq!(domain.held_until, None);
        assert_eq!(entry.encode(), placed.entry);
        assert_eq!(placed.blobs.len(), 3);
        for (sha256, bytes) in &placed.blobs {
            assert_eq!(*sha256, Blob::of(bytes).sha256);
        }
    }

    #[test]
    fn a_mailbox_stays_hidden_and_can_be_opened() {
        let draft = Draft::User(user_draft());
        let label = draft.label(&key());
        let placed = draft.place(&place(label)).unwrap();
        let private = placed.private.unwrap();
        assert!(!placed.entry.windows(5).any(|window| window == b"alice"));
        let payload = UserPayload::decode(&private.payload).unwrap();
        assert_eq!(payload.domain_version, 5);
        assert_eq!(payload.signet.as_ref().unwrap().signers, [0, 1, 0]);
        assert_eq!(payload.encode(), private.payload);
        let Kind::User(user) = Entry::decode(&placed.entry).unwrap().kind else { panic!() };
        let commit = |version, origin: &str| {
            let address = &private.address;
            label::commitment(&[3; 32], origin, &label, version, address, &private.payload)
        };
        assert_eq!(user.commitment, commit(1, "log.example/1"));
        assert_ne!(user.commitment, commit(2, "log.example/1"));
        assert_ne!(user.commitment, commit(1, "log.example/2"));
    }

    #[test]
    fn a_hold_goes_on_while_it_runs() {
        let mut draft = user_draft();
        draft.events = Event::Reissued.into();
        let mut place = place(Label([1; 32]));
        place.previous_current = 1;
        place.version = 2;
        let held = |draft: &UserDraft, place: &Place<'_>| {
            let placed = Draft::User(draft.clone()).place(place).unwrap();
            match Entry::decode(&placed.entry).unwrap().kind {
                Kind::User(user) => user.held_until,
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(held(&draft, &place), None);
        place.held_until = Some(T);
        assert_eq!(held(&draft, &place), None);
        place.held_until = Some(T.plus(500));
        assert_eq!(held(&draft, &place), Some(T.plus(500)));
        draft.hold = Some(700);
        assert_eq!(held(&draft, &place), Some(T.plus(700)));
    }

    #[test]
    fn forgetting_needs_something() {
        let draft = Draft::Forget { address: "alice@example.com".parse().unwrap() };
        let mut place = place(Label([1; 32]));
        place.version = 1;
        assert_eq!(draft.place(&place), Err(Misfit::NothingToForget.into()));
        // Withdrawn: nothing is in force, and its payloads are there.
        place.version = 3;
        assert_eq!(draft.place(&place).unwrap().current, 0);
    }

    #[test]
    fn refuses_content_that_contradicts_itself() {
        let refused = |change: &dyn Fn(&mut DomainDraft)| {
            let mut draft = domain_draft();
            change(&mut draft);
            Draft::Domain(draft).place(&place(Label([1; 32]))).is_err()
        };
        assert!(!refused(&|_| ()));
        assert!(refused(&|draft| draft.record = None));
        assert!(refused(&|draft| draft.poks.clear()));
        assert!(refused(&|draft| draft.dnssec_chain = None));
        assert!(refused(&|draft| draft.dnssec = Dnssec::Bogus));
        assert!(refused(&|draft| draft.events.insert(Event::DnssecLost)));
        assert!(refused(&|draft| draft.poks = (0..17).map(|i| [i; 32]).collect()));
    }
}
