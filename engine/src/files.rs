//! Files: stored first, then named by a record of the batch that attaches them.
//!
//! A file is stored outside of any write, since that takes as long as its bytes do. A write then
//! attaches it: the row of `file_meta` and whatever else the app writes are one batch, which is
//! refused if the file is not here. Deleting the row keeps the bytes; undeleting it brings the file
//! back.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use lastword_core::hash::{BlobHash, ChunkId};
use lastword_core::id::{Key, TableName};
use lastword_core::manifest::Blob;
use lastword_core::row::Row;
use lastword_core::value::{Record, Value};
use lastword_store::blobs::{
    BlobReader, Blobs, Fate, GcRun, GcSettings, GcTotals, Ingest, LostPack, Scrubbed, broken_files,
    lost_packs, scrub,
};
use lastword_store::keys::ChunkMark;
use lastword_store::limits::HEADER_LEN;
use lastword_store::payload::{BlobsFrame, BlobsPart, DamagedChunk, Payload};
use lastword_store::{BlobError, read};

use crate::error::{Error, Result};
use crate::receipt::Receipt;
use crate::workspace::Workspace;
use crate::write::Tx;

/// The table that has a row for each file, its hash the key.
const TABLE: &str = "file_meta";

fn table() -> TableName {
    TableName::new(TABLE).expect("invariant: the name is valid")
}

fn key_of(hash: &BlobHash) -> Key {
    Key::new(&hash.to_string()).expect("invariant: a hash is a key")
}

/// The files of a workspace.
#[derive(Clone, Debug)]
pub struct Files {
    ws: Workspace,
}

/// A file whose bytes are stored and durable, ready to be attached by a write.
#[derive(Debug, Clone)]
pub struct Staged {
    blob: Blob,
    name: String,
    /// Bytes that were not here before; the others were found again.
    pub new_bytes: u64,
}

impl Staged {
    /// What the file is called by its content.
    #[must_use]
    pub fn hash(&self) -> BlobHash {
        BlobHash::Sha256(self.blob.sha256)
    }

    /// Its length in bytes.
    #[must_use]
    pub fn size_bytes(&self) -> u64 {
        self.blob.size
    }
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
}

impl FileInfo {
    fn of(key: &Key, row: &Row) -> Self {
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
    /// Stores the file at `path`.
    ///
    /// # Errors
    /// [`Error::File`] if it cannot be opened, and those of [`Files::stage_from`].
    pub fn stage(&self, path: impl AsRef<Path>) -> Result<Staged> {
        let path = path.as_ref();
        let failed =
            |error: io::Error| Error::File { path: path.to_owned(), reason: error.to_string() };
        let file = File::open(path).map_err(failed)?;
        if file.metadata().map_err(failed)?.is_dir() {
            let (path, reason) = (path.to_owned(), "it is a directory".to_owned());
            return Err(Error::File { path, reason });
        }
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned());
        self.stage_from(file, &name.unwrap_or_default(), &mut |_| {})
    }

    /// Stores what `from` gives, under a name for people. Memory is bounded whatever the size;
    /// `progress` gets the bytes that are stored so far. What a call that fails had stored is found
    /// again by the next.
    ///
    /// # Errors
    /// [`Error::Blob`] if `from` fails or gives more than the app allows, [`Error::Store`] if the
    /// disk fails.
    pub fn stage_from(
        &self,
        from: impl Read,
        name: &str,
        progress: &mut dyn FnMut(u64),
    ) -> Result<Staged> {
        self.ws.check_writable()?;
        let inner = &self.ws.database().inner;
        let (time_ms, limit) = (inner.environment.now_ms(), inner.max_file_bytes);
        let mut ingest = Ingest::new(&self.blobs()?, self.ws.name(), from, limit, time_ms);
        let mut new_bytes = 0;
        loop {
            let done = ingest.step()?;
            new_bytes += done.new_bytes;
            self.append(done.frames)?;
            progress(done.read_bytes);
            if let Some(blob) = done.blob {
                return Ok(Staged { blob, name: name.to_owned(), new_bytes });
            }
        }
    }

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

