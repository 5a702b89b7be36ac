//! Connections that cannot hold on to anything: few at once, each with a deadline and a limit on
//! what it may send.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::serve::Listener;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Sleep, sleep};
use tracing::warn;

/// Connections at once; more wait in the kernel's queue.
const CONNECTIONS: usize = 32;
/// From accept to the last byte of the answer. One connection carries one request.
const DEADLINE: Duration = Duration::from_secs(10);
/// Bytes a client may send: no request of ours has a body.
const REQUEST_MAX: usize = 16 * 1024;
/// After a failed accept, such as one for want of descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(500);

/// Accepts connections as long as there is room.
pub(super) struct BoundedListener {
    inner: TcpListener,
    room: Arc<Semaphore>,
}

/// A connection with its bounds.
pub(super) struct BoundedStream {
    inner: TcpStream,
    deadline: Pin<Box<Sleep>>,
    may_send: usize,
    _room: Option<OwnedSemaphorePermit>,
}

// === impl BoundedListener ===

impl BoundedListener {
    pub(super) fn new(inner: TcpListener) -> Self {
        Self { inner, room: Arc::new(Semaphore::new(CONNECTIONS)) }
    }
}

impl Listener for BoundedListener {
    type Addr = SocketAddr;
    type Io = BoundedStream;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        // The semaphore is never closed, so there is always a permit in the end.
        let room = Arc::clone(&self.room).acquire_owned().await.ok();
        loop {
            match self.inner.accept().await {
                Ok((inner, peer)) => {
                    let stream = BoundedStream {
                        inner,
                        deadline: Box::pin(sleep(DEADLINE)),
                        may_send: REQUEST_MAX,
                        _room: room,
                    };
                    return (stream, peer);
                }
                Err(error) => {
                    warn!(%error, "accepting an HTTP connection failed");
                    sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    fn local_addr(&self) -> io::Result<Self::Addr> {
        self.inner.local_addr()
    }
}

// === impl BoundedStream ===

impl BoundedStream {
    fn in_time(&mut self, context: &mut Context<'_>) -> io::Result<()> {
        match self.deadline.as_mut().poll(context) {
            Poll::Ready(()) => Err(io::ErrorKind::TimedOut.into()),
            Poll::Pending => Ok(()),
        }
    }
}

impl AsyncRead for BoundedStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.in_time(context)?;
        let before = buffer.filled().len();
        let polled = Pin::new(&mut self.inner).poll_read(context, buffer);
        let sent = buffer.filled().len().saturating_sub(before);
        match self.may_send.checked_sub(sent) {
            Some(left) => self.may_send = left,
            None => return Poll::Ready(Err(io::ErrorKind::FileTooLarge.into())),
        }
        polled
    }
}

impl AsyncWrite for BoundedStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.in_time(context)?;
        Pin::new(&mut self.inner).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.in_time(context)?;
        Pin::new(&mut self.inner).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.in_time(context)?;
        Pin::new(&mut self.inner).poll_shutdown(context)
    }
}
