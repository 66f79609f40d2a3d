//! What must hold, by id. `docs/simulation.md` says more.

/// Each invariant: its id, what must hold, and where it is checked.
pub const INVARIANTS: &[(&str, &str, &str)] = &[
    (
        "I1",
        "an acknowledged write is in the outbox, decided, or a dead letter, after any crash",
        "check.rs",
    ),
    ("I2", "seqs have no gap but those of restores, rise, and are given once", "oracle.rs"),
    ("I3", "each op in the log was written by a device of a member, byte for byte", "oracle.rs"),
    ("I4", "no batch is decided twice", "oracle.rs"),
    ("I5", "a batch id that comes with other content is refused and changes nothing", "oracle.rs"),
    ("I6", "a device that has nothing under way stands at the end of a batch", "check.rs"),
    ("I7", "the log reads without damage, and never ends before what was shown of it", "oracle.rs"),
    ("I8", "after a write or sync whose outcome is unknown nothing is acknowledged", "crash.rs"),
    ("I9", "on a full disk what is there stays readable, and opens", "crash.rs"),
    ("I10", "a recovery that is cut off again and again ends where one at once does", "crash.rs"),
    (
        "I11",
        "opening takes a number of disk operations that is linear in what was not checkpointed",
        "crash.rs",
    ),
    (
        "I12",
        "the state is what the log says, also after checkpoints, crashes and rebuilds",
        "check.rs",
    ),
    ("I13", "what an index finds is what a look at all rows finds", "live.rs"),
    ("I14", "a row whose bytes have changed on the medium is not shown", "crash.rs"),
    (
        "I15",
        "whatever the disk did, a store opens or says why not, and takes what it has to take",
        "crash.rs",
    ),
    ("I16", "when all is quiet every device shows what the log says", "check.rs"),
    ("I17", "a device shows after a restart what it showed before", "check.rs"),
    ("I18", "no record goes back to an earlier version", "check.rs"),
    (
        "I19",
        "batches stay in their order in the outbox, and leave it decided or as dead letters",
        "check.rs",
    ),
    ("I20", "no cursor is beyond the log", "check.rs"),
    ("I21", "a copy of another epoch, or from before the horizon, does not go on", "check.rs"),
    ("I22", "a reset drops nothing that waits", "check.rs"),
    ("I23", "no edit brings a deleted record back and no create overwrites one", "judge.rs"),
    ("I24", "an undelete applies to one tombstone only, and brings back its value", "judge.rs"),
    ("I25", "each loss makes one conflict row, once", "judge.rs"),
    (
        "I26",
        "verdicts do not depend on a device's clock, and server time never goes back",
        "judge.rs",
    ),
    ("I27", "folds, checkpoints and purges change nothing that is shown", "check.rs"),
    ("I28", "when faults stop, outboxes drain and the network goes quiet", "quiet.rs"),
    ("I29", "a live query that takes each change in shows what a new one shows", "live.rs"),
    ("I30", "fields that an older app does not know survive its edits", "judge.rs"),
    (
        "I31",
        "a file that a record names, and that was stored or uploaded, is there with its bytes",
        "whole.rs",
    ),
    ("I32", "a collection takes no file that a record or a tombstone names", "whole.rs"),
    ("I33", "what a pack is said to hold is what its chunks take", "whole.rs"),
    ("I34", "bytes that are not what they are called are never read", "whole.rs"),
    ("I35", "when all is quiet nothing is kept that nothing names", "rest.rs"),
    (
        "I36",
        "what goes on after a transfer was cut off makes up the file that was named",
        "carry.rs",
    ),
    (
        "I37",
        "no file goes before it was staged and condemned for as long as it has to be",
        "whole.rs",
    ),
    (
        "I38",
        "nothing of a workspace or of another user's private records goes to who may not see it",
        "taint.rs",
    ),
    ("I39", "after a membership has ended no op is taken and no change sent", "taint.rs"),
    ("I40", "an outbox takes no more batches than it may", "check.rs"),
    ("I41", "no more batches and pages are under way than may be", "taint.rs"),
];

/// Prints them.
pub fn print() {
    for (id, text, place) in INVARIANTS {
        println!("{id:<5}{text} ({place})");
    }
}
