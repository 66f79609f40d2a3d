//! The seam to HTTP: what a provider needs of a client, and no more.
//!
//! Blocking on purpose, see docs/decisions/providers.md. A client follows no redirect (a signed URL
//! is good for one address) and hands out every status: what a status means, the provider says.

use std::fmt;
use std::io::{self, Read};

/// A method of HTTP that object stores use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[allow(missing_docs)]
pub enum Method {
    Get,
    Head,
    Put,
    Post,
    Delete,
}

impl Method {
    /// The word on the wire.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Head => "HEAD",
            Self::Put => "PUT",
            Self::Post => "POST",
            Self::Delete => "DELETE",
        }
    }
}

impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Headers: names in lower case, and values.
pub type Headers = Vec<(String, String)>;

/// One request. `host` and `content-length` are the client's to add.
#[derive(Clone, PartialEq, Eq)]
pub struct Request {
    /// What to do.
    pub method: Method,
    /// Where, in full.
    pub url: String,
    /// Headers to send exactly so.
    pub headers: Headers,
    /// The body: at most one part of a file.
    pub body: Vec<u8>,
}

/// Whoever has a signed URL may use it, so no log may have one.
pub(crate) fn without_signature(url: &str) -> &str {
    url.split('?').next().unwrap_or_default()
}

impl fmt::Debug for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (method, url) = (self.method, without_signature(&self.url));
        write!(f, "{method} {url}?.., {} bytes", self.body.len())
    }
}

/// An answer, whatever its status.
pub struct Reply {
    /// 200, 404, ..
    pub status: u16,
    /// Headers, names in lower case.
    pub headers: Headers,
    /// The body, read as it comes.
    pub body: Box<dyn Read + Send>,
}

impl Reply {
    /// An answer whose body is in memory.
    #[must_use]
    pub fn new(status: u16, headers: Headers, body: Vec<u8>) -> Self {
        Self { status, headers, body: Box::new(io::Cursor::new(body)) }
    }

    /// The value of the header with this name in lower case.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_str())
    }

    /// The body, if it has no more than `limit` bytes.
    ///
    /// # Errors
    /// [`HttpError::Lost`] if it is longer or breaks off.
    pub fn bytes(self, limit: usize) -> Result<Vec<u8>, HttpError> {
        let mut bytes = Vec::new();
        // One byte more than allowed tells a long body from one that just fits.
        let read = self.body.take(limit as u64 + 1).read_to_end(&mut bytes);
        read.map_err(|error| HttpError::Lost { what: error.to_string() })?;
        if bytes.len() > limit {
            let what = format!("the answer has more than {limit} bytes");
            return Err(HttpError::Lost { what });
        }
        Ok(bytes)
    }
}

impl fmt::Debug for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (status, headers) = (self.status, &self.headers);
        f.debug_struct("Reply")
            .field("status", &status)
            .field("headers", headers)
            .finish_non_exhaustive()
    }
}

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HttpError {
    /// The request cannot be made: its URL or a header is wrong.
    #[error("the request cannot be made: {what}")]
    Request {
        /// What is wrong with it.
        what: String,
    },
    /// Nothing was sent: nobody answers there.
    #[error("not reachable: {what}")]
    Connect {
        /// What the system says.
        what: String,
    },
    /// The connection ended too early: whether the store did it, nobody knows.
    #[error("the answer was lost: {what}")]
    Lost {
        /// What the system says.
        what: String,
    },
}

/// Sends a request and waits for the answer.
pub trait HttpClient: fmt::Debug + Send + Sync {
    /// One request, one answer.
    ///
    /// # Errors
    /// [`HttpError`], where there is no answer at all.
    fn send(&self, request: Request) -> Result<Reply, HttpError>;
}

#[cfg(test)]
mod tests {
    use super::{HttpError, Reply};

    /// A store that answers without end must not fill the memory.
    #[test]
    fn an_answer_is_read_up_to_its_limit() {
        let reply = |len: usize| Reply::new(200, Vec::new(), vec![7; len]);
        assert_eq!(reply(10).bytes(10).expect("it fits"), vec![7; 10]);
        assert!(matches!(reply(11).bytes(10), Err(HttpError::Lost { .. })));
    }
}
