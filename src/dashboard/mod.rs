//! One page that shows both topics, what is missing, and the last runs, from what `sink` has put into a store.
//!
//! All of it is in the binary. What a record holds reaches the page as JSON only, and the page puts it in as
//! text; a content security policy forbids every script and style that is not one of the page's own files.

mod board;

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::extract::{Query, Request, State};
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use serde::Serialize;
use tokio::net::TcpListener;
use tokio::runtime::Runtime;

use self::board::{Board, Look};
use crate::error::{Error, Result};
use crate::interrupt::Interrupt;
use crate::store::{self, Compared, TopicSummary};

const FILES: [(&str, &str, &str); 6] = [
    ("/", "text/html; charset=utf-8", include_str!("assets/index.html")),
    ("/app.js", "text/javascript; charset=utf-8", include_str!("assets/app.js")),
    ("/style.css", "text/css; charset=utf-8", include_str!("assets/style.css")),
    ("/uplot.js", "text/javascript; charset=utf-8", include_str!("assets/uplot.js")),
    ("/uplot.css", "text/css; charset=utf-8", include_str!("assets/uplot.css")),
    ("/icon.svg", "image/svg+xml", include_str!("assets/icon.svg")),
];

const HEADERS: [(HeaderName, &str); 4] = [
    (
        header::CONTENT_SECURITY_POLICY,
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
         base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    ),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::REFERRER_POLICY, "no-referrer"),
    (header::CACHE_CONTROL, "no-store"),
];

/// A page that is reachable, and served while it runs.
pub struct Dashboard {
    runtime: Runtime,
    listener: TcpListener,
    address: SocketAddr,
    shared: Shared,
}

#[derive(Clone)]
struct Shared {
    board: Arc<Mutex<Board>>,
    is_local: bool,
}

impl Dashboard {
    /// Opens the store that `url` names, and listens.
    ///
    /// # Errors
    /// As [`store::open`]; [`Error::Failed`] where the address is taken or not this machine's.
    pub fn open(url: &str, listen: SocketAddr) -> Result<Dashboard> {
        let board = Arc::new(Mutex::new(Board::new(store::open(url)?, store::shown(url))));
        let at = |e| Error::io(format!("the address {listen} (see --listen)"), e);
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = runtime.enable_all().build().map_err(|e| Error::io("the page's threads", e))?;
        let listener = runtime.block_on(TcpListener::bind(listen)).map_err(at)?;
        let address = listener.local_addr().map_err(at)?;
        let is_local = address.ip().is_loopback();
        Ok(Dashboard { runtime, listener, address, shared: Shared { board, is_local } })
    }

    /// Where the page is.
    pub fn url(&self) -> String {
        format!("http://{}/", self.address)
    }

    /// Serves until the interrupt.
    ///
    /// # Errors
    /// [`Error::Failed`] where the listener breaks.
    pub fn serve(self, interrupt: &Interrupt) -> Result<()> {
        let Dashboard { runtime, listener, shared, .. } = self;
        // To the end: PostgreSQL's client has a runtime of its own, and panics where it is dropped within another.
        let _board = shared.board.clone();
        let done = runtime.block_on(async {
            tokio::select! {
                result = axum::serve(listener, router(shared)) => {
                    result.map_err(|e| Error::io("the page", e))
                }
                () = until(interrupt) => Ok(()),
            }
        });
        // A question that the store is slow to answer is not waited for.
        runtime.shutdown_timeout(Duration::from_millis(500));
        done
    }
}

