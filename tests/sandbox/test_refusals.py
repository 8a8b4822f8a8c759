"""What a strict provider refuses, and in which words: nothing of it is charged."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import httpx
import pytest

from prefect_happyhorse.sandbox import SandboxSettings

from .conftest import ONE_EACH, VECTORS, Caller, name_of, vector

Change = Callable[[dict[str, Any]], object]
PROMPT_KEYS = {"ttapi": ("input", "prompt"), "infiflow": ("input", "prompt"), "chanjing": (None, "ref_prompt")}


def assert_refused(gateway: str, answer: httpx.Response, said: str = "") -> None:
    """The answer is the gateway's error for a wrong parameter and says why."""
    body = answer.json()
    if gateway in {"ttapi", "infiflow"}:
        assert (answer.status_code, body["code"], set(body)) == (400, "InvalidParameter", {"code", "message", "request_id"})
        message = body["message"]
    elif gateway == "chanjing":
        assert (answer.status_code, body["code"], set(body)) == (200, 40000, {"trace_id", "code", "msg", "data"})
        message = body["msg"]
    else:
        assert (answer.status_code, body["error"]["code"], set(body["error"])) == (
            400,
            "invalid_request_error",
            {"message", "type", "code"},
        )
        message = body["error"]["message"]
    assert said in message


@pytest.mark.parametrize("sent", ONE_EACH, ids=name_of)
def test_a_missing_or_bad_key(gateways: Caller, sent: dict[str, Any]) -> None:
    """Submit and poll refuse a key that is missing or bad, each gateway in its own shape."""
    gateway = sent["gateway"]
    url = gateways.sandbox.base_url(gateway)
    refused = [
        gateways.submit(sent, key="bad-key"),
        gateways.client.post(url + sent["submit"].split(" ")[1], json=sent["body"]),
        gateways.poll(gateway, gateways.poll_path(sent, "task"), key="bad-key"),
    ]
    for answer in refused:
        body = answer.json()
        if gateway == "ttapi":
            assert (answer.status_code, set(body), body["data"]) == (401, {"status", "message", "jobId", "data"}, None)
        elif gateway == "infiflow":
            assert (answer.status_code, body["code"]) == (401, "InvalidApiKey")
        elif gateway == "chanjing":
            assert (answer.status_code, body["code"]) == (200, 10400)
        else:
            assert (answer.status_code, body["error"]["code"]) == (401, "invalid_api_key")
    assert gateways.sandbox.ledger() == []


def test_only_good_keys_where_there_is_a_list(gateways: Caller) -> None:
    """With a list of good keys every other is refused."""
    gateways.sandbox.settings(good_keys=("mine",))
    assert gateways.submit(vector("uniall"), key="other").status_code == 401
    assert gateways.submit(vector("uniall"), key="mine").status_code == 200


def _required_paths(sent: dict[str, Any]) -> list[tuple[str, ...]]:
    gateway, capability = sent["gateway"], sent["capability"]
    if gateway in {"ttapi", "infiflow"}:
        return [("model",), ("input",), ("input", "prompt"), ("input", "media")]
    if gateway == "chanjing":
        return [(name,) for name in sent["body"]]
    if gateway == "uniall":
        return [("model",), ("prompt",), ("duration",)]
    return [("model",), ("prompt",)] if capability == "text_to_image" else [("model",), ("prompt",), ("images",)]


@pytest.mark.parametrize("sent", ONE_EACH, ids=name_of)
def test_a_missing_field(gateways: Caller, sent: dict[str, Any]) -> None:
    """Every field that a source requires is missed."""
    for path in _required_paths(sent):
        changed = vector(sent["gateway"], sent["capability"], sent["model"])
        inside = changed["body"]
        for step in path[:-1]:
            inside = inside[step]
        del inside[path[-1]]
        assert_refused(sent["gateway"], gateways.submit(changed), path[-1])
    assert gateways.sandbox.ledger() == []


