"""Make images and videos from Prefect flows: submit once, wait, keep what was paid for, and show it."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from prefect_happyhorse.artifacts.gallery import Gallery as Gallery
    from prefect_happyhorse.artifacts.gallery import show_gallery as show_gallery
    from prefect_happyhorse.artifacts.table import show_table as show_table
    from prefect_happyhorse.blocks import GatewayCredentials as GatewayCredentials
    from prefect_happyhorse.blocks import GatewayPool as GatewayPool
    from prefect_happyhorse.blocks import MediaStore as MediaStore
    from prefect_happyhorse.catalog import GATEWAYS as GATEWAYS
    from prefect_happyhorse.catalog import Route as Route
    from prefect_happyhorse.catalog import estimate as estimate
    from prefect_happyhorse.catalog import resolve as resolve
    from prefect_happyhorse.catalog import routes as routes
    from prefect_happyhorse.datasets.export import Export as Export
    from prefect_happyhorse.datasets.manifest import read_manifest as read_manifest
    from prefect_happyhorse.datasets.problems import ManifestCheck as ManifestCheck
    from prefect_happyhorse.datasets.problems import check_manifest as check_manifest
    from prefect_happyhorse.datasets.rows import BadRow as BadRow
    from prefect_happyhorse.datasets.rows import Row as Row
    from prefect_happyhorse.domain.assets import MediaAsset as MediaAsset
    from prefect_happyhorse.domain.errors import AuthenticationFailed as AuthenticationFailed
    from prefect_happyhorse.domain.errors import BudgetExceeded as BudgetExceeded
    from prefect_happyhorse.domain.errors import CatalogError as CatalogError
    from prefect_happyhorse.domain.errors import CheckFailed as CheckFailed
    from prefect_happyhorse.domain.errors import DownloadFailed as DownloadFailed
    from prefect_happyhorse.domain.errors import GatewayUnavailable as GatewayUnavailable
    from prefect_happyhorse.domain.errors import GenerationError as GenerationError
    from prefect_happyhorse.domain.errors import InvalidRequest as InvalidRequest
    from prefect_happyhorse.domain.errors import JobExpired as JobExpired
    from prefect_happyhorse.domain.errors import JobFailed as JobFailed
    from prefect_happyhorse.domain.errors import JobTimedOut as JobTimedOut
    from prefect_happyhorse.domain.errors import MediaUnreachable as MediaUnreachable
    from prefect_happyhorse.domain.errors import ModerationRejected as ModerationRejected
    from prefect_happyhorse.domain.errors import Money as Money
    from prefect_happyhorse.domain.errors import PollRejected as PollRejected
    from prefect_happyhorse.domain.errors import ProtocolError as ProtocolError
    from prefect_happyhorse.domain.errors import QuotaExceeded as QuotaExceeded
    from prefect_happyhorse.domain.errors import RateLimited as RateLimited
    from prefect_happyhorse.domain.errors import RequestRejected as RequestRejected
    from prefect_happyhorse.domain.errors import SubmissionUncertain as SubmissionUncertain
    from prefect_happyhorse.domain.jobs import Job as Job
    from prefect_happyhorse.domain.jobs import JobResult as JobResult
    from prefect_happyhorse.domain.jobs import JobSnapshot as JobSnapshot
    from prefect_happyhorse.domain.jobs import JobStatus as JobStatus
    from prefect_happyhorse.domain.jobs import Output as Output
    from prefect_happyhorse.domain.prices import Estimate as Estimate
    from prefect_happyhorse.domain.prices import Price as Price
    from prefect_happyhorse.domain.prices import total as total
    from prefect_happyhorse.domain.requests import FirstLastFrame as FirstLastFrame
    from prefect_happyhorse.domain.requests import GenerationRequest as GenerationRequest
    from prefect_happyhorse.domain.requests import ImageAudioToVideo as ImageAudioToVideo
    from prefect_happyhorse.domain.requests import ImageEdit as ImageEdit
    from prefect_happyhorse.domain.requests import ImageToVideo as ImageToVideo
    from prefect_happyhorse.domain.requests import MultimodalToVideo as MultimodalToVideo
    from prefect_happyhorse.domain.requests import ReferenceToImage as ReferenceToImage
    from prefect_happyhorse.domain.requests import ReferenceToVideo as ReferenceToVideo
    from prefect_happyhorse.domain.requests import TextToImage as TextToImage
    from prefect_happyhorse.domain.requests import TextToVideo as TextToVideo
    from prefect_happyhorse.domain.requests import VideoEdit as VideoEdit
    from prefect_happyhorse.domain.requests import VideoExtension as VideoExtension
    from prefect_happyhorse.domain.requests import parse_request as parse_request
    from prefect_happyhorse.domain.rows import RowResult as RowResult
    from prefect_happyhorse.domain.validation import validation_problems as validation_problems
    from prefect_happyhorse.engine.journal.budget import Budget as Budget
    from prefect_happyhorse.engine.journal.entry import JournalEntry as JournalEntry
    from prefect_happyhorse.engine.media.concat import ConcatFailed as ConcatFailed
    from prefect_happyhorse.tasks.bulk import ItemsFailed as ItemsFailed
    from prefect_happyhorse.tasks.bulk import gather_limited as gather_limited
    from prefect_happyhorse.tasks.collect import collect_jobs as collect_jobs
    from prefect_happyhorse.tasks.collect import open_jobs as open_jobs
    from prefect_happyhorse.tasks.collect import poll_once as poll_once
    from prefect_happyhorse.tasks.concat import concat as concat
    from prefect_happyhorse.tasks.download import download as download
    from prefect_happyhorse.tasks.export import export_assets as export_assets
    from prefect_happyhorse.tasks.generate import generate as generate
    from prefect_happyhorse.tasks.many import download_many as download_many
    from prefect_happyhorse.tasks.many import generate_many as generate_many
    from prefect_happyhorse.tasks.many import poll_many as poll_many
    from prefect_happyhorse.tasks.many import submit_many as submit_many
    from prefect_happyhorse.tasks.outlay import Outlay as Outlay
    from prefect_happyhorse.tasks.outlay import estimate_requests as estimate_requests
    from prefect_happyhorse.tasks.poll import poll as poll
    from prefect_happyhorse.tasks.readiness import check_ready as check_ready
    from prefect_happyhorse.tasks.readiness import check_requests as check_requests
    from prefect_happyhorse.tasks.readiness import request_problems as request_problems
    from prefect_happyhorse.tasks.spend import show_spend as show_spend
    from prefect_happyhorse.tasks.submit import submit as submit
    from prefect_happyhorse.tasks.suspend import resume_runs as resume_runs
    from prefect_happyhorse.tasks.suspend import still_open as still_open
    from prefect_happyhorse.tasks.suspend import suspend_until_done as suspend_until_done

__version__ = "0.1.0"

# Importing Prefect takes a second or two, which the command line and the sandbox can do without: a name is imported when it is asked for.
_EXPORTS = {
    "artifacts.gallery": "Gallery show_gallery",
    "artifacts.table": "show_table",
    "blocks": "GatewayCredentials GatewayPool MediaStore",
    "catalog": "GATEWAYS Route estimate resolve routes",
    "datasets.export": "Export",
    "datasets.manifest": "read_manifest",
    "datasets.problems": "ManifestCheck check_manifest",
    "datasets.rows": "BadRow Row",
    "domain.assets": "MediaAsset",
    "domain.errors": (
        "AuthenticationFailed BudgetExceeded CatalogError CheckFailed DownloadFailed GatewayUnavailable GenerationError InvalidRequest "
        "JobExpired JobFailed JobTimedOut MediaUnreachable ModerationRejected Money PollRejected ProtocolError QuotaExceeded RateLimited "
        "RequestRejected SubmissionUncertain"
    ),
    "domain.jobs": "Job JobResult JobSnapshot JobStatus Output",
    "domain.prices": "Estimate Price total",
    "domain.requests": (
        "FirstLastFrame GenerationRequest ImageAudioToVideo ImageEdit ImageToVideo MultimodalToVideo ReferenceToImage ReferenceToVideo "
        "TextToImage TextToVideo VideoEdit VideoExtension parse_request"
    ),
    "domain.rows": "RowResult",
    "domain.validation": "validation_problems",
    "engine.journal.budget": "Budget",
    "engine.journal.entry": "JournalEntry",
    "engine.media.concat": "ConcatFailed",
    "tasks.bulk": "ItemsFailed gather_limited",
    "tasks.collect": "collect_jobs open_jobs poll_once",
    "tasks.concat": "concat",
    "tasks.download": "download",
    "tasks.export": "export_assets",
    "tasks.generate": "generate",
    "tasks.many": "download_many generate_many poll_many submit_many",
    "tasks.outlay": "Outlay estimate_requests",
    "tasks.poll": "poll",
    "tasks.readiness": "check_ready check_requests request_problems",
    "tasks.spend": "show_spend",
    "tasks.submit": "submit",
    "tasks.suspend": "resume_runs still_open suspend_until_done",
}
_MODULES = {name: module for module, names in _EXPORTS.items() for name in names.split()}

# Earlier names of public tasks; direct calls of the `_sync` ones wait also where an event loop runs.
_ALIASES = {"ask": "poll_once", "join": "concat"} | {f"{name}_sync": name for name in ("submit", "poll", "download", "generate")}

__all__ = list(_MODULES)  # pyright: ignore[reportUnsupportedDunderAll] -- type checkers see the imports above
__all__ += ["__version__"]


def __getattr__(name: str) -> Any:
    exported = _ALIASES.get(name, name)
    if exported not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_MODULES[exported]}"), exported)
    globals()[name] = value.waiting() if name.endswith("_sync") else value
    return globals()[name]


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
