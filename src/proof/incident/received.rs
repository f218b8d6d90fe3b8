//! What one mirror received of a name: a change that is an alarm, or bytes that
//! were refused.

use std::collections::BTreeSet;

use bytes::Bytes;
use sha2::{Digest, Sha256};

use super::answers::organization;
use super::shown::{Chain, View, print};
use super::verify::{Case, Fault, Findings, Party};
use super::zone::{deepest_zone, parting_zone, window};
use super::{Kind, Received, Shown};
use crate::dime::chain::{self, Link};
use crate::dime::org::{self, ValidOrgSignet};
use crate::dime::record::{self, Pin, Policy, Record, Selection};
use crate::dime::signet::{Level, Signet};
use crate::dime::user::{self, ValidUserSignet};
use crate::dime::{Address, Dnssec, Domain, Name, Rejection};
use crate::proof::dnssec::{self, DnsName, Prover, Set};

/// What one mirror received.
pub fn received(case: &Case<'_>, received: &Received) -> Result<Findings, Fault> {
    let name = case.name()?;
    let times = [Some(received.now.at), received.before.as_ref().map(|before| before.at)];
    if times.into_iter().flatten().any(|at| at > case.at()) {
        return Err(Fault::Time);
    }
    let mut findings = Findings::default();
    match name {
        Name::Address(address) => mailbox(case, address, received, &mut findings)?,
        Name::Domain(domain) => of_domain(case, domain, received, &mut findings)?,
    }
    let source = match case.kind() {
        Kind::DnssecBogus | Kind::NameConflict | Kind::RecordRefused | Kind::RecordAmbiguous => {
            "DNS answered so"
        }
        Kind::PokReplaced | Kind::RecordWithdrawn | Kind::RecordExpired => "DNS answered so",
        Kind::Downgrade | Kind::DnssecLost => "DNS answered so",
        _ => "the mail host answered so",
    };
    findings.testimony.push(format!(
        "That {source} is the word of {} (rule {:?}: {}).",
        case.incident.observer, received.rule, received.message
    ));
    Ok(findings)
}

fn mailbox(
    case: &Case<'_>,
    address: &Address,
    received: &Received,
    findings: &mut Findings,
) -> Result<(), Fault> {
    if case.kind() == Kind::VantageDiffers {
        return two_signets(received, findings);
    }
    let name = Name::Address(address.clone());
    let now = &received.now;
    let before = received.before.as_ref();
    if matches!(case.kind(), Kind::SignetInvalid | Kind::LinkInvalid | Kind::Coalesced) {
        return refused_signet(case, address, received, findings);
    }
    // What was in force may rest on the org signet that still is.
    let before = before.map(|before| match before.org_signet.is_empty() {
        true => Shown {
            record: now.record.clone(),
            org_signet: now.org_signet.clone(),
            ..before.clone()
        },
        false => before.clone(),
    });
    let new = View::check(case, &name, now).map_err(Fault::Shown)?;
    let own_org = received.before.as_ref().is_some_and(|own| !own.org_signet.is_empty());
    let old = match before.as_ref().map(|before| View::check(case, &name, before)) {
        Some(Err(why)) if own_org => return Err(Fault::Shown(why)),
        old => old.and_then(Result::ok),
    };
    let old = old.as_ref().and_then(|old| Some((old, old.user.as_ref()?)));
    new.tell_chain(&name, findings);
    let signed = |view: &View, user: &ValidUserSignet| {
        let by_name = user.signet().level() == Level::Id;
        view.org.as_ref().map(|org| (org.pok(), by_name))
    };
    if case.kind() == Kind::SignetWithdrawn {
        if !now.signet.is_empty() {
            return Err(Fault::Otherwise);
        }
        if let Some((pok, by_name)) = old.and_then(|(view, user)| signed(view, user)) {
            organization(&name, by_name, pok, "the key that is gone", findings);
            // To stop serving a key is nobody's deed.
            findings.convicts = None;
        }
        return Ok(());
    }
    let (Some(user), Some((old_view, old_user))) = (&new.user, old) else {
        findings.testimony.push(
            "What both keys are to each other is not shown: one of them, or the org signet that it \
             is valid under, is not here."
                .to_owned(),
        );
        return Ok(());
    };
    let link = chain::link(std::slice::from_ref(old_user.signet()), user);
    let fits = match case.kind() {
        Kind::ChainRestarted => link == Link::Restart,
        Kind::ChainGap => link == Link::Gap,
        Kind::ChainForked => matches!(link, Link::Gap | Link::Fork),
        Kind::ChainReverted => matches!(link, Link::Restart | Link::Gap | Link::Revert),
        _ => false,
    };
    if !fits {
        return Err(Fault::Otherwise);
    }
    let (old_print, new_print) = (print(old_user.signet().bytes()), print(user.signet().bytes()));
    findings.checked.push(match case.kind() {
        Kind::ChainRestarted => {
            format!("The key {new_print} carries no consent of the key {old_print} before it.")
        }
        Kind::ChainReverted if chain::custody(user.signet(), old_user.signet()).is_ok() => {
            format!("The key {new_print} had itself consented to the key {old_print}.")
        }
        _ => format!("The key {old_print} did not consent to the key {new_print}."),
    });
    match (signed(old_view, old_user), signed(&new, user)) {
        (Some((old, old_name)), Some((pok, by_name))) if old == pok => {
            organization(&name, old_name && by_name, pok, "both keys", findings);
        }
        (_, Some((pok, by_name))) => {
            organization(&name, by_name, pok, "the new key", findings);
        }
        _ => {}
    }
    Ok(())
}

