//! A run learns, keeps what was best, and says so.
#![expect(clippy::unwrap_used, reason = "tests")]

mod support;

use serde_json::json;
use support::{Workbench, steps};
use train::event::Event;

#[test]
fn the_loss_falls_and_the_adapter_beats_the_base() {
    let bench = Workbench::new();
    let spec = bench.spec(&json!({"training": {"steps": 60}, "evaluation": {"everySteps": 20}}));
    let (outcome, events) = bench.run(&spec);
    let outcome = outcome.unwrap();

    let steps = steps(&events);
    assert_eq!(steps.len(), 60);
    assert!(steps[59].loss < 0.6 * steps[0].loss, "{} to {}", steps[0].loss, steps[59].loss);
    assert!(steps[59].eta_seconds.unwrap().abs() < 1e-9);
    let compared = outcome.compared.unwrap();
    assert_eq!((compared.examples, compared.answered), (6, 6));
    for row in &compared.rows {
        let better =
            if row.higher_is_better { row.tuned >= row.base } else { row.tuned < row.base };
        assert!(better, "{row:?}");
    }
    assert_eq!(outcome.samples.len(), 3);
    assert!(outcome.finished.adapter.join("adapter_model.safetensors").is_file());
    assert!(outcome.finished.peak_memory > 10_000_000);

    let report = std::fs::read_to_string(bench.output().join("report.html")).unwrap();
    assert!(report.contains("Token accuracy") && report.contains("<svg"));
    assert!(!report.contains("http"), "the report loads nothing");
}

#[test]
fn the_same_run_gives_the_same_adapter_and_is_not_repeated() {
    let (first, second) = (Workbench::new(), Workbench::new());
    let digest = |bench: &Workbench| {
        let (outcome, _) = bench.run(&bench.spec(&json!({})));
        outcome.unwrap().finished.adapter_digest
    };
    let one = digest(&first);
    assert_eq!(one, digest(&second));

    let (again, events) = first.run(&first.spec(&json!({})));
    let again = again.unwrap();
    assert!(again.reused);
    assert_eq!(again.finished.adapter_digest, one);
    assert!(steps(&events).is_empty());
    assert!(matches!(events.last(), Some(Event::Finished(_))));

    // Another specification in the same folder is another run, inside it.
    let other = first.spec(&json!({"training": {"seed": 1}, "revision": "ba9876543210"}));
    let (outcome, _) = first.run(&other);
    let outcome = outcome.unwrap();
    assert_eq!(outcome.dir, first.output().join("ba9876543210"));
    assert_ne!(outcome.finished.adapter_digest, one);
}

#[test]
fn early_stopping_ends_the_run_and_publishes_the_best_step() {
    let bench = Workbench::new();
    // So high a rate that the loss soon rises again.
    let spec = bench.spec(&json!({
        "training": {"steps": 200, "learningRate": 0.3, "schedule": "Constant"},
        "evaluation": {"everySteps": 2, "earlyStopping": {"patience": 3, "minDelta": 0.0}},
        "checkpoints": {"everySteps": 1, "keep": 1},
    }));
    let (outcome, events) = bench.run(&spec);
    let finished = outcome.unwrap().finished;
    let stopped = events.iter().find_map(|event| match event {
        Event::StoppedEarly { step, best_step, evaluations } => {
            Some((*step, *best_step, *evaluations))
        }
        _ => None,
    });
    let (step, best_step, evaluations) = stopped.unwrap();
    assert_eq!((finished.steps, finished.best_step, evaluations), (step, best_step, 3));
    assert_eq!(best_step, step - 6);

    let validated = events.iter().filter_map(|event| match event {
        Event::Validated { step, loss, .. } if *step > 0 => Some((*step, *loss)),
        _ => None,
    });
    let best = validated.min_by(|a, b| a.1.total_cmp(&b.1)).unwrap();
    assert_eq!(best, (best_step, finished.validation_loss.unwrap()));
    let saved = bench.output().join(format!("checkpoints/step-{best_step:08}/adapter"));
    let bytes =
        |folder: &std::path::Path| std::fs::read(folder.join("adapter_model.safetensors")).unwrap();
    assert_eq!(bytes(&saved), bytes(&finished.adapter));
}

#[test]
fn full_fine_tuning_leaves_a_model_of_its_own() {
    let bench = Workbench::new();
    let changes = json!({"training": {"steps": 20, "learningRate": 0.005}});
    let mut spec = bench.spec(&changes);
    spec.adapter = api::run_spec::Adapter::Full;
    let (outcome, events) = bench.run(&spec);
    let outcome = outcome.unwrap();
    let steps = steps(&events);
    assert!(steps[19].loss < 0.7 * steps[0].loss, "{} to {}", steps[0].loss, steps[19].loss);
    let loss = &outcome.compared.unwrap().rows[0];
    assert!(loss.tuned < loss.base);

    // The result is a base model again.
    let model = outcome.finished.adapter;
    let mut next = bench.spec(&json!({"output": {"dir": bench.path().join("next")}}));
    next.base_model.path = model;
    let (outcome, _) = bench.run(&next);
    let base = outcome.unwrap().compared.unwrap().rows[0].base;
    assert!((base - loss.tuned).abs() < 1e-5, "{base} against {}", loss.tuned);
}
