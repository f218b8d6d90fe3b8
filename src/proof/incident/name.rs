//! What was shown of a name: by several logs, to a client, to one mirror.

use std::collections::BTreeSet;

use bytes::Bytes;
use sha2::{Digest, Sha256};

use super::verify::{Case, Fault, Findings, Party};
use super::{CLIENT, Kind, Receipts, Received, Round, Shown, Victim};
use crate::dime::chain::{self, Link};
use crate::dime::org::{self, ValidOrgSignet};
use crate::dime::record::{self, Pin, Policy, Record, Selection};
use crate::dime::signet::{Kind as SignetKind, Level, Signet};
use crate::dime::user::{self, ValidUserSignet};
use crate::dime::{Address, Dnssec, Domain, Name, Rejection, Timestamp};
use crate::proof::Hash;
use crate::proof::dnssec::{self, DnsName, Observed, Prover, RecordType, Set};
use crate::proof::entry::{Blob, Entry, Kind as EntryKind};
use crate::proof::note::VerifierKey;
use crate::proof::receipt::{self, Asker, Backing, Receipt, Statement, Verdict};
use crate::proof::relation::{Keys, Relation, Side};

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
fn organization(name: &Name, by_name: bool, pok: [u8; 32], what: &str, findings: &mut Findings) {
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
struct Log<'a> {
    statement: Statement,
    backing: Option<Backing>,
    /// Why the asker's policy does not stand behind it, if there is one.
    distrust: Option<receipt::Fault>,
    signed: Option<Signed>,
    record: Option<RecordAt<'a>>,
}

/// Who signed what is in force.
struct Signed {
    pok: [u8; 32],
    /// Whether the signature covers the name.
    by_name: bool,
}

/// A domain's record in force, with what proves it.
struct RecordAt<'a> {
    domain: Domain,
    text: &'a Bytes,
    chain: Option<&'a Bytes>,
    at: Timestamp,
}

