//! Which providers there are, and the one a deployment selects by its id (R5.1, R5.2).

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::capability::Capabilities;
use crate::limits::{MAX_PROVIDER_ID_BYTES, MAX_PROVIDERS};
use crate::provider::ObjectStorageProvider;

/// The id of the server's own store, which needs no provider and gives its id to none.
pub const EMBEDDED: &str = "embedded";

/// Why a provider cannot be registered or selected.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RegistryError {
    /// It stands in settings and records: lower-case letters, digits and `-`.
    #[error("{id:?} is no id of a provider: 1 to {MAX_PROVIDER_ID_BYTES} of a-z, 0-9 and -")]
    Id {
        /// Its first characters.
        id: String,
    },
    /// `embedded` is the server's own store.
    #[error("{id:?} is reserved for the server's own store")]
    Reserved {
        /// The id.
        id: String,
    },
    /// Two providers with one id.
    #[error("there is a provider {id:?} already")]
    Taken {
        /// The id.
        id: String,
    },
    /// No more fit.
    #[error("there are {MAX_PROVIDERS} providers already")]
    Full,
    /// Nobody registered it.
    #[error("there is no provider {id:?}; registered: {known}")]
    Unknown {
        /// The id.
        id: String,
        /// Those there are.
        known: String,
    },
    /// It does not promise what the deployment needs, and the operator did not accept that.
    #[error("provider {id:?} lacks {lacks}; choose another one, or accept that in the settings")]
    Incapable {
        /// The id.
        id: String,
        /// What is missing and was not accepted.
        lacks: Capabilities,
    },
}

/// Providers by id.
#[derive(Debug, Default)]
pub struct Registry {
    providers: BTreeMap<String, Arc<dyn ObjectStorageProvider>>,
}

impl Registry {
    /// Adds a provider under its own id.
    ///
    /// # Errors
    /// [`RegistryError::Id`], [`RegistryError::Reserved`], [`RegistryError::Taken`],
    /// [`RegistryError::Full`].
    pub fn register(
        &mut self,
        provider: Arc<dyn ObjectStorageProvider>,
    ) -> Result<(), RegistryError> {
        let id = provider.id().to_owned();
        let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
        if !(1..=MAX_PROVIDER_ID_BYTES).contains(&id.len()) || !id.bytes().all(plain) {
            return Err(RegistryError::Id { id: id.chars().take(80).collect() });
        }
        if id == EMBEDDED {
            return Err(RegistryError::Reserved { id });
        }
        if self.providers.contains_key(&id) {
            return Err(RegistryError::Taken { id });
        }
        if self.providers.len() >= MAX_PROVIDERS {
            return Err(RegistryError::Full);
        }
        self.providers.insert(id, provider);
        Ok(())
    }

    /// The provider with this id, if it promises all that is `required` or the operator `accepted`
    /// by name that it does not.
    ///
    /// # Errors
    /// [`RegistryError::Reserved`], [`RegistryError::Unknown`], [`RegistryError::Incapable`].
    pub fn select(
        &self,
        id: &str,
        required: Capabilities,
        accepted: Capabilities,
    ) -> Result<Arc<dyn ObjectStorageProvider>, RegistryError> {
        if id == EMBEDDED {
            return Err(RegistryError::Reserved { id: id.to_owned() });
        }
        let Some(provider) = self.providers.get(id) else {
            let known = self.ids().collect::<Vec<_>>().join(", ");
            return Err(RegistryError::Unknown { id: id.chars().take(80).collect(), known });
        };
        let lacks = accepted.lacking(provider.capabilities().lacking(required));
        if !lacks.is_empty() {
            return Err(RegistryError::Incapable { id: id.to_owned(), lacks });
        }
        Ok(Arc::clone(provider))
    }

    /// The ids there are, in order.
    pub fn ids(&self) -> impl Iterator<Item = &str> {
        self.providers.keys().map(String::as_str)
    }
}
