"""Each gateway's way of speaking, checked with bodies and paths written by hand."""

from __future__ import annotations

import base64
import io
import re
from datetime import datetime, timedelta, timezone
from typing import Any

import httpx
import pytest
from PIL import Image

from prefect_happyhorse.sandbox import SandboxServer
from prefect_happyhorse.sandbox.jobs.state import SandboxState

from .conftest import ONE_EACH, VECTORS, Caller, find_status, find_task_id, find_url, name_of, vector

SUCCESS = {"success", "succeeded", "completed"}


@pytest.mark.parametrize("sent", VECTORS, ids=name_of)
def test_every_vector_runs_to_a_file(gateways: Caller, sent: dict[str, Any]) -> None:
    """Every documented body is accepted under its capability, charged once, and ends in a file of its kind."""
    answer = gateways.submit(sent)
    assert answer.status_code == 200
    task_id = find_task_id(answer.json())
    polled = gateways.poll(sent["gateway"], gateways.poll_path(sent, task_id))
    assert find_status(polled.json()).lower() in SUCCESS
    file = gateways.client.get(find_url(polled.json()))
    assert file.status_code == 200
    image = sent["capability"] in {"text_to_image", "image_edit", "reference_to_image"}
    assert file.headers["content-type"] == ("image/png" if image else "video/mp4")
    assert file.content[:8] == b"\x89PNG\r\n\x1a\n" if image else file.content[4:8] == b"ftyp"
    (entry,) = gateways.sandbox.ledger()
    expected = (sent["gateway"], sent["capability"], sent["model"], task_id, "succeeded", 1, 1, False)
    assert expected == (
        entry.gateway, entry.capability, entry.model, entry.task_id, entry.state, entry.polls, entry.downloads, entry.refunded,
    )  # fmt: skip


def test_ttapi_answers_as_dashscope_does(gateways: Caller) -> None:
    """A finished task has its times in UTC+8 without offset, the prompt, one URL and a usage."""
    submitted = gateways.submit(vector("ttapi")).json()
    assert {"output", "request_id"} == set(submitted)
    assert submitted["output"]["task_status"] == "PENDING"
    answer = gateways.poll("ttapi", f"/happyhorse/api/v1/tasks/{submitted['output']['task_id']}").json()
    output, usage = answer["output"], answer["usage"]
    assert output["orig_prompt"] == "character1 leads character2 across a shallow river at dawn."
    assert usage == {"duration": 5, "input_video_duration": 0, "output_video_duration": 5, "video_count": 1, "SR": 720, "ratio": "9:16"}
    for name in ("submit_time", "scheduled_time", "end_time"):
        assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3}", output[name])
    there = datetime.now(timezone.utc) + timedelta(hours=8)
    said = datetime.strptime(output["submit_time"], "%Y-%m-%d %H:%M:%S.%f").replace(tzinfo=timezone.utc)
    assert abs(there - said) < timedelta(minutes=1)


def test_jobs_go_from_queued_to_running_to_done(gateways: Caller) -> None:
    """A job's state follows the sandbox's clock: queued for its first fifth, then running, then done."""
    gateways.sandbox.settings(job_s=10)
    task_id = gateways.submit(vector("infiflow")).json()["output"]["task_id"]
    seen = []
    for _ in range(3):
        seen.append(gateways.poll("infiflow", f"/dashscope/api/v1/tasks/{task_id}").json()["output"]["task_status"])
        gateways.sandbox.advance(5)
    assert seen == ["PENDING", "RUNNING", "SUCCEEDED"]


def test_dashscope_cancels_only_what_is_pending(gateways: Caller) -> None:
    """A pending task is cancelled and its charge taken back; a running one is not."""
    gateways.sandbox.settings(job_s=100)
    first, second = (gateways.submit(vector("infiflow")).json()["output"]["task_id"] for _ in range(2))
    base, headers = gateways.sandbox.base_url("infiflow") + "/dashscope/api/v1/tasks", gateways.headers("infiflow")
    assert gateways.client.post(f"{base}/{first}/cancel", headers=headers).status_code == 200
    gateways.sandbox.advance(50)
    refused = gateways.client.post(f"{base}/{second}/cancel", headers=headers)
    assert (refused.status_code, refused.json()["code"]) == (400, "UnsupportedOperation")
    assert gateways.client.get(f"{base}/{first}", headers=headers).json()["output"]["task_status"] == "CANCELED"
    assert [(e.state, e.refunded) for e in gateways.sandbox.ledger()] == [("cancelled", True), ("running", False)]


