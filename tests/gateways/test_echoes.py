"""What a provider sends back of what it must not keep: secrets of the account, signatures, and what moves a terminal."""

from __future__ import annotations

import httpx
import pytest
from pydantic import SecretStr

from prefect_happyhorse.domain.jobs import JobStatus
from prefect_happyhorse.gateways import Account, CallError, get_gateway, poll_error

from .dialect import KEY, TASK_ID, response
from .test_hostile import APP_ID, SECRET, accepted, account, error_of, every_gateway, route_of, state, word

SIGNED = "https://cdn.example/horse.mp4?Expires=1&Signature=c2lnbmF0dXJl"


def answered(gateway: str, body: object, status: int = 200) -> httpx.Response:
    """The answer to a poll of an account with all three secrets."""
    call = get_gateway(gateway).poll_request(route_of(gateway), TASK_ID, account(gateway))
    get_gateway(gateway).sign(call, SecretStr(KEY))
    return response(body, status, request=call)


@every_gateway
@pytest.mark.parametrize("secret", [KEY, SECRET, APP_ID])
def test_an_accounts_secrets_are_kept_nowhere(gateway: str, secret: str) -> None:
    """Neither in a reason, a word, an id or `usage`, nor in an error."""
    protocol, route = get_gateway(gateway), route_of(gateway)
    usage = {secret: [secret, {"deep": f"Bearer {secret}"}]}
    body = {**state(gateway, word(gateway, JobStatus.FAILED), reason=f"no {secret}", usage=usage), "request_id": secret, "trace_id": secret}
    snapshot = protocol.read_poll(answered(gateway, body), route)
    assert snapshot.usage == {"***": ["***", {"deep": "Bearer ***"}]}
    assert (snapshot.message, snapshot.request_id) == ("no ***", "***")
    assert protocol.read_poll(answered(gateway, state(gateway, f"w {secret}")), route).provider_status == "w ***"
    for status in (200, 400, 409, 500):
        with pytest.raises(CallError) as caught:
            protocol.read_poll(answered(gateway, {"message": secret, "msg": secret, "code": secret}, status), route)
        assert secret not in f"{caught.value!r} {poll_error(caught.value, gateway=gateway)}"
    error = error_of(gateway, answered(gateway, accepted(gateway, f"t-{secret}")))
    assert (error.money, error.task_id) == ("may be spent", None), "an id is kept as it is or not at all"
    assert secret not in str(error) + repr(vars(error))


@every_gateway
def test_a_short_secret_loses_no_job(gateway: str) -> None:
    """An id may hold the few letters of a test's key by chance."""
    call = get_gateway(gateway).poll_request(
        route_of(gateway), TASK_ID, Account(gateway=gateway, base_url="https://h", key=SecretStr("0385dc79"), app_id="4")
    )
    answer = response(accepted(gateway), request=call)
    assert get_gateway(gateway).read_submit(answer, route_of(gateway)).task_id == TASK_ID


@every_gateway
def test_an_app_id_of_few_letters_garbles_nothing(gateway: str) -> None:
    """It is no secret that could be told from a text's own letters."""
    call = get_gateway(gateway).poll_request(route_of(gateway), TASK_ID, Account(gateway=gateway, base_url="https://h", app_id="4"))
    failed = state(gateway, word(gateway, JobStatus.FAILED), reason="40 seconds")
    assert get_gateway(gateway).read_poll(response(failed, request=call), route_of(gateway)).message == "40 seconds"


@every_gateway
def test_a_signature_stays_in_the_result_alone(gateway: str) -> None:
    """The address is needed as it is; where a provider repeats one in words or in `usage`, its query is left out."""
    protocol, route = get_gateway(gateway), route_of(gateway)
    done = protocol.read_poll(response(state(gateway, word(gateway, JobStatus.SUCCEEDED), results=[SIGNED], usage={"file": SIGNED})), route)
    assert [output.url for output in done.outputs] == [SIGNED]
    assert done.usage == {"file": "https://cdn.example/horse.mp4?…"}
    failed = protocol.read_poll(response(state(gateway, word(gateway, JobStatus.FAILED), reason=f"cannot read {SIGNED}")), route)
    assert failed.message == "cannot read https://cdn.example/horse.mp4?…"
    for status in (200, 308, 400, 409, 500):
        with pytest.raises(CallError) as caught:
            protocol.read_poll(response({"oops": SIGNED}, status, headers={"location": SIGNED}), route)
        assert "c2lnbmF0dXJl" not in f"{caught.value!r} {poll_error(caught.value, gateway=gateway)}", status


@every_gateway
def test_what_moves_a_terminal_is_shown_as_text(gateway: str) -> None:
    """In words, reasons, codes and `usage`."""
    protocol, route = get_gateway(gateway), route_of(gateway)
    assert protocol.read_poll(response(state(gateway, "w\x1b[2J")), route).provider_status == "w\\x1b[2J"
    failed = protocol.read_poll(response(state(gateway, word(gateway, JobStatus.FAILED), reason="a\x1b]0;b\x07\nc")), route)
    assert failed.message == "a\\x1b]0;b\\x07\nc"
