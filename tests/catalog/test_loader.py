from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from prefect_happyhorse import catalog
from prefect_happyhorse.catalog import (
    GATEWAYS,
    GatewayFacts,
    ResponsePaths,
    find_route,
    gateway_facts,
    load_gateway,
    loader,
    offers,
    register,
    resolve,
    routes,
)
from prefect_happyhorse.domain.errors import CatalogError, InvalidRequest
from prefect_happyhorse.domain.requests import ReferenceToVideo, TextToImage, VideoExtension

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

DATA = Path(catalog.__file__).parent / "data"
GOOD = """
[gateway]
gateway = "stable"
title = "Stable"
dialect = "newapi"
source = "Its document"
dated = 2026-11-20
auth = "Authorization: Bearer <key>"
typical_s = { image = 1.0, video = 2.0 }

[limits.picture]
role = "image"
formats = ["png"]
max_bytes = 10

[shapes.plain]
submit = "POST /jobs"
poll = "GET /jobs/{task_id}"
fields = [
    { to = "model", from = "model", required = true },
    { to = "prompt", from = "prompt", required = true },
    { to = "image", from = "image", type = "url" },
]

[[route]]
capability = "image_to_video"
model = "pony"
title = "Pony"
shape = "plain"
limits = ["picture"]
source = "Chapter 1"
"""
SECOND = '[[route]]\ncapability = "image_to_video"\nmodel = "pony"\ntitle = "Pony"\nshape = "plain"\nsource = "Chapter 2"\n'


def test_a_data_file_is_read() -> None:
    """Shape, limits and the row's own make a route."""
    facts, (route,) = load_gateway(GOOD)
    assert (facts.gateway, facts.base_url) == ("stable", None)
    assert (route.gateway, route.model, route.encoding, route.facts) == ("stable", "pony", "json", facts)
    assert [(field.to, field.source) for field in route.fields] == [("model", ("model",)), ("prompt", ("prompt",)), ("image", ("image",))]
    assert [limit.max_bytes for limit in route.media] == [10]


def test_a_row_goes_before_its_shape() -> None:
    """One row may differ from those that it shares a shape with."""
    _, (route,) = load_gateway(GOOD.replace('shape = "plain"', 'shape = "plain"\npoll = "GET /other/{task_id}"'))
    assert route.poll == "GET /other/{task_id}"


