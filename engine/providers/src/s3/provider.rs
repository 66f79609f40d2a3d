//! The operations of S3 that we use: PutObject, GetObject, HeadObject, DeleteObject, ListObjectsV2,
//! and those of multipart uploads.

use std::io::Read;

use super::answer::{Answer, completion, malformed, read_sum, write_sum};
use super::{Call, S3Provider};
use crate::capability::{Capabilities, Capability};
use crate::expiry::Grant;
use crate::http::{Method, Reply};
use crate::key::{ObjectKey, Prefix};
use crate::limits::{MAX_PAGE_OBJECTS, MAX_PART_PAGES};
use crate::provider::{
    Completed, Head, ObjectStorageProvider, Page, PartToSend, Presigned, ProviderError, StoredPart,
    check_parts,
};
use crate::upload::{Download, MultipartId, Upload};

impl S3Provider {
    fn needs(&self, capability: Capability) -> Result<(), ProviderError> {
        if self.capabilities.has(capability) {
            return Ok(());
        }
        Err(ProviderError::Unsupported { provider: self.id.clone(), capability })
    }

    /// An upload whose length and checksum are bound, as far as this store binds them.
    fn bound<'a>(&self, mut call: Call<'a>, length: u64, sum: &[u8; 32]) -> Call<'a> {
        if self.capabilities.has(Capability::LengthBound) {
            call = call.header("content-length", &length.to_string());
        }
        if self.capabilities.has(Capability::ChecksumBound) {
            call = call.header("x-amz-checksum-sha256", &write_sum(sum));
        }
        call
    }

    /// The answer to a call about an upload in parts.
    fn about_upload(
        &self,
        operation: &'static str,
        upload: (&ObjectKey, &MultipartId),
        call: Call<'_>,
        body: Vec<u8>,
        now_ms: u64,
    ) -> Result<(u16, Answer), ProviderError> {
        let call = call.query("uploadId", upload.1.as_str());
        let reply = self.send(operation, call, body, now_ms)?;
        let status = reply.status;
        let answer = Answer::new(operation, reply)?;
        match answer.refusal(status) {
            ProviderError::Refused { code, .. } if status == 404 && code == "NoSuchUpload" => {
                let (key, id) = (upload.0.clone(), upload.1.as_str().to_owned());
                Err(ProviderError::NoSuchUpload { key, id })
            }
            _ => Ok((status, answer)),
        }
    }
}

/// The reply if its status is among these.
fn expect(operation: &'static str, reply: Reply, good: &[u16]) -> Result<Reply, ProviderError> {
    let status = reply.status;
    if good.contains(&status) {
        return Ok(reply);
    }
    Err(Answer::new(operation, reply)?.refusal(status))
}

impl ObjectStorageProvider for S3Provider {
    fn id(&self) -> &str {
        &self.id
    }

    fn capabilities(&self) -> Capabilities {
        self.capabilities
    }

    fn presign_upload(&self, upload: &Upload, grant: Grant) -> Result<Presigned, ProviderError> {
        let call = Call::new(Method::Put, Some(upload.key())).header("content-type", upload.mime());
        let mut call = self.bound(call, upload.size_bytes(), upload.key().sha256());
        if self.capabilities.has(Capability::IfNoneMatch) {
            call = call.header("if-none-match", "*");
        }
        Ok(self.presign(call, grant))
    }

    fn presign_download(
        &self,
        key: &ObjectKey,
        download: &Download,
        grant: Grant,
    ) -> Result<Presigned, ProviderError> {
        let call = Call::new(Method::Get, Some(key));
        Ok(self.presign(call.query("response-content-disposition", &download.header()), grant))
    }

    fn begin_multipart(&self, upload: &Upload, now_ms: u64) -> Result<MultipartId, ProviderError> {
        self.needs(Capability::Multipart)?;
        let operation = "begin an upload in parts";
        let call = Call::new(Method::Post, Some(upload.key())).query("uploads", "");
        let mut call = call.header("content-type", upload.mime());
        if self.capabilities.has(Capability::ChecksumBound) {
            call = call.header("x-amz-checksum-algorithm", "SHA256");
        }
        let reply = expect(operation, self.send(operation, call, Vec::new(), now_ms)?, &[200])?;
        let id = Answer::new(operation, reply)?.upload_id()?;
        MultipartId::new(&id).map_err(|error| malformed(operation, error.to_string()))
    }

    fn stored_parts(
        &self,
        upload: &Upload,
        id: &MultipartId,
        now_ms: u64,
    ) -> Result<Vec<StoredPart>, ProviderError> {
        let operation = "list the parts of an upload";
        let (mut parts, mut from) = (Vec::new(), 0);
        for _ in 0..MAX_PART_PAGES {
            let call = Call::new(Method::Get, Some(upload.key()));
            let call = call.query("part-number-marker", &from.to_string());
            let asked = (upload.key(), id);
            let (status, answer) = self.about_upload(operation, asked, call, Vec::new(), now_ms)?;
            if status != 200 {
                return Err(answer.refusal(status));
            }
            let (page, next) = answer.parts()?;
            parts.extend(page);
            match next {
                None => return Ok(parts),
                Some(next) if next > from => from = next,
                Some(next) => {
                    return Err(malformed(operation, format!("part {next} comes after {from}")));
                }
            }
        }
        Err(malformed(operation, format!("more than {MAX_PART_PAGES} pages")))
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
        let call = Call::new(Method::Put, Some(upload.key()));
        let call = call.query("partNumber", &part.number.to_string());
        let call = call.query("uploadId", id.as_str());
        Ok(self.presign(self.bound(call, length, &part.sha256), grant))
    }

