//! Object stores that keep Lastword's files.
//!
//! A deployment selects one provider by its id from a [`registry::Registry`]. Devices send and
//! fetch bytes over URLs that the server signs; [`commit::verify`] checks what arrived before any
//! record names it. Whoever writes a provider of their own runs the [`conformance`] suite against
//! it.
//!
//! Why it is shaped so: docs/decisions/providers.md.
//!
//! ```
//! use std::sync::Arc;
//!
//! use lastword_core::{hash::BlobHash, id::WorkspaceName};
//! use lastword_providers::capability::Capabilities;
//! use lastword_providers::commit::verify;
//! use lastword_providers::expiry::Grant;
//! use lastword_providers::http::HttpClient;
//! use lastword_providers::key::ObjectKey;
//! use lastword_providers::memory::MemoryStore;
//! use lastword_providers::registry::Registry;
//! use lastword_providers::upload::Upload;
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! // The deployment: one of many, by its id, if it can do what is required.
//! let store = MemoryStore::new(b"secret", 1_700_000_000_000);
//! let mut registry = Registry::default();
//! registry.register(Arc::new(store.clone()))?;
//! let none = Capabilities::default(); // nothing missing is accepted
//! let provider = registry.select("memory", Capabilities::required(), none)?;
//!
//! // The server: what may be uploaded is signed for, until it expires.
//! let hash = "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
//! let key = ObjectKey::new(&WorkspaceName::new("main")?, BlobHash::new(hash)?)?;
//! let upload = Upload::new(key, 3, "text/plain")?;
//! let url = provider.presign_upload(&upload, Grant::at(store.now_ms()))?;
//!
//! // The device.
//! assert_eq!(store.send(url.request(b"abc".to_vec()))?.status, 200);
//!
//! // The server again, before a record names the file.
//! verify(&*provider, &upload, store.now_ms())?;
//! # Ok(())
//! # }
//! ```

pub mod limits;
pub mod http;
pub mod key;
pub mod expiry;
pub mod capability;
pub mod upload;
pub mod provider;
pub mod commit;
pub mod registry;
pub mod s3;
#[cfg(feature = "client")]
pub mod client;
pub mod conformance;
pub mod memory;
pub mod faulty;
