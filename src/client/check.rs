//! Is this the key that everybody sees? One's own look, held against what the
//! logs of one's policy prove (threats 1, 3, 23).
//!
//! Asked at once: DNS and DX, and every place where a log of the policy is said
//! to be; then the hosts that the record names in `syn`. Whoever does not have
//! the key seen here is asked for the whole history, since a key that is another
//! one may be an older one. Where from an answer came makes no difference.

use std::collections::BTreeSet;
use std::time::Duration;

use futures::stream::{self, StreamExt as _};

use super::ask::{Asking, NamedBy, Proof, Said};
use super::fetch::{Ask, Mirror};
use super::http::Sites;
use super::judge::DnsRoot;
use super::memory::{Memory, MemoryError};
use super::verdict::{Standing, Tally, Verdict, needed_of};
use super::view::{Eyes, Lack, View};
use super::{Policy, accuse};
use crate::dime::record::Host;
use crate::dime::signet::{Fingerprint, Signet};
use crate::dime::{Name, Timestamp};
use crate::dmtp::Roots;
use crate::proof::incident::Incident;
use crate::proof::receipt::{Statement, Word};
use crate::proof::relation::{Relation, Side, Sights};

/// Places asked at one time.
const AT_ONCE: usize = 32;
/// Hosts of a record's `syn` that are asked.
const SYN_HOSTS: usize = 8;
/// For one answer, unless told otherwise.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// How to check.
#[derive(Clone, Debug)]
pub struct Options {
    /// Whom to believe; without it nobody is.
    pub policy: Option<Policy>,
    pub root: DnsRoot,
    /// Operators of the policy that have to agree; `None`: so many that two keys
    /// cannot both have them.
    pub quorum: Option<usize>,
    /// Further places to ask, besides the URLs of the policy.
    pub via: Vec<String>,
    /// Of the key in use, to be compared like the one seen.
    pub fingerprint: Option<Fingerprint>,
    /// What logs have shown before; without it none can be caught going back.
    pub memory: Option<Memory>,
    /// For one answer.
    pub patience: Duration,
    /// Connections, kept for the next check with these options or a clone of them.
    pub sites: Sites,
}

/// Why a check was not made. Nothing that anybody else does.
#[derive(Debug, thiserror::Error)]
pub enum CheckError {
    #[error("{needed} operators cannot agree: the policy has logs of {operators}")]
    Quorum { needed: usize, operators: usize },
    #[error(transparent)]
    Place(super::Error),
    #[error(transparent)]
    Memory(#[from] MemoryError),
}

/// What came of it.
#[derive(Debug)]
pub struct Check {
    pub name: Name,
    pub at: Timestamp,
    pub verdict: Verdict,
    /// In plain words, the weightiest first.
    pub reasons: Vec<String>,
    /// Operators whose log has the key, that had to have it, and that there are.
    pub agreeing: usize,
    pub needed: usize,
    pub operators: usize,
    pub view: View,
    /// Why nothing was seen here.
    pub lack: Option<Lack>,
    pub answers: Vec<Answer>,
    /// Evidence of what should not be, to be kept or reported.
    pub incidents: Vec<Incident>,
}

/// What came from one place.
#[derive(Debug)]
pub struct Answer {
    /// A URL, or the `syn` item of the record.
    pub from: String,
    pub named_by: NamedBy,
    pub said: Said,
    /// Of a proof.
    pub standing: Option<Standing>,
    /// Where more can be asked.
    mirror: Option<Mirror>,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            policy: None,
            root: DnsRoot::Public,
            quorum: None,
            via: Vec::new(),
            fingerprint: None,
            memory: None,
            patience: PATIENCE,
            sites: Sites::default(),
        }
    }
}

