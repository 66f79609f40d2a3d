//! The layout once more, derived by `bincode` 2.0.1: it shares no code with the product.
//!
//! Names and tags follow `docs/format.md`, so a vector that both sides agree on is what that page
//! says. A row is the one type whose layout no derive gives: its parts are put together by hand.

use bincode::de::Decoder;
use bincode::enc::Encoder;
use bincode::error::{DecodeError, EncodeError};
use bincode::{Decode, Encode};

pub type Id = [u8; 16];

/// The bytes of a value in bincode's standard configuration.
pub fn bytes<T: Encode>(value: &T) -> Vec<u8> {
    bincode::encode_to_vec(value, bincode::config::standard()).unwrap()
}

/// Reads a value back and says how many bytes it took.
pub fn read<T: Decode<()>>(bytes: &[u8]) -> (T, usize) {
    bincode::decode_from_slice(bytes, bincode::config::standard()).unwrap()
}

#[derive(Encode, Decode, Debug, Clone)]
pub enum Value {
    Null,
    Bool(bool),
    Int(i64),
    Float(f64),
    Text(String),
    Bytes(Vec<u8>),
    List(Vec<Value>),
    Map(Vec<(String, Value)>),
}

#[derive(Encode, Decode, Debug, Clone)]
pub struct Field {
    pub name: String,
    /// The encoded value.
    pub value: Vec<u8>,
}

pub type Record = Vec<Field>;

#[derive(Encode, Decode, Debug, Clone)]
pub enum Action {
    Create { record: Record, replace: bool },
    Put { record: Record },
    Patch { set: Vec<Field>, remove: Vec<String> },
    Delete,
    Undelete { tombstone: Tombstone },
}

#[derive(Encode, Decode, Debug, Clone)]
pub enum Tombstone {
    Seq(u64),
    Batch(Id),
}

#[derive(Encode, Decode, Debug, Clone)]
pub struct Op {
    pub table: String,
    pub key: String,
    pub base: u64,
    pub revision: u64,
    pub hlc: u64,
    pub action: Action,
}

#[derive(Encode, Decode, Debug, Clone)]
pub struct Batch {
    pub device: Id,
    pub counter: u64,
    pub batch_id: Id,
    pub created_ms: i64,
    pub strict: bool,
    pub former: Vec<Id>,
    pub ops: Vec<Op>,
}

#[derive(Encode, Decode, Debug, Clone, Copy)]
pub struct Mark {
    pub seq: u64,
    pub writer: Id,
}

#[derive(Encode, Decode, Debug, Clone)]
pub struct FieldMark {
    pub name: String,
    pub mark: Mark,
}

/// Bits of the flags: 1 deleted, 2 full = last, 4 born = last, 8 born = full, 16 set after.
#[derive(Debug, Clone)]
pub struct Row {
    pub flags: u8,
    pub last: Mark,
    pub time_ms: i64,
    /// Absent if the flags say that it equals `last`.
    pub full: Option<Mark>,
    /// Absent if the flags say that it equals `last` or `full`.
    pub born: Option<Mark>,
    pub fields: Vec<FieldMark>,
    pub set_at: Option<u64>,
    pub revision: u64,
    pub hlc: u64,
    pub op_id: Id,
    pub record: Record,
}

impl Encode for Row {
    fn encode<E: Encoder>(&self, out: &mut E) -> Result<(), EncodeError> {
        self.flags.encode(out)?;
        self.last.encode(out)?;
        self.time_ms.encode(out)?;
        for mark in [self.full, self.born].into_iter().flatten() {
            mark.encode(out)?;
        }
        self.fields.encode(out)?;
        if let Some(seq) = self.set_at {
            seq.encode(out)?;
        }
        (self.revision, self.hlc, self.op_id).encode(out)?;
        self.record.encode(out)
    }
}

