//! Connections, whom the server answers, the time limit of every request, and an orderly end.

use std::net::{IpAddr, SocketAddr};
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes, HttpBody};
use axum::extract::{Request, State};
use axum::http::uri::Authority;
use axum::http::{Method, StatusCode, Uri, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::serve::Listener;
use http_body_util::BodyExt;
use hyper::body::Frame;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};

use crate::{Demo, Limits, Problem, api, page};

/// How long requests may still take after a signal to stop.
const GRACE: Duration = Duration::from_secs(5);

/// Bytes of a connection's buffers, which a header has to fit.
const BUFFER: usize = 64 << 10;

/// The page and the API.
pub fn router(demo: Arc<Demo>) -> Router {
    let mut router = Router::new();
    for (path, method) in page::routes().chain(api::routes(&demo)) {
        router = router.route(path, method);
    }
    router
        .fallback(|uri: Uri| async move {
            Problem::new(StatusCode::NOT_FOUND, format!("there is nothing at {}", uri.path()))
        })
        .method_not_allowed_fallback(|method: Method, uri: Uri| async move {
            let detail = format!("{} does not answer to {method}", uri.path());
            Problem::new(StatusCode::METHOD_NOT_ALLOWED, detail)
        })
        .layer(middleware::from_fn_with_state(Arc::clone(&demo), in_time))
        .layer(middleware::from_fn(from_no_other_site))
        .layer(middleware::map_response(page::secure))
        .with_state(demo)
}

/// Answers for requests that take too long: for uploads, the client is the likely cause.
async fn in_time(State(demo): State<Arc<Demo>>, request: Request, next: Next) -> Response {
    let status = if request.uri().path() == "/api/v1/encode" {
        StatusCode::REQUEST_TIMEOUT
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    let answer = tokio::time::timeout(demo.limits.request, next.run(request)).await;
    answer.unwrap_or_else(|_| Problem::late(status).into_response())
}

/// The computer that a request is sent to, as it says itself.
fn named(request: &Request) -> Option<Authority> {
    let header = request.headers().get(header::HOST).and_then(|host| host.to_str().ok());
    request.uri().authority().cloned().or_else(|| header?.parse().ok())
}

/// Answers only requests that name this computer. A site that has its own name point here (DNS rebinding) would otherwise get
/// its visitors' browsers to hand it what is served to them alone.
async fn to_this_computer(request: Request, next: Next) -> Response {
    let named = named(&request);
    let host = named.as_ref().map_or("", Authority::host);
    let address = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    if host.eq_ignore_ascii_case("localhost") || address.is_ok_and(|address| address.is_loopback()) {
        return next.run(request).await;
    }
    let detail = format!("{host:?} is not this computer; ask for localhost or 127.0.0.1 instead");
    Problem::new(StatusCode::MISDIRECTED_REQUEST, detail).into_response()
}

/// Refuses what a browser sends for a page of another site: it would not be shown the answer, but have the server compute and
/// forget other images for it. Programs that are no browsers say no origin.
async fn from_no_other_site(request: Request, next: Next) -> Response {
    let Some(origin) = request.headers().get(header::ORIGIN) else { return next.run(request).await };
    let site = origin.to_str().ok().and_then(|origin| origin.split_once("://")?.1.parse::<Authority>().ok());
    let host = named(&request);
    if site.is_some() && site == host {
        return next.run(request).await;
    }
    let detail = format!(
        "a page of {origin:?} may not ask {:?}; open the page that is served there instead, and have a proxy in between pass \
         the header Host on",
        host.as_ref().map_or("", Authority::as_str)
    );
    Problem::new(StatusCode::FORBIDDEN, detail).into_response()
}

/// A body that can be read on when whoever got it has dropped it.
struct Shared(Arc<Mutex<Body>>);

impl HttpBody for Shared {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let mut body = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        Pin::new(&mut *body).poll_frame(context)
    }
}

