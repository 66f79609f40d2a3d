//! A connection that carries files: a WebSocket, and a service that answers message by message.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::extract::ws::{Message, WebSocket};
use lastword::core::codec::{from_bytes, to_bytes};
use lastword::core::protocol::{ErrorCode, FILES_VERSION, FIRST_VERSION, FileMessage};
use lastword::{FileService, ServiceError};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, timeout};

use crate::connection::CONNECTIONS;
use crate::hub::{Event, Hub};

/// A peer that does not take a message for this long is gone.
const SEND_TIMEOUT: Duration = Duration::from_secs(30);
/// The first message must come within this time.
const HELLO_TIMEOUT: Duration = Duration::from_secs(5);
/// A silent peer is asked for a sign of life this often.
const PING_INTERVAL: Duration = Duration::from_secs(20);
/// A peer that is silent this long is gone.
const SILENCE_LIMIT: Duration = Duration::from_secs(60);
/// A transfer of which nothing comes for this long gives its room back.
const IDLE_LIMIT: Duration = Duration::from_secs(120);
/// Connections that carry files at once: each may hold a thread.
const MAX_FILE_CONNECTIONS: usize = 256;
/// Answers that wait for the socket; a sender of chunks waits then.
const WAITING_ANSWERS: usize = 4;

/// Why a connection ends, for whoever is at its other end.
type End = (ErrorCode, String);

static SERVED: AtomicUsize = AtomicUsize::new(0);

/// A connection that counts among those that there may be.
struct Place;

impl Place {
    fn take() -> Option<Self> {
        let place = Self;
        // Given back by the drop.
        (SERVED.fetch_add(1, Ordering::SeqCst) < MAX_FILE_CONNECTIONS).then_some(place)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        SERVED.fetch_sub(1, Ordering::SeqCst);
    }
}

/// Serves one socket until it closes.
pub async fn serve(mut socket: WebSocket, hub: Arc<Hub>, shutdown: watch::Receiver<bool>) {
    let Some(_place) = Place::take() else {
        let message = format!("{MAX_FILE_CONNECTIONS} connections carry files already");
        // Either way the connection is over.
        let _ = send(&mut socket, FileMessage::Error { code: ErrorCode::Rate, message }).await;
        return;
    };
    let id = CONNECTIONS.fetch_add(1, Ordering::Relaxed);
    let (events, received) = mpsc::unbounded_channel();
    hub.connected(id, events);
    let outside = Outside { events: received, shutdown };
    let ended = talk(&mut socket, &hub, id, outside).await;
    hub.disconnected(id);
    if let Err((code, message)) = ended {
        // Either way the connection is over.
        let _ = send(&mut socket, FileMessage::Error { code, message }).await;
    }
    let _ = timeout(SEND_TIMEOUT, socket.send(Message::Close(None))).await;
}

/// What ends a connection from outside its socket.
struct Outside {
    events: mpsc::UnboundedReceiver<Event>,
    shutdown: watch::Receiver<bool>,
}

impl Outside {
    /// Resolves once the connection is to end, and says why.
    async fn ends(&mut self) -> End {
        loop {
            tokio::select! {
                event = self.events.recv() => match event {
                    Some(Event::TokenGone) | None => {
                        let message = "this server does not know the token any more";
                        return (ErrorCode::Unauthenticated, message.into());
                    }
                    // The service asks who is a member at every step.
                    Some(_) => {}
                },
                // A sender that is gone stops it, too.
                _ = self.shutdown.changed() => {
                    return (ErrorCode::Internal, "the server is about to restart".into());
                }
            }
        }
    }
}

async fn talk(
    socket: &mut WebSocket,
    hub: &Arc<Hub>,
    id: u64,
    mut outside: Outside,
) -> Result<(), End> {
    let (user, version) = greeted(socket, hub, id).await?;
    send(socket, FileMessage::Welcome { version }).await?;
    let mut service = Some(FileService::new(hub.authority.clone(), user).speaking(version));
    let ended = converse(socket, hub, &mut service, &mut outside).await;
    // What came of an upload is made durable, which takes a while.
    let dropping = tokio::task::spawn_blocking(move || drop(service));
    if dropping.await.is_err() {
        tracing::error!("a transfer did not end well");
    }
    ended
}

