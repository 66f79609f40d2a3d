//! Random values of every type, for properties.

use lastword_core::hlc::Hlc;
use lastword_core::id::{BatchId, DeviceId, Epoch, Key, TableName, WorkspaceName};
use lastword_core::op::{Action, Batch, Op, TombstoneRef};
use lastword_core::protocol::{
    Attach, AttachRefusal, Attached, Changes, Decided, Entry, ErrorCode, Hello, Message, Notice,
    ResetReason, Role, Survivors, WalkPage, WalkPlace, Welcome,
};
use lastword_core::row::{FieldMark, Row};
use lastword_core::stamp::{Decision, Mark, RefusalCode, Superseded, Verdict};
use lastword_core::value::{Field, Record, Value};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;

/// Integers of every encoded width.
pub fn integer() -> impl Strategy<Value = u64> {
    prop_oneof![
        0..=250_u64,
        251..=65_535_u64,
        65_536..=u64::from(u32::MAX),
        any::<u64>(),
        select(vec![0, 250, 251, 65_535, 65_536, u64::from(u32::MAX), 1 << 32, u64::MAX]),
    ]
}

fn signed() -> impl Strategy<Value = i64> {
    prop_oneof![-200..200_i64, any::<i64>(), select(vec![i64::MIN, i64::MAX])]
}

fn finite() -> impl Strategy<Value = f64> {
    use proptest::num::f64::{NEGATIVE, NORMAL, POSITIVE, SUBNORMAL, ZERO};
    let ints = (-1000..1000_i32).prop_map(f64::from);
    prop_oneof![NORMAL | SUBNORMAL | ZERO | POSITIVE | NEGATIVE, ints]
}

/// Names that also look like what JSON writes for bytes.
pub fn name() -> impl Strategy<Value = String> {
    prop_oneof![
        4 => "[a-z]{1,6}",
        1 => select(vec!["$bytes", "$$bytes", "$$$bytes", "$ref", "$", "$$", "", ".", "a.b"])
            .prop_map(String::from),
        1 => any::<String>().prop_map(|name| name.chars().take(40).collect::<String>()),
    ]
}

fn entries(value: impl Strategy<Value = Value>) -> impl Strategy<Value = Vec<(String, Value)>> {
    vec((name(), value), 0..5).prop_map(|mut entries| {
        let mut seen = std::collections::BTreeSet::new();
        entries.retain(|(name, _)| seen.insert(name.clone()));
        entries
    })
}

pub fn value() -> impl Strategy<Value = Value> {
    let plain = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::Bool),
        signed().prop_map(Value::Int),
        finite().prop_map(Value::Float),
        any::<String>().prop_map(Value::Text),
        vec(any::<u8>(), 0..40).prop_map(Value::Bytes),
    ];
    plain.prop_recursive(6, 40, 5, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..5).prop_map(Value::List),
            entries(inner.clone()).prop_map(Value::Map),
            // Maps of one entry are what JSON escapes.
            (name(), inner).prop_map(|(name, value)| Value::Map(vec![(name, value)])),
        ]
    })
}

pub fn record() -> impl Strategy<Value = Record> {
    entries(value()).prop_map(|entries| Record::new(&entries).unwrap())
}

fn fields() -> impl Strategy<Value = Vec<Field>> {
    record().prop_map(|record| record.fields().to_vec())
}

fn id() -> impl Strategy<Value = [u8; 16]> {
    any::<[u8; 16]>()
}

fn table() -> impl Strategy<Value = TableName> {
    "[A-Za-z0-9_.-]{1,64}".prop_map(|name| TableName::new(&name).unwrap())
}

fn key() -> impl Strategy<Value = Key> {
    any::<String>().prop_map(|text| Key::new(&format!("k{text}")).unwrap())
}

fn action() -> impl Strategy<Value = Action> {
    let tombstone = prop_oneof![
        integer().prop_map(TombstoneRef::Seq),
        id().prop_map(|id| TombstoneRef::Batch(BatchId(id))),
    ];
    prop_oneof![
        (record(), any::<bool>()).prop_map(|(record, replace)| Action::Create { record, replace }),
        record().prop_map(|record| Action::Put { record }),
        (fields(), vec(name(), 0..4)).prop_map(|(set, remove)| Action::Patch { set, remove }),
        Just(Action::Delete),
        tombstone.prop_map(|tombstone| Action::Undelete { tombstone }),
    ]
}

pub fn op() -> impl Strategy<Value = Op> {
    let parts = (table(), key(), integer(), integer(), integer(), action());
    parts.prop_map(|(table, key, base, revision, hlc, action)| Op {
        table,
        key,
        base,
        revision,
        hlc: Hlc(hlc),
        action,
    })
}

