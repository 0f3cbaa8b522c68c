//! Each rule of `validate`, with one sample that it accepts and one that it refuses.

#![expect(clippy::unwrap_used, clippy::panic, reason = "tests")]

/// A whole document around fields of `spec`; the smallest one where a field that is needed is not given.
fn document(spec: &str) -> String {
    let mut text = String::from("apiVersion: anneal.dev/v1alpha1\nkind: FineTuneWorkspace\n");
    if !spec.contains("metadata:") {
        text += "metadata: {name: test}\n";
    }
    text += "spec:\n";
    if !spec.contains("baseModel:") {
        text += "  baseModel: {path: m}\n";
    }
    if !spec.contains("data:") {
        text += "  data: {train: {path: d}}\n";
    }
    for line in spec.lines() {
        text += &format!("  {}\n", line.trim());
    }
    text
}

fn faults(spec: &str) -> Vec<String> {
    match api::load("t.yaml", &document(spec)) {
        Ok(_) => Vec::new(),
        Err(faults) => faults
            .iter()
            .map(|fault| format!("{}: {}", fault.field.clone().unwrap_or_default(), fault.message))
            .collect(),
    }
}

fn check(accepted: &str, refused: &str, expected: &str) {
    assert_eq!(faults(accepted), Vec::<String>::new(), "{accepted}");
    assert_eq!(faults(refused), [expected], "{refused}");
}

#[test]
fn sources_are_one_of() {
    check(
        "baseModel: {huggingFace: {repo: a/b}}",
        "baseModel: {path: m, image: a/b}",
        "spec.baseModel: path and image exclude each other",
    );
    check("baseModel: {image: 'a.io/b:c'}", "baseModel: {}", "spec.baseModel: nothing is chosen");
    check(
        "data: {train: {paths: [a, b]}}",
        "data: {train: {path: a, paths: [b]}}",
        "spec.data.train: path and paths exclude each other",
    );
    check(
        "data: {train: {path: a}, test: {fraction: 0.1}}",
        "data: {train: {path: a}, test: {fraction: 0.1, path: b}}",
        "spec.data.test: fraction and path exclude each other",
    );
    check(
        "data: {train: {path: a}}",
        "data: {train: {path: ''}}",
        "spec.data.train.path: the path is empty",
    );
    check(
        "data: {train: {paths: [a]}}",
        "data: {train: {paths: []}}",
        "spec.data.train.paths: must not be empty",
    );
    check(
        "adapter: {full: {}}",
        "adapter: {full: {}, lora: {}}",
        "spec.adapter: lora and full exclude each other",
    );
    check("method: {sft: {}}", "method: {}", "spec.method: nothing is chosen");
}

#[test]
fn names_are_parsed() {
    check(
        "baseModel: {image: 'localhost:5000/a/b@sha256:0000000000000000000000000000000000000000000000000000000000000000'}",
        "baseModel: {image: 'a.io/b@sha256:12'}",
        "spec.baseModel.image: `a.io/b@sha256:12` is not an image reference: its digest is not `sha256:` and 64 hexadecimal digits",
    );
    check(
        "baseModel: {huggingFace: {repo: HuggingFaceTB/SmolLM2-135M-Instruct, revision: v1}}",
        "baseModel: {huggingFace: {repo: SmolLM2}}",
        "spec.baseModel.huggingFace.repo: `SmolLM2` is not a Hugging Face repository",
    );
    check(
        "output: {image: registry.example.com/team/x}",
        "output: {image: 'https://registry.example.com/x'}",
        "spec.output.image: `https://registry.example.com/x` is not an image reference: it has a scheme",
    );
    check(
        "compute: {memory: 4Gi}",
        "compute: {memory: 4 gigs}",
        "spec.compute.memory: `4 gigs` is not a quantity of memory",
    );
    let digest = format!("a.io/b@sha256:{}", "0".repeat(64));
    assert_eq!(
        faults(&format!("output: {{image: '{digest}'}}")),
        ["spec.output.image: a digest cannot be pushed to"]
    );
}

