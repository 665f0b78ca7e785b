"""What holds for all tests: none is timed, neither are the examples of properties nor their making; and these are the
same in every run, unless a longer search is asked for."""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings

settings.register_profile(
    "untimed",
    settings.default,
    deadline=None,
    derandomize="PARAVIRT_EXAMPLES" not in os.environ,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("untimed")
