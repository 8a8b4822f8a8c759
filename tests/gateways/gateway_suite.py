"""What every gateway's protocol has to pass: one suite, inherited by a class per gateway that says how its answers look."""

from __future__ import annotations

from .calls_suite import CallsSuite
from .poll_suite import PollSuite
from .submit_suite import SubmitSuite
from .text_suite import TextSuite

__all__ = ["GatewaySuite"]


class GatewaySuite(CallsSuite, SubmitSuite, PollSuite, TextSuite):
    """The whole suite."""
