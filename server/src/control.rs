//! The control socket: how a person on the same machine tells a running server to do something.
//!
//! A Unix domain socket in the data directory that only its owner may use. One JSON line asks, JSON
//! lines answer: any number of `progress`, then one `done` or `error`.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// Name of the socket in the data directory.
pub const NAME: &str = "control.sock";

/// What a server is asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "snake_case", deny_unknown_fields)]
pub enum Ask {
    /// Copy the store.
    Backup {
        /// Absolute path of the directory for it.
        out: PathBuf,
    },
    /// Say where files are kept and who is attached.
    Status,
    /// Read the file of members again.
    Members,
    /// Erase a record.
    Erase {
        /// Its workspace.
        workspace: String,
        /// Its table.
        table: String,
        /// Its key.
        key: String,
    },
    /// Say what devices brought back of what a restore lost.
    Survivors {
        /// The workspace.
        workspace: String,
    },
    /// Delete a workspace.
    DeleteWorkspace {
        /// The workspace.
        workspace: String,
    },
    /// Set fields of a record that the server owns.
    SetOwned {
        /// Its workspace.
        workspace: String,
        /// Its table.
        table: String,
        /// Its key.
        key: String,
        /// Fields with their new values, as JSON.
        set: String,
        /// Fields that go.
        remove: Vec<String>,
    },
    /// Say which files a workspace has.
    Files {
        /// The workspace.
        workspace: String,
    },
    /// Collect garbage among the files of a workspace.
    Gc(Gc),
    /// Write that back.
    Recover {
        /// The workspace.
        workspace: String,
    },
}

/// How garbage is collected.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Gc {
    /// The workspace.
    pub workspace: String,
    /// Seconds that what nothing needs stays after a run has found it.
    pub grace_s: u64,
    /// Seconds that a stored file stays which nothing names yet.
    pub staged_s: u64,
    /// Look, and change nothing.
    pub dry_run: bool,
    /// Go on also if more than a tenth of everything would go.
    pub force: bool,
}

impl Gc {
    /// Does it.
    ///
    /// # Errors
    /// As [`lastword::Authority::collect`], and if the name is not valid.
    pub fn run(&self, authority: &lastword::Authority) -> lastword::Result<lastword::Collected> {
        let workspace = lastword::core::id::WorkspaceName::new(&self.workspace)?;
        let options = lastword::CollectOptions {
            staged: std::time::Duration::from_secs(self.staged_s),
            grace: std::time::Duration::from_secs(self.grace_s),
            dry_run: self.dry_run,
            force: self.force,
        };
        authority.collect(&workspace, options)
    }
}

/// What became of one file in a run of the garbage collection.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileFate {
    /// Its hash.
    pub hash: String,
    /// Its length.
    pub size_bytes: u64,
    /// False if it goes.
    pub stays: bool,
    /// Why, for people.
    pub why: String,
    /// Id of the object store that keeps it; none if the server itself does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub provider: Option<String>,
}

impl FileFate {
    /// What a run says of each file.
    #[must_use]
    pub fn all(collected: &lastword::Collected) -> Vec<Self> {
        let here = |(hash, size, fate): &_| Self::of((*hash, *size), *fate, None);
        let mut all: Vec<Self> = collected.files.iter().map(here).collect();
        for object in &collected.objects {
            let (file, provider) = ((object.hash, object.size), object.provider.clone());
            let mut fate = Self::of(file, object.fate, Some(provider));
            if !object.is_known {
                fate.why = format!("{}, but this server does not know its store", fate.why);
            }
            all.push(fate);
        }
        all
    }

    fn of(
        (hash, size_bytes): (lastword::BlobHash, u64),
        fate: lastword::Fate,
        provider: Option<String>,
    ) -> Self {
        use lastword::Fate;
        let why = match fate {
            Fate::Named => "stays, something names it",
            Fate::JustStored => "stays, it was stored a short while ago",
            Fate::Condemned => "nothing names it: condemned",
            Fate::InGrace => "condemned, its grace is not over",
            Fate::Spared => "stays, something names it again",
            Fate::Dropped => "goes, nothing has named it since it was condemned",
        };
        let (hash, stays) = (hash.to_string(), fate != Fate::Dropped);
        Self { hash, size_bytes, stays, why: why.into(), provider }
    }
}