async fn converse(
    socket: &mut WebSocket,
    hub: &Arc<Hub>,
    service: &mut Option<FileService>,
    outside: &mut Outside,
) -> Result<(), End> {
    let mut heard = Instant::now();
    let (mut pinged, mut moved) = (heard, heard);
    loop {
        let message = tokio::select! {
            biased;
            end = outside.ends() => return Err(end),
            message = socket.recv() => message,
            () = tokio::time::sleep_until(pinged + PING_INTERVAL) => {
                pinged = Instant::now();
                let is_busy = service.as_ref().is_some_and(FileService::is_busy);
                if is_busy && moved.elapsed() > IDLE_LIMIT {
                    // It holds room that others may need.
                    let message = "nothing came of the transfer for too long";
                    return Err((ErrorCode::Timeout, message.into()));
                }
                if heard.elapsed() > SILENCE_LIMIT {
                    return Ok(());
                }
                sent(timeout(SEND_TIMEOUT, socket.send(Message::Ping(Default::default()))).await)?;
                continue;
            }
        };
        heard = Instant::now();
        match message {
            Some(Ok(Message::Binary(bytes))) => {
                let message = decoded(&bytes)?;
                let Some(asked) = service.take() else { return Ok(()) };
                let mut answering = std::pin::pin!(answer(socket, hub, asked, message));
                *service = Some(tokio::select! {
                    end = outside.ends() => return Err(end),
                    answered = &mut answering => answered?,
                });
                heard = Instant::now();
                moved = heard;
            }
            Some(Ok(Message::Text(_))) => return Err(protocol("messages are binary")),
            Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
            Some(Ok(Message::Close(_)) | Err(_)) | None => return Ok(()),
        }
    }
}

/// Takes the first message; the user behind its token, and the newest version that both speak.
async fn greeted(socket: &mut WebSocket, hub: &Hub, id: u64) -> Result<(String, u64), End> {
    let unknown = |message: &str| (ErrorCode::Unauthenticated, message.to_owned());
    let hello = match timeout(HELLO_TIMEOUT, socket.recv()).await {
        Ok(Some(Ok(Message::Binary(bytes)))) if bytes.first() == Some(&0) => decoded(&bytes)?,
        Ok(_) => return Err(unknown("the first message must be a Hello")),
        Err(_) => return Err((ErrorCode::Timeout, "no Hello came".into())),
    };
    let FileMessage::Hello(hello) = hello else {
        return Err(unknown("the first message must be a Hello"));
    };
    let version = hello.max_version.min(FILES_VERSION);
    if version < hello.min_version.max(FIRST_VERSION) {
        let message = format!("this server speaks versions {FIRST_VERSION} to {FILES_VERSION}");
        return Err((ErrorCode::Version, message));
    }
    let user = hub.authenticate(id, &hello.token).map_err(|message| unknown(&message))?;
    Ok((user, version))
}

/// Lets the service answer on a thread that may block, and sends what it says as it says it.
async fn answer(
    socket: &mut WebSocket,
    hub: &Arc<Hub>,
    mut service: FileService,
    message: FileMessage,
) -> Result<FileService, End> {
    let (answers, mut waiting) = mpsc::channel(WAITING_ANSWERS);
    let answering = tokio::task::spawn_blocking(move || {
        let taken = service.take(message, &mut |answer| answers.blocking_send(answer).is_ok());
        (service, taken)
    });
    while let Some(answer) = waiting.recv().await {
        send(socket, answer).await?;
    }
    let panicked = |_| (ErrorCode::Internal, "the server could not answer".to_owned());
    match answering.await.map_err(panicked)? {
        (service, Ok(())) => Ok(service),
        (_, Err(error @ ServiceError::Protocol { .. })) => Err(protocol(&error.to_string())),
        (_, Err(ServiceError::Store(error))) => {
            hub.end_if_poisoned(&error);
            Err((ErrorCode::Internal, "the server's store failed".into()))
        }
        (_, Err(error)) => Err((ErrorCode::Internal, error.to_string())),
    }
}

fn protocol(what: &str) -> End {
    (ErrorCode::Protocol, what.to_owned())
}

fn decoded(bytes: &[u8]) -> Result<FileMessage, End> {
    from_bytes(bytes).map_err(|error| protocol(&error.to_string()))
}

async fn send(socket: &mut WebSocket, message: FileMessage) -> Result<(), End> {
    let message = Message::Binary(to_bytes(&message).into());
    sent(timeout(SEND_TIMEOUT, socket.send(message)).await)
}

fn sent<E>(sent: Result<Result<(), axum::Error>, E>) -> Result<(), End> {
    match sent {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) => Err((ErrorCode::Internal, error.to_string())),
        Err(_) => Err((ErrorCode::Timeout, "the device takes nothing".into())),
    }
}
