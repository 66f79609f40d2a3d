//! What S3 answers, read strictly: an answer that lacks what it must have is malformed, never
//! empty.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use roxmltree::{Document, Node};

use crate::http::Reply;
use crate::key::ObjectKey;
use crate::limits::{MAX_ANSWER_BYTES, MAX_MESSAGE_CHARS, MAX_PARTS, MAX_TOKEN_BYTES};
use crate::provider::{Listed, Page, ProviderError, StoredPart};

/// An answer of the operation it is named after.
pub(super) struct Answer {
    operation: &'static str,
    text: String,
}

impl Answer {
    /// The body of a reply.
    pub(super) fn new(operation: &'static str, reply: Reply) -> Result<Self, ProviderError> {
        let bytes = reply.bytes(MAX_ANSWER_BYTES);
        let bytes = bytes.map_err(|source| ProviderError::Http { operation, source })?;
        let text = String::from_utf8(bytes);
        let text = text.map_err(|_| malformed(operation, "it is not UTF-8".to_owned()))?;
        Ok(Self { operation, text })
    }

    /// Why the store says no.
    pub(super) fn refusal(&self, status: u16) -> ProviderError {
        let document = Document::parse(self.text.trim()).ok();
        let find = |name: &str| {
            let text = text_of(document.as_ref()?.root_element(), name)?;
            Some(text.chars().take(MAX_MESSAGE_CHARS).collect::<String>())
        };
        let code = find("Code").unwrap_or_default();
        let message = find("Message").unwrap_or_default();
        ProviderError::Refused { operation: self.operation, status, code, message }
    }

    /// A completion may be answered with 200 first and an error after that.
    pub(super) fn completed(&self) -> Result<(), ProviderError> {
        self.parse(|root| match root.tag_name().name() {
            "CompleteMultipartUploadResult" => Ok(()),
            "Error" => Err(self.refusal(200)),
            other => Err(self.malformed(format!("its root is {other:?}"))),
        })
    }

    /// The id of an upload that was begun.
    pub(super) fn upload_id(&self) -> Result<String, ProviderError> {
        self.parse(|root| self.text(root, "UploadId").map(str::to_owned))
    }

    /// A page of parts, and where the next one begins.
    pub(super) fn parts(&self) -> Result<(Vec<StoredPart>, Option<u32>), ProviderError> {
        self.parse(|root| {
            let parts =
                children(root, "Part").map(|part| self.part(part)).collect::<Result<_, _>>()?;
            let next = match text_of(root, "IsTruncated") {
                Some("true") => Some(self.number(root, "NextPartNumberMarker")?),
                _ => None,
            };
            Ok((parts, next))
        })
    }

    fn part(&self, node: Node<'_, '_>) -> Result<StoredPart, ProviderError> {
        let number = self.number(node, "PartNumber")?;
        if !(1..=MAX_PARTS).contains(&number) {
            return Err(self.malformed(format!("part {number}")));
        }
        let etag = text_of(node, "ETag").map(str::to_owned);
        let sha256 = text_of(node, "ChecksumSHA256").and_then(read_sum);
        Ok(StoredPart { number, size_bytes: self.number(node, "Size")?, etag, sha256 })
    }

    /// A page of objects.
    pub(super) fn page(&self) -> Result<Page, ProviderError> {
        self.parse(|root| {
            let mut page = Page::default();
            for node in children(root, "Contents") {
                let text = self.text(node, "Key")?;
                let size_bytes = self.number(node, "Size")?;
                match ObjectKey::read(text) {
                    Some(key) => page.objects.push(Listed { key, size_bytes }),
                    None => page.strays.push(text.to_owned()),
                }
            }
            if text_of(root, "IsTruncated") == Some("true") {
                let next = self.text(root, "NextContinuationToken")?;
                if next.len() > MAX_TOKEN_BYTES {
                    return Err(self.malformed(format!("a token of {} bytes", next.len())));
                }
                page.next = Some(next.to_owned());
            }
            Ok(page)
        })
    }

