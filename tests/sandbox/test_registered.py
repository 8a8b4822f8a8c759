"""A gateway that is registered while the sandbox runs is served like those of the package."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from prefect_happyhorse.catalog import loader, register

from .conftest import Caller, find_status, find_task_id, find_url

DATA = """
[gateway]
gateway = "nebula"
title = "Nebula"
dialect = "{dialect}"
source = "Its document"
dated = 2026-11-20
auth = "X-Nebula-Key: Key <key>"
submit_headers = {{ X-Nebula-Mode = "async" }}
cancel = "POST /new/jobs/{{task_id}}/cancel"
typical_s = {{ image = 1.0, video = 2.0 }}

[gateway.response]
result = ["result_url"]

[shapes.video]
submit = "POST /new/submit"
poll = "GET /new/jobs/{{task_id}}"
fields = [
    {{ to = "{model_key}", from = "model", required = true }},
    {{ to = "prompt", from = "prompt", required = true, max_chars = 10 }},
]

[[route]]
capability = "text_to_video"
model = "nebula-1"
title = "Nebula 1"
shape = "video"
source = "Video"
"""
HEADERS = {"X-Nebula-Key": "Key mine", "X-Nebula-Mode": "async"}


@pytest.fixture(params=["dashscope", "newapi", "chanjing"])
def body(request: pytest.FixtureRequest) -> Iterator[dict[str, Any]]:
    """A body for the gateway, which is registered for one test."""
    model_key = "model_code" if request.param == "chanjing" else "model"
    register(DATA.format(dialect=request.param, model_key=model_key))
    yield {model_key: "nebula-1", "prompt": "A horse"}
    del loader._TEXTS["nebula"]
    loader._LOADED.pop("nebula", None)


def test_a_registered_gateway_is_served(gateways: Caller, body: dict[str, Any]) -> None:
    """Its submit, poll and cancel paths, its key header and its limits are taken from its data, while the sandbox runs."""
    url, client = gateways.sandbox.base_url("nebula"), gateways.client
    submitted = client.post(f"{url}/new/submit", headers=HEADERS, json=body)
    assert submitted.status_code == 200
    task_id = find_task_id(submitted.json())
    polled = client.get(f"{url}/new/jobs/{task_id}", headers=HEADERS).json()
    assert find_status(polled).lower() in {"success", "succeeded", "completed"}
    address = find_url(polled)
    assert client.get(address).content[4:8] == b"ftyp"
    assert [(entry.gateway, entry.model, entry.downloads) for entry in gateways.sandbox.ledger()] == [("nebula", "nebula-1", 1)]


def test_a_registered_gateway_refuses_what_its_data_refuses(gateways: Caller, body: dict[str, Any]) -> None:
    """A wrong key header, a missing submit header and a value beyond its limits are refused, and cost nothing."""
    url, client = f"{gateways.sandbox.base_url('nebula')}/new/submit", gateways.client
    refused = [
        (client.post(url, headers={**HEADERS, "X-Nebula-Key": "Bearer mine"}, json=body), "the key is missing or not valid"),
        (client.post(url, headers={"X-Nebula-Key": "Key mine"}, json=body), "the header X-Nebula-Mode: async is required"),
        (client.post(url, headers=HEADERS, json={**body, "prompt": "A horse runs"}), "prompt: must have at most 10 characters (got 12)"),
    ]
    for answer, said in refused:
        assert said in json.dumps(answer.json())
    assert gateways.sandbox.ledger() == []


def test_an_unknown_gateway_is_not_found(gateways: Caller) -> None:
    """The answer names the gateways that there are."""
    answer = gateways.client.get(f"{gateways.sandbox.url}/nebula/new/jobs/x")
    assert (answer.status_code, "ttapi" in answer.text) == (404, True)
