//! Paths and methods of the API. Each handler reads its whole request and queues a command.

use std::{sync::Arc, time::Duration};

use axum::{
    Extension, Json, Router,
    body::Body,
    extract::{Path, Query, Request, State, rejection::QueryRejection},
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
        hand_over::{self, HandOver},
    },
    route::{RawRoute, RoutePatch, SourceName},
};

/// Limits of reading a body.
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
    hand_over: HandOver,
    /// One permit for each reader that follows events.
    readers: Arc<Semaphore>,
    /// One permit for each import whose body is read.
    imports: Arc<Semaphore>,
}

/// Readers that may follow events at the same time: each holds a connection.
const MAX_READERS: usize = 16;
/// Bodies of imports that are read at the same time: each may take 32 MiB.
const MAX_IMPORTS: usize = 2;

type Answer<T> = Result<Json<T>, ApiError>;

/// Every path of version 1.
pub(super) fn router(
    (handle, hand_over): (Handle, HandOver),
    bounds: Bounds,
    shutdown: CancellationToken,
) -> Router {
    Router::new()
        .route("/v1/status", get(status))
        .route("/v1/progress", get(progress))
        .route("/v1/routes", get(routes).post(add))
        .route("/v1/routes/{source}", get(route).patch(set).delete(remove))
        .route("/v1/import", post(import))
        .route("/v1/export", get(export))
        .route("/v1/history", get(history))
        .route("/v1/history/{number}", get(change))
        .route("/v1/rollback", post(rollback))
        .route("/v1/events", get(events))
        .route("/v1/reload", post(reload))
        .route("/v1/hand-over", post(hand_over_sockets))
        .fallback(no_such_path)
        .method_not_allowed_fallback(no_such_method)
        .with_state(Shared {
            handle,
            bounds,
            shutdown,
            hand_over,
            readers: Arc::new(Semaphore::new(MAX_READERS)),
            imports: Arc::new(Semaphore::new(MAX_IMPORTS)),
        })
}

async fn status(State(shared): State<Shared>) -> Answer<api::Status> {
    shared.handle.send(Command::Status).await.map(Json)
}

async fn progress(State(shared): State<Shared>) -> Answer<api::Progress> {
    shared.handle.send(Command::Progress).await.map(Json)
}

async fn routes(State(shared): State<Shared>) -> Answer<api::RouteList> {
    shared.handle.send(Command::Routes).await.map(Json)
}

async fn route(State(shared): State<Shared>, Path(source): Path<String>) -> Answer<api::RouteShow> {
    let source = source_name(&source)?;
    shared.handle.send(|reply| Command::Route(source, reply)).await.map(Json)
}

async fn add(
    State(shared): State<Shared>,
    Extension(caller): Extension<Caller>,
    body: Body,
) -> Result<(StatusCode, Json<api::Changed>), ApiError> {
    let route: RawRoute = parse(&read(body, shared.bounds.body, shared.bounds.read).await?)?;
    let changed = shared.handle.send(|reply| Command::Add(Box::new(route), caller, reply)).await?;
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
    shared.handle.send(|reply| Command::Set(source, Box::new(patch), caller, reply)).await.map(Json)
}

async fn remove(
    State(shared): State<Shared>,
    Extension(caller): Extension<Caller>,
    Path(source): Path<String>,
) -> Answer<api::Changed> {
    let source = source_name(&source)?;
    shared.handle.send(|reply| Command::Remove(source, caller, reply)).await.map(Json)
}

async fn import(
    State(shared): State<Shared>,
    Extension(caller): Extension<Caller>,
    body: Body,
) -> Answer<api::Imported> {
    let permit = shared.imports.acquire().await;
    let request: api::ImportRequest =
        parse(&read(body, shared.bounds.import, shared.bounds.read).await?)?;
    drop(permit);
    shared.handle.send_many(|reply| Command::Import(request, caller, reply)).await.map(Json)
}

async fn history(State(shared): State<Shared>) -> Answer<api::ChangeList> {
    shared.handle.send(Command::History).await.map(Json)
}

async fn change(
    State(shared): State<Shared>,
    Path(number): Path<String>,
) -> Answer<api::ChangeShow> {
    let number = number.parse().map_err(|_| {
        ApiError::new(ErrorCode::Invalid, format!("`{number}` is not the number of a change"))
            .remedy("`redirector route history` has the numbers")
    })?;
    shared.handle.send(|reply| Command::Change(number, reply)).await.map(Json)
}

async fn rollback(
    State(shared): State<Shared>,
    Extension(caller): Extension<Caller>,
    body: Body,
) -> Answer<api::RolledBack> {
    let body = read(body, shared.bounds.body, shared.bounds.read).await?;
    let request: api::RollbackRequest =
        if body.is_empty() { api::RollbackRequest::default() } else { parse(&body)? };
    shared.handle.send_many(|reply| Command::Rollback(request, caller, reply)).await.map(Json)
}

async fn export(State(shared): State<Shared>) -> Answer<api::Export> {
    shared.handle.send(Command::Export).await.map(Json)
}

