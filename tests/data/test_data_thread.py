"""pytest tests/data/test_data_thread.py: a data thread that dies or hangs ends the run loudly."""

import threading
import traceback

import pytest
from splits import make_iterator, make_split, take

from tiny_reasoning_jax.data.pipeline import TrainDataset
from tiny_reasoning_jax.train import watchdog


@pytest.fixture(scope="module")
def split(tmp_path_factory):
    return make_split(tmp_path_factory.mktemp("split"), 200, mean=50, longest=200)


def at_third_call(monkeypatch, act):
    read_step, calls = TrainDataset.read_step, []

    def reading(self, rows):
        calls.append(1)
        if len(calls) == 3:
            act()
        return read_step(self, rows)

    monkeypatch.setattr(TrainDataset, "read_step", reading)


@pytest.mark.parametrize("prefetch_steps", [0, 2])
def test_what_the_thread_raises_reaches_the_loop_with_its_place(split, monkeypatch, prefetch_steps):
    def a_dying_disk():
        raise OSError("input/output error")

    at_third_call(monkeypatch, a_dying_disk)
    iterator = make_iterator(split, prefetch_steps=prefetch_steps)
    assert len(take(iterator, 2)) == 2
    with pytest.raises(OSError, match="input/output error") as error:
        next(iterator)
    assert "Raised while the data of step 3 were prepared." in error.value.__notes__
    assert "a_dying_disk" in "".join(traceback.format_tb(error.value.__traceback__))
    iterator.close()


def test_a_thread_that_hangs_is_told_as_waiting_for_data(split, monkeypatch, tmp_path):
    release, found = threading.Event(), []

    def end(self, where, limit):  # in place of the end of the process
        found.append(where)
        self._done.set()
        release.set()

    monkeypatch.setattr(watchdog.Watchdog, "_end", end)
    at_third_call(monkeypatch, lambda: release.wait(60))
    iterator = make_iterator(split, prefetch_steps=2)
    with watchdog.Watchdog(0.5, tmp_path) as dog:
        for step in range(1, 4):
            dog.at("waiting for data", step)
            next(iterator)
    iterator.close()
    assert found == ["waiting for data (step 3)"]
