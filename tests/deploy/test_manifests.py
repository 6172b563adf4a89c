"""The compose file and the manifests for Kubernetes: they fit their schemas, and hand out no more than they have to."""

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
    compose,
    in_compose,
    in_kubernetes,
    manifests,
    option,
    pod_templates,
    yaml,
)
from examples_support import OPERATIONS, section
from helpers import PATIENCE, TOP

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


def test_compose_publishes_the_ports_of_what_it_starts_and_on_this_machine_alone():
    services = compose()["services"]
    published = {name: service["ports"] for name, service in services.items() if "ports" in service}
    assert published == {
        "broker": ["127.0.0.1:4161-4163:4161-4163"],
        "page": ["127.0.0.1:8161:8161"],
        "prometheus": ["127.0.0.1:9090:9090"],
    }
    assert [name for name, service in services.items() if "profiles" in service] == ["prometheus"]


def test_the_prometheus_of_compose_asks_the_page_by_its_name_there():
    taken = TOP / "deploy" / compose()["configs"]["prometheus.yml"]["file"]
    (job,) = yaml.safe_load(taken.read_text())["scrape_configs"]
    (target,) = job["static_configs"][0]["targets"]
    name, _, port = target.partition(":")
    assert in_compose()[name].arguments[:3] == ["web", "--listen", f"0.0.0.0:{port}"]


def test_a_token_that_is_made_as_documented_is_read_by_nobody_else(tmp_path: Path):
    (tmp_path / "deploy").mkdir()
    (line,) = (line for line in section(OPERATIONS, "With compose").block("").splitlines() if "deploy/.env" in line)
    subprocess.run(["sh", "-c", f"umask 022; {line}"], cwd=tmp_path, check=True, timeout=PATIENCE)
    made = tmp_path / "deploy" / ".env"
    assert made.stat().st_mode & 0o077 == 0
    assert re.fullmatch(r"ZMQBROKER_WEB_TOKEN=[0-9a-f]{64}\n", made.read_text())


@pytest.mark.parametrize(
    "secret",
    ["deploy/.env", "deploy/identities/authorized", "web.token", "deploy/prometheus/zmqbroker.token", "a.secret"],
)
def test_git_leaves_out_what_is_secret(secret: str):
    ran = subprocess.run(["git", "check-ignore", "--quiet", "--no-index", secret], **CAPTURED | {"cwd": TOP})
    if ran.returncode not in (0, 1):
        pytest.skip(f"this is no clone: {ran.stderr.strip()}")
    assert ran.returncode == 0


def test_an_engine_is_given_what_the_image_is_made_of_and_no_more():
    containerfile = (TOP / "deploy" / "Containerfile").read_text()
    copied = re.findall(r"^COPY (?!--from)(.*) \S+$", containerfile, re.MULTILINE)
    first, *rules = [line for line in (TOP / ".dockerignore").read_text().splitlines() if line[0] != "#"]
    assert first == "*"
    assert sorted(rule[1:] for rule in rules if rule[0] == "!") == sorted(" ".join(copied).split())


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
