//! The memory that a plan announces is what the run then takes, within 15 %.

use serde_json::{Value, json};
use tests_local::{Project, of_kind};

/// How far the estimate may be off.
const TOLERANCE: f64 = 0.15;

#[test]
fn the_announced_memory_is_what_a_run_takes() {
    let base = testkit::base_model::smollm2().unwrap();
    let shapes = [
        ("fp32", "precision: FP32, batchSize: 2, microBatchTokens: 1024"),
        ("bf16", "precision: BF16, batchSize: 4, microBatchTokens: 2048"),
        (
            "checkpointing",
            "precision: FP32, batchSize: 4, microBatchTokens: 2048, activationCheckpointing: true",
        ),
    ];
    for (name, numbers) in shapes {
        let project = Project::new().unwrap();
        project.write("long.jsonl", &texts()).unwrap();
        let workspace = format!(
            "apiVersion: anneal.dev/v1alpha1\nkind: FineTuneWorkspace\nmetadata: {{name: {name}}}\n\
             spec:\n  baseModel: {{path: {}}}\n  data: {{train: {{path: long.jsonl}}}}\n  \
             hyperparameters: {{maxSteps: 2, {numbers}}}\n  checkpoints: {{everySteps: 0}}\n",
            base.display()
        );
        project.write("tune.yaml", &workspace).unwrap();
        let plan = project.run(&["plan", "-f", "tune.yaml", "-o", "json"]).unwrap();
        let plan: Value = serde_json::from_str(&plan.stdout).unwrap();
        let announced = plan["estimate"]["memoryTotal"].as_f64().unwrap();
        let events = project.train().unwrap();
        let taken = of_kind(&events, "finished")[0]["peakMemory"].as_f64().unwrap();
        let ratio = announced / taken;
        assert!(
            (ratio - 1.0).abs() <= TOLERANCE,
            "{name}: announced {:.0} MB, taken {:.0} MB: {ratio:.2}",
            announced / 1e6,
            taken / 1e6
        );
    }
}

/// Sixteen texts of about 400 tokens.
fn texts() -> String {
    let words = ["the", "film", "was", "good", "and", "the", "story", "light", "with", "music"];
    (0..16)
        .map(|number| {
            let words = (0..400).map(|index| words[(index * 7 + number) % words.len()]);
            format!("{}\n", json!({"text": words.collect::<Vec<_>>().join(" ")}))
        })
        .collect()
}
