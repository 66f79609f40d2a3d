//! Garbage collections of files, a step at a time, so that everything else can happen in between.

use lastword::Error;
use lastword::core::id::WorkspaceName;
use lastword::store::blobs::{GcPlan, GcRun, GcSettings};
use lastword::store::payload::{BlobsFrame, Payload};
use lastword::store::{BlobError, Store};

use crate::check;
use crate::fault::Violation;
use crate::files::Who;
use crate::world::World;

/// A file that nothing names yet stays so long.
pub const STAGED_MS: i64 = 60_000;
/// What is condemned comes back so long.
pub const GRACE_MS: i64 = 10_000;

/// How far a collection is.
pub enum Collecting {
    /// It has looked.
    Marked(GcPlan),
    /// The log says what is condemned and what is dropped.
    Decided(GcPlan),
    /// What is needed of packs that go stands elsewhere.
    Moved(GcPlan),
}

fn append(store: &mut Store, frames: Vec<BlobsFrame>) -> Result<(), Error> {
    for frame in frames {
        let payload = Payload::Blobs(frame);
        store.append(payload.kind(), &payload.to_bytes())?;
    }
    store.commit()?;
    Ok(())
}

/// The next step; none after the last one, and where one began for nothing.
fn step(
    store: &mut Store,
    workspace: &WorkspaceName,
    at: Option<Collecting>,
    now_ms: i64,
) -> Result<Option<Collecting>, Error> {
    Ok(match at {
        None => {
            let (staged_ms, grace_ms) = (STAGED_MS, GRACE_MS);
            let settings =
                GcSettings { now_ms, staged_ms, grace_ms, force: true, forgotten_at: None };
            match GcRun::begin(store.blobs(), workspace, settings)?.mark() {
                Err(BlobError::Folded) => None,
                marked => Some(Collecting::Marked(marked?)),
            }
        }
        Some(Collecting::Marked(mut plan)) => {
            plan.write_marks()?;
            match store.collect(&mut plan) {
                Err(BlobError::Folded) => None,
                collected => {
                    collected?;
                    store.commit()?;
                    Some(Collecting::Decided(plan))
                }
            }
        }
        Some(Collecting::Decided(mut plan)) => {
            let (frames, held) = plan.move_chunks()?;
            append(store, frames)?;
            drop(held);
            Some(Collecting::Moved(plan))
        }
        Some(Collecting::Moved(plan)) => {
            store.drop_packs(&plan)?;
            store.commit()?;
            plan.remove_packs()?;
            None
        }
    })
}

impl World {
    /// The collection of a store goes a step on; one begins if none is under way.
    pub fn collect_of(&mut self, who: Who) -> Result<bool, Violation> {
        let workspace = self.file_workspace();
        let before = self.files.collecting.remove(&who);
        let has_moved = matches!(before, Some(Collecting::Moved(_)));
        let stored = self.stored_files(who);
        self.doing = "collect";
        let wall = who.map_or_else(|| self.wall(), |at| self.device_wall(at));
        let stepped = match who {
            Some(at) => {
                let Some(app) = &self.devices[at].app else { return Ok(false) };
                app.with(|node| step(node.store(), &workspace, before, wall))
            }
            None => {
                let Some(authority) = &mut self.authority else { return Ok(false) };
                step(authority.store(), &workspace, before, wall)
            }
        };
        match stepped {
            Ok(next) => {
                let goes_on = next.is_some();
                self.files.collecting.extend(next.map(|next| (who, next)));
                if let Some(at) = who {
                    self.publish(at);
                }
                // Before a fold takes the frames away.
                check::log(self)?;
                self.files_gone(who, stored)?;
                self.files_promised(who)?;
                if has_moved {
                    self.files_whole(who)?;
                }
                Ok(goes_on || has_moved)
            }
            Err(error) => self.file_store_failed(who, &error).map(|()| false),
        }
    }
}
