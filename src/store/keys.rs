//! Names of all objects, and nothing about their contents.
//!
//! | Store | Key | Holds | Changes |
//! | --- | --- | --- | --- |
//! | public | `tile/<L>/<N>[.p/<W>]` | a tile of hashes (C2SP tlog-tiles) | never; partial ones go later |
//! | public | `tile/entries/<N>[.p/<W>]` | an entry bundle | never; partial ones go later |
//! | public | `checkpoints/<size>` | the signed checkpoint of that size | never |
//! | public | `checkpoints/<size>.<k>` | the same with more cosignatures | never; goes when `<k+1>` is there |
//! | public | `blob/<hh>/<sha256>` | org signets, record texts, DNSSEC chains | never; may be withdrawn |
//! | public | `withdrawn/<sha256>` | a blob that the operator no longer serves | appears |
//! | public | `snapshot/<size>` | the directory at a tree size | never; old ones go |
//! | public | `snapshot/<size>.<part>` | its labels, part by part | never; old ones go |
//! | private | `log` | the log's own record: origin, keys, where commits live | never |
//! | private | `predecessor` | the genesis entry of the log before this one | never |
//! | private | `commit/<folder>/<n>` | commit n, the fence of the log | never |
//! | private | `batch/<hh>/<sha256>` | the public entries of one batch | never |
//! | private | `payload/<folder>/<n>-<hash>` | the private records of one batch | only by erasure |
//! | private | `segment/<n>` | commits from n on with their batches, merged | never |
//! | private | `records/<n>` | the payloads of the same commits, merged | only by erasure |
//! | private | `floor/<n>` | commit n is the first that is not in a segment; the highest counts | never |
//! | private | `erased/<n>-<i>` | private record i of commit n is gone for good | appears |
//! | private | `asked/<label>-<version>` | whoever had that version forgotten asks to be seen again | appears |
//! | private | `unmarked` | the first commit whose private records were lost and not marked yet | deleted when all are |
//! | private | `lost/<label>-<version>` | that FORGOTTEN marks a loss of ours: nobody asked for it | appears |
//! | private | `seen/<day>/<part>` | when each name was last seen (`store::seen`) | overwritten in its day |
//! | private | `peer/<sha256 of origin>/…` | a peer's log: tiles, bundles, blobs, snapshots as in public | never; partial ones go later |
//! | private | `peer/<…>/position` | how far it was followed | overwritten |
//! | private | `peer/<…>/cosigned` | the last checkpoint that we cosigned | overwritten |
//! | private | `peer/<…>/memory/<n>` | the n-th tree that we cosigned | never; goes a thousand later, but for every thousandth |
//! | private | `peer/<…>/cosigned-by/<sha256 of key name>` | the last checkpoint seen with that mirror's cosignature | overwritten |
//! | private | `peer/<…>/held-against/<size>-<root>` | it is a tree of a fork that was filed | appears |
//! | private | `peer/<…>/withdrawn/<sha256>` | the operator lets its entry pass without it | appears |
//! | private | `peer/<…>/fault` | why it is not cosigned any more | the operator deletes it |
//! | private | `incident/<day>/<whom>/<time>.<kind>.<by>.<same>.<id>` | an incident (`proof::incident`) | never; of a mailbox by erasure; old junk goes |
//! | private | `request/<hour>/<id>` | a signed request that was taken, so that it is taken once | goes when a later one comes |
//! | private | `registration/<hour>/<id>` | mailboxes that an owner asked for (`store::registrations`) | goes days later; of a mailbox by erasure |
//! | private | `commit/probe-<random>` | start-up probe of put-if-absent | deleted at once |
//!
//! Numbers are 20 digits, so that a listing is in order; `<folder>` is the
//! number of the folder's first object, and a folder holds 10,000; `<hh>` is
//! the first byte of the hash.

/// Objects in one folder of numbered objects.
pub const FOLDER: u64 = 10_000;

/// Private: the log's own record.
pub const LOG: &str = "log";

/// Private: the genesis entry of the log that this one took over from.
pub const PREDECESSOR: &str = "predecessor";

/// `n` as 20 digits.
pub fn number(n: u64) -> String {
    format!("{n:020}")
}

