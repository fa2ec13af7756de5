"""Why is this device silent? Facts, and what they mean in words: pure, so that every sentence has its test."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

from streampush.protocol.codes import CODES, Advice, Code
from streampush.protocol.terms import AppState
from streampush.push.channels import is_addressed
from streampush.push.limits import Level
from streampush.push.values import Close

MAX_NAMED = 5
"""Channels that get a sentence of their own for each thing that is wrong; the others are summed up."""

MAX_LETTERS = 10
"""Dead letters that are counted: each is read for that. So many may be more."""

SLOW = 5.0
"""Seconds. An acknowledgement that takes longer is worth a sentence."""

PROBLEM, NOTE, FINE = "problem", "note", "fine"

_STAYS_AWAY = {
    Advice.DO_NOT_RECONNECT: "its client was told not to reconnect",
    Advice.REAUTHENTICATE: "its client was told to get other rights first",
    Advice.RENEW_CERTIFICATE: "it needs a new certificate first",
    Advice.UPGRADE: "its software does not fit this server",
}


@dataclass(frozen=True, slots=True)
class ChannelFacts:
    """One channel in which the device has a place.

    `waiting`: not acknowledged and not expired; `oldest_waiting_ms`: when the oldest of them was published, 0: not looked up.
    Of a connected device: `sent`, `unacknowledged` deliveries, `held` ones that it wants again later, `redeliveries` on this
    connection; `attempts`: how often the oldest unacknowledged one was delivered in vain; the newest delivery of it waits since
    `stuck_for` seconds, the next is in `next_try` seconds (None: nothing is stuck).
    """

    channel: str
    acknowledged: int
    top: int
    waiting: int
    lost: int = 0
    restarted: bool = False
    durable: bool = False
    oldest_waiting_ms: int = 0
    sent: int = 0
    unacknowledged: int = 0
    held: int = 0
    attempts: int = 0
    redeliveries: int = 0
    stuck_for: float | None = None
    next_try: float | None = None


@dataclass(frozen=True, slots=True)
class ConnectionFacts:
    """The device's connection to this node. `round_trips` in seconds, the newest last; `missed` pings, `jitters` on it."""

    session_id: str
    address: str
    connected_at_ms: int
    app: str
    app_version: str
    state: AppState
    window_messages: int
    window_bytes: int
    open_messages: int
    open_bytes: int
    has_room: bool
    round_trips: tuple[float, ...] = ()
    missed: int = 0
    jitters: int = 0
    generation: int = 0


@dataclass(frozen=True, slots=True)
class Facts:
    """All that is known. `other_node`: where it is connected, if not here; `dead_letters`: at most MAX_LETTERS; `rate`: of its own
    requests, as long as it is remembered.

    `near`: names like the asked one; `user_devices`: devices of a user of this name. Both only if the device is not known.
    """

    device_id: str
    at_ms: int
    known: bool
    user_id: str = ""
    first_seen_ms: int = 0
    last_seen_ms: int = 0
    push_token: bool = False
    connection: ConnectionFacts | None = None
    other_node: str = ""
    last_close: Close | None = None
    channels: tuple[ChannelFacts, ...] = ()
    more_channels: int = 0
    dead_letters: int = 0
    max_attempts: int = 0
    rate: Level | None = None
    near: tuple[str, ...] = ()
    user_devices: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Verdict:
    """One sentence. `severity` is PROBLEM, NOTE or FINE; `kind` is a word for programs."""

    severity: str
    kind: str
    text: str


@dataclass(frozen=True, slots=True)
class Explanation:
    """The sentences, the most important first, and what they stand on."""

    verdicts: tuple[Verdict, ...]
    facts: Facts


def explain(facts: Facts) -> Explanation:
    """What the facts mean. Never empty."""
    found = list(_unknown(facts) if not facts.known else _known(facts))
    order = (PROBLEM, NOTE, FINE)
    return Explanation(tuple(sorted(found, key=lambda verdict: order.index(verdict.severity))), facts)


