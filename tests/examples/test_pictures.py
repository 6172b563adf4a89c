"""The example with pictures: the bad ones fail, each for its reason, and a crash costs no other picture an attempt."""

import pytest
from reader_support import Reader, shown

pytest.importorskip("numpy")
pytest.importorskip("PIL")

pytest_plugins = ["command_fixtures", "examples_fixtures"]
pytestmark = pytest.mark.slow


def test_pictures_get_a_thumbnail_but_for_those_that_cannot_and_a_crash_is_tried_again_alone(reader: Reader, tmp_path):
    from PIL import Image

    broker = reader.start("Examples")
    work = reader.start("Pictures")
    ran = reader.run("Pictures", 1)
    assert (ran.returncode, ran.stderr) == (1, "")
    assert shown("Pictures").fullmatch(ran.stdout), ran.stdout
    made = sorted((tmp_path / "thumbnails").iterdir())
    assert [picture.stem for picture in made] == ["crash-once", *(f"fine-{number}" for number in range(6))]
    assert {Image.open(picture).size for picture in made} == {(128, 96)}
    work.wait_for("SIGABRT", times=4)
    broker.end()
    broker.wait_for("^7 tasks done, 2 failed, 0 expired, 3 attempts retried")
