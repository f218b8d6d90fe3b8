//! Where things are kept: [`Blobs`], immutable objects that are the truth, and
//! [`State`], an index and queue that can always be thrown away and rebuilt.
//!
//! This room knows names of objects and rows, not what the bytes mean: formats
//! of the log are in `log`, of entries in `proof`.

pub mod blobs;
mod clean;
pub mod keys;
pub mod registrations;
pub mod rows;
pub mod seen;
pub mod sled;
pub mod state;
pub mod testing;

pub use blobs::{Blobs, Claim, Created, Found, Store};
pub use state::{Applied, Batch, State, Table};

/// What went wrong in a store, and with which object.
///
/// `key` never holds a mailbox name: objects are named by numbers and hashes.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The object store failed. Whether a write took place is unknown.
    #[error("could not {doing} {key} in {place}")]
    Object {
        doing: &'static str,
        key: String,
        place: String,
        #[source]
        source: Box<object_store::Error>,
    },
    /// A file was written but not made durable: what is on the disk is unknown,
    /// and a second fsync would not tell. End the process; the next start reads.
    #[error("could not make {key} durable in {place}")]
    Unsynced {
        key: String,
        place: String,
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// An object that never changes exists with other bytes.
    #[error("{key} in {place} exists with other bytes")]
    Differs { key: String, place: String },
    /// An object is larger than anything that belongs there.
    #[error("{key} in {place} has {size} bytes, more than {limit}")]
    TooLarge { key: String, place: String, size: u64, limit: u64 },
    /// A key is not a path, or a folder holds a file that is not a key.
    #[error("{key:?} is no object key")]
    Key { key: String },
    /// A folder could not be made, opened or protected.
    #[error("could not {doing} {path}")]
    Folder {
        doing: &'static str,
        path: String,
        #[source]
        source: std::io::Error,
    },
    /// A listing has more objects than its reader is prepared for.
    #[error("more than {limit} objects under {prefix} in {place}")]
    TooMany { prefix: String, place: String, limit: usize },
    /// Another process has the state open. Never a sign of damage.
    #[error("the state in {path} is in use by another process")]
    InUse { path: String },
    /// The state cannot be read. Move it aside and rebuild it.
    #[error("the state in {path} is damaged: {message}")]
    Damaged { path: String, message: String },
    /// The state's engine failed in another way.
    #[error("could not {doing} the state")]
    State {
        doing: &'static str,
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

impl Error {
    /// Whether going on in this process could lose or contradict something:
    /// an unsynced write, or an immutable object with other bytes.
    pub fn is_fatal(&self) -> bool {
        matches!(self, Error::Unsynced { .. } | Error::Differs { .. })
    }

    /// Whether the state must be moved aside and rebuilt.
    pub fn is_damage(&self) -> bool {
        matches!(self, Error::Damaged { .. })
    }
}