def _unknown(facts: Facts) -> Iterator[Verdict]:
    text = "no device of this name was ever seen"
    if facts.near:
        text += f"; near names: {', '.join(facts.near)}"
    yield Verdict(PROBLEM, "unknown", text)
    if facts.user_devices:
        names = ", ".join(facts.user_devices)
        yield Verdict(NOTE, "user", f"{facts.device_id} is the name of a user; devices: {names}")


def _known(facts: Facts) -> Iterator[Verdict]:
    connection = facts.connection
    if connection is None:
        yield from _away(facts)
    else:
        yield from _connected(facts, connection)
        yield from _stuck(facts)
        yield from _held(facts)
    yield from _losses(facts)
    yield from _waiting(facts)
    if facts.dead_letters:
        least = "at least " if facts.dead_letters == MAX_LETTERS else ""
        text = f"{least}{_count(facts.dead_letters, 'dead letter')}: what it did not take for good; they can be listed and replayed"
        yield Verdict(NOTE, "dead_letters", text)
    yield from _rate(facts)
    if not any(not is_addressed(row.channel) for row in facts.channels) and not facts.more_channels:
        yield Verdict(NOTE, "no_topics", "it follows no topic, only its own channels")


# ------------------------------------------------------------------------------------------------------------- the connection


def _away(facts: Facts) -> Iterator[Verdict]:
    close = facts.last_close
    if facts.other_node:
        yield Verdict(FINE, "elsewhere", f"connected to node {facts.other_node}; ask there for its connection")
        return
    if close is not None:
        yield Verdict(PROBLEM, "away", f"away since {_at(close.at_ms, facts)}: {_ended(close)}")
        if close.advice in _STAYS_AWAY:
            yield Verdict(PROBLEM, "stays_away", f"it will not come back by itself: {_STAYS_AWAY[close.advice]}")
    elif facts.last_seen_ms:
        text = f"away; it connected last at {_at(facts.last_seen_ms, facts)}, and how that connection ended is not known"
        yield Verdict(PROBLEM, "away", text)
    else:
        text = f"has never connected; it was made over REST at {_at(facts.first_seen_ms, facts)}"
        yield Verdict(PROBLEM, "never_connected", text)
    if not facts.push_token:
        yield Verdict(NOTE, "no_token", "no push token is registered, so that it cannot be reached while it is away")


def _ended(close: Close) -> str:
    if not close.code:
        return f"it left by itself ({close.detail})" if close.detail else "it left by itself"
    meaning = CODES[Code(close.code)].meaning if close.code in CODES else "unknown code"
    detail = f" ({close.detail})" if close.detail and close.detail != meaning else ""
    advice = f", advice {close.advice.name}" if close.advice else ""
    return f"closed with {close.code} {meaning}{detail}{advice}"


def _connected(facts: Facts, connection: ConnectionFacts) -> Iterator[Verdict]:
    yield Verdict(FINE, "connected", f"connected since {_at(connection.connected_at_ms, facts)} from {connection.address}")
    if connection.open_messages >= connection.window_messages:
        text = f"its receive window is full: {connection.open_messages} of {connection.window_messages} messages are unacknowledged"
        yield Verdict(PROBLEM, "window_full", text)
    elif connection.open_bytes >= connection.window_bytes:
        text = f"its receive window is full: {connection.open_bytes} of {connection.window_bytes} bytes are unacknowledged"
        yield Verdict(PROBLEM, "window_full", text)
    if not connection.has_room:
        yield Verdict(PROBLEM, "not_reading", "it does not read: the send buffer of its connection is full")
    if connection.missed or connection.jitters:
        counts = f"{_count(connection.missed, 'ping')} missed, {_count(connection.jitters, 'time')} silent for longer than normal"
        yield Verdict(NOTE, "stutters", f"its network stutters: {counts} on this connection")


# --------------------------------------------------------------------------------------------------------------- the channels


