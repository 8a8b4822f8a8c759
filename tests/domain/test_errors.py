from __future__ import annotations

import copy
import inspect
import pickle
import re
from datetime import datetime, timezone
from typing import Any

import cloudpickle
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prefect_happyhorse.domain import errors
from prefect_happyhorse.domain.assets import MediaAsset
from prefect_happyhorse.domain.errors import (
    CatalogError,
    CheckFailed,
    DownloadFailed,
    GatewayUnavailable,
    GenerationError,
    InvalidRequest,
    JobFailed,
    Money,
    ProtocolError,
    RateLimited,
    SubmissionUncertain,
    error_context,
)
from prefect_happyhorse.domain.jobs import Job

NOW = datetime(2026, 11, 20, tzinfo=timezone.utc)

ALL = [kind for kind in map(vars(errors).get, errors.__all__) if inspect.isclass(kind) and issubclass(kind, Exception)]
OF_GENERATION = [kind for kind in ALL if issubclass(kind, GenerationError)]
FACTS: dict[str, Any] = {
    "gateway": "ttapi",
    "account": "studio",
    "model": "happyhorse-1.1-r2v",
    "capability": "reference_to_video",
    "task_id": "t-1",
    "request_id": "r-1",
    "digest": "d-1",
    "code": "Throttling",
    "status_code": 429,
    "money": "may be spent",
    "advice": "Wait.",
}
OWN: dict[type[GenerationError], dict[str, Any]] = {
    InvalidRequest: {"problems": ("seed must be between 0 and 9 (got -1)", "n must be 1 or more (got 0)")},
    GatewayUnavailable: {"retry_after_s": 2.5},
    RateLimited: {"retry_after_s": 2.5},
    ProtocolError: {"excerpt": "<html>"},
    CheckFailed: {"assets": (MediaAsset(kind="image", uri="memory://a.png", media_type="image/png", bytes=3, sha256="00"),)},
}
every_error = pytest.mark.parametrize("kind", OF_GENERATION, ids=lambda kind: kind.__name__)


def full(kind: type[GenerationError]) -> GenerationError:
    return kind("It broke.", **FACTS, **OWN.get(kind, {}))


def drawn() -> dict[str, str | None]:
    """Each class in the module's drawing, and the class that it hangs on."""
    found: dict[str, str | None] = {}
    above: list[tuple[int, str]] = []
    for line in (errors.__doc__ or "").splitlines():
        if match := re.match(r"^(?P<stem>[ │├└─]*)(?P<name>[A-Z][A-Za-z]+)(?: +\S.*|)$", line):
            depth = len(match["stem"])
            if depth < 4:
                continue
            while above and above[-1][0] >= depth:
                above.pop()
            found[match["name"]] = above[-1][1] if above else None
            above.append((depth, match["name"]))
    return found


def test_the_drawing_is_the_tree() -> None:
    """The module's docstring draws every class, each below its own base, and no class that is not there."""
    hanging = {kind.__name__: kind.__base__.__name__ if issubclass(kind.__base__, GenerationError) else None for kind in ALL}
    assert drawn() == hanging


def test_the_module_gives_all_its_names() -> None:
    """`__all__` is sorted and holds every public name that the module itself defines."""
    defined = {
        name for name, value in vars(errors).items() if not name.startswith("_") and getattr(value, "__module__", "") == errors.__name__
    }
    assert list(errors.__all__) == sorted(defined)


@every_error
def test_a_class_says_when(kind: type[GenerationError]) -> None:
    """The first line of a docstring says when it is raised; the root's says what went wrong at all."""
    first = (kind.__doc__ or "").splitlines()[0]
    assert first.startswith("When ") or kind is GenerationError
    assert first.endswith(".")


@every_error
def test_no_keyword_is_required(kind: type[GenerationError]) -> None:
    """An error that comes back through an API with its message alone can be made again."""
    assert str(kind("It broke.")).startswith("It broke.")
    assert kind().args == ("",)


@pytest.mark.parametrize("over_the_wire", [pickle, cloudpickle, copy], ids=["pickle", "cloudpickle", "copy"])
@every_error
def test_every_attribute_survives(kind: type[GenerationError], over_the_wire: Any) -> None:
    """What an error knows is known in another process too."""
    error = full(kind)
    again = copy.copy(error) if over_the_wire is copy else pickle.loads(over_the_wire.dumps(error))  # noqa: S301 -- our own bytes
    assert type(again) is kind
    assert again.args == error.args
    assert vars(again) == vars(error) == {**FACTS, **OWN.get(kind, {})}
    assert str(again) == str(error)


def test_a_catalog_error_survives() -> None:
    """It is no GenerationError, and comes through as well."""
    again = pickle.loads(pickle.dumps(CatalogError("There is no gateway 'x'.")))  # noqa: S301 -- our own bytes
    assert (type(again), str(again)) == (CatalogError, "There is no gateway 'x'.")


