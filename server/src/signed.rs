//! Signed URLs: short-lived permissions to read or to bring one file, for whoever has the URL.
//!
//! What is allowed stands in the URL, and a keyed hash over all of it proves that this server said
//! so: method, workspace, file, length, media type, disposition and the time until which it holds.
//! The key is drawn when the server starts, so no URL outlives the process, and none is on a disk.

use lastword::BlobHash;
use lastword::core::id::WorkspaceName;
use lastword_providers::key::ObjectKey;
use lastword_providers::upload::{Disposition, Download};

/// Signs URLs and knows its own signatures.
pub struct Signer {
    key: [u8; 32],
}

impl std::fmt::Debug for Signer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Signer")
    }
}

/// What a URL allows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant {
    /// `GET` or `PUT`.
    pub method: String,
    /// The workspace.
    pub workspace: WorkspaceName,
    /// The file.
    pub hash: BlobHash,
    /// Its length in bytes; for an upload exactly that many come.
    pub size_bytes: u64,
    /// Its media type: what a download says it is, and what an upload has to say.
    pub mime_type: String,
    /// `inline` or `attachment`.
    pub disposition: String,
    /// What it is called when it is saved; empty if it has no name.
    pub file_name: String,
    /// Who asked for it.
    pub user: String,
    /// Until when it holds, milliseconds since 1970 UTC.
    pub expires_ms: i64,
}

/// Why a URL is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum GrantError {
    /// It was not signed by this server since it started, or was changed.
    #[error("this URL was not signed by this server, or was changed: ask for another")]
    Signature,
    /// Its time is over.
    #[error("this URL has expired: ask for another")]
    Expired,
}

impl Grant {
    /// What such a URL allows, for a file that is still to be said.
    #[must_use]
    pub fn asked(method: &str, size_bytes: u64, mime_type: String, download: &Download) -> Self {
        let inline = download.disposition == Disposition::Inline;
        let workspace = WorkspaceName::new("main").expect("invariant: the name is valid");
        Self {
            method: method.into(),
            workspace,
            hash: BlobHash::Sha256([0; 32]),
            size_bytes,
            mime_type,
            disposition: if inline { "inline" } else { "attachment" }.into(),
            file_name: download.file_name.clone().unwrap_or_default(),
            user: String::new(),
            expires_ms: 0,
        }
    }

    /// How a download by it comes.
    #[must_use]
    pub fn download(&self) -> Download {
        let disposition = match &*self.disposition {
            "inline" => Disposition::Inline,
            _ => Disposition::Attachment,
        };
        let file_name = Some(self.file_name.clone()).filter(|name| !name.is_empty());
        Download { disposition, file_name }
    }
}

impl Signer {
    /// A signer with a key of its own.
    #[must_use]
    pub fn new(key: [u8; 32]) -> Self {
        Self { key }
    }

    fn signature(&self, grant: &Grant) -> blake3::Hash {
        let mut hasher = blake3::Hasher::new_keyed(&self.key);
        let (hash, size, expires) =
            (grant.hash.to_string(), grant.size_bytes.to_string(), grant.expires_ms.to_string());
        let fields = [
            grant.method.as_str(),
            grant.workspace.as_str(),
            &hash,
            &size,
            &grant.mime_type,
            &grant.disposition,
            &grant.file_name,
            &grant.user,
            &expires,
        ];
        for field in fields {
            // With its length, so that no two grants have the same bytes.
            hasher.update(&(field.len() as u64).to_le_bytes());
            hasher.update(field.as_bytes());
        }
        hasher.finalize()
    }

    /// The path and query of a URL that allows this for the file with that key.
    #[must_use]
    pub fn path(&self, key: &ObjectKey, grant: &Grant) -> String {
        let Grant { size_bytes, mime_type, disposition, file_name, user, expires_ms, .. } = grant;
        let signature = self.signature(grant).to_hex();
        format!(
            "/files/{key}?size={size_bytes}&type={}&disposition={}&name={}&user={}&expires={expires_ms}&signature={signature}",
            escaped(mime_type),
            escaped(disposition),
            escaped(file_name),
            escaped(user),
        )
    }

    /// Whether the signature is that of the grant, and its time is not over.
    ///
    /// # Errors
    /// [`GrantError`].
    pub fn check(&self, grant: &Grant, signature: &str, now_ms: i64) -> Result<(), GrantError> {
        let given = blake3::Hash::from_hex(signature).map_err(|_| GrantError::Signature)?;
        // Compared in constant time.
        if given != self.signature(grant) {
            return Err(GrantError::Signature);
        }
        if now_ms >= grant.expires_ms {
            return Err(GrantError::Expired);
        }
        Ok(())
    }
}

/// Text as a query value: everything but letters, digits and `-._~` is escaped.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                out.push(char::from(byte));
            }
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grant() -> Grant {
        Grant {
            method: "GET".into(),
            workspace: WorkspaceName::new("main").expect("a name"),
            hash: BlobHash::Sha256([7; 32]),
            size_bytes: 5,
            mime_type: "image/png".into(),
            disposition: "inline".into(),
            file_name: "a.png".into(),
            user: "ann".into(),
            expires_ms: 1000,
        }
    }

    /// R8.1, R8.2: whatever is changed in a grant, its signature is another one; another key knows
    /// none of them; and its time ends.
    #[test]
    fn a_signature_is_of_all_that_a_grant_says() {
        let signer = Signer::new([1; 32]);
        let signature = signer.signature(&grant()).to_hex().to_string();
        assert_eq!(signer.check(&grant(), &signature, 999), Ok(()));
        assert_eq!(signer.check(&grant(), &signature, 1000), Err(GrantError::Expired));
        let other = Signer::new([2; 32]);
        assert_eq!(other.check(&grant(), &signature, 0), Err(GrantError::Signature));
        assert_eq!(signer.check(&grant(), "no hash", 0), Err(GrantError::Signature));
        let changes: [fn(&mut Grant); 9] = [
            |grant| grant.method = "PUT".into(),
            |grant| grant.workspace = WorkspaceName::new("other").expect("a name"),
            |grant| grant.hash = BlobHash::Sha256([8; 32]),
            |grant| grant.size_bytes = 6,
            |grant| grant.mime_type = "text/html".into(),
            |grant| grant.disposition = "attachment".into(),
            |grant| grant.file_name = "b.html".into(),
            |grant| grant.user = "bob".into(),
            |grant| grant.expires_ms = 2000,
        ];
        for (number, change) in changes.iter().enumerate() {
            let mut changed = grant();
            change(&mut changed);
            let checked = signer.check(&changed, &signature, 0);
            assert_eq!(checked, Err(GrantError::Signature), "change {number}");
        }
        // What one field ends with, the next cannot begin with.
        let mut shifted = grant();
        (shifted.mime_type, shifted.disposition) = ("image/pn".into(), "ginline".into());
        assert_eq!(signer.check(&shifted, &signature, 0), Err(GrantError::Signature));
    }
}
