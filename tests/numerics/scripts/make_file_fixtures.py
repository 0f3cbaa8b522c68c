"""Makes fixtures/files: GGUF blocks, small models as GGUF, tokenizers, chat templates, configurations.

Every expected value is computed by transformers, gguf-py or tokenizers; see requirements.txt.
Usage: make_file_fixtures.py [SMOLLM2.gguf]
The argument adds the tokens of the hard strings under SmolLM2's own tokenizer.
"""

import copy
import datetime
import json
import pathlib
import shutil
import sys
import tempfile
import warnings

import numpy as np
import torch
import transformers
from gguf import GGMLQuantizationType as Type
from gguf import MODEL_ARCH_NAMES, GGUFWriter, TokenType, dequantize, get_tensor_name_map
from gguf.constants import GGML_QUANT_SIZES
from safetensors.torch import save_file
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer
from transformers.modeling_gguf_pytorch_utils import LlamaTensorProcessor
from transformers.utils import chat_template_utils

from file_cases import CONFIGS, CONVERSATIONS, HARD_STRINGS, WEATHER

OUT = pathlib.Path(__file__).parent.parent / "fixtures" / "files"
TYPES = ["F32", "F16", "BF16", "Q4_0", "Q4_1", "Q5_0", "Q8_0", "Q4_K", "Q5_K", "Q6_K"]
# Where the half-precision scales lie in a block: random bytes there could be NaN.
HALVES = {"Q4_0": [0], "Q4_1": [0, 2], "Q5_0": [0], "Q8_0": [0], "Q4_K": [0, 2], "Q5_K": [0, 2], "Q6_K": [208]}
NOW = datetime.datetime(2025, 2, 28, 9, 5, 7)


def write(path, value):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n")


# GGUF blocks


