"""What happened to a run, and when: workdir/events.jsonl, one JSON object a line.

Every line has `time` (UTC, ISO 8601) and `event`: "start" and "end" of a session, "resume" (with the step), "save" (a
checkpoint of this step was begun), "signal", "refusal" (with the message and the exit code), "damaged" (a checkpoint
was moved aside), "changed" (settings or machine changed what the numbers are, and that was allowed),
"skip" (a step that was a spike, with its examples), "hang" (where the watchdog ended the process).
"""

import datetime
import json
from pathlib import Path
from typing import Any

FILE = "events.jsonl"


def record(workdir: Path, event: str, **facts: Any) -> None:
    """Appends one event; on its own line even if a killed process has left half of one.

    Raises:
      OSError: the disk is full.
    """
    line = {"time": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"), "event": event, **facts}
    with (workdir / FILE).open("a+b") as file:
        if file.tell():
            file.seek(-1, 2)
            torn = file.read(1) != b"\n"
            file.write(b"\n" if torn else b"")
        file.write(json.dumps(line).encode() + b"\n")


def load_events(workdir: Path) -> list[dict[str, Any]]:
    """All whole events, oldest first; none if the run is older than this file."""
    path = workdir / FILE
    if not path.exists():
        return []
    events = []
    for line in path.read_bytes().split(b"\n"):
        try:
            events.append(json.loads(line))
        except ValueError:  # half a line of a killed process, or the end of the file
            continue
    return events


def interruptions(events: list[dict[str, Any]]) -> list[tuple[int, str]]:
    """(step from which it went on, how the session before had ended) of every "resume" in a run's events."""
    found, last = [], {}
    ended = "killed"
    for event in events:
        if event["event"] == "start":
            ended = {"end": "stopped", "refusal": "refused", "hang": "hung"}.get(last.get("event"), "killed")
        elif event["event"] == "resume":
            found.append((event["step"], ended))
        last = event
    return found
