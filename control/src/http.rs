//! What is served where, and what a bad request is told.

use std::convert::Infallible;
use std::ops::RangeInclusive;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};
use hyper::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use hyper::{Method, Request, Response, StatusCode};
use ringmain_kernel_params::{Host, counters};
use ringmain_shards::observe::{TURNS_MS_MAX, TurnSpan};
use serde::Serialize;

use crate::ask::{Asker, FRESH};
use crate::metrics::{self, Surroundings};
use crate::process::Process;
use crate::{api, audit, node, profile, slow, text};

/// Between the two looks of an audit: the second must not be the first, shown again.
const BETWEEN_LOOKS: Duration = FRESH.saturating_add(Duration::from_millis(50));

/// All that answers need.
#[derive(Debug)]
pub(crate) struct App {
    pub(crate) asker: Asker,
    /// When the process started.
    pub(crate) started: SystemTime,
    /// Whether clients of MQTT can connect.
    pub(crate) listening: AtomicBool,
    /// Connections refused, for there were too many.
    pub(crate) refused: AtomicU64,
}

/// Where a request came in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Door {
    /// The unix socket: the operator. Everything is served.
    Socket,
    /// The TCP listener: whoever may scrape. Only what changes nothing and names nobody.
    Metrics,
}

type Answering = Pin<Box<dyn Future<Output = Answer> + Send>>;
type Answer = Result<Reply, Refusal>;

/// A path and its answer.
struct Route {
    path: &'static str,
    /// Whether the TCP listener serves it too.
    public: bool,
    /// Parameters that it takes.
    takes: &'static [&'static str],
    answer: fn(Arc<App>, Query) -> Answering,
}

/// All paths. A new one is one line.
const ROUTES: &[Route] = &[
    route("/live", true, &[], |app, _| Box::pin(live(app))),
    route("/ready", true, &[], |app, _| Box::pin(ready(app))),
    route("/metrics", true, &[], |app, _| Box::pin(scrape(app))),
    route("/v1/node", false, &["buckets"], |app, query| Box::pin(node(app, query))),
    route("/v1/slow", false, &["n"], |app, query| Box::pin(slow(app, query))),
    route("/v1/audit", false, &[], |app, _| Box::pin(audit(app))),
    route("/v1/profile", false, &["seconds", "hz"], |_, query| Box::pin(profile(query))),
    route("/v1/turns", false, &["ms"], |app, query| Box::pin(turns(app, query))),
];

const fn route(
    path: &'static str,
    public: bool,
    takes: &'static [&'static str],
    answer: fn(Arc<App>, Query) -> Answering,
) -> Route {
    Route { path, public, takes, answer }
}

async fn live(_: Arc<App>) -> Answer {
    Ok(Reply::text("live\n".to_owned(), "text/plain; charset=utf-8"))
}

async fn ready(app: Arc<App>) -> Answer {
    let not_ready = |why: &str| Err(Refusal::new(StatusCode::SERVICE_UNAVAILABLE, why));
    if !app.listening.load(Ordering::Relaxed) {
        return not_ready("the broker is starting or shutting down");
    }
    let view = app.asker.view().await?;
    match view.shards.iter().find(|s| s.report.is_none()) {
        Some(silent) => not_ready(&format!("shard {} does not answer", silent.shard.0)),
        None => Ok(Reply::text("ready\n".to_owned(), "text/plain; charset=utf-8")),
    }
}

async fn scrape(app: Arc<App>) -> Answer {
    let view = app.asker.view().await?;
    let started = app.started.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let surroundings = Surroundings {
        process: Process::now(),
        started_unix_s: started.as_millis() as f64 / 1e3,
        kernel: counters::all(&Host::here()),
        refused: app.refused.load(Ordering::Relaxed),
    };
    Ok(Reply::text(metrics::text(&view, &surroundings), text::CONTENT_TYPE))
}

async fn node(app: Arc<App>, query: Query) -> Answer {
    let buckets = query.number("buckets", 0, 0..=1)? == 1;
    let view = app.asker.view().await?;
    Reply::json(&node::node(&view, buckets))
}

