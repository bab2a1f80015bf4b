"""Progress for people: a bar on a terminal, plain lines anywhere else; always with rate and time left."""

import datetime
import sys
import time

from tqdm import tqdm

SECONDS_BETWEEN_LINES = 10.0


class Progress:
    """Counts towards `total` under a label; a context manager.

    Use: `with Progress("train", 500, "step") as progress: progress.advance(1, "loss 2.31")`.
    """

    def __init__(self, label: str, total: int, unit: str, start: int = 0):
        self.label, self.total, self.unit, self.done, self.start = label, total, unit, start, start
        self.began = self.last_line = time.monotonic()
        terminal = sys.stdout.isatty()
        self.bar = tqdm(total=total, initial=start, desc=label, unit=unit, file=sys.stdout) if terminal else None

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.bar is not None:
            self.bar.close()

    def advance(self, count: int, note: str = "") -> None:
        """`count` more are done; `note` is shown behind them."""
        self.done += count
        if self.bar is not None:
            self.bar.set_postfix_str(note, refresh=False)
            self.bar.update(count)
            return
        now = time.monotonic()
        if now - self.last_line >= SECONDS_BETWEEN_LINES or self.done == self.total:
            self.last_line = now
            rate = (self.done - self.start) / max(now - self.began, 1e-9)
            left = datetime.timedelta(seconds=round((self.total - self.done) / max(rate, 1e-9)))
            note = f"  {note}" if note else ""
            print(
                f"{self.label} {self.done}/{self.total} {self.unit}{note}  {rate:.2f} {self.unit}/s  left {left}",
                flush=True,
            )

    def say(self, text: str) -> None:
        """Prints a line without breaking the bar."""
        if self.bar is not None:
            self.bar.write(text)
        else:
            print(text, flush=True)
