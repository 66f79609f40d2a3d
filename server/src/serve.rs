//! `lastword serve`: the replication server.

use std::io::Write as _;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use axum::Router;
use axum::extract::State;
use axum::extract::ws::WebSocketUpgrade;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::serve::ListenerExt;
use lastword::Authority;
use lastword::core::limits::MAX_MESSAGE_BYTES;
use lastword::core::protocol::SUBPROTOCOL;
use tokio::sync::watch;

use crate::connection;
use crate::hub::Hub;
use crate::members::{Members, MembersError, Tokens};

/// How a server is started.
#[derive(Debug, Clone)]
pub struct ServeOptions {
    /// Directory of the authority's store.
    pub data: PathBuf,
    /// Address to listen on; port 0 takes a free one.
    pub listen: SocketAddr,
    /// The membership.
    pub access: Access,
    /// Print the address as a JSON line.
    pub json: bool,
}

/// Where the membership comes from.
#[derive(Debug, Clone)]
pub enum Access {
    /// Any token, on loopback only.
    Dev,
    /// A tokens file.
    Tokens(PathBuf),
}

/// Why a server did not start or did not end well.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// `--dev` was asked for on an address that others can reach.
    #[error("--dev takes any token, so it listens on loopback only; {listen} is not: use --tokens")]
    DevNotLoopback {
        /// The address asked for.
        listen: SocketAddr,
    },
    /// The tokens file.
    #[error(transparent)]
    Members(#[from] MembersError),
    /// The store.
    #[error(transparent)]
    Engine(#[from] lastword::Error),
    /// The address cannot be listened on.
    #[error("cannot listen on {listen}: {reason}")]
    Listen {
        /// The address asked for.
        listen: SocketAddr,
        /// The system's reason.
        reason: String,
    },
    /// The store takes no writes any more.
    #[error("the server ends because its store failed: {reason}; start it again to recover")]
    Failed {
        /// What failed.
        reason: String,
    },
    /// The system gave no runtime, or the socket failed.
    #[error("the server failed: {0}")]
    Io(#[from] std::io::Error),
}

/// Runs a server until SIGINT or SIGTERM, then closes its store cleanly.
///
/// # Errors
/// [`ServeError`] if it cannot start, or the store does not close well.
pub fn run(options: &ServeOptions) -> Result<(), ServeError> {
    let members = match &options.access {
        Access::Dev if !options.listen.ip().is_loopback() => {
            return Err(ServeError::DevNotLoopback { listen: options.listen });
        }
        Access::Dev => Members::Dev,
        Access::Tokens(path) => Members::Tokens(Tokens::read(path)?),
    };
    let authority = Authority::open(&options.data)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let served = runtime.block_on(serve(options, Hub::new(authority.clone(), members)));
    runtime.shutdown_timeout(std::time::Duration::from_secs(2));
    let closed = authority.close();
    served?;
    Ok(closed?)
}

async fn serve(options: &ServeOptions, hub: Arc<Hub>) -> Result<(), ServeError> {
    let listen = options.listen;
    let listener = tokio::net::TcpListener::bind(listen)
        .await
        .map_err(|error| ServeError::Listen { listen, reason: error.to_string() })?;
    let address = listener.local_addr()?;
    announce(options, address)?;
    let (stop, stopping) = watch::channel(false);
    let (ending, failure) = (Arc::clone(&hub), Arc::new(OnceLock::new()));
    let failed = Arc::clone(&failure);
    let app = Router::new()
        .route("/sync", get(sync))
        .route("/healthz", get(healthz))
        .with_state(Served { hub, stopping });
    // Small messages must not wait for the acknowledgement of the one before.
    let listener = listener.tap_io(|socket| {
        if let Err(error) = socket.set_nodelay(true) {
            tracing::warn!(%error, "a connection may be slow");
        }
    });
    axum::serve(listener, app)
        .with_graceful_shutdown(async move {
            tokio::select! {
                () = stop_signal() => {}
                reason = ending.failure() => {
                    // Set once: this future ends here.
                    let _ = failed.set(reason);
                }
            }
            // Connections without a receiver have ended already.
            let _ = stop.send(true);
        })
        .await?;
    match failure.get() {
        None => Ok(()),
        Some(reason) => Err(ServeError::Failed { reason: reason.clone() }),
    }
}

/// The first line on stdout tells the address, so that scripts can use port 0.
fn announce(options: &ServeOptions, address: SocketAddr) -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    let url = format!("ws://{address}/sync");
    if options.json {
        writeln!(out, "{}", serde_json::json!({ "listening": url, "pid": std::process::id() }))?;
    } else {
        writeln!(out, "listening on {url}")?;
        let access = match &options.access {
            Access::Dev => "any token is accepted (--dev)".to_owned(),
            Access::Tokens(path) => format!("members from {}", path.display()),
        };
        writeln!(out, "data in {}; {access}; any table name is taken", options.data.display())?;
    }
    out.flush()
}

#[derive(Clone)]
struct Served {
    hub: Arc<Hub>,
    stopping: watch::Receiver<bool>,
}

async fn sync(State(served): State<Served>, upgrade: WebSocketUpgrade) -> Response {
    upgrade
        .protocols([SUBPROTOCOL])
        .max_message_size(MAX_MESSAGE_BYTES)
        .max_frame_size(MAX_MESSAGE_BYTES)
        .max_write_buffer_size(4 * MAX_MESSAGE_BYTES)
        .on_upgrade(move |socket| connection::serve(socket, served.hub, served.stopping))
}

async fn healthz(State(served): State<Served>) -> impl IntoResponse {
    (StatusCode::OK, format!("ok, {} devices attached\n", served.hub.attached()))
}

async fn stop_signal() {
    let interrupt = tokio::signal::ctrl_c();
    #[cfg(unix)]
    {
        use tokio::signal::unix::{SignalKind, signal};
        match signal(SignalKind::terminate()) {
            Ok(mut terminate) => {
                tokio::select! {
                    _ = interrupt => {}
                    _ = terminate.recv() => {}
                }
            }
            Err(_) => {
                let _ = interrupt.await;
            }
        }
    }
    #[cfg(not(unix))]
    let _ = interrupt.await;
}
