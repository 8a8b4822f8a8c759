from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prefect_happyhorse.catalog import WireField, check, find_advice, find_problems, find_route, resolve, wire_value
from prefect_happyhorse.domain.errors import InvalidRequest
from prefect_happyhorse.domain.requests import parse_request

from .vectors import SCHEMES, VECTORS, addresses, problems, ttapi, vector


def test_everything_wrong_is_told_at_once() -> None:
    """Ten references, 2 s, a negative seed, 6,000 characters, an ftp address, a foreign option: one error, which names the route."""
    request = vector(
        "ttapi",
        "reference_to_video",
        "happyhorse-1.1-r2v",
        prompt="@10 " + "x" * 5996,
        references=["ftp://example.com/a.png", *addresses(9)],
        duration=2,
        seed=-1,
        resolution="4k",
        negative_prompt="blur",
        options={"quality": "high"},
    )
    with pytest.raises(InvalidRequest) as caught:
        check(request, resolve(request, "ttapi"), more=["references[3]: it is a text"])
    error = caught.value
    accepted = "aspect_ratio, duration, model, prompt, references, resolution, seed, watermark"
    assert error.problems == (
        f"negative_prompt is not accepted here (got 'blur'); accepted are {accepted}",
        "options.quality is no option here (got 'high'); this route has none",
        "prompt must have at most 5000 characters, a Chinese one counting 2 (got 6008 as the gateway reads it)",
        "references must hold at most 9 (got 10)",
        "resolution must be one of 720p, 1080p (got '4k')",
        "duration must be between 3 and 15 seconds (got 2)",
        "seed must be between 0 and 2147483647 (got -1)",
        f"references[0]='ftp://example.com/a.png': it has the scheme 'ftp', which must be http, https, {SCHEMES}, or none for a local path",
        "references[3]: it is a text",
    )
    assert (error.gateway, error.capability, error.model, error.money) == ("ttapi", "reference_to_video", "happyhorse-1.1-r2v", "not spent")
    assert error.message == "ttapi cannot take this reference_to_video for happyhorse-1.1-r2v: 9 problems. Nothing was sent."
    assert str(error).count("\n  - ") == 9


def test_one_problem_is_told_in_the_singular() -> None:
    """And a problem that was found elsewhere is enough."""
    request = vector("ttapi", "reference_to_video", "happyhorse-1.1-r2v")
    with pytest.raises(InvalidRequest, match=r"1 problem\. Nothing was sent"):
        check(request, resolve(request, "ttapi"), more=["references[0]: it is not there"])


def test_what_fits_passes() -> None:
    """Nothing is raised."""
    request = vector("ttapi", "reference_to_video", "happyhorse-1.1-r2v")
    check(request, resolve(request, "ttapi"))


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("duration", 2, "duration must be between 3 and 15 seconds (got 2)"),
        ("duration", 16, "duration must be between 3 and 15 seconds (got 16)"),
        ("duration", 0, "duration must be between 3 and 15 seconds (got 0)"),
        ("seed", -1, "seed must be between 0 and 2147483647 (got -1)"),
        ("seed", 2**31, "seed must be between 0 and 2147483647 (got 2147483648)"),
        ("resolution", "480p", "resolution must be one of 720p, 1080p (got '480p')"),
        ("aspect_ratio", "21:9", "aspect_ratio must be one of 16:9, 9:16, 3:4, 4:3, 1:1 (got '21:9')"),
        ("references", [], "references is required here"),
        ("references", addresses(10), "references must hold at most 9 (got 10)"),
        ("prompt", " \n", "prompt must not be blank"),
    ],
)
def test_a_value_out_of_range_is_told_with_the_range(name: str, value: object, told: str) -> None:
    """Field, value and what is allowed, as the user writes it."""
    assert ttapi(**{"prompt": "A horse", name: value}) == (told,)


@pytest.mark.parametrize(
    ("name", "value"), [("duration", 3), ("duration", 15), ("seed", 0), ("seed", 2**31 - 1), ("references", addresses(9))]
)
def test_the_ends_of_a_range_are_allowed(name: str, value: object) -> None:
    """Both of them."""
    assert ttapi(**{name: value}) == ()