async fn slow(app: Arc<App>, query: Query) -> Answer {
    let n = query.number("n", 10, 1..=slow::N_MAX)?;
    Reply::json(&slow::of(&*app.asker.view().await?, n as usize))
}

async fn audit(app: Arc<App>) -> Answer {
    let first = app.asker.view().await?;
    tokio::time::sleep(BETWEEN_LOOKS).await;
    Reply::json(&audit::of(&first, &*app.asker.view().await?))
}

async fn profile(query: Query) -> Answer {
    let seconds = query.number("seconds", 10, 1..=profile::SECONDS_MAX.into())? as u32;
    let hz = query.number("hz", 499, 1..=profile::HZ_MAX.into())? as u32;
    let (reply, answer) = flume::bounded(1);
    // A thread of its own, since it sleeps; nobody waits for it when the broker ends.
    std::thread::Builder::new()
        .name("ringmain-profile".to_owned())
        .spawn(move || drop(reply.send(profile::take(seconds, hz))))
        .map_err(|e| unavailable(&format!("there is no thread to be had: {e}")))?;
    match answer.recv_async().await {
        Ok(Ok(profile)) => Reply::json(&profile),
        Ok(Err(error)) => Err(unavailable(&error.to_string())),
        Err(_) => Err(unavailable("the profile ended without a result")),
    }
}

fn unavailable(error: &str) -> Refusal {
    Refusal::new(StatusCode::SERVICE_UNAVAILABLE, error)
}

async fn turns(app: Arc<App>, query: Query) -> Answer {
    let ms = query.number("ms", 1_000, 1..=TURNS_MS_MAX.into())?;
    let mut spans = app.asker.turns(ms as u32).await?;
    spans.sort_by_key(|span| (span.shard, span.at_ns));
    Ok(Reply::of(Content::Parts(Box::new(turns_json(spans))), JSON))
}

/// What [`api::Turns`] is in JSON, in parts: there may be millions.
fn turns_json(spans: Vec<TurnSpan>) -> impl Iterator<Item = Bytes> + Send {
    const PER_PART: usize = 256;
    let mut spans = spans.into_iter().peekable();
    let mut begun = false;
    let mut ended = false;
    std::iter::from_fn(move || {
        if ended {
            return None;
        }
        let mut part = Vec::new();
        if !begun {
            part.extend_from_slice(b"{\"turns\":[");
            begun = true;
        }
        for span in spans.by_ref().take(PER_PART).collect::<Vec<_>>() {
            if !part.ends_with(b"[") {
                part.push(b',');
            }
            // Numbers and a truth value: there is nothing in them that JSON could not say.
            let _ = serde_json::to_writer(&mut part, &node::turn(&span));
        }
        if spans.peek().is_none() {
            part.extend_from_slice(b"]}");
            ended = true;
        }
        Some(Bytes::from(part))
    })
}

/// Answers a request that came in at `door`.
pub(crate) async fn answer<B>(
    app: Arc<App>,
    door: Door,
    request: &Request<B>,
) -> Response<Content> {
    match find(door, request.method(), request.uri()) {
        Ok((route, query)) => match (route.answer)(app, query).await {
            Ok(reply) => reply.into_response(),
            Err(refusal) => refusal.into_response(),
        },
        Err(refusal) => refusal.into_response(),
    }
}

fn find(door: Door, method: &Method, uri: &hyper::Uri) -> Result<(&'static Route, Query), Refusal> {
    let served = || ROUTES.iter().filter(|route| door == Door::Socket || route.public);
    let Some(route) = served().find(|route| route.path == uri.path()) else {
        let paths: Vec<&str> = served().map(|route| route.path).collect();
        let text = format!("there is no {} here, but {}", shown(uri.path()), paths.join(", "));
        return Err(Refusal::new(StatusCode::NOT_FOUND, &text));
    };
    if ![Method::GET, Method::HEAD].contains(method) {
        let text = format!("{} answers GET alone, not {}", route.path, shown(method.as_str()));
        return Err(Refusal::new(StatusCode::METHOD_NOT_ALLOWED, &text));
    }
    let query = Query::parse(uri.query().unwrap_or_default(), route)?;
    Ok((route, query))
}

