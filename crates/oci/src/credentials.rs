//! Credentials of a registry, from Docker's configuration: `auths`, `credHelpers`, `credsStore`.
//!
//! What is read here is never logged and never part of an error.

use std::env;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use docker_credential::{CredentialRetrievalError, DockerCredential};
use oci_distribution::secrets::RegistryAuth;
use thiserror::Error;

/// Longest wait for a credential helper: some open a browser.
const HELPER_TIMEOUT: Duration = Duration::from_mins(1);

/// Why the credentials that the user set up cannot be used.
#[derive(Debug, Error)]
pub enum CredentialError {
    /// Docker's configuration is there and cannot be read.
    #[error("cannot read {path}: {reason}")]
    Config { path: PathBuf, reason: String },
    /// The configuration holds a credential that makes no sense.
    #[error("the credential for {registry} in {path} is malformed")]
    Malformed { registry: String, path: PathBuf },
    /// The helper that the configuration names did not do its work.
    #[error("the credential helper that {path} names for {registry} failed: {reason}")]
    Helper { registry: String, path: PathBuf, reason: String },
}

/// What is sent to a registry, and where it was looked for.
#[derive(Clone, Debug)]
pub(crate) struct Credential {
    pub(crate) auth: RegistryAuth,
    /// What is exchanged for `auth` by the registry's token service.
    pub(crate) identity: Option<String>,
    /// Whether there is one of either kind.
    found: bool,
    /// Docker's `config.json`, whether or not it exists.
    pub(crate) config: PathBuf,
}

impl Credential {
    pub(crate) fn is_anonymous(&self) -> bool {
        !self.found
    }
}

/// Looks up the credential of a registry; none is not an error, as many registries need none.
pub(crate) async fn find(
    registry: &str,
    folder: Option<&Path>,
) -> Result<Credential, CredentialError> {
    let config = config_file(folder);
    let credential = |auth, identity: Option<String>, found| Credential {
        auth,
        identity,
        found,
        config: config.clone(),
    };
    let anonymous = credential(RegistryAuth::Anonymous, None, false);
    let bytes = match fs::read(&config) {
        Ok(bytes) => bytes,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(anonymous),
        Err(e) => return Err(CredentialError::Config { path: config, reason: e.to_string() }),
    };
    // A config of another kind of reader, such as a list, is told apart from one without entry.
    if let Err(e) = serde_json::from_slice::<serde_json::Map<String, serde_json::Value>>(&bytes) {
        let reason = format!("line {}: not a JSON object", e.line());
        return Err(CredentialError::Config { path: config, reason });
    }
    for name in names(registry) {
        let lookup = look_up(bytes.clone(), name);
        let found = tokio::time::timeout(HELPER_TIMEOUT, lookup).await.unwrap_or_else(|_| {
            Err(Lookup::Failed(format!("no answer in {} s", HELPER_TIMEOUT.as_secs())))
        });
        let (registry, path) = (registry.to_owned(), config.clone());
        match found {
            Ok(Found::Login(auth)) => return Ok(credential(auth, None, true)),
            Ok(Found::Identity(token)) => {
                return Ok(credential(RegistryAuth::Anonymous, Some(token), true));
            }
            Err(Lookup::None) => {}
            Err(Lookup::Malformed) => return Err(CredentialError::Malformed { registry, path }),
            Err(Lookup::Failed(reason)) => {
                return Err(CredentialError::Helper { registry, path, reason });
            }
        }
    }
    Ok(anonymous)
}

fn config_file(folder: Option<&Path>) -> PathBuf {
    let home = || env::home_dir().unwrap_or_default().join(".docker");
    let named = || env::var_os("DOCKER_CONFIG").filter(|v| !v.is_empty()).map(PathBuf::from);
    folder.map(Path::to_owned).or_else(named).unwrap_or_else(home).join("config.json")
}

/// Names under which Docker stores the credential of a registry.
fn names(registry: &str) -> Vec<String> {
    match registry {
        "docker.io" | "index.docker.io" | "registry-1.docker.io" => {
            vec!["https://index.docker.io/v1/".to_owned(), "docker.io".to_owned()]
        }
        other => vec![other.to_owned()],
    }
}

/// Why a look-up gave nothing that can be used.
enum Lookup {
    None,
    Malformed,
    Failed(String),
}

/// What a look-up gives.
enum Found {
    Login(RegistryAuth),
    Identity(String),
}

async fn look_up(config: Vec<u8>, name: String) -> Result<Found, Lookup> {
    // A helper is another program, and it may take its time.
    let asked = tokio::task::spawn_blocking(move || {
        docker_credential::get_credential_from_reader(config.as_slice(), &name)
    });
    match asked.await {
        Ok(Ok(DockerCredential::UsernamePassword(user, password))) => {
            Ok(Found::Login(RegistryAuth::Basic(user, password)))
        }
        Ok(Ok(DockerCredential::IdentityToken(token))) => Ok(Found::Identity(token)),
        Ok(Err(error)) => Err(lookup_fault(error)),
        Err(_) => Err(Lookup::Failed("it was interrupted".to_owned())),
    }
}

fn lookup_fault(error: CredentialRetrievalError) -> Lookup {
    use CredentialRetrievalError as E;
    match error {
        E::NoCredentialConfigured | E::ConfigNotFound => Lookup::None,
        // Helpers say this on stdout, with exit code 1, when they know nothing.
        E::HelperFailure { stdout, stderr, .. }
            if [&stdout, &stderr].iter().any(|t| t.contains("credentials not found")) =>
        {
            Lookup::None
        }
        // Their stdout may hold a secret, so that only the last line of stderr is shown.
        E::HelperFailure { helper, stderr, .. } => {
            let last = stderr.lines().rev().find(|l| !l.trim().is_empty()).unwrap_or("no reason");
            Lookup::Failed(format!("`{helper}` says: {}", last.trim()))
        }
        E::HelperCommunicationError => {
            Lookup::Failed("it is not on PATH or ended at once".to_owned())
        }
        E::MalformedHelperResponse => Lookup::Failed("its answer makes no sense".to_owned()),
        E::CredentialDecodingError | E::CredentialMismatchError | E::ConfigReadError => {
            Lookup::Malformed
        }
    }
}
