"""What there is to filter jobs by."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from prefect_happyhorse.engine.journal.index import Line

__all__ = ["Facets", "facets"]

Facets = dict[str, list[tuple[str, int]]]

_MOST_LABELS = 500


def facets(lines: Iterable[Line]) -> Facets:
    """Of each fact its values and how many jobs have it; days the latest first, labels only the most frequent ones."""
    states: Counter[str] = Counter()
    gateways: Counter[str] = Counter()
    models: Counter[str] = Counter()
    days: Counter[str] = Counter()
    labels: Counter[tuple[str, str]] = Counter()
    for line in lines:
        states[line.state] += 1
        gateways[line.gateway] += 1
        models[line.model] += 1
        days[line.begun_at.date().isoformat()] += 1
        labels.update(line.labels)
    return {
        "state": sorted(states.items()),
        "gateway": sorted(gateways.items()),
        "model": sorted(models.items()),
        "day": sorted(days.items(), reverse=True),
        "label": sorted((f"{name}={value}", count) for (name, value), count in labels.most_common(_MOST_LABELS)),
    }
