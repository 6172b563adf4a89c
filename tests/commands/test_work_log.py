"""The log of `zmqbroker work` names the worker, as the broker's log does, and the task of each line."""

import socket
from pathlib import Path

from conftest import Running
from helpers import PATIENCE
from work_support import Work, failure

from zmqbroker import Client

pytest_plugins = ["work_fixtures"]

HOST = socket.gethostname()
LOGGING = """\
import logging, threading
import zmqbroker

def shrink(body):
    logging.getLogger("pictures").info("%s: begun", body.decode())
    thread = threading.Thread(target=logging.info, args=["a thread of its own"])
    thread.start()
    thread.join()
    if body == b"bad":
        raise ValueError("no picture")
    if body == b"never":
        raise zmqbroker.Reject("no such file")
    return body
"""


def test_the_log_of_work_tells_the_task_and_the_worker_of_each_line(
    running: Running, work: Work, client: Client, directory: Path
):
    (directory / "pictures.py").write_text(LOGGING)
    program = work("-v", "--label", "100 %", "pictures:shrink")
    program.wait_for(r"^[\d-]+ [\d:,]+ 100 %: 1 process for pictures:shrink$")
    assert client.call(b"good", PATIENCE) == b"good"
    assert failure(client, b"bad", tries=1).number == 2
    assert failure(client, b"never").number == 3
    process_id = program.wait_for(rf"^[\d-]+ [\d:,]+ 100 % \({HOST}:(\d+)\): task 1 \(\w+-0\): good: begun$")[1]
    assert program.wait_for(r"100 %: process (\d+) starts$")[1] == process_id
    of_worker = rf"^[\d-]+ [\d:,]+ 100 % \({HOST}:{process_id}\)"
    program.wait_for(rf"{of_worker}: a thread of its own$", times=3)
    program.wait_for(rf"{of_worker}: task 2 \(\w+-1\): bad: begun$")
    program.wait_for(rf"{of_worker}: task 2 \(\w+-1\): the handler failed in attempt 1: ValueError: no picture$")
    program.wait_for(rf"{of_worker}: task 3 \(\w+-2\): the handler has rejected it in attempt 1: no such file$")
    assert program.end() == 0
    assert program.output.count("Traceback") == 1