@pytest.mark.parametrize(
    ("route", "name", "told"),
    [
        (("uniall", "text_to_video", "happy-horse-720p"), "duration", "duration is required here and must be between 3 and 15 seconds"),
        (("chanjing", "reference_to_video", "happyhorse-1.0-r2v"), "aspect_ratio", "aspect_ratio is required here"),
        (("chanjing", "reference_to_video", "happyhorse-1.0-r2v"), "resolution", "resolution is required here"),
    ],
)
def test_what_a_route_requires_has_to_be_set(route: tuple[str, str, str], name: str, told: str) -> None:
    """A provider's default is never filled in here."""
    assert problems(*route, **{name: None}) == (told,)


def test_one_of_several_media_is_enough() -> None:
    """A Wan multimodal request needs some medium, and any of its fields will do."""
    route = ("happyhorse", "multimodal_to_video", "wan2.7-r2v")
    none = {"first_frame": None, "reference_videos": None, "voice": None, "references": None}
    assert problems(*route, **none) == ("first_frame or reference_videos or references is required here",)
    assert problems(*route, **{**none, "voice": "a.mp3"}) == (
        "first_frame or reference_videos or references is required here",
        "voice belongs to a reference video and must hold one for each, in their order (got 1 for 0)",
    )
    assert problems(*route, **{**none, "first_frame": "a.png"}) == ()


@pytest.mark.parametrize(
    ("route", "name", "value"),
    [
        (("uniall", "image_to_video", "happy-horse-720p"), "aspect_ratio", "16:9"),
        (("uniall", "video_edit", "happy-horse-edit-720p"), "aspect_ratio", "16:9"),
        (("infiflow", "reference_to_video", "happyhorse-1.1-r2v"), "watermark", False),
        (("infiflow", "reference_to_video", "happyhorse-1.1-r2v"), "seed", 1),
        (("happyhorse", "text_to_image", "gpt-image-2"), "resolution", "1k"),
    ],
)
def test_a_field_that_the_route_lacks_is_not_dropped(route: tuple[str, str, str], name: str, value: object) -> None:
    """It is refused, with those that are accepted."""
    (told,) = problems(*route, **{name: value})
    assert told.startswith(f"{name} is not accepted here (got {value!r}); accepted are ")
    assert set(told.partition("accepted are ")[2].split(", ")) == find_route(*route).request_fields | {"model"}


def test_a_medium_that_the_route_lacks_is_told_without_its_address() -> None:
    """A data URL would fill the screen."""
    (told,) = problems("happyhorse", "image_edit", "gemini-3.1-flash-image", mask="data:image/png;base64," + "A" * 999)[:1]
    assert told == "mask is not accepted here; accepted are image, model, n, prompt, size"


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (
            {"horse": 1},
            (
                "options.horse is no option here (got 1);"
                " this route has background, moderation, output_compression, output_format, response_format"
            ),
        ),
        ({"output_format": "gif"}, "options.output_format must be one of png, jpeg, webp (got 'gif')"),
        ({"output_format": 1}, "options.output_format must be one of png, jpeg, webp (got 1)"),
        ({"output_compression": 101}, "options.output_compression must be between 0 and 100 (got 101)"),
        ({"output_compression": 50.0}, "options.output_compression must be a whole number between 0 and 100 (got 50.0)"),
        ({"output_compression": "50"}, "options.output_compression must be a whole number between 0 and 100 (got '50')"),
        ({"output_compression": True}, "options.output_compression must be a whole number between 0 and 100 (got True)"),
    ],
)
def test_options_are_the_routes_own(options: dict[str, object], told: str) -> None:
    """An unknown key lists the known ones; a known one has its type and its range."""
    assert problems("happyhorse", "text_to_image", "gpt-image-2", options=options) == (told,)


@pytest.mark.parametrize("value", [1, 0, "true", 0.5])
def test_a_truth_is_true_or_false(value: object) -> None:
    """And no number or text."""
    told = problems("happyhorse", "text_to_video", "wan2.7-t2v", options={"prompt_extend": value})
    assert told == (f"options.prompt_extend must be true or false (got {value!r})",)


