//! Messages: one binary WebSocket message holds exactly one.

use alloc::string::String;
use alloc::vec::Vec;

use super::entry::Entry;
use super::history::{History, ReadHistory};
use super::walk::{WalkPage, WalkPlace};
use crate::codec::{Decode, DecodeError, Decoder, Encode, Encoder};
use crate::id::{BatchId, DeviceId, Epoch, WorkspaceName};
use crate::limits::{
    MAX_ATTACHED_DECISIONS, MAX_LINEAGE, MAX_PAGE_ENTRIES, MAX_SCHEMA_BYTES, MAX_TEXT_BYTES,
    MAX_TOKEN_BYTES,
};
use crate::op::Batch;
use crate::stamp::{Decision, coded};

/// Everything that one side tells the other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Message {
    /// Replica, first on a connection: who it is.
    Hello(Hello),
    /// Authority: the connection is authenticated.
    Welcome(Welcome),
    /// Replica: begin or go on with one workspace.
    Attach(Attach),
    /// Authority: the workspace is attached.
    Attached(Attached),
    /// Authority: this attachment is not, or no longer, served.
    Refused {
        /// Number of the attachment.
        attachment: u64,
        /// Why.
        code: AttachRefusal,
        /// For people.
        message: String,
    },
    /// Replica: decide this batch.
    Push {
        /// Number of the attachment.
        attachment: u64,
        /// The batch.
        batch: Batch,
    },
    /// Authority: batches that are decided, durably.
    Ack {
        /// Number of the attachment.
        attachment: u64,
        /// The decisions, in counter order.
        decisions: Vec<Decided>,
    },
    /// Replica: it has stored the refusal of `counter` and sends what follows again.
    Resume {
        /// Number of the attachment.
        attachment: u64,
        /// Counter of the refused batch.
        counter: u64,
    },
    /// Authority: what changed.
    Changes(Changes),
    /// Authority: a page of the rows of the workspace, for a replica that has none.
    Walk(WalkPage),
    /// Replica: what it has stored durably; the credit for more pages.
    Received {
        /// Number of the attachment.
        attachment: u64,
        /// Last seq whose page is durable.
        received_to: u64,
        /// Last consistent seq that is applied.
        cursor: u64,
    },
    /// Replica, before it stores that another history begins: what it has of the one that is lost.
    Survivors(Survivors),
    /// Authority: the last survivors that came are durable, or of no use; send the next.
    SurvivorsStored {
        /// Number of the attachment.
        attachment: u64,
    },
    /// Replica: which versions of a record are there?
    ReadHistory(ReadHistory),
    /// Authority: these.
    History(History),
    /// Replica: stop serving this attachment.
    Detach {
        /// Number of the attachment.
        attachment: u64,
    },
    /// Replica: a fresh token for the same user, before the old one expires.
    Refresh {
        /// The token.
        token: String,
    },
    /// Authority: something the replica should know.
    Notice(Notice),
    /// Either side, last on a connection: why it closes.
    Error {
        /// The kind of error.
        code: ErrorCode,
        /// For people.
        message: String,
    },
}

/// Opens a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hello {
    /// Lowest protocol version that the replica speaks.
    pub min_version: u64,
    /// Highest protocol version that the replica speaks.
    pub max_version: u64,
    /// Proves who the user is.
    pub token: String,
    /// The writing device.
    pub device: DeviceId,
    /// The app's schema number, 0 = none.
    pub app_schema: u64,
    /// Name and version of the software, for logs.
    pub agent: String,
}

/// Accepts a connection and states its limits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Welcome {
    /// Protocol version of the rest of the connection.
    pub version: u64,
    /// Server time, milliseconds since 1970 UTC.
    pub server_time_ms: i64,
    /// Largest message in bytes.
    pub max_message_bytes: u64,
    /// Largest record in bytes.
    pub max_record_bytes: u64,
    /// Largest batch in bytes.
    pub max_batch_bytes: u64,
    /// Most ops in a batch.
    pub max_batch_ops: u64,
    /// Most batches without a verdict.
    pub max_batches_in_flight: u64,
}

