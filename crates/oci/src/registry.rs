//! A connection to one repository of a registry.
//!
//! Loopback registries are asked whether they speak https; all others must, unless the user says
//! otherwise. Credentials are looked up once, and sent to the registry alone.

use std::fs;
use std::path::Path;
use std::sync::Once;
use std::time::Duration;

use bytes::Bytes;
use oci_distribution::client::{
    Certificate, CertificateEncoding, ClientConfig, ClientProtocol, SizedStream,
};
use oci_distribution::errors::OciDistributionError;
use oci_distribution::secrets::RegistryAuth;
use oci_distribution::{Client, Reference, RegistryOperation};

use crate::credentials::{self, Credential};
use crate::digest::sha256;
use crate::manifest::{ACCEPTED, Document, Manifest};
use crate::options::Options;
use crate::platform;

mod delete;
mod error;
mod identity;

pub use error::RegistryError;
pub(crate) use error::{EXPIRED, WRONG_NAME};
use identity::Door;

/// Whether a connection will write.
pub(crate) use oci_distribution::RegistryOperation as Operation;

const USER_AGENT: &str = concat!("anneal/", env!("CARGO_PKG_VERSION"));

/// An open way to a repository, logged in as far as the registry wants it.
pub(crate) struct Connection {
    client: Client,
    reference: Reference,
    credential: Credential,
    scheme: &'static str,
    /// For what the other client has no call for.
    http: reqwest::Client,
}

impl Connection {
    /// Opens the way: scheme, certificates, credentials, and a token where the registry gives one.
    pub(crate) async fn open(
        reference: &Reference,
        operation: Operation,
        options: &Options,
    ) -> Result<Self, RegistryError> {
        install_tls_provider();
        let registry = reference.resolve_registry().to_owned();
        let authorities = authorities(options)?;
        let http = http_client(&registry, &authorities, options)?;
        let scheme = scheme(&registry, options).await?;
        let credential = credentials::find(reference.registry(), options.docker_config.as_deref());
        let mut credential = credential.await?;
        if let Some(identity) = credential.identity.take() {
            let door = Door { http: &http, scheme, reference, credential: &credential };
            let token = door.exchange(&identity, &operation).await?;
            credential.auth = token.map_or(RegistryAuth::Anonymous, RegistryAuth::Bearer);
        }
        let protocol = match scheme {
            "http" => ClientProtocol::Http,
            _ => ClientProtocol::Https,
        };
        let client = Client::try_from(ClientConfig {
            protocol,
            extra_root_certificates: authorities,
            connect_timeout: Some(options.connect_timeout),
            read_timeout: Some(options.idle_timeout),
            user_agent: USER_AGENT,
            ..ClientConfig::default()
        });
        let opened =
            |client| Self { client, reference: reference.clone(), credential, scheme, http };
        let connection = match client {
            Ok(client) => opened(client),
            Err(e) => return Err(RegistryError::setup(&registry, &e)),
        };
        let login = connection.client.auth(reference, &connection.credential.auth, operation).await;
        login.map_err(|e| connection.fault("log in to", e))?;
        Ok(connection)
    }

    pub(crate) fn reference(&self) -> &Reference {
        &self.reference
    }

    /// A transfer that ended early.
    pub(crate) fn broken(&self, error: &std::io::Error) -> RegistryError {
        RegistryError::broken(self.reference.resolve_registry(), error)
    }

    /// The digest that the reference stands for now.
    pub(crate) async fn resolve(&self) -> Result<String, RegistryError> {
        let asked = self.client.fetch_manifest_digest(&self.reference, &self.credential.auth);
        asked.await.map_err(|e| self.fault("find", e))
    }