def blocks(name, rows, columns, random):
    """Random blocks of a type, as bytes [rows, bytes of a row]; scales are finite, some subnormal or negative."""
    if name == "F32":
        return random.standard_normal((rows, columns)).astype(np.float32)
    if name == "F16":
        return random.standard_normal((rows, columns)).astype(np.float16)
    if name == "BF16":
        values = torch.from_numpy(random.standard_normal((rows, columns)).astype(np.float32)).bfloat16()
        return values.view(torch.uint8).numpy()
    elements, size = GGML_QUANT_SIZES[Type[name]]
    data = random.integers(0, 256, (rows * columns // elements, size), dtype=np.uint8)
    for at in HALVES[name]:
        scales = (random.standard_normal(len(data)) * 0.05).astype(np.float16)
        scales[0] = np.float16(3e-7)
        data[:, at : at + 2] = scales.view(np.uint8).reshape(-1, 2)
    return data.reshape(rows, -1)


def make_quants():
    random = np.random.default_rng(1)
    for name in TYPES:
        path = OUT / "quants" / f"{name.lower()}.gguf"
        path.parent.mkdir(parents=True, exist_ok=True)
        writer = GGUFWriter(path, "llama")
        for key, value in {"block_count": 1, "embedding_length": 256, "feed_forward_length": 256, "context_length": 64}.items():
            writer.add_uint32(f"llama.{key}", value)
        writer.add_uint32("llama.attention.head_count", 4)
        writer.add_uint32("llama.attention.head_count_kv", 2)
        expected = {}
        for tensor, hf, rows in [
            ("token_embd.weight", "model.embed_tokens.weight", 5),
            ("blk.0.attn_q.weight", "model.layers.0.self_attn.q_proj.weight", 16),
            ("blk.0.attn_k.weight", "model.layers.0.self_attn.k_proj.weight", 8),
        ]:
            data = blocks(name, rows, 256, random)
            writer.add_tensor(tensor, data, raw_dtype=Type[name])
            values = dequantize(data, Type[name])
            processor = LlamaTensorProcessor({"num_attention_heads": 4, "num_key_value_heads": 2})
            values = processor.process(values, tensor).weights
            expected[hf] = torch.from_numpy(np.copy(values).astype(np.float32))
        finish(writer)
        save_file(expected, path.with_suffix(".safetensors"))


def finish(writer):
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


# Small models as GGUF

ARCHS = {
    "llama": ("llama", {"num_key_value_heads": 2, "rope_parameters": {"rope_type": "default", "rope_theta": 500000.0}}),
    "llama_untied": ("llama", {"num_key_value_heads": 4, "tie_word_embeddings": False}),
    "qwen2": ("qwen2", {"num_key_value_heads": 2}),
    "qwen3": ("qwen3", {"num_key_value_heads": 2, "head_dim": 128}),
    "gemma3": ("gemma3_text", {"num_key_value_heads": 1, "head_dim": 16, "sliding_window": 16, "num_hidden_layers": 7}),
    "phi3": ("phi3", {"num_key_value_heads": 2, "pad_token_id": 0}),
}


def to_gguf_values(arch, name, weights, config):
    """What llama.cpp's converter does to the values: the inverse of what transformers undoes."""
    if arch == "llama" and (".attn_q." in name or ".attn_k." in name):
        heads = config.num_attention_heads if ".attn_q." in name else config.num_key_value_heads
        shape = weights.shape
        weights = weights.reshape(heads, 2, shape[0] // heads // 2, *shape[1:])
        return weights.swapaxes(1, 2).reshape(shape)
    if arch == "gemma3" and "norm.weight" in name:
        return weights + 1
    return weights


def make_archs():
    for case, (model_type, changes) in ARCHS.items():
        arch = {"gemma3_text": "gemma3"}.get(model_type, model_type)
        settings = {"vocab_size": 48, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1, "num_attention_heads": 4,
                    "tie_word_embeddings": True, "max_position_embeddings": 128, "bos_token_id": 1, "eos_token_id": 2}
        config = AutoConfig.for_model(model_type, **{**settings, **changes})
        torch.manual_seed(3)
        model = AutoModelForCausalLM.from_config(config)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.normal_()
        path = OUT / "archs" / f"{case}.gguf"
        path.parent.mkdir(parents=True, exist_ok=True)
        writer = GGUFWriter(path, arch)
        write_config(writer, arch, config)
        writer.add_tokenizer_model("gpt2")
        writer.add_token_list([f"t{i}" for i in range(48)])
        number = next(key for key, value in MODEL_ARCH_NAMES.items() if value == arch)
        names = get_tensor_name_map(number, config.num_hidden_layers)
        for name, tensor in model.state_dict().items():
            if name == "lm_head.weight" and config.tie_word_embeddings:
                continue
            gguf_name = names.get_name(name, try_suffixes=(".weight", ".bias"))
            data = to_gguf_values(arch, gguf_name, tensor.numpy(), config)
            # Norms stay fp32 in real files too.
            data = data.astype(np.float32 if data.ndim == 1 else np.float16)
            writer.add_tensor(gguf_name, np.ascontiguousarray(data))
        finish(writer)
        loaded = AutoModelForCausalLM.from_pretrained(path.parent, gguf_file=path.name, dtype=torch.float32)
        state = {name: tensor.contiguous().half() if tensor.ndim == 2 else tensor for name, tensor in loaded.state_dict().items()}
        if config.tie_word_embeddings:
            state.pop("lm_head.weight", None)
        save_file({name: tensor.clone() for name, tensor in state.items()}, path.with_suffix(".safetensors"))
        write(path.with_suffix(".json"), expected_config(loaded.config))


def write_config(writer, arch, config):
    writer.add_uint32(f"{arch}.block_count", config.num_hidden_layers)
    writer.add_uint32(f"{arch}.context_length", config.max_position_embeddings)
    writer.add_uint32(f"{arch}.embedding_length", config.hidden_size)
    writer.add_uint32(f"{arch}.feed_forward_length", config.intermediate_size)
    writer.add_uint32(f"{arch}.attention.head_count", config.num_attention_heads)
    writer.add_uint32(f"{arch}.attention.head_count_kv", config.num_key_value_heads)
    writer.add_float32(f"{arch}.attention.layer_norm_rms_epsilon", config.rms_norm_eps)
    rope = config.rope_parameters.get("full_attention", config.rope_parameters)
    writer.add_float32(f"{arch}.rope.freq_base", rope["rope_theta"])
    head = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    writer.add_uint32(f"{arch}.rope.dimension_count", head)
    # The legacy loader of transformers reads no head size for Qwen 3, so its default has to be met.
    if arch in ("gemma3", "qwen3"):
        writer.add_uint32(f"{arch}.attention.key_length", head)
    if arch == "gemma3":
        writer.add_uint32(f"{arch}.attention.sliding_window", config.sliding_window)
    writer.add_uint32("tokenizer.ggml.bos_token_id", config.bos_token_id)
    writer.add_uint32("tokenizer.ggml.eos_token_id", config.eos_token_id)
    writer.add_uint32("tokenizer.ggml.padding_token_id", 0)


# Configurations


def expected_config(config):
    """The fields of a configuration as transformers understood them."""
    text = config.get_text_config()
    head = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
    layers = getattr(text, "layer_types", None)
    if layers is None:
        window = getattr(text, "sliding_window", None)
        layers = ["full_attention" if window is None else "sliding_attention"] * text.num_hidden_layers
    bare = copy.deepcopy(text)
    bare.pad_token_id = None  # the default can lie outside a small vocabulary
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(bare)
    tied = text.tie_word_embeddings
    shapes = {name: list(t.shape) for name, t in model.state_dict().items() if not (tied and name == "lm_head.weight")}
    names = ["vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads",
             "rms_norm_eps", "max_position_embeddings", "bos_token_id", "pad_token_id"]
    ends = config.eos_token_id if config.eos_token_id is not None else []
    return {
        "model_type": text.model_type,
        **{name: getattr(text, name) for name in names},
        "head_dim": head,
        "hidden_act": getattr(text, "hidden_activation", None) or text.hidden_act,
        "tie_word_embeddings": tied,
        "sliding_window": getattr(text, "sliding_window", None),
        "layer_types": layers,
        "rope": text.rope_parameters,
        "eos_token_ids": ends if isinstance(ends, list) else [ends],
        "query_pre_attn_scalar": getattr(text, "query_pre_attn_scalar", None),
        "shapes": shapes if text.num_hidden_layers <= 2 else None,
    }


def make_configs():
    cases = []
    for name, config in CONFIGS.items():
        with tempfile.TemporaryDirectory() as folder:
            (pathlib.Path(folder) / "config.json").write_text(json.dumps(config))
            cases.append({"name": name, "config": config, "expected": expected_config(AutoConfig.from_pretrained(folder))})
    write(OUT / "configs.json", cases)


# Tokenizers


def corpus():
    words = "the quick brown fox jumps over the lazy dog and it's not what they've said about numbers like 12345 in 2024"
    return HARD_STRINGS * 3 + [words, words.title(), words.upper()] * 5


def train_byte_level(specials):
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(vocab_size=420, special_tokens=specials, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False)
    tokenizer.train_from_iterator(corpus(), trainer)
    model = json.loads(tokenizer.to_str())["model"]
    tokens = sorted(model["vocab"], key=model["vocab"].get)
    return tokens, [" ".join(merge) for merge in model["merges"]]


def train_sentence_piece(specials, space_runs):
    """Tokens and scores as SentencePiece would give them: control tokens, bytes, then pieces by merge order."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    trainer = trainers.BpeTrainer(vocab_size=330, show_progress=False)
    tokenizer.train_from_iterator([word for text in corpus() for word in text.split()], trainer)
    model = json.loads(tokenizer.to_str())["model"]
    merged = [left + right for left, right in model["merges"]]
    letters = [token for token in sorted(model["vocab"], key=model["vocab"].get) if token not in merged]
    data = [f"<0x{byte:02X}>" for byte in range(256)]
    pieces = list(dict.fromkeys(space_runs + merged))
    tokens = specials + data + pieces + letters
    scores = [0.0] * (len(specials) + 256) + [-float(i) for i in range(len(pieces) + len(letters))]
    kinds = [TokenType.CONTROL] * len(specials) + [TokenType.BYTE] * 256 + [TokenType.NORMAL] * (len(pieces) + len(letters))
    return tokens, scores, kinds


def write_tokenizer(path, arch, model, tokens, kinds, merges=None, scores=None, pre=None, flags=None, ids=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    writer = GGUFWriter(path, arch)
    for key, value in {"block_count": 1, "embedding_length": 32, "feed_forward_length": 32, "context_length": 64, "attention.head_count": 2}.items():
        writer.add_uint32(f"{arch}.{key}", value)
    writer.add_tokenizer_model(model)
    if pre:
        writer.add_tokenizer_pre(pre)
    writer.add_token_list(tokens)
    writer.add_token_types([int(kind) for kind in kinds])
    if merges is not None:
        writer.add_token_merges(merges)
    if scores is not None:
        writer.add_token_scores(scores)
    for name, value in (flags or {}).items():
        writer.add_bool(f"tokenizer.ggml.{name}", value)
    for name, value in (ids or {}).items():
        writer.add_uint32(f"tokenizer.ggml.{name}_token_id", value)
    finish(writer)


def complete(tokenizer, pre):
    """Puts back what transformers' converter leaves out of the original tokenizers."""
    backend = tokenizer.backend_tokenizer
    if pre == "smollm":
        backend.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)])
    if pre == "qwen2":
        backend.normalizer = normalizers.NFC()
    if pre == "llama-bpe":
        backend.model.ignore_merges = True
    return tokenizer


