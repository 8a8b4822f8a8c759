"""What a gateway sends: where to, with which id, with which key."""

from __future__ import annotations

import traceback
from urllib.parse import unquote

import pytest
from pydantic import SecretStr

from prefect_happyhorse.domain.errors import (
    AuthenticationFailed,
    CatalogError,
)
from prefect_happyhorse.gateways import Account, CallRejected, get_gateway, submit_error

from .dialect import KEY, TASK_ID, Dialect, response


class CallsSuite(Dialect):
    """The calls themselves."""

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
        with pytest.raises(CallRejected) as caught:
            self.protocol.sign(call, SecretStr(key))
        error = submit_error(caught.value, gateway=self.gateway)
        assert (type(error), error.money, "Nothing was sent" in str(error)) == (AuthenticationFailed, "not spent", True)
        shown = "".join(traceback.format_exception(caught.value)) + repr(vars(caught.value))
        assert key.strip() == "" or key.strip() not in shown
        assert not [value for value in call.headers.values() if key and key in value]

    def test_only_a_gateway_of_tokens_exchanges_any(self) -> None:
        """Elsewhere there is nothing to exchange, and no response refuses a token."""
        if self.protocol.facts.token is None:
            with pytest.raises(CatalogError, match="exchanges no access tokens"):
                next(self.protocol.token_flow(self.account))
            assert not self.protocol.refuses_token(response({"code": 10400}, 401))

    def test_a_protocol_has_no_state(self) -> None:
        """All callers share it."""
        assert get_gateway(self.gateway) is get_gateway(self.gateway)
        assert set(vars(self.protocol)) == {"facts"}