    /// The image's manifest as it is stored, and what it says.
    pub(crate) async fn manifest(&self) -> Result<(Bytes, Manifest), RegistryError> {
        let mut reference = self.reference.clone();
        // An image of several platforms is reached by one step more.
        for _ in 0..2 {
            let auth = &self.credential.auth;
            let pulled = self.client.pull_manifest_raw(&reference, auth, ACCEPTED).await;
            let (bytes, digest) = pulled.map_err(|e| self.fault("read", e))?;
            let actual = sha256(&bytes);
            if actual != digest {
                let what = format!("the manifest of {reference}");
                return Err(RegistryError::Digest { what, expected: digest, actual });
            }
            match Document::parse(&bytes).map_err(|r| self.bad_manifest(r))? {
                Document::Image(manifest) => return Ok((bytes, manifest)),
                Document::Index(index) => {
                    let chosen = platform::choose(&index);
                    let none = || self.bad_manifest("the index names no image".to_owned());
                    reference =
                        reference.clone_with_digest(chosen.ok_or_else(none)?.digest.clone());
                }
            }
        }
        Err(self.bad_manifest("it is an index of indexes".to_owned()))
    }

    fn bad_manifest(&self, reason: String) -> RegistryError {
        RegistryError::Manifest { reference: self.reference.to_string(), reason }
    }

    pub(crate) async fn has_blob(&self, digest: &str) -> Result<bool, RegistryError> {
        let asked = self.client.blob_exists(&self.reference, digest);
        asked.await.map_err(|e| self.fault("push to", e))
    }

    /// Uploads a blob piece by piece.
    pub(crate) async fn upload(
        &self,
        pieces: impl futures::Stream<Item = Result<Bytes, OciDistributionError>> + Send + 'static,
        digest: &str,
    ) -> Result<(), RegistryError> {
        let sent = self.client.push_blob_stream(&self.reference, pieces, digest, None);
        sent.await.map(|_| ()).map_err(|e| self.fault("push to", e))
    }

    /// Publishes an image whose blobs are all there.
    pub(crate) async fn put_manifest(
        &self,
        manifest: Bytes,
        media_type: &str,
    ) -> Result<(), RegistryError> {
        let kind = media_type.parse().map_err(|_| {
            self.bad_manifest(format!(
                "its media type `{}` is malformed",
                media_type.escape_debug()
            ))
        })?;
        let sent = self.client.push_manifest_raw(&self.reference, manifest, kind).await;
        sent.map(|_| ()).map_err(|e| self.fault("push to", e))
    }

    /// A blob from the byte `offset` on. The flag says whether the registry began there.
    pub(crate) async fn download(
        &self,
        digest: &str,
        offset: u64,
    ) -> Result<(SizedStream, bool), RegistryError> {
        use oci_distribution::client::BlobResponse;
        let asked = self.client.pull_blob_stream_partial(&self.reference, digest, offset, None);
        match asked.await.map_err(|e| self.fault("read", e))? {
            BlobResponse::Full(stream) => Ok((stream, false)),
            BlobResponse::Partial(stream) => Ok((stream, true)),
        }
    }

    /// Begins an upload and gives it up: nothing is stored, and a refusal shows.
    pub(crate) async fn try_upload(&self) -> Result<(), RegistryError> {
        let (reference, auth) = (&self.reference, &self.credential.auth);
        let token = self.client.auth(reference, auth, RegistryOperation::Push).await;
        let token = token.map_err(|e| self.fault("log in to", e))?;
        let authorized = |request: reqwest::RequestBuilder| match (&token, auth) {
            (Some(token), _) => request.bearer_auth(token),
            (None, RegistryAuth::Basic(user, password)) => request.basic_auth(user, Some(password)),
            (None, _) => request,
        };
        let registry = reference.resolve_registry();
        let url =
            format!("{}://{registry}/v2/{}/blobs/uploads/", self.scheme, reference.repository());
        let begun = authorized(self.http.post(&url)).header("Content-Length", 0).send().await;
        let begun = begun.map_err(|e| self.fault("push to", e.into()))?;
        if begun.status() != reqwest::StatusCode::ACCEPTED {
            let (status, body) = (begun.status().as_u16(), begun.text().await.unwrap_or_default());
            return Err(self.answer("push to", status, &body));
        }
        let location = begun.headers().get("Location").and_then(|l| l.to_str().ok());
        let Some(location) = location.and_then(|l| begun.url().join(l).ok()) else { return Ok(()) };
        // An upload that lives elsewhere is left to expire; the credential stays here.
        if location.origin() == begun.url().origin() {
            let _ = authorized(self.http.delete(location)).send().await;
        }
        Ok(())
    }

