"""Which device tokens may be forgotten, over all pushes of each app: those of the outbox and those without a message."""

from __future__ import annotations

from twisted.logger import Logger

from streampush.apns.apps import App, Apps
from streampush.apns.dead_tokens import DeadTokens
from streampush.apns.outcome import Outcome, Rejected

_log = Logger()


class Verdicts:
    """Follows the apps in force: what was learned of one that has changed says nothing about it now."""

    def __init__(self, apps: Apps) -> None:
        self._apps = apps
        self._known: dict[str, tuple[App, DeadTokens]] = {}
        self._suspected: set[str] = set()  # apps that were told to be wrongly configured
        apps.watch(self._reloaded)

    def dead_at_ms(self, app: App, outcome: Outcome, *, registered_at_ms: int, sent_at_ms: int) -> int | None:
        """To be called with the outcome of each push. When its device token was of no use any more, if Apple says so and is to be
        believed; Unix milliseconds, as the others."""
        known = self._known.get(app.name)
        if known is None:
            known = self._known[app.name] = (app, DeadTokens())
        dead = known[1]
        dead.note(outcome)
        if not isinstance(outcome, Rejected):
            return None
        if not dead.may_drop(outcome, registered_at_ms=registered_at_ms, sent_at_ms=sent_at_ms):
            self._look_suspect(app, dead)
            return None
        return sent_at_ms if outcome.timestamp_ms is None else outcome.timestamp_ms

    def _reloaded(self) -> None:
        self._known = {name: known for name, known in self._known.items() if self._apps.named(name) == known[0]}
        self._suspected &= self._known.keys()

    def _look_suspect(self, app: App, dead: DeadTokens) -> None:
        if dead.suspects_configuration and app.name not in self._suspected:
            self._suspected.add(app.name)
            text = "Apple calls most device tokens of {app} bad: compare environment and bundle id with the build; none is dropped"
            _log.error(text, app=app.name)
