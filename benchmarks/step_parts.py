"""The measurements of train_step.py, each run in a process of its own: `python step_parts.py NAME ARGUMENTS`.

Arguments and results are JSON, and nothing else is on standard output. A part says all that it knows after each thing
it has measured, so that what comes after may fail or take too long: its last line holds the most. XLA's flags come with
the environment.
"""

import inspect
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # configs/ is no part of the installed package

import attention  # benchmarks/attention.py
import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import FrozenConfigDict

from tiny_reasoning_jax import plan_stage, xla
from tiny_reasoning_jax.data.batch import Batch
from tiny_reasoning_jax.device import device_memory
from tiny_reasoning_jax.model.attention import choice, cudnn
from tiny_reasoning_jax.model.qwen3 import ModelDef
from tiny_reasoning_jax.model.spec import ModelSpec
from tiny_reasoning_jax.plan import cards, flops
from tiny_reasoning_jax.plan.memory import plan_memory
from tiny_reasoning_jax.train import losses
from tiny_reasoning_jax.train.checkpoint import Checkpoints, bind, num_bytes
from tiny_reasoning_jax.train.optimizer import make_optimizer
from tiny_reasoning_jax.train.step import attach, create_state, detach, make_train_step, micro_loss, run_step

PART_SECONDS = 0.3  # how long a thing that can be repeated is repeated


def seconds_per_call(call: Callable[[], object]) -> float:
    """Median over five stretches of calls that are queued one behind the other, the first call left out."""
    jax.block_until_ready(call())
    began = time.perf_counter()
    jax.block_until_ready(call())
    repeats = max(1, int(PART_SECONDS / 5 / (time.perf_counter() - began)))
    stretches = []
    for _ in range(5):
        began = time.perf_counter()
        for _ in range(repeats):
            result = call()
        jax.block_until_ready(result)
        stretches.append((time.perf_counter() - began) / repeats)
    return float(np.median(stretches))


def random(*shape: int, dtype) -> jax.Array:
    """Small numbers: their products stay finite."""
    return 0.02 * jax.random.normal(jax.random.key(len(shape)), shape, jnp.dtype(dtype))


def device_facts() -> dict:
    """The device's name and what is known of it."""
    device = jax.local_devices()[0]
    known = [card for card in cards.CARDS.values() if card.name == device.device_kind]
    return {
        "device": device.device_kind,
        "memory_bytes": device_memory(device),
        "datasheet_bf16_flops": known[0].bf16_flops if known else None,
        "datasheet_bandwidth": known[0].bandwidth if known else None,
        "jax": jax.__version__,
        "xla_flags": os.environ["XLA_FLAGS"],
    }


def ceilings(args: dict) -> Iterator[dict]:
    """What the device reaches in products of our shapes, [rows, inner] x [inner, columns], and in copying."""
    spec, dtype, rows = ModelSpec(**args["spec"]), args["dtype"], args["tokens"]
    D, F, H = spec.hidden_size, spec.intermediate_size, spec.head_dim
    qkv = (spec.num_attention_heads + 2 * spec.num_key_value_heads) * H
    shapes = [(rows, D, qkv), (rows, D, 2 * F), (rows, F, D), (rows, D, D), (rows, D, F)]
    shapes += [(args["chunk"], D, spec.vocab_size), (args["chunk"], spec.vocab_size, D)]
    result = {"copy_bytes_per_second": copy_rate(args["copy_bytes"]), "products": {}, **device_facts()}
    product = jax.jit(lambda x, w: x @ w)
    for M, inner, columns in shapes:
        x, w = random(M, inner, dtype=dtype), random(inner, columns, dtype=dtype)
        rate = 2 * M * inner * columns / seconds_per_call(lambda x=x, w=w: product(x, w))
        result["products"][f"{M}x{inner}x{columns}"] = rate
        result["flops"] = max(result["products"].values())
        yield result


