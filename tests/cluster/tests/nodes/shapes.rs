//! What GPU memory models of known shapes need, by the estimate that preflight makes.

use api::run_spec::BaseModel;
use api::{DataFacts, MachineFacts, SplitFacts, Workspace};
use plan::{Inputs, Sources};

#[path = "../../../../crates/plan/tests/shapes/mod.rs"]
mod known;

/// Bytes of the smallest GPU that holds a LoRA run of a model, or with `-all` a run of all weights, whose
/// longest example has so many tokens.
pub(crate) fn least(model: &str, longest: u64) -> u64 {
    let (model, adapter) = match model.strip_suffix("-all") {
        Some(model) => (model, "adapter: {full: {}}"),
        None => (model, ""),
    };
    let text = format!(
        "apiVersion: anneal.dev/v1alpha1\nkind: FineTuneWorkspace\nmetadata: {{name: snippets}}\n\
         spec:\n  baseModel: {{path: model}}\n  data: {{train: {{path: train.jsonl}}}}\n  {adapter}\n"
    );
    let workspace: Workspace = api::load("workspace.yaml", &text).unwrap().0;
    plan::least(&workspace, &inputs(model, longest)).unwrap().memory
}

fn inputs(model: &str, longest: u64) -> Inputs {
    let train = SplitFacts {
        examples: 10_000,
        tokens: 10_000 * longest / 2,
        label_tokens: 10_000 * longest / 4,
        longest,
        lengths: vec![(longest / 2) as u32, longest as u32],
        shared: 0,
    };
    Inputs {
        model: known::named(model),
        data: DataFacts {
            digest: "sha256:data".to_owned(),
            format: Some(api::run_spec::Format::Chat),
            train,
            ..DataFacts::default()
        },
        machine: MachineFacts { cpus: 8, memory: 32 << 30, bf16: true, gpu: None },
        sources: Sources {
            base_model: BaseModel {
                path: "model".into(),
                reference: "model".to_owned(),
                digest: Some("sha256:base".to_owned()),
            },
            train: vec!["train.jsonl".into()],
            validation: Vec::new(),
            test: Vec::new(),
            output_dir: ".anneal/snippets".into(),
        },
    }
}
