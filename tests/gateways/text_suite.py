"""Texts of a gateway: keys that it echoes, encodings that there are not, characters that are cut."""

from __future__ import annotations

import json
import pickle
import traceback
from typing import Any

import cloudpickle
import httpx
import pytest

from prefect_happyhorse.catalog import routes
from prefect_happyhorse.domain.errors import (
    ProtocolError,
)
from prefect_happyhorse.domain.jobs import JobSnapshot, JobStatus, Submission
from prefect_happyhorse.gateways import CallError, MalformedResponse, poll_error, submit_error

from .dialect import HTML, KEY, TASK_ID, Dialect, response


class TextSuite(Dialect):
    """What an answer says."""

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
        except CallError as call:
            meaning = submit_error if read == self.protocol.read_submit else poll_error
            error = meaning(call, gateway=self.gateway)
            error.__cause__ = call
            kept = pickle.dumps(error).decode("latin-1") + cloudpickle.dumps(error).decode("latin-1")
            causes = [str(vars(cause)) for cause in (call, call.__cause__, call.__context__) if cause is not None]
            return "".join((*traceback.format_exception(error), str(error), repr(error), str(vars(error)), kept, *causes))
        if isinstance(value, Submission):
            return str(value.model_dump(exclude={"task_id"}))
        return str(value.model_dump(exclude={"outputs"}))

    def test_an_answer_without_its_request_is_read_too(self) -> None:
        """A recorded one, for example."""
        assert "secret" in str(self.refused(b"secret"))

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
        assert JobSnapshot.model_validate_json(state.model_dump_json()) == state

    def test_every_route_of_the_gateway_reads_alike(self) -> None:
        """An unreadable answer is one on each of them."""
        for route in routes(self.gateway):
            for read in (self.protocol.read_submit, self.protocol.read_poll):
                with pytest.raises(MalformedResponse):
                    read(response(HTML), route)
