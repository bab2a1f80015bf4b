"""Flags -> configuration -> the stages it names, in order.

python main.py --config configs/reason.py
python main.py --config configs/reason.py:tiny --config.train.num_steps=50 --config.workdir=runs/trial
"""

import logging
import sys

from tiny_reasoning_jax.stop import STOP

STOP.listen()  # importing jax takes seconds already

from tiny_reasoning_jax import xla  # noqa: E402

xla.set_environment(sys.argv)  # before jax is imported

import jax  # noqa: E402
from absl import app, flags  # noqa: E402
from absl import logging as absl_logging  # noqa: E402
from ml_collections import config_dict, config_flags  # noqa: E402

from configs import base  # noqa: E402
from tiny_reasoning_jax import stages  # noqa: E402
from tiny_reasoning_jax.errors import STOPPED, ShortageError, UserError, is_full_disk  # noqa: E402

CONFIG = config_flags.DEFINE_config_file(
    "config", None, "The recipe, e.g. configs/reason.py or configs/reason.py:tiny."
)
flags.mark_flag_as_required("config")


def main(argv):
    """Runs the stages of the configuration."""
    if len(argv) > 1:
        raise UserError(f"unexpected {argv[1:]}; every setting is --config.<key>=<value>")
    # The preview draws bars, which not every terminal's encoding has; a stop writes no buffers out.
    sys.stdout.reconfigure(errors="replace", line_buffering=True)
    absl_logging.set_verbosity(absl_logging.WARNING)  # Orbax tells of every file it renames
    for room in ("tiny_reasoning_jax", "convert"):
        logger = logging.getLogger(room)
        logger.addHandler(logging.StreamHandler(sys.stdout))
        logger.setLevel(logging.INFO)
        logger.propagate = False
    if {"grade", "train", "eval"} & set(CONFIG.value.stages.split(",")):  # the others need no accelerator
        xla.start(CONFIG.value.deterministic)
    if not stages.run(config_dict.FrozenConfigDict(CONFIG.value)):
        sys.exit(STOPPED)


def parse_flags(argv):
    """Parses flags; an unknown key or a wrong type becomes a message (ml_collections names the nearest key)."""
    try:
        left = flags.FLAGS(argv)
        CONFIG.value.recipe  # noqa: B018 - ml_collections tells of a missing file at the first look into it
    except (flags.Error, AttributeError, KeyError, OSError) as error:
        text = str(error.args[0] if error.args else error).strip()
        if "Traceback" in text:  # ml_collections puts the recipe's own error behind the whole of its traceback
            text = text.splitlines()[-1]
        raise UserError(f"{text}\nAll keys, with units and reasons, are in configs/base.py") from error
    base.validate(CONFIG.value)
    return left


def explain_full_disk(error):
    """What to do about a file that could not be written; a failed write does not say of which file."""
    return (
        f"the disk of {CONFIG.value.workdir} is full ({error}). What is saved is whole: make room and run the same "
        "command again, it goes on from there"
    )


if __name__ == "__main__":
    try:
        app.run(main, flags_parser=parse_flags)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except jax.errors.JaxRuntimeError as error:
        if not xla.is_full_device(error):
            raise
        print(f"error: {xla.explain_out_of_memory(error)}", file=sys.stderr)
        sys.exit(ShortageError.exit_code)
    except OSError as error:
        if not is_full_disk(error):
            raise
        print(f"error: {explain_full_disk(error)}", file=sys.stderr)
        sys.exit(ShortageError.exit_code)