@every_error
def test_the_text_says_what_of_which_job_and_about_money(kind: type[GenerationError]) -> None:
    """What happened, to which job at which gateway, what it cost, what to do now: all of it in one text."""
    text = str(full(kind))
    assert text.startswith(
        "It broke. [gateway=ttapi account=studio model=happyhorse-1.1-r2v capability=reference_to_video task_id=t-1 request_id=r-1"
        " code=Throttling status=429] Money: may be spent. Wait."
    )


@every_error
def test_the_text_leaves_out_what_is_not_known(kind: type[GenerationError]) -> None:
    """An error without facts is its message, and what its class says of money."""
    money = "" if kind.usual_money is None else f" Money: {kind.usual_money}."
    assert str(kind("It broke.")) == f"It broke.{money}"


def test_a_wrong_request_lists_every_problem() -> None:
    """Each problem has a line of its own."""
    assert str(InvalidRequest("Two problems.", problems=("one", "two"))) == "Two problems. Money: not spent.\n  - one\n  - two"


def test_a_protocol_error_shows_the_answer() -> None:
    """The excerpt is quoted, so that white space and an empty answer can be seen."""
    assert str(ProtocolError("Odd.", excerpt="<html>\n")) == r"Odd. Answer: '<html>\n'"
    assert str(ProtocolError("Odd.")) == "Odd."


def test_money_is_known_by_class_where_the_error_does_not_say() -> None:
    """Refused requests cost nothing, an uncertain submit may have; the root and an unavailable gateway say nothing by themselves."""
    assert {kind.__name__: kind().money for kind in OF_GENERATION} == {
        "AuthenticationFailed": "not spent",
        "BudgetExceeded": "not spent",
        "CheckFailed": "spent",
        "DownloadFailed": "spent",
        "GatewayUnavailable": None,
        "GenerationError": None,
        "InvalidRequest": "not spent",
        "JobExpired": "spent",
        "JobFailed": "may be spent",
        "JobTimedOut": "spent",
        "MediaUnreachable": "not spent",
        "ModerationRejected": "not spent",
        "PollRejected": "spent",
        "ProtocolError": None,
        "QuotaExceeded": "not spent",
        "RateLimited": "not spent",
        "RequestRejected": "not spent",
        "SubmissionUncertain": "may be spent",
    }
    assert {kind.usual_money for kind in OF_GENERATION} <= {None, *Money}


def test_what_an_error_says_of_money_goes_before_its_class() -> None:
    """A failed job of a provider that does not charge for it."""
    assert JobFailed("It broke.", money="not spent").money == "not spent"


def test_only_what_buys_nothing_twice_is_retryable() -> None:
    """An uncertain submit is never sent again by itself."""
    assert {kind for kind in OF_GENERATION if kind.retryable} == {GatewayUnavailable, RateLimited, DownloadFailed}
    assert not SubmissionUncertain.retryable


def test_facts_are_filled_in_where_they_are_unknown() -> None:
    """What the error knows already is kept, an unknown fact stays unknown, and the error itself goes on with its cause."""
    error, cause = GenerationError("It broke.", gateway="ttapi"), OSError("disk")
    with pytest.raises(GenerationError) as caught, error_context(gateway="uniall", account="film", model=None):
        raise error from cause
    assert caught.value is error
    assert (error.gateway, error.account, error.model, error.__cause__) == ("ttapi", "film", None, cause)


def test_a_job_gives_all_its_facts() -> None:
    """Its ids too; and what is no error of generation passes untouched."""
    job = Job(
        gateway="ttapi", account="film", capability="image_edit", model="m", task_id="t-1", request_id="r-1", digest="d", submitted_at=NOW
    )
    with pytest.raises(JobFailed) as caught, error_context(job):
        raise JobFailed("It broke.")
    error = caught.value
    assert [getattr(error, name) for name in ("gateway", "account", "capability", "model", "task_id", "request_id", "digest")] == [
        "ttapi",
        "film",
        "image_edit",
        "m",
        "t-1",
        "r-1",
        "d",
    ]
    with pytest.raises(ValueError, match="other"), error_context(job):
        raise ValueError("other")


def test_money_is_one_of_three() -> None:
    """Nothing else is ever said of the bill."""
    with pytest.raises(ValueError, match="perhaps"):
        GenerationError("It broke.", money="perhaps")  # pyright: ignore[reportArgumentType] -- that is what is tried


def test_the_message_is_what_happened_alone() -> None:
    """Also where there is none."""
    assert full(GenerationError).message == "It broke."
    error = GenerationError("It broke.")
    error.args = ()
    assert (error.message, str(error)) == ("", "")


@given(
    message=st.text(), facts=st.fixed_dictionaries({}, optional={name: st.text() for name in FACTS if name not in {"status_code", "money"}})
)
@settings(deadline=None, max_examples=60)
def test_any_text_survives(message: str, facts: dict[str, str]) -> None:
    """Whatever a provider wrote."""
    for kind in (GenerationError, InvalidRequest, ProtocolError):
        error = kind(message, **facts)
        again = pickle.loads(pickle.dumps(error))  # noqa: S301 -- our own bytes
        assert (vars(again), str(again), again.message) == (vars(error), str(error), message)
