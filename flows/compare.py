"""One request over several models and gateways, side by side: pictures, seconds, cost.

Run it with `python flows/compare.py REQUEST.json MODEL[@CREDENTIALS] ...`, or deploy it to a work pool.
"""

from __future__ import annotations

import argparse
import asyncio
from pathlib import Path

from prefect import flow
from pydantic import BaseModel, Field

from prefect_happyhorse import (
    Budget,
    Gallery,
    GenerationRequest,
    ItemsFailed,
    MediaAsset,
    MediaStore,
    check_ready,
    check_requests,
    gather_limited,
    generate,
    parse_request,
    show_table,
)


class Candidate(BaseModel, extra="forbid", frozen=True):
    """A model, and who makes it."""

    model: str = Field(description="The model, in place of the request's own.")
    credentials: str = Field(
        default="happyhorse", description="Name of a GatewayCredentials block, or a gateway whose key is in the environment."
    )

    def __str__(self) -> str:
        return f"{self.model} with {self.credentials}"


class Compared(BaseModel, frozen=True):
    """What a candidate made of the request."""

    candidate: Candidate
    asset: MediaAsset | None = None
    seconds: float | None = None
    error: str | None = None


class ComparisonFailed(ItemsFailed):
    """Raised at the end of a comparison of which no candidate made anything."""


def _size(asset: MediaAsset) -> str:
    # Without the extra `media` nothing here can tell it.
    return "unknown" if asset.width is None or asset.height is None else f"{asset.width} x {asset.height}"


def _line(result: Compared) -> dict[str, object]:
    asset = result.asset
    return {
        "model": result.candidate.model,
        "credentials": result.candidate.credentials,
        "seconds": "" if result.seconds is None else round(result.seconds, 1),
        "cost": "" if asset is None else "unknown" if asset.estimate is None else asset.estimate.figure,
        "size": "" if asset is None else _size(asset),
        "error": result.error or "",
        "file": "" if asset is None else asset.uri,
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
    labels: dict[str, str] | None = None,
) -> list[Compared]:
    """Make the same request with several models and gateways, and show the results side by side with time and cost.

    Args:
        request: What to make; its model is replaced by each candidate's.
        candidates: The models, and who makes them.
        store: Name of a MediaStore block, a folder, or an fsspec URL. Empty: HAPPYHORSE_STORE, else the folder outputs.
        take: Another number makes another variation of each.
        deadline_s: How long each may take, in seconds.
        budget: The most that all jobs of the store's journal may cost, earlier runs' included.
        labels: What the jobs are called by in the journal and in `happyhorse spend`, such as a project.

    Returns:
        What each made, in the order in which they were named. One that failed says why, and stops no other.

    Raises:
        InvalidRequest: When a candidate cannot make the request; nothing was sent.
        ComparisonFailed: At the end, when every candidate failed; each is named with its reason.
    """
    await check_ready(store, *(candidate.credentials for candidate in candidates))
    requests = {candidate: request.model_copy(update={"model": candidate.model}) for candidate in candidates}
    problems = [] if candidates else ["candidates must hold at least one"]
    problems += [f"candidates must differ (got {one} {candidates.count(one)} times)" for one in requests if candidates.count(one) > 1]
    await check_requests([(str(one), theirs, one.credentials) for one, theirs in requests.items()], store, problems=problems)
    place = await MediaStore.find(store)
    gallery = Gallery(store=place.to_store(), title=f"compare {request.capability}")

    async def make(candidate: Candidate) -> Compared:
        asset = await generate(
            requests[candidate], candidate.credentials, place, take=take, deadline_s=deadline_s, budget=budget, labels=labels
        )
        took = asset.elapsed_s
        time = "time unknown" if took is None else f"{took:.1f} s"
        await gallery.add(f"{candidate}: {time}", asset, place=candidates.index(candidate))
        return Compared(candidate=candidate, asset=asset, seconds=took)

    made = await gather_limited(make, candidates, limit=len(candidates))
    await gallery.show()
    results = [
        Compared(candidate=candidate, error=f"{type(one).__name__}: {one}") if isinstance(one, Exception) else one
        for candidate, one in zip(candidates, made, strict=True)
    ]
    await show_table([_line(result) for result in results], key="compare", description=f"{request.capability}: {request.prompt}")
    failed = {str(result.candidate): result.error for result in results if result.error is not None}
    if len(failed) == len(results):
        advice = "Run it again to try what can still be made; nothing is bought twice."
        raise ComparisonFailed(f"All {len(results)} candidates failed", failed, advice)
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
