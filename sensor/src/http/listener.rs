//! Connections that cannot hold on to anything: few at once, each with a deadline and a limit on
//! what it may send.

use std::future::Future;
use std::io::{self, IoSlice};
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
    deadline: Duration,
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
        Self { inner, room: Arc::new(Semaphore::new(CONNECTIONS)), deadline: DEADLINE }
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
                        deadline: Box::pin(sleep(self.deadline)),
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

    /// Without it hyper copies a whole answer, and drops it before it is sent.
    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.in_time(context)?;
        Pin::new(&mut self.inner).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
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

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net;

    use tokio::runtime::Runtime;

    use super::*;

    /// Whoever waits longer than this waits for ever.
    const PATIENCE: Duration = Duration::from_secs(20);

    async fn listening(connections: usize, deadline: Duration) -> BoundedListener {
        let inner = TcpListener::bind("127.0.0.1:0").await.unwrap();
        BoundedListener { inner, room: Arc::new(Semaphore::new(connections)), deadline }
    }

    async fn read_to_end(stream: &mut BoundedStream) -> io::Result<()> {
        let mut bytes = [0; 4096];
        loop {
            let mut buffer = ReadBuf::new(&mut bytes);
            let read =
                |context: &mut Context<'_>| Pin::new(&mut *stream).poll_read(context, &mut buffer);
            std::future::poll_fn(read).await?;
            if buffer.filled().is_empty() {
                return Ok(());
            }
        }
    }

    #[test]
    fn a_client_that_says_nothing_is_let_go_at_the_deadline() {
        Runtime::new().unwrap().block_on(async {
            let mut listener = listening(1, Duration::from_millis(20)).await;
            let _client = net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            let (mut stream, _) = listener.accept().await;
            let read = read_to_end(&mut stream).await;
            assert_eq!(read.unwrap_err().kind(), io::ErrorKind::TimedOut);
        });
    }

    #[test]
    fn a_client_that_sends_too_much_is_let_go() {
        Runtime::new().unwrap().block_on(async {
            let mut listener = listening(1, PATIENCE).await;
            let address = listener.local_addr().unwrap();
            let client = std::thread::spawn(move || {
                let mut client = net::TcpStream::connect(address).unwrap();
                // The other end may be gone before all is sent.
                let _ = client.write_all(&vec![b'x'; REQUEST_MAX + 1]);
                let _ = client.shutdown(net::Shutdown::Write);
                let _ = client.read_to_end(&mut Vec::new());
            });
            let (mut stream, _) = listener.accept().await;
            let read = read_to_end(&mut stream).await;
            assert_eq!(read.unwrap_err().kind(), io::ErrorKind::FileTooLarge);
            drop(stream);
            client.join().unwrap();
        });
    }

    #[test]
    fn a_connection_too_many_waits_for_room() {
        Runtime::new().unwrap().block_on(async {
            let mut listener = listening(1, PATIENCE).await;
            let address = listener.local_addr().unwrap();
            let _first = net::TcpStream::connect(address).unwrap();
            let _second = net::TcpStream::connect(address).unwrap();
            let (held, _) = listener.accept().await;
            assert_eq!(listener.room.available_permits(), 0);
            let mut next = Box::pin(listener.accept());
            let polled = std::future::poll_fn(|context| Poll::Ready(next.as_mut().poll(context)));
            assert!(polled.await.is_pending(), "a second connection was taken without room");
            drop(held);
            next.await;
        });
    }
}