def copy_rate(num_bytes: int) -> float:
    """Bytes per second, read and written."""
    array = jnp.ones(num_bytes // 2, jnp.bfloat16)
    copy = jax.jit(lambda x: x + 1)
    return 2 * array.nbytes / seconds_per_call(lambda: copy(array))


def merged(args: dict) -> Iterator[dict]:
    """Forward and backward of q, k, v and of gate, up: a product each, or one for all with the results cut apart."""
    spec, dtype = ModelSpec(**args["spec"]), args["dtype"]
    D, F, H = spec.hidden_size, spec.intermediate_size, spec.head_dim
    N, K = spec.num_attention_heads, spec.num_key_value_heads
    x, result = random(args["tokens"], D, dtype=dtype), {}
    # The sum of squares gives every product a gradient that depends on it, as in the model.
    loss = lambda parts: sum(jnp.sum(jnp.square(part.astype(jnp.float32))) for part in parts)
    for name, widths in {"q, k, v": [N * H, K * H, K * H], "gate, up": [F, F]}.items():
        weights = [random(D, width, dtype=dtype) for width in widths]
        whole, ends = jnp.concatenate(weights, axis=1), np.cumsum(widths)[:-1]
        apart = jax.jit(jax.grad(lambda x, ws: loss([x @ w for w in ws]), argnums=(0, 1)))
        together = jax.jit(jax.grad(lambda x, w, ends=ends: loss(jnp.split(x @ w, ends, axis=1)), argnums=(0, 1)))
        result[name] = {
            "separate_seconds": seconds_per_call(lambda f=apart, ws=weights: f(x, ws)),
            "merged_seconds": seconds_per_call(lambda f=together, w=whole: f(x, w)),
        }
        yield result


def load_batches(path: str) -> list[Batch]:
    """The steps of a file of packed.save_steps; arrays [accum_steps, B, T]."""
    with np.load(path) as arrays:
        stacked = [arrays[name] for name in Batch._fields]
    return [Batch(*arrays) for arrays in zip(*stacked, strict=True)]


def micro_batches(steps: list[Batch]) -> list[Batch]:
    """All micro-batches [B, T] of the steps, by their number of segments: what packed attention costs depends on it.

    The one in the middle is the typical one.
    """
    found = [Batch(*(x[i] for x in step)) for step in steps for i in range(len(step.tokens))]
    return sorted(found, key=lambda batch: count_segments(batch.segment_ids)["segments"])


def count_segments(segment_ids: np.ndarray) -> dict[str, int]:
    """Segments of a micro-batch [B, T], and passes that cuDNN takes for them."""
    slots_per_row = inspect.signature(cudnn.attend).parameters["slots_per_row"].default
    segments = int(np.maximum(segment_ids.max(axis=1), 1).sum())  # an empty row is one
    return {"segments": segments, "cudnn_passes": -(-segments // (slots_per_row * len(segment_ids)))}


def attention_path(args: dict) -> Iterator[dict]:
    """Self-test, forward, and forward with backward of a backend on packed micro-batches: a typical and the fullest."""
    spec, dtype, name = ModelSpec(**args["spec"]), jnp.dtype(args["dtype"]), args["backend"]
    N, K, H = spec.num_attention_heads, spec.num_key_value_heads, spec.head_dim
    batches = micro_batches(load_batches(args["steps"]))
    B, T = batches[0].tokens.shape
    result = {"shape": [B, T, N, K, H], **attention.check(name, (N, K, H), T, dtype)}
    yield result
    for kind, batch in {"typical": batches[len(batches) // 2], "fullest": batches[-1]}.items():
        arrays = (random(B, T, heads, H, dtype=dtype) for heads in (N, K, K, N))
        row = attention.measure(name, [(*arrays, jnp.asarray(batch.segment_ids))], calls=3, samples=5)
        result[kind] = count_segments(batch.segment_ids) | row
        yield result


def loss_paths(args: dict) -> Iterator[dict]:
    """Loss with its gradients for chunk sizes, and for the trained share of the tokens: as packed, and all.

    "flops" are those of the three products of trained tokens, which is what fills chunks.
    """
    spec, dtype = ModelSpec(**args["spec"]), args["dtype"]
    batches = micro_batches(load_batches(args["steps"]))
    batch = batches[len(batches) // 2]
    targets, packed_mask = jnp.asarray(batch.targets), jnp.asarray(batch.loss_mask)
    hidden = random(*targets.shape, spec.hidden_size, dtype=dtype)
    head = random(spec.vocab_size, spec.hidden_size, dtype=jnp.bfloat16).astype(jnp.float32)
    result = {"tokens": int(targets.size), "paths": {}}
    for mask in (packed_mask, jnp.ones_like(packed_mask)):
        share = float(mask.mean())
        for chunk in args["chunks"]:
            run = jax.jit(jax.value_and_grad(lambda h, w, c=chunk, m=mask: losses.cross_entropy_sum(
                h, w, targets, m, c), argnums=(0, 1)))  # fmt: skip
            seconds = seconds_per_call(lambda run=run: run(hidden, head))
            products = 3 * 2 * int(mask.sum()) * spec.hidden_size * spec.vocab_size
            result["paths"][f"chunk {chunk}, {share:.2f} trained"] = {"seconds": seconds, "flops": products / seconds}
            yield result


class Training:
    """A recipe on the device: state, compiled step, batches."""

    def __init__(self, args: dict):
        self.spec = ModelSpec(**args["spec"])
        config = FrozenConfigDict(args["config"])
        train = config.train
        self.attention, self.attention_said = plan_stage.settle_attention(config, self.spec, choice.attached())
        self.train = train
        self.model_def = ModelDef(self.spec, dtype=train.compute_dtype, attention=self.attention, remat=train.remat)
        optimizer = make_optimizer(train)
        self.state = bind(create_state(self.model_def.create_params(0), optimizer, train))
        self.step = make_train_step(self.model_def, train)
        self.batches = load_batches(args["steps"])
        self.num_steps = 0

    def run(self, num_steps: int) -> float:
        """Seconds of that many optimizer steps, up to the end of the last on the device."""
        began = time.perf_counter()
        for _ in range(num_steps):
            batch = self.batches[self.num_steps % len(self.batches)]
            self.state, self.metrics = run_step(self.step, self.state, batch)
            self.num_steps += 1
        jax.block_until_ready(self.state)
        return time.perf_counter() - began

    def micro_seconds(self) -> dict[str, float]:
        """Of the two programs, and of forward and backward alone, with batches that lie on the device."""
        batches = micro_batches(self.batches)
        batch = jax.device_put(batches[len(batches) // 2])
        loss = jax.jit(lambda params, batch: _norm(self.model_def, self.train, params, batch))
        found = {"gradients_alone_seconds": seconds_per_call(lambda: loss(self.state.params, batch))}

        of_apply = () if self.step.adds_all else (batch,)

        def apply():
            self.state, metrics = self.step.apply(self.state, *of_apply)
            return metrics

        def accumulate():
            self.state = attach(self.state, self.step.accumulate(detach(self.state), batch))
            return self.state.loss

        if self.train.accum_steps > 1:
            found["accumulate_seconds"] = seconds_per_call(accumulate)
            found["accumulate_overhead"] = found["accumulate_seconds"] / found["gradients_alone_seconds"] - 1
        return found | {"apply_seconds": seconds_per_call(apply)}


def _norm(model_def, train, params, batch):
    """Loss and gradients reduced to a number each: the cheapest use of all gradients."""
    loss, grads = jax.value_and_grad(micro_loss, argnums=2)(model_def, train.loss_chunk, params, batch)
    return loss, sum(jnp.sum(jnp.square(g.astype(jnp.float32))) for g in jax.tree.leaves(grads))


def training(args: dict) -> Iterator[dict]:
    """A recipe: start, speed, memory; with "micro" its two programs apart, with "plan" what the planner says of it."""
    this = Training(args)
    this.run(1)
    result = {"first_step_seconds_from_start": time.time() - args["started"], "attention": this.attention,
              "attention_said": this.attention_said, **device_facts()}  # fmt: skip
    yield result
    this.run(args["warm_steps"])
    groups = [this.run(args["group_steps"]) / args["group_steps"] for _ in range(args["groups"])]
    low, median, high = np.percentile(groups, [25, 50, 75])
    counts = [count_segments(batch.segment_ids) for batch in micro_batches(this.batches)]
    result |= {"step_seconds": median, "step_seconds_quartiles": [low, high],
               "micro_steps_measured": args["groups"] * args["group_steps"] * this.train.accum_steps,
               "typical_micro_batch": counts[len(counts) // 2], "fullest_micro_batch": counts[-1],
               "loss": float(this.metrics.loss), **rates(this.spec, this.batches, median)}  # fmt: skip
    if result["datasheet_bf16_flops"]:
        for name in ("", "computed_"):
            result[f"{name}mfu"] = result[f"{name}flops"] / result["datasheet_bf16_flops"]
    stats = jax.local_devices()[0].memory_stats()
    if stats:
        result["peak_bytes"] = stats["peak_bytes_in_use"]
    yield result
    if args["micro"]:
        result |= this.micro_seconds()
        yield result
    if args["plan"]:
        model_def, train = this.model_def, this.train
        del this  # the planner compiles, and autotuning needs room
        memory = plan_memory(model_def, train, None, {})
        result |= {"planned_bytes": memory.peak, "planned_parts": memory.parts, "hidden_remat": memory.hidden_remat}
        yield result


def rates(spec: ModelSpec, steps: list[Batch], step_seconds: float) -> dict:
    """Tokens and FLOPs per second; padding is left out.

    "flops" is the usual convention: every token's, the head's included. "computed_flops" has the head for trained
    tokens alone, the only ones whose logits the step computes.
    """
    real = sum(int((step.segment_ids > 0).sum()) for step in steps)
    trained_share = sum(int(step.loss_mask.sum()) for step in steps) / real
    lengths = np.concatenate([row for step in steps for row in _lengths(step.segment_ids)])
    keys, rate = flops.mean_keys(lengths), real / len(steps) / step_seconds
    per_token = flops.training_flops_per_token(spec, keys)
    untrained_head = (1 - trained_share) * flops.forward_flops_per_token(spec, keys).head
    computed = per_token - flops.TRAINING_PER_FORWARD * untrained_head
    return {"tokens_per_second": rate, "trained_share": trained_share, "mean_keys": keys,
            "flops_per_token": per_token, "flops": rate * per_token,
            "computed_flops_per_token": computed, "computed_flops": rate * computed}  # fmt: skip


def _lengths(segment_ids: np.ndarray) -> list[np.ndarray]:
    counts = [np.bincount(row)[1:] for row in segment_ids.reshape(-1, segment_ids.shape[-1])]
    return [count[count > 0] for count in counts]


def checkpoint(args: dict) -> Iterator[dict]:
    """How long training stands still for a checkpoint: in save, and in the steps while it is being written."""
    this = Training(args)
    this.run(2)
    before = this.run(2) / 2
    with tempfile.TemporaryDirectory(dir=args["disk"]) as folder:
        checkpoints = Checkpoints(Path(folder) / "checkpoints", keep=1)
        began = time.perf_counter()
        checkpoints.save(this.num_steps, this.state, {}, {})
        blocked = time.perf_counter() - began
        during = [this.run(1) for _ in range(args["steps_after"])]
        checkpoints.close()
        yield {
            "bytes": num_bytes(this.state), "blocked_seconds": blocked,
            "written_after_seconds": time.perf_counter() - began, "step_seconds_before": before,
            "step_seconds_after_save": during, "lost_seconds": blocked + sum(during) - before * len(during),
        }  # fmt: skip


PARTS = {
    part.__name__: part for part in (ceilings, merged, attention_path, loss_paths, training, checkpoint)
}  # fmt: skip

if __name__ == "__main__":
    REPORT = os.fdopen(os.dup(1), "w")  # libraries print; only reports go to standard output
    os.dup2(2, 1)
    xla.start()
    for known in PARTS[sys.argv[1]](json.loads(sys.argv[2])):
        print(json.dumps(known), file=REPORT, flush=True)
