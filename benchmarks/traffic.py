"""What a layer reads and writes between its matrix products, by compiling the step for a card: no card is needed.

    python benchmarks/traffic.py [--rows 80gb 48gb 24gb]

Needs JAX's CUDA wheels (pip install -e ".[cuda12]"). A micro-step of a recipe of plan.py is compiled with few layers
and with two more; half of the difference is a layer's. Counted are the kernels of the program as it would run, and the
bytes of their operands and results, each once: what a kernel keeps in the card's caches is not known here. Products are
those of cuBLAS, which are taken on a card where they are faster than the compiler's own. Passes of cuDNN's attention
beyond the first are left out, as in rows of few examples.

"rest" is what is neither product nor attention: norms, rotation, gate, sums of residuals, copies, and adding to the
accumulator. A card that reaches nine tenths of its bandwidth takes the milliseconds that are printed for it; they come
on top of the products'. Nothing is measured on a GPU here. Writes benchmarks/results/traffic.json.
"""

import argparse
import json
import re
from pathlib import Path

import plan  # benchmarks/plan.py; sets the environment before jax is imported
from tiny_reasoning_jax.plan import cards, memory

RESULTS = Path(__file__).parent / "results" / "traffic.json"
LAYERS = (3, 5)
SHARE_OF_BANDWIDTH = 0.9
FREE = {"parameter", "tuple", "get-tuple-element", "constant", "bitcast", "optimization-barrier", "after-all", "while"}
INSTRUCTION = re.compile(r"^\s+(?:ROOT )?%?([\w.\-]+) = (\([^=]*?\)|\S+) ([\w\-]+)\((.*)$")


def num_bytes(shape: str) -> int:
    """Of an HLO shape, tuples included: "(f32[4,4096]{1,0}, bf16[2])"."""
    total = 0
    for bits, dims in re.findall(r"\b(?:pred|[a-z]+(\d+))\[([\d,]*)\]", shape):
        size = int(bits or 8)
        for dim in filter(None, dims.split(",")):
            size *= int(dim)
        total += size // 8
    return total


def kind_of(instruction: str, rest: str, with_dot: set[str]) -> str:
    """What a kernel is for; `rest` is its line from the operands on, `with_dot` computations that hold a product."""
    target = re.search(r'custom_call_target="([^"]*)"', rest)
    if target and "cublas" in target[1]:
        return "products"
    if target and ("fmha" in target[1] or "triton" in target[1]):
        return "attention"
    called = re.search(r"calls=%?([\w.\-]+)", rest)
    if instruction == "dot" or called and called[1] in with_dot:
        raise SystemExit(f"a product that cuBLAS does not compute, and that would count as the rest: {rest[:200]}")
    return "rest"


def count(text: str) -> dict[str, list[int]]:
    """Kernels and bytes of the main computation of a compiled module, by kind; loops are left out."""
    others, main = re.sub(r"/\*index=\d+\*/", "", text).split("\nENTRY ", 1)
    with_dot = {c.strip().split(" ")[0].lstrip("%") for c in re.split(r"\n\n", others) if " dot(" in c}
    found = [match.groups() for match in map(INSTRUCTION.match, main.splitlines()) if match]
    shapes = {name: shape for name, shape, _, _ in found}
    totals = {"products": [0, 0], "attention": [0, 0], "rest": [0, 0]}
    for _, shape, instruction, rest in found:
        if instruction in FREE:
            continue
        operands = re.findall(r"%([\w.\-]+)", rest.split(")")[0])
        total = totals[kind_of(instruction, rest, with_dot)]
        total[0] += 1
        total[1] += num_bytes(shape) + sum(num_bytes(shapes[operand]) for operand in operands)
    return totals


def measure(row: str) -> dict:
    """A layer's kernels, bytes and milliseconds by kind, in the micro-step of which a step has the most."""
    name, config = plan.make_config(row)
    card, train, program = cards.find(name), config.train, memory.program_names(config.train)[0]
    # Timing candidates needs the card.
    options = {"xla_gpu_autotune_level": 0, "xla_gpu_enable_triton_gemm": False}
    few, more = (count(plan.lower(row, program, num_hidden_layers=n).compile(options).as_text()) for n in LAYERS)
    layer = {}
    for kind in few:
        kernels, size = ((b - a) / (LAYERS[1] - LAYERS[0]) for a, b in zip(few[kind], more[kind], strict=True))
        milliseconds = size / (SHARE_OF_BANDWIDTH * card.bandwidth) * 1e3
        layer[kind] = {"kernels": kernels, "gb": round(size / 1e9, 3), "ms": round(milliseconds, 3)}
    tokens = train.batch_size // train.accum_steps * train.seq_len
    return {
        "row": row, "card": card.name, "program": program, "tokens_per_micro_step": tokens,
        "remat": train.remat, "attention": train.attention, "layer": layer,
    }  # fmt: skip


def main() -> None:
    """Compiles the rows and writes what they say."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rows", nargs="*", choices=plan.ROWS, default=["80gb", "48gb", "24gb", "16gb"])
    for row in parser.parse_args().rows:
        result = measure(row)
        print(json.dumps(result), flush=True)
        plan.store(RESULTS, result)


if __name__ == "__main__":
    main()
