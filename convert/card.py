"""The model card (README.md) of an exported model; it holds measured figures or none."""

import dataclasses
from pathlib import Path
from typing import Any

import yaml

from convert.hf_folder import HUB_ID
from tiny_reasoning_jax.errors import UserError

NOT_MEASURED = "not measured"


@dataclasses.dataclass(frozen=True)
class Card:
    """What is known about a model that is being exported.

    Attributes:
      base_model: where the weights came from: hub id, folder, or "random".
      step: optimizer steps it was trained for by us.
      eval_results: content of eval/results.json ({"before": {"settings", "tasks": {name: summary}}, "after": ...,
        "comparison": {name: difference}}, see eval/statistics.py), None if it was not evaluated.
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

    Raises:
      UserError: the results were written by an earlier version of this program.
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
    return bool(HUB_ID.fullmatch(base_model)) and not Path(base_model).exists()


def _tasks(card: Card, when: str) -> dict[str, dict[str, Any]]:
    tasks = ((card.eval_results or {}).get(when) or {}).get("tasks") or {}
    for task, cell in tasks.items():
        if "num_samples" not in cell:
            raise UserError(
                f"the results of {task} ({when} training) were written by an earlier version of this program: they "
                "have no num_samples; evaluate again with --config.stages=eval, or delete eval/results.json"
            )
    return tasks


def _measures(cell: dict[str, Any]) -> dict[str, tuple[float, list[float]]]:
    """What was measured, by the name of its metric: (share, 95 % interval)."""
    measures = {"accuracy": (cell["accuracy"], cell["ci95"])}
    for size in list(cell["pass_at"])[1:]:  # pass@1 is the accuracy
        measures[f"pass@{size}"] = cell["pass_at"][size], cell["pass_at_ci95"][size]
    if cell["maj_at_k"] is not None:
        measures[f"maj@{cell['num_samples']}"] = cell["maj_at_k"], cell["maj_at_k_ci95"]
    return measures


def _model_index_result(task: str, cell: dict[str, Any]) -> dict[str, Any]:
    metrics = [
        {"type": name, "name": f"{name}, %", "value": round(100 * share, 2), "verified": False}
        for name, (share, _) in _measures(cell).items()
    ]
    return {
        "task": {"type": "text-generation"},
        "dataset": {"type": task, "name": task},
        "metrics": metrics,
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
    lines = ["| task | measure | before training | after training |", "| --- | --- | ---: | ---: |"]
    for task, cell in after.items():
        lines += _rows(task, before.get(task), cell)
    notes = [
        "On problems that were not trained on, in % with 95 % intervals (Wilson's where there is one sample of a "
        "problem, otherwise a bootstrap over the problems). pass@k: one of k samples is right, unbiased; maj@k: the "
        "most frequent answer of k samples is right. A completion without an answer counts as not right.",
        _protocol(card.eval_results["after"]),
        *_differences(card, after),
    ]
    listed = "\n".join(f"- {note}" for note in notes)
    table = "\n".join(lines)
    return f"## Results\n\n{table}\n\n{listed}\n- By category and difficulty: `eval_results.json`.\n"


def _rows(task: str, before: dict[str, Any] | None, after: dict[str, Any]) -> list[str]:
    old = {} if before is None else _measures(before)
    size = f"{after['n']:,} problems, {after['num_samples']} sample{'s' if after['num_samples'] > 1 else ''} of each"
    rows = []
    for name, measure in _measures(after).items():
        title = f"{name} ({size})" if name == "accuracy" else name
        rows.append((title, _cell(old[name]) if name in old else NOT_MEASURED, _cell(measure)))
    others = {
        "no answer": lambda cell: f"{100 * cell['unparsed'] / (cell['n'] * cell['num_samples']):.1f} %",
        "cut off": lambda cell: f"{100 * cell['truncated'] / (cell['n'] * cell['num_samples']):.1f} %",
        "tokens of a completion, mean": lambda cell: f"{cell['mean_tokens']:,.0f}",
    }
    rows += [(name, NOT_MEASURED if before is None else show(before), show(after)) for name, show in others.items()]
    return [f"| {task} | {' | '.join(row)} |" for row in rows]


def _cell(measure: tuple[float, list[float]]) -> str:
    share, (low, high) = measure
    return f"{100 * share:.1f} % ({100 * low:.1f} to {100 * high:.1f})"


def _protocol(evaluated: dict[str, Any]) -> str:
    """How the model was asked. Of the settings only these: others hold the user's paths."""
    asked, seed = evaluated["settings"]["eval"], evaluated["settings"]["seed"]
    graders = sorted({summary["grader"] for summary in evaluated["tasks"].values()})
    sampling = f"temperature {asked['temperature']}, top_p {asked['top_p']}, top_k {asked['top_k']}, seed {seed}"
    if asked["temperature"] == 0:
        sampling = "greedy"
    instructed = f" after every problem “{asked['instruction']}”;" if asked["instruction"] else ""
    thinking = "on" if asked["thinking"] else "off"
    return (
        f"Protocol: {asked['protocol']}, thinking {thinking};{instructed} {sampling}; at most "
        f"{asked['max_new_tokens']:,} new tokens; answers judged by tiny_reasoning_jax's grader, version "
        f"{', '.join(graders)}."
    )


def _differences(card: Card, after: dict[str, dict[str, Any]]) -> list[str]:
    """A paired test for each task that both models were asked."""
    lines = []
    for task, compared in card.eval_results.get("comparison", {}).items():
        low, high = compared["ci95"]
        test = "McNemar test" if after[task]["num_samples"] == 1 else "sign-flip test over the problems"
        p_value = "p < 0.001" if compared["p_value"] < 0.001 else f"p = {compared['p_value']:.3f}"
        lines.append(
            f"{task}, after - before: {100 * compared['difference']:+.1f} points ({100 * low:+.1f} to "
            f"{100 * high:+.1f}; paired, {compared['n']:,} problems), exact {test} {p_value}."
        )
    return lines
