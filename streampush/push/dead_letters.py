"""Dead letters: what a device did not take although it was delivered often enough. Listed, read, replayed, dropped."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from hashlib import sha256

from streampush.errors import Refused
from streampush.protocol.codes import Code
from streampush.push.channels import device_channel, unknown_device
from streampush.push.store_ports import Store
from streampush.push.values import ChannelRules, DeadLetter, Principal, Published, PublishRequest

MAX_LETTERS = 100
"""Listed at once: each is read with its payload."""

REPLAYER = "dead-letters"
"""Who publishes the copies: one name for all callers, so that a replay is idempotent whoever repeats it."""


@dataclass(frozen=True, slots=True)
class LetterPlace:
    """A place in the list of a device's dead letters, which is ordered by time, and by message id where times are equal."""

    at_ms: int
    message_id: str


@dataclass(frozen=True, slots=True)
class Letters:
    """Some of a device's dead letters, the newest first. `following`: where the next page begins behind; None at the end."""

    letters: tuple[DeadLetter, ...]
    following: LetterPlace | None


class DeadLetters:
    """`publish` is the service's own."""

    def __init__(self, store: Store, publish: Callable[[Principal, PublishRequest], Awaitable[Published]]) -> None:
        self._store = store
        self._publish = publish

    async def page(self, device_id: str, behind: LetterPlace | None, limit: int) -> Letters:
        """At most `limit` (1 to MAX_LETTERS) letters. Raises Refused(UNKNOWN_RECIPIENT)."""
        await self._check_known(device_id)
        before_ms = 0 if behind is None else behind.at_ms + 1
        ask = limit + 1
        while True:
            found = await self._store.dead_letters(device_id, before_ms, ask)
            letters = sorted(filter(lambda letter: _precedes(letter, behind), found), key=_key, reverse=True)
            # letters of one moment come in any order: all of them must be there before some are given
            if len(found) < ask or (len(letters) > limit and letters[limit - 1].at_ms > found[-1].at_ms):
                break
            ask *= 2
        given = tuple(letters[:limit])
        more = len(letters) > limit
        return Letters(given, LetterPlace(given[-1].at_ms, given[-1].publication.message_id) if more else None)

    async def letter(self, device_id: str, message_id: str) -> DeadLetter:
        """One letter with its payload. Raises Refused(UNKNOWN_RECIPIENT)."""
        letter = await self._store.dead_letter(device_id, message_id)
        if letter is None:
            await self._check_known(device_id)
            raise Refused(Code.UNKNOWN_RECIPIENT, "the device has no dead letter of this message")
        return letter

    async def replay(self, device_id: str, message_id: str) -> Published:
        """Publishes a copy to the device's own channel, then drops the letter. Raises Refused; then the letter is still there.

        The copy has a message id of its own, and lives as long as the log keeps it, whatever the letter's time was. Replaying
        twice, also at the same time, publishes it once.
        """
        letter = await self.letter(device_id, message_id)
        publication = letter.publication
        channel = device_channel(device_id)
        request = PublishRequest(
            channel,
            publication.payload,
            publication.content_type,
            publication.headers,
            priority=publication.priority,
            want_receipt=publication.want_receipt,
            idempotency_key=sha256(f"{device_id}/{message_id}/{letter.at_ms}".encode()).hexdigest(),
        )
        published = await self._publish(Principal("server", REPLAYER, may_publish=ChannelRules((channel,))), request)
        await self._store.drop_dead_letter(device_id, message_id)
        return published

    async def drop(self, device_id: str, message_id: str) -> bool:
        """Drops a letter; False if there is none. Raises Refused(UNKNOWN_RECIPIENT) if there is no such device."""
        dropped = await self._store.drop_dead_letter(device_id, message_id)
        if not dropped:
            await self._check_known(device_id)
        return dropped

    async def _check_known(self, device_id: str) -> None:
        if await self._store.device(device_id) is None:
            raise unknown_device()


def _precedes(letter: DeadLetter, place: LetterPlace | None) -> bool:
    return place is None or _key(letter) < (place.at_ms, place.message_id)


def _key(letter: DeadLetter) -> tuple[int, str]:
    return letter.at_ms, letter.publication.message_id
