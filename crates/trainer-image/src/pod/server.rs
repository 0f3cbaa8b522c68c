//! Answers over HTTP: `/status` for the operator, `/healthz` for the kubelet, `/metrics` for Prometheus,
//! `/events` for who wants to watch.

use std::io::{self, BufRead as _, BufReader, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use super::progress::Progress;

const JSON: &str = "application/json";
/// The version is that of Prometheus' format.
const TEXT: &str = "text/plain; version=0.0.4; charset=utf-8";
const LINES: &str = "application/x-ndjson";

/// Longest wait for one who asks and does not go on, or does not listen.
const PATIENCE: Duration = Duration::from_secs(2);
/// How often one who follows the events is looked after when there are none.
const BREATH: Duration = Duration::from_secs(10);
/// Most questions that are answered at the same time.
const MOST: usize = 32;

/// Answers until the process ends.
pub(super) fn serve(progress: &Progress) -> io::Result<()> {
    let listener = listen()?;
    tracing::info!(port = listener.local_addr()?.port(), "listening");
    let progress = progress.clone();
    let busy = Arc::new(());
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            if Arc::strong_count(&busy) > MOST {
                continue;
            }
            let (busy, progress) = (Arc::clone(&busy), progress.clone());
            // Without a thread the question stays without an answer, as when there are too many.
            let _ = std::thread::Builder::new().spawn(move || {
                // One who asks and does not listen is no reason to end.
                let _ = answer(&stream, &progress);
                drop(busy);
            });
        }
    });
    Ok(())
}

/// At `ANNEAL_LISTEN`, or at every address of the pod.
fn listen() -> io::Result<TcpListener> {
    if let Ok(address) = std::env::var("ANNEAL_LISTEN") {
        return TcpListener::bind(address);
    }
    TcpListener::bind(("::", plan::render::PORT as u16))
        .or_else(|_| TcpListener::bind(("0.0.0.0", plan::render::PORT as u16)))
}

fn answer(stream: &TcpStream, progress: &Progress) -> io::Result<()> {
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let mut lines = BufReader::new(stream).lines();
    let first = lines.next().transpose()?.unwrap_or_default();
    // The rest of the request is read, so that closing does not cut off the answer.
    for line in lines {
        if line?.is_empty() {
            break;
        }
    }
    let respond = |status: &str, kind: &str, body: &str| respond(stream, status, kind, body);
    match first.split(' ').nth(1).unwrap_or_default() {
        "/status" => {
            let body = serde_json::to_string(&progress.status()).unwrap_or_default();
            respond("200 OK", JSON, &body)
        }
        "/healthz" => match progress.stalled() {
            None => respond("200 OK", TEXT, "ok\n"),
            Some(idle) => {
                let body = format!("no sign of work for {} s\n", idle.as_secs());
                respond("503 Service Unavailable", TEXT, &body)
            }
        },
        "/metrics" => respond("200 OK", TEXT, &progress.metrics()),
        "/events" => {
            let (events, _) = progress.events(0, Duration::ZERO);
            let body: String = events.iter().map(|line| format!("{line}\n")).collect();
            respond("200 OK", LINES, &body)
        }
        "/events?follow" | "/events?follow=true" => follow(stream, progress),
        _ => {
            let body = "there are /healthz, /status, /metrics, /events and /events?follow\n";
            respond("404 Not Found", TEXT, body)
        }
    }
}

fn respond(mut stream: &TcpStream, status: &str, kind: &str, body: &str) -> io::Result<()> {
    let length = body.len();
    write!(
        stream,
        "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}"
    )
}

/// Every event so far and to come, until one of the two sides ends.
fn follow(mut stream: &TcpStream, progress: &Progress) -> io::Result<()> {
    write!(
        stream,
        "HTTP/1.1 200 OK\r\nContent-Type: application/x-ndjson\r\nConnection: close\r\n\r\n"
    )?;
    let mut next = 0;
    loop {
        let (events, after) = progress.events(next, BREATH);
        for event in &events {
            writeln!(stream, "{event}")?;
        }
        if events.is_empty() {
            // Shows whether anybody is there; an empty line is no event.
            writeln!(stream)?;
        }
        next = after;
    }
}