def encoded(tokenizer):
    rows = []
    for text in HARD_STRINGS:
        ids = tokenizer.encode(text, add_special_tokens=False)
        rows.append({
            "text": text,
            "ids": ids,
            "with_special": tokenizer.encode(text),
            "decoded": tokenizer.decode(ids, clean_up_tokenization_spaces=False),
            "without_special": tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False),
        })
    return rows


def make_tokenizers():
    folder = OUT / "tokenizers"
    specials = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    tokens, merges = train_byte_level(specials)
    # A user-defined token, and a word that is a token but that no merges lead to.
    tokens += ["<tool_call>", "quick"]
    kinds = [TokenType.CONTROL] * 3 + [TokenType.NORMAL] * (len(tokens) - 5) + [TokenType.USER_DEFINED, TokenType.NORMAL]
    common = {"tokens": tokens, "kinds": kinds, "merges": merges}
    ids = {"bos": 1, "eos": 2, "unknown": 0, "padding": 2}
    cases = {
        "smollm": ("llama", "gpt2", dict(common, pre="smollm", ids=ids, flags={"add_bos_token": False})),
        "gpt2": ("llama", "gpt2", dict(common, pre="gpt-2", ids=ids)),
        "llama_bpe": ("llama", "gpt2", dict(common, pre="llama-bpe", ids=ids, flags={"add_bos_token": True})),
        "qwen2": ("qwen2", "gpt2", dict(common, pre="qwen2", ids=ids, flags={"add_bos_token": False, "add_eos_token": True})),
        "nemo": ("llama", "gpt2", dict(common, pre="tekken", ids=ids)),
    }
    names = ["<unk>", "<s>", "</s>", "<pad>"]
    tokens, scores, kinds = train_sentence_piece(names, [])
    plain = {"tokens": tokens, "scores": scores, "kinds": kinds, "ids": {"bos": 1, "eos": 2, "unknown": 0, "padding": 3}}
    tokens, scores, kinds = train_sentence_piece(["<pad>", "<eos>", "<bos>", "<unk>", "<mask>"], ["  ", "   ", "\n\n"])
    gemma = {"tokens": tokens, "scores": scores, "kinds": kinds, "ids": {"bos": 2, "eos": 1, "unknown": 3, "padding": 0}}
    cases |= {
        "spm": ("llama", "llama", plain),
        "phi3": ("phi3", "llama", dict(plain, flags={"add_bos_token": False})),
        "gemma3": ("gemma3", "llama", dict(gemma, flags={"add_bos_token": True, "add_eos_token": False})),
    }
    for name, (arch, model, settings) in cases.items():
        path = folder / f"{name}.gguf"
        write_tokenizer(path, arch, model, **settings)
        tokenizer = complete(AutoTokenizer.from_pretrained(folder, gguf_file=path.name), settings.get("pre"))
        write(folder / f"{name}.json", {"cases": encoded(tokenizer), "vocab_size": len(tokenizer)})
        if name in ("llama_bpe", "spm"):
            saved = folder / f"{name}_folder"
            shutil.rmtree(saved, ignore_errors=True)
            tokenizer.save_pretrained(saved)
            (saved / "config.json").write_text(json.dumps({"model_type": "llama", "eos_token_id": [2, 3]}) + "\n")


