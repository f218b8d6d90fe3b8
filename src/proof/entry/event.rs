//! What may change at a label, which of it stands together, and what is in force
//! after it.

use std::fmt;
use std::str::FromStr;

use crate::dime::Rejection;

/// What changed. Numbers as in `log.proto`; names as in the design.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Event {
    FirstSeen = 1,
    Rotated = 2,
    Resigned = 3,
    Reissued = 4,
    Gap = 5,
    Restarted = 6,
    Forked = 7,
    Reverted = 8,
    Withdrawn = 9,
    PokAdded = 20,
    PokRemoved = 21,
    PokReplaced = 22,
    OrgSignetChanged = 23,
    RecordChanged = 24,
    RecordWithdrawn = 25,
    RecordExpired = 26,
    DnssecGained = 27,
    DnssecLost = 28,
    DnssecBogus = 29,
    NameConflict = 30,
}

impl Event {
    pub const ALL: [Event; 20] = [
        Event::FirstSeen,
        Event::Rotated,
        Event::Resigned,
        Event::Reissued,
        Event::Gap,
        Event::Restarted,
        Event::Forked,
        Event::Reverted,
        Event::Withdrawn,
        Event::PokAdded,
        Event::PokRemoved,
        Event::PokReplaced,
        Event::OrgSignetChanged,
        Event::RecordChanged,
        Event::RecordWithdrawn,
        Event::RecordExpired,
        Event::DnssecGained,
        Event::DnssecLost,
        Event::DnssecBogus,
        Event::NameConflict,
    ];

    pub fn number(self) -> u32 {
        self as u32
    }

    pub fn from_number(number: u64) -> Option<Event> {
        Event::ALL.into_iter().find(|event| u64::from(event.number()) == number)
    }

    pub fn name(self) -> &'static str {
        match self {
            Event::FirstSeen => "FIRST_SEEN",
            Event::Rotated => "ROTATED",
            Event::Resigned => "RESIGNED",
            Event::Reissued => "REISSUED",
            Event::Gap => "GAP",
            Event::Restarted => "RESTARTED",
            Event::Forked => "FORKED",
            Event::Reverted => "REVERTED",
            Event::Withdrawn => "WITHDRAWN",
            Event::PokAdded => "POK_ADDED",
            Event::PokRemoved => "POK_REMOVED",
            Event::PokReplaced => "POK_REPLACED",
            Event::OrgSignetChanged => "ORG_SIGNET_CHANGED",
            Event::RecordChanged => "RECORD_CHANGED",
            Event::RecordWithdrawn => "RECORD_WITHDRAWN",
            Event::RecordExpired => "RECORD_EXPIRED",
            Event::DnssecGained => "DNSSEC_GAINED",
            Event::DnssecLost => "DNSSEC_LOST",
            Event::DnssecBogus => "DNSSEC_BOGUS",
            Event::NameConflict => "NAME_CONFLICT",
        }
    }

    /// Whether the event puts a name on hold by default (design §3).
    pub fn holds(self) -> bool {
        HOLDING.contains(self)
    }

    /// Whether somebody should look: never coalesced away (threat 19), named in
    /// a verdict.
    pub fn is_alarm(self) -> bool {
        ALARMS.contains(self)
    }
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Event {
    type Err = Rejection;

    fn from_str(text: &str) -> Result<Event, Rejection> {
        Event::ALL
            .into_iter()
            .find(|event| event.name() == text)
            .ok_or_else(|| Rejection::new("event", "no event has this name"))
    }
}

/// A set of events; ascending by number when iterated.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Events(u32);

const HOLDING: Events =
    Events::of(&[Event::Restarted, Event::Gap, Event::Forked, Event::PokReplaced]);