/// A run of the garbage collection in numbers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GcTotals {
    /// It looked, and changed nothing.
    pub dry_run: bool,
    /// Files that are stored.
    pub files: u64,
    /// Their lengths together.
    pub all_bytes: u64,
    /// Files that went.
    pub dropped_files: u64,
    /// Their lengths together.
    pub dropped_bytes: u64,
    /// Chunks that went.
    pub dropped_chunks: u64,
    /// Bytes that those took.
    pub freed_bytes: u64,
    /// Bytes that all chunks take.
    pub stored_bytes: u64,
    /// Packs whose files were removed.
    pub removed_packs: u64,
    /// Files that are condemned now.
    pub condemned_files: u64,
    /// Chunks that are condemned now.
    pub condemned_chunks: u64,
    /// Files that object stores keep.
    #[serde(default)]
    pub objects: u64,
    /// Those that were deleted.
    #[serde(default)]
    pub deleted_objects: u64,
    /// Their lengths together.
    #[serde(default)]
    pub deleted_object_bytes: u64,
    /// Those that are condemned now.
    #[serde(default)]
    pub condemned_objects: u64,
}

impl GcTotals {
    /// The numbers of a run.
    #[must_use]
    pub fn of(collected: &lastword::Collected, dry_run: bool) -> Self {
        use lastword::Fate;
        let count = |fate| collected.files.iter().filter(|(_, _, of)| *of == fate).count() as u64;
        let totals = &collected.totals;
        let deleted: BTreeSet<_> = collected.deleted_objects.iter().collect();
        let of_deleted = collected.objects.iter().filter(|object| deleted.contains(&object.hash));
        Self {
            dry_run,
            files: collected.files.len() as u64,
            all_bytes: totals.all_bytes,
            dropped_files: count(Fate::Dropped),
            dropped_bytes: totals.dropped_bytes,
            dropped_chunks: totals.dropped_chunks,
            freed_bytes: totals.freed_bytes,
            stored_bytes: totals.stored_bytes,
            removed_packs: collected.removed_packs,
            condemned_files: count(Fate::Condemned),
            condemned_chunks: totals.condemned_chunks,
            objects: collected.objects.len() as u64,
            deleted_objects: collected.deleted_objects.len() as u64,
            deleted_object_bytes: of_deleted.map(|object| object.size).sum(),
            condemned_objects: collected
                .objects
                .iter()
                .filter(|object| object.fate == Fate::Condemned)
                .count() as u64,
        }
    }
}

/// A line of the answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// How far it has come.
    Progress {
        /// Bytes done.
        done_bytes: u64,
        /// Bytes of all.
        total_bytes: u64,
    },
    /// A backup is made.
    Done(Made),
    /// Where files are kept and who is attached.
    Status(Standing),
    /// One member's role is another now.
    Member(Changed),
    /// All of them are told.
    Members {
        /// How many.
        changed: u64,
    },
    /// A record is erased.
    Erased {
        /// Seq of the erasure.
        seq: u64,
        /// Conflict rows that went with it.
        conflicts: u64,
    },
    /// A workspace is deleted.
    WorkspaceDeleted {
        /// How many live records it had.
        records: u64,
    },
    /// Fields are set.
    OwnedSet {
        /// Seq of the set.
        seq: u64,
    },
    /// What becomes of one file, before the last line.
    File(FileFate),
    /// One file, before the last line.
    Counted(FileCount),
    /// Those were all.
    Files {},
    /// Garbage is collected.
    Collected(GcTotals),
    /// One record that a restore lost, before the last line.
    Survivor(Named),
    /// That were all.
    Survivors {},
    /// It is not.
    Error {
        /// What happened and what to do next.
        message: String,
    },
}

/// How a running server stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Standing {
    /// Id of what keeps new files.
    pub files_provider: String,
    /// Devices that are attached, once for each workspace.
    pub attached: usize,
    /// What object stores keep.
    pub objects: Vec<Kept>,
}

/// What an object store keeps of a workspace.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kept {
    /// The workspace.
    pub workspace: String,
    /// Id of the store.
    pub provider: String,
    /// Files that are there.
    pub files: u64,
    /// Their lengths together.
    pub bytes: u64,
    /// Uploads that have not ended.
    pub coming: u64,
}

