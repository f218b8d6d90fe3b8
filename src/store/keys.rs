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
//! | private | `commit/<folder>/<n>` | commit n, the fence of the log | never |
//! | private | `batch/<hh>/<sha256>` | the public entries of one batch | never |
//! | private | `payload/<folder>/<n>-<hash>` | the private records of one batch | only by erasure |
//! | private | `segment/<n>` | commits from n on with their batches, merged | never |
//! | private | `records/<n>` | the payloads of the same commits, merged | only by erasure |
//! | private | `floor/<n>` | commit n is the first that is not in a segment; the highest counts | never |
//! | private | `erased/<n>-<i>` | private record i of commit n is gone for good | appears |
//! | private | `asked/<label>-<version>` | whoever had that version forgotten asks to be seen again | appears |
//! | private | `seen/<day>/<part>` | when each name was last seen (`store::seen`) | overwritten in its day |
//! | private | `peer/<sha256 of origin>/…` | a peer's log: tiles, bundles, blobs, snapshots as in public | never; partial ones go later |
//! | private | `peer/<…>/position` | how far it was followed | overwritten |
//! | private | `peer/<…>/cosigned` | the last checkpoint that we cosigned | overwritten |
//! | private | `peer/<…>/fault` | why it is not cosigned any more | the operator deletes it |
//! | private | `commit/probe-<random>` | start-up probe of put-if-absent | deleted at once |
//!
//! Numbers are 20 digits, so that a listing is in order; `<folder>` is the
//! number of the folder's first object, and a folder holds 10,000; `<hh>` is
//! the first byte of the hash.

/// Objects in one folder of numbered objects.
pub const FOLDER: u64 = 10_000;

/// Private: the log's own record.
pub const LOG: &str = "log";

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

/// Private: what failed validation, by the incident's id.
pub fn incident(id: &[u8; 32]) -> String {
    let id = hex::encode(id);
    format!("incident/{}/{id}", &id[..2])
}

/// Private: an owner's request of an hour, counted from 1970-01-01, that was
/// accepted.
pub fn request(hour: u64, id: &[u8; 32]) -> String {
    format!("request/{}/{}", number(hour), hex::encode(id))
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
    fn hashes_spread_over_folders() {
        assert!(blob(&[0xab; 32]).starts_with("blob/ab/abab"));
        assert!(
            payload(3, &[1; 32])
                .starts_with("payload/00000000000000000000/00000000000000000003-01")
        );
    }
}