/// Asks for one workspace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attach {
    /// Number that the replica gives this attachment, unique on the connection.
    pub attachment: u64,
    /// The workspace.
    pub workspace: WorkspaceName,
    /// Epoch of the replica's copy; none before the first attach.
    pub epoch: Option<Epoch>,
    /// Last consistent seq applied.
    pub cursor: u64,
    /// Last seq whose page is durable, at least the cursor.
    pub received_to: u64,
    /// The horizon that the replica has stored: it lacks no delete up to it, or had nothing when it
    /// was told of it.
    pub horizon: u64,
    /// What the replica's copy covers, as it was told last; see [`crate::schema::Schema::cover`].
    pub cover: [u8; 16],
    /// Random per opened store; one that comes back after being replaced is a clone.
    pub nonce: [u8; 16],
    /// Last counter whose decision the replica has stored.
    pub decided: u64,
    /// Where the walk stands that the replica's copy is begun with; none if none is under way.
    pub walk: Option<WalkPlace>,
    /// Reserved for partial replicas; empty means everything.
    pub scope: Vec<u8>,
}

/// The workspace is served.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attached {
    /// Number of the attachment.
    pub attachment: u64,
    /// Epoch of the workspace's history.
    pub epoch: Epoch,
    /// (branch seq, jump seq) of every restore, oldest first.
    pub lineage: Vec<(u64, u64)>,
    /// The authority's schema, empty if it takes any table.
    pub schema: Vec<u8>,
    /// Last seq there is.
    pub head: u64,
    /// Oldest cursor that can catch up incrementally.
    pub horizon: u64,
    /// The user's role.
    pub role: Role,
    /// Why the pages begin at 0 and make a new copy; none if they go on after `received_to` of the
    /// attach.
    pub reset: Option<ResetReason>,
    /// What the pages cover; zeros for everything.
    pub cover: [u8; 16],
    /// Last counter of this device that was decided.
    pub last_counter: u64,
    /// Decisions after the one the replica named, in counter order, as many as fit; the others come
    /// as `Ack` when the replica pushes their batches again.
    pub decisions: Vec<Decided>,
}

/// One decided batch of the device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decided {
    /// Its counter.
    pub counter: u64,
    /// Its identity.
    pub batch_id: BatchId,
    /// What was decided.
    pub decision: Decision,
}

/// One page of what changed in (from, to].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Changes {
    /// Number of the attachment.
    pub attachment: u64,
    /// Seq after which the page begins.
    pub from: u64,
    /// Last seq that the page covers.
    pub to: u64,
    /// On the last page: the head of the view that reached the end.
    pub consistent_at: Option<u64>,
    /// The changes in seq order; gaps are legal.
    pub entries: Vec<Entry>,
}

/// Rows that a restored authority has lost, as a replica got them from it before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Survivors {
    /// Number of the attachment.
    pub attachment: u64,
    /// The rows, with the stamps of the lost history; at most what fits a page of changes.
    pub entries: Vec<Entry>,
    /// Whether these are all that are left; pages of changes follow then.
    pub is_last: bool,
}

/// Why a replica has to take the whole workspace anew.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ResetReason {
    /// Deletes that it has not seen are no longer known.
    BehindHorizon,
    /// The authority goes on from a backup or a salvage: what it had given after that is lost.
    OtherHistory,
    /// The user sees other rows than those that the copy was made of.
    OtherCover,
}

/// What a member may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Everything, and admin calls.
    Owner,
    /// Read and write.
    Editor,
    /// Read.
    Viewer,
}

/// Why an attachment is not served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AttachRefusal {
    /// The user is no member; unknown workspaces get the same answer.
    Forbidden,
    /// Another connection of the same device took over.
    Fenced,
    /// The device id is used by two stores.
    DeviceForked,
    /// The app's schema number is too low.
    AppTooOld,
    /// The workspace is deleted.
    WorkspaceDeleted,
    /// Too many attachments on one connection.
    TooMany,
    /// The server failed; try again.
    Unavailable,
    /// The member's role is another one now; attach again to hear it.
    RoleChanged,
}

