"""How it is with Prefect: its version, its server, and the workers of the deployments."""

from __future__ import annotations

import re
from importlib.metadata import requires

import httpx
import prefect
from prefect.client.base import ServerType
from prefect.client.orchestration import PrefectClient, get_client
from prefect.client.schemas.filters import DeploymentFilter, DeploymentFilterTags
from prefect.client.schemas.objects import WorkerStatus
from prefect.client.schemas.responses import DeploymentResponse
from prefect.exceptions import ObjectNotFound
from prefect.settings import get_current_settings

from prefect_happyhorse.cli.doctor.findings import Finding, ok, problem, warning

__all__ = ["api_url", "check_prefect", "require_api"]


def api_url() -> str | None:
    """The address of the Prefect API, or None where each script starts a server of its own."""
    return get_current_settings().api.url


async def check_prefect() -> list[Finding]:
    """The versions here and on the server, and whether anybody works on the deployments."""
    found = [_installed()]
    url = api_url()
    if url is None:
        what = "none is named, so each script starts one of its own for its time"
        return [*found, warning("prefect server", what, "For runs that can be seen later, start one and set PREFECT_API_URL.")]
    async with get_client() as client:
        if (wrong := await _wrong_with(client)) is not None:
            return [*found, problem("prefect server", *wrong)]
        # Prefect Cloud fits every client.
        known = client.server_type is ServerType.CLOUD
        found.append(ok("prefect server", f"{url} answers") if known else _server(url, await client.api_version()))
        return [*found, *await _workers(client)]


async def require_api() -> None:
    """ValueError where the named server is none, or none that Prefect's client can use."""
    if api_url() is not None:
        async with get_client() as client:
            if (wrong := await _wrong_with(client)) is not None:
                raise ValueError(" ".join((f"{wrong[0]}.", wrong[1])))


async def _wrong_with(client: PrefectClient) -> tuple[str, str] | None:
    """Why the server cannot be used, and what to do; a server of anything may answer a health check."""
    path, error = "health", await client.api_healthcheck()
    if error is None and client.server_type is not ServerType.CLOUD:
        path = "admin/version"
        try:
            if re.match(r"\d+\.", await client.api_version()):
                return None
            error = ValueError()
        except (httpx.HTTPError, ValueError, TypeError) as failed:
            error = failed
    url = str(client.api_url).rstrip("/")
    advice = "PREFECT_API_URL must be the API of a Prefect server, such as http://127.0.0.1:4200/api."
    match error:
        case None:
            return None
        case httpx.HTTPStatusError():
            answer = f"{error.response.status_code} {error.response.reason_phrase}".strip()
            if error.response.status_code in {401, 403}:
                advice = "Set PREFECT_API_KEY or PREFECT_API_AUTH_STRING, as the server asks for it."
        case ValueError() | TypeError():
            answer = "what is no version of Prefect"
        case _:
            return f"{url} does not answer: {type(error).__name__}: {error}", "Start it (prefect server start), or correct PREFECT_API_URL."
    return f"GET {url}/{path} was answered with {answer}", advice


def _installed() -> Finding:
    bounds = next(line for line in requires("prefect-happyhorse") or [] if re.match(r"prefect\b(?!-)", line))
    lower, upper = (re.search(rf"{sign}([\d.]+)", bounds) for sign in (">=", "<"))
    here = _release(prefect.__version__)
    if (lower and here < _release(lower[1])) or (upper and here >= _release(upper[1])):
        return problem("prefect", f"{prefect.__version__} is installed, and {bounds} is needed", f"pip install '{bounds}'")
    return ok("prefect", f"{prefect.__version__} is installed")


def _release(version: str) -> list[int]:
    return [int(part) for part in re.findall(r"\d+", version)[:2]]


def _server(url: str, theirs: str) -> Finding:
    if _release(theirs) < _release(prefect.__version__):
        what = f"{url} has version {theirs}, which is older than {prefect.__version__} here"
        return warning("prefect server", what, "Update the server first, then its clients.")
    return ok("prefect server", f"{url} answers, version {theirs}")


async def _workers(client: PrefectClient) -> list[Finding]:
    tagged = DeploymentFilter(tags=DeploymentFilterTags(all_=["happyhorse"]))
    deployments = await client.read_deployments(deployment_filter=tagged)
    pools = sorted({one.work_pool_name for one in deployments if one.work_pool_name})
    if not deployments:
        if not await client.read_deployments(limit=1):
            return [ok("workers", "there is no deployment, so none is needed")]
        return [ok("workers", "were not looked at: no deployment has the tag happyhorse, by which those that run these flows are known")]
    paused = [await _paused(client, one) for one in deployments if one.paused]
    if not pools:
        return [ok("workers", "the deployments with the tag happyhorse have no work pool, so none is needed"), *paused]
    return [*[await _pool(client, pool) for pool in pools], *paused]


async def _paused(client: PrefectClient, deployment: DeploymentResponse) -> Finding:
    name = f"{(await client.read_flow(deployment.flow_id)).name}/{deployment.name}"
    # Prefect's `deployment schedule resume` is about one schedule, and answers "already active" here.
    resume = f"prefect api POST /deployments/{deployment.id}/resume_deployment"
    advice = f"If a submit was uncertain, settle it first (happyhorse jobs list --open). Then resume it: {resume}"
    return warning(f"deployment {name}", "is paused: its schedules start no run", advice)


async def _pool(client: PrefectClient, pool: str) -> Finding:
    check = f"pool {pool}"
    try:
        paused = (await client.read_work_pool(pool)).is_paused
        workers = await client.read_workers_for_work_pool(pool)
    except ObjectNotFound:
        return problem(check, "is not there, and deployments name it", f"prefect work-pool create {pool} --type process")
    if paused:
        return warning(check, "is paused: its runs wait", f"prefect work-pool resume {pool}")
    online = [worker for worker in workers if worker.status is WorkerStatus.ONLINE]
    if not online:
        return problem(check, "has no worker online: its runs wait", f"prefect worker start --pool {pool}")
    return ok(check, f"has {len(online)} worker{'s' if len(online) > 1 else ''} online")
