//! One answer on its way to the client: tokens become text, up to what ends it.

use std::sync::Arc;

use lm::sample::Drawn;
use lm::tokenizer::{Pieces, Tokenizer};
use serde_json::{Value, json};
use tokio::sync::mpsc::{Receiver, Sender, channel};

use super::error::ApiError;
use crate::engine::{Answer, Event, Finish};
use crate::text::TextStream;

/// New text of one answer.
#[derive(Debug, Default)]
pub(super) struct Part {
    pub(super) index: usize,
    pub(super) text: String,
    /// Tokens that it came with; empty where no probabilities are told.
    pub(super) tokens: Vec<Told>,
    /// How many tokens it came with.
    pub(super) count: usize,
    pub(super) finish: Option<&'static str>,
}

/// A token and how likely it and others were.
#[derive(Clone, Debug)]
pub(super) struct Told {
    pub(super) token: Piece,
    pub(super) logprob: f32,
    pub(super) top: Vec<(Piece, f32)>,
}

/// A token's text and bytes.
#[derive(Clone, Debug)]
pub(super) struct Piece {
    pub(super) text: String,
    pub(super) bytes: Vec<u8>,
}

impl Told {
    fn new(drawn: &Drawn, pieces: &Pieces<'_>, tokenizer: &Tokenizer) -> Self {
        let piece = |id: u32| {
            let bytes = pieces
                .bytes(id)
                .unwrap_or_else(|| tokenizer.token(id).unwrap_or_default().into_bytes());
            Piece { text: String::from_utf8_lossy(&bytes).into_owned(), bytes }
        };
        let top = drawn.top.iter().map(|(id, logprob)| (piece(*id), *logprob)).collect();
        Self { token: piece(drawn.id), logprob: drawn.logprob, top }
    }

    /// As in chat completions.
    pub(super) fn chat(&self) -> Value {
        let one = |piece: &Piece, logprob: f32| json!({"token": piece.text, "logprob": logprob, "bytes": piece.bytes});
        let mut value = one(&self.token, self.logprob);
        value["top_logprobs"] = self.top.iter().map(|(piece, p)| one(piece, *p)).collect();
        value
    }
}

/// What all answers of a request have in common.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) tokenizer: Arc<Tokenizer>,
    pub(super) stops: Vec<String>,
    pub(super) logprobs: bool,
}

/// Follows all answers of a request; what is sent here is dropped with the receiver, and so are the answers.
pub(super) fn follow(answers: Vec<Answer>, shared: Shared) -> Receiver<Result<Part, ApiError>> {
    let (sender, receiver) = channel(64);
    let shared = Arc::new(shared);
    for (index, answer) in answers.into_iter().enumerate() {
        let (shared, sender) = (Arc::clone(&shared), sender.clone());
        tokio::spawn(async move {
            if let Err(error) = one(index, answer, &shared, &sender).await {
                let _ = sender.send(Err(error)).await;
            }
        });
    }
    receiver
}

async fn one(
    index: usize,
    mut answer: Answer,
    shared: &Shared,
    sender: &Sender<Result<Part, ApiError>>,
) -> Result<(), ApiError> {
    let tokenizer = &*shared.tokenizer;
    let pieces = shared.logprobs.then(|| tokenizer.pieces());
    let mut stream = TextStream::new(tokenizer, &shared.stops);
    let ended = || ApiError::from(crate::engine::Failed::Model("the engine has ended".to_owned()));
    loop {
        let event = tokio::select! {
            event = answer.events.recv() => event.ok_or_else(ended)?,
            // The client has gone: the answer is dropped, and with it its place.
            () = sender.closed() => return Ok(()),
        };
        let mut part = Part { index, ..Part::default() };
        match event {
            Event::Token(drawn) => {
                part.text = stream.push(drawn.id)?;
                part.count = 1;
                part.tokens.extend(pieces.as_ref().map(|p| Told::new(&drawn, p, tokenizer)));
                if stream.is_stopped() {
                    part.finish = Some("stop");
                }
            }
            Event::Done(finish) => {
                part.text = stream.finish()?;
                part.finish = Some(match finish {
                    _ if stream.is_stopped() => "stop",
                    Finish::Stop => "stop",
                    Finish::Length => "length",
                });
            }
            Event::Failed(failed) => return Err(failed.into()),
        }
        let done = part.finish.is_some();
        let silent = part.text.is_empty() && part.tokens.is_empty() && part.count == 0;
        if (done || !silent) && sender.send(Ok(part)).await.is_err() {
            return Ok(());
        }
        if done {
            return Ok(());
        }
    }
}
