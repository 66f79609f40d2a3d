//! R5.1 and R5.2: a deployment selects by id, third parties register, and what is missing is named.

use std::sync::Arc;

use lastword_providers::capability::{Capabilities, Capability};
use lastword_providers::memory::MemoryStore;
use lastword_providers::registry::{EMBEDDED, Registry, RegistryError};
use lastword_providers::s3::{Credentials, S3Config, S3Provider, Style};

use crate::support::START_MS;

fn memory(capabilities: Capabilities) -> Arc<MemoryStore> {
    Arc::new(MemoryStore::promising(capabilities, b"secret", START_MS))
}

fn s3(id: &str) -> Arc<S3Provider> {
    let config = S3Config {
        id: id.to_owned(),
        endpoint: "https://s3.example".to_owned(),
        region: "eu".to_owned(),
        bucket: "files".to_owned(),
        style: Style::Path,
        credentials: Credentials::new("key", "secret"),
        capabilities: Capabilities::all(),
    };
    let http = memory(Capabilities::all());
    Arc::new(S3Provider::new(config, http).expect("a provider"))
}

#[test]
fn r5_1_a_deployment_selects_one_of_many_by_its_id() {
    let mut registry = Registry::default();
    registry.register(memory(Capabilities::all())).expect("memory");
    for id in ["s3", "s3-archive"] {
        registry.register(s3(id)).expect("a bucket");
    }
    assert_eq!(registry.ids().collect::<Vec<_>>(), ["memory", "s3", "s3-archive"]);
    let found = registry.select("s3", Capabilities::required(), Capabilities::default());
    assert_eq!(found.expect("it is there").id(), "s3");
    let error = registry.select("s4", Capabilities::required(), Capabilities::default());
    let known = "memory, s3, s3-archive".to_owned();
    assert_eq!(error.expect_err("nobody"), RegistryError::Unknown { id: "s4".to_owned(), known });
}

#[test]
fn r5_2_a_provider_that_lacks_what_is_required_is_refused_by_name() {
    let mut registry = Registry::default();
    let lacks = Capabilities::of(&[Capability::DownloadExpires, Capability::Delete]);
    let promised = lacks.lacking(Capabilities::all());
    registry.register(memory(promised)).expect("anything registers");
    let select = |accepted| registry.select("memory", Capabilities::required(), accepted);

    let error = select(Capabilities::default()).expect_err("it lacks two");
    assert_eq!(error, RegistryError::Incapable { id: "memory".to_owned(), lacks });
    assert!(error.to_string().contains("lacks download_expires, delete"), "{error}");

    let one = Capabilities::of(&[Capability::DownloadExpires]);
    let error = select(one).expect_err("one of them was accepted");
    let lacks = Capabilities::of(&[Capability::Delete]);
    assert_eq!(error, RegistryError::Incapable { id: "memory".to_owned(), lacks });
    select(one.with(Capability::Delete)).expect("both were");
}

/// A Convex download URL never ends: that is R8.2, whatever else it can do.
#[test]
fn r8_2_urls_that_never_end_are_refused_by_default() {
    for lacks in [Capability::UploadExpires, Capability::DownloadExpires] {
        let mut registry = Registry::default();
        registry.register(memory(Capabilities::all().without(lacks))).expect("it registers");
        let none = Capabilities::default();
        let found = registry.select("memory", Capabilities::required(), none);
        assert!(matches!(found, Err(RegistryError::Incapable { .. })), "{lacks}");
    }
}

#[test]
fn ids_are_unique_plain_and_embedded_is_the_servers_own() {
    let mut registry = Registry::default();
    let reserved = RegistryError::Reserved { id: EMBEDDED.to_owned() };
    assert_eq!(registry.register(s3(EMBEDDED)), Err(reserved.clone()));
    let found = registry.select(EMBEDDED, Capabilities::default(), Capabilities::default());
    assert_eq!(found.expect_err("it is no provider"), reserved);
    for id in ["", "S3", "a b", "a/b", &"a".repeat(33)] {
        assert!(matches!(registry.register(s3(id)), Err(RegistryError::Id { .. })), "{id:?}");
    }
    registry.register(s3("s3")).expect("the first");
    assert_eq!(registry.register(s3("s3")), Err(RegistryError::Taken { id: "s3".to_owned() }));
}
