"""The control socket: each question and each change, as who asks sees it."""

import os
import time
from math import inf

import pytest
import zmq
from conftest import Peers, Running
from control_support import ANY_PORT, Asker, control, controlled, submit
from core_support import PARALLEL, Core
from helpers import wait_until
from library_support import Gate, working

from zmqbroker import Broker, Client, TaskFailed, Worker, __version__
from zmqbroker.broker.control import QUEUES_IN_PAGE, Control
from zmqbroker.broker.questions import LARGEST_PAGE, LAST_PLACE
from zmqbroker.broker.timers import Timers
from zmqbroker.transport.control import ControlSocket, NoAnswerError
from zmqbroker.wire import Announce, MalformedError
from zmqbroker.wire.control import ASKER, ControlError, answer_message

__all__ = ["control", "controlled"]  # fixtures

PATIENCE = 20.0


def numbers(answer: dict) -> list[int]:
    return [task["number"] for task in answer["tasks"]]


# Questions


def test_the_status_of_a_broker_that_has_nothing_to_do(controlled: Running, control: ControlSocket):
    status = control.ask("status")
    assert (status["version"], status["pid"], status["state"]) == (__version__, os.getpid(), "serving")
    assert status["addresses"] == {**controlled.addresses._asdict(), "control": controlled.broker.control_address}
    assert [status[name] for name in ("waiting", "delayed", "running", "workers", "idle", "unserved")] == [0] * 6
    assert status["totals"]["accepted"] == 0
    assert [queue["name"] for queue in status["queues"]] == ["default"]
    assert (status["slowest"], status["failures"]) == ([], [])
    assert status["uptime"] >= 0
    assert status["memory"] is None or status["memory"] > 1_000_000
    assert status["descriptors"] is None or status["descriptors"] > 10


def test_the_status_counts_messages_malformed_ones_and_connections_by_socket(
    controlled: Running, control: ControlSocket
):
    control.ask("status")
    Asker(controlled, controlled.broker.control_address).raw(b"nonsense")
    clients = [controlled.client(zmq.DEALER) for _ in range(3)]
    for client in clients:
        client.send_multipart([b"ZB1 {", b"", b"task"])
        client.recv_multipart()
        client.send_multipart([b"", b"task"])
    worker = controlled.worker()
    attempt_id, _ = worker.take()
    worker.reply(attempt_id, b"done")
    worker.reply(b"no attempt id", b"")
    controlled.open(zmq.DEALER, controlled.addresses.ready).send_multipart([b"neither ready", b"nor a word"])
    controlled.wait_for("accepted", 3)
    controlled.wait_for("malformed", 6)
    sockets = control.ask("status")["sockets"]
    assert {where: tuple(came.values()) for where, came in sockets.items()} == {
        "requests": (6, 3, 3),
        "ready": (2, 1, 2),
        "results": (2, 1, 1),
        "control": (2, 1, None),
    }


def test_the_status_tells_for_how_long_the_loop_was_busy(controlled: Running, control: ControlSocket):
    control.ask("status")  # perhaps in the first turn of all
    before = control.ask("status")
    assert 0.0 < before["longest_turn"] <= before["busy"] <= before["uptime"]
    after = control.ask("status")
    assert before["busy"] < after["busy"] <= after["uptime"]


def test_the_status_names_what_waits_runs_and_has_failed(controlled: Running, control: ControlSocket):
    gate = Gate(b"stop")
    with (
        working(controlled.addresses.ready, gate, label="one", slots=1),
        Client(controlled.addresses.requests) as client,
    ):
        stopped = client.submit(b"stop", tries=1)
        gate.wait_for(b"stop")
        waiting = client.submit(b"behind")
        client.submit(b"gpu", queue="gpu")
        controlled.wait_for("accepted", 3)
        status = control.ask("status")
        assert (status["waiting"], status["running"], status["unserved"]) == (2, 1, 1)
        assert [queue["name"] for queue in status["queues"]] == ["gpu", "default"]  # the one without workers first
        (slowest,) = status["slowest"]
        assert (slowest["number"], slowest["state"], slowest["in_hand"]) == (1, "running", True)
        assert slowest["worker"].startswith("one (")
        gate.open(b"stop")
        assert [stopped.result(PATIENCE), waiting.result(PATIENCE)] == [b"STOP", b"BEHIND"]
    assert control.ask("status")["totals"]["done"] == 2


