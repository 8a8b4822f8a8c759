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
from prefect_happyhorse.domain.jobs import Job, JobResult, JobSnapshot, JobStatus, Output
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
from prefect_happyhorse.domain.validation import validation_problems

if TYPE_CHECKING:
    from prefect_happyhorse.artifacts.show import Gallery, show_gallery, show_table
    from prefect_happyhorse.blocks import GatewayCredentials, MediaStore
    from prefect_happyhorse.engine.journal.budget import Budget
    from prefect_happyhorse.engine.journal.entry import JournalEntry
    from prefect_happyhorse.engine.media.concat import ConcatFailed
    from prefect_happyhorse.tasks.bulk import ItemsFailed, gather_limited
    from prefect_happyhorse.tasks.collect import open_jobs, poll_once
    from prefect_happyhorse.tasks.concat import concat
    from prefect_happyhorse.tasks.readiness import check_ready, check_requests
    from prefect_happyhorse.tasks.steps import download, download_sync, generate, generate_sync, poll, poll_sync, submit, submit_sync

__version__ = "0.1.0"

__all__ = [
    "GATEWAYS",
    "AuthenticationFailed",
    "Budget",
    "BudgetExceeded",
    "CatalogError",
    "ConcatFailed",
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
    "ItemsFailed",
    "Job",
    "JobExpired",
    "JobFailed",
    "JobResult",
    "JobSnapshot",
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
    "check_ready",
    "check_requests",
    "concat",
    "download",
    "download_sync",
    "estimate",
    "gather_limited",
    "generate",
    "generate_sync",
    "open_jobs",
    "parse_request",
    "poll",
    "poll_once",
    "poll_sync",
    "resolve",
    "routes",
    "show_gallery",
    "show_table",
    "submit",
    "submit_sync",
    "validation_problems",
]

# Importing Prefect takes a second or two, which the command line and the sandbox can do without: what needs it is imported when asked for.
_LAZY = {
    "Budget": "engine.journal.budget",
    "Gallery": "artifacts.show",
    "GatewayCredentials": "blocks",
    "JournalEntry": "engine.journal.entry",
    "MediaStore": "blocks",
    "poll_once": "tasks.collect",
    "ConcatFailed": "engine.media.concat",
    "ItemsFailed": "tasks.bulk",
    "check_ready": "tasks.readiness",
    "check_requests": "tasks.readiness",
    "gather_limited": "tasks.bulk",
    "download": "tasks.steps",
    "download_sync": "tasks.steps",
    "generate": "tasks.steps",
    "generate_sync": "tasks.steps",
    "concat": "tasks.concat",
    "open_jobs": "tasks.collect",
    "poll": "tasks.steps",
    "poll_sync": "tasks.steps",
    "show_gallery": "artifacts.show",
    "show_table": "artifacts.show",
    "submit": "tasks.steps",
    "submit_sync": "tasks.steps",
}


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_LAZY[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
