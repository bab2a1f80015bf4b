"""Is a Hugging Face folder what it says, and do we compute the same from it as transformers does?

    python -m convert.check --source <HF folder or hub id> [--checkpoint DIR]

Prints one line a check with its figures. Exit code 0: nothing failed; 1: something did; 2: it could not be
checked. The comparison with transformers' own model needs torch (`pip install -e ".[test]"`) and is reported
as skipped without.
"""

import argparse
import gc
import importlib.util
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from convert import hf_folder, mapping, tensor_files
from convert.from_hf import load_hf, open_tensors, read_bfloat16, run_command
from convert.to_hf import check_params
from tiny_reasoning_jax.errors import UserError
from tiny_reasoning_jax.foreign import read_json
from tiny_reasoning_jax.model import store
from tiny_reasoning_jax.model.qwen3 import ModelDef, Params
from tiny_reasoning_jax.model.spec import ModelSpec, parse_hf_config

PROMPT_TOKENS, GREEDY_TOKENS = 32, 64
# Both sides compute in float32 and sum in their own order. Rounding grows with the size of the numbers, so
# the bound does too: this part of the largest logit, or this itself where logits are below 1.
LOGITS_TOLERANCE = 1e-4
# Decoding without a cache takes minutes beyond this; logits are compared at any size.
MAX_GREEDY_PARAMETERS = 100_000_000


class Check(NamedTuple):
    """The outcome of one check: "ok", "FAILED" or "skipped", and what was seen."""

    name: str
    outcome: str
    detail: str


class _SkippedError(Exception):
    """A check that could not be made here; the message says why."""


def check_folder(folder: Path, checkpoint: str | Path | None = None) -> Iterator[Check]:
    """Yields the outcome of every check, as they are made.

    Args:
      folder: a Hugging Face model folder.
      checkpoint: a checkpoint of ours whose parameters must be the folder's, byte for byte.

    Raises:
      UserError: config.json is not that of a dense Qwen3, so that there is nothing to check.
    """
    spec = parse_hf_config(hf_folder.read_config(folder))
    checks: dict[str, Callable[[Path, ModelSpec], str]] = {
        "config": _check_config,
        "tokenizer": _check_tokenizer,
        "stop tokens": _check_stop_tokens,
        "files": _check_files,
        "tensors": _check_tensors,
        "round trip": _check_round_trip,
    }
    if checkpoint is not None:
        checks["checkpoint"] = lambda folder, spec: _check_checkpoint(folder, spec, checkpoint)
    checks["against transformers"] = _check_against_transformers
    for name, check in checks.items():
        try:
            yield Check(name, "ok", check(folder, spec))
        except UserError as error:
            yield Check(name, "FAILED", str(error))
        except _SkippedError as reason:
            yield Check(name, "skipped", str(reason))


def _check_config(folder: Path, spec: ModelSpec) -> str:
    """transformers reads the same shape from config.json as we do."""
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    rope = getattr(config, "rope_parameters", None) or {}
    theirs = {"rope_theta": rope.get("rope_theta", getattr(config, "rope_theta", None))}
    ours = {"rope_theta": spec.rope_theta}
    for key in ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads",
                "num_key_value_heads", "head_dim", "rms_norm_eps", "tie_word_embeddings"):  # fmt: skip
        theirs[key], ours[key] = getattr(config, key), getattr(spec, key)
    different = [
        f"{key}: {ours[key]} for us, {theirs[key]} for transformers" for key in ours if ours[key] != theirs[key]
    ]
    if different:
        raise UserError("; ".join(different))
    return f"{spec.num_hidden_layers} layers, width {spec.hidden_size}, {spec.num_parameters:,} parameters"


def _check_tokenizer(folder: Path, spec: ModelSpec) -> str:
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except Exception as error:  # tokenizers raises a plain Exception for a damaged file
        raise UserError(f"it cannot be read: {(str(error) or type(error).__name__).splitlines()[0]}") from error
    if len(tokenizer) > spec.vocab_size:
        raise UserError(f"{len(tokenizer)} entries, and the embedding has {spec.vocab_size} rows")
    template, inline = folder / "chat_template.jinja", None
    if (folder / "tokenizer_config.json").is_file():
        inline = read_json(folder / "tokenizer_config.json").get("chat_template")
    if inline is not None and template.is_file() and template.read_bytes() != inline.encode():
        raise UserError("chat_template.jinja and the template in tokenizer_config.json are different texts")
    where = "with a chat template" if tokenizer.chat_template else "WITHOUT a chat template"
    return f"{type(tokenizer).__name__}, {len(tokenizer)} entries for {spec.vocab_size} rows, {where}"