impl<'a> Log<'a> {
    /// All of one name and of different logs.
    fn judge_all(case: &Case<'_>, receipts: &'a [Receipt]) -> Result<Vec<Log<'a>>, Fault> {
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
    fn tell(&self, name: &Name, case: &Case<'_>, findings: &mut Findings) {
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
fn own_org(bytes: &[u8], domain: &Domain) -> Option<ValidOrgSignet> {
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
    fn sets(&self, case: &Case<'_>) -> Option<Vec<Set>> {
        proving_sets(case, self.chain?, &self.domain, self.at, self.text)
    }
}

fn proving_sets(
    case: &Case<'_>,
    chain: &[u8],
    domain: &Domain,
    at: Timestamp,
    text: &[u8],
) -> Option<Vec<Set>> {
    let observed = prove(case, chain, domain, at).ok()?;
    let same = observed.dnssec == Dnssec::Secure && observed.record.as_deref() == Some(text);
    dnssec::decode(chain).ok().filter(|_| same)
}

fn prove(
    case: &Case<'_>,
    chain: &[u8],
    domain: &Domain,
    at: Timestamp,
) -> Result<Observed, Rejection> {
    if case.anchors.is_empty() {
        return Err(Rejection::new("dnssec-anchor", "no key of the DNS root was given"));
    }
    dnssec::verify_observation(chain, domain, case.anchors, at)
}

/// The zone closest to the root that signed two different things: a parent that
/// gave a zone other keys, else the zone itself.
fn parting_zone(one: &[Set], other: &[Set]) -> String {
    let keys = |sets: &[Set]| -> Vec<(DnsName, Vec<Vec<u8>>, DnsName)> {
        let found = sets.iter().filter(|set| set.kind == RecordType::DS);
        found
            .map(|set| (set.owner.clone(), set.data.clone(), set.signature.signer.clone()))
            .collect()
    };
    let (one_keys, other_keys) = (keys(one), keys(other));
    let parted = one_keys.iter().filter(|(owner, data, _)| {
        other_keys.iter().any(|(same, others, _)| same == owner && others != data)
    });
    let parent = parted.min_by_key(|(owner, ..)| owner.label_count());
    match parent {
        Some((_, _, signer)) => signer.to_string(),
        None => deepest_zone(one),
    }
}

/// The zone that signed the answer itself.
fn deepest_zone(sets: &[Set]) -> String {
    let signers = sets.iter().map(|set| &set.signature.signer);
    let deepest = signers.max_by_key(|signer| signer.label_count());
    deepest.map_or_else(|| ".".to_owned(), ToString::to_string)
}

/// A key that a client was shown, against what logs have.
pub fn victim(case: &Case<'_>, victim: &Victim) -> Result<Findings, Fault> {
    let name = case.name()?;
    let Victim { shown, receipts } = victim;
    if shown.at > case.at() {
        return Err(Fault::Time);
    }
    let view = View::check(case, name, shown).map_err(Fault::Shown)?;
    let (Some(org), Some(record)) = (&view.org, &view.record) else {
        let why = Rejection::new("incident-shown", "no record, or no org signet");
        return Err(Fault::Shown(why));
    };
    let logs = Log::judge_all(case, receipts)?;
    if logs.iter().all(|log| log.statement.sights.tip().is_none()) {
        return Err(Fault::Absent);
    }
    let keys = match (&view.user, name) {
        (Some(user), Name::Address(_)) => Keys::of_mailbox(user.signet()),
        (None, Name::Domain(_)) => {
            let poks: Vec<[u8; 32]> = record.pok_set().into_iter().collect();
            let org_signet = Some(Sha256::digest(org.signet().bytes()).into());
            Keys::Domain { poks: Sha256::digest(poks.concat()).into(), org_signet }
        }
        _ => {
            let why = Rejection::new("incident-shown", "a signet beside a domain, or none");
            return Err(Fault::Shown(why));
        }
    };
    if logs.iter().any(|log| log.statement.sights.list().iter().any(|sight| sight.keys == keys)) {
        return Err(Fault::KnownKey);
    }

    let mut findings = Findings::default();
    for log in &logs {
        log.tell(name, case, &mut findings);
    }
    let knows = |pok: &[u8; 32]| logs.iter().any(|log| log.statement.poks.contains(pok));
    let known_pok = knows(&org.pok());
    // A rollover keeps the old key in the record for a while.
    let kept_pok = record.pok_set().iter().any(knows);
    let by_name = match &view.user {
        Some(user) => user.signet().level() == Level::Id,
        None => org.signet().level() == Level::Id,
    };
    if known_pok {
        let what = "a key that none of these logs has";
        organization(name, by_name, org.pok(), what, &mut findings);
    }
    match &view.chain {
        Chain::Proved(_, sets) if !kept_pok => {
            let others = logs.iter().find_map(|log| log.record.as_ref()?.sets(case));
            let zone = match others {
                Some(others) => parting_zone(sets, &others),
                None => deepest_zone(sets),
            };
            findings.proved.push(format!(
                "The DNS zone {zone} signed a record of {} with primary keys that none of these \
                 logs has.",
                name.domain()
            ));
            findings.convict(Party::Zone(zone), "signed a record with keys that no log has");
        }
        Chain::Proved(observed, _) => findings.proved.push(window(name, observed)),
        chain => chain.tell(name, &mut findings),
    }
    if kept_pok && !known_pok {
        findings.testimony.push(format!(
            "That {} agreed to the new primary key: the record still names one that the logs have, \
             as an honest change of keys does.",
            name.domain()
        ));
    }
    findings.testimony.push(format!(
        "That this key was shown to somebody, and by whom, is the word of {}.",
        case.incident.observer
    ));
    Ok(findings)
}

/// What is made of a [`Shown`].
struct View {
    record: Option<Record>,
    org: Option<ValidOrgSignet>,
    user: Option<ValidUserSignet>,
    chain: Chain,
}

/// What a DNSSEC chain proves here.
enum Chain {
    /// There is none.
    None,
    /// It proves nothing to this asker.
    Unproved(Rejection),
    Proved(Observed, Vec<Set>),
}

impl View {
    /// Everything that is there must be valid; the chain may prove nothing.
    fn check(case: &Case<'_>, name: &Name, shown: &Shown) -> Result<View, Rejection> {
        let domain = name.domain();
        let text = Some(&shown.record).filter(|text| !text.is_empty());
        let record = text.map(|text| Record::parse(text)).transpose()?;
        let org = match (Some(&shown.org_signet).filter(|bytes| !bytes.is_empty()), &record) {
            (Some(bytes), Some(record)) => {
                Some(org::validate(&Signet::decode(bytes)?, &record.poks, Some(domain))?)
            }
            // Whose key it is, nothing here says.
            (Some(bytes), None) => own_org(bytes, domain),
            (None, _) => None,
        };
        let user = match (Some(&shown.signet).filter(|bytes| !bytes.is_empty()), &org, name) {
            (Some(bytes), Some(org), Name::Address(address)) => {
                Some(user::validate(&Signet::decode(bytes)?, org, Some(address))?)
            }
            _ => None,
        };
        Ok(View { record, org, user, chain: Chain::check(case, domain, shown) })
    }
}

impl Chain {
    fn check(case: &Case<'_>, domain: &Domain, shown: &Shown) -> Chain {
        if shown.chain.is_empty() {
            return Chain::None;
        }
        let observed = match prove(case, &shown.chain, domain, shown.at) {
            Ok(observed) => observed,
            Err(why) => return Chain::Unproved(why),
        };
        let text = Some(&shown.record[..]).filter(|text| !text.is_empty());
        if observed.dnssec == Dnssec::Secure && observed.record.as_deref() != text {
            let why = "it proves another record than the one here";
            return Chain::Unproved(Rejection::new("dnssec-chain", why));
        }
        match dnssec::decode(&shown.chain) {
            Ok(sets) => Chain::Proved(observed, sets),
            Err(why) => Chain::Unproved(why),
        }
    }

    /// Says what is not proved.
    fn tell(&self, name: &Name, findings: &mut Findings) {
        let domain = name.domain();
        findings.testimony.push(match self {
            Chain::Proved(..) => return,
            Chain::None => {
                format!("What DNS said of {domain} is somebody's word: there is no DNSSEC chain.")
            }
            Chain::Unproved(why) => format!(
                "What DNS said of {domain} is somebody's word: the DNSSEC chain proves nothing \
                 here ({why})."
            ),
        });
    }

    fn secure(&self) -> Option<(&Observed, &[Set])> {
        match self {
            Chain::Proved(observed, sets) if observed.dnssec == Dnssec::Secure => {
                Some((observed, sets))
            }
            _ => None,
        }
    }
}

/// What a chain that holds proves.
fn window(name: &Name, observed: &Observed) -> String {
    let what = match (observed.dnssec, &observed.record) {
        (Dnssec::Secure, Some(_)) => "signed this record",
        (Dnssec::Secure, None) => "signed that there is no record",
        _ => "signed that the zone is not protected by DNSSEC",
    };
    format!(
        "DNS {what} of {}: the signatures lead to the root's key and hold from {} to {}.",
        name.domain(),
        observed.since,
        observed.until
    )
}

fn print(bytes: &[u8]) -> String {
    let signet = Signet::decode(bytes).ok();
    let print = signet.and_then(|signet| signet.fingerprint(Level::Crypto));
    print.map_or_else(|| "unreadable".to_owned(), |print| print.to_string())
}

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

impl View {
    /// What the chain proves, or does not.
    fn tell_chain(&self, name: &Name, findings: &mut Findings) {
        match &self.chain {
            Chain::Proved(observed, _) => findings.proved.push(window(name, observed)),
            chain => chain.tell(name, findings),
        }
    }
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
            | Kind::Coalesced
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
            let strict = old_record.is_some_and(|old| old.policy == Policy::Strict);
            if !gone || !strict {
                return Err(Fault::Otherwise);
            }
            findings
                .checked
                .push("The record that was there asked for encrypted mail only.".into());
        }
        Kind::NameConflict => {
            let texts: Vec<Vec<u8>> =
                received.bytes.split(|byte| *byte == b'\n').map(<[u8]>::to_vec).collect();
            let poks: BTreeSet<_> = texts
                .iter()
                .filter_map(|text| Record::parse(text).ok())
                .map(|record| record.pok_set())
                .collect();
            if poks.len() < 2 {
                return Err(Fault::Otherwise);
            }
            findings.checked.push("The records have different primary keys.".to_owned());
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
