"""A run while its stages are at work: its folder, its models, and the facts kept of it."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
from ml_collections import FrozenConfigDict

from convert import from_hf, hf_folder, to_hf
from tiny_reasoning_jax import workdir as rundir
from tiny_reasoning_jax.data.gather import is_generated
from tiny_reasoning_jax.data.tokenizer import load_tokenizer
from tiny_reasoning_jax.errors import DamagedError, UserError
from tiny_reasoning_jax.eval import tasks
from tiny_reasoning_jax.model import store
from tiny_reasoning_jax.model.attention import choice
from tiny_reasoning_jax.model.qwen3 import ModelDef, Params
from tiny_reasoning_jax.model.spec import ModelSpec, hf_config, parse_hf_config
from tiny_reasoning_jax.train.metrics import load_metrics


class Run(NamedTuple):
    """A run while its stages are at work."""

    config: FrozenConfigDict
    workdir: Path
    source: Path | None  # Hugging Face folder that the weights come from; None: a new random model

    @property
    def checkpoints(self) -> Path:
        """Folder of the checkpoints."""
        return self.workdir / "checkpoints"

    def latest_step(self) -> int | None:
        """The newest checkpoint's step; None before the first."""
        return max(store.committed_steps(self.checkpoints), default=None) if self.checkpoints.is_dir() else None

    def is_trained(self, step: int | None) -> bool:
        """Whether training has nothing left to do after this checkpoint, its own validation included."""
        if step is None or step < self.config.train.num_steps:
            return False
        is_owed = "unmeasured" in store.load_meta(self.checkpoints / str(step))
        return not is_owed or any(line["step"] == step for line in load_metrics(self.workdir))


def make_model_def(config: FrozenConfigDict, spec: ModelSpec, *, trains: bool = True) -> ModelDef:
    """The model as this configuration computes it.

    Args:
      config: the run's; train.attention="auto" becomes the first choice for the device at hand.
      spec: its shape.
      trains: False for a model that only writes, which attends through its cache: train.attention is not asked, and may
        be one that this machine has not.

    Raises:
      UserError: the device cannot compute what train.attention asks for.
    """
    train, name = config.train, "reference"
    if trains:
        name, *_ = choice.candidates(
            train.attention, choice.attached(), seq_len=train.seq_len, head_dim=spec.head_dim,
            dtype=train.compute_dtype, deterministic=config.deterministic,
        )  # fmt: skip
    return ModelDef(spec, dtype=train.compute_dtype, attention=name, remat=train.remat)


