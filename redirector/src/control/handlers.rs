//! Paths and methods of the API; each handler reads its request whole and asks the owner task.

use std::{sync::Arc, time::Duration};

use axum::{
    Extension, Json, Router,
    body::Body,
    extract::{Path, Query, State, rejection::QueryRejection},
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use bytes::Bytes;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use serde::de::DeserializeOwned;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::{
    control::{
        api,
        command::{Caller, Command, Handle},
        error::{ApiError, ErrorCode},
    },
    route::{RawRoute, RoutePatch, SourceName},
};

/// How much, and for how long, a body is read.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    pub(super) body: usize,
    pub(super) import: usize,
    pub(super) read: Duration,
}

#[derive(Clone)]
struct Shared {
    handle: Handle,
    bounds: Bounds,
    shutdown: CancellationToken,
    /// Who may follow events.
    places: Arc<Semaphore>,
}

/// Readers that may follow events at one time: each keeps a connection.
const READERS: usize = 16;

type Answer<T> = Result<Json<T>, ApiError>;

/// Every path of version 1.
pub(super) fn router(handle: Handle, bounds: Bounds, shutdown: CancellationToken) -> Router {
    Router::new()
        .route("/v1/status", get(status))
        .route("/v1/routes", get(routes).post(add))
        .route("/v1/routes/{source}", get(route).patch(set).delete(remove))
        .route("/v1/import", post(import))
        .route("/v1/export", get(export))
        .route("/v1/history", get(history))
        .route("/v1/history/{number}", get(change))
        .route("/v1/rollback", post(rollback))
        .route("/v1/events", get(events))
        .route("/v1/reload", post(reload))
        .fallback(no_such_path)
        .method_not_allowed_fallback(no_such_method)
        .with_state(Shared { handle, bounds, shutdown, places: Arc::new(Semaphore::new(READERS)) })
}

async fn status(State(shared): State<Shared>) -> Answer<api::Status> {
    shared.handle.ask(Command::Status).await.map(Json)
}

async fn routes(State(shared): State<Shared>) -> Answer<api::RouteList> {
    shared.handle.ask(Command::Routes).await.map(Json)
}

async fn route(State(shared): State<Shared>, Path(source): Path<String>) -> Answer<api::RouteShow> {
    let source = source_name(&source)?;
    shared.handle.ask(|reply| Command::Route(source, reply)).await.map(Json)
}

async fn add(
    State(shared): State<Shared>,
    Extension(caller): Extension<Caller>,
    body: Body,
) -> Result<(StatusCode, Json<api::Changed>), ApiError> {
    let route: RawRoute = parse(&read(body, shared.bounds.body, shared.bounds.read).await?)?;
    let changed = shared.handle.ask(|reply| Command::Add(Box::new(route), caller, reply)).await?;
    Ok((StatusCode::CREATED, Json(changed)))
}

async fn set(
    State(shared): State<Shared>,
    Extension(caller): Extension<Caller>,
    Path(source): Path<String>,
    body: Body,
) -> Answer<api::Changed> {
    let source = source_name(&source)?;
    let patch: RoutePatch = parse(&read(body, shared.bounds.body, shared.bounds.read).await?)?;
    shared.handle.ask(|reply| Command::Set(source, Box::new(patch), caller, reply)).await.map(Json)
}

async fn remove(
    State(shared): State<Shared>,
    Extension(caller): Extension<Caller>,
    Path(source): Path<String>,
) -> Answer<api::Changed> {
    let source = source_name(&source)?;
    shared.handle.ask(|reply| Command::Remove(source, caller, reply)).await.map(Json)
}

async fn import(
    State(shared): State<Shared>,
    Extension(caller): Extension<Caller>,
    body: Body,
) -> Answer<api::Imported> {
    let request: api::ImportRequest =
        parse(&read(body, shared.bounds.import, shared.bounds.read).await?)?;
    shared.handle.ask(|reply| Command::Import(request, caller, reply)).await.map(Json)
}

async fn history(State(shared): State<Shared>) -> Answer<api::ChangeList> {
    shared.handle.ask(Command::History).await.map(Json)
}

async fn change(
    State(shared): State<Shared>,
    Path(number): Path<String>,
) -> Answer<api::ChangeShow> {
    let number = number.parse().map_err(|_| {
        ApiError::new(ErrorCode::Invalid, format!("`{number}` is not the number of a change"))
            .remedy("`redirector route history` has the numbers")
    })?;
    shared.handle.ask(|reply| Command::Change(number, reply)).await.map(Json)
}

