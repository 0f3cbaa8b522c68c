//! How far the run is, over HTTP: `/status` for the operator, `/healthz` for the kubelet.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use api::TrainerStatus;
use api::termination::Stage;
use api::workspace;
use train::event::{Activity, Event};

/// Longest time without any event: a step, a batch of answers, a part of the model.
const STALL: Duration = Duration::from_mins(30);

/// What was heard last. Clones share it.
#[derive(Clone, Debug, Default)]
pub(super) struct Progress(Arc<Mutex<Heard>>);

#[derive(Debug)]
struct Heard {
    status: TrainerStatus,
    at: Instant,
}

impl Default for Heard {
    fn default() -> Self {
        Self { status: TrainerStatus::default(), at: Instant::now() }
    }
}

impl Progress {
    /// Takes note of an event.
    pub(super) fn hear(&self, event: &Event) {
        let mut heard = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        heard.at = Instant::now();
        let status = &mut heard.status;
        match event {
            Event::Step(step) => {
                status.stage = Stage::Training;
                let valid_loss = status.progress.as_ref().and_then(|before| before.valid_loss);
                status.progress = Some(workspace::Progress {
                    summary: format!("{}/{}", step.step, step.steps),
                    step: step.step,
                    total_steps: step.steps,
                    train_loss: Some(step.loss),
                    valid_loss,
                    tokens_per_second: Some(step.tokens_per_second),
                    eta_seconds: step.eta_seconds.map(|seconds| seconds.round() as u64),
                });
            }
            Event::Validated { loss, .. } => {
                if let Some(progress) = &mut status.progress {
                    progress.valid_loss = Some(*loss);
                }
            }
            Event::Progress {
                what: Activity::AnsweringBase | Activity::AnsweringTuned, ..
            } => {
                status.stage = Stage::Evaluating;
            }
            _ => {}
        }
    }

    /// Says what is being done now.
    pub(super) fn stage(&self, stage: Stage) {
        let mut heard = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        heard.status.stage = stage;
        heard.at = Instant::now();
    }

    /// What was heard last.
    pub(super) fn status(&self) -> TrainerStatus {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).status.clone()
    }

    fn hangs(&self) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).at.elapsed() > STALL
    }
}

/// Answers until the process ends.
pub(super) fn serve(progress: &Progress) -> std::io::Result<()> {
    let listener = TcpListener::bind(("::", plan::render::PORT as u16))
        .or_else(|_| TcpListener::bind(("0.0.0.0", plan::render::PORT as u16)))?;
    let progress = progress.clone();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            // One who asks and does not listen is no reason to end.
            let _ = answer(&stream, &progress);
        }
    });
    Ok(())
}

fn answer(mut stream: &TcpStream, progress: &Progress) -> std::io::Result<()> {
    stream.set_read_timeout(Some(Duration::from_secs(2)))?;
    stream.set_write_timeout(Some(Duration::from_secs(2)))?;
    let mut lines = BufReader::new(stream).lines();
    let first = lines.next().transpose()?.unwrap_or_default();
    // The rest of the request is read, so that closing does not cut off the answer.
    for line in lines {
        if line?.is_empty() {
            break;
        }
    }
    let (status, kind, body) = match first.split(' ').nth(1) {
        Some("/status") => {
            let body = serde_json::to_string(&progress.status()).unwrap_or_default();
            ("200 OK", "application/json", body)
        }
        Some("/healthz") if progress.hangs() => (
            "503 Service Unavailable",
            "text/plain",
            "nothing has happened for too long".to_owned(),
        ),
        Some("/healthz") => ("200 OK", "text/plain", "ok".to_owned()),
        _ => ("404 Not Found", "text/plain", "there are /healthz and /status".to_owned()),
    };
    write!(
        stream,
        "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    )
}
