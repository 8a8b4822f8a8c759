"""Where the rows of a data set lie: the files of a folder or of a pattern."""

from __future__ import annotations

import errno
import json
import re
from pathlib import PurePosixPath
from typing import Any

from prefect_happyhorse.domain.errors import InvalidRequest
from prefect_happyhorse.engine.storage.fsspec_backend import translated

__all__ = ["data_files"]

# https://huggingface.co/docs/datasets/repository_structure: train-00000-of-00002.parquet, or with a hash before the dot.
_SHARD = re.compile(r"(?P<split>.+?)-\d+-of-\d+(-\w+)?")
_SPLITS = ("train", "validation", "test")


def data_files(fs: Any, path: str, manifest: str) -> list[str]:
    """The Parquet or Arrow files of a pattern, or of a folder that holds one split; or the file itself."""
    with translated(manifest):
        if any(sign in path for sign in "*?[") and not fs.exists(path):
            if matches := sorted(fs.glob(path)):
                return matches
            raise FileNotFoundError(errno.ENOENT, "no file fits the pattern", manifest)
        found = _of_folder(fs, path.rstrip("/"), manifest) if fs.isdir(path) else [path]
    if isinstance(found, InvalidRequest):
        raise found
    return found


def _of_folder(fs: Any, folder: str, manifest: str) -> list[str] | InvalidRequest:
    if fs.exists(f"{folder}/dataset_dict.json"):
        # What `datasets` saves of several splits: a folder each.
        splits: list[str] = json.loads(fs.cat_file(f"{folder}/dataset_dict.json"))["splits"]
        if len(splits) != 1:
            return _several(manifest, splits, "{manifest}/{split}")
        folder = f"{folder}/{splits[0]}"
    if fs.exists(f"{folder}/state.json"):
        # Beside the files that it names may lie some that `datasets` has cached.
        return [f"{folder}/{file['filename']}" for file in json.loads(fs.cat_file(f"{folder}/state.json"))["_data_files"]]
    for below in ("", "/data"):
        files = _listed(fs, f"{folder}{below}")
        for ending in (".parquet", ".arrow"):
            if found := sorted(file for file in files if file.endswith(ending)):
                if len(splits := _splits(found)) > 1:
                    return _several(manifest, splits, f"{{manifest}}{below}/{{split}}*{ending}")
                return found
    return InvalidRequest(f"{manifest} holds no data set: neither *.parquet nor *.arrow, there or in its folder data. Nothing was sent.")


def _listed(fs: Any, folder: str) -> list[str]:
    # Not fsspec's `glob`, for which a bracket in the folder's own name is a pattern.
    try:
        return [entry["name"] for entry in fs.ls(folder, detail=True) if entry["type"] == "file"]
    except FileNotFoundError:
        return []


def _splits(files: list[str]) -> list[str]:
    """The splits that some files are of, as far as their names say so."""
    stems = [PurePosixPath(file).stem for file in files]
    shards = [_SHARD.fullmatch(stem) for stem in stems]
    if not any(shards) and not any(stem in _SPLITS for stem in stems):
        return []
    return sorted({shard["split"] if shard else stem for stem, shard in zip(stems, shards, strict=True)})


def _several(manifest: str, splits: list[str], way: str) -> InvalidRequest:
    one = way.format(manifest=manifest.rstrip("/"), split=splits[0])
    return InvalidRequest(f"{manifest} holds {len(splits)} splits: {', '.join(splits)}. Name one, as {one}. Nothing was sent.")