    fn parse<T>(
        &self,
        read: impl FnOnce(Node<'_, '_>) -> Result<T, ProviderError>,
    ) -> Result<T, ProviderError> {
        // S3 sends spaces while a completion takes its time, and no parser allows them in front.
        let document = Document::parse(self.text.trim());
        let document = document.map_err(|error| self.malformed(error.to_string()))?;
        read(document.root_element())
    }

    fn text<'a>(&self, node: Node<'a, '_>, name: &str) -> Result<&'a str, ProviderError> {
        text_of(node, name).ok_or_else(|| self.malformed(format!("it has no {name}")))
    }

    fn number<T: std::str::FromStr>(
        &self,
        node: Node<'_, '_>,
        name: &str,
    ) -> Result<T, ProviderError> {
        let text = self.text(node, name)?;
        text.parse().map_err(|_| self.malformed(format!("{name} is no number")))
    }

    fn malformed(&self, what: String) -> ProviderError {
        malformed(self.operation, what)
    }
}

pub(super) fn malformed(operation: &'static str, what: String) -> ProviderError {
    ProviderError::Malformed { operation, what }
}

fn children<'a, 'input: 'a>(
    node: Node<'a, 'input>,
    name: &str,
) -> impl Iterator<Item = Node<'a, 'input>> {
    node.children().filter(move |child| child.tag_name().name() == name)
}

fn text_of<'a>(node: Node<'a, '_>, name: &str) -> Option<&'a str> {
    children(node, name).next()?.text()
}

/// A SHA-256 as S3 writes it. The checksum of an upload in parts ends with `-` and their number: it
/// is one of checksums and says nothing of the whole, so it is none.
pub(super) fn read_sum(text: &str) -> Option<[u8; 32]> {
    STANDARD.decode(text).ok()?.try_into().ok()
}

/// A SHA-256 as S3 reads it.
pub(super) fn write_sum(sum: &[u8; 32]) -> String {
    STANDARD.encode(sum)
}

/// The body of a completion.
pub(super) fn completion(parts: &[StoredPart]) -> String {
    let mut out = String::from("<CompleteMultipartUpload>");
    for part in parts {
        out.push_str(&format!("<Part><PartNumber>{}</PartNumber>", part.number));
        if let Some(etag) = &part.etag {
            out.push_str(&format!("<ETag>{}</ETag>", escape_text(etag)));
        }
        if let Some(sum) = &part.sha256 {
            out.push_str(&format!("<ChecksumSHA256>{}</ChecksumSHA256>", write_sum(sum)));
        }
        out.push_str("</Part>");
    }
    out + "</CompleteMultipartUpload>"
}

