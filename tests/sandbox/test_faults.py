"""Every fault, at every point where it can strike, as an HTTP client meets it."""

from __future__ import annotations

import json
import time
from concurrent.futures import ThreadPoolExecutor
from email.utils import parsedate_to_datetime
from typing import Any, get_args

import httpx
import pytest
from pydantic import ValidationError

from prefect_happyhorse.sandbox import FaultRule, SandboxServer
from prefect_happyhorse.sandbox.faults.rules import FaultKind

from .conftest import ONE_EACH, Caller, find_status, find_task_id, find_url, name_of, vector

UNIALL = vector("uniall")


def test_a_rule_for_the_wrong_point_is_refused() -> None:
    """A kind that means nothing at a point is refused, with the kinds that do."""
    with pytest.raises(ValidationError, match=r"'truncate' cannot strike at 'submit'; there .*drop_after"):
        FaultRule(at="submit", kind="truncate")


@pytest.mark.parametrize(
    ("kind", "uniall", "chanjing"),
    [
        ("refuse", (400, "invalid_request_error"), 40000),
        ("unauthorized", (401, "invalid_api_key"), 10400),
        ("quota", (403, "insufficient_user_quota"), 40000),
        ("throttle", (429, "rate_limit_exceeded"), 40001),
        ("moderation", (400, "content_policy_violation"), 40000),
        ("http", (503, "internal_error"), 50000),
        ("error_in_200", (200, "internal_error"), 50000),
    ],
)
def test_a_submit_refused_on_demand(gateways: Caller, kind: str, uniall: tuple[int, str], chanjing: int) -> None:
    """A refused submit has the provider's own shape and is not charged; the next one passes."""
    gateways.sandbox.fault(at="submit", kind=kind, gateway="uniall")
    gateways.sandbox.fault(at="submit", kind=kind, gateway="chanjing")
    answer = gateways.submit(UNIALL)
    assert (answer.status_code, answer.json()["error"]["code"]) == uniall
    assert gateways.submit(vector("chanjing")).json()["code"] == chanjing
    assert gateways.sandbox.ledger() == []
    assert gateways.submit(UNIALL).status_code == 200


def test_retry_after_as_seconds_and_as_date(gateways: Caller) -> None:
    """A throttled call says when to come again, in either of the two forms."""
    gateways.sandbox.fault(at="submit", kind="throttle", retry_after_s=7)
    gateways.sandbox.fault(at="submit", kind="http", status=502, retry_after_s=60, retry_after_as="date")
    assert gateways.submit(UNIALL).headers["retry-after"] == "7"
    answer = gateways.submit(UNIALL)
    assert answer.status_code == 502
    assert 50 < parsedate_to_datetime(answer.headers["retry-after"]).timestamp() - time.time() <= 60


def test_pages_in_place_of_json(gateways: Caller) -> None:
    """A proxy's error page and somebody's welcome page are HTML; neither is charged."""
    gateways.sandbox.fault(at="submit", kind="http", status=504, body="html")
    gateways.sandbox.fault(at="submit", kind="html")
    for status in (504, 200):
        answer = gateways.submit(UNIALL)
        assert (answer.status_code, answer.headers["content-type"]) == (status, "text/html; charset=utf-8")
    assert gateways.sandbox.ledger() == []


@pytest.mark.parametrize("kind", ["drop_before", "drop_after"])
@pytest.mark.parametrize("sent", ONE_EACH, ids=name_of)
def test_a_dropped_submit(gateways: Caller, sent: dict[str, Any], kind: str) -> None:
    """The connection closes without a byte; only after acceptance the job is charged, and it runs to its end."""
    gateways.sandbox.fault(at="submit", kind=kind)
    with pytest.raises(httpx.RemoteProtocolError, match="without sending a response"):
        gateways.submit(sent)
    assert [entry.state for entry in gateways.sandbox.ledger()] == (["succeeded"] if kind == "drop_after" else [])
    assert gateways.submit(sent).status_code == 200


