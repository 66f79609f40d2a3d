//! `lastword serve`: the replication server.

use std::future::{Future, IntoFuture as _};
use std::io::Write as _;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::ws::{WebSocket, WebSocketUpgrade};
use axum::extract::{ConnectInfo, Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use lastword::core::limits::MAX_MESSAGE_BYTES;
use lastword::core::protocol::{FILES_SUBPROTOCOL, SUBPROTOCOL};
use lastword::{Authority, CollectOptions, Keep};
use lastword_providers::registry::EMBEDDED;
use tokio::sync::watch;

use crate::connection;
use crate::control::Control;
use crate::file_connection;
use crate::file_stores::{self, FileStores, FilesError, FilesOptions};
use crate::hub::{Hub, Served};
use crate::listener::{Listener, Upgraded};
use crate::members::{Members, MembersError, Tokens};
use crate::schema_file::{Preset, SchemaFileError, SchemaSource};
use crate::signed_files;
use crate::storage_api;

/// How a server is started.
#[derive(Debug, Clone)]
pub struct ServeOptions {
    /// Directory of the authority's store.
    pub data: PathBuf,
    /// Address to listen on; port 0 takes a free one.
    pub listen: SocketAddr,
    /// The membership.
    pub access: Access,
    /// The tables that it takes.
    pub schema: SchemaSource,
    /// How long the authority keeps what is gone.
    pub keep: Keep,
    /// Most live records in a workspace.
    pub max_records: Option<u64>,
    /// Longest file that is taken, in bytes.
    pub max_file_bytes: Option<u64>,
    /// Most bytes of the files of a workspace.
    pub max_files_bytes: Option<u64>,
    /// Where files are kept.
    pub files: FilesOptions,
    /// How often what no file needs is collected; never if it is zero.
    pub gc_every: Duration,
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
    /// The schema file.
    #[error(transparent)]
    Schema(#[from] SchemaFileError),
    /// Where files are to be kept.
    #[error(transparent)]
    Files(#[from] FilesError),
    /// The store, or a schema that a workspace cannot have.
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

/// How long connections have to end once the server stops; then they are cut.
const GRACE: Duration = Duration::from_secs(2);

/// Runs a server until SIGINT or SIGTERM, then closes its store cleanly. A second signal does not
/// wait for connections, and a third ends the process at once: the log has everything that was
/// acknowledged.
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
    let schema = options.schema.read()?;
    let FileStores { selected, others } = file_stores::open(&options.files)?;
    let authority = Authority::open_with(&options.data, options.keep)?;
    if let Some(schema) = schema {
        authority.adopt(schema)?;
    }
    if let Members::Tokens(tokens) = &members {
        authority.admit(tokens.list.clone())?;
    }
    if let Some(max_records) = options.max_records {
        authority.limit_records(max_records);
    }
    authority.limit_files(
        options.max_file_bytes.unwrap_or(u64::MAX),
        options.max_files_bytes.unwrap_or(u64::MAX),
    );
    authority.keep_files_at(selected, others);
    let tables = tables_taken(options, &authority)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let hub = Hub::new(authority.clone(), members);
    let control = runtime.block_on(async { Control::start(&hub) });
    let mut signals = runtime.block_on(async { Signals::new() })?;
    if !options.gc_every.is_zero() {
        runtime.spawn(collect_every(options.gc_every, Arc::clone(&hub)));
    }
    let served = runtime.block_on(async {
        let listener = listen(options, &tables).await?;
        serve(listener, hub, &mut signals).await
    });
    runtime.spawn(async move {
        signals.next().await;
        std::process::exit(1);
    });
    // Before the lock goes: the next server makes a socket of its own.
    drop(control);
    let closed = authority.close();
    runtime.shutdown_timeout(Duration::ZERO);
    served?;
    Ok(closed?)
}

/// Collects what no file of any workspace needs, now and then, for as long as the server runs.
async fn collect_every(period: Duration, hub: Arc<Hub>) {
    loop {
        tokio::time::sleep(period).await;
        let hub = Arc::clone(&hub);
        let run = tokio::task::spawn_blocking(move || collect_all(&hub));
        if run.await.is_err() {
            tracing::error!("the garbage collection panicked");
        }
    }
}

fn collect_all(hub: &Hub) {
    let workspaces = match lastword::store::read::blob_workspaces(&*hub.view()) {
        Ok(workspaces) => workspaces,
        Err(error) => return tracing::error!(%error, "garbage is not collected"),
    };
    for workspace in workspaces {
        match hub.authority.collect(&workspace, CollectOptions::default()) {
            Ok(collected) => {
                let (freed, files) = (collected.totals.freed_bytes, collected.totals.dropped_bytes);
                let objects = collected.deleted_objects.len();
                tracing::info!(%workspace, freed, files, objects, "collected garbage");
            }
            Err(error) => {
                hub.end_if_poisoned(&error);
                tracing::warn!(%workspace, %error, "garbage is not collected");
            }
        }
    }
}

/// Which tables are taken, for people.
fn tables_taken(options: &ServeOptions, authority: &Authority) -> Result<String, ServeError> {
    Ok(match &options.schema {
        SchemaSource::File(path) => format!("tables from {}", path.display()),
        SchemaSource::Preset(Preset::Or3) => "the tables of OR3 Chat".into(),
        SchemaSource::None if authority.has_schema()? => {
            "any table name is taken where no schema was given before".into()
        }
        SchemaSource::None => "any table name is taken".into(),
    })
}

async fn listen(options: &ServeOptions, tables: &str) -> Result<Listener, ServeError> {
    let listen = options.listen;
    let listener = tokio::net::TcpListener::bind(listen)
        .await
        .map_err(|error| ServeError::Listen { listen, reason: error.to_string() })?;
    announce(options, tables, listener.local_addr()?)?;
    Ok(Listener(listener))
}

/// Everything that is served.
pub(crate) fn router(hub: &Arc<Hub>, stopping: watch::Receiver<bool>) -> Router {
    Router::new()
        .route("/sync", get(sync))
        .route("/sync/files", get(files))
        .route("/healthz", get(healthz))
        .route("/api/storage/gc/run", post(storage_api::run_gc))
        .route("/api/storage/presign-download", post(signed_files::presign_download))
        .route("/api/storage/commit", post(signed_files::commit))
        .route("/api/storage/presign-upload", post(signed_files::presign_upload))
        .route("/files/{*key}", get(signed_files::get).put(signed_files::put))
        .layer(axum::middleware::from_fn_with_state(Arc::clone(hub), only_from_here))
        .with_state(Served { hub: Arc::clone(hub), stopping })
}

/// Serves until a signal comes or the store fails, and then for at most [`GRACE`].
async fn serve(listener: Listener, hub: Arc<Hub>, signals: &mut Signals) -> Result<(), ServeError> {
    let (stop, stopping) = watch::channel(false);
    let mut stopped = stopping.clone();
    let app = router(&hub, stopping).into_make_service_with_connect_info::<Upgraded>();
    let server = axum::serve(listener, app).with_graceful_shutdown(async move {
        // A sender that is gone stops it, too.
        let _ = stopped.wait_for(|stop| *stop).await;
    });
    let mut server = std::pin::pin!(server.into_future());
    let failed = tokio::select! {
        served = &mut server => return Ok(served?),
        () = signals.next() => None,
        reason = hub.failure() => Some(reason),
    };
    stop.send_replace(true);
    // Every connection, and the server itself, has a receiver until it ends.
    let ended = async {
        let served = server.await;
        stop.closed().await;
        served
    };
    tokio::select! {
        served = ended => served?,
        () = tokio::time::sleep(GRACE) => {
            tracing::warn!("connections that did not end in {} s are cut", GRACE.as_secs());
        }
        () = signals.next() => tracing::warn!("a second signal: connections are cut"),
    }
    match failed {
        None => Ok(()),
        Some(reason) => Err(ServeError::Failed { reason }),
    }
}

/// The first line on stdout tells the address, so that scripts can use port 0.
fn announce(options: &ServeOptions, tables: &str, address: SocketAddr) -> std::io::Result<()> {
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
        let files = match &*options.files.provider {
            EMBEDDED => String::new(),
            id => format!("; files at {id}"),
        };
        writeln!(out, "data in {}; {access}; {tables}{files}", options.data.display())?;
    }
    out.flush()
}

async fn sync(
    State(served): State<Served>,
    ConnectInfo(upgraded): ConnectInfo<Upgraded>,
    upgrade: WebSocketUpgrade,
) -> Response {
    upgraded_to(SUBPROTOCOL, &served.hub, upgrade, move |socket, hub| {
        upgraded.set();
        connection::serve(socket, hub, served.stopping)
    })
}

async fn files(
    State(served): State<Served>,
    ConnectInfo(upgraded): ConnectInfo<Upgraded>,
    upgrade: WebSocketUpgrade,
) -> Response {
    upgraded_to(FILES_SUBPROTOCOL, &served.hub, upgrade, move |socket, hub| {
        upgraded.set();
        file_connection::serve(socket, hub, served.stopping)
    })
}

/// Refuses requests from pages of other sites, whatever they ask for.
async fn only_from_here(State(hub): State<Arc<Hub>>, request: Request, next: Next) -> Response {
    if !is_from_here(request.headers(), hub.is_dev()) {
        let message = "pages of other sites may not connect here\n";
        return (StatusCode::FORBIDDEN, message).into_response();
    }
    next.run(request).await
}

/// Makes the request a WebSocket, within the limits of the protocol.
fn upgraded_to<F: Future<Output = ()> + Send + 'static>(
    subprotocol: &'static str,
    hub: &Arc<Hub>,
    upgrade: WebSocketUpgrade,
    serve: impl FnOnce(WebSocket, Arc<Hub>) -> F + Send + 'static,
) -> Response {
    let hub = Arc::clone(hub);
    upgrade
        .protocols([subprotocol])
        .max_message_size(MAX_MESSAGE_BYTES)
        .max_frame_size(MAX_MESSAGE_BYTES)
        .max_write_buffer_size(4 * MAX_MESSAGE_BYTES)
        .on_upgrade(move |socket| serve(socket, hub))
}

/// Whether the request comes from no browser, or from a page of this server: any site that a user
/// visits can open a WebSocket to a server on the user's machine. A site can also give its own name
/// the address of that machine; so where any token is taken, the name must be one of the loopback.
fn is_from_here(headers: &HeaderMap, dev: bool) -> bool {
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    headers.get_all(header::ORIGIN).iter().all(|origin| {
        let origin = origin.as_bytes();
        let site = [&b"http://"[..], b"https://"].iter().find_map(|s| origin.strip_prefix(*s));
        site == Some(host.as_bytes()) && (!dev || is_loopback(host))
    })
}

/// Whether `localhost:7420`, `127.0.0.1` and the like.
fn is_loopback(host: &str) -> bool {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|c| c.is_ascii_digit()) => name,
        _ => host,
    };
    let ip = name.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    name == "localhost" || ip.is_ok_and(|ip| ip.is_loopback())
}

