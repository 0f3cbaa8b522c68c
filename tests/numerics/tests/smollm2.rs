//! SmolLM2 answers greedily as it does in transformers.
#![expect(clippy::unwrap_used, reason = "tests")]

use lm::files::ModelFiles;
use lm::generate::{Flow, GenerateOptions, generate};
use lm::model::{LoadOptions, Model};
use lm::tokenizer::Tokenizer;
use serde_json::Value;
use tch::{Device, Kind};

#[test]
fn greedy_tokens_of_five_prompts_are_those_of_transformers() {
    let files = ModelFiles::open(&testkit::smollm2().unwrap()).unwrap();
    let tokenizer = Tokenizer::open(&files).unwrap();
    let model = Model::load(
        &files,
        LoadOptions { kind: Kind::Float, device: Device::Cpu, quantization: None },
    )
    .unwrap();
    let fixture = tests_numerics::fixtures().join("smollm2_greedy.json");
    let fixture: Value = serde_json::from_slice(&std::fs::read(fixture).unwrap()).unwrap();
    let prompts = fixture["prompts"].as_array().unwrap();
    let ids: Vec<Vec<u32>> = prompts.iter().map(|prompt| numbers(&prompt["prompt_ids"])).collect();
    for (prompt, ids) in prompts.iter().zip(&ids) {
        let text = prompt["rendered"].as_str().or(prompt["text"].as_str()).unwrap();
        assert_eq!(&tokenizer.encode(text, false).unwrap(), ids, "{text}");
    }
    let stop = tokenizer.eos().to_vec();
    let options =
        GenerateOptions { max_new_tokens: 32, stop: stop.clone(), ..GenerateOptions::default() };
    let together = generate(&model, &ids, &options, &mut |_, _| Flow::Continue);
    for (prompt, ours) in prompts.iter().zip(&together) {
        // The token that ends an answer is not part of ours.
        let mut theirs = numbers(&prompt["tokens"]);
        theirs.retain(|id| !stop.contains(id));
        assert_eq!(ours, &theirs, "{prompt}");
    }
    let alone = generate(&model, &ids[2..3], &options, &mut |_, _| Flow::Continue);
    assert_eq!(alone[0], together[2], "an answer does not depend on the batch");
}

fn numbers(list: &Value) -> Vec<u32> {
    list.as_array().unwrap().iter().map(|id| id.as_u64().unwrap() as u32).collect()
}
