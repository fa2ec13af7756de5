"""`streampush decode`: every byte accounted for, damage named with its code, nothing private shown unasked."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from hypothesis import given
from hypothesis import strategies as st

from streampush.cli.decode import split
from streampush.cli.main import main
from streampush.protocol import messages as m
from streampush.protocol.codec import encode
from streampush.protocol.codes import Advice, Code
from streampush.protocol.framing import Damage, FrameDecoder, encode_frame
from streampush.protocol.terms import Outcome, TokenProvider

PING = encode_frame(encode(m.Ping(), 7))
ACK = encode_frame(encode(m.Ack("device:phone-1", 42, Outcome.PROCESSED)))
DELIVERY = encode_frame(encode(m.Delivery("news/today", 3, "m-3", b"top secret", headers={"trace": "private"})))


def run(data: bytes | str, *options: str) -> Result:
    return CliRunner().invoke(main, ["decode", *options], input=data)


def broken(frame: bytes) -> bytes:
    """The frame with a wrong checksum."""
    return frame[:-1] + bytes([frame[-1] ^ 1])


def test_frames_are_listed_with_offset_length_and_message() -> None:
    result = run(PING + ACK)
    assert result.exit_code == 0
    assert result.output.splitlines() == [
        f"0x000000  length {len(PING) - 8}, checksum ok, Ping, id 7",
        f"{len(PING):#08x}  length {len(ACK) - 8}, checksum ok, Ack",
        "          channel: 'device:phone-1'",
        "          offset: 42",
        "          outcome: PROCESSED",
        f"{len(PING + ACK)} bytes, good frames: 2, damages: 0",
    ]


def test_nested_messages_are_indented() -> None:
    resume = m.Resume("news/today", m.Position("e1", 5, "m-5"))
    output = run(encode_frame(encode(m.Hello(app="demo", resume=(resume,))))).output
    assert "          resume[0]:\n            channel: 'news/today'\n            position:\n              epoch: 'e1'\n" in output


def test_codes_and_advice_are_named() -> None:
    output = run(encode_frame(encode(m.GoAway(Code.DRAINING, Advice.RECONNECT_ELSEWHERE)))).output
    assert "code: 1004 DRAINING (draining)" in output
    assert "advice: RECONNECT_ELSEWHERE" in output


def test_payload_and_headers_are_shown_as_sizes() -> None:
    output = run(DELIVERY).output
    assert "payload: 10 bytes" in output
    assert "headers: 1 headers, 12 bytes" in output
    assert "secret" not in output
    assert "private" not in output


def test_a_push_token_is_shown_as_its_size() -> None:
    output = run(encode_frame(encode(m.RegisterToken(TokenProvider.APNS, b"tokentoken", "org.example.app")))).output
    assert "token: 10 bytes" in output
    assert "tokentoken" not in output


def test_payloads_are_shown_on_request() -> None:
    output = run(DELIVERY, "--show-payload").output
    assert "payload: b'top secret'" in output
    assert "headers: {'trace': 'private'}" in output


@pytest.mark.parametrize(
    "text", [ACK.hex(), ACK.hex().upper(), "0x" + ACK.hex(), ACK.hex(" "), ACK.hex(":"), ACK.hex("\n", 4) + "\n"]
)
def test_hex_is_recognised(text: str) -> None:
    assert "good frames: 1, damages: 0" in run(text).output


def test_a_capture_is_read_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "capture.bin"
    path.write_bytes(ACK)
    result = CliRunner().invoke(main, ["decode", str(path)])
    assert "Ack" in result.output


def test_half_a_byte_of_hex_is_refused() -> None:
    result = run("abc")
    assert result.exit_code == 2
    assert "not hex digits in pairs" in result.output


def test_the_form_of_the_input_can_be_said() -> None:
    assert run("00000001", "--format", "binary").output.startswith("0x000000  8 bytes, 2004 frame too large: ")
    assert run("zz", "--format", "hex").exit_code == 2


def test_a_wrong_checksum_is_named_and_the_next_frame_read() -> None:
    result = run(broken(ACK) + PING)
    assert result.exit_code == 1
    lines = result.output.splitlines()
    assert lines[0] == f"0x000000  {len(ACK)} bytes, 2003 checksum mismatch: frame of {len(ACK) - 8} bytes"
    assert "Ping" in lines[1]
    assert lines[-1].endswith("good frames: 1, damages: 1")


def test_bytes_behind_a_lost_position_are_one_damage() -> None:
    lines = run(PING + b"\xff" * 5 + ACK).output.splitlines()
    assert lines[1] == f"{len(PING):#08x}  5 bytes, 2004 frame too large: length 4294967295, allowed are 1 to 1048576"
    assert lines[2].startswith(f"{len(PING) + 5:#08x}  length {len(ACK) - 8}, checksum ok, Ack")


def test_an_empty_frame_is_named() -> None:
    assert "8 bytes, 2005 empty frame: length 0" in run(bytes(8) + ACK).output


def test_http_is_recognised() -> None:
    assert "the bytes look like HTTP" in run("GET / HTTP/1.1\r\nHost: x\r\n\r\n").output


def test_a_stream_beyond_repair_is_named() -> None:
    assert "no frame within 65536 bytes behind a lost position" in run(b"\xff" * 70_000).output


def test_a_cut_capture_is_named() -> None:
    assert f"the capture ends inside a frame, 9 of its {len(ACK)} bytes are here" in run(ACK[:9]).output
    assert "the capture ends inside a length" in run(ACK + ACK[:3]).output


def test_garbage_behind_a_good_checksum_is_named() -> None:
    result = run(encode_frame(b"\xff\xff\xff"))
    assert result.exit_code == 1
    assert "length 3, checksum ok, 2002 serialization error: the payload is no Envelope" in result.output


def test_an_unknown_message_is_shown_as_such() -> None:
    result = run(encode_frame(b"\xaa\x06\x00"))
    assert result.exit_code == 0
    assert "Unknown" in result.output


def test_the_frame_limit_can_be_set() -> None:
    assert "2004 frame too large" in run(ACK, "--max-frame", "8").output


@pytest.mark.parametrize("nothing", ["", "\n", " \n"])
def test_empty_input_is_said_to_be_nothing(nothing: str) -> None:
    result = run(nothing)
    assert (result.exit_code, result.output) == (1, "Error: nothing to decode\n")


HINT = "hint: this looks like text, not frames"


@pytest.mark.parametrize("text", ["Hello, world\n", "f\u00fcnf S\u00e4tze, mit Umlauten\n", "x"])
def test_text_is_hinted_at(text: str) -> None:
    result = run(text)
    assert result.exit_code == 1
    assert result.stderr.startswith(HINT)
    assert "offsets" not in result.stderr


@pytest.mark.parametrize(
    "dump",
    [
        f"00000000: {PING.hex(' ', 2)}  ............\n",
        f"00000000  {PING.hex(' ')}  |............|\n0000000c\n",
        f"0000000 {PING.hex(' ')}\n0000014\n",
        f"0000000 {PING.hex(' ')}\n",
        f"000000 {PING.hex(' ')}\n00000c\n",
        f"0000  {PING.hex(' ')}\n",
    ],
    ids=["xxd", "hexdump", "od", "odd digits", "od with hex offsets", "tshark"],
)
def test_a_dump_with_offsets_is_hinted_at(dump: str) -> None:
    result = run(dump)
    assert result.exit_code != 0
    assert f"{HINT}: a dump with offsets; give the bytes alone, as `xxd -p` writes them" in result.stderr


@pytest.mark.parametrize(
    "data", [broken(ACK), ACK[:9], b"\xff" * 5, bytes(8).hex(), bytes(8).hex(" ", 4), "abc", b"zz" + bytes(8) + ACK]
)
def test_bytes_that_are_damaged_get_no_hint(data: bytes | str) -> None:
    result = run(data)
    assert result.exit_code != 0
    assert "hint" not in result.output


PIECES = st.sampled_from([PING, ACK, DELIVERY, broken(ACK), bytes(8), b"\xff" * 5, PING[:7], encode_frame(b"\x00" * 20)])


@given(st.lists(st.one_of(PIECES, st.binary(max_size=20)), max_size=8).map(b"".join))
def test_the_parts_cover_the_capture_and_agree_with_the_decoder(data: bytes) -> None:
    parts = split(data)
    position = 0
    for part in parts:
        assert part.offset == position
        position += part.size
    assert position == len(data)
    decoded = FrameDecoder().feed(data)
    assert [part.payload for part in parts if part.payload is not None] == [item for item in decoded if isinstance(item, bytes)]
    codes = [part.code for part in parts if part.code is not None]
    assert codes == [item.code for item in decoded if isinstance(item, Damage)]
