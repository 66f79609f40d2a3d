//! S3 and the stores that speak it.
//!
//! Every request is signed in its URL, the server's own calls too: one signer, no second algorithm.
//! What an upload must be is signed with it: `content-length`, `content-type`,
//! `x-amz-checksum-sha256`, and `if-none-match` so that it never replaces an object.

mod address;
mod answer;
mod provider;
mod sigv4;
mod time;

use std::sync::Arc;

use crate::capability::Capabilities;
use crate::expiry::{Expiry, Grant};
use crate::http::{HttpClient, Method, Reply, Request};
use crate::key::ObjectKey;
use crate::limits::OWN_CALL_EXPIRY;
use crate::provider::{Presigned, ProviderError};
use crate::upload::escape;
use address::Address;
pub use address::{AddressError, Style};
pub use sigv4::Credentials;
use sigv4::Signer;

/// Where a store is and how it is entered.
#[derive(Debug, Clone)]
pub struct S3Config {
    /// The provider's id in registry and records. Two buckets need two.
    pub id: String,
    /// `https://s3.eu-central-1.amazonaws.com`, or what stands in for it; no path.
    pub endpoint: String,
    /// The region that requests are signed for.
    pub region: String,
    /// The bucket.
    pub bucket: String,
    /// Whether the bucket stands in the path or in the host.
    pub style: Style,
    /// The keys.
    pub credentials: Credentials,
    /// What this store really does. AWS does all of it; the conformance suite tells of another.
    pub capabilities: Capabilities,
}

/// A store that speaks S3.
#[derive(Debug, Clone)]
pub struct S3Provider {
    id: String,
    address: Address,
    signer: Signer,
    capabilities: Capabilities,
    http: Arc<dyn HttpClient>,
}

/// A request before it is signed.
struct Call<'a> {
    method: Method,
    key: Option<&'a ObjectKey>,
    query: Vec<(String, String)>,
    headers: Vec<(String, String)>,
}

impl<'a> Call<'a> {
    fn new(method: Method, key: Option<&'a ObjectKey>) -> Self {
        Self { method, key, query: Vec::new(), headers: Vec::new() }
    }

    fn query(mut self, name: &str, value: &str) -> Self {
        self.query.push((name.to_owned(), value.to_owned()));
        self
    }

    fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }
}

impl S3Provider {
    /// A provider for this store. Nothing is asked of it yet.
    ///
    /// # Errors
    /// [`AddressError`].
    pub fn new(config: S3Config, http: Arc<dyn HttpClient>) -> Result<Self, AddressError> {
        let address = Address::new(&config.endpoint, &config.bucket, config.style)?;
        let signer = Signer { credentials: config.credentials, region: config.region };
        let (id, capabilities) = (config.id, config.capabilities);
        Ok(Self { id, address, signer, capabilities, http })
    }

    /// Signs a call. `content-length` is signed for but not handed out: clients set it themselves.
    fn presign(&self, call: Call<'_>, grant: Grant) -> Presigned {
        let path = self.address.path(call.key.map(ObjectKey::as_str).unwrap_or_default());
        let mut signed = call.headers.clone();
        signed.push(("host".to_owned(), self.address.host.clone()));
        let query = self.signer.presign(call.method, &path, call.query, signed, grant);
        let mut headers = call.headers;
        headers.retain(|(name, _)| name != "content-length");
        Presigned {
            method: call.method,
            url: format!("{}://{}{path}?{query}", self.address.scheme, self.address.host),
            headers,
            expires_at_ms: grant.expires_at_ms(),
        }
    }

    /// Makes a call of the server's own.
    fn send(
        &self,
        operation: &'static str,
        call: Call<'_>,
        body: Vec<u8>,
        now_ms: u64,
    ) -> Result<Reply, ProviderError> {
        let grant = Grant { now_ms, expiry: Expiry::within(OWN_CALL_EXPIRY) };
        let signed = self.presign(call, grant);
        let Presigned { method, url, headers, .. } = signed;
        let request = Request { method, url, headers, body };
        self.http.send(request).map_err(|source| ProviderError::Http { operation, source })
    }
}

/// The path of a key, escaped step by step.
fn escape_path(key: &str) -> String {
    key.split('/').map(escape).collect::<Vec<_>>().join("/")
}
