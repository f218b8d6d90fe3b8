//! The witness' face (C2SP tlog-witness): `POST /add-checkpoint`, and for
//! monitors `GET /{SHA-256 of the origin}/checkpoint`. What was followed of a log
//! lies below the same prefix, laid out as that log serves it, so that it can be
//! had back.
//!
//! Bodies are plain text, not JSON, since other software reads them.

use std::sync::Arc;

use axum::extract::rejection::BytesRejection;
use axum::extract::{OriginalUri, Path, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::Response;
use bytes::Bytes;

use super::reply::{self, Refusal};
use super::{Shared, names, tiles};
use crate::log::reader::PublicBlob;
use crate::peers::Answer;
use crate::proof::Hash;
use crate::proof::checkpoint::MAX_ADD_CHECKPOINT;
use crate::proof::tile::Resource;

const BYTES: &str = "application/octet-stream";
const TEXT: &str = "text/plain; charset=utf-8";
/// SPEC: the media type of a 409, whose body is the size and a line feed.
const SIZE: &str = "text/x.tlog.size";

/// `POST /add-checkpoint`
pub async fn add_checkpoint(
    State(shared): State<Arc<Shared>>,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, Refusal> {
    let Some(witness) = &shared.options.witness else { return Err(Refusal::no_route()) };
    let body = names::whole(MAX_ADD_CHECKPOINT, body)?;
    let answer = witness.add_checkpoint(&body).await;
    let status = StatusCode::from_u16(answer.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let (kind, text) = match answer {
        Answer::Cosigned(line) => (TEXT, line),
        Answer::Conflict(size) => (SIZE, format!("{size}\n")),
        Answer::UnknownOrigin => (TEXT, "this log is not cosigned here\n".into()),
        Answer::Malformed(why) | Answer::Untrusted(why) | Answer::Inconsistent(why) => {
            (TEXT, format!("{why}\n"))
        }
        Answer::Later(seconds, why) => {
            let mut response = reply::bytes(format!("{why}\n").into(), TEXT, reply::PRIVATE);
            *response.status_mut() = status;
            response.headers_mut().insert(header::RETRY_AFTER, seconds.into());
            return Ok(response);
        }
        Answer::Failed(why) => {
            tracing::error!(error = why, "a request to cosign failed");
            (TEXT, "this mirror failed\n".into())
        }
    };
    let mut response = reply::bytes(text.into(), kind, reply::PRIVATE);
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    Ok(response)
}

/// `GET /{origin}/checkpoint`: what was cosigned last of that log.
pub async fn cosigned(
    State(shared): State<Arc<Shared>>,
    Path(origin): Path<String>,
    headers: HeaderMap,
) -> Result<Response, Refusal> {
    let witness = shared.options.witness.as_ref().ok_or_else(Refusal::no_route)?;
    let found = witness.cosigned(&hash(&origin)?).await.map_err(|e| Refusal::failure(&e))?;
    Ok(reply::tagged(&headers, found.ok_or_else(unknown)?, TEXT, reply::REVALIDATE))
}

/// `GET /{origin}/followed`: the newest checkpoint whose whole tree is kept here.
pub async fn followed(
    State(shared): State<Arc<Shared>>,
    Path(origin): Path<String>,
    headers: HeaderMap,
) -> Result<Response, Refusal> {
    let witness = shared.options.witness.as_ref().ok_or_else(Refusal::no_route)?;
    let found = witness.followed(&hash(&origin)?).ok_or_else(unknown)?;
    Ok(reply::tagged(&headers, found, TEXT, reply::REVALIDATE))
}

/// `GET /{origin}/cosigned-by/{key}`: the last checkpoint of that log that was
/// seen with the cosignature of the key whose name has this SHA-256.
pub async fn cosigned_by(
    State(shared): State<Arc<Shared>>,
    Path((origin, key)): Path<(String, String)>,
    headers: HeaderMap,
) -> Result<Response, Refusal> {
    let witness = shared.options.witness.as_ref().ok_or_else(Refusal::no_route)?;
    let found = witness.cosigned_by(&hash(&origin)?, &hash(&key)?).await;
    let found = found.map_err(|error| Refusal::failure(&error))?;
    Ok(reply::tagged(&headers, found.ok_or_else(unknown)?, TEXT, reply::REVALIDATE))
}

/// `GET /{origin}/tile/…`: tiles and bundles of what was followed.
pub async fn tile(
    State(shared): State<Arc<Shared>>,
    Path((origin, _)): Path<(String, String)>,
    OriginalUri(uri): OriginalUri,
    headers: HeaderMap,
) -> Result<Response, Refusal> {
    let witness = shared.options.witness.as_ref().ok_or_else(Refusal::no_route)?;
    let path = uri.path().trim_start_matches('/').split_once('/').map_or("", |(_, path)| path);
    path.parse::<Resource>().map_err(|refused| Refusal::request("tile-path", refused.message))?;
    let found = witness.resource(&hash(&origin)?, path).await;
    let found = found.map_err(|error| Refusal::failure(&error))?;
    Ok(reply::tagged(&headers, found.ok_or_else(unknown)?, BYTES, reply::REVALIDATE))
}

/// `GET /{origin}/v1/blob/{sha256}`: bytes that entries of that log name.
pub async fn blob(
    State(shared): State<Arc<Shared>>,
    Path((origin, sha256)): Path<(String, String)>,
    headers: HeaderMap,
) -> Result<Response, Refusal> {
    let witness = shared.options.witness.as_ref().ok_or_else(Refusal::no_route)?;
    let found = witness.blob(&hash(&origin)?, &hash(&sha256)?).await;
    match found.map_err(|error| Refusal::failure(&error))? {
        PublicBlob::Here(bytes) => {
            let mut response = reply::tagged(&headers, bytes, BYTES, reply::HOUR);
            tiles::attach(&mut response, &sha256);
            Ok(response)
        }
        PublicBlob::Withdrawn => Err(Refusal::withdrawn()),
        PublicBlob::Missing => Err(unknown()),
    }
}

/// 64 lower-case hexadecimal digits.
fn hash(text: &str) -> Result<Hash, Refusal> {
    let mut hash = [0; 32];
    let lower = !text.bytes().any(|byte| byte.is_ascii_uppercase());
    if !lower || hex::decode_to_slice(text, &mut hash).is_err() {
        return Err(Refusal::no_route());
    }
    Ok(hash)
}

fn unknown() -> Refusal {
    Refusal::missing("not-cosigned", "No log of this origin was cosigned or followed so far here.")
}