@pytest.mark.parametrize("sent", ONE_EACH, ids=name_of)
def test_an_answer_without_task_id(gateways: Caller, sent: dict[str, Any]) -> None:
    """The job is charged but its id is nowhere in the answer."""
    gateways.sandbox.fault(at="submit", kind="no_task_id")
    answer = gateways.submit(sent)
    assert answer.status_code == 200
    (entry,) = gateways.sandbox.ledger()
    assert entry.task_id not in answer.text


def test_an_answer_cut_short(gateways: Caller) -> None:
    """The answer to an accepted submit is not valid JSON; by default it is charged, on demand it is not."""
    gateways.sandbox.fault(at="submit", kind="garbage")
    gateways.sandbox.fault(at="submit", kind="garbage", accept=False)
    for charged in (1, 1):
        answer = gateways.submit(UNIALL)
        with pytest.raises(json.JSONDecodeError):
            answer.json()
        assert len(gateways.sandbox.ledger()) == charged


def test_an_error_after_acceptance(gateways: Caller) -> None:
    """With accept the job is charged although the answer is an error."""
    gateways.sandbox.fault(at="submit", kind="http", status=500, accept=True)
    assert gateways.submit(UNIALL).status_code == 500
    assert len(gateways.sandbox.ledger()) == 1


def test_a_status_word_that_nobody_knows(gateways: Caller) -> None:
    """Submit and poll may answer with a word of the rule's choice."""
    gateways.sandbox.fault(at="submit", kind="unknown_status", word="DREAMING")
    gateways.sandbox.fault(at="poll", kind="unknown_status")
    answer = gateways.submit(UNIALL).json()
    assert answer["status"] == "DREAMING"
    path = f"/v1/videos/{answer['id']}"
    assert [gateways.poll("uniall", path).json()["status"] for _ in range(2)] == ["PAUSED_FOR_REVIEW", "completed"]


@pytest.mark.parametrize(("at", "kind"), [("submit", "fail_job"), ("poll", "fail_job"), ("poll", "moderation")])
@pytest.mark.parametrize("sent", ONE_EACH, ids=name_of)
def test_a_job_that_fails(gateways: Caller, sent: dict[str, Any], kind: str, at: str) -> None:
    """A failed job stays failed, says why in the provider's place, and its charge is taken back."""
    gateways.sandbox.fault(at=at, kind=kind, message="no horses here")
    task_id = find_task_id(gateways.submit(sent).json())
    for _ in range(2):
        polled = gateways.poll(sent["gateway"], gateways.poll_path(sent, task_id)).json()
        assert find_status(polled).lower() in {"failed", "failure", "error", "fail"}
        assert "no horses here" in json.dumps(polled)
    if sent["gateway"] in {"ttapi", "infiflow"}:
        assert polled["output"]["code"] == ("DataInspectionFailed" if kind == "moderation" else "InternalError")
    assert [(entry.state, entry.refunded) for entry in gateways.sandbox.ledger()] == [("failed", True)]


def test_a_status_that_goes_back(gateways: Caller) -> None:
    """After running has been reported once, queued is reported again."""
    gateways.sandbox.settings(job_s=100)
    gateways.sandbox.fault(at="poll", kind="backwards")
    task_id = gateways.submit(UNIALL).json()["id"]
    seen = [gateways.poll("uniall", f"/v1/videos/{task_id}").json()["status"]]
    gateways.sandbox.advance(50)
    seen += [gateways.poll("uniall", f"/v1/videos/{task_id}").json()["status"] for _ in range(3)]
    assert seen == ["queued", "in_progress", "queued", "in_progress"]


def test_a_task_that_vanishes_for_a_while(gateways: Caller) -> None:
    """The job is not found twice, then it is there again."""
    gateways.sandbox.fault(at="poll", kind="vanish", times=2)
    task_id = gateways.submit(vector("infiflow")).json()["output"]["task_id"]
    seen = [gateways.poll("infiflow", f"/dashscope/api/v1/tasks/{task_id}").json()["output"]["task_status"] for _ in range(3)]
    assert seen == ["UNKNOWN", "UNKNOWN", "SUCCEEDED"]


