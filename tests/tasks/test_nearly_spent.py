"""A budget of which four fifths are spent is told of once."""

from __future__ import annotations

from decimal import Decimal
from typing import Any
from uuid import uuid4

import pytest

from prefect_happyhorse import Budget
from prefect_happyhorse.runtime import events
from prefect_happyhorse.runtime.automations import notifications


@pytest.fixture
def emitted(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    monkeypatch.setattr(events, "emit_event", lambda **event: found.append(event))
    monkeypatch.setattr(events, "_TOLD", set())
    return found


def test_it_is_told_once_in_a_process(emitted: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch) -> None:
    """Each budget by itself, not before four fifths, and not outside of a run; the automation waits for this very event."""
    small, large = (Budget(amount=Decimal(amount), currency="CNY") for amount in (10, 20))
    events.emit_nearly_spent(small, 1.0)
    assert emitted == []
    monkeypatch.setattr(events.FlowRunContext, "get", object)
    for budget, share in ((small, 0.79), (small, 0.8), (small, 0.95), (large, 0.9)):
        events.emit_nearly_spent(budget, share)
    assert [(event["resource"]["prefect.resource.name"], event["payload"]["share"]) for event in emitted] == [
        ("10 CNY", 0.8),
        ("20 CNY", 0.9),
    ]
    (trigger,) = (one.trigger for one in notifications(uuid4()) if "budget" in one.name)
    assert trigger.expect == {emitted[0]["event"]}  # pyright: ignore[reportAttributeAccessIssue]
    assert trigger.match.matches(emitted[0]["resource"])  # pyright: ignore[reportAttributeAccessIssue]