/// What a client wrote, cut to what a sentence can hold.
fn shown(text: &str) -> String {
    const MAX: usize = 64;
    if text.chars().count() <= MAX {
        return text.to_owned();
    }
    text.chars().take(MAX).chain("…".chars()).collect()
}

/// The parameters of a request, all of them known.
#[derive(Debug, Default)]
pub(crate) struct Query(Vec<(String, String)>);

impl Query {
    fn parse(text: &str, route: &Route) -> Result<Self, Refusal> {
        let mut pairs: Vec<(String, String)> = Vec::new();
        for pair in text.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            if !route.takes.contains(&name) {
                let takes = match route.takes {
                    [] => "nothing".to_owned(),
                    names => names.join(", "),
                };
                let text = format!("{} takes {takes}, not {}", route.path, shown(name));
                return Err(Refusal::bad(&text));
            }
            if pairs.iter().any(|(known, _)| known == name) {
                return Err(Refusal::bad(&format!("{name} is given twice")));
            }
            pairs.push((name.to_owned(), value.to_owned()));
        }
        Ok(Self(pairs))
    }

    /// A number within bounds, or the default.
    ///
    /// # Errors
    /// 400 when it is something else.
    pub(crate) fn number(
        &self,
        name: &str,
        default: u64,
        bounds: RangeInclusive<u64>,
    ) -> Result<u64, Refusal> {
        let Some((_, value)) = self.0.iter().find(|(known, _)| known == name) else {
            return Ok(default);
        };
        let digits = !value.is_empty() && value.chars().all(|c| c.is_ascii_digit());
        match value.parse() {
            Ok(number) if digits && bounds.contains(&number) => Ok(number),
            _ => {
                let (low, high) = (bounds.start(), bounds.end());
                let value = shown(value);
                let text = format!("{name} is a number from {low} to {high}, not \"{value}\"");
                Err(Refusal::bad(&text))
            }
        }
    }
}

/// A request that is not served, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) status: StatusCode,
    pub(crate) error: String,
}

impl Refusal {
    /// With a status of 400 or above and a sentence.
    pub(crate) fn new(status: StatusCode, error: &str) -> Self {
        Self { status, error: error.to_owned() }
    }

    /// The client's fault.
    pub(crate) fn bad(error: &str) -> Self {
        Self::new(StatusCode::BAD_REQUEST, error)
    }

    pub(crate) fn into_response(self) -> Response<Content> {
        let failure = api::Failure { error: self.error };
        let body = serde_json::to_vec(&failure).unwrap_or_default();
        let mut response = Reply::of(Content::Whole(Some(body.into())), JSON).into_response();
        *response.status_mut() = self.status;
        if self.status == StatusCode::METHOD_NOT_ALLOWED {
            response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        }
        response
    }
}

const JSON: &str = "application/json";

/// What a good request gets.
#[derive(Debug)]
pub(crate) struct Reply {
    content: Content,
    kind: &'static str,
}

impl Reply {
    /// JSON.
    ///
    /// # Errors
    /// 500 if it cannot be written as JSON, which would be a mistake of this program.
    pub(crate) fn json(value: &impl Serialize) -> Result<Self, Refusal> {
        match serde_json::to_vec(value) {
            Ok(body) => Ok(Self::of(Content::Whole(Some(body.into())), JSON)),
            Err(e) => Err(Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, &e.to_string())),
        }
    }

    /// Text of this content type.
    pub(crate) fn text(text: String, kind: &'static str) -> Self {
        Self::of(Content::Whole(Some(text.into())), kind)
    }

    fn of(content: Content, kind: &'static str) -> Self {
        Self { content, kind }
    }

    fn into_response(self) -> Response<Content> {
        let mut response = Response::new(self.content);
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(self.kind));
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        response
    }
}

