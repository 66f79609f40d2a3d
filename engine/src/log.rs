//! A readable listing of a store's log, for people who want to see what happened.

use std::ops::ControlFlow;

use lastword_core::hash::BlobHash;
use lastword_core::id::{DeviceId, Key, TableName};
use lastword_core::op::{Action, Op};
use lastword_core::protocol::{Decided, Entry, WalkPlace};
use lastword_core::schema::Schema;
use lastword_core::stamp::{Decision, Verdict};
use lastword_store::payload::{
    BlobsPart, DecidedBatch, Identity, LocalBatch, Object, ObjectPart, Payload, PurgePart,
    RemotePage, Reset, Restored, Retry, Squash, StoreRole, Sums, WalkFrame, kind,
};
use lastword_store::{StoreError, ViewHandle};

use crate::error::{Error, Result};

/// One frame of the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogLine {
    /// Its byte position in the log.
    pub position: u64,
    /// What kind of frame it is, in one word.
    pub kind: &'static str,
    /// Its workspace, if it has one.
    pub workspace: Option<String>,
    /// What it says, on one line.
    pub text: String,
}

/// At most `limit` frames from the one at `from`, or from the first that was not folded away, in
/// log order; the store's own proof and close
/// marks are left out. The second value is where to go on.
pub(crate) fn read(log: &ViewHandle, from: u64, limit: usize) -> Result<(Vec<LogLine>, u64)> {
    let from = from.max(log.first_position());
    let (mut lines, mut next) = (Vec::new(), from);
    if from > log.view().position() {
        return Err(Error::NoFrame { position: from });
    }
    let scanned = log.scan_frames(from, |frame| {
        if lines.len() == limit {
            return ControlFlow::Break(());
        }
        next = frame.end();
        if frame.kind >= kind::IDENTITY {
            lines.push(line_of(frame.position, frame.kind, frame.payload));
        }
        ControlFlow::Continue(())
    });
    match scanned {
        Err(StoreError::Damaged { .. }) if next == from && !is_frame(log, from)? => {
            Err(Error::NoFrame { position: from })
        }
        Err(error) => Err(error.into()),
        Ok(()) => Ok((lines, next)),
    }
}

/// What one frame says.
pub(crate) fn line_of(position: u64, kind: u8, payload: &[u8]) -> LogLine {
    match Payload::from_frame(kind, payload) {
        Ok(payload) => line(position, payload),
        Err(error) => LogLine {
            position,
            kind: "unreadable",
            workspace: None,
            text: format!("kind {kind}: {error}"),
        },
    }
}

