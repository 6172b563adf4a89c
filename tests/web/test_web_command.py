"""`zmqbroker web` as a user runs it: what it says at its start, what it refuses, and how it ends."""

import asyncio
import http.client
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from contextlib import closing

import pytest
from control_commands_support import COMMAND, ENVIRONMENT, Ran, place
from helpers import PATIENCE, TOP

from zmqbroker.commands.command_lines import parse
from zmqbroker.web.place import Place, listen

__all__ = ["place"]  # fixtures
TOKEN = "correct-horse-battery-staple"


class Web:
    """A command that runs."""

    def __init__(self, *arguments: object, **environment: str) -> None:
        self.process = subprocess.Popen(
            [*COMMAND, "web", "--listen", "127.0.0.1:0", *map(str, arguments)],
            env=os.environ | ENVIRONMENT | environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        guard = threading.Timer(PATIENCE, self.process.kill)
        guard.start()
        assert self.process.stdout is not None
        self.first = self.process.stdout.readline()
        guard.cancel()

    @property
    def address(self) -> tuple[str, int]:
        host, port = re.fullmatch(r"the page is at http://\[?(.+?)\]?:(\d+)/\n", self.first).groups()
        return host, int(port)

    def get(self, path: str, **headers: str) -> int:
        connection = http.client.HTTPConnection(*self.address, timeout=PATIENCE)
        connection.request("GET", path, headers=headers)
        status = connection.getresponse().status
        connection.close()
        return status

    def end(self, number: int = signal.SIGTERM) -> tuple[int, str, str]:
        self.process.send_signal(number)
        out, err = self.process.communicate(timeout=PATIENCE)
        return self.process.returncode, out, err


def refused(capfd: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str]:
    """Run what is refused before it begins, in this process; return the exit status and what it says."""
    try:
        command, options, parser = parse("zmqbroker", ["web", *map(str, arguments)])
        status = command(options, parser)
    except SystemExit as end:
        status = end.code
    out, err = capfd.readouterr()
    assert out == ""
    return status, err


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_says_where_it_is_and_ends_quickly_with_connections_open(place, number):
    web = Web()
    with socket.create_connection(web.address, PATIENCE) as idle, socket.create_connection(web.address) as half:
        idle.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert idle.recv(1000).startswith(b"HTTP/1.1 200")
        half.sendall(b"GET /heal")
        assert web.end(number) == (0, "", "")


def test_what_is_on_its_way_at_the_end_is_answered_so_and_no_fault(place):
    with socket.create_server(("127.0.0.1", 0)) as silent:  # a broker that hangs
        web = Web(f"tcp://127.0.0.1:{silent.getsockname()[1]}")
        with closing(http.client.HTTPConnection(*web.address, timeout=PATIENCE)) as connection:
            two = b"".join(
                b"GET %s HTTP/1.1\r\nHost: localhost\r\n\r\n" % path for path in (b"/healthz", b"/api/queues")
            )
            connection.connect()
            connection.sock.sendall(two)
            answers = connection.sock.makefile("rb")
            for line in iter(answers.readline, b"ok\n"):
                assert line
            assert web.end() == (0, "", "")
            assert answers.readline().startswith(b"HTTP/1.1 503")


def test_the_token_is_in_a_file_or_in_the_environment(place, tmp_path):
    secret = tmp_path / "token"
    secret.write_text(f"{TOKEN}\n")
    secret.chmod(0o600)
    for web in (Web("--token", secret), Web(ZMQBROKER_WEB_TOKEN=TOKEN)):
        assert web.get("/metrics") == 401
        assert web.get("/metrics", Authorization=f"Bearer {TOKEN}") == 200
        assert web.get("/healthz") == 200
        assert TOKEN not in " ".join(web.process.args)
        assert web.end() == (0, "", "")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--listen", "0.0.0.0:0"], "0.0.0.0:0 is open to other machines: give --token FILE, or --trust-the-network"),
        (["--listen", "[::]:0"], "is open to other machines"),
        (["--listen", "127.0.0.1"], "is no HOST:PORT to listen on"),
        (["--listen", "127.0.0.1:70000"], "is no HOST:PORT to listen on"),
        (["--listen", "::1:8161"], "is no HOST:PORT to listen on"),
        (["--listen", ":8161"], "is no HOST:PORT to listen on"),
        (
            ["--listen", "*:8161"],
            "is no HOST:PORT to listen on; one looks like 127.0.0.1:8161 or [::1]:8161, or for all",
        ),
        (["--listen", "a..b:0"], "is no HOST:PORT to listen on"),
        (["--listen", "\udcff:0"], "is no HOST:PORT to listen on"),
        (["--listen", "a\nb:0"], "is no HOST:PORT to listen on"),
        (["--listen", "[::1]]:0"], "is no HOST:PORT to listen on"),
        (["--listen", "192.0.2.1:0"], "cannot listen on 192.0.2.1:0: "),
        (["--listen", "no.such.host.invalid:0"], "cannot listen on no.such.host.invalid:0: "),
        (["--token", "/nowhere"], "cannot read /nowhere: No such file"),
        (["--identity", "/nowhere"], "only one of two identities is given"),
        (["tcp://localhost"], "'tcp://localhost'"),
        (["localhost:4164"], "is no address of a control socket"),
        (["inproc://control"], "inproc://control is for who shares a ZeroMQ context"),
        (["ipc:///" + "a" * 200], "is no address to connect to"),
        (["--colour"], "unrecognized arguments: --colour"),
    ],
)
def test_what_makes_no_sense_is_refused_in_a_line(place, arguments, words, capfd):
    status, said = refused(capfd, *arguments)
    assert (status, said.count("\n")) == (2, 1)
    assert words in said


