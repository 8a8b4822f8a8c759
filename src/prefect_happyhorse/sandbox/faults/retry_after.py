"""The Retry-After header of a fault, in either of the forms that HTTP allows."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from email.utils import format_datetime

from prefect_happyhorse.sandbox.faults.faults import FaultRule

__all__ = ["retry_after"]


def retry_after(rule: FaultRule) -> dict[str, str]:
    """The header that a rule asks for.

    Example:
        >>> retry_after(FaultRule(at="poll", kind="throttle", retry_after_s=3))
        {'retry-after': '3'}
    """
    if rule.retry_after_s is None:
        return {}
    if rule.retry_after_as == "date":
        return {"retry-after": format_datetime(datetime.now(timezone.utc) + timedelta(seconds=rule.retry_after_s), usegmt=True)}
    return {"retry-after": f"{rule.retry_after_s:g}"}