def test_pictures_have_an_upper_end() -> None:
    """They are counted from one, and no slip of the keyboard buys five hundred."""
    whose = "the limit is OpenAI's, and happyhorse.pics names none"
    assert problems("happyhorse", "text_to_image", "gpt-image-2", n=0) == (f"n must be between 1 and 10 (got 0); {whose}",)
    assert problems("happyhorse", "text_to_image", "gpt-image-2", n=500) == (f"n must be between 1 and 10 (got 500); {whose}",)


HORSE = ("happyhorse", "text_to_video", "happyhorse-1.0-t2v")
HORSE_EDIT = ("happyhorse", "video_edit", "happyhorse-1.0-video-edit")
CHANJING = ("chanjing", "reference_to_video", "happyhorse-1.0-r2v")


@pytest.mark.parametrize(
    ("route", "name", "value", "told"),
    [
        (HORSE, "duration", 16, "duration must be between 3 and 15 seconds (got 16)"),
        (HORSE, "seed", -1, "seed must be between 0 and 2147483647 (got -1)"),
        (HORSE, "prompt", "x" * 5001, "prompt must have at most 5000 characters, a Chinese one counting 2 (got 5001)"),
        (CHANJING, "duration", 2, "duration must be between 3 and 15 seconds (got 2)"),
        (CHANJING, "duration", None, "duration is required here and must be between 3 and 15 seconds"),
        (CHANJING, "prompt", "x" * 5001, "prompt must have at most 5000 characters, a Chinese one counting 2 (got 5001)"),
    ],
)
def test_a_borrowed_limit_is_told_as_such(route: tuple[str, str, str], name: str, value: object, told: str) -> None:
    """So that it does not read as the provider's own word."""
    title = find_route(*route).facts.title
    assert problems(*route, **{name: value}) == (f"{told}; the limit is DashScope's, and {title} names none",)


def test_a_limit_of_the_providers_own_is_told_alone() -> None:
    """Of an edit the page itself says that at most 15 s are sent, and gives no least."""
    assert problems(*HORSE_EDIT, duration=16) == ("duration must be at most 15 seconds (got 16)",)
    assert problems(*HORSE_EDIT, duration=0) == ("duration must be 1 or more seconds (got 0)",)
    assert problems(*HORSE_EDIT, duration=2) == ()


@pytest.mark.parametrize(
    ("duration", "told"),
    [
        (2, ()),
        (15, ()),
        (1, ("duration: between 2 and 15 seconds is advised (got 1)",)),
        (16, ("duration: between 2 and 15 seconds is advised (got 16)",)),
        (None, ()),
    ],
)
def test_a_usual_duration_is_advice(duration: int | None, told: tuple[str, ...]) -> None:
    """Of Wan the page says that it is usually 2 to 15 s, so what is otherwise is told, and not refused."""
    request = vector("happyhorse", "text_to_video", "wan2.7-t2v", duration=duration)
    route = resolve(request, "happyhorse")
    assert find_problems(request, route) == ()
    assert find_advice(request, route) == told


def test_the_makers_own_duration_is_a_limit() -> None:
    """Where the document gives a range for the same model, it is none of advice."""
    request = parse_request({"capability": "text_to_video", "model": "wan2.7-t2v", "prompt": "A horse", "duration": 16})
    route = resolve(request, "dashscope")
    assert (find_problems(request, route), find_advice(request, route)) == (("duration must be between 2 and 15 seconds (got 16)",), ())


def test_a_duration_is_at_least_a_second_where_nothing_else_is_said() -> None:
    """A route without bounds of its own, and one that writes it twice."""
    assert problems("happyhorse", "text_to_video", "kling-video", duration=0) == ("duration must be 1 or more seconds (got 0)",)
    assert problems("happyhorse", "text_to_video", "omni_flash-fast", duration=-5) == ("duration must be 1 or more seconds (got -5)",)
    assert problems("happyhorse", "text_to_video", "kling-video", duration=60) == ()


