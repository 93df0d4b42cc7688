//! Errors as problem documents (RFC 9457).
//!
//! `type` is `urn:replcore:problem:KIND` and is for programs; `detail` is one line for people. For
//! a list in the request `index` tells the item, from 0, and `ids` what was taken before it.

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use crate::api::PostedId;

/// Why a request was not done, and its HTTP status.
#[derive(Clone, Debug, Serialize)]
#[serde(transparent)]
pub struct Problem(Box<Content>);

#[derive(Clone, Debug, Serialize)]
struct Content {
    #[serde(rename = "type")]
    kind: String,
    title: &'static str,
    #[serde(serialize_with = "status_number")]
    status: StatusCode,
    detail: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    instance: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    index: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ids: Option<Vec<PostedId>>,
    #[serde(skip)]
    retry_after_s: Option<u32>,
}

fn status_number<S: serde::Serializer>(
    status: &StatusCode,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.serialize_u16(status.as_u16())
}

impl Problem {
    /// A problem of `kind` (one word of the `type`), told by `detail`.
    pub fn new(status: StatusCode, kind: &str, detail: impl Into<String>) -> Self {
        Self(Box::new(Content {
            kind: format!("urn:replcore:problem:{kind}"),
            title: status.canonical_reason().unwrap_or("Error"),
            status,
            detail: detail.into(),
            instance: String::new(),
            index: None,
            ids: None,
            retry_after_s: None,
        }))
    }

    /// The request is malformed or out of range.
    pub(crate) fn invalid(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "invalid", detail)
    }

    /// With the index of the item that it is about.
    pub(crate) fn index(mut self, index: Option<usize>) -> Self {
        self.0.index = index;
        self
    }

    /// With the index moved up by the items of earlier calls.
    pub(crate) fn offset_index(mut self, before: usize) -> Self {
        self.0.index = self.0.index.map(|index| index + before);
        self
    }

    /// With the ids of the items before it that were taken.
    pub(crate) fn taken(mut self, ids: Vec<PostedId>) -> Self {
        self.0.ids = Some(ids);
        self
    }

    /// With the path of the request.
    pub(crate) fn instance(mut self, instance: String) -> Self {
        self.0.instance = instance;
        self
    }

    /// With a hint when to try again, in seconds.
    pub(crate) fn retry_after(mut self, seconds: u32) -> Self {
        self.0.retry_after_s = Some(seconds);
        self
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let body = serde_json::to_vec(&self).unwrap_or_default();
        let mut response = (self.0.status, body).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if let Some(seconds) = self.0.retry_after_s {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        // The layer around all handlers adds the instance.
        response.extensions_mut().insert(self);
        response
    }
}
