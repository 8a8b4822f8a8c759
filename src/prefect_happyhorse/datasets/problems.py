"""All that is wrong with a manifest, before any of it is made."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

from pydantic import Field

from prefect_happyhorse.datasets.manifest import read_manifest
from prefect_happyhorse.datasets.rows import BadRow, ManifestFormat, Row
from prefect_happyhorse.domain.errors import InvalidRequest
from prefect_happyhorse.domain.values import Value

__all__ = ["ManifestCheck", "check_manifest"]

_SHOWN = 100
_AT_ONCE = 250


class ManifestCheck(Value):
    """What is in a manifest, and what is wrong with it.

    Example:
        >>> check = ManifestCheck(manifest="shots.jsonl", rows=2, bad_rows=1, problems=("row 2: ValueError: a row is a JSON object",))
        >>> check.ok
        False
        >>> print(check)
        shots.jsonl: 1 of 2 rows cannot be made. Nothing was sent.
          - row 2: ValueError: a row is a JSON object
    """

    manifest: str = Field(description="The manifest, as it was named.")
    rows: int = Field(default=0, description="How many rows it has, as far as it could be read.")
    bad_rows: int = Field(default=0, description="How many of them cannot be made.")
    fault: str | None = Field(default=None, description="What is wrong with the manifest as a whole, so that none of its rows can be made.")
    problems: tuple[str, ...] = Field(default=(), description="The first problems in words, each with its row or column.")

    @property
    def ok(self) -> bool:
        """Whether every row can be made."""
        return not self.bad_rows and self.fault is None

    def refuse(self, *, bad_rows: bool = True) -> None:
        """Refuse what cannot be made.

        Args:
            bad_rows: Whether a single bad row is enough; else the good ones may go on, unless the manifest as a whole is at fault.

        Raises:
            InvalidRequest: When it is refused; with every problem, of very many the first hundred.
        """
        if self.fault is not None or (bad_rows and self.bad_rows):
            raise InvalidRequest(self._summary, problems=self._told)

    def __str__(self) -> str:
        return "\n".join([self._summary, *(f"  - {problem}" for problem in self._told)])

    @property
    def _summary(self) -> str:
        if self.fault is not None:
            return self.fault
        bad = f"{self.bad_rows} of {self.rows} rows cannot be made. Nothing was sent."
        return f"{self.manifest}: {bad if self.bad_rows else f'{self.rows} rows.'}"

    @property
    def _told(self) -> tuple[str, ...]:
        more = self.bad_rows - len(self.problems)
        return self.problems if self.fault is not None or more <= 0 else (*self.problems, f"and {more} more rows")


def check_manifest(
    manifest: str,
    *,
    format: ManifestFormat | None = None,
    template: Mapping[str, str] | None = None,
    id_column: str | None = None,
    more: Callable[[Sequence[Row]], Sequence[Iterable[str]]] | None = None,
    shown: int = _SHOWN,
) -> ManifestCheck:
    """Go through a manifest once and say all that is wrong with it. It blocks: in async code, run it in a thread.

    Args:
        manifest: See `read_manifest`.
        format: See `read_manifest`.
        template: See `read_manifest`.
        id_column: See `read_manifest`.
        more: What else is wrong with each of some rows that are requests, for example by their routes; one sentence a problem.
        shown: How many bad rows are told in words; the others are counted.

    Returns:
        How many rows there are, how many of them are bad, and why.

    Raises:
        ImportError: When the extra `data` is needed and not installed.
        OSError: When the manifest cannot be read.

    Example:
        ```python
        check_manifest("shots.parquet", id_column="shot").refuse()
        ```
    """
    rows = bad_rows = 0
    problems: list[str] = []
    some: list[Row | BadRow] = []

    def look() -> None:
        nonlocal bad_rows
        good = [row for row in some if isinstance(row, Row)]
        said = iter([()] * len(good) if more is None else more(good))
        for row in some:
            if error := row.error if isinstance(row, BadRow) else "; ".join(next(said)):
                bad_rows += 1
                if len(problems) < shown:
                    problems.append(f"row {row.row}{'' if id_column is None else f' ({row.id})'}: {error}")
        some.clear()

    try:
        for row in read_manifest(manifest, format=format, template=template, id_column=id_column):
            rows += 1
            some.append(row)
            if len(some) == _AT_ONCE:
                look()
        look()
    except InvalidRequest as error:
        # The rows before it do not matter any more.
        return ManifestCheck(manifest=manifest, rows=rows, bad_rows=bad_rows, fault=error.message, problems=error.problems)
    return ManifestCheck(manifest=manifest, rows=rows, bad_rows=bad_rows, problems=tuple(problems))
