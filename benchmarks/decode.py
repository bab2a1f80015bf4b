"""Generation with random weights: tokens/s, share of the memory roofline, and transformers beside it.

    python benchmarks/decode.py --spec tiny --peer --output benchmarks/results/decode_tiny_cpu.json
    python benchmarks/decode.py --spec 1.7b --output benchmarks/results/decode_1.7b.json        # on a GPU

Every prompt is continued greedily for the full number of new tokens: the worst case, nothing ends early.
"tokens/s" counts new tokens of `generate` over all prompts, prefill included, compilation not; batch rows are in flight
at a time, on a CPU in several batches side by side. "ms/step" is one step of the decode loop of one batch of so many
rows; "floor" is the time in which this machine copies as many bytes as it must read: all weights once, and the cache
slots that hold tokens (what fits into a CPU's own caches can beat it). The peer is transformers' own `generate` with
the same weights, prompts, batch size and dtype, the two taking turns; "agree" is the part of equal tokens.

"ragged" is another load: each token ends its row by chance, so lengths have a long tail. Its steps are compared with
the tokens that were needed, and with what batches would use that wait for their longest row.
"""

import argparse
import json
import os
import platform
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np

from convert.mapping import make_entries
from tiny_reasoning_jax.model.cache import block_sizes, create_cache, slot_bytes
from tiny_reasoning_jax.model.qwen3 import ModelDef, Params
from tiny_reasoning_jax.model.spec import ModelSpec, hf_config
from tiny_reasoning_jax.sampling import batch
from tiny_reasoning_jax.sampling.choose import Sampling
from tiny_reasoning_jax.sampling.decode import Rows, decode
from tiny_reasoning_jax.sampling.generate import Completion, Request, generate

SPECS = {
    "tiny": ModelSpec(768, 128, 384, 4, 4, 2, 32, 1e4),
    "0.6b": ModelSpec(151_936, 1024, 3072, 28, 16, 8, 128, 1e6),
    "1.7b": ModelSpec(151_936, 2048, 6144, 28, 16, 8, 128, 1e6),
}


def best_seconds(run: Callable[[], Any], repeats: int) -> float:
    """The shortest of several runs: other work on the machine only ever adds time."""
    seconds = []
    for _ in range(repeats):
        began = time.perf_counter()
        jax.block_until_ready(run())
        seconds.append(time.perf_counter() - began)
    return min(seconds)


def copy_bandwidth() -> float:
    """Bytes per second, read and written, of a copy far larger than any cache."""
    array = jnp.ones(64 * 2**20, jnp.float32)
    copy = jax.jit(lambda x: x + 1)
    jax.block_until_ready(copy(array))
    return 2 * array.nbytes / best_seconds(lambda: copy(array), 5)


def measure_step(model_def: ModelDef, params: Params, batch_size: int, args) -> dict[str, float]:
    """Seconds of one decode step of one batch, on average over a completion, and the bytes that it must read."""
    spec, num_slots = model_def.spec, args.prompt_length + args.new_tokens
    integers = np.ones(batch_size, np.int32)
    rows = Rows(
        integers, args.prompt_length * integers, args.new_tokens * integers, 0 * integers,
        np.zeros((batch_size, 3), np.uint32),
    )  # fmt: skip

    def run(cache):
        return decode(
            model_def, params, cache, rows, 1, jax.random.key(0), np.array([-1]),
            num_steps=args.new_tokens, sampling=Sampling(0.0, 1.0, 0),
        )[0]  # fmt: skip

    cache = run(create_cache(spec, batch_size, block_sizes(num_slots), model_def.dtype))
    seconds = []
    for _ in range(args.repeats):
        began = time.perf_counter()
        cache = jax.block_until_ready(run(cache))
        seconds.append(time.perf_counter() - began)
    embedding = 0 if spec.tie_word_embeddings else params["embed"].size  # not read whole unless it is the head
    weights = sum(param.size for param in params.values()) - embedding
    used_slots = args.prompt_length + args.new_tokens / 2  # on average over the completion
    return {
        "step_seconds": min(seconds) / args.new_tokens,
        "step_bytes": weights * jnp.dtype(model_def.dtype).itemsize
        + batch_size * used_slots * slot_bytes(spec, model_def.dtype),
    }


