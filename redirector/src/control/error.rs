//! Errors of the control API: what a client is told, and with which HTTP status.

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

/// Why a request was not carried out. Nothing was changed unless the code says otherwise.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct ApiError {
    /// A stable word for programs.
    pub code: ErrorCode,
    /// What is wrong, for a person.
    pub message: String,
    /// What to try.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remedy: Option<String>,
}

/// The kinds of [`ApiError`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ErrorCode {
    /// 400: the request is not what the API takes (no JSON, an unknown field, a wrong type).
    BadRequest,
    /// 403: the caller is neither root, nor the agent's own user, nor in the socket's group.
    Forbidden,
    /// 404: no such path or no such route.
    NotFound,
    /// 405: the path exists, the method does not.
    MethodNotAllowed,
    /// 408: the body did not arrive in time.
    Timeout,
    /// 409: the route exists already, or another hand made it.
    Conflict,
    /// 413: the body is larger than the limit.
    TooLarge,
    /// 422: understood, but not a possible route or configuration.
    Invalid,
    /// 429: as many readers follow events as may.
    TooMany,
    /// 507: no virtual address is free, or the kernel's tables are full.
    Exhausted,
    /// 500: the change is kept, but the kernel did not take it; the agent goes on trying.
    Kernel,
    /// 500: a state file could not be written.
    Storage,
    /// 503: the agent is on its way out.
    ShuttingDown,
    /// 504: the agent took the request and has not answered in time; it may still be carried out.
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

    /// The HTTP status that goes with it.
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

    /// The same, with what to try.
    pub fn remedy(mut self, remedy: impl Into<String>) -> Self {
        self.remedy = Some(remedy.into());
        self
    }

    /// There is no such route.
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