def test_queues_tell_what_waits_there_and_how_tasks_fared(controlled: Running, control: ControlSocket):
    with working(controlled.addresses.ready, bytes.upper), Client(controlled.addresses.requests) as client:
        assert client.call(b"task", PATIENCE) == b"TASK"
        client.submit(b"waits", queue="gpu")
        client.submit(b"delayed", queue="gpu", delay=1000)
        controlled.wait_for("accepted", 3)
        answer = control.ask("queues")
        assert (answer["total"], answer["cursor"], len(answer["bounds"])) == (2, None, 15)
        default, gpu = answer["queues"]
        assert (default["done"], default["attempts"]["result"], default["workers"]) == (1, 1, 1)
        assert (sum(default["ran"]["counts"]), sum(default["waited"]["counts"])) == (1, 1)
        assert (gpu["name"], gpu["waiting"], gpu["delayed"], gpu["workers"]) == ("gpu", 1, 1, 0)
        assert gpu["oldest"] >= 0
        assert control.ask("queues", queue="gpu")["queues"][0]["waiting"] == 1


def test_workers_tell_who_they_are_and_what_they_have(controlled: Running, control: ControlSocket):
    gate = Gate(b"stop")
    ready = controlled.addresses.ready
    plain = controlled.worker()
    plain.ready()
    controlled.wait_for("idle", 1)
    with working(ready, gate, label="one", queues=["gpu"]), Client(controlled.addresses.requests) as client:
        future = client.submit(b"stop", queue="gpu")
        gate.wait_for(b"stop")
        anonymous, worker = control.ask("workers")["workers"]
        assert (anonymous["label"], anonymous["asks"], anonymous["task"]) == (None, 1, None)
        assert (worker["label"], worker["pid"], worker["queues"]) == ("one", os.getpid(), ["gpu"])
        assert worker["address"].startswith("127.0.0.1:")
        assert (worker["task"]["number"], worker["held"], worker["done"], worker["failed"]) == (1, 1, 0, 0)
        assert control.ask("tasks", worker="one")["tasks"][0]["number"] == 1
        assert control.ask("tasks", worker="two")["tasks"] == []
        gate.open(b"stop")
        assert future.result(PATIENCE) == b"STOP"


def test_tasks_come_by_state_and_queue_the_oldest_first_in_pages(controlled: Running, control: ControlSocket):
    submit(controlled, 5)
    submit(controlled, 2, queue="gpu")
    submit(controlled, 1, delay=1000)
    assert numbers(control.ask("tasks")) == [1, 2, 3, 4, 5, 6, 7, 8]
    assert numbers(control.ask("tasks", queue="gpu")) == [6, 7]
    assert numbers(control.ask("tasks", state="delayed")) == [8]
    first = control.ask("tasks", most=3)
    assert (numbers(first), first["cursor"], first["total"]) == ([1, 2, 3], 3, 8)
    second = control.ask("tasks", most=3, after=first["cursor"])
    assert (numbers(second), second["cursor"]) == ([4, 5, 6], 6)
    last = control.ask("tasks", most=3, after=second["cursor"])
    assert (numbers(last), last["cursor"]) == ([7, 8], None)


def test_pages_of_queues_go_on_where_the_last_one_ended(controlled: Running, control: ControlSocket):
    for name in "abc":
        control.ask("pause", queue=name)
    first = control.ask("queues", most=2)
    assert ([queue["name"] for queue in first["queues"]], first["cursor"]) == (["default", "a"], 2)
    last = control.ask("queues", most=2, after=2)
    assert ([queue["name"] for queue in last["queues"]], last["cursor"]) == (["b", "c"], None)


def test_a_task_is_found_by_its_key_and_by_its_number(controlled: Running, control: ControlSocket):
    submit(controlled, 1, key="mine", priority=3, group="us", tries=7)
    task = control.ask("task", key="mine")["task"]
    assert (task["number"], task["priority"], task["group"], task["tries"]) == (1, 3, "us", 7)
    assert (task["state"], task["worker"], task["bytes"], task["waiters"]) == ("waiting", None, 1, 1)
    assert control.ask("task", number=1)["task"]["key"] == "mine"


def test_a_task_that_has_failed_is_remembered_with_its_reason(controlled: Running, control: ControlSocket):
    def fail(_: bytes) -> None:
        raise ValueError("bad input")

    with working(controlled.addresses.ready, fail, label="one"), Client(controlled.addresses.requests) as client:
        with pytest.raises(TaskFailed, match="bad input"):
            client.call(b"task", PATIENCE, tries=1)
        (failure,) = control.ask("failures")["failures"]
    assert (failure["number"], failure["queue"], failure["status"]) == (1, "default", "failed")
    assert (failure["reason"], failure["attempts"]) == ("ValueError: bad input", 1)
    assert failure["worker"].startswith("one (")
    assert control.ask("task", number=1)["failure"]["reason"] == failure["reason"]
    assert control.ask("task", key=failure["key"])["failure"]["number"] == 1
    assert control.ask("status")["failures"][0]["number"] == 1


