//! Frames of pages that a replica received: of changes, and of a walk.

use lastword_core::codec::{Decode, DecodeError, Decoder, Encode, Encoder, from_bytes};
use lastword_core::id::WorkspaceName;
use lastword_core::limits::MAX_PAGE_ENTRIES;
use lastword_core::protocol::{Entry, WalkPlace};

/// A page of changes that a replica received.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RemotePage {
    /// Its workspace.
    pub workspace: WorkspaceName,
    /// Seq after which the page begins.
    pub from: u64,
    /// Last seq it covers.
    pub to: u64,
    /// Set on the last page: the cursor after it.
    pub consistent_at: Option<u64>,
    /// The changes.
    pub entries: Vec<Entry>,
    /// For each entry: position of the record's previous frame, 0 = none.
    pub previous: Vec<u64>,
    /// Set if it is a page of a walk, whose rows come in the order of their names.
    pub walk: Option<WalkFrame>,
}

/// What a page of a walk says beside its rows. It covers no seqs before the last page, which covers
/// all up to the base.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WalkFrame {
    /// How far the walk has come; none if it is over.
    pub place: Option<WalkPlace>,
}

impl Encode for RemotePage {
    fn encode(&self, out: &mut Encoder) {
        self.workspace.encode(out);
        out.u64(self.from);
        out.u64(self.to);
        out.option(self.consistent_at.as_ref());
        out.list(&self.entries);
        out.list(&self.previous);
        if let Some(walk) = &self.walk {
            out.option(walk.place.as_ref());
        }
    }
}

impl Decode for RemotePage {
    fn decode(from: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            workspace: WorkspaceName::decode(from)?,
            from: from.u64()?,
            to: from.u64()?,
            consistent_at: from.option()?,
            entries: from.list("entries", MAX_PAGE_ENTRIES)?,
            previous: from.list("positions", MAX_PAGE_ENTRIES)?,
            walk: None,
        })
    }
}

/// A page under the kind of a walk.
pub(super) fn of_walk(bytes: &[u8]) -> Result<RemotePage, DecodeError> {
    from_bytes::<WalkedPage>(bytes).map(|page| page.0)
}

struct WalkedPage(RemotePage);

impl Decode for WalkedPage {
    fn decode(from: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        let page = RemotePage::decode(from)?;
        let walk = Some(WalkFrame { place: from.option()? });
        Ok(Self(RemotePage { walk, ..page }))
    }
}
