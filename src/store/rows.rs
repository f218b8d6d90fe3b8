//! What the rows of [`State`] hold. JSON, since a person may have to read it
//! and since it can all be made again from `Blobs`.
//!
//! Left out: who decides what goes in: `log` indexes what it committed, `crawl`
//! keeps its frontier.

use std::fmt::Display;
use std::str::FromStr;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::Error;
use super::state::{Batch, Range, State, Table};
use crate::dime::{Address, Dnssec, Domain, Name, Timestamp};

/// Links of a chain that a mailbox's row lists, and org signets that a domain's
/// does, at most: the newest. It keeps the row, which grows with whatever strangers
/// do, under [`MAX_VALUE`](super::state::MAX_VALUE): 1,024 links are 300 KB.
pub const LISTED: usize = 1024;

/// 32 bytes: a SHA-256, a label, a key. Hexadecimal in JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Hash(pub [u8; 32]);

/// A row type: which table it is in, and what it is found by.
pub trait Typed: Serialize + DeserializeOwned {
    const TABLE: Table;
    /// Its key in the table.
    fn key(&self) -> Vec<u8>;
}

/// What the mirror knows of a domain: the outcome of its log entries.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DomainRow {
    #[serde(with = "text")]
    pub domain: Domain,
    /// Of the latest entry, from 1.
    pub version: u64,
    /// Version whose content is in force; 0: none.
    pub current: u64,
    /// The content last in force, this field and the next four. It outlives
    /// RECORD_EXPIRED (`current` is then 0): a domain that leaves and comes
    /// back with other keys has replaced them.
    pub poks: Vec<Hash>,
    #[serde(with = "dnssec")]
    pub dnssec: Dnssec,
    /// An entry proved it secure, and none since says that this is lost: one that is
    /// logged while the proof is lacking must not make it forgotten.
    #[serde(default)]
    pub was_secure: bool,
    /// SHA-256 of the text of the management record; a public blob.
    pub record: Option<Hash>,
    /// SHA-256 of the org signet in force; its bytes are a public blob.
    pub org_signet: Option<Hash>,
    /// SHA-256 of the DNSSEC chain of the content in force; a public blob.
    pub dnssec_chain: Option<Hash>,
    /// Every org signet that an entry in force named, oldest first, the last
    /// [`LISTED`] of them: old links of users' chains were signed under old ones.
    pub org_signets: Vec<OrgRow>,
    /// The name is held until then; `None`: not held.
    pub held_until: Option<u64>,
    /// The latest entry that says anything of the record says that it was withdrawn
    /// or has expired.
    pub withdrawn: bool,
    /// Numbers of the latest entry's events, as in `log.proto`.
    pub events: Vec<u32>,
    /// Time of the latest entry.
    #[serde(with = "millis")]
    pub logged_at: Timestamp,
}

impl DomainRow {
    /// Takes over the status of an entry in force; `is_lost`: it says DNSSEC_LOST.
    pub fn note_dnssec(&mut self, dnssec: Dnssec, is_lost: bool) {
        // Rows of before do not say it of what is logged as secure.
        let was_secure = self.was_secure || self.dnssec == Dnssec::Secure;
        self.was_secure = dnssec == Dnssec::Secure || was_secure && !is_lost;
        self.dnssec = dnssec;
    }
}

/// An org signet that was in force.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OrgRow {
    /// SHA-256 of its bytes; a public blob.
    pub signet: Hash,
    /// The domain's first version that named it.
    pub version: u64,
}

/// What the mirror knows of a mailbox: the outcome of its log entries.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UserRow {
    #[serde(with = "text")]
    pub address: Address,
    pub label: Hash,
    /// Of the latest entry, from 1.
    pub version: u64,
    /// Version whose content is in force; 0: none.
    pub current: u64,
    /// The current chain of custody, oldest first, ending in the signet in
    /// force. Empty: none is. Begins anew after a restart or gap; of a long one
    /// the last [`LISTED`].
    pub chain: Vec<LinkRow>,
    /// Version of the domain that the signet in force was validated under.
    pub domain_version: u64,
    /// The name is held until then; `None`: not held.
    pub held_until: Option<u64>,
    /// The latest entry says that the DX no longer has this mailbox.
    pub withdrawn: bool,
    /// Numbers of the latest entry's events, as in `log.proto`.
    pub events: Vec<u32>,
    /// Time of the latest entry.
    #[serde(with = "millis")]
    pub logged_at: Timestamp,
}