impl Kept {
    /// What object stores keep for a server.
    ///
    /// # Errors
    /// As [`lastword::Authority::kept_objects`].
    pub fn all(authority: &lastword::Authority) -> lastword::Result<Vec<Self>> {
        let kept = authority.kept_objects()?.into_iter().map(|kept| Self {
            workspace: kept.workspace.as_str().to_owned(),
            provider: kept.provider,
            files: kept.files,
            bytes: kept.bytes,
            coming: kept.coming,
        });
        Ok(kept.collect())
    }
}

/// A file of a workspace.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileCount {
    /// Its hash.
    pub hash: String,
    /// Its length.
    pub size_bytes: u64,
    /// Live records that name it, its own left out.
    pub ref_count: u64,
    /// Id of what keeps its bytes; none while they are nowhere.
    pub provider: Option<String>,
    /// Whether it has a live record of its own.
    pub has_record: bool,
}

impl From<lastword::CountedFile> for FileCount {
    fn from(file: lastword::CountedFile) -> Self {
        let lastword::CountedFile { hash, size_bytes, ref_count, provider, has_record } = file;
        Self { hash: hash.to_string(), size_bytes, ref_count, provider, has_record }
    }
}

/// A record that a restore lost.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Named {
    /// Its table.
    pub table: String,
    /// Its key.
    pub key: String,
    /// Seq of the version that counts, in the lost history.
    pub seq: u64,
    /// When the server had taken it, milliseconds since 1970 UTC.
    pub time_ms: i64,
    /// The device that brought it back.
    pub device: String,
    /// How many versions were brought back.
    pub versions: usize,
    /// What is done with it, in one word.
    pub recovery: String,
}

impl From<lastword::Survivor> for Named {
    fn from(survivor: lastword::Survivor) -> Self {
        let lastword::Survivor { table, key, seq, time_ms, device, seqs, recovery } = survivor;
        Self {
            table: table.as_str().into(),
            key: key.as_str().into(),
            seq,
            time_ms,
            device: device.to_string(),
            versions: seqs.len(),
            recovery: recovery.as_str().into(),
        }
    }
}

/// What the file of members changed for one user.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Changed {
    /// The workspace.
    pub workspace: String,
    /// The user.
    pub user: String,
    /// The role before; none for a new member.
    pub before: Option<String>,
    /// The role from here on; none for somebody who is no member any more.
    pub after: Option<String>,
}

/// A backup that was made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Made {
    /// Its files.
    pub files: u64,
    /// Bytes of all its files.
    pub bytes: u64,
    /// Bytes that had to be copied; the others were there from an earlier backup.
    pub copied_bytes: u64,
    /// The log before this position is in it.
    pub end: u64,
    /// When it was begun, milliseconds since 1970 UTC.
    pub created_ms: i64,
}

impl From<lastword::store::BackupReport> for Made {
    fn from(report: lastword::store::BackupReport) -> Self {
        Self {
            files: report.files.len() as u64,
            bytes: report.files.iter().map(|file| file.len).sum(),
            copied_bytes: report.copied_bytes,
            end: report.end,
            created_ms: report.created_ms,
        }
    }
}

/// Why a running server did not do what it was asked for.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// No server answers.
    #[error(
        "no server answers on {}: {reason}; if none runs, `lastword backup`, `lastword erase` and \
         `lastword recover` do it themselves",
        socket.display()
    )]
    NoServer {
        /// Where it was looked for.
        socket: PathBuf,
        /// Why.
        reason: String,
    },
    /// The server went away, or said something else.
    #[error("the server did not finish: {reason}; run it again, it goes on with what is there")]
    Broken {
        /// What happened.
        reason: String,
    },
    /// The server said no.
    #[error("{message}")]
    Refused {
        /// Its words.
        message: String,
    },
}

#[cfg(unix)]
pub use with_sockets::{Control, ask};
#[cfg(windows)]
pub use without_sockets::{Control, ask};

