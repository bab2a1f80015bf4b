"""Attention backends of training beside each other: right or wrong, milliseconds, TFLOP/s.

    python benchmarks/attention.py             # on a GPU, at most --seconds (540)
    python benchmarks/attention.py --sweep     # there too: tile sizes of the Triton kernels
    python benchmarks/attention.py             # on a CPU: the plain backends on small shapes, to try this program

Every backend, and the sweep, is a process of its own, ended when its part of --seconds is over: one that hangs or takes
the card down takes no other with it. The file is written again after every row.

On a GPU results go to benchmarks/results/attention_<device>.json, with --sweep to attention_<device>_sweep.json, whose
"best" belong into the table in model/attention/triton_tiles.py. Rows are full, [B, T] of one causal segment each or of
8 or 32 ragged ones; Qwen3-1.7B's heads in bfloat16. "largest_error" is that in the self-test of training (output
and gradients, packed against float32 and against each segment alone), beside its tolerance. "forward" is a call, "both"
a call and its gradients, in milliseconds: the median over samples of several calls in a row, whose inputs take turns.
TFLOP/s count what causal segments need and no more, whatever a backend really computes: 2 N H sum(length^2) forward,
2.5 times that backward (five products for two).
"""

import argparse
import functools
import itertools
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import processes  # benchmarks/processes.py

from tiny_reasoning_jax.model.attention import BACKENDS, choice, self_test, triton, triton_tiles
from tiny_reasoning_jax.model.attention.triton_tiles import Blocks

RESULTS = Path(__file__).parent / "results"
SEGMENTS = (1, 8, 32)
ON_GPU = {"shapes": ((4, 4096), (1, 16_384), (1, 32_768)), "heads": (16, 8, 128), "calls": 10, "samples": 11}
ON_CPU = {"shapes": ((2, 512), (1, 1024)), "heads": (4, 2, 32), "calls": 1, "samples": 3}
# Rows up to which the plain backends are measured: beyond it reference's scores fill a card, and blockwise, which
# computes every pair of tokens, takes the time that the kernels need.
LONGEST_PLAIN = {"reference": 4096, "blockwise": 8192}
ORDER = ("cudnn", "triton", "blockwise", "reference")  # the most important first


def ragged(B: int, T: int, num_segments: int, seed: int = 0) -> np.ndarray:
    """Segment ids int32 [B, T] of full rows with so many segments, log-normal lengths (sigma 0.8)."""
    rng = np.random.default_rng(seed)
    parts = np.cumsum(rng.lognormal(0, 0.8, (B, num_segments)), axis=1)
    ends = np.round(parts / parts[:, -1:] * T).astype(int)[:, :-1]
    return np.stack([1 + np.searchsorted(row, np.arange(T), side="right") for row in ends]).astype(np.int32)


def make_inputs(B: int, T: int, num_segments: int, heads: tuple[int, int, int], copies: int) -> list[tuple]:
    """(q, k, v, cotangent, segment ids) several times, random in bfloat16."""
    N, K, H = heads
    ids = jnp.asarray(ragged(B, T, num_segments))
    normal = lambda key, n: jax.random.normal(key, (B, T, n, H), jnp.bfloat16)
    keys = jax.random.split(jax.random.key(0), (copies, 4))
    return [tuple(normal(key, n) for key, n in zip(row, (N, K, K, N), strict=True)) + (ids,) for row in keys]


def forward_flops(ids: jax.Array, heads: tuple[int, int, int]) -> float:
    """FLOPs of the forward pass: a query of a segment sees on average half its segment; padding (0) is not counted."""
    squares = sum(float(np.sum(np.bincount(row)[1:] ** 2.0)) for row in np.asarray(ids))
    return 2 * heads[0] * heads[2] * squares


def milliseconds(run: Callable, inputs: list[tuple], calls: int, samples: int) -> float:
    """Median time of a call."""
    for args in inputs:
        jax.block_until_ready(run(*args))
    turns, seconds = itertools.cycle(inputs), []
    for _ in range(samples):
        began = time.perf_counter()
        results = [run(*next(turns)) for _ in range(calls)]
        jax.block_until_ready(results)
        seconds.append((time.perf_counter() - began) / calls)
    return 1e3 * statistics.median(seconds)


