"""`Executor` with the workers of `zmqbroker work --python`: calls, and what becomes of them."""

import asyncio
import functools
import os
import pickle
import re
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent import futures
from pathlib import Path
from typing import Any

import pytest
from conftest import Running
from executor_support import calling, python, waits_for
from helpers import PATIENCE, Program, wait_until
from identity_support import make
from library_support import working

import zmqbroker
from zmqbroker import Client, Executor, TaskFailed
from zmqbroker.transport import pickling, trust
from zmqbroker.worker.calls import Calls


@pytest.fixture(scope="module")
def shared() -> Iterator[Running]:
    """Return a broker for all tests here."""
    running = Running()
    yield running
    running.finish()


@pytest.fixture(scope="module")
def workers(shared: Running, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Program]:
    """Have two processes call functions."""
    with calling(shared.addresses.ready, tmp_path_factory.mktemp("workers"), "--processes", 2) as workers:
        yield workers


@pytest.fixture
def executor(shared: Running, workers: Program) -> Iterator[Executor]:
    with Executor(shared.addresses.requests) as executor:
        yield executor


def add(x: int, y: int = 1) -> int:
    return x + y


def raises(error: BaseException) -> None:
    raise error


class Thing:
    def __init__(self, value: int) -> None:
        self.value = value

    def plus(self, other: int) -> int:
        return self.value + other


# What is called


def test_functions_of_all_kinds_are_called(executor: Executor):
    def closed(number: int) -> int:
        return number + offset

    offset = 10
    calls: list[tuple[Callable[..., Any], tuple[Any, ...], Any]] = [
        (pow, (2, 8), 256),
        (add, (1,), 2),
        (lambda number: number * offset, (2,), 20),
        (closed, (1,), 11),
        (functools.partial(add, y=5), (1,), 6),
        (Thing(3).plus, (4,), 7),
        (Thing, (3,), 3),
    ]
    submitted = [executor.submit(function, *arguments) for function, arguments, _ in calls]
    results = [future.result(PATIENCE) for future in submitted]
    assert [getattr(result, "value", result) for result in results] == [expected for *_, expected in calls]
    assert executor.submit(add, x=1, y=2).result(PATIENCE) == 3
    made = executor.submit(lambda: lambda: offset).result(PATIENCE)
    assert made() == 10


def test_what_a_program_defines_in_main_is_called(shared: Running, workers: Program, tmp_path: Path):
    program = Program(
        str(write(tmp_path, OF_MAIN)), shared.addresses.requests
    )  # its classes are the worker's by value, and come back as its own
    assert program.wait() == 0
    assert program.lines == ["Oops True", "Point True 3"]


OF_MAIN = """
import sys
from zmqbroker import Executor

class Oops(Exception):
    pass

class Point:
    def __init__(self, x):
        self.x = x
    def moved(self, by):
        return Point(self.x + by)

def fail():
    raise Oops("no")

with Executor(sys.argv[1]) as executor:
    error = executor.submit(fail).exception()
    print(type(error).__name__, type(error) is Oops)
    point = executor.submit(Point(1).moved, 2).result()
    print(type(point).__name__, type(point) is Point, point.x)
"""


def write(directory: Path, text: str) -> Path:
    script = directory / "program.py"
    script.write_text(text)
    return script


def test_a_function_knows_its_task(executor: Executor):
    task = executor.submit(lambda: (zmqbroker.current_task().queue, zmqbroker.current_task().attempt))
    assert task.result(PATIENCE) == ("python", 1)


def test_large_buffers_are_as_they_were_and_may_be_written_to(executor: Executor):
    def change(array: bytearray) -> bytearray:
        array[0] = 9
        return array

    given = Buffer(b"\1" * 100_000)
    changed = executor.submit(change, given).result(PATIENCE)
    assert (type(changed), len(changed), changed[0], given[0]) == (Buffer, 100_000, 9, 1)


class Buffer(bytearray):
    """What is pickled as arrays of numpy are."""

    def __reduce_ex__(self, protocol: Any) -> Any:
        return Buffer, (pickle.PickleBuffer(self),)


# What is raised


def test_an_exception_is_a_result_with_the_traceback_as_its_cause(shared: Running, executor: Executor):
    failed = shared.count("failed")
    with pytest.raises(ValueError, match="no such thing") as caught:
        executor.submit(raises, ValueError("no such thing")).result(PATIENCE)
    trace = str(caught.value.__cause__)
    assert trace.startswith('\n"""\nTraceback')
    assert ", in raises\n" in trace
    assert trace.endswith('ValueError: no such thing\n"""')
    assert "zmqbroker" not in trace
    assert shared.count("failed") == failed