@pytest.mark.parametrize("sent", ONE_EACH, ids=name_of)
def test_a_success_without_result(gateways: Caller, sent: dict[str, Any]) -> None:
    """A finished job's answer lacks the address, once."""
    gateways.sandbox.fault(at="poll", kind="empty_result")
    task_id = find_task_id(gateways.submit(sent).json())
    path = gateways.poll_path(sent, task_id)
    first, second = gateways.poll(sent["gateway"], path), gateways.poll(sent["gateway"], path)
    assert "/files/" not in first.text
    assert find_url(second.json()).startswith(gateways.sandbox.url + "/files/")


@pytest.mark.parametrize(
    "kind", ["unauthorized", "throttle", "http", "html", "error_in_200", "garbage", "drop_before", "drop_after", "refuse", "quota"]
)
def test_a_poll_that_goes_wrong_once(gateways: Caller, kind: str) -> None:
    """A poll is disturbed, and the next one finds the job as it is."""
    gateways.sandbox.fault(at="poll", kind=kind)
    task_id = gateways.submit(UNIALL).json()["id"]
    try:
        disturbed = gateways.poll("uniall", f"/v1/videos/{task_id}")
    except httpx.RemoteProtocolError:
        assert kind.startswith("drop")
    else:
        assert '"completed"' not in disturbed.text or kind == "garbage"
    assert gateways.poll("uniall", f"/v1/videos/{task_id}").json()["status"] == "completed"


@pytest.mark.parametrize(
    ("at", "kind"), [("submit", "stall_before"), ("submit", "stall_after"), ("poll", "stall_before"), ("token", "stall_before")]
)
def test_a_stall_ends_when_its_time_is_up(gateways: Caller, at: str, kind: str) -> None:
    """A stalled call is answered as if nothing had been, after its time."""
    gateways.sandbox.fault(at=at, kind=kind, seconds=0.2)
    began = time.monotonic()
    if at == "token":
        body = {"app_id": "a", "secret_key": "s"}
        assert gateways.client.post(gateways.sandbox.base_url("chanjing") + "/open/v1/access_token", json=body).json()["code"] == 0
    else:
        task_id = gateways.submit(UNIALL).json()["id"]
        assert gateways.poll("uniall", f"/v1/videos/{task_id}").json()["status"] == "completed"
    assert time.monotonic() - began >= 0.2


@pytest.mark.parametrize(("kind", "charged"), [("stall_before", 0), ("stall_after", 1)])
def test_a_client_that_hangs_up_during_a_stall(gateways: Caller, kind: str, charged: int) -> None:
    """Whoever gives up before acceptance is not charged, whoever gives up after it is."""
    gateways.sandbox.fault(at="submit", kind=kind, seconds=60)
    impatient = Caller(gateways.sandbox, httpx.Client(timeout=0.2))
    with impatient.client, pytest.raises(httpx.ReadTimeout):
        impatient.submit(UNIALL)
    before = len(gateways.sandbox.ledger())
    gateways.sandbox.release()
    gateways.poll("uniall", "/v1/videos/none")
    assert (before, len(gateways.sandbox.ledger())) == (charged, charged)


@pytest.mark.parametrize(("kind", "code"), [("refuse", 40000), ("unauthorized", 10400), ("throttle", 40001), ("error_in_200", 50000)])
def test_a_token_refused_on_demand(gateways: Caller, kind: str, code: int) -> None:
    """A token request is refused in the envelope."""
    gateways.sandbox.fault(at="token", kind=kind)
    answer = gateways.client.post(gateways.sandbox.base_url("chanjing") + "/open/v1/access_token", json={"app_id": "a", "secret_key": "s"})
    assert answer.json()["code"] == code