def both(attend: Callable, q, k, v, d_out, ids):
    """Output and gradients."""
    out, pull = jax.vjp(lambda q, k, v: attend(q, k, v, ids), q, k, v)
    return out, pull(d_out)


def measure(name: str, inputs: list[tuple], calls: int, samples: int) -> dict:
    """Times of one backend on inputs as of make_inputs, or why there are none."""
    attend, row = BACKENDS[name], {}
    (q, k, *_, ids), *_ = inputs
    T, N, H = q.shape[1:]
    reason = choice.refusal(name, choice.attached(), seq_len=T, head_dim=H, dtype=q.dtype)
    if T > LONGEST_PLAIN.get(name, T):
        reason = f"rows longer than {LONGEST_PLAIN[name]} are not measured with it"
    if reason:
        return {"skipped": reason}
    flops = forward_flops(ids, (N, k.shape[2], H))
    kinds = {
        "forward": (jax.jit(lambda q, k, v, d_out, ids: attend(q, k, v, ids)), flops),
        "both": (jax.jit(functools.partial(both, attend)), 3.5 * flops),
    }
    try:
        for kind, (run, count) in kinds.items():
            ms = milliseconds(run, inputs, calls, samples)
            row |= {f"{kind}_ms": round(ms, 3), f"{kind}_tflops": float(f"{count / ms / 1e9:.4g}")}
    except Exception as error:  # no memory, or a kernel that this card's compiler refuses: a result, too
        row["failed"] = _first_line(error)
    return row


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0][:200]}"


def check(name: str, heads: tuple[int, int, int], seq_len: int, dtype) -> dict:
    """Whether a backend is right on this device, by the self-test of training."""
    N, K, H = heads
    reason = choice.refusal(name, choice.attached(), seq_len=seq_len, head_dim=H, dtype=dtype)
    if reason:
        return {"skipped": reason}
    try:
        outcome = self_test.test(BACKENDS[name], N=N, K=K, H=H, dtype=dtype, seq_len=seq_len)
    except Exception as error:  # whatever a compiler or a driver says of a kernel is the result
        return {"passed": False, "failed": _first_line(error)}
    error = {"largest_error": round(outcome.error, 5), "where": outcome.where, "tolerance": self_test.TOLERANCE}
    return {"passed": outcome.passed, **error}


def sweep(how: dict, report: Callable[[dict], None], seconds: float) -> None:
    """Times each Triton kernel alone with many tile sizes, on one and on eight segments a row, and says the best.

    A kernel may take its part of the seconds that are left; what it has not tried by then is left out.
    """
    began = time.monotonic()
    B, T = how["shapes"][0]
    sets = [make_inputs(B, T, num_segments, how["heads"], copies=3) for num_segments in (1, 8)]
    plan = triton_tiles.choose(jnp.bfloat16)

    def residuals(q, k, v, d_out, ids):
        out, lse = triton._forward(q, k, v, ids, plan.forward, False)
        _, delta = triton._backward_q(q, k, v, ids, out, lse, d_out, plan.backward_q, False)
        return q, k, v, d_out, ids, out, lse, delta

    sets = [[jax.jit(residuals)(*args) for args in inputs] for inputs in sets]
    kernels = {
        "forward": lambda blocks, q, k, v, d_out, ids, out, lse, delta: triton._forward(q, k, v, ids, blocks, False),
        "backward_q": lambda blocks, q, k, v, d_out, ids, out, lse, delta: triton._backward_q(
            q, k, v, ids, out, lse, d_out, blocks, False
        ),
        "backward_kv": lambda blocks, q, k, v, d_out, ids, out, lse, delta: triton._backward_kv(
            q, k, v, ids, lse, delta, d_out, blocks, False
        ),
    }
    for number, (name, kernel) in enumerate(kernels.items()):
        left = seconds - (time.monotonic() - began)
        ends = time.monotonic() + left / (len(kernels) - number)
        stays, moves = (64, 128), (32, 64, 128)
        tiles = itertools.product(moves, stays) if name == "backward_kv" else itertools.product(stays, moves)
        times = {}
        choices = list(itertools.product(list(tiles), (4, 8), (2, 3, 4)))
        for tried, ((block_q, block_k), warps, stages) in enumerate(choices):
            if time.monotonic() > ends:
                report({"kernel": name, "left_out": len(choices) - tried, "of": len(choices)})
                break
            blocks = Blocks(block_q, block_k, warps, stages)
            row = {"kernel": name, "blocks": [block_q, block_k, warps, stages]}
            try:
                run = jax.jit(functools.partial(kernel, blocks))
                ms = [milliseconds(run, inputs, how["calls"], how["samples"]) for inputs in sets]
                times[blocks] = sum(ms)
                row |= {"one_ms": round(ms[0], 3), "eight_ms": round(ms[1], 3)}
            except Exception as error:  # what a card has too little shared memory for, or Triton cannot compile
                row["failed"] = _first_line(error)
            report(row)
        if times:
            best = min(times, key=times.get)
            now = times.get(getattr(plan, name))
            report({"kernel": name, "best": repr(best), "ms": round(times[best], 3), "table_ms": now and round(now, 3)})