impl<C> Decode<C> for Row {
    fn decode<D: Decoder<Context = C>>(from: &mut D) -> Result<Self, DecodeError> {
        let flags = u8::decode(from)?;
        let last = Mark::decode(from)?;
        let time_ms = i64::decode(from)?;
        let full = if flags & 2 == 0 { Some(Mark::decode(from)?) } else { None };
        let born = if flags & 12 == 0 { Some(Mark::decode(from)?) } else { None };
        let fields = Vec::decode(from)?;
        let set_at = if flags & 16 == 0 { None } else { Some(u64::decode(from)?) };
        let (revision, hlc, op_id) = Decode::decode(from)?;
        let record = Vec::decode(from)?;
        Ok(Self { flags, last, time_ms, full, born, fields, set_at, revision, hlc, op_id, record })
    }
}

bincode::impl_borrow_decode!(Row);

#[derive(Encode, Decode, Debug, Clone)]
pub enum Verdict {
    Applied { dropped: Vec<String> },
    Superseded { by: u64, reason: Superseded },
}

#[derive(Encode, Decode, Debug, Clone, Copy)]
pub enum Superseded {
    Stale,
    Dead,
    EarlierLife,
    Exists,
    NotThatTombstone,
    ValueGone,
    LowerRevision,
}

#[derive(Encode, Decode, Debug, Clone)]
pub enum Decision {
    Accepted { first_seq: u64, last_seq: u64, time_ms: i64, verdicts: Vec<Verdict> },
    Refused { code: RefusalCode, message: String, time_ms: i64 },
}

#[derive(Encode, Decode, Debug, Clone, Copy)]
pub enum RefusalCode {
    Invalid,
    ResultTooBig,
    UnknownTable,
    Policy,
    OverQuota,
    OutcomeUnknown,
}

#[derive(Encode, Decode, Debug, Clone)]
pub struct Schema {
    pub layout: u64,
    pub min_app_schema: u64,
    pub tables: Vec<Table>,
}

/// Bits of the flags: 1 local, 2 content-keyed, 4 removed.
#[derive(Encode, Decode, Debug, Clone)]
pub struct Table {
    pub name: String,
    pub flags: u8,
    pub key_field: String,
    pub policy: u64,
    pub blob_fields: Vec<String>,
    pub server_owned: Vec<String>,
}

#[derive(Encode, Decode, Debug, Clone)]
pub enum Message {
    Hello(Hello),
    Welcome(Welcome),
    Attach(Attach),
    Attached(Attached),
    Refused { attachment: u64, code: AttachRefusal, message: String },
    Push { attachment: u64, batch: Batch },
    Ack { attachment: u64, decisions: Vec<Decided> },
    Resume { attachment: u64, counter: u64 },
    Changes(Changes),
    Received { attachment: u64, received_to: u64, cursor: u64 },
    Detach { attachment: u64 },
    Refresh { token: String },
    Notice(Notice),
    Error { code: ErrorCode, message: String },
    AttachFrom(Attach, u64),
    AttachedReset(Attached, ResetReason),
    Walk(Walk),
    Reserved17,
    Survivors(Survivors),
    Reserved19,
    SurvivorsStored { attachment: u64 },
    Reserved21,
    ReadHistory(ReadHistory),
    History(History),
    AttachWalk(Attach, u64, Place),
}

#[derive(Encode, Decode, Debug, Clone)]
pub struct Walk {
    pub attachment: u64,
    pub base: u64,
    pub after: Option<(String, String)>,
    pub is_last: bool,
    pub entries: Vec<Entry>,
}

#[derive(Encode, Decode, Debug, Clone)]
pub struct Place {
    pub base: u64,
    pub table: String,
    pub key: String,
}

#[derive(Encode, Decode, Debug, Clone)]
pub struct ReadHistory {
    pub attachment: u64,
    pub request: u64,
    pub table: String,
    pub key: String,
    pub before: u64,
}