/// Lines of JSON. A slow reader loses some, and receives their number; it delays no other reader.
async fn events(
    State(shared): State<Shared>,
    query: Result<Query<api::EventQuery>, QueryRejection>,
) -> Result<Response, ApiError> {
    let Query(query) = query.map_err(|error| {
        ApiError::new(
            ErrorCode::BadRequest,
            format!("the query is not valid: {}", error.body_text()),
        )
        .remedy("the parameters are follow, route, result, failed and limit")
    })?;
    let permit = if query.follow {
        let full = || {
            ApiError::new(
                ErrorCode::TooMany,
                format!("{MAX_READERS} readers follow events already"),
            )
            .remedy("end one of them")
        };
        Some(Arc::clone(&shared.readers).try_acquire_owned().map_err(|_| full())?)
    } else {
        None
    };
    let subscription = shared.handle.send(|reply| Command::Events(query, reply)).await?;
    let lines = Body::from_stream(subscription.lines(shared.shutdown, permit));
    Ok(([(header::CONTENT_TYPE, "application/x-ndjson")], lines).into_response())
}

async fn reload(
    State(shared): State<Shared>,
    Extension(caller): Extension<Caller>,
) -> Answer<api::Reloaded> {
    shared.handle.send_many(|reply| Command::Reload(caller, reply)).await.map(Json)
}

/// Gives the listening sockets to a successor, on the upgraded connection.
async fn hand_over_sockets(
    State(shared): State<Shared>,
    Extension(caller): Extension<Caller>,
    mut request: Request,
) -> Result<Response, ApiError> {
    if caller.uid != 0 && caller.uid != rustix::process::geteuid().as_raw() {
        let message = format!("{caller} is not the agent's own user");
        return Err(ApiError::new(ErrorCode::Forbidden, message).remedy("run this as root"));
    }
    if request.headers().get(header::UPGRADE).is_none_or(|name| name != hand_over::PROTOCOL) {
        let message = format!("this path needs `upgrade: {}`", hand_over::PROTOCOL);
        return Err(ApiError::new(ErrorCode::BadRequest, message));
    }
    let registered = shared.hand_over.register(caller)?;
    let upgrade = hyper::upgrade::on(&mut request);
    tokio::spawn(async move {
        let stream = upgrade.await.map_err(std::io::Error::other).and_then(hand_over::into_stream);
        let served = match stream {
            Ok(stream) => registered.serve(stream).await,
            Err(error) => Err(error),
        };
        if let Err(error) = served {
            tracing::debug!(%caller, %error, "an agent does not wait to take over any more");
        }
    });
    let headers = [(header::CONNECTION, "upgrade"), (header::UPGRADE, hand_over::PROTOCOL)];
    Ok((StatusCode::SWITCHING_PROTOCOLS, headers).into_response())
}

/// The reply to a caller without permission, for every path.
pub(super) fn forbidden() -> Router {
    Router::new().fallback(async |Extension(caller): Extension<Caller>| {
        ApiError::new(ErrorCode::Forbidden, format!("{caller} has no permission to use this agent"))
            .remedy("run this as root, or as a member of the socket's group")
    })
}

/// The reply while as many requests wait as may, for every path.
pub(super) fn too_many() -> Router {
    Router::new().fallback(async || {
        ApiError::new(ErrorCode::TooMany, "the agent serves too many requests already")
            .remedy("repeat this later")
    })
}

async fn no_such_path(uri: axum::http::Uri) -> ApiError {
    ApiError::new(ErrorCode::NotFound, format!("there is no {} in this API", uri.path())).remedy(
        "version 1 has /v1/status, /v1/progress, /v1/routes, /v1/routes/{source}, /v1/import, \
            /v1/export, /v1/history, /v1/history/{number}, /v1/rollback, /v1/events, /v1/reload \
            and /v1/hand-over",
    )
}

async fn no_such_method(method: axum::http::Method, uri: axum::http::Uri) -> ApiError {
    ApiError::new(ErrorCode::MethodNotAllowed, format!("{} does not support {method}", uri.path()))
        .remedy("docs/reference/api.md lists the methods of each path")
}

/// The whole body, within `limit` bytes and `timeout`.
async fn read(body: Body, limit: usize, timeout: Duration) -> Result<Bytes, ApiError> {
    match tokio::time::timeout(timeout, Limited::new(body, limit).collect()).await {
        Ok(Ok(collected)) => Ok(collected.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(ApiError::new(
            ErrorCode::TooLarge,
            format!("the body is larger than {limit} bytes"),
        )
        .remedy("send less, or in several requests")),
        Ok(Err(error)) => {
            Err(ApiError::new(ErrorCode::BadRequest, format!("the body did not arrive: {error}")))
        }
        Err(_) => Err(ApiError::new(
            ErrorCode::Timeout,
            format!("the body did not arrive within {} s", timeout.as_secs_f32()),
        )
        .remedy("send as many bytes as content-length states")),
    }
}

fn parse<T: DeserializeOwned>(body: &[u8]) -> Result<T, ApiError> {
    serde_json::from_slice(body).map_err(|error| {
        let code = if error.is_data() { ErrorCode::Invalid } else { ErrorCode::BadRequest };
        ApiError::new(code, format!("the body is not valid: {error}"))
            .remedy("docs/reference/api.md shows the shapes")
    })
}

fn source_name(text: &str) -> Result<SourceName, ApiError> {
    text.parse().map_err(|error: crate::route::SourceNameError| {
        ApiError::new(ErrorCode::Invalid, error.to_string())
    })
}
