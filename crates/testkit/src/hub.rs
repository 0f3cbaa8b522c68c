//! A server on this machine that answers as the Hugging Face hub does to those who read models: the
//! list of files at a revision, files with ranges and digests, redirects for large files, tokens.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Result;
use serde_json::json;
use sha2::{Digest as _, Sha256};

/// The commit that every revision stands for.
pub const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

/// Files of at least this many bytes are answered with a redirect, as the hub does for large ones.
const LARGE: usize = 4096;

/// What the server holds and does.
#[derive(Clone, Debug, Default)]
pub struct Repository {
    /// `owner/name`.
    pub id: String,
    /// File names and contents.
    pub files: BTreeMap<String, Vec<u8>>,
    /// Who asks without it is refused.
    pub token: Option<String>,
    /// Answers of file contents that break off after half of what was asked for.
    pub breaks: u32,
}

/// A running server; it ends with the process.
#[derive(Debug)]
pub struct Hub {
    address: SocketAddr,
    requests: Arc<Mutex<Vec<String>>>,
}

impl Hub {
    /// Serves one repository on a free port.
    pub fn start(repository: Repository) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let address = listener.local_addr()?;
        let requests = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&requests);
        std::thread::spawn(move || {
            let mut repository = repository;
            for stream in listener.incoming().flatten() {
                // A client that hangs up is no concern of ours.
                let _ = answer(stream, &mut repository, &seen);
            }
        });
        Ok(Self { address, requests })
    }

    /// For `HF_ENDPOINT`.
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Every request so far: method, path and range.
    pub fn requests(&self) -> Vec<String> {
        self.requests.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// What of a request's head is of interest.
struct Head {
    path: String,
    range: Option<(usize, Option<usize>)>,
    token: Option<String>,
}

fn answer(
    mut stream: TcpStream,
    repository: &mut Repository,
    seen: &Mutex<Vec<String>>,
) -> Result<()> {
    let head = read_head(&stream)?;
    let range = head.range.map(|(from, to)| match to {
        Some(to) => format!(" {from}-{to}"),
        None => format!(" {from}-"),
    });
    seen.lock().unwrap_or_else(PoisonError::into_inner).push(format!(
        "GET {}{}",
        head.path,
        range.unwrap_or_default()
    ));
    if repository.token.is_some() && head.token != repository.token {
        return reply(&mut stream, "401 Unauthorized", &[], b"{}");
    }
    let api = format!("/api/models/{}/revision/", repository.id);
    if let Some(revision) = head.path.strip_prefix(&api) {
        if !matches!(revision, "main" | "v1" | COMMIT) {
            return reply(&mut stream, "404 Not Found", &[], b"{}");
        }
        let siblings: Vec<_> =
            repository.files.keys().map(|name| json!({ "rfilename": name })).collect();
        let body = json!({ "siblings": siblings, "sha": COMMIT }).to_string();
        return reply(&mut stream, "200 OK", &[], body.as_bytes());
    }
    let resolve = format!("/{}/resolve/{COMMIT}/", repository.id);
    let file = head.path.strip_prefix(&resolve);
    let stored = head.path.strip_prefix("/storage/");
    let Some((name, content)) =
        file.or(stored).and_then(|name| repository.files.get_key_value(name))
    else {
        return reply(&mut stream, "404 Not Found", &[], b"{}");
    };
    let digest = crate::hex(&Sha256::digest(content));
    if file.is_some() && content.len() >= LARGE {
        let address = stream.local_addr()?;
        let headers = [
            format!("Location: http://{address}/storage/{name}"),
            format!("X-Linked-Etag: \"{digest}\""),
            format!("X-Repo-Commit: {COMMIT}"),
        ];
        return reply(&mut stream, "302 Found", &headers, b"");
    }
    let broken = repository.breaks > 0 && head.range.is_some_and(|(_, to)| to.is_none());
    repository.breaks -= u32::from(broken);
    send(&mut stream, &digest[..40], content, head.range, broken)
}

fn read_head(stream: &TcpStream) -> Result<Head> {
    let mut lines = BufReader::new(stream.take(1 << 16)).lines();
    let request = lines.next().transpose()?.unwrap_or_default();
    let path = request.split(' ').nth(1).unwrap_or_default().to_owned();
    let mut head = Head { path, range: None, token: None };
    for line in lines {
        let line = line?;
        let Some((name, value)) = line.split_once(": ") else { break };
        match name.to_ascii_lowercase().as_str() {
            "range" => {
                let range = value.trim_start_matches("bytes=").split_once('-');
                head.range =
                    range.and_then(|(from, to)| Some((from.parse().ok()?, to.parse().ok())));
            }
            "authorization" => head.token = value.strip_prefix("Bearer ").map(str::to_owned),
            _ => {}
        }
    }
    Ok(head)
}

/// Sends a file or the asked part of it, or only half of that.
fn send(
    stream: &mut TcpStream,
    etag: &str,
    content: &[u8],
    range: Option<(usize, Option<usize>)>,
    broken: bool,
) -> Result<()> {
    let (from, to) = range.unwrap_or((0, None));
    let end = to.map_or(content.len(), |to| content.len().min(to + 1));
    if from > content.len() || (from == content.len() && from > 0) {
        return reply(stream, "416 Range Not Satisfiable", &[], b"");
    }
    let part = &content[from..end];
    let headers = [
        format!("ETag: \"{etag}\""),
        format!("X-Repo-Commit: {COMMIT}"),
        format!("Content-Range: bytes {from}-{}/{}", end.max(1) - 1, content.len()),
    ];
    if !broken {
        return reply(stream, "206 Partial Content", &headers, part);
    }
    head(stream, "206 Partial Content", &headers, part.len())?;
    stream.write_all(&part[..part.len() / 2])?;
    Ok(stream.flush()?)
}

fn reply(stream: &mut TcpStream, status: &str, headers: &[String], body: &[u8]) -> Result<()> {
    head(stream, status, headers, body.len())?;
    stream.write_all(body)?;
    Ok(stream.flush()?)
}

fn head(stream: &mut TcpStream, status: &str, headers: &[String], length: usize) -> Result<()> {
    write!(stream, "HTTP/1.1 {status}\r\nConnection: close\r\nContent-Length: {length}\r\n")?;
    for header in headers {
        write!(stream, "{header}\r\n")?;
    }
    Ok(write!(stream, "\r\n")?)
}
