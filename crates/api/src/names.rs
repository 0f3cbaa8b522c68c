//! Names that cannot be wrong: made by parsing, and never checked again.

use std::fmt;
use std::time::Duration;

use serde::Serialize;

/// What is wrong with a name: a sentence's end that follows "`x` ", and what to do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct NameError {
    /// What is wrong, naming the text.
    pub message: String,
    /// What would be right.
    pub hint: String,
}

fn error(message: impl Into<String>, hint: impl Into<String>) -> NameError {
    NameError { message: message.into(), hint: hint.into() }
}

/// Longest name of a workspace: `-` and the 12 digits of a revision make a DNS label of it.
pub const MAX_NAME: usize = 50;

/// A workspace's name: a DNS label of at most [`MAX_NAME`] characters.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct WorkspaceName(String);

impl WorkspaceName {
    pub fn parse(text: &str) -> Result<Self, NameError> {
        let hint =
            "use lower-case letters, digits and `-`, starting and ending with a letter or digit";
        if text.is_empty() {
            return Err(error("the name is empty", hint));
        }
        if text.len() > MAX_NAME {
            let hint = "the revision is appended to the name, and the whole must be a DNS label";
            let message = format!(
                "`{text}` has {} characters, and at most {MAX_NAME} are allowed",
                text.len()
            );
            return Err(error(message, hint));
        }
        let inner = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        if !text.chars().all(inner) || text.starts_with('-') || text.ends_with('-') {
            return Err(error(format!("`{text}` is not a DNS label"), hint));
        }
        Ok(Self(text.to_owned()))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for WorkspaceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// An image in a registry, as the distribution specification writes it: `host/repository:tag@digest`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(into = "String")]
pub struct ImageReference {
    pub registry: String,
    pub repository: String,
    pub tag: Option<String>,
    /// `sha256:…`.
    pub digest: Option<String>,
}

impl ImageReference {
    /// Reads a reference. One with no host is on Docker Hub, as for other tools.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        let example = "write it as `registry.example.com/team/name:tag`";
        let bad =
            |why: &str| Err(error(format!("`{text}` is not an image reference: {why}"), example));
        if text.is_empty() {
            return Err(error("the image reference is empty", example));
        }
        if text.contains("://") {
            return bad("it has a scheme");
        }
        let (rest, digest) = match text.split_once('@') {
            Some((rest, digest)) if is_digest(digest) => (rest, Some(digest.to_owned())),
            Some(_) => return bad("its digest is not `sha256:` and 64 hexadecimal digits"),
            None => (text, None),
        };
        let (path, tag) = match rest.rsplit_once(':') {
            Some((path, tag)) if !tag.contains('/') => (path, Some(tag.to_owned())),
            _ => (rest, None),
        };
        if tag.as_deref().is_some_and(|tag| !is_tag(tag)) {
            return bad("its tag is not made of letters, digits, `_`, `.` and `-`");
        }
        let (registry, repository) = split_host(path);
        let is_of_host =
            |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | ':' | '-' | '_' | '[' | ']');
        if !registry.chars().all(is_of_host) {
            return bad("its host is not made of letters, digits, `.`, `:` and `-`");
        }
        if repository.len() > 255 || !repository.split('/').all(is_path_component) {
            return bad(
                "the repository is not made of lower-case letters, digits, `.`, `_` and `-` between slashes",
            );
        }
        Ok(Self { registry, repository, tag, digest })
    }
}

fn split_host(path: &str) -> (String, String) {
    match path.split_once('/') {
        Some((host, rest)) if host == "localhost" || host.contains(['.', ':']) => {
            (host.to_owned(), rest.to_owned())
        }
        Some(_) => ("docker.io".to_owned(), path.to_owned()),
        None => ("docker.io".to_owned(), format!("library/{path}")),
    }
}

fn is_digest(text: &str) -> bool {
    text.strip_prefix("sha256:").is_some_and(|hex| {
        hex.len() == 64 && hex.chars().all(|c| c.is_ascii_digit() || ('a'..='f').contains(&c))
    })
}

fn is_tag(text: &str) -> bool {
    let mut chars = text.chars();
    text.len() <= 128
        && chars.next().is_some_and(|c| c.is_ascii_alphanumeric() || c == '_')
        && chars.all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-'))
}

fn is_path_component(text: &str) -> bool {
    let alphanumeric = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    text.starts_with(alphanumeric)
        && text.ends_with(alphanumeric)
        && text.chars().all(|c| alphanumeric(c) || matches!(c, '.' | '_' | '-'))
}

