"""Records out of a data set of the Hugging Face hub, streamed by the library `datasets` (extra `hub`).

Refused: to take a stream that broke for one that ended, and to run a data set's own code.
"""

import re
from collections.abc import Iterator
from typing import NamedTuple

from tiny_reasoning_jax.errors import UserError

_HUB_ID = re.compile(r"([\w.-]+/[\w.-]+)(?::([\w.-]*))?(?::([\w.-]+))?")


class HubId(NamedTuple):
    """A data set's name, its config or None for the only one, and its split."""

    name: str
    config: str | None
    split: str


_told: dict[str, str] = {}  # data set -> its revision, as this process was told it


def parse_hub_id(spec: str) -> HubId | None:
    """Reads "org/name", "org/name:config" or "org/name:config:split"; None if it has another form."""
    match = _HUB_ID.fullmatch(spec)
    return match and HubId(match[1], match[2] or None, match[3] or "train")


def stream_hub(hub_id: HubId, spec: str, key: str) -> Iterator[tuple[str, object]]:
    """Yields a split's records as ("<spec>:<row, from 1>", record).

    Raises:
      UserError: on the call, if the hub does not give that split; while reading, if it stops giving.
    """
    try:
        import datasets
    except ImportError as error:
        raise UserError(
            f'{key}={spec!r} is no file or folder here, and a hub id needs: pip install "tiny_reasoning_jax[hub]"'
        ) from error
    try:
        pinned = {"revision": _told[hub_id.name]} if hub_id.name in _told else {}
        stream = datasets.load_dataset(hub_id.name, hub_id.config, split=hub_id.split, streaming=True, **pinned)
    # The library and those below it raise dozens of unrelated types; nothing of ours runs in there.
    except Exception as error:
        raise _refusal(hub_id, spec, key, error) from error
    return _stream(stream, hub_id, spec, key)


def _stream(stream, hub_id: HubId, spec: str, key: str) -> Iterator[tuple[str, object]]:
    records, row = iter(stream), 0
    while True:
        try:
            record = next(records, None)
        except Exception as error:  # as above
            raise UserError(
                f"{key}={spec!r}: the hub broke off after {row:,} records: {_first_line(error)}. Nothing was kept; try "
                f"again, or {_by_hand(hub_id)}"
            ) from error
        if record is None:
            break
        row += 1
        yield f"{spec}:{row}", record
    splits = stream.info.splits or {}
    announced = splits[hub_id.split].num_examples if hub_id.split in splits else None
    if announced and row < announced:
        raise UserError(
            f"{key}={spec!r} gave {row:,} of the {announced:,} records that its card announces. Nothing was kept; try "
            f"again, or {_by_hand(hub_id)}"
        )


def find_revision(hub_id: HubId, spec: str, key: str) -> str:
    """Returns the hash of the data set's newest commit, which `stream_hub` then reads.

    Raises:
      UserError: the hub does not tell.
    """
    import huggingface_hub

    try:
        _told[hub_id.name] = huggingface_hub.HfApi().dataset_info(hub_id.name).sha
        return _told[hub_id.name]
    except Exception as error:  # as above
        raise _refusal(hub_id, spec, key, error) from error


def _refusal(hub_id: HubId, spec: str, key: str, error: Exception) -> UserError:
    return UserError(
        f"{key}={spec!r} is no file or folder here, and the Hugging Face hub did not give config "
        f"{hub_id.config or 'default'!r}, split {hub_id.split!r}: {type(error).__name__}: {_first_line(error)}. "
        f'Check name, config and split ("org/name:config:split"), access and network, or {_by_hand(hub_id)}'
    )


def _by_hand(hub_id: HubId) -> str:
    return f"get it elsewhere (hf download --repo-type dataset {hub_id.name} --local-dir FOLDER) and give the folder"


def _first_line(error: Exception) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__