# Changes


def test_a_queue_that_is_paused_hands_out_nothing_until_it_is_resumed(controlled: Running, control: ControlSocket):
    assert control.ask("pause", queue="default")["queue"]["paused"] is True
    worker = controlled.worker()
    worker.ready()
    submit(controlled, 1)
    assert not worker.has_task(100)
    assert control.ask("resume", queue="default")["queue"]["paused"] is False
    assert worker.receive()[1] == [b"0"]


def test_a_queue_with_nothing_to_know_of_it_is_forgotten_when_it_is_resumed(control: ControlSocket):
    assert control.ask("pause", queue="gpu")["queue"]["name"] == "gpu"
    assert control.ask("resume", queue="gpu")["queue"] is None
    with pytest.raises(ControlError, match=r"^there is no queue gpu: no tasks, no workers, no settings$"):
        control.ask("queues", queue="gpu")


def test_the_limits_of_a_queue_can_be_changed(controlled: Running, control: ControlSocket):
    changed = control.ask("limit", queue="default", running=1, waiting=1)["queue"]
    assert (changed["limit"], changed["limit_waiting"]) == (1, 1)
    workers = [controlled.worker() for _ in range(2)]
    submit(controlled, 1)
    attempt_id, _ = workers[0].take()
    workers[1].ready()
    submit(controlled, 1)
    client = controlled.client(zmq.DEALER)
    client.send_multipart([b"", b"too many"])
    assert client.recv_multipart() == [b"", b""]
    assert not workers[1].has_task(100)
    changed = control.ask("limit", queue="default", running=0)["queue"]
    assert (changed["limit"], changed["limit_waiting"]) == (None, 1)
    assert workers[1].receive()[1] == [b"0"]
    workers[0].reply(attempt_id, b"done")
    controlled.wait_for("done", 1)


@pytest.mark.parametrize("which", [{"key": "mine"}, {"number": 1}])
def test_a_task_that_is_cancelled_is_answered_at_once(controlled: Running, control: ControlSocket, which: dict):
    client = submit(controlled, 1, key="mine")
    assert control.ask("cancel", **which)["task"]["state"] == "waiting"
    header, _, _ = client.recv_multipart()
    assert b'"cancelled"' in header
    assert b"cancelled by control" in header
    assert controlled.count("cancelled") == 1
    with pytest.raises(ControlError, match=r"^there is no unsettled task with the "):
        control.ask("cancel", **which)


def test_a_drain_ends_the_broker_when_its_tasks_are_done(controlled: Running, control: ControlSocket):
    client = submit(controlled, 1)
    worker = controlled.worker()
    attempt_id, _ = worker.take()
    assert control.ask("drain")["unsettled"] == 1
    controlled.wait_until(lambda: control.ask("status")["state"] == "draining")
    assert control.ask("drain")["unsettled"] == 1  # which does not end it
    worker.reply(attempt_id, b"done")
    assert client.recv_multipart() == [b"", b"done"]
    controlled.thread.join(PATIENCE)
    assert not controlled.thread.is_alive()


# Errors, in words


@pytest.mark.parametrize(
    ("question", "error"),
    [
        ({}, "^ask for one of status, queues, .*, not None$"),
        ({"ask": "everything"}, "^ask for one of status, queues, .*, not 'everything'$"),
        ({"ask": "tasks", "state": "lost"}, "^state must be one of waiting, delayed, running, not 'lost'$"),
        ({"ask": "tasks", "order": "newest"}, "^order must be one of oldest, slowest, not 'newest'$"),
        ({"ask": "tasks", "most": 0}, f"^most must be a whole number from 1 to {LARGEST_PAGE}, not 0$"),
        ({"ask": "tasks", "most": 51}, f"^most must be a whole number from 1 to {LARGEST_PAGE}, not 51$"),
        ({"ask": "tasks", "after": -1}, "^after must be a whole number from 0 to "),
        ({"ask": "tasks", "worker": 7}, "^worker must be text, not 7$"),
        ({"ask": "workers", "after": LAST_PLACE + 1}, f"^after must be a whole number from 0 to {LAST_PLACE}, not "),
        ({"ask": "task"}, "^say which task, by its key or its number$"),
        ({"ask": "task", "key": "a", "number": 1}, "^say which task, by its key or its number$"),
        ({"ask": "task", "number": True}, "^number must be a whole number from 0 to .*, not True$"),
        (
            {"ask": "task", "number": 9},
            "^there is no unsettled task with the number 9, and it is none of the last 1000",
        ),
        ({"ask": "pause"}, "^queue must be the name of one, not None$"),
        ({"ask": "pause", "queue": "a b"}, "^queue must be the name of one, not 'a b'$"),
        ({"ask": "limit", "queue": "gpu"}, "^limit needs running, waiting, or both"),
        ({"ask": "limit", "queue": "gpu", "running": -1}, "^running must be a whole number from 0 to "),
        ({"ask": "status", "zmqbroker": 2}, "^zmqbroker must be 1, the version of this control socket$"),
        ({"ask": ["status"]}, "^no field of a question is an object or an array$"),
    ],
)
def test_what_cannot_be_answered_is_told_why(controlled: Running, question: dict, error: str):
    with pytest.raises(ControlError, match=error):
        Asker(controlled, controlled.broker.control_address).ask(**question)