#[cfg(unix)]
mod with_sockets {
    use std::fs::{self, Permissions};
    use std::io::{self, BufRead as _, Read as _, Write as _};
    use std::os::unix::fs::PermissionsExt as _;
    use std::os::unix::net as blocking;
    use std::sync::Arc;
    use std::time::{Duration, Instant};

    use lastword::core::id::{Key, TableName, WorkspaceName};
    use lastword::core::json;
    use lastword::{Authority, Erased, MemberChange};
    use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
    use tokio::net::{UnixListener, UnixStream};
    use tokio::sync::{Mutex, mpsc};

    use super::{
        Answer, Ask, Changed, ControlError, FileFate, Gc, GcTotals, Kept, NAME, Path, PathBuf,
        Standing,
    };
    use crate::hub::Hub;

    /// Longest line on the socket in bytes.
    const MAX_LINE: u64 = 64 * 1024;
    /// How long a connection may take to ask.
    const ASK_LIMIT: Duration = Duration::from_secs(10);
    /// Progress is told this often.
    const PROGRESS_EVERY: Duration = Duration::from_millis(100);

    /// A served control socket; it is removed when this goes.
    pub struct Control {
        socket: Option<PathBuf>,
    }

    impl Control {
        /// Serves the control socket of that store, inside a runtime. Without one, because the path
        /// is too long for a socket, the server runs all the same.
        pub fn start(hub: &Arc<Hub>) -> Self {
            let dir = hub.authority.dir();
            let socket = dir.join(NAME);
            match listen(dir, &socket) {
                Ok(listener) => {
                    tokio::spawn(serve(listener, Arc::clone(hub)));
                    Self { socket: Some(socket) }
                }
                Err(error) => {
                    let socket = socket.display();
                    tracing::warn!(%error, "no {socket}, so the server takes no commands while it runs");
                    Self { socket: None }
                }
            }
        }
    }

    impl Drop for Control {
        fn drop(&mut self) {
            if let Some(socket) = &self.socket
                && let Err(error) = fs::remove_file(socket)
            {
                tracing::warn!(%error, "{} stays behind", socket.display());
            }
        }
    }

    /// Makes the socket in a directory that nobody else may enter, so that it is never open to
    /// others, and moves it to its place; one that a killed server left behind is replaced.
    fn listen(dir: &Path, socket: &Path) -> io::Result<UnixListener> {
        let closed = tempfile::Builder::new().prefix(".control").tempdir_in(dir)?;
        let made = closed.path().join("s");
        let listener = UnixListener::bind(&made)?;
        fs::set_permissions(&made, Permissions::from_mode(0o600))?;
        fs::rename(&made, socket)?;
        Ok(listener)
    }

    async fn serve(listener: UnixListener, hub: Arc<Hub>) {
        let busy = Arc::new(Mutex::new(()));
        loop {
            match listener.accept().await {
                Ok((socket, _)) => {
                    tokio::spawn(answer(socket, Arc::clone(&hub), Arc::clone(&busy)));
                }
                Err(error) => {
                    tracing::warn!(%error, "the control socket takes no connection");
                    // Out of file descriptors, say: asked again at once it would fail at once.
                    tokio::time::sleep(ASK_LIMIT).await;
                }
            }
        }
    }

    async fn answer(socket: UnixStream, hub: Arc<Hub>, busy: Arc<Mutex<()>>) {
        let (read, mut write) = socket.into_split();
        let (mut line, mut reader) = (String::new(), BufReader::new(read.take(MAX_LINE)));
        match tokio::time::timeout(ASK_LIMIT, reader.read_line(&mut line)).await {
            Ok(Ok(read)) if read > 0 => {}
            _ => return,
        }
        let (told, mut lines) = mpsc::unbounded_channel();
        tokio::task::spawn_blocking(move || {
            let last = match serde_json::from_str(&line) {
                Ok(ask) => obey(&ask, &hub, &busy, &|answer| drop(told.send(answer))),
                Err(error) => Answer::Error { message: format!("not understood: {error}") },
            };
            // Whoever asked may be gone; the backup is made all the same.
            let _ = told.send(last);
        });
        while let Some(answer) = lines.recv().await {
            let line = serde_json::to_string(&answer).expect("invariant: an answer is JSON");
            if write.write_all(format!("{line}\n").as_bytes()).await.is_err() {
                return;
            }
        }
    }