    fn fault(&self, doing: &'static str, error: OciDistributionError) -> RegistryError {
        RegistryError::from_client(doing, &self.reference, &self.credential, error)
    }

    fn answer(&self, doing: &'static str, status: u16, body: &str) -> RegistryError {
        RegistryError::from_answer(doing, &self.reference, &self.credential, status, body)
    }
}

/// The clients are built without a TLS implementation; the first one wins, whoever installs it.
fn install_tls_provider() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let _ = rustls::crypto::ring::default_provider().install_default();
    });
}

fn authorities(options: &Options) -> Result<Vec<Certificate>, RegistryError> {
    let Some(path) = &options.ca_file else { return Ok(Vec::new()) };
    let fault = |reason: String| RegistryError::CaFile { path: path.clone(), reason };
    let pem = fs::read(path).map_err(|e| fault(e.to_string()))?;
    let read = reqwest::Certificate::from_pem_bundle(&pem).map_err(|e| fault(e.to_string()))?;
    if read.is_empty() {
        return Err(fault("it holds no certificate in PEM".to_owned()));
    }
    Ok(blocks(&pem))
}

/// A certificate each: the client takes one per entry.
fn blocks(pem: &[u8]) -> Vec<Certificate> {
    const END: &str = "-----END CERTIFICATE-----";
    let text = String::from_utf8_lossy(pem);
    let whole = text.split_inclusive(END).filter(|block| block.ends_with(END));
    whole
        .map(|block| Certificate { encoding: CertificateEncoding::Pem, data: block.into() })
        .collect()
}

fn http_client(
    registry: &str,
    authorities: &[Certificate],
    options: &Options,
) -> Result<reqwest::Client, RegistryError> {
    let setup = |e: reqwest::Error| RegistryError::setup(registry, &e.into());
    let mut certificates = Vec::new();
    for authority in authorities {
        certificates.push(reqwest::Certificate::from_pem(&authority.data).map_err(setup)?);
    }
    let client = reqwest::Client::builder()
        .tls_certs_merge(certificates)
        .connect_timeout(options.connect_timeout)
        .read_timeout(options.idle_timeout)
        .user_agent(USER_AGENT);
    client.build().map_err(setup)
}

/// `http` or `https`. A loopback registry is asked; nothing secret is sent with the question.
async fn scheme(registry: &str, options: &Options) -> Result<&'static str, RegistryError> {
    if options.plain_http {
        return Ok("http");
    }
    if !is_loopback(registry) {
        return Ok("https");
    }
    let probe = reqwest::Client::builder()
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none())
        .timeout(options.connect_timeout.max(Duration::from_secs(1)));
    let probe = probe.build().map_err(|e| RegistryError::setup(registry, &e.into()))?;
    match probe.get(format!("http://{registry}/v2/")).send().await {
        // What a server that wants TLS answers to plain http.
        Ok(answer) if answer.status() == reqwest::StatusCode::BAD_REQUEST => Ok("https"),
        Ok(_) => Ok("http"),
        Err(e) if e.is_connect() || e.is_timeout() => Err(RegistryError::unreachable(registry, &e)),
        Err(_) => Ok("https"),
    }
}

fn is_loopback(registry: &str) -> bool {
    let host = registry.rsplit_once(':').map_or(registry, |(host, _)| host);
    host == "localhost" || host.parse::<std::net::Ipv4Addr>().is_ok_and(|a| a.is_loopback())
}

/// A file in PEM that `SSL_CERT_FILE` names, for hints.
pub(crate) fn ca_variable() -> Option<std::path::PathBuf> {
    std::env::var_os("SSL_CERT_FILE").map(|v| Path::new(&v).to_owned())
}
