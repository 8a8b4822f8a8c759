"""What a provider says at its worst: endless, deep, strange, with a secret in it, or two things at once."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import SecretStr

from prefect_happyhorse.catalog import GATEWAYS, Route, routes
from prefect_happyhorse.domain.errors import GenerationError, SubmissionUncertain
from prefect_happyhorse.domain.jobs import JobStatus
from prefect_happyhorse.gateways import Account, CallError, CallUnavailable, Gateway, get_gateway, poll_error, submit_error
from prefect_happyhorse.gateways.failures import retry_after_s

from .dialect import KEY, REFUSING, TASK_ID, URL, response
from .test_arbitrary import FAMILY, GOOD, places, put, values

every_gateway = pytest.mark.parametrize("gateway", GATEWAYS)
SECRET = "secret/Key&1-of-the-account"
APP_ID = "app-48151623"
SIGNED = "https://cdn.example/horse.mp4?Expires=1&Signature=c2lnbmF0dXJl"


def account(gateway: str) -> Account:
    return Account(gateway=gateway, base_url="https://gateway.example", key=SecretStr(KEY), app_id=APP_ID, secret_key=SecretStr(SECRET))


def route_of(gateway: str) -> Route:
    return routes(gateway)[0]


def accepted(gateway: str, task_id: object = TASK_ID) -> dict[str, Any]:
    """The answer to a submit."""
    return {
        "dashscope": {"output": {"task_id": task_id, "task_status": "PENDING"}, "request_id": "r-1"},
        "chanjing": {"code": 0, "msg": "success", "data": task_id, "trace_id": "r-1"},
        "new-api": {"task_id": task_id, "status": "queued", "request_id": "r-1"},
    }[FAMILY[gateway]]


def refused(gateway: str, code: object, message: str = "No.") -> dict[str, Any]:
    """An error that names a job beside it."""
    return {
        "dashscope": {"code": code, "message": message, "output": {"task_id": TASK_ID}, "request_id": "r-1"},
        "chanjing": {"code": code, "msg": message, "data": TASK_ID, "trace_id": "r-1"},
        "new-api": {"error": {"code": code, "message": message}, "task_id": TASK_ID, "request_id": "r-1"},
    }[FAMILY[gateway]]


def state(gateway: str, word: str, *, results: list[Any] | None = None, reason: str = "", **more: Any) -> dict[str, Any]:
    """The answer to a poll."""
    entries = results or []
    body: dict[str, Any] = {
        "dashscope": {
            "output": {"task_status": word, "results": [{"url": one} for one in entries], "message": reason},
            "request_id": "r-1",
        },
        "chanjing": {"code": 0, "data": {"progress_desc": word, "output_url": entries, "err_msg": reason}, "trace_id": "r-1"},
        "new-api": {
            "status": word,
            "results": [{"url": one} for one in entries],
            "result": {"outputs": [{"url": one} for one in entries]},
            "fail_reason": reason,
            "request_id": "r-1",
        },
    }[FAMILY[gateway]]
    return {**body, **more}


def word(gateway: str, status: JobStatus) -> str:
    return next(iter(get_gateway(gateway).words[status]))


def error_of(gateway: str, answer: httpx.Response) -> GenerationError:
    with pytest.raises(CallError) as caught:
        get_gateway(gateway).read_submit(answer, route_of(gateway))
    return submit_error(caught.value, gateway=gateway)


def nested(levels: int, inner: str = "1") -> str:
    return '{"a": [' * (levels // 2) + inner + "]}" * (levels // 2)


def depth(value: object) -> int:
    inner = list(value.values()) if isinstance(value, dict) else value if isinstance(value, list) else None
    return 0 if inner is None else 1 + max(map(depth, inner), default=0)


# A task id beside an error.


@every_gateway
@pytest.mark.parametrize("status", [200, 308, 400, 401, 402, 404, 409, 422, 429, 500, 502, 503])
def test_a_task_id_beside_an_error_is_never_sent_again(gateway: str, status: int) -> None:
    """Whatever the status or the code says: the id, the request id and the answer's start go on to whoever has to look."""
    # A success without a code is a good answer.
    codes = [*get_gateway(gateway).facts.codes, "nonsense", *([None] if status != 200 else [])]
    for code in codes:
        body = refused(gateway, int(code) if code and code.isdecimal() else code)
        with pytest.raises(CallError) as caught:
            get_gateway(gateway).read_submit(response(body, status), route_of(gateway))
        call = caught.value
        assert not isinstance(call, CallUnavailable) or call.may_have_acted, code
        error = submit_error(call, gateway=gateway)
        assert (error.money, error.task_id, error.request_id, error.status_code) == ("may be spent", TASK_ID, "r-1", status), code
        assert json.dumps(body)[:200] in error.message + getattr(error, "excerpt", ""), code


