//! Where a table lives, here or at the server too, holds for good.
//!
//! A local table takes no rows of a server, so one that became synced would lack what it had passed
//! over, and rows of both kinds under one name could not be told apart. The declaration is in the
//! log; whatever opens the store later obeys it, also without declaring anything.

use std::collections::BTreeSet;

use lastword_core::id::TableName;
use lastword_store::payload::{LocalTables, MAX_LOCAL_TABLES, Payload};
use lastword_store::{Store, read};

use crate::error::{Error, Result};
use crate::schema::{Declared, locality};

/// Compares what an app declares with what the store has, adds to each what only the other has, and
/// makes that durable. Errors: [`crate::Error::Declaration`] names a table that lives elsewhere.
pub(crate) fn settle(store: &mut Store, declared: &mut Declared) -> Result<()> {
    let kept: BTreeSet<TableName> = read::local_tables(store.newest())?.into_iter().collect();
    let new = declared.local_tables().filter(|table| !kept.contains(*table));
    let tables: Vec<TableName> = new.cloned().collect();
    let (all, limit) = (kept.len() + tables.len(), MAX_LOCAL_TABLES);
    if let Some(table) = tables.first().filter(|_| all > limit) {
        let reason = format!("this store would have {all} local tables, the limit is {limit}");
        return Err(Error::Declaration { name: table.as_str().into(), reason });
    }
    for table in kept {
        declared.keep_local(table)?;
    }
    for table in &tables {
        if read::is_synced(store.newest(), table)? {
            return Err(locality(table, "synced", "local"));
        }
    }
    if !tables.is_empty() {
        let payload = Payload::LocalTables(LocalTables { tables });
        // A full disk must not keep an app from opening its data.
        store.append_urgent(payload.kind(), &payload.to_bytes())?;
        store.commit()?;
    }
    Ok(())
}
