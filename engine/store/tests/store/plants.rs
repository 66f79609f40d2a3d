//! Bugs on purpose prove that the other tests can fail: with each of them on, the test that should
//! notice it does.

use std::process::{Command, Stdio};

use lastword_store::plant::{ALL, Plant, VARIABLE};

/// The test that must fail with a bug on.
fn detector(plant: Plant) -> &'static str {
    match plant {
        Plant::SkipSync
        | Plant::AckFailedSync
        | Plant::WriteBeforeBirth
        | Plant::FreeBeforeBaseIsDurable
        | Plant::EndBaseBeforeItsRows => {
            "crash::a_power_cut_at_every_operation_loses_nothing_acknowledged"
        }
        Plant::GoOnAfterFailedSync => "commit::a_failed_write_or_sync_poisons",
        Plant::DropTheGroupRule | Plant::SameGroupAgain | Plant::IgnoreChecksum => {
            "damage::a_flipped_bit_is_damage_or_in_the_last_group"
        }
        Plant::AppendToUncleanFile => "crash::an_unclean_file_is_never_appended_to",
        Plant::ShowWithoutRewrite => "crash::what_recovery_has_shown_is_durable",
        Plant::IgnoreRowDigest => "checkpoint::a_changed_row_is_never_returned",
        Plant::TrustStaleState => "fold::an_older_redb_beside_a_folded_log_is_discarded",
        Plant::WatermarkTooFar => "checkpoint::a_failed_checkpoint_never_poisons_the_log",
        Plant::DumpWithoutSums => "fold::a_row_that_redb_lost_is_noticed_by_the_fold",
        Plant::LoadHalfABase => "fold::a_fold_changes_no_row",
        Plant::SkipAFrame => "checkpoint::a_checkpoint_shortens_the_replay",
        Plant::ForgetDeletes => "views::scans_equal_an_ordered_map",
        Plant::ForgetHistory => "fold::a_fold_keeps_what_history_and_outbox_need",
        Plant::UseDirtySpare => "real::a_stillborn_segment_is_a_spare_again",
    }
}

fn run(test: &str, plant: &str) -> (bool, String) {
    let output = Command::new(std::env::current_exe().unwrap())
        .args([test, "--exact"])
        .env(VARIABLE, plant)
        .env("LASTWORD_CRASH_STRIDE", "1")
        .env("RUST_BACKTRACE", "0")
        .stderr(Stdio::null())
        .output()
        .unwrap();
    let told = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(told.contains("running 1 test"), "there is no test {test}");
    (output.status.success(), told)
}

/// Every bug is caught by the test that is meant to catch it, and that test passes without a bug.
#[test]
fn every_planted_bug_is_caught() {
    let mut missed = Vec::new();
    let mut sound: Vec<&str> = ALL.map(detector).to_vec();
    sound.sort_unstable();
    sound.dedup();
    for test in sound {
        let (passed, told) = run(test, "None");
        assert!(passed, "{test} fails without a bug:\n{told}");
    }
    for plant in ALL {
        let test = detector(plant);
        let (passed, _) = run(test, &format!("{plant:?}"));
        println!("{plant:?}: {}", if passed { "MISSED" } else { test });
        if passed {
            missed.push(plant);
        }
    }
    assert!(missed.is_empty(), "not caught: {missed:?}");
}
