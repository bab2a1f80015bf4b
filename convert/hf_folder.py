"""Finding a Hugging Face model folder, and making an output folder that appears whole or not at all."""

import contextlib
import os
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from convert import tensor_files
from tiny_reasoning_jax.errors import ShortageError, UserError, is_full_disk
from tiny_reasoning_jax.foreign import read_json
from tiny_reasoning_jax.model.store import CARRIED_FILES
from tiny_reasoning_jax.progress import Progress

END_OF_TURN, END_OF_TEXT = "<|im_end|>", "<|endoftext|>"
CONFIG, GENERATION_CONFIG = "config.json", "generation_config.json"
HUB_ID = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")
_DISK_MARGIN = 50 * 10**6  # bytes beside the weights: tokenizer, metadata, card

# Called after every tensor with the bytes done so far and the bytes in all.
OnTensor = Callable[[int, int], None]


def find_source(source: str | Path) -> Path:
    """The folder of a model; for a hub id, after downloading its config, tokenizer and safetensors files.

    Raises:
      UserError: no such folder, or the hub did not give it.
    """
    folder = Path(source).expanduser()
    if folder.is_dir():
        return folder
    if not HUB_ID.fullmatch(str(source)):
        raise UserError(
            f"model folder {str(source)!r} does not exist; give a folder with config.json and *.safetensors, "
            "or a hub id such as Qwen/Qwen3-1.7B-Base"
        )
    import huggingface_hub
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    wanted = [CONFIG, GENERATION_CONFIG, *CARRIED_FILES, "model*.safetensors", tensor_files.INDEX_FILE]
    try:
        return Path(huggingface_hub.snapshot_download(str(source), allow_patterns=wanted))
    except (OSError, HfHubHTTPError, HFValidationError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UserError(
            f"model {str(source)!r} is no folder here and the Hugging Face hub did not give it: {reason}; "
            "check the name and the network (a gated model needs `hf auth login`), or fetch it elsewhere "
            "and give the folder"
        ) from error


def read_config(folder: Path) -> dict[str, Any]:
    """The parsed config.json.

    Raises:
      UserError: missing or damaged.
    """
    return read_json(folder / CONFIG)


def read_generation_config(folder: Path) -> dict[str, Any] | None:
    """The parsed generation_config.json, None when there is none.

    Raises:
      UserError: damaged.
    """
    path = folder / GENERATION_CONFIG
    return read_json(path) if path.is_file() else None


def special_token_ids(tokenizer_folder: Path) -> dict[str, int]:
    """Text -> id of a tokenizer's added tokens, from its files.

    Raises:
      UserError: the folder lacks a tokenizer, or its files are damaged.
    """
    config_path, path = tokenizer_folder / "tokenizer_config.json", tokenizer_folder / "tokenizer.json"
    ids = {}
    if path.is_file():
        added = read_json(path).get("added_tokens") or []
        ids = _read_ids(path, lambda: {token["content"]: token["id"] for token in added})
    elif not config_path.is_file():
        raise UserError(
            f"no tokenizer in {str(tokenizer_folder)!r}: put tokenizer.json and tokenizer_config.json there"
        )
    if config_path.is_file():
        more = read_json(config_path).get("added_tokens_decoder") or {}
        ids |= _read_ids(config_path, lambda: {token["content"]: int(token_id) for token_id, token in more.items()})
    return ids


def _read_ids(path: Path, read: Callable[[], dict[str, int]]) -> dict[str, int]:
    try:
        ids = read()
        wrong = [text for text, token_id in ids.items() if not isinstance(text, str) or type(token_id) is not int]
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UserError(f"the added tokens of {path} cannot be read ({error}); fetch the file again") from error
    if wrong:
        raise UserError(f"{path} has an added token without text and number: {wrong[0]!r:.80}; fetch the file again")
    return ids


@contextlib.contextmanager
def new_folder(output: str | Path, num_bytes: int) -> Iterator[Path]:
    """A folder to write into: it becomes `output` if the block ends well, and disappears if it does not.

    Args:
      output: the folder to make; it may exist if it is empty.
      num_bytes: size of the weights that will be written, bytes.

    Raises:
      UserError: output is not empty.
      ShortageError: the disk cannot hold num_bytes.
    """
    output = Path(output).expanduser().absolute()
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise UserError(
            f"output {str(output)!r} exists and is not empty; nothing was written. Remove it or give another"
        )
    partial = output.with_name(f".{output.name}.partial")
    if partial.exists():
        shutil.rmtree(partial)  # of an attempt that was killed
    output.parent.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(output.parent).free
    needed = num_bytes + _DISK_MARGIN
    if free < needed:
        raise ShortageError(
            f"the disk of {str(output.parent)!r} has {free / 1e6:,.1f} MB free and the model needs "
            f"{needed / 1e6:,.1f} MB; nothing was written. Free some space or give another output"
        )
    partial.mkdir()
    try:
        yield partial
        os.replace(partial, output)
    except BaseException as error:
        shutil.rmtree(partial, ignore_errors=True)
        if is_full_disk(error):
            raise ShortageError(
                f"the disk of {str(output.parent)!r} filled up while {needed / 1e6:,.1f} MB were written; "
                "nothing was kept. Free some space or give another output"
            ) from error
        raise


def show_progress(label: str) -> OnTensor:
    """Returns an on_tensor callback that shows a bar or lines, in MB."""
    progress: Progress | None = None

    def on_tensor(done: int, total: int) -> None:
        nonlocal progress
        if progress is None:
            progress = Progress(label, max(1, total // 10**6), "MB")
        progress.advance(progress.total * done // total - progress.done)
        if done == total:
            progress.__exit__()

    return on_tensor
