"""Whether the gateways can be reached, take the key, and have the same time: asked by polling a job that is not there, which is free."""

from __future__ import annotations

import os
import time
import urllib.request
from dataclasses import replace
from email.utils import parsedate_to_datetime
from urllib.parse import urlsplit

import httpx
from pydantic import ValidationError

from prefect_happyhorse.blocks import GatewayCredentials
from prefect_happyhorse.blocks.credentials import environment_names
from prefect_happyhorse.catalog import GATEWAYS, Route, routes
from prefect_happyhorse.cli.doctor.findings import Finding, ok, problem, warning
from prefect_happyhorse.cli.doctor.server import api_url
from prefect_happyhorse.domain.errors import AuthenticationFailed
from prefect_happyhorse.domain.jobs import JobStatus
from prefect_happyhorse.domain.settings import NO_PROXY, current
from prefect_happyhorse.domain.validation import validation_problems
from prefect_happyhorse.engine.http.auth import TokenStore
from prefect_happyhorse.engine.http.client import send
from prefect_happyhorse.engine.http.connections import Client, Connections, ssl_context
from prefect_happyhorse.engine.jobs.shared import PROCESS
from prefect_happyhorse.gateways import Account, CallError, CallRejected, CallUnavailable, JobUnknown, get_gateway

__all__ = ["check_gateway", "check_network", "configured"]

_NO_SUCH_JOB = "00000000-0000-0000-0000-000000000000"
_SKEW_S = 30.0
# From here on S3 refuses what is signed: https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html, RequestTimeTooSkewed.
_MOST_SKEW_S = 900.0


def configured() -> list[str]:
    """The gateways that have a key in the environment."""
    return [
        gateway
        for gateway in GATEWAYS
        if any(os.environ.get(name) for field, name in environment_names(gateway).items() if field in {"api_key", "app_id"})
    ]


async def check_network() -> list[Finding]:
    """By which proxy gateways are called, and by which certificates they are trusted."""
    chosen = current()
    found: list[Finding] = []
    if chosen.proxy is not None:
        address = chosen.proxy.get_secret_value()
        found.append(ok("proxy", "none, as is set" if address == NO_PROXY else f"{_host(address)}, as is set"))
    else:
        proxies = {_host(address) for scheme, address in urllib.request.getproxies().items() if scheme in {"https", "all"}}
        found.append(ok("proxy", f"{', '.join(sorted(proxies))}, by the environment" if proxies else "none"))
    try:
        ssl_context(chosen.ca_bundle)
    except OSError as error:
        advice = "Mend PREFECT_INTEGRATIONS_HAPPYHORSE_CA_BUNDLE, or SSL_CERT_FILE."
        return [*found, problem("certificates", f"{error}", advice)]
    known = os.environ.get("SSL_CERT_FILE") or "the public authorities"
    return [*found, ok("certificates", known if chosen.ca_bundle is None else f"{known}, and those of {chosen.ca_bundle}")]


def _host(address: str) -> str:
    # An address of a proxy may hold a password.
    parts = urlsplit(address)
    return f"{parts.hostname}:{parts.port}" if parts.port else f"{parts.hostname}"


async def check_gateway(name: str, *, call_s: float) -> list[Finding]:
    """How it is with the gateway or the block of that name."""
    check = f"gateway {name}" if name in GATEWAYS else f"block {name}"
    variable = f"{name.upper()}_API_KEY" if name in GATEWAYS else "the block"
    try:
        if name in configured():
            block = GatewayCredentials.from_environment(name)
        elif api_url() is None:
            return [problem(check, "has no key in the environment, and no server holds its block", f"Set {variable}, or PREFECT_API_URL.")]
        else:
            block = await GatewayCredentials.find(name)
        account = block.to_account()
    except ValidationError as error:
        return [problem(check, "; ".join(validation_problems(error)), f"Mend {variable} and what belongs to it.")]
    except AuthenticationFailed as error:
        return [problem(check, error.message, error.advice or "")]
    except (ValueError, OSError, httpx.HTTPError) as error:
        return [problem(check, str(error), "Mend it, or take it out.")]
    try:
        async with Connections(call_s=call_s).client() as client:
            return await _ask(check, account, client)
    except OSError as error:
        return [problem(check, f"could not be asked: {error}", "See what is said of the certificates.")]


