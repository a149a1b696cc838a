//! The status page: files that are built in, the numbers as JSON, and live events. It is read-only,
//! without a frame, a script or a style of anything else.

use axum::{
    Extension, Router,
    body::Body,
    extract::State,
    http::{HeaderName, StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};

use super::{
    event_streams::EventStreams, health::Health, metrics::Metrics, page_status::PageStatus,
    shared_page::SharedPage, viewer::Viewer,
};
use crate::http::Lifetime;

const HTML: (&str, &str) = ("text/html; charset=utf-8", include_str!("page/page.html"));
const STYLE: (&str, &str) = ("text/css; charset=utf-8", include_str!("page/page.css"));
const SCRIPT: (&str, &str) = ("text/javascript; charset=utf-8", include_str!("page/page.js"));
const ICON: (&str, &str) = ("image/svg+xml", include_str!("page/icon.svg"));

/// What a browser may do with every answer. No header allows another origin to read one.
const HEADERS: [(HeaderName, &str); 6] = [
    (
        header::CONTENT_SECURITY_POLICY,
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; \
            connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; \
            require-trusted-types-for 'script'; trusted-types 'none'",
    ),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::REFERRER_POLICY, "no-referrer"),
    (header::CACHE_CONTROL, "no-store"),
    (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
    (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
];

pub(super) fn router(health: Health, metrics: Metrics, streams: EventStreams) -> Router {
    let numbers = SharedPage::new(move || {
        let (health, metrics) = (health.clone(), metrics.clone());
        async move {
            let status = PageStatus::new(metrics.snapshot().await, health.not_ready());
            serde_json::to_string(&status).expect("a status is JSON")
        }
    });
    Router::new()
        .route("/", get(async |_: Viewer| file(HTML)))
        .route("/page.css", get(async |_: Viewer| file(STYLE)))
        .route("/page.js", get(async |_: Viewer| file(SCRIPT)))
        .route("/icon.svg", get(async |_: Viewer| file(ICON)))
        .route("/status.json", get(status).with_state(numbers))
        .route("/events", get(events).with_state(streams))
}

fn file((content_type, text): (&'static str, &'static str)) -> Response {
    answer(content_type, text)
}

fn answer(content_type: &'static str, body: impl Into<Body>) -> Response {
    (HEADERS, [(header::CONTENT_TYPE, content_type)], body.into()).into_response()
}

async fn status(_: Viewer, State(numbers): State<SharedPage>) -> Response {
    answer("application/json", numbers.text().await)
}

async fn events(
    Viewer(peer): Viewer,
    State(streams): State<EventStreams>,
    Extension(lifetime): Extension<Lifetime>,
) -> Response {
    match streams.open(peer, lifetime) {
        Some(stream) => answer("text/event-stream", Body::from_stream(stream)),
        None => {
            let text = "too many pages follow events already: close one\n";
            (StatusCode::SERVICE_UNAVAILABLE, HEADERS, text).into_response()
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{net::SocketAddr, time::Duration};

    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpStream,
        sync::{mpsc, oneshot},
        time::timeout,
    };
    use tokio_util::sync::CancellationToken;

    use crate::{
        control::{
            EventHub,
            api::{Event, EventLine},
        },
        observe::{Admin, Health, Metrics, Snapshot},
    };

    const LIMIT: Duration = Duration::from_secs(60);

    /// A listener whose agent has no routes.
    async fn listen(hub: &EventHub) -> SocketAddr {
        let admin = Admin::bind("127.0.0.1:0".parse().expect("an address")).await.expect("bound");
        let address = admin.local_addr().expect("an address");
        let (requests, mut received) = mpsc::channel::<oneshot::Sender<Snapshot>>(1);
        tokio::spawn(async move {
            while let Some(reply) = received.recv().await {
                let _ = reply.send(Snapshot::default());
            }
        });
        let health = Health::default();
        health.set_not_ready(vec![]);
        let sources = (Metrics::new(requests), hub.clone());
        tokio::spawn(admin.serve(health, sources, CancellationToken::new()));
        address
    }

    /// Sends a request, and reads the first line of the answer.
    async fn ask(address: SocketAddr, path: &str) -> (String, TcpStream) {
        let mut stream = TcpStream::connect(address).await.expect("connected");
        let request = format!("GET {path} HTTP/1.1\r\nhost: localhost\r\n\r\n");
        stream.write_all(request.as_bytes()).await.expect("written");
        let mut line = Vec::new();
        while !line.ends_with(b"\n") {
            let read = timeout(LIMIT, stream.read_u8()).await.expect("in time");
            line.push(read.expect("an answer"));
        }
        (String::from_utf8_lossy(&line).trim().to_owned(), stream)
    }

    #[tokio::test]
    async fn streams_are_bounded_and_keep_nobody_out() {
        let hub = EventHub::default();
        let address = listen(&hub).await;
        let mut open = Vec::new();
        for _ in 0..100 {
            let (line, stream) = ask(address, "/events").await;
            match line.as_str() {
                "HTTP/1.1 200 OK" => open.push(stream),
                line => assert_eq!(line, "HTTP/1.1 503 Service Unavailable"),
            }
        }
        // Half of a sixteenth of the connections, which are fewer with few descriptors.
        assert!((1..=8).contains(&open.len()), "{} are open", open.len());
        assert_eq!(hub.readers(), open.len());
        for path in ["/healthz", "/readyz", "/metrics", "/status.json", "/"] {
            assert_eq!(ask(address, path).await.0, "HTTP/1.1 200 OK", "{path}");
        }
        // A page that is closed makes room: the next event, or comment, finds its client gone.
        open.clear();
        let reopened = async {
            while ask(address, "/events").await.0 != "HTTP/1.1 200 OK" {
                hub.publish([EventLine::Event(Box::new(Event::sample()))]);
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        timeout(LIMIT, reopened).await.expect("room again");
    }

    #[tokio::test]
    async fn an_event_is_one_message_whatever_is_in_it() {
        let hub = EventHub::default();
        let address = listen(&hub).await;
        let (_, mut stream) = ask(address, "/events").await;
        let command = Some("x\n\ndata: forged\r\n".to_owned());
        hub.publish([EventLine::Event(Box::new(Event { command, ..Event::sample() }))]);
        let mut text = String::new();
        let arrived = async {
            while !text.contains("\"version\"") || !text.ends_with("\n\n\r\n") {
                let mut bytes = [0; 4096];
                let read = stream.read(&mut bytes).await.expect("readable");
                assert!(read > 0, "ended: {text}");
                text.push_str(&String::from_utf8_lossy(&bytes[..read]));
            }
        };
        timeout(LIMIT, arrived).await.expect("the event");
        let messages: Vec<_> = text.lines().filter(|line| line.starts_with("data: ")).collect();
        assert_eq!(messages.len(), 1, "{text}");
        let json: serde_json::Value =
            serde_json::from_str(messages[0].strip_prefix("data: ").expect("data")).expect("JSON");
        assert_eq!(json["command"], "x\n\ndata: forged\r\n");
    }
}