pub fn batch() -> impl Strategy<Value = Batch> {
    let former = vec(id().prop_map(DeviceId), 0..3);
    let parts = (id(), integer(), id(), signed(), any::<bool>(), former, vec(op(), 0..4));
    parts.prop_map(|(device, counter, batch_id, created_ms, strict, former, ops)| Batch {
        device: DeviceId(device),
        counter,
        batch_id: BatchId(batch_id),
        created_ms,
        strict,
        former,
        ops,
    })
}

/// Few seqs and writers, so that marks are often equal.
fn mark() -> impl Strategy<Value = Mark> {
    (1..4_u64, 0..2_u8).prop_map(|(seq, device)| Mark { seq, writer: DeviceId([device; 16]) })
}

pub fn row() -> impl Strategy<Value = Row> {
    let field_mark = (name(), mark()).prop_map(|(name, mark)| FieldMark { name, mark });
    let marks = (mark(), mark(), mark(), vec(field_mark, 0..3));
    let flags = (any::<bool>(), 0..3_u64);
    let parts = (flags, marks, signed(), integer(), integer(), id(), record());
    parts.prop_map(|((deleted, after), marks, time_ms, revision, hlc, op_id, record)| {
        let (last, born, full, fields) = marks;
        let (hlc, op_id) = (Hlc(hlc), BatchId(op_id));
        let set_at = if after == 0 { 0 } else { last.seq + after };
        Row { deleted, last, time_ms, born, full, fields, set_at, revision, hlc, op_id, record }
    })
}

pub fn verdict() -> impl Strategy<Value = Verdict> {
    let reason = select(vec![
        Superseded::Stale,
        Superseded::Dead,
        Superseded::EarlierLife,
        Superseded::Exists,
        Superseded::NotThatTombstone,
        Superseded::ValueGone,
        Superseded::LowerRevision,
    ]);
    prop_oneof![
        vec(name(), 0..3).prop_map(|dropped| Verdict::Applied { dropped }),
        (integer(), reason).prop_map(|(by, reason)| Verdict::Superseded { by, reason }),
    ]
}

fn decided() -> impl Strategy<Value = Decided> {
    let code = select(vec![
        RefusalCode::Invalid,
        RefusalCode::ResultTooBig,
        RefusalCode::UnknownTable,
        RefusalCode::Policy,
        RefusalCode::OverQuota,
        RefusalCode::OutcomeUnknown,
    ]);
    let decision = prop_oneof![
        (integer(), integer(), signed(), vec(verdict(), 0..4)).prop_map(
            |(first_seq, last_seq, time_ms, verdicts)| Decision::Accepted {
                first_seq,
                last_seq,
                time_ms,
                verdicts
            }
        ),
        (code, ".{0,20}", signed()).prop_map(|(code, message, time_ms)| Decision::Refused {
            code,
            message,
            time_ms
        }),
    ];
    (integer(), id(), decision).prop_map(|(counter, batch_id, decision)| Decided {
        counter,
        batch_id: BatchId(batch_id),
        decision,
    })
}

pub fn message() -> impl Strategy<Value = Message> {
    prop_oneof![opening(), streaming(), ending()]
}

fn opening() -> impl Strategy<Value = Message> {
    let hello = (integer(), integer(), ".{0,30}", id(), integer(), ".{0,30}").prop_map(
        |(min_version, max_version, token, device, app_schema, agent)| {
            let device = DeviceId(device);
            Message::Hello(Hello { min_version, max_version, token, device, app_schema, agent })
        },
    );
    let welcome = (signed(), vec(integer(), 6)).prop_map(|(server_time_ms, of)| {
        Message::Welcome(Welcome {
            version: of[0],
            server_time_ms,
            max_message_bytes: of[1],
            max_record_bytes: of[2],
            max_batch_bytes: of[3],
            max_batch_ops: of[4],
            max_batches_in_flight: of[5],
        })
    });
    let ids = (option::of(id()), id(), id());
    let place =
        (integer(), table(), key()).prop_map(|(base, table, key)| WalkPlace { base, table, key });
    let rest = (vec(any::<u8>(), 0..9), option::of(place));
    let attach = (vec(integer(), 5), "[a-z]{1,9}", ids, rest).prop_map(
        |(of, workspace, (epoch, cover, nonce), (scope, walk))| {
            Message::Attach(Attach {
                attachment: of[0],
                workspace: WorkspaceName::new(&workspace).unwrap(),
                epoch: epoch.map(Epoch),
                cursor: of[1],
                received_to: of[2],
                horizon: of[4],
                cover,
                nonce,
                decided: of[3],
                walk,
                scope,
            })
        },
    );
    let role = select(vec![Role::Owner, Role::Editor, Role::Viewer]);
    let lists = (vec((integer(), integer()), 0..3), vec(any::<u8>(), 0..9), vec(decided(), 0..3));
    let reasons =
        vec![ResetReason::BehindHorizon, ResetReason::OtherHistory, ResetReason::OtherCover];
    let covers = (option::of(select(reasons)), option::of(id()));
    let attached = (vec(integer(), 4), id(), (role, covers), lists).prop_map(
        |(of, epoch, (role, (reset, cover)), (lineage, schema, decisions))| {
            Message::Attached(Attached {
                attachment: of[0],
                epoch: Epoch(epoch),
                lineage,
                schema,
                head: of[1],
                horizon: of[2],
                role,
                reset,
                cover: cover.unwrap_or_default(),
                last_counter: of[3],
                decisions,
            })
        },
    );
    prop_oneof![hello, welcome, attach, attached]
}

