//! The real `distribution` registry on a loopback port: open, with a login, with tokens, or with TLS.
//!
//! It is built once from the Go module in `tests/cluster/tools/registry`, into the cache. Each test
//! has its own registry with its own storage; both are gone when it is dropped.

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, SanType};
use tempfile::TempDir;

mod build;
mod token;

pub use build::{binary, needs_go};

pub use token::identity_of;
use token::{NAME, TokenService};

/// Longest wait for a started registry.
const START: Duration = Duration::from_secs(30);
/// bcrypt's lowest cost: the secret protects nothing.
const COST: u32 = 4;

/// A running registry, or one that was stopped and keeps its port and its storage.
#[derive(Debug)]
pub struct Registry {
    folder: TempDir,
    child: Option<Child>,
    address: String,
    port: u16,
    tls: bool,
    tokens: Option<TokenService>,
}

impl Registry {
    /// Anybody may push and pull, over plain http.
    pub fn open() -> Result<Self> {
        Self::new(None, false)
    }

    /// As [`Self::open`], at an address that others reach it by: a node's, where pods do.
    pub fn open_at(address: &str, port: u16) -> Result<Self> {
        let mut registry = Self::stopped()?;
        (registry.address, registry.port) = (address.to_owned(), port);
        registry.start()?;
        Ok(registry)
    }

    /// Only this user may push and pull, over plain http.
    pub fn with_login(user: &str, password: &str) -> Result<Self> {
        Self::new(Some((user, password)), false)
    }

    /// Anybody may pull and only this user may push, by tokens of a service beside the registry, as
    /// public registries do it.
    pub fn with_tokens(user: &str, password: &str) -> Result<Self> {
        let mut registry = Self::stopped()?;
        let certificate = registry.folder.path().join("token.pem");
        registry.tokens = Some(TokenService::start(user, password, &certificate)?);
        registry.start()?;
        Ok(registry)
    }

    /// Anybody may push and pull, over https with a certificate of a private authority.
    pub fn with_tls() -> Result<Self> {
        Self::new(None, true)
    }

    fn new(login: Option<(&str, &str)>, tls: bool) -> Result<Self> {
        let mut registry = Self::stopped()?;
        registry.tls = tls;
        let folder = registry.folder.path();
        if let Some((user, password)) = login {
            let hash = bcrypt::hash(password, COST).context("cannot hash the password")?;
            fs::write(folder.join("htpasswd"), format!("{user}:{hash}\n"))?;
        }
        if tls {
            certificates(folder)?;
        }
        registry.start()?;
        Ok(registry)
    }

    fn stopped() -> Result<Self> {
        let folder = tempfile::tempdir().context("cannot make a folder for a registry")?;
        let address = Ipv4Addr::LOCALHOST.to_string();
        Ok(Self { folder, child: None, address, port: 0, tls: false, tokens: None })
    }

    /// `ADDRESS:PORT`, which begins the references of its images.
    pub fn host(&self) -> String {
        format!("{}:{}", self.address, self.port)
    }

    /// The authority's certificate in PEM, of a registry with TLS.
    pub fn ca_file(&self) -> PathBuf {
        self.folder.path().join("ca.pem")
    }

    /// The folder that blobs and manifests are stored in.
    pub fn storage(&self) -> PathBuf {
        self.folder.path().join("storage")
    }

    /// The file of a stored blob. `digest` is `sha256:…`.
    pub fn blob(&self, digest: &str) -> PathBuf {
        let hex = digest.trim_start_matches("sha256:");
        let blobs = self.storage().join("docker/registry/v2/blobs/sha256");
        blobs.join(&hex[..2]).join(hex).join("data")
    }

    /// Kills it in the midst of what it does.
    pub fn stop(&mut self) -> Result<()> {
        if let Some(mut child) = self.child.take() {
            child.kill().context("cannot stop the registry")?;
            child.wait().context("cannot wait for the registry")?;
        }
        Ok(())
    }

    /// Starts it, at the same port as before.
    pub fn start(&mut self) -> Result<()> {
        ensure!(self.child.is_none(), "the registry runs already");
        let config = self.folder.path().join("config.yaml");
        fs::write(&config, self.config())?;
        let mut command = Command::new(binary()?);
        command.arg("serve").arg(&config).stdin(Stdio::null()).stdout(Stdio::null());
        let mut child = command.stderr(Stdio::piped()).spawn().context("cannot start it")?;
        let stderr = child.stderr.take().context("the registry has no stderr")?;
        // Kept from here on, so that it ends with this value whatever happens below.
        self.child = Some(child);
        let (told, hear) = mpsc::channel();
        std::thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                // Nobody listens any more once the registry is up; the pipe is still emptied.
                let _ = told.send(line);
            }
        });
        self.port = listening(&hear, &self.address)?;
        Ok(())
    }

    fn config(&self) -> String {
        let folder = self.folder.path().display();
        let tls = format!(
            "  tls: {{certificate: \"{folder}/server.pem\", key: \"{folder}/server.key\"}}\n"
        );
        let login = format!("auth:\n  htpasswd: {{realm: test, path: \"{folder}/htpasswd\"}}\n");
        let tokens = self.tokens.as_ref().map_or_else(String::new, |tokens| {
            format!(
                "auth:\n  token: {{realm: \"http://{}/token\", service: {NAME}, issuer: {NAME}, \
                 rootcertbundle: \"{folder}/token.pem\"}}\n",
                tokens.address
            )
        });
        let has_login = self.folder.path().join("htpasswd").exists();
        format!(
            "version: 0.1\n\
             log: {{level: info, formatter: text}}\n\
             storage:\n  filesystem: {{rootdirectory: \"{folder}/storage\"}}\n  \
             delete: {{enabled: true}}\n\
             http:\n  addr: \"{}\"\n  secret: the-same-after-a-restart\n{}{}{tokens}",
            self.host(),
            if self.tls { tls.as_str() } else { "" },
            if has_login { login.as_str() } else { "" },
        )
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        // A test that fails has more to tell than a registry that is gone already.
        let _ = self.stop();
    }
}

/// The port, from the line in which the registry says that it listens.
fn listening(lines: &mpsc::Receiver<String>, address: &str) -> Result<u16> {
    let wanted = format!("listening on {address}:");
    let mut heard = String::new();
    loop {
        let Ok(line) = lines.recv_timeout(START) else {
            bail!("the registry did not start; it said:\n{heard}");
        };
        if let Some((_, rest)) = line.split_once(&wanted) {
            let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
            return digits.parse().with_context(|| format!("there is no port in `{line}`"));
        }
        heard += &line;
        heard.push('\n');
    }
}

/// An authority of its own, and a certificate of it for 127.0.0.1 and localhost.
fn certificates(folder: &Path) -> Result<()> {
    let mut authority = CertificateParams::default();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(authority, KeyPair::generate()?)?;
    let mut server = CertificateParams::new(vec!["localhost".to_owned()])?;
    server.subject_alt_names.push(SanType::IpAddress(Ipv4Addr::LOCALHOST.into()));
    let key = KeyPair::generate()?;
    let certificate = server.signed_by(&key, &authority)?;
    fs::write(folder.join("ca.pem"), authority.pem())?;
    fs::write(folder.join("server.pem"), certificate.pem())?;
    fs::write(folder.join("server.key"), key.serialize_pem())?;
    Ok(())
}
