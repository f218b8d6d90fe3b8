//! The witness' face (C2SP tlog-witness): `POST /add-checkpoint`, and for
//! monitors `GET /{SHA-256 of the origin}/checkpoint`.
//!
//! Bodies are plain text, not JSON, since other software reads them.

use std::sync::Arc;

use axum::extract::rejection::BytesRejection;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::Response;
use bytes::Bytes;

use super::reply::{self, Refusal};
use super::{Shared, names};
use crate::peers::Answer;

const TEXT: &str = "text/plain; charset=utf-8";
/// SPEC: the media type of a 409, whose body is the size and a line feed.
const SIZE: &str = "text/x.tlog.size";

/// `POST /add-checkpoint`
pub async fn add_checkpoint(
    State(shared): State<Arc<Shared>>,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, Refusal> {
    let Some(witness) = &shared.options.witness else { return Err(Refusal::no_route()) };
    let body = names::whole(&shared, body)?;
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
    let Some(witness) = &shared.options.witness else { return Err(Refusal::no_route()) };
    let mut hash = [0; 32];
    let lower = !origin.bytes().any(|byte| byte.is_ascii_uppercase());
    if !lower || hex::decode_to_slice(&origin, &mut hash).is_err() {
        return Err(Refusal::no_route());
    }
    let found = witness.cosigned(&hash).await.map_err(|error| Refusal::failure(&error))?;
    let missing = || Refusal::missing("not-cosigned", "No log of this origin was cosigned here.");
    Ok(reply::tagged(&headers, found.ok_or_else(missing)?, TEXT, reply::REVALIDATE))
}
