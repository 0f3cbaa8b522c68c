//! Single rules of planning.

#![expect(clippy::unwrap_used, reason = "tests")]

use api::{DataFacts, LinearFacts, MachineFacts, SplitFacts, Workspace};
use plan::{Inputs, Resolved, Sources, histogram, resolve, targets};

#[path = "shapes/mod.rs"]
mod shapes;

fn workspace(spec: &str) -> Workspace {
    let text = format!(
        "apiVersion: anneal.dev/v1alpha1\nkind: FineTuneWorkspace\nmetadata: {{name: test}}\nspec:\n  \
         baseModel: {{path: m}}\n  data: {{train: {{path: d}}, validation: {{fraction: 0.1}}}}\n{spec}"
    );
    api::load("t.yaml", &text).unwrap().0
}

fn split(examples: u64, length: u64, label_tokens: u64) -> SplitFacts {
    SplitFacts {
        examples,
        tokens: examples * length,
        label_tokens,
        longest: length,
        lengths: vec![length as u32; examples.min(1000) as usize],
        shared: 0,
    }
}

fn inputs() -> Inputs {
    Inputs {
        model: shapes::named("smollm2-135m"),
        data: DataFacts {
            digest: "sha256:d".into(),
            train: split(900, 64, 4500),
            validation: split(100, 64, 500),
            ..DataFacts::default()
        },
        machine: MachineFacts { cpus: 2, memory: 8 << 30, bf16: true, gpu: None },
        sources: Sources {
            base_model: api::run_spec::BaseModel {
                path: "m".into(),
                reference: "m".into(),
                digest: Some("sha256:m".into()),
            },
            train: vec!["d".into()],
            validation: Vec::new(),
            test: Vec::new(),
            output_dir: ".anneal/test".into(),
        },
    }
}

fn planned(spec: &str) -> Resolved {
    resolve(&workspace(spec), &inputs()).unwrap()
}

fn refused(spec: &str, inputs: &Inputs) -> String {
    let faults = resolve(&workspace(spec), inputs).unwrap_err();
    faults.iter().map(|fault| format!("{fault}\n")).collect()
}

#[test]
fn the_revision_changes_with_what_training_depends_on_and_with_nothing_else() {
    let base = planned("").run_spec.revision;
    assert_eq!(base.len(), 12);
    let same = [
        "  output: {dir: elsewhere}",
        "  checkpoints: {everySteps: 3}",
        "  compute: {cpu: 1}",
        "  hyperparameters: {microBatchTokens: 64}",
        "  hyperparameters: {activationCheckpointing: true}",
        "  hyperparameters: {seed: 42}",
    ];
    for spec in same {
        assert_eq!(planned(spec).run_spec.revision, base, "{spec}");
    }
    let other = [
        "  hyperparameters: {seed: 1}",
        "  hyperparameters: {learningRate: 1e-4}",
        "  hyperparameters: {precision: FP32}",
        "  hyperparameters: {batchSize: 2}",
        "  adapter: {full: {}}",
        "  adapter: {lora: {rank: 4}}",
        "  adapter: {lora: {targetModules: [q_proj]}}",
        "  earlyStopping: {}",
    ];
    for spec in other {
        assert_ne!(planned(spec).run_spec.revision, base, "{spec}");
    }
    let mut data = inputs();
    data.data.digest = "sha256:e".into();
    assert_ne!(resolve(&workspace(""), &data).unwrap().run_spec.revision, base);
    let mut moved = inputs();
    moved.sources.base_model.path = "elsewhere".into();
    moved.sources.train = vec!["elsewhere".into()];
    assert_eq!(resolve(&workspace(""), &moved).unwrap().run_spec.revision, base);
}

#[test]
fn every_choice_has_a_reason_and_what_was_stated_wins() {
    let resolved = planned("  hyperparameters: {learningRate: 3e-4, epochs: 2, batchSize: 4}");
    assert!(resolved.reasons.iter().all(|choice| !choice.reason.is_empty()));
    let training = &resolved.run_spec.training;
    assert_eq!((training.steps, training.batch_size), (450, 4));
    assert!((training.learning_rate - 3e-4).abs() < 1e-12);
    let given: Vec<&str> = resolved
        .reasons
        .iter()
        .filter(|choice| choice.given)
        .map(|choice| choice.field.as_str())
        .collect();
    assert_eq!(
        given,
        ["hyperparameters.batchSize", "hyperparameters.epochs", "hyperparameters.learningRate"]
    );
}

#[test]
fn less_memory_costs_micro_batches_then_checkpointing_then_refusal() {
    let plan = |memory: u64| {
        let mut inputs = inputs();
        inputs.machine.memory = memory;
        inputs.data.train = split(900, 512, 4500);
        resolve(&workspace(""), &inputs).map(|resolved| resolved.run_spec.training)
    };
    let roomy = plan(16 << 30).unwrap();
    assert_eq!((roomy.micro_batch_tokens, roomy.activation_checkpointing), (1024, false));
    let mut seen = vec![(roomy.micro_batch_tokens, roomy.activation_checkpointing)];
    let mut megabytes = 4000;
    while let Ok(training) = plan(megabytes * 1_000_000) {
        seen.push((training.micro_batch_tokens, training.activation_checkpointing));
        megabytes -= 20;
    }
    seen.dedup();
    assert_eq!(seen, [(1024, false), (512, false), (512, true)]);
    let mut small = inputs();
    small.machine.memory = 300_000_000;
    let text = refused("", &small);
    assert!(text.starts_with("spec.compute.memory: the run needs about "), "{text}");
    assert!(text.contains("and may use 300 MB: "), "{text}");
    assert!(text.contains(" are short\n  hint: "), "{text}");
}