def test_a_foreign_or_old_task_is_not_there(gateways: Caller) -> None:
    """Another account's task and one past its time are answered as each gateway answers a task that it does not know."""
    gateways.sandbox.settings(task_ttl_s=60)
    for sent in ONE_EACH:
        task_id = find_task_id(gateways.submit(sent).json())
        path = gateways.poll_path(sent, task_id)
        foreign = gateways.poll(sent["gateway"], path, key="key-2")
        gateways.sandbox.advance(61)
        old = gateways.poll(sent["gateway"], path)
        for answer in (foreign, old):
            _assert_missing(sent["gateway"], answer)


def _assert_missing(gateway: str, answer: httpx.Response) -> None:
    body = answer.json()
    if gateway in {"ttapi", "infiflow"}:
        assert (answer.status_code, body["output"]["task_status"]) == (200, "UNKNOWN")
    elif gateway == "chanjing":
        assert (answer.status_code, body["code"]) == (200, 40000)
    elif gateway == "uniall":
        assert (answer.status_code, body["error"]["code"]) == (400, "task_not_exist")
    else:
        assert (answer.status_code, body["code"]) == (400, "task_not_exist")


def test_uniall_takes_both_pairs_of_paths(gateways: Caller) -> None:
    """The prose's submit and poll paths work beside those of the table, and the alias of images beside images."""
    sent = vector("uniall")
    body = {**sent["body"], "reference_image_urls": sent["body"]["images"]}
    del body["images"]
    answer = gateways.submit(sent, body, path="/v1/videos/generations").json()
    assert (answer["id"], answer["object"], answer["status"], answer["seconds"]) == (
        answer["task_id"],
        "video.generation.job",
        "queued",
        "8",
    )
    for path in (f"/v1/videos/generations/{answer['id']}", f"/v1/videos/{answer['id']}"):
        polled = gateways.poll("uniall", path).json()
        assert (polled["status"], polled["result"]["video_url"]) == ("completed", polled["video_url"])
    assert gateways.sandbox.ledger()[0].capability == "reference_to_video"


def test_a_new_chanjing_token_kills_the_old_one(gateways: Caller) -> None:
    """Tokens of one app replace each other, and a job stays with its app."""
    url = gateways.sandbox.base_url("chanjing") + "/open/v1/access_token"
    first, second = (gateways.client.post(url, json={"app_id": "app", "secret_key": "s"}).json()["data"] for _ in range(2))
    assert 86_000 < first["expire_in"] - datetime.now(timezone.utc).timestamp() <= 86_400
    assert gateways.submit(vector("chanjing"), key=first["access_token"]).json()["code"] == 10400
    task_id = gateways.submit(vector("chanjing"), key=second["access_token"]).json()["data"]
    third = gateways.client.post(url, json={"app_id": "app", "secret_key": "s"}).json()["data"]
    polled = gateways.poll("chanjing", f"/open/v1/ai_creation/task?unique_id={task_id}", key=third["access_token"]).json()
    assert polled["data"]["progress_desc"] == "Success"
    gateways.sandbox.advance(86_401)
    assert gateways.submit(vector("chanjing"), key=third["access_token"]).json()["code"] == 10400


@pytest.mark.parametrize(
    ("body", "code"),
    [({"app_id": "a"}, 40000), ({"app_id": "a", "secret_key": "bad-key"}, 10400), ([], 400)],
    ids=["lacks", "wrong", "malformed"],
)
def test_chanjing_refuses_a_token(gateways: Caller, body: object, code: int) -> None:
    """A token is refused under HTTP 200, with the code in the envelope."""
    answer = gateways.client.post(gateways.sandbox.base_url("chanjing") + "/open/v1/access_token", json=body)
    assert (answer.status_code, answer.json()["code"]) == (200, code)


def test_chanjing_answers_many_at_once(gateways: Caller) -> None:
    """A page holds the tasks that are there; more than fifty ids are refused."""
    ids = [gateways.submit(vector("chanjing")).json()["data"] for _ in range(3)]
    url = gateways.sandbox.base_url("chanjing") + "/open/v1/ai_creation/task/page"
    page = gateways.client.post(url, headers=gateways.headers("chanjing"), json={"unique_ids": [*ids, "other"]}).json()
    assert [task["unique_id"] for task in page["data"]["list"]] == ids
    assert {task["progress_desc"] for task in page["data"]["list"]} == {"Success"}
    over = gateways.client.post(url, headers=gateways.headers("chanjing"), json={"unique_ids": ["x"] * 51}).json()
    assert over["code"] == 40000


