"""The recipe: supervised training on graded reasoning, from data to report.

Run:  python main.py --config configs/reason.py          (looks at the machine)
      python main.py --config configs/reason.py:tiny     (any CPU, no network)
      python main.py --config configs/reason.py:1.7b     (one CUDA card; weights from the hub or a local folder)

Without a variant a card gets 1.7b-80gb, 1.7b-48gb, 1.7b-24gb, 1.7b-16gb or 0.6b, by its memory. What each needs is
planned and stands in benchmarks/results/plan.json (python benchmarks/plan.py); none of it is measured on a GPU yet.
"""

import jax

from configs import base
from tiny_reasoning_jax.device import device_memory

GIB = 2**30
# Variant that "auto" takes on a card with so many GiB or more, as CUDA reports them: less than what is sold.
SMALLEST = {"1.7b-80gb": 74, "1.7b-48gb": 43, "1.7b-24gb": 21.5, "1.7b-16gb": 15.5, "0.6b": 15}


def get_config(variant: str = "auto"):
    """The configuration of one variant, see VARIANTS; "auto" chooses by what this machine has."""
    why = "asked for"
    if variant == "auto":
        variant, why = _choose()
    if variant not in VARIANTS:
        raise ValueError(f"configs/reason.py has no variant {variant!r}; choose one of {', '.join(VARIANTS)}")
    config = base.get_config()
    VARIANTS[variant](config)
    others = ", ".join(f"configs/reason.py:{name}" for name in VARIANTS if name != variant)
    config.recipe = f"recipe reason:{variant} ({why}); to choose otherwise: --config {others}"
    return config


def _choose() -> tuple[str, str]:
    device = jax.local_devices()[0]
    if device.platform == "cpu":
        return "tiny", "this machine has no accelerator that JAX can use"
    memory = device_memory(device)
    if memory is None:
        return "tiny", f"{device.device_kind} does not tell how much memory it has"
    seen = f"{device.device_kind} with {memory / GIB:.1f} GiB"
    if memory < min(SMALLEST.values()) * GIB:
        return "tiny", f"{seen} is less than a card of 16 GB has"
    return next(name for name, smallest in SMALLEST.items() if memory >= smallest * GIB), seen


# What a model of 1M parameters can begin to learn in minutes; all 37 families at once it only starts.
_TINY_FAMILIES = (
    "sums", "products", "percent", "linear", "evaluate", "rectangle", "angles", "points", "dice", "conditional",
    "liars", "boolean", "syllogism", "assign", "loop", "bug",
)  # fmt: skip


def _tiny(config):
    """A 1M-parameter Qwen3 made on the spot; minutes on two CPU cores."""
    config.workdir = "runs/reason-tiny"
    config.model.source = "random"
    config.tokenizer.source = "procedural"
    config.model.random.num_attention_heads = 2
    config.model.random.num_key_value_heads = 1
    config.model.random.head_dim = 64  # QK-norm bounds scores by sqrt(head_dim): narrower heads learn to copy later
    config.data.source = f"procedural:{'+'.join(_TINY_FAMILIES)}"
    config.data.num_problems = 30_000
    config.train.num_steps = 2300
    config.train.batch_size = 8
    config.train.accum_steps = 1  # a micro-batch smaller than this leaves the cores waiting
    config.train.seq_len = 256
    config.train.learning_rate = 2.5e-3
    config.train.weight_decay = 0.1
    config.train.compute_dtype = "float32"  # CPUs compute bfloat16 slower than float32
    config.train.remat = "none"
    config.train.loss_chunk = 512  # 6 of 10 tokens are trained; what they leave of a chunk is computed for nothing
    config.train.validate_every_steps = 500
    config.train.num_probe = 100
    config.checkpoint.every_steps = 500
    config.eval.num_problems = 1200
    config.eval.max_new_tokens = 224


def _qwen3(name: str, **train):
    def change(config):
        config.workdir = f"runs/reason-{name}"
        config.model.source = f"Qwen/Qwen3-{name.partition('-')[0].upper()}-Base"
        config.train.update(train)

    return change


# What a variant leaves open (train.remat, accum_steps) is settled for the card that the run is on. Those for a card by
# its size leave nothing open: benchmarks/results/plan.json holds what each needs.
VARIANTS = {
    "tiny": _tiny,
    "0.6b": _qwen3("0.6b"),
    "1.7b": _qwen3("1.7b"),
    "1.7b-80gb": _qwen3("1.7b-80gb", remat="none", accum_steps=4),
    "1.7b-80gb-32k": _qwen3("1.7b-80gb-32k", seq_len=32_768, batch_size=2, remat="some", accum_steps=2),
    "1.7b-48gb": _qwen3("1.7b-48gb", master="remainder16", remat="some", accum_steps=4),
    "1.7b-24gb": _qwen3(
        "1.7b-24gb", master="remainder16", moments="int8", remat="full", accum_steps=8, loss_chunk=1024
    ),
    # An accumulator would take 6.4 GiB more: every step is one micro-batch, of one row.
    "1.7b-16gb": _qwen3(
        "1.7b-16gb", master="remainder16", moments="int8", remat="full", batch_size=1, accum_steps=1, loss_chunk=512
    ),
    # Room for it, where the host has 16 GB or more: master and moments, 6.4 GiB, are there between updates.
    "1.7b-16gb-offload": _qwen3(
        "1.7b-16gb-offload",
        master="remainder16",
        moments="int8",
        offload_optimizer=True,
        remat="some",
        accum_steps=16,
        loss_chunk=512,
    ),
}
