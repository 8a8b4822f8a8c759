"""What the gallery answers: filters, pages, a job's page, and to whom."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.gallery.entries import BEGUN, SIGNED, digest_of, kept, place, submitted, uncertain

from prefect_happyhorse.domain.requests import ReferenceToVideo, TextToVideo
from prefect_happyhorse.engine.journal.journal import Cancellation, Failure
from prefect_happyhorse.gallery.app import CONTENT_SECURITY_POLICY
from prefect_happyhorse.gallery.reader import JournalReader

NASTY = "<img src=x onerror=alert(1)>\"'&amp;</script> 🐴 \u202egnp.esroh\x1b[2J\u2028"


async def listed(client: httpx.AsyncClient, **query: Any) -> dict[str, Any]:
    answer = await client.get("/api/jobs", params=query)
    assert answer.status_code == 200, answer.text
    return answer.json()


async def shown(client: httpx.AsyncClient, name: object) -> dict[str, Any]:
    answer = (await client.get(f"/api/jobs/{digest_of(name)}")).json()
    assert "job" in answer, answer
    return answer["job"]


async def names(client: httpx.AsyncClient, **query: Any) -> list[str]:
    return [row["prompt"] for row in (await listed(client, **query))["rows"]]


@pytest.fixture
async def mixed(folder: Path, reader: JournalReader) -> None:
    """Five jobs of several kinds, a minute or a day apart, and a lease that was released."""
    video = TextToVideo(model="wan2.7-t2v", prompt="A Foal runs")
    place(
        folder,
        kept(folder, 1, "A white horse", labels={"project": "film", "shot": "1"}),
        kept(folder, 2, video, at=1, gateway="infiflow", media_type="video/mp4", labels={"project": "film"}),
        submitted(3, "A grey horse", at=2),
        uncertain(4, "A black horse", at=3),
        kept(folder, 5, "Next day", at=24 * 60),
        uncertain(6, "Released", at=5).model_copy(update={"state": "released", "failure": None}),
    )
    await reader.refresh()
    await reader.read_details()


@pytest.mark.usefixtures("mixed")
@pytest.mark.parametrize(
    ("query", "found"),
    [
        ({}, ["Next day", "A black horse", "A grey horse", "A Foal runs", "A white horse"]),
        ({"state": "kept"}, ["Next day", "A Foal runs", "A white horse"]),
        ({"state": "open"}, ["A black horse", "A grey horse"]),
        ({"state": "released"}, ["Released"]),
        ({"model": "wan2.7-t2v"}, ["A Foal runs"]),
        ({"gateway": "infiflow"}, ["A Foal runs"]),
        ({"label": "project=film"}, ["A Foal runs", "A white horse"]),
        ({"label": "shot=1", "state": "kept"}, ["A white horse"]),
        ({"day": "2026-11-21"}, ["Next day"]),
        ({"q": "HORSE white"}, ["A white horse"]),
        ({"q": "foal"}, ["A Foal runs"]),
        ({"q": "task-3"}, ["A grey horse"]),
        ({"q": digest_of(4)[:8]}, ["A black horse"]),
        ({"q": "zebra"}, []),
        ({"page": "2"}, []),
    ],
)
async def test_jobs_are_chosen(client: httpx.AsyncClient, query: dict[str, str], found: list[str]) -> None:
    """By each filter, by several, and by the words of their prompts whatever the case; newest first."""
    assert await names(client, **query) == found


@pytest.mark.usefixtures("mixed")
async def test_a_page_says_what_there_is(client: httpx.AsyncClient) -> None:
    """How many jobs, what they cost together, and what there is to filter by."""
    page = await listed(client)
    assert (page["count"], page["jobs"], page["pages"], page["cost"], page["reading"]) == (5, 5, 1, "17.50 CNY", None)
    assert page["facets"]["day"] == [["2026-11-21", 1], ["2026-11-20", 4]]
    assert page["facets"]["label"] == [["project=film", 2], ["shot=1", 1]]
    assert page["facets"]["gateway"] == [["happyhorse", 4], ["infiflow", 1]]
    row = page["rows"][3]
    assert (row["state"], row["kind"], row["cost"], row["begun"]) == ("kept", "video", "3.50 CNY", "2026-11-20T12:01:00Z")


@pytest.mark.parametrize(
    ("query", "problem"),
    [
        ({"state": "lost"}, "state must be one of open, intent, .* \\(got 'lost'\\)"),
        ({"day": "yesterday"}, "day must be a date such as 2026-11-20 \\(got 'yesterday'\\)"),
        ({"label": "film"}, "label must be a name and a value"),
        ({"page": "0"}, "page must be a number from 1 \\(got '0'\\)"),
        ({"page": "²"}, "page must be a number"),
    ],
)
async def test_a_wrong_query_says_what_is_wrong(client: httpx.AsyncClient, query: dict[str, str], problem: str) -> None:
    """With the field, the value and the rule."""
    answer = await client.get("/api/jobs", params=query)
    assert answer.status_code == 400
    with pytest.raises(ValueError, match=problem):
        raise ValueError(answer.json()["error"])


async def test_pages_follow_each_other(client: httpx.AsyncClient, folder: Path, reader: JournalReader) -> None:
    """Sixty jobs each, none twice and none left out."""
    place(folder, *(submitted(number, f"{number}", at=number) for number in range(130)))
    await reader.refresh()
    pages = [await names(client, page=number) for number in (1, 2, 3)]
    assert [len(page) for page in pages] == [60, 60, 10]
    assert [prompt for page in pages for prompt in page] == [f"{number}" for number in reversed(range(130))]


async def test_what_has_not_changed_is_not_sent_again(client: httpx.AsyncClient, folder: Path, reader: JournalReader) -> None:
    """Until a job changes."""
    place(folder, submitted(1))
    await reader.refresh()
    etag = (await client.get("/api/jobs")).headers["etag"]
    assert (await client.get("/api/jobs", headers={"If-None-Match": etag})).status_code == 304
    await reader.refresh()
    assert (await client.get("/api/jobs", headers={"If-None-Match": etag})).status_code == 304
    place(folder, kept(folder, 1, revision=2))
    await reader.refresh()
    answer = await client.get("/api/jobs", headers={"If-None-Match": etag})
    assert answer.json()["rows"][0]["state"] == "kept"


async def test_a_search_goes_on_while_prompts_are_read(client: httpx.AsyncClient, folder: Path, reader: JournalReader) -> None:
    """What is known by now is found, and it is said how many prompts are not read yet; an id is found at once."""
    place(folder, submitted(1, "A horse"))
    await reader.refresh()
    reader.details.clear()
    page = await listed(client, q="horse")
    assert (page["count"], page["unsearched"]) == (0, 1)
    assert (await listed(client, q="task-1"))["count"] == 1
    await reader.read_details()
    page = await listed(client, q="horse")
    assert (page["count"], page["unsearched"]) == (1, 0)


async def test_an_empty_journal(client: httpx.AsyncClient, folder: Path, reader: JournalReader) -> None:
    """It says which store it looked into."""
    await reader.refresh()
    page = await listed(client)
    assert (page["rows"], page["problems"], page["jobs"], page["store"]) == ([], [], 0, f"file://{folder}")


async def test_a_jobs_page(client: httpx.AsyncClient, folder: Path, reader: JournalReader) -> None:
    """Its request, inputs, takes, what was made of it, cost, times and files."""
    horse = kept(folder, "horse", "A horse", content=b"horse", thumbnail=b"small")
    assert horse.asset is not None
    ride = ReferenceToVideo(model="happyhorse-1.1-r2v", prompt="It runs", references=(horse.asset, SIGNED), duration=5)
    rides = [kept(folder, f"ride{take}", ride, at=take, take=take, media_type="video/mp4", content=b"v" * take) for take in (1, 2)]
    other = kept(folder, "other", ride.model_copy(update={"duration": 6}), at=9, media_type="video/mp4")
    place(folder, horse, *rides, other)
    await reader.refresh()
    await reader.read_details()
    job = await shown(client, "ride1")
    assert job["request"] == [["duration", "5"]]
    first, second = job["inputs"]
    assert (first["field"], first["job"]["digest"], first["thumbnail"]) == ("references @1", digest_of("horse"), horse.asset.sha256)
    assert second["text"] == "https://cdn.example/horse.png?…"
    assert [(row["digest"], row["take"]) for row in job["takes"]] == [(one.digest, one.take) for one in rides]
    assert [what for what, _ in job["history"]] == [
        "submit begun",
        "accepted by the gateway",
        "finished",
        "kept, as the journal has it",
    ]
    assert job["costs"] == {"estimated": "3.50 CNY", "reckoned": "list price of 2026-08-01", "billed": None, "by_maker": False}
    assert (job["polls"], job["files"][0]["problem"], job["unread"], job["account"]) == (4, None, 0, "studio")
    assert [row["digest"] for row in (await shown(client, "horse"))["made_of_it"]] == [*(one.digest for one in rides), other.digest]


async def test_what_to_do_names_the_command_and_its_store(client: httpx.AsyncClient, folder: Path, reader: JournalReader) -> None:
    """As it can be copied into a terminal."""
    failed = submitted("failed").model_copy(
        update={"state": "failed", "failure": Failure(message="Refused <b>.", code="E7", provider_status="FAILED")}
    )
    cancelled = submitted("cancelled").model_copy(
        update={"state": "cancelled", "cancellation": Cancellation(accepted=True, message="Taken back.", at=BEGUN)}
    )
    place(folder, uncertain("doubt"), submitted("open"), failed, cancelled)
    await reader.refresh()
    command = f"`happyhorse jobs --store {folder} "
    doubt = await shown(client, "doubt")
    assert f"{command}adopt t-1 {digest_of('doubt')[:12]}`" in doubt["what_now"]
    assert f"{command}forget {digest_of('doubt')[:12]}`" in doubt["what_now"]
    assert f"{command}resume {digest_of('open')[:12]}`" in (await shown(client, "open"))["what_now"]
    told = await shown(client, "failed")
    assert told["reason"] == [["what happened", "Refused <b>."], ["code", "E7"], ["state at the provider", "FAILED"]]
    assert ["cancel accepted", "Taken back."] in (await shown(client, "cancelled"))["reason"]
    assert (await shown(client, "cancelled"))["cost"] == "nothing"


async def test_a_file_that_is_gone_or_cut_or_elsewhere_is_said_to_be(
    client: httpx.AsyncClient, folder: Path, reader: JournalReader, tmp_path: Path
) -> None:
    """Before a browser asks for it in vain."""
    gone, cut = kept(folder, "gone"), kept(folder, "cut", content=b"whole")
    far = kept(tmp_path / "elsewhere", "far")
    assert far.asset is not None
    place(folder, gone, cut, far.model_copy(update={"asset": far.asset.model_copy(update={"uri": "file:///far.png"})}))
    (folder / "2026-11-20" / "gone.png").unlink()
    (folder / "2026-11-20" / "cut.png").write_bytes(b"w")
    await reader.refresh()
    problems = {name: (await shown(client, name))["files"][0]["problem"] for name in ("gone", "cut", "far")}
    assert problems == {
        "gone": "It is no longer there.",
        "cut": "It has 1 bytes, and had 5 when it was kept.",
        "far": "It is kept outside of this store.",
    }
    assert (await client.get(f"/media/{digest_of('gone')}/0")).status_code == 404
    assert (await client.get(f"/media/{digest_of('far')}/0")).status_code == 404


async def test_nothing_of_a_signature_a_key_or_the_machine_is_shown(
    client: httpx.AsyncClient, folder: Path, reader: JournalReader, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither in a list nor on a job's page; the journal holds the address with its signature."""
    monkeypatch.setenv("HAPPYHORSE_API_KEY", "sesame-1234")
    entry = kept(folder, 1, f"As in {SIGNED}", url=SIGNED)
    place(folder, entry)
    assert "c2lnbmF0dXJl" in next(folder.glob("journal/??/*.json")).read_text()
    await reader.refresh()
    for address in ("/api/jobs", f"/api/jobs/{entry.digest}"):
        text = (await client.get(address)).text
        for secret in ("c2lnbmF0dXJl", "sesame", entry.owner.host, entry.owner.machine, entry.owner.run):
            assert secret not in text


