//! What can go wrong with a registry, told apart by what the user can do about it.

use std::fmt;
use std::io;
use std::path::PathBuf;

use oci_distribution::Reference;
use oci_distribution::errors::{DigestError, OciDistributionError};
use thiserror::Error;

use crate::credentials::{Credential, CredentialError};

/// Reasons to refuse a certificate that no file of authorities changes.
pub(crate) const WRONG_NAME: &str = "its certificate is for another name";
pub(crate) const EXPIRED: &str = "its certificate has expired";

/// Longest text of a registry that is passed on.
const LONGEST_MESSAGE: usize = 300;

/// What was asked of a registry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    pub doing: &'static str,
    pub reference: String,
    pub registry: String,
}

impl fmt::Display for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cannot {} {}: {}", self.doing, self.reference, self.registry)
    }
}

/// What can go wrong with a registry.
#[derive(Debug, Error)]
pub enum RegistryError {
    /// The credential was refused, or is missing.
    #[error("{request} answered {status}{message}")]
    Refused {
        request: Box<Request>,
        status: u16,
        message: String,
        /// Where a credential was found; nothing if there was none.
        credential: Option<PathBuf>,
    },
    /// The credentials that the user set up cannot be used.
    #[error(transparent)]
    Credential(#[from] CredentialError),
    /// The image, or the repository, is not there.
    #[error("{request} has no such image or repository{message}")]
    NotFound { request: Box<Request>, message: String },
    /// No answer at all.
    #[error("cannot reach {registry}: {reason}")]
    Unreachable { registry: String, reason: String },
    /// The registry's certificate is not trusted.
    #[error("cannot trust {registry}: {reason}")]
    Certificate { registry: String, reason: String },
    /// The file of certificates cannot be used.
    #[error("cannot use the certificates in {path}: {reason}")]
    CaFile { path: PathBuf, reason: String },
    /// The registry is in trouble, which may pass.
    #[error("{request} answered {status}{message}")]
    Busy { request: Box<Request>, status: u16, message: String },
    /// The registry will not do it, whoever asks.
    #[error("{request} answered {message}")]
    Answer { request: Box<Request>, message: String },
    /// What came differs from what was asked for.
    #[error("{what} has the digest {actual} and not {expected}")]
    Digest { what: String, expected: String, actual: String },
    /// The manifest is not one of an image.
    #[error("{reference} is not an image: {reason}")]
    Manifest { reference: String, reason: String },
    /// A file of the image could not be read while it was pushed.
    #[error("cannot read what is pushed to {reference}: {reason}")]
    Source { reference: String, reason: String },
    /// The disk refused what was fetched.
    #[error("cannot write {path}")]
    Disk { path: PathBuf, source: io::Error },
}

impl RegistryError {
    /// Whether the same request may succeed a little later.
    pub(crate) fn may_pass(&self) -> bool {
        matches!(self, Self::Unreachable { .. } | Self::Busy { .. })
    }

    pub(crate) fn setup(registry: &str, error: &OciDistributionError) -> Self {
        let (registry, reason) = (registry.to_owned(), certificate_reason(&deepest(error)));
        Self::Certificate { registry, reason }
    }

    pub(crate) fn unreachable(registry: &str, error: &reqwest::Error) -> Self {
        Self::Unreachable { registry: registry.to_owned(), reason: network_reason(error) }
    }

    pub(crate) fn broken(registry: &str, error: &io::Error) -> Self {
        Self::Unreachable { registry: registry.to_owned(), reason: deepest(error) }
    }

    /// Sorts an error of the client.
    pub(crate) fn from_client(
        doing: &'static str,
        reference: &Reference,
        credential: &Credential,
        error: OciDistributionError,
    ) -> Self {
        use OciDistributionError as E;
        let answer =
            |status, body: &str| Self::from_answer(doing, reference, credential, status, body);
        let registry = reference.resolve_registry().to_owned();
        match error {
            E::RequestError(e) => match e.status() {
                Some(status) => answer(status.as_u16(), ""),
                None if is_untrusted(&e) => {
                    Self::Certificate { registry, reason: certificate_reason(&deepest(&e)) }
                }
                None => Self::unreachable(&registry, &e),
            },
            E::UnauthorizedError { .. } => answer(401, ""),
            E::AuthenticationFailure(body) => answer(401, &body),
            E::ServerError { code, message, .. } => answer(code, &message),
            E::RegistryError { envelope, .. } => {
                let body = serde_json::to_string(&envelope).unwrap_or_default();
                answer(status_of(&body), &body)
            }
            E::DigestError(DigestError::VerificationError { expected, actual }) => {
                Self::Digest { what: reference.to_string(), expected, actual }
            }
            E::IoError(e) => {
                Self::Source { reference: reference.to_string(), reason: e.to_string() }
            }
            other => Self::Answer {
                request: Box::new(request(doing, reference)),
                message: clean(&format!("in a way that makes no sense: {other}")),
            },
        }
    }

