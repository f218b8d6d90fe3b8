//! The management record: the TXT record at `_dime.<domain>` or `_dx.<domain>`
//! that names a domain's Primary Organization Keys (reference §1).
//!
//! From text to [`Record`] under the strict grammar of §1.3, from TXT answers
//! to the one record to use (§1.1, §1.2), from times to refresh and expiry
//! (§1.8), and the making side: record text with the `tls` signature over a
//! certificate. What the record is used for, and how DNS protected it, is
//! decided elsewhere.

use std::collections::BTreeSet;
use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use sha2::{Digest as _, Sha512};

use super::{Rejection, Timestamp, ed25519};

/// Largest record text after joining its character-strings, bytes (§1.2).
pub const MAX_RECORD: usize = 4096;
/// Most POKs in one record: what a log entry can name.
pub const MAX_POKS: usize = 16;
/// Longest `exp` that counts, days (§1.8); a larger value means this one.
pub const MAX_EXPIRY_DAYS: u32 = 3650;
/// Most bytes in one DNS character-string (RFC 1035 §3.3).
pub const MAX_STRING: usize = 255;

/// A Primary Organization Key: a raw Ed25519 public key.
pub type Pok = [u8; 32];

/// A parsed management record, and the text it was read from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// At least one, at most [`MAX_POKS`], in the order written. One that is no
    /// usable key is kept here and flagged: nothing verifies under it.
    pub poks: Vec<Pok>,
    /// What authenticates the DX host's certificate, in the order written.
    pub tls: Vec<Pin>,
    pub policy: Policy,
    pub subdomain: Subdomain,
    /// `syn`: where else to ask for this domain's signets, in order of preference.
    pub syndicates: Vec<Host>,
    /// `dx` as written, in order; [`Record::dx_hosts`] gives those that are host names.
    pub dx: Vec<String>,
    /// `exp`: days the record stays in force after it is gone; 0 if absent.
    pub expiry_days: u32,
    /// `ttl`: seconds until the next look, if the record says so (A21).
    pub ttl: Option<u32>,
    /// `key=value` of keys nobody knows, as written.
    pub unknown: Vec<String>,
    /// Oddities that do not refuse the record; ascending, each once.
    pub flags: Vec<Flag>,
    /// The bytes parsed.
    pub text: Vec<u8>,
}

/// One `tls` field, told apart by content, since its forms have one length (§1.5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pin {
    /// 64 bytes: an Ed25519 signature by a POK over SHA-512 of the DER
    /// certificate; if no POK made it, SHA-512 of that certificate itself.
    Signature([u8; 64]),
    /// SHA-256 of the DER certificate, or of its SubjectPublicKeyInfo.
    Sha256([u8; 32]),
    /// SHA-512 of the DER certificate, or of its SubjectPublicKeyInfo.
    Sha512([u8; 64]),
}

/// Which mail the domain accepts (§1.7).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Policy {
    #[default]
    Experimental,
    Mixed,
    Strict,
}

/// What the record means for names below the domain (§1.7, A23).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Subdomain {
    /// This record covers all names below; theirs are ignored.
    #[default]
    Strict,
    /// A name below may have its own record, else this one counts.
    Relaxed,
    /// A name below needs its own record.
    Explicit,
}

/// A host name in lower case, with the port if one was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Host {
    pub name: String,
    pub port: Option<u16>,
}

/// An oddity worth keeping with the record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Flag {
    /// A `pok` or `tls` value ended in base64 padding.
    Padded,
    /// A token without `=` was ignored.
    BareToken,
    /// A `pok` is no usable key: not on the curve, not canonical, or of small order.
    PokUnusable,
    /// A `tls` value has a length no form has; it can never match, and still pins.
    TlsUnusable,
    /// A `dx` value is no host name.
    DxUnusable,
    /// A `syn` item is no host name.
    SynUnusable,
    /// `exp` is above [`MAX_EXPIRY_DAYS`].
    ExpiryCapped,
}

/// What the TXT RRs at one name amount to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Selection {
    /// No RR looks like a record.
    None,
    One(Record),
    /// Several RRs look like records: none is used (A24). Their texts.
    Ambiguous(Vec<Vec<u8>>),
    /// The one candidate breaks a rule.
    Refused {
        text: Vec<u8>,
        why: Rejection,
    },
}

/// The DNS name a record was found under.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Label {
    /// `_dime`: the specification's name.
    Dime,
    /// `_dx`: the deployed name, the only one libdime asks for.
    Dx,
}

