//! The tiny model as a GGUF file: <https://github.com/ggml-org/ggml/blob/master/docs/gguf.md>.

use std::path::Path;

use anyhow::{Context, Result};

use super::{
    BYTES, CHAT_TEMPLATE, HEAD, HEADS, HIDDEN, INTERMEDIATE, KEY_VALUE_HEADS, LAYERS, SPECIAL,
    Tensor, byte_characters, weights,
};

const ALIGNMENT: usize = 32;
/// Types of values in the header.
const U32: u32 = 4;
const I32: u32 = 5;
const F32: u32 = 6;
const TEXT: u32 = 8;
const ARRAY: u32 = 9;
/// What marks a token that is matched whole.
const NORMAL: i32 = 1;
const CONTROL: i32 = 3;

/// Writes the file. The same seed gives the same bytes.
pub fn write(path: &Path, seed: u64) -> Result<()> {
    let tensors: Vec<Tensor> = weights(seed);
    let header = header();
    let mut file = b"GGUF".to_vec();
    file.extend(3_u32.to_le_bytes());
    file.extend((tensors.len() as u64).to_le_bytes());
    file.extend((header.len() as u64).to_le_bytes());
    for (key, value) in header {
        file.extend(text(key));
        file.extend(value);
    }
    let mut offset = 0;
    for (name, shape, values) in &tensors {
        file.extend(text(&renamed(name)));
        file.extend((shape.len() as u32).to_le_bytes());
        for size in shape.iter().rev() {
            file.extend((*size as u64).to_le_bytes());
        }
        file.extend(0_u32.to_le_bytes());
        file.extend((offset as u64).to_le_bytes());
        offset += (4 * values.len()).next_multiple_of(ALIGNMENT);
    }
    for (_, _, values) in &tensors {
        file.resize(file.len().next_multiple_of(ALIGNMENT), 0);
        file.extend(values.iter().flat_map(|value| value.to_le_bytes()));
    }
    std::fs::write(path, file).with_context(|| format!("cannot write {}", path.display()))
}

fn header() -> Vec<(&'static str, Vec<u8>)> {
    let count = |value: usize| typed(U32, &(value as u32).to_le_bytes());
    let string = |value: &str| typed(TEXT, &text(value));
    let tokens: Vec<String> = byte_characters().into_iter().map(String::from).collect();
    let tokens: Vec<Vec<u8>> = tokens.iter().map(String::as_str).chain(SPECIAL).map(text).collect();
    let kinds = [vec![NORMAL; BYTES], vec![CONTROL; SPECIAL.len()]].concat();
    let kinds: Vec<Vec<u8>> = kinds.iter().map(|kind| kind.to_le_bytes().to_vec()).collect();
    let float = |value: f32| typed(F32, &value.to_le_bytes());
    vec![
        ("general.architecture", string("llama")),
        ("llama.context_length", count(2048)),
        ("llama.embedding_length", count(HIDDEN)),
        ("llama.feed_forward_length", count(INTERMEDIATE)),
        ("llama.block_count", count(LAYERS)),
        ("llama.attention.head_count", count(HEADS)),
        ("llama.attention.head_count_kv", count(KEY_VALUE_HEADS)),
        ("llama.attention.layer_norm_rms_epsilon", float(1e-5)),
        ("llama.rope.freq_base", float(10_000.0)),
        ("llama.rope.dimension_count", count(HEAD)),
        ("tokenizer.ggml.model", string("gpt2")),
        ("tokenizer.ggml.pre", string("smollm")),
        ("tokenizer.ggml.tokens", array(TEXT, &tokens)),
        ("tokenizer.ggml.token_type", array(I32, &kinds)),
        ("tokenizer.ggml.merges", array(TEXT, &[])),
        ("tokenizer.ggml.bos_token_id", count(BYTES + 1)),
        ("tokenizer.ggml.eos_token_id", count(BYTES + 2)),
        ("tokenizer.ggml.padding_token_id", count(BYTES)),
        ("tokenizer.chat_template", string(CHAT_TEMPLATE)),
    ]
}

fn typed(kind: u32, value: &[u8]) -> Vec<u8> {
    [&kind.to_le_bytes(), value].concat()
}

fn array(kind: u32, items: &[Vec<u8>]) -> Vec<u8> {
    let mut value = kind.to_le_bytes().to_vec();
    value.extend((items.len() as u64).to_le_bytes());
    value.extend(items.concat());
    typed(ARRAY, &value)
}

fn text(value: &str) -> Vec<u8> {
    [&(value.len() as u64).to_le_bytes(), value.as_bytes()].concat()
}

/// The name in llama.cpp's spelling.
fn renamed(name: &str) -> String {
    let pairs = [
        ("model.embed_tokens", "token_embd"),
        ("model.norm", "output_norm"),
        ("model.layers", "blk"),
        ("input_layernorm", "attn_norm"),
        ("post_attention_layernorm", "ffn_norm"),
        ("self_attn.q_proj", "attn_q"),
        ("self_attn.k_proj", "attn_k"),
        ("self_attn.v_proj", "attn_v"),
        ("self_attn.o_proj", "attn_output"),
        ("mlp.gate_proj", "ffn_gate"),
        ("mlp.up_proj", "ffn_up"),
        ("mlp.down_proj", "ffn_down"),
    ];
    pairs.iter().fold(name.to_owned(), |name, (ours, theirs)| name.replace(ours, theirs))
}
