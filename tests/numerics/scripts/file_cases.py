"""Inputs of the file fixtures: hard strings, conversations, configurations. No values are computed here."""

HARD_STRINGS = [
    "",
    " ",
    "  ",
    "\n",
    "\n\n  \n",
    "\t\tindented\n\ttwice",
    "Hello, world!",
    " leading and trailing ",
    "two  spaces   three    four",
    "It's they're I'll WE'LL can't 'tis",
    "12345 007 3.14159 1,000,000 2^10 v1.2.3",
    "½ ² ٣ ५ Ⅷ",
    "naïve café — “quotes” … ½",
    "cafe\u0301 e\u0301 n\u0303",
    "日本語のテキスト、中文测试。한국어",
    "Привет, мир! مرحبا بالعالم שלום",
    "emoji 😀👩‍👩‍👧‍👦🇩🇪 ✨",
    "zero\u200bwidth\u00a0nbsp\u3000ideographic",
    "def f(x):\n    return x**2  # comment\n\n\nclass A: pass\r\n",
    "http://example.org/a?b=c&d=%20#frag",
    "<|im_start|>user\nHi<|im_end|>\n<|endoftext|>",
    "<|im_start |> <|IM_END|> <s></s> <bos><eos>",
    "<0x41> <unk> <pad> [PAD] \u2581 \u2581\u2581x",
    "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
    "CamelCaseAndsnake_case-and-kebab",
    "\u0000\u0001\u007f control",
    "{\"name\": \"x\", \"values\": [1, 2.5, null]}",
    "ﬁ ligature Å Å ㎏",
    "end with newline\n",
    "end with spaces   ",
]

WEATHER = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "The weather's state at a <place> & time",
        "parameters": {
            "type": "object",
            "properties": {"place": {"type": "string"}, "days": {"type": "integer", "default": 1}},
            "required": ["place"],
        },
    },
}

CONVERSATIONS = {
    "one": [{"role": "user", "content": "Hi"}],
    "system": [
        {"role": "system", "content": "  Be brief.\n"},
        {"role": "user", "content": "What is 2+2?"},
        {"role": "assistant", "content": " 4 \n"},
        {"role": "user", "content": "Größe? 日本 \"quoted\" <b>&amp;</b>"},
    ],
    "answered": [
        {"role": "user", "content": "Line one\nline two\n"},
        {"role": "assistant", "content": "<think>\nhm\n</think>\n\nDone."},
    ],
    "thinking": [
        {"role": "user", "content": "q"},
        {"role": "assistant", "content": "a", "reasoning_content": "\nbecause\n"},
        {"role": "user", "content": "q2"},
        {"role": "assistant", "content": "<think>x</think>a2"},
    ],
    "tool": [
        {"role": "user", "content": "Weather in Bern?"},
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [
                {"type": "function", "function": {"name": "weather", "arguments": {"place": "Bern", "days": 2, "exact": True, "unit": None, "share": 0.5}}}
            ],
        },
        {"role": "tool", "content": "{\"sun\": 1.0}"},
        {"role": "assistant", "content": "Sunny."},
    ],
    "not_alternating": [
        {"role": "user", "content": "a"},
        {"role": "user", "content": "b"},
    ],
    "parts": [
        {"role": "user", "content": [{"type": "text", "text": " one "}, {"type": "image"}, {"type": "text", "text": "two"}]},
    ],
    "python": [
        {"role": "user", "content": "banana\nbread", "name": "ann", "flags": {"on": True, "none": None, "number": 1.0, "list": [1, "b", False]}},
        {"role": "skip", "content": "never"},
        {"role": "stop"},
        {"role": "user", "content": "never"},
    ],
}

SMALL = {
    "vocab_size": 64,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
}
LLAMA3_ROPE = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}
FACTORS = [1.0, 1.5, 2.0, 4.0]

