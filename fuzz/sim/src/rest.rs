//! The end of a run that has files: each gets to everybody, and what nothing needs goes.

use std::sync::atomic::Ordering;

use lastword::store::{History, Store, StoreError};
use lastword::{Direction, Error};

use crate::fault::Violation;
use crate::files::Who;
use crate::garbage::{GRACE_MS, STAGED_MS};
use crate::world::{Done, World};

/// Devices look for what is to be carried so many times: an upload makes a download possible, and
/// one that was cut off before goes on.
const ROUNDS: usize = 3;
/// What is garbage is condemned, dropped, its chunks too, then its packs.
const COLLECTIONS: usize = 5;
/// Steps of one collection.
const COLLECTION_STEPS: usize = 4;
/// More than all jumps of a clock together: 500 years.
const LONG_MS: i64 = 500 * 365 * 24 * 3600 * 1000;
/// Moves until everybody has heard of an upload.
const MOST_MOVES: usize = 4_000;

fn fold(store: &mut Store, now_ms: i64) -> Result<(), StoreError> {
    store.fold(&History { now_ms, keep_ms: 0, erased_before: 0 }).map(drop)
}

impl World {
    /// I31, I35: what somebody has and the authority should have gets there, everybody gets it, and
    /// then nothing is left that nobody needs.
    pub fn files_at_rest(&mut self) -> Done {
        if self.setting.files == 0 {
            return Ok(());
        }
        while !self.files.left.is_empty() {
            self.end_left_line()?;
        }
        self.files.collecting.clear();
        for _ in 0..ROUNDS {
            self.carry_all(Direction::Upload)?;
        }
        self.carry_all(Direction::Download)?;
        let all: Vec<Who> =
            (0..self.devices.len()).map(Some).chain(std::iter::once(None)).collect();
        for who in &all {
            self.files_promised(*who)?;
            self.files_whole(*who)?;
        }
        // What was stored while a clock was years ahead is kept until it gets there.
        let mut passes = if self.files.jumped { LONG_MS } else { STAGED_MS + GRACE_MS };
        for _ in 0..COLLECTIONS {
            // Clocks go on and the network does not wait for it.
            self.clock.skew_ms.fetch_add(passes, Ordering::SeqCst);
            for device in &self.devices {
                device.clock.skew_ms.fetch_add(passes, Ordering::SeqCst);
            }
            passes = STAGED_MS + GRACE_MS;
            self.files.jumped = true;
            for who in &all {
                self.fold_files(*who)?;
                for _ in 0..COLLECTION_STEPS {
                    self.collect_of(*who)?;
                }
            }
        }
        for who in all {
            self.files_promised(who)?;
            self.files_whole(who)?;
            if self.checks {
                self.nothing_leaked(who)?;
            }
        }
        Ok(())
    }

    fn fold_files(&mut self, who: Who) -> Done {
        let wall = who.map_or_else(|| self.wall(), |at| self.device_wall(at));
        let folded = match who {
            Some(at) => {
                let Some(app) = &self.devices[at].app else { return Ok(()) };
                app.with(|node| Ok(fold(node.store(), wall)?))
            }
            None => {
                let Some(authority) = &mut self.authority else { return Ok(()) };
                fold(authority.store(), wall).map_err(Error::from)
            }
        };
        if let Some(at) = who {
            self.publish(at);
        }
        folded.or_else(|error| self.file_store_failed(who, &error))
    }

    /// Every transfer that way which is due, without a fault.
    fn carry_all(&mut self, way: Direction) -> Done {
        for at in 0..self.devices.len() {
            for (direction, content) in self.due_transfers(at)? {
                if direction != way {
                    continue;
                }
                // Nobody may have it any more.
                let has = way == Direction::Upload || self.stored_files(None).contains(&content);
                let ended = has && self.transfer(at, direction, content, true)?;
                if has && !ended && self.setting.files == 1 {
                    let text = format!("device {at}: {direction:?} of content {content} fails");
                    return Err(Violation::new("I31", text));
                }
            }
            for _ in 0..MOST_MOVES {
                if way == Direction::Download || self.is_done() || !self.any_move()? {
                    break;
                }
            }
        }
        Ok(())
    }
}