/// The body of an answer.
pub(crate) enum Content {
    /// At once; `None` when it has been taken.
    Whole(Option<Bytes>),
    /// Piece by piece, made when the client has taken what was before.
    Parts(Box<dyn Iterator<Item = Bytes> + Send>),
}

impl std::fmt::Debug for Content {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Content")
    }
}

impl Body for Content {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let next = match &mut *self {
            Self::Whole(bytes) => bytes.take(),
            Self::Parts(parts) => parts.next(),
        };
        Poll::Ready(next.map(|bytes| Ok(Frame::data(bytes))))
    }

    fn is_end_stream(&self) -> bool {
        matches!(self, Self::Whole(None))
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(bytes) => {
                SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64))
            }
            Self::Parts(_) => SizeHint::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use ringmain_shards::engine::ids::ShardId;

    use super::*;

    fn refusal(door: Door, method: &Method, uri: &str) -> (u16, String) {
        let refusal = find(door, method, &uri.parse().expect("a uri")).err().expect("is refused");
        (refusal.status.as_u16(), refusal.error)
    }

    #[test]
    fn what_is_wrong_with_a_request_is_said_in_a_sentence() {
        let get = Method::GET;
        let (status, text) = refusal(Door::Socket, &get, "/v1/nodes");
        assert_eq!(status, 404);
        assert!(text.starts_with("there is no /v1/nodes here, but ") && text.contains("/v1/node,"));
        let said = refusal(Door::Socket, &Method::POST, "/v1/node");
        assert_eq!(said, (405, "/v1/node answers GET alone, not POST".to_owned()));
        let said = refusal(Door::Socket, &get, "/v1/audit?x=1");
        assert_eq!(said, (400, "/v1/audit takes nothing, not x".to_owned()));
        let said = refusal(Door::Socket, &get, "/v1/turns?ms=1&ms=2");
        assert_eq!(said, (400, "ms is given twice".to_owned()));
        let long = "/".repeat(5_000);
        assert!(refusal(Door::Socket, &get, &long).1.len() < 500);
    }

    #[test]
    fn the_tcp_listener_serves_no_path_of_the_operator() {
        for route in ROUTES {
            let served = find(Door::Metrics, &Method::GET, &route.path.parse().expect("a uri"));
            assert_eq!(served.is_ok(), !route.path.starts_with("/v1/"), "{}", route.path);
        }
        let (status, text) = refusal(Door::Metrics, &Method::GET, "/v1/node");
        assert_eq!(status, 404);
        assert_eq!(text, "there is no /v1/node here, but /live, /ready, /metrics");
    }

    #[test]
    fn numbers_are_checked_against_their_bounds() {
        let query = |value: &str| Query(vec![("ms".to_owned(), value.to_owned())]);
        assert_eq!(query("7").number("ms", 1, 1..=9), Ok(7));
        assert_eq!(Query::default().number("ms", 3, 1..=9), Ok(3));
        for bad in ["", "0", "10", "-1", "+5", "5.0", "five", "99999999999999999999999"] {
            let error = query(bad).number("ms", 1, 1..=9).expect_err(bad).error;
            assert_eq!(error, format!("ms is a number from 1 to 9, not \"{bad}\""));
        }
    }

    #[test]
    fn turns_in_parts_are_the_json_of_the_whole() {
        for count in [0, 1, 255, 256, 257, 1000] {
            let span = |n: u16| TurnSpan { shard: ShardId(n), at_ns: 5, ..TurnSpan::default() };
            let spans: Vec<TurnSpan> = (0..count).map(span).collect();
            let whole = api::Turns { turns: spans.iter().map(node::turn).collect() };
            let parts: Vec<u8> = turns_json(spans).flat_map(|part| part.to_vec()).collect();
            assert_eq!(parts, serde_json::to_vec(&whole).expect("JSON"), "{count}");
        }
    }
}
