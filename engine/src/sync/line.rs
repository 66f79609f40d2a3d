//! A connection that carries files, used by one thread that waits for each message.

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
use crate::transfer::Wire;

/// A server that does not take a message, or sends none, for this long is gone.
const SILENCE_LIMIT: Duration = Duration::from_secs(60);

/// An open connection to a server that has welcomed this device.
pub(super) struct Line<'a> {
    runtime: &'a Runtime,
    socket: Socket,
    stop: watch::Receiver<bool>,
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
        let mut line = Self { runtime, socket, stop: stop.clone(), transfers: 0 };
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

    /// False if it has carried something before: then it may have been cut since.
    pub(super) fn is_fresh(&self) -> bool {
        self.transfers == 0
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
        let Self { runtime, socket, stop, .. } = self;
        runtime.block_on(async {
            loop {
                let message = tokio::select! {
                    _ = stop.wait_for(|stop| *stop) => {
                        return Err("the connection is stopped".into());
                    }
                    message = tokio::time::timeout(SILENCE_LIMIT, socket.next()) => message,
                };
                match message {
                    Err(_) => return Err("the server is silent".into()),
                    Ok(None) => return Err("the connection ended".into()),
                    Ok(Some(Err(error))) => return Err(error.to_string()),
                    Ok(Some(Ok(Message::Binary(bytes)))) => {
                        return from_bytes(&bytes).map_err(|error| error.to_string());
                    }
                    Ok(Some(Ok(Message::Close(frame)))) => {
                        let reason = frame.map(|frame| frame.reason.to_string());
                        let reason = reason.unwrap_or_default();
                        return Err(format!("the server closed the connection: {reason}"));
                    }
                    Ok(Some(Ok(_))) => {}
                }
            }
        })
    }
}
