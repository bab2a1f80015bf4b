"""Generation with random weights: tokens/s, share of the memory roofline, and transformers beside it.

    python benchmarks/decode.py --spec tiny --peer --output benchmarks/results/decode.json

Every prompt is continued greedily for the full number of new tokens: the worst case, nothing ends early.
"tokens/s" counts new tokens of `generate` over all prompts, prefill included, compilation not. "ms/step" is
one step of the decode loop of one batch; "floor" is the time in which this machine copies as many bytes as it
must read: all weights once, and the cache slots that hold tokens (what fits into a CPU's own caches can
beat it). The peer is transformers' own `generate` with the same weights, prompts, batches and dtype, the two
taking turns; "agree" is the part of the tokens that are the same.
"""

import argparse
import json
import os
import platform
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from convert.mapping import make_entries
from tiny_reasoning_jax.model.qwen3 import ModelDef, Params
from tiny_reasoning_jax.model.spec import ModelSpec, hf_config
from tiny_reasoning_jax.sampling.choose import Sampling
from tiny_reasoning_jax.sampling.decode import decode, prefill
from tiny_reasoning_jax.sampling.generate import generate

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
    """Seconds of one decode step, and the bytes that it must read."""
    lengths = np.full(batch_size, args.prompt_length)
    tokens = np.ones((batch_size, args.prompt_length), np.int32)

    def start():
        num_slots = args.prompt_length + args.new_tokens
        return jax.block_until_ready(prefill(model_def, params, tokens, lengths, num_slots=num_slots))

    def run(cache, logits):
        return decode(
            model_def, params, cache, logits, lengths, np.zeros(batch_size, bool), np.arange(batch_size),
            jax.random.key(0), np.array([-1]), max_new_tokens=args.new_tokens, sampling=Sampling(0.0, 1.0, 0),
        )[0]  # fmt: skip

    jax.block_until_ready(run(*start()))
    starts = iter([start() for _ in range(args.repeats)])
    seconds = best_seconds(lambda: run(*next(starts)), args.repeats)
    spec = model_def.spec
    slot_bytes = 2 * spec.num_hidden_layers * spec.num_key_value_heads * spec.head_dim
    slot_bytes *= jnp.dtype(model_def.dtype).itemsize
    used_slots = args.prompt_length + args.new_tokens / 2  # on average over the completion
    embedding = 0 if spec.tie_word_embeddings else params["embed"].nbytes  # not read whole unless it is the head
    weights = sum(param.nbytes for param in params.values()) - embedding
    return {
        "step_seconds": seconds / (args.new_tokens - 1),
        "step_bytes": weights + batch_size * used_slots * slot_bytes,
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
    settings = {"temperature": 0.0, "top_p": 1.0, "top_k": 0, "seed": 0, "eos_ids": ()}
    settings |= {"max_new_tokens": args.new_tokens, "batch_size": batch_size}

    def ours() -> list[list[int]]:
        return [completion.tokens for completion in generate(model_def, params, prompts, **settings)]

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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    on_cpu = jax.default_backend() == "cpu"
    parser.add_argument("--spec", choices=SPECS, default="tiny")
    batch_sizes = [1, 16, 64] if on_cpu else [1, 16, 64, 256]
    parser.add_argument("--batch-sizes", type=int, nargs="+", default=batch_sizes)
    parser.add_argument("--num-batches", type=int, default=4 if on_cpu else 1, help="given to generate at once")
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
    print("batch   tokens/s   ms/step   floor   share" + "   transformers   ratio   agree" * args.peer)
    results = []
    for batch_size in args.batch_sizes:
        result = measure_batch(model_def, params, peer, batch_size, args)
        floor = result["step_bytes"] / bandwidth
        result["roofline_share"] = floor / result["step_seconds"]
        line = f"{batch_size:5} {result['tokens_per_second']:10.0f} {1e3 * result['step_seconds']:9.3f} "
        line += f"{1e3 * floor:7.3f} {result['roofline_share']:7.0%}"
        if peer is not None:
            ratio = result["tokens_per_second"] / result["peer_tokens_per_second"]
            line += f" {result['peer_tokens_per_second']:14.0f} {ratio:7.2f} {result['agree']:7.1%}"
        print(line, flush=True)
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