def test_a_route_says_where_its_responses_hold_what() -> None:
    """A shape or row goes before the gateway, and what neither says is the dialect's."""
    of_the_gateway = 'dated = 2026-11-20\nresponse = { task_id = ["job.id"], status = ["job.state"] }'
    of_the_shape = 'poll = "GET /jobs/{task_id}"\nresponse = "odd"\n'
    text = GOOD.replace("dated = 2026-11-20", of_the_gateway)
    text = text.replace("[limits.picture]", '[responses.odd]\nstatus = ["word"]\n[limits.picture]')
    assert load_gateway(text)[1][0].response == ResponsePaths(task_id=("job.id",), status=("job.state",))
    _, (route,) = load_gateway(text.replace('poll = "GET /jobs/{task_id}"\n', of_the_shape))
    assert route.response == ResponsePaths(task_id=("job.id",), status=("word",))


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("[gateway]", "[gateway", "is wrong"),
        ("[gateway]", "[stable]", "Extra inputs"),
        ("[gateway]", "[gateway]\nhorse = 1", "gateway.horse"),
        ('title = "Stable"', "", "gateway.title"),
        ('dialect = "newapi"', "", "gateway.dialect"),
        (
            'dialect = "newapi"',
            'dialect = "latin"',
            "line 5: gateway.dialect: .*no dialect 'latin'; there are dashscope, newapi, chanjing, and a package",
        ),
        ('gateway = "stable"', 'gateway = "../stable"', "gateway.gateway"),
        ("2026-11-20", '"soon"', "gateway.dated"),
        ("dated = 2026-11-20", "dated = 2026-11-20\nregions = { moon = {} }", "gateway.regions.moon: .*a region needs a base_url"),
        ('"Authorization: Bearer <key>"', '"Authorization"', "gateway.auth"),
        ("dated = 2026-11-20", 'dated = 2026-11-20\ncancel = "DELETE it"', "gateway.cancel"),
        ("dated = 2026-11-20", 'dated = 2026-11-20\ncodes = { Oops = "bad" }', "gateway.codes.Oops"),
        ("dated = 2026-11-20", 'dated = 2026-11-20\ncode_paths = ["error code"]', "gateway.code_paths.0"),
        ("dated = 2026-11-20", 'dated = 2026-11-20\nsubmit_headers = { "X Async" = "on" }', "gateway.submit_headers"),
        ("dated = 2026-11-20", 'dated = 2026-11-20\nsubmit_headers = { X-Async = "on\\n" }', "gateway.submit_headers"),
        ("dated = 2026-11-20", 'dated = 2026-11-20\nresponse = { task = ["id"] }', "gateway.response.task"),
        ("[limits.picture]", '[responses.odd]\nstatus = [""]\n[limits.picture]', "responses.odd.status.0"),
        (
            'shape = "plain"',
            'shape = "plain"\nresponse = "odd"',
            "image_to_video of 'pony':\n  line 25: there is no shape, limit or response 'odd'",
        ),
        ("[limits.picture]", "[limits.horse]", "image_to_video of 'pony':\n  line 25: there is no shape, limit or response 'picture'"),
        ("[shapes.plain]", "[shapes.other]", "image_to_video of 'pony':\n  line 25: there is no shape, limit or response 'plain'"),
        ("max_bytes = 10", "", "limits.picture.max_bytes"),
        ('role = "image"', 'role = "horse"', "limits.picture.role"),
        ("[[route]]", "[route]", "route"),
        ('shape = "plain"', "", "shape"),
        ('shape = "plain"', 'shape = "plain"\nhorse = 1', "image_to_video of 'pony':.*line .*horse"),
        ('shape = "plain"', 'shape = "plain"\ngateway = "ttapi"', "gateway must not stand in a row or shape"),
        ('shape = "plain"', 'shape = "plain"\nmedia = []', "media must not stand in a row or shape"),
        ('source = "Chapter 1"', "", "image_to_video of 'pony':.*line .*source"),
        ('"image_to_video"', '"image_to_horse"', "no capability 'image_to_horse'; there are text_to_image, image_edit"),
        ('"image_to_video"', '"text_to_video"', "a text_to_video request has no image"),
        ('"POST /jobs"', '"/jobs"', "submit"),
        ('"GET /jobs/{task_id}"', '"GET /jobs"', "poll"),
        ('from = "prompt"', 'from = "promt"', "a image_to_video request has no promt"),
        ('type = "url"', 'type = "horse"', "fields.2.type"),
        ('type = "url"', 'type = "media[]"', "image: entries belong to media"),
        ('type = "url"', "const = 4", "image: a constant comes from no request field"),
        ('{ to = "model", from = "model", required = true }', '"model"', "fields.0"),
        ('source = "Chapter 1"\n', 'source = "Chapter 1"\n' + SECOND, "line 32: image_to_video of 'pony' stands there twice"),
    ],
)
def test_wrong_data_is_told_with_its_place(old: str, new: str, told: str) -> None:
    """No slip in a data file passes, and the error names the row or the key."""
    assert old in GOOD
    with pytest.raises(CatalogError, match=f"(?s){told}"):
        load_gateway(GOOD.replace(old, new))


def test_entries_belong_to_arrays_of_typed_media() -> None:
    """And to nothing else."""
    with pytest.raises(CatalogError, match="entries belong to media"):
        load_gateway(GOOD.replace('type = "url"', 'type = "url", items = [{ type = "x", from = "image" }]'))


