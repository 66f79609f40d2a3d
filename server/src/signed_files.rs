//! Files over plain HTTP: URLs that are signed for a member, and the requests that come with them.
//! A browser can show a file by such a URL, and bring one.

use std::collections::BTreeMap;
use std::io::Read;
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::body::{Body, Bytes};
use axum::extract::{ConnectInfo, Path, Query, State};
use axum::http::{HeaderMap, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use futures_util::StreamExt as _;
use lastword::core::id::WorkspaceName;
use lastword::core::protocol::SignedUrl;
use lastword::store::BlobError;
use lastword::{BlobHash, Error, MemberFile, ObjectCommit, ObjectOffer, UploadRequest};
use lastword_providers::expiry::Expiry;
use lastword_providers::key::ObjectKey;
use serde::Deserialize;
use serde_json::json;
use tokio::sync::{Semaphore, SemaphorePermit, mpsc};
use tokio::time::{Instant, timeout, timeout_at};

use crate::embedded::ANY_TYPE;
use crate::hub::{Hub, Served};
use crate::listener::Upgraded;
use crate::signed::Grant;

/// Pieces of a body that wait for the other side.
const WAITING_PIECES: usize = 4;
/// A peer that takes or brings nothing for this long is gone.
const PIECE_LIMIT: Duration = Duration::from_secs(30);
/// A body of any length has so long, and one second more for each of [`LEAST_RATE`] bytes.
const BODY_LIMIT: Duration = Duration::from_secs(60);
/// Bytes a second below which a body is cut.
const LEAST_RATE: u64 = 64 * 1024;
/// Bodies that are read or brought at once: each holds a thread.
const MAX_BODIES: usize = 128;

static BODIES: Semaphore = Semaphore::const_new(MAX_BODIES);

/// How long a body of that length may take.
fn body_limit(bytes: u64) -> Duration {
    BODY_LIMIT + Duration::from_secs(bytes / LEAST_RATE)
}

fn busy() -> Response {
    told((StatusCode::SERVICE_UNAVAILABLE, format!("{MAX_BODIES} files are carried already")))
}

/// What somebody wants a URL for.
#[derive(Debug, Deserialize)]
pub struct Asked {
    workspace_id: String,
    hash: String,
    #[serde(default)]
    mime_type: Option<String>,
    #[serde(default)]
    size_bytes: Option<u64>,
    #[serde(default)]
    expires_in_ms: Option<u64>,
    #[serde(default)]
    disposition: Option<String>,
}

/// What a signed URL says.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Said {
    size: u64,
    r#type: String,
    disposition: String,
    name: String,
    user: String,
    expires: i64,
    signature: String,
}

type Answer = Result<Response, (StatusCode, String)>;

fn forbidden() -> (StatusCode, String) {
    (StatusCode::FORBIDDEN, "no member of the workspace, or not allowed to".into())
}

fn told((status, message): (StatusCode, String)) -> Response {
    (status, Json(json!({ "error": message }))).into_response()
}

/// What an error of the engine is in HTTP.
fn failed(hub: &Hub, error: &Error) -> (StatusCode, String) {
    hub.end_if_poisoned(error);
    let status = match error {
        Error::NoMember { .. } => return forbidden(),
        Error::UploadRefused { .. } => StatusCode::FORBIDDEN,
        Error::FilesOverQuota { .. }
        | Error::RoomReserved { .. }
        | Error::UnfinishedUploads { .. } => StatusCode::INSUFFICIENT_STORAGE,
        Error::Blob(BlobError::Missing { .. }) => StatusCode::NOT_FOUND,
        Error::Blob(BlobError::TooLarge { .. }) => StatusCode::PAYLOAD_TOO_LARGE,
        Error::ObjectBusy { .. } => StatusCode::CONFLICT,
        Error::ObjectMissing { .. } | Error::ObjectWrong { .. } => StatusCode::UNPROCESSABLE_ENTITY,
        Error::ObjectStore { .. } | Error::ObjectElsewhere { .. } => {
            StatusCode::SERVICE_UNAVAILABLE
        }
        Error::Blob(BlobError::Manifest { .. } | BlobError::Source { .. }) => {
            StatusCode::UNPROCESSABLE_ENTITY
        }
        _ => StatusCode::INTERNAL_SERVER_ERROR,
    };
    (status, error.to_string())
}