/// Something the replica should know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Notice {
    /// The membership ended.
    Revoked {
        /// Number of the attachment.
        attachment: u64,
    },
    /// Pushes are not decided now; the batch from `counter` on must be sent again later.
    RetryAfter {
        /// Number of the attachment.
        attachment: u64,
        /// First counter that was ignored.
        counter: u64,
        /// How long to wait, in milliseconds.
        retry_ms: u64,
        /// For people.
        message: String,
    },
    /// The server is about to restart.
    ShuttingDown,
    /// Tombstones up to this seq are forgotten. Every page up to it was sent before.
    Horizon {
        /// Number of the attachment.
        attachment: u64,
        /// The horizon from here on.
        horizon: u64,
    },
}

/// Why a connection closes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorCode {
    /// No protocol version in common.
    Version,
    /// The token is wrong or expired.
    Unauthenticated,
    /// The message does not decode or comes at the wrong time.
    Protocol,
    /// Something took too long.
    Timeout,
    /// Too many requests.
    Rate,
    /// A message is too big.
    TooBig,
    /// The server failed.
    Internal,
}

impl ErrorCode {
    /// The WebSocket close code that goes with it.
    #[must_use]
    pub fn close_code(self) -> u16 {
        match self {
            ErrorCode::Version | ErrorCode::Protocol => 1002,
            ErrorCode::Unauthenticated => 4401,
            ErrorCode::Timeout => 4408,
            ErrorCode::Rate => 4429,
            ErrorCode::TooBig => 1009,
            ErrorCode::Internal => 1011,
        }
    }
}

/// The beginning of `text`, at most `limit` bytes: what a peer takes.
pub(super) fn cut_text(text: &str, limit: usize) -> &str {
    let mut end = text.len().min(limit);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.get(..end).unwrap_or_default()
}

coded!(Role, "role", Owner = 0, "owner"; Editor = 1, "editor"; Viewer = 2, "viewer";);
coded!(ResetReason, "reset reason",
    BehindHorizon = 0, "behind_horizon";
    OtherHistory = 1, "other_history";
    OtherCover = 2, "other_cover";
);
coded!(AttachRefusal, "refusal code",
    Forbidden = 0, "forbidden";
    Fenced = 1, "fenced";
    DeviceForked = 2, "device_forked";
    AppTooOld = 3, "app_too_old";
    WorkspaceDeleted = 4, "workspace_deleted";
    TooMany = 5, "too_many";
    Unavailable = 6, "unavailable";
    RoleChanged = 7, "role_changed";
);
coded!(ErrorCode, "error code",
    Version = 0, "version";
    Unauthenticated = 1, "unauthenticated";
    Protocol = 2, "protocol";
    Timeout = 3, "timeout";
    Rate = 4, "rate";
    TooBig = 5, "too_big";
    Internal = 6, "internal";
);

/// Tags of messages. 17 and 19 are reserved.
mod tag {
    pub(super) const HELLO: u64 = 0;
    pub(super) const WELCOME: u64 = 1;
    pub(super) const ATTACH: u64 = 2;
    pub(super) const ATTACHED: u64 = 3;
    pub(super) const REFUSED: u64 = 4;
    pub(super) const PUSH: u64 = 5;
    pub(super) const ACK: u64 = 6;
    pub(super) const RESUME: u64 = 7;
    pub(super) const CHANGES: u64 = 8;
    pub(super) const RECEIVED: u64 = 9;
    pub(super) const DETACH: u64 = 10;
    pub(super) const REFRESH: u64 = 11;
    pub(super) const NOTICE: u64 = 12;
    pub(super) const ERROR: u64 = 13;
    /// ATTACH of a replica that knows a horizon.
    pub(super) const ATTACH_FROM: u64 = 14;
    /// ATTACHED with a reset.
    pub(super) const ATTACHED_RESET: u64 = 15;
    pub(super) const WALK: u64 = 16;
    pub(super) const SURVIVORS: u64 = 18;
    pub(super) const SURVIVORS_STORED: u64 = 20;
    /// ATTACHED of a workspace of which not everybody sees everything.
    pub(super) const ATTACHED_COVER: u64 = 21;
    pub(super) const READ_HISTORY: u64 = 22;
    pub(super) const HISTORY: u64 = 23;
    /// ATTACH of a replica whose walk was broken off.
    pub(super) const ATTACH_WALK: u64 = 24;
}

