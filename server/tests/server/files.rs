//! `lastword files`: bytes with a name, as people and scripts use them.

use std::fs;

use crate::common::{Server, damage_pack, lastword};

/// R3.1, R4.2, R7.1: a file is stored, listed, read back, deleted and brought back; what is stored
/// twice is found again; exit codes and JSON are what scripts rely on.
#[test]
fn files_are_put_listed_read_deleted_and_brought_back() {
    let dir = tempfile::tempdir().expect("a folder");
    let dir = dir.path();
    let content: Vec<u8> = (0..700_000_u32).flat_map(|n| n.wrapping_mul(n).to_le_bytes()).collect();
    fs::write(dir.join("photo.png"), &content).expect("it writes");
    let put = ["files", "put", "photo.png", "--mime", "image/png", "--data", "phone"];
    let told = lastword(dir, &put).ok();
    let hash = told.split_whitespace().next().expect("a hash").to_owned();
    assert!(hash.starts_with("sha256:") && hash.len() == 71, "{told}");
    assert!(told.contains("photo.png") && told.contains("saved file_meta/sha256:"), "{told}");
    let again = lastword(dir, &put).ok();
    assert!(again.contains(", 0 B of it new"), "{again}");
    let of = |verb: &'static str| ["files", verb, &hash, "--data", "phone"].map(str::to_owned);
    let run = |args: &[String], more: &[&str]| {
        let args: Vec<&str> = args.iter().map(String::as_str).chain(more.iter().copied()).collect();
        lastword(dir, &args)
    };
    run(&of("get"), &["--out", "copy.png"]).ok();
    assert!(fs::read(dir.join("copy.png")).expect("it is there") == content);
    let listed = lastword(dir, &["files", "list", "--data", "phone", "--json"]).ok();
    let listed: serde_json::Value = serde_json::from_str(listed.trim()).expect("one JSON line");
    assert_eq!((&listed["hash"], &listed["name"]), (&hash.as_str().into(), &"photo.png".into()));
    assert_eq!((&listed["size_bytes"], &listed["here"]), (&content.len().into(), &true.into()));
    run(&of("rm"), &[]).ok();
    assert!(lastword(dir, &["files", "list", "--data", "phone"]).ok().contains(", deleted"));
    run(&of("get"), &["--out", "copy2.png"]).ok();
    run(&of("undelete"), &[]).ok();
    assert!(!lastword(dir, &["files", "list", "--data", "phone"]).ok().contains(", deleted"));
    let status = lastword(dir, &["files", "status", "--data", "phone", "--json"]).ok();
    let lines: Vec<serde_json::Value> =
        status.lines().map(|line| serde_json::from_str(line).expect("JSON lines")).collect();
    let [upload, status] = &lines[..] else { panic!("{lines:?}") };
    assert_eq!((&upload["direction"], &upload["state"]), (&"upload".into(), &"queued".into()));
    assert_eq!((&status["files"], &status["packs"]), (&1.into(), &1.into()), "{status}");
    assert!(lastword(dir, &["verify", "--data", "phone"]).ok().contains("1 file of 2.67 MiB"));
    let unknown = hash.replace(&hash[10..20], "0000000000");
    let missing = lastword(dir, &["files", "get", &unknown, "--data", "phone"]).fails(1);
    assert!(missing.contains("is not here"), "{missing}");
    lastword(dir, &["files", "get", "md5:abc", "--data", "phone"]).fails(2);
    lastword(dir, &["files", "put", "nowhere.png", "--data", "phone"]).fails(1);
}

/// I31, line 3 of the promises about files: a damaged pack is exit code 3, with its name, no file
/// appears at the place of the output, and putting the file again heals it.
#[test]
fn a_damaged_file_is_never_written_out() {
    let dir = tempfile::tempdir().expect("a folder");
    let dir = dir.path();
    fs::write(dir.join("doc"), vec![b'x'; 50_000]).expect("it writes");
    let put = ["files", "put", "doc", "--data", "phone"];
    let hash = lastword(dir, &put).ok().split_whitespace().next().expect("a hash").to_owned();
    damage_pack(&dir.join("phone"), 250);
    let get = ["files", "get", &hash, "--out", "copy", "--data", "phone"];
    let told = lastword(dir, &get).fails(3);
    assert!(told.contains("is damaged at byte"), "{told}");
    assert!(!dir.join("copy").exists());
    lastword(dir, &["verify", "--data", "phone"]).fails(3);
    lastword(dir, &put).ok();
    lastword(dir, &get).ok();
    assert_eq!(fs::read(dir.join("copy")).expect("it is there"), vec![b'x'; 50_000]);
}

/// R2.3: the record of a file is sent like any other, also while its bytes are not: another device
/// lists the file and says that its bytes are nowhere yet.
#[test]
fn the_record_of_a_file_syncs_before_its_bytes() {
    let dir = tempfile::tempdir().expect("a folder");
    let dir = dir.path();
    let access = ["--dev", "--max-file-bytes", "1"].map(str::to_owned);
    let server = Server::start_with(&dir.join("srv"), &access, "127.0.0.1:0");
    fs::write(dir.join("doc"), b"hello").expect("it writes");
    let link = ["--server", &server.url, "--token", "me"];
    let put = [&["files", "put", "doc", "--data", "phone", "--wait"][..], &link].concat();
    let ran = lastword(dir, &put);
    assert!(ran.out.contains("applied, seq 1"), "{}", ran.out);
    ran.fails(1);
    let list = [&["files", "list", "--data", "laptop"][..], &link].concat();
    let listed = lastword(dir, &list).ok();
    assert!(listed.contains("doc: 5 B, neither here nor at the server yet"), "{listed}");
}

