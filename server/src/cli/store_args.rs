//! Flags that say where a server keeps files.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use lastword_providers::capability::{Capabilities, Capability};

use super::failure::Failure;
use crate::file_stores::{FilesError, FilesOptions, Keys, S3Settings, capability, credentials};

/// Where files are kept.
#[derive(Debug, Args)]
#[command(next_help_heading = "Where files are kept")]
pub(super) struct StoreArgs {
    /// What keeps new files: embedded, the server itself, or s3, a store that speaks S3
    #[arg(long, value_name = "ID", default_value = "embedded")]
    files_provider: String,
    /// Use the store although it lacks this capability; may be repeated
    #[arg(long, value_name = "CAPABILITY", value_parser = capability)]
    accept_missing: Vec<Capability>,
    /// Address of the store, like http://127.0.0.1:9000
    #[arg(long, value_name = "URL", env = "LASTWORD_S3_ENDPOINT")]
    s3_endpoint: Option<String>,
    /// Its bucket
    #[arg(long, value_name = "NAME", env = "LASTWORD_S3_BUCKET")]
    s3_bucket: Option<String>,
    /// The region that requests are signed for
    #[arg(long, value_name = "NAME", env = "LASTWORD_S3_REGION", default_value = "us-east-1")]
    s3_region: String,
    /// Where the bucket stands in a URL
    #[arg(long, value_name = "STYLE", env = "LASTWORD_S3_STYLE", default_value = "path")]
    s3_style: S3Style,
    /// What this store does not do although others do; may be repeated
    #[arg(long, value_name = "CAPABILITY", value_parser = capability)]
    s3_lacks: Vec<Capability>,
    /// File with access_key = .. and secret_key = .., which only its owner may read; else they are
    /// taken from LASTWORD_S3_ACCESS_KEY and LASTWORD_S3_SECRET_KEY
    #[arg(long, value_name = "FILE")]
    s3_keys: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum S3Style {
    /// http://host/bucket/key
    Path,
    /// http://bucket.host/key
    VirtualHost,
}

impl StoreArgs {
    /// What they say. Keys are taken from the environment here: on a command line anybody on the
    /// machine would see them.
    pub(super) fn options(&self) -> Result<FilesOptions, Failure> {
        let (provider, accepted) =
            (self.files_provider.clone(), Capabilities::of(&self.accept_missing));
        let (Some(endpoint), Some(bucket)) = (&self.s3_endpoint, &self.s3_bucket) else {
            return Ok(FilesOptions { provider, accepted, s3: None });
        };
        let keys = match &self.s3_keys {
            Some(path) => Keys::File(path.clone()),
            None => {
                let key = |name: &str| std::env::var(format!("LASTWORD_S3_{name}")).ok();
                let (Some(access), Some(secret)) = (key("ACCESS_KEY"), key("SECRET_KEY")) else {
                    return Err(Failure::usage(FilesError::NoKeys.to_string()));
                };
                Keys::Given(credentials(&access, &secret, key("SESSION_TOKEN").as_deref()))
            }
        };
        let s3 = Some(S3Settings {
            endpoint: endpoint.clone(),
            bucket: bucket.clone(),
            region: self.s3_region.clone(),
            virtual_host: matches!(self.s3_style, S3Style::VirtualHost),
            lacks: Capabilities::of(&self.s3_lacks),
            keys,
        });
        Ok(FilesOptions { provider, accepted, s3 })
    }
}