@every_gateway
@pytest.mark.parametrize(
    "body",
    [
        '{"status": "FAILED", "message": "busy", "jobId": "t-1", "data": null}',
        '{"code": "busy", "data": {"jobId": "t-1"}}',
        '{"code": "busy", "output": {"taskId": "t-1"}}',
        '{"code": "busy", "output": [{"task_id": "t-1"}]}',
        '{"code": "busy", "data": {"id": 17}}',
        '{"code": "busy", "data": {"unique_id": "t-1"}}',
        '{"code": "busy", "task_ids": ["t-1"]}',
        '{"code": "busy", "data": ["t-1"], "task_id": ["t-1"]}',
        '{"message": "upstream said {\\"task_id\\": \\"t-1\\"}"}',
        '{"code": "busy", "task_id": "t-1',
        '{"code": "busy", "video_id" : "t-1", "message": "cut sho',
    ],
)
def test_a_job_is_seen_beside_an_error_wherever_it_stands(gateway: str, body: str) -> None:
    """Also where the dialect puts none, and in JSON that is cut short; an id that is empty is none."""
    for status in (200, 429, 503):
        error = error_of(gateway, httpx.Response(status, text=body, request=httpx.Request("POST", "https://gateway.example")))
        assert (error.money, error.task_id) == ("may be spent", "17" if "17" in body else "t-1")
    headed = httpx.Response(429, json={"message": "busy"}, headers={"X-Task-Id": "t-1"}, request=httpx.Request("POST", "https://g.example"))
    assert error_of(gateway, headed).task_id == "t-1"
    empty = '{"jobId": "", "task_id": null, "request_id": "r-1", "message": "busy"}'
    refused = httpx.Response(429, text=empty, request=httpx.Request("POST", "https://gateway.example"))
    assert error_of(gateway, refused).money == "not spent"


@every_gateway
@pytest.mark.parametrize("status", list(REFUSING))
def test_a_refusal_that_holds_an_accepted_job_is_uncertain(gateway: str, status: int) -> None:
    """A status that turns a submit away does not outweigh the job that its answer names."""
    error = error_of(gateway, response(accepted(gateway), status))
    assert (error.money, error.task_id) == ("may be spent", TASK_ID)


def test_a_refused_token_beside_a_task_id_is_not_tried_again() -> None:
    """A new token would send the same submit a second time."""
    gateway = get_gateway("chanjing")
    assert gateway.refuses_token(response({"code": 10400, "msg": "No.", "data": None}))
    assert not gateway.refuses_token(response({"code": 10400, "msg": "No.", "data": TASK_ID}))


# Bounds.


@every_gateway
@pytest.mark.parametrize("task_id", ["t" * 257, "t" * 1_000_000, "t 1", "t\n1", "马", "\x1b[2J", "t\u2028", " ", 10**300])
def test_a_task_id_that_is_no_id_is_uncertain(gateway: str, task_id: object) -> None:
    """It is neither kept nor polled; the answer's start is kept."""
    error = error_of(gateway, response(accepted(gateway, task_id)))
    assert (error.money, error.task_id) == ("may be spent", None)
    assert "task id" in error.message
    assert "256" in error.message
    assert "t" in getattr(error, "excerpt", "")
    assert len(str(error)) < 1500


@every_gateway
@pytest.mark.parametrize("task_id", ["t" * 256, "!~", "a/b?c", str(10**200)])
def test_a_task_id_of_printable_ascii_is_one(gateway: str, task_id: str) -> None:
    """Up to 256 characters of it."""
    assert get_gateway(gateway).read_submit(response(accepted(gateway, task_id)), route_of(gateway)).task_id == task_id


@every_gateway
@pytest.mark.parametrize("request_id", ["r" * 257, "r 1", "r\x1b", "马", "r" * 1_000_000])
def test_a_request_id_that_is_none_is_left_out(gateway: str, request_id: str) -> None:
    """The job is kept all the same."""
    body = {**accepted(gateway), "request_id": request_id, "trace_id": request_id}
    submission = get_gateway(gateway).read_submit(response(body), route_of(gateway))
    assert (submission.task_id, submission.request_id) == (TASK_ID, None)


