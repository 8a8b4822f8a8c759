"""Downloads, beside curl and s3fs."""

from __future__ import annotations

import os
import shutil
import statistics
import sys
from collections.abc import Callable
from pathlib import Path

from tests.bench import downloads
from tests.bench.measure import MIB, Size, module, say, seconds
from tests.bench.report import Figure
from tests.bench.services import Services, moto, process
from tests.e2e.stack import free_port


def fetching(size: Size, scratch: Path) -> tuple[list[Figure], str]:
    """Downloads to a disk and to S3."""
    figures = [_large(size, scratch), *_many(size, scratch)]
    return figures, ""


def _served(path: Path, length: int) -> Services:
    downloads.make_video(path, length)
    url = f"http://127.0.0.1:{free_port()}"
    serve = [sys.executable, "-m", "tests.bench.downloads", "serve", url.rpartition(":")[2], str(path)]
    return Services(url, process(serve, f"{url}/0.mp4", os.environ))


def _large(size: Size, scratch: Path) -> Figure:
    ratios: list[float] = []
    ours: list[dict[str, float]] = []
    with _served(scratch / "large.mp4", size.large) as url:
        for number in range(size.rounds):
            there = scratch / f"curl-{number}.mp4"
            beside = seconds(f"curl -s -o {there} {url}/0.mp4 && sha256sum {there}")
            there.unlink()
            ours.append(module("downloads", "ours", 1, url, scratch / f"large-{number}"))
            shutil.rmtree(scratch / f"large-{number}")
            ratios.append(ours[-1]["wall_s"] / beside)
            say(f"one download: {ours[-1]['wall_s']:.2f} s, curl and sha256sum {beside:.2f} s")
    ratio, most = statistics.median(ratios), max(one["bytes"] for one in ours)
    return Figure(
        f"one download of {size.large // MIB} MiB to a disk, with its SHA-256",
        "`curl -o` and `sha256sum`",
        "1.0 x, 64 MiB of memory",
        f"**{ratio:.2f} x**, {most / MIB:.0f} MiB",
        ratio <= 1.0 and most < 64 * MIB,
    )


def _many(size: Size, scratch: Path) -> list[Figure]:
    plain: list[float] = []
    hashed: list[float] = []
    stored: list[float] = []
    with _served(scratch / "small.mp4", size.small) as url, moto() as endpoint:
        for number in range(size.rounds):
            folder = scratch / f"curl-{number}"
            files = f"{url}/[0-{size.files - 1}].mp4"
            beside = seconds(f"curl -s --parallel --parallel-max 16 --create-dirs -o '{folder}/#1.mp4' '{files}'")
            sums_s = seconds(f"sha256sum {folder}/*.mp4")
            wall_s = module("downloads", "ours", size.files, url, scratch / f"small-{number}")["wall_s"]
            plain.append(wall_s / beside)
            hashed.append(wall_s / (beside + sums_s))
            environment = os.environ | endpoint | {"HAPPYHORSE_HOME": str(scratch / "home")}
            put_s = module("downloads", "put", folder, f"bench/put-{number}", environment=environment)["wall_s"]
            to_s3_s = module("downloads", "ours", size.files, url, f"s3://bench/ours-{number}", environment=environment)["wall_s"]
            stored.append(to_s3_s / (beside + put_s))
            say(f"many downloads: {wall_s:.2f} s, curl {beside:.2f} s, sha256sum {sums_s:.2f} s")
            say(f"many downloads to S3: {to_s3_s:.2f} s, s3fs put {put_s:.2f} s")
            shutil.rmtree(folder)
            shutil.rmtree(scratch / f"small-{number}")
    what = f"{size.files} downloads of {size.small // MIB} MiB at once"
    rows: list[tuple[str, str, Callable[[], float]]] = [
        (f"{what}, to a disk", "`curl --parallel`, which computes no hash", lambda: statistics.median(plain)),
        ("the same", "`curl --parallel` and `sha256sum`", lambda: statistics.median(hashed)),
        (f"{what}, to S3 (moto's server)", "`curl --parallel` and `put` of s3fs", lambda: statistics.median(stored)),
    ]
    return [Figure(name, beside, "1.2 x", f"**{ratio():.2f} x**", ratio() <= 1.2) for name, beside, ratio in rows]
