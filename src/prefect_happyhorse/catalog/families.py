"""Families: one model under the names that several gateways give it."""

from __future__ import annotations

from typing import Any

from prefect_happyhorse.catalog.check import find_problems
from prefect_happyhorse.catalog.loader import offers, routes
from prefect_happyhorse.catalog.routes import Route
from prefect_happyhorse.domain.errors import InvalidRequest
from prefect_happyhorse.domain.requests import GenerationRequest

__all__ = ["as_offered", "of_family"]


def of_family(request: GenerationRequest) -> GenerationRequest:
    """A request with the family's name of its model, and the resolution that the model's own name stands for.

    Example:
        >>> from prefect_happyhorse.domain.requests import TextToVideo
        >>> neutral = of_family(TextToVideo(model="happy-horse-720p", prompt="A horse", duration=5))
        >>> neutral.model, neutral.resolution
        ('happyhorse-1.0-t2v', '720p')
    """
    capability, model = request.capability, request.model
    members = [route for route in routes() if route.capability == capability and model in {route.model, route.family}]
    families = {route.family for route in members}
    family = model if model in families else min(families, default=None)
    if family is None or (family != model and len(families) > 1):
        what = "No gateway offers" if family is None else f"{', '.join(sorted(families))} are the families of"
        raise InvalidRequest(
            f"{what} {capability} with model {model!r}.",
            capability=capability,
            model=model,
            problems=offers("", capability, model),
            advice="`happyhorse models` lists every route. Nothing was sent.",
        )
    changes: dict[str, Any] = {"model": family}
    resolutions = {_resolution(route) for route in members if route.model == model} - {None}
    if family != model and len(resolutions) == 1:
        asked: str | None = getattr(request, "resolution", None)
        if asked not in {None, *resolutions}:
            told = f"resolution must be {min(filter(None, resolutions))!r} for {model!r} (got {asked!r})"
            raise InvalidRequest(f"{told}. Nothing was sent.", capability=capability, model=model, problems=(told,))
        changes["resolution"] = resolutions.pop()
    return request.model_copy(update=changes)


def as_offered(request: GenerationRequest, gateway: str) -> GenerationRequest:
    """A request of a family with the name that a gateway gives the model; where it has several, the one that can carry the request.

    Example:
        >>> from prefect_happyhorse.domain.requests import TextToVideo
        >>> as_offered(TextToVideo(model="happyhorse-1.0-t2v", prompt="A horse", duration=5), "uniall").model
        'happy-horse-720p'
    """
    facts: dict[str, Any] = {"gateway": gateway, "capability": request.capability, "model": request.model}
    found = [route for route in routes(gateway) if (route.capability, route.family) == (request.capability, request.model)]
    if not found:
        raise InvalidRequest(
            f"{gateway} does not offer {request.capability} with {request.model!r} by any name.",
            problems=offers(gateway, request.capability, request.model),
            **facts,
        )
    named = [request.model_copy(update={"model": route.model}) for route in found]
    # Of several none may fit; then the one that is nearest says what is wrong.
    problems = [len(find_problems(one, route)) for one, route in zip(named, found, strict=True)]
    if problems.count(0) > 1:
        names = ", ".join(route.model for route in found)
        told = f"resolution must be set for {gateway}, which sells {request.model} as {names}"
        raise InvalidRequest(f"{told}. Nothing was sent.", problems=(told,), **facts)
    return named[problems.index(min(problems))]


def _resolution(route: Route) -> str | None:
    """The only resolution that a route takes, or None."""
    values = {str(value).lower() for field in route.fields if "resolution" in field.source for value in field.values}
    return values.pop() if len(values) == 1 else None
