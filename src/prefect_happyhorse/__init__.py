"""Make images and videos from Prefect flows: submit once, wait, keep what was paid for, and show it."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from prefect_happyhorse.catalog import GATEWAYS, Route, estimate, resolve, routes
from prefect_happyhorse.domain.assets import MediaAsset
from prefect_happyhorse.domain.errors import (
    AuthenticationFailed,
    BudgetExceeded,
    CatalogError,
    DownloadFailed,
    GatewayUnavailable,
    GenerationError,
    InvalidRequest,
    JobExpired,
    JobFailed,
    JobTimedOut,
    MediaUnreachable,
    ModerationRejected,
    ProtocolError,
    QuotaExceeded,
    RateLimited,
    RequestRejected,
    SubmissionUncertain,
)
from prefect_happyhorse.domain.jobs import Job, JobResult, JobState, JobStatus, Output
from prefect_happyhorse.domain.prices import Estimate, Price
from prefect_happyhorse.domain.requests import (
    FirstLastFrame,
    GenerationRequest,
    ImageAudioToVideo,
    ImageEdit,
    ImageToVideo,
    MultimodalToVideo,
    ReferenceToImage,
    ReferenceToVideo,
    TextToImage,
    TextToVideo,
    VideoEdit,
    VideoExtension,
    parse_request,
)

if TYPE_CHECKING:
    from prefect_happyhorse.artifacts import Gallery, show_gallery, show_table
    from prefect_happyhorse.blocks import GatewayCredentials, MediaStore
    from prefect_happyhorse.collecting import ask, open_jobs
    from prefect_happyhorse.engine.budget import Budget
    from prefect_happyhorse.engine.entry import JournalEntry
    from prefect_happyhorse.films import join
    from prefect_happyhorse.readiness import check_ready
    from prefect_happyhorse.tasks import download, download_sync, generate, generate_sync, poll, poll_sync, submit, submit_sync

__version__ = "0.1.0"

__all__ = [
    "GATEWAYS",
    "AuthenticationFailed",
    "Budget",
    "BudgetExceeded",
    "CatalogError",
    "DownloadFailed",
    "Estimate",
    "FirstLastFrame",
    "Gallery",
    "GatewayCredentials",
    "GatewayUnavailable",
    "GenerationError",
    "GenerationRequest",
    "ImageAudioToVideo",
    "ImageEdit",
    "ImageToVideo",
    "InvalidRequest",
    "Job",
    "JobExpired",
    "JobFailed",
    "JobResult",
    "JobState",
    "JobStatus",
    "JobTimedOut",
    "JournalEntry",
    "MediaAsset",
    "MediaStore",
    "MediaUnreachable",
    "ModerationRejected",
    "MultimodalToVideo",
    "Output",
    "Price",
    "ProtocolError",
    "QuotaExceeded",
    "RateLimited",
    "ReferenceToImage",
    "ReferenceToVideo",
    "RequestRejected",
    "Route",
    "SubmissionUncertain",
    "TextToImage",
    "TextToVideo",
    "VideoEdit",
    "VideoExtension",
    "__version__",
    "ask",
    "check_ready",
    "download",
    "download_sync",
    "estimate",
    "generate",
    "generate_sync",
    "join",
    "open_jobs",
    "parse_request",
    "poll",
    "poll_sync",
    "resolve",
    "routes",
    "show_gallery",
    "show_table",
    "submit",
    "submit_sync",
]

# Importing Prefect takes a second or two, which the command line and the sandbox can do without: what needs it is imported when asked for.
_LAZY = {
    "Budget": "engine.budget",
    "Gallery": "artifacts",
    "GatewayCredentials": "blocks",
    "JournalEntry": "engine.entry",
    "MediaStore": "blocks",
    "ask": "collecting",
    "check_ready": "readiness",
    "download": "tasks",
    "download_sync": "tasks",
    "generate": "tasks",
    "generate_sync": "tasks",
    "join": "films",
    "open_jobs": "collecting",
    "poll": "tasks",
    "poll_sync": "tasks",
    "show_gallery": "artifacts",
    "show_table": "artifacts",
    "submit": "tasks",
    "submit_sync": "tasks",
}


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_LAZY[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