/// The outcome of asking under both names (§1.1).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chosen {
    pub selection: Selection,
    /// Which name decided; [`Label::Dime`] if neither has a record.
    pub label: Label,
    /// Both names have something, and not the same POK set.
    pub conflict: bool,
}

/// What a vanished record means (§1.8).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Absence {
    /// Withdrawn, and within `exp`: it stays in force.
    Grace,
    /// Withdrawn, and no longer in force.
    Expired,
}

/// A record to be written; field order is the reference writer's.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Template {
    pub poks: Vec<Pok>,
    /// Signatures over the DX certificate; the current host's first, since
    /// libdime looks at no other.
    pub tls: Vec<[u8; 64]>,
    pub policy: Policy,
    pub syndicates: Vec<String>,
    pub dx: Vec<String>,
    /// Days; 0 writes nothing.
    pub expiry_days: u32,
    pub subdomain: Subdomain,
}

impl Record {
    /// Reads one assembled record text by the strict grammar of §1.3.
    ///
    /// # Errors
    /// `record-size`, `record-version`, `record-empty-value`, `record-equals`,
    /// `record-base64`, `record-policy`, `record-subdomain`, `record-conflict`
    /// (`pol` or `sub` twice with different values), `record-no-pok`,
    /// `record-many-poks`, `A20` (`exp`) and `A21` (`ttl`).
    pub fn parse(text: &[u8]) -> Result<Record, Rejection> {
        if text.len() > MAX_RECORD {
            return Err(Rejection::new("record-size", "the record is longer than 4096 bytes"));
        }
        let mut reading = Reading::default();
        for token in tokens(text) {
            match token.iter().position(|&b| b == b'=') {
                Some(at) => reading.field(&token[..at], &token[at + 1..], token)?,
                None => reading.flag(Flag::BareToken),
            }
        }
        reading.finish(text)
    }

    /// The `dx` values that are host names, in order.
    pub fn dx_hosts(&self) -> Vec<Host> {
        self.dx.iter().filter_map(|value| Host::parse(value.as_bytes())).collect()
    }

    /// Whether the record pins a certificate. A pin that can never match still
    /// pins: an unreadable `tls` must not open the way to the authorities.
    pub fn pins(&self) -> bool {
        !self.tls.is_empty() || self.flags.contains(&Flag::TlsUnusable)
    }

    /// The POKs as a set: what two records are compared by.
    pub fn pok_set(&self) -> BTreeSet<Pok> {
        self.poks.iter().copied().collect()
    }
}

/// SEP of §1.3: space, `;` and NUL, but not TAB, CR or LF.
fn tokens(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    text.split(|b| matches!(b, b' ' | b';' | 0)).filter(|token| !token.is_empty())
}

/// A record half read.
#[derive(Default)]
struct Reading {
    poks: Vec<Pok>,
    tls: Vec<Pin>,
    policy: Option<Policy>,
    subdomain: Option<Subdomain>,
    syndicates: Vec<Host>,
    dx: Vec<String>,
    expiry_days: Option<u32>,
    ttl: Option<u32>,
    unknown: Vec<String>,
    flags: BTreeSet<Flag>,
}

impl Reading {
    fn flag(&mut self, flag: Flag) {
        self.flags.insert(flag);
    }

    fn field(&mut self, key: &[u8], value: &[u8], token: &[u8]) -> Result<(), Rejection> {
        let key = key.to_ascii_lowercase();
        match key.as_slice() {
            b"ver" | b"version" => version(plain("ver", value)?),
            b"pok" | b"primary" => self.pok(value),
            b"tls" => self.tls(value),
            b"pol" | b"policy" => {
                let policy = Policy::parse(plain("pol", value)?)?;
                once("pol", &mut self.policy, policy)
            }
            b"sub" | b"subdomain" => {
                let subdomain = Subdomain::parse(plain("sub", value)?)?;
                once("sub", &mut self.subdomain, subdomain)
            }
            b"syn" | b"syndicates" => self.syndicates(plain("syn", value)?),
            b"dx" | b"deliver" => self.dx(plain("dx", value)?),
            b"exp" | b"expiry" => {
                let days = decimal("A20", "exp", value)?;
                if days > MAX_EXPIRY_DAYS {
                    self.flag(Flag::ExpiryCapped);
                }
                once("exp", &mut self.expiry_days, days)
            }
            b"ttl" => {
                let seconds = decimal("A21", "ttl", value)?;
                once("ttl", &mut self.ttl, seconds)
            }
            _ => {
                self.unknown.push(String::from_utf8_lossy(token).into_owned());
                Ok(())
            }
        }
    }

