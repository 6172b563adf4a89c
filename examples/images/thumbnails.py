"""What the workers do: a task is what is in the file of a picture, and its result what is to be in a thumbnail's."""

import io
import os

import numpy as np
from PIL import Image

from zmqbroker import Reject, current_task

SIZE = (128, 128)  # pixels, at most


def make(body: bytes) -> bytes:
    """Make a thumbnail with more contrast."""
    try:
        picture = Image.open(io.BytesIO(body))
        small = picture.convert("RGB")
    except OSError:
        # No other attempt would do better, so there is to be none.
        raise Reject("this is not the whole of a picture") from None
    crash_perhaps(picture.info.get("Comment", ""))
    small.thumbnail(SIZE)
    written = io.BytesIO()
    Image.fromarray(with_contrast(np.asarray(small))).save(written, "PNG")
    return written.getvalue()


def with_contrast(pixels: np.ndarray) -> np.ndarray:
    """Stretch the colours, so that all but the darkest and the lightest 2 % become as far apart as can be."""
    darkest, lightest = np.percentile(pixels, (2, 98))
    stretched = (pixels - darkest) * (255 / max(lightest - darkest, 1))
    return stretched.clip(0, 255).astype(np.uint8)


def crash_perhaps(comment: str) -> None:
    """Stand in for a library with a fault, which ends the whole process: now and then, or for some pictures."""
    if comment == "crash always" or (comment == "crash once" and current_task().attempt == 1):
        os.abort()
