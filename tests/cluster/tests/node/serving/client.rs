//! A client that streams from every replica without a break, and notes each answer that is not whole.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

/// Streams until it is told to end.
#[derive(Debug)]
pub(super) struct Client {
    ends: Arc<AtomicBool>,
    thread: JoinHandle<Result<usize>>,
}

impl Client {
    /// One answer after the other, from each replica in turn: the machine has other things to do as well.
    pub(super) fn start(pods: &[String]) -> Self {
        let ends = Arc::new(AtomicBool::new(false));
        let (pods, told) = (pods.to_vec(), Arc::clone(&ends));
        let thread = std::thread::spawn(move || {
            let mut answers = 0;
            for pod in pods.iter().cycle() {
                if told.load(Ordering::Acquire) {
                    break;
                }
                stream(pod).with_context(|| format!("answer {answers}, by {pod}"))?;
                answers += 1;
            }
            Ok(answers)
        });
        Self { ends, thread }
    }

    /// Every answer was whole, and there were some of each replica.
    pub(super) fn finish(self) -> Result<()> {
        self.ends.store(true, Ordering::Release);
        let answers = self.thread.join().map_err(|_| anyhow::anyhow!("the client panicked"))??;
        ensure!(answers > 1, "no answer came");
        Ok(())
    }
}

fn send(pod: &str, method: &str, path: &str, body: &str) -> Result<TcpStream> {
    let mut stream = TcpStream::connect((pod, 8000)).context("connect")?;
    stream.set_read_timeout(Some(Duration::from_mins(2)))?;
    let length = body.len();
    write!(
        stream,
        "{method} {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n{body}"
    )?;
    Ok(stream)
}

/// One streamed answer of the base model, from its first byte to its last.
fn stream(pod: &str) -> Result<()> {
    let body = json!({
        "model": "smollm2", "prompt": "Once upon a time", "max_tokens": 16, "stream": true,
        "ignore_eos": true,
    });
    let answer = BufReader::new(send(pod, "POST", "/v1/completions", &body.to_string())?);
    let lines: Vec<String> = answer.lines().collect::<std::io::Result<_>>().context("read")?;
    ensure!(lines.first().is_some_and(|line| line.contains(" 200 ")), "{lines:?}");
    let told: Vec<&str> = lines.iter().filter_map(|line| line.strip_prefix("data: ")).collect();
    ensure!(told.last() == Some(&"[DONE]"), "{told:?}");
    ensure!(!told.iter().any(|line| line.contains("\"error\"")), "{told:?}");
    Ok(())
}

/// Whether a pod answers with an adapter, and it is the one with this digest.
pub(super) fn answers(pod: &str, adapter: &str, digest: &str) -> bool {
    let body = json!({"model": adapter, "prompt": "red", "max_tokens": 1}).to_string();
    let is_digest = || {
        let (status, text) = whole(pod, "GET", &format!("/v1/models/{adapter}"), "").ok()?;
        let model: Value = serde_json::from_str(&text).ok()?;
        Some(status == 200 && model["root"] == digest)
    };
    is_digest() == Some(true)
        && whole(pod, "POST", "/v1/completions", &body).is_ok_and(|(status, _)| status == 200)
}

fn whole(pod: &str, method: &str, path: &str, body: &str) -> Result<(u16, String)> {
    let mut text = String::new();
    send(pod, method, path, body)?.read_to_string(&mut text)?;
    let (head, body) = text.split_once("\r\n\r\n").context("no head")?;
    let status = head.split(' ').nth(1).context("no status")?.parse()?;
    Ok((status, body.to_owned()))
}
