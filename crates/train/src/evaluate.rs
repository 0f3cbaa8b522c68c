//! Scores of a model on held-out examples: loss and token accuracy, and the answers it generates.

use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, Ordering};

use api::RunSpec;
use api::run_spec::Metric;
use lm::generate::{Flow, GenerateOptions};
use lm::tokenizer::Tokenizer;

use crate::data::{Examples, Question};
use crate::error::RunError;
use crate::event::{Activity, Comparison, Event};
use crate::events::Events;
use crate::metrics;
use crate::session::{Score, Session};

/// Most prompts that are answered at once.
const PROMPTS: usize = 32;
/// Tokens of prompts that go through the model at once, in micro-batches of training: without a
/// gradient they take less memory than one of those.
const MICRO_BATCHES: usize = 4;

/// How one model did on the held-out examples.
#[derive(Debug)]
pub(crate) struct Graded {
    pub(crate) score: Score,
    /// One answer for each question.
    pub(crate) answers: Vec<String>,
}

/// Loss and token accuracy over `examples`; none where the caller wants to stop.
pub(crate) fn score(
    session: &Session,
    examples: &Examples,
    micro_batch_tokens: usize,
    stop: &AtomicBool,
    events: &mut Events<'_>,
) -> Result<Option<Score>, RunError> {
    let total = examples.len() as u64;
    let mut weight = 0.0;
    let packing = session.packing(micro_batch_tokens, false);
    for batch in examples.micro_batches(packing) {
        weight += batch?.label_weight();
    }
    session.score(examples.micro_batches(packing), weight, &mut |done| {
        events.show(&Event::Progress { what: Activity::Validating, done: done as u64, total });
        if stop.load(Ordering::Relaxed) {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        }
    })
}

/// The most likely answer to each question; none where the caller wants to stop.
pub(crate) fn answers(
    session: &Session,
    tokenizer: &Tokenizer,
    questions: &[Question],
    spec: &RunSpec,
    stop: &AtomicBool,
    on_progress: &mut dyn FnMut(u64),
) -> Result<Option<Vec<String>>, RunError> {
    let options = GenerateOptions {
        max_new_tokens: spec.evaluation.max_new_tokens,
        stop: tokenizer.eos().to_vec(),
        batch: PROMPTS,
        ..GenerateOptions::default()
    };
    // Prompts of similar length together keep a batch busy for longest.
    let mut order: Vec<usize> = (0..questions.len()).collect();
    order.sort_by_key(|index| questions[*index].prompt_ids.len());
    let mut texts = vec![String::new(); questions.len()];
    let most_tokens = spec.training.micro_batch_tokens * MICRO_BATCHES;
    let mut rest = order.as_slice();
    while !rest.is_empty() {
        on_progress((questions.len() - rest.len()) as u64);
        let (group, later) = rest.split_at(fitting(rest, questions, most_tokens));
        rest = later;
        let prompts: Vec<Vec<u32>> =
            group.iter().map(|index| questions[*index].prompt_ids.clone()).collect();
        let go_on = &mut |_, _| {
            if stop.load(Ordering::Relaxed) { Flow::Stop } else { Flow::Continue }
        };
        let answers = session.sample(&prompts, &options, go_on);
        if stop.load(Ordering::Relaxed) {
            return Ok(None);
        }
        for (index, ids) in group.iter().zip(answers) {
            texts[*index] = tokenizer.decode(&ids, true).map_err(|error| RunError::Internal {
                doing: "reading a generated answer",
                message: error.to_string(),
            })?;
        }
    }
    on_progress(questions.len() as u64);
    Ok(Some(texts))
}

/// How many of the first questions are answered at once: at least one.
fn fitting(order: &[usize], questions: &[Question], most_tokens: usize) -> usize {
    let mut tokens = 0;
    let fits = |index: &&usize| {
        tokens += questions[**index].prompt_ids.len();
        tokens <= most_tokens
    };
    order.iter().take(PROMPTS).take_while(fits).count().max(1)
}

/// The table of base against tuned.
pub(crate) fn compare(
    base: &Graded,
    tuned: &Graded,
    references: &[String],
    metrics: &[Metric],
) -> Vec<Comparison> {
    let row = |metric: &str, base, tuned, higher_is_better| Comparison {
        metric: metric.to_owned(),
        base,
        tuned,
        higher_is_better,
    };
    let accuracy = |graded: &Graded| graded.score.token_accuracy();
    let mut rows = vec![
        row("loss", base.score.loss, tuned.score.loss, false),
        row("tokenAccuracy", accuracy(base), accuracy(tuned), true),
    ];
    if !references.is_empty() {
        rows.extend(metrics.iter().map(|metric| {
            let of = |graded: &Graded| grade(*metric, &graded.answers, references);
            row(metric.score(), of(base), of(tuned), true)
        }));
    }
    rows
}

fn grade(metric: Metric, answers: &[String], references: &[String]) -> f64 {
    match metric {
        Metric::ExactMatch => metrics::exact_match(answers, references),
        Metric::Accuracy => metrics::accuracy(answers, references),
        Metric::MacroF1 => metrics::macro_f1(answers, references),
        Metric::RougeL => metrics::rouge_l(answers, references),
        Metric::Bleu => metrics::bleu(answers, references),
        Metric::JsonValidity => metrics::json_validity(answers),
    }
}
