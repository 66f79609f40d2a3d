//! Opening a store directory: lock, recover, and check that it plays the wanted part.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};
use std::time::Duration;

use lastword_core::codec::from_bytes;
use lastword_core::id::DeviceId;
use lastword_store::apply::ApplyPayload;
use lastword_store::blobs::Blobs;
use lastword_store::index::Indexes;
use lastword_store::keys::{INDEX_SIGNATURE, META};
use lastword_store::payload::{Identity, Payload, StoreRole};
use lastword_store::{DirLock, OpenReport, Options, RealDisk, Store, read, state_row};

use crate::directory::Directory;
use crate::environment::{now_ms, random};
use crate::error::{Error, Result};
use crate::upkeep::{DEFAULT_HISTORY, Keep, UpkeepSettings};

/// How a store is opened.
pub(crate) struct OpenOptions {
    role: StoreRole,
    store: Options,
    indexes: Indexes,
    keep: Keep,
}

impl OpenOptions {
    pub(crate) fn authority(keep: Keep) -> Self {
        let store = Options { entropy: random(), ..Options::server() };
        Self { role: StoreRole::Authority, store, indexes: Indexes::default(), keep }
    }

    pub(crate) fn replica(indexes: &Indexes, history: Option<Duration>) -> Self {
        let store = Options { entropy: random(), ..Options::default() };
        Self {
            role: StoreRole::Replica,
            store,
            indexes: indexes.clone(),
            keep: Keep { history: history.unwrap_or(DEFAULT_HISTORY), ..Keep::default() },
        }
    }
}

/// What is known of an open directory; the store holds its lock.
pub(crate) struct OpenedStore {
    pub(crate) dir: PathBuf,
    pub(crate) identity: Identity,
    pub(crate) report: OpenReport,
    pub(crate) upkeep: UpkeepSettings,
    /// The store's own, so that the lock goes with the store.
    pub(crate) blobs: Weak<Blobs>,
}

/// What is out of the ordinary when people open a store.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct AsIs {
    /// Fold the state from the log again.
    pub(crate) rebuild_state: bool,
    /// Bytes of a segment, instead of the size for its role.
    pub(crate) segment_size: Option<u64>,
    /// Begin a log where there are packs and nothing else.
    pub(crate) adopt_packs: bool,
}

/// Opens the store in `dir` for people, whatever part it plays, with the indexes that it has. One
/// that nobody has introduced yet becomes a device's.
pub(crate) fn open_as_is(dir: &Path, as_is: &AsIs) -> Result<(OpenedStore, Store)> {
    let Directory { disk, lock, .. } = Directory::look(dir)?;
    // A state that cannot be read is made anew, and the app's indexes with it when it opens it.
    let known = |key| state_row(&*disk, META, key).ok().flatten();
    let identity: Option<Identity> = known(b"").and_then(|bytes| from_bytes(&bytes).ok());
    let indexes = known(INDEX_SIGNATURE).and_then(|bytes| Indexes::from_signature(&bytes));
    let mut options = match identity.map(|identity| identity.role) {
        Some(StoreRole::Authority) => OpenOptions::authority(Keep::default()),
        _ => OpenOptions::replica(&indexes.unwrap_or_default(), None),
    };
    options.store.rebuild_state = as_is.rebuild_state;
    options.store.adopt_packs = as_is.adopt_packs;
    options.store.segment_size = as_is.segment_size.unwrap_or(options.store.segment_size);
    let lock = lock.map_or_else(|| DirLock::acquire(dir), Ok)?;
    locked(lock, &options)
}

/// Locks, recovers and identifies the store in `dir`, creating it if there is none.
pub(crate) fn open(dir: &Path, options: &OpenOptions) -> Result<(OpenedStore, Store)> {
    let (opened, store) = locked(DirLock::acquire(dir)?, options)?;
    if opened.identity.role != options.role {
        return Err(Error::OtherRole {
            dir: dir.to_path_buf(),
            found: holds(opened.identity.role),
            wanted: holds(options.role),
        });
    }
    Ok((opened, store))
}

fn locked(lock: DirLock, options: &OpenOptions) -> Result<(OpenedStore, Store)> {
    let dir = lock.dir().to_path_buf();
    let disk = Arc::new(RealDisk::open(lock, options.store.zero_step)?);
    let apply = Arc::new(ApplyPayload::new(options.indexes.clone()));
    let (mut store, report) = Store::open(disk, options.store.clone(), apply)?;
    let known = read::identity(store.newest())?;
    let identity = match known {
        Some(identity) => identity,
        None => {
            let device = match options.role {
                StoreRole::Authority => DeviceId::AUTHORITY,
                StoreRole::Replica => DeviceId(random()),
            };
            introduce(&mut store, options.role, device, now_ms())?
        }
    };
    let delta_cap_bytes = options.store.delta_cap_bytes;
    let upkeep = UpkeepSettings { delta_cap_bytes, keep: options.keep };
    let blobs = Arc::downgrade(store.blobs());
    Ok((OpenedStore { dir, identity, report, upkeep, blobs }, store))
}

/// Writes the first frame of a store.
pub(crate) fn introduce(
    store: &mut Store,
    role: StoreRole,
    device: DeviceId,
    created_ms: i64,
) -> Result<Identity> {
    let identity = Identity { role, device, former: Vec::new(), created_ms };
    let payload = Payload::Identity(identity.clone());
    store.append(payload.kind(), &payload.to_bytes())?;
    store.commit()?;
    Ok(identity)
}

fn holds(role: StoreRole) -> &'static str {
    match role {
        StoreRole::Authority => "a server's data",
        StoreRole::Replica => "a device's copy",
    }
}
