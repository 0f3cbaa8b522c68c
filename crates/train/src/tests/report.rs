//! The report shows what happened, and only that.

use serde_json::json;

use crate::event::{Compared, Comparison, Event, Record, Sample, Split, Step};
use crate::report::{Reason, Report, render};

fn step(number: u64) -> Event {
    Event::Step(Step {
        step: number,
        steps: 10,
        epoch: 0.1,
        loss: 2.0 / number as f64,
        grad_norm: 1.0,
        learning_rate: 1.4e-3,
        token_accuracy: 0.5,
        tokens: 100,
        tokens_per_second: 250.0,
        eta_seconds: None,
    })
}

fn page(events: Vec<Event>) -> String {
    let lora = json!({
        "rank": 16, "alpha": 32.0, "dropout": 0.0, "targetModules": ["all-linear"],
        "excludeModules": [], "rslora": false, "bias": "None", "modulesToSave": [],
    });
    let spec = serde_json::from_value(json!({
        "version": api::run_spec::RUN_SPEC_VERSION, "name": "a <b>", "revision": "0123456789ab",
        "baseModel": {"path": "model", "reference": "base", "digest": null},
        "data": {
            "train": ["t"], "validation": "none", "test": "none", "format": "Text",
            "maxSequenceLength": 64, "overlong": "Fault", "duplicates": "Drop",
        },
        "method": "sft",
        "adapter": {"lora": lora},
        "training": {
            "steps": 10, "epochs": 0.272_727_272_727, "batchSize": 8, "microBatchTokens": 64,
            "learningRate": 2e-4, "schedule": "Cosine", "warmupSteps": 2, "weightDecay": 0.0,
            "adamBeta1": 0.9, "adamBeta2": 0.999, "adamEpsilon": 1e-8, "maxGradNorm": 1.0,
            "precision": "FP32", "activationCheckpointing": false, "seed": 42,
        },
        "evaluation": {
            "everySteps": 4, "metrics": [], "maxNewTokens": 6, "maxExamples": 0,
            "earlyStopping": null,
        },
        "checkpoints": {"everySteps": 3, "keep": 2},
        "compute": {"device": "CPU", "threads": null},
        "output": {"dir": "run"},
    }))
    .unwrap();
    let records: Vec<Record> = events.into_iter().map(|event| Record { at: 1, event }).collect();
    let reasons =
        [Reason { name: "rank".to_owned(), reason: "enough for this much data".to_owned() }];
    render(&Report { spec: &spec, records: &records, reasons: &reasons, published: None })
}

#[test]
fn curves_scores_answers_and_reasons_are_shown_and_text_is_escaped() {
    let row = |metric: &str, base, tuned| Comparison {
        metric: metric.to_owned(),
        base,
        tuned,
        higher_is_better: metric != "loss",
    };
    let html = page(vec![
        step(1),
        step(2),
        Event::Compared(Compared {
            split: Split::Test,
            examples: 1200,
            answered: 200,
            rows: vec![row("loss", 2.5, 0.034), row("accuracy", 0.5, 0.875)],
        }),
        Event::Samples {
            samples: vec![Sample {
                prompt: "<script>".to_owned(),
                reference: "yes".to_owned(),
                base: "no & no".to_owned(),
                tuned: "yes".to_owned(),
            }],
        },
        Event::Warning { message: "a checkpoint was damaged".to_owned(), hint: None },
    ]);
    for shown in [
        "<h1>a &lt;b&gt;</h1>",
        "1,200 test examples",
        "Answers were generated for 200 of them.",
        "2.5 → 0.034",
        "50.0 % → 87.5 %",
        "+37.5 points",
        "&lt;script&gt;",
        "no &amp; no",
        "enough for this much data",
        "<td class=value>2e-4",
        "<td class=value>0.272727<",
        "a checkpoint was damaged",
        "Learning rate",
    ] {
        assert!(html.contains(shown), "{shown} is not shown");
    }
    for hidden in ["<script", "http", "url(", "@import", "NaN"] {
        assert!(!html.contains(hidden), "{hidden} is in the page");
    }
}

#[test]
fn a_run_that_has_only_begun_has_a_report_too() {
    let html = page(vec![step(1)]);
    assert!(html.contains("Hyperparameters") && !html.contains("<svg"));
}
