//! When the run is scored and saved, and by what.

use api::Workspace;
use api::run_spec::{Checkpoints, Evaluation, Format, Metric};

use super::Made;
use super::adapter::Chosen;
use super::length::Length;
use crate::gate;
use crate::inputs::Inputs;

/// Scorings and checkpoints in a run.
const TIMES: u64 = 10;
/// Full fine-tuning writes the whole model and its optimizer each time.
const TIMES_FULL: u64 = 3;
/// Seconds after which a checkpoint is written in any case.
const EVERY: u64 = 600;
const EVERY_FULL: u64 = 1800;
/// Share of the training tokens that scorings may go through in all.
const SHARE: f64 = 0.5;
/// Test examples that answers are generated for.
const TEST_EXAMPLES: u32 = 200;
/// Answers may be this much longer than the mean of those in the data.
const ROOM: u64 = 4;
const SHORTEST_ANSWER: u64 = 16;
const LONGEST_ANSWER: u64 = 512;

pub(super) fn choose(
    workspace: &Workspace,
    inputs: &Inputs,
    length: Length,
    made: &mut Made,
) -> Evaluation {
    let stated = &workspace.evaluation;
    let every_steps = every(workspace, inputs, length, made);
    let has_answers = inputs.data.test.examples > 0 && inputs.data.format != Some(Format::Text);
    let mut evaluation = Evaluation {
        every_steps,
        metrics: Vec::new(),
        max_new_tokens: SHORTEST_ANSWER as usize,
        max_examples: TEST_EXAMPLES as usize,
        early_stopping: workspace.early_stopping.clone(),
    };
    if !has_answers {
        return evaluation;
    }
    evaluation.metrics = made.choose("evaluation.metrics", stated.metrics.clone(), || {
        let (mut metrics, mut reason) = if workspace.data.labels.is_empty() {
            (vec![Metric::ExactMatch, Metric::RougeL], "answers are free text".to_owned())
        } else {
            (vec![Metric::Accuracy, Metric::MacroF1], "answers are one of data.labels".to_owned())
        };
        let gated = gate::of_answers(stated.gate.as_ref());
        if let Some(metric) = gated.filter(|metric| !metrics.contains(metric)) {
            metrics.push(metric);
            reason += &format!(", and the gate is of {metric:?}");
        }
        (metrics, reason)
    });
    let given = stated.max_new_tokens.map(|tokens| tokens as usize);
    evaluation.max_new_tokens = made.choose("evaluation.maxNewTokens", given, || {
        let train = &inputs.data.train;
        let mean = train.label_tokens.div_ceil(train.examples.max(1));
        let tokens = (mean * ROOM).next_multiple_of(16).clamp(SHORTEST_ANSWER, LONGEST_ANSWER);
        (tokens as usize, format!("answers in the data have {mean} tokens on average"))
    });
    let given = stated.max_examples.map(|examples| examples as usize);
    evaluation.max_examples = made.choose("evaluation.maxExamples", given, || {
        (
            TEST_EXAMPLES as usize,
            format!("of {} test examples, to end soon", inputs.data.test.examples),
        )
    });
    evaluation
}

fn every(workspace: &Workspace, inputs: &Inputs, length: Length, made: &mut Made) -> u64 {
    let data = &inputs.data;
    if data.validation.examples == 0 {
        return 0;
    }
    made.choose("evaluation.everySteps", workspace.evaluation.every_steps, || {
        // A scoring is one of the three passes of a training step.
        let trained = data.train.tokens as f64 * length.epochs;
        let affordable = SHARE * trained / data.validation.tokens.max(1) as f64;
        let times = (affordable as u64).clamp(1, TIMES);
        let every = length.steps.div_ceil(times);
        let counted = if times == 1 { "once".to_owned() } else { format!("{times} times") };
        (every, format!("{counted} in {} steps", length.steps))
    })
}

pub(super) fn checkpoints(
    workspace: &Workspace,
    length: Length,
    adapter: &Chosen,
    made: &mut Made,
) -> Checkpoints {
    let stated = &workspace.checkpoints;
    let (times, every) = if adapter.is_full() { (TIMES_FULL, EVERY_FULL) } else { (TIMES, EVERY) };
    let every_steps = made.choose("checkpoints.everySteps", stated.every_steps, || {
        (length.steps.div_ceil(times), format!("{times} times in {} steps", length.steps))
    });
    // Who wants none gets none.
    let none = stated.every.is_none() && stated.every_steps == Some(0);
    let stated_seconds = stated.every.map(|every| every.as_secs());
    let every_seconds = if none { 0 } else { stated_seconds.unwrap_or(every) };
    if !none {
        let reason = if stated.every.is_some() { "as stated" } else { "no more than this is lost" };
        let text = match (every_seconds / 60, every_seconds % 60) {
            (minutes, 0) => format!("{minutes}m"),
            _ => format!("{every_seconds}s"),
        };
        made.note("checkpoints.every", &text, reason, stated.every.is_some());
    }
    let keep = made.choose("checkpoints.keep", stated.keep.map(|keep| keep as usize), || {
        (2, "the last one, and the one before in case it is damaged".to_owned())
    });
    Checkpoints { every_steps, every_seconds, keep }
}