    /// Every file that has a row, also deleted ones, by hash.
    ///
    /// # Errors
    /// [`Error::Store`] if the disk fails.
    pub fn list(&self) -> Result<Vec<FileInfo>> {
        let (state, workspace) = (self.ws.database().view(), self.ws.name());
        let mut found = Vec::new();
        self.ws.read()?.visit_rows(Some(&table()), &mut |(_, key), stored| {
            found.push(FileInfo::of(&key, &stored.row));
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
        scrubbed.damaged.iter().try_for_each(|damaged| self.set_apart(*damaged))?;
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
        let ms = |time: Duration| i64::try_from(time.as_millis()).unwrap_or(i64::MAX);
        let settings = GcSettings {
            now_ms: self.ws.database().inner.environment.now_ms(),
            staged_ms: ms(options.staged),
            grace_ms: ms(options.grace),
            force: options.force || options.dry_run,
        };
        let mut plan = GcRun::begin(&self.blobs()?, self.ws.name(), settings)?.mark()?;
        let (files, totals) = (std::mem::take(&mut plan.files), plan.totals);
        if options.dry_run {
            return Ok(Collected { files, totals, removed_packs: 0 });
        }
        plan.write_marks()?;
        let writer = &self.ws.database().inner.writer;
        let mut plan = writer.run(move |store| {
            store.collect(&mut plan)?;
            Ok(plan)
        })?;
        let (moved, held) = plan.move_chunks()?;
        self.append(moved)?;
        drop(held);
        // The log says first that they are gone.
        let plan = writer.run(move |store| {
            store.drop_packs(&plan)?;
            Ok(plan)
        })?;
        Ok(Collected { files, totals, removed_packs: plan.remove_packs()? })
    }

    fn blobs(&self) -> Result<Arc<Blobs>> {
        self.ws.database().inner.opened.blobs.upgrade().ok_or(Error::Closed)
    }

    fn append(&self, frames: Vec<BlobsFrame>) -> Result<()> {
        if frames.is_empty() {
            return Ok(());
        }
        self.ws.database().inner.writer.run(move |store| {
            for frame in frames {
                let payload = Payload::Blobs(frame);
                store.append(payload.kind(), &payload.to_bytes())?;
            }
            Ok(())
        })
    }

    /// Notes that a chunk is not what was written, so that storing its file again heals it. One
    /// that was stored anew elsewhere since it was read is whole, so the writer looks once more.
    fn set_apart(&self, damaged: DamagedChunk) -> Result<()> {
        let workspace = self.ws.name().clone();
        self.ws.database().inner.writer.run(move |store| {
            let known = read::chunk(store.newest(), &workspace, &damaged.id)?;
            let known = known.filter(|chunk| chunk.mark != ChunkMark::Damaged);
            let place = known.map(|chunk| (chunk.pack, chunk.position));
            if place == Some((damaged.pack, damaged.position)) {
                let part = BlobsPart::Damaged { chunks: vec![damaged] };
                let payload = Payload::Blobs(BlobsFrame { workspace, part });
                store.append(payload.kind(), &payload.to_bytes())?;
            }
            Ok(())
        })
    }
}

impl Tx {
    /// Names a stored file in this write: its row in `file_meta`, unless there is a live one. The
    /// write is refused if the file is no longer here by then.
    ///
    /// # Errors
    /// As [`Tx::put_record`].
    pub fn attach(&mut self, staged: &Staged, mime_type: &str) -> Result<()> {
        let hash = staged.hash();
        self.needs_file(staged.blob.sha256);
        let (table, key) = (table(), key_of(&hash));
        if self.get_record(&table, &key)?.is_some() {
            return Ok(());
        }
        let kind = match mime_type {
            "application/pdf" => "pdf",
            image if image.starts_with("image/") => "image",
            _ => "file",
        };
        let size = i64::try_from(staged.blob.size).unwrap_or(i64::MAX);
        let record = Record::new(&[
            ("hash".into(), Value::Text(hash.to_string())),
            ("name".into(), Value::Text(staged.name.clone())),
            ("mime_type".into(), Value::Text(mime_type.to_owned())),
            ("kind".into(), Value::Text(kind.to_owned())),
            ("size_bytes".into(), Value::Int(size)),
        ])?;
        self.put_record(&table, &key, record)
    }
}

/// How garbage is collected.
#[derive(Debug, Clone, Copy)]
pub struct CollectOptions {
    /// A stored file that nothing names yet stays this long, 24 hours unless set.
    pub staged: Duration,
    /// What nothing needs can be read and comes back this long before it goes, an hour unless set.
    pub grace: Duration,
    /// Look, and change nothing.
    pub dry_run: bool,
    /// Go on also if more than a tenth of everything would go.
    pub force: bool,
}

impl Default for CollectOptions {
    fn default() -> Self {
        let hour = Duration::from_secs(3600);
        Self { staged: 24 * hour, grace: hour, dry_run: false, force: false }
    }
}

/// What one run of the garbage collection found and did.
#[derive(Debug, Clone)]
pub struct Collected {
    /// Each file, its length and what becomes of it, in order of its hash.
    pub files: Vec<(BlobHash, u64, Fate)>,
    /// In numbers.
    pub totals: GcTotals,
    /// Packs whose files were removed.
    pub removed_packs: u64,
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
                if let BlobError::Damaged { chunk: id, file: pack, offset, .. } = error
                    && let position = offset.saturating_sub(HEADER_LEN as u64)
                    && let Err(unnoted) = self.files.set_apart(DamagedChunk { id, pack, position })
                {
                    tracing::warn!(%unnoted, "a damaged chunk could not be noted");
                }
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
