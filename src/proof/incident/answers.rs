//! What several logs answered about one name.

use std::collections::BTreeSet;

use bytes::Bytes;

use super::shown::print;
use super::verify::{Case, Fault, Findings, Party};
use super::zone::{parting_zone, proving_sets};
use super::{CLIENT, Kind, Receipts, Round};
use crate::dime::org::{self, ValidOrgSignet};
use crate::dime::record::Record;
use crate::dime::signet::{Kind as SignetKind, Level, Signet};
use crate::dime::{Domain, Name, Timestamp, user};
use crate::proof::Hash;
use crate::proof::dnssec::Set;
use crate::proof::entry::{Blob, Entry, Kind as EntryKind};
use crate::proof::note::VerifierKey;
use crate::proof::receipt::{self, Asker, Backing, Receipt, Statement, Verdict};
use crate::proof::relation::{Relation, Side};

/// Two or more logs about one name.
pub fn receipts(case: &Case<'_>, seen: &Receipts) -> Result<Findings, Fault> {
    let name = case.name()?;
    let logs = Log::judge_all(case, &seen.receipts)?;
    let (one, other) = logs
        .iter()
        .enumerate()
        .flat_map(|(i, one)| logs.iter().skip(i + 1).map(move |other| (one, other)))
        .find(|(one, other)| !matches!(one.relation(other), Relation::Same | Relation::Unknown))
        .ok_or(match logs.iter().filter(|log| log.statement.sights.tip().is_some()).count() {
            0 | 1 => Fault::Absent,
            _ => Fault::Same,
        })?;
    let relation = one.relation(other);
    let mut findings = Findings::default();
    for log in &logs {
        log.tell(name, case, &mut findings);
    }
    let mut apart = true;
    match (case.kind(), relation) {
        // A client looks at no name for a log: what the logs signed has to do.
        (Kind::SplitView, Relation::Diverged) if case.incident.observer == CLIENT => {
            if !seen.rounds.is_empty() {
                return Err(Fault::Rounds);
            }
            apart = seen_by_turns(one, other, &mut findings);
        }
        (Kind::SplitView, _) => check_rounds(case, &seen.rounds, one, other)?,
        (Kind::UpdateWithheld, Relation::Lag(side)) => {
            let (behind, ahead) = match side {
                Side::Ours => (one, other),
                Side::Theirs => (other, one),
            };
            findings.proved.push(format!(
                "What {} has as the newest stands further back in the history that {} has.",
                behind.origin(),
                ahead.origin()
            ));
        }
        _ => return Err(Fault::Otherwise),
    }
    signers(case, name, one, other, &mut findings);
    if !apart {
        findings.convicts = None;
    }
    for Round { origin, at } in &seen.rounds {
        findings.testimony.push(format!("{origin} says that it looked afresh at {at}."));
    }
    findings.testimony.push(
        "Who was shown which key, and when, is the word of the mirrors: signatures of an \
         organization carry no time. This convicts none of the mirrors."
            .to_owned(),
    );
    Ok(findings)
}

/// At least two looks of each, by turns, none after the incident.
fn check_rounds(case: &Case<'_>, rounds: &[Round], one: &Log, other: &Log) -> Result<(), Fault> {
    let of_both: Vec<&Round> = rounds
        .iter()
        .filter(|round| [one.origin(), other.origin()].contains(&round.origin.as_str()))
        .collect();
    let by_turns = of_both.windows(2).all(|pair| match pair {
        [one, next] => one.origin != next.origin && one.at <= next.at,
        _ => true,
    });
    match of_both.len() >= 4 && by_turns && of_both.iter().all(|round| round.at <= case.at()) {
        true => Ok(()),
        false => Err(Fault::Rounds),
    }
}

/// Whether two logs have seen their keys by turns, twice each, by what they
/// signed; says so.
fn seen_by_turns(one: &Log, other: &Log, findings: &mut Findings) -> bool {
    let times = |log: &Log| {
        let sights = &log.statement.sights;
        sights.tip().map(|tip| [tip.seen, sights.last_seen()])
    };
    let (Some(one_at), Some(other_at)) = (times(one), times(other)) else { return false };
    for (log, [first, last]) in [(one, one_at), (other, other_at)] {
        let origin = log.origin();
        let again = if last > first { format!(", and again at {last}") } else { String::new() };
        findings.testimony.push(format!("{origin} says that it saw its key at {first}{again}."));
    }
    let turns = |[a, c]: [Timestamp; 2], [b, d]: [Timestamp; 2]| a < b && b < c && c < d;
    let by_turns = turns(one_at, other_at) || turns(other_at, one_at);
    if !by_turns {
        findings.testimony.push(
            "That both keys were in use at one time is not shown: a mirror that is a crawl behind \
             the other looks the same."
                .to_owned(),
        );
    }
    by_turns
}

