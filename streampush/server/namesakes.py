"""Other processes under this node's name: the predecessor of an upgrade for some seconds, or a mistake in the settings."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from twisted.logger import Logger

from streampush.push.values import KnownNode, NodeRecord, NodeState

SURE_AFTER: Final = 15
"""Announcements in a row, 30 s: the workers of an upgraded node serve beside those before them until the last one is ready."""


class Namesakes:
    """Looks for them each time that the nodes of the deployment are known, and warns once of those that stay."""

    _log = Logger(namespace="streampush")

    def __init__(self) -> None:
        self.number = 0
        self._in_a_row = 0

    def look(self, record: NodeRecord, known: Sequence[KnownNode]) -> None:
        """`record` is how this node stands."""
        others = [one for one in _others(record, known) if one.state is NodeState.SERVING]
        self.number = len(others)
        if not others or record.state is not NodeState.SERVING:
            if self._in_a_row >= SURE_AFTER:
                self._log.info("no other process serves as {name} any more", name=record.name)
            self._in_a_row = 0
            return
        self._in_a_row += 1
        if self._in_a_row == SURE_AFTER:
            self._log.warn(
                "another process serves under the name of this node, {name}: the one at {addresses}. Set node.name in the settings"
                " of one of them: an order to drain reaches only the one that was started last",
                name=record.name,
                addresses=", ".join(one.address for one in others),
            )


def _others(record: NodeRecord, known: Sequence[KnownNode]) -> list[NodeRecord]:
    """All other runs of the name."""
    runs = [run for node in known if node.record.name == record.name for run in (node.record, *node.namesakes)]
    return [run for run in runs if run.started_at_ms != record.started_at_ms]
