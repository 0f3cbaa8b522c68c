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
    threads: Vec<JoinHandle<Result<u32>>>,
}

impl Client {
    pub(super) fn start(pods: &[String]) -> Self {
        let ends = Arc::new(AtomicBool::new(false));
        let thread = |pod: &String| {
            let (pod, ends) = (pod.clone(), Arc::clone(&ends));
            std::thread::spawn(move || {
                let mut answers = 0;
                while !ends.load(Ordering::Acquire) {
                    stream(&pod).with_context(|| format!("answer {answers} of {pod}"))?;
                    answers += 1;
                }
                Ok(answers)
            })
        };
        let threads = pods.iter().map(thread).collect();
        Self { ends, threads }
    }

    /// Every answer was whole, and there were some.
    pub(super) fn finish(self) -> Result<()> {
        self.ends.store(true, Ordering::Release);
        for thread in self.threads {
            let answers = thread.join().map_err(|_| anyhow::anyhow!("the client panicked"))??;
            ensure!(answers > 0, "no answer came");
        }
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
