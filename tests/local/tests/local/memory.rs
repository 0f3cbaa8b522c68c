//! The memory that a plan announces is what the run then takes, within 15 %.

use serde_json::{Value, json};
use tests_local::{Project, of_kind};

/// How far the estimate may be off.
const TOLERANCE: f64 = 0.15;
/// One example at once.
const ONE: &str = "maxSteps: 2, precision: FP32, batchSize: 1, microBatchTokens: 512";

#[test]
fn the_announced_memory_is_what_a_run_takes() {
    let base = testkit::base_model::smollm2().unwrap();
    // What it is, its shortest text in words, its numbers, and what else the spec has.
    let shapes = [
        ("fp32", 400, "maxSteps: 2, precision: FP32, batchSize: 2, microBatchTokens: 1024", ""),
        ("bf16", 400, "maxSteps: 2, precision: BF16, batchSize: 4, microBatchTokens: 2048", ""),
        (
            "checkpointing",
            400,
            "maxSteps: 2, precision: FP32, batchSize: 4, microBatchTokens: 2048, \
             activationCheckpointing: true",
            "",
        ),
        ("many lengths", 10, "maxSteps: 10, precision: BF16, batchSize: 8", ""),
        (
            "batches that do not fill the budget",
            10,
            "maxSteps: 6, precision: FP32, batchSize: 8, microBatchTokens: 8192",
            "",
        ),
        (
            "the same in bf16",
            10,
            "maxSteps: 6, precision: BF16, batchSize: 8, microBatchTokens: 8192",
            "",
        ),
        ("dropout", 400, ONE, "adapter: {lora: {rank: 16, dropout: 0.1}}"),
        ("a high rank", 400, ONE, "adapter: {lora: {rank: 128}}"),
        ("all weights", 400, ONE, "adapter: {full: {}}"),
        (
            "NF4",
            400,
            "maxSteps: 2, precision: BF16, batchSize: 1, microBatchTokens: 512",
            "quantization: NF4",
        ),
        (
            "NF4 with checkpointing",
            400,
            "maxSteps: 2, precision: BF16, batchSize: 2, microBatchTokens: 1024, \
             activationCheckpointing: true",
            "quantization: NF4",
        ),
        ("Int8", 400, ONE, "quantization: Int8"),
    ];
    for (name, shortest, numbers, more) in shapes {
        let project = Project::new().unwrap();
        project.write("long.jsonl", &texts(shortest)).unwrap();
        let workspace = format!(
            "apiVersion: anneal.dev/v1alpha1\nkind: FineTuneWorkspace\nmetadata: {{name: memory}}\n\
             spec:\n  baseModel: {{path: {}}}\n  data: {{train: {{path: long.jsonl}}}}\n  \
             hyperparameters: {{{numbers}}}\n  checkpoints: {{everySteps: 0}}\n  {more}\n",
            base.display(),
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

/// Texts of `shortest` to about 400 words, most of which are a token each.
fn texts(shortest: usize) -> String {
    let words = ["the", "film", "was", "good", "and", "the", "story", "light", "with", "music"];
    let text = |number: usize| {
        let length = shortest + (400 - shortest) * (number * 29 % 80) / 80;
        let words: Vec<_> = (0..length).map(|at| words[(at * 7 + number) % words.len()]).collect();
        format!("{}\n", json!({"text": words.join(" ")}))
    };
    (0..80).map(text).collect()
}
