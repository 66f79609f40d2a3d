//! Files: stored first, then named by a record of the batch that attaches them.
//!
//! A file is stored outside of any write, since that takes as long as its bytes do. A write then
//! attaches it: the row of `file_meta` and whatever else the app writes are one batch, which is
//! refused if the file is not here. Deleting the row keeps the bytes; undeleting it brings the file
//! back.

use std::io::{self, Read};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use lastword_core::hash::{BlobHash, ChunkId};
use lastword_core::id::{Key, WorkspaceName};
#[cfg(feature = "net")]
use lastword_core::protocol::Role;
use lastword_core::row::Row;
use lastword_core::schema::Schema;
use lastword_core::value::Value;
use lastword_store::blobs::{
    BlobReader, Blobs, LostPack, Scrubbed, broken_files, lost_packs, say_dropped, scrub,
};
use lastword_store::keys::{self, ChunkMark};
use lastword_store::payload::{BlobsFrame, BlobsPart, cut_text};
use lastword_store::read::ReadState;
use lastword_store::{BlobError, View, read};

use crate::collect::{self, CollectOptions, Collected};
use crate::error::{Error, Result};
use crate::file_frames::{append_now, note_damage, set_apart};
#[cfg(feature = "net")]
use crate::file_row::says_storage;
use crate::file_row::{is_uploaded, key_of, table};
use crate::hook;
use crate::receipt::Receipt;
use crate::transfers::{self, Change, Direction, Transfer, TransferState};
use crate::workspace::Workspace;
use crate::write::{Tx, WriteOptions};
use crate::writer::Writer;

/// What `kind` is of a thumbnail.
pub(crate) const THUMBNAIL: &str = "thumbnail";

/// The files of a workspace.
#[derive(Clone, Debug)]
pub struct Files {
    ws: Workspace,
}

/// What is known of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileInfo {
    /// Its hash, as the record has it.
    pub hash: String,
    /// Its name.
    pub name: String,
    /// Its media type.
    pub mime_type: String,
    /// Its length in bytes, as the record says.
    pub size_bytes: u64,
    /// Its row is a tombstone: it can be brought back.
    pub is_deleted: bool,
    /// Its bytes are on this device.
    pub is_here: bool,
    /// Its bytes are at the server, so that other devices can get them.
    pub is_uploaded: bool,
}

fn schema_of<S: ReadState + ?Sized>(state: &S, workspace: &WorkspaceName) -> Result<Schema> {
    Ok(read::schema(state, workspace)?.unwrap_or_default())
}

impl FileInfo {
    fn of(key: &Key, row: &Row, schema: &Schema) -> Self {
        let text = |name: &str| match row.record.get(name) {
            Some(Value::Text(text)) => text,
            _ => String::new(),
        };
        let size = match row.record.get("size_bytes") {
            Some(Value::Int(size)) => u64::try_from(size).unwrap_or(0),
            _ => 0,
        };
        Self {
            hash: key.as_str().to_owned(),
            name: text("name"),
            mime_type: text("mime_type"),
            size_bytes: size,
            is_deleted: row.deleted,
            is_here: false,
            is_uploaded: is_uploaded(&row.record, schema),
        }
    }
}

/// What the files of a workspace take on this device.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct FilesUsage {
    /// Files whose bytes are here, those of deleted rows included.
    pub files: u64,
    /// Their lengths together.
    pub file_bytes: u64,
    /// Chunks that are stored.
    pub chunks: u64,
    /// Chunks of which a read has found that they are damaged.
    pub damaged_chunks: u64,
    /// Bytes of chunks in packs, as they are stored.
    pub stored_bytes: u64,
    /// Bytes in packs that no file needs.
    pub dead_bytes: u64,
    /// Packs.
    pub packs: u64,
}

impl Workspace {
    /// Its files.
    #[must_use]
    pub fn files(&self) -> Files {
        Files { ws: self.clone() }
    }
}

