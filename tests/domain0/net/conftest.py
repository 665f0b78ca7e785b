"""How long the properties are looked into: ``PARAVIRT_EXAMPLES`` is the number of examples for each."""

from __future__ import annotations

import os

from hypothesis import settings

if "PARAVIRT_EXAMPLES" in os.environ:
    settings.register_profile("long", settings.default, max_examples=int(os.environ["PARAVIRT_EXAMPLES"]))
    settings.load_profile("long")
