"""Requests as rows of a data set, and what was made of them as another: without Prefect, and in constant memory."""

from prefect_happyhorse.datasets.export import Export, ExportFormat, export, journal_entries
from prefect_happyhorse.datasets.manifest import read_manifest
from prefect_happyhorse.datasets.problems import ManifestCheck, check_manifest
from prefect_happyhorse.datasets.rows import BadRow, ManifestFormat, Row

__all__ = [
    "BadRow",
    "Export",
    "ExportFormat",
    "ManifestCheck",
    "ManifestFormat",
    "Row",
    "check_manifest",
    "export",
    "journal_entries",
    "read_manifest",
]