def test_who_asks_at_another_socket_of_a_broker_is_told_so_and_no_task_is_made(controlled: Running):
    for name in ("requests", "ready"):
        with (
            ControlSocket(getattr(controlled.addresses, name), PATIENCE) as socket,
            pytest.raises(MalformedError, match=rf"^this is the address for {name.upper()} of a broker, and not"),
        ):
            socket.ask("status")
    assert controlled.count("accepted") == 0
    assert controlled.count("malformed") == 2


def test_a_client_and_a_worker_at_the_control_socket_are_told_where_they_belong(controlled: Running):
    address = str(controlled.broker.control_address)
    client_belongs = f"^{address} is the wrong address: this is the address for control: a client belongs to "
    with Client(address) as client, pytest.raises(TaskFailed, match=client_belongs):
        client.call(b"task", PATIENCE)
    with pytest.raises(ConnectionError, match="this is the address for control: a worker belongs to the one for"):
        Worker(address, bytes.upper).run()
    assert controlled.count("malformed") == 2


def test_who_asks_where_nobody_listens_is_told_so():
    with (
        ControlSocket("ipc:///nowhere/at/all", 0.05) as socket,
        pytest.raises(
            NoAnswerError, match=r"^no broker answers at ipc:///nowhere/at/all: its directory does not exist$"
        ),
    ):
        socket.ask("status")


def test_an_answer_that_comes_too_late_is_not_taken_for_the_next_one():
    with Peers() as peers, peers.context.socket(zmq.ROUTER) as mute:
        mute.linger = 0
        mute.rcvtimeo = int(1000 * PATIENCE)
        mute.bind(ANY_PORT)
        with ControlSocket(mute.last_endpoint.decode(), 0.01) as socket:
            with pytest.raises(NoAnswerError):
                socket.ask("status")
            asker, *_ = mute.recv_multipart()
            socket._patience = PATIENCE
            for id, answer in ((b"1", "late"), (b"2", "in time")):  # the ids of the questions, in order
                mute.send_multipart(answer_message([asker, id, ASKER], {"status": answer}))
            assert socket.ask("status")["status"] == "in time"


def test_a_broker_without_a_control_socket_has_no_such_address(running: Running):
    assert running.broker.control_address is None


def test_a_control_address_that_cannot_be_bound_is_a_value_error(controlled: Running):
    with pytest.raises(ValueError, match="something else listens there"):
        Broker(ANY_PORT, ANY_PORT, ANY_PORT, control=controlled.broker.control_address)


# Bounds


def test_a_page_of_very_many_waiting_tasks_takes_a_bounded_number_of_steps():
    core = Core()
    core.tasks(*["task"] * 200_000)
    control = Control(core, lambda worker: "", lambda: None)
    began = time.thread_time()
    page = control.answer({"ask": "tasks", "most": LARGEST_PAGE}, 1.0)
    nothing = control.answer({"ask": "tasks", "state": "running"}, 1.0)
    status = control.answer({"ask": "status"}, 1.0)
    assert time.thread_time() - began < 0.1  # seconds; a walk over all tasks takes more
    assert (len(page["tasks"]), page["cursor"], page["total"]) == (LARGEST_PAGE, LARGEST_PAGE, 200_000)
    assert nothing["tasks"] == []
    assert 0 < nothing["cursor"] < 10_000
    assert status["queues"][0]["oldest"] == 1.0


