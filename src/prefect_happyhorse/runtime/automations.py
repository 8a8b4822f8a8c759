"""Automations that act on events about jobs: stop a deployment that may pay twice, and tell somebody what the content rules refuse."""

from __future__ import annotations

from datetime import timedelta
from uuid import UUID

from prefect.automations import Automation
from prefect.client.orchestration import get_client
from prefect.events.actions import PauseDeployment, SendNotification
from prefect.events.schemas.automations import EventTrigger, Posture
from prefect.events.schemas.events import ResourceSpecification

__all__ = ["budget_automation", "moderation_automation", "save", "uncertain_automation"]


def uncertain_automation() -> Automation:
    """Pause a deployment as soon as one of its submits is uncertain, until a person has looked."""
    return Automation(
        name="happyhorse: pause on an uncertain submit",
        description="Nobody knows whether a submit was accepted. `happyhorse jobs list --open` shows it; adopt or forget it, then resume.",
        trigger=_on("uncertain"),
        actions=[PauseDeployment(source="inferred", deployment_id=None)],
    )


def moderation_automation(notification_block_id: UUID) -> Automation:
    """Notify somebody when a provider's content rules refuse a prompt or a result."""
    return Automation(
        name="happyhorse: notify on moderation",
        description="The provider's content rules refused a prompt, a medium or a result. The same request would be refused again.",
        trigger=_on("failed", match=ResourceSpecification.model_validate({"happyhorse.reason": "moderation"})),
        actions=[
            SendNotification(
                block_document_id=notification_block_id,
                subject="Refused by the content rules",
                body="{{ event.resource.name }}: {{ event.resource.id }} was refused. Flow run: {{ flow_run|ui_url }}",
            )
        ],
    )


def budget_automation(notification_block_id: UUID) -> Automation:
    """Notify somebody when four fifths of a budget are spent."""
    return Automation(
        name="happyhorse: notify on a budget that is nearly spent",
        description="80 % of a budget are spent. `happyhorse spend` shows on what; a job that would pass it is refused.",
        trigger=EventTrigger(
            expect={"happyhorse.budget.nearly-spent"},
            match=ResourceSpecification.model_validate({"prefect.resource.id": "happyhorse.budget.*"}),
            for_each={"prefect.resource.id"},
            posture=Posture.Reactive,
            threshold=1,
            within=timedelta(0),
        ),
        actions=[
            SendNotification(
                block_document_id=notification_block_id,
                subject="A budget is nearly spent",
                body="80 % of {{ event.resource.name }} are spent. Flow run: {{ flow_run|ui_url }}",
            )
        ],
    )


def _on(event: str, match: ResourceSpecification | None = None) -> EventTrigger:
    return EventTrigger(
        expect={f"happyhorse.job.{event}"},
        match=match or ResourceSpecification.model_validate({"prefect.resource.id": "happyhorse.job.*"}),
        for_each={"prefect.resource.id"},
        posture=Posture.Reactive,
        threshold=1,
        within=timedelta(0),
    )


async def save(automation: Automation) -> str:
    """Save an automation, in place of one of the same name."""
    async with get_client() as client:
        for old in await client.read_automations_by_name(automation.name):
            await client.delete_automation(old.id)
    await automation.acreate()
    return automation.name
