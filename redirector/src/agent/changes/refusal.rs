//! Refusals of the route set as errors of the API.

use crate::{
    control::{ApiError, ErrorCode},
    route::{RouteProblems, RouteSetError},
};

/// A route that is not valid.
pub(crate) fn invalid(problems: RouteProblems) -> ApiError {
    ApiError::new(ErrorCode::Invalid, problems.to_string())
}

/// A change that the route set refuses.
pub(crate) fn refusal(error: RouteSetError) -> ApiError {
    let code = match &error {
        RouteSetError::Exists { .. }
        | RouteSetError::InFile { .. }
        | RouteSetError::InCluster { .. }
        | RouteSetError::ReplaceFile { .. } => ErrorCode::Conflict,
        RouteSetError::Unknown { .. } => ErrorCode::NotFound,
        RouteSetError::Problems(_) => ErrorCode::Invalid,
    };
    ApiError::new(code, error.to_string())
}
