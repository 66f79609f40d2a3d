//! A connection that carries files: a WebSocket, and a service that answers message by message.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use axum::extract::ws::{Message, WebSocket};
use lastword::core::codec::{from_bytes, to_bytes};
use lastword::core::protocol::{ErrorCode, FileMessage, VERSION};
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
/// Answers that wait for the socket; a sender of chunks waits then.
const WAITING_ANSWERS: usize = 4;

/// Why a connection ends, for whoever is at its other end.
type End = (ErrorCode, String);

/// Serves one socket until it closes.
pub async fn serve(mut socket: WebSocket, hub: Arc<Hub>, shutdown: watch::Receiver<bool>) {
    let id = CONNECTIONS.fetch_add(1, Ordering::Relaxed);
    let (events, received) = mpsc::unbounded_channel();
    hub.connected(id, events);
    let ended = talk(&mut socket, &hub, id, (received, shutdown)).await;
    hub.disconnected(id);
    if let Err((code, message)) = ended {
        // Either way the connection is over.
        let _ = send(&mut socket, FileMessage::Error { code, message }).await;
    }
    let _ = timeout(SEND_TIMEOUT, socket.send(Message::Close(None))).await;
}

async fn talk(
    socket: &mut WebSocket,
    hub: &Arc<Hub>,
    id: u64,
    (mut events, mut shutdown): (mpsc::UnboundedReceiver<Event>, watch::Receiver<bool>),
) -> Result<(), End> {
    let user = greeted(socket, hub, id).await?;
    send(socket, FileMessage::Welcome { version: VERSION }).await?;
    let mut service = FileService::new(hub.authority.clone(), user);
    let mut heard = Instant::now();
    let mut pinged = heard;
    loop {
        let message = tokio::select! {
            biased;
            event = events.recv() => match event {
                Some(Event::TokenGone) => {
                    let message = "this server does not know the token any more";
                    return Err((ErrorCode::Unauthenticated, message.into()));
                }
                // The service asks who is a member at every step.
                _ => continue,
            },
            () = stopping(&mut shutdown) => {
                return Err((ErrorCode::Internal, "the server is about to restart".into()));
            }
            message = socket.recv() => message,
            () = tokio::time::sleep_until(pinged + PING_INTERVAL) => {
                pinged = Instant::now();
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
                service = answer(socket, hub, service, message).await?;
            }
            Some(Ok(Message::Text(_))) => return Err(protocol("messages are binary")),
            Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
            Some(Ok(Message::Close(_)) | Err(_)) | None => return Ok(()),
        }
    }
}

/// Resolves once the server stops.
async fn stopping(shutdown: &mut watch::Receiver<bool>) {
    // A sender that is gone stops it, too.
    let _ = shutdown.wait_for(|stop| *stop).await;
}

/// Takes the first message; the user behind its token.
async fn greeted(socket: &mut WebSocket, hub: &Hub, id: u64) -> Result<String, End> {
    let unknown = |message: &str| (ErrorCode::Unauthenticated, message.to_owned());
    let hello = match timeout(HELLO_TIMEOUT, socket.recv()).await {
        Ok(Some(Ok(Message::Binary(bytes)))) if bytes.first() == Some(&0) => decoded(&bytes)?,
        Ok(_) => return Err(unknown("the first message must be a Hello")),
        Err(_) => return Err((ErrorCode::Timeout, "no Hello came".into())),
    };
    let FileMessage::Hello(hello) = hello else {
        return Err(unknown("the first message must be a Hello"));
    };
    if !(hello.min_version..=hello.max_version).contains(&VERSION) {
        let message = format!("this server speaks version {VERSION}");
        return Err((ErrorCode::Version, message));
    }
    hub.authenticate(id, &hello.token).map_err(|message| unknown(&message))
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
        // Nobody hears an answer once the connection is gone.
        let taken = service.take(message, &mut |answer| drop(answers.blocking_send(answer)));
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