/// What two places were shown: the bytes are one signet after the other, of
/// which one may be missing.
fn two_signets(received: &Received, findings: &mut Findings) -> Result<(), Fault> {
    if received.bytes.is_empty() {
        return Err(Fault::Otherwise);
    }
    let shown = "What both were shown is here; by itself it says nothing about who is right.";
    findings.checked.push(shown.to_owned());
    Ok(())
}

/// A signet that was refused, or that was one too many.
fn refused_signet(
    case: &Case<'_>,
    address: &Address,
    received: &Received,
    findings: &mut Findings,
) -> Result<(), Fault> {
    let name = Name::Address(address.clone());
    let context = Shown { signet: Bytes::new(), ..received.now.clone() };
    let view = View::check(case, &name, &context).map_err(Fault::Shown)?;
    view.tell_chain(&name, findings);
    // What is hashed for a quota begins with a nonce.
    let skip = if case.kind() == Kind::Coalesced { 32 } else { 0 };
    let decoded = Signet::decode(received.bytes.get(skip..).unwrap_or_default());
    let valid = match (&decoded, &view.org) {
        (Ok(signet), Some(org)) => user::validate(signet, org, Some(address)),
        (Err(why), _) => Err(why.clone()),
        (Ok(_), None) => return Ok(()),
    };
    match (case.kind(), &valid) {
        (Kind::SignetInvalid, Ok(_)) => return Err(Fault::Otherwise),
        (Kind::Coalesced, Ok(user)) => {
            let by_name = user.signet().level() == Level::Id;
            let pok = view.org.as_ref().map(ValidOrgSignet::pok);
            if let Some(pok) = pok {
                organization(&name, by_name, pok, "this key", findings);
                findings.convicts = None;
            }
        }
        (Kind::Coalesced, Err(_)) | (Kind::LinkInvalid, Ok(_)) => {}
        (_, Err(why)) => {
            findings.checked.push(format!("The signet that was received is not valid: {why}."));
            let (Ok(signet), Some(org)) = (&decoded, &view.org) else { return Ok(()) };
            if why.rule == "G2" && user::validate(signet, org, None).is_ok() {
                findings.proved.push(format!(
                    "The organization with the primary key {} signed it, for another name.",
                    hex::encode(org.pok())
                ));
            }
        }
        (_, Ok(_)) => return Err(Fault::Otherwise),
    }
    Ok(())
}