impl Files {
    /// Reads a file from its beginning. The directory stays locked until the reader is dropped.
    ///
    /// # Errors
    /// [`Error::Blob`] if it is not here.
    pub fn open(&self, hash: &BlobHash) -> Result<FileReader> {
        let reader = match hash {
            BlobHash::Sha256(sha256) => BlobReader::open(&self.blobs()?, self.ws.name(), sha256)?,
            BlobHash::Md5(_) => return Err(BlobError::Missing { hash: *hash }.into()),
        };
        Ok(FileReader { reader, files: self.clone(), at: 0 })
    }

    /// Queues the download of a file that is not here; once a server that has it is connected, it
    /// comes and stays. False if it is here already; see [`Files::fetch_again`] for one that is
    /// damaged.
    ///
    /// # Errors
    /// [`Error::Blob`] if the file is named by an MD5, which no server serves; those of
    /// [`Workspace::write`].
    pub fn fetch(&self, hash: &BlobHash) -> Result<bool> {
        let is_here = match hash {
            BlobHash::Sha256(sha256) => {
                read::blob(&*self.ws.database().view(), self.ws.name(), sha256)?.is_some()
            }
            BlobHash::Md5(_) => false,
        };
        if !is_here {
            self.fetch_again(hash)?;
        }
        Ok(!is_here)
    }

    /// As [`Files::fetch`], also if the file is here: pieces of it that are known to be damaged
    /// come anew. One that waits for its next attempt is tried at once.
    ///
    /// # Errors
    /// As [`Files::fetch`].
    pub fn fetch_again(&self, hash: &BlobHash) -> Result<()> {
        let BlobHash::Sha256(_) = hash else {
            return Err(BlobError::Missing { hash: *hash }.into());
        };
        let key = transfers::key_of(Direction::Download, hash);
        let now_ms = self.now_ms();
        let row = self.ws.get_record(&table(), &key_of(hash))?;
        let kind = row.and_then(|row| row.record.get("kind"));
        let rank = u64::from(kind != Some(Value::Text(THUMBNAIL.into())));
        self.ws.write(|tx| {
            let known = tx.get_record(&transfers::table(), &key)?;
            match known.and_then(|record| Transfer::of(&key, &record)).map(|known| known.state) {
                Some(TransferState::Running) => Ok(()),
                _ => transfers::queue(tx, Direction::Download, hash, (0, rank), now_ms),
            }
        })?;
        Ok(())
    }

    /// Queues the upload of a file that is here, or begins it anew.
    ///
    /// # Errors
    /// [`Error::Blob`] if it is not here; those of [`Workspace::write`].
    pub fn upload(&self, hash: &BlobHash) -> Result<()> {
        let missing = || Error::from(BlobError::Missing { hash: *hash });
        let BlobHash::Sha256(sha256) = hash else { return Err(missing()) };
        let stored = read::blob(&*self.ws.database().view(), self.ws.name(), sha256)?;
        let size = stored.ok_or_else(missing)?.blob.size;
        let now_ms = self.now_ms();
        let queue = |tx: &mut Tx| transfers::queue(tx, Direction::Upload, hash, (size, 1), now_ms);
        self.ws.write(queue).map(drop)
    }

    /// Queues the upload of every file that is here and whose row does not say that the server has
    /// it, unless somebody has given that up: what a restored server lost, and what was attached
    /// before its record was refused and written again.
    ///
    /// # Errors
    /// Those of [`Workspace::write`].
    #[cfg(feature = "net")]
    pub(crate) fn upload_missing(&self) -> Result<()> {
        let meta = read::meta(&*self.ws.database().view(), self.ws.name())?;
        let schema = schema_of(&*self.ws.database().view(), self.ws.name())?;
        // Where the server does not say what it has, everything would seem to be missing.
        if meta.role == Some(Role::Viewer) || !says_storage(&schema) {
            return Ok(());
        }
        for file in self.list()? {
            if file.is_deleted || !file.is_here || file.is_uploaded {
                continue;
            }
            let Ok(hash) = BlobHash::read(&file.hash) else { continue };
            if self.transfer(Direction::Upload, &hash)?.is_none() {
                self.upload(&hash)?;
            }
        }
        Ok(())
    }