def test_a_field_may_come_from_one_request_field_or_from_several() -> None:
    """Written as a text or as a list."""
    _, (route,) = load_gateway(GOOD.replace('from = "prompt"', 'from = ["prompt", "negative_prompt"]'))
    assert route.fields[1].source == ("prompt", "negative_prompt")


def test_all_gateways_are_loaded() -> None:
    """Every data file that describes one, and no other, in alphabetical order; the routes in the order of the gateways."""
    described = [path.stem for path in sorted(DATA.glob("*.toml")) if "gateway" in tomllib.loads(path.read_text(encoding="utf-8"))]
    assert list(GATEWAYS) == described
    assert "prices" not in GATEWAYS
    assert routes() == tuple(route for name in GATEWAYS for route in routes(name))


@pytest.fixture
def stable() -> Iterator[GatewayFacts]:
    """A gateway that the package does not have, registered for one test."""
    yield register(GOOD)
    del loader._TEXTS["stable"]
    del loader._LOADED["stable"]


def test_a_gateway_is_added_at_run_time(stable: GatewayFacts) -> None:
    """It comes last, with its routes, and may be registered again as it is."""
    assert (list(GATEWAYS)[-1], gateway_facts("stable"), routes()[-1].gateway) == ("stable", stable, "stable")
    assert register(GOOD) == stable


def test_an_id_is_given_once(stable: GatewayFacts) -> None:
    """Another gateway under the id of one that there is would take its jobs."""
    for text in (GOOD.replace("/jobs", "/other"), GOOD.replace('"stable"', '"ttapi"')):
        with pytest.raises(CatalogError, match=r"already a gateway '(stable|ttapi)'"):
            register(text)
    assert gateway_facts("stable") == stable


def test_wrong_data_is_not_registered() -> None:
    """The gateways are as before."""
    before = list(GATEWAYS)
    with pytest.raises(CatalogError, match=r"gateway\.title"):
        register(GOOD.replace('title = "Stable"', ""))
    assert list(GATEWAYS) == before


@pytest.mark.parametrize(
    ("line", "said"),
    [
        *((f"{name} = {value}", name) for name in ("task_ttl_s", "result_ttl_s", "polls_per_s") for value in ("inf", "nan", "0.0", "1e12")),
        ("typical_s = { image = 1.0 }", "how long a job that makes video takes"),
        ("typical_s = { image = 1.0, video = 0.0 }", "typical_s"),
        ('auth = "X-Key:  <key>"', "auth"),
        ('auth = "X-Key: <key>\\u0000<key>"', "auth"),
        ('base_url = "api.stable.example"', "base_url"),
        ('token = "POST /token"', "exchanges no access tokens"),
        ('submit_headers = { Content-Length = "0" }', "must not hold Content-Length"),
        ('borrowed = { cancel = "DashScope\'s" }', r"borrowed must name facts that are given here \(got cancel\)"),
    ],
)
def test_facts_that_would_fail_after_a_purchase_are_refused(line: str, said: str) -> None:
    """What is wrong with a gateway is told when it is registered, and not when its job is paid for."""
    name = line.partition(" = ")[0]
    kept = [old for old in GOOD.splitlines() if not old.startswith(f"{name} = ")]
    kept.insert(kept.index("[gateway]") + 1, line)
    with pytest.raises(CatalogError, match=f"(?s){said}"):
        load_gateway("\n".join(kept))


def test_a_file_that_is_no_text_is_refused(tmp_path: Path) -> None:
    """By its name."""
    (tmp_path / "odd.toml").write_bytes(b"\xff")
    with pytest.raises(CatalogError, match=r"must be UTF-8: .*odd\.toml"):
        register(tmp_path / "odd.toml")


@pytest.mark.parametrize("gateway", ["", "TTAPI", "sandbox", "../ttapi"])
def test_an_unknown_gateway_is_told(gateway: str) -> None:
    """With those that there are."""
    request = TextToImage(model="gpt-image-2", prompt="A horse")
    for asked in (lambda: gateway_facts(gateway), lambda: routes(gateway), lambda: resolve(request, gateway)):
        with pytest.raises(CatalogError, match=re.escape(f"There is no gateway {gateway!r}. There are {', '.join(GATEWAYS)}.")):
            asked()