@pytest.mark.parametrize("sent", VECTORS, ids=name_of)
def test_an_unknown_key(gateways: Caller, sent: dict[str, Any]) -> None:
    """A key that no source names is refused, at the top and inside objects."""
    body = sent["body"]
    extra = {"surprise": "1" if sent["encoding"] == "multipart" else 1}
    assert_refused(sent["gateway"], gateways.submit(sent, {**body, **extra}), "surprise")
    for name, value in body.items():
        if isinstance(value, dict):
            assert_refused(sent["gateway"], gateways.submit(sent, {**body, name: {**value, **extra}}), f"{name}.surprise")
    assert gateways.sandbox.ledger() == []


def _put(*path: str | int, value: object) -> Change:
    def change(body: dict[str, Any]) -> object:
        inside: Any = body
        for step in path[:-1]:
            inside = inside[step]
        inside[path[-1]] = value
        return body

    return change


_IMAGE = {"type": "reference_image", "url": "https://example.com/ref-1.png"}
WRONG: list[tuple[str, str, str | None, Change, str]] = [
    ("ttapi", "reference_to_video", None, _put("parameters", "duration", value=2), "duration: must be at least 3"),
    ("ttapi", "reference_to_video", None, _put("parameters", "duration", value=16), "duration: must be at most 15"),
    ("ttapi", "reference_to_video", None, _put("parameters", "duration", value=True), "duration: must be an integer"),
    ("ttapi", "reference_to_video", None, _put("parameters", "duration", value=5.0), "duration: must be an integer"),
    ("ttapi", "reference_to_video", None, _put("parameters", "duration", value="5"), "duration: must be an integer"),
    ("ttapi", "reference_to_video", None, _put("parameters", "resolution", value="720p"), "resolution: must be in upper case"),
    ("ttapi", "reference_to_video", None, _put("parameters", "ratio", value="21:9"), "ratio: must be one of"),
    ("ttapi", "reference_to_video", None, _put("parameters", "watermark", value="false"), "watermark: must be a boolean"),
    ("ttapi", "reference_to_video", None, _put("parameters", "seed", value=-1), "seed: must be at least 0"),
    ("ttapi", "reference_to_video", None, _put("parameters", "seed", value=2147483648), "seed: must be at most 2147483647"),
    ("ttapi", "reference_to_video", None, _put("parameters", value=[]), "parameters: must be an object"),
    ("ttapi", "reference_to_video", None, _put("input", "media", value=[]), "media: must hold at least 1 (got 0)"),
    ("ttapi", "reference_to_video", None, _put("input", "media", value=[_IMAGE] * 10), "media: must hold at most 9 (got 10)"),
    ("ttapi", "reference_to_video", None, _put("input", "media", value={}), "media: must be an array"),
    ("ttapi", "reference_to_video", None, _put("input", "media", 0, value="x"), "media[0]: must be an object"),
    ("ttapi", "reference_to_video", None, _put("input", "media", 0, "type", value="video"), "media[0].type: must be one of"),
    (
        "ttapi",
        "reference_to_video",
        None,
        _put("input", "media", 0, "url", value="ftp://example.com/a.png"),
        "must be an http or https URL",
    ),
    ("ttapi", "reference_to_video", None, _put("input", "media", 0, "url", value="https://[broken"), "must be an http or https URL"),
    (
        "ttapi",
        "reference_to_video",
        None,
        _put("input", "media", 0, "url", value="data:image/png;base64,aaaa"),
        "data URLs are not accepted",
    ),
    ("ttapi", "reference_to_video", None, _put("input", "media", 0, "name", value="x"), "media[0].name: unknown field"),
    ("infiflow", "reference_to_video", None, _put("input", "media", 0, "url", value="data:,aaaa"), "must be a base64 data URL"),
    (
        "infiflow",
        "reference_to_video",
        None,
        _put("input", "prompt", value="\u9a6c" * 2501),
        "must have at most 5000 characters (got 5002)",
    ),
    ("infiflow", "reference_to_video", None, _put("input", "prompt", value=""), "prompt: must not be empty"),
    ("chanjing", "reference_to_video", None, _put("creation_type", value=3), "creation_type: must be 4"),
    ("chanjing", "reference_to_video", None, _put("clarity", value="1080"), "clarity: must be an integer"),
    ("uniall", "reference_to_video", None, _put("size", value="1080p"), "size: must be one of 720p"),
    ("uniall", "reference_to_video", None, _put("prompt", value="a" * 2501), "prompt: must have at most 2500 characters (got 2501)"),
    ("uniall", "image_to_video", None, _put("aspect_ratio", value="16:9"), "unknown field"),
    ("uniall", "video_edit", None, _put("audio_setting", value="mute"), "audio_setting: must be one of auto, origin"),
    ("happyhorse", "text_to_image", None, _put("n", value=0), "n: must be at least 1"),
    ("happyhorse", "text_to_image", None, _put("response_format", value="hex"), "response_format: must be one of"),
    ("happyhorse", "image_edit", None, _put("n", value="two"), "n: must be an integer"),
    ("happyhorse", "image_edit", None, _put("image", value="not a url"), "image: must be an http or https URL"),
    (
        "happyhorse",
        "first_last_frame",
        "wan2.7-i2v",
        _put("input", "media", 1, "type", value="first_frame"),
        "must hold at most one first_frame (got 2)",
    ),
    ("happyhorse", "video_edit", "wan2.7-videoedit", _put("input", "media", value=[_IMAGE]), "a video is required"),
    ("happyhorse", "video_edit", "omni_flash_edit", _put("messages", 0, "role", value="system"), "role: must be 'user'"),
    (
        "happyhorse",
        "video_edit",
        "omni_flash_edit",
        _put("messages", 0, "content", value=[{"type": "text"}]),
        "must be a text or an image_url part",
    ),
    ("happyhorse", "video_edit", "omni_flash_edit", _put("messages", 0, "content", value=7), "must be a string or an array"),
    ("happyhorse", "video_edit", "omni_flash_edit", _put("messages", value=["x"]), "messages[0]: must be an object"),
    ("happyhorse", "text_to_video", "omni_flash-fast", _put("seconds", value=10), "seconds: must be a string"),
    ("happyhorse", "text_to_video", "wan2.7-t2v", _put("parameters", "duration", value=False), "duration: must be a number"),
]


