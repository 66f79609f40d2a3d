//! AWS Signature Version 4, as query parameters: the algorithm is public, see "Authenticating
//! Requests: Using Query Parameters (AWS Signature Version 4)" in the API reference of Amazon S3.

use std::fmt;

use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};

use super::time::{date, date_time};
use crate::expiry::Grant;
use crate::http::Method;
use crate::key::hex;
use crate::upload::escape;

const ALGORITHM: &str = "AWS4-HMAC-SHA256";
/// The body of a presigned request is not part of the signature; its checksum is a signed header.
const UNSIGNED: &str = "UNSIGNED-PAYLOAD";

/// The keys of an account at a store. They are never printed.
#[derive(Clone)]
pub struct Credentials {
    access_key: String,
    secret_key: String,
    session_token: Option<String>,
}

impl Credentials {
    /// Keys that last.
    #[must_use]
    pub fn new(access_key: &str, secret_key: &str) -> Self {
        let (access_key, secret_key) = (access_key.to_owned(), secret_key.to_owned());
        Self { access_key, secret_key, session_token: None }
    }

    /// Keys that were lent, with the token that says so. URLs end when the loan does.
    #[must_use]
    pub fn with_session_token(mut self, token: &str) -> Self {
        self.session_token = Some(token.to_owned());
        self
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials").field("access_key", &self.access_key).finish_non_exhaustive()
    }
}

/// A request as it is signed. Names of headers are in lower case, `host` is among them; the path is
/// escaped already, the query is not.
pub(super) struct Canonical<'a> {
    pub method: Method,
    pub path: &'a str,
    pub query: Vec<(String, String)>,
    pub headers: Vec<(String, String)>,
    pub payload: &'a str,
}

impl Canonical<'_> {
    fn query(&self) -> String {
        let mut pairs: Vec<(String, String)> =
            self.query.iter().map(|(name, value)| (escape(name), escape(value))).collect();
        pairs.sort();
        let pairs: Vec<String> =
            pairs.iter().map(|(name, value)| format!("{name}={value}")).collect();
        pairs.join("&")
    }

    fn signed_headers(&self) -> String {
        let mut names: Vec<&str> = self.headers.iter().map(|(name, _)| name.as_str()).collect();
        names.sort_unstable();
        names.join(";")
    }

    fn text(&self) -> String {
        let mut headers = self.headers.clone();
        headers.sort();
        let lines: String =
            headers.iter().map(|(name, value)| format!("{name}:{}\n", value.trim())).collect();
        let (method, path, query) = (self.method, self.path, self.query());
        format!("{method}\n{path}\n{query}\n{lines}\n{}\n{}", self.signed_headers(), self.payload)
    }
}

/// Signs for one region.
#[derive(Debug, Clone)]
pub(super) struct Signer {
    pub credentials: Credentials,
    pub region: String,
}

impl Signer {
    fn scope(&self, now_ms: u64) -> String {
        format!("{}/{}/s3/aws4_request", date(now_ms), self.region)
    }

    /// The signature of a request made at this time.
    fn signature(&self, request: &Canonical<'_>, now_ms: u64) -> String {
        let hash = hex(&Sha256::digest(request.text()));
        let (time, scope) = (date_time(now_ms), self.scope(now_ms));
        let text = format!("{ALGORITHM}\n{time}\n{scope}\n{hash}");
        let secret = format!("AWS4{}", self.credentials.secret_key);
        let steps = [date(now_ms).as_str(), &self.region, "s3", "aws4_request"].map(str::to_owned);
        let key = steps.iter().fold(secret.into_bytes(), |key, step| mac(&key, step));
        hex(&mac(&key, &text))
    }

    /// The query that makes this request good until the grant ends.
    pub(super) fn presign(
        &self,
        method: Method,
        path: &str,
        query: Vec<(String, String)>,
        headers: Vec<(String, String)>,
        grant: Grant,
    ) -> String {
        let mut request = Canonical { method, path, query, headers, payload: UNSIGNED };
        let credential = format!("{}/{}", self.credentials.access_key, self.scope(grant.now_ms));
        let mut add = |name: &str, value: String| request.query.push((name.to_owned(), value));
        add("X-Amz-Algorithm", ALGORITHM.to_owned());
        add("X-Amz-Credential", credential);
        add("X-Amz-Date", date_time(grant.now_ms));
        add("X-Amz-Expires", grant.expiry.as_secs().to_string());
        if let Some(token) = &self.credentials.session_token {
            add("X-Amz-Security-Token", token.clone());
        }
        let names = request.signed_headers();
        request.query.push(("X-Amz-SignedHeaders".to_owned(), names));
        let signature = self.signature(&request, grant.now_ms);
        format!("{}&X-Amz-Signature={signature}", request.query())
    }
}

fn mac(key: &[u8], text: &str) -> Vec<u8> {
    let mac = Hmac::<Sha256>::new_from_slice(key);
    let mut mac = mac.expect("invariant: HMAC takes keys of any length");
    mac.update(text.as_bytes());
    mac.finalize().into_bytes().to_vec()
}

#[cfg(test)]
mod tests {
    use sha2::{Digest, Sha256};

    use super::{Canonical, Credentials, Signer};
    use crate::expiry::{Expiry, Grant};
    use crate::http::Method;
    use crate::key::hex;

    /// Friday, 24 May 2013, 00:00:00 UTC: the time of every example.
    const EXAMPLE_MS: u64 = 1_369_353_600_000;
    const HOST: (&str, &str) = ("host", "examplebucket.s3.amazonaws.com");
    const EMPTY: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    fn signer() -> Signer {
        let secret = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY";
        let credentials = Credentials::new("AKIAIOSFODNN7EXAMPLE", secret);
        Signer { credentials, region: "us-east-1".to_owned() }
    }

