"""Measurements as processes of their own: what one has said is kept, whatever becomes of it."""

import json
import os
import subprocess
import sys
from pathlib import Path

LONGEST_ERROR = 1500  # characters


def last_valid(text: str) -> dict:
    """The last line that is a JSON object; {} without one. A process that was killed may leave half a line."""
    for line in reversed(text.splitlines()):
        try:
            value = json.loads(line)
        except json.JSONDecodeError:
            continue
        if isinstance(value, dict):
            return value
    return {}


def explain_end(code: int, errors: Path) -> str:
    """How a process ended, with the end of what it wrote to standard error."""
    return f"ended with code {code}: {errors.read_text(errors='replace').strip()[-LONGEST_ERROR:]}"


def run(command: list[str], *, seconds: float, folder: Path, environment: dict[str, str] | None = None) -> dict:
    """The last result that a process said, a line of JSON each.

    Beside it stands "error", if the process failed or was still running after so many seconds; then it is killed.

    Args:
      command: the process.
      seconds: its time limit.
      folder: for what it writes, which is read when it has ended: a pipe would lose it with the process.
      environment: its variables; None: ours.
    """
    said, errors = folder / "said", folder / "errors"
    with said.open("w") as output, errors.open("w") as error_output:
        try:
            code = subprocess.run(
                command, env=environment, stdout=output, stderr=error_output, timeout=seconds
            ).returncode
            error = explain_end(code, errors) if code else None
        except subprocess.TimeoutExpired:
            error = f"killed: still running after {seconds:.0f} s"
    result = last_valid(said.read_text(errors="replace"))
    return result | ({"error": error} if error else {})


def find_device() -> tuple[str, str]:
    """Platform and name of the device, asked for in another process: this one must not hold the card."""
    program = "import jax; device = jax.local_devices()[0]; print(f'{device.platform}\\n{device.device_kind}')"
    environment = {**os.environ, "XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment, stdout=subprocess.PIPE, text=True, check=True
    )
    platform, kind = done.stdout.strip().splitlines()[-2:]
    return platform, kind


def write_json(path: Path, value: dict) -> None:
    """Writes a file that is there whole or as it was, whenever this process is killed."""
    beside = path.with_suffix(".part")
    beside.write_text(json.dumps(value, indent=2) + "\n")
    beside.replace(path)
