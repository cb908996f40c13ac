"""Ctrl-C, also where Python drops its exception."""

from __future__ import annotations

import os
import signal
import weakref

import pytest

from orchestrator.signals import interruptible


class Thing:
    """What a weak reference can look at."""


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_ctrl_c_while_a_weak_reference_goes_is_not_lost() -> None:
    def callback(reference: weakref.ref[Thing]) -> None:
        os.kill(os.getpid(), signal.SIGINT)

    before = signal.getsignal(signal.SIGINT)
    thing = Thing()
    reference = weakref.ref(thing, callback)
    with interruptible() as asked:
        del thing  # Python prints and drops the KeyboardInterrupt
        assert asked.is_set()
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
    assert reference() is None and signal.getsignal(signal.SIGINT) is before
