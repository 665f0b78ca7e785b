"""What holds for all tests: none is timed, neither are the examples of properties nor their making."""

from __future__ import annotations

from hypothesis import HealthCheck, settings

settings.register_profile("untimed", settings.default, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("untimed")