/// Reads on for a while, keeping nothing, where a request is answered before all of it has come: a client that is still sending
/// would otherwise find its connection broken, and no answer.
async fn read_on(State(limits): State<Limits>, request: Request, next: Next) -> Response {
    let (head, body) = request.into_parts();
    let body = Arc::new(Mutex::new(body));
    let mut rest = Shared(Arc::clone(&body));
    let answer = next.run(Request::from_parts(head, Body::new(Shared(body)))).await;
    tokio::spawn(tokio::time::timeout(limits.request, async move {
        let mut length = 0;
        while let Some(Ok(frame)) = rest.frame().await {
            length += frame.data_ref().map_or(0, Bytes::len);
            if length > limits.upload_bytes.saturating_mul(8) {
                break;
            }
        }
    }));
    answer
}

/// Serves a demo until Ctrl-C or SIGTERM, and lets requests that have begun come to their end. `ready` is told the
/// address, whose port is a free one where `address` has port 0. At a loopback address it answers to the names of this computer
/// only.
///
/// # Errors
/// Those of the system: an address in use, say.
pub fn run(demo: Demo, address: SocketAddr, ready: impl FnOnce(SocketAddr)) -> std::io::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let served = runtime.block_on(async {
        let listener = TcpListener::bind(address).await?;
        ready(listener.local_addr()?);
        let limits = demo.limits;
        let mut app = router(Arc::new(demo));
        if address.ip().is_loopback() {
            app = app.layer(middleware::from_fn(to_this_computer));
        }
        let app = app.layer(middleware::from_fn_with_state(limits, read_on));
        accept(listener, app, limits).await;
        Ok(())
    });
    // What still computes has nobody to answer.
    runtime.shutdown_background();
    served
}

/// Accepts connections until a signal to stop, no more at a time than there are places, and then lets those that there are come to
/// their end.
async fn accept(mut listener: TcpListener, app: Router, limits: Limits) {
    let places = Arc::new(Semaphore::new(limits.connections.clamp(1, Semaphore::MAX_PERMITS)));
    // Each connection has a receiver, so that the last is gone when they are.
    let (stop, stopped) = watch::channel(());
    let mut signal = pin!(stop_signal());
    loop {
        let accepted = async {
            let place = Arc::clone(&places).acquire_owned().await;
            // That of axum tries again where the system refuses.
            (Listener::accept(&mut listener).await.0, place)
        };
        let (stream, place) = tokio::select! {
            accepted = accepted => accepted,
            () = &mut signal => break,
        };
        let (app, stopped) = (app.clone(), stopped.clone());
        tokio::spawn(async move {
            let _place = place;
            answer(stream, app, limits, stopped).await;
        });
    }
    drop((listener, stopped));
    let _ = stop.send(());
    tokio::select! {
        () = stop.closed() => {}
        () = tokio::time::sleep(GRACE) => {}
        () = stop_signal() => {}
    }
}

/// Answers the requests of a connection, until the client has no more, says nothing for too long, or the connection's time is up.
async fn answer(stream: TcpStream, app: Router, limits: Limits, mut stopped: watch::Receiver<()>) {
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.header)
        .max_buf_size(BUFFER)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(app));
    let mut connection = pin!(connection);
    tokio::select! {
        // Errors are those of the network and of the client.
        _ = &mut connection => return,
        _ = stopped.changed() => {}
        () = tokio::time::sleep(limits.connection) => {}
    }
    connection.as_mut().graceful_shutdown();
    let _ = tokio::time::timeout(limits.connection, connection).await;
}

/// Waits for Ctrl-C or SIGTERM.
async fn stop_signal() {
    let interrupted = async {
        if tokio::signal::ctrl_c().await.is_err() {
            std::future::pending::<()>().await;
        }
    };
    #[cfg(unix)]
    let terminated = async {
        match tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()) {
            Ok(mut signal) => _ = signal.recv().await,
            Err(_) => std::future::pending().await,
        }
    };
    #[cfg(not(unix))]
    let terminated = std::future::pending::<()>();
    tokio::select! {
        () = interrupted => {}
        () = terminated => {}
    }
}
