# Invariant: whatever bytes come, and whenever, a ServerSession
#   - raises nothing at all;
#   - gives the same events and answers however the bytes were cut;
#   - says at most one Closed, as the last event, with a GoAway as its last frame unless the peer said GoAway itself;
#   - answers each fault with exactly one Error, and holds no more bytes than a frame or a scan window;
#   - has a deadline until it is closed, and reaches `closed` when nothing more comes.
"""A short seeded fuzz of the server's session with mutated valid streams. STREAMPUSH_FUZZ_SEED and _ROUNDS change the run.

A stream that broke the invariant is kept in `corpus/` as a file of hex, with its story in a line that begins with `#`.
"""

from __future__ import annotations

import os
from pathlib import Path
from random import Random

import pytest

from streampush.protocol import codec
from streampush.protocol import messages as m
from streampush.protocol.framing import FRAME_OVERHEAD, encode_frame
from streampush.protocol.session import Closed, Event, Faulted, ServerSession, SessionSettings
from tests.protocol.driving import SAMPLES, UNKNOWN, sent

SEED = int(os.environ.get("STREAMPUSH_FUZZ_SEED", "20261121"))
ROUNDS = int(os.environ.get("STREAMPUSH_FUZZ_ROUNDS", "400"))
CORPUS = sorted((Path(__file__).parent / "corpus").glob("*.hex"))
SETTINGS = SessionSettings(max_frame=600, max_resync_bytes=900, max_bad_frames=5)

HELLO = encode_frame(codec.encode(m.Hello(resume=(m.Resume("news", m.Position("e", 3, "m-3")),))))
LEGAL = (m.Ack, m.Ping, m.Pong, m.Publish, m.Subscribe, m.Unsubscribe, m.State, m.Credit, m.RegisterToken, m.Error)
ORDINARY = [encode_frame(codec.encode(SAMPLES[kind], 7)) for kind in LEGAL]
STRANGE = [encode_frame(codec.encode(SAMPLES[kind])) for kind in SAMPLES if kind not in LEGAL] + [encode_frame(UNKNOWN)]


def mutated(random: Random, data: bytes) -> bytes:
    """`data` with one thing wrong."""
    at = random.randrange(len(data) + 1)
    length = random.randrange(1, 40)
    match random.randrange(6):
        case 0:
            return data[:at] + random.randbytes(1) + data[at + 1 :]
        case 1:
            return data[:at] + random.randbytes(length) + data[at:]
        case 2:
            return data[:at] + data[at + length :]
        case 3:
            return data[:at] + data[max(0, at - length) :]
        case 4:
            return data[:at] + bytes(length) + data[at:]
        case _:
            return data[:at] + random.choice([b"\xff" * 4, b"\0\0\0\x20", b"GET /", b"\x16\x03\x01\x02\0"]) + data[at:]


def stream(random: Random) -> bytes:
    """A valid stream of a client with up to five mutations, now and then with a message that is illegal."""
    frames = [HELLO, *random.choices(ORDINARY, k=random.randrange(30))]
    if random.random() < 0.3:
        frames.insert(random.randrange(len(frames)), random.choice(STRANGE))
    data = b"".join(frames)
    for _ in range(random.randrange(6)):
        data = mutated(random, data)
    return data


def check(session: ServerSession, events: list[Event]) -> None:
    """The invariant, for what one session said."""
    closes = [event for event in events if isinstance(event, Closed)]
    answers = [message for _, message in sent(session)]
    errors = [message for message in answers if isinstance(message, m.Error)]
    assert len(errors) == len([event for event in events if isinstance(event, Faulted)])
    assert session.closed == bool(closes)
    assert (session.deadline == float("inf")) == session.closed
    if closes:
        assert closes == [events[-1]]
        assert isinstance(answers[-1], m.GoAway) if not closes[0].by_peer else not any(isinstance(a, m.GoAway) for a in answers)


def play(data: bytes, cuts: list[int]) -> tuple[ServerSession, list[Event]]:
    session = ServerSession(SETTINGS, 0.0, 0.5)
    session.tls_done(0.0)
    events: list[Event] = []
    bound = max(SETTINGS.max_frame, SETTINGS.max_resync_bytes) + FRAME_OVERHEAD
    for start, end in zip([0, *cuts], [*cuts, len(data)], strict=True):
        events += session.receive(data[start:end], 1.0)
        assert session._decoder.buffered <= bound
    return session, events


def attack(data: bytes, random: Random) -> None:
    """Plays the stream whole and in chunks, then lets the session run out."""
    cuts = sorted(random.randrange(len(data) + 1) for _ in range(random.randrange(12)))
    whole, events = play(data, [])
    pieces, same = play(data, cuts)
    assert same == events
    answers = whole.data_to_send()
    assert pieces.data_to_send() == answers
    again, _ = play(data, [])
    check(again, events)
    for _ in range(20):
        if pieces.closed:
            return
        pieces.tick(pieces.deadline)
    pytest.fail("the session outlived every deadline")


@pytest.mark.parametrize("part", range(8))
def test_mutated_streams(part: int) -> None:
    random = Random(SEED * 8 + part)
    for _ in range(ROUNDS // 8):
        data = stream(random)
        try:
            attack(data, random)
        except Exception as error:
            raise AssertionError(f"seed {SEED}, part {part}, keep this in the corpus: {data.hex()}") from error


@pytest.mark.parametrize("file", CORPUS, ids=lambda file: file.stem)
def test_what_was_found_stays_mended(file: Path) -> None:
    lines = file.read_text(encoding="ascii").splitlines()
    data = bytes.fromhex("".join(line for line in lines if not line.startswith("#")))
    attack(data, Random(SEED))
