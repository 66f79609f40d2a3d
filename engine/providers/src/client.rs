//! An HTTP client: ureq, without TLS.
//!
//! It speaks `http://` only: to a store on the same machine or network, or through a proxy that
//! adds TLS. The URLs that it signs for devices are `https://` wherever the endpoint is.

use std::io::ErrorKind;

use ureq::http::{Request as HttpRequest, Response};
use ureq::{Agent, Body, Error};

use crate::http::{Headers, HttpClient, HttpError, Method, Reply, Request};
use crate::limits::{ANSWER_TIMEOUT, CONNECT_TIMEOUT, RECEIVE_TIMEOUT, SEND_TIMEOUT};

/// The client. Clones share its connections.
#[derive(Debug, Clone)]
pub struct Client {
    agent: Agent,
}

impl Default for Client {
    fn default() -> Self {
        Self::new()
    }
}

impl Client {
    /// A client that follows no redirect and gives up on a store that does not answer in time.
    #[must_use]
    pub fn new() -> Self {
        let config = Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .proxy(None)
            .timeout_connect(Some(CONNECT_TIMEOUT))
            .timeout_send_body(Some(SEND_TIMEOUT))
            .timeout_recv_response(Some(ANSWER_TIMEOUT))
            .timeout_recv_body(Some(RECEIVE_TIMEOUT))
            .build();
        Self { agent: config.into() }
    }

    fn run(&self, request: Request) -> Result<Response<Body>, Error> {
        let mut builder = HttpRequest::builder().method(request.method.as_str()).uri(request.url);
        for (name, value) in request.headers {
            builder = builder.header(name, value);
        }
        match request.method {
            Method::Put | Method::Post => self.agent.run(builder.body(request.body)?),
            Method::Get | Method::Head | Method::Delete => self.agent.run(builder.body(())?),
        }
    }
}

impl HttpClient for Client {
    fn send(&self, request: Request) -> Result<Reply, HttpError> {
        let response = self.run(request).map_err(|error| {
            // The text of a wrong URL is the URL, and that has a signature.
            let what = match &error {
                Error::BadUri(_) => "its URL is none".to_owned(),
                other => other.to_string(),
            };
            match error {
                Error::Http(_) | Error::BadUri(_) | Error::TlsRequired => {
                    HttpError::Request { what }
                }
                Error::HostNotFound | Error::ConnectionFailed => HttpError::Connect { what },
                Error::Io(error) if error.kind() == ErrorKind::ConnectionRefused => {
                    HttpError::Connect { what }
                }
                _ => HttpError::Lost { what },
            }
        })?;
        let (parts, body) = response.into_parts();
        let text = |value: &[u8]| String::from_utf8_lossy(value).into_owned();
        let headers: Headers = parts
            .headers
            .iter()
            .map(|(name, value)| (name.as_str().to_owned(), text(value.as_bytes())))
            .collect();
        Ok(Reply { status: parts.status.as_u16(), headers, body: Box::new(body.into_reader()) })
    }
}