async fn healthz(State(served): State<Served>) -> impl IntoResponse {
    (StatusCode::OK, format!("ok, {} devices attached\n", served.hub.attached()))
}

/// The signals that end the server. Made once, so that none is missed between two waits.
#[cfg(unix)]
struct Signals {
    interrupt: tokio::signal::unix::Signal,
    terminate: tokio::signal::unix::Signal,
}

#[cfg(unix)]
impl Signals {
    fn new() -> std::io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        let (interrupt, terminate) = (SignalKind::interrupt(), SignalKind::terminate());
        Ok(Self { interrupt: signal(interrupt)?, terminate: signal(terminate)? })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}

/// The signals that end the server. Made once, so that none is missed between two waits.
#[cfg(windows)]
struct Signals(tokio::signal::windows::CtrlC);

#[cfg(windows)]
impl Signals {
    fn new() -> std::io::Result<Self> {
        tokio::signal::windows::ctrl_c().map(Self)
    }

    async fn next(&mut self) {
        self.0.recv().await;
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    /// I8. After a failed sync the server has to end so that opening the store tells what was kept;
    /// one client that had sent half a request kept it up, refusing all writes, for ever.
    #[test]
    fn a_failed_store_ends_the_server_whatever_clients_do() {
        let dir = tempfile::tempdir().expect("a folder");
        let authority = Authority::open(dir.path()).expect("it opens");
        let hub = Hub::new(authority.clone(), Members::Dev);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let served = runtime.expect("a runtime").block_on(async {
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
            let address = listener.local_addr().expect("an address");
            let mut client = std::net::TcpStream::connect(address).expect("it listens");
            client.write_all(b"GET /sync HTTP/1.1\r\nHost: ").expect("sent");
            let mut signals = Signals::new().expect("signals");
            let fail = async {
                // Connections are accepted in order: once this is answered, the other is served.
                let mut asks = tokio::net::TcpStream::connect(address).await.expect("it listens");
                let request = b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
                asks.write_all(request).await.expect("sent");
                let mut answer = String::new();
                asks.read_to_string(&mut answer).await.expect("answered");
                assert!(answer.ends_with("ok, 0 devices attached\n"), "{answer}");
                hub.fail("the disk is gone".into());
            };
            let served = serve(Listener(listener), Arc::clone(&hub), &mut signals);
            let served = tokio::time::timeout(10 * GRACE, served);
            let (served, ()) = tokio::join!(served, fail);
            drop(client);
            served.expect("it ends")
        });
        let error = served.expect_err("the store failed").to_string();
        assert!(error.contains("the disk is gone") && error.contains("start it again"), "{error}");
        authority.close().expect("it closes");
    }
}