#[test]
fn data_rules() {
    check(
        "data: {train: {path: a}, validation: {fraction: 0.5}}",
        "data: {train: {path: a}, validation: {fraction: 1.0}}",
        "spec.data.validation.fraction: must be above 0 and below 1",
    );
    check(
        "data: {train: {path: a}, validation: {fraction: 0.1}, test: {fraction: 0.8}}",
        "data: {train: {path: a}, validation: {fraction: 0.5}, test: {fraction: 0.5}}",
        "spec.data.validation.fraction: validation and test take 1 of the examples, and none are left",
    );
    check(
        "data: {train: {path: a}, format: Completion, labels: [a, b]}",
        "data: {train: {path: a}, format: Text, labels: [a, b]}",
        "spec.data.labels: has no meaning with `format: Text`",
    );
    check(
        "data: {train: {path: a}, format: Chat, columns: {messages: m}}",
        "data: {train: {path: a}, format: Chat, columns: {prompt: p}}",
        "spec.data.columns.prompt: has no meaning with `format: Chat`",
    );
    check(
        "data: {train: {path: a}, template: {prompt: x, completion: y}}",
        "data: {train: {path: a}, template: {prompt: x, completion: y}, columns: {prompt: p}}",
        "spec.data.columns.prompt: has no meaning beside template, which builds the prompt itself",
    );
    check(
        "data: {train: {path: a}, labels: [a, b]}",
        "data: {train: {path: a}, labels: [a, b, a]}",
        "spec.data.labels[2]: `a` is named twice",
    );
    check(
        "data: {train: {path: a}, labels: []}",
        "data: {train: {path: a}, labels: [a]}",
        "spec.data.labels: one label leaves nothing to decide",
    );
}

#[test]
fn evaluation_rules() {
    check(
        "data: {train: {path: a}, validation: {fraction: 0.1}}\nevaluation: {everySteps: 5}",
        "evaluation: {everySteps: 5}",
        "spec.evaluation.everySteps: there are no validation examples to score",
    );
    check(
        "data: {train: {path: a}, validation: {fraction: 0.1}}\nearlyStopping: {patience: 2}",
        "earlyStopping: {patience: 2}",
        "spec.earlyStopping: there is no validation loss to watch",
    );
    check(
        "data: {train: {path: a}, test: {path: b}}\nevaluation: {maxExamples: 5}",
        "evaluation: {maxExamples: 5}",
        "spec.evaluation.maxExamples: there are no test examples to answer",
    );
    check(
        "data: {train: {path: a}, test: {path: b}, labels: [a, b]}\nevaluation: {metrics: [Accuracy]}",
        "data: {train: {path: a}, test: {path: b}}\nevaluation: {metrics: [Accuracy]}",
        "spec.evaluation.metrics[0]: `Accuracy` needs a closed set of answers",
    );
    check(
        "data: {train: {path: a}, test: {path: b}}\nevaluation: {metrics: [Bleu]}",
        "data: {train: {path: a}, test: {path: b}}\nevaluation: {metrics: [Bleu, Bleu]}",
        "spec.evaluation.metrics[1]: `Bleu` is named twice",
    );
}

#[test]
fn gate_rules() {
    let at = |data: &str, gate: &str| {
        format!("data: {{train: {{path: a}}, {data}}}\nevaluation: {{gate: {gate}}}")
    };
    let test = "test: {fraction: 0.1}";
    let rules = [
        (
            "{metric: Loss, atMost: 0.5}",
            "{metric: Loss, atLeast: 0.5}",
            ".atLeast: has no meaning with `metric: Loss`",
        ),
        (
            "{metric: ExactMatch, atLeast: 0.9}",
            "{metric: ExactMatch, atLeast: 90}",
            ".atLeast: ExactMatch is a share, and at most 1",
        ),
        (
            "{metric: Bleu, atLeast: 30}",
            "{metric: Bleu, atMost: 30}",
            ".atMost: has no meaning with `metric: Bleu`",
        ),
        ("{metric: RougeL}", "{metric: MacroF1}", ": `MacroF1` needs a closed set of answers"),
    ];
    for (accepted, refused, expected) in rules {
        check(&at(test, accepted), &at(test, refused), &format!("spec.evaluation.gate{expected}"));
    }
    check(
        &at("validation: {fraction: 0.1}", "{metric: Loss}"),
        &at("validation: {fraction: 0.1}", "{metric: RougeL}"),
        "spec.evaluation.gate: there are no test examples to answer",
    );
    check(
        &at("validation: {fraction: 0.1}", "{metric: TokenAccuracy}"),
        "evaluation: {gate: {metric: Loss}}",
        "spec.evaluation.gate: there are no held-out examples to score",
    );
    check(
        "data: {train: {path: a}, test: {path: b}}\nevaluation: {metrics: [Bleu], gate: {metric: Bleu}}",
        "data: {train: {path: a}, test: {path: b}}\nevaluation: {metrics: [], gate: {metric: Bleu}}",
        "spec.evaluation.gate: `Bleu` is not among evaluation.metrics",
    );
}