#[test]
fn a_rank_above_the_layer_is_refused_and_a_chosen_one_never_is() {
    let text = refused("  adapter: {lora: {rank: 200}}", &inputs());
    assert_eq!(
        text,
        "spec.adapter.lora.rank: rank 200 is larger than the layer `model.layers.0.self_attn.k_proj` (192 x 576)\n  \
         hint: use a rank of at most 192, or leave the layer out with excludeModules\n"
    );
    let mut tiny = inputs();
    tiny.model = shapes::named("tiny");
    let resolved = resolve(&workspace(""), &tiny).unwrap();
    let api::run_spec::Adapter::Lora(lora) = resolved.run_spec.adapter else {
        unreachable!("LoRA is the default")
    };
    assert_eq!(lora.rank, 8);
}

#[test]
fn faults_of_the_data_are_told() {
    let mut none = inputs();
    none.data.train = SplitFacts::default();
    assert!(refused("", &none).starts_with("spec.data.train: there are no training examples"));
    let mut one = inputs();
    one.data.train = split(1, 10, 3);
    assert!(refused("", &one).starts_with("spec.data.train: there is only one training example"));
    let mut unlearned = inputs();
    unlearned.data.train.label_tokens = 0;
    assert!(
        refused("", &unlearned).starts_with("spec.data.train: no token of the training examples")
    );
    let mut empty = inputs();
    empty.data.validation = SplitFacts::default();
    assert!(
        refused("", &empty)
            .starts_with("spec.data.validation.fraction: the validation split holds no example")
    );
    let mut bad = inputs();
    bad.data.faults = vec![api::Fault {
        file: Some("d".into()),
        line: Some(3),
        message: "bad".into(),
        ..api::Fault::default()
    }];
    bad.data.fault_count = 1201;
    assert_eq!(refused("", &bad), "d:3: bad\nspec.data: and 1,200 more faults in the data\n");
}

#[test]
fn sequences_above_the_context_are_refused() {
    let text = refused("  hyperparameters: {maxSequenceLength: 9000}", &inputs());
    assert!(text.starts_with("spec.hyperparameters.maxSequenceLength: 9,000 tokens are more than the model's context of 8,192"), "{text}");
}

#[test]
fn targets_are_chosen_by_name_and_by_pattern() {
    let linears: Vec<LinearFacts> =
        ["m.0.q_proj", "m.0.v_proj", "m.1.q_proj", "m.1.v_proj", "lm_head"]
            .iter()
            .map(|name| LinearFacts { name: (*name).into(), outputs: 4, inputs: 4 })
            .collect();
    let choose = |targets: &[&str], exclude: &[&str]| {
        let own = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        targets::choose(&linears, &own(targets), &own(exclude), "lora").map(|targets| targets.names)
    };
    assert_eq!(choose(&["all-linear"], &[]).unwrap(), ["q_proj", "v_proj"]);
    assert_eq!(choose(&["q_proj", "lm_head"], &[]).unwrap(), ["q_proj", "lm_head"]);
    assert_eq!(choose(&["all-linear"], &["m.1.q_proj"]).unwrap(), ["m.0.q_proj", "v_proj"]);
    assert_eq!(choose(&[r"m\.[0]\..*"], &[]).unwrap(), ["m.0.q_proj", "m.0.v_proj"]);
    let fault =
        |targets: &[&str], exclude: &[&str]| choose(targets, exclude).unwrap_err()[0].to_string();
    assert_eq!(
        fault(&["q_prj"], &[]),
        "lora.targetModules[0]: no linear layer of the model matches `q_prj`\n  hint: did you mean `q_proj`? The model has lm_head, q_proj, v_proj"
    );
    assert_eq!(
        fault(&["q_proj"], &["q_proj"]),
        "lora.excludeModules: takes out every layer that targetModules names\n  hint: name fewer layers"
    );
    assert!(
        fault(&["(q_proj"], &[]).contains("cannot be read as a pattern: error: unclosed group")
    );
}

#[test]
fn odd_settings_are_warned_of() {
    let warned = |spec: &str| {
        planned(spec).warnings.iter().map(|fault| fault.message.clone()).collect::<Vec<_>>()
    };
    assert_eq!(warned(""), Vec::<String>::new());
    assert_eq!(warned("  hyperparameters: {batchSize: 64}").len(), 1);
    assert_eq!(warned("  hyperparameters: {batchSize: 1000}").len(), 1);
    assert_eq!(warned("  hyperparameters: {learningRate: 0.5}").len(), 1);
}

#[test]
fn warm_up_beyond_the_run_is_refused() {
    let text =
        refused("  hyperparameters: {epochs: 1, batchSize: 100, warmupSteps: 10}", &inputs());
    assert!(text.contains("10 steps of warm-up are more than the 9 of the whole run"), "{text}");
}

#[test]
fn a_histogram_counts_every_example_once() {
    let mut split = split(10, 5, 1);
    split.lengths = vec![1, 1, 2, 3, 5, 8, 13, 21, 34, 55];
    let buckets = histogram(&split, 4);
    assert_eq!(buckets.iter().map(|bucket| bucket.examples).sum::<u64>(), 10);
    assert_eq!((buckets[0].from, buckets[0].to, buckets[0].examples), (1, 14, 7));
    assert!(histogram(&SplitFacts::default(), 4).is_empty());
}
