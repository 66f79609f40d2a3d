//! Bugs on purpose. Each is a mistake that a store like this could well have. With the feature
//! `plant` the one that the environment names is on, and the tests that should notice it must fail;
//! without the feature no trace of them is compiled.

/// One bug.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Plant {
    /// A commit is reported durable without a sync.
    SkipSync,
    /// A commit is reported durable although its sync failed.
    AckFailedSync,
    /// After a failed sync the store goes on.
    GoOnAfterFailedSync,
    /// Recovery cuts at the first bad frame, whatever follows.
    DropTheGroupRule,
    /// Every group has the number of the one before.
    SameGroupAgain,
    /// Recovery appends to a file that was not closed in good order.
    AppendToUncleanFile,
    /// Recovery shows the last group without writing it again.
    ShowWithoutRewrite,
    /// The first group of a segment is written before its header is durable.
    WriteBeforeBirth,
    /// A frame's checksum is not looked at.
    IgnoreChecksum,
    /// A row's digest is not looked at.
    IgnoreRowDigest,
    /// A state of any log position is believed.
    TrustStaleState,
    /// A checkpoint that is tried again claims the log up to now.
    WatermarkTooFar,
    /// A fold does not compare its dump with the sums.
    DumpWithoutSums,
    /// A fold removes segments although its base is not durable.
    FreeBeforeBaseIsDurable,
    /// The last frame of a base is written before the others are durable.
    EndBaseBeforeItsRows,
    /// A base is loaded without its first frame and not compared with its sums.
    LoadHalfABase,
    /// Replay begins one frame late.
    SkipAFrame,
    /// A delete is not carried into redb.
    ForgetDeletes,
    /// A fold removes what the history window still holds.
    ForgetHistory,
    /// A spare with the rests of a birth is used as it is.
    UseDirtySpare,
}

/// All of them, with their names.
#[cfg(feature = "plant")]
pub const ALL: [Plant; 20] = [
    Plant::SkipSync,
    Plant::AckFailedSync,
    Plant::GoOnAfterFailedSync,
    Plant::DropTheGroupRule,
    Plant::SameGroupAgain,
    Plant::AppendToUncleanFile,
    Plant::ShowWithoutRewrite,
    Plant::WriteBeforeBirth,
    Plant::IgnoreChecksum,
    Plant::IgnoreRowDigest,
    Plant::TrustStaleState,
    Plant::WatermarkTooFar,
    Plant::DumpWithoutSums,
    Plant::FreeBeforeBaseIsDurable,
    Plant::EndBaseBeforeItsRows,
    Plant::LoadHalfABase,
    Plant::SkipAFrame,
    Plant::ForgetDeletes,
    Plant::ForgetHistory,
    Plant::UseDirtySpare,
];

/// Names the bug of this process.
#[cfg(feature = "plant")]
pub const VARIABLE: &str = "LASTWORD_PLANT";

/// Whether a bug is on.
#[cfg(feature = "plant")]
pub(crate) fn planted(plant: Plant) -> bool {
    static ACTIVE: std::sync::OnceLock<Option<String>> = std::sync::OnceLock::new();
    let active = ACTIVE.get_or_init(|| std::env::var(VARIABLE).ok());
    active.as_deref() == Some(format!("{plant:?}").as_str())
}

/// Whether a bug is on: never.
#[cfg(not(feature = "plant"))]
pub(crate) const fn planted(_plant: Plant) -> bool {
    false
}
