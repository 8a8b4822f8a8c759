"""One model under the names that several gateways give it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from tests.catalog.test_loader import GOOD

from prefect_happyhorse.catalog import Route, as_offered, families, find_problems, find_route, loader, of_family, register, routes
from prefect_happyhorse.domain.errors import InvalidRequest
from prefect_happyhorse.domain.requests import ImageToVideo, ReferenceToVideo, TextToVideo, VideoEdit

RIDE = ReferenceToVideo(
    model="happyhorse-1.0-r2v",
    prompt="It runs",
    references=("https://example.com/a.png",),
    resolution="720p",
    aspect_ratio="16:9",
    duration=5,
)


EDIT = VideoEdit(model="happyhorse-1.0-video-edit", prompt="It snows", video="https://example.com/a.mp4", duration=5)
UNIALL = ("reference_to_video", "happy-horse-720p")
PONY = ImageToVideo(model="pony", prompt="It runs", image="https://example.com/a.png")


@pytest.fixture
def stable() -> Iterator[Route]:
    """The row of a gateway of one's own, whose `pony` is of the family `horse-2`."""
    yield routes(register(GOOD.replace('model = "pony"', 'model = "pony"\nfamily = "horse-2"')).gateway)[0]
    del loader._TEXTS["stable"]
    del loader._LOADED["stable"]


def test_every_family_is_a_name_that_some_gateway_gives_the_model() -> None:
    """So nobody has to know a word that stands nowhere but here; and a family makes the same thing everywhere."""
    named = {(route.capability, route.model) for route in routes()}
    assert [route.model for route in routes() if (route.capability, route.family) not in named] == []


@pytest.mark.parametrize(
    ("gateway", "resolution", "model"),
    [
        ("infiflow", "720p", "happyhorse-1.0-r2v"),
        ("ttapi", "1080p", "happyhorse-1.0-r2v"),
        ("uniall", "720p", "happy-horse-720p"),
    ],
)
def test_each_gateway_gets_its_own_name(gateway: str, resolution: str, model: str) -> None:
    """And a request that it can carry."""
    offered = as_offered(of_family(RIDE.model_copy(update={"resolution": resolution})), gateway)
    assert offered.model == model
    assert find_problems(offered, find_route(gateway, offered.capability, model)) == ()


def test_any_of_its_names_stands_for_the_family() -> None:
    """With the resolution that the name stands for, so that all names of one request are one request."""
    asked = RIDE.model_copy(update={"model": "happy-horse-720p"})
    assert of_family(asked) == of_family(asked.model_copy(update={"resolution": None})) == of_family(RIDE) == RIDE


def test_a_name_that_contradicts_the_resolution_is_refused() -> None:
    """Else another model than the one that was named would be bought."""
    with pytest.raises(InvalidRequest, match=r"resolution must be '720p' for 'happy-horse-720p' \(got '1080p'\)"):
        of_family(RIDE.model_copy(update={"model": "happy-horse-720p", "resolution": "1080p"}))


def test_a_family_that_nobody_offers_is_refused() -> None:
    """With what there is."""
    with pytest.raises(InvalidRequest, match="No gateway offers reference_to_video with model 'unicorn-1'") as caught:
        of_family(RIDE.model_copy(update={"model": "unicorn-1"}))
    assert "reference_to_video on uniall has happy-horse-720p, happy-horse-1080p" in caught.value.problems


def test_a_gateway_without_the_family_is_refused() -> None:
    """By name, with who has it."""
    with pytest.raises(InvalidRequest, match=r"chanjing does not offer text_to_video with 'happyhorse-1\.0-t2v' by any name"):
        as_offered(TextToVideo(model="happyhorse-1.0-t2v", prompt="A horse", duration=5), "chanjing")


def test_a_resolution_chooses_between_two_names() -> None:
    """Without one nothing is bought by chance."""
    edit = of_family(EDIT.model_copy(update={"resolution": "1080p"}))
    assert as_offered(edit, "uniall").model == "happy-horse-edit-1080p"
    with pytest.raises(InvalidRequest, match="resolution must be set for uniall, which sells"):
        as_offered(EDIT, "uniall")


def test_a_model_of_which_nobody_says_what_it_is_is_of_no_family() -> None:
    """UniAll's 1080p may be one version or another: whoever asks for 1.0 must not get that."""
    asked = RIDE.model_copy(update={"model": "happy-horse-1080p", "resolution": None})
    assert of_family(asked) == asked
    assert find_problems(as_offered(RIDE.model_copy(update={"resolution": "1080p"}), "uniall"), find_route("uniall", *UNIALL)) != ()


def test_what_no_name_can_carry_is_said_by_the_nearest() -> None:
    """Of two names that do not fit, the one that has fewer problems is what the problems are about."""
    offered = as_offered(EDIT.model_copy(update={"duration": 60, "resolution": "1080p"}), "uniall")
    assert offered.model == "happy-horse-edit-1080p"
    assert len(find_problems(offered, find_route("uniall", offered.capability, offered.model))) == 1


def test_a_gateway_of_ones_own_names_a_family(stable: Route) -> None:
    """In the row; a name that fixes no resolution sets none."""
    assert of_family(PONY) == PONY.model_copy(update={"model": "horse-2"})
    assert as_offered(of_family(PONY), stable.gateway) == PONY


def test_one_name_of_two_families_has_to_be_told_apart(stable: Route, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the family's own name: by the other nobody knows what is meant."""
    twin = stable.model_copy(update={"gateway": "twin", "family": "horse-3"})
    monkeypatch.setattr(families, "routes", lambda: (stable, twin))
    with pytest.raises(InvalidRequest, match="horse-2, horse-3 are the families of image_to_video with model 'pony'"):
        of_family(PONY)
    assert of_family(PONY.model_copy(update={"model": "horse-3"})).model == "horse-3"