def make_smollm2(gguf):
    path = pathlib.Path(gguf)
    tokenizer = complete(AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name), "smollm")
    chats = {}
    for name in ("one", "system", "answered"):
        for prompt in (False, True):
            chats[f"{name}_{prompt}"] = {
                "messages": CONVERSATIONS[name],
                "add_generation_prompt": prompt,
                "text": tokenizer.apply_chat_template(CONVERSATIONS[name], tokenize=False, add_generation_prompt=prompt),
                "ids": tokenizer.apply_chat_template(CONVERSATIONS[name], add_generation_prompt=prompt)["input_ids"],
            }
    write(OUT / "smollm2.json", {"cases": encoded(tokenizer), "vocab_size": len(tokenizer), "chats": chats})


# Chat templates


class Frozen(datetime.datetime):
    @classmethod
    def now(cls, tz=None):
        return NOW


def make_chats():
    chat_template_utils.datetime = Frozen
    special = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    cases = []
    for path in sorted((OUT / "chat").glob("*.jinja")):
        for name, messages in CONVERSATIONS.items():
            if (name == "python") != (path.stem == "python_style"):
                continue
            for prompt in (False, True):
                for tools in (None, [WEATHER]):
                    case = {"template": path.name, "messages": messages, "add_generation_prompt": prompt, "tools": tools, "special": special}
                    messages_in = chat_template_utils._normalize_chat_messages(messages)
                    try:
                        text, _ = chat_template_utils.render_jinja_template(
                            conversations=[messages_in], tools=tools, chat_template=path.read_text(), add_generation_prompt=prompt, **special)
                        case["text"] = text[0]
                    except Exception as error:
                        case["error"] = f"{type(error).__name__}: {error}"
                    cases.append(case)
    write(OUT / "chat.json", {"now": int(NOW.replace(tzinfo=datetime.timezone.utc).timestamp()), "cases": cases})


def main():
    warnings.filterwarnings("ignore")
    transformers.logging.set_verbosity_error()
    make_quants()
    make_configs()
    make_chats()
    make_tokenizers()
    make_archs()
    if len(sys.argv) > 1:
        make_smollm2(sys.argv[1])


if __name__ == "__main__":
    main()