/// Whose signatures stand on both sides.
fn signers(case: &Case<'_>, name: &Name, one: &Log, other: &Log, findings: &mut Findings) {
    if let (Some(one), Some(other)) = (&one.signed, &other.signed)
        && one.pok == other.pok
    {
        organization(name, one.by_name && other.by_name, one.pok, "both keys", findings);
        return;
    }
    let (Some(one), Some(other)) = (&one.record, &other.record) else { return };
    if one.poks() == other.poks() {
        return;
    }
    match (one.sets(case), other.sets(case)) {
        (Some(first), Some(second)) => {
            let zone = parting_zone(&first, &second);
            findings.proved.push(format!(
                "The DNS zone {zone} signed both of two different records of {}.",
                name.domain()
            ));
            findings.convict(Party::Zone(zone), "signed two different records of the domain");
        }
        _ => findings.testimony.push(
            "Which of the two records DNS gave is the word of the mirrors: they are not both \
             proved by DNSSEC here."
                .to_owned(),
        ),
    }
}

/// A deed of the organization if its signatures cover the name.
pub(super) fn organization(
    name: &Name,
    by_name: bool,
    pok: [u8; 32],
    what: &str,
    findings: &mut Findings,
) {
    let domain = name.domain().clone();
    let key = hex::encode(pok);
    if by_name {
        findings.proved.push(format!(
            "The organization with the primary key {key} signed {what} for {name}, the name \
             included."
        ));
        let party = Party::Organization { domain, pok };
        findings.convict(party, format!("signed {what} for {name}"));
        return;
    }
    findings.proved.push(format!(
        "The organization with the primary key {key} signed {what}, without a name."
    ));
    findings.testimony.push(format!(
        "That it is about {name} rests on the word of the mirrors: the signatures do not cover the \
         name."
    ));
}

/// A receipt that holds.
pub(super) struct Log<'a> {
    pub(super) statement: Statement,
    backing: Option<Backing>,
    /// Why the asker's policy does not stand behind it, if there is one.
    distrust: Option<receipt::Fault>,
    signed: Option<Signed>,
    pub(super) record: Option<RecordAt<'a>>,
}

/// Who signed what is in force.
struct Signed {
    pok: [u8; 32],
    /// Whether the signature covers the name.
    by_name: bool,
}

/// A domain's record in force, with what proves it.
pub(super) struct RecordAt<'a> {
    domain: Domain,
    text: &'a Bytes,
    chain: Option<&'a Bytes>,
    at: Timestamp,
}

impl<'a> Log<'a> {
    /// All of one name and of different logs.
    pub(super) fn judge_all(
        case: &Case<'_>,
        receipts: &'a [Receipt],
    ) -> Result<Vec<Log<'a>>, Fault> {
        let name = case.name()?;
        let mut logs: Vec<Log<'a>> = Vec::new();
        for (number, receipt) in receipts.iter().enumerate() {
            if receipt.name != *name {
                return Err(Fault::ReceiptName { number });
            }
            let log = Log::judge(case, receipt)
                .map_err(|fault| Fault::Receipt { number, fault: Box::new(fault) })?;
            let same = |other: &Log<'_>| {
                other.origin() == log.origin() || other.statement.log_key == log.statement.log_key
            };
            if logs.iter().any(same) {
                return Err(Fault::OneLog);
            }
            logs.push(log);
        }
        Ok(logs)
    }

    fn judge(case: &Case<'_>, receipt: &'a Receipt) -> Result<Log<'a>, receipt::Fault> {
        let (verdict, distrust) = match receipt_verdict(case, receipt, true) {
            Err(distrust) if case.policy.is_some() => {
                (receipt_verdict(case, receipt, false)?, Some(distrust))
            }
            other => (other?, None),
        };
        let (statement, backing) = match verdict {
            Verdict::Trusted(statement, backing) => (statement, Some(backing)),
            Verdict::SelfConsistent(statement) => (statement, None),
        };
        let signed = signed(receipt, &statement);
        let record = record_at(receipt);
        Ok(Log { statement, backing, distrust, signed, record })
    }

    fn origin(&self) -> &str {
        &self.statement.origin
    }

    fn relation(&self, other: &Log<'_>) -> Relation {
        Relation::of(&self.statement.sights, &other.statement.sights)
    }

    /// What the log's key signed, and who stands behind it.
    pub(super) fn tell(&self, name: &Name, case: &Case<'_>, findings: &mut Findings) {
        let said = &self.statement;
        let key = match &said.signet {
            _ if said.latest == 0 => "it holds nothing of the name".to_owned(),
            Some(bytes) => {
                format!(
                    "version {} is the newest, the key in force is {}",
                    said.latest,
                    print(bytes)
                )
            }
            None => format!("version {} is the newest", said.latest),
        };
        findings.proved.push(format!(
            "The log {} signed, at {}, that of {name} {key}.",
            said.origin, said.root_time
        ));
        match (&self.backing, &self.distrust, case.policy) {
            (Some(backing), _, _) if !backing.cosigners.is_empty() => {
                findings.proved.push(format!(
                    "{} cosigners of your policy signed the same state of {}.",
                    backing.cosigners.len(),
                    said.origin
                ))
            }
            (Some(_), _, _) => {}
            (None, Some(why), _) => findings.testimony.push(format!(
                "Your policy does not stand behind the answer of {}: {why}.",
                said.origin
            )),
            (None, None, _) => findings.testimony.push(format!(
                "That the key which signed is that of the mirror {}: no policy was given. It is \
                 {}.",
                said.origin,
                VerifierKey::ed25519(&said.origin, &said.log_key)
                    .map_or_else(|_| hex::encode(said.log_key), |key| key.to_string())
            )),
        }
    }
}

