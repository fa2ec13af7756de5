"""How far a handover is, for the process that serves: a table of stages and what happens in them. Without IO.

Until `held` nothing has changed: a successor that is lost leaves no trace. From there on the incumbent lets go, and if the
successor is lost it comes back to its sockets, which it never closes before `taken`.
"""

from __future__ import annotations

from enum import Enum
from typing import Final


class Stage(Enum):
    """Where the incumbent is."""

    ALONE = "alone"
    """It serves, and nobody asks."""
    OFFERED = "offered"
    """A successor was sent the sockets, and prepares."""
    RELEASING = "releasing"
    """The successor is prepared; what only one process may use is being closed."""
    ORPHANED = "orphaned"
    """The successor was lost meanwhile; the release goes to its end, for it cannot be broken off."""
    FREED = "freed"
    """The successor's turn: it opens what was released, and begins to serve."""
    LEFT = "left"
    """The successor serves. This process ends."""


class Event(Enum):
    """What happens to the incumbent."""

    ASKED = "asked"
    HELD = "held"
    RELEASED = "released"
    TAKEN = "taken"
    LOST = "lost"
    """The successor's connection is gone, it said something wrong, it failed, or it took too long."""


class Action(Enum):
    """What the incumbent does then."""

    OFFER = "offer"
    RELEASE = "release"
    TELL_FREE = "tell free"
    RESUME = "resume"
    LEAVE = "leave"
    NOTHING = "nothing"


TABLE: Final = {
    (Stage.ALONE, Event.ASKED): (Stage.OFFERED, Action.OFFER),
    (Stage.OFFERED, Event.HELD): (Stage.RELEASING, Action.RELEASE),
    (Stage.OFFERED, Event.LOST): (Stage.ALONE, Action.NOTHING),
    (Stage.RELEASING, Event.RELEASED): (Stage.FREED, Action.TELL_FREE),
    (Stage.RELEASING, Event.LOST): (Stage.ORPHANED, Action.NOTHING),
    (Stage.ORPHANED, Event.RELEASED): (Stage.ALONE, Action.RESUME),
    (Stage.FREED, Event.TAKEN): (Stage.LEFT, Action.LEAVE),
    (Stage.FREED, Event.LOST): (Stage.ALONE, Action.RESUME),
    (Stage.LEFT, Event.LOST): (Stage.LEFT, Action.NOTHING),
}
"""What is missing must not happen: a successor that says it is taken for lost, one that asks beside another is refused."""


class Steps:
    """One process's way through the table."""

    def __init__(self) -> None:
        self.stage = Stage.ALONE

    def happened(self, event: Event) -> Action | None:
        """What to do now, the stage has changed; None: this must not happen here, and nothing has changed."""
        found = TABLE.get((self.stage, event))
        if found is None:
            return None
        self.stage, action = found
        return action
