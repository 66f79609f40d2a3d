//! Accepted connections: each must become a WebSocket soon, or it is cut. A peer that sends half a
//! request, or none, holds no socket for longer than that.

use std::future::Future;
use std::io::{Error, ErrorKind, IoSlice, Result};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::extract::connect_info::Connected;
use axum::serve::IncomingStream;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::Sleep;

/// How long a connection may be anything but a WebSocket, its request included.
const REQUEST_LIMIT: Duration = Duration::from_secs(10);

/// A TCP listener whose connections have a time limit until they are WebSockets.
pub struct Listener(pub TcpListener);

impl axum::serve::Listener for Listener {
    type Io = Timed<TcpStream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        let (socket, address) = axum::serve::Listener::accept(&mut self.0).await;
        // Small messages must not wait for the acknowledgement of the one before.
        if let Err(error) = socket.set_nodelay(true) {
            tracing::warn!(%error, "a connection may be slow");
        }
        (Timed::new(socket, REQUEST_LIMIT), address)
    }

    fn local_addr(&self) -> Result<Self::Addr> {
        self.0.local_addr()
    }
}

/// Lifts the time limit of one connection.
#[derive(Debug, Clone, Default)]
pub struct Upgraded(Arc<AtomicBool>);

impl Upgraded {
    /// The connection is a WebSocket now, which keeps its own times.
    pub fn set(&self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl Connected<IncomingStream<'_, Listener>> for Upgraded {
    fn connect_info(stream: IncomingStream<'_, Listener>) -> Self {
        stream.io().upgraded.clone()
    }
}

/// A socket that cannot be read any more once its time is over, unless it was upgraded.
pub struct Timed<S> {
    socket: S,
    over: Pin<Box<Sleep>>,
    upgraded: Upgraded,
}

impl<S> Timed<S> {
    fn new(socket: S, limit: Duration) -> Self {
        let over = Box::pin(tokio::time::sleep(limit));
        Self { socket, over, upgraded: Upgraded::default() }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Timed<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<Result<()>> {
        let upgraded = self.upgraded.0.load(Ordering::Relaxed);
        if !upgraded && self.over.as_mut().poll(context).is_ready() {
            let late = Error::new(ErrorKind::TimedOut, "no WebSocket in time");
            return Poll::Ready(Err(late));
        }
        Pin::new(&mut self.socket).poll_read(context, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Timed<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<Result<usize>> {
        Pin::new(&mut self.socket).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<()>> {
        Pin::new(&mut self.socket).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<Result<usize>> {
        Pin::new(&mut self.socket).poll_write_vectored(context, parts)
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    /// I41. Connections that never finished their request were kept for ever, each with a socket of
    /// the server; a WebSocket has no such limit.
    #[test]
    fn only_a_websocket_outlives_the_limit() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
        runtime.expect("a runtime").block_on(async {
            let (mut peer, socket) = tokio::io::duplex(64);
            let mut timed = Timed::new(socket, Duration::from_millis(1));
            peer.write_all(b"GET").await.expect("there is room");
            let mut request = [0; 4];
            let read = timed.read_exact(&mut request).await;
            assert_eq!(read.expect_err("half a request").kind(), ErrorKind::TimedOut);

            let (mut peer, socket) = tokio::io::duplex(64);
            let mut timed = Timed::new(socket, Duration::ZERO);
            timed.upgraded.set();
            peer.write_all(b"frame").await.expect("there is room");
            let mut frame = [0; 5];
            timed.read_exact(&mut frame).await.expect("it has all the time");
            assert_eq!(&frame, b"frame");
        });
    }
}