@every_gateway
def test_words_codes_and_reasons_are_cut(gateway: str) -> None:
    """A status word at 100 characters, a code at 200, a reason at 2,000 with its length behind it."""
    protocol, route = get_gateway(gateway), route_of(gateway)
    odd = protocol.read_poll(response(state(gateway, "w" * 5_000_000)), route)
    assert odd.provider_status == "w" * 100
    failed = protocol.read_poll(response(state(gateway, word(gateway, JobStatus.FAILED), reason="r" * 5_000_000)), route)
    assert failed.message == "r" * 2_000 + "… (5000000 characters)"
    error = error_of(
        gateway, response({**refused(gateway, "c" * 9_000, "m" * 5_000_000), "task_id": None, "data": None, "output": None}, 400)
    )
    assert error.code in {"c" * 200, None}
    assert len(error.message) < 2_200


@pytest.mark.parametrize("gateway", [name for name in GATEWAYS if name != "chanjing"])
def test_a_jobs_own_code_is_cut(gateway: str) -> None:
    """Where it stands beside a failed job's word."""
    body = state(gateway, word(gateway, JobStatus.FAILED))
    body["output"] = {**body.get("output", {}), "code": "c" * 9_000}
    assert get_gateway(gateway).read_poll(response(body), route_of(gateway)).code == "c" * 200


@every_gateway
@pytest.mark.parametrize("levels", [10, 230, 300, 800, 5_000])
def test_deep_usage_is_cut(gateway: str, levels: int, caplog: pytest.LogCaptureFixture) -> None:
    """At eight levels, and the job's result is read all the same."""
    body = json.dumps(state(gateway, word(gateway, JobStatus.SUCCEEDED), results=[URL], usage={"seconds": 5, "deep": "XX"}))
    raw = body.replace('"XX"', nested(levels)).encode()
    snapshot = get_gateway(gateway).read_poll(response(raw), route_of(gateway))
    assert [output.url for output in snapshot.outputs] == [URL]
    assert snapshot.usage is not None
    assert snapshot.usage["seconds"] == 5
    assert depth(snapshot.usage) == 8
    assert "(cut: nested more than 8 deep)" in snapshot.model_dump_json()
    assert "usage" in caplog.text
    caplog.clear()
    get_gateway(gateway).read_poll(response(raw.replace(b"SUCCEEDED", b"RUNNING")), route_of(gateway))


@every_gateway
def test_long_usage_is_cut(gateway: str, caplog: pytest.LogCaptureFixture) -> None:
    """At 16 KB: what is too long is replaced, and very many entries are left out."""
    long = {"seconds": 5, "long": ["x" * 1_000] * 100, "text": "y" * 9_000, "after": 6}
    protocol, route = get_gateway(gateway), route_of(gateway)
    running = word(gateway, JobStatus.RUNNING)
    usage = protocol.read_poll(response(state(gateway, running, usage=long)), route).usage
    assert usage == {"seconds": 5, "long": "(cut: 100,400 characters)", "text": "y" * 2_000 + "… (9000 characters)", "after": 6}
    assert "usage" not in caplog.text, "a job is polled often, and told of once"
    many = protocol.read_poll(response(state(gateway, running, usage={f"name {n}": "z" * 90 for n in range(9_000)})), route).usage
    assert many is not None
    assert 100 < len(many) < 200
    assert len(json.dumps(many)) <= 16 * 1024
    assert list(many.values())[-1] == "(cut: 16 KB are kept)"


@every_gateway
def test_odd_numbers_in_usage_are_text(gateway: str) -> None:
    """What no journal or database can hold as a number; the rest stays as it is."""
    raw = json.dumps(state(gateway, word(gateway, JobStatus.RUNNING), usage={"XX": 0, "half": 0.5, "none": None, "yes": True}))
    odd = '"endless": [NaN, Infinity, -Infinity, 1e999], "long": ' + "9" * 5_000 + ', "id": 18446744073709551616, "whole": 7'
    usage = get_gateway(gateway).read_poll(response(raw.replace('"XX": 0', odd).encode()), route_of(gateway)).usage
    assert usage is not None
    assert usage["endless"] == ["nan", "inf", "-inf", "inf"]
    assert usage["long"] == "9" * 2_000 + "… (5000 characters)"
    assert (usage["id"], usage["whole"], usage["half"], usage["none"], usage["yes"]) == ("18446744073709551616", 7, 0.5, None, True)
    json.dumps(usage, allow_nan=False)