@pytest.mark.parametrize("resolution", ["720", "hd", "1080p60", "p", "７２０p"])
def test_a_resolution_that_is_no_number_is_told(resolution: str) -> None:
    """Chanjing writes it as a number."""
    assert problems("chanjing", "reference_to_video", "happyhorse-1.0-r2v", resolution=resolution) == (
        (f"resolution must be a whole number (got {resolution!r})",) if resolution != "720" else ()
    )


@pytest.mark.parametrize(
    ("prompt", "length"),
    [
        ("x" * 5000, None),
        ("x" * 5001, 5001),
        ("马" * 2500, None),
        ("马" * 2501, 5002),
        ("马" * 2000 + "x" * 1001, 5001),
        ("x" * 6000, 6000),
    ],
)
def test_a_prompt_that_would_be_cut_is_refused(prompt: str, length: int | None) -> None:
    """5,000 characters, of which a Chinese one counts two."""
    told = () if length is None else (f"prompt must have at most 5000 characters, a Chinese one counting 2 (got {length})",)
    assert ttapi(prompt=prompt) == told


def test_a_prompt_is_as_long_as_the_gateway_reads_it() -> None:
    """`@1` becomes `character1`, which is eight characters longer."""
    prompt = "@1 " + "x" * 2489
    assert problems("uniall", "reference_to_video", "happy-horse-720p", prompt=prompt) == ()
    assert problems("uniall", "reference_to_video", "happy-horse-720p", prompt=prompt + "x") == (
        "prompt must have at most 2500 characters (got 2501 as the gateway reads it)",
    )


@pytest.mark.parametrize(
    ("value", "field", "written"),
    [
        ("720p", {"render": "upper"}, "720P"),
        (5, {"render": "text"}, "5"),
        ("1080p", {"render": "number", "type": "integer"}, 1080),
        ("hd", {"render": "number", "type": "integer"}, "hd"),
        (720, {"render": "number", "type": "integer"}, 720),
        ("720p", {}, "720p"),
        (5, {"type": "integer"}, 5),
    ],
)
def test_a_value_is_written_as_its_field_wants_it(value: object, field: dict[str, str], written: object) -> None:
    """With its type."""
    found = wire_value(value, WireField.model_validate({"to": "x", "from": "y", **field}))
    assert (type(found), found) == (type(written), written)


JUNK = st.one_of(
    st.text(max_size=20),
    st.integers(),
    st.booleans(),
    st.floats(),
    st.just("@12 @1 马"),
    st.lists(st.sampled_from(["ftp://x", "", "a.png", "data:,x", "https://"]), max_size=12),
)


@given(st.data())
@settings(deadline=None, max_examples=250)
def test_no_request_breaks_the_check(data: st.DataObject) -> None:
    """Any request that its class takes gets sentences, each once, and the same every time."""
    base = data.draw(st.sampled_from(VECTORS))
    route = find_route(base["gateway"], base["capability"], base["model"])
    names = sorted({*base["request"], "seed", "n", "duration", "aspect_ratio", "size", "voice", "references"} - {"capability"})
    changes = data.draw(st.dictionaries(st.sampled_from(names), JUNK, max_size=4))
    options = data.draw(
        st.dictionaries(st.sampled_from([*route.options, "horse"]), JUNK.filter(lambda value: not isinstance(value, list)), max_size=3)
    )
    try:
        request = parse_request({**base["request"], **changes, "options": options})
    except ValueError:
        return
    told = find_problems(request, route)
    assert told == find_problems(request, route)
    assert len(set(told)) == len(told)
    assert all(sentence == sentence.strip() and sentence.partition(":")[0] for sentence in told)


def test_every_route_refuses_what_is_too_much() -> None:
    """No route takes ten references, blank words, or a second less than one."""
    for fact in VECTORS:
        base, route = fact["request"], find_route(fact["gateway"], fact["capability"], fact["model"])
        wrong = {
            "prompt": " ",
            **({"references": addresses(10)} if "references" in base else {}),
            **({"duration": 0} if "duration" in base else {}),
        }
        told = find_problems(parse_request({**base, **wrong}), route)
        assert {sentence.partition(" must ")[0] for sentence in told} == set(wrong), told
