"""Hosts of a test's own: network namespaces joined by a bridge, whose cables can be pulled and made bad.

Each host has an address in 10.77.0.0/16 which only its network knows; nothing leaves it. A cable is a veth pair; a bad
one loses and delays packets, by the kernel's netem or, where there is none, by a pair of TAP devices and this file
as the program between them.
"""

import fcntl
import itertools
import os
import random
import re
import select
import struct
import subprocess
import sys
from collections import deque
from contextlib import ExitStack, contextmanager
from pathlib import Path
from time import monotonic

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # for the helpers, when run as a program

from helpers import Program

SELF = "tests/endurance/network_hosts.py"
TUNSETIFF, IFF_TAP, IFF_NO_PI = 0x400454CA, 0x0002, 0x1000  # linux/if_tun.h
LARGEST_PACKET = 65536

_next_network = itertools.count().__next__


class CannotError(Exception):
    """This machine does not let us do it; the text says why."""


def ip(*arguments: str) -> None:
    """Run ip(8)."""
    run("ip", *arguments)


def run(*command: str) -> str:
    """Run a command and return what it prints; raise CannotError with that where it fails."""
    try:
        ran = subprocess.run(command, capture_output=True, stdin=subprocess.DEVNULL, text=True, check=False, timeout=20)
    except FileNotFoundError:
        raise CannotError(f"{command[0]} is not installed") from None
    if ran.returncode:
        raise CannotError(f"{' '.join(command)}: {(ran.stderr or ran.stdout).strip()}")
    return ran.stdout


class Host:
    """A network namespace with an address, and a cable to the bridge."""

    def __init__(self, namespace: str, bridge: str, number: int, closing: ExitStack) -> None:
        self.namespace = namespace
        self.address = f"10.77.{number // 250}.{number % 250 + 1}"
        self._bridge = bridge
        self._port = f"port{number}"  # the cable's end at the bridge
        self._closing = closing

    def plug(self, loss: float, delay: float) -> None:
        """Lay the cable: `loss` is a share of the packets, `delay` in seconds each way."""
        ip("netns", "add", self.namespace)
        self._closing.callback(ip, "netns", "delete", self.namespace)
        if loss or delay:
            self._lay_bad_cable(loss, delay)
        else:
            self._lay_cable()
        ip("-n", self._bridge, "link", "set", self._port, "master", "bridge", "up")
        ip("-n", self.namespace, "address", "add", f"{self.address}/16", "dev", "eth0")
        for device in ("lo", "eth0"):
            ip("-n", self.namespace, "link", "set", device, "up")

    def cut(self) -> None:
        """Pull the cable at the bridge. Nobody is told: packets are lost both ways."""
        ip("-n", self._bridge, "link", "set", self._port, "down")

    def restore(self) -> None:
        """Put the cable back."""
        ip("-n", self._bridge, "link", "set", self._port, "up")

    @contextmanager
    def cut_off(self):
        """Be cut off until the `with` block ends."""
        self.cut()
        try:
            yield
        finally:
            self.restore()

    def received(self, peer: "Host | None" = None) -> list[int]:
        """Return the bytes that have come by each established connection of this host, to `peer` (None: to anyone)."""
        chosen = ("dst", peer.address) if peer else ()
        shown = run("ip", "netns", "exec", self.namespace, "ss", "-Htni", "state", "established", *chosen)
        return [int(count) for count in re.findall(r"bytes_received:(\d+)", shown)]

    def start(self, script: str, *arguments: object) -> Program:
        """Start a Python program, a path below the top of the tree, on this host."""
        program = Program(SELF, "on", self.namespace, script, *arguments)
        self._closing.callback(program.clean_up)
        return program

    def _lay_cable(self) -> None:
        here, there = ("peer", "name", "eth0", "netns", self.namespace), ("name", self._port, "type", "veth")
        ip("-n", self._bridge, "link", "add", *there, *here)

    def _lay_bad_cable(self, loss: float, delay: float) -> None:
        netem = ("root", "netem", "delay", f"{delay * 1000:g}ms", "loss", f"{loss:.2%}")
        self._lay_cable()
        try:
            run("tc", "-n", self._bridge, "qdisc", "add", "dev", self._port, *netem)
            run("tc", "-n", self.namespace, "qdisc", "add", "dev", "eth0", *netem)
        except CannotError:
            ip("-n", self._bridge, "link", "delete", self._port)
            cable = Program(SELF, "on", self._bridge, SELF, "cable", self._port, f"to{self._port}", loss, delay)
            self._closing.callback(cable.clean_up)
            try:
                cable.wait_for("the cable is laid")
            except AssertionError:
                raise CannotError(f"neither netem nor TAP devices are here: {cable.output}") from None
            ip("-n", self._bridge, "link", "set", f"to{self._port}", "netns", self.namespace, "name", "eth0")


class Network:
    """A bridge in a namespace of its own, and hosts around it; all of it goes when the `with` block ends."""

    def __init__(self) -> None:
        self._name = f"zb{os.getpid()}-{_next_network()}"
        self._hosts = itertools.count().__next__
        self._closing = ExitStack()

    def __enter__(self) -> "Network":
        self._bridge = f"{self._name}-net"
        with ExitStack() as undoing:
            undoing.callback(self._closing.close)
            ip("netns", "add", self._bridge)
            self._closing.callback(ip, "netns", "delete", self._bridge)
            ip("-n", self._bridge, "link", "add", "bridge", "type", "bridge")
            ip("-n", self._bridge, "link", "set", "bridge", "up")
            undoing.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._closing.close()

    def host(self, loss: float = 0.0, delay: float = 0.0) -> Host:
        """Add a host; raise CannotError where that cannot be done."""
        number = self._hosts()
        host = Host(f"{self._name}-{number}", self._bridge, number, self._closing)
        host.plug(loss, delay)
        return host


def _be_cable(ends: tuple[str, str], loss: float, delay: float) -> None:
    """Pass packets on from each of two TAP devices to the other, until killed."""
    taps = [_open_tap(end) for end in ends]
    print("the cable is laid", flush=True)
    dice = random.Random(1)
    under_way: deque[tuple[float, int, bytes]] = deque()  # when it arrives, where, the packet
    while True:
        wait = max(0.0, under_way[0][0] - monotonic()) if under_way else None
        readable, _, _ = select.select(taps, [], [], wait)
        now = monotonic()
        for tap in readable:
            packet = os.read(tap, LARGEST_PACKET)
            if dice.random() >= loss:
                under_way.append((now + delay, taps[tap == taps[0]], packet))
        while under_way and under_way[0][0] <= now:
            _, tap, packet = under_way.popleft()
            try:
                os.write(tap, packet)
            except OSError:  # the other end is not up: a cable tells nobody
                continue


def _open_tap(name: str) -> int:
    tap = os.open("/dev/net/tun", os.O_RDWR)
    fcntl.ioctl(tap, TUNSETIFF, struct.pack("16sH22x", name.encode(), IFF_TAP | IFF_NO_PI))
    return tap


def _main(what: str, *arguments: str) -> None:
    if what == "on":  # a namespace: a program runs there, as this very process
        namespace, script, *rest = arguments
        top = Path(__file__).resolve().parents[2]
        os.execvp("ip", ["ip", "netns", "exec", namespace, sys.executable, str(top / script), *rest])
    one, other, loss, delay = arguments
    _be_cable((one, other), float(loss), float(delay))


if __name__ == "__main__":
    _main(*sys.argv[1:])
