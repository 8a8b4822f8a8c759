"""Jobs as values."""

from __future__ import annotations

from prefect_happyhorse.domain.jobs import Job


def test_jobs_with_labels_are_values() -> None:
    """Equal, and members of a set, by what they hold."""
    facts = {
        "gateway": "g",
        "account": "a",
        "capability": "c",
        "model": "m",
        "task_id": "t",
        "digest": "d",
        "submitted_at": "2026-11-01T00:00:00Z",
    }
    one, same = (Job.model_validate(facts | {"labels": {"project": "film"}}) for _ in range(2))
    assert {one, same} == {one}
    assert Job.model_validate_json(one.model_dump_json()) == one
    assert one != Job.model_validate(facts)
