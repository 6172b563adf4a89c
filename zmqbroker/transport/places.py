"""Where control sockets are, if nobody says: in a directory that only the same user can open, one for each broker.

The first of these that there is, or can be made: `/run/zmqbroker` (of root, or made by a service manager),
`$XDG_RUNTIME_DIR/zmqbroker`, `/tmp/zmqbroker-UID`; or the one that `$ZMQBROKER_RUNTIME_DIR` names, and no other. It has
to be a directory of our own and no link, and nobody else may do anything there; root finds sockets of any owner in
`/run/zmqbroker`.
"""

import errno
import os
import re
import socket
import stat
from collections.abc import Iterator
from contextlib import suppress
from itertools import count
from pathlib import Path

from zmqbroker.transport.addresses import LONGEST_SURE_IPC

AUTO = "auto"
SHARED = Path("/run/zmqbroker")
ONLY_PLACE = "ZMQBROKER_RUNTIME_DIR"  # the name of a variable
SUFFIX = ".control"
LONGEST_NAME = 20  # characters, with the slash before it
OURS_ONLY = 0o700
OTHERS_WRITE = 0o022


def own_place() -> str:
    """Return the path for a socket of this process; raises OSError where no directory can be had.

    Sockets that nobody listens on any more are removed.
    """
    why: OSError = FileNotFoundError("there is no directory for it")
    for directory in _directories():
        try:
            _make(directory)
        except OSError as error:
            why = error
            continue
        _remove_stale(directory)
        names = (f"{os.getpid()}{f'-{number}' if number else ''}{SUFFIX}" for number in count())
        return str(next(directory / name for name in names if not (directory / name).exists()))
    raise why


def places() -> list[str]:
    """Return the paths of the sockets that somebody listens on."""
    return [str(path) for directory in _directories() for path in _sockets(directory) if _is_answered(path)]


def _directories() -> list[Path]:
    """Return where control sockets may be, the first choice first."""
    only = os.environ.get(ONLY_PLACE, "")
    if only:
        return [Path(only).absolute()]
    runtime = os.environ.get("XDG_RUNTIME_DIR", "")
    of_user = [Path(runtime) / "zmqbroker"] if os.path.isabs(runtime) else []
    return [SHARED, *of_user, Path(f"/tmp/zmqbroker-{os.getuid()}")]


def _make(directory: Path) -> None:
    """Make a directory, or make sure that one is ours alone; raises OSError where it is not."""
    if len(os.fsencode(directory)) + LONGEST_NAME > LONGEST_SURE_IPC:
        raise OSError(errno.ENAMETOOLONG, f"the path {directory} is too long for a socket")
    with suppress(FileExistsError):
        directory.mkdir(OURS_ONLY)
    found = directory.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o077:
        raise PermissionError(f"{directory} is no directory of this user's alone")
    if not os.access(directory, os.W_OK | os.X_OK):
        raise PermissionError(f"{directory} cannot be written to")


def _sockets(directory: Path) -> Iterator[Path]:
    """Yield the sockets in a directory of this user's or, for root, of anybody's in the shared one."""
    try:
        found = directory.lstat()
        is_ours = found.st_uid == os.getuid() or (directory == SHARED and os.getuid() == 0)
        if stat.S_ISDIR(found.st_mode) and is_ours and not found.st_mode & OTHERS_WRITE:
            yield from sorted(path for path in directory.iterdir() if stat.S_ISSOCK(path.lstat().st_mode))
    except OSError:
        return


def _remove_stale(directory: Path) -> None:
    """Remove the sockets of processes that are gone; one that is just about to listen is left alone."""
    for path in _sockets(directory):
        process = re.fullmatch(rf"(\d+)(-\d+)?{re.escape(SUFFIX)}", path.name)
        if process is not None and not _is_answered(path) and not _is_another(int(process[1])):
            path.unlink(missing_ok=True)


def _is_another(process_id: int) -> bool:
    """Tell whether this is the number of another process that lives."""
    if process_id == os.getpid():
        return False
    try:
        os.kill(process_id, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        pass
    return process_id > 0


def _is_answered(path: Path) -> bool:
    """Tell whether somebody listens there."""
    with socket.socket(socket.AF_UNIX) as probe:
        probe.setblocking(False)  # a broker that hangs takes no connection at once
        try:
            probe.connect(str(path))
        except (ConnectionRefusedError, FileNotFoundError):
            return False
        except OSError:  # it is busy, or not for us
            return True
    return True
