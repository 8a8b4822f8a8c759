"""Buy, collect and delete videos of a package's gateway on its own sandbox; what came of it goes to standard output as JSON."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
from PIL import Image
from pydantic import SecretStr

from prefect_happyhorse.domain.errors import JobFailed
from prefect_happyhorse.domain.requests import TextToVideo
from prefect_happyhorse.engine.jobs.session import Session
from prefect_happyhorse.engine.storage.store import Store
from prefect_happyhorse.gateways import Account
from prefect_happyhorse.sandbox import SandboxServer, SandboxSettings

KEY = os.environ.get("OPENAI_VIDEOS_API_KEY", "")


def generate(folder: Path, sandbox: SandboxServer) -> subprocess.CompletedProcess[str]:
    """Make a video from a picture by the command line, as a user would."""
    Image.new("RGB", (1280, 720), "orange").save(folder / "frame.png")
    request = {"capability": "image_to_video", "model": "sora-2", "prompt": "A horse", "image": str(folder / "frame.png"), "duration": 4}
    (folder / "request.json").write_text(json.dumps({**request, "size": "1280x720"}))
    words = ["generate", str(folder / "request.json"), "--gateway", "openai_videos", "--output", str(folder / "outputs")]
    return subprocess.run(
        [sys.executable, "-m", "prefect_happyhorse.cli", *words],
        env={**os.environ, "OPENAI_VIDEOS_BASE_URL": sandbox.base_url("openai_videos")},
        capture_output=True,
        text=True,
        check=False,
    )


async def delete(folder: Path, sandbox: SandboxServer) -> dict[str, Any]:
    """Delete a video that is not finished, and ask for the same again."""
    account = Account(gateway="openai_videos", base_url=sandbox.base_url("openai_videos"), key=SecretStr(KEY))
    session = Session(account, Store(url=str(folder / "outputs")))
    prepared = await session.prepare(TextToVideo(model="sora-2", prompt="A horse", duration=8))
    job = (await session.submit(prepared)).job
    answer = await session.cancel(job)
    try:
        await session.submit(prepared)
        again = "bought"
    except JobFailed as error:
        again = str(error)
    return {"accepted": answer.accepted, "may_be_charged": answer.may_be_charged, "again": again}


def main(folder: Path) -> None:
    """All of it."""
    with SandboxServer(SandboxSettings(job_s=0, media="tiny")) as sandbox:
        first, second = generate(folder, sandbox), generate(folder, sandbox)
        ledger = [entry.model_dump() for entry in sandbox.ledger()]
        content = f"{sandbox.base_url('openai_videos')}/v1/videos/{ledger[0]['task_id']}/content"
        told = {
            "printed": [first.stdout, second.stdout, first.stderr, second.stderr],
            "ledger": ledger,
            "without a key": httpx.get(content, trust_env=False).status_code,
            "with the key": httpx.get(content, headers={"Authorization": f"Bearer {KEY}"}, trust_env=False).status_code,
        }
        sandbox.settings(job_s=3600)
        told["deleted"] = asyncio.run(delete(folder, sandbox))
        told["charged"] = [entry.refunded for entry in sandbox.ledger()]
    print(json.dumps(told))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