    fn pok(&mut self, value: &[u8]) -> Result<(), Rejection> {
        let bytes = self.base64("pok", value)?;
        let pok: Pok = bytes.try_into().map_err(|bytes: Vec<u8>| {
            Rejection::new("record-base64", format!("pok holds {} bytes, not 32", bytes.len()))
        })?;
        if !ed25519::is_point(&pok) {
            self.flag(Flag::PokUnusable);
        }
        if self.poks.len() >= MAX_POKS {
            return Err(Rejection::new("record-many-poks", "more than 16 POKs"));
        }
        self.poks.push(pok);
        Ok(())
    }

    fn tls(&mut self, value: &[u8]) -> Result<(), Rejection> {
        let bytes = self.base64("tls", value)?;
        match Pin::from_bytes(&bytes) {
            Some(pin) => self.tls.push(pin),
            None => self.flag(Flag::TlsUnusable),
        }
        Ok(())
    }

    /// Base64 of the standard alphabet, its unused bits zero; one or two `=` at
    /// the end are stripped and flagged (§1.3).
    fn base64(&mut self, key: &str, value: &[u8]) -> Result<Vec<u8>, Rejection> {
        let bare = value.strip_suffix(b"=").map_or(value, |v| v.strip_suffix(b"=").unwrap_or(v));
        if bare.len() != value.len() {
            self.flag(Flag::Padded);
        }
        STANDARD_NO_PAD.decode(plain(key, bare)?).map_err(|error| {
            Rejection::new("record-base64", format!("{key} is not strict base64: {error}"))
        })
    }

    fn syndicates(&mut self, value: &[u8]) -> Result<(), Rejection> {
        for item in value.split(|&b| b == b',') {
            match Host::parse(item) {
                Some(host) => self.syndicates.push(host),
                None => self.flag(Flag::SynUnusable),
            }
        }
        Ok(())
    }

    fn dx(&mut self, value: &[u8]) -> Result<(), Rejection> {
        if Host::parse(value).is_none() {
            self.flag(Flag::DxUnusable);
        }
        self.dx.push(String::from_utf8_lossy(value).into_owned());
        Ok(())
    }

    fn finish(self, text: &[u8]) -> Result<Record, Rejection> {
        if self.poks.is_empty() {
            return Err(Rejection::new("record-no-pok", "the record names no POK"));
        }
        Ok(Record {
            poks: self.poks,
            tls: self.tls,
            policy: self.policy.unwrap_or_default(),
            subdomain: self.subdomain.unwrap_or_default(),
            syndicates: self.syndicates,
            dx: self.dx,
            expiry_days: self.expiry_days.unwrap_or(0),
            ttl: self.ttl,
            unknown: self.unknown,
            flags: self.flags.into_iter().collect(),
            text: text.to_vec(),
        })
    }
}

/// A value of a known key: not empty, and no `=` in it (§1.3).
fn plain<'a>(key: &str, value: &'a [u8]) -> Result<&'a [u8], Rejection> {
    if value.is_empty() {
        return Err(Rejection::new("record-empty-value", format!("{key} has no value")));
    }
    if value.contains(&b'=') {
        return Err(Rejection::new("record-equals", format!("{key} has a second '='")));
    }
    Ok(value)
}

fn version(value: &[u8]) -> Result<(), Rejection> {
    match value {
        b"1" => Ok(()),
        _ => Err(Rejection::new("record-version", "ver is not exactly 1")),
    }
}

/// Sets a field that may be repeated only with one value.
fn once<T: PartialEq>(key: &str, slot: &mut Option<T>, value: T) -> Result<(), Rejection> {
    match slot {
        Some(known) if *known != value => {
            Err(Rejection::new("record-conflict", format!("{key} appears with two values")))
        }
        _ => {
            *slot = Some(value);
            Ok(())
        }
    }
}

/// Decimal digits only; more than 32 bits can hold means the most they can.
fn decimal(rule: &'static str, key: &str, value: &[u8]) -> Result<u32, Rejection> {
    let value = plain(key, value)?;
    if !value.iter().all(u8::is_ascii_digit) {
        return Err(Rejection::new(rule, format!("{key} is not a decimal number")));
    }
    Ok(value
        .iter()
        .fold(0u32, |sum, digit| sum.saturating_mul(10).saturating_add(u32::from(digit - b'0'))))
}

