"""Whatever a server answers becomes a value or a GenerationError, and never a reason to buy twice."""

from __future__ import annotations

import copy
import json
import pickle
from collections.abc import Callable
from functools import partial
from typing import Any

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prefect_happyhorse.catalog import GATEWAYS, Route, gateway_facts, routes
from prefect_happyhorse.domain.errors import GenerationError
from prefect_happyhorse.domain.jobs import JobSnapshot, JobStatus, Submission
from prefect_happyhorse.gateways import Account, CallError, Gateway, get_gateway, poll_error, submit_error

from .dialect import REFUSING, TASK_ID, URL

every_gateway = pytest.mark.parametrize("gateway", GATEWAYS)
quick = settings(deadline=None, max_examples=120)

NAMES = [
    "access_token",
    "b64_json",
    "code",
    "data",
    "err_msg",
    "error",
    "expire_in",
    "fail_reason",
    "id",
    "media_url",
    "message",
    "metadata",
    "msg",
    "output",
    "output_url",
    "outputs",
    "progress",
    "progress_desc",
    "request_id",
    "result",
    "result_url",
    "results",
    "status",
    "task_id",
    "task_status",
    "trace_id",
    "type",
    "url",
    "usage",
    "video_url",
]
WORDS = [
    "SUCCEEDED",
    "success",
    "Success",
    "completed",
    "FAILED",
    "failed",
    "Fail",
    "PENDING",
    "queued",
    "UNKNOWN",
    "RUNNING",
    "Generating",
    "Throttling",
    "InvalidApiKey",
    "task_not_exist",
]
# Every character, halves of surrogate pairs too: JSON can write them.
texts = st.text(st.characters(exclude_categories=()), max_size=12)
leaves = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    texts,
    st.sampled_from([*WORDS, TASK_ID, URL, "", "30%", "data:image/png;base64,AAAA", 0, 200, 400, 10400, 40001, 50000, 10**400]),
)
values = st.recursive(
    leaves,
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(st.one_of(st.sampled_from(NAMES), texts), inner, max_size=5)),
    max_leaves=20,
)
objects = st.dictionaries(st.sampled_from(NAMES), values, max_size=6)
statuses = st.one_of(st.sampled_from([200, 200, 200, 201, 302, 400, 401, 404, 409, 429, 500, 503]), st.integers(100, 599))
headers = st.dictionaries(
    st.sampled_from(["retry-after", "date", "x-request-id", "content-type", "location"]),
    st.binary(max_size=20).filter(lambda b: b"\n" not in b),
)

GOOD: dict[str, list[dict[str, Any]]] = {
    "dashscope": [
        {"output": {"task_status": "PENDING", "task_id": TASK_ID}, "request_id": "r"},
        {
            "output": {"task_status": "SUCCEEDED", "task_id": TASK_ID, "video_url": URL, "results": [{"url": URL}]},
            "usage": {"duration": 5.5},
        },
        {"output": {"task_status": "FAILED", "code": "c", "message": "m"}, "request_id": "r"},
        {"code": "InvalidApiKey", "message": "m", "request_id": "r"},
        {"status": 429, "message": "m", "jobId": "", "data": None},
    ],
    "chanjing": [
        {"trace_id": "t", "code": 0, "msg": "success", "data": TASK_ID},
        {"trace_id": "t", "code": 0, "msg": "success", "data": {"progress_desc": "Success", "err_msg": "", "output_url": [URL]}},
        {"trace_id": "t", "code": 40001, "msg": "m", "data": None},
    ],
    "new-api": [
        {"id": TASK_ID, "task_id": TASK_ID, "status": "queued", "progress": 0, "created_at": 1},
        {
            "id": TASK_ID,
            "status": "completed",
            "progress": "100%",
            "video_url": URL,
            "result": {"outputs": [{"url": URL}], "video_url": URL},
        },
        {"code": "success", "message": "", "data": {"status": "SUCCESS", "data": {"data": [{"url": URL}, {"b64_json": "AAAA"}]}}},
        {
            "output": {"task_id": TASK_ID, "task_status": "SUCCEEDED", "media_url": URL, "fail_reason": ""},
            "metadata": {"url": URL},
            "results": [{"url": URL}],
        },
        {"error": {"message": "m", "type": "new_api_error", "code": "insufficient_user_quota"}},
    ],
}
FAMILY = {gateway: "new-api" if (dialect := gateway_facts(gateway).dialect) == "newapi" else dialect for gateway in GATEWAYS}


