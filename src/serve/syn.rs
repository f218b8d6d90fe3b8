//! The mirror's `syn=` face: every name that its log holds, over DMTP, as a DX
//! host would serve it.
//!
//! DMTP carries no proof, so a name that is held gets no key here, only the way
//! to the page that has both (threat 25). What is served is the published head.

use std::sync::Arc;

use async_trait::async_trait;

use super::dmtp::{Answer, Signets};
use super::percent;
use crate::dime::signet::{Fingerprint, Signet};
use crate::dime::{Address, Domain, Name};
use crate::log::answer::{Answerer, Error, Holding};

/// What a log holds, as a source of signets.
pub struct Mirror {
    answers: Arc<Answerer>,
    /// Of the HTTP face, without a slash at its end.
    url: String,
}

impl Mirror {
    /// `url` is how the HTTP face is reached from outside.
    pub fn new(answers: Arc<Answerer>, url: &str) -> Mirror {
        Mirror { answers, url: url.trim_end_matches('/').to_owned() }
    }

    fn signets(&self, name: &Name, holding: Result<Holding, Error>) -> Answer<Vec<Signet>> {
        let bytes = match holding {
            Ok(Holding::Signets(bytes)) => bytes,
            Ok(Holding::Held) => {
                let name = percent::segment(name.as_str());
                return Answer::Held { url: format!("{}/v1/lookup/{name}", self.url) };
            }
            Ok(Holding::Nothing) => return Answer::NotFound,
            Ok(Holding::Withdrawn) => return Answer::Unavailable,
            Err(error) => {
                // Neither names a mailbox.
                tracing::error!(%error, domain = %name.domain(), "DMTP: no answer");
                return Answer::Unavailable;
            }
        };
        let signets: Result<Vec<Signet>, _> =
            bytes.iter().map(|bytes| Signet::decode(bytes)).collect();
        match signets {
            Ok(signets) => Answer::Found(signets),
            Err(rejection) => {
                tracing::error!(%rejection, domain = %name.domain(), "a logged signet is none");
                Answer::Unavailable
            }
        }
    }

    async fn mailbox(&self, address: &Address) -> Answer<Vec<Signet>> {
        let holding = self.answers.mailbox(address).await;
        self.signets(&Name::Address(address.clone()), holding)
    }
}

#[async_trait]
impl Signets for Mirror {
    async fn org(&self, domain: &Domain, at: Option<&Fingerprint>) -> Answer<Signet> {
        let holding = self.answers.domain(domain, at.is_some()).await;
        choose(self.signets(&Name::Domain(domain.clone()), holding), at)
    }

    async fn user(&self, address: &Address, at: Option<&Fingerprint>) -> Answer<Signet> {
        choose(self.mailbox(address).await, at)
    }

    async fn history(
        &self,
        address: &Address,
        start: Option<&Fingerprint>,
        stop: Option<&Fingerprint>,
    ) -> Answer<Vec<Signet>> {
        match self.mailbox(address).await {
            Answer::Found(chain) => {
                between(chain, start, stop).map_or(Answer::NotFound, Answer::Found)
            }
            other => other,
        }
    }
}

/// The newest, or the newest with this fingerprint.
fn choose(signets: Answer<Vec<Signet>>, at: Option<&Fingerprint>) -> Answer<Signet> {
    match signets {
        Answer::Found(signets) => signets
            .into_iter()
            .rev()
            .find(|signet| at.is_none_or(|at| signet.matches(at)))
            .map_or(Answer::NotFound, Answer::Found),
        Answer::Held { url } => Answer::Held { url },
        Answer::NotFound => Answer::NotFound,
        Answer::Unavailable => Answer::Unavailable,
    }
}

/// From `start` to `stop`, both included.
fn between(
    chain: Vec<Signet>,
    start: Option<&Fingerprint>,
    stop: Option<&Fingerprint>,
) -> Option<Vec<Signet>> {
    let place = |wanted: &Fingerprint| chain.iter().rposition(|signet| signet.matches(wanted));
    let start = start.map_or(Some(0), place)?;
    let stop = stop.map_or(chain.len().checked_sub(1), place)?;
    let count = (stop + 1).checked_sub(start).filter(|count| *count > 0)?;
    Some(chain.into_iter().skip(start).take(count).collect())
}
