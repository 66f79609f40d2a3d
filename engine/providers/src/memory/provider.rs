//! The provider's side: the same store, asked without HTTP.

use std::io::{self, Read};
use std::ops::Bound;
use std::sync::Arc;

use super::url::Terms;
use super::{MemoryStore, Object, Parts, sha256};
use crate::capability::{Capabilities, Capability};
use crate::expiry::Grant;
use crate::http::{Headers, Method};
use crate::key::{ObjectKey, Prefix, hex};
use crate::limits::{MAX_MEMORY_UPLOADS, MAX_PAGE_OBJECTS};
use crate::provider::{
    Completed, Head, Listed, ObjectStorageProvider, Page, PartToSend, Presigned, ProviderError,
    StoredPart, check_parts,
};
use crate::upload::{Download, MultipartId, Upload};

const ID: &str = "memory";

impl MemoryStore {
    fn needs(&self, capability: Capability) -> Result<(), ProviderError> {
        if self.capabilities.has(capability) {
            return Ok(());
        }
        Err(ProviderError::Unsupported { provider: ID.to_owned(), capability })
    }

    /// Signs `terms`, which end with the grant if this store can do that.
    fn presign(
        &self,
        method: Method,
        mut terms: Terms,
        headers: Headers,
        grant: Grant,
        ends: Capability,
    ) -> Presigned {
        let ends = self.capabilities.has(ends);
        terms.expires_s = ends.then_some(grant.expires_at_ms() / 1000);
        let expires_at_ms = if ends { grant.expires_at_ms() } else { u64::MAX };
        Presigned { method, url: terms.sign(&self.secret, method), headers, expires_at_ms }
    }

    fn bound(&self, key: &ObjectKey, length: u64, sum: &[u8; 32]) -> Terms {
        let binds = |capability| self.capabilities.has(capability);
        Terms {
            path: key.as_str().to_owned(),
            length: binds(Capability::LengthBound).then_some(length),
            sha256: binds(Capability::ChecksumBound).then(|| hex(sum)),
            ..Terms::default()
        }
    }
}

fn no_such_upload(key: &ObjectKey, id: &MultipartId) -> ProviderError {
    ProviderError::NoSuchUpload { key: key.clone(), id: id.as_str().to_owned() }
}

impl ObjectStorageProvider for MemoryStore {
    fn id(&self) -> &str {
        ID
    }

    fn capabilities(&self) -> Capabilities {
        self.capabilities
    }

    fn presign_upload(&self, upload: &Upload, grant: Grant) -> Result<Presigned, ProviderError> {
        let mut terms = self.bound(upload.key(), upload.size_bytes(), upload.key().sha256());
        terms.mime = Some(upload.mime().to_owned());
        terms.absent = self.capabilities.has(Capability::IfNoneMatch);
        let headers = vec![("content-type".to_owned(), upload.mime().to_owned())];
        Ok(self.presign(Method::Put, terms, headers, grant, Capability::UploadExpires))
    }

    fn presign_download(
        &self,
        key: &ObjectKey,
        download: &Download,
        grant: Grant,
    ) -> Result<Presigned, ProviderError> {
        let (path, disposition) = (key.as_str().to_owned(), Some(download.header()));
        let terms = Terms { path, disposition, ..Terms::default() };
        Ok(self.presign(Method::Get, terms, Headers::new(), grant, Capability::DownloadExpires))
    }

    fn begin_multipart(&self, upload: &Upload, _: u64) -> Result<MultipartId, ProviderError> {
        self.needs(Capability::Multipart)?;
        let mut state = self.state();
        if state.uploads.len() >= MAX_MEMORY_UPLOADS {
            let (operation, code) = ("begin an upload", "full".to_owned());
            let message = format!("{MAX_MEMORY_UPLOADS} are open");
            return Err(ProviderError::Refused { operation, status: 507, code, message });
        }
        state.uploads_begun += 1;
        let id = format!("upload-{}", state.uploads_begun);
        let (key, mime) = (upload.key().as_str().to_owned(), upload.mime().to_owned());
        state.uploads.insert(id.clone(), Parts { key, mime, parts: Default::default() });
        Ok(MultipartId::new(&id)?)
    }

