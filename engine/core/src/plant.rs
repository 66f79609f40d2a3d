//! Bugs on purpose. Each is a mistake that a product like this could well have, and each is
//! found: by the simulator within the seeds that stand here, by the named test, or by both.
//! `make plants` proves it.
//!
//! With the feature `plant` one bug is on at a time: the one that `LASTWORD_PLANT` names, or that
//! `put` says. Without the feature nothing of them is compiled, and [`planted`] is `false` while
//! the compiler still looks.

macro_rules! plants {
    ($(
        $(#[doc = $what:literal])+
        $plant:ident: $promise:literal
        $(, $seeds:literal seeds)?
        $(, $suite:ident $test:literal)?;
    )+) => {
        /// One bug.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Plant {
            $($(#[doc = $what])+ $plant,)+
        }

        /// All of them.
        #[cfg(feature = "plant")]
        pub const ALL: &[Planted] = &[$(Planted {
            plant: Plant::$plant,
            name: stringify!($plant),
            what: concat!($($what),+),
            promise: $promise,
            seeds: &[$($seeds)?],
            tests: &[$((stringify!($suite), $test))?],
        }),+];
    };
}

/// One bug, with what is known of it.
#[cfg(feature = "plant")]
#[derive(Debug, Clone, Copy)]
pub struct Planted {
    /// It.
    pub plant: Plant,
    /// Its name.
    pub name: &'static str,
    /// What it does.
    pub what: &'static str,
    /// The promise that it breaks.
    pub promise: &'static str,
    /// The simulator must find it within so many seeds from 0 on; nothing if it need not.
    pub seeds: &'static [u64],
    /// Test binary and test that must find it.
    pub tests: &'static [(&'static str, &'static str)],
}

plants! {
    /// A commit is reported durable without a sync.
    SkipSync: "I1", 30 seeds,
        store "crash::a_power_cut_at_every_operation_loses_nothing_acknowledged";
    /// A commit is reported durable although its sync failed.
    AckFailedSync: "I1", 30 seeds,
        store "crash::a_power_cut_at_every_operation_loses_nothing_acknowledged";
    /// After a failed sync the store goes on.
    GoOnAfterFailedSync: "I8", 30 seeds, store "commit::a_failed_write_or_sync_poisons";
    /// Recovery cuts at the first bad frame, whatever follows.
    DropTheGroupRule: "I7", store "damage::a_flipped_bit_is_damage_or_in_the_last_group";
    /// Every group has the number of the one before.
    SameGroupAgain: "I7", store "damage::a_flipped_bit_is_damage_or_in_the_last_group";
    /// Recovery appends to a file that was not closed in good order.
    AppendToUncleanFile: "I7", store "crash::an_unclean_file_is_never_appended_to";
    /// Recovery shows the last group without writing it again.
    ShowWithoutRewrite: "I1", 30 seeds, store "crash::what_recovery_has_shown_is_durable";
    /// The first group of a segment is written before its header is durable.
    WriteBeforeBirth: "I1", 30 seeds,
        store "crash::a_power_cut_at_every_operation_loses_nothing_acknowledged";
    /// A frame's checksum is not looked at.
    IgnoreChecksum: "I7", store "damage::a_flipped_bit_is_damage_or_in_the_last_group";
    /// A row's digest is not looked at.
    IgnoreRowDigest: "I14", store "checkpoint::a_changed_row_is_never_returned";
    /// A state of any log position is believed.
    TrustStaleState: "I12", store "fold::an_older_redb_beside_a_folded_log_is_discarded";
    /// A checkpoint that is tried again claims the log up to now.
    WatermarkTooFar: "I12", store "checkpoint::a_failed_checkpoint_never_poisons_the_log";
    /// A fold does not compare its dump with the sums.
    DumpWithoutSums: "I12", store "fold::a_row_that_redb_lost_is_noticed_by_the_fold";
    /// A fold removes segments although its base is not durable.
    FreeBeforeBaseIsDurable: "I1", 30 seeds,
        store "crash::a_power_cut_at_every_operation_loses_nothing_acknowledged";
    /// The last frame of a base is written before the others are durable.
    EndBaseBeforeItsRows: "I1",
        store "crash::a_power_cut_at_every_operation_loses_nothing_acknowledged";
    /// A base is loaded without its first frame and not compared with its sums.
    LoadHalfABase: "I12", 30 seeds, store "fold::a_fold_changes_no_row";
    /// Replay begins one frame late.
    SkipAFrame: "I12", 30 seeds, store "checkpoint::a_checkpoint_shortens_the_replay";
    /// A delete is not carried into redb.
    ForgetDeletes: "I12", store "views::scans_equal_an_ordered_map";
    /// A fold removes what the history window still holds.
    ForgetHistory: "I27", 30 seeds, store "fold::a_fold_keeps_what_history_and_outbox_need";
    /// A spare with the rests of a birth is used as it is.
    UseDirtySpare: "I1", store "real::a_stillborn_segment_is_a_spare_again";
    /// A fold removes frames that an outbox still has to send.
    FoldDropsOutbox: "I19", 30 seeds, lastword "retry::tests::a_fold_keeps_the_ops_of_a_unit";
    /// A fold removes frames that hold the ops of dead letters.
    FoldDropsLetters: "I19", engine "maintenance::ops_of_dead_letters_stay_readable";
    /// An authority answers before its group is synced.
    AnswerBeforeSync: "I1", 30 seeds;
    /// The old index entry of a changed row stays.
    IndexEntryKept: "I13", 30 seeds, store "index::indexes_are_equal_to_recomputed_indexes";
    /// A row that goes leaves its index entries behind.
    PurgedStaysInIndex: "I13", store "index::indexes_are_equal_to_recomputed_indexes";
    /// A live query misses one of the rows that a batch changed.
    WatchMissesOne: "I6", 30 seeds, engine "watch::records_are_watched_without_types";
    /// A live query misses an edit that leaves a row where it stands in the index.
    EditInPlaceMissed: "I29", engine "watch::a_live_query_is_run_again_only_for_what_can_touch_it";
    /// A create of a live record overwrites it.
    CreateOverwrites: "I23", 30 seeds, core "rules::a_create_never_overwrites";
    /// An edit reaches a later life of its record: birth is not compared with base.
    EditNextLife: "I23", 30 seeds, core "rules::edits_never_cross_into_the_next_life";
    /// A whole write is judged by the last writer alone.
    PutByLastWriter: "I25", 30 seeds,
        core "rules::a_whole_write_is_stale_if_any_stamp_of_the_row_is";
    /// A patch is stale if anything of its record is newer.
    StaleByRecord: "I25", 30 seeds, core "rules::patches_of_different_fields_both_apply";
    /// Under `server_wins` a stale field applies.
    StaleFieldKept: "R7", 30 seeds, core "rules::server_wins_drops_stale_fields";
    /// Of two equal revisions the later one to arrive wins.
    TieByArrival: "R7", 30 seeds, core "rules::revision_lets_only_the_greater_tuple_win";
    /// A delete wins whatever its revision is.
    DeleteByArrival: "R7", 60 seeds, core "rules::revision_lets_only_the_greater_tuple_win";
    /// An undelete applies to a later tombstone than the one that it names.
    UndeleteAnyTombstone: "I24", 30 seeds,
        core "rules::an_undelete_brings_back_exactly_one_tombstone";
    /// An undelete applies to a record without a value.
    UndeleteErased: "I24", core "rules::an_undelete_of_what_was_erased_is_superseded";
    /// An undelete begins a new life, so that edits of before are lost.
    UndeleteBeginsLife: "I24", 30 seeds, semantics "every_example_of_the_rules_holds";
    /// A field that is removed keeps the stamp of its last value.
    ForgetRemovedStamp: "I25", 30 seeds, core "rules::a_patch_changes_only_the_fields_it_names";
    /// A device sets fields that the server owns.
    OwnedSetByClient: "I25", 30 seeds,
        core "schema::a_client_neither_sets_nor_clears_a_server_owned_field";
    /// A second create of a content-keyed record is a conflict.
    ContentTwice: "I25", 30 seeds,
        core "schema::a_second_create_in_a_content_keyed_table_is_silent";
    /// A superseded op leaves no conflict row.
    LoserNotTold: "I25", 30 seeds, core "rules::a_create_never_overwrites";
    /// Equal values are a conflict.
    ConflictOfEquals: "I25", 30 seeds, core "rules::arrival_applies_stale_ops_and_records_the_loss";
    /// Only one of several losing devices gets a conflict row.
    OneLoserOnly: "I25", 30 seeds, core "rules::each_losing_device_gets_one_conflict";
    /// A conflict is recorded twice.
    ConflictTwice: "I25", 30 seeds, semantics "every_example_of_the_rules_holds";
    /// What the authority itself writes reaches no device.
    OwnOpsNotSent: "I16", 30 seeds, semantics "every_example_of_the_rules_holds";
    /// An edit on own undecided ones names the newest row as its base.
    BaseOfNewest: "I25", semantics "every_example_of_the_rules_holds";
    /// A base of a history that a restore has lost counts as any other.
    LostBaseCounts: "I25", 30 seeds, semantics "every_example_of_the_rules_holds";
    /// A store takes for foreign what it wrote under an earlier device id.
    ForgetFormerNames: "R7", 30 seeds, core "rules::own_stamps_never_make_an_op_stale";
    /// A settled op is applied again to a row that contains it.
    SettledTwice: "I18", core "overlay::a_settled_op_stays_until_the_cursor_has_passed_it";
    /// A decision takes own ops out of the overlay before the stream shows them.
    AckDropsOverlay: "I18", 30 seeds, semantics "every_example_of_the_rules_holds";
    /// Server time goes back with the wall clock.
    TimeMovesBack: "I26", 30 seeds, lastword "judge::tests::server_time_does_not_go_back";
    /// A known batch id with other bytes gets the old decision.
    OtherBytesTaken: "I5", engine "authority::other_bytes_and_gaps_are_forks";
    /// A decided batch that comes under another counter is applied again.
    RekeyedAgain: "I4", 30 seeds, engine "authority::a_batch_is_decided_once";
    /// A batch is decided although one before it is missing.
    CounterGap: "I19", engine "authority::other_bytes_and_gaps_are_forks";
    /// A base that nobody can have seen is believed.
    BaseBeyondHead: "I25", engine "authority::bases_former_ids_and_devices_are_not_taken_on_trust";
    /// A `strict` batch is judged as any other.
    StrictIgnored: "R7", 30 seeds, semantics "every_example_of_the_rules_holds";
    /// What is sent again under another device id is not `strict`.
    NotStrictAfterFork: "R7", semantics "every_example_of_the_rules_holds";
    /// Batches behind a refused one are decided.
    GoOnAfterRefusal: "I19", 30 seeds, semantics "every_example_of_the_rules_holds";
    /// After a refusal no Resume opens the gate.
    ResumeIgnored: "I28", 30 seeds, core "sessions::a_refusal_is_buried_and_the_rest_goes_on";
    /// The gate opens while batches of before are undecided.
    GateOpensEarly: "I19", core "authority::the_gate_opens_when_what_came_before_is_answered";
    /// A refusal is not remembered: after a lost answer the batch is decided again.
    RefusalForgotten: "I4", 30 seeds, engine "authority::a_refusal_is_a_decision";
    /// What depends on a refused batch stays in the outbox.
    UnitOfOne: "I19", lastword "retry::tests::a_unit_is_sent_again_in_its_order";
    /// What stays behind a refused batch keeps its counter.
    NotRenumbered: "I19", 30 seeds, lastword "retry::tests::a_unit_that_was_sent_in_part_goes_on";
    /// Counters of what left with a refused batch are not given again.
    CountersNotGivenBack: "I28", 30 seeds,
        lastword "node::device::tests::a_write_under_a_counter_that_was_given_back_is_pushed";
    /// A replaced attachment goes on deciding batches.
    FenceIgnored: "I19", engine "authority::a_fenced_attachment_decides_nothing";
    /// A copy of a store attaches with a nonce that was replaced.
    CloneAttaches: "I4",
        lastword "attachments::tests::what_arrives_late_on_an_old_connection_fences_nobody";
    /// An Attach that arrives late fences the newer attachment.
    LateAttachFences: "I28",
        lastword "attachments::tests::what_arrives_late_on_an_old_connection_fences_nobody";
    /// A batch counts although its device belongs to another user.
    ForeignDeviceTaken: "I3",
        engine "authority::bases_former_ids_and_devices_are_not_taken_on_trust";
    /// A decision about a batch that this store did not write is taken.
    ForeignDecision: "I3", 30 seeds, semantics "every_example_of_the_rules_holds";
    /// A device whose decisions are forgotten goes on under its old counters.
    OldCountersKept: "I4", semantics "every_example_of_the_rules_holds";
    /// What was pushed on a lost connection counts as pushed.
    PushedKept: "I28", 30 seeds, semantics "every_example_of_the_rules_holds";
    /// What was read from the outbox before it changed is pushed.
    OldReadingPushed: "I19", core "replica::what_was_read_before_a_refusal_is_not_pushed_after_it";
    /// A batch of an app that is too old is decided.
    OldAppTaken: "R7", semantics "every_example_of_the_rules_holds";
    /// Pages are sent without waiting for credit.
    CreditNotWaited: "I41", 30 seeds, core "authority::credit_limits_the_pages_on_the_way";
    /// A page that ends inside a batch is called consistent.
    TornWalk: "I6", semantics "every_example_of_the_rules_holds";
    /// The cursor moves with every page, consistent or not.
    CursorBeforeRows: "I20", store "purge::the_cursor_waits_for_the_end_of_a_catch_up";
    /// Rows of an unfinished catch-up are shown.
    HalfBatchShown: "I6", semantics "every_example_of_the_rules_holds";
    /// A new attachment goes on from the last page that was asked for.
    ExpectedKept: "I28", core "sessions::model_of_both_sessions";
    /// A workspace attaches while its store still has requests to answer.
    AttachWithRequests: "I20", core "replica::an_attachment_waits_for_what_is_being_stored";
    /// Pages are stored before the attachment is.
    PageBeforeAttached: "I20", core "replica::no_page_is_stored_before_its_attached_is";
    /// A purge of tombstones does not move the horizon.
    HorizonNotMoved: "I21", 30 seeds, semantics "every_example_of_the_rules_holds";
    /// A device behind the horizon catches up as any other.
    HorizonNotChecked: "I21", 30 seeds, semantics "every_example_of_the_rules_holds";
    /// A device takes over a horizon before it has stored the pages up to it.
    HorizonBeforePages: "I21",
        lastword "replicator::tests::a_horizon_is_not_known_before_the_pages_up_to_it";
    /// A page is sent although tombstones behind it were purged since.
    PageBehindHorizon: "I21", core "authority::a_page_behind_a_purge_is_not_sent";
    /// A walk that was broken off is not held against the horizon.
    WalkBehindHorizon: "I21", 30 seeds;
    /// The last page of a walk is taken for consistent, although it is read from several views.
    WalkIsConsistent: "I12", 30 seeds;
    /// A tombstone goes from under an own undelete.
    PurgeUnderOwnOps: "I18",
        store "purge::a_tombstone_under_own_ops_is_forgotten_when_they_are_gone";
    /// A purge takes a record that lives again.
    PurgeWhatLives: "I12", 30 seeds,
        store "purge::a_tombstone_under_own_ops_is_forgotten_when_they_are_gone";
    /// A reset that was interrupted goes on as a plain walk.
    ResetAsPlainWalk: "I21", 30 seeds, semantics "every_example_of_the_rules_holds";
    /// A new copy takes the place of the old one without own ops.
    OwnOpsLeftBehind: "I22", engine "reset::writes_while_the_new_copy_is_made_are_in_it";
    /// A new copy takes the place of the old one without local rows.
    LocalRowsLeft: "I22", semantics "every_example_of_the_rules_holds";
    /// A copy made under another cover goes on.
    CoverNotBound: "I38", semantics "every_example_of_the_rules_holds";
    /// After a restore seqs are given again.
    SeqsGivenAgain: "I2", 30 seeds, semantics "every_example_of_the_rules_holds";
    /// A restored authority keeps its epoch.
    EpochKept: "I21", 30 seeds, semantics "every_example_of_the_rules_holds";
    /// A copy of another epoch is served as if it were of this one.
    OtherEpochServed: "I21", 30 seeds, semantics "every_example_of_the_rules_holds";
    /// A device believes a server that knows less than it.
    OtherHistoryBelieved: "I21", core "replica::another_history_stops_and_is_given_back";
    /// A device does not offer what a restored server has lost.
    SurvivorsNotOffered: "R7", semantics "every_example_of_the_rules_holds";
    /// Of several survivors of a record the one that arrived last counts.
    SurvivorsByArrival: "R7",
        engine "recover::the_last_version_of_the_lost_history_counts_whoever_comes_first";
    /// A survivor overwrites what was written since the restore.
    SurvivorOverwrites: "R7", semantics "every_example_of_the_rules_holds";
    /// Survivors count that their user may not see.
    ForeignSurvivors: "I38", engine "private::what_others_offer_of_a_private_row_is_not_kept";
    /// A role is looked at when a device attaches, and not with its batches.
    RoleAtAttachOnly: "I39", semantics "every_example_of_the_rules_holds";
    /// Who is no member any more goes on reading.
    RevokedReads: "I39", engine "authority::no_page_is_read_for_who_is_no_member_any_more";
    /// A private row is shown to others.
    PrivateRowShown: "I38", 30 seeds, semantics "every_example_of_the_rules_holds";
    /// The tombstone of a private row is shown to others.
    PrivateTombstoneShown: "I38", 30 seeds, semantics "every_example_of_the_rules_holds";
    /// What is left of an erased private row names nobody.
    ErasedOfNobody: "I38", 30 seeds, core "privacy::a_record_is_of_the_user_who_writes_it_for_ever";
    /// A private row is written by another user.
    ForeignRowWritten: "I38", 30 seeds, semantics "every_example_of_the_rules_holds";
    /// A synced table becomes local with a new schema.
    LocalityChanges: "R7", core "schema::what_holds_for_ever_cannot_change";
    /// A first schema makes a table local that has synced records.
    SyncedBecomesLocal: "R7", engine "schema::a_table_with_records_cannot_become_local";
    /// Whoever stores a file holds up no collection.
    ForgetLeases: "I32", store "gc::known_loss_a_writer_paused_across_sweeps";
    /// Of all who store files only the one that began last holds up a collection.
    NewestLease: "I32", store "gc::known_loss_the_oldest_lease_counts";
    /// A file is dropped, and no pack says so.
    DropWithoutMark: "I35",
        store "reindex::an_index_of_packs_alone_has_what_was_there_and_nothing_else";
    /// A chunk counts as here although its pack is lost.
    BelieveLostPack: "I31", store "packs::chunks_of_a_lost_pack_do_not_count_as_here";
    /// What comes of a file is taken for what was asked for, and compared with nothing.
    KeepWhatComes: "I34", 30 seeds;
    /// What is stored and not yet named is garbage at once.
    CollectStaged: "I37", store "gc::what_is_staged_stays_for_its_time";
    /// A file that is named while a collection looks is not seen to be named.
    OverlookNamesSince: "I32", store "gc::known_loss_roots_read_in_two_steps";
    /// The log names chunks of a pack that is not synced.
    LogBeforePack: "I31", 30 seeds;
    /// The chunks of a file that went stay for ever.
    KeepDeadChunks: "I35", 30 seeds, store "explorer::explored_schedules_lose_and_leak_nothing";
    /// A pack is said to hold what has moved to another one.
    CountMovedTwice: "I33", 30 seeds;
}

/// Names the bug of this process.
#[cfg(feature = "plant")]
pub const VARIABLE: &str = "LASTWORD_PLANT";

#[cfg(feature = "plant")]
mod active {
    extern crate std;

    use core::sync::atomic::{AtomicUsize, Ordering};

    use super::{ALL, Plant, VARIABLE};

    /// The environment was not asked yet.
    const UNKNOWN: usize = usize::MAX;
    const NONE: usize = UNKNOWN - 1;
    static ACTIVE: AtomicUsize = AtomicUsize::new(UNKNOWN);

    /// From here on this bug is on, or none.
    pub fn put(plant: Option<Plant>) {
        ACTIVE.store(plant.map_or(NONE, |plant| plant as usize), Ordering::Relaxed);
    }

    /// Whether a bug is on.
    #[must_use]
    pub fn planted(plant: Plant) -> bool {
        let active = match ACTIVE.load(Ordering::Relaxed) {
            UNKNOWN => asked(),
            known => known,
        };
        active == plant as usize
    }

    #[cold]
    fn asked() -> usize {
        let name = std::env::var(VARIABLE).unwrap_or_default();
        put(ALL.iter().find(|known| known.name == name).map(|known| known.plant));
        ACTIVE.load(Ordering::Relaxed)
    }
}

#[cfg(feature = "plant")]
pub use active::{planted, put};

/// Whether a bug is on: never.
#[cfg(not(feature = "plant"))]
#[must_use]
pub const fn planted(_plant: Plant) -> bool {
    false
}
