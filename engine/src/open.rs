//! Opening a store directory: lock, recover, and check that it plays the wanted part.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use lastword_core::id::DeviceId;
use lastword_store::apply::ApplyPayload;
use lastword_store::index::Indexes;
use lastword_store::payload::{Identity, Payload, StoreRole};
use lastword_store::{DirLock, OpenReport, Options, RealDisk, Store, read};

use crate::environment::{now_ms, random};
use crate::error::{Error, Result};
use crate::upkeep::{DEFAULT_HISTORY, UpkeepSettings};

/// How a store is opened.
pub(crate) struct OpenOptions {
    role: StoreRole,
    store: Options,
    indexes: Indexes,
    history: Duration,
}

impl OpenOptions {
    pub(crate) fn authority() -> Self {
        let store = Options {
            segment_size: 64 << 20,
            zero_step: 4 << 20,
            delta_cap_bytes: 256 << 20,
            replay_bytes: 1 << 30,
            cache_bytes: 256 << 20,
            entropy: random(),
            ..Options::default()
        };
        Self {
            role: StoreRole::Authority,
            store,
            indexes: Indexes::default(),
            history: DEFAULT_HISTORY,
        }
    }

    pub(crate) fn replica(indexes: &Indexes, history: Option<Duration>) -> Self {
        let store = Options { entropy: random(), ..Options::default() };
        Self {
            role: StoreRole::Replica,
            store,
            indexes: indexes.clone(),
            history: history.unwrap_or(DEFAULT_HISTORY),
        }
    }
}

/// What is known of an open directory; the store holds its lock.
pub(crate) struct OpenedStore {
    pub(crate) dir: PathBuf,
    pub(crate) identity: Identity,
    pub(crate) report: OpenReport,
    pub(crate) upkeep: UpkeepSettings,
}

/// Locks, recovers and identifies the store in `dir`, creating it if there is none.
pub(crate) fn open(dir: &Path, options: &OpenOptions) -> Result<(OpenedStore, Store)> {
    let lock = DirLock::acquire(dir)?;
    let disk = Arc::new(RealDisk::open(lock, options.store.zero_step)?);
    let apply = Arc::new(ApplyPayload::new(options.indexes.clone()));
    let (mut store, report) = Store::open(disk, options.store.clone(), apply)?;
    let known = read::identity(store.newest())?;
    let identity = match known {
        Some(identity) => identity,
        None => introduce(&mut store, options.role)?,
    };
    if identity.role != options.role {
        return Err(Error::OtherRole {
            dir: dir.to_path_buf(),
            found: holds(identity.role),
            wanted: holds(options.role),
        });
    }
    let upkeep =
        UpkeepSettings { delta_cap_bytes: options.store.delta_cap_bytes, history: options.history };
    Ok((OpenedStore { dir: dir.to_path_buf(), identity, report, upkeep }, store))
}

fn introduce(store: &mut Store, role: StoreRole) -> Result<Identity> {
    let device = match role {
        StoreRole::Authority => DeviceId::AUTHORITY,
        StoreRole::Replica => DeviceId(random()),
    };
    let identity = Identity { role, device, former: Vec::new(), created_ms: now_ms() };
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
