"""Ctrl-C never falls into a step of training, and is never lost."""

from __future__ import annotations

import signal
import threading

import pytest

from raytrace_face.learn.interrupt import undisturbed


@pytest.fixture(autouse=True)
def handler():
    """Python's own, also where a parent in the background passes the signal on as ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_ctrl_c_waits_for_the_end_of_the_block():
    done = []

    def step() -> None:
        with undisturbed():
            signal.raise_signal(signal.SIGINT)
            done.append("step")
        done.append("next step")

    with pytest.raises(KeyboardInterrupt):
        step()
    assert done == ["step"]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_an_error_in_the_block_is_told_and_not_the_signal():
    def step() -> None:
        with undisturbed():
            signal.raise_signal(signal.SIGINT)
            raise ValueError("light has died")

    with pytest.raises(ValueError, match="light has died"):
        step()
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_signal_that_is_ignored_stays_so():
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with undisturbed():
        signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN


def test_threads_may_train():
    done = []

    def step() -> None:
        with undisturbed():
            done.append("step")

    thread = threading.Thread(target=step)
    thread.start()
    thread.join()
    assert done == ["step"]