/// One signet of a chain of custody.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LinkRow {
    /// Version of the entry that logged it.
    pub version: u64,
    /// SHA-256 of its bytes as received; the bytes are in [`Table::Signets`].
    pub signet: Hash,
    /// SHA-256 of its body through the crypto signature.
    pub crypto: Hash,
    /// As in `log.proto`: 7 crypto, 8 full, 9 id.
    pub level: u32,
}

/// The entry of one version of one label, and what is hidden behind it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    pub label: Hash,
    pub version: u64,
    /// Leaf index in the log.
    pub index: u64,
    /// Number of the commit that added it.
    pub commit: u64,
    /// Its bytes as logged.
    #[serde(with = "base64")]
    pub entry: Vec<u8>,
    /// For a mailbox, unless it is forgotten: the payload and its opening.
    pub hidden: Option<Hidden>,
}

/// What opens the commitment of a user entry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hidden {
    /// Number of the private record in its commit.
    pub record: u32,
    #[serde(with = "base64")]
    pub payload: Vec<u8>,
    pub opening: Hash,
    /// SHA-256 of the signet; its bytes are in [`Table::Signets`].
    pub signet: Option<Hash>,
}

/// A label that came over from the log before.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CarriedRow {
    pub label: Hash,
    /// The newest version that was logged there.
    pub version: u64,
    /// Leaf index of the carried entry.
    pub index: u64,
    /// The oldest version that has a place here; `version` + 1 for none.
    pub first: u64,
    /// The chain before it.
    pub chain: Hash,
    /// Under the VRF key of the log before; empty for a domain.
    #[serde(with = "base64")]
    pub vrf_proof: Vec<u8>,
    /// Each step further back, as in receipts.
    pub further: Vec<Vec<u8>>,
}

/// The name behind a label, known only to this mirror.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Labelled {
    pub label: Hash,
    #[serde(with = "text")]
    pub name: Name,
}

/// When a name is visited next, and by whom.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FrontierRow {
    #[serde(with = "text")]
    pub name: Name,
    #[serde(with = "millis")]
    pub due: Timestamp,
    /// Somebody is on it until then; in the past: nobody is.
    #[serde(with = "millis")]
    pub leased_until: Timestamp,
    /// Which process took the lease.
    pub leased_by: String,
    /// Failed visits since the last good one.
    pub failures: u32,
    /// Why it is known: a word of the crawl room's.
    pub reason: String,
    /// Watched until then, since only peers asked for it (threat 22); in the
    /// past: it is not watched any more, though the log has it.
    #[serde(default, with = "maybe_millis")]
    pub keep_until: Option<Timestamp>,
    /// A mailbox that its owner asked for and no visit has found yet, or that is looked
    /// at for a peer: so many more may fail. 0: it is watched.
    #[serde(default)]
    pub tries: u32,
}

/// When a name was last seen, which no log entry says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SeenRow {
    #[serde(with = "text")]
    pub name: Name,
    /// The version that was in force when it was confirmed.
    pub version: u64,
    /// The DX last served what is in force; 0: never since this is kept.
    #[serde(with = "millis")]
    pub confirmed_at: Timestamp,
    /// It was last asked.
    #[serde(with = "millis")]
    pub attempted_at: Timestamp,
    /// For a domain: the validity period of its record, start and end.
    pub validity: Option<(u64, u64)>,
    /// SHA-256 of the record text or signet that was served last, whether in
    /// force or not.
    #[serde(default)]
    pub last_served: Option<Hash>,
    /// For a domain: the last answer was bogus.
    #[serde(default)]
    pub bogus: bool,
    /// For a domain whose two names say different things: SHA-256 of what was told
    /// of the one that does not count. Rows of before had a `conflict` that did not
    /// say what: it is told once more.
    #[serde(default)]
    pub other: Option<Hash>,
    /// How the last visit ended: a word of the crawl room's.
    #[serde(default)]
    pub outcome: String,
}

