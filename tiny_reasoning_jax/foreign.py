"""Files from strangers: what is asked of each before it is believed."""

import json
from pathlib import Path
from typing import Any

from tiny_reasoning_jax.errors import UserError

MAX_JSON_BYTES = 64 * 2**20  # the largest JSON file of a Qwen3 folder, tokenizer.json, has 11 MB


def read_json(path: Path) -> dict[str, Any]:
    """Parses a JSON file.

    Raises:
      UserError: missing, too large, or not a JSON object in UTF-8.
    """
    if not path.is_file():
        raise UserError(f"{path} does not exist or is no file; give the folder that holds a whole Hugging Face model")
    try:
        require_size(path)
        content = json.loads(path.read_text(encoding="utf-8"))
        json.dumps(content, ensure_ascii=False).encode()  # JSON can spell half of a surrogate pair, no file can hold it
    except UserError:
        raise
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is not JSON ({error}); fetch the file again") from error
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}); make it readable, or fetch it again") from error
    if not isinstance(content, dict):
        raise UserError(f"{path} holds a JSON {type(content).__name__}, an object was expected; fetch the file again")
    return content


def require_size(path: Path) -> None:
    """Raises UserError where a file that is read whole is larger than any of its kind."""
    if (size := path.stat().st_size) > MAX_JSON_BYTES:
        raise UserError(
            f"{path} has {size:,} bytes, and at most {MAX_JSON_BYTES:,} are read of such a file; fetch it again"
        )


def require_own(path: Path) -> None:
    """Refuses a link that leads out of its folder: what it points to would be carried into an export unseen.

    Links within the folder are fine, and those of the hub's cache, which lead to the `blobs` beside its snapshots.

    Raises:
      UserError: it leads elsewhere.
    """
    if not path.is_symlink():
        return
    home, target = path.parent.resolve(), path.resolve()
    if not target.is_relative_to(home) and not target.is_relative_to(home.parent.parent / "blobs"):
        raise UserError(f"{path} is a link out of its folder, to {target}; put the file itself there")