@every_gateway
def test_an_accepted_job_survives_what_stands_beside_it(gateway: str) -> None:
    """A number of 5,000 digits or a structure of 5,000 levels does not lose the id of a job that is paid for."""
    body = json.dumps({**accepted(gateway), "usage": "XX"})
    for odd in ("9" * 5_000, "-" + "9" * 5_000, "NaN", nested(800), nested(5_000), nested(5_000, '"a\\"]}"')):
        answer = response(body.replace('"XX"', odd).encode())
        assert get_gateway(gateway).read_submit(answer, route_of(gateway)).task_id == TASK_ID


@every_gateway
@pytest.mark.parametrize("second", [None, "", 7, {}, "horse.mp4"])
def test_an_output_without_an_address_does_not_lose_the_others(gateway: str, second: object, caplog: pytest.LogCaptureFixture) -> None:
    """What there is, is kept; the rest is told."""
    body = state(gateway, word(gateway, JobStatus.SUCCEEDED), results=[URL, second])
    outputs = get_gateway(gateway).read_poll(response(body), route_of(gateway)).outputs
    assert [output.url for output in outputs] == [URL]
    assert "1 of 2 results" in caplog.text


# Waiting.


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("300", 300),
        ("301", 300),
        ("1e9", 300),
        ("1000000000", 300),
        ("0.5", 0.5),
        ("-1", None),
        ("nan", None),
        ("inf", None),
        ("-inf", None),
    ],
)
def test_a_server_asks_for_five_minutes_at_most(value: str, seconds: float | None) -> None:
    """A job is not left alone for its whole life because a number says so."""
    assert retry_after_s(httpx.Response(429, headers={"retry-after": value})) == seconds


def test_a_date_asks_for_five_minutes_at_most() -> None:
    """However far away it is."""
    headers = {"retry-after": "Fri, 20 Nov 2126 12:00:00 GMT", "date": "Fri, 20 Nov 2026 12:00:00 GMT"}
    assert retry_after_s(httpx.Response(429, headers=headers)) == 300


# Whatever comes.

hostile = st.one_of(
    values.map(json.dumps),
    st.integers(4_000, 6_000).map(lambda digits: "9" * digits),
    st.sampled_from(["NaN", "Infinity", "-Infinity", "1e999", '"\\ud83d"', '"\\u0000"', f'"{SIGNED}"', '"' + "x" * 70_000 + '"']),
    st.builds(
        lambda levels, opens: opens[0] * levels + "1" + opens[1] * levels,
        st.integers(1, 6_000),
        st.sampled_from([("[", "]"), ('{"a":', "}")]),
    ),
    st.integers(1, 2_000).map(lambda levels: "[" * levels),
)


def read_all(gateway: Gateway, answer: httpx.Response, route: Route) -> None:
    """Read an answer in every way: only errors of calls may come out, and what is read fits a journal."""
    for read in (
        lambda: gateway.read_submit(answer, route).model_dump_json(),
        lambda: gateway.read_poll(answer, route).model_dump_json(),
        lambda: gateway.read_cancel(answer),
        lambda: gateway.refuses_token(answer),
    ):
        try:
            read()
        except CallError as error:
            for meaning in (submit_error, poll_error):
                assert len(str(meaning(error, gateway=gateway.facts.gateway))) < 6_000
    if gateway.facts.token is not None:
        flow = gateway.token_flow(account(gateway.facts.gateway))
        answer.request = next(flow)
        with suppress(StopIteration, CallError):
            flow.send(answer)


@every_gateway
@given(st.data())
@settings(deadline=None, max_examples=80)
def test_only_errors_of_calls_come_out(gateway: str, data: st.DataObject) -> None:
    """A good answer with one place filled by what no server should write, and such a thing alone."""
    good = data.draw(st.sampled_from([*GOOD[FAMILY[gateway]], {"code": 0, "data": {"access_token": "t", "expire_in": 1}}]))
    place = data.draw(st.sampled_from([*places(good), ("usage",), ("trace_id",)]))
    raw = json.dumps(put(good, place, "@here")).replace('"@here"', data.draw(hostile))
    content = raw.encode(data.draw(st.sampled_from(["utf-8", "utf-16", "utf-32"])), "surrogatepass")
    status = data.draw(st.sampled_from([200, 200, 200, 302, 401, 409, 429, 500]))
    read_all(get_gateway(gateway), httpx.Response(status, content=content), data.draw(st.sampled_from(routes(gateway))))


def test_an_uncertain_submit_carries_the_id() -> None:
    """The public error has a place for it."""
    assert SubmissionUncertain("It is not known.", task_id=TASK_ID, request_id="r-1").task_id == TASK_ID