async def test_what_moves_a_text_is_written_out(client: httpx.AsyncClient, folder: Path, reader: JournalReader) -> None:
    """And what is markup or emoji stays what it is: a page sets it as text."""
    place(folder, submitted(1, NASTY))
    await reader.refresh()
    answer = await client.get("/api/jobs")
    assert [char for char in "\x1b\u202e\u2028" if char in answer.text] == []
    assert answer.headers["content-type"] == "application/json"
    assert answer.json()["rows"][0]["prompt"] == NASTY


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.1:8810", "localhost:1", "LOCALHOST", "[::1]:8810", "[::1]"])
async def test_this_machine_is_answered(client: httpx.AsyncClient, host: str) -> None:
    """By whichever of its names, and at whatever port a tunnel ends."""
    answer = await client.get("/", headers={"Host": host})
    assert (answer.status_code, answer.headers["content-type"]) == (200, "text/html; charset=utf-8")


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example:8810", "evil.example:127", "", "10.0.0.1:8810", "[::2]"])
@pytest.mark.parametrize("path", ["/", "/api/jobs", "/gallery.js", "/thumbnails/x.jpg"])
async def test_a_strangers_name_for_this_machine_is_refused(client: httpx.AsyncClient, host: str, path: str) -> None:
    """As a page that has its own name lead to 127.0.0.1 would ask."""
    answer = await client.get(path, headers={"Host": host})
    assert (answer.status_code, answer.text) == (403, "This gallery is only for this machine: ask 127.0.0.1 or localhost.")


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS"])
async def test_nothing_can_be_changed(client: httpx.AsyncClient, method: str) -> None:
    """Only reading is answered."""
    answer = await client.request(method, "/api/jobs")
    assert (answer.status_code, answer.headers["allow"]) == (405, "GET, HEAD")


