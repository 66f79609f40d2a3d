//! S3 by its answers: what no server of a test says, a store may say one day. Each test gives the
//! answers, and looks at the requests.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use lastword_providers::capability::{Capabilities, Capability};
use lastword_providers::commit::{CommitError, Verified, verify};
use lastword_providers::expiry::Grant;
use lastword_providers::http::{Headers, HttpClient, HttpError, Method, Reply, Request};
use lastword_providers::key::Prefix;
use lastword_providers::provider::{Completed, ObjectStorageProvider, ProviderError};
use lastword_providers::s3::{Credentials, S3Config, S3Provider, Style};
use lastword_providers::upload::{MultipartId, Upload};

use crate::support::{START_MS, file};

/// Answers in order, and what was asked.
#[derive(Debug, Default)]
struct Script {
    answers: Mutex<VecDeque<(u16, Headers, Vec<u8>)>>,
    asked: Mutex<Vec<Request>>,
}

impl Script {
    fn of(answers: &[(u16, &str)]) -> Arc<Self> {
        let answers = answers.iter().map(|(status, text)| {
            let body = text.as_bytes().to_vec();
            (*status, Headers::new(), body)
        });
        Arc::new(Self { answers: Mutex::new(answers.collect()), asked: Mutex::default() })
    }

    fn with_headers(status: u16, headers: &[(&str, &str)], body: &[u8]) -> Arc<Self> {
        let pair = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        let headers = headers.iter().map(pair).collect();
        let answers = Mutex::new([(status, headers, body.to_vec())].into());
        Arc::new(Self { answers, asked: Mutex::default() })
    }

    fn asked(&self) -> Vec<Request> {
        self.asked.lock().expect("a lock").clone()
    }
}

impl HttpClient for Script {
    fn send(&self, request: Request) -> Result<Reply, HttpError> {
        self.asked.lock().expect("a lock").push(request);
        let answer = self.answers.lock().expect("a lock").pop_front();
        let lost = || HttpError::Lost { what: "no answer is left".to_owned() };
        let (status, headers, body) = answer.ok_or_else(lost)?;
        Ok(Reply::new(status, headers, body))
    }
}

fn provider(script: &Arc<Script>, capabilities: Capabilities) -> S3Provider {
    let config = S3Config {
        id: "s3".to_owned(),
        endpoint: "https://s3.example".to_owned(),
        region: "eu".to_owned(),
        bucket: "files".to_owned(),
        style: Style::VirtualHost,
        credentials: Credentials::new("key", "secret"),
        capabilities,
    };
    S3Provider::new(config, Arc::clone(script) as Arc<dyn HttpClient>).expect("a provider")
}

fn s3(script: &Arc<Script>) -> S3Provider {
    provider(script, Capabilities::all())
}

fn upload_id() -> MultipartId {
    MultipartId::new("an id/of theirs&").expect("an id")
}

fn small() -> Upload {
    file(5000).0
}

const ONE_PART: &str = "<ListPartsResult><Part><PartNumber>1</PartNumber><ETag>\"e\"</ETag>\
    <ChecksumSHA256>AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=</ChecksumSHA256>\
    <Size>5000</Size></Part></ListPartsResult>";

#[test]
fn r3_4_a_completion_sends_what_the_store_has_of_each_part() {
    let done = "<CompleteMultipartUploadResult/>";
    let script = Script::of(&[(200, ONE_PART), (200, done)]);
    let found = s3(&script).complete_multipart(&small(), &upload_id(), START_MS);
    assert_eq!(found.expect("completed"), Completed::Stored);
    let asked = script.asked();
    let body = String::from_utf8_lossy(&asked[1].body).into_owned();
    assert_eq!(asked[1].method, Method::Post);
    assert!(body.contains("<PartNumber>1</PartNumber><ETag>\"e\"</ETag><ChecksumSHA256>AAAA"));
    assert!(asked[1].url.starts_with("https://files.s3.example/ws/main/sha256/"));
    assert!(asked[1].url.contains("&uploadId=an%20id%2Fof%20theirs%26"), "{}", asked[1].url);
    let header = ("if-none-match".to_owned(), "*".to_owned());
    assert!(asked[1].headers.contains(&header));
}

