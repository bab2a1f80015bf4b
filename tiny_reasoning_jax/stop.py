"""How the command ends when it is told to: SIGTERM (preemption) and Ctrl-C, at any moment.

Training does not end before it has saved: the first signal asks for it, and it stops after the micro-step in hand, with
exit code 75. Everything else keeps what it finishes as it goes and can be ended as it stands: that happens at once with
the same code, and so does training of which no step is done yet. A Ctrl-C after the first signal ends training at once
too, with exit code 130: the last checkpoint stays, and what was not written to its end has no checkpoint's name. Other
SIGTERMs change nothing: a scheduler may send one to the process and one to its group.

A thread listens. Python calls a handler only when the main thread comes back from compiled code, and a compilation can
take minutes; and a handler that writes a file interrupts whoever is just writing it.
"""

import contextlib
import os
import select
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from tiny_reasoning_jax import events
from tiny_reasoning_jax.errors import INTERRUPTED, STOPPED

SECONDS_BETWEEN_MESSAGES = 10.0
_SIGNALS = (signal.SIGTERM, signal.SIGINT)
_LAST = 0  # no signal's number: ends the thread


class Stop:
    """What the process has been told. There is one, STOP, because a process has one set of handlers."""

    def __init__(self):
        self._listens = self._ends_process = False
        self._lock = threading.Lock()
        self._told = threading.Event()
        self._doing, self._kept, self._workdir = "the start", lambda: "nothing was begun", None
        self._forget()

    def _forget(self) -> None:
        """As if no signal had come."""
        self._holds = self._unsaved = self._asked = self._heard = False
        self._told.clear()

    def listen(self) -> None:
        """From here on a signal ends the command as the module says; without it only `held` hears of any."""
        self._ends_process = True
        self._start()

    def at(
        self,
        doing: str,
        *,
        kept: Callable[[], str] | None = None,
        workdir: Path | None = None,
        unsaved: bool = False,
    ) -> None:
        """Notes what is being done, for messages.

        Args:
          doing: what a stop would interrupt or wait for.
          kept: says what stays when it is interrupted; asked in another thread. None: as before.
          workdir: whose events.jsonl hears of a signal; None: as before.
          unsaved: True: from here on there is work that `held` must save.
        """
        self._doing, self._kept, self._workdir = doing, kept or self._kept, workdir or self._workdir
        self._unsaved |= unsaved

    def is_asked(self) -> bool:
        """Whether what is held must come to an end."""
        if self._asked:
            self._told.wait(SECONDS_BETWEEN_MESSAGES)  # the event comes before those of whoever stops now
        return self._asked

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Within it the first signal only asks, once there is unsaved work; look at `is_asked`, also after it."""
        mine = not self._listens and threading.current_thread() is threading.main_thread()
        if mine:
            self._forget()
            before = {number: signal.getsignal(number) for number in _SIGNALS}
            self._start()
        self._holds = True
        try:
            yield
        finally:
            with self._lock:
                self._holds = self._unsaved = False
            if mine:
                for number, handler in before.items():
                    signal.signal(number, handler)
                self._finish()

    def _start(self) -> None:
        read, self._write = os.pipe()
        os.set_blocking(self._write, False)
        signal.set_wakeup_fd(self._write, warn_on_full_buffer=False)
        for number in _SIGNALS:
            signal.signal(number, self._note)
        self._thread = threading.Thread(target=self._attend, args=(read,), daemon=True, name="signals")
        self._thread.start()
        self._listens = True

    def _finish(self) -> None:
        signal.set_wakeup_fd(-1)
        os.write(self._write, bytes([_LAST]))
        self._thread.join()
        os.close(self._write)
        self._listens = False

    def _note(self, number: int, frame: Any) -> None:
        """The handler, in the main thread: waits for nothing and writes nothing. The thread does the rest."""
        if self._holds:
            self._asked = True

    def _attend(self, read: int) -> None:
        while True:
            ready, _, _ = select.select([read], [], [], SECONDS_BETWEEN_MESSAGES if self._heard else None)
            if not ready:
                _say(f"still at work: {self._doing}")
                continue
            for number in os.read(read, 64):
                if number == _LAST:
                    os.close(read)
                    return
                if number in _SIGNALS:
                    self._hear(signal.Signals(number))

    def _hear(self, number: signal.Signals) -> None:
        with self._lock:
            if self._heard and number == signal.SIGINT:
                _say(f"interrupted during {self._doing}, nothing more is saved: {self._tell_kept()}")
                os._exit(INTERRUPTED)
            if self._heard:
                return
            self._heard = True
            self._record("signal", name=number.name)
            if self._ends_process and not (self._holds and self._unsaved):
                _say(f"stopped by {number.name} during {self._doing}: {self._tell_kept()}")
                self._record("end", finished=False)
                os._exit(STOPPED)  # not an exception: anybody's `except` or `finally` could swallow or delay it
            self._asked = True
            _say(
                f"{number.name}: training stops. At work: {self._doing}; soon the last whole step is saved. Ctrl-C "
                "ends the command at once, without that"
            )
            self._told.set()

    def _tell_kept(self) -> str:
        kept = "what was saved stays"
        with contextlib.suppress(OSError):
            kept = self._kept()
        return f"{kept}. The same command goes on"

    def _record(self, event: str, **facts: Any) -> None:
        if self._workdir is not None:
            with contextlib.suppress(OSError):  # a full disk must not keep a process from ending
                events.record(self._workdir, event, **facts)


def _say(text: str) -> None:
    """Not through sys.stderr, whose lock somebody may hold, and not where nobody reads: a stop waits for neither."""
    with contextlib.suppress(OSError):
        if select.select([], [2], [], 1.0)[1]:
            os.write(2, f"\n{text}\n".encode())


STOP = Stop()
