"""What happened so far, in numbers."""

from dataclasses import dataclass


@dataclass(slots=True)
class Counters:
    """What happened so far, in numbers of tasks, attempts or messages."""

    accepted: int = 0  # tasks taken in
    restored: int = 0  # tasks that an earlier run had left in the store
    done: int = 0  # tasks settled with a result
    failed: int = 0  # tasks settled without one
    cancelled: int = 0  # tasks settled because their client asked for it
    expired: int = 0  # tasks settled because they had no result in time
    unfinished: int = 0  # tasks left when the broker ended, or not stored: their clients were told to send them again
    joined: int = 0  # requests that joined an unsettled task, or got a reply that was kept
    refused: int = 0  # proper requests that became no task: too large, while shutting down, too many, nothing to cancel
    attempts: int = 0  # hand-outs, without those that found their worker gone
    taken_back: int = 0  # hand-outs that lay behind another one for too long, or whose worker was lost
    held_back: int = 0  # times that a worker was made to wait for its next task, as others succeed where it fails
    retried: int = 0  # attempts lost with another one to come
    released: int = 0  # attempts given back unexecuted
    late: int = 0  # results for tasks settled (or never seen), and verbs for attempts not running
    malformed: int = 0  # messages that fit no rule of the protocol
    undeliverable: int = 0  # replies whose client was gone or did not read
    gone: int = 0  # idle workers found gone at hand-out
    lost: int = 0  # connections of busy workers that dropped