def _stuck(facts: Facts) -> Iterator[Verdict]:
    def sentence(row: ChannelFacts) -> str:
        assert row.stuck_for is not None
        since = _at(facts.at_ms - int(row.stuck_for * 1000), facts)
        text = f"has not acknowledged what is behind offset {row.acknowledged} of {row.channel}; "
        text += f"attempt {row.attempts + 1} of {facts.max_attempts} is unanswered since {since}"
        if row.next_try is None:
            return text
        end = "a dead letter" if row.attempts + 1 >= facts.max_attempts else "next"
        return f"{text}, {end} in {max(0.0, row.next_try):.0f} s"

    yield from _each(facts, "unacknowledged", PROBLEM, _hangs, sentence)


def _hangs(row: ChannelFacts) -> bool:
    return row.stuck_for is not None and (row.attempts > 0 or row.stuck_for >= SLOW)


def _held(facts: Facts) -> Iterator[Verdict]:
    def sentence(row: ChannelFacts) -> str:
        return f"the application asked to have {_count(row.held, 'message')} of {row.channel} later"

    yield from _each(facts, "held", NOTE, lambda row: row.held > 0, sentence)


def _losses(facts: Facts) -> Iterator[Verdict]:
    def trimmed(row: ChannelFacts) -> str:
        return f"{row.channel} begins behind its place: {_count(row.lost, 'message')} left the log before it took them"

    def restarted(row: ChannelFacts) -> str:
        return f"the log of {row.channel} was begun anew or cut back since it was connected: what it missed there is not known"

    yield from _each(facts, "trimmed", PROBLEM, lambda row: row.lost > 0, trimmed)
    yield from _each(facts, "restarted", PROBLEM, lambda row: row.restarted, restarted)


def _waiting(facts: Facts) -> Iterator[Verdict]:
    severity = PROBLEM if facts.connection is None else NOTE

    def sentence(row: ChannelFacts) -> str:
        verb = "waits" if row.waiting == 1 else "wait"
        text = f"{_count(row.waiting, 'message')} {verb} on {row.channel}"
        if not row.oldest_waiting_ms:
            return text
        since = _at(row.oldest_waiting_ms, facts)
        return f"{text}, since {since}" if row.waiting == 1 else f"{text}; the oldest since {since}"

    waiting = [row for row in facts.channels if row.waiting]
    if not waiting and not facts.more_channels:
        yield Verdict(FINE, "nothing_waits", "nothing waits for it: everything published for it is acknowledged or gone")
    yield from _each(facts, "waiting", severity, lambda row: row.waiting > 0, sentence)


def _each(
    facts: Facts, kind: str, severity: str, applies: Callable[[ChannelFacts], bool], sentence: Callable[[ChannelFacts], str]
) -> Iterator[Verdict]:
    """A sentence for each of the first channels that it applies to, and one for the rest."""
    rows = [row for row in facts.channels if applies(row)]
    for row in rows[:MAX_NAMED]:
        yield Verdict(severity, kind, sentence(row))
    if len(rows) > MAX_NAMED:
        yield Verdict(severity, kind, f"the same on {len(rows) - MAX_NAMED} more channels ({kind})")


def _rate(facts: Facts) -> Iterator[Verdict]:
    rate = facts.rate
    if rate is None:
        return
    if not rate.refused:
        if rate.shared and rate.tokens < 1:
            text = f"has used up its request rate of {rate.rate:g} a second, which all nodes share; each counts its own refusals"
            yield Verdict(NOTE, "rate", text)
        return
    refused = f"{_count(rate.refused, 'request')} refused with 3001{' on this node' if rate.shared else ''}"
    if rate.tokens < 1:
        yield Verdict(PROBLEM, "rate", f"above its request rate of {rate.rate:g} a second: {refused}")
    else:
        yield Verdict(NOTE, "rate", f"was above its request rate of {rate.rate:g} a second: {refused}")


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _at(at_ms: int, facts: Facts) -> str:
    """A wall time in UTC, with its date unless that is the day of the question."""
    moment, now = (datetime.fromtimestamp(value / 1000, UTC) for value in (at_ms, facts.at_ms))
    return f"{moment:%H:%M:%S} UTC" if moment.date() == now.date() else f"{moment:%Y-%m-%d %H:%M:%S} UTC"
