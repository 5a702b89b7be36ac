//! The addresses and what each answers.

use std::net::IpAddr;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{Path, RawQuery, Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use bytes::Bytes;
use serde_json::{Value, json};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::spawn_blocking;
use tracing::error;

use super::{Backend, page, query};
use crate::metrics::Metrics;

/// Incidents one answer holds.
const INCIDENTS_MAX: usize = 500;
/// Bytes of logins one answer holds: more than its usual ones take.
const LOGINS_BYTES: usize = 32 * 1024 * 1024;
/// Incidents the console page holds.
const PAGE_INCIDENTS: usize = 20;
/// Longer than any id we make.
const ID_MAX: usize = 128;
const PROMETHEUS_TEXT: &str = "text/plain; version=0.0.4; charset=utf-8";

#[derive(Clone)]
struct Shared {
    backend: Arc<dyn Backend>,
    metrics: Metrics,
    local_only: bool,
    /// One answer with logins at a time: such a one takes megabytes until its client has read it.
    logins: Arc<Semaphore>,
}

/// Bytes of an answer, which hold its turn until they are sent or dropped.
struct Held {
    bytes: Vec<u8>,
    _turn: OwnedSemaphorePermit,
}

pub(super) fn router(backend: Arc<dyn Backend>, metrics: Metrics, local_only: bool) -> Router {
    let shared = Shared { backend, metrics, local_only, logins: Arc::new(Semaphore::new(1)) };
    Router::new()
        .route("/", get(console))
        .route("/metrics", get(metrics_page))
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .route("/api/v1/probes", get(probes))
        .route("/api/v1/incidents", get(incidents))
        .route("/api/v1/incidents/{id}", get(incident))
        .route("/api/v1/suppressions", get(suppressions))
        .route("/api/v1/logins", get(logins))
        .fallback(|| async { failure(StatusCode::NOT_FOUND, "no such page") })
        .layer(middleware::from_fn_with_state(shared.clone(), guard))
        .with_state(shared)
}

/// Refuses foreign names, closes after one answer, forbids pages to load anything, and counts.
async fn guard(State(shared): State<Shared>, request: Request, next: Next) -> Response {
    let mut response = if shared.local_only && !is_own_name(request.headers()) {
        failure(StatusCode::MISDIRECTED_REQUEST, "ask for localhost or an address")
    } else {
        next.run(request).await
    };
    let headers = response.headers_mut();
    for (name, value) in [
        (header::CONNECTION, "close"),
        (header::CACHE_CONTROL, "no-store"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::CONTENT_SECURITY_POLICY, "default-src 'none'; style-src 'unsafe-inline'"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    let code = response.status();
    shared.metrics.http_requests.with_label_values(&[code.as_str()]).inc();
    response
}

/// A page of the web must not reach the API by giving its own name our loopback address.
fn is_own_name(headers: &HeaderMap) -> bool {
    let Some(host) = headers.get(header::HOST) else { return true };
    let Ok(host) = host.to_str() else { return false };
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    };
    let name = name.trim_start_matches('[').trim_end_matches(']');
    name.eq_ignore_ascii_case("localhost") || name.parse::<IpAddr>().is_ok()
}

async fn metrics_page(State(shared): State<Shared>) -> Response {
    let rendered =
        blocking(&shared, |shared| shared.metrics.render().map_err(|error| error.to_string()));
    match rendered.await {
        Ok(page) => ([(header::CONTENT_TYPE, PROMETHEUS_TEXT)], page).into_response(),
        Err(response) => response,
    }
}

async fn healthz(State(shared): State<Shared>) -> Response {
    said(shared.backend.alive())
}

async fn readyz(State(shared): State<Shared>) -> Response {
    said(shared.backend.ready())
}

async fn probes(State(shared): State<Shared>) -> Response {
    let probes = blocking(&shared, |shared| {
        let ready = shared.backend.ready();
        Ok(json!({
            "ready": ready.is_ok(),
            "reason": ready.err(),
            "probes": shared.backend.probes(),
        }))
    });
    answer(probes.await)
}

async fn incidents(State(shared): State<Shared>) -> Response {
    let incidents = blocking(&shared, |shared| {
        Ok(json!({ "incidents": shared.backend.incidents(INCIDENTS_MAX)? }))
    });
    answer(incidents.await)
}

async fn incident(State(shared): State<Shared>, Path(id): Path<String>) -> Response {
    let none = || failure(StatusCode::NOT_FOUND, "no incident has this id");
    if id.len() > ID_MAX {
        return none();
    }
    match blocking(&shared, move |shared| shared.backend.incident(&id)).await {
        Ok(Some(incident)) => answer(Ok(incident)),
        Ok(None) => none(),
        Err(response) => response,
    }
}

async fn suppressions(State(shared): State<Shared>) -> Response {
    let all =
        blocking(&shared, |shared| Ok(json!({ "suppressions": shared.backend.suppressions()? })));
    answer(all.await)
}

async fn logins(State(shared): State<Shared>, RawQuery(raw): RawQuery) -> Response {
    let query = match query::logins(raw.as_deref().unwrap_or_default()) {
        Ok(query) => query,
        Err(reason) => return failure(StatusCode::BAD_REQUEST, &reason),
    };
    // Whoever waits holds nothing; the connection's deadline ends that, too.
    let Ok(turn) = Arc::clone(&shared.logins).acquire_owned().await else {
        return failure(StatusCode::SERVICE_UNAVAILABLE, "the sensor is stopping");
    };
    let written = blocking(&shared, move |shared| {
        let page = shared.backend.logins(&query);
        let bytes = page.json(LOGINS_BYTES).map_err(|error| error.to_string())?;
        Ok(Held { bytes, _turn: turn })
    });
    match written.await {
        Ok(held) => {
            let body = Body::from(Bytes::from_owner(held));
            ([(header::CONTENT_TYPE, "application/json")], body).into_response()
        }
        Err(response) => response,
    }
}

async fn console(State(shared): State<Shared>) -> Response {
    let page = blocking(&shared, |shared| {
        let backend = &shared.backend;
        Ok(page::console(
            backend.ready(),
            &backend.probes(),
            backend.incidents(PAGE_INCIDENTS).as_deref(),
        ))
    });
    match page.await {
        Ok(page) => ([(header::CONTENT_TYPE, "text/html; charset=utf-8")], page).into_response(),
        Err(response) => response,
    }
}

// === impl Held ===

impl AsRef<[u8]> for Held {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

/// Runs what may wait for the disk where that holds up nobody.
async fn blocking<T: Send + 'static>(
    shared: &Shared,
    work: impl FnOnce(&Shared) -> Result<T, String> + Send + 'static,
) -> Result<T, Response> {
    let shared = shared.clone();
    let done = spawn_blocking(move || work(&shared)).await;
    let reason = match done {
        Ok(Ok(value)) => return Ok(value),
        Ok(Err(reason)) => reason,
        Err(error) => error.to_string(),
    };
    error!(reason, "answering an HTTP request failed");
    Err(failure(StatusCode::INTERNAL_SERVER_ERROR, &reason))
}

fn answer(result: Result<Value, Response>) -> Response {
    result.map_or_else(|response| response, |value| axum::Json(value).into_response())
}

fn said(state: Result<(), String>) -> Response {
    match state {
        Ok(()) => "ok\n".into_response(),
        Err(reason) => (StatusCode::SERVICE_UNAVAILABLE, reason + "\n").into_response(),
    }
}

fn failure(code: StatusCode, reason: &str) -> Response {
    (code, axum::Json(json!({ "error": reason }))).into_response()
}
