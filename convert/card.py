"""The model card (README.md) of an exported model; it holds measured figures or none."""

import dataclasses
import re
from pathlib import Path
from typing import Any

import yaml

# A user's own path says nothing to a reader of the card, and is no hub id.
_HUB_ID = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")


@dataclasses.dataclass(frozen=True)
class Card:
    """What is known about a model that is being exported.

    Attributes:
      base_model: where the weights came from: hub id, folder, or "random".
      step: optimizer steps it was trained for by us.
      eval_results: content of eval/results.json ({"before": {"tasks": {name: cell}}, "after": ...}), None if
        it was not evaluated; a cell has n, correct, accuracy (0 to 1) and ci95 (two numbers).
      training_config: the resolved configuration, None if it was not trained by us.
      name: what to call the model; None for the name of the folder it is exported to.
    """

    base_model: str
    step: int = 0
    eval_results: dict[str, Any] | None = None
    training_config: dict[str, Any] | None = None
    name: str | None = None


def make_card(card: Card, folder_name: str, license_file: Path | None) -> str:
    """Returns the text of README.md: YAML front matter that the hub reads, then the card.

    Args:
      card: what is known.
      folder_name: what to call the model if the card does not say.
      license_file: the licence that came with the weights, if one did.
    """
    name = card.name or folder_name
    front = yaml.safe_dump(_front_matter(card, name, license_file), sort_keys=False, allow_unicode=True)
    parts = [f"---\n{front}---\n", f"# {name}\n", _origin(card), _usage(), _results(card)]
    if card.training_config is not None:
        parts.append("## Training\n\nThe whole configuration is in `training_config.json`.\n")
    if license_file is not None:
        parts.append("## Licence\n\nSee `LICENSE`.\n")
    return "\n".join(parts)


def _front_matter(card: Card, name: str, license_file: Path | None) -> dict[str, Any]:
    front: dict[str, Any] = {"library_name": "transformers", "pipeline_tag": "text-generation"}
    if license_id := _license(card.base_model, license_file):
        front["license"] = license_id
    if _is_hub_id(card.base_model):
        front["base_model"] = card.base_model
        front["base_model_relation"] = "finetune"
    front["tags"] = ["qwen3", "reasoning", "jax", "tiny_reasoning_jax"]
    tasks = _tasks(card, "after")
    if tasks:
        results = [_model_index_result(task, cell) for task, cell in tasks.items()]
        front["model-index"] = [{"name": name, "results": results}]
    return front


def _license(base_model: str, license_file: Path | None) -> str | None:
    """The hub's name of the licence, None if unknown: a card must not grant what the owner did not."""
    if license_file is not None:
        head = " ".join(license_file.read_text(encoding="utf-8", errors="replace")[:400].split())
        return "apache-2.0" if "Apache License Version 2.0" in head else "other"
    # Qwen published its dense Qwen3 models under Apache-2.0.
    return "apache-2.0" if base_model.startswith("Qwen/Qwen3-") else None


def _is_hub_id(base_model: str) -> bool:
    return bool(_HUB_ID.fullmatch(base_model)) and not Path(base_model).exists()


def _tasks(card: Card, when: str) -> dict[str, dict[str, Any]]:
    return ((card.eval_results or {}).get(when) or {}).get("tasks") or {}


def _model_index_result(task: str, cell: dict[str, Any]) -> dict[str, Any]:
    metric = {
        "type": "accuracy",
        "name": "accuracy, %",
        "value": round(100 * cell["accuracy"], 2),
        "verified": False,
    }
    return {
        "task": {"type": "text-generation"},
        "dataset": {"type": task, "name": task},
        "metrics": [metric],
    }


def _origin(card: Card) -> str:
    origin = {
        True: f"[{card.base_model}](https://huggingface.co/{card.base_model})",
        False: "random weights" if card.base_model == "random" else "a local folder of Qwen3 weights",
    }[_is_hub_id(card.base_model)]
    trained = f"trained for {card.step} optimizer steps" if card.step else "not trained further"
    return (
        f"A dense Qwen3 that reasons inside `<think>` ... `</think>` and gives its answer in `\\boxed{{}}`. "
        "It began as "
        f"{origin} and was {trained} with tiny_reasoning_jax.\n"
    )


def _usage() -> str:
    return (
        "## Use\n\n```python\nfrom transformers import AutoModelForCausalLM, AutoTokenizer\n\n"
        'folder = "."  # this folder, or its name on the hub\n'
        "tokenizer = AutoTokenizer.from_pretrained(folder)\nmodel = "
        "AutoModelForCausalLM.from_pretrained(folder)\n"
        'messages = [{"role": "user", "content": "What is 17 * 23?"}]\n'
        "prompt = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)\n"
        'inputs = tokenizer(prompt, return_tensors="pt", add_special_tokens=False)\n'
        "print(tokenizer.decode(model.generate(**inputs, max_new_tokens=512)[0]))\n```\n"
    )


def _results(card: Card) -> str:
    after, before = _tasks(card, "after"), _tasks(card, "before")
    if not after:
        return "## Results\n\nThis model was not evaluated.\n"
    lines = ["| task | problems | before training | after training |", "| --- | ---: | ---: | ---: |"]
    for task, cell in after.items():
        untrained = _cell(before[task]) if task in before else "not measured"
        lines.append(f"| {task} | {cell['n']} | {untrained} | {_cell(cell)} |")
    table = "\n".join(lines)
    return (
        "## Results\n\nAccuracy on problems that were not trained on, with 95 % confidence "
        f"intervals:\n\n{table}\n\n"
        "By category and difficulty: `eval_results.json`.\n"
    )


def _cell(cell: dict[str, Any]) -> str:
    low, high = cell["ci95"]
    return f"{100 * cell['accuracy']:.1f} % ({100 * low:.1f} to {100 * high:.1f})"
