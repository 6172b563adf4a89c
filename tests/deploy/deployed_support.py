"""What deploy/ says for containers, as the tests need it: what each one starts, as whom, and with which probes."""

import re
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from helpers import TOP

yaml = pytest.importorskip("yaml", reason="PyYAML is not installed: make test-slow does it")

COMPOSE = TOP / "deploy" / "compose.yaml"
KUBERNETES = TOP / "deploy" / "kubernetes"
SCALED = "scaled-object.yaml"
BROKER, WORKER, PAGE = "broker", "worker", "page"


class Container(NamedTuple):
    """What is started as a container."""

    arguments: list[str]
    environment: dict[str, str]
    probes: list[list[str]]  # commands
    mounts: dict[
        str, str
    ]  # what is there, by where: a Secret or ConfigMap, or the name of a file; empty: a new directory
    longest_end: float  # seconds


def manifests(name: str = "*.yaml") -> list[dict[str, Any]]:
    """Return the objects for Kubernetes in files of that name."""
    paths = sorted(path for path in KUBERNETES.glob(name) if path.name != "kustomization.yaml")
    return [found for path in paths for found in yaml.safe_load_all(path.read_text())]


def pod_templates() -> list[dict[str, Any]]:
    """Return the pods for which there are templates."""
    return [found["spec"]["template"] for found in manifests() if "template" in found.get("spec", {})]


def compose() -> dict[str, Any]:
    """Return all that the compose file has."""
    return dict(yaml.safe_load(COMPOSE.read_text()))


def in_compose() -> dict[str, Container]:
    """Return the containers of ours that the compose file has, by their names."""
    services = compose()["services"]
    return {name: _service(services[name]) for name in (BROKER, WORKER, PAGE)}


def in_kubernetes() -> dict[str, Container]:
    """Return the containers that the manifests have, by their names."""
    found = [_pod(template["spec"]) for template in pod_templates()]
    return dict(found)


def _service(service: dict[str, Any]) -> Container:
    words = service.get("healthcheck", {}).get("test", ["NONE"])
    probe = {"CMD-SHELL": ["sh", "-c", *words[1:]], "CMD": words[1:]}.get(words[0])
    mounts = {f"/run/secrets/{name}": name for name in service.get("secrets", [])}
    mounts |= {f"/{name}": name for name in service.get("configs", [])}
    mounts |= {volume.split(":")[1]: "" for volume in service.get("volumes", [])}
    probes = [[word.replace("$$", "$") for word in probe]] if probe else []
    longest = re.match(r"(\d+)s", service.get("stop_grace_period", "10s"))
    assert longest is not None
    return Container(service["command"], service["environment"], probes, mounts, float(longest[1]))


def _pod(spec: dict[str, Any]) -> tuple[str, Container]:
    (container,) = spec["containers"]
    environment = {one["name"]: one.get("value", "") for one in container["env"]}
    commands = (
        probe["exec"]["command"] for name, probe in container.items() if name.endswith("Probe") and "exec" in probe
    )
    probes = [list(each) for each in dict.fromkeys(map(tuple, commands))]  # several may be the same
    volumes = {one["name"]: one for one in spec["volumes"]}
    mounts = {one["mountPath"]: _source(volumes.get(one["name"], {})) for one in container["volumeMounts"]}
    ends = float(spec.get("terminationGracePeriodSeconds", 30))
    return container["name"], Container(container["args"], environment, probes, mounts, ends)


def _source(volume: dict[str, Any]) -> str:
    return str(volume.get("secret", {}).get("secretName") or volume.get("configMap", {}).get("name") or "")


def placed(text: str, mounts: dict[str, str], sources: Path, own: Path) -> str:
    """Return a text with what is mounted in its place here: among the sources, or in a directory of one's own."""
    if not mounts:
        return text
    pattern = "|".join(map(re.escape, sorted(mounts, key=len, reverse=True)))

    def here(found: re.Match[str]) -> str:
        source = mounts[found[0]]
        return str(sources / source if source else own)

    return re.sub(rf"(?<![\w/.])(?:{pattern})(?![\w.])", here, text)


def option(arguments: list[str], name: str) -> str:
    """Return what follows an option."""
    return arguments[arguments.index(name) + 1]
