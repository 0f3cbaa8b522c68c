//! After the last step: the best weights, the comparison with the base model, and the report.

mod beside;

use std::sync::atomic::AtomicBool;

use api::RunSpec;
use lm::files::ModelFiles;
use lm::tokenizer::Tokenizer;

use super::Training;
use crate::checkpoint::{Checkpoints, State};
use crate::data::{Dataset, Examples, Question};
use crate::error::RunError;
use crate::evaluate::{self, Graded};
use crate::event::{Activity, Compared, Event, Finished, Sample, Split};
use crate::events::Events;
use crate::run_dir::{Outcome, RunDir};
use crate::session::Session;
use crate::{report, runtime};

/// Answers that are shown in full.
const SAMPLES: usize = 3;

/// Tells of a run that was complete before this process began.
pub(super) fn replay(outcome: Outcome, events: &mut Events<'_>) -> Outcome {
    if let Some(compared) = &outcome.compared {
        events.show(&Event::Compared(compared.clone()));
    }
    events.show(&Event::Samples { samples: outcome.samples.clone() });
    events.show(&Event::Finished(Box::new(outcome.finished.clone())));
    outcome
}

/// Publishes the best weights, scores them against the base model, and writes the report.
pub(super) fn finish(
    dir: &RunDir,
    training: Training<'_>,
    files: &ModelFiles,
    tokenizer: &Tokenizer,
    events: &mut Events<'_>,
) -> Result<Outcome, RunError> {
    let Training { spec, data, checkpoints, stop, mut session, state, .. } = training;
    events.doing("writing the adapter");
    let best_step = best_step(checkpoints, &state, events)?;
    let best = checkpoints.path(best_step);
    if best_step != state.step {
        session.restore_weights(&best)?;
    }
    let more = beside::files(dir.spec(), &session, files, tokenizer)?;
    let adapter_digest = dir.publish(&best, &more.into_iter().collect::<Vec<_>>())?;

    let held_out = HeldOut::choose(data, spec)?;
    let (compared, samples) = match &held_out {
        None => (None, Vec::new()),
        Some(held_out) => {
            let grading = Grading { dir, files, tokenizer, held_out, stop };
            let Some((compared, samples)) = grading.compare(session, events)? else {
                return Err(RunError::Stopped { step: state.step, steps: spec.training.steps });
            };
            events.emit(&Event::Compared(compared.clone()))?;
            events.emit(&Event::Samples { samples: samples.clone() })?;
            (Some(compared), samples)
        }
    };

    let finished = Finished {
        adapter: dir.result(),
        adapter_digest,
        steps: state.step,
        best_step,
        validation_loss: state.best.map(|best| best.loss),
        training_seconds: state.seconds,
        tokens: state.tokens,
        tokens_per_second: state.tokens as f64 / state.seconds.max(1e-9),
        peak_memory: runtime::peak_memory(),
    };
    events.emit(&Event::Finished(Box::new(finished.clone())))?;
    let dir_path = dir.path().to_owned();
    let outcome = Outcome { dir: dir_path, finished, compared, samples, reused: false };
    dir.write_outcome(&outcome)?;
    report::write(dir.path(), spec, &[], None)?;
    Ok(outcome)
}

/// The step whose weights are published: the one with the lowest validation loss, if its checkpoint
/// is still whole, else the last.
fn best_step(
    checkpoints: &Checkpoints,
    state: &State,
    events: &mut Events<'_>,
) -> Result<u64, RunError> {
    let Some(best) = state.best.filter(|best| best.step != state.step) else {
        return Ok(state.step);
    };
    let path = checkpoints.path(best.step);
    let Err(why) = checkpoints.check(&path) else { return Ok(best.step) };
    events.emit(&Event::Warning {
        message: format!("the best checkpoint `{}` cannot be used: {why}", path.display()),
        hint: Some("the weights of the last step are used".to_owned()),
    })?;
    Ok(state.step)
}

/// The examples that base and tuned are compared on.
struct HeldOut<'a> {
    split: Split,
    examples: &'a Examples,
    questions: Vec<Question>,
}

impl<'a> HeldOut<'a> {
    /// The test split, or the validation split where there is none.
    fn choose(data: &'a Dataset, spec: &RunSpec) -> Result<Option<Self>, RunError> {
        let (split, examples) = match (data.test.is_empty(), data.validation.is_empty()) {
            (false, _) => (Split::Test, &data.test),
            (true, false) => (Split::Validation, &data.validation),
            (true, true) => return Ok(None),
        };
        let most = match (spec.evaluation.metrics.is_empty(), spec.evaluation.max_examples) {
            (true, _) => SAMPLES,
            (false, 0) => usize::MAX,
            (false, most) => most,
        };
        let questions = examples
            .iter()
            .filter_map(|example| example.map(|example| example.question).transpose());
        let questions = questions.take(most).collect::<Result<_, _>>()?;
        Ok(Some(Self { split, examples, questions }))
    }
}

struct Grading<'a> {
    dir: &'a RunDir,
    files: &'a ModelFiles,
    tokenizer: &'a Tokenizer,
    held_out: &'a HeldOut<'a>,
    stop: &'a AtomicBool,
}

impl Grading<'_> {
    /// The table and the samples; none where the caller stops the run meanwhile.
    fn compare(
        &self,
        session: Session,
        events: &mut Events<'_>,
    ) -> Result<Option<(Compared, Vec<Sample>)>, RunError> {
        events.doing("scoring the tuned model");
        let Some(tuned) = self.grade(&session, Activity::AnsweringTuned, events)? else {
            return Ok(None);
        };
        events.doing("scoring the base model");
        let session = session.into_base(self.dir.spec(), self.files)?;
        let Some(base) = self.grade(&session, Activity::AnsweringBase, events)? else {
            return Ok(None);
        };
        let HeldOut { split, examples, questions } = self.held_out;
        let references: Vec<String> = questions.iter().map(|q| q.answer.clone()).collect();
        let metrics = &self.dir.spec().evaluation.metrics;
        let compared = Compared {
            split: *split,
            examples: examples.len() as u64,
            answered: questions.len() as u64,
            rows: evaluate::compare(&base, &tuned, &references, metrics),
        };
        let answers = base.answers.into_iter().zip(tuned.answers);
        let sample = |(question, (base, tuned)): (&Question, (String, String))| Sample {
            prompt: question.prompt.clone(),
            reference: question.answer.clone(),
            base,
            tuned,
        };
        let samples = questions.iter().zip(answers).take(SAMPLES).map(sample).collect();
        Ok(Some((compared, samples)))
    }

    fn grade(
        &self,
        session: &Session,
        what: Activity,
        events: &mut Events<'_>,
    ) -> Result<Option<Graded>, RunError> {
        let spec = self.dir.spec();
        let tokens = spec.training.micro_batch_tokens;
        let examples = self.held_out.examples;
        let Some(score) = evaluate::score(session, examples, tokens, self.stop, events)? else {
            return Ok(None);
        };
        let questions = &self.held_out.questions;
        let total = questions.len() as u64;
        let on_progress = &mut |done| events.show(&Event::Progress { what, done, total });
        let answers =
            evaluate::answers(session, self.tokenizer, questions, spec, self.stop, on_progress)?;
        Ok(answers.map(|answers| Graded { score, answers }))
    }
}
