//! Files of an authority's party: the service of a server, to which the store is lent for as long
//! as it answers a message.

use std::collections::BTreeMap;
use std::ops::{Deref, DerefMut};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use lastword_core::protocol::FileMessage;
use lastword_store::payload::Identity;
use lastword_store::{OpenReport, Store};

use super::make_room;
use crate::authority::Authority;
use crate::error::{Error, Result};
use crate::live::lock;
use crate::open::OpenedStore;
use crate::queue::Job;
use crate::transfer::{FileService, ServiceError};
use crate::upkeep::{Keep, UpkeepSettings};
use crate::writer::{InPlace, Writer};

/// A store that can be lent.
pub(super) struct Own(Option<Store>);

impl Own {
    pub(super) fn new(store: Store) -> Self {
        Self(Some(store))
    }

    /// It is the caller's from here on.
    pub(super) fn give(mut self) -> Option<Store> {
        self.0.take()
    }

    fn lend<T>(&mut self, to: &Lent, work: impl FnOnce() -> T) -> T {
        *lock(&to.0) = self.0.take();
        let done = work();
        self.0 = lock(&to.0).take();
        done
    }
}

impl Deref for Own {
    type Target = Store;

    fn deref(&self) -> &Store {
        self.0.as_ref().expect("invariant: it is lent only while a message about files is answered")
    }
}

impl DerefMut for Own {
    fn deref_mut(&mut self) -> &mut Store {
        self.0.as_mut().expect("invariant: it is lent only while a message about files is answered")
    }
}

/// Where the store is while it is lent.
struct Lent(Mutex<Option<Store>>);

impl InPlace for Lent {
    fn run(&self, job: Job) -> Result<()> {
        let (answer, committed) = {
            let mut store = lock(&self.0);
            let store = store.as_mut().ok_or(Error::Closed)?;
            let answer = job(store);
            (answer, store.commit().and_then(|_| make_room(store)))
        };
        answer(committed);
        Ok(())
    }

    /// Its owner closes it.
    fn close(&self) -> Result<()> {
        Ok(())
    }
}

/// Everybody who is served files.
pub(super) struct PartyFiles {
    lent: Arc<Lent>,
    authority: Authority,
    /// By the number of the connection.
    services: BTreeMap<u64, FileService>,
}

impl PartyFiles {
    pub(super) fn new(store: &mut Store, identity: Identity, report: OpenReport) -> Self {
        let lent = Arc::new(Lent(Mutex::new(None)));
        let upkeep = UpkeepSettings { delta_cap_bytes: 0, keep: Keep::default() };
        let (dir, blobs) = (PathBuf::from("authority"), Arc::downgrade(store.blobs()));
        let opened = OpenedStore { dir, identity, report, upkeep, blobs };
        let writer = Writer::in_place(Arc::clone(&lent) as Arc<dyn InPlace>, store.view_handle());
        let authority = Authority::over(opened, writer, Arc::default());
        Self { lent, authority, services: BTreeMap::new() }
    }

    /// The same settings and members, for files only.
    pub(super) fn authority(&self) -> &Authority {
        &self.authority
    }

    pub(super) fn take(
        &mut self,
        store: &mut Own,
        (connection, user): (u64, &str),
        (message, now_ms): (FileMessage, i64),
        reply: &mut dyn FnMut(FileMessage) -> bool,
    ) -> std::result::Result<(), ServiceError> {
        let new = || FileService::new(self.authority.clone(), user.to_owned());
        let service = self.services.entry(connection).or_insert_with(new);
        store.lend(&self.lent, || service.take_at(now_ms, message, reply))
    }

    pub(super) fn end(&mut self, store: &mut Own, connection: u64) {
        let service = self.services.remove(&connection);
        store.lend(&self.lent, || drop(service));
    }
}
