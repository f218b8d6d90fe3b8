//! What a client does about a contradiction: it keeps a file that convicts, and
//! tells the mirrors of its policy if it is asked to (threat 23).

use std::fs::OpenOptions;
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;

use super::Policy;
use super::ask::{Proof, Said};
use super::check::Answer;
use super::http::Site;
use super::view::View;
use crate::dime::org::ValidOrgSignet;
use crate::dime::signet::Signet;
use crate::dime::user::ValidUserSignet;
use crate::dime::{Name, Timestamp};
use crate::dmtp::Roots;
use crate::errors::with_sources;
use crate::proof::incident::{CLIENT, Fork, Incident, MAX_RECEIPTS, Receipts, Shown, Victim};
use crate::proof::receipt::Receipt;
use crate::proof::relation::Relation;

/// Files of one second.
const FILES: u32 = 100;
/// Longest answer to a report that is read, bytes.
const MAX_ANSWER: usize = 16 * 1024;

/// Evidence in the answers, each log's fork once. `apart` are the proofs that the key
/// which was shown is not the name's, if one was shown.
pub(super) fn incidents(
    name: &Name,
    at: Timestamp,
    view: &View,
    answers: &[Answer],
    apart: &[&Proof],
) -> Vec<Incident> {
    let mut incidents = Vec::new();
    let mut forked = Vec::new();
    for answer in answers {
        if let Said::Fork(key, fork) = &answer.said
            && !forked.contains(&key)
        {
            forked.push(key);
            let fork = Fork {
                key: key.clone(),
                smaller: fork.smaller.clone(),
                larger: fork.larger.clone(),
                prefix: fork.prefix,
                proof: fork.proof.clone(),
            };
            incidents.push(Incident::log_fork(CLIENT, at, fork));
        }
    }
    // The key of a fingerprint alone is in nobody's hands.
    if view.signet(name).is_some() {
        let receipts = of_each_log(apart);
        if !receipts.is_empty() {
            let victim = Victim { shown: shown(view), receipts };
            incidents.push(Incident::forged_key(CLIENT, at, name.clone(), victim));
        }
    } else if let Some([one, other]) = contradiction(answers) {
        let receipts = of_each_log(&[&[one, other], apart].concat());
        let seen = Receipts { receipts, rounds: Vec::new() };
        incidents.push(Incident::split_view(CLIENT, at, name.clone(), seen));
    }
    incidents
}

/// Two logs of which neither has ever seen the other's key.
fn contradiction(answers: &[Answer]) -> Option<[&Proof; 2]> {
    let proofs: Vec<&Proof> = answers.iter().filter_map(|answer| answer.said.proof()).collect();
    let proofs: Vec<&Proof> = proofs.into_iter().filter(|proof| proof.fresh).collect();
    proofs.iter().enumerate().find_map(|(number, one)| {
        let others = proofs.iter().skip(number + 1);
        let other = others.copied().find(|other| {
            one.log != other.log
                && Relation::of(&one.statement.sights, &other.statement.sights)
                    == Relation::Diverged
        })?;
        Some([*one, other])
    })
}

/// One receipt of each log, as many as an incident takes.
fn of_each_log(proofs: &[&Proof]) -> Vec<Receipt> {
    let mut logs = Vec::new();
    let mut receipts = Vec::new();
    for proof in proofs {
        if !logs.contains(&proof.log) && receipts.len() < MAX_RECEIPTS {
            logs.push(proof.log);
            receipts.push(proof.receipt.clone());
        }
    }
    receipts
}

fn shown(view: &View) -> Shown {
    let bytes = |signet: &Signet| Bytes::copy_from_slice(signet.bytes());
    let record = view.record.as_ref().map(|record| Bytes::copy_from_slice(&record.text));
    Shown {
        at: view.at,
        record: record.unwrap_or_default(),
        chain: view.chain.clone().unwrap_or_default(),
        org_signet: view.org.as_ref().map(ValidOrgSignet::signet).map(bytes).unwrap_or_default(),
        signet: view.user.as_ref().map(ValidUserSignet::signet).map(bytes).unwrap_or_default(),
    }
}

/// Writes `incident-<time>.json` for its owner only, never over another file.
pub fn keep(folder: &Path, incident: &Incident) -> io::Result<PathBuf> {
    let time: String = incident.at.to_string().chars().filter(|c| *c != ':').collect();
    for number in 0..FILES {
        let more = if number == 0 { String::new() } else { format!("-{number}") };
        let path = folder.join(format!("incident-{time}{more}.json"));
        let mut options = OpenOptions::new();
        match options.create_new(true).write(true).mode(0o600).open(&path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => continue,
            Err(error) => return Err(error),
            Ok(mut file) => {
                file.write_all(&incident.to_bytes())?;
                file.sync_all()?;
                return Ok(path);
            }
        }
    }
    Err(io::Error::new(io::ErrorKind::AlreadyExists, "there are too many of this second"))
}

/// What became of a report at one mirror.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reported {
    pub url: String,
    /// `Ok`: taken, listed or not. `Err`: not taken; why.
    pub outcome: Result<bool, String>,
}

/// Sends an incident to every mirror of the policy that has a URL, at once. Their
/// certificates are by `roots`.
pub async fn report(
    policy: &Policy,
    incident: &Incident,
    roots: &Roots,
    patience: Duration,
) -> Vec<Reported> {
    let body = incident.to_bytes();
    let urls = policy.logs().iter().filter_map(|log| log.url.clone());
    let sent = urls.map(|url| {
        let body = body.clone();
        async move {
            let outcome = tokio::time::timeout(patience, send(&url, roots, body)).await;
            let outcome = outcome.unwrap_or_else(|_| Err("no answer in time".to_owned()));
            Reported { url, outcome }
        }
    });
    futures::future::join_all(sent).await
}

async fn send(url: &str, roots: &Roots, body: Bytes) -> Result<bool, String> {
    let site = Site::under(url, roots).map_err(|error| with_sources(&error))?;
    let json = "application/json";
    let answer = site.post("v1/report", json, json, body, MAX_ANSWER).await;
    let answer = answer.map_err(|error| with_sources(&error))?;
    if !answer.is_success() {
        let (_, message) = super::fetch::words(&answer.body);
        return Err(format!("refused with {}: {message}", answer.status));
    }
    let said: serde_json::Value = serde_json::from_slice(&answer.body).unwrap_or_default();
    Ok(said.get("listed").and_then(serde_json::Value::as_bool).unwrap_or(false))
}