/// Whether a frame is meant to begin at `position`: the one before it ends there.
fn is_frame(log: &ViewHandle, position: u64) -> Result<bool> {
    let mut end = 0;
    log.scan_frames(log.first_position(), |frame| {
        end = frame.end();
        if end < position { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    })?;
    Ok(end == position)
}

fn line(position: u64, payload: Payload) -> LogLine {
    let (kind, workspace, text) = match payload {
        Payload::Identity(identity) => ("identity", None, identity_text(&identity)),
        Payload::Local(local) => ("local", Some(local.workspace.clone()), local_text(&local)),
        Payload::Decided(frame) => ("decided", Some(frame.workspace.clone()), decided_text(&frame)),
        Payload::Remote(page) => ("remote", Some(page.workspace.clone()), page_text(&page)),
        Payload::Verdicts(verdicts) => {
            ("verdicts", Some(verdicts.workspace), verdicts_text(&verdicts.decisions))
        }
        Payload::Attachment(attachment) => {
            let text = format!("epoch {}, role {}", attachment.epoch, attachment.role);
            ("attached", Some(attachment.workspace), text)
        }
        Payload::DeadLetters(letters) => {
            let decision = decision_text(&letters.refused.decision);
            let left = left_text(&letters.counters, &letters.renumbered);
            let text = format!("batch {} {decision}; {left}", letters.refused.counter);
            ("dead letters", Some(letters.workspace), text)
        }
        Payload::Retry(Retry { sent, letter }) => {
            let text = format!("{}, from dead letter {}", local_text(&sent), letter.key);
            ("retry", Some(sent.workspace), text)
        }
        Payload::Squash(Squash { sent, .. }) => {
            let text = format!("{}, in place of the one before", local_text(&sent));
            ("squash", Some(sent.workspace), text)
        }
        Payload::WorkspaceDeleted(frame) => {
            ("deleted", Some(frame.workspace), "the workspace is deleted".into())
        }
        Payload::Forgotten(frame) => {
            ("forgotten", Some(frame.workspace), "this device's copy is forgotten".into())
        }
        Payload::Sums(sums) => ("sums", None, sums_text(&sums)),
        Payload::Purge(purge) => ("purge", Some(purge.workspace), purge_text(purge.part)),
        Payload::Erasure(erasure) => {
            let text = format!("seq {}: {}", erasure.first_seq, names_text(&erasure.records));
            ("erasure", Some(erasure.workspace), text)
        }
        Payload::Survivors(frame) => {
            let (came, gone) = (frame.entries.len(), frame.gone.len());
            let text = format!("{came} rows of the lost history came, {gone} are settled");
            ("survivors", Some(frame.workspace), text)
        }
        Payload::Restored(restored) => {
            let Restored { workspace, epoch, branch, head, .. } = restored;
            let text = format!("from a backup at seq {branch}: epoch {epoch}, goes on at {head}");
            ("restored", Some(workspace), text)
        }
        Payload::LocalTables(declared) => {
            let names: Vec<&str> = declared.tables.iter().map(|table| table.as_str()).collect();
            ("local tables", None, format!("never leave this device: {}", names.join(", ")))
        }
        Payload::Schema(frame) => ("schema", Some(frame.workspace), tables_text(frame.schema)),
        Payload::Reset(reset) => ("reset", Some(reset.workspace.clone()), reset_text(&reset)),
        Payload::Carried(carried) => {
            ("carried", Some(carried.workspace), names_text(&carried.records))
        }
        Payload::Fork(identity) => ("fork", None, fork_text(&identity)),
        Payload::Blobs(frame) => ("files", Some(frame.workspace), files_text(&frame.part)),
        Payload::Object(frame) => ("object", Some(frame.workspace), object_text(&frame.part)),
        Payload::Cover(frame) => ("cover", Some(frame.workspace), cover_text(frame.cover)),
        Payload::SetAside(frame) => {
            ("set aside", Some(frame.workspace), left_text(&frame.counters, &frame.renumbered))
        }
    };
    LogLine { position, kind, workspace: workspace.map(|name| name.to_string()), text }
}

fn sums_text(sums: &Sums) -> String {
    format!("row counts and digests of {} workspaces", sums.workspaces.len())
}

fn verdicts_text(decisions: &[Decided]) -> String {
    let text = |decided: &Decided| {
        format!("batch {} {}", decided.counter, decision_text(&decided.decision))
    };
    list(&decisions.iter().map(text).collect::<Vec<_>>())
}

fn fork_text(identity: &Identity) -> String {
    format!("from here on device {}", identity.device)
}

fn files_text(part: &BlobsPart) -> String {
    let of = |what, files, chunks| format!("{what}: {files} files, {chunks} chunks");
    match part {
        BlobsPart::Chunks { packs, used } => {
            let chunks: usize = packs.iter().map(|pack| pack.chunks.len()).sum();
            let numbers: Vec<String> = packs.iter().map(|pack| pack.pack.to_string()).collect();
            format!("{chunks} chunks in pack {}, {} used again", numbers.join(", "), used.len())
        }
        BlobsPart::Blob { blob, .. } => {
            format!("{}, {} bytes", BlobHash::Sha256(blob.sha256), blob.size)
        }
        BlobsPart::Damaged { chunks } => format!("{} damaged chunks", chunks.len()),
        BlobsPart::Condemn { blobs, chunks, .. } => of("condemned", blobs.len(), chunks.len()),
        BlobsPart::Spare { chunks } => of("needed again", 0, chunks.len()),
        BlobsPart::Drop { blobs, chunks } => of("dropped", blobs.len(), chunks.len()),
        BlobsPart::PackGone { pack } => format!("pack {pack} holds nothing any more"),
    }
}

fn object_text(part: &ObjectPart) -> String {
    match part {
        ObjectPart::Stands(object) => {
            let Object { size, provider, state, .. } = object;
            format!("{}, {size} bytes at {provider}: {}", object.hash(), state.as_str())
        }
        ObjectPart::Gone { sha256 } => format!("{} is gone", BlobHash::Sha256(*sha256)),
    }
}

fn identity_text(identity: &Identity) -> String {
    match identity.role {
        StoreRole::Replica => format!("device {}", identity.device),
        StoreRole::Authority => "authority".into(),
    }
}

fn page_text(page: &RemotePage) -> String {
    let rows: Vec<String> = page.entries.iter().map(entry_text).collect();
    match &page.walk {
        Some(WalkFrame { place: Some(place) }) => {
            let WalkPlace { base, table, key } = place;
            return format!("walk from {base} to {table}/{key}: {}", list(&rows));
        }
        Some(WalkFrame { place: None }) => {
            return format!("walk from {} to its end: {}", page.to, list(&rows));
        }
        None => {}
    }
    let end = match page.consistent_at {
        Some(seq) => format!("consistent at {seq}"),
        None => "more follows".into(),
    };
    format!("({}, {}] {end}: {}", page.from, page.to, list(&rows))
}

fn tables_text(schema: Option<Schema>) -> String {
    let Some(schema) = schema else { return "any table".into() };
    let names: Vec<_> = schema.tables().map(|(name, _)| name.to_string()).collect();
    list(&names)
}

fn reset_text(reset: &Reset) -> String {
    let why = match reset.other_history {
        None => format!("the same history, horizon {}", reset.horizon),
        Some(last) => format!("another history, which knows {last} batches of this device"),
    };
    format!("begins anew: epoch {}, {why}", reset.epoch)
}

fn cover_text(cover: [u8; 16]) -> String {
    format!("what this user sees, {:032x}", u128::from_be_bytes(cover))
}

fn names_text(records: &[(TableName, Key)]) -> String {
    list(&records.iter().map(|(table, key)| format!("{table}/{key}")).collect::<Vec<_>>())
}

fn left_text(left: &[u64], renumbered: &[(u64, u64)]) -> String {
    format!("{} batches left the outbox, {} renumbered", left.len(), renumbered.len())
}

fn purge_text(part: PurgePart) -> String {
    match part {
        PurgePart::Expired { until_ms } => format!("what expired until {until_ms} ms"),
        PurgePart::Tombstones { horizon } => format!("tombstones to seq {horizon}, the horizon"),
        PurgePart::Decisions { device, through } => {
            format!("decisions of device {} to batch {through}", device.short())
        }
        PurgePart::Clock { now_ms } => format!("nothing; its clock is at {now_ms} ms"),
        PurgePart::Erased { before } => {
            format!("nothing; what was erased before position {before} is in no file")
        }
        PurgePart::Generation { generation } => format!("rows of copy {generation}, which is over"),
        PurgePart::Stale { after, through } => {
            format!("stale entries from seq {} to {through}", after.saturating_add(1))
        }
    }
}

fn local_text(local: &LocalBatch) -> String {
    let counter = local
        .batch
        .as_ref()
        .map_or_else(|| "local tables".to_owned(), |batch| format!("batch {}", batch.counter));
    let ops = local.batch.iter().flat_map(|batch| &batch.ops).chain(&local.local);
    format!("{counter}: {}", list(&ops.map(op_text).collect::<Vec<_>>()))
}

fn decided_text(frame: &DecidedBatch) -> String {
    let from = match frame.batch.device {
        DeviceId::AUTHORITY => "the server,".to_owned(),
        device => format!("device {} batch {}", device.short(), frame.batch.counter),
    };
    let ops = frame.batch.ops.iter().chain(&frame.own).map(op_text).collect::<Vec<_>>();
    format!("{from} {}: {}", decision_text(&frame.decision), list(&ops))
}

fn decision_text(decision: &Decision) -> String {
    match decision {
        Decision::Refused { code, message, .. } => format!("refused ({code}: {message})"),
        Decision::Accepted { first_seq, last_seq, verdicts, .. } => {
            let lost = verdicts.iter().filter(|v| matches!(v, Verdict::Superseded { .. })).count();
            let seqs = match first_seq == last_seq {
                true => format!("seq {first_seq}"),
                false => format!("seq {first_seq} to {last_seq}"),
            };
            if lost == 0 { seqs } else { format!("{seqs}, {lost} superseded") }
        }
    }
}

fn op_text(op: &Op) -> String {
    let what = match op.action {
        Action::Create { .. } => "create",
        Action::Put { .. } => "put",
        Action::Patch { .. } => "patch",
        Action::Delete => "delete",
        Action::Undelete { .. } => "undelete",
    };
    format!("{what} {}/{}", op.table, op.key)
}

fn entry_text(entry: &Entry) -> String {
    let Entry::Row { table, key, row } = entry;
    let mark = if row.deleted { " deleted" } else { "" };
    format!("{table}/{key} at {}{mark}", row.last.seq)
}

/// A long list is cut: a frame can name hundreds of records.
fn list(items: &[String]) -> String {
    const SHOWN: usize = 4;
    let shown = items.iter().take(SHOWN).map(String::as_str).collect::<Vec<_>>().join(", ");
    match items.len().saturating_sub(SHOWN) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}
