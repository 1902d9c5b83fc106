//! Activity of a connection: whether the server computes for its client or waits for it.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use axum::body::{Bytes, HttpBody};
use hyper::body::{Frame, Incoming, SizeHint};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

/// Idle time after which a connection can be closed in favour of another one. Closing immediately would lose
/// requests in transit.
const MIN_IDLE: Duration = Duration::from_millis(500);

/// Time without a byte after which a client counts as slow, and the minimum time over which its rate is
/// measured.
const MIN_STALL: Duration = Duration::from_secs(1);

/// Bytes per second below which a client counts as slow.
const MIN_RATE: f64 = 8192.0;

/// Reason for closing a connection when there are too many. Idle ones are closed first, among equals the
/// longest waiting.
#[derive(Clone, Copy, Debug, PartialEq, PartialOrd)]
pub(crate) enum Wait {
    /// In the middle of a request or an answer.
    Slow(Duration),
    /// Between requests.
    Idle(Duration),
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Phase {
    Receiving,
    Computing,
    /// Answers are short: once the system has accepted one, the connection is idle.
    Answering,
}

#[derive(Debug)]
struct State {
    phase: Phase,
    since: Instant,
    moved: Instant,
    bytes: usize,
    /// The system accepts no more data for now, because the client does not read.
    blocked: bool,
}

impl State {
    fn enter(&mut self, phase: Phase) {
        let now = Instant::now();
        *self = Self { phase, since: now, moved: now, bytes: 0, ..*self };
    }

    fn count(&mut self, bytes: usize) {
        self.bytes += bytes;
        self.moved = Instant::now();
    }
}

/// The state of one connection.
#[derive(Debug)]
pub(crate) struct Activity(Mutex<State>);

impl Activity {
    pub fn new() -> Self {
        let now = Instant::now();
        // Idle until the first byte.
        let state = State { phase: Phase::Answering, since: now, moved: now, bytes: 0, blocked: false };
        Self(Mutex::new(state))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn read(&self, bytes: usize) {
        let mut state = self.state();
        if state.phase == Phase::Answering && !state.blocked {
            state.enter(Phase::Receiving);
        }
        state.count(bytes);
    }

    fn wrote(&self, bytes: Option<usize>) {
        let mut state = self.state();
        state.blocked = bytes.is_none();
        if let Some(bytes) = bytes {
            state.count(bytes);
        }
    }

    /// Records that the header of a request has arrived.
    pub fn requested(&self, body_follows: bool) {
        self.state().enter(if body_follows { Phase::Receiving } else { Phase::Computing });
    }

    fn body_ended(&self) {
        let mut state = self.state();
        if state.phase == Phase::Receiving {
            state.enter(Phase::Computing);
        }
    }

    /// Records that the answer is ready.
    pub fn answered(&self) {
        self.state().enter(Phase::Answering);
    }

    /// The reason for which the connection can be closed in favour of another one. `None` while the server
    /// computes or its client keeps up.
    pub fn wait(&self) -> Option<Wait> {
        let state = self.state();
        let (whole, still) = (state.since.elapsed(), state.moved.elapsed());
        match state.phase {
            Phase::Computing => None,
            Phase::Answering if !state.blocked => (still >= MIN_IDLE).then_some(Wait::Idle(still)),
            Phase::Answering | Phase::Receiving => {
                let crawls = whole >= MIN_STALL && (state.bytes as f64) < MIN_RATE * whole.as_secs_f64();
                (still >= MIN_STALL || crawls).then_some(Wait::Slow(whole))
            }
        }
    }
}

/// A connection that updates its [`Activity`].
pub(crate) struct Watched {
    pub stream: TcpStream,
    pub activity: Arc<Activity>,
}

impl AsyncRead for Watched {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let result = Pin::new(&mut self.stream).poll_read(context, buffer);
        if buffer.filled().len() > before {
            self.activity.read(buffer.filled().len() - before);
        }
        result
    }
}

impl Watched {
    fn note(&self, result: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        match &result {
            Poll::Ready(Ok(bytes)) => self.activity.wrote(Some(*bytes)),
            Poll::Pending => self.activity.wrote(None),
            Poll::Ready(Err(_)) => {}
        }
        result
    }
}

impl AsyncWrite for Watched {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &[u8],
    ) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.stream).poll_write(context, buffer);
        self.note(result)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffers: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.stream).poll_write_vectored(context, buffers);
        self.note(result)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

/// The body of a request, which records its end.
pub(crate) struct Received {
    pub body: Incoming,
    pub activity: Arc<Activity>,
}

impl HttpBody for Received {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let frame = Pin::new(&mut self.body).poll_frame(context);
        if matches!(frame, Poll::Ready(None)) || self.body.is_end_stream() {
            self.activity.body_ended();
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
