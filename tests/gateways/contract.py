"""What every gateway's protocol has to pass: one suite, inherited by a class per gateway that says how its answers look."""

from __future__ import annotations

import json
import pickle
import traceback
from dataclasses import dataclass
from typing import Any, ClassVar
from urllib.parse import unquote

import cloudpickle
import httpx
import pytest
from pydantic import SecretStr

from prefect_happyhorse.catalog import Route, find_route, routes
from prefect_happyhorse.domain.errors import (
    AuthenticationFailed,
    GatewayUnavailable,
    GenerationError,
    InvalidRequest,
    JobExpired,
    ModerationRejected,
    ProtocolError,
    QuotaExceeded,
    RateLimited,
    RequestRejected,
)
from prefect_happyhorse.domain.jobs import JobState, JobStatus, Submission
from prefect_happyhorse.domain.requests import GenerationRequest, parse_request
from prefect_happyhorse.gateways import Account, Gateway, get_gateway

KEY = "sk-Sesame/42&open"
TASK_ID = "0385dc79-5ff8-4d82-bcb6-000000000001"
URL = "https://example.com/results/horse.mp4?Expires=1&Signature=a%2Fb"
HTML = b"<html><head><title>502 Bad Gateway</title></head><body>nginx</body></html>"

REFUSING: dict[int, type[GenerationError]] = {
    400: InvalidRequest,
    401: AuthenticationFailed,
    402: QuotaExceeded,
    403: AuthenticationFailed,
    404: RequestRejected,
    405: RequestRejected,
    411: InvalidRequest,
    413: InvalidRequest,
    414: InvalidRequest,
    415: InvalidRequest,
    422: InvalidRequest,
    429: RateLimited,
    431: InvalidRequest,
}
"""The statuses that by themselves say that a submit was turned away and nothing was begun."""

PASSING = {408, 425, 499}
"""Time-outs on the way, after which work may be going on."""

UNREADABLE: dict[str, bytes] = {
    "nothing": b"",
    "blanks": b" \n",
    "HTML": HTML,
    "truncated JSON": b'{"output": {"task_id": "0385dc79',
    "a list": b'[{"task_id": "t-1"}]',
    "a text": b'"t-1"',
    "a number": b"7",
    "null": b"null",
    "too deep": b"[" * 100_000,
    "a number beyond reading": b'{"id": ' + b"9" * 5000 + b"}",
    "not text": bytes(range(256)),
}


def response(
    body: object, status: int = 200, *, headers: dict[str, str] | None = None, request: httpx.Request | None = None
) -> httpx.Response:
    """An answer, with JSON or with bytes in it."""
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return httpx.Response(status, content=content, headers=headers, request=request)


@dataclass(frozen=True)
class Refusal:
    """An error of the sources: how it looks, and what it means for a submit."""

    status: int
    body: dict[str, Any]
    kind: type[GenerationError]
    code: str | None = None
    money: str = "not spent"