/// A store that binds no length may have taken half of a part.
#[test]
fn r3_4_a_part_of_another_size_is_a_missing_part() {
    let script = Script::of(&[(200, &ONE_PART.replace("5000", "4999"))]);
    let found = s3(&script).complete_multipart(&small(), &upload_id(), START_MS);
    let error = found.expect_err("it is incomplete");
    let part = (1, Some(4999), 5000);
    let ProviderError::Incomplete { part: number, found, expected, .. } = error else {
        panic!("{error}");
    };
    assert_eq!((number, found, expected), part);
    assert_eq!(script.asked().len(), 1, "nothing was completed");
}

#[test]
fn r3_4_a_completion_where_the_file_is_already_throws_the_parts_away() {
    let script = Script::of(&[(200, ONE_PART), (412, "<Error/>"), (204, "")]);
    let found = s3(&script).complete_multipart(&small(), &upload_id(), START_MS);
    assert_eq!(found.expect("it is there"), Completed::AlreadyThere);
    assert_eq!(script.asked()[2].method, Method::Delete);
}

/// S3 lists parts by the thousand. A second page that was not asked for would be a missing part.
#[test]
fn r3_5_parts_are_listed_over_all_pages_and_no_page_twice() {
    let page = |number: u32, next: &str| {
        format!(
            "<R><Part><PartNumber>{number}</PartNumber><Size>5</Size></Part>\
            <IsTruncated>true</IsTruncated><NextPartNumberMarker>{next}</NextPartNumberMarker></R>"
        )
    };
    let last = "<R><Part><PartNumber>2</PartNumber><Size>5</Size></Part></R>";
    let script = Script::of(&[(200, &page(1, "1")), (200, last)]);
    let parts = s3(&script).stored_parts(&small(), &upload_id(), START_MS).expect("parts");
    assert_eq!(parts.iter().map(|part| part.number).collect::<Vec<_>>(), [1, 2]);
    assert!(script.asked()[1].url.contains("&part-number-marker=1&"));

    let script = Script::of(&[(200, &page(1, "1")), (200, &page(1, "1"))]);
    let found = s3(&script).stored_parts(&small(), &upload_id(), START_MS);
    assert!(matches!(found, Err(ProviderError::Malformed { .. })), "{found:?}");
}

#[test]
fn a_list_that_never_ends_is_malformed() {
    let page = "<R><IsTruncated>true</IsTruncated>\
        <NextContinuationToken>t</NextContinuationToken></R>";
    let script = Script::of(&[(200, page), (200, page)]);
    let provider = s3(&script);
    let first = provider.list(&Prefix::all(), None, 10, START_MS).expect("a page");
    let found = provider.list(&Prefix::all(), first.next.as_deref(), 10, START_MS);
    assert!(matches!(found, Err(ProviderError::Malformed { .. })), "{found:?}");
}

#[test]
fn an_upload_that_is_gone_is_told_from_a_refusal() {
    let gone = "<Error><Code>NoSuchUpload</Code></Error>";
    let script = Script::of(&[(404, gone), (404, gone), (403, "<Error><Code>No</Code></Error>")]);
    let (provider, upload) = (s3(&script), small());
    let found = provider.stored_parts(&upload, &upload_id(), START_MS);
    assert!(matches!(found, Err(ProviderError::NoSuchUpload { .. })), "{found:?}");
    provider.abort_multipart(upload.key(), &upload_id(), START_MS).expect("gone is gone");
    let found = provider.abort_multipart(upload.key(), &upload_id(), START_MS);
    assert!(matches!(found, Err(ProviderError::Refused { status: 403, .. })), "{found:?}");
}