#[test]
fn training_rules() {
    let rules = [
        (
            "{epochs: 2}",
            "{epochs: 2, maxSteps: 10}",
            "maxSteps: both epochs and maxSteps say how long to train",
        ),
        ("{epochs: 0.5}", "{epochs: 0}", "epochs: must be above 0"),
        ("{learningRate: 1e-4}", "{learningRate: 0}", "learningRate: must be above 0"),
        (
            "{learningRateMultiplier: 2}",
            "{learningRate: 1e-4, learningRateMultiplier: 2}",
            "learningRateMultiplier: both learningRate and learningRateMultiplier say how fast to learn",
        ),
        (
            "{warmupSteps: 10, maxSteps: 10}",
            "{warmupSteps: 11, maxSteps: 10}",
            "warmupSteps: 11 steps of warm-up are more than the 10 of the whole run",
        ),
        ("{batchSize: 1}", "{batchSize: 0}", "batchSize: must be at least 1, and is 0"),
        ("{adamBeta1: 0}", "{adamBeta1: 1}", "adamBeta1: must be below 1"),
        ("{warmupRatio: 1}", "{warmupRatio: 1.5}", "warmupRatio: must be at most 1, and is 1.5"),
        ("{maxGradNorm: 0}", "{maxGradNorm: -1}", "maxGradNorm: must be at least 0, and is -1"),
        ("{seed: 0}", "{seed: -1}", "seed: must be at least 0, and is -1"),
        (
            "{microBatchTokens: 8, maxSequenceLength: 8}",
            "{microBatchTokens: 8, maxSequenceLength: 9}",
            "microBatchTokens: 8 tokens do not hold an example of maxSequenceLength 9",
        ),
    ];
    for (accepted, refused, expected) in rules {
        let field = |text: &str| format!("hyperparameters: {text}");
        check(&field(accepted), &field(refused), &format!("spec.hyperparameters.{expected}"));
    }
}

#[test]
fn adapter_rules() {
    let rules = [
        ("{rank: 1}", "{rank: 0}", "rank: must be at least 1, and is 0"),
        ("{alpha: 0.5}", "{alpha: 0}", "alpha: must be above 0"),
        ("{dropout: 0}", "{dropout: 1.0}", "dropout: must be below 1"),
        ("{dropout: 0.99}", "{dropout: 1.01}", "dropout: must be at most 1, and is 1.01"),
        ("{targetModules: [q_proj]}", "{targetModules: []}", "targetModules: must not be empty"),
        (
            "{excludeModules: [q_proj]}",
            "{excludeModules: ['']}",
            "excludeModules[0]: `` names no module",
        ),
        ("{bias: LoraOnly}", "{bias: Some}", "bias: `Some` is not one of None, All, LoraOnly"),
    ];
    for (accepted, refused, expected) in rules {
        let field = |text: &str| format!("adapter: {{lora: {text}}}");
        check(&field(accepted), &field(refused), &format!("spec.adapter.lora.{expected}"));
    }
}

#[test]
fn every_rule_over_several_fields_is_in_the_crd_too() {
    let crd = api::crd_yaml();
    for message in [
        "set exactly one of path, image, huggingFace",
        "set exactly one of path, paths, image",
        "set exactly one of fraction, path, paths, image",
        "set exactly one of lora, full",
        "epochs and maxSteps both say how long to train",
        "metadata.name must be a DNS label",
    ] {
        assert!(crd.contains(message), "no rule says: {message}");
    }
}

#[test]
fn the_committed_crds_are_those_that_the_types_give() {
    for (kind, yaml) in
        [("finetuneworkspaces", api::crd_yaml()), ("modelservers", api::model_server_crd_yaml())]
    {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../deploy/crds");
        let path = format!("{folder}/{kind}.anneal.dev.yaml");
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            std::fs::write(&path, &yaml).unwrap();
        }
        let committed = std::fs::read_to_string(path).unwrap_or_default();
        assert!(committed == yaml, "deploy/crds is stale: run `cargo xtask gen`");
    }
}

#[test]
fn a_valid_file_is_read_whole() {
    let text = document(
        "adapter: {lora: {rank: 8, targetModules: [q_proj]}}\nhyperparameters: {learningRate: 1e-4}",
    );
    let (workspace, document) =
        api::load("t.yaml", &text).unwrap_or_else(|faults| panic!("{faults:?}"));
    let api::valid::Adapter::Lora(lora) = &workspace.adapter else { panic!("not LoRA") };
    assert_eq!(lora.rank, Some(8));
    assert_eq!(workspace.hyperparameters.learning_rate, api::valid::LearningRate::Exactly(1e-4));
    assert_eq!(document.positions.line("spec.adapter.lora.rank"), Some(7));
    assert_eq!(document.positions.line("spec.adapter.lora.alpha"), Some(7));
}

#[test]
fn every_sample_is_valid() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../deploy/samples");
    let mut count = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let text = std::fs::read_to_string(&path).unwrap();
        let name = path.file_name().unwrap().to_str().unwrap();
        if text.contains("kind: ModelServer") {
            continue;
        }
        api::load(name, &text).unwrap_or_else(|faults| panic!("{}", faults[0]));
        count += 1;
    }
    assert!(count >= 5, "only {count} samples in {folder}");
}
