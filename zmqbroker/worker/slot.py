"""What a worker process shares with its supervisor: numbers in memory, to be read at any time, also after its death."""

import mmap
import os
import struct
import tempfile

COUNTS = struct.Struct("=QQ")  # tasks handled, and those of them that failed
SIZE = mmap.PAGESIZE


class Slot:
    """The numbers of one process. It writes them; its supervisor reads them."""

    def __init__(self, descriptor: int) -> None:
        """Map the file of `anonymous_file`; the descriptor may be closed then."""
        self._memory = mmap.mmap(descriptor, SIZE)
        self._process_id = os.getpid()

    def write_counts(self, handled: int, failed: int) -> None:
        """Say how many tasks were handled so far, and how many of them failed; a child that was forked has no say."""
        if os.getpid() == self._process_id:
            COUNTS.pack_into(self._memory, 0, handled, failed)

    def counts(self) -> tuple[int, int]:
        """Return how many tasks were handled so far, and how many of them failed."""
        handled, failed = COUNTS.unpack_from(self._memory)
        return handled, failed

    def close(self) -> None:
        """Give the memory back."""
        self._memory.close()


def anonymous_file(content: bytes) -> int:
    """Return a descriptor of a new file that has no name, at its beginning; raises OSError."""
    if hasattr(os, "memfd_create"):
        descriptor = os.memfd_create("zmqbroker")
    else:
        descriptor, path = tempfile.mkstemp()
        os.unlink(path)
    try:
        with open(descriptor, "wb", 0, closefd=False) as file:
            while content:
                content = content[file.write(content) or 0 :]
        os.lseek(descriptor, 0, os.SEEK_SET)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor
