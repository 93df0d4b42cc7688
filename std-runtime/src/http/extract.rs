//! Bodies and queries of requests, within their limits.

use axum::body::Body;
use axum::extract::Query;
use axum::http::{HeaderMap, StatusCode, Uri, header};
use futures_util::StreamExt;
use serde::de::DeserializeOwned;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::OwnedSemaphorePermit;

use super::App;
use super::problem::Problem;

/// Longest time that a request may wish to wait, in milliseconds.
pub(crate) const WAIT_MS_MAX: u32 = 60_000;
/// Most items of one answer.
pub(crate) const LIMIT_MAX: u32 = 1000;

/// A body, and its share of the memory for bodies.
pub(crate) struct Received {
    pub(crate) bytes: Vec<u8>,
    _share: Option<OwnedSemaphorePermit>,
}

/// Reads a whole body within the limits of length, memory and time.
pub(crate) async fn body(app: &App, headers: &HeaderMap, body: Body) -> Result<Received, Problem> {
    let length = headers
        .get(header::CONTENT_LENGTH)
        .and_then(|value| value.to_str().ok()?.parse::<u64>().ok())
        .unwrap_or(0);
    if length > app.options.body_bytes_max as u64 {
        return Err(too_large(app));
    }
    let limit = Duration::from_millis(app.options.body_ms_max);
    tokio::time::timeout(limit, collect(app, body)).await.map_err(|_| {
        Problem::new(
            StatusCode::REQUEST_TIMEOUT,
            "timeout",
            format!("the body was not complete within {} ms", app.options.body_ms_max),
        )
    })?
}

async fn collect(app: &App, body: Body) -> Result<Received, Problem> {
    let mut bytes = Vec::new();
    let mut share: Option<OwnedSemaphorePermit> = None;
    let mut chunks = body.into_data_stream();
    while let Some(chunk) = chunks.next().await {
        let chunk =
            chunk.map_err(|error| Problem::invalid(format!("the body broke off: {error}")))?;
        if chunk.is_empty() {
            continue;
        }
        if bytes.len() + chunk.len() > app.options.body_bytes_max {
            return Err(too_large(app));
        }
        // Nobody waits here while it holds a part, so that two half bodies cannot block each other.
        let more = u32::try_from(chunk.len())
            .ok()
            .and_then(|bytes| Arc::clone(&app.bodies).try_acquire_many_owned(bytes).ok())
            .ok_or_else(|| busy(app))?;
        match &mut share {
            Some(share) => share.merge(more),
            None => share = Some(more),
        }
        bytes.extend_from_slice(&chunk);
    }
    Ok(Received { bytes, _share: share })
}

fn too_large(app: &App) -> Problem {
    Problem::new(
        StatusCode::PAYLOAD_TOO_LARGE,
        "too_large",
        format!("a body has at most {} bytes (http.body_bytes_max)", app.options.body_bytes_max),
    )
}

fn busy(app: &App) -> Problem {
    Problem::new(
        StatusCode::SERVICE_UNAVAILABLE,
        "busy",
        format!(
            "the bodies of all requests together have reached {} bytes (http.bodies_bytes_max)",
            app.options.bodies_bytes_max
        ),
    )
    .retry_after(1)
}

/// The body as one JSON value. It has to be declared as JSON, because a page of another site
/// cannot send that unasked.
pub(crate) async fn json<T: DeserializeOwned>(
    app: &App,
    headers: &HeaderMap,
    sent: Body,
) -> Result<T, Problem> {
    if !matches!(media_type(headers)?.as_deref(), Some("application/json")) {
        return Err(Problem::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "unsupported_media_type",
            "the body has to be application/json",
        ));
    }
    let received = body(app, headers, sent).await?;
    serde_json::from_slice(&received.bytes)
        .map_err(|error| Problem::invalid(format!("the body is not what it should be: {error}")))
}

/// The media type of the body, in lower case and without parameters.
pub(crate) fn media_type(headers: &HeaderMap) -> Result<Option<String>, Problem> {
    let Some(value) = headers.get(header::CONTENT_TYPE) else {
        return Ok(None);
    };
    let text =
        value.to_str().map_err(|_| Problem::invalid("the Content-Type header is not ASCII"))?;
    Ok(Some(text.split(';').next().unwrap_or("").trim().to_ascii_lowercase()))
}

/// The query, with unknown parameters refused by the type's `deny_unknown_fields`.
pub(crate) fn query<T: DeserializeOwned>(uri: &Uri) -> Result<T, Problem> {
    match Query::try_from_uri(uri) {
        Ok(Query(value)) => Ok(value),
        Err(error) => Err(Problem::invalid(format!("the query: {}", error.body_text()))),
    }
}

/// A limit within 1 to [`LIMIT_MAX`].
pub(crate) fn limit(limit: Option<u32>) -> Result<Option<u32>, Problem> {
    match limit {
        Some(limit) if !(1..=LIMIT_MAX).contains(&limit) => {
            Err(Problem::invalid(format!("limit is {limit}; it has to be 1 to {LIMIT_MAX}")))
        }
        limit => Ok(limit),
    }
}

/// A wait within [`WAIT_MS_MAX`].
pub(crate) fn wait_ms(wait_ms: u32) -> Result<u32, Problem> {
    if wait_ms > WAIT_MS_MAX {
        return Err(Problem::invalid(format!(
            "wait_ms is {wait_ms}; it has to be at most {WAIT_MS_MAX}"
        )));
    }
    Ok(wait_ms)
}

/// The bytes behind percent signs.
pub(crate) fn percent_decode(text: &str) -> Vec<u8> {
    percent_encoding::percent_decode_str(text).collect()
}
