//! Points about what a URL is good for.

use super::trial::{Failure, File, Trial, ensure};
use crate::http::{Method, Request};
use crate::provider::Presigned;

pub(super) fn url_ends(trial: &Trial<'_>) -> Result<(), Failure> {
    let (file, grant) = (trial.file(1, 10)?, trial.grant());
    let download = trial.provider.presign_download(file.key(), &Default::default(), grant)?;
    for url in [trial.provider.presign_upload(&file.upload, grant)?, download] {
        let (ends, granted) = (url.expires_at_ms, grant.expires_at_ms());
        let fits = ends > grant.now_ms && ends <= granted;
        ensure(fits, || format!("{} ends at {ends}, granted was {granted}", url.method))?;
    }
    Ok(())
}

pub(super) fn expired_upload(trial: &Trial<'_>) -> Result<(), Failure> {
    let file = trial.file(1, 1000)?;
    let url = trial.provider.presign_upload(&file.upload, trial.short_grant()?)?;
    trial.wait_past(&url);
    trial.refused("an upload after the end", url.request(file.bytes.clone()))?;
    trial.absent("an upload after the end", &file)
}

pub(super) fn expired_download(trial: &Trial<'_>) -> Result<(), Failure> {
    let file = trial.stored(1, 1000)?;
    let grant = trial.short_grant()?;
    let url = trial.provider.presign_download(file.key(), &Default::default(), grant)?;
    trial.wait_past(&url);
    trial.refused("a download after the end", url.request(Vec::new()))
}

/// Each parameter in turn has one character in its middle changed, and one is added.
pub(super) fn tampered(trial: &Trial<'_>) -> Result<(), Failure> {
    let file = trial.stored(1, 1000)?;
    let other = trial.file(2, 1000)?;
    let download = (trial.presign_download(&file)?, Vec::new());
    let upload = (trial.presign_upload(&other)?, other.bytes.clone());
    for (url, body) in [download, upload] {
        let Some((address, query)) = url.url.split_once('?') else {
            return Err(Failure("the URL has no parameters, so nothing is signed".to_owned()));
        };
        let pairs: Vec<&str> = query.split('&').collect();
        for (i, pair) in pairs.iter().enumerate() {
            let Some(changed) = change(pair) else { continue };
            let mut pairs = pairs.clone();
            pairs[i] = &changed;
            let mut request = url.request(body.clone());
            request.url = format!("{address}?{}", pairs.join("&"));
            trial.refused(&format!("{} with {changed}", url.method), request)?;
        }
        let mut request = url.request(body);
        request.url.push_str("&more=1");
        trial.refused(&format!("{} with one parameter more", url.method), request)?;
    }
    trial.absent("an upload with changed parameters", &other)
}

/// `name=value` with a letter or digit near the middle of the value changed to another.
fn change(pair: &str) -> Option<String> {
    let start = pair.find('=')? + 1;
    let middle = start + (pair.len() - start) / 2;
    let at = (middle..pair.len()).chain(start..middle).find(|i| {
        let escaped = pair.as_bytes()[i.saturating_sub(2)..*i].contains(&b'%');
        pair.as_bytes()[*i].is_ascii_alphanumeric() && !escaped
    })?;
    let other = if &pair[at..=at] == "1" { "2" } else { "1" };
    Some(format!("{}{other}{}", &pair[..at], &pair[at + 1..]))
}

pub(super) fn unsigned(trial: &Trial<'_>) -> Result<(), Failure> {
    let file = trial.stored(1, 1000)?;
    let other = trial.file(2, 1000)?;
    let download = (trial.presign_download(&file)?, Vec::new());
    let upload = (trial.presign_upload(&other)?, other.bytes.clone());
    for (url, body) in [download, upload] {
        let mut request = url.request(body);
        request.url = url.url.split('?').next().unwrap_or_default().to_owned();
        trial.refused(&format!("{} without a signature", url.method), request)?;
    }
    trial.absent("an upload without a signature", &other)
}

pub(super) fn other_object(trial: &Trial<'_>) -> Result<(), Failure> {
    let (ours, theirs) = (trial.stored(1, 1000)?, trial.stored(2, 1000)?);
    let (free, target) = (trial.file(3, 1000)?, trial.file(4, 1000)?);
    aimed_elsewhere(trial, (&ours, &theirs), (&free, &target))
}

pub(super) fn other_workspace(trial: &Trial<'_>) -> Result<(), Failure> {
    let elsewhere = trial.workspace("-b")?;
    let (ours, theirs) = (trial.stored(1, 1000)?, trial.file_in(&elsewhere, 1, 1000)?);
    trial.store(&theirs)?;
    let (free, target) = (trial.file(3, 1000)?, trial.file_in(&elsewhere, 3, 1000)?);
    aimed_elsewhere(trial, (&ours, &theirs), (&free, &target))
}

/// URLs of the first of each pair, with the key of the second: one that is there, and one to make.
fn aimed_elsewhere(
    trial: &Trial<'_>,
    (ours, theirs): (&File, &File),
    (free, target): (&File, &File),
) -> Result<(), Failure> {
    let download = trial.presign_download(ours)?;
    let request = aim(&download, Vec::new(), ours, theirs)?;
    trial.refused("a download with another key", request)?;
    let upload = trial.presign_upload(free)?;
    let request = aim(&upload, free.bytes.clone(), free, target)?;
    trial.refused("an upload with another key", request)?;
    trial.absent("an upload with another key", target)
}

fn aim(url: &Presigned, body: Vec<u8>, from: &File, to: &File) -> Result<Request, Failure> {
    let mut request = url.request(body);
    request.url = url.url.replace(from.key().as_str(), to.key().as_str());
    ensure(request.url != url.url, || "the key does not stand in the URL".to_owned())?;
    Ok(request)
}

pub(super) fn changed_method(trial: &Trial<'_>) -> Result<(), Failure> {
    let (file, free) = (trial.stored(1, 1000)?, trial.file(2, 1000)?);
    let download = trial.presign_download(&file)?;
    let upload = trial.presign_upload(&free)?;
    let again = trial.presign_upload(&file)?;
    let cases = [
        (&download, Method::Delete, Vec::new()),
        (&download, Method::Put, b"other bytes".to_vec()),
        (&again, Method::Delete, Vec::new()),
        (&again, Method::Get, Vec::new()),
        (&upload, Method::Post, free.bytes.clone()),
    ];
    for (url, method, body) in cases {
        let mut request = url.request(body);
        request.method = method;
        trial.refused(&format!("{method} with a URL for {}", url.method), request)?;
    }
    trial.comes_back(&file)?;
    trial.absent("another method", &free)
}
