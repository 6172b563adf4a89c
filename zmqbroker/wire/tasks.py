"""What plain workers and the broker say to each other on READY: ready messages and tasks."""

from zmqbroker.wire.frames import EMPTY, LARGEST_ENVELOPE, Frames, MalformedError, is_large_envelope


def parse_ready(message: Frames) -> Frames:
    """Return the envelope of a worker's ready message, whatever its body says."""
    try:
        envelope = message[: message.index(EMPTY)]
    except ValueError:
        raise MalformedError("a ready message without an empty frame") from None
    if is_large_envelope(envelope):
        raise MalformedError(f"an envelope of more than {LARGEST_ENVELOPE} bytes")
    return envelope


def task_message(envelope: Frames, attempt_id: bytes, body: Frames) -> Frames:
    """Build the answer to a ready message: one attempt of a task."""
    return [*envelope, EMPTY, attempt_id, *body]
