//! How a store works, and what opening it found.

/// When a commit counts as done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// After its sync.
    Always,
    /// After its write; the driver calls [`Store::sync`](crate::Store::sync) at least every so many
    /// milliseconds.
    IntervalMs(u32),
    /// After its write; the driver calls [`Store::sync`](crate::Store::sync) when it likes, `close`
    /// does.
    None,
}

/// How a store works. All sizes are in bytes.
#[derive(Debug, Clone)]
pub struct Options {
    /// The log goes on in another segment after this many bytes.
    pub segment_size: u64,
    /// Chunks of a workspace go into another pack after this many bytes; taken as
    /// [`MIN_PACK_SIZE`](crate::limits::MIN_PACK_SIZE) or
    /// [`MAX_PACK_SIZE`](crate::limits::MAX_PACK_SIZE) if it is beyond them.
    pub pack_size: u64,
    /// Zeros are written ahead in steps of this many bytes.
    pub zero_step: u64,
    /// The delta asks for a checkpoint from half of this on.
    pub delta_cap_bytes: usize,
    /// Most memory that a replay gathers before it writes to redb; one sorted write of everything
    /// is many times faster than several.
    pub replay_bytes: usize,
    /// The log asks for a checkpoint this many bytes after the last.
    pub checkpoint_log_bytes: u64,
    /// A checkpoint that changes most rows writes a new state file, if the old one has at least
    /// this many bytes.
    pub anew_from_bytes: u64,
    /// Most memory redb uses as its cache.
    pub cache_bytes: usize,
    /// When a commit counts as done.
    pub durability: Durability,
    /// Seed of the log id and of salts; random, once per open.
    pub entropy: [u8; 32],
    /// Discard the state and fold it from the log again. What the state says about the length of
    /// the log is then not compared with it.
    pub rebuild_state: bool,
    /// Begin a log also where there are packs and nothing else, for
    /// [`Reindex`](crate::blobs::Reindex) to tell it what they hold. Without it such a directory is
    /// damaged: a log that knows nothing of its packs would take them for garbage.
    pub adopt_packs: bool,
}

impl Options {
    /// A server: segments of 64 MiB, steps of 4 MiB, a delta of 256 MiB. The seed is zero and must
    /// be replaced.
    #[must_use]
    pub fn server() -> Self {
        Options {
            segment_size: 64 << 20,
            zero_step: 4 << 20,
            delta_cap_bytes: 256 << 20,
            replay_bytes: 1 << 30,
            cache_bytes: 256 << 20,
            ..Options::default()
        }
    }
}

impl Default for Options {
    /// A device: segments of 8 MiB, steps of 1 MiB, a delta of 32 MiB. The seed is zero and must
    /// be replaced.
    fn default() -> Self {
        Options {
            segment_size: 8 << 20,
            pack_size: 64 << 20,
            zero_step: 1 << 20,
            delta_cap_bytes: 32 << 20,
            replay_bytes: 256 << 20,
            checkpoint_log_bytes: 128 << 20,
            anew_from_bytes: 4 << 20,
            cache_bytes: 64 << 20,
            durability: Durability::Always,
            entropy: [0; 32],
            rebuild_state: false,
            adopt_packs: false,
        }
    }
}

/// What opening found and did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenReport {
    /// There was no log and one was begun.
    pub created: bool,
    /// The log had been closed in good order, or was created.
    pub clean: bool,
    /// Frames folded to bring the state up to the log.
    pub replayed_frames: u64,
    /// Bytes of a torn last group that were cut off; none of them was ever acknowledged.
    pub cut_bytes: u64,
    /// The state could not be trusted or was missing, and was folded from the beginning.
    pub rebuilt_state: bool,
    /// End of the log, in bytes from its beginning.
    pub end: u64,
}
