"""What there is to filter jobs by."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import chain

from prefect_happyhorse.engine.journal.index import Line

__all__ = ["Facets", "facets"]

Facets = dict[str, list[tuple[str, int]]]

_MOST_LABELS = 500


def facets(lines: Sequence[Line]) -> Facets:
    """Of each fact its values and how many jobs have it; days the latest first, labels only the most frequent ones."""
    # A lease that was released means that nothing was bought; such are shown only where the state says so.
    jobs = [line for line in lines if line.state != "released"]
    days = Counter(line.begun_at.date() for line in jobs)
    labels = Counter(chain.from_iterable(line.labels for line in jobs if line.labels))
    return {
        "state": sorted(Counter(line.state for line in lines).items()),
        "gateway": sorted(Counter(line.gateway for line in jobs).items()),
        "model": sorted(Counter(line.model for line in jobs).items()),
        "day": [(day.isoformat(), count) for day, count in sorted(days.items(), reverse=True)],
        "label": sorted((f"{name}={value}", count) for (name, value), count in labels.most_common(_MOST_LABELS)),
    }