@pytest.mark.parametrize("case", WRONG, ids=lambda case: f"{case[0]}-{case[4]}")
def test_a_wrong_value(gateways: Caller, case: tuple[str, str, str | None, Change, str]) -> None:
    """Types, ranges, choices, counts, lengths and addresses are checked; the refusal names the field and what is allowed."""
    gateway, capability, model, change, said = case
    sent = vector(gateway, capability, model)
    change(sent["body"])
    assert_refused(gateway, gateways.submit(sent), said)
    assert gateways.sandbox.ledger() == []


def test_all_problems_at_once(gateways: Caller) -> None:
    """A refusal lists every problem of the body."""
    sent = vector("ttapi")
    sent["body"]["parameters"].update(duration=99, ratio="1:9", seed=-5)
    message = gateways.submit(sent).json()["message"]
    assert all(f"parameters.{name}:" in message for name in ("duration", "ratio", "seed"))


def test_messages_may_hold_pictures(gateways: Caller) -> None:
    """A video edit's message takes texts and reference pictures, and they count as inputs."""
    sent = vector("happyhorse", "video_edit", "omni_flash_edit")
    picture = {"type": "image_url", "image_url": {"url": "https://example.com/ref-1.png"}}
    sent["body"]["messages"][0]["content"] = [{"type": "text", "text": "Make it snow"}, picture, picture]
    assert gateways.submit(sent).status_code == 200
    assert [entry.inputs for entry in gateways.sandbox.ledger()] == [3]


@pytest.mark.parametrize("gateway", ["ttapi", "infiflow", "uniall", "happyhorse", "chanjing"])
def test_an_unknown_model(gateways: Caller, gateway: str) -> None:
    """A model that the gateway lacks is not found."""
    sent = vector(gateway)
    sent["body"]["model_code" if gateway == "chanjing" else "model"] = "no-such-model"
    answer = gateways.submit(sent)
    if gateway == "chanjing":
        assert (answer.status_code, answer.json()["code"]) == (200, 40000)
    elif gateway in {"ttapi", "infiflow"}:
        assert (answer.status_code, answer.json()["code"]) == (404, "ModelNotFound")
    else:
        assert (answer.status_code, answer.json()["error"]["code"]) == (404, "model_not_found")