impl Encode for Message {
    fn encode(&self, out: &mut Encoder) {
        match self {
            Message::Hello(hello) => tagged(out, tag::HELLO, hello),
            Message::Welcome(welcome) => tagged(out, tag::WELCOME, welcome),
            Message::Attach(attach) => match &attach.walk {
                Some(place) => {
                    tagged(out, tag::ATTACH_WALK, attach);
                    out.u64(attach.horizon);
                    place.encode(out);
                }
                None if attach.horizon == 0 => tagged(out, tag::ATTACH, attach),
                None => {
                    tagged(out, tag::ATTACH_FROM, attach);
                    out.u64(attach.horizon);
                }
            },
            Message::Attached(attached) if attached.cover != [0; 16] => {
                tagged(out, tag::ATTACHED_COVER, attached);
                out.option(attached.reset.as_ref());
                out.raw(&attached.cover);
            }
            Message::Attached(attached) => match &attached.reset {
                None => tagged(out, tag::ATTACHED, attached),
                Some(reason) => {
                    tagged(out, tag::ATTACHED_RESET, attached);
                    reason.encode(out);
                }
            },
            Message::Refused { attachment, code, message } => {
                tagged(out, tag::REFUSED, attachment);
                code.encode(out);
                out.str(message);
            }
            Message::Push { attachment, batch } => {
                tagged(out, tag::PUSH, attachment);
                batch.encode(out);
            }
            Message::Ack { attachment, decisions } => {
                tagged(out, tag::ACK, attachment);
                out.list(decisions);
            }
            Message::Resume { attachment, counter } => {
                tagged(out, tag::RESUME, attachment);
                out.u64(*counter);
            }
            Message::Changes(changes) => tagged(out, tag::CHANGES, changes),
            Message::Walk(page) => tagged(out, tag::WALK, page),
            Message::Received { attachment, received_to, cursor } => {
                tagged(out, tag::RECEIVED, attachment);
                out.u64(*received_to);
                out.u64(*cursor);
            }
            Message::Survivors(survivors) => tagged(out, tag::SURVIVORS, survivors),
            Message::SurvivorsStored { attachment } => {
                tagged(out, tag::SURVIVORS_STORED, attachment);
            }
            Message::ReadHistory(asked) => tagged(out, tag::READ_HISTORY, asked),
            Message::History(history) => tagged(out, tag::HISTORY, history),
            Message::Detach { attachment } => tagged(out, tag::DETACH, attachment),
            Message::Refresh { token } => tagged(out, tag::REFRESH, token),
            Message::Notice(notice) => tagged(out, tag::NOTICE, notice),
            Message::Error { code, message } => {
                tagged(out, tag::ERROR, code);
                out.str(message);
            }
        }
    }
}

fn tagged<T: Encode>(out: &mut Encoder, tag: u64, body: &T) {
    out.u64(tag);
    body.encode(out);
}

