//! Where rooms that do not know each other meet: the crawl's drafts go into
//! the log.

use async_trait::async_trait;

use crate::crawl::{Placed, Sink, Unplaced};
use crate::dime::Address;
use crate::log::{Log, Refused};
use crate::proof::Draft;

/// Hands drafts to the log.
pub struct IntoLog(pub Log);

#[async_trait]
impl Sink for IntoLog {
    async fn submit(&self, draft: Draft) -> Result<Placed, Unplaced> {
        match self.0.submit(draft).await {
            Ok(placed) => Ok(Placed::Version(placed.version)),
            Err(Refused::Unplaceable(why)) => Err(Unplaced::Misfit(why.to_string())),
            Err(later) => Err(Unplaced::Later(later.to_string())),
        }
    }

    async fn is_forgotten(&self, address: &Address) -> Result<bool, Unplaced> {
        self.0.is_forgotten(address).await.map_err(|error| Unplaced::Later(error.to_string()))
    }
}