    /// Every transfer that has not ended well yet; they are rows of [`crate::FILE_TRANSFERS`], to
    /// be queried and watched like others.
    ///
    /// # Errors
    /// [`Error::Store`] if the disk fails.
    pub fn transfers(&self) -> Result<Vec<Transfer>> {
        let mut found = Vec::new();
        self.ws.read()?.visit_rows(Some(&transfers::table()), &mut |(_, key), stored| {
            let live = Some(&stored.row).filter(|row| !row.deleted);
            found.extend(live.and_then(|row| Transfer::of(&key, &row.record)));
        })?;
        Ok(found)
    }

    /// The transfer of a file, if it has not ended well yet.
    ///
    /// # Errors
    /// [`Error::Store`] if the disk fails.
    pub fn transfer(&self, direction: Direction, hash: &BlobHash) -> Result<Option<Transfer>> {
        let key = transfers::key_of(direction, hash);
        let row = self.ws.get_record(&transfers::table(), &key)?;
        Ok(row.and_then(|row| Transfer::of(&key, &row.record)))
    }

    /// Stops a transfer until [`Files::resume`]; what was carried stays.
    ///
    /// # Errors
    /// [`Error::NotFound`] if there is none, and those of [`Workspace::write`].
    pub fn pause(&self, direction: Direction, hash: &BlobHash) -> Result<()> {
        let state = Some(TransferState::Paused);
        self.change(direction, hash, &Change { state, ..Change::default() })
    }

    /// Goes on with a transfer that was paused or has failed, at once.
    ///
    /// # Errors
    /// As [`Files::pause`].
    pub fn resume(&self, direction: Direction, hash: &BlobHash) -> Result<()> {
        let (state, attempts, retry_ms) = (Some(TransferState::Queued), Some(0), Some(0));
        self.change(direction, hash, &Change { state, attempts, retry_ms, ..Change::default() })
    }

    /// Gives a transfer up. A file that was to be uploaded stays here and reaches nobody else until
    /// it is resumed.
    ///
    /// # Errors
    /// As [`Files::pause`].
    pub fn cancel(&self, direction: Direction, hash: &BlobHash) -> Result<()> {
        let key = transfers::key_of(direction, hash);
        match direction {
            // Without its row it would be queued again: its file is not at the server.
            Direction::Upload => {
                let state = Some(TransferState::Canceled);
                self.change(direction, hash, &Change { state, ..Change::default() })
            }
            Direction::Download => {
                self.ws.write(|tx| tx.delete_record(&transfers::table(), &key)).map(drop)
            }
        }
    }

    /// Whether the row of a file says that the server has it.
    #[cfg(feature = "net")]
    pub(crate) fn is_uploaded(&self, hash: &BlobHash) -> Result<bool> {
        let schema = schema_of(&*self.ws.database().view(), self.ws.name())?;
        let row = self.ws.get_record(&table(), &key_of(hash))?;
        Ok(row.is_some_and(|row| is_uploaded(&row.record, &schema)))
    }

    pub(crate) fn change(
        &self,
        direction: Direction,
        hash: &BlobHash,
        change: &Change,
    ) -> Result<()> {
        let key = transfers::key_of(direction, hash);
        self.ws.write(|tx| change.apply(tx, &key)).map(drop)
    }

    /// Deletes a file's row; its bytes stay, and [`Files::undelete`] brings it back.
    ///
    /// # Errors
    /// [`Error::NotFound`] if there is no such file, and those of [`Workspace::write`].
    pub fn delete(&self, hash: &BlobHash) -> Result<Receipt> {
        self.ws.write(|tx| tx.delete_record(&table(), &key_of(hash)))
    }

    /// Brings a deleted file back as it was.
    ///
    /// # Errors
    /// [`Error::NotDeleted`] if it is not deleted or was never known, and those of
    /// [`Workspace::write`].
    pub fn undelete(&self, hash: &BlobHash) -> Result<Receipt> {
        let (table, key) = (table(), key_of(hash));
        self.ws.write(|tx| match tx.undelete_record(&table, &key) {
            // Such a table has no undelete: the same value begins a new life.
            Err(Error::NoUndelete { .. }) => {
                let row = tx.row(&table, &key)?.filter(|row| row.deleted);
                let record = row.map(|row| row.record).unwrap_or_default();
                tx.put_record(&table, &key, record)
            }
            done => done,
        })
    }

