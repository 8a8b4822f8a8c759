"""A gateway of the simulation: what it accepts is charged, whether or not anybody hears of it."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from email.utils import formatdate
from functools import lru_cache
from pathlib import Path
from tempfile import TemporaryDirectory

import httpx
from tests.simulation.world import CURRENT, Process, World

from prefect_happyhorse.sandbox.media.render import MediaSpec, _write  # pyright: ignore[reportPrivateUsage]

__all__ = ["Charge", "SimGateway", "service"]

JOB_S = 90.0
_UNEVEN_S = 600.0
_EPOCH_S = 1_790_000_000.0


@lru_cache(maxsize=1)
def video() -> bytes:
    """A small video that every job makes."""
    spec = MediaSpec(kind="video", format="mp4", width=64, height=64, duration_s=0.2, fps=5, quality=40)
    with TemporaryDirectory() as folder:
        path = Path(folder) / "video.mp4"
        _write(spec, path)
        return path.read_bytes()


def service(path: str) -> str:
    """Which of the services at one address a path belongs to."""
    return path.partition("/api/")[0]


@dataclass
class Charge:
    """A job that was accepted, and so is paid for."""

    task_id: str
    digest: str
    claim: str
    at: float
    by: Process
    prompt: str
    service: str
    listed_at: float
    heard: bool = False
    cancelled: bool = False


@dataclass
class SimGateway(httpx.AsyncBaseTransport):
    """A transport that is the gateway itself.

    Args:
        world: Where it lives.
        odd: How often a submit is answered in an odd way, and how often anything else is.
        polite: Whether it says that it takes a job back that it does not.
        poor: Whether the balance is used up now and then.
        lag_s: How far the list of tasks is behind; up to ten minutes more for one job than for another.
        foreign: How often somebody else buys something as well.
    """

    world: World
    odd: float = 0.0
    polite: bool = False
    poor: bool = False
    lag_s: float = 0.0
    foreign: float = 0.0
    charges: dict[str, Charge] = field(default_factory=dict)
    strangers: dict[str, Charge] = field(default_factory=dict)
    digest_of: dict[str, str] = field(default_factory=dict)

    def digest(self, request: httpx.Request) -> str:
        """The digest of what a submit asks for, by the service that it is sent to and its prompt."""
        return self.digest_of[service(request.url.path) + json.loads(request.content)["input"]["prompt"]]

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Answer a call, after whatever the world does to it."""
        path = request.url.path
        what = "submit" if path.endswith("video-synthesis") else path.rpartition("/")[2]
        if what == "submit":
            # A connection takes its time, and the process may be held up meanwhile; then the call leaves.
            await self.world.disturb("network connect")
            if (trace := request.extensions.get("trace")) is not None:
                await trace("http11.send_request_headers.started", {})
            self.handed_over(request)
            before = len(self.charges)
            answer = self._submit(request)
            made = list(self.charges.values())[before:]
            response = await self.world.step(
                f"network {what}", lambda: answer, lambda why: httpx.ReadTimeout(why, request=request), late=True
            )
            for charge in made:
                charge.heard = charge.task_id.encode() in response.content
            return response
        return await self.world.step(
            f"network {what}", lambda: self._answer(request, what), lambda why: httpx.ReadTimeout(why, request=request)
        )

    def _let_another_buy(self, prompt: str) -> None:
        """Somebody else uses the account as well, for something else."""
        if self.world.choices.draw(self.foreign, 1):
            task_id, now = f"other-{len(self.strangers) + 1:04}-{'0' * 19}", self.world.loop.now
            self.strangers[task_id] = Charge(task_id, "", "", now, CURRENT.get(), f"Not: {prompt}", "", now)

    def handed_over(self, request: httpx.Request) -> None:
        """Called for every submit at the moment at which it leaves its process."""

    async def _answer(self, request: httpx.Request, what: str) -> httpx.Response:
        if what == "video.mp4":
            headers = {"content-type": "video/mp4", "content-length": str(len(video()))}
            return httpx.Response(200, stream=httpx.ByteStream(video()), headers=headers, request=request)
        if what == "cancel":
            return self._cancel(request)
        if what == "tasks":
            return self._list(request)
        return self._poll(request, what)

    def _submit(self, request: httpx.Request) -> httpx.Response:
        prompt = json.loads(request.content)["input"]["prompt"]
        self._let_another_buy(prompt)
        odd = self.world.choices.draw(0.0 if self.world.calm else self.odd, 8 if self.poor else 6)
        if odd == 1:
            self.world.note("the submit is throttled")
            return _json(request, 429, {"code": "Throttling.RateQuota", "message": "slow down"}, {"retry-after": "20"})
        if odd == 2:
            return _json(request, 503, {"code": "InternalError", "message": "come back later"})
        if odd > 6:
            self.world.note("the balance is used up")
            return _json(request, 400, {"code": "Arrearage", "message": "the balance is used up"})
        charge = Charge(
            f"task-{len(self.charges) + 1:04}-{'0' * 20}",
            self.digest(request),
            request.extensions["claim"],
            self.world.loop.now,
            CURRENT.get(),
            prompt,
            service(request.url.path),
            self.world.loop.now + self.lag_s + min(self.lag_s, _UNEVEN_S) * self.world.choices.pick([0.0, 0.3, 1.0]),
        )
        self.charges[charge.task_id] = charge
        self.world.note(f"the gateway accepts {charge.task_id[:9]} for {charge.digest[:6]}")
        answer = {"request_id": "r-1", "output": {"task_id": charge.task_id, "task_status": "PENDING"}}
        if odd == 3:
            return _json(request, 429, {"code": "Throttling.RateQuota", "message": "slow down", **answer}, {"retry-after": "20"})
        if odd == 4:
            return _json(request, 503, {"code": "InternalError", "message": "oops", **answer})
        if odd == 5:
            return httpx.Response(200, content=b"<html>", request=request)
        if odd == 6:
            return _json(request, 200, {"request_id": "r-1", "output": {"task_status": "PENDING"}})
        return _json(request, 200, answer)

    def _poll(self, request: httpx.Request, task_id: str) -> httpx.Response:
        charge = self.charges.get(task_id) or self.strangers.get(task_id)
        odd = self.world.choices.draw(0.0 if self.world.calm else self.odd, 4)
        if odd == 1:
            return _json(request, 503, {"code": "InternalError", "message": "come back later"})
        if odd == 2:
            return httpx.Response(200, content=b"{", request=request)
        if charge is None or odd == 3:
            return _json(request, 200, {"request_id": "r-2", "output": {"task_id": task_id, "task_status": "UNKNOWN"}})
        output = {"task_id": task_id, "task_status": "FAILED" if odd == 4 else self.state_of(charge)}
        if output["task_status"] == "SUCCEEDED":
            output |= {"orig_prompt": charge.prompt, "video_url": "http://127.0.0.1:9/video.mp4"}
        return _json(request, 200, {"request_id": "r-2", "output": output})

    def _list(self, request: httpx.Request) -> httpx.Response:
        odd = self.world.choices.draw(0.0 if self.world.calm else self.odd, 3)
        if odd == 1:
            return _json(request, 503, {"code": "InternalError", "message": "come back later"})
        now = self.world.loop.now
        asked = service(request.url.path)
        every = [*self.charges.values(), *self.strangers.values()]
        shown = [charge for charge in every if charge.service == asked and charge.listed_at <= now]
        data = [{"task_id": one.task_id, "gmt_create": int((_EPOCH_S + one.at) * 1000)} for one in reversed(shown)]
        # One of several machines that answer is behind, or a page comes without its end.
        total = len(data) if odd == 3 else max(0, len(data) - (odd == 2))
        page = {"total": total, "total_page": 1, "page_no": 1, "page_size": 100, "data": data[1:] if odd else data}
        return _json(request, 200, page, {"date": formatdate(_EPOCH_S + now, usegmt=True)})

    def state_of(self, charge: Charge) -> str:
        """What is true of a job."""
        if charge.cancelled:
            return "CANCELED"
        return "SUCCEEDED" if self.world.loop.now > charge.at + JOB_S else "RUNNING"

    def _cancel(self, request: httpx.Request) -> httpx.Response:
        charge = self.charges[request.url.path.split("/")[-2]]
        if self.world.loop.now < charge.at + 10.0 and not self.polite:
            charge.cancelled = True
        self.world.note(f"is asked to cancel {charge.task_id[:9]}: {'done' if charge.cancelled else 'says yes and does not'}")
        return _json(request, 200, {"request_id": "r-3"})


def _json(request: httpx.Request, status: int, body: object, headers: dict[str, str] | None = None) -> httpx.Response:
    return httpx.Response(status, json=body, headers=headers, request=request)