/// The inverse of [`number`], for the last part of a listed key.
pub fn parse_number(text: &str) -> Option<u64> {
    (text.len() == 20 && text.bytes().all(|b| b.is_ascii_digit())).then(|| text.parse().ok())?
}

fn numbered(kind: &str, n: u64) -> String {
    format!("{kind}/{}/{}", number(n - n % FOLDER), number(n))
}

fn hashed(kind: &str, sha256: &[u8; 32]) -> String {
    let hex = hex::encode(sha256);
    format!("{kind}/{:02x}/{hex}", sha256[0])
}

/// Private: commit `n`, counted from 0.
pub fn commit(n: u64) -> String {
    numbered("commit", n)
}

/// Private: the public entries of one batch.
pub fn batch(sha256: &[u8; 32]) -> String {
    hashed("batch", sha256)
}

/// Private: the private records that belong to a batch meant for commit `n`.
/// Two sequencers may both write one for `n`, so the batch's hash is in the name.
pub fn payload(n: u64, batch: &[u8; 32]) -> String {
    format!("{}-{}", numbered("payload", n), hex::encode(batch))
}

/// Private: the segment that begins with commit `first`.
pub fn segment(first: u64) -> String {
    format!("segment/{}", number(first))
}

/// Private: the payloads of the segment that begins with commit `first`.
pub fn records(first: u64) -> String {
    format!("records/{}", number(first))
}

/// Private: all commits below `n` are in segments.
pub fn floor(n: u64) -> String {
    format!("floor/{}", number(n))
}

/// Private: marker that private record `i` of commit `n` is erased.
pub fn erased(n: u64, i: u32) -> String {
    format!("erased/{}-{i}", number(n))
}

/// Private: the owner of a mailbox whose FORGOTTEN is this version asks to be seen again.
pub fn asked(label: &[u8; 32], version: u64) -> String {
    format!("asked/{}-{version}", hex::encode(label))
}

/// Private: where what was taken back from peers begins, until it is marked.
pub const LOST: &str = "unmarked";

/// Private: the FORGOTTEN of this version marks that we lost what was before.
pub fn lost(label: &[u8; 32], version: u64) -> String {
    format!("lost/{}-{version}", hex::encode(label))
}

/// Public: bytes named by an entry.
pub fn blob(sha256: &[u8; 32]) -> String {
    hashed("blob", sha256)
}

/// Public: marker that a blob is no longer served.
pub fn withdrawn(sha256: &[u8; 32]) -> String {
    format!("withdrawn/{}", hex::encode(sha256))
}

/// Public: the checkpoint of tree size `size` with the log's own signature.
pub fn checkpoint(size: u64) -> String {
    format!("checkpoints/{}", number(size))
}

/// Public: the same checkpoint with cosignatures, `k`-th writing, from 1.
pub fn cosigned(size: u64, k: u32) -> String {
    format!("checkpoints/{}.{k}", number(size))
}

/// Public: the directory after `size` leaves.
pub fn snapshot(size: u64) -> String {
    format!("snapshot/{}", number(size))
}

/// Public: part `part` of the directory after `size` leaves, counted from 0.
pub fn snapshot_part(size: u64, part: usize) -> String {
    format!("{}.{part:03}", snapshot(size))
}

/// Private: the folder of what is kept of a peer's log.
pub fn peer(sha256_of_origin: &[u8; 32]) -> String {
    format!("peer/{}", hex::encode(sha256_of_origin))
}

/// Folder of all incidents.
pub const INCIDENTS: &str = "incident";

/// What the name of an incident tells: enough to list it without reading it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IncidentKey {
    /// Milliseconds.
    pub at: u64,
    pub whom: Whom,
    /// A word of lower-case letters and `-`.
    pub kind: String,
    /// A client reported it.
    pub by_client: bool,
    /// The same for the same thing seen again.
    pub same: [u8; 16],
    pub id: [u8; 32],
}

/// Whom an incident is about. No key holds a mailbox's name.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Whom {
    Domain(String),
    /// The first half of the SHA-256 of the address.
    Mailbox([u8; 16]),
    /// The same of the log's origin.
    Mirror([u8; 16]),
}