@pytest.mark.parametrize(
    ("text", "mode", "words"),
    [
        ("short", 0o600, "has no token"),
        (TOKEN, 0o644, "chmod 600 it"),
        ("x" * 1025, 0o600, "has no token: one is a line of 16 to 1024 characters of ASCII"),
        ("x" * 5000, 0o600, "has no token"),
        (TOKEN + " " * 5000 + TOKEN, 0o600, "has no token"),
    ],
)
def test_a_token_that_is_none_is_refused(place, tmp_path, text, mode, words, capfd):
    secret = tmp_path / "token"
    secret.write_text(text)
    secret.chmod(mode)
    status, said = refused(capfd, "--token", secret)
    assert (status, said.count("\n")) == (2, 1)
    assert words in said
    assert TOKEN not in said


def test_a_token_that_would_be_waited_for_is_refused(place, tmp_path, capfd):
    os.mkfifo(tmp_path / "token", 0o600)
    status, said = refused(capfd, "--token", tmp_path / "token")
    assert (status, said) == (2, f"zmqbroker web: {tmp_path / 'token'} is no regular file\n")


def test_an_empty_token_is_none(place, monkeypatch, capfd):
    monkeypatch.setenv("ZMQBROKER_WEB_TOKEN", "")
    status, said = refused(capfd)
    assert status == 2
    assert "ZMQBROKER_WEB_TOKEN has no token" in said


def test_a_port_that_is_in_use_is_a_line(place):
    with socket.create_server(("127.0.0.1", 0)) as there:
        port = there.getsockname()[1]
        ran = Ran("web", "--listen", f"127.0.0.1:{port}")
    assert (ran.status, ran.out) == (2, "")
    assert ran.err == f"zmqbroker web: cannot listen on 127.0.0.1:{port}: address already in use\n"


def test_it_listens_on_ipv6(place):
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        pytest.skip("this machine has no IPv6")
    web = Web("--listen", "[::1]:0")
    assert web.address[0] == "::1"
    assert web.get("/healthz") == 200
    assert web.end()[0] == 0


def test_a_short_answer_is_not_held_back():
    """Nagle's algorithm would have each wait for an acknowledgement, 40 ms long."""

    async def accepted(opened: socket.socket) -> int:
        told: asyncio.Future[int] = asyncio.get_running_loop().create_future()

        def tell(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            told.set_result(writer.get_extra_info("socket").getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
            writer.close()

        async with await asyncio.start_server(tell, sock=opened):
            with socket.create_connection(opened.getsockname(), PATIENCE):
                return await asyncio.wait_for(told, PATIENCE)

    assert asyncio.run(accepted(listen(Place("127.0.0.1", 0)))) != 0


def test_who_trusts_the_network_may_listen_there(place):
    web = Web("--listen", "0.0.0.0:0", "--trust-the-network")
    assert web.get("/api/brokers", Host="any.example") == 200
    assert web.end() == (0, "", "")


def test_without_its_libraries_it_says_what_to_install(tmp_path):
    (tmp_path / "uvicorn.py").write_text("raise ModuleNotFoundError('no uvicorn', name='uvicorn')\n")
    environment = os.environ | {"PYTHONPATH": f"{tmp_path}{os.pathsep}{TOP}"}
    ran = subprocess.run(
        [sys.executable, "-m", "zmqbroker", "web", "--listen", "127.0.0.1:0"],
        env=environment,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert (ran.returncode, ran.stdout) == (2, "")
    assert ran.stderr == 'zmqbroker web: this needs more than is installed: pip install "zmqbroker[web]"\n'