def create_peer(spec: ModelSpec, params: Params, dtype: str):
    """The same model in transformers, on the same kind of device."""
    import torch
    import transformers

    default = torch.get_default_dtype()
    torch.set_default_dtype(getattr(torch, dtype))  # unlike .to(dtype) it leaves the rotary frequencies in float32
    with torch.device("cuda" if jax.default_backend() == "gpu" else "cpu"):
        model = transformers.Qwen3ForCausalLM(transformers.Qwen3Config(**hf_config(spec)))
    torch.set_default_dtype(default)
    theirs = dict(model.named_parameters())
    with torch.no_grad():
        for entry in make_entries(spec):
            ours = np.array(params[entry.name].astype(jnp.float32))
            theirs[entry.hf_name].copy_(torch.from_numpy(entry.to_hf(ours)))
    return model.eval()


def run_peer(model, prompts: list[list[int]], batch_size: int, new_tokens: int) -> list[list[int]]:
    """transformers' greedy continuation, batches in the given order."""
    import torch
    import transformers

    settings = transformers.GenerationConfig(
        max_new_tokens=new_tokens, do_sample=False, eos_token_id=None, pad_token_id=0
    )
    completions = []
    for start in range(0, len(prompts), batch_size):
        batch = prompts[start : start + batch_size]
        longest = max(map(len, batch))
        padded = torch.tensor([[0] * (longest - len(p)) + p for p in batch], device=model.device)
        mask = torch.tensor([[0] * (longest - len(p)) + [1] * len(p) for p in batch], device=model.device)
        with torch.inference_mode():
            output = model.generate(input_ids=padded, attention_mask=mask, generation_config=settings)
        completions += output[:, longest:].tolist()
    return completions