#[test]
fn r3_5_what_may_succeed_later_is_retryable_and_a_refusal_is_final() {
    let slow = "<Error><Code>SlowDown</Code><Message>less</Message></Error>";
    for (status, later) in [(503, true), (500, true), (429, true), (403, false), (400, false)] {
        let script = Script::of(&[(status, slow)]);
        let error = s3(&script).list(&Prefix::all(), None, 10, START_MS).expect_err("refused");
        assert_eq!(error.is_retryable(), later, "{status}");
        let expected = format!("list objects: the store answered {status} SlowDown: less");
        assert_eq!(error.to_string(), expected);
    }
    let error = s3(&Script::of(&[])).delete(small().key(), START_MS).expect_err("no answer");
    assert!(error.is_retryable(), "{error}");
}

/// A store that compares no checksums may hand back what the device claimed. Its word is not taken:
/// the bytes are read.
#[test]
fn r3_4_the_checksum_of_a_store_that_compares_none_is_not_believed() {
    let (upload, _) = file(3);
    let claimed = "rkuzy4tR4PHVMKyCVjJPs7w2fVIvS3ckW+BAM3nFsXc=";
    let headers = [("content-length", "3"), ("x-amz-checksum-sha256", claimed)];
    let head = |capabilities| {
        let script = Script::with_headers(200, &headers, b"");
        let provider = provider(&script, capabilities);
        let head = provider.head(upload.key(), START_MS).expect("an answer").expect("an object");
        assert_eq!(head.size_bytes, 3);
        head.sha256.is_some()
    };
    assert!(head(Capabilities::all()));
    assert!(!head(Capabilities::all().without(Capability::ChecksumBound)));
}

#[test]
fn r3_4_a_body_longer_than_the_file_is_found_without_reading_it_all() {
    let (upload, bytes) = file(3);
    let answers = [
        (200, vec![("content-length".to_owned(), "3".to_owned())], Vec::new()),
        (200, Headers::new(), [&bytes[..], &[0; 100]].concat()),
    ];
    let answers = Mutex::new(answers.into());
    let script = Arc::new(Script { answers, asked: Mutex::default() });
    let found = verify(&s3(&script), &upload, START_MS);
    assert!(matches!(found, Err(CommitError::Size { expected: 3, found: 4, .. })), "{found:?}");
}

#[test]
fn r3_4_a_head_without_a_length_is_no_head() {
    let script = Script::of(&[(200, "")]);
    let found = s3(&script).head(small().key(), START_MS);
    assert!(matches!(found, Err(ProviderError::Malformed { .. })), "{found:?}");
}

/// What this store does not bind is not signed for, so that it cannot refuse what it does not know.
#[test]
fn r5_2_only_what_is_promised_is_signed() {
    let script = Script::of(&[]);
    let (upload, grant) = (small(), Grant::at(START_MS));
    let names = |capabilities: Capabilities| {
        let url = provider(&script, capabilities).presign_upload(&upload, grant).expect("a URL");
        let query = url.url.split("X-Amz-SignedHeaders=").nth(1).map(str::to_owned);
        let names = query.and_then(|query| query.split('&').next().map(str::to_owned));
        names.expect("signed headers").replace("%3B", ";")
    };
    let all = "content-length;content-type;host;if-none-match;x-amz-checksum-sha256";
    assert_eq!(names(Capabilities::all()), all);
    assert_eq!(names(Capabilities::default()), "content-type;host");
    let found = provider(&script, Capabilities::default()).begin_multipart(&upload, START_MS);
    let capability = Capability::Multipart;
    assert!(
        matches!(found, Err(ProviderError::Unsupported { capability: c, .. }) if c == capability)
    );
    assert!(script.asked().is_empty(), "nothing was asked");
}

/// A store that vouches is asked once.
#[test]
fn r3_4_a_checksum_that_the_store_computed_saves_the_reading() {
    let (upload, _) = file(0);
    let empty = "47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=";
    let headers = [("content-length", "0"), ("x-amz-checksum-sha256", empty)];
    let script = Script::with_headers(200, &headers, b"");
    assert_eq!(verify(&s3(&script), &upload, START_MS).expect("whole"), Verified::ByStore);
    let asked = script.asked();
    let mode = ("x-amz-checksum-mode".to_owned(), "ENABLED".to_owned());
    assert!(asked.len() == 1 && asked[0].headers.contains(&mode));
}