def test_the_tasks_that_are_in_hand_come_the_longest_first():
    core = Core()
    core.join("worker", 3, PARALLEL)
    core.tasks("a", "b", "c")
    for _ in range(3):
        core.hand_out(0.0)
    control = Control(core, lambda worker: "", lambda: None)
    slowest = control.answer({"ask": "tasks", "order": "slowest", "most": 2}, 5.0)
    assert (numbers(slowest), slowest["cursor"]) == ([1, 2], 2)
    assert numbers(control.answer({"ask": "tasks", "order": "slowest", "after": 2}, 5.0)) == [3]
    assert slowest["tasks"][0]["since"] == 5.0


def test_a_worker_that_hangs_tells_since_when_whatever_becomes_of_its_task():
    core = Core(tries=2, timeout=1.0)
    control = Control(core, lambda worker: "", lambda: None)
    core.tasks("a")
    core.join("hangs", 1)
    core.take(0.0)
    core.expire(1.0)
    core.join("hangs too", 1)
    core.take(1.0)
    workers = control.answer({"ask": "workers"}, 1.5)["workers"]
    assert [(worker["since"], worker["task"]["since"]) for worker in workers] == [(1.5, 0.5), (0.5, 0.5)]
    core.expire(2.0)
    core.join("idle", 1)
    workers = control.answer({"ask": "workers"}, 9.0)["workers"]
    assert [worker["since"] for worker in workers] == [9.0, 8.0, None]
    assert workers[0]["task"]["state"] == "failed"


def test_a_plain_worker_tells_since_when_it_has_the_first_of_its_tasks():
    core = Core()
    core.tasks("a", "b")
    control = Control(core, lambda worker: "", lambda: None)
    for now in (1.0, 2.0):
        core.ready([b"plain"])
        core.take(now)
    (worker,) = control.answer({"ask": "workers"}, 5.0)["workers"]
    assert (worker["held"], worker["since"]) == (2, 4.0)


def test_a_status_names_some_queues_however_many_there_are_and_those_without_workers_first():
    core = Core()
    core.join("worker", 0)
    for number in range(3000):
        core.queues.set_limit(f"limited-{number}", 1)
    core.tasks("a", "b")
    core.tasks("c", queue="alone")
    control = Control(core, lambda worker: "", lambda: None)
    status = control.answer({"ask": "status"}, 1.0)
    assert [queue["name"] for queue in status["queues"]][:2] == ["alone", "default"]
    assert (len(status["queues"]), status["total_queues"], status["unserved"]) == (20, 3002, 1)


def test_queues_without_workers_are_found_among_any_number_of_delayed_tasks(monkeypatch):
    core = Core()
    core.tasks("a", queue="gpu")
    core.tasks(*["delayed"] * 1000, delay=1000.0)
    monkeypatch.setattr(Timers, "__iter__", lambda _: pytest.fail("all tasks were walked"))
    assert Control(core, lambda worker: "", lambda: None).answer({"ask": "status"}, 1.0)["unserved"] == 1


def test_a_queue_that_a_worker_asks_from_is_watched_no_more_once_that_was_seen():
    core = Core()
    core.tasks("a", queue="gpu")
    assert [queue.name for queue in core.unserved_now(10)] == ["gpu"]
    core.join("worker", 1, Announce(label="worker", queues=("gpu",)))
    assert list(core.unserved_now(10)) == []
    core.expire(1000.0)
    assert not core._matching._watched


def test_a_page_of_queues_takes_a_bounded_number_of_steps():
    core = Core()
    core.tasks(*["a"] * 10)
    for number in range(200):
        core.tasks("a", queue=f"queue-{number}")
    control = Control(core, lambda worker: "", lambda: None)
    page = control.answer({"ask": "queues", "most": LARGEST_PAGE}, 1.0)
    assert (len(page["queues"]), page["cursor"], page["total"]) == (QUEUES_IN_PAGE, QUEUES_IN_PAGE, 201)
    assert page["queues"][0]["oldest"] == 1.0


def test_whoever_asks_too_much_waits_while_there_is_something_else_to_do():
    with (
        Peers() as peers,
        Broker(ANY_PORT, ANY_PORT, ANY_PORT, control=ANY_PORT, context=peers.context) as broker,
    ):
        asker = Asker(peers, broker.control_address)
        client = peers.open(zmq.DEALER, broker.addresses.requests)
        loop, desk = broker._loop, broker._loop._desk
        assert desk is not None
        desk.due = inf  # as after a long answer
        client.send_multipart([b"", b"task"])
        asker.send(b"", b"nonsense")
        wait_until(lambda: {desk.socket, loop._requests} <= dict(loop._poller.poll(100)).keys())
        while broker.counters()["accepted"] == 0:
            loop.turn()
            assert asker.socket.poll(0) == 0
        loop.turn()
        assert asker.socket.poll(1000 * PATIENCE)
        assert desk.due < inf