async fn until(interrupt: &Interrupt) {
    while !interrupt.is_set() {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

fn router(shared: Shared) -> Router {
    let mut router = Router::new()
        .route("/api/overview", get(overview))
        .route("/api/breakdown", get(breakdown))
        .route("/metrics", get(metrics))
        .route("/healthz", get(health));
    for (path, kind, text) in FILES {
        router = router.route(path, get(async move || ([(header::CONTENT_TYPE, kind)], text)));
    }
    router.layer(from_fn_with_state(shared.clone(), guard)).with_state(shared)
}

/// Sets the headers, and turns away who comes by another name: a site that has its own name resolve to this
/// machine could read the page otherwise (DNS rebinding).
async fn guard(State(shared): State<Shared>, request: Request, next: Next) -> Response {
    let host = request.headers().get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    let mut response = if shared.is_local && !is_local(host) {
        (StatusCode::MISDIRECTED_REQUEST, "this page is served to localhost only; see --listen\n")
            .into_response()
    } else {
        next.run(request).await
    };
    for (name, value) in HEADERS {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    response
}

fn is_local(host: &str) -> bool {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|b| b.is_ascii_digit()) => name,
        _ => host,
    };
    name.eq_ignore_ascii_case("localhost")
        || name.trim_matches(['[', ']']).parse().is_ok_and(|ip: std::net::IpAddr| ip.is_loopback())
}

async fn overview(State(shared): State<Shared>, Query(look): Query<Look>) -> Response {
    json(shared, move |board| board.overview(&look)).await
}

async fn breakdown(State(shared): State<Shared>, Query(look): Query<Look>) -> Response {
    json(shared, move |board| board.breakdowns(&look)).await
}

async fn health(State(shared): State<Shared>) -> Response {
    match ask(shared, |board| board.overview(&Look::default())).await {
        Ok(_) => "ok\n".into_response(),
        Err(err) => (StatusCode::SERVICE_UNAVAILABLE, format!("{err}\n")).into_response(),
    }
}

/// In Prometheus' text format.
async fn metrics(State(shared): State<Shared>, Query(look): Query<Look>) -> Response {
    let asked = look.clone();
    let found = match ask(shared, move |board| board.overview(&asked)).await {
        Ok(found) => found,
        Err(err) => return (StatusCode::SERVICE_UNAVAILABLE, format!("{err}\n")).into_response(),
    };
    let escaped = |text: &str| text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
    // What is not known is left out: a gauge of 0 would say that all is well.
    let topics = [found.source.as_ref(), found.target.as_ref()].into_iter().flatten();
    let of_topics = |value: fn(&TopicSummary) -> Option<String>| -> Vec<(String, String)> {
        let labels = |topic: &str| format!("topic=\"{}\"", escaped(topic));
        topics.clone().filter_map(|topic| Some((labels(&topic.topic), value(topic)?))).collect()
    };
    let pair = format!("source=\"{}\",target=\"{}\"", escaped(&look.source), escaped(&look.target));
    let missing = match found.charts.compared {
        Some(Compared::Counts) => {
            "Records that the target has fewer than the source, summed over parts of time, as the store holds them."
        }
        _ => "Records of the source of which the target has no copy, as the store holds them.",
    };
    let gauges = [
        ("records", "Records of a topic in the store.", of_topics(|topic| Some(topic.records.to_string()))),
        (
            "behind_offsets",
            "Offsets of a topic that the store had not got to when the topic was last asked for its ends.",
            of_topics(|topic| Some(topic.ends?.behind_offsets.to_string())),
        ),
        (
            "as_of_timestamp_seconds",
            "When a topic was last asked for its ends.",
            of_topics(|topic| {
                let as_of_ms = topic.ends?.as_of_ms;
                Some(format!("{}.{:03}", as_of_ms.div_euclid(1000), as_of_ms.rem_euclid(1000)))
            }),
        ),
        (
            "missing_records",
            missing,
            found.charts.missing.map(|n| (pair, n.to_string())).into_iter().collect(),
        ),
    ];
    let mut text = String::new();
    for (name, help, values) in gauges {
        let name = format!("replicator_store_{name}");
        text += &format!("# HELP {name} {help}\n# TYPE {name} gauge\n");
        text.extend(values.into_iter().map(|(labels, value)| format!("{name}{{{labels}}} {value}\n")));
    }
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], text).into_response()
}

async fn json<T: Serialize + Send + 'static>(
    shared: Shared,
    question: impl FnOnce(&mut Board) -> Result<T> + Send + 'static,
) -> Response {
    match ask(shared, question).await {
        Ok(found) => Json(found).into_response(),
        Err(err) => {
            let why = serde_json::json!({ "error": err.to_string() });
            (StatusCode::SERVICE_UNAVAILABLE, Json(why)).into_response()
        }
    }
}

/// Asks the store on a thread of its own, one question at a time.
async fn ask<T: Send + 'static>(
    shared: Shared,
    question: impl FnOnce(&mut Board) -> Result<T> + Send + 'static,
) -> Result<T> {
    let asked = move || question(&mut shared.board.lock().unwrap_or_else(PoisonError::into_inner));
    let answer = tokio::task::spawn_blocking(asked).await;
    answer.unwrap_or_else(|e| Err(Error::failed(format!("the store was not asked: {e}"))))
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("localhost:8080", true)]
    #[case("LOCALHOST", true)]
    #[case("127.0.0.1:8080", true)]
    #[case("[::1]:8080", true)]
    #[case("localhost.example.com:8080", false)]
    #[case("127.0.0.1.example.com", false)]
    #[case("", false)]
    fn names_of_this_machine(#[case] host: &str, #[case] wanted: bool) {
        assert_eq!(is_local(host), wanted);
    }
}