    fn obey(ask: &Ask, hub: &Hub, busy: &Mutex<()>, tell: &dyn Fn(Answer)) -> Answer {
        match ask {
            Ask::Backup { out } => back_up(out, &hub.authority, busy, tell),
            Ask::Members => reload(hub, tell),
            Ask::Status => {
                standing(hub).unwrap_or_else(|error| Answer::Error { message: error.to_string() })
            }
            Ask::Erase { workspace, table, key } => erase(&hub.authority, workspace, table, key)
                .unwrap_or_else(|error| Answer::Error { message: error.to_string() }),
            Ask::DeleteWorkspace { workspace } => delete_workspace(hub, workspace)
                .unwrap_or_else(|error| Answer::Error { message: error.to_string() }),
            Ask::SetOwned { workspace, table, key, set, remove } => {
                set_owned(&hub.authority, (workspace, table, key), set, remove)
                    .unwrap_or_else(|message| Answer::Error { message })
            }
            Ask::Files { workspace } => count_files(&hub.authority, workspace, tell)
                .unwrap_or_else(|error| Answer::Error { message: error.to_string() }),
            Ask::Gc(gc) => collect(gc, hub, tell)
                .unwrap_or_else(|error| Answer::Error { message: error.to_string() }),
            Ask::Survivors { workspace } => survivors(&hub.authority, workspace, false, tell)
                .unwrap_or_else(|error| Answer::Error { message: error.to_string() }),
            Ask::Recover { workspace } => survivors(&hub.authority, workspace, true, tell)
                .unwrap_or_else(|error| Answer::Error { message: error.to_string() }),
        }
    }

    fn standing(hub: &Hub) -> Result<Answer, lastword::Error> {
        let (files_provider, attached) = (hub.authority.files_provider(), hub.attached());
        let objects = Kept::all(&hub.authority)?;
        Ok(Answer::Status(Standing { files_provider, attached, objects }))
    }

    fn count_files(
        authority: &Authority,
        workspace: &str,
        tell: &dyn Fn(Answer),
    ) -> Result<Answer, lastword::Error> {
        let counted = authority.count_files(&WorkspaceName::new(workspace)?)?;
        counted.into_iter().for_each(|file| tell(Answer::Counted(file.into())));
        Ok(Answer::Files {})
    }

    fn collect(gc: &Gc, hub: &Hub, tell: &dyn Fn(Answer)) -> Result<Answer, lastword::Error> {
        let collected = gc.run(&hub.authority);
        let collected = collected.inspect_err(|error| hub.end_if_poisoned(error))?;
        if gc.dry_run {
            FileFate::all(&collected).into_iter().for_each(|file| tell(Answer::File(file)));
        }
        Ok(Answer::Collected(GcTotals::of(&collected, gc.dry_run)))
    }

    fn survivors(
        authority: &Authority,
        workspace: &str,
        recovers: bool,
        tell: &dyn Fn(Answer),
    ) -> Result<Answer, lastword::Error> {
        let workspace = WorkspaceName::new(workspace)?;
        let survivors = match recovers {
            true => authority.recover(&workspace)?,
            false => authority.survivors(&workspace)?,
        };
        survivors.into_iter().for_each(|survivor| tell(Answer::Survivor(survivor.into())));
        Ok(Answer::Survivors {})
    }

    fn delete_workspace(hub: &Hub, workspace: &str) -> Result<Answer, lastword::Error> {
        let records = hub.delete_workspace(&WorkspaceName::new(workspace)?)?;
        Ok(Answer::WorkspaceDeleted { records })
    }

    fn set_owned(
        authority: &Authority,
        (workspace, table, key): (&str, &str, &str),
        set: &str,
        remove: &[String],
    ) -> Result<Answer, String> {
        let said = |error: lastword::Error| error.to_string();
        let workspace = WorkspaceName::new(workspace).map_err(|error| error.to_string())?;
        let table = TableName::new(table).map_err(|error| error.to_string())?;
        let key = Key::new(key).map_err(|error| error.to_string())?;
        let set = json::parse_record(set).map_err(|error| error.to_string())?;
        let seq = authority.set_owned(&workspace, &table, &key, set, remove.to_vec());
        Ok(Answer::OwnedSet { seq: seq.map_err(said)? })
    }

