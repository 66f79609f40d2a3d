//! The store's side of HTTP: what a signed URL does.

use std::sync::Arc;

use super::url::{Denied, Terms};
use super::{MemoryStore, Object, State, sha256};
use crate::capability::Capability;
use crate::http::{Headers, HttpClient, HttpError, Method, Reply, Request};
use crate::key::hex;
use crate::limits::MAX_MEMORY_OBJECTS;

impl HttpClient for MemoryStore {
    fn send(&self, request: Request) -> Result<Reply, HttpError> {
        let mut state = self.state();
        let now_ms = state.now_ms;
        let terms = match Terms::check(&self.secret, request.method, &request.url, now_ms) {
            Ok(terms) => terms,
            Err(Denied::Unsigned) => return Ok(refused(403, "unsigned")),
            Err(Denied::Signature) => return Ok(refused(403, "signature")),
            Err(Denied::Expired) => return Ok(refused(403, "expired")),
        };
        Ok(match request.method {
            Method::Get => get(&state, &terms, &request),
            Method::Put => self.put(&mut state, &terms, request),
            _ => refused(405, "method"),
        })
    }
}

impl MemoryStore {
    fn put(&self, state: &mut State, terms: &Terms, request: Request) -> Reply {
        let header = |name: &str| {
            let found = request.headers.iter().find(|(n, _)| n == name);
            found.map(|(_, value)| value.as_str())
        };
        if terms.mime.as_deref() != header("content-type") {
            return refused(403, "type");
        }
        let bytes = request.body;
        if terms.length.is_some_and(|length| length != bytes.len() as u64) {
            return refused(403, "length");
        }
        if terms.sha256.as_ref().is_some_and(|sum| *sum != hex(&sha256(&bytes))) {
            return refused(400, "checksum");
        }
        if let (Some(upload), Some(part)) = (&terms.upload, terms.part) {
            let Some(open) = state.uploads.get_mut(upload).filter(|open| open.key == terms.path)
            else {
                return refused(404, "upload");
            };
            open.parts.insert(part, bytes);
            return Reply::new(200, Headers::new(), Vec::new());
        }
        let there = state.objects.contains_key(&terms.path);
        if there && terms.absent && self.capabilities.has(Capability::IfNoneMatch) {
            return refused(412, "there");
        }
        if !there && state.objects.len() >= MAX_MEMORY_OBJECTS {
            return refused(507, "full");
        }
        let mime = terms.mime.clone().unwrap_or_default();
        let object = Object { bytes: Arc::from(bytes), mime, in_parts: false };
        state.objects.insert(terms.path.clone(), object);
        Reply::new(200, Headers::new(), Vec::new())
    }
}

fn get(state: &State, terms: &Terms, request: &Request) -> Reply {
    let Some(object) = state.objects.get(&terms.path) else { return refused(404, "object") };
    let mut headers = vec![("content-type".to_owned(), object.mime.clone())];
    if let Some(disposition) = &terms.disposition {
        headers.push(("content-disposition".to_owned(), disposition.clone()));
    }
    let Some((_, range)) = request.headers.iter().find(|(name, _)| name == "range") else {
        return Reply::new(200, headers, object.bytes.to_vec());
    };
    let len = object.bytes.len();
    let bounds = read_range(range, len).filter(|(first, end)| first < end);
    let part = bounds.and_then(|(first, end)| object.bytes.get(first..end));
    let (Some((first, end)), Some(part)) = (bounds, part) else { return refused(416, "range") };
    headers.push(("content-range".to_owned(), format!("bytes {first}-{}/{len}", end - 1)));
    Reply::new(206, headers, part.to_vec())
}

/// First byte and the one after the last, of `bytes=a-b`, `bytes=a-` and `bytes=-n`.
fn read_range(range: &str, len: usize) -> Option<(usize, usize)> {
    let (first, last) = range.strip_prefix("bytes=")?.split_once('-')?;
    if first.is_empty() {
        return Some((len.saturating_sub(last.parse().ok()?), len));
    }
    let last = if last.is_empty() { usize::MAX } else { last.parse().ok()? };
    Some((first.parse().ok()?, last.saturating_add(1).min(len)))
}

fn refused(status: u16, code: &str) -> Reply {
    Reply::new(status, Headers::new(), code.as_bytes().to_vec())
}