async def _ask(check: str, account: Account, client: Client) -> list[Finding]:
    """Poll a job that is not there, by each way that the gateway has, until one tells whether the key is taken."""
    found: list[Finding] = []
    for route, polled in _polls(account):
        started = time.monotonic()
        try:
            answer = await send(client, get_gateway(account.gateway), polled, _poll(route, polled), TokenStore())
        except CallRejected as error:
            # Before anything was polled: the key is none, or no access token was given for it.
            advice = error.advice or "Give a key that is not expired, in the block or the environment."
            return [problem(check, f"the key is not taken: {error.message}", advice)]
        except CallError as error:
            # What an earlier answer said still holds.
            return found or [_unreachable(check, error)]
        found = [ok(check, f"{account.base_url} answers in {time.monotonic() - started:.1f} s"), *_clock(check, answer)]
        verdict = _key(check, answer, route)
        found.append(verdict)
        if verdict.level != "warning":
            break
    return found


def _polls(account: Account) -> list[tuple[Route, Account]]:
    """Each way to poll that the gateway's documents name, once."""
    found = {path: route for route in routes(account.gateway) for path in PROCESS.poll_paths(account, route)}
    return [(route, replace(account, poll_path=path)) for path, route in found.items()]


def _poll(route: Route, account: Account) -> httpx.Request:
    return get_gateway(account.gateway).poll_request(route, _NO_SUCH_JOB, account)


def _key(check: str, answer: httpx.Response, route: Route) -> Finding:
    """What the answer to the poll of a job that is not there says of the key."""
    try:
        snapshot = get_gateway(route.gateway).read_poll(answer, route)
    except JobUnknown:
        return ok(check, "the key is taken")
    except CallRejected as error:
        if error.meaning == "authentication":
            return problem(check, f"the key is refused: {error.message}", "Give a key of this gateway and region that is not expired.")
        if error.meaning == "quota":
            return problem(check, f"the key is taken, and the account has nothing left: {error.message}", "Top it up.")
        documented = error.code in get_gateway(route.gateway).facts.codes
        advice = "It has another code for a key that it refuses, so it seems to be." if documented else "Check the base URL and the paths."
        return warning(check, f"whether the key is taken is not known: {error.message}", advice)
    except CallError as error:
        later = isinstance(error, CallUnavailable)
        advice = "Ask again later." if later else "Check that the base URL is this gateway's, without the path of an endpoint."
        return warning(check, f"whether the key is taken is not known: {error.message}", advice)
    if snapshot.status is JobStatus.EXPIRED:
        return ok(check, "the key is taken")
    said = snapshot.provider_status or snapshot.status.value
    return warning(check, f"says {said!r} of a job that is not there", "Whether the key is taken is not known: check the base URL.")


def _unreachable(check: str, error: CallError) -> Finding:
    not_asked = " Key and clock were not asked."
    if "CERTIFICATE_VERIFY_FAILED" in error.message:
        advice = "Where a company's proxy looks inside, name its certificate in PREFECT_INTEGRATIONS_HAPPYHORSE_CA_BUNDLE." + not_asked
    elif "ProxyError" in error.message:
        advice = "Check the proxy: PREFECT_INTEGRATIONS_HAPPYHORSE_PROXY, else HTTPS_PROXY and NO_PROXY." + not_asked
    else:
        advice = "Check the network, the base URL, and whether there is a proxy to be named." + not_asked
    return problem(check, error.message, advice)


def _clock(check: str, answer: httpx.Response) -> list[Finding]:
    now = time.time()
    try:
        skew_s = now - parsedate_to_datetime(answer.headers["date"]).timestamp()
    except (KeyError, ValueError, TypeError):
        return [ok(check, "says no time to compare the clock with")]
    if abs(skew_s) <= _SKEW_S:
        return [ok(check, "has the same time as this machine")]
    what = f"this machine's clock is {abs(skew_s):.0f} s {'ahead of' if skew_s > 0 else 'behind'} the gateway's"
    advice = "Let the system keep its time (NTP): addresses are signed, and expire, by it."
    return [problem(check, what, advice) if abs(skew_s) > _MOST_SKEW_S else warning(check, what, advice)]
