//! Which GPU a run takes, for models of five sizes and what is stated: `sizes/NAME.yaml` holds each.
//! `UPDATE_GOLDEN=1` writes them anew.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::fs;
use std::path::Path;

use api::run_spec::BaseModel;
use api::{DataFacts, MachineFacts, SplitFacts, Workspace};
use plan::{Catalogue, Inputs, Sizing, Sources, sizing};

#[path = "shapes/mod.rs"]
mod shapes;

/// A model's name, what the spec states, and the longest example.
const CASES: [(&str, &str, &str, u64); 9] = [
    ("smallest", "smollm2-135m", "", 800),
    ("small_all_weights", "qwen-0.6b", "adapter: {full: {}}", 2000),
    ("middle", "llama-3b", "", 2000),
    ("eight_billion", "llama-8b", "", 2000),
    ("eight_billion_long", "llama-8b", "", 32_000),
    ("eight_billion_all_weights", "llama-8b", "adapter: {full: {}}", 2000),
    (
        "eight_billion_no_checkpointing",
        "llama-8b",
        "hyperparameters: {activationCheckpointing: false}",
        4000,
    ),
    ("seventy_billion", "llama-70b", "", 2000),
    ("more_than_any_has", "llama-70b", "hyperparameters: {precision: FP32}", 2000),
];

#[test]
fn sizes_are_as_they_were() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/sizes");
    let mut wrong = Vec::new();
    for (name, model, stated, longest) in CASES {
        let found = size(model, stated, longest, &Catalogue::built_in());
        let found = serde_yaml::to_string(&serde_json::to_value(&found).unwrap()).unwrap();
        let path = folder.join(format!("{name}.yaml"));
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            fs::write(&path, &found).unwrap();
        }
        let expected = fs::read_to_string(path).unwrap_or_default();
        if found != expected {
            wrong.push(format!("{name}\n--- expected\n{expected}\n--- found\n{found}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// What is chosen holds the run, and no smaller product does.
#[test]
fn the_smallest_that_holds_it() {
    let catalogue = Catalogue::built_in();
    assert!(catalogue.products.len() >= 8);
    let chosen = size("llama-8b", "", 2000, &catalogue).unwrap().chosen.unwrap();
    assert!(chosen.needs <= chosen.memory);
    let smaller = Catalogue {
        products: catalogue
            .products
            .into_iter()
            .filter(|one| one.memory() < chosen.memory)
            .collect(),
    };
    assert!(size("llama-8b", "", 2000, &smaller).is_none_or(|sizing| sizing.chosen.is_none()));
}

/// A workspace that asks for the CPU gets no GPU.
#[test]
fn the_cpu_needs_no_gpu() {
    let none = size("smollm2-135m", "compute: {device: CPU}", 800, &Catalogue::built_in());
    assert_eq!(none, None);
}

/// A catalogue of one's own adds products, and changes those of the same name.
#[test]
fn a_catalogue_of_ones_own() {
    let own = Catalogue::read(
        r#"{"products": [{"name": "Small 8GB", "labels": ["Small"], "memoryMib": 8192,
            "bf16Tflops": 50, "instances": {"own": [{"type": "small-1", "gpus": 1}]}}]}"#,
    )
    .unwrap();
    let catalogue = Catalogue::built_in().with(own.clone()).with(own);
    assert_eq!(catalogue.products.len(), Catalogue::built_in().products.len() + 1);
    let chosen = size("smollm2-135m", "", 800, &catalogue).unwrap().chosen.unwrap();
    assert_eq!(chosen.product, "Small 8GB");
    assert_eq!(chosen.instances["own"].type_, "small-1");
    let error = Catalogue::read("{\"product\": []}").unwrap_err().to_string();
    assert!(error.contains("unknown field `product`"), "{error}");
}

