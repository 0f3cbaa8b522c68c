//! The service that most registries send their users to for a token, as the distribution project
//! specifies it: <https://distribution.github.io/distribution/spec/auth/token/>.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use rcgen::{BasicConstraints, Certificate, CertificateParams, IsCa, KeyPair, SigningKey as _};
use serde_json::{Value, json};

/// Name of the service and of who signs, which registry and tokens have to agree on.
pub(super) const NAME: &str = "testkit";
/// How long a token is good for.
const LIFE: Duration = Duration::from_mins(5);

/// A running service; it ends when it is dropped.
#[derive(Debug)]
pub(super) struct TokenService {
    pub(super) address: SocketAddr,
    stopped: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

/// What a request is judged by.
struct Rules {
    /// What `Authorization` holds for the one user who may push.
    login: String,
    /// What the same user may exchange for a token.
    identity: String,
    key: KeyPair,
    certificate: Certificate,
}

impl TokenService {
    /// Starts one that lets this user pull and push, anybody else pull, and refuses wrong passwords.
    /// What the registry needs to check tokens goes into `certificate`.
    pub(super) fn start(user: &str, password: &str, certificate: &Path) -> Result<Self> {
        // Ed25519 signatures have the same form in certificates and in tokens.
        let key = KeyPair::generate_for(&rcgen::PKCS_ED25519)?;
        let mut own = CertificateParams::default();
        own.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let own = own.self_signed(&key)?;
        std::fs::write(certificate, own.pem()).context("cannot write the token certificate")?;
        let login = format!("Basic {}", STANDARD.encode(format!("{user}:{password}")));
        let identity = identity_of(password);
        let rules = Rules { login, identity, key, certificate: own };
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("no free port")?;
        let address = listener.local_addr()?;
        let stopped = Arc::new(AtomicBool::new(false));
        let seen = Arc::clone(&stopped);
        let thread = std::thread::spawn(move || {
            for stream in listener.incoming() {
                if seen.load(Ordering::SeqCst) {
                    return;
                }
                if let Ok(stream) = stream {
                    // A client that hangs up is its own affair.
                    let _ = answer(&stream, &rules);
                }
            }
        });
        Ok(Self { address, stopped, thread: Some(thread) })
    }
}

impl Drop for TokenService {
    fn drop(&mut self) {
        self.stopped.store(true, Ordering::SeqCst);
        // The thread waits for a connection and looks at the flag with each.
        let _ = TcpStream::connect(self.address);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// What `docker login` would have been given in place of this password.
pub fn identity_of(password: &str) -> String {
    format!("identity+of={password}")
}

fn answer(stream: &TcpStream, rules: &Rules) -> Result<()> {
    let mut reader = BufReader::new(stream);
    let mut lines = reader.by_ref().lines();
    let request = lines.next().context("an empty request")??;
    let mut headers = BTreeMap::new();
    for line in lines {
        let line = line?;
        let Some((name, value)) = line.split_once(':') else { break };
        headers.insert(name.to_lowercase(), value.trim().to_owned());
    }
    let target = request.split(' ').nth(1).unwrap_or_default();
    if request.starts_with("POST ") {
        let length = headers.get("content-length").and_then(|length| length.parse().ok());
        let mut form = vec![0; length.unwrap_or(0)];
        reader.read_exact(&mut form)?;
        return respond(stream, exchanged(&String::from_utf8_lossy(&form), rules)?);
    }
    let answer = match headers.get("authorization") {
        Some(login) if *login != rules.login => {
            ("401 Unauthorized", json!({"errors": [{"message": "wrong password"}]}))
        }
        login => ("200 OK", json!({"token": token(target, login.is_some(), rules)?})),
    };
    respond(stream, answer)
}

/// Status and body for one who has an identity token and no password.
fn exchanged(form: &str, rules: &Rules) -> Result<(&'static str, Value)> {
    let field = |name: &str| form.split('&').find_map(|pair| pair.strip_prefix(name));
    let identity = rules.identity.replace('+', "%2B").replace('=', "%3D");
    if field("grant_type=") != Some("refresh_token") || field("refresh_token=") != Some(&identity) {
        return Ok(("400 Bad Request", json!({"errors": [{"message": "invalid refresh token"}]})));
    }
    let token = token(&format!("?{form}"), true, rules)?;
    Ok(("200 OK", json!({"access_token": token, "expires_in": LIFE.as_secs()})))
}

fn respond(mut stream: &TcpStream, (status, body): (&str, Value)) -> Result<()> {
    let body = body.to_string();
    let length = body.len();
    let head = format!("HTTP/1.1 {status}\r\nContent-Type: application/json\r\n");
    write!(stream, "{head}Content-Length: {length}\r\nConnection: close\r\n\r\n{body}")?;
    Ok(())
}

/// A signed token for what `target` asks for, as far as it is allowed.
fn token(target: &str, may_push: bool, rules: &Rules) -> Result<String> {
    let (_, query) = target.split_once('?').unwrap_or_default();
    let scope = query.split('&').find_map(|pair| pair.strip_prefix("scope=")).unwrap_or_default();
    let scope = scope.replace("%3A", ":").replace("%2F", "/").replace("%2C", ",");
    let mut parts = scope.split(':');
    let (kind, name) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    let asked = parts.next().unwrap_or_default().split(',');
    let actions: Vec<_> = asked.filter(|action| may_push || *action == "pull").collect();
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?;
    let header = json!({
        "typ": "JWT", "alg": "EdDSA", "x5c": [STANDARD.encode(rules.certificate.der())],
    });
    let claims = json!({
        "iss": NAME, "aud": NAME, "sub": "", "jti": "1",
        "nbf": now.as_secs() - 10, "iat": now.as_secs(), "exp": (now + LIFE).as_secs(),
        "access": [{"type": kind, "name": name, "actions": actions}],
    });
    let part = |value: &serde_json::Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let signed = format!("{}.{}", part(&header), part(&claims));
    let signature = rules.key.sign(signed.as_bytes())?;
    Ok(format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature)))
}