@pytest.mark.parametrize(
    "error",
    [zmqbroker.Fail("f"), zmqbroker.Reject("r"), SystemExit(3), KeyboardInterrupt(), GeneratorExit(), RuntimeError()],
    ids=repr,
)
def test_whatever_a_function_raises_is_what_its_future_raises(executor: Executor, error: BaseException):
    raised = executor.submit(raises, error).exception(PATIENCE)
    assert (type(raised), raised.args) == (type(error), error.args)


class NeedsTwoError(Exception):
    def __init__(self, one: str, two: str) -> None:
        super().__init__(one)


class UnpicklableError(Exception):
    def __init__(self) -> None:
        super().__init__(threading.Lock())


def test_what_cannot_be_pickled_is_named_by_an_exception(executor: Executor):
    lock = executor.submit(len, threading.Lock()).exception(PATIENCE)  # as that of a ProcessPoolExecutor
    assert isinstance(lock, TypeError)
    result = executor.submit(threading.Lock).exception(PATIENCE)
    assert isinstance(result, pickle.PicklingError)
    assert str(result).startswith("the result of allocate_lock, a lock, cannot be pickled: TypeError: ") or (
        str(result).startswith("the result of lock, a lock, cannot be pickled: TypeError: ")
    )
    error = executor.submit(lambda: raises(UnpicklableError())).exception(PATIENCE)
    assert isinstance(error, pickle.PicklingError)
    assert "what the call has raised (test_executor.UnpicklableError: <unlocked" in str(error)
    assert "UnpicklableError" in str(error.__cause__)


def test_what_cannot_be_unpickled_here_is_named_by_an_exception(executor: Executor, monkeypatch: pytest.MonkeyPatch):
    error = executor.submit(lambda: raises(NeedsTwoError("a", "b"))).exception(PATIENCE)
    assert isinstance(error, pickle.UnpicklingError)
    assert "what the call has raised (test_executor.NeedsTwoError: a) cannot be unpickled here: TypeError" in str(error)
    assert "in raises" in str(error.__cause__)
    monkeypatch.delitem(globals(), "Thing")
    result = executor.submit(lambda name: getattr(__import__("test_executor"), name)(1), "Thing").exception(PATIENCE)
    assert isinstance(result, pickle.UnpicklingError)
    assert str(result).startswith("the result of the call cannot be unpickled here: AttributeError")


class Leaver:
    """What ends the program where it is unpickled, or pickled in a worker."""

    def __init__(self, function: Any = sys.exit) -> None:
        self.function = function

    def __reduce__(self) -> Any:
        return self.function, (5,)


class Stubborn:
    def __reduce__(self) -> Any:
        raise KeyboardInterrupt


def test_no_pickle_ends_anything(executor: Executor, workers: Program):
    there = executor.submit(id, Leaver()).exception(PATIENCE)
    assert isinstance(there, TaskFailed)
    assert re.fullmatch("worker .* cannot unpickle the call: SystemExit: 5", there.reason)
    here = executor.submit(Leaver).exception(PATIENCE)
    assert str(here) == "the result of the call cannot be unpickled here: SystemExit: 5"
    result = executor.submit(Stubborn).exception(PATIENCE)
    assert str(result) == "the result of Stubborn, a Stubborn, cannot be pickled: KeyboardInterrupt"
    assert executor.submit(abs, -1).result(PATIENCE) == 1


# Futures


def test_a_running_call_cannot_be_cancelled(executor: Executor, tmp_path: Path):
    gate = tmp_path / "gate"
    future = executor.submit(waits_for, str(gate))
    wait_until(future.running)
    assert not future.cancel()
    gate.touch()
    assert future.result(PATIENCE).startswith("done")


def test_a_waiting_call_is_cancelled_at_the_broker(shared: Running, workers: Program, tmp_path: Path):
    with Executor(shared.addresses.requests, queue="python.nobody") as executor:
        future = executor.submit(Path.touch, tmp_path / "touched")
        shared.wait_for("waiting", 1)
        cancelled = shared.count("cancelled")
        assert not future.running()
        assert future.cancel()
        assert future.cancelled()
        shared.wait_for("cancelled", cancelled + 1)


