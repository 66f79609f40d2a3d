//! Bugs on purpose. Each is a mistake that a store like this could well have; with the feature
//! `plant` one of them is switched on at a time, and the tests that should notice it must fail.
//! Without the feature no trace of them is compiled.

/// One bug.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Plant {
    /// A commit is reported durable without a sync.
    SkipSync = 1,
    /// A group is published before its sync has ended.
    PublishEarly,
    /// After a failed sync the store goes on.
    GoOnAfterFailedSync,
    /// Recovery cuts at the first bad frame, whatever follows.
    DropTheGroupRule,
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
    /// A checkpoint claims the whole log, with what was folded while it ran.
    WatermarkTooFar,
    /// A fold does not compare its dump with the sums.
    DumpWithoutSums,
    /// A fold removes segments before its base is durable.
    FreeBeforeBaseIsDurable,
    /// A base counts although its last frame is missing.
    TrustUnfinishedBase,
    /// A base is loaded on top of nothing but the rows that changed.
    LoadHalfABase,
    /// Replay begins one frame late.
    SkipAFrame,
    /// A delete is not carried into redb.
    ForgetDeletes,
    /// The last group of a closed log is not synced.
    CloseWithoutSync,
}

/// All of them.
pub const ALL: [Plant; 18] = [
    Plant::SkipSync,
    Plant::PublishEarly,
    Plant::GoOnAfterFailedSync,
    Plant::DropTheGroupRule,
    Plant::AppendToUncleanFile,
    Plant::ShowWithoutRewrite,
    Plant::WriteBeforeBirth,
    Plant::IgnoreChecksum,
    Plant::IgnoreRowDigest,
    Plant::TrustStaleState,
    Plant::WatermarkTooFar,
    Plant::DumpWithoutSums,
    Plant::FreeBeforeBaseIsDurable,
    Plant::TrustUnfinishedBase,
    Plant::LoadHalfABase,
    Plant::SkipAFrame,
    Plant::ForgetDeletes,
    Plant::CloseWithoutSync,
];

#[cfg(feature = "plant")]
static ACTIVE: std::sync::atomic::AtomicU8 = std::sync::atomic::AtomicU8::new(0);

/// Switches one bug on for the whole process, or all off.
#[cfg(feature = "plant")]
pub fn set(plant: Option<Plant>) {
    let number = plant.map_or(0, |plant| plant as u8);
    ACTIVE.store(number, std::sync::atomic::Ordering::SeqCst);
}

/// Whether a bug is on.
#[cfg(feature = "plant")]
pub(crate) fn planted(plant: Plant) -> bool {
    ACTIVE.load(std::sync::atomic::Ordering::SeqCst) == plant as u8
}

/// Whether a bug is on.
#[cfg(not(feature = "plant"))]
pub(crate) const fn planted(_plant: Plant) -> bool {
    false
}
