//! Every maximum and fixed length of the store, and the relations between them.

use lastword_core::limits::MAX_CHUNK_BYTES;

/// Bytes of the header at the start of each log file and pack.
pub const HEADER_LEN: usize = 128;
/// Bytes of a frame before its payload.
pub const FRAME_HEADER_LEN: usize = 24;
/// Frames start at multiples of this many bytes.
pub const FRAME_ALIGN: usize = 8;
/// Longest payload of one frame in bytes: a decided batch of 8 MiB and its envelope.
pub const MAX_FRAME: usize = 8 * 1024 * 1024 + 64 * 1024;
/// Most bytes that may wait for one commit; a group stays in one segment and one buffer.
pub const MAX_GROUP: usize = 32 * 1024 * 1024;
/// Most jobs that wait for the writer of a store; whoever brings one more waits.
pub const MAX_WAITING_JOBS: usize = 4096;
/// Most bytes that jobs hold while they wait for the writer.
pub const MAX_WAITING_BYTES: usize = 16 * 1024 * 1024;
/// Number of spaces a state can hold.
pub const MAX_SPACES: usize = 16;
/// Longest key of a row in bytes.
pub const MAX_KEY: usize = 64 * 1024;
/// Most fields of one index.
pub const MAX_INDEX_FIELDS: usize = 8;
/// Longest encoded values of one index entry in bytes, the record's key left out.
pub const MAX_INDEX_VALUE: usize = 4096;
/// Bytes a scan of the log reads at a time.
pub const SCAN_CHUNK: usize = 1024 * 1024;
/// Rows a scan takes from a delta while it holds the delta's lock.
pub const SCAN_ROWS: usize = 64;
/// Most rows that are copied from one state file to another at a time.
pub const COPY_ROWS: usize = 4096;
/// A space of so many rows is looked through whenever a state is opened.
pub const SMALL_SPACE_ROWS: u64 = 32;
/// Rows of a delta of which one is looked for in redb, to see how far apart they lie.
pub const SPREAD_RUN: usize = 128;
/// Bytes of keys and values after which rows are copied, however few they are.
pub const COPY_BYTES: usize = 2 * 1024 * 1024;
/// Most rows of a copy that nobody reads any more that one frame takes away.
pub const MAX_PURGED_ROWS: usize = 1024;
/// Most marks that a base keeps of earlier folds.
pub const MAX_MARKS: usize = 128;
/// Most chunks that one frame of the log names.
pub const MAX_FRAME_CHUNKS: usize = 65_536;
/// Longest id of an object store.
pub const MAX_PROVIDER_ID_BYTES: usize = 32;
/// Longest id of an upload in parts.
pub const MAX_UPLOAD_ID_BYTES: usize = 4096;
/// Most packs that one frame of the log names.
pub const MAX_FRAME_PACKS: usize = 1024;
/// Most files that one frame of a pack says were dropped.
pub const MAX_DROPPED_IN_FRAME: usize = 4096;
/// Longest payload of a frame in a pack: a chunk with what is said of it, or a workspace's name.
pub const MAX_PACK_PAYLOAD: usize = MAX_CHUNK_BYTES + 64;
/// Bytes of a file that are read before what was stored of it goes into the log.
pub const INGEST_STEP_BYTES: u64 = 32 * 1024 * 1024;
/// Files that go into the log together.
pub const MAX_INGEST_FILES: usize = 4096;
/// Bytes of a file that come from somebody else before they go into the log.
pub const RECEIVE_STEP_BYTES: u64 = 8 * 1024 * 1024;
/// Bytes of chunks that are written to a pack together.
pub const PACK_WRITE_BYTES: usize = 1024 * 1024;
/// Bytes of a file that are cut into chunks at a time.
pub const CHUNKER_BYTES: usize = 2 * 1024 * 1024;
/// Most files, and most chunks, that one run of the garbage collector condemns or drops.
pub const MAX_GC_STEP: usize = 32_768;
/// Most files that one step of a reindex judges.
pub const MAX_REINDEX_STEP: usize = 1024;
/// Bytes below which a run of the garbage collector is never too much.
pub const GC_BREAKER_FROM_BYTES: u64 = 64 * 1024 * 1024;
/// A run of the garbage collector takes at most one byte in so many.
pub const GC_BREAKER_PART: u64 = 10;
/// Smallest and largest size at which the chunks of a workspace go into another pack.
pub const MIN_PACK_SIZE: u64 = 64 * 1024;
/// See [`MIN_PACK_SIZE`].
pub const MAX_PACK_SIZE: u64 = 1 << 36;
/// No frame of a pack begins or ends behind this position: several who store files may each add a
/// chunk to one that is about to be full.
pub const MAX_PACK_POSITION: u64 = 1 << 40;
/// Packs that are kept open to be written to, but for those that are in use.
pub const MAX_PACK_WRITERS: usize = 64;
/// Most chunks that one step of a scrub reads.
pub const SCRUB_ROWS: usize = 4096;
/// Packs that are kept open for reading.
pub const MAX_OPEN_PACKS: usize = 64;
/// Largest group number (48 bits on disk).
pub const MAX_GROUP_NUMBER: u64 = (1 << 48) - 1;
/// Spares a disk keeps ready.
pub const SPARES: usize = 2;
/// Spares that only what frees space may take.
pub const SPARES_RESERVED: usize = 1;
/// Spares that stay in a directory that nobody has open.
pub const SPARES_KEPT: usize = 1;

const _: () = assert!(MAX_GC_STEP <= MAX_FRAME_CHUNKS);
const _: () = assert!(MAX_PACK_PAYLOAD <= MAX_FRAME);
const _: () = assert!(MAX_PACK_SIZE < MAX_PACK_POSITION);
const _: () = assert!(MAX_DROPPED_IN_FRAME * (32 + 9) + 9 <= MAX_PACK_PAYLOAD);
const _: () = assert!(2 * MAX_CHUNK_BYTES <= CHUNKER_BYTES);
// Ids and places of the chunks of one step fit a frame many times.
const _: () = assert!(MAX_FRAME_CHUNKS * 64 < MAX_FRAME);
const _: () = assert!(HEADER_LEN.is_multiple_of(FRAME_ALIGN));
const _: () = assert!(FRAME_HEADER_LEN.is_multiple_of(FRAME_ALIGN));
const _: () = assert!(MAX_FRAME.is_multiple_of(FRAME_ALIGN));
const _: () = assert!(MAX_FRAME + FRAME_HEADER_LEN <= MAX_GROUP);
const _: () = assert!(MAX_FRAME <= u32::MAX as usize);
// Workspace, table and index name, key and separators stand beside the values.
const _: () = assert!(MAX_INDEX_VALUE + 2048 < MAX_KEY);
