"""The plan of a run: shown by the plan stage for any card, and before training for the one that is attached.

Settings that are left to the program (train.remat="auto", train.accum_steps=0) are settled here, once, before the first
stage; what cannot fit is refused before anything is written.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
from ml_collections import FrozenConfigDict

from convert import hf_folder
from tiny_reasoning_jax.data.tokenizer import find_tokenizer, load_tokenizer
from tiny_reasoning_jax.device import device_memory, host_memory
from tiny_reasoning_jax.errors import ShortageError, UserError
from tiny_reasoning_jax.model import attention
from tiny_reasoning_jax.model.attention import choice, cudnn, self_test
from tiny_reasoning_jax.model.qwen3 import ModelDef
from tiny_reasoning_jax.model.spec import PUBLISHED, ModelSpec, parse_hf_config
from tiny_reasoning_jax.plan import cards, choose
from tiny_reasoning_jax.plan.memory import Memory, plan_memory, split_state
from tiny_reasoning_jax.plan.report import Plan
from tiny_reasoning_jax.run import Run, padded_vocabulary
from tiny_reasoning_jax.train.step import abstract_state


class Target(NamedTuple):
    """What to compile for.

    Attributes:
      card: its facts.
      sharding: of the arrays; None for the device at hand.
      options: XLA's.
      attached: whether the card is here, so that kernels can be tried on it.
    """

    card: cards.Card
    sharding: jax.sharding.Sharding | None
    options: dict[str, Any]
    attached: bool


def run_plan(config: FrozenConfigDict) -> Plan:
    """Shows the plan of a configuration for config.plan.gpu; writes nothing but the plan. Raises as make_plan does."""
    plan = make_plan(config)
    print(plan, flush=True)
    if config.plan.output != "none":
        plan.write(Path(config.plan.output))
    return plan


def make_plan(config: FrozenConfigDict) -> Plan:
    """The plan of a configuration for config.plan.gpu; needs neither data nor weights.

    Raises:
      UserError: no such card, or no compiler for it.
      ShortageError: nothing fits; the message names settings that do.
    """
    target = _attached() if config.plan.gpu == "attached" else _named(config.plan.gpu)
    if target is None:
        raise UserError(
            "plan.gpu=attached, and this machine has no GPU that JAX can use; plan for one that is not here: "
            f"--config.plan.gpu=<name>, of {', '.join(cards.CARDS)}"
        )
    return _plan(config, find_spec(config), target)


def settle(config: FrozenConfigDict) -> FrozenConfigDict:
    """The configuration without open choices; prints the plan of a training and refuses what cannot fit.

    Where nothing is going to be trained, what training would choose does not matter, and nothing is compiled.

    Raises:
      ShortageError: the run does not fit; the message names settings that do.
    """
    this = Run(config, Path(config.workdir), None)
    # With allow_older a finished run trains once more, if its newest checkpoint is damaged.
    trains = "train" in config.stages.split(",") and (
        config.checkpoint.allow_older or not this.is_trained(this.latest_step())
    )
    target = _attached() if trains else None
    if target is not None:
        plan = _plan(config, find_spec(config), target)
        print(plan, flush=True)
        return plan.config
    remat = "none" if config.train.remat == "auto" else config.train.remat
    accum_steps = config.train.accum_steps or choose.micro_batch_counts(config.train)[0]
    config = choose.with_train(config, remat=remat, accum_steps=accum_steps)
    if trains:
        spec = find_spec(config)
        parts, host = split_state(abstract_state(ModelDef(spec), config.train), config.train)
        print(Plan(config, spec, None, None, Memory(parts, "", [], 0, 0, host, 0.0)), flush=True)
    return config


def _attached() -> Target | None:
    """The GPU of this machine; None without one."""
    device = jax.local_devices()[0]
    memory = device_memory(device) if device.platform == "gpu" else None
    if memory is None:
        return None
    return Target(cards.describe_attached(device, memory), None, {}, attached=True)


def _named(name: str) -> Target:
    card = cards.find(name)
    jax.config.update("jax_platforms", "cpu")  # a card that is here, or a driver that is not, has no part in this
    # Without a card nothing can be timed: kernels are those that XLA takes untimed.
    return Target(card, cards.sharding(card), {"xla_gpu_autotune_level": 0}, attached=False)


def _plan(config: FrozenConfigDict, spec: ModelSpec, target: Target) -> Plan:
    usable = cards.usable(target.card.memory)
    config = choose.with_train(config, attention=_attention(config, spec, target))
    measure = _measure(spec, target)
    chosen, tried = choose.choose(config, spec, target.card, usable, measure)
    if chosen is None:
        raise choose.refuse(config, spec, target.card, usable, measure, tried)
    host = host_memory()
    # Pinned memory grows in pieces that double, and a checkpoint that is read or written takes more beside it.
    if target.attached and chosen.memory.host > host / 2:
        raise ShortageError(
            f"train.offload_optimizer=True pins {chosen.memory.host / cards.GIB:.1f} GiB of the host's memory, more "
            f"than half of its {host / cards.GIB:.1f}; take --config.train.moments=int8 and master=remainder16, the "
            "smallest, or --config.train.offload_optimizer=false"
        )
    return Plan(chosen.config, spec, target.card, usable, chosen.memory)


def _attention(config: FrozenConfigDict, spec: ModelSpec, target: Target) -> str:
    """The backend that would train on a card; on one that is here, the best that passes its self-test."""
    device = choice.Device("gpu", target.card.capability)
    if not target.attached:
        return _attention_candidates(config, spec, device)[0]
    name, said = settle_attention(config, spec, device)
    print("\n".join(said), flush=True)
    return name


def settle_attention(config: FrozenConfigDict, spec: ModelSpec, device: choice.Device) -> tuple[str, list[str]]:
    """The backend that training takes on the device at hand, by its self-test there, and what that said."""
    train, names = config.train, _attention_candidates(config, spec, device)
    heads = {"N": spec.num_attention_heads, "K": spec.num_key_value_heads, "H": spec.head_dim}
    return self_test.settle(
        train.attention, names, attention.BACKENDS, **heads, dtype=train.compute_dtype, seq_len=train.seq_len
    )


def _attention_candidates(config: FrozenConfigDict, spec: ModelSpec, device: choice.Device) -> tuple[str, ...]:
    train = config.train
    return choice.candidates(
        train.attention, device, seq_len=train.seq_len, head_dim=spec.head_dim, dtype=train.compute_dtype,
        deterministic=config.deterministic,
    )  # fmt: skip


def _measure(spec: ModelSpec, target: Target) -> Callable[[FrozenConfigDict], Memory]:
    def measure(config: FrozenConfigDict) -> Memory:
        train = config.train
        print(f"plan: compiling remat {train.remat}, {train.accum_steps} micro-batches", flush=True)
        model_def = ModelDef(spec, dtype=train.compute_dtype, attention=train.attention, remat=train.remat)
        beside = 0 if target.attached else workspace_bytes(train, spec)
        return plan_memory(model_def, train, target.sharding, target.options, beside)

    return measure


def workspace_bytes(train: FrozenConfigDict, spec: ModelSpec) -> int:
    """What attention takes beside its operands, which only the kernels' own library on a card tells XLA."""
    if train.attention != "cudnn":
        return 0
    heads = spec.num_attention_heads, spec.num_key_value_heads
    return cudnn.workspace_bytes(train.batch_size // train.accum_steps, train.seq_len, *heads, spec.head_dim)


def find_spec(config: FrozenConfigDict) -> ModelSpec:
    """The shape of the run's model, without its weights.

    Raises:
      UserError: a hub id whose shape is not known here, and the hub does not tell it.
    """
    source, tokenizer = config.model.source, config.tokenizer
    if source == "random":
        is_new = tokenizer.source == "procedural"
        num_ids = tokenizer.vocab_size if is_new else len(load_tokenizer(find_tokenizer(tokenizer.source)))
        return ModelSpec(vocab_size=padded_vocabulary(num_ids), **config.model.random)
    folder = Path(source).expanduser()
    if source in PUBLISHED and not folder.is_dir():
        return PUBLISHED[source]
    if not folder.is_dir() and not hf_folder.HUB_ID.fullmatch(source):
        hf_folder.find_source(source)  # there is none: it says so
    if not folder.is_dir():
        import huggingface_hub
        from huggingface_hub.errors import HfHubHTTPError, HFValidationError

        try:
            folder = Path(huggingface_hub.hf_hub_download(source, hf_folder.CONFIG)).parent
        except (OSError, HfHubHTTPError, HFValidationError) as error:
            raise UserError(
                f"the shape of {source!r} is not known here, and the Hugging Face hub did not tell it "
                f"({type(error).__name__}); give a folder with its config.json as --config.model.source, or one of "
                f"{', '.join(PUBLISHED)}"
            ) from error
    return parse_hf_config(hf_folder.read_config(folder))
