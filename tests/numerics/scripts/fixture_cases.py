"""The tiny models that the reference numbers are made for: one entry per case, written as the
`config.json` that such a model comes with. Half of them use the older spellings."""

COMMON = {
    "vocab_size": 131,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "rms_norm_eps": 1e-5,
    "hidden_act": "silu",
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}

CASES = {
    # Plain Llama 2: every head has its own key, embeddings tied. New spellings.
    "llama": {
        **COMMON,
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "num_key_value_heads": 4,
        "tie_word_embeddings": True,
        "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0},
        "dtype": "float32",
    },
    # Llama 3.1: grouped keys, rope scaled by wavelength, head not tied. Old spellings.
    "llama3": {
        **COMMON,
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "tie_word_embeddings": False,
        "rope_theta": 10000.0,
        "rope_scaling": {
            "rope_type": "llama3",
            "factor": 4.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 16,
        },
        "torch_dtype": "float32",
    },
    # Llama with a bias on every linear layer, for the adapters that train them.
    "llama_bias": {
        **COMMON,
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "attention_bias": True,
        "mlp_bias": True,
        "tie_word_embeddings": False,
        "rope_theta": 10000.0,
        "torch_dtype": "float32",
    },
    # The window is shorter than both sequences.
    "mistral": {
        **COMMON,
        "architectures": ["MistralForCausalLM"],
        "model_type": "mistral",
        "head_dim": 16,
        "sliding_window": 7,
        "tie_word_embeddings": False,
        "rope_theta": 10000.0,
        "torch_dtype": "float32",
    },
    # Bias on queries, keys and values alone.
    "qwen2": {
        **COMMON,
        "architectures": ["Qwen2ForCausalLM"],
        "model_type": "qwen2",
        "rms_norm_eps": 1e-6,
        "tie_word_embeddings": True,
        "rope_theta": 1000000.0,
        "sliding_window": 8,
        "use_sliding_window": False,
        "max_window_layers": 2,
        "torch_dtype": "float32",
    },
    # Queries and keys normalised per head, heads wider than hidden / heads.
    "qwen3": {
        **COMMON,
        "architectures": ["Qwen3ForCausalLM"],
        "model_type": "qwen3",
        "rms_norm_eps": 1e-6,
        "head_dim": 16,
        "attention_bias": False,
        "tie_word_embeddings": False,
        "rope_parameters": {"rope_type": "default", "rope_theta": 1000000.0},
        "use_sliding_window": False,
        "dtype": "float32",
    },
    # Qwen3 with the rope that it uses for long contexts.
    "qwen3_yarn": {
        **COMMON,
        "architectures": ["Qwen3ForCausalLM"],
        "model_type": "qwen3",
        "rms_norm_eps": 1e-6,
        "num_hidden_layers": 1,
        "head_dim": 16,
        "attention_bias": False,
        "tie_word_embeddings": True,
        "rope_theta": 10000.0,
        "rope_scaling": {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16},
        "use_sliding_window": False,
        "torch_dtype": "float32",
    },
    # Sliding and full layers, each with a rope of its own; the window is shorter than both
    # sequences.
    "gemma3_text": {
        **COMMON,
        "architectures": ["Gemma3ForCausalLM"],
        "model_type": "gemma3_text",
        "num_hidden_layers": 3,
        "num_key_value_heads": 1,
        "head_dim": 16,
        "rms_norm_eps": 1e-6,
        "query_pre_attn_scalar": 24,
        "sliding_window": 5,
        "layer_types": ["sliding_attention", "sliding_attention", "full_attention"],
        "rope_parameters": {
            "sliding_attention": {"rope_type": "default", "rope_theta": 10000.0},
            "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1000000.0},
        },
        "hidden_activation": "gelu_pytorch_tanh",
        "tie_word_embeddings": True,
        "dtype": "float32",
    },
    # Fused projections; rope over half of each head with factors for short and for long
    # sequences: one of the two sequences is short and the other long.
    "phi3": {
        **COMMON,
        "architectures": ["Phi3ForCausalLM"],
        "model_type": "phi3",
        "hidden_size": 64,
        "original_max_position_embeddings": 16,
        "partial_rotary_factor": 0.5,
        "sliding_window": 11,
        "tie_word_embeddings": False,
        "rope_theta": 10000.0,
        "rope_scaling": {
            "type": "longrope",
            "short_factor": [1.0, 1.05, 1.1, 1.2],
            "long_factor": [1.0, 1.5, 2.5, 4.0],
        },
        "torch_dtype": "float32",
    },
}
del CASES["gemma3_text"]["hidden_act"]

# Adapters of the Llama cases beside the default one, which every case has: case, and what differs
# from the default `LoraConfig` of `make_model_fixtures.py`.
VARIANTS = {
    # Dropout with masks that we draw as well, see `dropout_mask` of `make_model_fixtures.py`.
    "dropout": ("llama3", {"lora_dropout": 0.3}),
    "rslora": ("llama3", {"use_rslora": True}),
    "bias_all": ("llama_bias", {"bias": "all", "target_modules": ["q_proj", "down_proj"]}),
    "bias_lora_only": ("llama_bias", {"bias": "lora_only", "target_modules": ["q_proj", "down_proj"]}),
    "modules_to_save": (
        "llama3",
        {"modules_to_save": ["embed_tokens", "lm_head"], "target_modules": ["q_proj", "v_proj"]},
    ),
}
