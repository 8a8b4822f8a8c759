"""What the processes of this machine share."""

from __future__ import annotations

import os
from pathlib import Path

__all__ = ["state_folder"]


def state_folder() -> Path:
    """Where this machine keeps what its processes share: `HAPPYHORSE_HOME`, or `.happyhorse` in the user's home."""
    return Path(os.environ.get("HAPPYHORSE_HOME", "") or Path.home() / ".happyhorse")