fn streaming() -> impl Strategy<Value = Message> {
    let entry =
        || (table(), key(), row()).prop_map(|(table, key, row)| Entry::Row { table, key, row });
    let entries = vec(entry(), 0..4);
    let walk = (vec(integer(), 2), option::of((table(), key())), any::<bool>(), entries).prop_map(
        |(of, after, is_last, entries)| {
            let (attachment, base) = (of[0], of[1]);
            Message::Walk(WalkPage { attachment, base, after, is_last, entries })
        },
    );
    let changes = (vec(integer(), 3), option::of(integer()), vec(entry(), 0..4)).prop_map(
        |(of, consistent_at, entries)| {
            let (attachment, from, to) = (of[0], of[1], of[2]);
            Message::Changes(Changes { attachment, from, to, consistent_at, entries })
        },
    );
    prop_oneof![
        (integer(), batch()).prop_map(|(attachment, batch)| Message::Push { attachment, batch }),
        (integer(), vec(decided(), 0..4))
            .prop_map(|(attachment, decisions)| Message::Ack { attachment, decisions }),
        (integer(), integer())
            .prop_map(|(attachment, counter)| Message::Resume { attachment, counter }),
        changes,
        walk,
        (integer(), integer(), integer()).prop_map(|(attachment, received_to, cursor)| {
            Message::Received { attachment, received_to, cursor }
        }),
    ]
}

fn ending() -> impl Strategy<Value = Message> {
    let refusal = select(vec![
        AttachRefusal::Forbidden,
        AttachRefusal::Fenced,
        AttachRefusal::DeviceForked,
        AttachRefusal::Unavailable,
        AttachRefusal::RoleChanged,
    ]);
    let code = select(vec![ErrorCode::Version, ErrorCode::Protocol, ErrorCode::Internal]);
    prop_oneof![
        (integer(), refusal, ".{0,30}").prop_map(|(attachment, code, message)| {
            Message::Refused { attachment, code, message }
        }),
        integer().prop_map(|attachment| Message::Detach { attachment }),
        integer().prop_map(|attachment| Message::SurvivorsStored { attachment }),
        ".{0,30}".prop_map(|token| Message::Refresh { token }),
        integer().prop_map(|attachment| Message::Notice(Notice::Revoked { attachment })),
        (vec(integer(), 3), ".{0,30}").prop_map(|(of, message)| {
            let (attachment, counter, retry_ms) = (of[0], of[1], of[2]);
            Message::Notice(Notice::RetryAfter { attachment, counter, retry_ms, message })
        }),
        Just(Message::Notice(Notice::ShuttingDown)),
        (integer(), integer()).prop_map(|(attachment, horizon)| {
            Message::Notice(Notice::Horizon { attachment, horizon })
        }),
        (code, ".{0,30}").prop_map(|(code, message)| Message::Error { code, message }),
    ]
}

/// The message as it would be said on a connection that knows attachment 1: its numbers mean
/// something, so that it gets past the first check.
pub fn fitted(mut message: Message, small: u64) -> Message {
    match &mut message {
        Message::Attach(attach) => attach.attachment = small,
        Message::Attached(attached) => (attached.attachment, attached.head) = (1, small),
        Message::Push { attachment, batch } => {
            *attachment = 1;
            (batch.device, batch.counter) = (crate::world::DEVICE, small);
        }
        Message::Ack { attachment, decisions } => {
            *attachment = 1;
            for (decided, counter) in decisions.iter_mut().zip(small..) {
                decided.counter = counter;
            }
        }
        Message::Changes(page) => {
            (page.attachment, page.from, page.to) = (1, 0, small);
            page.entries.truncate(1);
        }
        Message::Walk(page) => {
            (page.attachment, page.base, page.after) = (1, small, None);
            page.entries.truncate(1);
        }
        Message::Resume { attachment, counter } => (*attachment, *counter) = (1, small),
        Message::Notice(Notice::RetryAfter { attachment, counter, .. }) => {
            (*attachment, *counter) = (1, small);
        }
        Message::Notice(Notice::Horizon { attachment, horizon }) => {
            (*attachment, *horizon) = (1, small);
        }
        Message::Refused { attachment, .. }
        | Message::Received { attachment, .. }
        | Message::Detach { attachment }
        | Message::Survivors(Survivors { attachment, .. })
        | Message::SurvivorsStored { attachment }
        | Message::Notice(Notice::Revoked { attachment }) => *attachment = 1,
        _ => {}
    }
    message
}
