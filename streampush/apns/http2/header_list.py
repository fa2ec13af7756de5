"""The fields of one message, decoded when somebody asks for them: RFC 9113 sections 6.5.2, 8.2 and 8.3."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import TypeAlias

from streampush.apns.http2 import huffman

Field: TypeAlias = tuple[bytes, bytes, int]
"""Name, value, and which of them are still in Huffman code: NAME_CODED, VALUE_CODED, both, or 0."""

NAME_CODED = 1
VALUE_CODED = 2

FIELD_OVERHEAD = 32
"""Bytes that a field counts beyond its name and value, in a table and in a list: RFC 7541 section 4.1."""

_coded_name = lru_cache(maxsize=64)(huffman.encode)  # names that our own code asks for, so few

_NAME = re.compile(rb"[^\x00-\x20:A-Z\x7f-\xff]+")
_BAD_VALUE = re.compile(rb"[\x00\r\n]|^[ \t]|[ \t]\Z")
_OF_HTTP_1 = frozenset((b"connection", b"proxy-connection", b"keep-alive", b"transfer-encoding", b"upgrade"))


def decoded(field: Field) -> Field:
    """The field with nothing left in code. Raises RemoteProtocolError (COMPRESSION_ERROR)."""
    name, value, coded = field
    if not coded:
        return field
    if coded & NAME_CODED:
        name = huffman.decode(name)
    if coded & VALUE_CODED:
        value = huffman.decode(value)
    return name, value, 0


def least_size(field: Field) -> int:
    """Bytes that the field counts at least, overhead included; decodes nothing."""
    name, value, coded = field
    name_size = huffman.least_decoded(len(name)) if coded & NAME_CODED else len(name)
    return FIELD_OVERHEAD + name_size + (huffman.least_decoded(len(value)) if coded & VALUE_CODED else len(value))


def most_size(field: Field) -> int:
    """Bytes that the field counts at most, overhead included; decodes nothing."""
    name, value, coded = field
    name_size = huffman.most_decoded(len(name)) if coded & NAME_CODED else len(name)
    return FIELD_OVERHEAD + name_size + (huffman.most_decoded(len(value)) if coded & VALUE_CODED else len(value))


def longer_than(fields: Sequence[Field], limit: int) -> bool:
    """Whether the list counts more than `limit` bytes (overheads included). Decodes only where lengths alone cannot tell.

    Raises RemoteProtocolError (COMPRESSION_ERROR) for a string that had to be decoded and could not be.
    """
    if sum(map(most_size, fields)) <= limit:
        return False
    size = 0
    for field in fields:
        if size + least_size(field) > limit:
            return True
        name, value, _ = decoded(field)
        size += FIELD_OVERHEAD + len(name) + len(value)
    return size > limit


class HeaderList:
    """The fields of a response head or of trailers, in the order of the peer.

    What nobody reads is never decoded. Reading a string that is no Huffman code raises RemoteProtocolError (COMPRESSION_ERROR):
    the fault is that message's alone, the connection's tables do not depend on it.

    `status`: 100 to 999, or 0 when the list does not begin with a well-formed `:status` (as trailers do not).
    `too_long`: the list went over the limit; its fields were dropped, only the status is left.
    """

    __slots__ = ("_fields", "status", "too_long")

    def __init__(self, fields: Sequence[Field], status: int = 0, too_long: bool = False) -> None:
        self._fields = fields
        self.status = status
        self.too_long = too_long

    def __len__(self) -> int:
        return len(self._fields)

    def __iter__(self) -> Iterator[tuple[bytes, bytes]]:
        for field in self._fields:
            name, value, _ = decoded(field) if field[2] else field
            yield name, value

    def __repr__(self) -> str:
        # Never a name or a value: they may be secrets.
        return f"<HeaderList status={self.status} fields={len(self._fields)}>"

    def get(self, name: bytes) -> bytes | None:
        """The value of the first field of that (lowercase) name. No other field is decoded."""
        for found, value, coded in self._fields:
            if found == (_coded_name(name) if coded & NAME_CODED else name):
                return huffman.decode(value) if coded & VALUE_CODED else value
        return None

    def malformed(self, *, trailers: bool = False) -> str | None:
        """Why this is no response head (or no trailers) that HTTP/2 allows, in words that are safe to log; None if it is.

        Reads every field, so it is for who passes them on, not for who asks for one of them. RFC 9113 sections 8.2 and 8.3.
        """
        if not trailers and not self.status:
            return "the head does not begin with a status"
        for position, (name, value) in enumerate(self):
            if name[:1] == b":":
                if trailers or position:
                    return "a pseudo-header field where none may be"
            elif not _NAME.fullmatch(name):
                return "a field name with a forbidden character"
            elif name in _OF_HTTP_1:
                return "a field that belongs to HTTP/1 connections"
            if _BAD_VALUE.search(value):
                return "a field value with a forbidden character"
        return None
