//! Points about files that go up whole.

use super::trial::{Failure, Trial, ensure};

pub(super) fn bytes_come_back(trial: &Trial<'_>) -> Result<(), Failure> {
    for (seed, len) in [(1, 0), (2, 1), (3, 70_000)] {
        let file = trial.stored(seed, len)?;
        trial.comes_back(&file)?;
    }
    Ok(())
}

pub(super) fn wrong_length(trial: &Trial<'_>) -> Result<(), Failure> {
    let file = trial.file(1, 1000)?;
    let longer = [&file.bytes[..], b"!"].concat();
    let shorter = file.bytes[..999].to_vec();
    for (what, body) in [("a longer body", longer), ("a shorter body", shorter)] {
        trial.refused(what, trial.presign_upload(&file)?.request(body))?;
        trial.absent(what, &file)?;
    }
    trial.store(&file)
}

pub(super) fn wrong_checksum(trial: &Trial<'_>) -> Result<(), Failure> {
    let file = trial.file(1, 1000)?;
    let mut body = file.bytes.clone();
    body[500] ^= 1;
    trial.refused("another body", trial.presign_upload(&file)?.request(body))?;
    trial.absent("another body", &file)?;
    trial.store(&file)
}

pub(super) fn wrong_type(trial: &Trial<'_>) -> Result<(), Failure> {
    let file = trial.file(1, 1000)?;
    let mut request = trial.presign_upload(&file)?.request(file.bytes.clone());
    let header = request.headers.iter_mut().find(|(name, _)| name == "content-type");
    let (_, value) = header.ok_or_else(|| Failure("no type is signed".to_owned()))?;
    "text/html".clone_into(value);
    trial.refused("another type", request)?;
    trial.absent("another type", &file)
}

/// 412 or 409 tells a device that the file is there, which is what it wanted.
pub(super) fn second_upload(trial: &Trial<'_>) -> Result<(), Failure> {
    let file = trial.file(1, 1000)?;
    let first = trial.presign_upload(&file)?;
    trial.done("an upload", first.request(file.bytes.clone()))?;
    for url in [first, trial.presign_upload(&file)?] {
        let status = trial.send(url.request(file.bytes.clone()))?.status;
        let said = [409, 412].contains(&status);
        ensure(said, || format!("a second upload was answered {status}, not 412 or 409"))?;
    }
    trial.comes_back(&file)
}
