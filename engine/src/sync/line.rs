//! A connection that carries files, used by one thread that waits for each message.

use std::io::Read;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::{SinkExt, StreamExt};
use lastword_core::codec::{from_bytes, to_bytes};
use lastword_core::protocol::{
    FILES_SUBPROTOCOL, FILES_VERSION, FIRST_VERSION, FileMessage, Hello, SignedUrl,
};
use tokio::runtime::Runtime;
use tokio::sync::watch;
use tokio_tungstenite::tungstenite::Message;

use super::Remote;
use super::http;
use super::socket::{self, Socket};
use crate::database::Database;
use crate::live::Watchers;
use crate::transfer::{Ending, Got, Pieces, Wire};

/// A server that does not take a message, or sends none, for this long is gone: one that compares a
/// file with its name says so now and then.
const SILENCE_LIMIT: Duration = Duration::from_secs(60);

/// While bytes go to an object store, or come from one, the server hears this often that they do.
const SIGN_OF_LIFE: Duration = Duration::from_secs(15);

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
            min_version: FIRST_VERSION,
            max_version: FILES_VERSION,
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

    /// What tells the server that the transfer goes on while bytes pass it by.
    fn alive(&self) -> Message {
        let (transfer, stored, chunks) = (self.transfers, 0, Vec::new());
        Message::Binary(to_bytes(&FileMessage::Want { transfer, stored, chunks }).into())
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
            tokio::select! {
                why = ended(stop, watchers) => Err(why),
                next = tokio::time::timeout(SILENCE_LIMIT, next_binary(socket)) => match next {
                    Ok(bytes) => from_bytes(&bytes?).map_err(|error| error.to_string()),
                    Err(_) => Err("the server is silent".into()),
                },
            }
        })
    }

    fn put(&mut self, url: &SignedUrl, len: u64, pieces: Pieces<'_>) -> Result<u16, Ending> {
        let alive = self.alive();
        let Self { runtime, socket, stop, watchers, .. } = self;
        runtime.block_on(async {
            let says = async {
                loop {
                    tokio::time::sleep(SIGN_OF_LIFE).await;
                    if let Err(error) = socket.send(alive.clone()).await {
                        return error.to_string();
                    }
                }
            };
            tokio::select! {
                why = ended(stop, watchers) => Err(Ending::Cut { why }),
                why = says => Err(Ending::Cut { why }),
                status = http::put(url, len, pieces) => status,
            }
        })
    }

    fn get(&mut self, url: &SignedUrl, begin: u64, end: u64) -> Result<Got<'_>, String> {
        let Self { runtime, stop, watchers, .. } = self;
        let (status, body) = runtime.block_on(async {
            tokio::select! {
                why = ended(stop, watchers) => Err(why),
                got = http::get(url, begin, end) => got,
            }
        })?;
        Ok(Got { status, body: Box::new(Coming { line: self, body, spoke: Instant::now() }) })
    }
}

/// A body that comes, for a thread that waits for it.
struct Coming<'a, 'r> {
    line: &'a mut Line<'r>,
    body: http::Body,
    /// When the server heard last of the transfer.
    spoke: Instant,
}

impl Read for Coming<'_, '_> {
    fn read(&mut self, out: &mut [u8]) -> std::io::Result<usize> {
        let Self { line, body, spoke } = self;
        if spoke.elapsed() > SIGN_OF_LIFE {
            *spoke = Instant::now();
            let alive = line.alive();
            let Line { runtime, socket, .. } = &mut **line;
            runtime.block_on(socket.send(alive)).map_err(std::io::Error::other)?;
        }
        let Line { runtime, stop, watchers, .. } = &mut **line;
        let read = runtime.block_on(async {
            tokio::select! {
                why = ended(stop, watchers) => Err(why),
                read = body.read(out) => read,
            }
        });
        read.map_err(std::io::Error::other)
    }
}

/// Resolves once this side ends, and says why.
pub(super) async fn ended(stop: &mut watch::Receiver<bool>, watchers: &Watchers) -> String {
    let closed =
        std::future::poll_fn(|context| match watchers.poll_after(u64::MAX, context.waker()) {
            true => std::task::Poll::Ready(()),
            false => std::task::Poll::Pending,
        });
    tokio::select! {
        _ = stop.wait_for(|stop| *stop) => "the connection is stopped".into(),
        () = closed => "the database is closed".into(),
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
