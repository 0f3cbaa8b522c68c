"""Measures llama.cpp on what `bench_serve` asks of the engine without adapters, and ends with one JSON line.

    python peer_llama.py MODEL.gguf fp32|bf16 CONCURRENT PROMPT ANSWER

The GGUF file's weights are written out once in the wanted format, so that both sides multiply the same numbers.
All requests come at once: each is a sequence of its own in llama.cpp's batch, as its server does it.
"""

import ctypes
import json
import os
import pathlib
import sys
import time

import llama_cpp as ll
import numpy as np

GGUF, PRECISION = pathlib.Path(sys.argv[1]), sys.argv[2]
CONCURRENT, PROMPT, ANSWER = map(int, sys.argv[3:])
ROUNDS = 2
CHUNK = 512


def written():
    """The model's weights in the wanted format."""
    kind = ll.LLAMA_FTYPE_ALL_F32 if PRECISION == "fp32" else ll.LLAMA_FTYPE_MOSTLY_BF16
    path = GGUF.with_name(f"{GGUF.stem}-{PRECISION}.gguf")
    if not path.exists():
        params = ll.llama_model_quantize_default_params()
        params.ftype, params.allow_requantize = kind, True
        new = path.with_suffix(f".{os.getpid()}")
        assert ll.llama_model_quantize(str(GGUF).encode(), str(new).encode(), ctypes.byref(params)) == 0
        new.rename(path)
    return path


def quiet(level, text, data):
    pass


def step(context, batch, rows):
    """Runs rows of (token, position, sequence, wants logits)."""
    batch.n_tokens = len(rows)
    for i, (token, position, sequence, wanted) in enumerate(rows):
        batch.token[i], batch.pos[i], batch.logits[i] = token, position, wanted
        batch.n_seq_id[i], batch.seq_id[i][0] = 1, sequence
    assert ll.llama_decode(context, batch) == 0


def best(context, row, size):
    return int(np.ctypeslib.as_array(ll.llama_get_logits_ith(context, row), (size,)).argmax())


def answer(context, batch, size, number):
    ll.llama_memory_clear(ll.llama_get_memory(context), True)
    rows = []
    for index in range(CONCURRENT):
        seed = number * CONCURRENT + index
        ids = [1000 + (seed * 7919 + i * 104729) % 40000 for i in range(PROMPT)]
        rows += [(ids[i], i, index, i == PROMPT - 1) for i in range(PROMPT)]
    start, first, last = time.perf_counter(), [], {}
    for at in range(0, len(rows), CHUNK):
        chunk = rows[at : at + CHUNK]
        step(context, batch, chunk)
        for row, (_, _, sequence, wanted) in enumerate(chunk):
            if wanted:
                last[sequence] = best(context, row, size)
                first.append(time.perf_counter() - start)
    for position in range(PROMPT, PROMPT + ANSWER - 1):
        step(context, batch, [(last[index], position, index, True) for index in range(CONCURRENT)])
        last = {index: best(context, index, size) for index in range(CONCURRENT)}
    return time.perf_counter() - start, sorted(first)[len(first) // 2]


def main():
    callback = ll.llama_log_callback(quiet)
    ll.llama_log_set(callback, ctypes.c_void_p(0))
    ll.llama_backend_init()
    path = written()
    params = ll.llama_model_default_params()
    model = ll.llama_model_load_from_file(str(path).encode(), params)
    params = ll.llama_context_default_params()
    params.n_ctx = CONCURRENT * (PROMPT + ANSWER + 32)
    params.n_batch = params.n_ubatch = CHUNK
    params.n_seq_max, params.kv_unified = CONCURRENT, True
    params.n_threads = params.n_threads_batch = len(os.sched_getaffinity(0))
    context = ll.llama_init_from_model(model, params)
    size = ll.llama_vocab_n_tokens(ll.llama_model_get_vocab(model))
    batch = ll.llama_batch_init(CHUNK, 0, 1)
    answer(context, batch, size, 0)
    seconds, first = min(answer(context, batch, size, number) for number in range(1, ROUNDS + 1))
    print(json.dumps({
        "concurrent": CONCURRENT, "tokensPerSecond": CONCURRENT * ANSWER / seconds,
        "firstTokenSeconds": first, "seconds": seconds,
    }))


main()