/// What a name has used up of its quotas, and what was kept out of the log since
/// its last entry. Lost, the day begins anew and the count is told too low.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct QuotaRow {
    #[serde(with = "text")]
    pub name: Name,
    /// The day that the next three and `bytes` count, from 1970-01-01.
    pub day: u64,
    pub entries: u32,
    /// For a domain: new labels of its mailboxes.
    pub new_mailboxes: u32,
    /// For a registered domain: new labels of names below it.
    pub new_subdomains: u32,
    /// For a registered domain: bytes of signets and records that went into the log
    /// for it and for names below it.
    #[serde(default)]
    pub bytes: u64,
    /// For a domain: labels of its mailboxes, whatever the day; `None`: not counted.
    #[serde(default)]
    pub mailboxes: Option<u64>,
    /// The last entry with an alarm that puts the name on hold, and with another.
    #[serde(with = "millis")]
    pub holding_alarm_at: Timestamp,
    #[serde(with = "millis")]
    pub alarm_at: Timestamp,
    /// Until then what is no alarm is coalesced, whatever the day.
    #[serde(with = "millis")]
    pub settle_until: Timestamp,
    /// States coalesced since the last entry, and their hash as in `log.proto`.
    pub coalesced: u64,
    pub running_hash: Hash,
    /// SHA-256 of the first of them, to know them again.
    pub states: Vec<Hash>,
}

impl QuotaRow {
    /// Nothing used yet.
    pub fn new(name: Name) -> QuotaRow {
        QuotaRow {
            name,
            day: 0,
            entries: 0,
            new_mailboxes: 0,
            new_subdomains: 0,
            bytes: 0,
            mailboxes: None,
            holding_alarm_at: Timestamp::default(),
            alarm_at: Timestamp::default(),
            settle_until: Timestamp::default(),
            coalesced: 0,
            running_hash: Hash([0; 32]),
            states: Vec::new(),
        }
    }
}

impl Typed for DomainRow {
    const TABLE: Table = Table::Domains;
    fn key(&self) -> Vec<u8> {
        self.domain.as_str().into()
    }
}

impl Typed for UserRow {
    const TABLE: Table = Table::Users;
    fn key(&self) -> Vec<u8> {
        user_key(&self.address)
    }
}

impl Typed for Place {
    const TABLE: Table = Table::Places;
    fn key(&self) -> Vec<u8> {
        place_key(&self.label.0, self.version)
    }
}

impl Typed for CarriedRow {
    const TABLE: Table = Table::Carried;
    fn key(&self) -> Vec<u8> {
        self.label.0.into()
    }
}

impl Typed for Labelled {
    const TABLE: Table = Table::Labels;
    fn key(&self) -> Vec<u8> {
        self.label.0.into()
    }
}

impl Typed for FrontierRow {
    const TABLE: Table = Table::Frontier;
    fn key(&self) -> Vec<u8> {
        frontier_key(&self.name)
    }
}

impl Typed for SeenRow {
    const TABLE: Table = Table::Seen;
    fn key(&self) -> Vec<u8> {
        self.name.as_str().into()
    }
}

impl Typed for QuotaRow {
    const TABLE: Table = Table::Quotas;
    fn key(&self) -> Vec<u8> {
        self.name.as_str().into()
    }
}

/// Key of a mailbox in [`Table::Users`]: the domain first.
pub fn user_key(address: &Address) -> Vec<u8> {
    format!("{}\0{}", address.domain(), address.local()).into()
}

/// The mailbox of a key in [`Table::Users`].
pub fn user_of(key: &[u8]) -> Option<Address> {
    let (domain, local) = std::str::from_utf8(key).ok()?.split_once('\0')?;
    format!("{local}@{domain}").parse().ok()
}

/// The mailboxes of one domain in [`Table::Users`].
pub fn users_of(domain: &Domain) -> Range {
    Range::prefix(format!("{domain}\0").as_bytes())
}

/// Key of a name in [`Table::Frontier`]; of a mailbox as in [`Table::Users`].
pub fn frontier_key(name: &Name) -> Vec<u8> {
    match name {
        Name::Domain(domain) => domain.as_str().into(),
        Name::Address(address) => user_key(address),
    }
}

/// A domain and its mailboxes in [`Table::Frontier`].
pub fn frontier_of(domain: &Domain) -> Range {
    let start = domain.as_str().as_bytes().to_vec();
    let end = [start.as_slice(), &[1]].concat();
    Range { start, end: Some(end) }
}

/// Key of a domain in [`Table::Due`].
pub fn due_key(due: Timestamp, domain: &Domain) -> Vec<u8> {
    [due.millis().to_be_bytes().as_slice(), domain.as_str().as_bytes()].concat()
}

/// When which domain is due, by a key of [`Table::Due`].
pub fn due_of(key: &[u8]) -> Option<(Timestamp, Domain)> {
    let (due, domain) = key.split_first_chunk::<8>()?;
    let domain = std::str::from_utf8(domain).ok()?.parse().ok()?;
    Some((Timestamp::from_millis(u64::from_be_bytes(*due)), domain))
}