def test_happyhorse_writes_the_same_in_many_ways(gateways: Caller) -> None:
    """Across jobs a client meets every documented place of id, status and result, progress as number and as text."""
    sent = vector("happyhorse", "text_to_video")
    ids, places, statuses, progress = set[str](), set[str](), set[bool](), set[type]()
    words = set[str]()
    for _ in range(60):
        answer = gateways.submit(sent).json()
        ids |= answer.keys() & {"id", "task_id", "output"}
        polled = gateways.poll("happyhorse", f"/v1/videos/{find_task_id(answer)}").json()
        places |= {name for name in polled.keys() & {"video_url", "media_url", "result_url", "metadata", "results"} if polled[name]}
        statuses.add("status" in polled)
        words.add(find_status(polled))
        if "progress" in polled:
            progress.add(type(polled["progress"]))
    assert ids == {"id", "task_id", "output"}
    assert places == {"video_url", "media_url", "result_url", "metadata", "results"}
    assert (statuses, progress) == ({True, False}, {int, str})
    assert {word.lower() for word in words} == SUCCESS
    assert words & {"SUCCESS", "Completed"}


def test_happyhorse_bills_an_edit_for_what_goes_in_and_what_comes_out(gateways: Caller) -> None:
    """As its price counts the seconds."""
    sent = vector("happyhorse")
    answer = gateways.submit(sent).json()
    made = gateways.poll("happyhorse", gateways.poll_path(sent, find_task_id(answer))).json()
    assert made["usage"] == {"duration": 5}
    gateways.sandbox.settings(check_inputs="submit")
    sent = vector("happyhorse", "video_edit", "happyhorse-1.0-video-edit")
    del sent["body"]["images"]
    sent["body"]["metadata"]["video"] = find_url(made)
    answer = gateways.submit(sent).json()
    edited = gateways.poll("happyhorse", gateways.poll_path(sent, find_task_id(answer))).json()
    assert edited["usage"] == {"duration": 10}


def test_happyhorse_finds_a_job_only_at_its_own_path(gateways: Caller) -> None:
    """The three video families and the images each have a poll path of their own."""
    for sent, wrong in (
        (vector("happyhorse", "text_to_video", "grok-imagine-video"), "/v1/videos/{}"),
        (vector("happyhorse", "text_to_video", "omni_flash"), "/v1/videos/grok/{}"),
        (vector("happyhorse", "text_to_image"), "/v1/videos/{}"),
        (vector("happyhorse", "text_to_video"), "/v1/videos/notevideo/{}"),
    ):
        task_id = find_task_id(gateways.submit(sent).json())
        _assert_missing("happyhorse", gateways.poll("happyhorse", wrong.format(task_id)))
        assert find_status(gateways.poll("happyhorse", gateways.poll_path(sent, task_id)).json()).lower() in SUCCESS


def test_several_pictures_as_base64_in_the_asked_format(gateways: Caller) -> None:
    """n, response_format and output_format are honoured, and the pictures differ from each other."""
    gateways.sandbox.settings(media="full")
    sent = vector("happyhorse", "text_to_image")
    body = {**sent["body"], "n": 3, "response_format": "b64_json", "output_format": "jpeg"}
    task_id = gateways.submit(sent, body).json()["task_id"]
    results = gateways.poll("happyhorse", f"/v1/images/async/{task_id}").json()["data"]["data"]["data"]
    pictures = [base64.b64decode(result["b64_json"]) for result in results]
    assert len(set(pictures)) == 3
    assert {Image.open(io.BytesIO(picture)).format for picture in pictures} == {"JPEG"}


def test_an_unknown_path_is_refused_in_the_gateway_s_shape(gateways: Caller) -> None:
    """A path that no source names is answered with 404 and the gateway's own error body."""
    answer = gateways.client.post(gateways.sandbox.base_url("uniall") + "/v2/videos", json={})
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "invalid_url")
    answer = gateways.client.get(gateways.sandbox.base_url("ttapi") + "/nothing")
    assert (answer.status_code, answer.json()["code"]) == (404, "UnsupportedOperation")


def test_a_seed_repeats_task_ids(sandbox: SandboxServer) -> None:
    """Two sandboxes with the same seed give the same ids, and without one they differ."""
    settings = sandbox.settings()
    first, second = (SandboxState(settings).new_id() for _ in range(2))
    assert first == second
    free = settings.model_copy(update={"seed": None})
    assert SandboxState(free).new_id() != SandboxState(free).new_id()