const ALARMS: Events = Events::of(&[
    Event::Restarted,
    Event::Gap,
    Event::Forked,
    Event::Reverted,
    Event::Withdrawn,
    Event::PokReplaced,
    Event::RecordWithdrawn,
    Event::RecordExpired,
    Event::DnssecLost,
    Event::DnssecBogus,
    Event::NameConflict,
]);
/// Events of a mailbox whose content is in force afterwards.
const USER_CHANGES: Events = Events::of(&[
    Event::FirstSeen,
    Event::Rotated,
    Event::Resigned,
    Event::Reissued,
    Event::Gap,
    Event::Restarted,
]);
/// Events of a mailbox that leave in force what was.
const USER_KEEPS: Events = Events::of(&[Event::Forked, Event::Reverted, Event::Withdrawn]);
/// Events of a domain whose content is in force afterwards.
const DOMAIN_CHANGES: Events = Events::of(&[
    Event::FirstSeen,
    Event::PokAdded,
    Event::PokRemoved,
    Event::PokReplaced,
    Event::OrgSignetChanged,
    Event::RecordChanged,
    Event::NameConflict,
]);
/// Events of a domain that leave in force what was.
const DOMAIN_KEEPS: Events = Events::of(&[Event::RecordWithdrawn, Event::DnssecBogus]);
/// Events of a domain that go with any other.
const DOMAIN_NEUTRAL: Events = Events::of(&[Event::DnssecGained, Event::DnssecLost]);

impl Events {
    pub const EMPTY: Events = Events(0);

    pub const fn of(list: &[Event]) -> Events {
        let mut bits = 0;
        let mut i = 0;
        while i < list.len() {
            bits |= 1 << list[i] as u32;
            i += 1;
        }
        Events(bits)
    }

    pub const fn contains(self, event: Event) -> bool {
        self.0 >> event as u32 & 1 == 1
    }

    pub fn insert(&mut self, event: Event) {
        self.0 |= 1 << event.number();
    }

    pub const fn union(self, other: Events) -> Events {
        Events(self.0 | other.0)
    }

    pub const fn intersects(self, other: Events) -> bool {
        self.0 & other.0 != 0
    }

    pub const fn without(self, other: Events) -> Events {
        Events(self.0 & !other.0)
    }

    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    pub fn iter(self) -> impl Iterator<Item = Event> {
        Event::ALL.into_iter().filter(move |event| self.contains(*event))
    }

    /// Those of [`Event::is_alarm`].
    pub fn alarms(self) -> Events {
        Events(self.0 & ALARMS.0)
    }

    /// Whether any of them puts the name on hold.
    pub fn hold(self) -> bool {
        self.intersects(HOLDING)
    }
}

impl FromIterator<Event> for Events {
    fn from_iter<I: IntoIterator<Item = Event>>(events: I) -> Events {
        events.into_iter().fold(Events::EMPTY, |mut all, event| {
            all.insert(event);
            all
        })
    }
}

impl From<Event> for Events {
    fn from(event: Event) -> Events {
        Events::of(&[event])
    }
}

/// `FIRST_SEEN, NAME_CONFLICT`.
impl fmt::Display for Events {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, event) in self.iter().enumerate() {
            if i > 0 {
                f.write_str(", ")?;
            }
            f.write_str(event.name())?;
        }
        Ok(())
    }
}

impl fmt::Debug for Events {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[{self}]")
    }
}

/// Whose label it is. A label never changes sides.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Holder {
    Domain,
    User,
}

/// Why events cannot stand together, or not here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Misfit {
    #[error("an observation without an event")]
    NoEvent,
    #[error("an event of a domain on a mailbox, or the other way round")]
    OtherHolder,
    #[error("events that change what is in force beside events that do not")]
    Mixed,
    #[error("FIRST_SEEN where something is in force, or not where it must stand")]
    FirstSeen,
    #[error("an event about what is in force, and nothing is")]
    NothingInForce,
    #[error("nothing came before that could be forgotten")]
    NothingToForget,
}

