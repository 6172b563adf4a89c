"""What pyproject.toml says of the package agrees with itself and with the files around it."""

import re
from importlib import metadata

import pytest
from helpers import TOP

tomllib = pytest.importorskip("tomllib")  # since Python 3.11

pytestmark = pytest.mark.once

WHOLE = tomllib.loads((TOP / "pyproject.toml").read_text())
PROJECT = WHOLE["project"]
EXTRAS = PROJECT["optional-dependencies"]
FOR_USERS = re.findall(r"\w+", EXTRAS["all"][0].partition("[")[2])


def test_all_addresses_begin_with_that_of_the_home_page():
    readme = WHOLE["tool"]["hatch"]["metadata"]["hooks"]["fancy-pypi-readme"]
    used = [*PROJECT["urls"].values(), *re.findall(r"https?://[^\s)\"]+", str(readme["substitutions"]))]
    assert len(used) > len(PROJECT["urls"])
    assert {address for address in used if not f"{address}/".startswith(f"{PROJECT['urls']['Homepage']}/")} == set()


def test_the_files_that_addresses_lead_to_are_in_the_tree():
    files = re.findall(r"/blob/main/(\S+)", " ".join(PROJECT["urls"].values()))
    assert len(files) == 2
    assert [file for file in files if not (TOP / file).is_file()] == []


def test_the_oldest_that_is_tested_is_the_oldest_that_is_allowed():
    allowed = [*PROJECT["dependencies"], *(wanted for extra in FOR_USERS for wanted in EXTRAS[extra])]
    tested = re.findall(r"^([\w-]+)==(\S+?)(?:\.0)*$", (TOP / "tests/oldest.txt").read_text(), re.MULTILINE)
    assert {f"{name}>={version}" for name, version in tested} == set(allowed)


def test_the_extra_all_has_every_extra_but_those_for_who_develops():
    assert {*FOR_USERS, "all", "bench", "examples", "slow", "tests"} == set(EXTRAS)


def test_every_python_that_is_named_is_one_that_make_tests():
    named = re.findall(r"Python :: (3\.\d+)", " ".join(PROJECT["classifiers"]))
    tested = re.search(r"^VERSIONS = (.*)$", (TOP / "Makefile").read_text(), re.MULTILINE)
    assert tested is not None
    assert f">={named[0]}" == PROJECT["requires-python"]
    assert named == tested[1].split()[: len(named)]


def test_the_version_is_written_once():
    written = (TOP / "zmqbroker/__init__.py").read_text().count(f'"{metadata.version("zmqbroker")}"')
    assert written == 1
