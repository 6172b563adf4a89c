"""Which signals count, in literal seconds."""

import signal
import subprocess
import sys

import pytest
from helpers import PATIENCE, TOP

from zmqbroker.transport.signals import ONE, Burst


def counted(*instants: float) -> list[float]:
    burst = Burst()
    return [now for now in instants if burst.counts(now)]


def test_signals_within_half_a_second_are_one():
    assert ONE == 0.5
    assert counted(100.0, 100.0, 100.001, 100.49) == [100.0]


def test_a_signal_after_half_a_second_counts_again():
    assert counted(100.0, 100.5, 101.0) == [100.0, 100.5, 101.0]


def test_whoever_keeps_sending_is_heard_twice_a_second():
    assert counted(*(100.0 + tenth / 8 for tenth in range(9))) == [100.0, 100.5, 101.0]


def test_the_first_signal_counts_however_young_the_clock_is():
    assert counted(0.0) == [0.0]


def ended(text: str) -> int:
    program = f"import signal\nfrom zmqbroker.transport import signals\n{text}"
    return subprocess.run([sys.executable, "-c", program], cwd=TOP, timeout=PATIENCE).returncode


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_what_was_ignored_at_the_start_stays_ignored(number: signal.Signals):
    ignoring = f"signal.signal({number:d}, signal.SIG_IGN)\n"
    raising = f"signal.raise_signal({number:d})\nraise SystemExit(len(heard))"
    setting = "heard = []\nsignals.end_quietly()\nsignals.on_signals(heard.append)\n"
    assert ended(ignoring + setting + raising) == 0
    assert ended(setting + raising) == 1


def test_who_asks_for_the_state_too_early_or_too_late_ends_nothing():
    asking = "signal.raise_signal(signals.STATUS)\n"
    setting = "told = []\nhandled = signals.on_signals(print, lambda: told.append(1))\n"
    text = (
        f"signals.end_quietly()\n{asking}{setting}{asking}signals.ignore(handled)\n{asking}raise SystemExit(len(told))"
    )
    assert ended(text) == 1
