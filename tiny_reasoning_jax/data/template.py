"""Renders chat templates, which are programs that came with somebody's tokenizer.

transformers runs them in Jinja's sandbox: they reach no Python object and no file. Nothing there limits their time and
memory, though ({{ 'a' * 10**10 }} is a template). So every template but our own is rendered in a process that has
`LIMIT_SECONDS` for each render and a bounded memory, and ends when they are used up.
"""

import json
import os
import subprocess
import sys
import threading
from pathlib import Path

from tiny_reasoning_jax.errors import UserError

LIMIT_SECONDS = 5.0  # of processor time for one render; Qwen3's takes less than a millisecond
WAIT_SECONDS = 300.0  # by the clock: the machine may be busy, and importing transformers takes seconds on an idle one
MAX_TEMPLATE_CHARS = 1 << 20  # Qwen3's has 4,000
MAX_REPLY_BYTES = 256 << 20  # of a render, as JSON; a record's text is shorter

_ROOT = Path(__file__).parents[2]


def render(template: str, name: str, messages: list[dict], **options) -> str:
    """Returns what a template makes of a conversation; options are variables of the template.

    Raises:
      UserError: the template cannot be rendered, or takes too long or too much; says the tokenizer's `name`.
    """
    text, error = _worker.ask(
        {"template": template, "messages": messages, "options": options, "seconds": LIMIT_SECONDS}
    )
    if error:
        raise UserError(
            f"the chat template of tokenizer {name!r} cannot be rendered: {error}. Use one with Qwen3's template"
        )
    return text


class _Worker:
    """The process, if there is one, and the lock of whoever talks to it."""

    def __init__(self):
        self._lock = threading.Lock()
        self._process: subprocess.Popen | None = None

    def ask(self, question: dict) -> tuple[str, str]:
        """Returns (text, ""), or ("", what was wrong)."""
        if (size := len(question["template"])) > MAX_TEMPLATE_CHARS:
            return "", f"it has {size:,} characters, and {MAX_TEMPLATE_CHARS:,} at most are read"
        with self._lock:
            if self._process is None:
                command = [sys.executable, "-m", f"{__package__}.template_worker"]
                self._process = subprocess.Popen(
                    command,
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.DEVNULL,
                    cwd=_ROOT,
                    start_new_session=True,  # Ctrl-C is for this process, which ends that one
                )
                if self._exchange(b"") != b"ready\n":
                    self._stop()
                    raise RuntimeError(f"the process that renders chat templates did not start: {' '.join(command)}")
            reply = self._exchange(json.dumps(question).encode() + b"\n")
            if reply.endswith(b"\n"):
                return json.loads(reply)
            self._stop()
        return "", f"it took more than {LIMIT_SECONDS:g} s or too much memory"

    def _exchange(self, line: bytes) -> bytes:
        """Sends a line and returns the next one; what is no whole line came from a process that ended."""
        timer = threading.Timer(WAIT_SECONDS, self._process.kill)
        timer.start()
        try:
            self._process.stdin.write(line)
            self._process.stdin.flush()
            return self._process.stdout.readline(MAX_REPLY_BYTES)
        except BrokenPipeError:
            return b""
        finally:
            timer.cancel()

    def _stop(self) -> None:
        process, self._process = self._process, None
        process.kill()
        process.communicate()


_worker = _Worker()


def _forget() -> None:
    """A forked copy must not talk to its parent's process, nor wait for a lock whose holder was not copied."""
    global _worker
    _worker = _Worker()


os.register_at_fork(after_in_child=_forget)