impl Decode for Message {
    fn decode(from: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        let offset = from.offset();
        Ok(match from.u64()? {
            tag::HELLO => Message::Hello(Hello::decode(from)?),
            tag::WELCOME => Message::Welcome(Welcome::decode(from)?),
            tag::ATTACH => Message::Attach(Attach::decode(from)?),
            tag::ATTACHED => Message::Attached(Attached::decode(from)?),
            tag::ATTACH_FROM => {
                let attach = Attach::decode(from)?;
                match from.u64()? {
                    0 => return Err(from.invalid("horizon")),
                    horizon => Message::Attach(Attach { horizon, ..attach }),
                }
            }
            tag::ATTACH_WALK => {
                let attach = Attach::decode(from)?;
                let (horizon, walk) = (from.u64()?, Some(WalkPlace::decode(from)?));
                Message::Attach(Attach { horizon, walk, ..attach })
            }
            tag::ATTACHED_RESET => {
                let attached = Attached::decode(from)?;
                let reset = Some(ResetReason::decode(from)?);
                Message::Attached(Attached { reset, ..attached })
            }
            tag::ATTACHED_COVER => {
                let attached = Attached::decode(from)?;
                let (reset, cover) = (from.option()?, from.array()?);
                if cover == [0; 16] {
                    return Err(from.invalid("cover"));
                }
                Message::Attached(Attached { reset, cover, ..attached })
            }
            tag::REFUSED => Message::Refused {
                attachment: from.u64()?,
                code: AttachRefusal::decode(from)?,
                message: from.str("message", MAX_TEXT_BYTES)?.into(),
            },
            tag::PUSH => Message::Push { attachment: from.u64()?, batch: Batch::decode(from)? },
            tag::ACK => Message::Ack {
                attachment: from.u64()?,
                decisions: from.list("decisions", MAX_ATTACHED_DECISIONS)?,
            },
            tag::RESUME => Message::Resume { attachment: from.u64()?, counter: from.u64()? },
            tag::CHANGES => Message::Changes(Changes::decode(from)?),
            tag::WALK => Message::Walk(WalkPage::decode(from)?),
            tag::RECEIVED => Message::Received {
                attachment: from.u64()?,
                received_to: from.u64()?,
                cursor: from.u64()?,
            },
            tag::SURVIVORS => Message::Survivors(Survivors::decode(from)?),
            tag::SURVIVORS_STORED => Message::SurvivorsStored { attachment: from.u64()? },
            tag::READ_HISTORY => Message::ReadHistory(ReadHistory::decode(from)?),
            tag::HISTORY => Message::History(History::decode(from)?),
            tag::DETACH => Message::Detach { attachment: from.u64()? },
            tag::REFRESH => Message::Refresh { token: from.str("token", MAX_TOKEN_BYTES)?.into() },
            tag::NOTICE => Message::Notice(Notice::decode(from)?),
            tag::ERROR => Message::Error {
                code: ErrorCode::decode(from)?,
                message: from.str("message", MAX_TEXT_BYTES)?.into(),
            },
            _ => return Err(DecodeError::Invalid { what: "message tag", offset }),
        })
    }
}

impl Encode for Survivors {
    fn encode(&self, out: &mut Encoder) {
        out.u64(self.attachment);
        out.list(&self.entries);
        out.bool(self.is_last);
    }
}

impl Decode for Survivors {
    fn decode(from: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            attachment: from.u64()?,
            entries: from.list("survivors", MAX_PAGE_ENTRIES)?,
            is_last: from.bool()?,
        })
    }
}

impl Encode for Hello {
    fn encode(&self, out: &mut Encoder) {
        out.u64(self.min_version);
        out.u64(self.max_version);
        out.str(&self.token);
        self.device.encode(out);
        out.u64(self.app_schema);
        out.str(&self.agent);
    }
}

impl Decode for Hello {
    fn decode(from: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            min_version: from.u64()?,
            max_version: from.u64()?,
            token: from.str("token", MAX_TOKEN_BYTES)?.into(),
            device: DeviceId::decode(from)?,
            app_schema: from.u64()?,
            agent: from.str("agent", MAX_TEXT_BYTES)?.into(),
        })
    }
}

impl Encode for Welcome {
    fn encode(&self, out: &mut Encoder) {
        out.u64(self.version);
        out.i64(self.server_time_ms);
        out.u64(self.max_message_bytes);
        out.u64(self.max_record_bytes);
        out.u64(self.max_batch_bytes);
        out.u64(self.max_batch_ops);
        out.u64(self.max_batches_in_flight);
    }
}

impl Decode for Welcome {
    fn decode(from: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            version: from.u64()?,
            server_time_ms: from.i64()?,
            max_message_bytes: from.u64()?,
            max_record_bytes: from.u64()?,
            max_batch_bytes: from.u64()?,
            max_batch_ops: from.u64()?,
            max_batches_in_flight: from.u64()?,
        })
    }
}

