"""Stores of every kind for the tests: a local folder, memory, and an S3 that runs in this process."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from moto.server import ThreadedMotoServer

from prefect_happyhorse.engine.storage.store import Store


@pytest.fixture(scope="module")
def s3_endpoint() -> Iterator[str]:
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


StoreMaker = Callable[..., Store]


@pytest.fixture
def s3(request: pytest.FixtureRequest) -> StoreMaker:
    endpoint: str = request.getfixturevalue("s3_endpoint")
    options = {"key": "testing", "secret": "sesame", "endpoint_url": endpoint, "client_kwargs": {"region_name": "us-east-1"}}
    bucket = f"bucket-{os.urandom(6).hex()}"
    signed = {"Authorization": "AWS4-HMAC-SHA256 Credential=x/20261120/us-east-1/s3/aws4_request"}
    httpx.put(f"{endpoint}/{bucket}", headers=signed).raise_for_status()

    def make(**facts: Any) -> Store:
        return Store(f"s3://{bucket}/outputs", options=options, **facts)

    return make


@pytest.fixture(params=["local", "memory", "s3"])
def any_store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    if request.param == "local":
        return Store(str(tmp_path / "outputs"))
    if request.param == "memory":
        return Store(f"memory://{os.urandom(6).hex()}", scratch=str(tmp_path / "scratch"))
    return request.getfixturevalue("s3")(scratch=str(tmp_path / "scratch"))