/// B8, R7.2: `gc --dry-run` says for each file why it stays or goes, and changes nothing; a file
/// whose record was erased from history goes with the runs that follow.
#[test]
fn gc_says_why_and_takes_what_nothing_names() {
    let dir = tempfile::tempdir().expect("a folder");
    let dir = dir.path();
    fs::write(dir.join("doc"), b"hello").expect("it writes");
    lastword(dir, &["files", "put", "doc", "--data", "phone"]).ok();
    let dry = lastword(dir, &["gc", "--dry-run", "--data", "phone"]).ok();
    assert!(dry.contains("stays, something names it"), "{dry}");
    let ran = lastword(dir, &["gc", "--grace", "0h", "--json", "--data", "phone"]).ok();
    let ran: serde_json::Value = serde_json::from_str(&ran).expect("one JSON line");
    assert_eq!((&ran["files"], &ran["dropped_files"]), (&1.into(), &0.into()), "{ran}");
    lastword(dir, &["gc", "--data", "nowhere"]).fails(1);
}

/// R3.1: a file that is stored again, and that the server has, is no write to wait for: the command
/// said that the server had not answered.
#[test]
fn a_file_that_the_server_has_is_put_again_at_once() {
    let dir = tempfile::tempdir().expect("a folder");
    let dir = dir.path();
    fs::write(dir.join("doc"), b"hello").expect("it writes");
    let server = Server::start_with(&dir.join("srv"), &["--dev".to_owned()], "127.0.0.1:0");
    let link = ["--server", &server.url, "--token", "me"];
    let put = [&["files", "put", "doc", "--data", "phone", "--wait"][..], &link].concat();
    assert!(lastword(dir, &put).ok().contains("applied, seq 1"));
    let told = lastword(dir, &put).ok();
    assert!(told.contains("1 file here already"), "{told}");
}

/// R2.6: how many records name a file the server counts by itself, by the fields that the schema
/// says or by any; its own record, a deleted one and what a client says in `ref_count` do not.
#[test]
fn the_server_counts_who_names_a_file() {
    let dir = tempfile::tempdir().expect("a folder");
    let dir = dir.path();
    let schema = r#"
        [tables.file_meta]
        key = "hash"
        content_keyed = true
        server_owned = ["storage_id", "storage_provider_id"]
        [tables.notes]
        key = "id"
        blob_fields = ["file"]
        [tables.posts]
        key = "id"
    "#;
    fs::write(dir.join("schema.toml"), schema).expect("it writes");
    let access =
        ["--dev", "--schema", &dir.join("schema.toml").display().to_string()].map(str::to_owned);
    let server = Server::start_with(&dir.join("srv"), &access, "127.0.0.1:0");
    fs::write(dir.join("doc"), b"hello").expect("it writes");
    let link = ["--server", &server.url, "--token", "me", "--data", "phone"];
    let run = |args: &[&str]| lastword(dir, &[args, &link].concat()).ok();
    let told = run(&["files", "put", "doc", "--wait"]);
    let hash = told.split_whitespace().next().expect("a hash").to_owned();
    let other = format!("sha256:{}", "7".repeat(64));
    for (table, key, record) in [
        ("notes", "n1", format!(r#"{{"file":"{hash}","ref_count":9}}"#)),
        ("notes", "n2", format!(r#"{{"text":"not {hash}"}}"#)),
        ("notes", "n3", format!(r#"{{"file":"{hash}"}}"#)),
        ("posts", "p1", format!(r#"{{"text":"{hash} and {hash}, and {other}"}}"#)),
    ] {
        run(&["put", table, key, &record, "--wait"]);
    }
    run(&["delete", "notes", "n3", "--wait"]);
    let ask = ["admin", "files", "--data", "srv", "--json"];
    let told = lastword(dir, &ask).ok();
    let files: Vec<serde_json::Value> =
        told.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let counts: std::collections::BTreeMap<_, _> = files
        .iter()
        .map(|file| {
            (file["hash"].as_str().expect("a hash"), (&file["ref_count"], &file["provider"]))
        })
        .collect();
    let expected =
        [(&hash, 2, serde_json::json!("embedded")), (&other, 1, serde_json::Value::Null)];
    assert_eq!(counts.len(), 2, "{told}");
    for (hash, count, provider) in &expected {
        assert_eq!(counts[hash.as_str()], (&serde_json::json!(count), provider), "{told}");
    }
    let told = lastword(dir, &ask[..4]);
    assert!(told.out.contains("at embedded; 2 records name it"), "{}", told.out);
    assert!(told.out.contains("nowhere yet"), "{}", told.out);
    assert!(told.err.contains("2 files, 5 B stored"), "{}", told.err);
}
