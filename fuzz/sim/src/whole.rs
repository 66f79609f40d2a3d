//! What must hold of files, by the ids of `invariants.rs`, worked out from what devices were told
//! and from the rows of a store alone.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use lastword::BlobHash;
use lastword::core::id::WorkspaceName;
use lastword::store::blobs::{BlobReader, Blobs, visit_pieces};
use lastword::store::{
    BlobError, Direction, Disk, FileKind, KeyRange, Space, StoreError, View, keys, read,
};

use crate::check;
use crate::fault::Violation;
use crate::files::Who;
use crate::garbage::{GRACE_MS, STAGED_MS};
use crate::world::{Done, World};

/// All bytes of a file.
fn bytes_of(
    blobs: &Arc<Blobs>,
    workspace: &WorkspaceName,
    hash: &BlobHash,
) -> Result<Vec<u8>, BlobError> {
    let BlobHash::Sha256(sha256) = hash else { return Err(BlobError::Ended) };
    let mut reader = BlobReader::open(blobs, workspace, sha256)?;
    let mut out = Vec::new();
    loop {
        let more = reader.read_from(out.len() as u64)?;
        if more.is_empty() {
            return Ok(out);
        }
        out.extend_from_slice(more);
    }
}

fn name(who: Who) -> String {
    who.map_or_else(|| "the authority".to_owned(), |at| format!("device {at}"))
}

fn contains(bytes: &[u8], text: &[u8]) -> bool {
    bytes.windows(text.len()).any(|window| window == text)
}

impl World {
    /// The newest view of a store, and its packs.
    pub fn file_store(&mut self, who: Who) -> Option<(Arc<View>, Arc<Blobs>)> {
        match who {
            Some(at) => {
                let app = self.devices[at].app.as_ref()?;
                app.with(|node| Ok((node.view(), node.store().blobs().clone()))).ok()
            }
            None => {
                let authority = self.authority.as_mut()?;
                Some((authority.view(), authority.store().blobs().clone()))
            }
        }
    }

    /// The contents that a store has, by number.
    pub fn stored_files(&mut self, who: Who) -> BTreeSet<usize> {
        let Some((view, _)) = self.file_store(who) else { return BTreeSet::new() };
        let mut stored = BTreeSet::new();
        let looked = read::visit_blobs(&*view, &self.workspaces[0], &mut |found| {
            let hash = BlobHash::Sha256(found.blob.sha256).to_string();
            stored.extend(self.files.number_of(&hash));
            Ok(())
        });
        // A store that cannot be read now says so to whoever asks it next.
        looked.map_or(BTreeSet::new(), |()| stored)
    }

    /// The contents that records of a store name, or would if they were undeleted.
    fn named_files(&self, view: &View) -> Option<BTreeSet<usize>> {
        let rows = check::rows(view, &self.workspaces[0]).ok()?.rows;
        let names = rows.iter().filter(|(name, kept)| self.files.named(name, kept));
        Some(names.filter_map(|(name, _)| self.files.number_of(&name.1)).collect())
    }

    /// I32, I37: what a store has no more since `before` nothing named, and it was old.
    pub fn files_gone(&mut self, who: Who, before: BTreeSet<usize>) -> Done {
        let Some((view, _)) = self.file_store(who) else { return Ok(()) };
        let now = self.stored_files(who);
        let gone: Vec<usize> = before.difference(&now).copied().collect();
        if gone.is_empty() {
            return Ok(());
        }
        self.reach.count("files collected", gone.len() as u64);
        let Some(named) = self.named_files(&view) else { return Ok(()) };
        for content in gone {
            if named.contains(&content) {
                let text = format!("{}: content {content} is gone and is named", name(who));
                return Err(Violation::new("I32", text));
            }
            let stored_at = self.files.stored_at.remove(&(who, content));
            let age = stored_at.map_or(u64::MAX, |at| self.now - at);
            if age < (STAGED_MS + GRACE_MS) as u64 && !self.files.jumped {
                let text = format!("{}: content {content} is gone after {age} ms", name(who));
                return Err(Violation::new("I37", text));
            }
            match who {
                Some(at) => drop(self.files.held.entry(at).or_default().remove(&content)),
                None => drop(self.files.uploaded.remove(&content)),
            }
        }
        Ok(())
    }

    /// I31: a store has what it was said to have, as long as something names it.
    pub fn files_promised(&mut self, who: Who) -> Done {
        let Some((view, _)) = self.file_store(who) else { return Ok(()) };
        let promised = match who {
            Some(at) => self.files.held.get(&at).cloned().unwrap_or_default(),
            None => self.files.uploaded.clone(),
        };
        let Some(named) = self.named_files(&view) else { return Ok(()) };
        let stored = self.stored_files(who);
        for content in promised.intersection(&named) {
            if !stored.contains(content) && self.readable(who) {
                let text = format!("{}: content {content} is named and gone", name(who));
                return Err(Violation::new("I31", text));
            }
        }
        Ok(())
    }