@pytest.mark.parametrize("kind", ["drop_before", "drop_after"])
def test_a_token_lost_on_the_way(gateways: Caller, kind: str) -> None:
    """After acceptance the old token is dead although the new one never arrived."""
    url, body = gateways.sandbox.base_url("chanjing") + "/open/v1/access_token", {"app_id": "a", "secret_key": "s"}
    token = gateways.client.post(url, json=body).json()["data"]["access_token"]
    gateways.sandbox.fault(at="token", kind=kind)
    with pytest.raises(httpx.RemoteProtocolError):
        gateways.client.post(url, json=body)
    assert gateways.submit(vector("chanjing"), key=token).json()["code"] == (10400 if kind == "drop_after" else 0)


def test_faults_on_a_page_of_tasks(gateways: Caller) -> None:
    """Chanjing's page loses a vanished task, fails a moderated one, and is refused as a whole when throttled."""
    ids = [gateways.submit(vector("chanjing")).json()["data"] for _ in range(3)]
    gateways.sandbox.fault(at="poll", kind="vanish")
    gateways.sandbox.fault(at="poll", kind="moderation")
    url = gateways.sandbox.base_url("chanjing") + "/open/v1/ai_creation/task/page"
    tasks = gateways.client.post(url, headers=gateways.headers("chanjing"), json={"unique_ids": ids}).json()["data"]["list"]
    assert [task["unique_id"] for task in tasks] == ids[1:]
    assert [task["progress_desc"] in {"Error", "Fail"} for task in tasks] == [True, False]
    gateways.sandbox.fault(at="poll", kind="throttle")
    assert gateways.client.post(url, headers=gateways.headers("chanjing"), json={"unique_ids": ids}).json()["code"] == 40001


def test_rules_choose_their_calls(gateways: Caller) -> None:
    """Gateway, model, after and times say which calls are struck; the injector counts them."""
    gateways.sandbox.fault(at="submit", kind="refuse", gateway="uniall", model="happy-horse-720p", after=1, times=2)
    other = vector("uniall", model="happy-horse-1080p")
    assert gateways.submit(other).status_code == 200
    assert gateways.submit(vector("infiflow")).status_code == 200
    assert [gateways.submit(UNIALL).status_code for _ in range(5)] == [200, 400, 400, 200, 200]
    (rule,) = gateways.sandbox.faults()
    assert (rule["matched"], rule["struck"]) == (3, 2)
    gateways.sandbox.fault(at="submit", kind="refuse", times=None)
    assert [gateways.submit(UNIALL).status_code for _ in range(3)] == [400, 400, 400]
    gateways.sandbox.clear_faults()
    assert gateways.submit(UNIALL).status_code == 200


def test_a_rule_with_a_probability(gateways: Caller) -> None:
    """About as many calls are struck as the probability says, and with a seed always the same ones."""
    gateways.sandbox.fault(at="submit", kind="refuse", times=None, probability=0.5)
    refused = sum(gateways.submit(UNIALL).status_code == 400 for _ in range(60))
    assert 15 <= refused <= 45


def test_every_kind_can_strike_somewhere(gateways: Caller) -> None:
    """Each kind is allowed at one point at least, and adding it is answered with its number."""
    for kind in get_args(FaultKind):
        taken = 0
        for at in ("submit", "poll", "download", "token"):
            taken += gateways.client.post(f"{gateways.sandbox.url}/_sandbox/faults", json={"at": at, "kind": kind}).status_code == 201
        assert taken >= 1, kind


def test_stalls_end_with_the_sandbox() -> None:
    """A sandbox that stops answers what is stalled in it, in place of cutting it off."""
    with SandboxServer() as server, ThreadPoolExecutor() as threads, httpx.Client(timeout=30) as client:
        server.fault(at="submit", kind="stall_after", seconds=300)
        answer = threads.submit(Caller(server, client).submit, vector("uniall", "text_to_video"))
        while not server.ledger():
            time.sleep(0.01)
        server.stop()
        assert answer.result().json()["status"] == "queued"