#[derive(Encode, Decode, Debug, Clone)]
pub struct History {
    pub attachment: u64,
    pub request: u64,
    pub versions: Vec<HistoryVersion>,
    pub rest: HistoryRest,
}

#[derive(Encode, Decode, Debug, Clone)]
pub struct HistoryVersion {
    pub seq: u64,
    pub time_ms: i64,
    pub device: [u8; 16],
    pub kind: VersionKind,
    pub verdict: Option<Verdict>,
    pub record: Option<Record>,
}

#[derive(Encode, Decode, Debug, Clone, Copy)]
pub enum VersionKind {
    Create,
    Put,
    Patch,
    Delete,
    Undelete,
    Erase,
    Kept,
}

#[derive(Encode, Decode, Debug, Clone, Copy)]
pub enum HistoryRest {
    Nothing,
    More,
    Gone,
}

#[derive(Encode, Decode, Debug, Clone)]
pub struct Survivors {
    pub attachment: u64,
    pub entries: Vec<Entry>,
    pub is_last: bool,
}

#[derive(Encode, Decode, Debug, Clone, Copy)]
pub enum ResetReason {
    BehindHorizon,
    OtherHistory,
    OtherCover,
}

#[derive(Encode, Decode, Debug, Clone)]
pub struct Hello {
    pub min_version: u64,
    pub max_version: u64,
    pub token: String,
    pub device: Id,
    pub app_schema: u64,
    pub agent: String,
}

#[derive(Encode, Decode, Debug, Clone)]
pub struct Welcome {
    pub version: u64,
    pub server_time_ms: i64,
    pub max_message_bytes: u64,
    pub max_record_bytes: u64,
    pub max_batch_bytes: u64,
    pub max_batch_ops: u64,
    pub max_batches_in_flight: u64,
}

#[derive(Encode, Decode, Debug, Clone)]
pub struct Attach {
    pub attachment: u64,
    pub workspace: String,
    pub epoch: Option<Id>,
    pub cursor: u64,
    pub received_to: u64,
    pub cover: Id,
    pub nonce: Id,
    pub decided: u64,
    pub scope: Vec<u8>,
}

#[derive(Encode, Decode, Debug, Clone)]
pub struct Attached {
    pub attachment: u64,
    pub epoch: Id,
    pub lineage: Vec<(u64, u64)>,
    pub schema: Vec<u8>,
    pub head: u64,
    pub horizon: u64,
    pub role: Role,
    pub last_counter: u64,
    pub decisions: Vec<Decided>,
}

#[derive(Encode, Decode, Debug, Clone)]
pub struct Decided {
    pub counter: u64,
    pub batch_id: Id,
    pub decision: Decision,
}

#[derive(Encode, Decode, Debug, Clone)]
pub struct Changes {
    pub attachment: u64,
    pub from: u64,
    pub to: u64,
    pub consistent_at: Option<u64>,
    pub entries: Vec<Entry>,
}

#[derive(Encode, Decode, Debug, Clone)]
pub enum Entry {
    Row { table: String, key: String, row: Row },
}

#[derive(Encode, Decode, Debug, Clone, Copy)]
pub enum Role {
    Owner,
    Editor,
    Viewer,
}

#[derive(Encode, Decode, Debug, Clone, Copy)]
pub enum AttachRefusal {
    Forbidden,
    Fenced,
    DeviceForked,
    AppTooOld,
    WorkspaceDeleted,
    TooMany,
    Unavailable,
    RoleChanged,
}

#[derive(Encode, Decode, Debug, Clone)]
pub enum Notice {
    Revoked { attachment: u64 },
    RetryAfter { attachment: u64, counter: u64, retry_ms: u64, message: String },
    ShuttingDown,
    Horizon { attachment: u64, horizon: u64 },
}

#[derive(Encode, Decode, Debug, Clone, Copy)]
pub enum ErrorCode {
    Version,
    Unauthenticated,
    Protocol,
    Timeout,
    Rate,
    TooBig,
    Internal,
}