impl Encode for Attach {
    fn encode(&self, out: &mut Encoder) {
        out.u64(self.attachment);
        self.workspace.encode(out);
        out.option(self.epoch.as_ref());
        out.u64(self.cursor);
        out.u64(self.received_to);
        out.raw(&self.cover);
        out.raw(&self.nonce);
        out.u64(self.decided);
        out.bytes(&self.scope);
    }
}

impl Decode for Attach {
    fn decode(from: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            attachment: from.u64()?,
            workspace: WorkspaceName::decode(from)?,
            epoch: from.option()?,
            cursor: from.u64()?,
            received_to: from.u64()?,
            horizon: 0,
            cover: from.array()?,
            nonce: from.array()?,
            decided: from.u64()?,
            walk: None,
            scope: from.bytes("scope", MAX_TEXT_BYTES)?.into(),
        })
    }
}

impl Encode for Attached {
    fn encode(&self, out: &mut Encoder) {
        out.u64(self.attachment);
        self.epoch.encode(out);
        out.len_of(self.lineage.len());
        for (branch, jump) in &self.lineage {
            out.u64(*branch);
            out.u64(*jump);
        }
        out.bytes(&self.schema);
        out.u64(self.head);
        out.u64(self.horizon);
        self.role.encode(out);
        out.u64(self.last_counter);
        out.list(&self.decisions);
    }
}

impl Decode for Attached {
    fn decode(from: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        let attachment = from.u64()?;
        let epoch = Epoch::decode(from)?;
        let len = from.len("lineage", MAX_LINEAGE)?;
        let mut lineage = Vec::new();
        for _ in 0..len {
            lineage.push((from.u64()?, from.u64()?));
        }
        Ok(Self {
            attachment,
            epoch,
            lineage,
            schema: from.bytes("schema", MAX_SCHEMA_BYTES)?.into(),
            head: from.u64()?,
            horizon: from.u64()?,
            role: Role::decode(from)?,
            reset: None,
            cover: [0; 16],
            last_counter: from.u64()?,
            decisions: from.list("decisions", MAX_ATTACHED_DECISIONS)?,
        })
    }
}

impl Encode for Decided {
    fn encode(&self, out: &mut Encoder) {
        out.u64(self.counter);
        self.batch_id.encode(out);
        self.decision.encode(out);
    }
}

impl Decode for Decided {
    fn decode(from: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            counter: from.u64()?,
            batch_id: BatchId::decode(from)?,
            decision: Decision::decode(from)?,
        })
    }
}

impl Encode for Changes {
    fn encode(&self, out: &mut Encoder) {
        out.u64(self.attachment);
        out.u64(self.from);
        out.u64(self.to);
        out.option(self.consistent_at.as_ref());
        out.list(&self.entries);
    }
}

impl Decode for Changes {
    fn decode(from: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            attachment: from.u64()?,
            from: from.u64()?,
            to: from.u64()?,
            consistent_at: from.option()?,
            entries: from.list("entries", MAX_PAGE_ENTRIES)?,
        })
    }
}

impl Encode for Notice {
    fn encode(&self, out: &mut Encoder) {
        match self {
            Notice::Revoked { attachment } => {
                out.u64(0);
                out.u64(*attachment);
            }
            Notice::RetryAfter { attachment, counter, retry_ms, message } => {
                out.u64(1);
                out.u64(*attachment);
                out.u64(*counter);
                out.u64(*retry_ms);
                out.str(message);
            }
            Notice::ShuttingDown => out.u64(2),
            Notice::Horizon { attachment, horizon } => {
                out.u64(3);
                out.u64(*attachment);
                out.u64(*horizon);
            }
        }
    }
}

impl Decode for Notice {
    fn decode(from: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        let offset = from.offset();
        Ok(match from.u64()? {
            0 => Notice::Revoked { attachment: from.u64()? },
            1 => Notice::RetryAfter {
                attachment: from.u64()?,
                counter: from.u64()?,
                retry_ms: from.u64()?,
                message: from.str("message", MAX_TEXT_BYTES)?.into(),
            },
            2 => Notice::ShuttingDown,
            3 => Notice::Horizon { attachment: from.u64()?, horizon: from.u64()? },
            _ => return Err(DecodeError::Invalid { what: "notice tag", offset }),
        })
    }
}