def _check_stop_tokens(folder: Path, spec: ModelSpec) -> str:
    text_of = {token_id: text for text, token_id in hf_folder.special_token_ids(folder).items()}
    # A reader without generation_config.json takes the id from config.json.
    source = hf_folder.read_generation_config(folder) or hf_folder.read_config(folder)
    stops = source.get("eos_token_id")
    stops = stops if isinstance(stops, list) else [stops] * (stops is not None)
    unknown = [stop for stop in stops if stop not in text_of or stop >= spec.vocab_size]
    if unknown or not stops:
        raise UserError(f"eos_token_id={stops}: the tokenizer has no special token {unknown or 'there'}")
    shown = ", ".join(f"{text_of[stop]} ({stop})" for stop in stops)
    if hf_folder.END_OF_TURN not in (text_of[stop] for stop in stops):
        return f"{shown}; not {hf_folder.END_OF_TURN}: a base model, which does not end a turn"
    return shown


def _check_files(folder: Path, spec: ModelSpec) -> str:
    """What readers trip over before they look at a tensor."""
    problems = [
        f"{file.name} is pickled" for file in folder.iterdir() if file.suffix in (".bin", ".pt", ".pth", ".pkl")
    ]
    files = tensor_files.list_files(folder)
    headers = {file: tensor_files.read_header(file) for file in files}
    for file, (_, metadata) in headers.items():
        if metadata.get("format") != "pt":
            problems.append(f"{file.name} does not say format=pt in its header, transformers 4 refuses it")
    stored = sum(tensor.stop - tensor.start for tensors, _ in headers.values() for tensor in tensors.values())
    if (folder / tensor_files.INDEX_FILE).is_file():
        index = read_json(folder / tensor_files.INDEX_FILE)
        total_size = (index.get("metadata") or {}).get("total_size")
        # Official checkpoints count a tied head once although they store it twice.
        if total_size not in (stored, 2 * spec.num_parameters):
            problems.append(f"the index says total_size={total_size}, its files hold {stored} bytes")
    if problems:
        raise UserError("; ".join(problems))
    return f"{len(files)} safetensors, {stored / 1e9:.3f} GB, nothing pickled"


def _check_tensors(folder: Path, spec: ModelSpec) -> str:
    tensors = open_tensors(folder, spec)
    dtypes = ", ".join(sorted({tensor.dtype for _, tensor in tensors}))
    head = ", redundant head equal to the embedding" if _has_redundant_head(folder, spec) else ""
    return f"{len(tensors)} names and shapes as config.json makes them, {dtypes}{head}"


def _has_redundant_head(folder: Path, spec: ModelSpec) -> bool:
    return spec.tie_word_embeddings and mapping.HEAD in tensor_files.list_tensors(folder)


def _check_round_trip(folder: Path, spec: ModelSpec) -> str:
    different = []
    num_bytes = 0
    for entry, tensor in open_tensors(folder, spec):
        original = read_bfloat16(tensor)
        ours = np.ascontiguousarray(entry.from_hf(original))
        if ours.shape != entry.shape or not _bytes_equal(entry.to_hf(ours), original):
            different.append(entry.hf_name)
        num_bytes += original.nbytes
    if different:
        raise UserError(f"{len(different)} tensors come back different: {', '.join(different)}")
    return f"Hugging Face -> ours -> Hugging Face, {num_bytes:,} bytes equal"


def _check_checkpoint(folder: Path, spec: ModelSpec, checkpoint: str | Path) -> str:
    opened = store.open_checkpoint(checkpoint)
    check_params(opened)
    tensors = open_tensors(folder, spec)
    ours = {name: array.shape for name, array in opened.shapes.items()}
    theirs = {entry.name: entry.shape for entry, _ in tensors}
    if ours != theirs:
        raise UserError(f"{opened.step_folder} holds a model of another shape: {opened.meta['model_config']}")
    different = []
    for entry, tensor in tensors:
        param = store.restore_params(opened, [entry.name])[entry.name]
        if not _bytes_equal(entry.to_hf(param), read_bfloat16(tensor)):
            different.append(entry.name)
    if different:
        raise UserError(f"{len(different)} of {len(tensors)} parameters differ: {', '.join(different[:10])}")
    return f"{opened.step_folder}: {len(tensors)} parameters, byte-equal"


def _bytes_equal(a: np.ndarray, b: np.ndarray) -> bool:
    return a.shape == b.shape and np.array_equal(a.view(np.uint16), b.view(np.uint16))


