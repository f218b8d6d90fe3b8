//! Which log of the policy is at a URL, where the policy does not say it: the one that
//! was followed there before, else the one whose checkpoint is served. While that is not
//! known it is a condition, and the other logs are followed meanwhile.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use super::follower::{followed_at, kind_of};
use super::{Error, Folder, Notice, Round, Weight};
use crate::client::follow::{self, LogSource};
use crate::client::{Policy, Site, is_same_place};
use crate::dime::{Rejection, Timestamp};
use crate::errors::with_sources;
use crate::proof::note::{MAX_NOTE, VerifierKey};

/// Logs that are followed, each at one URL: they share no state.
#[derive(Debug, Default)]
pub struct Taken(Mutex<BTreeMap<String, String>>);

/// The question. See the module.
#[derive(Debug)]
pub struct Search {
    url: String,
    policy: Policy,
    /// What was told and lasts.
    standing: Option<&'static str>,
}

impl Taken {
    /// Takes a log for a URL; gives the one that has it already.
    pub fn take(&self, key: &VerifierKey, url: &str) -> Result<(), String> {
        let mut taken = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match taken.get(&key.to_string()) {
            Some(other) => Err(other.clone()),
            None => {
                taken.insert(key.to_string(), url.to_owned());
                Ok(())
            }
        }
    }
}

impl Search {
    pub fn new(url: String, policy: Policy) -> Search {
        Search { url, policy, standing: None }
    }

    pub fn url(&self) -> &str {
        &self.url
    }

    /// What can be said without asking.
    pub fn known(&self, folder: &Folder) -> Result<Option<VerifierKey>, Error> {
        let logs = self.policy.logs();
        let here = |url: &str| is_same_place(url, &self.url);
        if let Some(log) = logs.iter().find(|log| log.url.as_deref().is_some_and(here)) {
            return Ok(Some(log.key.clone()));
        }
        if let [log] = logs {
            return Ok(Some(log.key.clone()));
        }
        for log in logs {
            if followed_at(&log.key, folder)?.as_deref().is_some_and(here) {
                return Ok(Some(log.key.clone()));
            }
        }
        Ok(None)
    }

    /// Asks; the log is then taken. Otherwise a round that could check nothing.
    pub async fn ask(&mut self, taken: &Taken, now: Timestamp) -> Result<VerifierKey, Round> {
        let (kind, message) = match self.found().await {
            Err(error) => (kind_of(&error), format!("{}.", with_sources(&error))),
            Ok(key) => match taken.take(&key, &self.url) {
                Ok(()) => return Ok(key),
                Err(other) => {
                    let message =
                        format!("The log {} is there, which is followed at {other}.", key.name());
                    ("OTHER_LOG", message)
                }
            },
        };
        let is_news = self.standing.replace(kind) != Some(kind);
        let notice = || Notice::new(now, Weight::Condition, kind, &self.url, message);
        Err(Round::in_vain(is_news.then(notice)))
    }

    /// The end of what was told, if it has one.
    pub fn over(&mut self, now: Timestamp) -> Option<Notice> {
        let kind = self.standing.take()?;
        let message = format!("{kind} is over.");
        Some(Notice::new(now, Weight::News, "OVER", &self.url, message))
    }

    async fn found(&self) -> Result<VerifierKey, follow::Error> {
        let site = Site::new(&self.url)?;
        let answer = site.get("checkpoint", MAX_NOTE).await?;
        let url = site.at("checkpoint");
        if answer.status != 200 {
            let (status, retry_after) = (answer.status, answer.retry_after);
            return Err(follow::Error::Status { url, status, retry_after });
        }
        // Its name alone anybody can write there.
        let keys = self.policy.logs().iter().map(|log| &log.key);
        let mut signed = keys.filter(|key| {
            let source = LogSource::at(site.clone(), (*key).clone());
            source.read_checkpoint(&answer.body).is_ok()
        });
        signed.next().cloned().ok_or_else(|| {
            let why = "the policy believes no log that signed it";
            follow::Error::Checkpoint { url, rejection: Rejection::new("unknown-log", why) }
        })
    }
}
