"""Whether what a store has in Redis adds up: for tests, which may look at every key."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgpack

from streampush.store.packing import FREED

FACTS = ("message_id", "published_at", "expires_at", "deliver_at", "priority", "flags", "size", "weight", "version",
         "superseded_by", "recalled_at", "recalls", "collapse_key", "publisher", "content_type")  # fmt: skip


class Look:
    """At the logs, the schedule and the keys of one store, by an `ask` that gives the answer to a command."""

    def __init__(self, ask: Callable[..., Any], prefix: str) -> None:
        self._ask = ask
        self._prefix = prefix
        self.names = {name.decode().removeprefix(prefix) for name in ask("KEYS", f"{prefix}*")}
        self.faults: list[str] = []

    def disorder(self) -> list[str]:
        """What is wrong."""
        totals = {name.decode(): value for name, value in self.table("totals").items()}
        channels = [name.removeprefix("log:") for name in self.names if name.startswith("log:")]
        logs = [self.log(channel) for channel in sorted(channels)]
        places = {message_id: place for log in logs for message_id, place in log["places"].items()}
        waiting = self.schedule()
        places.update(waiting)
        self.same("messages", {name: tuple(unpack(place)) for name, place in self.table("msg").items()}, places)
        self.same("channels", int(totals.get("channels", 0)), len(channels))
        self.same("publications", int(totals.get("publications", 0)), sum(log["entries"] for log in logs))
        self.same("scheduled", int(totals.get("scheduled", 0)), len(waiting))
        self.same("to be freed", set(self.zset("exp")), {spot for log in logs for spot in log["spots"]})
        ages = {channel.encode(): log["age"] for channel, log in zip(sorted(channels), logs, strict=True) if log["age"]}
        self.same("ages", self.zset("age"), ages)
        self.same("letters", int(totals.get("letters", 0)), self.letters())
        self.receipts(places)
        self.same("keys", int(totals.get("keys", 0)), self.keys())
        held = sum(log["size"] for log in logs) + self.waiting_bytes() + self.work_bytes() + self.letter_bytes()
        self.same("bytes", int(totals.get("bytes", 0)), held)
        return self.faults

    def same(self, what: str, found: object, expected: object) -> None:
        if found != expected:
            self.faults.append(f"{what}: {found}, but {expected}")

    # ------------------------------------------------------------------------------------------------------------- parts

    def log(self, channel: str) -> dict[str, Any]:
        """What one log is counted with."""
        state = {name.decode(): value for name, value in self.table(f"log:{channel}").items()}
        top, floor = int(state["top"]), int(state["floor"])
        lying = {int(offset): unpack(entry) for offset, entry in self.table(f"ent:{channel}").items()}
        entries = {offset: dict(zip(FACTS, facts, strict=True)) for offset, facts in lying.items()}
        self.same(f"offsets of {channel}", sorted(entries), list(range(floor + 1, top + 1)))
        size = sum(entry["weight"] for entry in entries.values())
        self.same(f"size of {channel}", int(state["size"]), size)
        expiring = {offset: entry for offset, entry in entries.items() if entry["expires_at"]}
        self.same(f"expiring of {channel}", int(state["expiring"]), len(expiring))
        losses = {one: e for one, e in expiring.items() if not (e["superseded_by"] or e["recalled_at"])}
        still = {b"%d" % offset: entry["expires_at"] for offset, entry in losses.items() if not entry["flags"] & FREED}
        self.same(f"what may expire in {channel}", self.zset(f"ttl:{channel}"), still)
        lost = {b"%d" % offset: offset for offset, entry in losses.items() if entry["flags"] & FREED}
        self.same(f"losses of {channel}", self.zset(f"lost:{channel}"), lost)
        whole = {offset for offset, entry in entries.items() if not entry["flags"] & FREED}
        bodies = {int(offset): unpack(body) for offset, body in self.table(f"pay:{channel}").items()}
        self.same(f"bodies of {channel}", set(bodies) - whole, set())
        for offset in whole:
            payload = bodies.get(offset, (b"", b""))[1]
            self.same(f"payload of {channel} {offset}", len(payload), entries[offset]["size"])
        newest = [unpack(one)[0] for one in self.table(f"col:{channel}").values()]
        self.same(f"collapse keys of {channel}", [one for one in newest if not floor < one <= top], [])
        return {
            "entries": len(entries),
            "size": size,
            "places": {entry["message_id"]: (channel.encode(), offset) for offset, entry in sorted(entries.items())},
            "spots": {b"%d:%b" % (offset, channel.encode()) for offset in expiring if offset in whole},
            "age": int(state["oldest_at"]) if len(entries) > 1 else 0,
        }

    def schedule(self) -> dict[bytes, tuple[bytes, int]]:
        waiting = {message_id: unpack(one) for message_id, one in self.table("schedules").items()}
        self.same("due", set(self.zset("sched")), {name for name, _ in waiting.values()})
        return {message_id: (draft[0], 0) for message_id, (_, draft) in waiting.items()}

    def keys(self) -> int:
        """How many idempotency keys are known."""
        kept = 0
        for name in self.names:
            if name.startswith("idem:"):
                answers = self.table(name)
                kept += len(answers)
                self.same(name, set(self.zset(f"idemorder:{name.removeprefix('idem:')}")), set(answers))
        self.same("keys in order", len(self.zset("idemall")), kept)
        return kept

    def waiting_bytes(self) -> int:
        return sum(unpack(one)[1][5] for one in self.table("schedules").values())

    def work_bytes(self) -> int:
        return sum(len(body) for name in self.names if name.startswith("boxes:") for body in self.table(name).values())

    def letter_bytes(self) -> int:
        return sum(int(size) for size in self.table("letterbytes").values())

    def letters(self) -> int:
        """How many dead letters there are."""
        count = 0
        sizes = {}
        for name in self.names:
            if name.startswith("letter:"):
                device = name.removeprefix("letter:")
                letters = {message_id: unpack(letter) for message_id, letter in self.table(name).items()}
                count += len(letters)
                sizes[device.encode()] = b"%d" % sum(letter[1] for letter in letters.values())
                places = {letter[0] + message_id: letter[6] for message_id, letter in letters.items()}
                self.same(f"order of {name}", self.zset(f"letters:{device}"), places)
                bodies = set(self.table(f"letterpay:{device}"))
                self.same(f"bodies of {name} without it", bodies - set(letters), set())
        self.same("bytes of letters", self.table("letterbytes"), sizes)
        return count

    def receipts(self, places: dict[bytes, tuple[bytes, int]]) -> None:
        """What became of messages is that of messages in logs, and pushes are found by their ids."""
        pushes = {}
        for name in self.names:
            kind, _, message_id = name.partition(":")
            if kind in ("rcp", "cnt"):
                channel, offset = places.get(message_id.encode(), (b"", 0))
                is_addressed = channel.startswith((b"device:", b"user:"))
                self.same(f"{name} is of a message in a log", offset > 0 and is_addressed is (kind == "rcp"), True)
            if kind == "rcp":
                for device, row in self.table(name).items():
                    push = unpack(row)[5]
                    if push and push[3]:
                        pushes[push[3]] = [message_id.encode(), device]
        self.same("pushes", {apns_id: unpack(found) for apns_id, found in self.table("apns").items()}, pushes)

    # ----------------------------------------------------------------------------------------------------------- reading

    def table(self, name: str) -> dict[bytes, bytes]:
        """A hash; empty if it is not there."""
        found = self._ask("HGETALL", self._prefix + name)
        return dict(zip(found[::2], found[1::2], strict=True))

    def zset(self, name: str) -> dict[bytes, int]:
        """Members with their scores."""
        found = self._ask("ZRANGE", self._prefix + name, 0, -1, "WITHSCORES")
        return {member: int(score) for member, score in zip(found[::2], found[1::2], strict=True)}


def unpack(packed: bytes) -> Any:
    return msgpack.unpackb(packed, raw=True, strict_map_key=False)