/// Key of one version of a label in [`Table::Places`].
pub fn place_key(label: &[u8; 32], version: u64) -> Vec<u8> {
    [label.as_slice(), &version.to_be_bytes()].concat()
}

/// The versions of a label from `from` on, in [`Table::Places`].
pub fn places_from(label: &[u8; 32], from: u64) -> Range {
    Range { start: place_key(label, from), ..Range::prefix(label) }
}

/// A row's value.
pub fn encode<R: Typed>(row: &R) -> Vec<u8> {
    serde_json::to_vec(row).unwrap_or_default()
}

/// The row of a value; a value that is none is damage.
pub fn decode<R: Typed>(value: &[u8]) -> Result<R, Error> {
    serde_json::from_slice(value).map_err(|error| Error::Damaged {
        path: format!("table {}", R::TABLE.name()),
        message: error.to_string(),
    })
}

/// The row with this key.
pub async fn find<R: Typed>(state: &dyn State, key: &[u8]) -> Result<Option<R>, Error> {
    state.get(R::TABLE, key).await?.map(|value| decode(&value)).transpose()
}

/// At most `limit` rows of a range of their table.
pub async fn scan<R: Typed>(
    state: &dyn State,
    range: Range,
    limit: usize,
) -> Result<Vec<R>, Error> {
    let rows = state.scan(R::TABLE, range, limit).await?;
    rows.iter().map(|(_, value)| decode(value)).collect()
}

/// A user's signet that some entry in force or before names, as received.
/// Missing: its payload was erased.
pub async fn signet(state: &dyn State, sha256: &Hash) -> Result<Option<Vec<u8>>, Error> {
    state.get(Table::Signets, &sha256.0).await
}

impl Batch {
    /// Writes a typed row.
    pub fn row<R: Typed>(&mut self, row: &R) {
        self.put(R::TABLE, row.key(), encode(row));
    }

    /// Writes or deletes a name's row in the frontier, and for a domain when it is
    /// due. `before` is the row as it is now.
    pub fn frontier(&mut self, before: Option<&FrontierRow>, after: Option<&FrontierRow>) {
        let due = |row: &FrontierRow| match &row.name {
            Name::Domain(domain) => Some(due_key(row.due, domain)),
            Name::Address(_) => None,
        };
        let (old, new) = (before.and_then(due), after.and_then(due));
        if let Some(old) = old.filter(|old| new.as_ref() != Some(old)) {
            self.delete(Table::Due, old);
        }
        if let Some(new) = new {
            self.put(Table::Due, new, []);
        }
        match (before, after) {
            (_, Some(row)) => self.row(row),
            (Some(row), None) => self.delete(FrontierRow::TABLE, row.key()),
            (None, None) => {}
        }
    }
}

impl Serialize for Hash {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&hex::encode(self.0))
    }
}

impl<'de> Deserialize<'de> for Hash {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Hash, D::Error> {
        let text = String::deserialize(deserializer)?;
        let mut bytes = [0; 32];
        hex::decode_to_slice(&text, &mut bytes).map_err(serde::de::Error::custom)?;
        Ok(Hash(bytes))
    }
}

/// Names as their text.
mod text {
    use super::*;

    pub fn serialize<T: Display, S: Serializer>(value: &T, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(value)
    }

    pub fn deserialize<'de, T, D>(from: D) -> Result<T, D::Error>
    where
        T: FromStr<Err: Display>,
        D: Deserializer<'de>,
    {
        String::deserialize(from)?.parse().map_err(serde::de::Error::custom)
    }
}

/// Times as milliseconds.
mod millis {
    use super::*;

    pub fn serialize<S: Serializer>(value: &Timestamp, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_u64(value.millis())
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Timestamp, D::Error> {
        u64::deserialize(from).map(Timestamp::from_millis)
    }
}

/// The same, or none.
mod maybe_millis {
    use super::*;

    pub fn serialize<S: Serializer>(value: &Option<Timestamp>, to: S) -> Result<S::Ok, S::Error> {
        value.map(Timestamp::millis).serialize(to)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Timestamp>, D::Error> {
        Ok(Option::<u64>::deserialize(from)?.map(Timestamp::from_millis))
    }
}

/// Bytes as base64.
mod base64 {
    use ::base64::Engine;
    use ::base64::engine::general_purpose::STANDARD;

    use super::*;

    pub fn serialize<S: Serializer>(value: &[u8], to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&STANDARD.encode(value))
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<u8>, D::Error> {
        STANDARD.decode(String::deserialize(from)?).map_err(serde::de::Error::custom)
    }
}

/// DNSSEC status as its word.
mod dnssec {
    use super::*;