impl IncidentKey {
    /// Counted from 1970-01-01.
    pub fn day(&self) -> u64 {
        self.at / 86_400_000
    }

    /// The inverse of [`incident`].
    pub fn parse(key: &str) -> Option<IncidentKey> {
        let mut parts = key.strip_prefix(INCIDENTS)?.strip_prefix('/')?.split('/');
        let (_day, whom, name) = (parts.next()?, parts.next()?, parts.next()?);
        let mut fields = name.split('.');
        let found = IncidentKey {
            at: parse_number(fields.next()?)?,
            whom: Whom::parse(whom)?,
            kind: fields.next()?.to_owned(),
            by_client: fields.next()? == "c",
            same: fixed(fields.next()?)?,
            id: fixed(fields.next()?)?,
        };
        (incident(&found) == key).then_some(found)
    }
}

impl Whom {
    fn parse(text: &str) -> Option<Whom> {
        // Domains are in lower case.
        match text.split_once('-') {
            Some(("M", tag)) => fixed(tag).map(Whom::Mailbox),
            Some(("L", tag)) => fixed(tag).map(Whom::Mirror),
            _ => Some(Whom::Domain(text.to_owned())),
        }
    }
}

fn fixed<const N: usize>(text: &str) -> Option<[u8; N]> {
    let mut bytes = [0; N];
    hex::decode_to_slice(text, &mut bytes).ok().map(|()| bytes)
}

/// Private: an incident.
pub fn incident(key: &IncidentKey) -> String {
    let whom = match &key.whom {
        Whom::Domain(domain) => domain.clone(),
        Whom::Mailbox(tag) => format!("M-{}", hex::encode(tag)),
        Whom::Mirror(tag) => format!("L-{}", hex::encode(tag)),
    };
    let by = if key.by_client { 'c' } else { 'm' };
    format!(
        "{INCIDENTS}/{}/{whom}/{}.{}.{by}.{}.{}",
        number(key.day()),
        number(key.at),
        key.kind,
        hex::encode(key.same),
        hex::encode(key.id)
    )
}

/// Private: an owner's request of an hour, counted from 1970-01-01, that was
/// accepted.
pub fn request(hour: u64, id: &[u8; 32]) -> String {
    format!("request/{}/{}", number(hour), hex::encode(id))
}

/// Where the next are.
pub const REGISTRATIONS: &str = "registration";

/// Private: what an owner's request of an hour asked for.
pub fn registration(hour: u64, id: &[u8; 32]) -> String {
    format!("{REGISTRATIONS}/{}/{}", number(hour), hex::encode(id))
}

/// Private: part `part` of what was seen on a day, counted from 1970-01-01.
pub fn seen(day: u64, part: &str) -> String {
    format!("seen/{}/{part}", number(day))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_sort_as_text() {
        assert_eq!(commit(10_001), "commit/00000000000000010000/00000000000000010001");
        assert_eq!(parse_number(&number(u64::MAX)), Some(u64::MAX));
        assert_eq!(parse_number("00000000000000000005.1"), None);
        assert_eq!(parse_number("5"), None);
        assert_eq!(parse_number("99999999999999999999"), None);
    }

    #[test]
    fn the_name_of_an_incident_reads_back() {
        for whom in [
            Whom::Domain("m-mail.example".to_owned()),
            Whom::Mailbox([7; 16]),
            Whom::Mirror([8; 16]),
        ] {
            let (same, id) = ([1; 16], [2; 32]);
            let kind = "split-view".to_owned();
            let key = IncidentKey { at: 1_795_449_600_123, whom, kind, by_client: true, same, id };
            let text = incident(&key);
            assert_eq!(IncidentKey::parse(&text), Some(key));
            assert_eq!(IncidentKey::parse(&text[..text.len() - 1]), None);
        }
        assert_eq!(IncidentKey::parse("incident/ab/abab"), None);
    }

    #[test]
    fn hashes_spread_over_folders() {
        assert!(blob(&[0xab; 32]).starts_with("blob/ab/abab"));
        assert!(
            payload(3, &[1; 32])
                .starts_with("payload/00000000000000000000/00000000000000000003-01")
        );
    }
}