def padded_vocabulary(num_ids: int) -> int:
    """Rows of a new model's embedding: a multiple of 128 suits the matrix units; those beyond num_ids stay unused."""
    return -(-num_ids // 128) * 128


def load_source(this: Run) -> from_hf.Loaded:
    """The model before training: weights read from the source, or made from the seed.

    Raises:
      UserError: the tokenizer has ids beyond the model's vocabulary.
    """
    num_ids = len(load_tokenizer(this.workdir / "data" / "tokenizer"))
    if this.source is None:
        spec = ModelSpec(vocab_size=padded_vocabulary(num_ids), **this.config.model.random)
        params = ModelDef(spec).create_params(this.config.seed)
        return from_hf.Loaded(spec, params, hf_config(spec), None)
    loaded = from_hf.load_hf(this.source, hf_folder.show_progress("weights"))
    if num_ids > loaded.spec.vocab_size:
        raise UserError(
            f"the tokenizer has {num_ids} entries, the model's embedding only {loaded.spec.vocab_size} rows; use the "
            f"model's own with --config.tokenizer.source=model"
        )
    return loaded


def load_checkpoint(folder: Path) -> tuple[ModelSpec, Params]:
    """A checkpoint's model, with its parameters on the first device; `folder` is that of one step."""
    opened = store.open_checkpoint(folder)
    to_hf.check_params(opened)
    params = store.restore_params(opened, sharding=jax.sharding.SingleDeviceSharding(jax.devices()[0]))
    return parse_hf_config(opened.meta["model_config"]), params


class FoundModel(NamedTuple):
    """A model that exists somewhere: not loaded yet.

    Attributes:
      name: for results and messages.
      mark: changes when its files do.
      tokenizer_folder: None where it has none beside it.
      load: loads it.
    """

    name: str
    mark: str
    tokenizer_folder: Path | None
    load: Callable[[], tuple[ModelSpec, Params]]


def find_model(asked: str, key: str) -> FoundModel:
    """The model in a folder of checkpoints (ours, a run's, or that of one step), a Hugging Face folder or a hub id.

    Args:
      asked: which.
      key: the setting that it stands in, for messages.

    Raises:
      UserError: there is none, or none with a tokenizer.
    """
    path = Path(asked).expanduser()
    path = path / "checkpoints" if (path / "checkpoints").is_dir() else path  # a run's folder
    if path.is_dir() and (store.committed_steps(path) or (path / "params").is_dir()):
        opened = store.open_checkpoint(path)
        name, folder = f"{asked} at step {opened.meta['step']}", opened.tokenizer_folder
        found = FoundModel(name, _mark(opened.step_folder), folder, lambda: load_checkpoint(opened.step_folder))
    else:
        source = hf_folder.find_source(asked)
        from_hf.open_tensors(source, parse_hf_config(hf_folder.read_config(source)))  # refuse bad weights now

        def load() -> tuple[ModelSpec, Params]:
            loaded = from_hf.load_hf(source, hf_folder.show_progress("weights"))
            return loaded.spec, loaded.params

        found = FoundModel(str(asked), _mark(source), source, load)
    if found.tokenizer_folder is None:
        raise UserError(f"{key}={asked!r} has no tokenizer beside it; convert it again, or give its HF folder")
    return found


def _mark(folder: Path) -> str:
    """Size and time of the files in a folder: to read weights only to see that nothing has changed takes long."""
    stats = [path.stat() for path in sorted(folder.rglob("*")) if path.is_file()]
    return f"{sum(s.st_size for s in stats)} bytes, changed {max((s.st_mtime_ns for s in stats), default=0)}"


def load_graded(this: Run) -> tuple[str, ModelSpec, Params]:
    """The model that the grade stage asks, and its name.

    A command that grades and then trains goes on with the model that its grades began with: killed in training, it
    would find checkpoints the next time, and refuse its own grades as another model's.

    Raises:
      UserError: config.grade.model is none, or its tokenizer is not that of the prepared data.
    """
    asked, step = this.config.grade.model, this.latest_step()
    began_with = load_json(this.workdir / "grades.json").get("settings", {}).get("model", {}).get("name")
    trains_next = "train" in this.config.stages.split("grade")[-1].split(",")
    if asked == "run" and (step is None or (trains_next and began_with == this.config.model.source)):
        source = load_source(this)
        return this.config.model.source, source.spec, source.params
    if asked == "run":
        return f"run at step {step}", *load_checkpoint(this.checkpoints / str(step))
    found = find_model(asked, "grade.model")
    _require_tokenizer(this, found.tokenizer_folder, asked)
    return found.name, *found.load()


def _require_tokenizer(this: Run, folder: Path, asked: str) -> None:
    ours = this.workdir / "data" / "tokenizer"
    same = [set(load_tokenizer(f).get_vocab().items()) for f in (folder, ours)]
    if same[0] != same[1]:
        raise UserError(
            f"grade.model={asked!r} has a tokenizer of {len(same[0]):,} entries that is not the one of {ours} "
            f"({len(same[1]):,}); prepare the data with --config.tokenizer.source={folder}"
        )


def require_data(this: Run) -> None:
    """Raises UserError unless the data stage has been run."""
    if not (this.workdir / "data" / "summary.json").exists():
        raise UserError(f"no prepared data in {this.workdir / 'data'}; run the data stage first: --config.stages=data")


def load_json(path: Path) -> dict[str, Any]:
    """A JSON file of the run; empty if it is not there yet.

    Raises:
      DamagedError: it is not JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    except ValueError as error:
        raise DamagedError(f"{path} is damaged ({str(error)[:100]}); put back a copy, or delete it") from error


def write_facts(this: Run, **facts) -> None:
    """Adds facts of what the run cost to run.json."""
    path = this.workdir / "run.json"
    rundir.write_json(path, {**load_json(path), **facts})


def task_name(config_data: FrozenConfigDict) -> str:
    """What the run's test set is called in results: "procedural", "gym", or after its folder, file or hub id."""
    source = config_data.source if config_data.test_source == "auto" else config_data.test_source
    if "," in source:
        return "mixture"
    if is_generated(source):
        return source.partition(":")[0]
    return tasks.name_source(source)
