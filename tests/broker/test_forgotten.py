"""Brokers that nobody closed: what Python does with them ends, in the collector and at its own end."""

import subprocess
import sys
import textwrap

import pytest
from helpers import PATIENCE, TOP

pytestmark = pytest.mark.slow  # each is a Python of its own, often two

PREPARATION = """
import warnings
warnings.filterwarnings("ignore", message=".*fork", category=DeprecationWarning)  # of Python 3.12 on
import gc, logging, os, sys, threading, zmq
from zmqbroker import Broker

logging.disable()

def make(**options):
    return Broker(*["tcp://127.0.0.1:*"] * 3, **options)
"""


def python(text: str, *options: str) -> subprocess.CompletedProcess[str]:
    """Run a program in a Python of its own, for a bounded time."""
    program = PREPARATION + textwrap.dedent(text)
    command = [sys.executable, *options, "-c", program]
    return subprocess.run(command, cwd=TOP, capture_output=True, text=True, timeout=PATIENCE)


FORGETTING = {
    "in a cycle with an exception": """
        def fail():
            broker = make()
            raise ValueError
        try:
            fail()
        except ValueError as error:
            kept = [error]
            kept.append(kept)
        del kept
        gc.collect()
        """,
    "by its last reference": "make()",
    "until Python ends": "broker = make()",
    "until Python ends, in a cycle": "cycle = [make()]; cycle.append(cycle)",
    "with an exception that ends Python": "broker = make(); broker.itself = broker; sys.exit(0)",
    "with the context it was given": """
        def fail():
            context = zmq.Context()
            broker = make(context=context)
            broker.itself = broker, context
        fail()
        gc.collect()
        """,
    "with a reply that its client does not read": """
        broker = make(tries=1)
        client = zmq.Context().socket(zmq.DEALER)
        client.connect(broker.addresses.requests)
        client.send(b"malformed, so answered at once")
        threading.Thread(target=broker.run, daemon=True).start()
        assert client.poll(20_000)
        client.close(0)
        """,
    "while it runs in a daemon thread": """
        broker = make()
        threading.Thread(target=broker.run, daemon=True).start()
        client = zmq.Context().socket(zmq.DEALER)
        client.connect(broker.addresses.requests)
        client.send(b"malformed, so answered at once")
        assert client.poll(20_000)
        client.close(0)
        """,
    "while it was made": """
        import zmqbroker.broker.broker as module
        def fail(*_):
            raise KeyboardInterrupt
        module.Loop = fail
        try:
            make()
        except KeyboardInterrupt as error:
            kept = [error]
            kept.append(kept)
        del kept
        gc.collect()
        """,
}


@pytest.mark.parametrize("text", FORGETTING.values(), ids=FORGETTING)
def test_a_broker_that_is_forgotten_hangs_nobody_and_is_warned_of(text: str):
    ended = python(text, "-W", "default")
    assert (ended.returncode, ended.stdout) == (0, ""), ended.stderr
    assert ended.stderr.count("ResourceWarning: a Broker was not closed") == 1


def test_a_warning_that_is_an_error_keeps_no_socket_open():
    ended = python("broker = make(); address = broker.addresses.ready; del broker; make_at = Broker", "-W", "error")
    assert ended.returncode == 0, ended.stderr
    assert "a Broker was not closed" in ended.stderr


def test_a_client_of_a_broker_in_a_daemon_thread_has_its_failure_when_python_ends():
    ended = python(
        """
        import subprocess
        broker = make()
        threading.Thread(target=broker.run, daemon=True).start()
        program = "import sys, zmq; client = zmq.Context().socket(zmq.REQ); client.connect(sys.argv[1])"
        program += "; client.send(b'task'); print(client.recv())"
        client = subprocess.Popen([sys.executable, "-c", program, broker.addresses.requests])
        while not broker.counters()["waiting"]:
            threading.Event().wait(0.02)
        """
    )
    assert (ended.returncode, ended.stdout) == (0, "b''\n"), ended.stderr


def test_one_that_is_closed_is_not_warned_of():
    ended = python("with make() as broker: pass\nmake().close()", "-W", "error")
    assert (ended.returncode, ended.stderr) == (0, "")


CHILDREN = {
    "forgets it": "del broker; gc.collect()",
    "stops it": "broker.stop(); broker.stop()",
    "closes it": "broker.close()",
    "leaves its with block": "broker.__exit__(None, None, None)",
    "ends": "pass",
}


@pytest.mark.parametrize("is_running", [False, True], ids=["at rest", "running"])
@pytest.mark.parametrize("text", CHILDREN.values(), ids=CHILDREN)
def test_a_forked_child_leaves_the_broker_of_its_parent_alone(text: str, is_running: bool):
    ended = python(
        f"""
        broker = make()
        thread = threading.Thread(target=broker.run)
        if {is_running}:
            thread.start()
        client = zmq.Context().socket(zmq.DEALER)
        client.connect(broker.addresses.requests)
        if os.fork() == 0:
            {text}
            sys.exit(7)
        assert os.waitstatus_to_exitcode(os.wait()[1]) == 7
        if not {is_running}:
            thread.start()
        client.send(b"malformed, so answered at once")
        assert client.poll(20_000)
        client.close(0)
        broker.stop()
        thread.join()
        broker.close()
        """
    )
    assert (ended.returncode, ended.stderr) == (0, "")


def test_a_forked_child_cannot_run_the_broker_of_its_parent():
    ended = python(
        """
        broker = make()
        if os.fork() == 0:
            try:
                broker.run()
            except RuntimeError as error:
                print(error)
        else:
            os.wait()
            broker.close()
        """
    )
    assert (ended.returncode, ended.stdout) == (
        0,
        "a broker runs in the process that made it; in a forked child make a new one\n",
    )
