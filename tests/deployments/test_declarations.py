"""What `deployments/` declares holds together: every flow, every parameter, every file that it names, and no secret."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import prefect.server.api
import pytest
import yaml
from prefect.cli.deploy._models import PrefectYamlModel
from prefect.flows import load_flow_from_entrypoint

from prefect_happyhorse import __version__

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "deployments"
POOLS = {"prefect.yaml": "happyhorse", "docker.yaml": "happyhorse-docker", "kubernetes.yaml": "happyhorse-kubernetes"}


def read(name: str) -> dict[str, Any]:
    return yaml.safe_load((FOLDER / name).read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", POOLS)
def test_every_flow_is_deployed_to_every_kind_of_pool(name: str) -> None:
    """Prefect's own model reads the file; each entry names its pool and only parameters that its flow has."""
    model = PrefectYamlModel.model_validate(read(name))
    deployed = {str(one.entrypoint).partition(":")[0] for one in model.deployments}
    assert deployed == {f"flows/{file.name}" for file in (ROOT / "flows").glob("*.py")}
    for one in read(name)["deployments"]:
        assert one["work_pool"]["name"] == POOLS[name]
        assert one["enforce_parameter_schema"]
        flow = load_flow_from_entrypoint(str(ROOT / one["entrypoint"]))
        flow.validate_parameters(one.get("parameters", {}) | ({"manifest": "m"} if "batch" in one["entrypoint"] else {}))
        if manifest := one.get("parameters", {}).get("manifest"):
            assert (ROOT / manifest).is_file()


def test_every_job_variable_is_one_that_its_worker_knows() -> None:
    """An unknown one would be dropped without a word. Prefect ships what its Docker worker knows, we what our Kubernetes jobs do."""
    shipped = Path(prefect.server.api.__file__).parent / "collections_data/views/aggregate-worker-metadata.json"
    docker = json.loads(shipped.read_text(encoding="utf-8"))["prefect-docker"]["docker"]["default_base_job_configuration"]
    kubernetes = json.loads((FOLDER / "kubernetes-job.json").read_text(encoding="utf-8"))
    for name, template in {"docker.yaml": docker, "kubernetes.yaml": kubernetes}.items():
        known = set(template["variables"]["properties"])
        for one in read(name)["deployments"]:
            assert "image" in one["work_pool"]["job_variables"]
            assert set(one["work_pool"]["job_variables"]) - known == set()


@pytest.mark.parametrize("name", POOLS)
def test_what_spends_money_by_itself_is_switched_off(name: str) -> None:
    """The batch's schedule waits for a person; collecting, which buys nothing, runs."""
    scheduled = [one for one in read(name)["deployments"] if "schedules" in one]
    active = {one["entrypoint"].rpartition(":")[2]: [schedule["active"] for schedule in one["schedules"]] for one in scheduled}
    assert active == {"batch": [False], "collect": [True]}


def test_the_three_differ_only_by_their_pool() -> None:
    """A flow that is added to one is added to all, with the same limits and schedules."""

    def plain(name: str) -> list[dict[str, Any]]:
        return [{key: one.get(key) for key in ("entrypoint", "concurrency_limit", "schedules")} for one in read(name)["deployments"]]

    assert plain("prefect.yaml") == plain("docker.yaml") == plain("kubernetes.yaml")


def test_the_image_holds_what_the_deployments_need() -> None:
    """Every file that the Dockerfile copies is there and let through, and its lock is the one with the pools' packages."""
    dockerfile = (FOLDER / "Dockerfile").read_text(encoding="utf-8")
    let_through = {line[1:] for line in (FOLDER / "Dockerfile.dockerignore").read_text().splitlines() if line.startswith("!")}
    for line in re.findall(r"^COPY (.+) \S+$", dockerfile, re.MULTILINE):
        for path in line.split():
            assert (ROOT / path).exists(), path
            assert path in let_through, path
    lock = (FOLDER / "requirements.lock").read_text(encoding="utf-8")
    for package in ("prefect", "prefect-docker", "prefect-kubernetes", "prefect-redis", "s3fs", "pillow", "av", "hatchling"):
        assert re.search(rf"^{package}==", lock, re.MULTILINE), package
    prefect = re.search(r"^prefect==(\S+)", (ROOT / "requirements.lock").read_text(encoding="utf-8"), re.MULTILINE)
    assert prefect is not None
    assert f"prefect=={prefect[1]} " in lock


def test_the_services_know_each_other() -> None:
    """Whatever a service waits for or calls by name is a service, and images are pinned."""
    compose = read("compose.yaml")
    services = compose["services"]
    for name, service in services.items():
        assert set(service.get("depends_on", ())) <= set(services), name
        assert not service["image"].endswith(":latest")
        assert ":" in service["image"]
        for value in service.get("environment", {}).values():
            for host in re.findall(r"//(?:\w+:\w+@)?([a-z]+):\d+", value):
                assert host in {*services, "localhost"}, value
    assert services["worker"]["deploy"]["replicas"] == 2
    assert {"postgres", "redis", "minio", "server", "sandbox"} <= set(services)


def test_one_image_of_one_version_is_used_everywhere() -> None:
    """The version is the package's own, and the base image's is said to its last digit."""
    texts = {file: file.read_text(encoding="utf-8") for file in FOLDER.rglob("*.yaml")}
    used = {tag for text in texts.values() for tag in re.findall(r"image: happyhorse:(\S+)", text)}
    assert used == {__version__}
    assert {step["tag"] for name in ("docker.yaml", "kubernetes.yaml") for step in read(name)["build"][0].values()} == {__version__}
    dockerfile = (FOLDER / "Dockerfile").read_text(encoding="utf-8")
    (base,) = re.findall(r"^FROM (.+)$", dockerfile, re.MULTILINE)
    assert re.fullmatch(r"python:3\.12\.\d+-slim-\w+", base)
    assert re.findall(r"^USER (.+)$", dockerfile, re.MULTILINE) == ["10001"]
    assert dockerfile.index("USER 10001") > dockerfile.rindex("RUN ")


def test_nothing_here_holds_a_secret() -> None:
    """No key, and no password but those of the services that compose keeps on this machine."""
    for file in FOLDER.rglob("*"):
        if file.is_file() and file.name not in {"compose.yaml", "requirements.lock"}:
            assert not re.search(r"(?i)(api_key|password|secret_key|token)\s*[:=]\s*[\"']?\w{6}", file.read_text(encoding="utf-8")), file
    exposed = re.findall(r'^\s+- "([^"]*):\d+"', (FOLDER / "compose.yaml").read_text(encoding="utf-8"), re.MULTILINE)
    assert exposed
    assert all(port.startswith("127.0.0.1:") for port in exposed)
