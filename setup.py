"""Packaging; every dependency stands here with its reason."""

from setuptools import find_packages, setup

HUB = [
    "datasets>=4",  # streams the data sets of the Hugging Face hub
    "pyarrow>=17",  # reads Parquet files
]
TORCH = "torch==2.13.0"  # looser pins fetch a CUDA build
TEST = [
    "pytest>=8",
    TORCH,  # the independent reference, transformers' Qwen3 in float32
    "chex>=0.1.90",  # compares trees of arrays leaf by leaf, and names the leaf that differs
    "beartype",  # checks jaxtyping's shapes while tests run
    "safetensors>=0.5",  # reads what the converter wrote, with the library that everybody else reads it with
    *HUB,  # the readers are tested with the library itself, without a network
    "sympy",  # checks algebraic answers without sharing code with the generators
]
DEV = ["ruff==0.17.6"]  # one formatter and linter; pinned, because its format is part of CI

setup(
    name="tiny_reasoning_jax",
    version="0.1.0",
    description="Training a reasoning model on one GPU, in JAX",
    license="Apache-2.0",
    python_requires=">=3.11",
    packages=find_packages(include=["tiny_reasoning_jax*", "convert*"]),
    install_requires=[
        "jax>=0.10",
        "flax>=0.12",  # NNX modules
        "optax>=0.2.8",  # AdamW, schedules, MultiSteps
        "orbax-checkpoint>=0.12",  # asynchronous, atomic checkpoints
        "grain>=0.2.18",  # deterministic input pipeline whose state can be saved
        "array-record>=0.6",  # Grain's random-access format, through its own reader: ten times Grain's source
        "transformers>=4.51",  # tokenizers and chat templates as every other tool applies them
        "ml_collections>=1.1",  # configuration files with command-line overrides
        "scipy>=1.13",  # quantiles of the normal and of Student's law, for intervals; jax needs it anyway
        "orjson>=3.10",  # the data stage writes and reads each problem as JSON three times; three times as fast
        "jaxtyping>=0.3",  # shapes in signatures
        "math-verify==0.9.0",  # for answers that our grammar cannot read; pinned: versions judge differently
        "mpmath>=1.3",  # 100 digits where an answer is not rational; math-verify needs it as well
        "huggingface_hub",  # downloads of hub ids, and nothing else
        "tokenizers>=0.21",  # trains the byte-level BPE of the offline default
        "jinja2>=3.1.6",  # chat templates, in its sandbox without the known ways out; transformers leaves it optional
        "tensorboardX>=2.6",  # TensorBoard events without TensorFlow
        "pyyaml>=6",  # front matter of the model card
        "rensa>=0.5,<0.6",  # MinHash in Rust: 2 us a prompt where datasketch takes 170; releases may change signatures
        "tqdm>=4.66",  # the bar on a terminal
        "matplotlib>=3.9",  # plots in the report
    ],
    extras_require={
        "cuda13": ["jax[cuda13]>=0.10"],
        "cuda12": ["jax[cuda12]>=0.10"],
        "tpu": ["jax[tpu]>=0.10"],
        # Problems and verifiers for evaluation; 230 MB with what it pulls in, and needs a C compiler: not in `test`.
        # Pinned, because another version makes other items.
        "gym": ["reasoning-gym==0.1.25"],
        # lm-evaluation-harness, a second opinion on the exported folder; 216 MB with what it pulls in, torch apart: not
        # in `test`. It loads models through accelerate; its own extra [hf] would add peft, for adapters.
        "lm_eval": ["lm_eval>=0.4.13", "accelerate>=1", TORCH],
        "hub": HUB,
        "test": TEST,
        "dev": TEST + DEV,
    },
)
