"""Computes a step that was not finite once more, and says where it goes wrong.

python -m tiny_reasoning_jax.train.replay runs/reason/non-finite/step-1234

On another device than the run's the numbers differ in their last bits; what is infinite or NaN seldom does.
"""

import argparse
import dataclasses
import re
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

import jax
import numpy as np
from ml_collections import FrozenConfigDict

from tiny_reasoning_jax import xla
from tiny_reasoning_jax.errors import UserError
from tiny_reasoning_jax.model.attention import choice
from tiny_reasoning_jax.train import examine
from tiny_reasoning_jax.train.dump import Dump, load_dump, load_state
from tiny_reasoning_jax.train.step import TrainState, make_train_step, micro_batches, run_step


def replay(folder: Path) -> None:
    """Prints what the step of a dump does, from micro-batches down to examples, layers and gradients.

    Raises:
      UserError: the folder is no dump or lacks its state.
    """
    dump = load_dump(folder)
    train, facts = FrozenConfigDict(dump.facts["config"]).train, dump.facts
    dump = dump._replace(model_def=_computable(dump))
    state = load_state(dump, train)
    print(
        f"step {facts['step']}: loss={facts['loss']}, gradient norm={facts['grad_norm']}, on {facts['device']}; now on "
        f"{jax.local_devices()[0].device_kind}"
    )
    norms = {}
    for i, batch in enumerate(micro_batches(dump.arrays)):
        loss, norms[i] = jax.device_get(examine.measure(dump.model_def, train.loss_chunk, state, batch))
        print(f"micro-batch {i}: loss={loss} (divided by loss_denom={batch.loss_denom}, the step's trained tokens)")
        _tell_examples(dump, state, train, i, batch)
        _tell_first(dump, state, batch, norms[i])
    _tell_groups(state, norms)
    _, metrics = run_step(make_train_step(dump.model_def, train), state, dump.arrays)
    loss, grad_norm = (str(float(x)) for x in (metrics.loss, metrics.grad_norm))
    same = (loss, grad_norm) == (str(facts["loss"]), str(facts["grad_norm"]))
    print(f"the whole step: loss={loss}, gradient norm={grad_norm}, {'as' if same else 'not as'} in the run")
    if metrics.finite:
        print("It is finite here: the data and the state are not at fault alone; look at the run's device and driver.")


def _computable(dump: Dump):
    """The model, with an attention that this device has."""
    model_def, device = dump.model_def, choice.attached()
    shape = {"seq_len": dump.arrays.tokens.shape[-1], "head_dim": model_def.spec.head_dim, "dtype": model_def.dtype}
    why = choice.refusal(model_def.attention, device, **shape)
    if why is None:
        return model_def
    name = choice.candidates("auto", device, **shape)[0]
    print(f"attention: {name} in the place of {model_def.attention}, which cannot run here: {why}")
    return dataclasses.replace(model_def, attention=name)


def _tell_examples(dump, state, train, i, batch):
    ids = dump.facts["examples"][i]
    found = examine.example_losses(dump.model_def, train.loss_chunk, state.params, batch)
    for name, example in zip(ids, found, strict=True):
        bad = "" if np.isfinite(example["loss"]) else "  <- not finite"
        print(f"  row {example['row']} {name}: mean loss {example['loss']:.4f} of {example['trained']} tokens{bad}")


def _tell_first(dump, state, batch, norms):
    place = examine.first_bad_activation(dump.model_def, state.params, batch)
    if place:
        print(f"  first activation that is not finite: after {place[0]}, row {place[1]}, position {place[2]}")
    # The backward pass comes from the loss: what is nearest to it goes wrong first.
    names = sorted(norms, key=_nearness)
    bad = [name for name in names if not np.isfinite(norms[name])]
    if bad:
        print(f"  gradients that are not finite: {len(bad)} of {len(names)}; nearest to the loss: {bad[0]}")


def _nearness(name: str) -> tuple[int, int]:
    if name in ("lm_head", "final_norm.scale"):
        return (0, 0)
    layer = re.match(r"layers\.(\d+)\.", name)
    return (1, -int(layer[1])) if layer else (2, 0)


def _tell_groups(state: TrainState, norms: dict[int, dict[str, Any]]) -> None:
    groups = defaultdict(list)
    for name in state.params:
        groups[re.sub(r"^layers\.\d+\.", "layers.*.", name)].append(name)
    root = lambda values: float(np.sqrt(np.sum(np.square(np.asarray(values, np.float64)))))
    sizes = {name: float(np.linalg.norm(np.asarray(p, np.float32))) for name, p in state.params.items()}
    print(f"{'norm of':24} {'parameters':>12} " + " ".join(f"{f'gradient {i}':>12}" for i in norms))
    for group, names in groups.items():
        of_micro_batches = " ".join(f"{root([norm[name] for name in names]):12.4g}" for norm in norms.values())
        print(f"{group:24} {root([sizes[name] for name in names]):12.4g} {of_micro_batches}")


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m tiny_reasoning_jax.train.replay", description=__doc__.splitlines()[0]
    )
    parser.add_argument("folder", type=Path, help="<workdir>/non-finite/step-<n>")
    folder = parser.parse_args().folder
    xla.set_environment()  # read when the first device is asked for: no computation comes before
    try:
        replay(folder)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main()