    /// Forgets that a file is here, so that the next [`Files::collect`] frees its room; it can be
    /// fetched again. Only a file that the server has is let go.
    ///
    /// # Errors
    /// [`Error::NotUploaded`] if the server does not have it, [`Error::Blob`] if it is not here,
    /// [`Error::Store`] if the disk fails.
    pub fn evict(&self, hash: &BlobHash) -> Result<()> {
        let BlobHash::Sha256(sha256) = *hash else {
            return Err(BlobError::Missing { hash: *hash }.into());
        };
        let (workspace, hash) = (self.ws.name().clone(), *hash);
        let check = move |state: &View, workspace: &WorkspaceName| {
            if read::blob(state, workspace, &sha256)?.is_none() {
                return Err(BlobError::Missing { hash }.into());
            }
            let generation = read::meta(state, workspace)?.generation;
            let row_key = keys::row_key(workspace, generation, &table(), &key_of(&hash));
            let row = read::row(state, &row_key)?;
            let schema = schema_of(state, workspace)?;
            match row.is_some_and(|stored| is_uploaded(&stored.row.record, &schema)) {
                true => Ok(()),
                false => Err(Error::NotUploaded { hash }),
            }
        };
        check(&self.ws.database().view(), &workspace)?;
        let said = say_dropped(&*self.blobs()?, &workspace, &sha256)?;
        let (mut frames, held) =
            said.map_or((Vec::new(), None), |(frame, held)| (vec![frame], Some(held)));
        self.writer().run(move |store| {
            check(store.newest(), &workspace)?;
            let part = BlobsPart::Drop { blobs: vec![sha256], chunks: Vec::new() };
            frames.push(BlobsFrame { workspace, part });
            append_now(store, frames)
        })?;
        drop(held);
        // Somebody else has uploaded it.
        let key = transfers::key_of(Direction::Upload, &hash);
        let gone = self.ws.write(|tx| match tx.get_record(&transfers::table(), &key)? {
            Some(_) => tx.delete_record(&transfers::table(), &key),
            None => Ok(()),
        });
        gone.map(drop)
    }

    /// Every file that has a row, also deleted ones, by hash.
    ///
    /// # Errors
    /// [`Error::Store`] if the disk fails.
    pub fn list(&self) -> Result<Vec<FileInfo>> {
        let (state, workspace) = (self.ws.database().view(), self.ws.name());
        let (mut found, schema) = (Vec::new(), schema_of(&*state, workspace)?);
        self.ws.read()?.visit_rows(Some(&table()), &mut |(_, key), stored| {
            found.push(FileInfo::of(&key, &stored.row, &schema));
        })?;
        for file in &mut found {
            if let Ok(BlobHash::Sha256(sha256)) = BlobHash::read(&file.hash) {
                file.is_here = read::blob(&*state, workspace, &sha256)?.is_some();
            }
        }
        Ok(found)
    }

    /// What the files take on this device.
    ///
    /// # Errors
    /// [`Error::Store`] if the disk fails.
    pub fn usage(&self) -> Result<FilesUsage> {
        let (view, workspace) = (self.ws.database().view(), self.ws.name());
        let mut usage = FilesUsage::default();
        read::visit_blobs(&*view, workspace, &mut |stored| {
            usage.files += 1;
            usage.file_bytes += stored.blob.size;
            Ok(())
        })?;
        read::visit_chunks(&*view, workspace, &mut |_, chunk| {
            usage.chunks += 1;
            usage.damaged_chunks += u64::from(chunk.mark == ChunkMark::Damaged);
            Ok(())
        })?;
        for (_, pack) in read::packs(&*view, workspace)? {
            usage.packs += 1;
            usage.stored_bytes += pack.live;
            usage.dead_bytes += pack.end.saturating_sub(pack.live);
        }
        Ok(usage)
    }

