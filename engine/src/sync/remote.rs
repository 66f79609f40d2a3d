//! Where a server is and how to prove who we are.

use std::sync::Arc;

use crate::error::{Error, Result};

/// A server's address and the token for it.
#[derive(Clone)]
pub struct Remote {
    url: String,
    token: FetchToken,
}

/// Brings the token for one connection, or says why there is none.
type FetchToken = Arc<dyn Fn() -> Result<String, String> + Send + Sync>;

impl std::fmt::Debug for Remote {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Remote({})", self.url)
    }
}

impl Remote {
    /// A server by its URL: `ws://host:port`, with or without `/sync`; `http://` means the same.
    ///
    /// # Errors
    /// [`Error::Url`] if it is none of these.
    pub fn new(url: &str) -> Result<Self> {
        let bad = |reason: &str| Error::Url { url: url.into(), reason: reason.into() };
        if url.starts_with("wss://") || url.starts_with("https://") {
            return Err(bad("this version speaks ws:// only: use a trusted network or a tunnel"));
        }
        let rest = url
            .strip_prefix("ws://")
            .or_else(|| url.strip_prefix("http://"))
            .ok_or_else(|| bad("it must begin with ws:// or http://"))?;
        let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
        if host.is_empty() || rest.contains(['?', '#', '@', ' ']) {
            return Err(bad("it must be ws://host:port, without query or user"));
        }
        let path = match path.trim_end_matches('/') {
            "" => "sync",
            path => path,
        };
        let token = Arc::new(|| Err("no token was given".to_owned()));
        Ok(Self { url: format!("ws://{host}/{path}"), token })
    }

    /// Sets the token that the server knows the user by; it is sent in the first message and never
    /// in the URL.
    #[must_use]
    pub fn token(self, token: &str) -> Self {
        let token = token.to_owned();
        self.token_from(move || Ok(token.clone()))
    }

    /// Sets where the token comes from, for tokens that expire: asked on the sync thread before
    /// each connection. If it fails, the connection is tried again later, with its words as the
    /// reason.
    #[must_use]
    pub fn token_from(
        mut self,
        fetch: impl Fn() -> Result<String, String> + Send + Sync + 'static,
    ) -> Self {
        self.token = Arc::new(fetch);
        self
    }

    /// The URL that is connected to.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    pub(crate) fn fetch_token(&self) -> Result<String, String> {
        (self.token)()
    }
}

#[cfg(test)]
mod tests {
    use super::Remote;

    /// A user types the address as it was printed, in whatever form.
    #[test]
    fn addresses_are_taken_in_every_usual_form() {
        for url in ["ws://h:1", "ws://h:1/", "ws://h:1/sync", "http://h:1", "http://h:1/sync/"] {
            assert_eq!(Remote::new(url).expect(url).url(), "ws://h:1/sync");
        }
        for url in ["", "h:1", "wss://h", "ws://", "ws://h/sync?token=x", "ws://me@h"] {
            assert!(Remote::new(url).is_err(), "{url}");
        }
    }
}