def test_the_tools_for_futures_take_them(executor: Executor):
    submitted = [executor.submit(pow, number, 2) for number in range(5)]
    assert sorted(future.result() for future in futures.as_completed(submitted, PATIENCE)) == [0, 1, 4, 9, 16]
    done, rest = futures.wait([executor.submit(pow, 2, 2) for _ in range(3)], PATIENCE)
    assert (len(done), rest) == (3, set())

    async def call() -> list[int]:
        loop = asyncio.get_running_loop()
        return await asyncio.gather(*(loop.run_in_executor(executor, pow, number, 3) for number in range(4)))

    assert asyncio.run(asyncio.wait_for(call(), PATIENCE)) == [0, 1, 8, 27]


def test_tqdm_shows_how_far_it_has_come(
    shared: Running, workers: Program, monkeypatch: pytest.MonkeyPatch, capsys: Any
):
    concurrent = pytest.importorskip("tqdm.contrib.concurrent")
    monkeypatch.setattr(futures, "ProcessPoolExecutor", lambda **_: Executor(shared.addresses.requests))
    monkeypatch.setattr(futures, "ThreadPoolExecutor", lambda **_: Executor(shared.addresses.requests))
    assert concurrent.process_map(abs, range(-20, 0), chunksize=5) == list(range(20, 0, -1))
    assert concurrent.thread_map(abs, range(-20, 0)) == list(range(20, 0, -1))
    assert "20/20" in capsys.readouterr().err


# Maps


@pytest.mark.parametrize("chunksize", [1, 3, 100])
def test_a_map_yields_results_in_order(executor: Executor, chunksize: int):
    assert list(executor.map(add, range(10), range(10), chunksize=chunksize)) == [2 * i for i in range(10)]


def test_a_map_submits_all_at_once_and_its_result_may_never_be_looked_at(executor: Executor, tmp_path: Path):
    executor.map(Path.touch, [tmp_path / name for name in "abc"])
    wait_until(lambda: sorted(os.listdir(tmp_path)) == ["a", "b", "c"])


@pytest.mark.parametrize("chunksize", [1, 2])
def test_a_map_raises_what_a_call_raises(executor: Executor, chunksize: int):
    results = executor.map(divmod, [1, 1, 1, 1], [2, 3, 0, 5], chunksize=chunksize)
    assert [next(results), next(results)] == [(0, 1), (0, 1)]
    with pytest.raises(ZeroDivisionError):
        next(results)


def test_a_map_takes_what_that_of_this_python_takes(executor: Executor, tmp_path: Path):
    with pytest.raises(ValueError, match="chunksize must be >= 1"):
        executor.map(abs, [1], chunksize=0)
    with pytest.raises(TypeError):
        executor.map(abs, [1], nonsense=0)
    gate = tmp_path / "gate"
    with pytest.raises(futures.TimeoutError):
        list(executor.map(waits_for, [str(gate)], timeout=0.01))
    gate.touch()


# Workers


def kill_once(path: str) -> str:
    try:
        Path(path).touch(exist_ok=False)
    except FileExistsError:
        return "done by another one"
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError


def test_a_call_whose_worker_is_killed_is_done_by_another_one(executor: Executor, tmp_path: Path):
    assert executor.submit(kill_once, str(tmp_path / "once")).result(PATIENCE) == "done by another one"


def test_a_call_whose_last_worker_is_killed_fails(shared: Running, workers: Program, tmp_path: Path):
    with Executor(shared.addresses.requests, tries=1) as executor:
        error = executor.submit(kill_once, str(tmp_path / "once")).exception(PATIENCE)
    assert isinstance(error, TaskFailed)
    assert error.attempts == 1
    assert re.match("killed by SIGKILL|the worker was lost", error.reason)  # whichever the broker hears of first


def test_a_call_has_the_time_that_its_executor_says(shared: Running, workers: Program, tmp_path: Path):
    gate = tmp_path / "gate"
    with Executor(shared.addresses.requests, tries=1, timeout=0.2, group="g", priority=1) as executor:
        error = executor.submit(waits_for, str(gate)).exception(PATIENCE)
        gate.touch()
    assert isinstance(error, TaskFailed)
    assert error.reason.startswith("timed out")


def getpid_slowly(_: int) -> int:
    threading.Event().wait(0.02)
    return os.getpid()


def slowly(number: int) -> int:
    threading.Event().wait(0.02)
    return number


def test_what_is_no_call_is_refused(shared: Running, workers: Program):
    told = "no call of a function: this queue is for those that a zmqbroker.Executor sends"
    with Client(shared.addresses.requests) as client:
        for body in (b"", b"task", [b"ZB1 returned {}", b"a"]):
            with pytest.raises(TaskFailed, match=told):
                client.call(body, PATIENCE, queue="python")
        with pytest.raises(TaskFailed, match="a call that does not say which Python has pickled it"):
            client.call([b"ZB1 call {}", b""], PATIENCE, queue="python")
    workers.wait_for(f": task .*: the handler has refused it in attempt 1: {told}")


