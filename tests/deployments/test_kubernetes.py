"""The Kubernetes manifests refer to each other, and let nobody do more than he has to."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from .test_declarations import FOLDER, read

OBJECTS = [one for file in sorted((FOLDER / "kubernetes").glob("*.yaml")) for one in yaml.safe_load_all(file.read_text(encoding="utf-8"))]
JOB = json.loads((FOLDER / "kubernetes-job.json").read_text(encoding="utf-8"))
JOB_SPEC = JOB["job_configuration"]["job_manifest"]["spec"]


def of_kind(kind: str) -> dict[str, dict[str, Any]]:
    return {one["metadata"]["name"]: one for one in OBJECTS if one["kind"] == kind}


PODS = {name: one["spec"]["template"]["spec"] for name, one in of_kind("Deployment").items()} | {"job": JOB_SPEC["template"]["spec"]}


def test_the_namespace_is_made_before_what_lies_in_it() -> None:
    """`kubectl apply -f deployments/kubernetes/` goes by the names of the files, and refuses what has no namespace yet."""
    assert OBJECTS[0]["kind"] == "Namespace"
    assert {one["metadata"].get("namespace") for one in OBJECTS[1:]} == {OBJECTS[0]["metadata"]["name"]}
    assert {file.suffix for file in (FOLDER / "kubernetes").iterdir()} == {".yaml"}


def test_what_one_refers_to_is_there() -> None:
    """Accounts, roles, labels and ports have the same name on both sides, and workers poll the pool that is deployed to."""
    accounts = of_kind("ServiceAccount")
    deployed = {one["work_pool"]["job_variables"]["service_account_name"] for one in read("kubernetes.yaml")["deployments"]}
    # The server needs no account, and a job's is among its variables.
    assert {PODS["happyhorse-worker"]["serviceAccountName"]} | deployed == set(accounts)
    for binding in of_kind("RoleBinding").values():
        assert binding["roleRef"]["name"] in of_kind("Role")
        assert {subject["name"] for subject in binding["subjects"]} <= set(accounts)
    for one in of_kind("Deployment").values():
        labels = one["spec"]["template"]["metadata"]["labels"]
        assert one["spec"]["selector"]["matchLabels"].items() <= labels.items()
    (service,) = of_kind("Service").values()
    server = of_kind("Deployment")["prefect-server"]
    assert service["spec"]["selector"].items() <= server["spec"]["template"]["metadata"]["labels"].items()
    (worker,) = PODS["happyhorse-worker"]["containers"]
    assert {one["work_pool"]["name"] for one in read("kubernetes.yaml")["deployments"]} <= set(worker["command"])
    said = {one["name"]: one.get("value") for one in worker["env"]}
    assert said["PREFECT_API_URL"] == f"http://{service['metadata']['name']}.happyhorse.svc:{service['spec']['ports'][0]['port']}/api"
    assert said["PREFECT_INTEGRATIONS_KUBERNETES_OBSERVER_NAMESPACES"] == "happyhorse"


@pytest.mark.parametrize("name", PODS)
def test_no_pod_runs_as_the_superuser_or_may_become_it(name: str) -> None:
    """A user id of no rights, no capability, no way to more, and no token where none is needed."""
    pod = PODS[name]
    assert pod["securityContext"] == {"runAsNonRoot": True, "runAsUser": 10001, "seccompProfile": {"type": "RuntimeDefault"}}
    for container in pod["containers"]:
        assert container["securityContext"] == {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
    assert pod.get("automountServiceAccountToken", True) is (name == "happyhorse-worker")


def test_secrets_are_referred_to_and_never_written() -> None:
    """What opens a database, a gateway or a store comes from a Secret of the cluster."""
    (server,) = PODS["prefect-server"]["containers"]
    address = next(one for one in server["env"] if one["name"] == "PREFECT_API_DATABASE_CONNECTION_URL")
    assert set(address) == {"name", "valueFrom"}
    assert set(address["valueFrom"]) == {"secretKeyRef"}
    (run,) = PODS["job"]["containers"]
    assert run["envFrom"] == [{"secretRef": {"name": "happyhorse", "optional": True}}]
    assert "Secret" not in {one["kind"] for one in OBJECTS}


def _words(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, (dict, list)):
        for one in value.values() if isinstance(value, dict) else value:
            yield from _words(one)


def test_the_job_template_asks_for_no_variable_that_it_does_not_define() -> None:
    """And defines none that has no effect."""
    asked = {name for word in _words(JOB["job_configuration"]) for name in re.findall(r"{{ (\w+) }}", word)}
    assert asked == set(JOB["variables"]["properties"])
    assert JOB_SPEC["template"]["spec"]["terminationGracePeriodSeconds"] == 90
