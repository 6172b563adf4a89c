"""Names that have an address of IPv6 only, or one of each kind: with a hosts file and a network of the test's own."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from helpers import PATIENCE, TOP

HOSTS = "127.0.0.1 localhost\nfd00::1 six\nfd00::1 both\n10.9.9.1 both\n"
PREPARE = (
    "mount --bind {hosts} /etc/hosts && ip link set lo up && ip address add fd00::1/128 dev lo && "
    "ip address add 10.9.9.1/32 dev lo"
)
REACH = """
import sys, threading
from zmqbroker import Broker, Client, Worker
listen, *names = sys.argv[1:]
broker = Broker(*(f"tcp://{listen}:{port}" for port in (4591, 4592, 4593)))
threading.Thread(target=broker.run, daemon=True).start()
for name in names:
    worker = Worker(f"tcp://{name}:4592", bytes.upper)
    thread = threading.Thread(target=worker.run)
    thread.start()
    with Client(f"tcp://{name}:4591") as client:
        print(name, client.call(name.encode(), 20))
    worker.stop()
    thread.join()
with broker:
    print("bound to", broker.addresses.requests)
"""


def run_inside(tmp_path: Path, script: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a program where these names are known; skip the test where that cannot be had."""
    hosts = tmp_path / "hosts"
    hosts.write_text(HOSTS)
    inside = ("unshare", "--mount", "--net", "sh", "-c")
    prepare = PREPARE.format(hosts=hosts)
    try:
        tried = subprocess.run([*inside, prepare], capture_output=True, text=True, timeout=PATIENCE, check=False)
    except FileNotFoundError:
        pytest.skip("unshare is not installed")
    if tried.returncode:
        pytest.skip(f"no network of one's own here: {tried.stderr.strip()}")
    return subprocess.run(
        [*inside, f'{prepare} && exec "$@"', "sh", sys.executable, "-c", script, *arguments],
        capture_output=True,
        text=True,
        timeout=2 * PATIENCE,
        check=False,
        cwd=TOP,
        env={**os.environ, "PYTHONPATH": str(TOP)},
    )


@pytest.mark.parametrize("listen", ["[::]", "[fd00::1]", "six"])
def test_a_broker_on_ipv6_is_reached_by_names_of_either_kind(tmp_path: Path, listen: str):
    names = ("six", "both", "[six]", "[both]")
    ran = run_inside(tmp_path, REACH, listen, *names)
    assert ran.returncode == 0, ran.stderr
    told = ran.stdout.splitlines()
    assert told[:-1] == [f"{name} {name.upper().encode()!r}" for name in names]
    assert told[-1].startswith("bound to tcp://[")


@pytest.mark.parametrize("listen", ["*", "both"])
def test_a_broker_on_ipv4_only_is_reached_by_a_name_that_has_both(tmp_path: Path, listen: str):
    ran = run_inside(tmp_path, REACH, listen, "both", "[both]")
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.splitlines()[:-1] == ["both b'BOTH'", "[both] b'[BOTH]'"]
