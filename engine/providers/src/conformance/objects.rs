//! Points about objects that are there.

use std::collections::BTreeSet;

use super::multipart::{large, store_in_parts};
use super::trial::{Failure, MIME, Trial, ensure};
use crate::commit::{CommitError, verify, verify_bytes};
use crate::http::Request;
use crate::key::Prefix;
use crate::provider::Page;
use crate::upload::{Disposition, Download, Upload};

/// More pages than a list of this suite can have.
const MAX_PAGES: usize = 20;

pub(super) fn delete_twice(trial: &Trial<'_>) -> Result<(), Failure> {
    let file = trial.stored(1, 1000)?;
    trial.provider.delete(file.key(), trial.now_ms())?;
    Ok(trial.provider.delete(file.key(), trial.now_ms())?)
}

/// A completion whose answer was lost is repeated; the file may have been deleted between.
pub(super) fn delete_is_final(trial: &Trial<'_>) -> Result<(), Failure> {
    let file = large(trial)?;
    let id = store_in_parts(trial, &file)?;
    trial.provider.delete(file.key(), trial.now_ms())?;
    trial.absent("after its deletion", &file)?;
    let found = trial.provider.complete_multipart(&file.upload, &id, trial.now_ms());
    ensure(found.is_err(), || format!("a completion after the deletion: {found:?}"))?;
    trial.absent("a completion after the deletion", &file)
}

/// The name of the second workspace begins with the whole name of the first.
pub(super) fn list_is_exact(trial: &Trial<'_>) -> Result<(), Failure> {
    let (workspace, longer) = (trial.workspace("")?, trial.workspace("a")?);
    let prefix = Prefix::workspace(&workspace)?;
    let mut expected = BTreeSet::new();
    for seed in 1..=3 {
        let file = trial.stored(seed, 100 + usize::from(seed))?;
        expected.insert((file.key().clone(), file.upload.size_bytes()));
    }
    trial.store(&trial.file_in(&longer, 4, 100)?)?;
    for gone in [None, expected.first().cloned()] {
        if let Some(gone) = gone {
            trial.provider.delete(&gone.0, trial.now_ms())?;
            expected.remove(&gone);
        }
        let found = list(trial, &prefix, 2)?;
        let objects = found.objects.len();
        let keys: BTreeSet<_> = found.objects.into_iter().map(|o| (o.key, o.size_bytes)).collect();
        ensure(keys.len() == objects, || "an object is listed twice".to_owned())?;
        ensure(keys == expected, || format!("listed {keys:?}, there are {expected:?}"))?;
        ensure(found.strays.is_empty(), || format!("strays: {:?}", found.strays))?;
    }
    Ok(())
}

/// All pages as one.
fn list(trial: &Trial<'_>, prefix: &Prefix, max_objects: usize) -> Result<Page, Failure> {
    let mut all = Page::default();
    for _ in 0..MAX_PAGES {
        let after = all.next.take();
        let now_ms = trial.now_ms();
        let page = trial.provider.list(prefix, after.as_deref(), max_objects, now_ms)?;
        let len = page.objects.len();
        ensure(len <= max_objects, || format!("a page of {len}, asked for {max_objects}"))?;
        all.objects.extend(page.objects);
        all.strays.extend(page.strays);
        if page.next.is_none() {
            return Ok(all);
        }
        all.next = page.next;
    }
    Err(Failure(format!("a list of more than {MAX_PAGES} pages")))
}

pub(super) fn range(trial: &Trial<'_>) -> Result<(), Failure> {
    let file = trial.stored(1, 1000)?;
    for (range, first, end) in [("bytes=10-19", 10, 20), ("bytes=990-", 990, 1000)] {
        let mut request: Request = trial.presign_download(&file)?.request(Vec::new());
        request.headers.push(("range".to_owned(), range.to_owned()));
        let reply = trial.done("a range", request)?;
        let status = reply.status;
        ensure(status == 206, || format!("{range} was answered {status}, not 206"))?;
        let says = reply.header("content-range").map(str::to_owned);
        let expected = format!("bytes {first}-{}/1000", end - 1);
        ensure(says.as_ref() == Some(&expected), || format!("{range} came as {says:?}"))?;
        let bytes = reply.bytes(1000)?;
        ensure(bytes == file.bytes[first..end], || format!("{range}: other bytes"))?;
    }
    Ok(())
}

pub(super) fn head(trial: &Trial<'_>) -> Result<(), Failure> {
    let file = trial.file(1, 1000)?;
    trial.absent("before the upload", &file)?;
    trial.store(&file)?;
    let head = trial.provider.head(file.key(), trial.now_ms())?;
    let head = head.ok_or_else(|| Failure("nothing after the upload".to_owned()))?;
    ensure(head.size_bytes == 1000, || format!("{} bytes, not 1000", head.size_bytes))?;
    let sum = head.sha256.is_none_or(|sum| sum == *file.key().sha256());
    ensure(sum, || "another SHA-256 than that of the bytes".to_owned())
}

pub(super) fn commit(trial: &Trial<'_>) -> Result<(), Failure> {
    let (provider, file) = (trial.provider, trial.file(1, 1000)?);
    let found = verify(provider, &file.upload, trial.now_ms());
    let missing = matches!(found, Err(CommitError::Missing { .. }));
    ensure(missing, || format!("before the upload: {found:?}"))?;
    trial.store(&file)?;
    verify(provider, &file.upload, trial.now_ms())?;
    verify_bytes(provider, &file.upload, trial.now_ms())?;
    for size in [999, 1001] {
        let other = Upload::new(file.key().clone(), size, MIME)?;
        for found in [
            verify(provider, &other, trial.now_ms()),
            verify_bytes(provider, &other, trial.now_ms()),
        ] {
            let seen = matches!(found, Err(CommitError::Size { .. }));
            ensure(seen, || format!("1000 bytes taken for {size}: {found:?}"))?;
        }
    }
    Ok(())
}

pub(super) fn named(trial: &Trial<'_>) -> Result<(), Failure> {
    let file = trial.stored(1, 1000)?;
    let file_name = Some("r\u{e4}tsel 1.png".to_owned());
    let download = Download { disposition: Disposition::Inline, file_name };
    let url = trial.provider.presign_download(file.key(), &download, trial.grant())?;
    let reply = trial.done("a download", url.request(Vec::new()))?;
    for (name, expected) in [("content-disposition", &*download.header()), ("content-type", MIME)] {
        let found = reply.header(name).map(str::to_owned);
        ensure(found.as_deref() == Some(expected), || format!("{name} came as {found:?}"))?;
    }
    Ok(())
}
