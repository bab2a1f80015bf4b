"""The measurements of train_step.py, each run in a process of its own: `python step_parts.py NAME ARGUMENTS`.

Arguments and result are JSON; the result is the only line on standard output. XLA's flags come with the environment.
"""

import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # configs/ is no part of the installed package

import attention  # benchmarks/attention.py
import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import FrozenConfigDict

from tiny_reasoning_jax import xla
from tiny_reasoning_jax.data.batch import Batch
from tiny_reasoning_jax.device import device_memory
from tiny_reasoning_jax.model.attention import choice
from tiny_reasoning_jax.model.qwen3 import ModelDef
from tiny_reasoning_jax.model.spec import ModelSpec
from tiny_reasoning_jax.plan import cards, flops
from tiny_reasoning_jax.plan.memory import plan_memory
from tiny_reasoning_jax.train import losses
from tiny_reasoning_jax.train.checkpoint import Checkpoints, num_bytes
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


def ceilings(args: dict) -> dict:
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
    return result


def copy_rate(num_bytes: int) -> float:
    """Bytes per second, read and written."""
    array = jnp.ones(num_bytes // 2, jnp.bfloat16)
    copy = jax.jit(lambda x: x + 1)
    return 2 * array.nbytes / seconds_per_call(lambda: copy(array))


def merged(args: dict) -> dict:
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
    return result


def load_batches(path: str) -> list[Batch]:
    """The steps of a file of packed.save_steps; arrays [accum_steps, B, T]."""
    with np.load(path) as arrays:
        stacked = [arrays[name] for name in Batch._fields]
    return [Batch(*arrays) for arrays in zip(*stacked, strict=True)]


def attention_paths(args: dict) -> dict:
    """Self-test, forward, and forward with backward of every backend on a packed micro-batch."""
    spec, dtype = ModelSpec(**args["spec"]), jnp.dtype(args["dtype"])
    N, K, H = spec.num_attention_heads, spec.num_key_value_heads, spec.head_dim
    segment_ids = jnp.asarray(load_batches(args["steps"])[0].segment_ids[0])
    B, T = segment_ids.shape
    inputs = [(*(random(B, T, heads, H, dtype=dtype) for heads in (N, K, K, N)), segment_ids)]
    paths = {
        name: attention.check(name, (N, K, H), T, dtype) | attention.measure(name, inputs, calls=3, samples=5)
        for name in attention.BACKENDS
    }
    num_examples = int(segment_ids.max(1).sum())
    return {"shape": [B, T, N, K, H], "examples": num_examples, "device": choice.attached()._asdict(), "paths": paths}


def loss_paths(args: dict) -> dict:
    """Loss with its gradients for chunk sizes, and for the trained share of the tokens: as packed, and all."""
    spec, dtype, result = ModelSpec(**args["spec"]), args["dtype"], {}
    batch = load_batches(args["steps"])[0]
    targets, mask = jnp.asarray(batch.targets[0]), jnp.asarray(batch.loss_mask[0])
    hidden = random(*targets.shape, spec.hidden_size, dtype=dtype)
    head = random(spec.vocab_size, spec.hidden_size, dtype=jnp.bfloat16).astype(jnp.float32)
    for share, trained in {f"{float(mask.mean()):.2f}": mask, "1.00": jnp.ones_like(mask)}.items():
        for chunk in args["chunks"]:
            run = jax.jit(jax.value_and_grad(lambda h, w, c=chunk, m=trained: losses.cross_entropy_sum(
                h, w, targets, m, c), argnums=(0, 1)))  # fmt: skip
            seconds = seconds_per_call(lambda run=run: run(hidden, head))
            products = 3 * 2 * targets.size * spec.hidden_size * spec.vocab_size
            result[f"chunk {chunk}, {share} trained"] = {"seconds": seconds, "flops_all_tokens": products / seconds}
    return {"tokens": int(targets.size), "paths": result}


class Training:
    """A recipe on the device: state, compiled step, batches."""

    def __init__(self, args: dict):
        self.spec = ModelSpec(**args["spec"])
        config = FrozenConfigDict(args["config"])
        train = config.train
        where = {"seq_len": train.seq_len, "head_dim": self.spec.head_dim, "dtype": train.compute_dtype}
        self.attention = choice.candidates(train.attention, choice.attached(), **where)[0]
        self.train = train
        self.model_def = ModelDef(self.spec, dtype=train.compute_dtype, attention=self.attention, remat=train.remat)
        optimizer = make_optimizer(train)
        self.state = create_state(self.model_def.create_params(0), optimizer, train)
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
        batch = jax.device_put(Batch(*(x[0] for x in self.batches[0])))
        loss = jax.jit(lambda params, batch: _norm(self.model_def, self.train, params, batch))
        found = {"gradients_alone_seconds": seconds_per_call(lambda: loss(self.state.params, batch))}

        def apply():
            self.state, metrics = self.step.apply(self.state, batch)
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


def training(args: dict) -> dict:
    """A recipe: start, speed, memory; with "micro" its two programs apart, with "plan" what the planner says of it."""
    this = Training(args)
    this.run(1)
    result = {"first_step_seconds_from_start": time.time() - args["started"], "attention": this.attention}
    this.run(args["warm_steps"])
    groups = [this.run(args["group_steps"]) / args["group_steps"] for _ in range(args["groups"])]
    low, median, high = np.percentile(groups, [25, 50, 75])
    real = [int((batch.segment_ids > 0).sum()) for batch in this.batches]
    lengths = np.concatenate([row for batch in this.batches for row in _lengths(batch.segment_ids)])
    per_token = flops.training_flops_per_token(this.spec, flops.mean_keys(lengths))
    rate = float(np.mean(real)) / median
    result |= {"step_seconds": median, "step_seconds_quartiles": [low, high], "tokens_per_second": rate,
               "micro_steps_measured": args["groups"] * args["group_steps"] * this.train.accum_steps,
               "mean_keys": flops.mean_keys(lengths), "flops_per_token": per_token, "flops": rate * per_token,
               "loss": float(this.metrics.loss)}  # fmt: skip
    stats = jax.local_devices()[0].memory_stats()
    if stats:
        result["peak_bytes"] = stats["peak_bytes_in_use"]
    if args["micro"]:
        result |= this.micro_seconds()
    if args["plan"]:
        model_def, train = this.model_def, this.train
        del this  # the planner compiles, and autotuning needs room
        memory = plan_memory(model_def, train, None, {})
        result |= {"planned_bytes": memory.peak, "planned_parts": memory.parts, "hidden_remat": memory.hidden_remat}
    return result


def _lengths(segment_ids: np.ndarray) -> list[np.ndarray]:
    counts = [np.bincount(row)[1:] for row in segment_ids.reshape(-1, segment_ids.shape[-1])]
    return [count[count > 0] for count in counts]


def checkpoint(args: dict) -> dict:
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
        return {
            "bytes": num_bytes(this.state), "blocked_seconds": blocked,
            "written_after_seconds": time.perf_counter() - began, "step_seconds_before": before,
            "step_seconds_after_save": during, "lost_seconds": blocked + sum(during) - before * len(during),
        }  # fmt: skip


PARTS = {
    part.__name__: part for part in (ceilings, merged, attention_paths, loss_paths, training, checkpoint)
}  # fmt: skip

if __name__ == "__main__":
    REPORT = os.fdopen(os.dup(1), "w")  # libraries print; only the report goes to the pipe
    os.dup2(2, 1)
    xla.start()
    print(json.dumps(PARTS[sys.argv[1]](json.loads(sys.argv[2]))), file=REPORT)
