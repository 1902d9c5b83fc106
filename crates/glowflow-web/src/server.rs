//! The server: connections, the order of checks, the time limit of every request, and graceful shutdown.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::{Body, Bytes, HttpBody};
use axum::extract::{Request, State};
use axum::http::{HeaderName, HeaderValue, Method, StatusCode, Uri, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::serve::Listener;
use http_body_util::BodyExt;
use hyper::body::{Frame, Incoming, SizeHint};
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};

use crate::activity::{Received, Watched};
use crate::places::{Admission, Place, Places};
use crate::signals::Signals;
use crate::{Access, Demo, Limits, Problem, access, api, host, page};

/// Time that requests have to finish after a signal to stop.
const GRACE: Duration = Duration::from_secs(5);

/// Size of a connection's buffers in bytes, which bounds the size of a header.
const BUFFER: usize = 64 << 10;

/// Maximum number of connections refused concurrently with a message.
const MAX_REFUSALS: usize = 16;

/// Time that such a connection has to read the message.
const REFUSAL: Duration = Duration::from_secs(2);

/// The page and the API, with access control.
pub fn router(demo: Arc<Demo>, access: Access) -> Router {
    let access = Arc::new(access);
    let mut router = Router::new();
    for (path, method) in page::routes().chain(api::routes(&demo)) {
        router = router.route(path, method);
    }
    let router = router
        .fallback(|uri: Uri| async move {
            Problem::new(StatusCode::NOT_FOUND, format!("there is nothing at {}", uri.path()))
        })
        .method_not_allowed_fallback(|method: Method, uri: Uri| async move {
            let detail = format!("{} does not support {method}", uri.path());
            Problem::new(StatusCode::METHOD_NOT_ALLOWED, detail)
        })
        .layer(middleware::from_fn_with_state(Arc::clone(&demo), in_time))
        .layer(middleware::from_fn_with_state(Arc::clone(&access), access::with_token))
        .with_state(demo);
    // A separate outer router, because a changed path must be routed after the change. The last layer is the
    // outermost.
    Router::new()
        .fallback_service(router)
        .layer(middleware::from_fn_with_state(Arc::clone(&access), access::below_base_path))
        .layer(middleware::from_fn_with_state(Arc::clone(&access), access::from_no_other_site))
        .layer(middleware::from_fn_with_state(access, access::to_this_server))
        .layer(middleware::map_response(page::secure))
}

/// Answers requests that take too long: the client is the cause until its upload has been received in full.
async fn in_time(State(demo): State<Arc<Demo>>, request: Request, next: Next) -> Response {
    let upload = api::UPLOADS.contains(&request.uri().path());
    let received = Arc::new(AtomicBool::new(false));
    let request = request.map(|body| Body::new(Noted { body, ended: Arc::clone(&received) }));
    let answer = tokio::time::timeout(demo.limits.request, next.run(request)).await;
    answer.unwrap_or_else(|_| {
        let slow_client = upload && !received.load(Ordering::Relaxed);
        let status = if slow_client { StatusCode::REQUEST_TIMEOUT } else { StatusCode::SERVICE_UNAVAILABLE };
        Problem::late(status).into_response()
    })
}

/// A body that records that it was received in full.
struct Noted {
    body: Body,
    ended: Arc<AtomicBool>,
}

