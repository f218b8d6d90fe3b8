//! The log as it is: checkpoint, tiles, entries with their inclusion, blobs.

use std::sync::Arc;

use axum::extract::{OriginalUri, Path, State};
use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::Response;
use bytes::Bytes;

use super::Shared;
use super::reply::{self, Refusal};
use crate::log::reader::PublicBlob;
use crate::proof::checkpoint::{SignedCheckpoint, TlogProof};
use crate::proof::tile::Resource;

const BYTES: &str = "application/octet-stream";
const TEXT: &str = "text/plain; charset=utf-8";

/// `GET /checkpoint`: never smaller than it was before.
pub async fn checkpoint(
    State(shared): State<Arc<Shared>>,
    headers: HeaderMap,
) -> Result<Response, Refusal> {
    let checkpoint = shared.answers.reader().checkpoint().ok_or_else(Refusal::not_ready)?;
    Ok(reply::tagged(&headers, checkpoint, TEXT, reply::REVALIDATE))
}

/// `GET /tile/…`: exactly the paths of tlog-tiles, taken as they were sent, so
/// that `%30` is no `0`.
pub async fn tile(
    State(shared): State<Arc<Shared>>,
    OriginalUri(uri): OriginalUri,
    headers: HeaderMap,
) -> Result<Response, Refusal> {
    let path = uri.path().strip_prefix('/').unwrap_or_default();
    let missing = || {
        Refusal::missing(
            "no-such-tile",
            "There is no such tile here: the log is smaller, or the partial tile was replaced \
             by the full one.",
        )
    };
    path.parse::<Resource>().map_err(|refused| Refusal::request("tile-path", refused.message))?;
    let found = shared.answers.reader().resource(path).await?.ok_or_else(missing)?;
    Ok(reply::tagged(&headers, found, BYTES, reply::IMMUTABLE))
}

/// `GET /v1/entry/{index}`: a tlog-proof for the published checkpoint, so it is
/// another one after the next batch.
pub async fn entry(
    State(shared): State<Arc<Shared>>,
    Path(index): Path<String>,
    headers: HeaderMap,
) -> Result<Response, Refusal> {
    let number = parse_index(&index)
        .ok_or_else(|| Refusal::request("index", "an index is a number from 0, without zeros"))?;
    let reader = shared.answers.reader();
    let head = reader.head().ok_or_else(Refusal::not_ready)?;
    let missing = || Refusal::missing("no-such-entry", "The log is not that long yet.");
    if number >= head.size {
        return Err(missing());
    }
    let entry = reader.entry(number).await?.ok_or_else(missing)?;
    let path = reader.inclusion(number, head.size).await?;
    let note = head.checkpoint.ok_or_else(Refusal::not_ready)?;
    let checkpoint = SignedCheckpoint::parse(&note).map_err(|error| Refusal::failure(&error))?;
    let proof = TlogProof { extra: Some(entry.to_vec()), index: number, path, checkpoint };
    let body = Bytes::from(proof.to_string());
    let mut response = reply::tagged(&headers, body, TEXT, reply::REVALIDATE);
    attach(&mut response, &format!("{number}.tlog-proof"));
    Ok(response)
}

/// `GET /v1/blob/{sha256}`: bytes of strangers, so only to be saved.
pub async fn blob(
    State(shared): State<Arc<Shared>>,
    Path(sha256): Path<String>,
    headers: HeaderMap,
) -> Result<Response, Refusal> {
    let mut hash = [0; 32];
    let lower = !sha256.bytes().any(|byte| byte.is_ascii_uppercase());
    if !lower || hex::decode_to_slice(&sha256, &mut hash).is_err() {
        return Err(Refusal::request("sha256", "a blob is named by 64 lower-case hex digits"));
    }
    match shared.answers.reader().blob(&hash).await? {
        PublicBlob::Here(bytes) => {
            let mut response = reply::tagged(&headers, bytes, BYTES, reply::HOUR);
            attach(&mut response, &sha256);
            Ok(response)
        }
        PublicBlob::Withdrawn => Err(Refusal::withdrawn()),
        PublicBlob::Missing => {
            Err(Refusal::missing("no-such-blob", "No bytes with this hash are public here."))
        }
    }
}

/// Decimal, as it prints; `.tlog-proof` may follow.
fn parse_index(text: &str) -> Option<u64> {
    let text = text.strip_suffix(".tlog-proof").unwrap_or(text);
    text.parse().ok().filter(|number: &u64| number.to_string() == text)
}

/// `name` is digits, letters and dots.
pub(super) fn attach(response: &mut Response, name: &str) {
    if let Ok(value) = HeaderValue::from_str(&format!("attachment; filename=\"{name}\"")) {
        response.headers_mut().insert(header::CONTENT_DISPOSITION, value);
    }
}
