//! A connection that carries files, used by one thread that waits for each message.

use std::sync::Arc;
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use lastword_core::codec::{from_bytes, to_bytes};
use lastword_core::protocol::{FILES_SUBPROTOCOL, FileMessage, Hello, VERSION};
use tokio::runtime::Runtime;
use tokio::sync::watch;
use tokio_tungstenite::tungstenite::Message;

use super::Remote;
use super::socket::{self, Socket};
use crate::database::Database;
use crate::live::Watchers;
use crate::transfer::Wire;

/// A server that does not take a message, or sends none, for this long is gone: one that compares a
/// file with its name says so now and then.
const SILENCE_LIMIT: Duration = Duration::from_secs(60);

/// An open connection to a server that has welcomed this device.
pub(super) struct Line<'a> {
    runtime: &'a Runtime,
    socket: Socket,
    stop: watch::Receiver<bool>,
    watchers: Arc<Watchers>,
    transfers: u64,
}

impl<'a> Line<'a> {
    /// Connects, and says who we are. The error says why it cannot, for people.
    pub(super) fn connect(
        db: &Database,
        remote: &Remote,
        runtime: &'a Runtime,
        stop: &watch::Receiver<bool>,
    ) -> Result<Self, String> {
        let token = remote.fetch_token()?;
        let url = format!("{}/files", remote.url());
        let mut stopped = stop.clone();
        let socket = runtime.block_on(async {
            tokio::select! {
                _ = stopped.wait_for(|stop| *stop) => Err("the connection is stopped".into()),
                socket = socket::open(&url, FILES_SUBPROTOCOL) => socket,
            }
        })?;
        let watchers = Arc::clone(&db.inner.watchers);
        let mut line = Self { runtime, socket, stop: stop.clone(), watchers, transfers: 0 };
        line.send(FileMessage::Hello(Hello {
            min_version: VERSION,
            max_version: VERSION,
            token,
            device: db.device(),
            app_schema: db.inner.app_schema,
            agent: concat!("lastword/", env!("CARGO_PKG_VERSION")).into(),
        }))?;
        match line.receive()? {
            FileMessage::Welcome { .. } => Ok(line),
            FileMessage::Error { message, .. } => Err(message),
            _ => Err("the server sent something else than a welcome".into()),
        }
    }

    /// The number of the next transfer.
    pub(super) fn next_transfer(&mut self) -> u64 {
        self.transfers += 1;
        self.transfers
    }
}

impl Wire for Line<'_> {
    fn send(&mut self, message: FileMessage) -> Result<(), String> {
        let Self { runtime, socket, stop, .. } = self;
        let message = Message::Binary(to_bytes(&message).into());
        runtime.block_on(async {
            tokio::select! {
                _ = stop.wait_for(|stop| *stop) => Err("the connection is stopped".into()),
                sent = tokio::time::timeout(SILENCE_LIMIT, socket.send(message)) => match sent {
                    Ok(sent) => sent.map_err(|error| error.to_string()),
                    Err(_) => Err("the server is silent".into()),
                },
            }
        })
    }

    fn receive(&mut self) -> Result<FileMessage, String> {
        let Self { runtime, socket, stop, watchers, .. } = self;
        runtime.block_on(async {
            let closed = std::future::poll_fn(|context| {
                match watchers.poll_after(u64::MAX, context.waker()) {
                    true => std::task::Poll::Ready(()),
                    false => std::task::Poll::Pending,
                }
            });
            tokio::select! {
                _ = stop.wait_for(|stop| *stop) => Err("the connection is stopped".into()),
                () = closed => Err("the database is closed".into()),
                next = tokio::time::timeout(SILENCE_LIMIT, next_binary(socket)) => match next {
                    Ok(bytes) => from_bytes(&bytes?).map_err(|error| error.to_string()),
                    Err(_) => Err("the server is silent".into()),
                },
            }
        })
    }
}

/// The bytes of the next message; signs of life do not count.
async fn next_binary(socket: &mut Socket) -> Result<Vec<u8>, String> {
    loop {
        match socket.next().await {
            None => return Err("the connection ended".into()),
            Some(Err(error)) => return Err(error.to_string()),
            Some(Ok(Message::Binary(bytes))) => return Ok(bytes.to_vec()),
            Some(Ok(Message::Close(frame))) => {
                let reason = frame.map(|frame| frame.reason.to_string()).unwrap_or_default();
                return Err(format!("the server closed the connection: {reason}"));
            }
            Some(Ok(_)) => {}
        }
    }
}
