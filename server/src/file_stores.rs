//! Which store keeps files: chosen by its id when the server starts, with its settings.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use lastword::BlobHash;
use lastword::core::id::WorkspaceName;
use lastword_providers::capability::{Capabilities, Capability};
use lastword_providers::client::Client;
use lastword_providers::key::{ObjectKey, Prefix};
use lastword_providers::provider::{ObjectStorageProvider, ProviderError};
use lastword_providers::registry::{EMBEDDED, Registry, RegistryError};
use lastword_providers::s3::{AddressError, Credentials, S3Config, S3Provider, Style};

/// Id of the store that speaks S3.
pub const S3: &str = "s3";
/// Most bytes of a file of keys.
const MAX_KEYS_BYTES: u64 = 16 * 1024;

/// Where files are kept.
#[derive(Debug, Clone)]
pub struct FilesOptions {
    /// Id of what keeps new files.
    pub provider: String,
    /// What it need not be able to do.
    pub accepted: Capabilities,
    /// The store that speaks S3, if its settings are given.
    pub s3: Option<S3Settings>,
}

impl Default for FilesOptions {
    fn default() -> Self {
        Self { provider: EMBEDDED.into(), accepted: Capabilities::default(), s3: None }
    }
}

/// A store that speaks S3.
#[derive(Debug, Clone)]
pub struct S3Settings {
    /// Its address.
    pub endpoint: String,
    /// The bucket.
    pub bucket: String,
    /// The region that requests are signed for.
    pub region: String,
    /// The bucket stands in the host, not in the path.
    pub virtual_host: bool,
    /// What this store does not do although others do.
    pub lacks: Capabilities,
    /// Where the keys are.
    pub keys: Keys,
}

/// Where the keys of a store are.
#[derive(Debug, Clone)]
pub enum Keys {
    /// In a file that its owner alone may read.
    File(PathBuf),
    /// In the environment.
    Given(Credentials),
}

/// Why files cannot be kept as was asked for.
#[derive(Debug, thiserror::Error)]
pub enum FilesError {
    /// The store has no settings.
    #[error(
        "--files-provider s3 needs --s3-endpoint and --s3-bucket (or LASTWORD_S3_ENDPOINT and \
         LASTWORD_S3_BUCKET)"
    )]
    NoSettings,
    /// There is no such store, or it cannot do what is needed.
    #[error("{0}; --accept-missing NAME accepts a capability that is missing")]
    Incapable(RegistryError),
    /// There is no such store.
    #[error(transparent)]
    Registry(RegistryError),
    /// The settings are none of a store.
    #[error(transparent)]
    Address(#[from] AddressError),
    /// The store is at an address that is not spoken to.
    #[error(
        "{endpoint} is https://, which neither this server nor its devices speak to a store: put a \
         proxy that adds TLS before it and give its http:// address"
    )]
    NoTls {
        /// The address.
        endpoint: String,
    },
    /// There are no keys.
    #[error(
        "the store of files needs keys: LASTWORD_S3_ACCESS_KEY and LASTWORD_S3_SECRET_KEY in the \
         environment, or --s3-keys FILE"
    )]
    NoKeys,
    /// The file of keys cannot be used.
    #[error("{}: {reason}", path.display())]
    Keys {
        /// The file.
        path: PathBuf,
        /// What is wrong, never what is in it.
        reason: String,
    },
    /// The store cannot be used now.
    #[error("the store of files {provider:?} cannot be used: {reason}; {next}")]
    Away {
        /// Its id.
        provider: String,
        /// What happened.
        reason: String,
        /// What to do.
        next: &'static str,
    },
}

/// The stores that a server knows.
#[derive(Debug, Default)]
pub struct FileStores {
    /// What keeps new files, unless the server itself does.
    pub selected: Option<Arc<dyn ObjectStorageProvider>>,
    /// Stores that have files of before.
    pub others: Vec<Arc<dyn ObjectStorageProvider>>,
}

/// Makes the stores, selects one, and asks whether it can be reached.
///
/// # Errors
/// [`FilesError`], with what to do next.
pub fn open(options: &FilesOptions) -> Result<FileStores, FilesError> {
    let mut registry = Registry::default();
    let mut others: Vec<Arc<dyn ObjectStorageProvider>> = Vec::new();
    if let Some(settings) = &options.s3 {
        let provider: Arc<dyn ObjectStorageProvider> = Arc::new(s3(settings)?);
        registry.register(Arc::clone(&provider)).map_err(FilesError::Registry)?;
        others.push(provider);
    }
    if options.provider == EMBEDDED {
        return Ok(FileStores { selected: None, others });
    }
    if options.provider == S3 && options.s3.is_none() {
        return Err(FilesError::NoSettings);
    }
    let selected = registry.select(&options.provider, Capabilities::required(), options.accepted);
    let selected = selected.map_err(|error| match error {
        RegistryError::Incapable { .. } => FilesError::Incapable(error),
        error => FilesError::Registry(error),
    })?;
    others.retain(|other| other.id() != selected.id());
    reach(&*selected)?;
    Ok(FileStores { selected: Some(selected), others })
}