/// Checks a name.
///
/// # Errors
/// A quorum that the policy can never meet, a place that is none, a memory that
/// cannot be used.
pub async fn check(name: &Name, eyes: &Eyes, options: &Options) -> Result<Check, CheckError> {
    let operators = options.policy.as_ref().map_or(0, operators);
    let needed = options.quorum.unwrap_or_else(|| needed_of(operators));
    if options.policy.is_some() && (needed > operators || needed == 0) {
        return Err(CheckError::Quorum { needed, operators });
    }
    let asking = Asking {
        policy: options.policy.as_ref(),
        root: &options.root,
        memory: options.memory.as_ref(),
        eyes,
        patience: options.patience,
    };
    let places = places(options, &eyes.dmtp.roots)?;
    let ((view, lack), first) = tokio::join!(eyes.look(name), lookups(&asking, &places, name));
    let mut answers: Vec<Answer> = Vec::new();
    for (Place { mirror, named_by }, said) in places.into_iter().zip(first?) {
        let (from, mirror) = (mirror.url().to_owned(), Some(mirror));
        answers.push(Answer { from, named_by, said, standing: None, mirror });
    }
    let further = syn_answers(&asking, &view, name, &answers).await?;
    answers.extend(further);

    let own = Own { name, view: &view, fingerprint: options.fingerprint.as_ref() };
    own.histories(&asking, &mut answers).await?;
    let standings = own.standings(&answers);
    for (answer, standing) in answers.iter_mut().zip(standings) {
        answer.standing = standing;
    }

    let tally = tally(options.policy.as_ref(), own.is_something(), needed, &answers);
    let verdict = tally.verdict();
    let at = eyes.clock.now();
    // A fingerprint says nothing about the key that was shown.
    let own = Own { fingerprint: None, ..own };
    let apart = own.standings(&answers).into_iter().zip(&answers);
    let apart = apart.filter(|(standing, _)| *standing == Some(Standing::Apart));
    let apart: Vec<&Proof> = apart.filter_map(|(_, answer)| answer.said.proof()).collect();
    let incidents = accuse::incidents(name, at, &view, &answers, &apart);
    let agreeing = tally.agreeing();
    let mut check = Check {
        name: name.clone(),
        at,
        verdict,
        reasons: Vec::new(),
        agreeing,
        needed,
        operators,
        view,
        lack,
        answers,
        incidents,
    };
    check.reasons = super::reasons::of(&check, options);
    Ok(check)
}

/// Operators of the policy's logs.
fn operators(policy: &Policy) -> usize {
    (0..policy.logs().len()).map(|log| operator(policy, log)).collect::<BTreeSet<_>>().len()
}

/// The number of the first log that this one shares its operator with.
fn operator(policy: &Policy, log: usize) -> usize {
    let logs = policy.logs();
    let same = |other: &&crate::proof::policy::Log| {
        logs.get(log).is_some_and(|log| policy.same_operator(log, other))
    };
    logs.iter().position(|other| same(&other)).unwrap_or(log)
}

struct Place {
    mirror: Mirror,
    named_by: NamedBy,
}

/// The URLs of the policy and the caller's, each once.
fn places(options: &Options, roots: &Roots) -> Result<Vec<Place>, CheckError> {
    let logs = options.policy.as_ref().map(Policy::logs).unwrap_or_default();
    let named = logs.iter().filter_map(|log| Some((log.url.as_deref()?, NamedBy::Policy)));
    let named = named.chain(options.via.iter().map(|url| (url.as_str(), NamedBy::Caller)));
    let mut places: Vec<Place> = Vec::new();
    for (url, named_by) in named {
        let site = options.sites.at(url, roots).map_err(|error| CheckError::Place(error.into()))?;
        let mirror = Mirror::at(site);
        if places.iter().all(|place| place.mirror.url() != mirror.url()) {
            places.push(Place { mirror, named_by });
        }
    }
    Ok(places)
}

async fn lookups(
    asking: &Asking<'_>,
    places: &[Place],
    name: &Name,
) -> Result<Vec<Said>, CheckError> {
    let asked = places.iter().map(|place| asking.mirror(&place.mirror, name, Ask::Lookup));
    let asked: Vec<_> = asked.collect();
    let said: Vec<Result<Said, MemoryError>> =
        stream::iter(asked).buffered(AT_ONCE).collect().await;
    Ok(said.into_iter().collect::<Result<_, _>>()?)
}

/// What the hosts say that the record names, but for those asked already.
async fn syn_answers(
    asking: &Asking<'_>,
    view: &View,
    name: &Name,
    before: &[Answer],
) -> Result<Vec<Answer>, CheckError> {
    let Some(record) = &view.record else { return Ok(Vec::new()) };
    let asked = |host: &&Host| {
        let url = format!("https://{}/", host.name);
        before.iter().any(|answer| answer.from == url)
    };
    let hosts: Vec<&Host> =
        record.syndicates.iter().filter(|host| !asked(host)).take(SYN_HOSTS).collect();
    let signet = view.signet(name);
    let waiting: Vec<_> = hosts.iter().map(|host| asking.syn_host(host, name, signet)).collect();
    let said: Vec<_> = stream::iter(waiting).buffered(SYN_HOSTS).collect().await;
    let mut answers = Vec::new();
    for (host, said) in hosts.into_iter().zip(said) {
        let (from, named_by) = (host.to_string(), NamedBy::Record);
        let (said, mirror) = said?;
        answers.push(Answer { from, named_by, said, standing: None, mirror });
    }
    Ok(answers)
}

