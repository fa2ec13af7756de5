"""Dead letters in memory."""

from __future__ import annotations

from collections import OrderedDict

from streampush.push.values import DeadLetter
from streampush.store.drafts import weight
from streampush.store.memory.logs import Space


class DeadLetters:
    """What devices did not take, by device, the oldest first; of each device at most `per_device`. They count in `space`."""

    def __init__(self, per_device: int, space: Space) -> None:
        self._per_device = per_device
        self._space = space
        self._letters: dict[str, OrderedDict[str, DeadLetter]] = {}
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def of(self, device_id: str, before_ms: int, limit: int) -> tuple[DeadLetter, ...]:
        letters = tuple(self._letters[device_id].values()) if device_id in self._letters else ()
        newest = sorted((one for one in letters if not before_ms or one.at_ms < before_ms), key=lambda one: -one.at_ms)
        return tuple(newest[:limit])

    def get(self, device_id: str, message_id: str) -> DeadLetter | None:
        letters = self._letters.get(device_id)
        return None if letters is None else letters.get(message_id)

    def add(self, letter: DeadLetter) -> None:
        """Adds a letter, in place of an earlier one of the same message; the oldest goes if there are too many."""
        letters = self._letters.setdefault(letter.device_id, OrderedDict())
        replaced = letters.pop(letter.publication.message_id, None)
        if replaced is not None:
            self._gone(replaced)
        letters[letter.publication.message_id] = letter
        self._count += 1
        self._space.used += _weight(letter)
        if len(letters) > self._per_device:
            self._gone(letters.popitem(last=False)[1])

    def drop(self, device_id: str, message_id: str) -> bool:
        """Takes a letter out; False if there is none."""
        letters = self._letters.get(device_id)
        if letters is None or message_id not in letters:
            return False
        self._gone(letters.pop(message_id))
        if not letters:
            del self._letters[device_id]
        return True

    def forget_device(self, device_id: str) -> None:
        """Takes out all letters of a device."""
        for letter in self._letters.pop(device_id, {}).values():
            self._gone(letter)

    def _gone(self, letter: DeadLetter) -> None:
        self._count -= 1
        self._space.used -= _weight(letter)


def _weight(letter: DeadLetter) -> int:
    publication = letter.publication
    return weight(publication.headers, publication.payload, publication.content_type)
