"""Flows that wait for jobs which take for ever, in the three ways in which a flow can wait."""

from __future__ import annotations

from prefect import flow

from prefect_happyhorse import MediaAsset, ReferenceToVideo, TextToVideo, generate


def ride(prompt: str) -> ReferenceToVideo:
    return ReferenceToVideo(
        model="happyhorse-1.0-r2v", prompt=prompt, references=["https://example.com/a.png"], resolution="720p", duration=3
    )


@flow
async def awaited() -> MediaAsset:
    """Await a job that the gateway can cancel."""
    return await generate(ride("awaited"), "infiflow")


@flow
def mapped() -> list[MediaAsset]:
    """Map over two jobs, each in a thread of its own."""
    return generate.map([ride("mapped one"), ride("mapped two")], "infiflow").result()


@flow
def synchronous() -> MediaAsset:
    """Wait for a job without async."""
    return generate(ride("synchronous"), "infiflow")


@flow
async def without_a_way() -> MediaAsset:
    """Await a job of a gateway that documents no cancelling."""
    request = TextToVideo(model="happyhorse-1.0-t2v", prompt="for ever", resolution="720p", duration=3)
    return await generate(request, "happyhorse")