/// What there is of one's own to compare with.
struct Own<'a> {
    name: &'a Name,
    view: &'a View,
    fingerprint: Option<&'a Fingerprint>,
}

impl Own<'_> {
    fn sights(&self) -> Option<&Sights> {
        self.view.sights.tip().map(|_| &self.view.sights)
    }

    fn is_something(&self) -> bool {
        self.sights().is_some() || self.fingerprint.is_some()
    }

    /// The worse of what a proof is to the key seen and to the one named;
    /// [`Relation::Unknown`] if there is neither.
    fn relation(&self, proof: &Proof) -> Relation {
        let seen = self.sights().map(|own| self.to_seen(own, proof));
        let named = self.fingerprint.map(|named| to_named(named, proof));
        let rank = |relation: &Relation| match relation {
            Relation::Same => 0,
            Relation::Unknown => 1,
            Relation::Lag(_) => 2,
            Relation::Diverged => 3,
        };
        [seen, named].into_iter().flatten().max_by_key(rank).unwrap_or(Relation::Unknown)
    }

    /// By keys. A domain has not changed hands whose new org signet is signed by
    /// a POK that the log knows, or whose record still names one: the log is a
    /// crawl behind a rollover. Organizations have no custody, so at one look a
    /// forger's record that keeps a known POK is the same; it gains no agreement
    /// by it, and a mailbox key that is forged under it is apart all the same.
    fn to_seen(&self, own: &Sights, proof: &Proof) -> Relation {
        let poks = &proof.statement.poks;
        let goes_on = || {
            let org = self.view.org.as_ref().is_some_and(|org| poks.contains(&org.pok()));
            let record = self.view.record.as_ref();
            org || record.is_some_and(|record| record.poks.iter().any(|pok| poks.contains(pok)))
        };
        match (Relation::of(own, &proof.statement.sights), self.name) {
            (Relation::Diverged, Name::Domain(_)) if goes_on() => Relation::Lag(Side::Theirs),
            (relation, _) => relation,
        }
    }

    /// Asks those for the whole history who have another key, and then, if some
    /// have a key that is still unaccounted for, all others: what lies behind
    /// the key that they agree on may account for it.
    async fn histories(
        &self,
        asking: &Asking<'_>,
        answers: &mut [Answer],
    ) -> Result<(), CheckError> {
        let differs = |proof: &Proof| {
            proof.statement.latest > 0
                && (!self.is_something() || self.relation(proof) != Relation::Same)
        };
        self.replace(asking, answers, differs).await?;
        let apart = |answer: &Answer| {
            answer.said.proof().is_some_and(|proof| {
                matches!(self.relation(proof), Relation::Diverged | Relation::Unknown)
                    && proof.statement.latest > 0
            })
        };
        if self.is_something() && answers.iter().any(apart) {
            let same = |proof: &Proof| self.relation(proof) == Relation::Same;
            self.replace(asking, answers, same).await?;
        }
        Ok(())
    }

    /// Puts histories in the place of the answers that are wanted. An answer
    /// that cannot be had a second time stays as it was, unless the log is
    /// caught with it.
    async fn replace(
        &self,
        asking: &Asking<'_>,
        answers: &mut [Answer],
        wanted: impl Fn(&Proof) -> bool,
    ) -> Result<(), CheckError> {
        let wanted = |answer: &&Answer| answer.said.proof().is_some_and(&wanted);
        let again: Vec<(usize, Mirror)> = answers
            .iter()
            .enumerate()
            .filter(|(_, answer)| wanted(answer))
            .filter_map(|(number, answer)| Some((number, answer.mirror.clone()?)))
            .collect();
        let ask = Ask::History { from: 0 };
        let waiting = again.iter().map(|(_, mirror)| asking.mirror(mirror, self.name, ask));
        let waiting: Vec<_> = waiting.collect();
        let said: Vec<_> = stream::iter(waiting).buffered(AT_ONCE).collect().await;
        for ((number, _), said) in again.iter().zip(said) {
            let said = said?;
            if let (Some(answer), Said::Proof(_) | Said::Fork(..)) =
                (answers.get_mut(*number), &said)
            {
                answer.said = said;
            }
        }
        Ok(())
    }

    fn standings(&self, answers: &[Answer]) -> Vec<Option<Standing>> {
        let proofs: Vec<&Proof> = answers.iter().filter_map(|answer| answer.said.proof()).collect();
        // Those who have the key seen here may tell what was before.
        let friends: Vec<&Sights> = proofs
            .iter()
            .filter(|proof| proof.fresh && self.relation(proof) == Relation::Same)
            .map(|proof| &proof.statement.sights)
            .collect();
        let first = proofs.iter().find(|proof| proof.statement.sights.tip().is_some());
        let of = |proof: &Proof| {
            let relation = match (self.is_something(), first) {
                (true, _) => self.relation(proof),
                // With nothing of one's own logs are compared with each other.
                (false, Some(first)) => {
                    Relation::of(&first.statement.sights, &proof.statement.sights)
                }
                (false, None) => Relation::Unknown,
            };
            let known = |friend: &&Sights| {
                Relation::of(friend, &proof.statement.sights) == Relation::Lag(Side::Theirs)
            };
            let relation = match relation {
                Relation::Diverged | Relation::Unknown if friends.iter().any(known) => {
                    Relation::Lag(Side::Theirs)
                }
                relation => relation,
            };
            standing(proof, relation)
        };
        answers.iter().map(|answer| answer.said.proof().map(of)).collect()
    }
}

