//! How a frame changes the state.

use std::sync::Arc;

use crate::error::{ApplyError, StoreError};
use crate::limits::MAX_KEY;
use crate::oplog::FrameRef;
use crate::state::delta::Delta;
use crate::state::scan::Scan;
use crate::state::space::{Direction, KeyRange, Space};
use crate::state::view::View;

/// Takes a row: space, key, value.
pub type PutRow<'a> = dyn FnMut(Space, &[u8], &[u8]) + 'a;

/// What the layer above makes of a frame.
pub trait Apply: Send + Sync {
    /// Changes the state as `frame` says. It runs when the frame is appended and again when the
    /// log is replayed, so its result must follow from the frame and the state alone. If it fails
    /// at append, the state stays as it was and the frame is not in the log.
    fn apply(&self, frame: FrameRef<'_>, state: &mut StateTxn<'_>) -> Result<(), ApplyError>;

    /// Spaces that follow from others: a base leaves them out, `restore` makes them again.
    fn derived(&self) -> &[Space] {
        &[]
    }

    /// What a row of a base becomes in a state that is made from it; each row is handed to `put`.
    fn restore(
        &self,
        space: Space,
        key: &[u8],
        value: &[u8],
        put: &mut PutRow<'_>,
    ) -> Result<(), ApplyError> {
        put(space, key, value);
        Ok(())
    }

    /// Whether this can go on with a state that was built before, maybe by another release or for
    /// another app. If not, the state is folded from the log again.
    fn accepts(&self, _state: &View) -> bool {
        true
    }

    /// First log position whose frame `state` still needs, since what it says is nowhere else. A
    /// fold asks it of the state that its base holds.
    fn needed_from(&self, _state: &View) -> Result<u64, StoreError> {
        Ok(u64::MAX)
    }
}

/// The newest state with the changes of one frame on top.
#[derive(Debug)]
pub struct StateTxn<'a> {
    newest: &'a View,
    changes: &'a Arc<Delta>,
    /// Position of the frame; it orders its changes behind all others.
    position: u64,
    /// Whether `changes` keeps what they replace.
    keep: bool,
}

impl<'a> StateTxn<'a> {
    pub(crate) fn new(
        newest: &'a View,
        changes: &'a Arc<Delta>,
        position: u64,
        keep: bool,
    ) -> Self {
        StateTxn { newest, changes, position, keep }
    }

    /// The value of a row, own changes included. Errors: [`StoreError::StateDamaged`].
    pub fn get(&self, space: Space, key: &[u8]) -> Result<Option<Arc<[u8]>>, StoreError> {
        match self.changes.get(space, key, u64::MAX) {
            Some(row) => Ok(row),
            None => self.newest.get(space, key),
        }
    }

    /// Whether the frame has changed a row already; in a replay, whether any frame of it has.
    pub(crate) fn has_changed(&self, space: Space, key: &[u8]) -> bool {
        self.changes.get(space, key, u64::MAX).is_some()
    }

    /// Sets a row. Errors: [`StoreError::TooLarge`] for a key over 64 KiB.
    pub fn put(&mut self, space: Space, key: &[u8], value: &[u8]) -> Result<(), StoreError> {
        if key.len() > MAX_KEY {
            return Err(StoreError::TooLarge { len: key.len(), limit: MAX_KEY });
        }
        let value = Some(Arc::from(value));
        self.changes.put(space, Arc::from(key), self.position, value, self.keep);
        Ok(())
    }

    /// Removes a row; one that is not there is no error.
    pub fn delete(&mut self, space: Space, key: &[u8]) {
        self.changes.put(space, Arc::from(key), self.position, None, self.keep);
    }

    /// The rows of a range in key order, own changes included. Changes made while the scan is
    /// held may or may not show in it. Errors: [`StoreError::StateDamaged`].
    pub fn scan(
        &self,
        space: Space,
        range: &KeyRange,
        direction: Direction,
    ) -> Result<Scan, StoreError> {
        let mut scan = Scan::new(direction);
        scan.add_delta(self.changes, space, range, u64::MAX);
        self.newest.add_to(&mut scan, space, range)?;
        Ok(scan)
    }
}