    pub fn serialize<S: Serializer>(value: &Dnssec, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(value)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Dnssec, D::Error> {
        let word = String::deserialize(from)?;
        [Dnssec::Secure, Dnssec::Insecure, Dnssec::Bogus, Dnssec::Indeterminate]
            .into_iter()
            .find(|status| status.to_string() == word)
            .ok_or_else(|| serde::de::Error::custom("no such DNSSEC status"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_come_back_as_they_went() {
        let row = DomainRow {
            domain: "example.com".parse().unwrap(),
            version: 3,
            current: 2,
            poks: vec![Hash([7; 32])],
            dnssec: Dnssec::Insecure,
            was_secure: false,
            record: Some(Hash([1; 32])),
            org_signet: None,
            dnssec_chain: None,
            org_signets: vec![],
            held_until: Some(9),
            withdrawn: true,
            events: vec![25],
            logged_at: Timestamp::from_millis(1),
        };
        assert_eq!(decode::<DomainRow>(&encode(&row)).unwrap(), row);
        let mut old: serde_json::Value = serde_json::from_slice(&encode(&row)).unwrap();
        old.as_object_mut().unwrap().remove("was_secure");
        assert_eq!(decode::<DomainRow>(old.to_string().as_bytes()).unwrap(), row);
        let mut row = row;
        for (dnssec, is_lost, was_secure) in [
            (Dnssec::Indeterminate, false, false),
            (Dnssec::Secure, false, true),
            (Dnssec::Indeterminate, false, true),
            (Dnssec::Indeterminate, false, true),
            (Dnssec::Indeterminate, true, false),
        ] {
            row.note_dnssec(dnssec, is_lost);
            assert_eq!((row.dnssec, row.was_secure), (dnssec, was_secure));
        }
        let old = br#"{"name":"a.example","version":1,"confirmed_at":2,"attempted_at":3,
            "validity":null,"bogus":true,"conflict":true,"outcome":"confirmed"}"#;
        let old = decode::<SeenRow>(old).unwrap();
        assert_eq!((old.bogus, old.other), (true, None));
        let damaged = decode::<DomainRow>(b"{\"domain\":3}").unwrap_err();
        assert!(damaged.is_damage());
    }

    #[test]
    fn a_domain_is_due_once_and_with_its_mailboxes() {
        let row = |name: &str, due: u64| FrontierRow {
            name: name.parse().unwrap(),
            due: Timestamp::from_millis(due),
            leased_until: Timestamp::default(),
            leased_by: String::new(),
            failures: 0,
            reason: String::new(),
            keep_until: None,
            tries: 0,
        };
        let (early, late) = (row("a.example", 255), row("a.example", 256));
        let due = |row: &FrontierRow| due_key(row.due, row.name.domain());
        assert!(due(&early) < due(&late));
        assert_eq!(due_of(&due(&late)), Some((late.due, "a.example".parse().unwrap())));
        assert_eq!((due_of(b"short"), due_of(b"\0\0\0\0\0\0\0\x01..")), (None, None));
        let mut batch = Batch::new();
        batch.frontier(Some(&early), Some(&late));
        batch.frontier(Some(&late), None);
        let (key, row_key) = (|row: &FrontierRow| due(row), late.key());
        let writes: Vec<_> = batch.writes.iter().map(|(t, k, v)| (*t, k, v.is_some())).collect();
        let expected = [
            (Table::Due, &key(&early), false),
            (Table::Due, &key(&late), true),
            (Table::Frontier, &row_key, true),
            (Table::Due, &key(&late), false),
            (Table::Frontier, &row_key, false),
        ];
        assert_eq!(writes, expected);

        let range = frontier_of(&"a.example".parse().unwrap());
        let is_in = |name: &str| {
            let key = row(name, 0).key();
            key >= range.start && Some(&key) < range.end.as_ref()
        };
        assert!(is_in("a.example") && is_in("x@a.example"));
        assert!(!is_in("a.example.org") && !is_in("x@a.example.org") && !is_in("x@b.a.example"));
    }

    #[test]
    fn users_of_a_domain_are_together() {
        let key = user_key(&"a@example.com".parse().unwrap());
        let range = users_of(&"example.com".parse().unwrap());
        assert!(key >= range.start && key < range.end.clone().unwrap());
        let other = user_key(&"a@example.com.org".parse().unwrap());
        assert!(other < range.start || other >= range.end.unwrap());
    }
}
