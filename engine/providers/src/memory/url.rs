//! Signed URLs: an HMAC over the method, the path and every parameter. What an upload must be
//! (length, checksum, type) is among the parameters, so nobody can ask for less.

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use crate::http::Method;
use crate::key::hex;
use crate::upload::escape;

const ROOT: &str = "memory://store/";
const SIGNATURE: &str = "&signature=";

/// Why a request is not let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Denied {
    /// There is no signature.
    Unsigned,
    /// It is none of ours, or not for this request.
    Signature,
    /// It was.
    Expired,
}

/// What a signature allows: path and parameters.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Terms {
    pub path: String,
    pub expires_s: Option<u64>,
    pub length: Option<u64>,
    pub sha256: Option<String>,
    pub mime: Option<String>,
    pub upload: Option<String>,
    pub part: Option<u32>,
    pub disposition: Option<String>,
    /// Only if nothing is there yet.
    pub absent: bool,
}

impl Terms {
    fn query(&self) -> String {
        let mut pairs = Vec::new();
        let mut add = |name: &str, value: Option<String>| {
            pairs.extend(value.map(|value| format!("{name}={}", escape(&value))));
        };
        add("expires", self.expires_s.map(|value| value.to_string()));
        add("length", self.length.map(|value| value.to_string()));
        add("sha256", self.sha256.clone());
        add("type", self.mime.clone());
        add("upload", self.upload.clone());
        add("part", self.part.map(|value| value.to_string()));
        add("disposition", self.disposition.clone());
        add("absent", self.absent.then(|| "1".to_owned()));
        pairs.join("&")
    }

    /// The URL of these terms for this method.
    pub(super) fn sign(&self, secret: &[u8], method: Method) -> String {
        let query = self.query();
        let signature = hex(&mac(secret, method, &self.path, &query).finalize().into_bytes());
        format!("{ROOT}{}?{query}{SIGNATURE}{signature}", self.path)
    }

    /// The terms of a URL that we signed for this method and that is still good.
    pub(super) fn check(
        secret: &[u8],
        method: Method,
        url: &str,
        now_ms: u64,
    ) -> Result<Self, Denied> {
        let (address, query) = url.split_once('?').ok_or(Denied::Unsigned)?;
        let path = address.strip_prefix(ROOT).ok_or(Denied::Signature)?;
        let (query, signature) = query.rsplit_once(SIGNATURE).ok_or(Denied::Unsigned)?;
        let signature = unhex(signature).ok_or(Denied::Signature)?;
        let mac = mac(secret, method, path, query);
        mac.verify_slice(&signature).map_err(|_| Denied::Signature)?;
        let terms = Self::read(path, query).ok_or(Denied::Signature)?;
        match terms.expires_s {
            Some(expires_s) if now_ms / 1000 >= expires_s => Err(Denied::Expired),
            _ => Ok(terms),
        }
    }

    fn read(path: &str, query: &str) -> Option<Self> {
        let mut terms = Self { path: path.to_owned(), ..Self::default() };
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=')?;
            let value = unescape(value)?;
            match name {
                "expires" => terms.expires_s = Some(value.parse().ok()?),
                "length" => terms.length = Some(value.parse().ok()?),
                "sha256" => terms.sha256 = Some(value),
                "type" => terms.mime = Some(value),
                "upload" => terms.upload = Some(value),
                "part" => terms.part = Some(value.parse().ok()?),
                "disposition" => terms.disposition = Some(value),
                "absent" => terms.absent = true,
                _ => return None,
            }
        }
        Some(terms)
    }
}

fn mac(secret: &[u8], method: Method, path: &str, query: &str) -> Hmac<Sha256> {
    let mac = Hmac::<Sha256>::new_from_slice(secret);
    let mut mac = mac.expect("invariant: HMAC takes keys of any length");
    mac.update(format!("{method}\n{path}\n{query}").as_bytes());
    mac
}

fn unescape(text: &str) -> Option<String> {
    let mut bytes = text.bytes();
    let mut out = Vec::with_capacity(text.len());
    while let Some(byte) = bytes.next() {
        let plain = byte != b'%';
        out.push(if plain { byte } else { digit(bytes.next()?)? << 4 | digit(bytes.next()?)? });
    }
    String::from_utf8(out).ok()
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let pairs = text.as_bytes().chunks(2);
    pairs.map(|pair| Some(digit(*pair.first()?)? << 4 | digit(*pair.get(1)?)?)).collect()
}

fn digit(byte: u8) -> Option<u8> {
    char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok())
}

#[cfg(test)]
mod tests {
    use super::{Denied, Terms};
    use crate::http::Method;

    #[test]
    fn r8_2_every_byte_of_a_signed_url_counts() {
        let terms = Terms {
            path: "ws/a/sha256/ab/cd".to_owned(),
            expires_s: Some(10),
            length: Some(5),
            sha256: Some("ab".to_owned()),
            mime: Some("a/b; c=\"&signature=\"".to_owned()),
            part: Some(1),
            absent: true,
            ..Terms::default()
        };
        let url = terms.sign(b"secret", Method::Put);
        assert_eq!(Terms::check(b"secret", Method::Put, &url, 9_999), Ok(terms));
        assert_eq!(Terms::check(b"secret", Method::Put, &url, 10_000), Err(Denied::Expired));
        assert_eq!(Terms::check(b"other", Method::Put, &url, 0), Err(Denied::Signature));
        assert_eq!(Terms::check(b"secret", Method::Get, &url, 0), Err(Denied::Signature));
        for i in 0..url.len() {
            let mut bytes = url.clone().into_bytes();
            bytes[i] ^= 1;
            let Ok(changed) = String::from_utf8(bytes) else { continue };
            let found = Terms::check(b"secret", Method::Put, &changed, 0);
            assert!(found.is_err(), "byte {i}: {changed}");
        }
    }
}
