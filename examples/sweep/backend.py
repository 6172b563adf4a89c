"""Has joblib, and so scikit-learn, do its work through a broker: `with parallel_config("zmqbroker", address=...)`.

`Parallel(n_jobs=8, backend="zmqbroker", address=...)` does so too. Copy this file to where it is wanted.
"""

from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

from joblib import register_parallel_backend
from joblib.parallel import AutoBatchingMixin, ParallelBackendBase

from zmqbroker import Executor

AHEAD = 64  # batches that are sent ahead, where nothing is said: there may be that many workers


class BrokerBackend(AutoBatchingMixin, ParallelBackendBase):
    """What joblib asks of a backend, by an Executor."""

    default_n_jobs = -1  # as many as there is room for, where a program says nothing
    supports_retrieve_callback = True
    uses_threads = False

    def __init__(self, address: str = "tcp://localhost:4161", nesting_level: int | None = None, **options: Any) -> None:
        super().__init__(nesting_level=nesting_level)
        self._address, self._options = address, options
        self._executor: Executor | None = None

    def effective_n_jobs(self, n_jobs: int | None) -> int:
        """Return how many batches are to be under way; the broker knows how many workers there are, we do not."""
        return AHEAD if n_jobs is None or n_jobs < 0 else n_jobs

    def configure(self, n_jobs: int = 1, parallel: Any = None, address: str | None = None, **_: Any) -> int:
        """Connect, at the beginning of a Parallel, which may say where to."""
        self.parallel = parallel
        self._address = address or self._address
        self._executor = Executor(self._address, **self._options)
        return self.effective_n_jobs(n_jobs)

    def submit(self, func: Callable[[], Any], callback: Callable[[Future[Any]], None]) -> Future[Any]:
        """Send a batch of calls."""
        future = self._executor.submit(func)
        future.add_done_callback(callback)
        return future

    def retrieve_result_callback(self, out: Future[Any]) -> Any:
        """Return what came of a batch, or raise it."""
        return out.result()

    def terminate(self) -> None:
        """Disconnect, at the end; what is left is not wanted."""
        self._executor.shutdown(wait=False, cancel_futures=True)

    def abort_everything(self, ensure_ready: bool = True) -> None:
        """Give up what is under way."""
        self.terminate()
        if ensure_ready:
            self.configure(self.parallel.n_jobs, self.parallel)


register_parallel_backend("zmqbroker", BrokerBackend)
