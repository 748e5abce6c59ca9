//! A page that shows both topics, what is missing, and the last runs. It reads them from the store that `sink` writes.
//!
//! The page promises:
//! - It only reads. No request changes a record or a run. The only thing that it creates are missing tables or indices
//!   of its store, as every command that opens a store does.
//! - It has no users, and shows no secrets. It shows the store's URL without password and parameters. It shows everything
//!   in the store to everybody who can reach its address. By default, that is only this machine; see `--listen`.
//! - It answers to `localhost`, to addresses, and to the names of `--allowed-host`: see [`host`].
//! - It is part of the binary. The content of records reaches the page only as JSON, and the page inserts it as text. A
//!   content security policy forbids every script and style except the page's own files.
//! - It has four threads, however many clients ask: one serves, one asks the store for the page, one asks the store for
//!   `/healthz`, and one waits for signals. At most 512 connections are open and 32 questions wait. A further question gets
//!   503 with `Retry-After` at once; a question that has waited for a minute gets the same. No handler reads a body.
//! - `/healthz` asks the store something cheap, on its own connection. It answers even if a question of the page is slow.
//!   It says 503 if the store has not answered within five seconds.
//! - If the store was gone, the next question asks it again on a new connection. Nobody has to restart the page.

mod asker;
mod board;
mod charts;
pub(crate) mod host;
mod names;
mod pair;

use std::net::SocketAddr;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use axum::error_handling::HandleErrorLayer;
use axum::extract::{Query, Request, State};
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{BoxError, Json, Router};
use serde::Serialize;
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tower::ServiceBuilder;
use tower::limit::GlobalConcurrencyLimitLayer;
use tower::timeout::error::Elapsed;

use self::asker::Asker;
use self::board::{Board, Look};
use crate::base::error::{Error, Result};
use crate::base::interrupt::Interrupt;
use crate::base::serve;
use crate::sink::store::{Compared, TopicSummary};

/// How many questions for the page can be in progress or waiting.
const QUESTIONS: usize = 32;
/// How long a question for the page may wait for its answer.
const ANSWER: Duration = Duration::from_secs(60);
const HEALTH: Duration = Duration::from_secs(5);
/// How long the page waits for a slow answer of the store when it ends.
const END: Duration = Duration::from_millis(500);

const FILES: [(&str, &str, &str); 9] = [
    ("/", "text/html; charset=utf-8", include_str!("assets/index.html")),
    ("/app.js", "text/javascript; charset=utf-8", include_str!("assets/app.js")),
    ("/words.js", "text/javascript; charset=utf-8", include_str!("assets/words.js")),
    ("/charts.js", "text/javascript; charset=utf-8", include_str!("assets/charts.js")),
    ("/tables.js", "text/javascript; charset=utf-8", include_str!("assets/tables.js")),
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

/// A page with an open port. [`Dashboard::serve`] serves it.
pub struct Dashboard {
    runtime: Runtime,
    listener: TcpListener,
    address: SocketAddr,
    shared: Shared,
    threads: [JoinHandle<()>; 2],
}

#[derive(Clone)]
struct Shared {
    page: Asker,
    health: Asker,
    allowed: Arc<[String]>,
}

impl Dashboard {
    /// Opens the store that `url` names, and listens. The page answers requests for the names in `allowed`, for
    /// `localhost` and for addresses.
    ///
    /// # Errors
    /// As [`crate::sink::store::open`]; [`Error::Failed`] if the address is taken or does not belong to this machine.
    pub fn open(url: &str, listen: SocketAddr, allowed: &[String]) -> Result<Dashboard> {
        let ((page, of_page), (health, of_health)) = (Asker::start(url)?, Asker::start(url)?);
        let at = |e| Error::io(format!("the address {listen} (see --listen)"), e);
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = runtime.enable_all().build().map_err(|e| Error::io("the page's threads", e))?;
        let listener = runtime.block_on(async { serve::listen(listen) }).map_err(at)?;
        let address = listener.local_addr().map_err(at)?;
        let shared = Shared { page, health, allowed: allowed.into() };
        Ok(Dashboard { runtime, listener, address, shared, threads: [of_page, of_health] })
    }

    /// The page's address.
    pub fn url(&self) -> String {
        format!("http://{}/", self.address)
    }

    /// Serves until it is interrupted.
    ///
    /// # Errors
    /// [`Error::Failed`] if a thread that asks the store ended by a fault.
    pub fn serve(self, interrupt: &Interrupt) -> Result<()> {
        let Dashboard { runtime, listener, shared, threads, .. } = self;
        let done = runtime.block_on(async {
            let fault = || Err(Error::failed("a thread that asks the store ended by a fault"));
            let (page, health) = (shared.page.clone(), shared.health.clone());
            tokio::select! {
                () = serve::serve(listener, router(shared)) => Ok(()),
                () = page.ended() => fault(),
                () = health.ended() => fault(),
                () = until(interrupt) => Ok(()),
            }
        });
        // This drops the askers. Their threads end as soon as the store has answered.
        runtime.shutdown_timeout(END);
        let begun = Instant::now();
        while begun.elapsed() < END && !threads.iter().all(JoinHandle::is_finished) {
            std::thread::sleep(Duration::from_millis(5));
        }
        done
    }
}

async fn until(interrupt: &Interrupt) {
    while !interrupt.is_set() {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

fn router(shared: Shared) -> Router {
    let bounds = ServiceBuilder::new()
        .layer(HandleErrorLayer::new(too_much))
        .load_shed()
        .layer(GlobalConcurrencyLimitLayer::new(QUESTIONS))
        .timeout(ANSWER);
    let mut router = Router::new()
        .route("/api/overview", get(overview))
        .route("/api/breakdown", get(breakdown))
        .route("/metrics", get(metrics))
        .layer(bounds)
        .route("/healthz", get(health));
    for (path, kind, text) in FILES {
        router = router.route(path, get(async move || ([(header::CONTENT_TYPE, kind)], text)));
    }
    router.layer(from_fn_with_state(shared.clone(), guard)).with_state(shared)
}

/// Answers a question that was turned away or took too long. The connection ends, so that another client finds a place.
async fn too_much(err: BoxError) -> Response {
    let why = if err.is::<Elapsed>() {
        format!("the store has not answered for {} s, and is still working on it", ANSWER.as_secs())
    } else {
        format!("more than {QUESTIONS} questions at once")
    };
    let headers = [(header::RETRY_AFTER, "1"), (header::CONNECTION, "close")];
    (StatusCode::SERVICE_UNAVAILABLE, headers, Json(serde_json::json!({ "error": why }))).into_response()
}

/// Sets the headers, and turns away a request for another host name.
async fn guard(State(shared): State<Shared>, request: Request, next: Next) -> Response {
    let host = request.headers().get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    let mut response = if host::is_allowed(host, &shared.allowed) {
        next.run(request).await
    } else {
        let why = "this page does not answer to that host name; see --allowed-host\n";
        (StatusCode::MISDIRECTED_REQUEST, why).into_response()
    };
    for (name, value) in HEADERS {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    response
}

async fn overview(State(shared): State<Shared>, Query(look): Query<Look>) -> Response {
    json(&shared.page, move |board| board.overview(&look)).await
}

async fn breakdown(State(shared): State<Shared>, Query(look): Query<Look>) -> Response {
    json(&shared.page, move |board| board.breakdowns(&look)).await
}

async fn health(State(shared): State<Shared>) -> Response {
    let late = || Error::failed(format!("the store has not answered for {} s", HEALTH.as_secs()));
    let answer = tokio::time::timeout(HEALTH, shared.health.ask(Board::ping)).await;
    match answer.unwrap_or_else(|_| Err(late())) {
        Ok(()) => "ok\n".into_response(),
        Err(err) => unavailable(format!("{err}\n")),
    }
}

fn unavailable(why: impl IntoResponse) -> Response {
    (StatusCode::SERVICE_UNAVAILABLE, [(header::RETRY_AFTER, "1")], why).into_response()
}

/// The metrics, in Prometheus' text format.
async fn metrics(State(shared): State<Shared>, Query(mut look): Query<Look>) -> Response {
    // A series must stay of one pair, so nothing is chosen for the reader.
    for (name, default) in [&mut look.source, &mut look.target].into_iter().zip(pair::DEFAULT) {
        if name.is_empty() {
            *name = default.to_owned();
        }
    }
    let asked = look.clone();
    let found = match shared.page.ask(move |board| board.overview(&asked)).await {
        Ok(found) => found,
        Err(err) => return unavailable(format!("{err}\n")),
    };
    let escaped = |text: &str| text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
    // Unknown values are left out. A gauge of 0 would say that all is well.
    // The labels are the names that the reader asked for: they stay the same if the store gets a topic of the same name.
    let mut topics = vec![(&look.source, found.source.as_ref())];
    if look.target != look.source {
        topics.push((&look.target, found.target.as_ref()));
    }
    let of_topics = |value: fn(&TopicSummary) -> Option<String>| -> Vec<(String, String)> {
        let labels = |topic: &str| format!("topic=\"{}\"", escaped(topic));
        topics.iter().filter_map(|(name, topic)| Some((labels(name), value((*topic)?)?))).collect()
    };
    let pair = format!("source=\"{}\",target=\"{}\"", escaped(&look.source), escaped(&look.target));
    let missing = match found.charts.compared {
        Some(Compared::Counts) => {
            "How many fewer records the target has than the source, summed over buckets of time, as the store holds them."
        }
        _ => "Records of the source without a copy in the target, as the store holds them.",
    };
    let gauges = [
        ("records", "Records of a topic in the store.", of_topics(|topic| Some(topic.records.to_string()))),
        (
            "behind_offsets",
            "Offsets of a topic that the store had not reached when the topic was last asked for its ends.",
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
    asker: &Asker,
    question: impl Fn(&mut Board) -> Result<T> + Send + 'static,
) -> Response {
    match asker.ask(question).await {
        Ok(found) => Json(found).into_response(),
        Err(err) => unavailable(Json(serde_json::json!({ "error": err.to_string() }))),
    }
}