/// The version in force after an entry (threat 7): `version` itself for a
/// change, `before` for what leaves things as they are, 0 for RECORD_EXPIRED.
///
/// `before` is the `current` of the label's last entry, 0 if there is none or
/// nothing was in force.
pub fn current_after(
    holder: Holder,
    events: Events,
    version: u64,
    before: u64,
) -> Result<u64, Misfit> {
    if events.is_empty() {
        return Err(Misfit::NoEvent);
    }
    let first = events.contains(Event::FirstSeen);
    if first && before != 0 {
        return Err(Misfit::FirstSeen);
    }
    match holder {
        Holder::User => {
            if !events.without(USER_CHANGES.union(USER_KEEPS)).is_empty() {
                return Err(Misfit::OtherHolder);
            }
            if !events.intersects(USER_KEEPS) {
                // With nothing in force there is nothing to rotate or restart.
                return if before == 0 && !first { Err(Misfit::FirstSeen) } else { Ok(version) };
            }
            if events.intersects(USER_CHANGES) {
                return Err(Misfit::Mixed);
            }
            if before == 0 { Err(Misfit::NothingInForce) } else { Ok(before) }
        }
        Holder::Domain => {
            let expired = Events::from(Event::RecordExpired);
            let known = DOMAIN_CHANGES.union(DOMAIN_KEEPS).union(DOMAIN_NEUTRAL).union(expired);
            if !events.without(known).is_empty() {
                return Err(Misfit::OtherHolder);
            }
            let changes = events.intersects(DOMAIN_CHANGES);
            if events.intersects(expired) {
                return match (changes, before) {
                    (true, _) => Err(Misfit::Mixed),
                    (false, 0) => Err(Misfit::NothingInForce),
                    (false, _) => Ok(0),
                };
            }
            if events.intersects(DOMAIN_KEEPS) {
                return if changes { Err(Misfit::Mixed) } else { Ok(before) };
            }
            // A domain that comes back after RECORD_EXPIRED may be told by what
            // changed since it was last in force, so only version 1 must be first.
            if version == 1 && !first { Err(Misfit::FirstSeen) } else { Ok(version) }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_decide_what_is_in_force() {
        use Event::*;
        let user =
            |list: &[Event], before| current_after(Holder::User, Events::of(list), 7, before);
        let domain =
            |list: &[Event], before| current_after(Holder::Domain, Events::of(list), 7, before);
        for change in [Rotated, Resigned, Reissued, Gap, Restarted] {
            assert_eq!(user(&[change], 6), Ok(7));
            assert_eq!(user(&[change], 0), Err(Misfit::FirstSeen));
        }
        for keep in [Forked, Reverted, Withdrawn] {
            assert_eq!(user(&[keep], 4), Ok(4));
            assert_eq!(user(&[keep], 0), Err(Misfit::NothingInForce));
            assert_eq!(user(&[keep, Rotated], 4), Err(Misfit::Mixed));
        }
        assert_eq!(user(&[FirstSeen], 0), Ok(7));
        assert_eq!(user(&[FirstSeen], 6), Err(Misfit::FirstSeen));
        assert_eq!(user(&[], 6), Err(Misfit::NoEvent));
        assert_eq!(user(&[PokAdded], 6), Err(Misfit::OtherHolder));
        assert_eq!(domain(&[Rotated], 6), Err(Misfit::OtherHolder));
        for change in [PokAdded, PokRemoved, PokReplaced, OrgSignetChanged, RecordChanged] {
            assert_eq!(domain(&[change, DnssecLost, NameConflict], 6), Ok(7));
            assert_eq!(domain(&[change, RecordWithdrawn], 6), Err(Misfit::Mixed));
            assert_eq!(domain(&[change, RecordExpired], 6), Err(Misfit::Mixed));
        }
        assert_eq!(domain(&[DnssecGained], 6), Ok(7));
        assert_eq!(domain(&[DnssecBogus], 6), Ok(6));
        assert_eq!(domain(&[DnssecBogus], 0), Ok(0));
        assert_eq!(domain(&[RecordWithdrawn, DnssecLost], 6), Ok(6));
        assert_eq!(domain(&[RecordExpired, RecordWithdrawn], 6), Ok(0));
        assert_eq!(domain(&[RecordExpired], 0), Err(Misfit::NothingInForce));
        assert_eq!(domain(&[PokReplaced], 0), Ok(7));
        let first = current_after(Holder::Domain, RecordChanged.into(), 1, 0);
        assert_eq!(first, Err(Misfit::FirstSeen));
    }

    #[test]
    fn names_of_events_come_back() {
        for event in Event::ALL {
            assert_eq!(event.name().parse::<Event>().unwrap(), event);
            assert_eq!(Event::from_number(event.number().into()), Some(event));
        }
        let all: Events = Event::ALL.into_iter().collect();
        assert_eq!(all.iter().count(), 20);
        assert_eq!(
            Events::of(&[Event::NameConflict, Event::FirstSeen]).to_string(),
            "FIRST_SEEN, NAME_CONFLICT"
        );
    }
}