def measure_batch(model_def: ModelDef, params: Params, peer, batch_size: int, args) -> dict[str, float]:
    """Everything about one batch size."""
    rng = np.random.default_rng(0)
    lengths = rng.integers(args.prompt_length // 2, args.prompt_length + 1, batch_size * args.num_batches)
    prompts = [rng.integers(0, model_def.spec.vocab_size, n).tolist() for n in sorted(lengths, reverse=True)]
    requests = [Request(prompt, 0) for prompt in prompts]
    settings = {"max_new_tokens": args.new_tokens, "batch_size": batch_size, "top_p": 1.0, "top_k": 0, "seed": 0}

    def ours() -> list[list[int]]:
        completions = dict(generate(model_def, params, requests, temperature=0.0, eos_ids=(), **settings))
        return [completions[index].tokens for index in range(len(requests))]

    result: dict[str, float] = {"batch_size": batch_size, **measure_step(model_def, params, batch_size, args)}
    num_tokens = len(prompts) * args.new_tokens
    our_tokens, our_seconds, peer_seconds = ours(), [], []
    if peer is not None:
        peer_tokens = run_peer(peer, prompts, batch_size, args.new_tokens)
        result["agree"] = float(np.mean(np.array(our_tokens) == np.array(peer_tokens)))
    for _ in range(args.repeats):
        our_seconds.append(best_seconds(ours, 1))
        if peer is not None:
            peer_seconds.append(best_seconds(lambda: run_peer(peer, prompts, batch_size, args.new_tokens), 1))
    result["tokens_per_second"] = num_tokens / min(our_seconds)
    if peer is not None:
        result["peer_tokens_per_second"] = num_tokens / min(peer_seconds)
    return result


def measure_ragged(model_def: ModelDef, params: Params, batch_size: int, args) -> dict[str, float]:
    """What refilling is worth where lengths differ: each token is an EOS by a chance of 4 in max_new_tokens.

    Steps are those of a row, over all rows: needed (tokens written), used, and what batches that wait for their longest
    row would use.
    """
    spec = model_def.spec
    eos_ids = range(round(4 * spec.vocab_size / args.new_tokens))
    params = {name: 0 * param if name in ("embed", "lm_head") else param for name, param in params.items()}
    rng = np.random.default_rng(0)
    requests = [
        Request(rng.integers(0, spec.vocab_size, args.prompt_length).tolist(), 0) for _ in range(8 * batch_size)
    ]
    used = []  # by each call of decode, over all rows

    def counting(*inputs, **settings):
        cache, written = decode(*inputs, **settings)
        used.append(int(written.counts.max()) * len(written.counts))
        return cache, written

    def run() -> dict[int, Completion]:
        used.clear()
        return dict(generate(
            model_def, params, requests, max_new_tokens=args.new_tokens, eos_ids=tuple(eos_ids), batch_size=batch_size,
            temperature=1.0, top_p=1.0, top_k=0, seed=0,
        ))  # fmt: skip

    with mock.patch.object(batch, "decode", counting):
        completions = run()
        seconds = best_seconds(run, args.repeats)
    lengths = [len(completions[index].logps) for index in range(len(requests))]
    waiting = sum(batch_size * max(lengths[i : i + batch_size]) for i in range(0, len(lengths), batch_size))
    return {
        "ragged_tokens_per_second": sum(lengths) / seconds,
        "ragged_steps_needed": sum(lengths),
        "ragged_steps_used": sum(used),
        "ragged_steps_of_waiting_batches": waiting,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    on_cpu = jax.default_backend() == "cpu"
    parser.add_argument("--spec", choices=SPECS, default="tiny")
    parser.add_argument("--batch-sizes", type=int, nargs="+", default=[1, 16, 64, 256])
    parser.add_argument("--num-batches", type=int, default=1, help="given to generate at once")
    parser.add_argument("--prompt-length", type=int, default=64, help="longest prompt, tokens")
    parser.add_argument("--new-tokens", type=int, default=224, help="written for every prompt")
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32" if on_cpu else "bfloat16")
    parser.add_argument("--repeats", type=int, default=3, help="the best counts")
    parser.add_argument("--peer", action="store_true", help="measure transformers too (needs torch)")
    parser.add_argument("--output", type=Path, help="JSON file for the figures")
    args = parser.parse_args()

    model_def = ModelDef(SPECS[args.spec], dtype=args.dtype)
    params = model_def.create_params(0)
    peer = create_peer(model_def.spec, params, args.dtype) if args.peer else None
    bandwidth = copy_bandwidth()
    device = jax.devices()[0]
    print(
        f"{args.spec}, {args.dtype}, {device.device_kind} ({os.cpu_count()} cores), jax {jax.__version__}, "
        f"copies {bandwidth / 1e9:.1f} GB/s; {args.num_batches} batches, prompts up to "
        f"{args.prompt_length} tokens, {args.new_tokens} new tokens each"
    )
    heading = "batch   tokens/s   ms/step   floor   share" + "   transformers   ratio   agree" * args.peer
    print(heading + "   | ragged: tokens/s   steps used / needed   waiting / needed")
    results = []
    for batch_size in args.batch_sizes:
        result = measure_batch(model_def, params, peer, batch_size, args)
        result |= measure_ragged(model_def, params, batch_size, args)
        floor = result["step_bytes"] / bandwidth
        result["roofline_share"] = floor / result["step_seconds"]
        line = f"{batch_size:5} {result['tokens_per_second']:10.0f} {1e3 * result['step_seconds']:9.3f} "
        line += f"{1e3 * floor:7.3f} {result['roofline_share']:7.0%}"
        if peer is not None:
            ratio = result["tokens_per_second"] / result["peer_tokens_per_second"]
            line += f" {result['peer_tokens_per_second']:14.0f} {ratio:7.2f} {result['agree']:7.1%}"
        used, waiting = (
            result[name] / result["ragged_steps_needed"]
            for name in ("ragged_steps_used", "ragged_steps_of_waiting_batches")
        )
        print(f"{line}   | {result['ragged_tokens_per_second']:16.0f} {used:21.2f} {waiting:18.2f}", flush=True)
        results.append(result)
    if args.output:
        facts = {
            "device": device.device_kind,
            "machine": platform.machine(),
            "cores": os.cpu_count(),
            "jax": jax.__version__,
            "settings": {name: value for name, value in vars(args).items() if name != "output"},
            "bandwidth_bytes_per_second": bandwidth,
            "results": results,
        }
        args.output.parent.mkdir(parents=True, exist_ok=True)
        args.output.write_text(json.dumps(facts, indent=2) + "\n")


if __name__ == "__main__":
    main()