    fn pairs(list: &[(&str, &str)]) -> Vec<(String, String)> {
        list.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    /// The example of "Authenticating Requests: Using Query Parameters (AWS Signature Version 4)",
    /// docs.aws.amazon.com/AmazonS3/latest/API/sigv4-query-string-auth.html, but for its expiry of
    /// a day, which no `Expiry` can be: so its parameters are signed one layer below `presign`.
    #[test]
    fn the_published_example_of_a_presigned_url() {
        let credential = "AKIAIOSFODNN7EXAMPLE/20130524/us-east-1/s3/aws4_request";
        let query = [
            ("X-Amz-Algorithm", "AWS4-HMAC-SHA256"),
            ("X-Amz-Credential", credential),
            ("X-Amz-Date", "20130524T000000Z"),
            ("X-Amz-Expires", "86400"),
            ("X-Amz-SignedHeaders", "host"),
        ];
        let request = Canonical {
            method: Method::Get,
            path: "/test.txt",
            query: pairs(&query),
            headers: pairs(&[HOST]),
            payload: "UNSIGNED-PAYLOAD",
        };
        let hash = "3bfa292879f6447bbcda7001decf97f4a54dc650c8942174ae0a9121cf58ad04";
        assert_eq!(hex(&Sha256::digest(request.text())), hash);
        let signature = "aeeed9bbccd4d02ee5c0109b86d86835f995330da4c265957d157751f604d404";
        assert_eq!(signer().signature(&request, EXAMPLE_MS), signature);
    }

    /// What `presign` adds are exactly those parameters.
    #[test]
    fn presigning_adds_the_parameters_of_the_example() {
        let expiry = Expiry::new(std::time::Duration::from_secs(3600)).expect("the cap");
        let grant = Grant { now_ms: EXAMPLE_MS, expiry };
        let headers = pairs(&[HOST]);
        let query = signer().presign(Method::Get, "/test.txt", Vec::new(), headers, grant);
        let (query, signature) = query.split_once("&X-Amz-Signature=").expect("signed");
        let expected = "X-Amz-Algorithm=AWS4-HMAC-SHA256\
            &X-Amz-Credential=AKIAIOSFODNN7EXAMPLE%2F20130524%2Fus-east-1%2Fs3%2Faws4_request\
            &X-Amz-Date=20130524T000000Z&X-Amz-Expires=3600&X-Amz-SignedHeaders=host";
        assert_eq!(query, expected);
        assert_eq!(signature.len(), 64);
    }

    /// The examples of "Authenticating Requests: Using the Authorization Header (AWS Signature
    /// Version 4)", docs.aws.amazon.com/AmazonS3/latest/API/sig-v4-header-based-auth.html: the same
    /// algorithm over other headers, with an escaped path, an empty parameter and two of them.
    #[test]
    fn the_published_examples_of_canonical_requests() {
        let time = ("x-amz-date", "20130524T000000Z");
        let text = "44ce7dd67c959e0d3524ffac1771dfbba87d2b6b4b4e99e42034a8b803f8b072";
        let date = ("date", "Fri, 24 May 2013 00:00:00 GMT");
        let class = ("x-amz-storage-class", "REDUCED_REDUNDANCY");
        let none: &[(&str, &str)] = &[];
        let range = ("range", "bytes=0-9");
        let cases = [
            (
                (Method::Get, "/test.txt", none, vec![range], EMPTY),
                "f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41",
            ),
            (
                (Method::Put, "/test%24file.text", none, vec![date, class], text),
                "98ad721746da40c64f1a55b78f14c238d841ea1380cd77a1b5971af0ece108bd",
            ),
            (
                (Method::Get, "/", &[("lifecycle", "")], vec![], EMPTY),
                "fea454ca298b7da1c68078a5d1bdbfbbe0d65c699e0f91ac7a200a0136783543",
            ),
            (
                (Method::Get, "/", &[("prefix", "J"), ("max-keys", "2")], vec![], EMPTY),
                "34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7",
            ),
        ];
        for ((method, path, query, mut headers, payload), signature) in cases {
            headers.extend([time, HOST, ("x-amz-content-sha256", payload)]);
            let headers = pairs(&headers);
            let request = Canonical { method, path, query: pairs(query), headers, payload };
            assert_eq!(signer().signature(&request, EXAMPLE_MS), signature, "{method} {path}");
        }
    }

    #[test]
    fn a_lent_key_says_so_in_the_signed_query() {
        let headers = || pairs(&[HOST]);
        let mut signer = signer();
        let plain = signer.presign(Method::Get, "/a", Vec::new(), headers(), Grant::at(EXAMPLE_MS));
        signer.credentials = signer.credentials.with_session_token("to/ken");
        let lent = signer.presign(Method::Get, "/a", Vec::new(), headers(), Grant::at(EXAMPLE_MS));
        assert!(lent.contains("&X-Amz-Security-Token=to%2Fken&X-Amz-SignedHeaders="), "{lent}");
        let signature = |query: &str| query.rsplit('=').next().map(str::to_owned);
        assert_ne!(signature(&lent), signature(&plain));
    }

    #[test]
    fn keys_are_never_printed() {
        let printed =
            format!("{:?}", Credentials::new("name", "hidden").with_session_token("also"));
        assert!(
            printed.contains("name") && !printed.contains("hidden") && !printed.contains("also")
        );
    }
}