    /// Packs that are gone although chunks are in them. Storing the files of those chunks again
    /// makes them whole.
    ///
    /// # Errors
    /// [`Error::Store`] if the disk fails.
    pub fn lost_packs(&self) -> Result<Vec<LostPack>> {
        Ok(lost_packs(&*self.blobs()?, self.ws.name())?)
    }

    /// The files of which a chunk is known to be damaged or lost: those to be stored again.
    ///
    /// # Errors
    /// [`Error::Store`] if the disk fails.
    pub fn broken(&self) -> Result<Vec<BlobHash>> {
        Ok(broken_files(&self.blobs()?, self.ws.name())?)
    }

    /// Reads chunks from `from` on, about `budget_bytes` of them, and notes those that are damaged:
    /// storing their files again makes them whole. Called again with what it returns as `next`,
    /// some bytes a second, it comes to the end; [`ChunkId`] of zeros begins anew.
    ///
    /// # Errors
    /// [`Error::Store`] if the disk fails.
    pub fn scrub(&self, from: ChunkId, budget_bytes: u64) -> Result<Scrubbed> {
        let scrubbed = scrub(&*self.blobs()?, self.ws.name(), from, budget_bytes)?;
        note_damage(self.writer(), self.ws.name(), scrubbed.damaged.clone())?;
        Ok(scrubbed)
    }

    /// Collects garbage once: files that nothing names any more, in no record, tombstone or version
    /// that this device still has, and the chunks that only they needed. What a run finds is
    /// condemned, and goes with a later run once its grace is over.
    ///
    /// # Errors
    /// [`Error::Blob`] if a run is under way, if a list of chunks is damaged (nobody knows then
    /// what is needed), or if too much would go; [`Error::Store`] if the disk fails. Nothing is
    /// lost then; the next run goes on.
    pub fn collect(&self, options: CollectOptions) -> Result<Collected> {
        let (blobs, workspace) = (self.blobs()?, self.ws.name());
        let collected = collect::collect(&blobs, self.writer(), workspace, options, self.now_ms())?;
        self.ws.database().inner.hooks.raise(hook::GC_RUN, || hook::GcRan {
            workspace: workspace.clone(),
            dry_run: options.dry_run,
            dropped_bytes: collected.totals.dropped_bytes,
            freed_bytes: collected.totals.freed_bytes,
        });
        Ok(collected)
    }

    pub(crate) fn blobs(&self) -> Result<Arc<Blobs>> {
        self.ws.database().inner.opened.blobs.upgrade().ok_or(Error::Closed)
    }

    pub(crate) fn writer(&self) -> &Arc<Writer> {
        &self.ws.database().inner.writer
    }

    pub(crate) fn records(&self) -> &Arc<AtomicU64> {
        &self.ws.database().inner.records
    }

    pub(crate) fn workspace(&self) -> &Workspace {
        &self.ws
    }

    pub(crate) fn now_ms(&self) -> i64 {
        self.ws.database().inner.environment.now_ms()
    }

    /// Refuses a file that is longer than the app allows.
    pub(crate) fn check_size(&self, size: u64) -> Result<()> {
        let limit = self.ws.database().inner.max_file_bytes;
        if size > limit { Err(BlobError::TooLarge { limit }.into()) } else { Ok(()) }
    }

    /// Notes which parts of a file have come from an object store, if its download has a row.
    pub(crate) fn note_parts(&self, sha256: &[u8; 32], parts: Vec<[u8; 32]>) -> Result<()> {
        let key = transfers::key_of(Direction::Download, &BlobHash::Sha256(*sha256));
        let names = parts.into_iter().map(|part| BlobHash::Sha256(part).to_string()).collect();
        let change = Change { parts: Some(names), ..Change::default() };
        let quiet = WriteOptions { quiet: true, ..WriteOptions::default() };
        self.ws.write_with(quiet, |tx| change.apply_to_pending(tx, &key).map(drop)).map(drop)
    }

