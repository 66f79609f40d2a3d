//! Where a bucket answers.

use super::escape_path;

/// Where the bucket stands in a URL.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Style {
    /// `https://host/bucket/key`: most stores besides AWS.
    #[default]
    Path,
    /// `https://bucket.host/key`: AWS.
    VirtualHost,
}

/// An endpoint or bucket that no request can be sent to.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AddressError {
    /// It is no URL of a host.
    #[error("{endpoint:?} is no endpoint: write http:// or https:// and a host, no path")]
    Endpoint {
        /// What was given.
        endpoint: String,
    },
    /// S3 has no such bucket.
    #[error("{bucket:?} is no bucket: 3 to 63 of a-z, 0-9, '-' and '.'")]
    Bucket {
        /// What was given.
        bucket: String,
    },
}

#[derive(Debug, Clone)]
pub(super) struct Address {
    pub scheme: &'static str,
    /// As it stands in the `host` header, which is signed: without the port that goes without
    /// saying.
    pub host: String,
    root: String,
}

impl Address {
    pub(super) fn new(endpoint: &str, bucket: &str, style: Style) -> Result<Self, AddressError> {
        let wrong = || AddressError::Endpoint { endpoint: endpoint.chars().take(200).collect() };
        let (scheme, port, host) = match endpoint.split_once("://").ok_or_else(wrong)? {
            ("https", host) => ("https", ":443", host),
            ("http", host) => ("http", ":80", host),
            _ => return Err(wrong()),
        };
        let host = host.strip_suffix('/').unwrap_or(host);
        let plain = |b: u8| b.is_ascii_alphanumeric() || b"-.:[]".contains(&b);
        if host.is_empty() || !host.bytes().all(plain) {
            return Err(wrong());
        }
        let inside = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-.".contains(&b);
        let framed = !bucket.starts_with(['-', '.']) && !bucket.ends_with(['-', '.']);
        let fits = (3..=63).contains(&bucket.len()) && !bucket.contains("..");
        if !(fits && framed && bucket.bytes().all(inside)) {
            return Err(AddressError::Bucket { bucket: bucket.chars().take(80).collect() });
        }
        let host = host.strip_suffix(port).unwrap_or(host).to_ascii_lowercase();
        Ok(match style {
            Style::Path => Self { scheme, host, root: format!("/{bucket}/") },
            Style::VirtualHost => {
                Self { scheme, host: format!("{bucket}.{host}"), root: "/".to_owned() }
            }
        })
    }

    /// The path of a key, or of the bucket if the key is empty.
    pub(super) fn path(&self, key: &str) -> String {
        format!("{}{}", self.root, escape_path(key))
    }
}

#[cfg(test)]
mod tests {
    use super::{Address, Style};

    #[test]
    fn both_styles_and_what_goes_without_saying() {
        let path = Address::new("http://127.0.0.1:9000/", "files", Style::Path).expect("a path");
        assert_eq!(
            (path.host.as_str(), path.path("a/b").as_str()),
            ("127.0.0.1:9000", "/files/a/b")
        );
        assert_eq!(path.path(""), "/files/");
        let host =
            Address::new("https://S3.example:443", "files", Style::VirtualHost).expect("a host");
        assert_eq!((host.host.as_str(), host.path("a b").as_str()), ("files.s3.example", "/a%20b"));
    }

    #[test]
    fn what_no_request_can_be_sent_to() {
        for endpoint in
            ["", "s3.example", "ftp://a", "https://", "https://a/b", "https://u@a", "http://a b"]
        {
            assert!(Address::new(endpoint, "files", Style::Path).is_err(), "{endpoint}");
        }
        for bucket in ["", "ab", "Files", "a/b", "-ab", "ab.", "a..b", &"a".repeat(64)] {
            assert!(Address::new("http://a", bucket, Style::Path).is_err(), "{bucket}");
        }
    }
}