fn of_domain(
    case: &Case<'_>,
    domain: &Domain,
    received: &Received,
    findings: &mut Findings,
) -> Result<(), Fault> {
    let name = Name::Domain(domain.clone());
    let is_refusal = matches!(
        case.kind(),
        Kind::RecordRefused
            | Kind::RecordAmbiguous
            | Kind::CertificateMismatch
            | Kind::OrgSignetInvalid
    );
    if is_refusal {
        return refused_of_domain(case, domain, received, findings);
    }
    if case.kind() == Kind::VantageDiffers && received.before.is_none() {
        return two_signets(received, findings);
    }
    let new = View::check(case, &name, &received.now).map_err(Fault::Shown)?;
    let old = received.before.as_ref().map(|before| View::check(case, &name, before));
    let old = old.transpose().map_err(Fault::Shown)?;
    let old_record = old.as_ref().and_then(|old| old.record.as_ref());
    new.tell_chain(&name, findings);
    if let Some(old) = &old
        && let Some((observed, _)) = old.chain.secure()
    {
        findings.proved.push(format!("Before: {}", window(&name, observed)));
    }
    let gone = received.now.record.is_empty();
    let old_at = received.before.as_ref().map(|before| before.at);
    match case.kind() {
        Kind::PokReplaced => {
            let (Some(old_record), Some(record)) = (old_record, &new.record) else {
                return Err(Fault::Otherwise);
            };
            if !old_record.pok_set().is_disjoint(&record.pok_set()) {
                return Err(Fault::Otherwise);
            }
            findings.checked.push("The two records have no primary key in common.".to_owned());
        }
        Kind::VantageDiffers => {
            let poks = |record: Option<&Record>| record.map(Record::pok_set);
            if poks(old_record) == poks(new.record.as_ref()) {
                return Err(Fault::Otherwise);
            }
            findings.checked.push("The two records have different primary keys.".to_owned());
        }
        Kind::RecordWithdrawn | Kind::RecordExpired if !gone => return Err(Fault::Otherwise),
        Kind::RecordWithdrawn => {
            let end = old_record
                .zip(old_at)
                .map(|(old, at)| record::expires_at(None, at, old.expiry_days));
            match end {
                Some(end) if end > case.at() => findings.checked.push(format!(
                    "The record that was there at {} was to hold until {end} at least.",
                    old_at.unwrap_or_default()
                )),
                _ => findings.testimony.push(format!(
                    "That the record's time was not over is the word of {}.",
                    case.incident.observer
                )),
            }
        }
        Kind::RecordExpired => {
            let end = old_record
                .zip(old_at)
                .map(|(old, at)| record::expires_at(None, at, old.expiry_days));
            match end {
                Some(end) if end <= case.at() => findings.checked.push(format!(
                    "The record that was there at {} was to hold until {end}.",
                    old_at.unwrap_or_default()
                )),
                _ => findings.testimony.push(format!(
                    "That the record's time was over is the word of {}.",
                    case.incident.observer
                )),
            }
        }
        Kind::Downgrade => {
            let is_strict = |record: &Record| record.policy == Policy::Strict;
            let is_still = new.record.as_ref().is_some_and(is_strict);
            if is_still || !old_record.is_some_and(is_strict) {
                return Err(Fault::Otherwise);
            }
            findings
                .checked
                .push("The record that was there asked for encrypted mail only.".into());
        }
        Kind::Coalesced => {
            if let Some(org) = &new.org {
                let by_name = org.signet().level() == Level::Id;
                organization(&name, by_name, org.pok(), "these keys", findings);
                // To change often is nobody's deed.
                findings.convicts = None;
            }
        }
        Kind::NameConflict => {
            let texts: Vec<Vec<u8>> =
                received.bytes.split(|byte| *byte == b'\n').map(<[u8]>::to_vec).collect();
            let poks: BTreeSet<_> = texts
                .iter()
                .filter_map(|text| Record::parse(text).ok())
                .map(|record| record.pok_set())
                .collect();
            let is_broken =
                |text: &Vec<u8>| record::is_candidate(text) && Record::parse(text).is_err();
            let words = match poks.len() {
                0 => return Err(Fault::Otherwise),
                1 if texts.iter().any(is_broken) => "One text is a record, another breaks a rule.",
                1 => return Err(Fault::Otherwise),
                _ => "The records have different primary keys.",
            };
            findings.checked.push(words.to_owned());
        }
        _ => {}
    }
    let (Some(old), Some(_)) = (&old, &received.before) else { return Ok(()) };
    zone_deed(case.kind(), &new, old, findings);
    Ok(())
}

/// The zone that signed both what was and what is.
fn zone_deed(kind: Kind, new: &View, old: &View, findings: &mut Findings) {
    let Some((_, before)) = old.chain.secure() else { return };
    let (zone, deed) = match (kind, &new.chain) {
        (Kind::PokReplaced, Chain::Proved(observed, sets)) if observed.dnssec == Dnssec::Secure => {
            (parting_zone(before, sets), "signed two records without a key in common")
        }
        (Kind::VantageDiffers, Chain::Proved(observed, sets))
            if observed.dnssec == Dnssec::Secure =>
        {
            (parting_zone(before, sets), "signed two records with different keys")
        }
        (Kind::Downgrade, Chain::Proved(observed, sets))
            if observed.dnssec == Dnssec::Secure && new.record.is_some() =>
        {
            let deed = "signed that all mail is to be encrypted, and then that it need not be";
            (parting_zone(before, sets), deed)
        }
        (Kind::RecordWithdrawn | Kind::Downgrade, Chain::Proved(observed, sets))
            if observed.dnssec == Dnssec::Secure =>
        {
            (parting_zone(before, sets), "signed a record, and then that there is none")
        }
        (Kind::DnssecLost, Chain::Proved(observed, sets))
            if observed.dnssec == Dnssec::Insecure =>
        {
            (deepest_zone(sets), "signed that the domain is protected, and then that it is not")
        }
        _ => return,
    };
    findings.proved.push(format!("The DNS zone {zone} {deed}."));
    findings.convict(Party::Zone(zone), deed);
}