/// A fingerprint against a proof: of its key, or of one before.
fn to_named(named: &Fingerprint, proof: &Proof) -> Relation {
    let matches =
        |bytes: &bytes::Bytes| Signet::decode(bytes).is_ok_and(|signet| signet.matches(named));
    let Statement { signet, sights, .. } = &proof.statement;
    match signet {
        Some(current) if matches(current) => Relation::Same,
        None => Relation::Unknown,
        Some(_) if proof.receipt.blobs.iter().any(matches) => Relation::Lag(Side::Ours),
        // Whatever it was, it would be among the signets of a whole history.
        Some(_) if sights.list().first().is_some_and(|first| first.version == 1) => {
            Relation::Diverged
        }
        Some(_) => Relation::Unknown,
    }
}

fn standing(proof: &Proof, relation: Relation) -> Standing {
    match (proof.statement.word, relation) {
        (Word::Absent | Word::Forgotten | Word::NoneInForce, _) => Standing::Absent,
        _ if !proof.fresh => Standing::Unconfirmed,
        (_, Relation::Same | Relation::Lag(_)) if proof.older => Standing::Older,
        (Word::Unconfirmed, Relation::Same | Relation::Diverged) => Standing::Unconfirmed,
        (_, Relation::Diverged) => Standing::Apart,
        (_, Relation::Lag(Side::Theirs)) => Standing::Behind,
        (_, Relation::Lag(Side::Ours)) => Standing::Ahead,
        (_, Relation::Unknown) => Standing::Unsure,
        (Word::Held, Relation::Same) => Standing::Held,
        (Word::Withdrawn, Relation::Same) => Standing::Unconfirmed,
        (Word::Valid | Word::Unchecked, Relation::Same) => Standing::Agrees,
    }
}

fn tally(policy: Option<&Policy>, own: bool, needed: usize, answers: &[Answer]) -> Tally {
    let Some(policy) = policy else {
        let answers = answers.iter().filter(|answer| !matches!(answer.said, Said::Silent(_)));
        return Tally { own, answers: answers.count(), ..Tally::default() };
    };
    let mut tally = Tally { policy: true, own, needed, ..Tally::default() };
    let mut heard = BTreeSet::new();
    for answer in answers {
        match (&answer.said, answer.standing) {
            (Said::Proof(proof), Some(standing)) => {
                heard.insert(proof.log);
                tally.proofs.push((operator(policy, proof.log), standing));
            }
            (Said::Fork(key, _), _) => {
                heard.extend(policy.logs().iter().position(|log| log.key == *key));
                tally.forks += 1;
            }
            _ => {}
        }
    }
    tally.unanswered = policy.logs().len().saturating_sub(heard.len());
    // Claims do not make a log reachable.
    tally.answers = heard.len();
    tally
}