fn escape_text(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::{Answer, completion, read_sum};
    use crate::http::Reply;
    use crate::provider::{ProviderError, StoredPart};

    fn answer(text: &str) -> Answer {
        let reply = Reply::new(200, Vec::new(), text.as_bytes().to_vec());
        Answer::new("test", reply).expect("text")
    }

    /// S3 answers a completion with 200 before it knows how that ends: an error in the body taken
    /// for success would record a file that is not there.
    #[test]
    fn r3_4_an_error_with_status_200_is_an_error() {
        let error = "\n  <?xml version=\"1.0\"?>\n<Error><Code>InternalError</Code></Error>";
        let found = answer(error).completed();
        assert!(
            matches!(found, Err(ProviderError::Refused { code, .. }) if code == "InternalError")
        );
        assert!(answer("<CompleteMultipartUploadResult/>").completed().is_ok());
        assert!(answer("<Something/>").completed().is_err());
        assert!(answer("").completed().is_err());
    }

    #[test]
    fn a_list_keeps_strays_apart_and_says_where_it_goes_on() {
        let hex = "ab".repeat(32);
        let text = format!(
            "<ListBucketResult xmlns=\"x\"><Contents><Key>ws/a/sha256/ab/{hex}</Key><Size>3</Size>\
            </Contents><Contents><Key>ws/a/sha256/a&amp;b</Key><Size>1</Size></Contents>\
            <IsTruncated>true</IsTruncated><NextContinuationToken>t</NextContinuationToken>\
            </ListBucketResult>"
        );
        let page = answer(&text).page().expect("a page");
        assert_eq!((page.objects.len(), page.objects[0].size_bytes), (1, 3));
        assert_eq!(page.strays, ["ws/a/sha256/a&b"]);
        assert_eq!(page.next.as_deref(), Some("t"));
        // Truncated without a token would end the list early: files taken for deleted.
        let cut = text.replace("NextContinuationToken", "Other");
        assert!(matches!(answer(&cut).page(), Err(ProviderError::Malformed { .. })));
    }

    #[test]
    fn the_checksum_of_parts_is_none_of_the_whole() {
        let sum = super::write_sum(&[7; 32]);
        assert_eq!(read_sum(&sum), Some([7; 32]));
        assert_eq!(read_sum(&format!("{sum}-2")), None);
    }

    /// Whoever answers in the store's place must not be able to end the server.
    #[test]
    fn an_answer_that_nests_or_grows_without_end_is_malformed() {
        let deep = "<a>".repeat(super::MAX_ANSWER_BYTES / 3);
        assert!(matches!(answer(&deep).page(), Err(ProviderError::Malformed { .. })));
        let grows = "<!DOCTYPE a [<!ENTITY b \"cc\"><!ENTITY c \"&b;&b;\">]><a>&c;</a>";
        assert!(matches!(answer(grows).page(), Err(ProviderError::Malformed { .. })));
        let reply = Reply::new(200, Vec::new(), vec![b' '; super::MAX_ANSWER_BYTES + 1]);
        assert!(matches!(Answer::new("test", reply), Err(ProviderError::Http { .. })));
    }

    /// Every byte of every answer flipped: an error or another value, never a panic.
    #[test]
    fn a_damaged_answer_never_ends_the_server() {
        let texts = [
            "<R><UploadId>u</UploadId></R>",
            "<R><Part><PartNumber>1</PartNumber><Size>5</Size></Part><IsTruncated>true</IsTruncated>\
            <NextPartNumberMarker>1</NextPartNumberMarker></R>",
            "<R><Contents><Key>k&amp;k</Key><Size>9</Size></Contents></R>",
            "<Error><Code>C</Code><Message>m</Message></Error>",
        ];
        for text in texts {
            for (i, bit) in (0..text.len()).flat_map(|i| (0..8).map(move |bit| (i, bit))) {
                let mut bytes = text.as_bytes().to_vec();
                bytes[i] ^= 1 << bit;
                let reply = Reply::new(200, Vec::new(), bytes);
                let Ok(answer) = Answer::new("test", reply) else { continue };
                let _ = (answer.completed(), answer.upload_id(), answer.parts(), answer.page());
                let _ = answer.refusal(500);
            }
        }
    }

    #[test]
    fn parts_are_read_and_written() {
        let text = "<ListPartsResult><Part><PartNumber>1</PartNumber><ETag>\"e\"</ETag><Size>5</Size>\
            </Part><IsTruncated>false</IsTruncated></ListPartsResult>";
        let (parts, next) = answer(text).parts().expect("parts");
        let part =
            StoredPart { number: 1, size_bytes: 5, etag: Some("\"e\"".to_owned()), sha256: None };
        assert_eq!((parts, next), (vec![part], None));
        let sent = completion(&[StoredPart {
            number: 2,
            size_bytes: 5,
            etag: Some("<&>".to_owned()),
            sha256: Some([0; 32]),
        }]);
        assert!(sent.contains("<ETag>&lt;&amp;&gt;</ETag><ChecksumSHA256>AAAA"), "{sent}");
        assert!(answer(&text.replace(">1<", ">0<")).parts().is_err());
        assert!(answer(&text.replace("Size", "Sise")).parts().is_err());
    }
}
