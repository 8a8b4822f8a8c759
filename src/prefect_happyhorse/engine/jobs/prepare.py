"""Check a request, free of charge: it fits its route, so do its media, and its digest is known."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from functools import cached_property

from prefect_happyhorse.catalog import Route, check, resolve
from prefect_happyhorse.domain.errors import InvalidRequest
from prefect_happyhorse.domain.jobs import Job, Submission
from prefect_happyhorse.domain.prices import Estimate
from prefect_happyhorse.domain.requests import GenerationRequest, iter_media
from prefect_happyhorse.domain.values import Labels
from prefect_happyhorse.engine.inputs.preflight import Inspection, inspect_media
from prefect_happyhorse.engine.journal.digest import request_digest
from prefect_happyhorse.engine.storage.store import Store
from prefect_happyhorse.gateways import Account

__all__ = ["Identified", "Prepared", "identify", "prepare"]

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Prepared:
    """A request that may be submitted: it fits its route, and its digest is known."""

    request: GenerationRequest
    route: Route
    account: Account
    take: int
    digest: str
    fingerprints: Mapping[tuple[str, int | None], str] = field(default_factory=dict[tuple[str, "int | None"], str])

    @cached_property
    def estimate(self) -> Estimate:
        """What it should cost; what is bought already is not asked."""
        return self.account.estimate(self.request)

    def accepted(self, submission: Submission, labels: Labels) -> Job:
        """The job that it became just now."""
        now = datetime.fromtimestamp(time.time(), timezone.utc)
        lives_s = self.route.facts.task_ttl_s
        return Job(
            gateway=self.account.gateway,
            account=self.account.label,
            capability=self.request.capability,
            model=self.request.model,
            task_id=submission.task_id,
            request_id=submission.request_id,
            digest=self.digest,
            prompt=self.request.prompt,
            submitted_at=now,
            expires_at=None if lives_s is None else now + timedelta(seconds=lives_s),
            labels=labels,
        )


@dataclass(frozen=True)
class Identified:
    """A request whose digest is known, so that it can be looked for: whether it fits its route nobody has looked.

    The digest is None where a medium has a problem, by which it cannot be told from others.
    """

    request: GenerationRequest
    route: Route
    account: Account
    take: int
    digest: str | None
    inspection: Inspection

    def prepared(self, *, tell: bool = True) -> Prepared:
        """The request once it is checked; InvalidRequest where it does not fit."""
        for sentence in self.inspection.unchecked if tell else ():
            _log.info("Not checked before the submit: %s", sentence)
        for sentence in self.inspection.advice if tell else ():
            _log.warning("Not as the provider advises, which is no limit: %s", sentence)
        check(self.request, self.route, more=self.inspection.problems)
        if self.digest is None:
            raise AssertionError("a medium without a fingerprint has a problem")
        return Prepared(
            request=self.request,
            route=self.route,
            account=self.account,
            take=self.take,
            digest=self.digest,
            fingerprints=self.inspection.fingerprints,
        )


async def identify(request: GenerationRequest, account: Account, *, take: int = 1, store: Store | None = None) -> Identified:
    """Give a request its digest, with what is found about its media. Nothing is sent."""
    if isinstance(take, bool) or not isinstance(take, int) or take < 1:  # pyright: ignore[reportUnnecessaryIsInstance] -- callers are untyped
        # 2, "2" and 2.0 would be three digests, and so three charges.
        raise InvalidRequest(f"take must be a whole number from 1 (got {take!r}). Nothing was sent.")
    route = resolve(request, account.gateway)
    inspection = await inspect_media(request, route, store)
    known = inspection.fingerprints
    is_known = all((name, position) in known for name, position, _ in iter_media(request))
    digest = request_digest(request, gateway=account.gateway, account=account.label, take=take, fingerprints=known) if is_known else None
    return Identified(request, route, account, take, digest, inspection)


async def prepare(
    request: GenerationRequest, account: Account, *, take: int = 1, store: Store | None = None, tell: bool = True
) -> Prepared:
    """Check a request against its route and its media, and give it its digest. Nothing is sent."""
    return (await identify(request, account, take=take, store=store)).prepared(tell=tell)