    fn reload(hub: &Hub, tell: &dyn Fn(Answer)) -> Answer {
        let changes = match hub.reload() {
            Ok(changes) => changes,
            Err(error) => return Answer::Error { message: error.to_string() },
        };
        let changed = changes.len() as u64;
        for MemberChange { workspace, user, before, after } in changes {
            let [before, after] = [before, after].map(|role| role.map(|role| role.to_string()));
            let workspace = workspace.to_string();
            tell(Answer::Member(Changed { workspace, user, before, after }));
        }
        Answer::Members { changed }
    }

    fn erase(
        authority: &Authority,
        workspace: &str,
        table: &str,
        key: &str,
    ) -> Result<Answer, lastword::Error> {
        let (workspace, table) = (WorkspaceName::new(workspace)?, TableName::new(table)?);
        let Erased { seq, conflicts } = authority.erase(&workspace, &table, &Key::new(key)?)?;
        Ok(Answer::Erased { seq, conflicts })
    }

    fn back_up(
        out: &Path,
        authority: &Authority,
        busy: &Mutex<()>,
        tell: &dyn Fn(Answer),
    ) -> Answer {
        let error = |message| Answer::Error { message };
        if !out.is_absolute() {
            return error(format!("{} is not an absolute path", out.display()));
        }
        let Ok(_alone) = busy.try_lock() else {
            return error("another backup is under way: wait until it has ended".into());
        };
        let mut told = Instant::now();
        let made = authority.backup(out, &mut |progress| {
            if told.elapsed() >= PROGRESS_EVERY {
                told = Instant::now();
                let (done_bytes, total_bytes) = (progress.done_bytes, progress.total_bytes);
                tell(Answer::Progress { done_bytes, total_bytes });
            }
        });
        match made {
            Ok(report) => Answer::Done(report.into()),
            Err(failed) => error(failed.to_string()),
        }
    }

    /// Has the server whose data is in `dir` do something, and returns its last answer; `each` gets
    /// those before it.
    ///
    /// # Errors
    /// [`ControlError`].
    pub fn ask(
        dir: &Path,
        ask: &Ask,
        each: &mut dyn FnMut(Answer),
    ) -> Result<Answer, ControlError> {
        let path = dir.join(NAME);
        let mut socket = blocking::UnixStream::connect(&path)
            .map_err(|error| ControlError::NoServer { socket: path, reason: error.to_string() })?;
        let broken = |reason: String| ControlError::Broken { reason };
        let ask = serde_json::to_string(ask).map_err(|error| broken(error.to_string()))?;
        socket
            .write_all(format!("{ask}\n").as_bytes())
            .map_err(|error| broken(error.to_string()))?;
        let mut lines = io::BufReader::new(socket);
        loop {
            let mut line = String::new();
            let read = lines.by_ref().take(MAX_LINE).read_line(&mut line);
            if read.map_err(|error| broken(error.to_string()))? == 0 {
                return Err(broken("it has ended".into()));
            }
            match serde_json::from_str(&line).map_err(|error| broken(error.to_string()))? {
                answer @ (Answer::Progress { .. }
                | Answer::Member(_)
                | Answer::File(_)
                | Answer::Counted(_)
                | Answer::Survivor(_)) => each(answer),
                Answer::Error { message } => return Err(ControlError::Refused { message }),
                done => return Ok(done),
            }
        }
    }
}

#[cfg(windows)]
mod without_sockets {
    use std::sync::Arc;

    use super::{Answer, Ask, ControlError, NAME, Path};
    use crate::hub::Hub;

    /// No control socket.
    pub struct Control;

    impl Control {
        /// Does nothing.
        pub fn start(_hub: &Arc<Hub>) -> Self {
            Self
        }
    }

    /// Always fails.
    ///
    /// # Errors
    /// [`ControlError::NoServer`].
    pub fn ask(
        dir: &Path,
        _ask: &Ask,
        _each: &mut dyn FnMut(Answer),
    ) -> Result<Answer, ControlError> {
        let reason = "a running server takes no commands on Windows: stop it first".into();
        Err(ControlError::NoServer { socket: dir.join(NAME), reason })
    }
}