def run_one(args: argparse.Namespace, how: dict, report: Callable[[dict], None]) -> None:
    """What a process of its own does: a backend, or the sweep."""
    if args.sweep:
        return sweep(how, report, args.seconds)
    name = args.backend
    report({"backend": name} | check(name, how["heads"], 1024, jnp.dtype("bfloat16")))
    for (B, T), num_segments in itertools.product(how["shapes"], SEGMENTS):
        inputs = make_inputs(B, T, num_segments, how["heads"], copies=3)
        row = {"backend": name, "B": B, "T": T, "segments": num_segments}
        report(row | measure(name, inputs, how["calls"], how["samples"]))


def run_all(args: argparse.Namespace, report: Callable[[dict], None]) -> None:
    """Starts the processes one after the other; each may take its part of the seconds that are left."""
    began = time.monotonic()
    parts = [["--sweep"]] if args.sweep else [["--backend", name] for name in ORDER]
    for number, part in enumerate(parts):
        seconds = (args.seconds - (time.monotonic() - began)) / (len(parts) - number)
        command = [sys.executable, __file__, *part, "--alone", "--seconds", str(0.9 * seconds)]
        if args.output:
            command += ["--output", str(args.output)]
        try:
            code = subprocess.run(command, timeout=seconds).returncode
            failed = f"ended with code {code}" if code else None
        except subprocess.TimeoutExpired:
            failed = f"killed: still running after {seconds:.0f} s"
        if failed:
            report({"backend": part[-1], "failed": failed})


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sweep", action="store_true", help="tile sizes of the Triton kernels instead")
    parser.add_argument("--seconds", type=float, default=540, help="for everything; what does not fit is left out")
    parser.add_argument("--output", type=Path, help="by default benchmarks/results/attention_<device>.json on a GPU")
    parser.add_argument("--backend", choices=ORDER, help=argparse.SUPPRESS)  # of a process of its own
    parser.add_argument("--alone", action="store_true", help=argparse.SUPPRESS)
    return parser.parse_args()


def main() -> None:
    args = parse()
    platform, kind = ("", "") if args.alone else processes.find_device()
    if args.sweep and platform == "cpu":
        sys.exit("--sweep times kernels: it needs an NVIDIA card")
    if platform == "gpu" and args.output is None:
        slug = "_".join(kind.lower().split()) + ("_sweep" if args.sweep else "")
        args.output = RESULTS / f"attention_{slug}.json"
    if args.output and not args.alone:
        processes.write_json(args.output, {"device": kind, "rows": []})

    def report(row: dict, **head) -> None:
        print(json.dumps(row), flush=True)
        if args.output:  # after each, so that what was measured is there if a later one takes the program down
            known = json.loads(args.output.read_text())
            processes.write_json(args.output, {**known, **head, "rows": [*known["rows"], row]})

    if not args.alone:
        return run_all(args, report)
    device = choice.attached()
    how = ON_GPU if device.platform == "gpu" else ON_CPU
    head = {"capability": str(device), "jax": jax.__version__, "heads": how["heads"]}
    run_one(args, how, functools.partial(report, **head))


if __name__ == "__main__":
    main()