def test_a_model_at_the_wrong_path(gateways: Caller) -> None:
    """A model that belongs to another submit path is not found at this one, and the refusal says so."""
    answer = gateways.submit(vector("happyhorse", "text_to_video", "omni_flash"), path="/v1/videos")
    assert "another path" in answer.json()["error"]["message"]


def test_infiflow_wants_an_asynchronous_call(gateways: Caller) -> None:
    """Without X-DashScope-Async the submit is refused."""
    sent = vector("infiflow")
    url = gateways.sandbox.base_url("infiflow") + sent["submit"].split(" ")[1]
    answer = gateways.client.post(url, headers={"Authorization": "Bearer key-1"}, json=sent["body"])
    assert_refused("infiflow", answer, "X-DashScope-Async")


def test_ttapi_cuts_a_long_prompt_silently(gateways: Caller) -> None:
    """As its source says, a prompt that is too long is cut and billed; the ledger shows what was lost."""
    sent = vector("ttapi")
    sent["body"]["input"]["prompt"] = "\u9a6c" * 2400 + "horse " * 100
    task_id = gateways.submit(sent).json()["output"]["task_id"]
    said = gateways.poll("ttapi", f"/happyhorse/api/v1/tasks/{task_id}").json()["output"]["orig_prompt"]
    assert said == "\u9a6c" * 2400 + ("horse " * 100)[:200]
    assert gateways.sandbox.ledger()[0].prompt_cut == (5400, 5000)


def test_a_body_of_the_wrong_kind(gateways: Caller) -> None:
    """JSON where a form is wanted, a form where JSON is wanted, files in forms and nonsense are refused."""
    client, base, headers = gateways.client, gateways.sandbox.base_url("happyhorse"), gateways.headers("happyhorse")
    edit, video = vector("happyhorse", "image_edit"), vector("happyhorse", "text_to_video")
    assert_refused("happyhorse", client.post(f"{base}/v1/images/async/edits", headers=headers, json=edit["body"]), "multipart/form-data")
    form = {name: (None, str(value)) for name, value in video["body"].items()}
    assert_refused("happyhorse", client.post(f"{base}/v1/videos", headers=headers, files=form), "application/json")
    upload = {name: (None, value) for name, value in edit["body"].items()} | {"image": ("a.png", b"\x89PNG", "image/png")}
    assert_refused("happyhorse", client.post(f"{base}/v1/images/async/edits", headers=headers, files=upload), "image: must be a text")
    for content in (b"{", b"[1]", b"\xff"):
        answer = client.post(f"{base}/v1/videos", headers={**headers, "content-type": "application/json"}, content=content)
        assert_refused("happyhorse", answer, "the body is not")
    broken = {**headers, "content-type": "multipart/form-data; boundary=x"}
    assert_refused(
        "happyhorse", client.post(f"{base}/v1/images/async/edits", headers=broken, content=b"--y\r\n"), "not a valid multipart form"
    )


def test_too_many_queries(gateways: Caller) -> None:
    """An account that asks more often than the limit within a second is refused, another one is not."""
    gateways.sandbox.settings(queries_per_s=2)
    answers = [gateways.poll("infiflow", "/dashscope/api/v1/tasks/x").status_code for _ in range(12)]
    assert 429 in answers
    assert answers[:2] == [200, 200]
    assert gateways.poll("infiflow", "/dashscope/api/v1/tasks/x", key="key-2").status_code == 200


def test_settings_refuse_nonsense() -> None:
    """Unknown settings and impossible values are refused."""
    for wrong in ({"job_s": -1}, {"job_s": (3, 1)}, {"colour": "red"}, {"media": "large"}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            SandboxSettings().changed(wrong)  # type: ignore[arg-type]
