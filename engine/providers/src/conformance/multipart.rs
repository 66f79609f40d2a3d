//! Points about files that go up in parts.

use super::trial::{Failure, File, Trial, ensure};
use crate::limits::PART_BYTES;
use crate::provider::{Completed, ProviderError};
use crate::upload::MultipartId;

/// Two parts, the second a short one.
pub(super) fn large(trial: &Trial<'_>) -> Result<File, Failure> {
    trial.file(1, usize::try_from(PART_BYTES)? + 1000)
}

fn complete(trial: &Trial<'_>, file: &File, id: &MultipartId) -> Result<Completed, ProviderError> {
    trial.provider.complete_multipart(&file.upload, id, trial.now_ms())
}

/// Sends all parts and completes.
pub(super) fn store_in_parts(trial: &Trial<'_>, file: &File) -> Result<MultipartId, Failure> {
    let id = trial.begin(file)?;
    for number in 1..=file.upload.parts() {
        trial.send_part(file, &id, number)?;
    }
    complete(trial, file, &id)?;
    Ok(id)
}

/// After the cut only the id is known, as after a restart.
pub(super) fn resumes(trial: &Trial<'_>) -> Result<(), Failure> {
    let file = large(trial)?;
    let id = trial.begin(&file)?;
    trial.send_part(&file, &id, 2)?;
    trial.absent("before the completion", &file)?;

    let id = MultipartId::new(id.as_str())?;
    let stored = trial.provider.stored_parts(&file.upload, &id, trial.now_ms())?;
    let stored: Vec<_> = stored.iter().map(|part| (part.number, part.size_bytes)).collect();
    ensure(stored == [(2, 1000)], || format!("part 2 was sent, the store has {stored:?}"))?;

    trial.send_part(&file, &id, 1)?;
    let completed = complete(trial, &file, &id)?;
    ensure(completed == Completed::Stored, || format!("completed as {completed:?}"))?;
    trial.comes_back(&file)
}

pub(super) fn incomplete(trial: &Trial<'_>) -> Result<(), Failure> {
    let file = large(trial)?;
    let id = trial.begin(&file)?;
    trial.send_part(&file, &id, 1)?;
    let found = complete(trial, &file, &id);
    let refused = matches!(found, Err(ProviderError::Incomplete { part: 2, .. }));
    ensure(refused, || format!("completed without part 2: {found:?}"))?;
    trial.absent("an upload without part 2", &file)?;
    trial.send_part(&file, &id, 2)?;
    complete(trial, &file, &id)?;
    Ok(())
}

pub(super) fn second(trial: &Trial<'_>) -> Result<(), Failure> {
    let file = large(trial)?;
    trial.store(&file)?;
    let id = trial.begin(&file)?;
    for number in 1..=file.upload.parts() {
        trial.send_part(&file, &id, number)?;
    }
    let found = complete(trial, &file, &id)?;
    ensure(found == Completed::AlreadyThere, || format!("completed as {found:?}"))?;
    match trial.provider.stored_parts(&file.upload, &id, trial.now_ms()) {
        Err(ProviderError::NoSuchUpload { .. }) => {}
        Ok(parts) if parts.is_empty() => {}
        other => return Err(Failure(format!("its parts afterwards: {other:?}"))),
    }
    trial.comes_back(&file)
}

pub(super) fn wrong_part(trial: &Trial<'_>) -> Result<(), Failure> {
    let file = large(trial)?;
    let id = trial.begin(&file)?;
    let (part, mut bytes) = file.part(2)?;
    bytes[500] ^= 1;
    let url = trial.provider.presign_part(&file.upload, &id, part, trial.grant())?;
    trial.refused("a part with other bytes", url.request(bytes))
}

pub(super) fn abort_leaves_nothing(trial: &Trial<'_>) -> Result<(), Failure> {
    let file = large(trial)?;
    let id = trial.begin(&file)?;
    trial.send_part(&file, &id, 1)?;
    trial.provider.abort_multipart(file.key(), &id, trial.now_ms())?;
    trial.absent("after an abort", &file)?;
    let (part, bytes) = file.part(2)?;
    let url = trial.provider.presign_part(&file.upload, &id, part, trial.grant())?;
    trial.refused("a part after an abort", url.request(bytes))?;
    let found = complete(trial, &file, &id);
    ensure(found.is_err(), || format!("completed after an abort: {found:?}"))?;
    trial.absent("a completion after an abort", &file)
}

pub(super) fn abort_twice(trial: &Trial<'_>) -> Result<(), Failure> {
    let file = large(trial)?;
    let id = trial.begin(&file)?;
    trial.provider.abort_multipart(file.key(), &id, trial.now_ms())?;
    Ok(trial.provider.abort_multipart(file.key(), &id, trial.now_ms())?)
}
