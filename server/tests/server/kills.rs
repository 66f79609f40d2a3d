//! Processes die in the middle of their work: nothing acknowledged is lost, nothing counts twice.

use std::fmt::Write as _;
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::Instant;

use crate::common::{Device, PATIENCE, Server, command, end, json_of, lastword};

const RECORDS: u64 = 200_000;

/// Records whose content depends on the number alone.
fn write_records(path: &Path) {
    let mut text = String::new();
    for number in 0..RECORDS {
        let spread = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        writeln!(
            text,
            r#"{{"table":"messages","key":"m{number:06}","value":{{"n":{number},"spread":"{spread:016x}"}}}}"#
        )
        .expect("writing to memory");
    }
    std::fs::write(path, text).expect("the folder can be written");
}

/// A device that only watches: how far the server's acknowledged history goes, seen from outside.
struct Observer(Device);

impl Observer {
    fn acknowledged(&self) -> u64 {
        self.0.ws.status().expect("status").cursor
    }

    /// Waits until the server has acknowledged this many ops.
    fn wait_for(&self, count: u64, import: &mut Child) -> u64 {
        let until = Instant::now() + PATIENCE;
        loop {
            let view = self.0.ws.read().expect("the store reads");
            let now = self.acknowledged();
            if now >= count {
                return now;
            }
            assert!(import.try_wait().expect("asked").is_none(), "the import ended at {now}");
            let left = until.saturating_duration_since(Instant::now());
            assert!(self.0.ws.wait_after(&view, Some(left)), "stuck at {now} of {count}");
        }
    }
}

fn start_import(dir: &Path, url: &str) -> Child {
    let args = ["import", "records.jsonl", "--data", "a", "--batch", "50", "--json"];
    let link = ["--server", url, "--token", "me", "--timeout", "300s"];
    let mut import = command(dir, &[&args[..], &link].concat());
    import.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the import starts")
}

/// A share of all records, moved by up to a twentieth so that runs differ.
fn share(percent: u64) -> u64 {
    let jitter = u64::from(std::process::id()).wrapping_mul(0x9e37_79b9) % (RECORDS / 20);
    RECORDS * percent / 100 + jitter
}

/// I1, I4, I6, I19, R1.2: during an import of 200,000 records in batches of 50 the server is killed
/// three times and the importing device once, each strictly inside the work. In the end every
/// record is there once: the server gave exactly one seq to each op, no conflict was recorded, and
/// a fresh device has the file.
#[test]
fn kills_during_an_import_lose_nothing_and_apply_nothing_twice() {
    let dir = tempfile::tempdir().expect("a folder");
    write_records(&dir.path().join("records.jsonl"));
    let mut server = Server::start(&dir.path().join("server"));
    let mut observer = Observer(Device::open(&dir.path().join("observer")));
    observer.0.connect(&server.url, "observer");
    let mut import = start_import(dir.path(), &server.url);
    let mut killed_at = Vec::new();
    for percent in [10, 40, 70] {
        let seen = observer.wait_for(share(percent), &mut import);
        server.kill();
        assert!(import.try_wait().expect("asked").is_none(), "the import was over already");
        assert!(seen < RECORDS, "the kill at {percent}% came after the end");
        killed_at.push(seen);
        server.restart();
        if percent == 40 {
            let seen = observer.wait_for(share(55), &mut import);
            assert!(import.try_wait().expect("asked").is_none(), "the import was over already");
            import.kill().expect("the import can be killed");
            import.wait().expect("it ends");
            // Whoever goes on with it need not know the server any more.
            assert!(dir.path().join("a/remote.toml").exists(), "the server is not remembered");
            assert!(seen < RECORDS, "the device was killed after the end");
            killed_at.push(seen);
            import = start_import(dir.path(), &server.url);
        }
    }
    end(import).ok();
    assert!(killed_at.is_sorted() && killed_at.iter().all(|at| *at > 0), "{killed_at:?}");

    // The last page may still be on its way to a device that only watches.
    let until = Instant::now() + PATIENCE;
    loop {
        let view = observer.0.ws.read().expect("the store reads");
        let left = until.saturating_duration_since(Instant::now());
        if observer.acknowledged() > RECORDS || !observer.0.ws.wait_after(&view, Some(left)) {
            break;
        }
    }
    // And one for the row that says whose device a is.
    let seqs = RECORDS + 1;
    assert_eq!(observer.acknowledged(), seqs, "one seq for each op, killed at {killed_at:?}");
    assert_eq!(observer.0.rows("_conflicts"), []);
    drop(observer);
    let link = ["--server", &server.url, "--token", "fresh"];
    let fresh = lastword(dir.path(), &[&["export", "--data", "b"][..], &link].concat()).ok();
    let input = std::fs::read_to_string(dir.path().join("records.jsonl")).expect("it is there");
    assert!(fresh == input, "the export of a fresh device differs from the file");
    server.kill();
    let digest = |data| {
        let status = json_of(dir.path(), &["status", "--data", data, "--json"]);
        status["workspaces"][0]["digest"].clone()
    };
    assert_eq!(digest("a"), digest("server"));
    assert_eq!(digest("b"), digest("server"));
}
