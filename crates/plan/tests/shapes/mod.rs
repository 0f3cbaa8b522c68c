//! Facts of models of known shapes.

use api::{LinearFacts, ModelFacts};

/// A model by its name in `facts.yaml`.
pub(crate) fn named(name: &str) -> ModelFacts {
    match name {
        "smollm2-135m" => llama(30, 576, 9, 3, 64, 1536, 49_152, 8192, true),
        "qwen-0.6b" => llama(28, 1024, 16, 8, 128, 3072, 151_936, 40_960, true),
        "llama-3b" => llama(28, 3072, 24, 8, 128, 8192, 128_256, 131_072, true),
        "llama-8b" => llama(32, 4096, 32, 8, 128, 14_336, 128_256, 131_072, false),
        "llama-70b" => llama(80, 8192, 64, 8, 128, 28_672, 128_256, 131_072, false),
        "tiny" => llama(2, 16, 4, 2, 4, 32, 128, 64, true),
        other => unreachable!("no model is named {other}"),
    }
}

#[expect(
    clippy::too_many_arguments,
    reason = "the shape of a model, in the order of its configuration"
)]
fn llama(
    layers: u64,
    hidden: u64,
    heads: u64,
    key_value_heads: u64,
    head_dim: u64,
    inner: u64,
    vocabulary: u64,
    context: u64,
    tied: bool,
) -> ModelFacts {
    let (queries, keys) = (heads * head_dim, key_value_heads * head_dim);
    let mut linears = Vec::new();
    for layer in 0..layers {
        for (name, outputs, inputs) in [
            ("self_attn.q_proj", queries, hidden),
            ("self_attn.k_proj", keys, hidden),
            ("self_attn.v_proj", keys, hidden),
            ("self_attn.o_proj", hidden, queries),
            ("mlp.gate_proj", inner, hidden),
            ("mlp.up_proj", inner, hidden),
            ("mlp.down_proj", hidden, inner),
        ] {
            linears.push(LinearFacts {
                name: format!("model.layers.{layer}.{name}"),
                outputs,
                inputs,
            });
        }
    }
    if !tied {
        linears.push(LinearFacts { name: "lm_head".into(), outputs: vocabulary, inputs: hidden });
    }
    let matrices: u64 = linears.iter().map(|linear| linear.inputs * linear.outputs).sum();
    ModelFacts {
        model_type: "llama".into(),
        parameters: matrices + vocabulary * hidden + (2 * layers + 1) * hidden,
        hidden_size: hidden,
        intermediate_size: inner,
        layers,
        attention_heads: heads,
        key_value_heads,
        head_dim,
        vocabulary,
        context,
        tied_embeddings: tied,
        quantization: api::run_spec::Quantization::None,
        linears,
    }
}
