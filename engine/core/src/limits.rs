//! Every limit of the product, in one place.
//!
//! Sizes are encoded bytes unless the name says otherwise. The relations between limits that other
//! code relies on are checked when the crate is compiled (at the end of this file).

/// Longest workspace or table name, in bytes.
pub const MAX_NAME_BYTES: usize = 64;
/// Longest record key, in bytes of UTF-8.
pub const MAX_KEY_BYTES: usize = 1024;
/// Longest field name, in bytes of UTF-8.
pub const MAX_FIELD_NAME_BYTES: usize = 1024;
/// Most fields in one record, and most entries in one nested map.
pub const MAX_FIELDS: usize = 4096;
/// Most fields that one patch names, those to set and those to remove.
pub const MAX_PATCH_NAMES: usize = 2 * MAX_FIELDS;
/// Deepest nesting of lists and maps inside one field; a plain value has depth 1.
pub const MAX_DEPTH: usize = 32;
/// Largest encoded record.
pub const MAX_RECORD_BYTES: usize = 256 * 1024;
/// Largest encoded row: a record with the marks of its changed fields.
pub const MAX_ROW_BYTES: usize = 384 * 1024;
/// Most ops in one batch.
pub const MAX_BATCH_OPS: usize = 500;
/// Largest encoded list of ops of one batch.
pub const MAX_BATCH_BYTES: usize = 768 * 1024;
/// Most former device ids that a batch can name.
pub const MAX_FORMER_DEVICES: usize = 64;
/// Largest decided batch in the authority's log, conflict rows included.
pub const MAX_DECIDED_BYTES: usize = 8 * 1024 * 1024;
/// Largest protocol message.
pub const MAX_MESSAGE_BYTES: usize = 1024 * 1024;
/// Encoded size at which a page of changes is closed; one record may pass it.
pub const PAGE_BYTES: usize = 512 * 1024;
/// Most entries in one page of changes.
pub const MAX_PAGE_ENTRIES: usize = 16 * 1024;
/// A workspace whose seqs have come so far is given to a replica that has nothing of it by a walk.
/// Below that its changes are a few pages in any order.
pub const WALK_FROM_SEQS: u64 = 16 * 1024;
/// Most pages that an authority sends ahead of the replica's acknowledgement.
pub const MAX_PAGES_IN_FLIGHT: u32 = 8;
/// Most batches that a replica sends ahead of their verdicts.
pub const MAX_BATCHES_IN_FLIGHT: usize = 32;
/// Most decisions that one `Attached` carries.
pub const MAX_ATTACHED_DECISIONS: usize = 256;
/// Most workspaces attached on one connection.
pub const MAX_ATTACHMENTS: usize = 64;
/// Longest token in a `Hello`, in bytes.
pub const MAX_TOKEN_BYTES: usize = 16 * 1024;
/// Longest human text in a message (a reason, an error).
pub const MAX_TEXT_BYTES: usize = 4 * 1024;
/// Longest reason in a WebSocket close frame; a control frame has no room for more.
pub const MAX_CLOSE_REASON_BYTES: usize = 123;
/// Longest wait before a batch is pushed again, whatever the server says, in milliseconds.
pub const MAX_RETRY_AFTER_MS: u64 = 3600 * 1000;
/// Largest disputed field that a conflict row holds inline.
pub const MAX_CONFLICT_INLINE_BYTES: usize = 4 * 1024;
/// Most restore ranges in one `Attached`.
pub const MAX_LINEAGE: usize = 256;
/// Largest encoded schema entry.
pub const MAX_SCHEMA_BYTES: usize = 256 * 1024;
/// Most tables in one schema, those that were removed included.
pub const MAX_SCHEMA_TABLES: usize = 1000;
/// Most fields that one table names as server-owned, and as blob references.
pub const MAX_SCHEMA_FIELDS: usize = 64;
/// Largest chunk of a file, and largest page of a manifest.
pub const MAX_CHUNK_BYTES: usize = 256 * 1024;
/// Smallest chunk of a file that is cut by profile 1, but for its last.
pub const MIN_CHUNK_BYTES: usize = 16 * 1024;
/// Most entries in one page of a manifest.
pub const MAX_MANIFEST_ENTRIES: usize = 4096;
/// Most levels of pages above the chunks of one file.
pub const MAX_MANIFEST_DEPTH: u64 = 3;
/// Largest file: 16 TiB.
pub const MAX_BLOB_BYTES: u64 = 1 << 44;
/// Most chunks that the receiver of a file asks for at a time.
pub const MAX_WANTED_CHUNKS: usize = 256;
/// Longest signed URL.
pub const MAX_URL_BYTES: usize = 32 * 1024;
/// Most headers that go with one.
pub const MAX_URL_HEADERS: usize = 32;
/// Most parts in which a file goes to an object store.
pub const MAX_FILE_PARTS: usize = 10_000;
/// How long decisions, losing values and conflict rows are kept: 30 days in milliseconds.
pub const HISTORY_WINDOW_MS: i64 = 30 * 24 * 3600 * 1000;
/// Most versions that one history answer lists.
pub const MAX_HISTORY: usize = 1000;
/// Most versions in one answer about a record's history on the wire.
pub const MAX_HISTORY_VERSIONS: usize = 64;
/// Most bytes of the log that an authority reads for one such answer.
pub const MAX_HISTORY_READ_BYTES: usize = 32 * 1024 * 1024;
/// Most questions about histories that one attachment has without an answer.
pub const MAX_HISTORY_REQUESTS: usize = 16;
/// Shortest wait before a reconnect, in milliseconds.
pub const RETRY_MIN_MS: u64 = 100;
/// Longest wait before a reconnect, in milliseconds.
pub const RETRY_MAX_MS: u64 = 15_000;

// Name and length of each entry; also with every chunk at its smallest the pages span any file.
const _: () = assert!(MAX_MANIFEST_ENTRIES * (32 + 9) + 16 < MAX_CHUNK_BYTES);
const _: () = assert!((MAX_MANIFEST_ENTRIES as u64).pow(3) > MAX_BLOB_BYTES / (16 * 1024));
const _: () = assert!(MAX_CHUNK_BYTES + MAX_TEXT_BYTES < MAX_MESSAGE_BYTES);
const _: () = assert!(MAX_RECORD_BYTES + MAX_KEY_BYTES + MAX_NAME_BYTES < MAX_BATCH_BYTES);
const _: () = assert!(MAX_BATCH_BYTES + 64 * 1024 < MAX_MESSAGE_BYTES);
const _: () = assert!(MAX_RECORD_BYTES < MAX_ROW_BYTES);
const _: () = assert!(PAGE_BYTES + MAX_ROW_BYTES + 64 * 1024 < MAX_MESSAGE_BYTES);
const _: () = assert!(MAX_BATCH_BYTES < MAX_DECIDED_BYTES);