    /// Whether a store can be read now.
    fn readable(&mut self, who: Who) -> bool {
        let workspace = self.file_workspace();
        let store = self.file_store(who);
        store
            .is_some_and(|(view, _)| read::visit_blobs(&*view, &workspace, &mut |_| Ok(())).is_ok())
    }

    /// I31, I33, I34: every file that a store says it has is there and has its bytes, and what
    /// packs are said to hold is what is in them. Both runs of a seed look: a pack that is read
    /// stays open, and goes later than one that is not.
    pub fn files_whole(&mut self, who: Who) -> Done {
        let workspace = self.file_workspace();
        let Some((view, blobs)) = self.file_store(who) else { return Ok(()) };
        for content in self.stored_files(who) {
            let (right, hash) = &self.files.contents[content];
            match bytes_of(&blobs, &workspace, hash) {
                Ok(bytes) if bytes == *right => {}
                Ok(_) => {
                    let text = format!("{}: content {content} has other bytes", name(who));
                    return Err(Violation::new("I34", text));
                }
                // Of a store that has to be opened again.
                Err(BlobError::Store(_)) => {}
                Err(error) => {
                    let text = format!("{}: content {content}: {error}", name(who));
                    return Err(Violation::new("I31", text));
                }
            }
        }
        let recount = || -> Result<Option<String>, StoreError> {
            let mut live: BTreeMap<u64, u64> = BTreeMap::new();
            read::visit_chunks(&*view, &workspace, &mut |_, chunk| {
                *live.entry(chunk.pack).or_default() += chunk.frame_bytes();
                Ok(())
            })?;
            let packs = read::packs(&*view, &workspace)?;
            let wrong = packs
                .iter()
                .find(|(number, pack)| live.get(number).copied().unwrap_or(0) != pack.live);
            Ok(wrong.map(|(number, pack)| format!("pack {number} is said to hold {}", pack.live)))
        };
        match recount() {
            Ok(Some(text)) => Err(Violation::new("I33", format!("{}: {text}", name(who)))),
            _ => Ok(()),
        }
    }

    /// I31: what a store had been told to keep it has after it was opened again.
    pub fn files_after_opening(&mut self, who: Who) -> Done {
        if self.setting.files == 0 {
            return Ok(());
        }
        self.files_promised(who)?;
        self.files_whole(who)
    }

    /// I35: files, chunks and packs that a store has when all is quiet are those that are needed.
    pub fn nothing_leaked(&mut self, who: Who) -> Done {
        let workspace = self.file_workspace();
        let Some((view, blobs)) = self.file_store(who) else { return Ok(()) };
        let disk = match who {
            Some(at) => self.devices[at].disk.clone(),
            None => self.disk.clone(),
        };
        let broken = |text: String| Err(Violation::new("I35", format!("{}: {text}", name(who))));
        let unreadable = |error: StoreError| Violation::new("I15", error.to_string());
        let (mut texts, mut packs) = (Vec::new(), BTreeSet::new());
        for file in disk.list().map_err(|error| Violation::new("I15", error.to_string()))? {
            match file.kind {
                FileKind::Pack => drop(packs.insert(file.number)),
                // Whatever the log still says may be brought back by an undo.
                FileKind::Log => texts.extend(disk.bytes(file.number)),
                _ => {}
            }
        }
        texts.extend(all_rows(&view).map_err(unreadable)?);
        let mut needed = BTreeSet::new();
        let mut files = Vec::new();
        let looked = read::visit_blobs(&*view, &workspace, &mut |stored| {
            files.push(stored.blob);
            Ok(())
        });
        looked.map_err(unreadable)?;
        for blob in files {
            let hash = BlobHash::Sha256(blob.sha256).to_string();
            if !texts.iter().any(|text| contains(text, hash.as_bytes())) {
                return broken(format!(
                    "{:?} is there, and nothing names it",
                    self.files.number_of(&hash)
                ));
            }
            let pieces = visit_pieces(&blobs, &workspace, &blob, &mut |id| {
                needed.insert(*id);
                Ok(())
            });
            pieces.map_err(|error| Violation::new("I31", error.to_string()))?;
        }
        let mut extra = 0;
        read::visit_chunks(&*view, &workspace, &mut |id, _| {
            extra += u64::from(!needed.contains(&id));
            Ok(())
        })
        .map_err(unreadable)?;
        let known = read::packs(&*view, &workspace).map_err(unreadable)?;
        let known: BTreeSet<u64> = known.into_iter().map(|(number, _)| number).collect();
        match (extra, packs == known) {
            (0, true) => Ok(()),
            (0, false) => broken(format!("packs {packs:?} where the log has {known:?}")),
            (extra, _) => broken(format!("{extra} chunks that no file needs")),
        }
    }
}

/// Keys and values of all rows of a state.
fn all_rows(view: &View) -> Result<Vec<Vec<u8>>, StoreError> {
    let mut all = Vec::new();
    for space in (0..keys::CHUNKS.number()).map(Space::new) {
        for row in view.scan(space, &KeyRange::all(), Direction::Forward)? {
            let (key, value) = row?;
            all.push(key.to_vec());
            all.push(value.to_vec());
        }
    }
    Ok(all)
}
