//! HTTP to object stores, as far as a device needs it: one request on a connection of its own, to a
//! URL that the server has signed.
//!
//! It speaks plain `http://`, as the rest of the device does. It follows no redirect: a signed URL
//! is good for one address.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use hyper::body::{Body as HttpBody, Bytes, Frame, Incoming, SizeHint};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::header::{CONTENT_LENGTH, HOST, RANGE};
use hyper::rt::ReadBufCursor;
use hyper::{Method, Request, Response, Uri};
use lastword_core::protocol::SignedUrl;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::time::timeout;

use crate::transfer::{Ending, Pieces};

/// A store that does not accept a connection for this long is away.
const CONNECT_LIMIT: Duration = Duration::from_secs(10);
/// A store that takes or sends nothing for this long is gone.
const SILENCE_LIMIT: Duration = Duration::from_secs(60);
/// Pieces of a body that wait for the socket.
const WAITING_PIECES: usize = 2;
/// Bytes that are read from a socket at once.
const READ_BYTES: usize = 16 * 1024;

const SILENT: &str = "the store of files is silent";

/// Sends a body to a signed URL; the status of the answer.
pub(super) async fn put(url: &SignedUrl, len: u64, pieces: Pieces<'_>) -> Result<u16, Ending> {
    let cut = |why: String| Ending::Cut { why };
    let (give, take) = mpsc::channel(WAITING_PIECES);
    let (mut sender, request) =
        prepared(Method::PUT, url, Sent { take: Some(take), left: len }).await.map_err(cut)?;
    let mut answering = std::pin::pin!(sender.send_request(request));
    let answered = |answer: hyper::Result<Response<Incoming>>| {
        answer.map(|answer| answer.status().as_u16()).map_err(|error| cut(error.to_string()))
    };
    while let Some(piece) = pieces()? {
        tokio::select! {
            // A store that refuses need not take the rest first.
            answer = &mut answering => return answered(answer),
            given = timeout(SILENCE_LIMIT, give.send(Bytes::from(piece))) => match given {
                Ok(Ok(())) => {}
                // Nobody takes it: the answer says why.
                Ok(Err(_)) => break,
                Err(_) => return Err(cut(SILENT.into())),
            },
        }
    }
    drop(give);
    match timeout(SILENCE_LIMIT, answering).await {
        Ok(answer) => answered(answer),
        Err(_) => Err(cut(SILENT.into())),
    }
}

/// Asks for a range of what a signed URL gives; the status, and the body as it comes.
pub(super) async fn get(url: &SignedUrl, begin: u64, end: u64) -> Result<(u16, Body), String> {
    let (mut sender, mut request) =
        prepared(Method::GET, url, Sent { take: None, left: 0 }).await?;
    // There is no range of nothing.
    if let Some(last) = end.checked_sub(1) {
        let range = format!("bytes={begin}-{last}");
        let range = range.parse().map_err(|_| "no range of the file".to_owned())?;
        request.headers_mut().insert(RANGE, range);
    }
    let answer = timeout(SILENCE_LIMIT, sender.send_request(request)).await;
    let answer = answer.map_err(|_| SILENT.to_owned())?.map_err(|error| error.to_string())?;
    let status = answer.status().as_u16();
    Ok((status, Body { incoming: answer.into_body(), now: Bytes::new(), _sender: sender }))
}

/// A connection to the store of a URL, and the request that is to be sent on it.
async fn prepared(
    method: Method,
    url: &SignedUrl,
    body: Sent,
) -> Result<(SendRequest<Sent>, Request<Sent>), String> {
    // None of these may show the URL: whoever reads it could use it.
    let uri: Uri = url.url.parse().map_err(|_| "the server signed what is no URL".to_owned())?;
    match uri.scheme_str() {
        Some("http") => {}
        Some("https") => {
            return Err("the store of files is at https://, which this version does not speak: \
                        put a proxy that adds TLS before it"
                .into());
        }
        _ => return Err("the store of files is at no http:// address".into()),
    }
    let host = uri.host().ok_or("the URL of the store of files has no host")?;
    let authority = uri.authority().map(ToString::to_string).unwrap_or_default();
    let address = (host.trim_matches(['[', ']']), uri.port_u16().unwrap_or(80));
    let connected = timeout(CONNECT_LIMIT, TcpStream::connect(address)).await;
    let reached = |why: String| format!("the store of files at {authority} is not reached: {why}");
    let socket = connected.map_err(|_| reached("no answer".into()))?;
    let socket = socket.map_err(|error| reached(error.to_string()))?;
    let (sender, connection) =
        handshake(Socket(socket)).await.map_err(|error| error.to_string())?;
    // It ends with the request: whoever waits for the answer hears why.
    tokio::spawn(async move { drop(connection.await) });
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    let mut request = Request::builder().method(method).uri(path).header(HOST, &authority);
    if body.take.is_some() {
        request = request.header(CONTENT_LENGTH, body.left);
    }
    for (name, value) in &url.headers {
        request = request.header(name, value);
    }
    let request = request.body(body).map_err(|_| "the server signed no header".to_owned())?;
    Ok((sender, request))
}

/// A body that is sent as its pieces come.
struct Sent {
    take: Option<mpsc::Receiver<Bytes>>,
    left: u64,
}

impl HttpBody for Sent {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let Some(take) = &mut self.take else { return Poll::Ready(None) };
        take.poll_recv(context).map(|piece| {
            let piece = piece?;
            self.left = self.left.saturating_sub(piece.len() as u64);
            Some(Ok(Frame::data(piece)))
        })
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }

    fn is_end_stream(&self) -> bool {
        self.left == 0
    }
}

/// A body that comes.
pub(super) struct Body {
    incoming: Incoming,
    now: Bytes,
    /// The connection ends with it.
    _sender: SendRequest<Sent>,
}

impl Body {
    /// What has come, as much as fits; nothing at the end.
    pub(super) async fn read(&mut self, out: &mut [u8]) -> Result<usize, String> {
        while self.now.is_empty() {
            let frame =
                std::future::poll_fn(|context| Pin::new(&mut self.incoming).poll_frame(context));
            match timeout(SILENCE_LIMIT, frame).await {
                Ok(Some(Ok(frame))) => self.now = frame.into_data().unwrap_or_default(),
                Ok(Some(Err(error))) => return Err(error.to_string()),
                Ok(None) => return Ok(0),
                Err(_) => return Err(SILENT.into()),
            }
        }
        let taken = self.now.split_to(self.now.len().min(out.len()));
        let (filled, _) = out.split_at_mut(taken.len());
        filled.copy_from_slice(&taken);
        Ok(taken.len())
    }
}

/// A socket as hyper takes it.
struct Socket(TcpStream);

impl hyper::rt::Read for Socket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        mut into: ReadBufCursor<'_>,
    ) -> Poll<std::io::Result<()>> {
        let mut bytes = [0; READ_BYTES];
        let (room, _) = bytes.split_at_mut(into.remaining().min(READ_BYTES));
        let mut buffer = ReadBuf::new(room);
        let read = Pin::new(&mut self.0).poll_read(context, &mut buffer);
        if matches!(read, Poll::Ready(Ok(()))) {
            into.put_slice(buffer.filled());
        }
        read
    }
}

impl hyper::rt::Write for Socket {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(context, bytes)
    }

    fn poll_flush(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(context)
    }

    fn poll_shutdown(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(context)
    }
}
