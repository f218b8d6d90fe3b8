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

    fn answer<T>(&self, name: &Name, holding: Result<Holding<T>, Error>) -> Answer<T> {
        match holding {
            Ok(Holding::Found(found)) => Answer::Found(found),
            Ok(Holding::Held) => {
                let name = percent::segment(name.as_str());
                Answer::Held { url: format!("{}/v1/lookup/{name}", self.url) }
            }
            Ok(Holding::Nothing) => Answer::NotFound,
            Ok(Holding::Withdrawn) => Answer::Unavailable,
            Err(error) => {
                // Neither names a mailbox.
                tracing::error!(%error, domain = %name.domain(), "DMTP: no answer");
                Answer::Unavailable
            }
        }
    }
}

#[async_trait]
impl Signets for Mirror {
    async fn org(&self, domain: &Domain, at: Option<&Fingerprint>) -> Answer<Signet> {
        let holding = self.answers.domain(domain, at).await;
        self.answer(&Name::Domain(domain.clone()), holding)
    }

    async fn user(&self, address: &Address, at: Option<&Fingerprint>) -> Answer<Signet> {
        let holding = self.answers.mailbox(address, at).await;
        self.answer(&Name::Address(address.clone()), holding)
    }

    async fn history(
        &self,
        address: &Address,
        start: Option<&Fingerprint>,
        stop: Option<&Fingerprint>,
    ) -> Answer<Vec<Signet>> {
        let holding = self.answers.history(address, start, stop).await;
        self.answer(&Name::Address(address.clone()), holding)
    }
}