impl Pin {
    /// Tells the forms apart by content (§1.5); `None` for a length none has.
    pub fn from_bytes(bytes: &[u8]) -> Option<Pin> {
        match bytes.len() {
            32 => bytes.try_into().ok().map(Pin::Sha256),
            64 => match hex::decode(bytes) {
                Ok(hash) => hash.try_into().ok().map(Pin::Sha256),
                Err(_) => bytes.try_into().ok().map(Pin::Signature),
            },
            128 => hex::decode(bytes).ok()?.try_into().ok().map(Pin::Sha512),
            _ => None,
        }
    }

    /// `signature`, `sha256` or `sha512`.
    pub fn form(&self) -> &'static str {
        match self {
            Pin::Signature(_) => "signature",
            Pin::Sha256(_) => "sha256",
            Pin::Sha512(_) => "sha512",
        }
    }

    /// The signature or the hash: 32 or 64 bytes.
    pub fn bytes(&self) -> &[u8] {
        match self {
            Pin::Signature(bytes) | Pin::Sha512(bytes) => bytes,
            Pin::Sha256(bytes) => bytes,
        }
    }
}

impl Policy {
    fn parse(value: &[u8]) -> Result<Policy, Rejection> {
        match value.to_ascii_lowercase().as_slice() {
            b"experimental" => Ok(Policy::Experimental),
            b"mixed" => Ok(Policy::Mixed),
            b"strict" => Ok(Policy::Strict),
            _ => Err(Rejection::new("record-policy", "pol is none of experimental, mixed, strict")),
        }
    }
}

impl fmt::Display for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Policy::Experimental => "experimental",
            Policy::Mixed => "mixed",
            Policy::Strict => "strict",
        })
    }
}

impl std::str::FromStr for Policy {
    type Err = Rejection;

    fn from_str(text: &str) -> Result<Policy, Rejection> {
        Policy::parse(text.as_bytes())
    }
}

impl Subdomain {
    fn parse(value: &[u8]) -> Result<Subdomain, Rejection> {
        match value.to_ascii_lowercase().as_slice() {
            b"strict" => Ok(Subdomain::Strict),
            b"relaxed" => Ok(Subdomain::Relaxed),
            b"explicit" => Ok(Subdomain::Explicit),
            _ => {
                Err(Rejection::new("record-subdomain", "sub is none of strict, relaxed, explicit"))
            }
        }
    }
}

impl fmt::Display for Subdomain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Subdomain::Strict => "strict",
            Subdomain::Relaxed => "relaxed",
            Subdomain::Explicit => "explicit",
        })
    }
}

impl std::str::FromStr for Subdomain {
    type Err = Rejection;

    fn from_str(text: &str) -> Result<Subdomain, Rejection> {
        Subdomain::parse(text.as_bytes())
    }
}

impl Host {
    /// `name` or `name:port`: labels of letters, digits, `-` and `_`, a single
    /// one allowed, no IP address; port 1 to 65535.
    pub fn parse(value: &[u8]) -> Option<Host> {
        let text = std::str::from_utf8(value).ok()?;
        let (name, port) = match text.split_once(':') {
            Some((name, port)) => (name, Some(port)),
            None => (text, None),
        };
        let port = match port {
            Some(digits) if digits.bytes().all(|b| b.is_ascii_digit()) => {
                Some(digits.parse().ok().filter(|&port: &u16| port > 0)?)
            }
            Some(_) => return None,
            None => None,
        };
        let name = name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase();
        is_host_name(&name).then_some(Host { name, port })
    }
}

fn is_host_name(name: &str) -> bool {
    let legal = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(legal)
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    let numeric = |label: &str| label.bytes().all(|b| b.is_ascii_digit());
    name.len() <= super::name::MAX_DOMAIN
        && name.split('.').all(label)
        && !name.split('.').next_back().is_some_and(numeric)
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)?;
        match self.port {
            Some(port) => write!(f, ":{port}"),
            None => Ok(()),
        }
    }
}

impl Flag {
    pub fn as_str(self) -> &'static str {
        match self {
            Flag::Padded => "padded",
            Flag::BareToken => "bare-token",
            Flag::PokUnusable => "pok-unusable",
            Flag::TlsUnusable => "tls-unusable",
            Flag::DxUnusable => "dx-unusable",
            Flag::SynUnusable => "syn-unusable",
            Flag::ExpiryCapped => "expiry-capped",
        }
    }
}

/// Joins the character-strings of one TXT RR: nothing between them (§1.2).
pub fn assemble<S: AsRef<[u8]>>(strings: &[S]) -> Vec<u8> {
    strings.iter().flat_map(|string| string.as_ref().iter().copied()).collect()
}