CONFIGS = {
    "llama_old": {"model_type": "llama", **SMALL, "num_key_value_heads": 2, "rope_theta": 500000.0, "torch_dtype": "bfloat16", "rms_norm_eps": 1e-5, "bos_token_id": 1, "eos_token_id": [2, 3]},
    "llama_new": {"model_type": "llama", **SMALL, "num_key_value_heads": 2, "rope_parameters": {"rope_type": "default", "rope_theta": 500000.0}, "dtype": "bfloat16", "rms_norm_eps": 1e-5, "attention_bias": True, "mlp_bias": True, "tie_word_embeddings": True},
    "llama_bare": {"model_type": "llama", **SMALL},
    "llama_head_dim": {"model_type": "llama", **SMALL, "head_dim": 16, "num_key_value_heads": 1, "pad_token_id": 0},
    "llama31_old": {"model_type": "llama", **SMALL, "max_position_embeddings": 131072, "rope_theta": 500000.0, "rope_scaling": LLAMA3_ROPE},
    "llama31_new": {"model_type": "llama", **SMALL, "max_position_embeddings": 131072, "rope_parameters": {**LLAMA3_ROPE, "rope_theta": 500000.0}},
    "llama_linear_old": {"model_type": "llama", **SMALL, "rope_scaling": {"type": "linear", "factor": 2.0}},
    "mistral_old": {"model_type": "mistral", **SMALL, "num_key_value_heads": 2, "rope_theta": 10000.0, "sliding_window": 4096},
    "mistral_no_window": {"model_type": "mistral", **SMALL, "num_key_value_heads": 2, "sliding_window": None, "head_dim": 16},
    "mistral_bare": {"model_type": "mistral", **SMALL, "num_key_value_heads": 2},
    "qwen2_old": {"model_type": "qwen2", **SMALL, "num_key_value_heads": 2, "rope_theta": 1000000.0, "sliding_window": 32768, "use_sliding_window": False, "max_window_layers": 21, "tie_word_embeddings": True, "eos_token_id": 5},
    "qwen2_window": {"model_type": "qwen2", **SMALL, "num_key_value_heads": 2, "sliding_window": 8, "use_sliding_window": True, "max_window_layers": 1},
    "qwen2_yarn": {"model_type": "qwen2", **SMALL, "num_key_value_heads": 2, "max_position_embeddings": 131072, "rope_theta": 1000000.0, "rope_scaling": {"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32768}},
    "qwen3_old": {"model_type": "qwen3", **SMALL, "num_key_value_heads": 2, "head_dim": 16, "rope_theta": 1000000, "rope_scaling": None, "attention_bias": False},
    "qwen3_new": {"model_type": "qwen3", **SMALL, "num_key_value_heads": 2, "rope_parameters": {"rope_theta": 1000000, "rope_type": "default"}, "layer_types": ["full_attention", "full_attention"]},
    "gemma3_text_old": {"model_type": "gemma3_text", **SMALL, "num_hidden_layers": 7, "num_key_value_heads": 1, "head_dim": 16, "query_pre_attn_scalar": 16, "sliding_window": 512, "sliding_window_pattern": 6, "rope_theta": 1000000.0, "rope_local_base_freq": 10000.0, "rope_scaling": {"rope_type": "linear", "factor": 8.0}, "hidden_activation": "gelu_pytorch_tanh"},
    "gemma3_text_new": {"model_type": "gemma3_text", **SMALL, "num_key_value_heads": 1, "head_dim": 16, "sliding_window": 512, "layer_types": ["sliding_attention", "full_attention"], "rope_parameters": {"full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1000000.0}, "sliding_attention": {"rope_type": "default", "rope_theta": 20000.0}}},
    "gemma3_vision": {"model_type": "gemma3", "eos_token_id": [1, 106], "torch_dtype": "bfloat16", "text_config": {"model_type": "gemma3_text", "hidden_size": 2560, "intermediate_size": 10240, "num_hidden_layers": 34, "rope_scaling": {"factor": 8.0, "rope_type": "linear"}, "sliding_window": 1024}, "vision_config": {"model_type": "siglip_vision_model"}},
    "phi3_old": {"model_type": "phi3", **SMALL, "original_max_position_embeddings": 4096, "max_position_embeddings": 131072, "rope_theta": 10000.0, "rope_scaling": {"type": "longrope", "short_factor": FACTORS, "long_factor": FACTORS}, "sliding_window": 262144},
    "phi3_partial": {"model_type": "phi3", **SMALL, "num_key_value_heads": 2, "partial_rotary_factor": 0.75, "rope_theta": 10000.0},
    "phi3_new": {"model_type": "phi3", **SMALL, "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": 0.75}, "tie_word_embeddings": True},
}
