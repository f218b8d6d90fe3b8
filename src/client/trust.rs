//! Whom the client believes: a policy file, or one log's key.

use std::path::{Path, PathBuf};

pub use crate::proof::policy::Policy;

use crate::dime::Rejection;
use crate::proof::note::VerifierKey;

/// Longest policy file, bytes.
const MAX_FILE: u64 = 1 << 20;

/// Why there is no policy.
#[derive(Debug, thiserror::Error)]
pub enum TrustError {
    #[error("could not read the policy {path}")]
    Read {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("the policy {path} is longer than 1 MiB")]
    Size { path: PathBuf },
    #[error("the policy {path} is not one: {rejection}")]
    Policy { path: PathBuf, rejection: Rejection },
    #[error("the log key is not one: {0}")]
    Key(Rejection),
}

/// A C2SP tlog-policy file.
pub fn policy_of_file(path: &Path) -> Result<Policy, TrustError> {
    let read = |source| TrustError::Read { path: path.to_owned(), source };
    if std::fs::metadata(path).map_err(read)?.len() > MAX_FILE {
        return Err(TrustError::Size { path: path.to_owned() });
    }
    let text = std::fs::read(path).map_err(read)?;
    Policy::parse(&text)
        .map_err(|rejection| TrustError::Policy { path: path.to_owned(), rejection })
}

/// One log on its word alone: `name+id+key` as the log prints it.
pub fn policy_of_log(vkey: &str) -> Result<Policy, TrustError> {
    let key: VerifierKey = vkey.trim().parse().map_err(TrustError::Key)?;
    Policy::of_log(key).map_err(TrustError::Key)
}