/// Whether a TXT text claims to be a management record: a token begins with
/// `pok=` or `primary=`, in any case (§1.2).
pub fn is_candidate(text: &[u8]) -> bool {
    let begins = |token: &[u8], key: &[u8]| {
        token.get(..key.len()).is_some_and(|start| start.eq_ignore_ascii_case(key))
    };
    tokens(text).any(|token| begins(token, b"pok=") || begins(token, b"primary="))
}

/// The record among the TXT RRs of one name; `rrs` holds one assembled text per
/// RR. Exactly one candidate, or none is used (A24).
pub fn select(rrs: &[Vec<u8>]) -> Selection {
    let mut candidates = rrs.iter().filter(|text| is_candidate(text));
    match (candidates.next(), candidates.next()) {
        (None, _) => Selection::None,
        (Some(text), None) => match Record::parse(text) {
            Ok(record) => Selection::One(record),
            Err(why) => Selection::Refused { text: text.clone(), why },
        },
        (Some(_), Some(_)) => {
            Selection::Ambiguous(rrs.iter().filter(|text| is_candidate(text)).cloned().collect())
        }
    }
}

/// Which of the two names decides (A1, §1.1): `_dime` if anything there claims
/// to be a record, even one that is refused, so that breaking one name never
/// makes the other count.
pub fn choose(dime: Selection, dx: Selection) -> Chosen {
    let conflict = conflicts(&dime, &dx);
    match dime {
        Selection::None if dx != Selection::None => {
            Chosen { selection: dx, label: Label::Dx, conflict }
        }
        _ => Chosen { selection: dime, label: Label::Dime, conflict },
    }
}

/// Whose record counts at a name (§1.7, A23).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Governing {
    /// What is at the name itself, which may be nothing.
    Own,
    /// The record of this ancestor, as numbered in the walk.
    Ancestor(usize),
    /// Nothing: the nearest record above wants one at the name itself.
    Nothing,
}

/// Whose record counts at a name, given what is there and at each ancestor,
/// nearest first. The nearest ancestor with `sub=strict` overrides everything
/// below it. Else the name's own counts, even one that is refused; else that of
/// the nearest ancestor that has one, unless it is `explicit`. A record above
/// that is refused or ambiguous governs nobody: it is no record.
pub fn govern(own: &Selection, ancestors: &[&Selection]) -> Governing {
    let above = || {
        ancestors.iter().enumerate().filter_map(|(at, selection)| match selection {
            Selection::One(record) => Some((at, record.subdomain)),
            _ => None,
        })
    };
    if let Some((at, _)) = above().find(|(_, subdomain)| *subdomain == Subdomain::Strict) {
        return Governing::Ancestor(at);
    }
    match above().next() {
        _ if *own != Selection::None => Governing::Own,
        Some((at, Subdomain::Relaxed)) => Governing::Ancestor(at),
        Some(_) => Governing::Nothing,
        None => Governing::Own,
    }
}

fn conflicts(dime: &Selection, dx: &Selection) -> bool {
    match (dime, dx) {
        (Selection::None, _) | (_, Selection::None) => false,
        (Selection::One(dime), Selection::One(dx)) => dime.pok_set() != dx.pok_set(),
        (dime, dx) => dime != dx,
    }
}

/// When to look again (§1.8): after the smaller of the RR's TTL and the `ttl`
/// field, but no sooner than a minute and no later than a day. TTLs in seconds.
pub fn refresh_at(fetched: Timestamp, rr_ttl: u32, field_ttl: Option<u32>) -> Timestamp {
    let seconds = field_ttl.map_or(rr_ttl, |field| field.min(rr_ttl)).clamp(60, 86_400);
    fetched.plus(u64::from(seconds) * 1000)
}

/// End of the validity period that a look at `now` leaves in force (§1.8): a
/// period that still runs keeps its end, whatever the record now says; else a
/// new one begins. Days above [`MAX_EXPIRY_DAYS`] count as that many.
pub fn expires_at(running: Option<Timestamp>, now: Timestamp, expiry_days: u32) -> Timestamp {
    match running {
        Some(end) if now < end => end,
        _ => now.plus(u64::from(expiry_days.min(MAX_EXPIRY_DAYS)) * 86_400_000),
    }
}

/// What it means that the record is gone at `now` (§1.8).
pub fn absence(expires_at: Timestamp, now: Timestamp) -> Absence {
    if now < expires_at { Absence::Grace } else { Absence::Expired }
}