impl HttpBody for Noted {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let frame = Pin::new(&mut self.body).poll_frame(context);
        if matches!(frame, Poll::Ready(None)) {
            self.ended.store(true, Ordering::Relaxed);
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// A body that can still be read after its receiver has dropped it.
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

/// Keeps reading and discarding for a while if a request is answered before all of it has arrived: a client
/// that is still sending would otherwise find a broken connection instead of the answer.
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

/// Serves a demo until Ctrl-C, SIGTERM or SIGHUP, and then completes the requests in progress. `ready`
/// receives addresses that open the page, the best first; their port is a free one if `address` has port 0.
///
/// # Errors
/// Errors of the system, such as an address in use.
pub fn run(
    demo: Demo,
    address: SocketAddr,
    access: Access,
    ready: impl FnOnce(&[String]),
) -> std::io::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let served = runtime.block_on(async {
        let signals = Signals::listen()?;
        let listener = TcpListener::bind(address).await?;
        let bound = listener.local_addr()?;
        let access = access.listening_on(bound);
        let urls: Vec<_> = host::reachable(bound).into_iter().map(|address| access.url(address)).collect();
        let limits = demo.limits;
        let app = router(Arc::new(demo), access).layer(middleware::from_fn_with_state(limits, read_on));
        ready(&urls);
        accept(listener, app, limits, signals).await;
        Ok(())
    });
    // Does not wait for computations in progress: their clients have disconnected.
    runtime.shutdown_background();
    served
}

/// Accepts connections until a signal, and then completes the open ones.
async fn accept(mut listener: TcpListener, app: Router, limits: Limits, mut signals: Signals) {
    let places = Places::new(limits.connections, limits.connections_per_client);
    let refusals = Arc::new(Semaphore::new(MAX_REFUSALS));
    // Each connection holds a receiver, so the last one is dropped when they have all ended.
    let (stop, stopped) = watch::channel(());
    loop {
        let accepted = async {
            // Axum's method retries if the system refuses.
            let (stream, peer) = Listener::accept(&mut listener).await;
            (stream, places.admit(peer.ip()).await)
        };
        let (stream, admission) = tokio::select! {
            accepted = accepted => accepted,
            () = signals.next() => break,
        };
        let (app, refusals, mut stopped) = (app.clone(), Arc::clone(&refusals), stopped.clone());
        match admission {
            Admission::Place(place) => _ = tokio::spawn(serve(stream, place, app, limits, stopped)),
            // The connection of another client must not wait for this one.
            Admission::OwnInUse(Some(turn)) => {
                tokio::spawn(async move {
                    let place = tokio::select! {
                        place = turn.place() => place,
                        _ = stopped.changed() => return,
                    };
                    match place {
                        Some(place) => serve(stream, place, app, limits, stopped).await,
                        None => refuse(stream, &refusals, limits.connections_per_client).await,
                    }
                });
            }
            Admission::OwnInUse(None) => {
                tokio::spawn(async move { refuse(stream, &refusals, limits.connections_per_client).await });
            }
        }
    }
    drop((listener, stopped));
    let _ = stop.send(());
    tokio::select! {
        () = stop.closed() => {}
        () = tokio::time::sleep(GRACE) => {}
        () = signals.next() => {}
    }
}

/// Answers the requests of a connection until the client has no more, the connection's time is up, or its
/// slot is needed.
async fn serve(
    stream: TcpStream,
    place: Place,
    app: Router,
    limits: Limits,
    mut stopped: watch::Receiver<()>,
) {
    let (began, activity, app) = (Instant::now(), place.activity(), TowerToHyperService::new(app));
    let stream = Watched { stream, activity: Arc::clone(&activity) };
    let service = service_fn(|request: Request<Incoming>| {
        activity.requested(!request.body().is_end_stream());
        let activity = Arc::clone(&activity);
        let body = Arc::clone(&activity);
        let answer = app.call(request.map(|incoming| Body::new(Received { body: incoming, activity: body })));
        async move {
            let mut answer = answer.await?;
            activity.answered();
            let headers = answer.headers_mut();
            // Closing between requests would lose the next one, so the end of the connection is announced.
            if began.elapsed() >= limits.connection {
                headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
            } else {
                let timeout = format!("timeout={}", limits.header.as_secs());
                headers.extend(HeaderValue::from_str(&timeout).map(|value| (KEEP_ALIVE, value)));
            }
            Ok::<_, Infallible>(answer)
        }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.header)
        .max_buf_size(BUFFER)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = pin!(connection);
    // The last request may arrive just before the time is up, and wait as long as any other. Then its answer
    // is read.
    let end = limits.connection * 2 + limits.header + limits.request;
    let mut end = pin!(tokio::time::sleep(end));
    let mut stopping = false;
    loop {
        tokio::select! {
            // The connection is polled first, so that it does not close on a request that has arrived.
            biased;
            // Errors are caused by the network or the client.
            _ = &mut connection => return,
            () = place.needed() => return,
            () = &mut end => return,
            _ = stopped.changed(), if !stopping => {
                stopping = true;
                connection.as_mut().graceful_shutdown();
            }
        }
    }
}

const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");

/// Answers a connection of a client that has too many, or drops it if many others are being refused.
async fn refuse(stream: TcpStream, refusals: &Semaphore, most: usize) {
    let Ok(_permit) = refusals.try_acquire() else { return };
    let detail = format!("more than {most} connections at a time; try again in a second");
    let app = Router::new()
        .fallback(move || std::future::ready(Problem::new(StatusCode::SERVICE_UNAVAILABLE, detail)))
        .layer(middleware::map_response(page::secure));
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(REFUSAL)
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(app));
    // Errors are caused by the network or the client.
    let _ = tokio::time::timeout(REFUSAL, connection).await;
}
