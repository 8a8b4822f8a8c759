"""The states of a journal entry: what each holds, and what each may become."""

from __future__ import annotations

from datetime import datetime, timezone
from itertools import product
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from prefect_happyhorse.domain.assets import MediaAsset
from prefect_happyhorse.domain.jobs import Job, JobResult, Output
from prefect_happyhorse.domain.requests import TextToImage
from prefect_happyhorse.engine.journal.entry import FACTS, TRANSITIONS, Cancellation, Failure, JournalEntry, JournalState
from prefect_happyhorse.engine.journal.owner import LeaseOwner

STATES: tuple[JournalState, ...] = get_args(JournalState)
NOON = datetime(2026, 11, 20, 12, tzinfo=timezone.utc)
JOB = Job(gateway="happyhorse", account="a", capability="text_to_image", model="m", task_id="t-1", digest="d", submitted_at=NOON)
EVERY_FACT: dict[str, Any] = {
    "job": JOB,
    "result": JobResult(job=JOB, outputs=(Output(kind="image", url="https://example.com/a.png"),), finished_at=NOON, polls=1),
    "asset": MediaAsset(kind="image", uri="memory://a.png", media_type="image/png", bytes=1, sha256="00", job=JOB),
    "failure": Failure(message="It was too dark.", at=NOON),
    "cancellation": Cancellation(accepted=True, message="Taken back.", at=NOON),
}
states = st.sampled_from(STATES)
facts = st.sets(st.sampled_from(sorted(EVERY_FACT)))


def entry(state: JournalState, held: set[str] | frozenset[str]) -> JournalEntry:
    return JournalEntry(
        digest="d",
        state=state,
        gateway="happyhorse",
        account="a",
        take=1,
        request=TextToImage(model="m", prompt="A horse"),
        owner=LeaseOwner(at=NOON),
        **{name: EVERY_FACT[name] for name in held},
    )


def possible(state: JournalState, held: set[str] | frozenset[str]) -> bool:
    needed, allowed = FACTS[state]
    return needed <= held <= needed | allowed


def test_every_state_is_in_both_tables() -> None:
    """And the tables name no state that there is not."""
    assert set(STATES) == TRANSITIONS.keys() == FACTS.keys()
    assert set().union(*TRANSITIONS.values()) <= set(STATES)


@given(states, facts)
def test_only_a_possible_entry_can_be_built_or_read(state: JournalState, held: set[str]) -> None:
    """From Python and from JSON alike; what is possible comes through JSON unchanged."""
    if possible(state, held):
        built = entry(state, held)
        assert JournalEntry.model_validate_json(built.model_dump_json(exclude_none=True)) == built
        return
    with pytest.raises(ValidationError, match=f"an entry that is '{state}' must"):
        entry(state, held)
    unchecked = entry("intent", set()).model_copy(update={"state": state} | {name: EVERY_FACT[name] for name in held})
    with pytest.raises(ValidationError, match=f"an entry that is '{state}' must"):
        JournalEntry.model_validate_json(unchecked.model_dump_json(exclude_none=True))


@pytest.mark.parametrize(("state", "after"), list(product(STATES, STATES)))
@given(held=facts, news=facts)
def test_an_entry_becomes_only_what_the_table_says(state: JournalState, after: JournalState, held: set[str], news: set[str]) -> None:
    """Over all pairs of states and whatever facts come with it; what was known and is not replaced stays known."""
    before = entry(state, {name for name in held if possible(state, FACTS[state][0] | {name})} | FACTS[state][0])
    known = {name for name in EVERY_FACT if getattr(before, name) is not None}
    allowed = after == state or after in TRANSITIONS[state]
    assert before.may_become(after) == allowed
    changes = {name: EVERY_FACT[name] for name in news}
    # What is said of a job goes with the job.
    stays = known if set().union(*FACTS[after]) else set[str]()
    if allowed and possible(after, stays | news):
        became = before.becoming(after, **changes)
        assert became.state == after
        assert {name for name in EVERY_FACT if getattr(became, name) is not None} == stays | news
    else:
        with pytest.raises(ValueError, match=f"an entry that is '{after if allowed else state}'"):
            before.becoming(after, **changes)


@pytest.mark.parametrize(("state", "held"), [("kept", {"job", "result"}), ("submitted", set()), ("intent", {"result"})])
def test_what_must_never_stand_in_a_journal(state: JournalState, held: set[str]) -> None:
    """Kept without a file, submitted without a job, not yet sent and finished."""
    with pytest.raises(ValidationError):
        entry(state, held)


def test_a_file_that_is_stored_is_never_given_up() -> None:
    """Whatever a slower run hears of the job; only a person can have its request forgotten."""
    assert TRANSITIONS["kept"] == {"forgotten"}


def test_nothing_is_bought_over_a_job_that_is_not_cancelled() -> None:
    """An intent may only follow what is uncertain, what the gateway took back, and what was released or forgotten."""
    assert {state for state in STATES if "intent" in TRANSITIONS[state]} == {"uncertain", "cancelled", "released", "forgotten"}


@pytest.mark.parametrize("state", ["submitted", "succeeded", "kept", "failed", "expired", "cancelled"])
def test_a_job_that_is_set_aside_keeps_all_that_is_known_of_it(state: JournalState) -> None:
    """Under a digest of its own, so that it is listed, asked for and stored as any other; the same job always under the same."""
    main = entry(state, FACTS[state][0] | FACTS[state][1])
    own = main.set_aside(JOB)
    assert own.job is not None
    assert (own.digest, own.job.task_id, own.state, own.revision) == (own.job.digest, JOB.task_id, state, 0)
    assert own.digest != main.digest
    assert {name for name in EVERY_FACT if getattr(own, name) is not None} == FACTS[state][0] | FACTS[state][1]
    assert all(fact.job == own.job for fact in (own.result, own.asset) if fact is not None)
    assert main.set_aside(JOB) == own
    assert own.checked() == own


def test_another_job_that_is_set_aside_is_merely_accepted() -> None:
    """What is known of the first is not said of the second."""
    main = entry("kept", {"job", "result", "asset"})
    own = main.set_aside(JOB.model_copy(update={"task_id": "t-2"}))
    assert (own.state, own.result, own.asset) == ("submitted", None, None)
    assert own.checked() == own
