"""One request over several models and gateways, side by side: pictures, seconds, cost.

Run it with `python flows/compare.py REQUEST.json MODEL[@CREDENTIALS] ...`, or deploy it to a work pool.
"""

from __future__ import annotations

import argparse
import asyncio
from pathlib import Path

from prefect import flow, get_run_logger
from pydantic import BaseModel, ConfigDict, Field

from prefect_happyhorse import (
    Budget,
    Gallery,
    GatewayCredentials,
    GenerationError,
    GenerationRequest,
    InvalidRequest,
    MediaAsset,
    MediaStore,
    check_ready,
    generate,
    parse_request,
    resolve,
    show_table,
)
from prefect_happyhorse.catalog import find_problems


class Candidate(BaseModel):
    """A model, and who makes it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: str = Field(description="The model, in place of the request's own.")
    credentials: str = Field(
        default="happyhorse", description="Name of a GatewayCredentials block, or a gateway whose key is in the environment."
    )

    def __str__(self) -> str:
        return f"{self.model} with {self.credentials}"


class Compared(BaseModel):
    """What a candidate made of the request."""

    model_config = ConfigDict(frozen=True)

    candidate: Candidate
    asset: MediaAsset | None = None
    seconds: float | None = None
    error: str | None = None


class ComparisonFailed(RuntimeError):
    """Raised at the end of a comparison of which no candidate made anything."""


def _request_for(request: GenerationRequest, candidate: Candidate) -> GenerationRequest:
    return type(request).model_validate(request.model_dump() | {"model": candidate.model})


async def _refuse_early(request: GenerationRequest, candidates: list[Candidate]) -> None:
    """Check the request for every candidate before the first is paid for."""
    problems: list[str] = [] if candidates else ["candidates: at least one is wanted"]
    if twice := {str(one) for one in candidates if candidates.count(one) > 1}:
        problems.append(f"candidates: {', '.join(sorted(twice))} stands there twice")
    for candidate in candidates:
        account = (await GatewayCredentials.find(candidate.credentials)).to_account()
        theirs = _request_for(request, candidate)
        try:
            found = find_problems(theirs, resolve(theirs, account.gateway))
        except InvalidRequest as error:
            found = (error.message, *error.problems)
        problems.extend(f"{candidate}: {problem}" for problem in found)
    if problems:
        raise InvalidRequest("The comparison cannot run as it is asked for. Nothing was sent.", problems=tuple(problems))


def _size(asset: MediaAsset) -> str:
    # Without the extra `media` nothing here can tell it.
    return "unknown" if asset.width is None or asset.height is None else f"{asset.width} x {asset.height}"


def _line(result: Compared) -> dict[str, object]:
    asset = result.asset
    return {
        "model": result.candidate.model,
        "credentials": result.candidate.credentials,
        "seconds": "" if result.seconds is None else round(result.seconds, 1),
        "cost": "" if asset is None else str(asset.estimate or "unknown"),
        "size": "" if asset is None else _size(asset),
        "file": "" if asset is None else asset.uri,
        "error": result.error or "",
    }


@flow(name="compare", flow_run_name="compare {request.capability}", persist_result=True, result_serializer="json")
async def compare(
    request: GenerationRequest,
    candidates: list[Candidate],
    *,
    store: str | None = None,
    take: int = 1,
    deadline_s: float = 3600.0,
    budget: Budget | None = None,
) -> list[Compared]:
    """Make the same request with several models and gateways, and show the results side by side with time and cost.

    Args:
        request: What to make; its model is replaced by each candidate's.
        candidates: The models, and who makes them.
        store: Name of a MediaStore block. Empty: HAPPYHORSE_STORE, else the folder outputs.
        take: Another number makes another variation of each.
        deadline_s: How long each may take, in seconds.
        budget: The most that all jobs of the store's journal may cost, earlier runs' included.

    Returns:
        What each made, in the order in which they were named. One that failed says why, and stops no other.

    Raises:
        InvalidRequest: When a candidate cannot make the request; nothing was sent.
        ComparisonFailed: At the end, when every candidate failed; each is named with its reason.
    """
    await check_ready(store, *(candidate.credentials for candidate in candidates))
    await _refuse_early(request, candidates)
    place = await MediaStore.find(store)
    gallery = Gallery(store=place.to_store(), title=f"compare {request.capability}")

    async def one(position: int, candidate: Candidate) -> Compared:
        theirs = _request_for(request, candidate)
        try:
            asset = await generate(theirs, candidate.credentials, place, take=take, deadline_s=deadline_s, budget=budget)
        except (GenerationError, ValueError, OSError) as error:
            get_run_logger().error("%s: %s", candidate, error)
            return Compared(candidate=candidate, error=f"{type(error).__name__}: {error}")
        took = asset.elapsed_s
        estimate = asset.estimate
        cost = f"{estimate.amount} {estimate.currency}" if estimate is not None and estimate.known else "unknown"
        time = "time unknown" if took is None else f"{took:.1f} s"
        await gallery.add(f"{candidate}: {time}, cost {cost}", asset, place=position)
        return Compared(candidate=candidate, asset=asset, seconds=took)

    results = await asyncio.gather(*(one(position, candidate) for position, candidate in enumerate(candidates)))
    await gallery.show()
    await show_table([_line(result) for result in results], key="compare", description=f"{request.capability}: {request.prompt}")
    if all(result.asset is None for result in results):
        told = "\n".join([f"All {len(results)} candidates failed:", *(f"  {result.candidate}: {result.error}" for result in results)])
        raise ComparisonFailed(f"{told}\nRun it again to try what can still be made; nothing is bought twice.")
    return results


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Make one request with several models and gateways.")
    parser.add_argument("request", help="a request in JSON")
    parser.add_argument("candidates", nargs="+", metavar="MODEL[@CREDENTIALS]")
    arguments = parser.parse_args()
    words = (word.partition("@") for word in arguments.candidates)
    chosen = [Candidate(model=model, credentials=payer or "happyhorse") for model, _, payer in words]
    for result in asyncio.run(compare(parse_request(Path(arguments.request).read_bytes()), chosen)):
        print(f"{result.candidate!s:40} {result.error or (result.asset and result.asset.uri)}")
