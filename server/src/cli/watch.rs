//! `watch`: records as they change, one JSON line each.

use super::args::Watch;
use super::failure::Failure;
use super::session::Session;

pub(super) fn watch(args: &Watch) -> Result<(), Failure> {
    let session = Session::open(&args.store, &args.link)?;
    session.close()
}
