"""The disk below a store: what is free there, a reserve for when nothing is, and whether it is one of this machine."""

import os
from contextlib import suppress
from pathlib import Path

MOUNTS = Path("/proc/self/mountinfo")
NETWORKS = (
    "9p",
    "afs",
    "beegfs",
    "ceph",
    "cifs",
    "gfs2",
    "glusterfs",
    "gpfs",
    "lustre",
    "nfs",
    "ocfs2",
    "smb",
    "sshfs",
)
PIECE = 1 << 20  # bytes, of a reserve


def free_bytes(path: Path) -> int:
    """Return how much is free, for users that are not root, on the file system of a directory; may raise OSError."""
    system = os.statvfs(path)
    return system.f_bavail * system.f_frsize


def sync_directory(path: Path) -> None:
    """Have a directory on the disk as it is now, with the files that are new in it; may raise OSError."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def network_of(path: Path, mounts: Path = MOUNTS) -> str:
    """Return the kind of network file system that a directory is on; empty: none that is known.

    Only Linux tells, elsewhere none is known.
    """
    try:
        lines = mounts.read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    except OSError:
        return ""
    kind, nearest = "", -1
    for line in lines:
        fields, _, system = line.partition(" - ")
        place = Path(fields.split(" ")[4].encode("latin-1", "surrogateescape").decode("unicode_escape", "replace"))
        depth = len(place.parts)
        if depth >= nearest and (place == path or place in path.parents):  # the last one hides those before
            kind, nearest = system.split(" ")[0], depth
    name = kind.removeprefix("fuse.")
    return kind if name.startswith(NETWORKS) else ""


def lengthen(path: str, size: int) -> None:
    """Have a file at least so many bytes long, of zeros where there were none; may raise OSError.

    What is written there then changes neither its length nor its place, and syncing that costs less.
    """
    with open(path, "r+b", buffering=0) as file:
        file.write(bytes(max(0, size - file.seek(0, os.SEEK_END))))


class Reserve:
    """A file that takes up room, to be given up when there is no other: what runs can then be settled."""

    def __init__(self, path: Path, size: int) -> None:
        """Take it for what is there; `size` is in bytes, 0: there is never one."""
        self._path = path
        self._size = size
        self.is_there = os.path.exists(path)  # Path's would raise for a name that is too long

    @property
    def missing(self) -> int:
        """How many bytes it would take up if it was there; 0: it is."""
        return 0 if self.is_there else self._size

    def make(self, room: float) -> None:
        """Make it if it is missing, and there is room for it in so many bytes."""
        if not self.missing or room < self._size:
            return
        piece = os.urandom(min(PIECE, self._size))  # what a file system cannot compress
        try:
            with open(self._path, "wb", opener=_open_private) as file:
                for _ in range(0, self._size, len(piece)):
                    file.write(piece)
        except OSError:
            self.give_up()  # the room went to somebody else meanwhile
        else:
            self.is_there = True

    def give_up(self) -> bool:
        """Remove it; tell whether it was there."""
        was_there, self.is_there = self.is_there, False
        with suppress(OSError):
            self._path.unlink()
        return was_there


def _open_private(path: str, flags: int) -> int:
    """Open a file which, where it is made, only its owner may read."""
    return os.open(path, flags, 0o600)