@pytest.mark.parametrize("route", routes(), ids=lambda route: f"{route.gateway}/{route.capability}/{route.model}")
def test_a_route_is_found_by_what_it_is(route: catalog.Route) -> None:
    """Gateway, capability and model."""
    assert find_route(route.gateway, route.capability, route.model) is route


def test_a_request_finds_its_route() -> None:
    """By its class and its model."""
    request = ReferenceToVideo(model="happyhorse-1.1-r2v", prompt="@1 runs", references=("a.png",))
    assert resolve(request, "infiflow").title == "HappyHorse 1.1 R2V"


def test_a_miss_says_who_offers_it() -> None:
    """The same model elsewhere first, then what the gateway itself has, then all the others; nothing was sent and nothing was spent."""
    request = ReferenceToVideo(model="happyhorse-1.0-r2v", prompt="@1 runs", references=("a.png",))
    with pytest.raises(InvalidRequest) as caught:
        resolve(request, "uniall")
    error = caught.value
    assert (error.gateway, error.capability, error.model, error.money) == (
        "uniall",
        "reference_to_video",
        "happyhorse-1.0-r2v",
        "not spent",
    )
    assert str(error).startswith("uniall does not offer reference_to_video with model 'happyhorse-1.0-r2v'.")
    many = "happyhorse-1.0-r2v, wan2.7-r2v, video-fast-720p, video-pro-720p, grok-imagine-video, omni_flash_components, omni_flash-fast"
    assert error.problems == (
        "reference_to_video with 'happyhorse-1.0-r2v' is offered by chanjing, dashscope, happyhorse, infiflow, ttapi",
        "reference_to_video on uniall has happy-horse-720p, happy-horse-1080p",
        "reference_to_video on chanjing has happyhorse-1.0-r2v",
        "reference_to_video on dashscope has happyhorse-1.1-r2v, happyhorse-1.0-r2v, wan2.7-r2v, wan2.7-r2v-2026-06-12",
        f"reference_to_video on happyhorse has {many}, kling-video",
        "reference_to_video on infiflow has happyhorse-1.1-r2v, happyhorse-1.0-r2v",
        "reference_to_video on ttapi has happyhorse-1.0-r2v, happyhorse-1.1-r2v",
    )


def test_a_miss_says_what_else_the_model_does() -> None:
    """A model that is there, with another capability."""
    with pytest.raises(InvalidRequest) as caught:
        resolve(VideoExtension(model="wan2.7-r2v", prompt="On", clip="a.mp4"), "happyhorse")
    assert caught.value.problems == (
        "'wan2.7-r2v' on happyhorse offers reference_to_video, multimodal_to_video",
        "video_extension on happyhorse has wan2.7-i2v",
        "video_extension on dashscope has wan2.7-i2v, wan2.7-i2v-2026-04-25",
    )


def test_a_miss_of_an_unknown_model_lists_those_that_there_are() -> None:
    """A misspelled model, on a gateway that has no such capability either."""
    assert offers("ttapi", "video_extension", "wan") == (
        "video_extension on dashscope has wan2.7-i2v, wan2.7-i2v-2026-04-25",
        "video_extension on happyhorse has wan2.7-i2v",
    )


def test_a_capability_that_nobody_has_is_told_as_such() -> None:
    """There is nothing to list."""
    assert offers("ttapi", "text_to_horse", "pony") == ("no gateway offers the capability 'text_to_horse'",)


def test_the_package_gives_all_its_names() -> None:
    """Each name of `__all__` is there, once."""
    assert sorted(set(catalog.__all__), key=lambda name: (not name.isupper(), not name[0].isupper(), name)) == list(catalog.__all__)
    assert [name for name in catalog.__all__ if not hasattr(catalog, name)] == []