class GatewayContract:
    """The suite. A class per gateway fills in what it looks like there."""

    gateway: ClassVar[str]
    capability: ClassVar[str] = "reference_to_video"
    model: ClassVar[str]
    key_header: ClassVar[tuple[str, str]] = ("authorization", f"Bearer {KEY}")
    words: ClassVar[dict[JobStatus, tuple[str, ...]]]
    refusals: ClassVar[list[Refusal]]
    missing: ClassVar[list[tuple[int, dict[str, Any]]]] = []
    submit_path: ClassVar[str]
    poll_path: ClassVar[str]
    cancel_path: ClassVar[str | None] = None

    def accepted(self, task_id: object = TASK_ID) -> dict[str, Any]:
        """The answer to a submit."""
        raise NotImplementedError

    def state(self, word: object, *, results: list[Any] | None = None, reason: str | None = None) -> dict[str, Any]:
        """The answer to a poll."""
        raise NotImplementedError

    def echo(self, text: str) -> list[tuple[int, dict[str, Any]]]:
        """Errors and answers with a text in each place that is shown to somebody."""
        raise NotImplementedError

    @property
    def protocol(self) -> Gateway:
        """The gateway that is tested."""
        return get_gateway(self.gateway)

    @property
    def route(self) -> Route:
        """One of its routes."""
        return find_route(self.gateway, self.capability, self.model)

    @property
    def account(self) -> Account:
        """An account at a host of its own."""
        return Account(gateway=self.gateway, base_url="https://gateway.example", key=SecretStr(KEY))

    def wanted(self) -> GenerationRequest:
        """A request that the route takes."""
        return parse_request(
            {
                "capability": self.capability,
                "model": self.model,
                "prompt": "A horse",
                "references": ["https://example.com/a.png"],
                "aspect_ratio": "16:9",
                "resolution": "720p",
                "duration": 5,
            }
        )

    def signed(self) -> httpx.Request:
        """A submit with the key in it."""
        call = self.protocol.submit_request(self.wanted(), self.route, self.account)
        self.protocol.sign(call, SecretStr(KEY))
        return call

    def submit(self, body: object, status: int = 200, **more: Any) -> Submission:
        """What the gateway reads from an answer to a submit."""
        return self.protocol.read_submit(response(body, status, **more), self.route)

    def poll(self, body: object, status: int = 200, **more: Any) -> JobState:
        """What the gateway reads from an answer to a poll."""
        return self.protocol.read_poll(response(body, status, **more), self.route)

    def refused(self, body: object, status: int = 200, **more: Any) -> GenerationError:
        """The error that a submit's answer stands for."""
        with pytest.raises(GenerationError) as caught:
            self.submit(body, status, **more)
        return caught.value

    def not_polled(self, body: object, status: int = 200, **more: Any) -> GenerationError:
        """The error that a poll's answer stands for."""
        with pytest.raises(GenerationError) as caught:
            self.poll(body, status, **more)
        return caught.value

    # Requests

    def test_a_submit_goes_to_the_catalogs_path(self) -> None:
        """Or to the one that the account sets, behind the base URL and its own path."""
        plain = self.protocol.submit_request(self.wanted(), self.route, self.account)
        assert (plain.method, str(plain.url)) == ("POST", f"https://gateway.example{self.submit_path}")
        elsewhere = Account(gateway=self.gateway, base_url="http://127.0.0.1:8808/x", submit_path="/v9/other")
        assert str(self.protocol.submit_request(self.wanted(), self.route, elsewhere).url) == "http://127.0.0.1:8808/x/v9/other"

    def test_a_poll_goes_to_the_catalogs_path(self) -> None:
        """Or to the one that the account sets."""
        plain = self.protocol.poll_request(self.route, TASK_ID, self.account)
        assert (plain.method, str(plain.url), plain.content) == ("GET", f"https://gateway.example{self.poll_path}{TASK_ID}", b"")
        elsewhere = Account(gateway=self.gateway, base_url="https://gateway.example", poll_path="/v9/{task_id}/state")
        assert str(self.protocol.poll_request(self.route, TASK_ID, elsewhere).url) == f"https://gateway.example/v9/{TASK_ID}/state"

    def test_a_cancel_goes_where_there_is_one(self) -> None:
        """None where the gateway has none."""
        call = self.protocol.cancel_request(TASK_ID, self.account)
        assert (None if call is None else (call.method, call.url.path)) == (self.cancel_path and ("POST", self.cancel_path.format(TASK_ID)))

    @pytest.mark.parametrize("task_id", ["a/b", "../admin", "..", ".", "a?b=c", "a&unique_id=b", "a#b", "a%2Fb", "马", " ", "a\nb", "a\\b"])
    def test_a_task_id_cannot_leave_its_place(self, task_id: str) -> None:
        """Whatever the provider calls a job stands in the path or query as one word, and reads back as it was."""
        plain = self.protocol.poll_request(self.route, TASK_ID, self.account)
        calls = [self.protocol.poll_request(self.route, task_id, self.account), self.protocol.cancel_request(task_id, self.account)]
        for call in filter(None, calls):
            target = call.url.raw_path.decode()
            begin = (
                plain.url.raw_path.decode().partition(TASK_ID)[0] if call.method == "GET" else (self.cancel_path or "").partition("{}")[0]
            )
            assert target.startswith(begin)
            place = target[len(begin) :].removesuffix("/cancel")
            assert unquote(place) == task_id
            assert not set(place) & set("/?&#=\\")
            assert place not in {".", ".."}
            assert (call.url.host, call.url.fragment) == ("gateway.example", "")

    def test_the_key_stands_in_its_header(self) -> None:
        """And nowhere else."""
        call = self.signed()
        name, value = self.key_header
        assert call.headers[name] == value
        assert [header for header, text in call.headers.items() if KEY in text] == [name]
        assert KEY not in str(call.url)
        assert KEY.encode() not in call.read()

    @pytest.mark.parametrize("key", ["", " ", "sk-1\n", "sk-1\r\nX-Evil: 1", " sk-1", "sk-1 ", "sk-密钥", "sk-\x00", "sk-\u200b1"])
    def test_a_key_that_no_header_can_carry_is_refused(self, key: str) -> None:
        """Before anything is sent, and without showing it: an HTTP library would name it in its own error."""
        call = self.protocol.submit_request(self.wanted(), self.route, self.account)
        with pytest.raises(AuthenticationFailed) as caught:
            self.protocol.sign(call, SecretStr(key))
        assert (caught.value.money, caught.value.gateway) == ("not spent", self.gateway)
        shown = "".join(traceback.format_exception(caught.value)) + repr(vars(caught.value))
        assert key.strip() == "" or key.strip() not in shown
        assert not [value for value in call.headers.values() if key and key in value]

    def test_a_protocol_has_no_state(self) -> None:
        """All callers share it."""
        assert get_gateway(self.gateway) is get_gateway(self.gateway)
        assert set(vars(self.protocol)) == {"facts"}

    # Submits

    def test_an_accepted_submit_gives_the_jobs_id(self) -> None:
        """With what the provider says of it, and its request id."""
        submission = self.submit(self.accepted())
        assert (submission.task_id, submission.status) == (TASK_ID, JobStatus.QUEUED)

    @pytest.mark.parametrize("status", [200, 201, 202])
    def test_every_success_is_one(self, status: int) -> None:
        """Also where the provider means "created" or "accepted"."""
        assert self.submit(self.accepted(), status).task_id == TASK_ID

    def test_a_number_is_an_id_too(self) -> None:
        """Kept as text, since it goes into a path."""
        assert self.submit(self.accepted(40_001)).task_id == "40001"

    @pytest.mark.parametrize("task_id", [None, "", [], {}, ["t-1"], {"id": "t-1"}, True, 1.5])
    def test_what_is_no_id_is_none(self, task_id: object) -> None:
        """Work may have been started, so the request is never sent again by itself."""
        error = self.refused(self.accepted(task_id))
        assert (type(error), error.money, error.gateway) == (ProtocolError, "may be spent", self.gateway)
        assert "task id" in error.message

    @pytest.mark.parametrize("body", UNREADABLE.values(), ids=UNREADABLE.keys())
    def test_an_unreadable_answer_to_a_submit_is_uncertain(self, body: bytes) -> None:
        """HTML, half a JSON, a list: the job may be there."""
        error = self.refused(body)
        assert isinstance(error, ProtocolError)
        assert (error.money, error.status_code, error.gateway, error.retryable) == ("may be spent", 200, self.gateway, False)
        assert "not a JSON object" in error.message
        assert error.excerpt == " ".join(body.decode("utf-8", "replace").split())[:300]

    def test_an_empty_object_is_uncertain(self) -> None:
        """It says nothing at all."""
        error = self.refused({})
        assert (type(error), error.money) == (ProtocolError, "may be spent")

    def test_a_status_by_itself_buys_nothing_twice(self) -> None:
        """Only statuses that turn the request itself away say that nothing was spent, and only 429 is sent again."""
        for status in range(200, 600):
            expected = REFUSING.get(status, GatewayUnavailable if status >= 500 or status in PASSING else ProtocolError)
            for body in (b"", HTML):
                error = self.refused(body, status)
                assert (type(error), error.status_code, error.gateway) == (expected, status, self.gateway)
                assert error.money == ("not spent" if status in REFUSING else "may be spent"), status
                assert (error.money == "not spent" and error.retryable) == (status == 429), status

    def test_an_id_counts_only_in_a_success(self) -> None:
        """A redirect or an error is none, whatever stands in it."""
        for status in range(300, 600):
            error = self.refused(self.accepted(), status)
            assert error.money == ("not spent" if status in REFUSING else "may be spent"), status

    def test_a_redirect_says_where_it_points(self) -> None:
        """A base URL with the wrong scheme is the usual reason."""
        for body in (b"", HTML, {}, self.accepted()):
            error = self.refused(body, 308, headers={"location": "https://www.gateway.example/"})
            assert type(error) is ProtocolError
            assert error.message == (
                f"{self.gateway} answered 308, which its documentation does not show and points to 'https://www.gateway.example/';"
                " check the base URL."
            )

    def test_a_documented_error_means_what_the_document_says(self) -> None:
        """Class, code, and whether anything was spent: of each error shape that the sources show."""
        assert self.refusals
        for refusal in self.refusals:
            error = self.refused(refusal.body, refusal.status)
            assert (type(error), error.code, error.money) == (refusal.kind, refusal.code, refusal.money), refusal
            assert (error.status_code, error.gateway) == (refusal.status, self.gateway), refusal
            assert error.advice, refusal

    def test_a_success_that_names_a_job_is_never_a_refusal(self) -> None:
        """An answer that says both is either the job's or uncertain: sent again, it could be bought twice."""
        for refusal in self.refusals:
            body = {
                **refusal.body,
                **{name: value for name, value in self.accepted().items() if name not in refusal.body or name == "data"},
            }
            try:
                assert self.submit(body).task_id == TASK_ID, refusal
            except GenerationError as error:
                assert error.money == "may be spent", refusal

    # Polls

    def test_every_status_word_is_read(self) -> None:
        """In any case; the provider's own word is kept beside it."""
        for status, words in self.words.items():
            for word in words:
                for written in {word, word.upper(), word.lower(), word.capitalize()}:
                    state = self.poll(self.state(written, results=[URL], reason="too dark"))
                    assert (state.status, state.provider_status) == (status, written)

    @pytest.mark.parametrize("word", ["RESTING", "done?", "马", "suc cess", 7])
    def test_an_unknown_word_is_unknown(self, word: object) -> None:
        """It is no end, and it is shown."""
        state = self.poll(self.state(word, results=[URL]))
        assert (state.status, state.provider_status, state.outputs) == (JobStatus.UNKNOWN, str(word), ())
        assert not state.status.final

    @pytest.mark.parametrize("word", [None, "", [], {}, True, 0.5])
    def test_no_word_is_no_state(self, word: object) -> None:
        """The answer is none that the document shows."""
        error = self.not_polled(self.state(word))
        assert (type(error), error.gateway) == (ProtocolError, self.gateway)

    def test_a_finished_job_has_its_outputs(self) -> None:
        """Each once, of the kind that the route makes."""
        done = self.words[JobStatus.SUCCEEDED][0]
        state = self.poll(self.state(done, results=[URL]))
        assert [(output.kind, output.url, output.is_inline) for output in state.outputs] == [(self.route.kind, URL, False)]

    def test_a_job_that_runs_has_none(self) -> None:
        """An address that is there too early is not read."""
        running = self.words[JobStatus.RUNNING][0]
        assert self.poll(self.state(running, results=[URL])).outputs == ()

    def test_a_finished_job_without_a_result_is_odd(self) -> None:
        """It is paid for, so it is neither done nor given up."""
        done = self.words[JobStatus.SUCCEEDED][0]
        for results in ([], [None], [""]):
            error = self.not_polled(self.state(done, results=results))
            assert (type(error), error.money, "no result" in error.message) == (ProtocolError, "may be spent", True), results

    @pytest.mark.parametrize(
        "result",
        [
            "horse.mp4",
            "ftp://example.com/a.mp4",
            "http://",
            "/files/a.mp4",
            {"no": 1},
            [[URL]],
            7,
            "data:image/png,AAAA",
            "data:;base64,马",
        ],
    )
    def test_a_result_that_nothing_fetches_is_odd(self, result: object) -> None:
        """A path, another scheme, a structure."""
        done = self.words[JobStatus.SUCCEEDED][0]
        assert type(self.not_polled(self.state(done, results=[result]))) is ProtocolError

    def test_a_result_may_be_a_data_url(self) -> None:
        """Its base64 is handed on."""
        done = self.words[JobStatus.SUCCEEDED][0]
        (output,) = self.poll(self.state(done, results=["data:video/mp4;base64,AAAA"])).outputs
        assert (output.inline, output.url, output.is_inline) == ("AAAA", None, True)

    def test_a_failed_job_is_a_state_with_its_reason(self) -> None:
        """The call went well; the job did not."""
        for word in self.words[JobStatus.FAILED]:
            state = self.poll(self.state(word, reason="too dark"))
            assert (state.status, state.message, state.outputs) == (JobStatus.FAILED, "too dark", ())

    @pytest.mark.parametrize("body", UNREADABLE.values(), ids=UNREADABLE.keys())
    def test_an_unreadable_answer_to_a_poll_is_odd(self, body: bytes) -> None:
        """And says nothing about the job."""
        error = self.not_polled(body)
        assert (type(error), error.money, error.gateway) == (ProtocolError, "may be spent", self.gateway)
        assert "not bought again" in str(error)

    def test_no_status_alone_gives_a_job_up(self) -> None:
        """A wrong base URL answers 404 too; the job is paid for, so whatever the call says, money may be spent."""
        for status in range(300, 600):
            for body in (b"", HTML, b"{}"):
                error = self.not_polled(body, status)
                assert not isinstance(error, JobExpired), status
                assert (error.money, error.status_code, error.gateway) == ("may be spent", status, self.gateway)
                assert isinstance(error, GatewayUnavailable) == (status >= 500 or status in PASSING | {429}), status

    def test_a_documented_error_of_a_poll_leaves_the_job(self) -> None:
        """The same classes as for a submit, but the job is bought."""
        for refusal in self.refusals:
            if self.protocol.facts.codes.get(refusal.code or "") != "not_found":
                error = self.not_polled(refusal.body, refusal.status)
                assert (type(error), error.code, error.money) == (refusal.kind, refusal.code, "may be spent"), refusal
                assert "not bought again" in str(error) or isinstance(error, AuthenticationFailed)

    def test_a_job_that_is_not_there_has_expired(self) -> None:
        """Where the gateway says just that."""
        for status, body in self.missing:
            error = self.not_polled(body, status)
            assert (type(error), error.money, error.status_code, error.gateway) == (JobExpired, "spent", status, self.gateway)
            assert error.advice

    # Waiting

    @pytest.mark.parametrize(
        ("headers", "seconds"),
        [
            ({"retry-after": "7"}, 7.0),
            ({"retry-after": " 0 "}, 0.0),
            ({"retry-after": "Fri, 20 Nov 2026 12:00:30 GMT", "date": "Fri, 20 Nov 2026 12:00:00 GMT"}, 30.0),
            ({"retry-after": "Fri, 20 Nov 2026 12:00:00 GMT", "date": "Fri, 20 Nov 2026 12:00:30 GMT"}, 0.0),
            ({"retry-after": "Fri, 20 Nov 2020 12:00:00 GMT"}, 0.0),
            ({"retry-after": "soon"}, None),
            ({"retry-after": "-1"}, None),
            ({"retry-after": "\u0663"}, None),
            ({"retry-after": "9" * 400}, None),
            ({"retry-after": "Fri, 20 Nov 99999999999999999999 12:00:00 GMT"}, None),
            ({"retry-after": "Fri, 20 Nov 2026 12:00:30 GMT", "date": "today"}, None),
            ({"retry-after": "Fri, 20 Nov 2026 12:00:30 GMT", "date": "Fri, 20 Nov 2026 12:00:00 -0000"}, None),
            ({}, None),
        ],
    )
    @pytest.mark.parametrize("status", [429, 503])
    def test_how_long_to_wait_is_read(self, status: int, headers: dict[str, str], seconds: float | None) -> None:
        """As seconds or as a date by the server's own clock; what is neither says nothing."""
        encoded = {name: value.encode() for name, value in headers.items()}
        for error in (self.refused(b"", status, headers=encoded), self.not_polled(b"", status, headers=encoded)):
            assert isinstance(error, GatewayUnavailable)
            assert error.retry_after_s == seconds

    # Secrets

    def test_an_echoed_key_is_shown_nowhere(self) -> None:
        """Neither in text, excerpt, attributes and tracebacks of an error, nor in what a job state says; however it is written."""
        spellings = [KEY, KEY.replace("/", r"\/"), "sk-Sesame%2F42%26open", "sk-Sesame/42&amp;open"]
        for spelling in spellings:
            for status, body in [*self.echo(f"Bearer {spelling} is wrong"), *self.echo(spelling), (302, {}), (409, {"message": spelling})]:
                for raw in (json.dumps(body).encode(), json.dumps(body).encode() + b"<", json.dumps(body).replace("/", r"\/").encode()):
                    headers = {"x-request-id": spelling, "location": f"https://h/{spelling}"}
                    answer = response(raw, status, headers=headers, request=self.signed())
                    for read in (self.protocol.read_submit, self.protocol.read_poll):
                        shown = self.shown(read, answer)
                        assert [part for part in spellings if part in shown] == [], (read, body)

    def shown(self, read: Any, answer: httpx.Response) -> str:
        """All that may be seen of what was read."""
        try:
            value = read(answer, self.route)
        except GenerationError as error:
            kept = pickle.dumps(error).decode("latin-1") + cloudpickle.dumps(error).decode("latin-1")
            causes = [str(vars(cause)) for cause in (error.__cause__, error.__context__) if cause is not None]
            return "".join((*traceback.format_exception(error), str(error), repr(error), str(vars(error)), kept, *causes))
        if isinstance(value, Submission):
            return str(value.model_dump(exclude={"task_id"}))
        return str(value.model_dump(exclude={"outputs"}))

    def test_an_answer_without_its_request_is_read_too(self) -> None:
        """A recorded one, for example."""
        assert "secret" in str(self.refused(b"secret"))

    # Odd texts

    @pytest.mark.parametrize("charset", ["hex", "zlib", "undefined", "rot13", "idna", "no-such-thing", "utf-16", "utf-7"])
    def test_any_named_encoding_is_survived(self, charset: str) -> None:
        """Also one that is not of text."""
        error = self.refused(b"<html>\xff", headers={"content-type": f"text/html; charset={charset}"})
        assert isinstance(error, ProtocolError)
        assert error.excerpt

    def test_a_page_in_chinese_is_quoted_readably(self) -> None:
        """Where it names its encoding."""
        error = self.refused("<p>系统繁忙</p>".encode("gb18030"), headers={"content-type": "text/html; charset=gb18030"})
        assert isinstance(error, ProtocolError)
        assert error.excerpt == "<p>系统繁忙</p>"

    def test_half_a_character_is_mended(self) -> None:
        """A text that was cut inside an emoji does not lose a job that is paid for."""
        raw = json.dumps({**self.accepted(), "request_id": "r-XX", "trace_id": "r-XX", "note": "XX"}).replace("XX", r"\ud83d").encode()
        submission = self.submit(raw)
        assert (submission.task_id, submission.request_id) == (TASK_ID, "r-?")
        failed = json.dumps(self.state(self.words[JobStatus.FAILED][0], reason="too XX")).replace("XX", r"\ud83d").encode()
        state = self.poll(failed)
        assert state.message == "too ?"
        assert JobState.model_validate_json(state.model_dump_json()) == state

    def test_every_route_of_the_gateway_reads_alike(self) -> None:
        """An unreadable answer is one on each of them."""
        for route in routes(self.gateway):
            for read in (self.protocol.read_submit, self.protocol.read_poll):
                with pytest.raises(ProtocolError):
                    read(response(HTML), route)

    def test_moderation_is_told_apart_where_there_is_a_code(self) -> None:
        """The same request would be refused again."""
        codes = {code for code, meaning in self.protocol.facts.codes.items() if meaning == "moderation"}
        shown = {refusal.code for refusal in self.refusals if refusal.kind is ModerationRejected}
        assert shown <= codes
        assert bool(shown) == bool(codes)
