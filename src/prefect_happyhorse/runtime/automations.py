"""Automations: end runs whose worker is gone, stop a deployment that may pay twice, and tell somebody what needs a person."""

from __future__ import annotations

from datetime import timedelta
from uuid import UUID

from prefect.automations import Automation
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import StateType
from prefect.events.actions import ChangeFlowRunState, PauseDeployment, SendNotification
from prefect.events.schemas.automations import EventTrigger, Posture
from prefect.events.schemas.events import ResourceSpecification

__all__ = ["SILENCE_S", "notifications", "result_automation", "save", "uncertain_automation", "zombie_automation"]

SILENCE_S = 600.0
"""How long a flow run may be silent, in seconds: three of Prefect's heartbeats, which come every 180 s unless that is set otherwise."""

_RUN = "Flow run: {{ flow_run|ui_url }}"
_ONCE_A_DAY = timedelta(days=1)
_NOT_AGAIN = timedelta(0)


def uncertain_automation() -> Automation:
    """Pause a deployment as soon as one of its submits is uncertain, until a person has looked."""
    return Automation(
        name="happyhorse: pause on an uncertain submit",
        description="Nobody knows whether a submit was accepted. `happyhorse jobs list --open` shows it; adopt or forget it. Then resume"
        " the deployment: by its switch in the UI, or `prefect api POST /deployments/ID/resume_deployment`, as `happyhorse doctor`"
        " says it with the ID.",
        trigger=_on("happyhorse.job.uncertain", "happyhorse.job.*"),
        actions=[PauseDeployment(source="inferred", deployment_id=None)],
    )


def zombie_automation(silence_s: float = SILENCE_S) -> Automation:
    """Set a flow run to Crashed whose heartbeats stop, which stays Running for ever else; this is so for all flows of the server."""
    return Automation(
        name="happyhorse: crash a run that is silent",
        description="Its worker or machine is gone. Run it again: it goes on with the jobs that are paid for.",
        trigger=EventTrigger(
            after={"prefect.flow-run.heartbeat"},
            # A flow may give its last state any name, and a run that is suspended is silent as well.
            expect={"prefect.flow-run.*"},
            match=ResourceSpecification.model_validate({"prefect.resource.id": "prefect.flow-run.*"}),
            for_each={"prefect.resource.id"},
            posture=Posture.Proactive,
            threshold=1,
            within=timedelta(seconds=silence_s),
        ),
        actions=[
            ChangeFlowRunState(
                name=None,
                state=StateType.CRASHED,
                message=f"No heartbeat came for {silence_s:g} s: its process is gone. Run it again, and it goes on with what is paid for.",
                force=False,
            )
        ],
    )


def notifications(notification_block_id: UUID) -> list[Automation]:
    """Tell somebody what the content rules refuse, which budget is nearly spent, and what nobody would see until it is too late."""
    return [
        _notify(
            notification_block_id,
            "moderation",
            "The provider's content rules refused a prompt, a medium or a result. The same request would be refused again.",
            _on("happyhorse.job.failed", {"happyhorse.reason": "moderation"}),
            subject="Refused by the content rules",
            body="{{ event.resource.name }}: {{ event.resource.id }} was refused.",
        ),
        _notify(
            notification_block_id,
            "a budget that is nearly spent",
            "80 % of a budget are spent. `happyhorse spend` shows on what; a job that would pass it is refused.",
            _on("happyhorse.budget.nearly-spent", "happyhorse.budget.*"),
            subject="A budget is nearly spent",
            body="80 % of {{ event.resource.name }} are spent.",
        ),
        _notify(
            notification_block_id,
            "a job near its end of life",
            "A paid job has no file yet, and its gateway will not know it for much longer. `happyhorse jobs resume` fetches it.",
            _on("happyhorse.job.expiring", "happyhorse.job.*", within=_ONCE_A_DAY),
            subject="A paid job is about to expire",
            body="{{ event.resource.name }}: {{ event.resource.id }} can be asked for until {{ event.resource['happyhorse.expires_at'] }}:"
            " happyhorse jobs resume {{ event.resource['happyhorse.digest'] }}.",
        ),
        _notify(
            notification_block_id,
            "a gateway that rests",
            "A gateway of a pool failed again and again; the others are asked before it until its rest is over.",
            _on("happyhorse.gateway.rests", "happyhorse.gateway.*"),
            subject="A gateway rests",
            body="{{ event.resource.name }} ({{ event.resource['happyhorse.account'] }}) failed again and again, and rests for"
            " {{ event.payload.seconds }} s.",
        ),
        _notify(
            notification_block_id,
            "a journal entry that cannot be read",
            "It may stand for a paid job: mend the file, or move it away if you know that nothing was bought under it.",
            _on("happyhorse.journal.unreadable", "happyhorse.journal.*", within=_ONCE_A_DAY),
            subject="A journal entry cannot be read",
            body="{{ event.resource.name }} may stand for a paid job. {{ event.payload.problem }}",
        ),
    ]


def result_automation(notification_block_id: UUID) -> Automation:
    """Tell somebody of every result, with its link."""
    return _notify(
        notification_block_id,
        "every result",
        "A job's outputs are kept.",
        _on("happyhorse.job.kept", "happyhorse.job.*"),
        subject="A result is kept",
        body="{{ event.resource.name }}: {{ event.resource['happyhorse.url'] }}",
    )


def _notify(block_id: UUID, what: str, description: str, trigger: EventTrigger, *, subject: str, body: str) -> Automation:
    action = SendNotification(block_document_id=block_id, subject=subject, body=f"{body} {_RUN}")
    return Automation(name=f"happyhorse: notify on {what}", description=description, trigger=trigger, actions=[action])


def _on(event: str, match: str | dict[str, str], *, within: timedelta = _NOT_AGAIN) -> EventTrigger:
    """At an event about something, and not again about the same for a time."""
    return EventTrigger(
        expect={event},
        match=ResourceSpecification.model_validate({"prefect.resource.id": match} if isinstance(match, str) else match),
        for_each={"prefect.resource.id"},
        posture=Posture.Reactive,
        threshold=1,
        within=within,
    )


async def save(automation: Automation) -> str:
    """Save an automation, in place of one of the same name."""
    async with get_client() as client:
        for old in await client.read_automations_by_name(automation.name):
            await client.delete_automation(old.id)
    await automation.acreate()
    return automation.name