fn refused_of_domain(
    case: &Case<'_>,
    domain: &Domain,
    received: &Received,
    findings: &mut Findings,
) -> Result<(), Fault> {
    let name = Name::Domain(domain.clone());
    let context = Shown { org_signet: Bytes::new(), ..received.now.clone() };
    let view = View::check(case, &name, &context).map_err(Fault::Shown)?;
    let bytes = &received.bytes;
    let refused = |why: &Rejection| format!("What was received breaks a rule: {why}.");
    match case.kind() {
        Kind::RecordRefused => match record::select(&[bytes.to_vec()]) {
            Selection::Refused { why, .. } => findings.checked.push(refused(&why)),
            _ => return Err(Fault::Otherwise),
        },
        Kind::RecordAmbiguous => {
            let texts: Vec<Vec<u8>> =
                bytes.split(|byte| *byte == b'\n').map(<[u8]>::to_vec).collect();
            match record::select(&texts) {
                Selection::Ambiguous(texts) => {
                    findings.checked.push(format!("{} texts claim to be the record.", texts.len()))
                }
                _ => return Err(Fault::Otherwise),
            }
        }
        Kind::OrgSignetInvalid => {
            let poks = view.record.as_ref().map(|record| &record.poks[..]);
            let valid = Signet::decode(bytes).and_then(|signet| {
                let own = [signet.signing_key()];
                org::validate(&signet, poks.unwrap_or(&own), Some(domain)).map(|_| ())
            });
            match valid {
                Err(why) => findings.checked.push(refused(&why)),
                Ok(()) if poks.is_some() => return Err(Fault::Otherwise),
                Ok(()) => {}
            }
        }
        Kind::CertificateMismatch => {
            if let Some(record) = view.record.as_ref().filter(|record| record.pins()) {
                let pinned = record.tls.iter().any(|pin| pins_whole(pin, &record.poks, bytes));
                // A record that DNSSEC does not protect takes an authority as well (§6.3).
                let lacks_authority = ["tls-host-name", "tls-chain"].contains(&&*received.rule);
                let what = match (pinned, lacks_authority) {
                    (false, _) => "No pin of the record is of this certificate as a whole.",
                    (true, true) => "A pin of the record is of this certificate.",
                    (true, false) => return Err(Fault::Otherwise),
                };
                findings.checked.push(what.to_owned());
            }
        }
        _ => {}
    }
    // Texts that are no record are in no observation, but may be signed.
    let texts = (!received.now.chain.is_empty()).then(|| signed_texts(case, domain, &received.now));
    match (case.kind(), texts) {
        (Kind::RecordRefused | Kind::RecordAmbiguous, Some(Ok((texts, sets)))) => {
            let all =
                bytes.split(|byte| *byte == b'\n').all(|text| texts.iter().any(|t| t == text));
            if all {
                let zone = deepest_zone(&sets);
                findings.proved.push(format!("The DNS zone {zone} signed these texts."));
                findings.convict(Party::Zone(zone), "signed texts that are no usable record");
            }
        }
        _ => view.tell_chain(&name, findings),
    }
    Ok(())
}

/// The TXT texts at both names that a chain proves.
fn signed_texts(
    case: &Case<'_>,
    domain: &Domain,
    shown: &Shown,
) -> Result<(Vec<Vec<u8>>, Vec<Set>), Rejection> {
    let sets = dnssec::decode(&shown.chain)?;
    let mut prover = Prover::over(sets.clone(), case.anchors, shown.at);
    let mut texts = Vec::new();
    for label in ["_dime", "_dx"] {
        let name = DnsName::parse(&format!("{label}.{domain}"))?;
        if let Ok(dnssec::Proved::Records(found)) = prover.prove(&name) {
            texts.extend(found);
        }
    }
    Ok((texts, sets))
}

/// Whether a pin is of the whole certificate: of its key alone it may be too,
/// which this room cannot tell.
fn pins_whole(pin: &Pin, poks: &[[u8; 32]], der: &[u8]) -> bool {
    use sha2::Sha512;
    let (short, long) = (Sha256::digest(der), Sha512::digest(der));
    match pin {
        Pin::Sha256(hash) => hash[..] == short[..],
        Pin::Sha512(hash) => hash[..] == long[..],
        Pin::Signature(signature) => {
            signature[..] == long[..]
                || poks
                    .iter()
                    .any(|pok| crate::dime::ed25519::verify(pok, &long, signature).is_ok())
        }
    }
}