/// With the root's keys if there are any; where a chain proves nothing under
/// them, its record is the log's word.
fn receipt_verdict(
    case: &Case<'_>,
    receipt: &Receipt,
    trusting: bool,
) -> Result<Verdict, receipt::Fault> {
    let policy = case.policy.filter(|_| trusting);
    let asker = Asker { policy, anchors: case.anchors, ..Asker::default() };
    match receipt::verify(receipt, &asker, case.at()) {
        Err(receipt::Fault::DnssecChain(_)) => {
            receipt::verify(receipt, &Asker { anchors: &[], ..asker }, case.at())
        }
        other => other,
    }
}

fn blob<'a>(receipt: &'a Receipt, sha256: &Hash) -> Option<&'a Bytes> {
    receipt.blobs.iter().find(|bytes| Blob::of(bytes).sha256 == *sha256)
}

/// The organization whose signature is on what is in force.
fn signed(receipt: &Receipt, statement: &Statement) -> Option<Signed> {
    let signet = Signet::decode(statement.signet.as_deref()?).ok()?;
    let by_name = signet.level() == Level::Id;
    let Name::Address(address) = &receipt.name else {
        return Some(Signed { pok: signet.signing_key(), by_name });
    };
    let orgs = receipt.blobs.iter().filter_map(|bytes| own_org(bytes, address.domain()));
    let org = orgs.into_iter().find(|org| user::validate(&signet, org, Some(address)).is_ok())?;
    Some(Signed { pok: org.pok(), by_name })
}

/// An org signet that its own key signed; whose key that is, is another matter.
pub(super) fn own_org(bytes: &[u8], domain: &Domain) -> Option<ValidOrgSignet> {
    let signet = Signet::decode(bytes).ok().filter(|signet| signet.kind() == SignetKind::Org)?;
    org::validate(&signet, &[signet.signing_key()], Some(domain)).ok()
}

/// The domain's record in force, of a receipt that holds.
fn record_at(receipt: &Receipt) -> Option<RecordAt<'_>> {
    let part = receipt.domain.as_ref().unwrap_or(&receipt.subject);
    let latest = Entry::decode(&part.items.last()?.entry).ok()?;
    let EntryKind::Domain(latest) = latest.kind else { return None };
    let entries = part.items.iter().filter_map(|item| Entry::decode(&item.entry).ok());
    entries.into_iter().find_map(|entry| match entry.kind {
        EntryKind::Domain(seen) if seen.version == latest.current => Some(RecordAt {
            domain: receipt.name.domain().clone(),
            text: blob(receipt, &seen.record?.sha256)?,
            chain: seen.dnssec_chain.and_then(|chain| blob(receipt, &chain.sha256)),
            at: entry.time,
        }),
        _ => None,
    })
}

impl RecordAt<'_> {
    fn poks(&self) -> BTreeSet<[u8; 32]> {
        Record::parse(self.text).map(|record| record.pok_set()).unwrap_or_default()
    }

    /// The signed sets, if they prove this record.
    pub(super) fn sets(&self, case: &Case<'_>) -> Option<Vec<Set>> {
        proving_sets(case, self.chain?, &self.domain, self.at, self.text)
    }
}