def _check_against_transformers(folder: Path, spec: ModelSpec) -> str:
    """Float32 logits, and greedy decoding where that is quick; one model in memory at a time."""
    if importlib.util.find_spec("torch") is None:
        raise _SkippedError('torch is not installed, logits were NOT compared; `pip install -e ".[test]"` brings it')
    num_greedy = GREEDY_TOKENS if spec.num_parameters <= MAX_GREEDY_PARAMETERS else 0
    prompt = np.random.default_rng(0).integers(0, spec.vocab_size, PROMPT_TOKENS)
    theirs, their_tokens = _run_transformers(folder, prompt, num_greedy)
    gc.collect()
    params = load_hf(folder).params
    ours = compute_logits(spec, params, prompt)
    scale = float(np.abs(theirs).max())
    difference = float(np.abs(ours - theirs).max())
    bound = LOGITS_TOLERANCE * max(1.0, scale)
    figures = f"max |difference| of float32 logits {difference:.2e} (bound {bound:.2e}, largest logit {scale:.3g})"
    if not difference <= bound:
        raise UserError(figures)
    if not num_greedy:
        return f"{figures}; greedy decoding not compared above {MAX_GREEDY_PARAMETERS:,} parameters"
    our_tokens = greedy_decode(spec, params, prompt, num_greedy)
    if our_tokens != their_tokens:
        first = next(i for i, (a, b) in enumerate(zip(our_tokens, their_tokens, strict=True)) if a != b)
        raise UserError(f"{figures}; greedy tokens part at {first}: {our_tokens[first]} and {their_tokens[first]}")
    return f"{figures}; {num_greedy} greedy tokens equal"


def compute_logits(spec: ModelSpec, params: Params, prompt: np.ndarray) -> np.ndarray:
    """Our float32 logits [T, V] of a prompt [T].

    Not under jit: op by op, only one parameter exists in float32 at a time.
    """
    model = ModelDef(spec, dtype="float32").bind(params)
    tokens = jnp.asarray(prompt, jnp.int32)[None]
    hidden, _ = model(tokens, jnp.arange(len(prompt))[None])
    return np.asarray(model.logits(hidden))[0]


def greedy_decode(spec: ModelSpec, params: Params, prompt: np.ndarray, count: int) -> list[int]:
    """The `count` tokens that follow greedily in float32, by a full forward pass each; stops at nothing."""
    model_def = ModelDef(spec, dtype="float32")
    positions = jnp.arange(len(prompt) + count)[None]

    @jax.jit
    def next_token(params, tokens, last):
        model = model_def.bind(params)
        hidden, _ = model(tokens[None], positions)
        return jnp.argmax(model.logits(hidden[0, last]))

    tokens = np.zeros(len(prompt) + count, np.int32)
    tokens[: len(prompt)] = prompt
    for i in range(len(prompt), len(tokens)):
        tokens[i] = next_token(params, tokens, i - 1)
    return tokens[len(prompt) :].tolist()


def _run_transformers(folder: Path, prompt: np.ndarray, num_greedy: int) -> tuple[np.ndarray, list[int]]:
    """transformers' float32 logits [T, V] of the prompt, and its greedy continuation."""
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(
        folder, local_files_only=True, trust_remote_code=False, use_safetensors=True, attn_implementation="eager"
    ).float()
    model.eval()
    tokens = torch.from_numpy(prompt)[None]
    with torch.no_grad():
        logits = model(tokens).logits[0].numpy()
        for _ in range(num_greedy):
            tokens = torch.cat([tokens, model(tokens).logits[:, -1:].argmax(-1)], dim=1)
    return logits, tokens[0, len(prompt) :].tolist()


def main(argv: list[str] | None = None) -> int:
    """The command line; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m convert.check", description=__doc__.splitlines()[0])
    parser.add_argument("--source", required=True, help="Hugging Face folder, or a hub id")
    parser.add_argument("--checkpoint", metavar="DIR", help="a checkpoint that must hold the same parameters")
    args = parser.parse_args(argv)

    def command() -> int:
        outcomes = []
        for check in check_folder(hf_folder.find_source(args.source), args.checkpoint):
            print(f"{check.outcome:8} {check.name:21} {check.detail}", flush=True)
            outcomes.append(check.outcome)
        failed, skipped = outcomes.count("FAILED"), outcomes.count("skipped")
        print(f"{len(outcomes)} checks: {outcomes.count('ok')} ok, {failed} FAILED, {skipped} skipped")
        return 1 if failed else 0

    return run_command(command)


if __name__ == "__main__":
    jax.config.update("jax_platforms", "cpu")  # float32 must mean float32: accelerators may compute in less
    sys.exit(main())