    fn stored_parts(
        &self,
        upload: &Upload,
        id: &MultipartId,
        _: u64,
    ) -> Result<Vec<StoredPart>, ProviderError> {
        let state = self.state();
        let open = state.uploads.get(id.as_str()).filter(|o| o.key == upload.key().as_str());
        let open = open.ok_or_else(|| no_such_upload(upload.key(), id))?;
        let part = |(number, bytes): (&u32, &Vec<u8>)| StoredPart {
            number: *number,
            size_bytes: bytes.len() as u64,
            etag: None,
            sha256: Some(sha256(bytes)),
        };
        Ok(open.parts.iter().map(part).collect())
    }

    fn presign_part(
        &self,
        upload: &Upload,
        id: &MultipartId,
        part: PartToSend,
        grant: Grant,
    ) -> Result<Presigned, ProviderError> {
        self.needs(Capability::Multipart)?;
        let (_, length) = upload.part(part.number)?;
        let mut terms = self.bound(upload.key(), length, &part.sha256);
        terms.upload = Some(id.as_str().to_owned());
        terms.part = Some(part.number);
        Ok(self.presign(Method::Put, terms, Headers::new(), grant, Capability::UploadExpires))
    }

    fn complete_multipart(
        &self,
        upload: &Upload,
        id: &MultipartId,
        now_ms: u64,
    ) -> Result<Completed, ProviderError> {
        check_parts(upload, self.stored_parts(upload, id, now_ms)?)?;
        let mut state = self.state();
        let open = state.uploads.remove(id.as_str());
        let open = open.ok_or_else(|| no_such_upload(upload.key(), id))?;
        let there = state.objects.contains_key(&open.key);
        if there && self.capabilities.has(Capability::IfNoneMatch) {
            return Ok(Completed::AlreadyThere);
        }
        let bytes = open.parts.into_values().collect::<Vec<_>>().concat();
        let object = Object { bytes: Arc::from(bytes), mime: open.mime, in_parts: true };
        state.objects.insert(open.key, object);
        Ok(Completed::Stored)
    }

    fn abort_multipart(
        &self,
        key: &ObjectKey,
        id: &MultipartId,
        _: u64,
    ) -> Result<(), ProviderError> {
        let mut state = self.state();
        if state.uploads.get(id.as_str()).is_some_and(|open| open.key == key.as_str()) {
            state.uploads.remove(id.as_str());
        }
        Ok(())
    }

    fn head(&self, key: &ObjectKey, _: u64) -> Result<Option<Head>, ProviderError> {
        let object = self.state().objects.get(key.as_str()).cloned();
        Ok(object.map(|object| Head {
            size_bytes: object.bytes.len() as u64,
            sha256: (!object.in_parts).then(|| sha256(&object.bytes)),
        }))
    }

    fn read(&self, key: &ObjectKey, _: u64) -> Result<Option<Box<dyn Read + Send>>, ProviderError> {
        let reader = |bytes| Box::new(io::Cursor::new(bytes)) as Box<dyn Read + Send>;
        Ok(self.bytes(key).map(reader))
    }

    fn delete(&self, key: &ObjectKey, _: u64) -> Result<(), ProviderError> {
        self.needs(Capability::Delete)?;
        self.state().objects.remove(key.as_str());
        Ok(())
    }

    fn list(
        &self,
        prefix: &Prefix,
        after: Option<&str>,
        max_objects: usize,
        _: u64,
    ) -> Result<Page, ProviderError> {
        self.needs(Capability::List)?;
        let state = self.state();
        let from = match after {
            Some(after) => Bound::Excluded(after),
            None => Bound::Included(prefix.as_str()),
        };
        let found = state.objects.range::<str, _>((from, Bound::Unbounded));
        let mut found = found.take_while(|(key, _)| key.starts_with(prefix.as_str())).peekable();
        let mut page = Page::default();
        for _ in 0..max_objects.clamp(1, MAX_PAGE_OBJECTS) {
            let Some((text, object)) = found.next() else { break };
            let size_bytes = object.bytes.len() as u64;
            match ObjectKey::read(text) {
                Some(key) => page.objects.push(Listed { key, size_bytes }),
                None => page.strays.push(text.clone()),
            }
            page.next = found.peek().map(|_| text.clone());
        }
        Ok(page)
    }
}