fn size(model: &str, stated: &str, longest: u64, catalogue: &Catalogue) -> Option<Sizing> {
    let (workspace, inputs) = run(model, stated, longest);
    sizing(&workspace, &inputs, catalogue)
}

fn run(model: &str, stated: &str, longest: u64) -> (Workspace, Inputs) {
    let text = format!(
        "apiVersion: anneal.dev/v1alpha1\nkind: FineTuneWorkspace\nmetadata: {{name: snippets}}\n\
         spec:\n  baseModel: {{path: model}}\n  data: {{train: {{path: train.jsonl}}}}\n  {stated}\n"
    );
    let workspace: Workspace = api::load("workspace.yaml", &text).unwrap().0;
    (workspace, inputs(model, longest))
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
        model: shapes::named(model),
        data: DataFacts {
            digest: "sha256:data".to_owned(),
            format: Some(api::run_spec::Format::Chat),
            train,
            ..DataFacts::default()
        },
        // Preflight runs on a machine without a GPU.
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

/// The least memory that holds a run is that of the smallest product that holds it, or less, and no
/// product with less holds it.
#[test]
fn the_least_memory_is_between_two_products() {
    let catalogue = Catalogue::built_in();
    for (name, model, stated, longest) in CASES {
        let (workspace, inputs) = run(model, stated, longest);
        let found = plan::least(&workspace, &inputs).unwrap();
        assert!(found.resolved.estimate.memory_total <= found.memory, "{name}");
        let sizing = sizing(&workspace, &inputs, &catalogue).unwrap();
        let holds = |memory: u64| memory >= found.memory;
        match &sizing.chosen {
            Some(chosen) => assert!(holds(chosen.memory), "{name}: {}", found.memory),
            None => assert!(!catalogue.products.iter().any(|one| holds(one.memory())), "{name}"),
        }
        let smaller = catalogue.products.iter().take_while(|one| {
            sizing.chosen.as_ref().is_some_and(|chosen| one.name != chosen.product)
        });
        assert!(smaller.map(plan::catalogue::Product::memory).all(|one| !holds(one)), "{name}");
    }
}

/// What would make a run smaller is told with what it comes to, the cheapest first, and each comes to less than
/// those before it; a run that asks for no nodes is told nothing.
#[test]
fn changes_that_make_a_run_smaller_are_tried() {
    let asked = |model: &str, stated: &str, longest: u64| {
        let (workspace, inputs) = run(model, stated, longest);
        plan::preflight(&workspace, &inputs).unwrap().1.unwrap()
    };
    let nodes = "compute: {nodes: {}}";
    let fp32 = format!("{nodes}\n  hyperparameters: {{precision: FP32}}");
    let found = asked("llama-70b", &fp32, 2000);
    let words: Vec<&str> = found.smaller.iter().map(|one| one.change.as_str()).collect();
    assert_eq!(words[0], "set `precision: BF16`");
    assert!(words.contains(&"set `quantization: NF4` (QLoRA)"), "{words:?}");
    let mut last = found.memory;
    for one in &found.smaller {
        assert!(one.gpu_memory < last, "{found:?}");
        last = one.gpu_memory;
    }
    // What is told is what the run comes to, once it is changed so.
    let half = format!("{nodes}\n  hyperparameters: {{precision: BF16}}");
    assert_eq!(asked("llama-70b", &half, 2000).memory, found.smaller[0].gpu_memory);

    let full = asked("llama-8b", &format!("{nodes}\n  adapter: {{full: {{}}}}"), 2000);
    assert!(full.smaller[0].change.starts_with("train an adapter"), "{full:?}");
    let long = asked("llama-8b", nodes, 64_000);
    let shorter = long
        .smaller
        .iter()
        .any(|one| one.change.contains("maxSequenceLength: 32000` and `overlong: Truncate`"));
    assert!(shorter, "{long:?}");
    assert!(asked("llama-8b", "compute: {gpus: 1}", 2000).smaller.is_empty());
}
