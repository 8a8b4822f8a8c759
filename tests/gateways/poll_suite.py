"""What a gateway reads from the answer to a poll, and what must never make it give a job up."""

from __future__ import annotations

import pytest

from prefect_happyhorse.domain.errors import (
    AuthenticationFailed,
    GatewayUnavailable,
    JobExpired,
    PollRejected,
    ProtocolError,
    RequestRejected,
)
from prefect_happyhorse.domain.jobs import JobStatus

from .dialect import HTML, PASSING, UNREADABLE, URL, Dialect


class PollSuite(Dialect):
    """Answers to polls."""

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
            assert (type(error), error.money, "no result" in error.message) == (ProtocolError, "spent", True), results

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

    @pytest.mark.parametrize("reason", ["The content may violate the rules.", "Input data may contain inappropriate content", "内容违规"])
    def test_a_moderated_failure_has_a_code(self, reason: str) -> None:
        """The provider's own, else one that stands for what its reason says; any other failure without a code has none."""
        word = self.words[JobStatus.FAILED][0]
        own = self.poll(self.state(word, reason="too dark")).code
        moderated = self.poll(self.state(word, reason=reason)).code
        assert moderated == own if own is not None else self.protocol.facts.is_moderation(moderated)

    @pytest.mark.parametrize("body", UNREADABLE.values(), ids=UNREADABLE.keys())
    def test_an_unreadable_answer_to_a_poll_is_odd(self, body: bytes) -> None:
        """And says nothing about the job."""
        error = self.not_polled(body)
        assert (type(error), error.money, error.gateway) == (ProtocolError, "spent", self.gateway)
        assert "not bought again" in str(error)

    def test_no_status_alone_gives_a_job_up(self) -> None:
        """A wrong base URL answers 404 too; the job is paid for, so whatever the call says, it stays paid for."""
        for status in range(300, 600):
            for body in (b"", HTML, b"{}"):
                error = self.not_polled(body, status)
                assert not isinstance(error, JobExpired), status
                assert (error.money, error.status_code, error.gateway) == ("spent", status, self.gateway)
                assert isinstance(error, GatewayUnavailable) == (status >= 500 or status in PASSING | {429}), status

    def test_a_documented_error_of_a_poll_leaves_the_job(self) -> None:
        """What would refuse a submit refuses to tell of a job that is bought."""
        for refusal in self.refusals:
            if self.protocol.facts.codes.get(refusal.code or "") != "not_found":
                error = self.not_polled(refusal.body, refusal.status)
                kind = PollRejected if issubclass(refusal.kind, RequestRejected) else refusal.kind
                assert (type(error), error.code, error.money) == (kind, refusal.code, "spent"), refusal
                assert "not bought again" in str(error) or issubclass(refusal.kind, AuthenticationFailed)

    def test_a_job_that_is_not_there_has_expired(self) -> None:
        """Where the gateway says just that."""
        for status, body in self.missing:
            error = self.not_polled(body, status)
            assert (type(error), error.money, error.status_code, error.gateway) == (JobExpired, "spent", status, self.gateway)
            assert error.advice

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