/// What is asked for, as far as it makes sense and comes from somebody.
fn grant(
    hub: &Hub,
    headers: &HeaderMap,
    asked: &Asked,
    method: &str,
) -> Result<Grant, (StatusCode, String)> {
    let bad = |reason: String| (StatusCode::UNPROCESSABLE_ENTITY, reason);
    let hash = BlobHash::new(&asked.hash).map_err(|error| bad(error.to_string()))?;
    let user = hub.user_of_request(headers).ok_or_else(forbidden)?;
    let workspace = WorkspaceName::new(&asked.workspace_id).map_err(|_| forbidden())?;
    let disposition = asked.disposition.clone().unwrap_or_else(|| "attachment".into());
    if !["inline", "attachment"].contains(&disposition.as_str()) {
        return Err(bad("disposition is inline or attachment".into()));
    }
    let mime_type = asked.mime_type.clone().unwrap_or_else(|| ANY_TYPE.into());
    if header::HeaderValue::from_str(&mime_type).is_err() {
        return Err(bad("mime_type is no media type".into()));
    }
    let size_bytes = match (method, asked.size_bytes) {
        // Whatever came is compared with it.
        ("PUT", None) => return Err(bad("size_bytes is missing".into())),
        (_, size_bytes) => size_bytes.unwrap_or(0),
    };
    let holds = i64::try_from(expiry(asked).as_secs() * 1000).unwrap_or(0);
    Ok(Grant {
        method: method.into(),
        workspace,
        hash,
        size_bytes,
        mime_type,
        disposition,
        file_name: String::new(),
        user,
        expires_ms: lastword::now_ms().saturating_add(holds),
    })
}

fn url(hub: &Hub, headers: &HeaderMap, grant: &Grant) -> Answer {
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    let key = ObjectKey::new(&grant.workspace, grant.hash)
        .map_err(|error| (StatusCode::UNPROCESSABLE_ENTITY, error.to_string()))?;
    let url = format!("http://{host}{}", hub.signer.path(&key, grant));
    let answer = json!({
        "url": url, "method": grant.method, "expiresAt": grant.expires_ms,
        "disposition": grant.disposition, "storageId": grant.hash.to_string(),
    });
    Ok(Json(answer).into_response())
}

/// `POST /api/storage/presign-download`: a URL by which anybody reads one file for a while.
pub async fn presign_download(
    State(served): State<Served>,
    headers: HeaderMap,
    Json(asked): Json<Asked>,
) -> Response {
    let hub = served.hub;
    aside(move || -> Answer {
        let mut grant = grant(&hub, &headers, &asked, "GET")?;
        let described = hub.authority.described(&grant.workspace, &grant.hash);
        let (mime_type, file_name) = described.map_err(|error| failed(&hub, &error))?;
        grant.file_name = file_name;
        if asked.mime_type.is_none() && header::HeaderValue::from_str(&mime_type).is_ok() {
            grant.mime_type = if mime_type.is_empty() { ANY_TYPE.into() } else { mime_type };
        }
        let found = hub.authority.find_object(&grant.workspace, &grant.user, &grant.hash);
        let opened = match hub.authority.open_file(&grant.workspace, &grant.user, &grant.hash) {
            Err(Error::Blob(BlobError::Missing { hash })) => {
                let file = found.map_err(|error| failed(&hub, &error))?;
                let missing = || failed(&hub, &BlobError::Missing { hash }.into());
                let signed = file.ok_or_else(missing)?.url(&grant.download(), expiry(&asked));
                return Ok(store_url(&grant, signed.map_err(|error| failed(&hub, &error))?));
            }
            opened => opened.map_err(|error| failed(&hub, &error))?,
        };
        grant.size_bytes = opened.size_bytes();
        url(&hub, &headers, &grant)
    })
    .await
}

fn expiry(asked: &Asked) -> Expiry {
    asked.expires_in_ms.map_or_else(Expiry::default, |ms| Expiry::within(Duration::from_millis(ms)))
}

/// A URL of an object store, with the headers that go with it.
fn store_url(grant: &Grant, signed: SignedUrl) -> Response {
    let headers: BTreeMap<String, String> = signed.headers.into_iter().collect();
    let answer = json!({
        "url": signed.url, "method": grant.method, "expiresAt": signed.expires_ms,
        "headers": headers, "disposition": grant.disposition,
        "storageId": grant.hash.to_string(),
    });
    Json(answer).into_response()
}