fn s3(settings: &S3Settings) -> Result<S3Provider, FilesError> {
    let endpoint = settings.endpoint.clone();
    if endpoint.starts_with("https://") {
        return Err(FilesError::NoTls { endpoint });
    }
    let credentials = match &settings.keys {
        Keys::Given(credentials) => credentials.clone(),
        Keys::File(path) => read_keys(path)?,
    };
    let config = S3Config {
        id: S3.into(),
        endpoint,
        region: settings.region.clone(),
        bucket: settings.bucket.clone(),
        style: if settings.virtual_host { Style::VirtualHost } else { Style::Path },
        credentials,
        capabilities: settings.lacks.lacking(Capabilities::all()),
    };
    Ok(S3Provider::new(config, Arc::new(Client::new()))?)
}

/// Asks a store for something small, so that a mistake in the settings is told at start.
fn reach(provider: &dyn ObjectStorageProvider) -> Result<(), FilesError> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let now_ms = u64::try_from(now.as_millis()).unwrap_or(0);
    let asked = if provider.capabilities().has(Capability::List) {
        provider.list(&Prefix::all(), None, 1, now_ms).map(drop)
    } else {
        let workspace = WorkspaceName::new("lastword").expect("invariant: the name is valid");
        let key = ObjectKey::new(&workspace, BlobHash::Sha256([0; 32]));
        let key = key.expect("invariant: such a workspace has objects");
        provider.head(&key, now_ms).map(drop)
    };
    asked.map_err(|error| {
        let next = match &error {
            ProviderError::Http { .. } => {
                "check that it runs and that --s3-endpoint is its address"
            }
            ProviderError::Refused { status: 401 | 403, .. } => {
                "check the keys, what they may do (list, read, write and delete), --s3-region, \
                 and the clock of this machine"
            }
            ProviderError::Refused { status: 404, .. } => {
                "make the bucket, or check --s3-bucket and --s3-style"
            }
            _ => "check its settings",
        };
        let (provider, reason) = (provider.id().to_owned(), error.to_string());
        FilesError::Away { provider, reason, next }
    })
}

/// Reads `access_key`, `secret_key` and perhaps `session_token`, a line each, name and value with
/// `=` between them.
fn read_keys(path: &Path) -> Result<Credentials, FilesError> {
    let wrong = |reason: String| FilesError::Keys { path: path.to_owned(), reason };
    let found = std::fs::metadata(path).map_err(|error| wrong(error.to_string()))?;
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        let mode = found.permissions().mode() & 0o777;
        if mode & 0o077 != 0 {
            return Err(wrong(format!("others may read these keys (mode {mode:o}): chmod 600 it")));
        }
    }
    if found.len() > MAX_KEYS_BYTES {
        return Err(wrong(format!("it has more than {MAX_KEYS_BYTES} bytes")));
    }
    let text = std::fs::read_to_string(path).map_err(|error| wrong(error.to_string()))?;
    let (mut access_key, mut secret_key, mut token) = (None, None, None);
    for (number, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let (name, value) = line.split_once('=').unwrap_or((line, ""));
        let place = match name.trim() {
            "access_key" => &mut access_key,
            "secret_key" => &mut secret_key,
            "session_token" => &mut token,
            _ => {
                let line = number + 1;
                let known = "access_key = .., secret_key = .. or session_token = ..";
                return Err(wrong(format!("line {line} is none of {known}")));
            }
        };
        *place = Some(value.trim().to_owned());
    }
    match (access_key, secret_key) {
        (Some(access_key), Some(secret_key)) => {
            Ok(credentials(&access_key, &secret_key, token.as_deref()))
        }
        _ => Err(wrong("it needs the lines access_key = .. and secret_key = ..".into())),
    }
}

/// Keys, lent ones with their token.
#[must_use]
pub fn credentials(access_key: &str, secret_key: &str, token: Option<&str>) -> Credentials {
    let credentials = Credentials::new(access_key, secret_key);
    match token {
        Some(token) => credentials.with_session_token(token),
        None => credentials,
    }
}

/// The capability of that name.
///
/// # Errors
/// Which there are, for people.
pub fn capability(name: &str) -> Result<Capability, String> {
    let known = Capability::ALL.into_iter().find(|known| known.name() == name);
    known.ok_or_else(|| {
        format!("there is no capability {name:?}; there are {}", Capabilities::all())
    })
}
