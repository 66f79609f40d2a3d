//! Every limit of this crate, in one place.

use std::time::Duration;

/// How long a signed URL is good for when nobody says otherwise.
pub const DEFAULT_EXPIRY: Duration = Duration::from_secs(15 * 60);
/// Longest that any signed URL may be good for (R8.2).
pub const MAX_EXPIRY: Duration = Duration::from_secs(60 * 60);
/// How long the signature of a call that the server makes itself is good for.
pub const OWN_CALL_EXPIRY: Duration = Duration::from_secs(60);

/// Longest wait for a connection to a store.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Longest time that a body may take to go out: a part at 14 KiB/s.
pub const SEND_TIMEOUT: Duration = Duration::from_secs(10 * 60);
/// Longest wait for a store's answer to begin. A completion of many parts takes its time.
pub const ANSWER_TIMEOUT: Duration = Duration::from_secs(3 * 60);
/// Longest time that a body may take to come in: what one check at commit may read for.
pub const RECEIVE_TIMEOUT: Duration = Duration::from_secs(60 * 60);

/// Largest file that one PUT uploads; larger ones go in parts.
pub const MAX_SINGLE_BYTES: u64 = 8 * 1024 * 1024;
/// Smallest part, except the last one: what S3 asks for.
pub const MIN_PART_BYTES: u64 = 5 * 1024 * 1024;
/// Size of a part as long as the file needs no larger one.
pub const PART_BYTES: u64 = 8 * 1024 * 1024;
/// Most parts of one upload.
pub const MAX_PARTS: u32 = 10_000;
/// Largest file: what S3 takes, 5 TiB.
pub const MAX_FILE_BYTES: u64 = 5 * 1024 * 1024 * 1024 * 1024;

/// Most objects in one page of a list.
pub const MAX_PAGE_OBJECTS: usize = 1000;
/// Most pages that the parts of one upload are listed in.
pub const MAX_PART_PAGES: usize = 1000;
/// Longest answer of a store that is read as text: a page of 1,000 objects is 500 KiB.
pub const MAX_ANSWER_BYTES: usize = 4 * 1024 * 1024;
/// Longest text of a store's error that is kept.
pub const MAX_MESSAGE_CHARS: usize = 400;
/// Longest id of an upload in parts, and longest cursor of a list.
pub const MAX_TOKEN_BYTES: usize = 4096;
/// Longest MIME type, in bytes.
pub const MAX_MIME_BYTES: usize = 255;
/// Longest file name in a content disposition, in bytes.
pub const MAX_FILE_NAME_BYTES: usize = 255;
/// Longest id of a provider.
pub const MAX_PROVIDER_ID_BYTES: usize = 32;
/// Most providers in one registry.
pub const MAX_PROVIDERS: usize = 64;

/// Most objects in the store that is in memory.
pub const MAX_MEMORY_OBJECTS: usize = 100_000;
/// Most uploads in parts that it has open.
pub const MAX_MEMORY_UPLOADS: usize = 10_000;
/// Bytes of a file that are in memory at once while it is hashed.
pub const READ_BYTES: usize = 64 * 1024;

// Every file must fit into the parts that a store takes.
const _: () = assert!(MIN_PART_BYTES <= PART_BYTES && MAX_SINGLE_BYTES >= PART_BYTES);
const _: () = assert!(DEFAULT_EXPIRY.as_secs() <= MAX_EXPIRY.as_secs());
const _: () = assert!(OWN_CALL_EXPIRY.as_secs() <= MAX_EXPIRY.as_secs());
