"""For all tests: no example has to be done in a given time. How long it takes says more of what else the machine does."""

from __future__ import annotations

from hypothesis import settings

settings.register_profile("streampush", deadline=None)
settings.load_profile("streampush")
