"""The golden vectors: they are what the script writes, they follow the page's format, and our code agrees with each."""

from __future__ import annotations

import json
from typing import Any

import pytest
from google.protobuf.json_format import MessageToDict, ParseDict

from streampush._pb import streampush_pb2 as pb
from streampush.protocol import codec
from streampush.protocol.errors import RemoteProtocolError
from streampush.protocol.framing import Damage, FrameDecoder, encode_frame
from tests.vectors import make_vectors

VECTORS: list[dict[str, Any]] = json.loads(make_vectors.FILE.read_text(encoding="utf-8"))["vectors"]
KEYS = {"name", "about", "max_frame", "max_resync_bytes", "bytes", "results", "failure", "waiting", "canonical"}

each_vector = pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: vector["name"])


def stream(vector: dict[str, Any]) -> bytes:
    repeat = vector.get("repeat", {"bytes": "", "times": 0})
    return bytes.fromhex(vector["bytes"]) + bytes.fromhex(repeat["bytes"]) * repeat["times"]


def outcome(vector: dict[str, Any], chunks: list[bytes]) -> tuple[list[Any], int | None, bool]:
    """What our decoder makes of it, in the form of the vector."""
    decoder = FrameDecoder(vector["max_frame"], vector["max_resync_bytes"])
    results: list[Any] = []
    for chunk in chunks:
        found = decoder.feed(chunk)
        results += [{"damage": int(item.code)} if isinstance(item, Damage) else {"payload": item.hex()} for item in found]
        if decoder.failure is not None:
            return results, int(decoder.failure.code), False
    return results, None, decoder.partial


def expected(vector: dict[str, Any]) -> tuple[list[Any], int | None, bool]:
    results = [{key: row[key] for key in row if key in ("damage", "payload")} for row in vector["results"]]
    return results, vector["failure"], vector["waiting"]


def test_the_file_is_what_the_script_writes() -> None:
    assert make_vectors.FILE.read_text(encoding="utf-8") == make_vectors.document()


def test_names_are_unique() -> None:
    assert len({vector["name"] for vector in VECTORS}) == len(VECTORS)


def test_every_message_of_the_schema_has_a_vector() -> None:
    bodies = {key for vector in VECTORS for row in vector["results"] for key in row.get("envelope", {})}
    assert bodies >= {field.name for field in pb.Envelope.DESCRIPTOR.oneofs_by_name["body"].fields}


@each_vector
def test_a_vector_has_the_keys_of_the_page(vector: dict[str, Any]) -> None:
    assert vector.keys() - {"repeat"} == KEYS


@each_vector
def test_decoded_whole(vector: dict[str, Any]) -> None:
    assert outcome(vector, [stream(vector)]) == expected(vector)


@each_vector
def test_decoded_byte_by_byte(vector: dict[str, Any]) -> None:
    assert outcome(vector, [bytes((byte,)) for byte in stream(vector)]) == expected(vector)


@each_vector
def test_payloads_mean_what_the_vector_says(vector: dict[str, Any]) -> None:
    for row in vector["results"]:
        if "undecodable" in row:
            with pytest.raises(RemoteProtocolError) as caught:
                codec.decode(bytes.fromhex(row["payload"]))
            assert caught.value.code == row["undecodable"]
        elif "payload" in row:
            request_id, message = codec.decode(bytes.fromhex(row["payload"]))
            assert request_id == int(row["envelope"].get("id", 0))
            known = pb.Envelope.FromString(bytes.fromhex(row["payload"]))
            assert MessageToDict(known, preserving_proto_field_name=True) == row["envelope"]
            assert (type(message).__name__ == "Unknown") == (not row["envelope"].keys() - {"id"})


@pytest.mark.parametrize("vector", [vector for vector in VECTORS if vector["canonical"]], ids=lambda vector: vector["name"])
def test_canonical_vectors_are_encoded_alike(vector: dict[str, Any]) -> None:
    """Our encoder keeps the meaning. Unknown values it reads as 0, and an empty Welcome it fills with empty parts."""
    for row in vector["results"]:
        payload = bytes.fromhex(row["payload"])
        request_id, message = codec.decode(payload)
        if type(message).__name__ == "Unknown":
            continue
        again = codec.encode(message, request_id)
        assert codec.decode(again) == (request_id, message)
        if "unknown" not in vector["name"] and vector["name"] != "default-welcome":
            assert ParseDict(row["envelope"], pb.Envelope()) == pb.Envelope.FromString(again)
    assert b"".join(encode_frame(bytes.fromhex(row["payload"])) for row in vector["results"]) == stream(vector)