    fn complete_multipart(
        &self,
        upload: &Upload,
        id: &MultipartId,
        now_ms: u64,
    ) -> Result<Completed, ProviderError> {
        let operation = "complete an upload in parts";
        let parts = check_parts(upload, self.stored_parts(upload, id, now_ms)?)?;
        let mut call = Call::new(Method::Post, Some(upload.key()));
        if self.capabilities.has(Capability::IfNoneMatch) {
            call = call.header("if-none-match", "*");
        }
        let body = completion(&parts).into_bytes();
        let asked = (upload.key(), id);
        match self.about_upload(operation, asked, call, body, now_ms)? {
            (200, answer) => answer.completed().map(|()| Completed::Stored),
            (412, _) => {
                self.abort_multipart(upload.key(), id, now_ms)?;
                Ok(Completed::AlreadyThere)
            }
            (status, answer) => Err(answer.refusal(status)),
        }
    }

    fn abort_multipart(
        &self,
        key: &ObjectKey,
        id: &MultipartId,
        now_ms: u64,
    ) -> Result<(), ProviderError> {
        let operation = "abort an upload in parts";
        let call = Call::new(Method::Delete, Some(key));
        match self.about_upload(operation, (key, id), call, Vec::new(), now_ms) {
            Ok((200 | 204, _)) | Err(ProviderError::NoSuchUpload { .. }) => Ok(()),
            Ok((status, answer)) => Err(answer.refusal(status)),
            Err(error) => Err(error),
        }
    }

    fn head(&self, key: &ObjectKey, now_ms: u64) -> Result<Option<Head>, ProviderError> {
        let operation = "look at an object";
        let call = Call::new(Method::Head, Some(key)).header("x-amz-checksum-mode", "ENABLED");
        let reply =
            expect(operation, self.send(operation, call, Vec::new(), now_ms)?, &[200, 404])?;
        if reply.status == 404 {
            return Ok(None);
        }
        let size = reply.header("content-length").and_then(|text| text.parse().ok());
        let size_bytes = size.ok_or_else(|| malformed(operation, "it has no length".to_owned()))?;
        // Of a store that does not compare checksums it may be what the device said.
        let vouched = self.capabilities.has(Capability::ChecksumBound);
        let sum = reply.header("x-amz-checksum-sha256").filter(|_| vouched);
        let sha256 = sum.and_then(read_sum);
        Ok(Some(Head { size_bytes, sha256 }))
    }

    fn read(
        &self,
        key: &ObjectKey,
        now_ms: u64,
    ) -> Result<Option<Box<dyn Read + Send>>, ProviderError> {
        let operation = "read an object";
        let call = Call::new(Method::Get, Some(key));
        let reply =
            expect(operation, self.send(operation, call, Vec::new(), now_ms)?, &[200, 404])?;
        if reply.status == 200 {
            return Ok(Some(reply.body));
        }
        match Answer::new(operation, reply)?.refusal(404) {
            // It says nothing of what is in the bucket, wherever that is now.
            ProviderError::Refused { operation, status, code, message }
                if code == "NoSuchBucket" =>
            {
                Err(ProviderError::Refused { operation, status, code, message })
            }
            _ => Ok(None),
        }
    }

    fn delete(&self, key: &ObjectKey, now_ms: u64) -> Result<(), ProviderError> {
        self.needs(Capability::Delete)?;
        let operation = "delete an object";
        let call = Call::new(Method::Delete, Some(key));
        let reply = self.send(operation, call, Vec::new(), now_ms)?;
        expect(operation, reply, &[200, 204, 404]).map(|_| ())
    }

    fn list(
        &self,
        prefix: &Prefix,
        after: Option<&str>,
        max_objects: usize,
        now_ms: u64,
    ) -> Result<Page, ProviderError> {
        self.needs(Capability::List)?;
        let operation = "list objects";
        let most = max_objects.clamp(1, MAX_PAGE_OBJECTS).to_string();
        let call = Call::new(Method::Get, None).query("list-type", "2").query("max-keys", &most);
        let mut call = call.query("prefix", prefix.as_str());
        if let Some(after) = after {
            call = call.query("continuation-token", after);
        }
        let reply = expect(operation, self.send(operation, call, Vec::new(), now_ms)?, &[200])?;
        let page = Answer::new(operation, reply)?.page()?;
        if page.next.is_some() && page.next.as_deref() == after {
            return Err(malformed(operation, "the next page is the same one".to_owned()));
        }
        Ok(page)
    }
}