    /// Sorts an answer by its status.
    pub(crate) fn from_answer(
        doing: &'static str,
        reference: &Reference,
        credential: &Credential,
        status: u16,
        body: &str,
    ) -> Self {
        let said = said(body);
        let message = if said.is_empty() { String::new() } else { format!(": {said}") };
        let request = Box::new(request(doing, reference));
        match status {
            401 | 403 => {
                let credential = (!credential.is_anonymous()).then(|| credential.config.clone());
                Self::Refused { request, status, message, credential }
            }
            404 => Self::NotFound { request, message },
            // What is not implemented, or not in this version of HTTP, will not be a little later either.
            408 | 425 | 429 | 500 | 502..=504 | 506.. => Self::Busy { request, status, message },
            _ => Self::Answer { request, message: format!("{status}{message}") },
        }
    }
}

fn request(doing: &'static str, reference: &Reference) -> Request {
    let registry = reference.resolve_registry().to_owned();
    Request { doing, reference: reference.to_string(), registry }
}

/// The status that belongs to the codes of an answer, which the client does not keep.
fn status_of(body: &str) -> u16 {
    let has = |code: &str| body.contains(&format!("\"{code}\""));
    match () {
        () if has("UNAUTHORIZED") => 401,
        () if has("DENIED") => 403,
        () if has("TOOMANYREQUESTS") => 429,
        () if ["MANIFEST_UNKNOWN", "NAME_UNKNOWN", "BLOB_UNKNOWN", "NOT_FOUND"]
            .iter()
            .any(|c| has(c)) =>
        {
            404
        }
        () => 400,
    }
}

/// What a registry gives as reason: messages of its errors, or a short plain text.
fn said(body: &str) -> String {
    let parsed: Result<serde_json::Value, _> = serde_json::from_str(body);
    let text = match &parsed {
        Ok(value) => {
            let errors = value.get("errors").and_then(|e| e.as_array()).cloned();
            let message = |e: &serde_json::Value| {
                let field = |name: &str| e.get(name).and_then(|v| v.as_str()).map(str::to_owned);
                field("message").filter(|m| !m.is_empty()).or_else(|| field("code"))
            };
            let errors: Vec<_> = errors.iter().flatten().filter_map(message).collect();
            errors.join(", ")
        }
        Err(_) if body.contains('<') => String::new(),
        Err(_) => body.to_owned(),
    };
    clean(&text)
}

/// One short line.
fn clean(text: &str) -> String {
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    match line.char_indices().nth(LONGEST_MESSAGE) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None => line,
    }
}

/// The error, its source, the source of that, and so on.
fn chain<'a>(
    error: &'a (dyn std::error::Error + 'static),
) -> impl Iterator<Item = &'a (dyn std::error::Error + 'static)> {
    let mut next = Some(error);
    std::iter::from_fn(move || {
        let this = next?;
        next = this.source();
        Some(this)
    })
}

fn is_untrusted(error: &reqwest::Error) -> bool {
    chain(error).any(|e| e.to_string().contains("invalid peer certificate"))
}

/// The innermost reason; the outer ones repeat the address, with what its query may hold.
fn deepest(error: &(dyn std::error::Error + 'static)) -> String {
    clean(&chain(error).last().map(ToString::to_string).unwrap_or_default())
}

/// The TLS library's names for what is wrong with a certificate, in words.
fn certificate_reason(reason: &str) -> String {
    let words = [
        ("UnknownIssuer", "its certificate is of an authority that is not known"),
        ("NotValidForName", WRONG_NAME),
        ("not valid for name", WRONG_NAME),
        ("Expired", EXPIRED),
        ("expired", EXPIRED),
        ("NotValidYet", "its certificate is not valid yet: check the clock of this machine"),
        ("not valid yet", "its certificate is not valid yet: check the clock of this machine"),
        ("CaUsedAsEndEntity", "its certificate is that of an authority itself"),
    ];
    let known = words.iter().find(|(name, _)| reason.contains(name));
    known.map_or_else(|| reason.to_owned(), |(_, words)| (*words).to_owned())
}

fn network_reason(error: &reqwest::Error) -> String {
    if error.is_timeout() {
        return "no answer in time".to_owned();
    }
    match std::error::Error::source(error) {
        Some(source) => deepest(source),
        None => "the connection broke".to_owned(),
    }
}