@pytest.mark.parametrize("path", ["/", "/api/jobs", "/nothing", "/media/x/0", "/thumbnails/../../etc/passwd.jpg", "/gallery.js"])
async def test_every_answer_says_what_a_page_may_do(client: httpx.AsyncClient, path: str) -> None:
    """No inline script, no other host, no frame, no guessing of types."""
    headers = (await client.get(path)).headers
    assert headers["content-security-policy"] == CONTENT_SECURITY_POLICY
    assert "unsafe" not in CONTENT_SECURITY_POLICY
    assert (headers["x-content-type-options"], headers["referrer-policy"]) == ("nosniff", "no-referrer")
    assert headers["cross-origin-resource-policy"] == "same-origin"


@pytest.mark.parametrize(
    "path", ["/nothing.js", "/page", "/__init__.py", "/..%2fapp.py", "/thumbnails/abc.jpg", "/media/x/0", "/media/x/-1"]
)
async def test_what_is_not_there(client: httpx.AsyncClient, path: str) -> None:
    """And nothing of the package but the page."""
    assert (await client.get(path)).status_code == 404


async def test_thumbnails_are_found_by_their_hash_alone(client: httpx.AsyncClient, folder: Path, reader: JournalReader) -> None:
    """Where there is none, one pixel of nothing keeps the browser's log empty."""
    entry = kept(folder, 1, thumbnail=b"\xff\xd8\xffsmall")
    place(folder, entry)
    await reader.refresh()
    assert entry.asset is not None
    found = await client.get(f"/thumbnails/{entry.asset.sha256}.jpg")
    assert (found.content, found.headers["content-type"]) == (b"\xff\xd8\xffsmall", "image/jpeg")
    again = await client.get(f"/thumbnails/{entry.asset.sha256}.jpg", headers={"If-None-Match": found.headers["etag"]})
    assert again.status_code == 304
    missing = await client.get(f"/thumbnails/{'0' * 64}.jpg")
    assert (missing.status_code, missing.headers["content-type"], missing.headers["cache-control"]) == (200, "image/gif", "no-store")


async def test_a_job_that_is_not_there(client: httpx.AsyncClient, folder: Path, reader: JournalReader) -> None:
    """It is said, also where the address names no digest at all; one that came since is found."""
    await reader.refresh()
    for digest in (digest_of(1), "x", "leases"):
        assert "stands in the journal of" in (await client.get(f"/api/jobs/{digest}")).json()["error"]
    place(folder, submitted(1, "New"))
    assert (await shown(client, 1))["prompt"] == "New"