def places(value: object, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The path of everything inside a JSON value."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(found for name, entry in inner for found in places(entry, (*path, name)))]


def put(body: dict[str, Any], path: tuple[Any, ...], value: object) -> object:
    """The body with one place replaced, or with the place gone where the value is `...`."""
    if not path:
        return body if value is ... else value
    changed = copy.deepcopy(body)
    target: Any = changed
    for step in path[:-1]:
        target = target[step]
    if value is ...:
        del target[path[-1]]
    else:
        target[path[-1]] = value
    return changed


def outcome(read: Callable[[], Any], meaning: Callable[[CallError], GenerationError]) -> Any:
    """What was read, or the error that it stands for."""
    try:
        return read()
    except CallError as error:
        return meaning(error)


def judge(gateway: Gateway, answer: httpx.Response, route: Route) -> None:
    """Read an answer in every way, and hold what comes of it to the promises."""
    submission = outcome(lambda: gateway.read_submit(answer, route), partial(submit_error, gateway=gateway.facts.gateway))
    if isinstance(submission, GenerationError):
        documented = submission.code is not None and submission.code in gateway.facts.codes
        turned_away = documented or answer.status_code in REFUSING
        assert submission.money == "may be spent" or (submission.money == "not spent" and turned_away)
        survives(submission, answer, gateway)
    else:
        assert isinstance(submission, Submission)
        assert answer.is_success
        assert submission.task_id
        assert Submission.model_validate_json(submission.model_dump_json()) == submission
    state = outcome(lambda: gateway.read_poll(answer, route), partial(poll_error, gateway=gateway.facts.gateway))
    if isinstance(state, GenerationError):
        assert state.money == "spent"
        survives(state, answer, gateway)
    else:
        assert isinstance(state, JobSnapshot)
        assert answer.is_success
        assert bool(state.outputs) == (state.status is JobStatus.SUCCEEDED)
        assert JobSnapshot.model_validate_json(state.model_dump_json()).status is state.status
    request_id = outcome(lambda: gateway.read_cancel(answer), partial(poll_error, gateway=gateway.facts.gateway))
    if isinstance(request_id, GenerationError):
        survives(request_id, answer, gateway)
    else:
        assert answer.is_success
        assert request_id is None or (isinstance(request_id, str) and request_id)


def survives(error: GenerationError, answer: httpx.Response, gateway: Gateway) -> None:
    assert (error.gateway, error.status_code) == (gateway.facts.gateway, answer.status_code)
    assert str(pickle.loads(pickle.dumps(error))) == str(error)  # noqa: S301 -- our own bytes
    str(error).encode()


@every_gateway
@given(st.data())
@quick
def test_any_json_is_read(gateway: str, data: st.DataObject) -> None:
    """Every value, under every status, with any headers."""
    body = data.draw(st.one_of(objects, objects, values))
    answer = httpx.Response(data.draw(statuses), content=json.dumps(body).encode(), headers=data.draw(headers))
    judge(get_gateway(gateway), answer, data.draw(st.sampled_from(routes(gateway))))


@every_gateway
@given(st.data())
@quick
def test_any_change_of_a_good_answer_is_read(gateway: str, data: st.DataObject) -> None:
    """A real answer, with one or two places gone or filled with something else."""
    body: Any = data.draw(st.sampled_from(GOOD[FAMILY[gateway]]))
    for _ in range(data.draw(st.integers(1, 2))):
        if isinstance(body, dict):
            body = put(body, data.draw(st.sampled_from(places(body))), data.draw(st.one_of(st.just(...), leaves, values)))
    answer = httpx.Response(data.draw(statuses), content=json.dumps(body).encode())
    judge(get_gateway(gateway), answer, data.draw(st.sampled_from(routes(gateway))))


@every_gateway
@given(st.data())
@quick
def test_any_bytes_are_read(gateway: str, data: st.DataObject) -> None:
    """Also a good answer that is cut somewhere, or has other bytes put into it."""
    whole = json.dumps(data.draw(st.sampled_from(GOOD[FAMILY[gateway]]))).encode()
    cut = data.draw(st.integers(0, len(whole)))
    content = data.draw(
        st.sampled_from([whole[:cut], whole[:cut] + data.draw(st.binary(max_size=9)) + whole[cut:], data.draw(st.binary(max_size=60))])
    )
    judge(get_gateway(gateway), httpx.Response(data.draw(statuses), content=content, headers=data.draw(headers)), routes(gateway)[0])


@every_gateway
@given(task_id=st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20), route_number=st.integers(0, 99))
@quick
def test_any_task_id_keeps_its_place(gateway: str, task_id: str, route_number: int) -> None:
    """The address differs from another job's in the id alone."""
    route = routes(gateway)[route_number % len(routes(gateway))]
    account = Account(gateway=gateway, base_url="https://gateway.example/base")
    plain = get_gateway(gateway).poll_request(route, "X", account).url
    odd = get_gateway(gateway).poll_request(route, task_id, account).url
    assert (odd.scheme, odd.host, odd.fragment) == (plain.scheme, plain.host, "")
    assert odd.raw_path.startswith(plain.raw_path[:-1])
    assert odd.raw_path.count(b"/") == plain.raw_path.count(b"/")
    assert odd.raw_path.count(b"?") + odd.raw_path.count(b"&") == plain.raw_path.count(b"?")