async fn rollback(
    State(shared): State<Shared>,
    Extension(caller): Extension<Caller>,
    body: Body,
) -> Answer<api::RolledBack> {
    let body = read(body, shared.bounds.body, shared.bounds.read).await?;
    let request: api::RollbackRequest =
        if body.is_empty() { api::RollbackRequest::default() } else { parse(&body)? };
    shared.handle.ask(|reply| Command::Rollback(request, caller, reply)).await.map(Json)
}

async fn export(State(shared): State<Shared>) -> Answer<api::Export> {
    shared.handle.ask(Command::Export).await.map(Json)
}

/// Lines of JSON. A reader that does not take them loses some, and is told how many; nobody waits
/// for it.
async fn events(
    State(shared): State<Shared>,
    query: Result<Query<api::EventQuery>, QueryRejection>,
) -> Result<Response, ApiError> {
    let Query(query) = query.map_err(|error| {
        ApiError::new(
            ErrorCode::BadRequest,
            format!("the query is not what this path takes: {}", error.body_text()),
        )
        .remedy("it takes follow, route, result, failed and limit")
    })?;
    let place = if query.follow {
        let full = || {
            ApiError::new(ErrorCode::TooMany, format!("{READERS} readers follow events already"))
                .remedy("end one of them")
        };
        Some(Arc::clone(&shared.places).try_acquire_owned().map_err(|_| full())?)
    } else {
        None
    };
    let subscription = shared.handle.ask(|reply| Command::Events(query, reply)).await?;
    let lines = Body::from_stream(subscription.lines(shared.shutdown, place));
    Ok(([(header::CONTENT_TYPE, "application/x-ndjson")], lines).into_response())
}

async fn reload(
    State(shared): State<Shared>,
    Extension(caller): Extension<Caller>,
) -> Answer<api::Reloaded> {
    shared.handle.ask(|reply| Command::Reload(caller, reply)).await.map(Json)
}

/// What a caller gets who may not ask, whatever it asks.
pub(super) fn forbidden() -> Router {
    Router::new().fallback(async |Extension(caller): Extension<Caller>| {
        ApiError::new(ErrorCode::Forbidden, format!("{caller} may not ask this agent"))
            .remedy("ask as root, or as a member of the socket's group")
    })
}

async fn no_such_path(uri: axum::http::Uri) -> ApiError {
    ApiError::new(ErrorCode::NotFound, format!("there is no {} in this API", uri.path())).remedy(
        "version 1 has /v1/status, /v1/routes, /v1/routes/{source}, /v1/import, /v1/export, \
            /v1/history, /v1/history/{number}, /v1/rollback, /v1/events and /v1/reload",
    )
}

async fn no_such_method(method: axum::http::Method, uri: axum::http::Uri) -> ApiError {
    ApiError::new(ErrorCode::MethodNotAllowed, format!("{} does not take {method}", uri.path()))
        .remedy("docs/reference/api.md has the methods of each path")
}

/// The whole body, within `limit` bytes and `patience`.
async fn read(body: Body, limit: usize, patience: Duration) -> Result<Bytes, ApiError> {
    match tokio::time::timeout(patience, Limited::new(body, limit).collect()).await {
        Ok(Ok(collected)) => Ok(collected.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(ApiError::new(
            ErrorCode::TooLarge,
            format!("the body is larger than {limit} bytes"),
        )
        .remedy("send less, or the parts one by one")),
        Ok(Err(error)) => {
            Err(ApiError::new(ErrorCode::BadRequest, format!("the body did not arrive: {error}")))
        }
        Err(_) => Err(ApiError::new(
            ErrorCode::Timeout,
            format!("the body did not arrive within {} s", patience.as_secs_f32()),
        )
        .remedy("send as many bytes as content-length says")),
    }
}

fn parse<T: DeserializeOwned>(body: &[u8]) -> Result<T, ApiError> {
    serde_json::from_slice(body).map_err(|error| {
        let code = if error.is_data() { ErrorCode::Invalid } else { ErrorCode::BadRequest };
        ApiError::new(code, format!("the body is not what this path takes: {error}"))
            .remedy("docs/reference/api.md shows the shapes")
    })
}

fn source_name(text: &str) -> Result<SourceName, ApiError> {
    text.parse().map_err(|error: crate::route::SourceNameError| {
        ApiError::new(ErrorCode::Invalid, error.to_string())
    })
}
