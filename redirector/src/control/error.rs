//! Errors of the control API, and their HTTP status.

use axum::{
    Json,
    http::StatusCode,
    response::{IntoResponse, Response},
};
use serde::{Deserialize, Serialize};

/// The body of every response that is not a success.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorBody {
    /// The error.
    pub error: ApiError,
}

/// Why a request failed. Nothing was changed unless the code's description differs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct ApiError {
    /// A stable word for programs.
    pub code: ErrorCode,
    /// The error, for a person.
    pub message: String,
    /// What to try.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remedy: Option<String>,
}

/// The kinds of [`ApiError`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ErrorCode {
    /// 400: the request is malformed (no JSON, an unknown field, a wrong type).
    BadRequest,
    /// 403: the caller is neither root, nor the agent's own user, nor in the socket's group.
    Forbidden,
    /// 404: the path or the route does not exist.
    NotFound,
    /// 405: the path exists, the method does not.
    MethodNotAllowed,
    /// 408: the body did not arrive in time.
    Timeout,
    /// 409: the route exists already, or has another origin.
    Conflict,
    /// 413: the body is larger than the limit.
    TooLarge,
    /// 422: well-formed, but not a valid route or configuration.
    Invalid,
    /// 429: the maximum number of readers follow events, or of requests wait.
    TooMany,
    /// 507: no virtual address is free, or the kernel's tables are full.
    Exhausted,
    /// 500: the change is saved, but the kernel rejected it; the agent keeps retrying.
    Kernel,
    /// 500: a state file could not be written.
    Storage,
    /// 503: the agent is shutting down.
    ShuttingDown,
    /// 504: the agent has not answered in time; the request may still be executed.
    NoAnswer,
    /// A code that this version does not know.
    #[serde(other)]
    Unknown,
}

impl ErrorCode {
    /// Every code that this version knows.
    pub const ALL: &[Self] = &[
        Self::BadRequest,
        Self::Forbidden,
        Self::NotFound,
        Self::MethodNotAllowed,
        Self::Timeout,
        Self::Conflict,
        Self::TooLarge,
        Self::Invalid,
        Self::TooMany,
        Self::Exhausted,
        Self::Kernel,
        Self::Storage,
        Self::ShuttingDown,
        Self::NoAnswer,
    ];

    /// Its HTTP status.
    pub fn status(self) -> StatusCode {
        match self {
            Self::BadRequest => StatusCode::BAD_REQUEST,
            Self::Forbidden => StatusCode::FORBIDDEN,
            Self::NotFound => StatusCode::NOT_FOUND,
            Self::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
            Self::Timeout => StatusCode::REQUEST_TIMEOUT,
            Self::Conflict => StatusCode::CONFLICT,
            Self::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::Invalid => StatusCode::UNPROCESSABLE_ENTITY,
            Self::TooMany => StatusCode::TOO_MANY_REQUESTS,
            Self::Exhausted => StatusCode::INSUFFICIENT_STORAGE,
            Self::Kernel | Self::Storage | Self::Unknown => StatusCode::INTERNAL_SERVER_ERROR,
            Self::ShuttingDown => StatusCode::SERVICE_UNAVAILABLE,
            Self::NoAnswer => StatusCode::GATEWAY_TIMEOUT,
        }
    }
}

impl ApiError {
    /// An error without a remedy.
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), remedy: None }
    }

    /// The same with a remedy.
    pub fn remedy(mut self, remedy: impl Into<String>) -> Self {
        self.remedy = Some(remedy.into());
        self
    }

    /// The route does not exist.
    pub fn no_route(source: &dyn std::fmt::Display) -> Self {
        Self::new(ErrorCode::NotFound, format!("there is no route for {source}"))
            .remedy("`redirector route list` shows the routes")
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        (self.code.status(), Json(ErrorBody { error: self })).into_response()
    }
}
