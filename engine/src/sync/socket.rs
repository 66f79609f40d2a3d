//! The socket: connecting, and writing without ever keeping the driver from reading.
//!
//! Both sides may have megabytes to say at once. If each wrote before it read, both would wait for
//! the other; so a task of its own writes, and what waits for it is bounded by what the session
//! sends ahead of acknowledgements.

use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt, StreamExt};
use lastword_core::limits::MAX_MESSAGE_BYTES;
use lastword_core::protocol::SUBPROTOCOL;
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Error as SocketError, Message};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream};

use super::Remote;

/// A connection attempt that takes longer has failed.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// How long the last words may take when a connection is closed.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

pub(super) type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

/// A connection in the making; the error says why there is none, for people.
pub(super) type Connecting = Pin<Box<dyn Future<Output = Result<Link, String>>>>;

/// An open connection. Dropping it cuts it.
pub(super) struct Link {
    incoming: SplitStream<Socket>,
    outgoing: mpsc::UnboundedSender<Message>,
    writer: JoinHandle<Result<(), SocketError>>,
}

impl Link {
    fn new(socket: Socket) -> Self {
        let (sink, incoming) = socket.split();
        let (outgoing, waiting) = mpsc::unbounded_channel();
        Self { incoming, outgoing, writer: tokio::spawn(write(sink, waiting)) }
    }

    /// Queues a message. If the connection is gone, [`Link::next`] says so.
    pub(super) fn send(&self, message: Message) {
        let _ = self.outgoing.send(message);
    }

    /// The next message, or how the connection ended.
    pub(super) async fn next(&mut self) -> Option<Result<Message, SocketError>> {
        tokio::select! {
            message = self.incoming.next() => message,
            written = &mut self.writer => match written {
                Ok(Err(error)) => Some(Err(error)),
                Ok(Ok(())) | Err(_) => None,
            },
        }
    }

    /// Sends what is queued and then the close frame, as far as the peer takes it in time.
    pub(super) async fn close(mut self, frame: Option<CloseFrame>) {
        self.send(Message::Close(frame));
        let (closed, _) = mpsc::unbounded_channel();
        drop(std::mem::replace(&mut self.outgoing, closed));
        // The peer may be gone already.
        let _ = tokio::time::timeout(CLOSE_TIMEOUT, &mut self.writer).await;
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.writer.abort();
    }
}

async fn write(
    mut sink: SplitSink<Socket, Message>,
    mut waiting: mpsc::UnboundedReceiver<Message>,
) -> Result<(), SocketError> {
    while let Some(message) = waiting.recv().await {
        sink.feed(message).await?;
        while let Ok(message) = waiting.try_recv() {
            sink.feed(message).await?;
        }
        sink.flush().await?;
    }
    Ok(())
}

/// Connects within the limits of the protocol.
pub(super) async fn connect(remote: Remote) -> Result<Link, String> {
    open(remote.url(), SUBPROTOCOL).await.map(Link::new)
}

/// A socket that speaks `subprotocol`.
pub(super) async fn open(url: &str, subprotocol: &'static str) -> Result<Socket, String> {
    let mut request = url.into_client_request().map_err(|error| error.to_string())?;
    let subprotocol = subprotocol.parse().expect("invariant: the name is a header value");
    request.headers_mut().insert("sec-websocket-protocol", subprotocol);
    let config = WebSocketConfig::default()
        .max_message_size(Some(MAX_MESSAGE_BYTES))
        .max_frame_size(Some(MAX_MESSAGE_BYTES))
        .max_write_buffer_size(4 * MAX_MESSAGE_BYTES);
    let connecting = tokio_tungstenite::connect_async_with_config(request, Some(config), true);
    match tokio::time::timeout(CONNECT_TIMEOUT, connecting).await {
        Ok(Ok((socket, _))) => Ok(socket),
        Ok(Err(SocketError::Io(error))) => Err(plain(&error)),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err(format!("no answer in {} s", CONNECT_TIMEOUT.as_secs())),
    }
}

/// "connection refused" says enough; the system's error number does not help anybody.
fn plain(error: &std::io::Error) -> String {
    match error.kind() {
        std::io::ErrorKind::ConnectionRefused => "connection refused".into(),
        _ => error.to_string(),
    }
}
