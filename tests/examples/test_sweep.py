"""The example with a parameter sweep: joblib, and so scikit-learn, works through a broker."""

import re
import subprocess
import sys

import pytest
from helpers import PATIENCE
from reader_support import Reader, shown

pytest.importorskip("sklearn")

pytest_plugins = ["command_fixtures", "examples_fixtures"]
pytestmark = pytest.mark.slow

SWEEP = "A parameter sweep"
PROGRAM = """
import sys
sys.path.insert(0, "examples/sweep")
import backend
from joblib import Parallel, delayed, parallel_config
with parallel_config("zmqbroker", address=sys.argv[1]):
    print(sum(Parallel()(delayed(pow)(number, 2) for number in range(1000))))
    print(sum(Parallel(return_as="generator")(delayed(lambda number: -number)(number) for number in range(100))))
    with Parallel() as parallel:
        print([parallel(delayed(abs)(-number) for number in range(3)) for _ in range(2)])
print(Parallel(n_jobs=2, backend="zmqbroker", address=sys.argv[1])(delayed(abs)(-number) for number in range(3)))
with parallel_config("zmqbroker", address=sys.argv[1]):
    Parallel()(delayed(divmod)(1, number) for number in range(3))
"""


@pytest.fixture
def at_work(reader: Reader) -> Reader:
    reader.broker = reader.start("Examples")
    reader.start(SWEEP).wait_for("reached zmqbroker")
    return reader


def test_each_try_of_a_sweep_is_done_by_a_worker(at_work: Reader):
    ran = at_work.run(SWEEP, 1)
    assert (ran.stderr, ran.returncode) == ("", 0)
    assert shown(SWEEP).fullmatch(ran.stdout), ran.stdout
    at_work.broker.end()
    done = at_work.broker.wait_for(r"^(\d+) tasks done, 0 failed")
    assert int(done[1]) > 2  # joblib makes batches of what is quick


def test_joblib_gets_results_in_order_and_raises_what_a_call_has_raised(at_work: Reader):
    address = at_work.on_other_addresses("tcp://localhost:4161")
    ran = subprocess.run(
        [sys.executable, "-c", PROGRAM, address], capture_output=True, text=True, timeout=2 * PATIENCE, check=False
    )
    assert ran.stdout.splitlines() == ["332833500", "-4950", "[[0, 1, 2], [0, 1, 2]]", "[0, 1, 2]"]
    assert re.search(r"^ZeroDivisionError: ", ran.stderr, re.MULTILINE), ran.stderr
