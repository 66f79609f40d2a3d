//! A broken promise, by the id of its invariant.

use lastword::store::StoreError;

/// A broken promise.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// Id of the invariant, like `I4`.
    pub id: &'static str,
    /// What was seen.
    pub text: String,
}

impl Violation {
    /// A broken promise.
    #[must_use]
    pub fn new(id: &'static str, text: impl Into<String>) -> Self {
        Self { id, text: text.into() }
    }
}

impl std::fmt::Display for Violation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.id, self.text)
    }
}

/// A broken promise, or a store that has to be opened again before anything can be said.
#[derive(Debug)]
pub enum Trouble {
    /// A broken promise.
    Broken(Violation),
    /// The store cannot be read now.
    Store(StoreError),
}

impl From<Violation> for Trouble {
    fn from(violation: Violation) -> Self {
        Self::Broken(violation)
    }
}

impl From<StoreError> for Trouble {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl From<Trouble> for Violation {
    /// A store that was just opened has to be readable.
    fn from(trouble: Trouble) -> Self {
        match trouble {
            Trouble::Broken(violation) => violation,
            Trouble::Store(error) => Violation::new("I15", error.to_string()),
        }
    }
}
