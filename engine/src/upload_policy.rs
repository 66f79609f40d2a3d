//! What the server's software has to say about a file before any byte of it comes.

use std::panic::{AssertUnwindSafe, catch_unwind};

use lastword_core::hash::BlobHash;
use lastword_core::id::WorkspaceName;

use crate::error::{Error, Result};

/// A file that is about to be uploaded, as its device describes it.
#[derive(Debug, Clone, Copy)]
pub struct UploadRequest<'a> {
    /// The workspace.
    pub workspace: &'a WorkspaceName,
    /// Who uploads it.
    pub user: &'a str,
    /// Its hash; that its bytes have it is checked before it counts.
    pub hash: BlobHash,
    /// Its length in bytes.
    pub size_bytes: u64,
    /// Its media type, as the device says.
    pub mime_type: &'a str,
    /// Its name, as the device says.
    pub name: &'a str,
}

/// Rules on uploads; see [`crate::Authority::rule_uploads`].
pub(crate) type UploadPolicy =
    dyn Fn(&UploadRequest<'_>) -> std::result::Result<(), String> + Send + Sync;

/// Asks the policy. One that panics has not agreed.
pub(crate) fn ruled(policy: &UploadPolicy, request: &UploadRequest<'_>) -> Result<()> {
    let ruling = catch_unwind(AssertUnwindSafe(|| policy(request))).unwrap_or_else(|_| {
        tracing::error!(workspace = %request.workspace, "the policy on uploads panicked");
        Err("the server could not judge this file".into())
    });
    ruling.map_err(|message| Error::UploadRefused { message })
}
