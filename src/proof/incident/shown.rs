//! What was shown of a name in one place, and a key that only a client was shown.

use sha2::{Digest, Sha256};

use super::answers::{Log, organization, own_org};
use super::verify::{Case, Fault, Findings, Party};
use super::zone::{deepest_zone, parting_zone, prove, window};
use super::{Shown, Victim};
use crate::dime::org::{self, ValidOrgSignet};
use crate::dime::record::Record;
use crate::dime::signet::{Level, Signet};
use crate::dime::user::{self, ValidUserSignet};
use crate::dime::{Dnssec, Domain, Name, Rejection};
use crate::proof::dnssec::{self, Observed, Set};
use crate::proof::relation::Keys;

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
pub(super) struct View {
    pub(super) record: Option<Record>,
    pub(super) org: Option<ValidOrgSignet>,
    pub(super) user: Option<ValidUserSignet>,
    pub(super) chain: Chain,
}

/// What a DNSSEC chain proves here.
pub(super) enum Chain {
    /// There is none.
    None,
    /// It proves nothing to this asker.
    Unproved(Rejection),
    Proved(Observed, Vec<Set>),
}

impl View {
    /// Everything that is there must be valid; the chain may prove nothing.
    pub(super) fn check(case: &Case<'_>, name: &Name, shown: &Shown) -> Result<View, Rejection> {
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
    pub(super) fn check(case: &Case<'_>, domain: &Domain, shown: &Shown) -> Chain {
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
    pub(super) fn tell(&self, name: &Name, findings: &mut Findings) {
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

    pub(super) fn secure(&self) -> Option<(&Observed, &[Set])> {
        match self {
            Chain::Proved(observed, sets) if observed.dnssec == Dnssec::Secure => {
                Some((observed, sets))
            }
            _ => None,
        }
    }
}

pub(super) fn print(bytes: &[u8]) -> String {
    let signet = Signet::decode(bytes).ok();
    let print = signet.and_then(|signet| signet.fingerprint(Level::Crypto));
    print.map_or_else(|| "unreadable".to_owned(), |print| print.to_string())
}

impl View {
    /// What the chain proves, or does not.
    pub(super) fn tell_chain(&self, name: &Name, findings: &mut Findings) {
        match &self.chain {
            Chain::Proved(observed, _) => findings.proved.push(window(name, observed)),
            chain => chain.tell(name, findings),
        }
    }
}