    /// The parts that have come of a file of `size` bytes that comes in parts of `part_bytes`, as
    /// far as they are here.
    pub(crate) fn noted_parts(
        &self,
        sha256: &[u8; 32],
        part_bytes: u64,
        size: u64,
    ) -> Result<Vec<[u8; 32]>> {
        let row = self.transfer(Direction::Download, &BlobHash::Sha256(*sha256))?;
        let (mut parts, mut at) = (Vec::new(), 0u64);
        for name in row.map(|row| row.parts).unwrap_or_default() {
            let Ok(BlobHash::Sha256(part)) = BlobHash::read(&name) else { break };
            let stored = read::blob(&*self.ws.database().view(), self.ws.name(), &part)?;
            let len = part_bytes.min(size.saturating_sub(at));
            if len == 0 || stored.is_none_or(|stored| stored.blob.size != len) {
                break;
            }
            parts.push(part);
            at += len;
        }
        Ok(parts)
    }

    /// Forgets that a file is here, unless it has a row: a part that is in another file by now.
    pub(crate) fn let_go_unnamed(&self, sha256: &[u8; 32]) -> Result<()> {
        let (workspace, sha256) = (self.ws.name().clone(), *sha256);
        let has_row = move |state: &View, workspace: &WorkspaceName| -> Result<bool> {
            let generation = read::meta(state, workspace)?.generation;
            let key = key_of(&BlobHash::Sha256(sha256));
            let row_key = keys::row_key(workspace, generation, &table(), &key);
            Ok(read::row(state, &row_key)?.is_some())
        };
        if has_row(&self.ws.database().view(), &workspace)? {
            return Ok(());
        }
        let said = say_dropped(&*self.blobs()?, &workspace, &sha256)?;
        let Some((said, held)) = said else { return Ok(()) };
        self.writer().run(move |store| {
            let mut frames = vec![said];
            if !has_row(store.newest(), &workspace)? {
                let part = BlobsPart::Drop { blobs: vec![sha256], chunks: Vec::new() };
                frames.push(BlobsFrame { workspace, part });
            }
            append_now(store, frames)
        })?;
        drop(held);
        Ok(())
    }

    /// Media type and name of a file, as far as its row says.
    pub(crate) fn described(&self, hash: &BlobHash) -> Result<(String, String)> {
        let shown = self.ws.get_record(&table(), &key_of(hash))?;
        let text = |name: &str| match shown.as_ref().and_then(|shown| shown.record.get(name)) {
            Some(Value::Text(text)) => cut_text(&text),
            _ => String::new(),
        };
        Ok((text("mime_type"), text("name")))
    }
}

/// A file that is being read. Every chunk is compared with its name before any byte of it is handed
/// out.
#[derive(Debug)]
pub struct FileReader {
    reader: BlobReader,
    files: Files,
    at: u64,
}

impl FileReader {
    /// Its length in bytes.
    #[must_use]
    pub fn size_bytes(&self) -> u64 {
        self.reader.blob().size
    }

    /// Goes on at this byte of the file.
    pub fn seek_to(&mut self, offset: u64) {
        self.at = offset;
    }

    /// The next bytes, as many as are at hand; none at the end.
    ///
    /// # Errors
    /// [`Error::Blob`] if a chunk is damaged, which is noted: storing the file again heals it.
    pub fn next_bytes(&mut self) -> Result<&[u8]> {
        let read = self.reader.read_from(self.at).map(<[u8]>::len);
        match read {
            // Read once more, from memory: an error must be able to leave here.
            Ok(len) => {
                let at = self.at;
                self.at += len as u64;
                Ok(self.reader.read_from(at)?)
            }
            Err(error) => {
                set_apart(self.files.writer(), self.files.ws.name(), &error);
                Err(error.into())
            }
        }
    }
}

impl Read for FileReader {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let at = self.at;
        let bytes = self.next_bytes().map_err(|error| io::Error::other(Arc::new(error)))?;
        let taken = bytes.len().min(out.len());
        let (now, _) = out.split_at_mut(taken);
        now.copy_from_slice(bytes.get(..taken).unwrap_or_default());
        self.at = at + taken as u64;
        Ok(taken)
    }
}
