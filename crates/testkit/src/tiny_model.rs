//! A tiny model with random weights and a tokenizer of single bytes, as a Hugging Face folder: small
//! enough to train in a test, and with all that a real one has (chat template, special tokens).

mod gguf;

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use serde_json::{Map, Value, json};

pub use gguf::write as write_gguf;

const LAYERS: usize = 2;
const HIDDEN: usize = 32;
const HEADS: usize = 2;
const KEY_VALUE_HEADS: usize = 1;
const HEAD: usize = HIDDEN / HEADS;
const INTERMEDIATE: usize = 64;
const BYTES: usize = 256;
const SPECIAL: [&str; 3] = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"];
const VOCABULARY: usize = BYTES + SPECIAL.len();

/// Same as that of SmolLM2, without its default system message.
const CHAT_TEMPLATE: &str = "{% for message in messages %}{{'<|im_start|>' + message['role'] + '\n' + \
     message['content'] + '<|im_end|>' + '\n'}}{% endfor %}{% if add_generation_prompt %}{{ \
     '<|im_start|>assistant\n' }}{% endif %}";

/// Writes the model's files into `folder`. The same seed gives the same bytes.
pub fn write(folder: &Path, seed: u64) -> Result<()> {
    fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))?;
    let json_files = [
        ("config.json", config()),
        ("generation_config.json", json!({"eos_token_id": [BYTES + 2]})),
        ("tokenizer.json", tokenizer()),
        ("tokenizer_config.json", tokenizer_config()),
    ];
    for (name, value) in json_files {
        fs::write(folder.join(name), serde_json::to_vec_pretty(&value)?)?;
    }
    fs::write(folder.join("model.safetensors"), safetensors(&weights(seed))?)?;
    Ok(())
}

fn config() -> Value {
    json!({
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": VOCABULARY,
        "hidden_size": HIDDEN,
        "intermediate_size": INTERMEDIATE,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS,
        "num_key_value_heads": KEY_VALUE_HEADS,
        "head_dim": HEAD,
        "hidden_act": "silu",
        "max_position_embeddings": 2048,
        "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0,
        "tie_word_embeddings": true,
        "attention_bias": false,
        "mlp_bias": false,
        "bos_token_id": BYTES + 1,
        "eos_token_id": BYTES + 2,
        "pad_token_id": BYTES,
        "torch_dtype": "float32",
    })
}

fn tokenizer() -> Value {
    let byte_level = json!({
        "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true,
    });
    let vocabulary: Map<String, Value> = byte_characters()
        .into_iter()
        .enumerate()
        .map(|(id, character)| (character.to_string(), json!(id)))
        .collect();
    let added: Vec<Value> = SPECIAL
        .iter()
        .enumerate()
        .map(|(index, content)| {
            json!({
                "id": BYTES + index, "content": content, "single_word": false, "lstrip": false,
                "rstrip": false, "normalized": false, "special": true,
            })
        })
        .collect();
    json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": added,
        "normalizer": null, "pre_tokenizer": byte_level, "post_processor": byte_level,
        "decoder": byte_level,
        "model": {
            "type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
            "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false,
            "ignore_merges": false, "vocab": vocabulary, "merges": [],
        },
    })
}

fn tokenizer_config() -> Value {
    json!({
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": SPECIAL[1],
        "eos_token": SPECIAL[2],
        "pad_token": SPECIAL[0],
        "chat_template": CHAT_TEMPLATE,
    })
}

/// The printable character that byte-level tokenizers write for each byte (Radford et al. 2019): itself
/// where it is printable, else the next one from U+0100 on.
fn byte_characters() -> Vec<char> {
    let printable = |byte: u8| matches!(byte, 0x21..=0x7e | 0xa1..=0xac | 0xae..=0xff);
    let mut next = 0x100;
    (0..=u8::MAX)
        .map(|byte| {
            if printable(byte) {
                return char::from(byte);
            }
            let character = char::from_u32(next).unwrap_or('?');
            next += 1;
            character
        })
        .collect()
}

/// Name, shape and values of a tensor.
type Tensor = (String, Vec<usize>, Vec<f32>);

fn weights(seed: u64) -> Vec<Tensor> {
    let mut state = seed;
    let mut matrix = |name: String, outputs: usize, inputs: usize| {
        let values = (0..outputs * inputs).map(|_| 0.15 * unit(&mut state)).collect();
        (name, vec![outputs, inputs], values)
    };
    let ones = |name: String| (name, vec![HIDDEN], vec![1.0; HIDDEN]);
    let mut tensors = vec![matrix("model.embed_tokens.weight".to_owned(), VOCABULARY, HIDDEN)];
    for layer in 0..LAYERS {
        let name = |part: &str| format!("model.layers.{layer}.{part}.weight");
        tensors.extend([
            ones(name("input_layernorm")),
            matrix(name("self_attn.q_proj"), HIDDEN, HIDDEN),
            matrix(name("self_attn.k_proj"), KEY_VALUE_HEADS * HEAD, HIDDEN),
            matrix(name("self_attn.v_proj"), KEY_VALUE_HEADS * HEAD, HIDDEN),
            matrix(name("self_attn.o_proj"), HIDDEN, HIDDEN),
            ones(name("post_attention_layernorm")),
            matrix(name("mlp.gate_proj"), INTERMEDIATE, HIDDEN),
            matrix(name("mlp.up_proj"), INTERMEDIATE, HIDDEN),
            matrix(name("mlp.down_proj"), HIDDEN, INTERMEDIATE),
        ]);
    }
    tensors.push(ones("model.norm.weight".to_owned()));
    tensors
}

/// A number between -1 and 1: the next of splitmix64 (Steele et al. 2014).
fn unit(state: &mut u64) -> f32 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^= z >> 31;
    ((z >> 40) as f32 / (1u64 << 23) as f32) - 1.0
}

/// The tensors as a safetensors file: length of the header, header, values.
fn safetensors(tensors: &[Tensor]) -> Result<Vec<u8>> {
    let mut header = Map::new();
    header.insert("__metadata__".to_owned(), json!({"format": "pt"}));
    let mut values = Vec::new();
    for (name, shape, numbers) in tensors {
        let start = values.len();
        values.extend(numbers.iter().flat_map(|number| number.to_le_bytes()));
        let offsets = [start, values.len()];
        let row = json!({"dtype": "F32", "shape": shape, "data_offsets": offsets});
        header.insert(name.clone(), row);
    }
    let mut header = serde_json::to_vec(&header)?;
    header.resize(header.len().next_multiple_of(8), b' ');
    let mut file = (header.len() as u64).to_le_bytes().to_vec();
    file.extend(header);
    file.extend(values);
    Ok(file)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn every_byte_has_a_character_of_its_own() {
        let mut characters = byte_characters();
        assert_eq!(characters[usize::from(b'\n')], 'Ċ');
        assert_eq!(characters[usize::from(b' ')], 'Ġ');
        characters.sort_unstable();
        characters.dedup();
        assert_eq!(characters.len(), 256);
    }

    #[test]
    fn the_same_seed_gives_the_same_bytes() {
        assert_eq!(safetensors(&weights(7)).unwrap(), safetensors(&weights(7)).unwrap());
        assert_ne!(weights(7)[0].2, weights(8)[0].2);
        assert!(weights(7)[0].2.iter().all(|value| value.abs() <= 0.15));
    }
}