def test_pythons_that_do_not_fit_are_named_at_both_ends(
    shared: Running, workers: Program, monkeypatch: pytest.MonkeyPatch
):
    other = pickling.own_python("a test")._replace(python="CPython 2.7")
    monkeypatch.setattr(pickling, "own_python", lambda _: other)
    told = f"the call comes from CPython 2.7, and worker [^ ]+ runs {python()}: use the same Python at both ends"
    with Executor(shared.addresses.requests, tries=2) as executor:
        for _ in range(20):
            with pytest.raises(TaskFailed, match=told) as caught:
                executor.submit(abs, 1).result(PATIENCE)
            assert caught.value.attempts == 2  # another worker might have had that Python
    assert len([line for line in workers.lines if "CPython 2.7" in line]) <= 10  # one in five seconds


def test_one_worker_of_another_python_spoils_no_calls(
    shared: Running, executor: Executor, monkeypatch: pytest.MonkeyPatch
):
    other = pickling.own_python("a test")._replace(python="CPython 2.7")
    with monkeypatch.context() as patched:
        patched.setattr(pickling, "own_python", lambda _: other)
        handler = Calls()
    wait_until(lambda: len(set(executor.map(getpid_slowly, range(4)))) == 2)  # both do calls, so neither is in doubt
    with working(shared.addresses.ready, handler, queues=["python"], label="odd"):
        assert list(executor.map(slowly, range(60))) == list(range(60))


def test_a_call_that_cannot_be_unpickled_there_says_so(executor: Executor, monkeypatch: pytest.MonkeyPatch):
    missing = type(os)("missing_there")
    exec("def missing():\n    pass", missing.__dict__)
    monkeypatch.setitem(sys.modules, "missing_there", missing)
    with pytest.raises(TaskFailed, match="cannot unpickle the call: ModuleNotFoundError: No module named 'missing_th"):
        executor.submit(missing.missing).result(PATIENCE)


def test_a_worker_that_calls_no_functions_is_named_by_the_failure(shared: Running):
    with (
        working(shared.addresses.ready, lambda _: b"pong", queues=["python.other"]),
        Executor(shared.addresses.requests, queue="python.other") as executor,
        pytest.raises(TaskFailed, match="its worker does not call functions"),
    ):
        executor.submit(abs, 1).result(PATIENCE)


# How one is made


@pytest.mark.parametrize("queue", ["default", "gpu", "pythons", "python.", None, 5])
def test_an_executor_has_a_queue_for_calls(queue: Any):
    with pytest.raises(ValueError, match=r"an Executor has the queue python, or python\.NAME, not"):
        Executor("tcp://127.0.0.1:1", queue=queue)


def test_what_is_no_address_is_told_so_and_nothing_of_identities():
    with pytest.raises(ValueError, match="'localhost:4161' is no address to connect to"):
        Executor("localhost:4161")


def test_an_executor_needs_cloudpickle(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(pickling, "cloudpickle", None)
    with pytest.raises(ImportError, match=r'an Executor needs cloudpickle: pip install "zmqbroker\[python\]"'):
        Executor("tcp://127.0.0.1:1")


def test_an_executor_trusts_no_other_machine_without_identities(monkeypatch: pytest.MonkeyPatch):
    address = "tcp://127.0.0.1:1"
    monkeypatch.setattr(trust, "_is_loopback", lambda _: False)
    told = (
        f"{address} may be another machine, and without identities whoever answers there may run code here, "
        "as results are unpickled: give identity= and broker_identity=, or trust_the_network=True; see docs/security.md"
    )
    with pytest.raises(ValueError, match=re.escape(told)):
        Executor(address)
    Executor(address, trust_the_network=True).shutdown()


def test_an_executor_with_identities_goes_anywhere(
    monkeypatch: pytest.MonkeyPatch, start: Callable[..., Running], tmp_path: Path
):
    monkeypatch.setattr(trust, "_is_loopback", lambda _: False)
    broker, own = make(tmp_path / "broker"), make(tmp_path / "own")
    (tmp_path / "authorized").write_text(f"client,worker {own.key} me\n")
    running = start(identity=broker.secret, authorized=tmp_path / "authorized")
    who = ("--identity", own.secret, "--broker-identity", broker.public)
    with (
        calling(running.addresses.ready, tmp_path, *who),
        Executor(running.addresses.requests, identity=own.secret, broker_identity=broker.public) as executor,
    ):
        assert executor.submit(pow, 2, 8).result(PATIENCE) == 256