/// A POK's signature over a DX certificate, as the `tls` field carries it:
/// pure Ed25519 over the 64-byte SHA-512 of the DER certificate (§1.5).
pub fn sign_certificate(pok_seed: &[u8; 32], certificate_der: &[u8]) -> [u8; 64] {
    ed25519::sign(pok_seed, &Sha512::digest(certificate_der))
}

impl Template {
    /// The record's text, in the reference writer's order, without its two
    /// defects: fields are always parted by one space.
    pub fn text(&self) -> String {
        let mut fields = vec!["ver=1".to_owned()];
        fields.extend(self.poks.iter().map(|pok| format!("pok={}", STANDARD_NO_PAD.encode(pok))));
        fields.extend(self.tls.iter().map(|pin| format!("tls={}", STANDARD_NO_PAD.encode(pin))));
        fields.push(format!("pol={}", self.policy));
        if !self.syndicates.is_empty() {
            fields.push(format!("syn={}", self.syndicates.join(",")));
        }
        fields.extend(self.dx.iter().map(|host| format!("dx={host}")));
        if self.expiry_days > 0 {
            fields.push(format!("exp={}", self.expiry_days));
        }
        fields.push(format!("sub={}", self.subdomain));
        fields.join(" ")
    }
}

/// The character-strings a zone file needs for `text`: at most 255 bytes each.
pub fn character_strings(text: &str) -> Vec<&[u8]> {
    text.as_bytes().chunks(MAX_STRING).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const POK: &str = "pok=2r3r8F8p7lOYmUnWof1XBaRzSlnjvER2OvoSMtW/AuI";
    const POK2: &str = "pok=ZsF8WBdBeQ2xjgDvu1/R4Gbt6+HzDCnjJ2HmbFSLPeY";
    /// The seminar paper's example, its scanner errors repaired (§1.6).
    const SEED: &str = "ver=1 pok=MmprdmRjaWtjOTYyZDl1MGhrOGNhMTRsZmoyamt2ZGM pol=mixed \
        syn=mirror.example.tld tls=QUYxRjA0MkZDMjQ0OUEzOUJENEE5QkU2MTdENDM3OUVEQTI1QjQ1REYwODEwODE\
        2ODlGMUE2Q0U1MjQ3M0Y2Mw dx=dmtp.domain.tld ttl=1776 exp=30 sub=strict";

    fn parse(text: &str) -> Result<Record, Rejection> {
        Record::parse(text.as_bytes())
    }

    fn rule(rest: &str) -> &'static str {
        parse(&format!("{POK} {rest}")).unwrap_err().rule
    }

    fn flags(rest: &str) -> Vec<Flag> {
        parse(&format!("{POK} {rest}")).unwrap().flags
    }

    #[test]
    fn reads_the_papers_example() {
        let record = parse(SEED).unwrap();
        assert_eq!(record.poks, [*b"2jkvdcikc962d9u0hk8ca14lfj2jkvdc"]);
        assert_eq!(record.policy, Policy::Mixed);
        assert_eq!(record.syndicates[0].to_string(), "mirror.example.tld");
        let hash = "af1f042fc2449a39bd4a9be617d4379eda25b45df081081689f1a6ce52473f63";
        assert_eq!(record.tls[0].form(), "sha256");
        assert_eq!(hex::encode(record.tls[0].bytes()), hash);
        assert_eq!(record.dx, ["dmtp.domain.tld"]);
        assert_eq!((record.ttl, record.expiry_days), (Some(1776), 30));
        assert_eq!(record.subdomain, Subdomain::Strict);
    }

    #[test]
    fn separates_tls_forms_by_content() {
        let form = |bytes: &[u8]| Pin::from_bytes(bytes).map(|pin| pin.form());
        assert_eq!(form(&[b'a'; 64]), Some("sha256"));
        assert_eq!(form(&[b'g'; 64]), Some("signature"));
        assert_eq!(form(&[0; 32]), Some("sha256"));
        assert_eq!(form(&[b'0'; 128]), Some("sha512"));
        assert_eq!(form(&[b'g'; 128]), None);
        assert_eq!(form(&[0; 33]), None);
    }

    #[test]
    fn refuses_by_rule() {
        for (rest, expected) in [
            ("ver=01", "record-version"),
            ("ver=2", "record-version"),
            ("ver=1 ver=2", "record-version"),
            ("pol=", "record-empty-value"),
            ("pol=;", "record-empty-value"),
            ("tls=", "record-empty-value"),
            ("syn=", "record-empty-value"),
            ("dx=a=b", "record-equals"),
            ("pok==", "record-empty-value"),
            ("pol=none", "record-policy"),
            ("sub=none", "record-subdomain"),
            ("pol=mixed pol=strict", "record-conflict"),
            ("sub=strict sub=relaxed", "record-conflict"),
            ("pok=AA", "record-base64"),
            ("tls=AB", "record-base64"),
            ("tls=A-_A", "record-base64"),
            ("tls=AAA===", "record-equals"),
            ("exp=-5", "A20"),
            ("exp=1 exp=2", "record-conflict"),
            ("ttl=1h", "A21"),
        ] {
            assert_eq!(rule(rest), expected, "{rest}");
        }
        assert_eq!(parse("ver=1 pol=strict").unwrap_err().rule, "record-no-pok");
        assert_eq!(parse(&" ".repeat(MAX_RECORD + 1)).unwrap_err().rule, "record-size");
        let many = [POK; MAX_POKS + 1].join(" ");
        assert_eq!(parse(&many).unwrap_err().rule, "record-many-poks");
    }

    #[test]
    fn flags_what_it_lets_pass() {
        assert_eq!(flags("pol=STRICT Sub=Relaxed pol=strict"), []);
        assert_eq!(flags("dx pok"), [Flag::BareToken]);
        assert_eq!(flags("tls=AAA="), [Flag::Padded, Flag::TlsUnusable]);
        assert_eq!(flags("dx=a,b dx=192.0.2.1 dx=[::1]"), [Flag::DxUnusable]);
        assert_eq!(flags("syn=a.example,,b.example:99999"), [Flag::SynUnusable]);
        assert_eq!(flags("exp=99999999999"), [Flag::ExpiryCapped]);
        assert_eq!(flags(&format!("pok={}", "A".repeat(43))), [Flag::PokUnusable]);
    }

    #[test]
    fn lists_hosts_in_order() {
        let record = parse(&format!("{POK} syn=A.example,b.example:443 syn=c.example dx=x dx=y:2"));
        let record = record.unwrap();
        let syndicates: Vec<String> = record.syndicates.iter().map(Host::to_string).collect();
        assert_eq!(syndicates, ["a.example", "b.example:443", "c.example"]);
        assert_eq!(record.dx, ["x", "y:2"]);
        assert_eq!(record.dx_hosts()[1], Host { name: "y".to_owned(), port: Some(2) });
    }

    #[test]
    fn exactly_one_candidate_is_selected() {
        let spf = b"v=spf1 -all".to_vec();
        let record = assemble(&["ver=1 pok=2r3r8F8p7lOYmUnWof1XBaRzSlnjv", "ER2OvoSMtW/AuI"]);
        assert_eq!(select(&[]), Selection::None);
        assert_eq!(select(std::slice::from_ref(&spf)), Selection::None);
        let Selection::One(one) = select(&[spf.clone(), record.clone()]) else {
            panic!("one candidate is selected")
        };
        assert_eq!(one.text, record);
        let other = b"PRIMARY=x".to_vec();
        let both = [record.clone(), spf, other.clone()];
        assert_eq!(select(&both), Selection::Ambiguous(vec![record, other.clone()]));
        assert!(
            matches!(select(&[other]), Selection::Refused { why, .. } if why.rule == "record-base64")
        );
    }

    #[test]
    fn dime_wins_and_differences_are_told() {
        let one = |text: &str| select(&[text.as_bytes().to_vec()]);
        let told = |dime, dx| {
            let chosen = choose(dime, dx);
            (chosen.label, chosen.conflict)
        };
        assert_eq!(told(Selection::None, Selection::None), (Label::Dime, false));
        assert_eq!(told(one(POK), Selection::None), (Label::Dime, false));
        assert_eq!(told(Selection::None, one(POK)), (Label::Dx, false));
        assert_eq!(told(one(POK), one(&format!("{POK} pol=strict"))), (Label::Dime, false));
        assert_eq!(told(one(POK), one(POK2)), (Label::Dime, true));
        assert_eq!(told(one("pok=x"), one(POK)), (Label::Dime, true));
        let swapped = format!("{POK2} {POK}");
        assert_eq!(told(one(&format!("{POK} {POK2}")), one(&swapped)), (Label::Dime, false));
    }

    #[test]
    fn refresh_is_clamped() {
        let at = |rr, field| refresh_at(Timestamp::from_secs(1000), rr, field).secs() - 1000;
        assert_eq!(at(300, None), 300);
        assert_eq!(at(300, Some(200)), 200);
        assert_eq!(at(300, Some(900)), 300);
        assert_eq!(at(0, None), 60);
        assert_eq!(at(u32::MAX, None), 86_400);
    }

    #[test]
    fn a_validity_period_keeps_its_end() {
        const DAY: u64 = 86_400;
        let day = |n: u64| Timestamp::from_secs(n * DAY);
        assert_eq!(expires_at(None, day(10), 30), day(40));
        assert_eq!(expires_at(Some(day(40)), day(39), 90), day(40));
        assert_eq!(expires_at(Some(day(40)), day(40), 90), day(130));
        assert_eq!(expires_at(None, day(0), u32::MAX), day(3650));
        assert_eq!(expires_at(None, day(5), 0), day(5));
        assert_eq!(absence(day(40), day(39)), Absence::Grace);
        assert_eq!(absence(day(5), day(5)), Absence::Expired);
    }

    #[test]
    fn what_is_made_reads_back() {
        let pok = ed25519::public_key(&[1; 32]);
        let template = Template {
            poks: vec![pok],
            tls: vec![sign_certificate(&[1; 32], b"certificate")],
            policy: Policy::Strict,
            syndicates: vec!["a.example".to_owned(), "b.example:26".to_owned()],
            dx: (0..9).map(|n| format!("mail-exchanger-{n}.example")).collect(),
            expiry_days: 30,
            subdomain: Subdomain::Explicit,
        };
        let text = template.text();
        let strings = character_strings(&text);
        assert!(strings.len() > 1 && strings.iter().all(|string| string.len() <= MAX_STRING));
        let record = Record::parse(&assemble(&strings)).unwrap();
        assert_eq!(record.poks, template.poks);
        assert_eq!(record.tls[0].bytes(), template.tls[0]);
        assert_eq!(record.policy, Policy::Strict);
        assert_eq!(record.dx, template.dx);
        assert_eq!((record.expiry_days, record.subdomain), (30, Subdomain::Explicit));
        assert_eq!(record.syndicates.len(), 2);
        assert_eq!(record.flags, []);
    }

    proptest! {
        #[test]
        fn never_panics_on_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
            let _ = Record::parse(&bytes);
            let _ = select(&[bytes]);
        }

        #[test]
        fn never_panics_on_edited_records(
            at in 0..320usize,
            cut in 0..40usize,
            put in proptest::collection::vec(any::<u8>(), 0..40),
        ) {
            let mut text = format!("{SEED} {POK2}").into_bytes();
            let at = at.min(text.len());
            let end = (at + cut).min(text.len());
            text.splice(at..end, put);
            if let Ok(record) = Record::parse(&text) {
                prop_assert!(!record.poks.is_empty() && record.poks.len() <= MAX_POKS);
                prop_assert_eq!(record.text, text);
            }
        }
    }

    #[test]
    fn the_nearest_strict_record_above_overrides_and_else_the_own_counts() {
        let pok = Template { poks: vec![ed25519::public_key(&[1; 32])], ..Template::default() };
        let with = |subdomain| select(&[Template { subdomain, ..pok.clone() }.text().into_bytes()]);
        let strict = with(Subdomain::Strict);
        let relaxed = with(Subdomain::Relaxed);
        let explicit = with(Subdomain::Explicit);
        let (own, none) = (relaxed.clone(), Selection::None);
        let ambiguous = Selection::Ambiguous(vec![]);
        let refused =
            Selection::Refused { text: vec![], why: Rejection::new("record-no-pok", "none") };
        for (own, above, expected) in [
            (&own, vec![], Governing::Own),
            (&none, vec![], Governing::Own),
            (&own, vec![&strict], Governing::Ancestor(0)),
            (&none, vec![&strict], Governing::Ancestor(0)),
            (&own, vec![&relaxed, &strict], Governing::Ancestor(1)),
            (&own, vec![&strict, &strict], Governing::Ancestor(0)),
            (&own, vec![&relaxed], Governing::Own),
            (&none, vec![&none, &relaxed], Governing::Ancestor(1)),
            (&own, vec![&explicit], Governing::Own),
            (&none, vec![&explicit], Governing::Nothing),
            (&none, vec![&explicit, &relaxed], Governing::Nothing),
            (&refused, vec![&relaxed], Governing::Own),
            (&refused, vec![&strict], Governing::Ancestor(0)),
            (&own, vec![&refused, &ambiguous, &strict], Governing::Ancestor(2)),
            (&none, vec![&refused, &ambiguous], Governing::Own),
        ] {
            assert_eq!(govern(own, &above), expected, "{above:?}");
        }
    }
}
