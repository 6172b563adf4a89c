"""Make a directory of pictures to try the example with, some of them bad: `make_pictures.py DIRECTORY`."""

import sys
from pathlib import Path

import numpy as np
from PIL import Image, PngImagePlugin


def main(directory: Path) -> None:
    """Write six pictures that are fine, and three that are not."""
    directory.mkdir(exist_ok=True)
    for number in range(6):
        noise = np.random.default_rng(number).integers(0, 256, (480, 640, 3), dtype=np.uint8)
        Image.fromarray(noise).save(directory / f"fine-{number}.jpg")
    whole = (directory / "fine-0.jpg").read_bytes()
    (directory / "cut-off.jpg").write_bytes(whole[: len(whole) // 2])
    for comment in ("crash once", "crash always"):  # see thumbnails.py
        remark = PngImagePlugin.PngInfo()
        remark.add_text("Comment", comment)
        Image.new("RGB", (640, 480), "teal").save(directory / f"{comment.replace(' ', '-')}.png", pnginfo=remark)


main(Path(sys.argv[1]))
