"""The compose file and the manifests for Kubernetes: they fit their schemas, and what they start works, probes too."""

import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from deployed_support import (
    BROKER,
    COMPOSE,
    KUBERNETES,
    PAGE,
    SCALED,
    WORKER,
    in_compose,
    in_kubernetes,
    manifests,
    option,
    pod_templates,
)
from examples_support import OPERATIONS, section
from helpers import PATIENCE

from zmqbroker.broker.broker import DEFAULT_DRAIN

pytestmark = [pytest.mark.slow, pytest.mark.once]

NEEDED = "is not installed: make test-slow does it"
VERSIONS = ["1.30", "1.32", "newest"]  # of Kubernetes
CAPTURED: dict[str, Any] = {"capture_output": True, "text": True, "timeout": 4 * PATIENCE, "check": False}
CLOSED = {"allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]}}


def of_kind(kind: str) -> list[dict[str, Any]]:
    return [found for found in manifests() if found["kind"] == kind]


def names(kind: str) -> list[str]:
    return [found["metadata"]["name"] for found in of_kind(kind)]


def test_the_compose_file_fits_the_schema_of_compose():
    pytest.importorskip("check_jsonschema", reason=f"check-jsonschema {NEEDED}")
    command = ("-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec", COMPOSE)
    ran = subprocess.run([sys.executable, *map(str, command)], **CAPTURED)
    assert ran.returncode == 0, ran.stdout + ran.stderr


@pytest.mark.parametrize("version", VERSIONS)
def test_each_manifest_fits_the_schema_of_kubernetes(version: str):
    validator = pytest.importorskip("kubernetes_validate", reason=f"kubernetes-validate {NEEDED}")
    taken = validator.latest_version() if version == "newest" else version
    checked = [found for found in manifests() if found["kind"] != "ScaledObject"]
    assert len(checked) > 6
    for found in checked:
        validator.validate(found, taken, strict=True)


def test_kustomize_takes_them_and_has_each_but_the_scaled_object():
    kubectl = shutil.which("kubectl")
    if kubectl is None:
        pytest.skip("there is no kubectl")
    ran = subprocess.run([kubectl, "kustomize", str(KUBERNETES)], **CAPTURED)
    assert ran.returncode == 0, ran.stderr
    expected = sorted(found["kind"] for found in manifests() if found["kind"] != "ScaledObject")
    assert sorted(re.findall(r"^kind: (\w+)", ran.stdout, re.MULTILINE)) == expected


def test_the_scaled_object_has_what_keda_requires_and_asks_for_metrics_that_there_are():
    (scaled,) = manifests(SCALED)
    assert (scaled["apiVersion"], scaled["kind"]) == ("keda.sh/v1alpha1", "ScaledObject")
    spec = scaled["spec"]
    assert spec["scaleTargetRef"]["name"] in names("Deployment")
    assert 0 <= spec["minReplicaCount"] < spec["maxReplicaCount"]
    assert spec["fallback"].keys() == {"failureThreshold", "replicas"}
    (trigger,) = spec["triggers"]
    assert trigger["type"] == "prometheus"
    metadata = trigger["metadata"]
    assert all(isinstance(value, str) for value in metadata.values())
    assert metadata["serverAddress"].startswith("http://")
    assert float(metadata["threshold"]) > 0
    told = {row[0].strip("`") for row in section(OPERATIONS, "In a browser, and in Prometheus").rows}
    asked = set(re.findall(r"zmqbroker_\w+", metadata["query"]))
    assert "zmqbroker_tasks" in asked <= told


def test_what_ends_gets_the_time_that_it_takes():
    for containers in (in_compose(), in_kubernetes()):
        assert containers[BROKER].longest_end > DEFAULT_DRAIN + 10
        assert containers[WORKER].longest_end > float(option(containers[BROKER].arguments, "-T"))


def test_no_pod_can_do_more_than_it_has_to():
    for template in pod_templates():
        spec = template["spec"]
        assert spec["automountServiceAccountToken"] is False
        assert spec["enableServiceLinks"] is False  # whose variables begin with ZMQBROKER_ too
        assert spec["securityContext"]["runAsNonRoot"] is True
        (container,) = spec["containers"]
        assert container["securityContext"] == CLOSED
        assert container["resources"].keys() == {"requests", "limits"}


def test_each_label_and_port_that_is_selected_is_that_of_a_pod():
    ports = {
        one["metadata"]["labels"]["app"]: {port["name"] for port in one["spec"]["containers"][0].get("ports", [])}
        for one in pod_templates()
    }
    for service in of_kind("Service"):
        assert {port["name"] for port in service["spec"]["ports"]} == ports[service["spec"]["selector"]["app"]]
    for policy in of_kind("NetworkPolicy"):
        here = ports[policy["spec"]["podSelector"]["matchLabels"]["app"]]
        assert {port["port"] for rule in policy["spec"].get("ingress", []) for port in rule["ports"]} == here


def test_only_who_has_to_reaches_a_port():
    reached = {
        port["port"]: [list(peer["podSelector"]["matchLabels"].values()) for peer in rule["from"]]
        for policy in of_kind("NetworkPolicy")
        for rule in policy["spec"].get("ingress", [])
        for port in rule["ports"]
    }
    assert all("Ingress" in policy["spec"]["policyTypes"] for policy in of_kind("NetworkPolicy"))
    assert reached == {
        "requests": [["true"]],  # of the label zmqbroker-client
        "ready": [["zmqbroker-worker"]],
        "results": [["zmqbroker-worker"]],
        "control": [["zmqbroker-page"]],
        "http": [["prometheus"]],
    }


def test_the_ports_of_the_image_are_those_of_both():
    containerfile = Path(KUBERNETES.parent, "Containerfile").read_text()
    exposed = re.findall(r"\d+", re.search(r"^EXPOSE (.*)$", containerfile, re.MULTILINE)[1])
    for containers in (in_compose(), in_kubernetes()):
        assert [address.rpartition(":")[2] for address in containers[BROKER].arguments[-3:]] == exposed
        assert containers[PAGE].arguments[0] == "web"
