"""What is written from the catalog for people to read or copy, so that it cannot drift from it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from prefect_happyhorse.catalog import GATEWAYS, GatewayFacts, Route, gateway_facts, routes
from prefect_happyhorse.catalog.cost import price_of
from prefect_happyhorse.domain.requests import REQUEST_CLASSES

__all__ = ["assumed", "costly_defaults", "example_request", "gateways_page", "prices_page", "routes_table"]

_VALUES: dict[str, Any] = {"duration": 5, "resolution": "720p", "aspect_ratio": "16:9"}
_MEDIA = {"video": "mp4", "clip": "mp4", "reference_videos": "mp4", "audio": "mp3", "voice": "mp3"}
_MANY = ("references", "reference_videos")
_COSTLY = ("n", "size", "resolution", "duration", "watermark")


def routes_table(found: Iterable[Route]) -> str:
    """Routes as a markdown table, a line for every gateway and capability.

    Example:
        >>> from prefect_happyhorse.catalog import routes
        >>> print(routes_table(routes("chanjing")).splitlines()[2])
        | `chanjing` | `reference_to_video` | `happyhorse-1.0-r2v` |
    """
    lines: dict[tuple[str, str], list[str]] = {}
    for route in found:
        lines.setdefault((route.gateway, route.capability), []).append(f"`{route.model}`")
    rows = [f"| `{gateway}` | `{capability}` | {', '.join(names)} |" for (gateway, capability), names in lines.items()]
    return "\n".join(["| gateway | capability | models |", "|---|---|---|", *rows])


def costly_defaults(route: Route) -> str:
    """What the provider assumes of the fields that decide what is paid for, or that mark the result.

    Example:
        >>> from prefect_happyhorse.catalog import find_route
        >>> costly_defaults(find_route("ttapi", "reference_to_video", "happyhorse-1.1-r2v"))
        'resolution=1080P, duration=5, watermark=true'
    """
    found = assumed(route)
    return ", ".join(f"{name}={found[name]}" for name in _COSTLY if name in found)


def assumed(route: Route) -> dict[str, str]:
    """What the provider assumes of every field that is not set, as a request writes it."""
    return {name: str(value).lower() if isinstance(value, bool) else str(value) for name, value in route.defaults.items()}


def _by_models(words: Iterable[tuple[str, Route]]) -> list[str]:
    """A line for each thing that is said, with the models that it is said of."""
    said: dict[str, dict[str, None]] = {}
    for word, route in words:
        said.setdefault(word, {})[f"`{route.model}`"] = None
    return [f"- {word}: {', '.join(models)}" for word, models in said.items()]


def gateways_page() -> str:
    """The page `docs/gateways.md`: every route, what is known of each gateway, and what its document leaves open.

    Example:
        >>> gateways_page().splitlines()[0]
        '# Gateways'
    """
    parts = [
        "# Gateways",
        (
            "Written from the catalog by `happyhorse models --page`. What a provider's document leaves open is a setting of the"
            " `GatewayCredentials` block, with the default that is named here."
        ),
        routes_table(routes()),
        "A pool of gateways takes any of these names for the others, of one capability:",
        _families_table(),
    ]
    for gateway in GATEWAYS:
        facts, found = gateway_facts(gateway), routes(gateway)

        def noted(fact: str, facts: GatewayFacts = facts) -> str:
            return f" ({whose})" if (whose := facts.borrowed_note(fact)) else ""

        rows = {
            "source": f"{facts.source}; read {facts.dated.isoformat()}",
            "base URL": facts.base_url or f"none: `base_url` or `{gateway.upper()}_BASE_URL` gives it",
            "regions": ", ".join(f"`{name}` ({region.base_url or 'only with `workspace`'})" for name, region in facts.regions.items()),
            "key": f"`{facts.auth}`",
            "access token": facts.token and f"`{facts.token}`",
            "cancel": facts.cancel and f"`{facts.cancel}`{noted('cancel')}",
            "temporary storage": facts.upload_policy and f"`{facts.upload_policy}`, by `temporary_upload`",
            "results": facts.content and f"`{facts.content}`, with the key",
            "other submit path": facts.alternative_submit and f"`{facts.alternative_submit}`, by `submit_path`",
            "other poll path": facts.alternative_poll and f"`{facts.alternative_poll}`, by `poll_path`",
            "a job can be polled": facts.task_ttl_s and f"{facts.task_ttl_s / 3600:g} h",
            "a result's URL lives": facts.result_ttl_s and f"{facts.result_ttl_s / 3600:g} h{noted('result_ttl_s')}",
            "submits allowed": facts.submits_per_s and f"{facts.submits_per_s:g} a second for each model",
            "media inside a request": facts.max_inline_bytes and f"at most {facts.max_inline_bytes:,} bytes together",
            "polls allowed": facts.polls_per_s and f"{facts.polls_per_s:g} a second{noted('polls_per_s')}",
        }
        parts.append(f"## {facts.title} (`{gateway}`)")
        parts.append("\n".join(["| | |", "|---|---|", *(f"| {name} | {value} |" for name, value in rows.items() if value)]))
        if costly := _by_models((f"`{assumes}`", route) for route in found if (assumes := costly_defaults(route))):
            parts.append("\n".join(["Assumed by the provider where a request does not say:", "", *costly]))
        if borrowed := _by_models(
            (f"`{field.source[0]}`, {field.borrowed}", route) for route in found for field in route.fields if field.borrowed
        ):
            parts.append("\n".join(["Limits that its own document does not name, and whose they are:", "", *borrowed]))
        if facts.open:
            parts.append("\n".join(["Left open, and what was chosen:", "", *(f"- {sentence}" for sentence in facts.open)]))
    return "\n\n".join(parts) + "\n"


def _families_table() -> str:
    """What is called differently here and there."""
    lines: dict[tuple[str, str], list[str]] = {}
    for route in routes():
        if route.model != route.family:
            lines.setdefault((route.family, route.capability), []).append(f"`{route.model}` at `{route.gateway}`")
    rows = [f"| `{family}` | `{capability}` | {', '.join(names)} |" for (family, capability), names in lines.items()]
    return "\n".join(["| family | capability | other names |", "|---|---|---|", *rows])


def prices_page() -> str:
    """The page `docs/prices.md`: what each route costs by the lists in the package, at the gateway's default region.

    Example:
        >>> prices_page().splitlines()[0]
        '# Prices'
    """
    rows: list[str] = []
    without: dict[str, list[str]] = {}
    for route in routes():
        known = price_of(route)
        if not known:
            without.setdefault(route.gateway, []).append(f"`{route.model}` ({route.capability})")
        for row in known:
            whose = "the gateway" if row.gateway or route.facts.is_maker else "the maker"
            price = f"{row}{f' at {row.resolution}' if row.resolution else ''}"
            rows.append(f"| `{route.gateway}` | `{route.capability}` | `{route.model}` | {price} | {whose} | {row.dated.isoformat()} |")
    parts = [
        "# Prices",
        (
            "Written from the price lists in the package by `happyhorse prices --page`. Where it says the maker, the gateway names no"
            " price and may ask another: your own list, which [Costs](costs.md#your-own-prices) describes, comes first."
        ),
        "\n".join(["| gateway | capability | model | price | by the list of | of |", "|---|---|---|---|---|---|", *rows]),
        "## Of unknown price",
        "An unknown price is not zero: a budget refuses these until your own list names one.",
        "\n".join(f"- `{gateway}`: {', '.join(models)}" for gateway, models in without.items()),
    ]
    return "\n\n".join(parts) + "\n"


def example_request(route: Route) -> dict[str, Any]:
    """The fields of a request that a route takes.

    Example:
        >>> from prefect_happyhorse.catalog import find_route
        >>> example_request(find_route("happyhorse", "image_to_video", "happyhorse-1.0-i2v"))["image"]
        'https://example.com/image.png'
    """
    fields = REQUEST_CLASSES[route.capability].model_fields
    required = {*route.required_fields, *(name for name, field in fields.items() if field.is_required())}
    if route.capability.startswith(("reference_to", "multimodal")):
        required.add("references")
    example: dict[str, Any] = {"capability": route.capability, "model": route.model}
    example["prompt"] = "A white horse runs along the beach at dawn."
    for name in sorted(required - set(example)):
        address = f"https://example.com/{name.removesuffix('s')}.{_MEDIA.get(name, 'png')}"
        example[name] = _VALUES.get(name, [address] if name in _MANY else address)
    return example
