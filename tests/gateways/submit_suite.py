"""What a gateway reads from the answer to a submit, and what it must never take for a refusal."""

from __future__ import annotations

import pytest

from prefect_happyhorse.domain.errors import (
    GatewayUnavailable,
    ModerationRejected,
    ProtocolError,
)
from prefect_happyhorse.domain.jobs import JobStatus
from prefect_happyhorse.gateways import CallError, submit_error

from .dialect import HTML, PASSING, REFUSING, TASK_ID, UNREADABLE, Dialect


class SubmitSuite(Dialect):
    """Answers to submits."""

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

    def test_a_number_beyond_reading_is_no_id(self) -> None:
        """Python reads no number of so many digits: what stands beside it is read all the same."""
        body = b'{"id": ' + b"9" * 5000 + b"}"
        error = self.refused(body)
        assert isinstance(error, ProtocolError)
        assert (error.money, error.status_code, error.gateway, error.retryable) == ("may be spent", 200, self.gateway, False)
        assert (error.task_id, error.excerpt) == (None, body.decode()[:300])

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
        """In a redirect or an error it makes no job; but whatever the status says, the job may be there."""
        for status in range(300, 600):
            error = self.refused(self.accepted(), status)
            assert (error.money, error.task_id) == ("may be spent", TASK_ID), status

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
                found = self.submit(body).task_id
            except CallError as error:
                found = submit_error(error, gateway=self.gateway).money
            assert found in {TASK_ID, "may be spent"}, refusal

    def test_moderation_is_told_apart_where_there_is_a_code(self) -> None:
        """The same request would be refused again."""
        codes = {code for code, meaning in self.protocol.facts.codes.items() if meaning == "moderation"}
        shown = {refusal.code for refusal in self.refusals if refusal.kind is ModerationRejected}
        assert shown <= codes
        assert bool(shown) == bool(codes)