impl fmt::Display for ImageReference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.registry, self.repository)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        match &self.digest {
            Some(digest) => write!(f, "@{digest}"),
            None => Ok(()),
        }
    }
}

impl From<ImageReference> for String {
    fn from(image: ImageReference) -> Self {
        image.to_string()
    }
}

/// A repository on the Hugging Face hub.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct HubRepository {
    pub owner: String,
    pub name: String,
    /// Branch, tag or commit.
    pub revision: String,
}

impl HubRepository {
    /// Reads `owner/name`.
    pub fn parse(repo: &str, revision: &str) -> Result<Self, NameError> {
        let part = |text: &str| {
            !text.is_empty()
                && text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-'))
        };
        match repo.split_once('/') {
            Some((owner, name)) if part(owner) && part(name) => {
                Ok(Self { owner: owner.into(), name: name.into(), revision: revision.into() })
            }
            _ => Err(error(
                format!("`{repo}` is not a Hugging Face repository"),
                "write it as `owner/name`, such as `HuggingFaceTB/SmolLM2-135M-Instruct`",
            )),
        }
    }

    /// `owner/name`.
    pub fn id(&self) -> String {
        format!("{}/{}", self.owner, self.name)
    }
}

impl fmt::Display for HubRepository {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}@{}", self.owner, self.name, self.revision)
    }
}

/// Reads a quantity of bytes as Kubernetes writes it: `4Gi`, `512Mi`, `1.5G`, `1000000`.
pub fn parse_bytes(text: &str) -> Result<u64, NameError> {
    const SUFFIXES: [(&str, f64); 9] = [
        ("Ki", 1024.0),
        ("Mi", 1_048_576.0),
        ("Gi", 1_073_741_824.0),
        ("Ti", 1_099_511_627_776.0),
        ("k", 1e3),
        ("M", 1e6),
        ("G", 1e9),
        ("T", 1e12),
        ("", 1.0),
    ];
    let (number, factor) = SUFFIXES
        .iter()
        .find_map(|(suffix, factor)| Some((text.strip_suffix(suffix)?, *factor)))
        .expect("the empty suffix matches every text");
    match number.parse::<f64>() {
        Ok(value) if value.is_finite() && value > 0.0 && !number.contains(['e', 'E', '+', '-']) => {
            Ok((value * factor) as u64)
        }
        _ => Err(error(
            format!("`{text}` is not a quantity of memory"),
            "write it as Kubernetes does, such as `4Gi` or `512Mi`",
        )),
    }
}

/// Reads a time as `90s`, `30m`, `2h`, `1d` or several of these, the longest first: `1h30m`.
pub fn parse_duration(text: &str) -> Result<Duration, NameError> {
    /// With the seconds of each, and the most digits: together they fit into the 32 bits in which
    /// Kubernetes counts some seconds.
    const UNITS: [(char, u64, usize); 4] =
        [('d', 86_400, 4), ('h', 3600, 5), ('m', 60, 6), ('s', 1, 8)];
    let (mut total, mut rest) = (0_u64, text);
    for (unit, seconds, most) in UNITS {
        let digits = rest.chars().take_while(char::is_ascii_digit).count();
        let number = &rest[..digits];
        if let Some(after) = rest[digits..].strip_prefix(unit)
            && (1..=most).contains(&digits)
        {
            total += number.parse::<u64>().unwrap_or_default() * seconds;
            rest = after;
        }
    }
    if total == 0 || !rest.is_empty() {
        return Err(error(
            format!("`{text}` is not a length of time"),
            "write it as `30m`, `2h` or `1h30m`",
        ));
    }
    Ok(Duration::from_secs(total))
}

/// Reads the name of a Kubernetes object, such as a secret.
pub fn parse_object_name(text: &str) -> Result<String, NameError> {
    let edge = |c: Option<char>| c.is_some_and(|c| c.is_ascii_lowercase() || c.is_ascii_digit());
    let inner = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '.';
    let fits = text.len() <= 253 && text.chars().all(inner);
    if fits && edge(text.chars().next()) && edge(text.chars().last()) {
        return Ok(text.to_owned());
    }
    Err(error(
        format!("`{text}` is not the name of an object"),
        "use lower-case letters, digits, `-` and `.`, starting and ending with a letter or digit",
    ))
}