/// Answers on a thread that may block.
async fn aside(answer: impl FnOnce() -> Answer + Send + 'static) -> Response {
    match tokio::task::spawn_blocking(answer).await {
        Ok(answer) => answer.unwrap_or_else(told),
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

/// `POST /api/storage/presign-upload`: a URL by which anybody brings one file for a while.
pub async fn presign_upload(
    State(served): State<Served>,
    headers: HeaderMap,
    Json(asked): Json<Asked>,
) -> Response {
    let hub = served.hub;
    aside(move || -> Answer {
        let grant = grant(&hub, &headers, &asked, "PUT")?;
        let checked = hub.authority.check_upload(&request(&grant));
        checked.map_err(|error| failed(&hub, &error))?;
        let goes = hub.authority.goes_to_store(&grant.workspace, &grant.hash);
        if !goes.map_err(|error| failed(&hub, &error))? {
            return url(&hub, &headers, &grant);
        }
        let signed = match hub.authority.offer_object(&request(&grant), false) {
            Ok(ObjectOffer::Stored) => {
                let storage_id = grant.hash.to_string();
                return Ok(Json(json!({ "stored": true, "storageId": storage_id })).into_response());
            }
            Ok(ObjectOffer::Coming(coming)) => coming.url(0, [0; 32], expiry(&asked)),
            Err(error) => Err(error),
        };
        Ok(store_url(&grant, signed.map_err(|error| failed(&hub, &error))?))
    })
    .await
}

/// `POST /api/storage/commit`: says that a file was brought by a URL of an object store. It is
/// compared with its name, and only then is it there. What this server keeps itself is there once
/// it was brought.
pub async fn commit(
    State(served): State<Served>,
    ConnectInfo(upgraded): ConnectInfo<Upgraded>,
    headers: HeaderMap,
    Json(asked): Json<Asked>,
) -> Response {
    let hub = served.hub;
    let Ok(_place) = BODIES.try_acquire() else { return busy() };
    let answer = aside(move || -> Answer {
        let grant = grant(&hub, &headers, &asked, "PUT")?;
        let failed = |error| failed(&hub, &error);
        if hub.authority.open_file(&grant.workspace, &grant.user, &grant.hash).is_ok() {
            return Ok(Json(json!({ "ok": true })).into_response());
        }
        // Comparing takes as long as the file does; whoever asks for it is known by now.
        upgraded.set();
        match hub.authority.offer_object(&request(&grant), false).map_err(failed)? {
            ObjectOffer::Stored => {}
            ObjectOffer::Coming(mut coming) => {
                let committed = hub.authority.commit_object(&mut coming, &mut || {});
                if committed.map_err(failed)? == ObjectCommit::Incomplete {
                    return Err((StatusCode::CONFLICT, "parts of the file are missing".into()));
                }
            }
        }
        Ok(Json(json!({ "ok": true })).into_response())
    })
    .await;
    // The connection has no other limit of time any more.
    ([(header::CONNECTION, "close")], answer).into_response()
}

fn request(grant: &Grant) -> UploadRequest<'_> {
    UploadRequest {
        workspace: &grant.workspace,
        user: &grant.user,
        hash: grant.hash,
        size_bytes: grant.size_bytes,
        mime_type: &grant.mime_type,
        name: "",
    }
}

/// What a request with a signed URL may do.
fn checked(
    hub: &Hub,
    method: &Method,
    key: &str,
    said: Said,
) -> Result<Grant, (StatusCode, String)> {
    let Said { size, r#type, disposition, name, user, expires, signature } = said;
    let key = ObjectKey::read(key).ok_or_else(forbidden)?;
    let grant = Grant {
        method: method.as_str().into(),
        workspace: key.workspace().clone(),
        hash: BlobHash::Sha256(*key.sha256()),
        size_bytes: size,
        mime_type: r#type,
        disposition,
        file_name: name,
        user,
        expires_ms: expires,
    };
    let checked = hub.signer.check(&grant, &signature, lastword::now_ms());
    checked.map_err(|error| (StatusCode::FORBIDDEN, error.to_string()))?;
    Ok(grant)
}

/// `GET /files/{key}`: the bytes of a file, or a range of them. Its user must still be
/// a member.
pub async fn get(
    State(served): State<Served>,
    ConnectInfo(upgraded): ConnectInfo<Upgraded>,
    Path(key): Path<String>,
    Query(said): Query<Said>,
    headers: HeaderMap,
) -> Response {
    let hub = served.hub;
    let grant = match checked(&hub, &Method::GET, &key, said) {
        Ok(grant) => grant,
        Err(no) => return told(no),
    };
    let reader = match hub.authority.open_file(&grant.workspace, &grant.user, &grant.hash) {
        Ok(reader) => reader,
        Err(error) => return told(failed(&hub, &error)),
    };
    let Ok(place) = BODIES.try_acquire() else { return busy() };
    upgraded.set();
    let size = reader.size_bytes();
    let range = headers.get(header::RANGE).and_then(|range| range.to_str().ok());
    let Some((from, to)) = asked_range(range, size) else {
        let unsatisfied = [(header::CONTENT_RANGE, format!("bytes */{size}"))];
        return (StatusCode::RANGE_NOT_SATISFIABLE, unsatisfied).into_response();
    };
    let is_part = range.is_some() && (from, to) != (0, size);
    let status = if is_part { StatusCode::PARTIAL_CONTENT } else { StatusCode::OK };
    let mut answer = Response::builder()
        .status(status)
        .header(header::CONTENT_TYPE, &grant.mime_type)
        .header(header::CONTENT_LENGTH, to - from)
        .header(header::CONTENT_DISPOSITION, grant.download().header())
        .header(header::CACHE_CONTROL, "private")
        // The connection has no other limit of time any more.
        .header(header::CONNECTION, "close")
        .header(header::ACCEPT_RANGES, "bytes")
        .header(header::ETAG, format!("\"{}\"", grant.hash))
        // What an uploader calls a picture must not run as a page of this server.
        .header(header::X_CONTENT_TYPE_OPTIONS, "nosniff")
        .header(header::CONTENT_SECURITY_POLICY, "sandbox");
    if is_part {
        let range = format!("bytes {from}-{}/{size}", to.saturating_sub(1));
        answer = answer.header(header::CONTENT_RANGE, range);
    }
    answer
        .body(pieces(reader, place, from, to))
        .unwrap_or_else(|_| StatusCode::INTERNAL_SERVER_ERROR.into_response())
}

/// The bytes of a range header, all without one; none if there is no such range. Of several ranges
/// none is served: then the whole file comes, as the standard allows.
fn asked_range(range: Option<&str>, size: u64) -> Option<(u64, u64)> {
    let Some(range) = range.and_then(|range| range.strip_prefix("bytes=")) else {
        return Some((0, size));
    };
    let Some((first, last)) = range.split_once('-').filter(|_| !range.contains(',')) else {
        return Some((0, size));
    };
    let (from, to) = match (first.trim(), last.trim()) {
        ("", last) => (size.saturating_sub(last.parse().ok()?), size),
        (first, "") => (first.parse().ok()?, size),
        (first, last) => (first.parse().ok()?, last.parse::<u64>().ok()?.saturating_add(1)),
    };
    let to = to.min(size);
    (from < to).then_some((from, to))
}

/// Reads on a thread that may block, and hands out what it reads as the other side takes it. An
/// error ends the body early, which its length tells.
fn pieces(mut reader: MemberFile, place: SemaphorePermit<'static>, from: u64, to: u64) -> Body {
    let (give, take) = mpsc::channel::<Result<Bytes, String>>(WAITING_PIECES);
    let runtime = tokio::runtime::Handle::current();
    let until = Instant::now() + body_limit(to - from);
    tokio::task::spawn_blocking(move || {
        let _place = place;
        let mut at = from;
        while at < to {
            let piece = match reader.read_from(at) {
                Ok(bytes) => {
                    let most = usize::try_from(to - at).unwrap_or(usize::MAX).min(bytes.len());
                    let piece = Bytes::copy_from_slice(bytes.get(..most).unwrap_or_default());
                    at += piece.len() as u64;
                    Ok(piece)
                }
                Err(error) => {
                    tracing::warn!(%error, "a file is cut short for whoever reads it");
                    Err(error.to_string())
                }
            };
            let is_last = piece.as_ref().map_or(true, Bytes::is_empty);
            let limit = until.min(Instant::now() + PIECE_LIMIT);
            let given = runtime.block_on(timeout_at(limit, give.send(piece)));
            if is_last || !matches!(given, Ok(Ok(()))) {
                break;
            }
        }
    });
    let stream = futures_util::stream::unfold(take, |mut take| async move {
        take.recv().await.map(|piece| (piece, take))
    });
    Body::from_stream(stream)
}

/// `PUT /files/{key}`: brings a file as a whole. Length and media type must be those
/// that were signed, and the bytes those that the hash names.
pub async fn put(
    State(served): State<Served>,
    ConnectInfo(upgraded): ConnectInfo<Upgraded>,
    Path(key): Path<String>,
    Query(said): Query<Said>,
    headers: HeaderMap,
    body: Body,
) -> Response {
    let hub = served.hub;
    let grant = match checked(&hub, &Method::PUT, &key, said) {
        Ok(grant) => grant,
        Err(no) => return told(no),
    };
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
    if text(header::CONTENT_TYPE) != Some(grant.mime_type.as_str()) {
        let message = format!("this URL is for content type {}", grant.mime_type);
        return told((StatusCode::UNPROCESSABLE_ENTITY, message));
    }
    if text(header::CONTENT_LENGTH).and_then(|len| len.parse().ok()) != Some(grant.size_bytes) {
        let message = format!("this URL is for exactly {} bytes", grant.size_bytes);
        return told((StatusCode::UNPROCESSABLE_ENTITY, message));
    }
    let Ok(_place) = BODIES.try_acquire() else { return busy() };
    upgraded.set();
    let answer = match stored(&hub, grant, body).await {
        Ok(()) => Json(json!({ "ok": true })).into_response(),
        Err(no) => told(no),
    };
    // The connection has no other limit of time any more.
    ([(header::CONNECTION, "close")], answer).into_response()
}

async fn stored(hub: &Arc<Hub>, grant: Grant, body: Body) -> Result<(), (StatusCode, String)> {
    let (give, take) = mpsc::channel::<Bytes>(WAITING_PIECES);
    let until = Instant::now() + body_limit(grant.size_bytes);
    let own = Arc::clone(hub);
    let storing = tokio::task::spawn_blocking(move || {
        let stored = own.authority.store_file(&request(&grant), Pieces { take, now: Bytes::new() });
        stored.map_err(|error| failed(&own, &error))
    });
    let mut body = body.into_data_stream();
    let limit = || until.min(Instant::now() + PIECE_LIMIT);
    while let Ok(Some(Ok(piece))) = timeout_at(limit(), body.next()).await {
        // One that is not taken has failed: the answer says why.
        if !matches!(timeout(PIECE_LIMIT, give.send(piece)).await, Ok(Ok(()))) {
            break;
        }
    }
    // What is cut short is not the file, and is not kept.
    drop(give);
    storing.await.map_err(|_| (StatusCode::INTERNAL_SERVER_ERROR, "it failed".to_owned()))?
}

/// A body, to be read on a thread that may block.
struct Pieces {
    take: mpsc::Receiver<Bytes>,
    now: Bytes,
}

impl Read for Pieces {
    fn read(&mut self, out: &mut [u8]) -> std::io::Result<usize> {
        while self.now.is_empty() {
            match self.take.blocking_recv() {
                Some(piece) => self.now = piece,
                None => return Ok(0),
            }
        }
        let taken = self.now.split_to(self.now.len().min(out.len()));
        let (now, _) = out.split_at_mut(taken.len());
        now.copy_from_slice(&taken);
        Ok(taken.len())
    }
}

#[cfg(test)]
mod tests {
    use super::asked_range;

    /// RFC 9110, section 14: one range, from either end, cut at the end of the file.
    #[test]
    fn ranges_are_those_of_the_standard() {
        assert_eq!(asked_range(None, 10), Some((0, 10)));
        assert_eq!(asked_range(Some("bytes=2-4"), 10), Some((2, 5)));
        assert_eq!(asked_range(Some("bytes=2-"), 10), Some((2, 10)));
        assert_eq!(asked_range(Some("bytes=-3"), 10), Some((7, 10)));
        assert_eq!(asked_range(Some("bytes=-30"), 10), Some((0, 10)));
        assert_eq!(asked_range(Some("bytes=8-99"), 10), Some((8, 10)));
        assert_eq!(asked_range(Some("bytes=10-"), 10), None);
        assert_eq!(asked_range(Some("bytes=4-2"), 10), None);
        assert_eq!(asked_range(Some("bytes=x-2"), 10), None);
        assert_eq!(asked_range(Some("bytes=0-1,4-5"), 10), Some((0, 10)));
        assert_eq!(asked_range(Some("lines=1-2"), 10), Some((0, 10)));
        assert_eq!(asked_range(None, 0), Some((0, 0)));
    }
}
