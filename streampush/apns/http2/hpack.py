"""Field compression: RFC 7541, for both sides of a connection.

Writing is stateless: nothing of ours ever enters the peer's dynamic table, so what was encoded once can be kept and sent on any
connection, and a device token leaves no trace in a table. What is the same in many requests is encoded once by the caller
(`block`, `name_prefix`), what differs is put behind it (`literal`, `string`).

Reading keeps the dynamic table right whatever the peer does, and decodes no string that nobody reads (see `dynamic_table`).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeAlias

from streampush.apns.http2 import huffman as huffman_code
from streampush.apns.http2.dynamic_table import DynamicTable
from streampush.apns.http2.errors import ErrorCode, LocalProtocolError, RemoteProtocolError
from streampush.apns.http2.header_list import (
    FIELD_OVERHEAD,
    NAME_CODED,
    VALUE_CODED,
    Field,
    HeaderList,
    decoded,
    longer_than,
)
from streampush.apns.http2.static_table import FIELD_INDEX, NAME_INDEX, STATIC_TABLE

INITIAL_TABLE_SIZE = 4096
"""Bytes; what a dynamic table may count before anybody says anything: SETTINGS_HEADER_TABLE_SIZE, RFC 9113 section 6.5.2."""

DEFAULT_MAX_LIST_SIZE = 16_384
"""Bytes of a decoded field list, 32 for each field included. Apple's answers take less than 200."""

MAX_INTEGER_OCTETS = 4
"""Octets behind the prefix of an integer, so 2**28 and some at most: stops integers without an end."""

MAX_KNOWN = 64
"""Beginnings of blocks that a decoder remembers, some hundred bytes each. A server has an answer or two; in Huffman code their last
value takes a few lengths, and each is a beginning of its own."""

# Writing.


def integer(value: int, prefix_bits: int, first: int = 0) -> bytes:
    """An integer with a prefix of that many bits, whose other bits are those of `first`: RFC 7541 section 5.1."""
    limit = (1 << prefix_bits) - 1
    if value < limit:
        return bytes((first | value,))
    octets = [first | limit]
    value -= limit
    while value >= 128:
        octets.append(value & 127 | 128)
        value >>= 7
    octets.append(value)
    return bytes(octets)


def string(value: bytes, *, huffman: bool = False) -> bytes:
    """A string with its length in front, in Huffman code if that is asked for: RFC 7541 section 5.2."""
    if huffman:
        code = huffman_code.encode(value)
        return integer(len(code), 7, 0x80) + code
    return integer(len(value), 7) + value


def name_prefix(name: bytes, *, never_indexed: bool = False, huffman: bool = False) -> bytes:
    """A literal field up to its value, without indexing; a `string` completes it.

    `never_indexed` asks whoever passes the field on not to put it into a table either. Raises LocalProtocolError for a name
    that is empty or not lowercase: RFC 9113 section 8.2.1.
    """
    if not name or name != name.lower():
        raise LocalProtocolError("a field name must be lowercase and not empty")
    first = 0x10 if never_indexed else 0
    index = NAME_INDEX.get(name)
    if index is not None:
        return integer(index, 4, first)
    return bytes((first,)) + string(name, huffman=huffman)


def literal(name: bytes, value: bytes, *, never_indexed: bool = False, huffman: bool = False) -> bytes:
    """One field that enters no table: RFC 7541 sections 6.2.2 and 6.2.3. Raises as `name_prefix`."""
    return name_prefix(name, never_indexed=never_indexed, huffman=huffman) + string(value, huffman=huffman)


def block(fields: Iterable[tuple[bytes, bytes]], *, huffman: bool = False) -> bytes:
    """A field block, or the beginning of one: an index where the static table has the pair, else a literal."""
    parts = []
    for name, value in fields:
        index = FIELD_INDEX.get((name, value))
        parts.append(literal(name, value, huffman=huffman) if index is None else integer(index, 7, 0x80))
    return b"".join(parts)


def size_update(size: int) -> bytes:
    """A dynamic table size update, in front of the first field of a block: RFC 7541 section 6.3.

    Although we use no table, a peer whose SETTINGS lower SETTINGS_HEADER_TABLE_SIZE may demand a `size_update(0)` at the
    beginning of the next block that we send: RFC 9113 section 4.3.1.
    """
    return integer(size, 5, 0x20)


# Reading. Every answer passes here, so the two loops are written out, and one look at a field's first octet says all that it can.

_FIRST_DYNAMIC = len(STATIC_TABLE) + 1
_STATIC: tuple[Field, ...] = tuple((name, value, 0) for name, value in STATIC_TABLE)


def _field_of(first: int) -> Field | None:
    """The field that the octet stands for; None: it stands for no field of the static table."""
    return _STATIC[first - 0x81] if 0x81 <= first < 0x80 + _FIRST_DYNAMIC else None


def _name_of(first: int) -> bytes | None:
    """The name of the literal field that the octet begins; empty: a string follows; None: the octet alone does not tell."""
    if first & 0xC0 == 0x40:
        full = 0x3F
    elif first < 0x20:
        full = 0x0F
    else:
        return None
    index = first & full
    if not index:
        return b""
    return _STATIC[index - 1][0] if index < min(full, _FIRST_DYNAMIC) else None


_FIELDS = tuple(map(_field_of, range(256)))
_NAMES = tuple(map(_name_of, range(256)))
# By the first octet of a string: its length, 127 if that goes on behind it, and whether it is in Huffman code.
_NAME_LENGTHS = tuple((first & 0x7F, NAME_CODED if first & 0x80 else 0) for first in range(256))
_VALUE_LENGTHS = tuple((first & 0x7F, VALUE_CODED if first & 0x80 else 0) for first in range(256))
_STATUSES = {0x80 | index: int(value) for index, (name, value) in enumerate(STATIC_TABLE, 1) if name == b":status"}

_Known: TypeAlias = tuple[int, tuple[Field, ...], bytes, int, int]
"""Length of the block, all fields but the last one, name and coding of that, status."""

# No octet of a block makes a list longer by more than this, if the dynamic table is not used.
_MOST_PER_OCTET = FIELD_OVERHEAD + max(len(name) + len(value) for name, value in STATIC_TABLE)


def _fault(text: str) -> RemoteProtocolError:
    return RemoteProtocolError(ErrorCode.COMPRESSION_ERROR, text)


def _long_integer(data: bytes, at: int, value: int) -> tuple[int, int]:
    """Goes on behind a full prefix; gives the value and where it ends. IndexError where the data ends first."""
    octet = data[at]
    if octet < 128:  # nearly always
        return value + octet, at + 1
    for shift in range(0, 7 * MAX_INTEGER_OCTETS, 7):
        octet = data[at]
        at += 1
        value += (octet & 127) << shift
        if octet < 128:
            return value, at
    raise _fault(f"an integer of more than {MAX_INTEGER_OCTETS} octets")


def _status(fields: list[Field]) -> int:
    """The status that the list begins with, or 0."""
    if not fields:
        return 0
    name, value, _ = decoded(fields[0])
    if name == b":status" and len(value) == 3 and value.isdigit() and value >= b"100":
        return int(value)
    return 0


class HeaderDecoder:
    """Reads the field blocks of one direction of a connection, in their order.

    `max_table_size`: the SETTINGS_HEADER_TABLE_SIZE that we announce, bytes. `max_list_size`: bytes of a decoded list, 32 for
    each field included.

    `tolerant`: what about a peer that passes over our SETTINGS_HEADER_TABLE_SIZE and goes on with the 4096 bytes that every table
    begins with? If true it is understood, at the price of a table of that size. If false it is a COMPRESSION_ERROR, as RFC 9113
    section 4.3.1 demands: the first block must begin with a size update if `max_table_size` is below 4096.

    A server's answers mostly differ in their last value only, so what stood in front of that value in earlier blocks is remembered,
    and read once. A block is remembered only if reading it again would give the same: no table was read or changed by it.
    """

    __slots__ = ("_dynamic", "_known", "_short", "_split", "_table_limit", "_update_due", "max_list_size", "table")

    def __init__(self, max_table_size: int = 0, max_list_size: int = DEFAULT_MAX_LIST_SIZE, *, tolerant: bool = True) -> None:
        self.max_list_size = max_list_size
        self.table = DynamicTable(INITIAL_TABLE_SIZE)
        self._table_limit = max(max_table_size, INITIAL_TABLE_SIZE) if tolerant else max_table_size
        self._update_due = self._table_limit < INITIAL_TABLE_SIZE
        self._short = max_list_size // _MOST_PER_OCTET  # octets of a block whose list cannot be too long
        self._dynamic = False  # whether the block refers to the dynamic table, and so may be long in few octets
        self._split = 0  # where the last value begins in the blocks that are known
        self._known: dict[bytes, _Known] = {}  # by all that stands in front of it, its length included

    def decode(self, block: bytes) -> HeaderList:
        """The fields of one whole block.

        A list that counts more than `max_list_size` is given as `too_long`, without its fields; the table stays right, so it is
        the message's fault, not the connection's. Raises RemoteProtocolError (COMPRESSION_ERROR); the connection is over then.
        """
        known = self._known.get(block[: self._split])
        if known is not None:
            size, before, name, coded, status = known
            if len(block) == size:
                return HeaderList((*before, (name, block[self._split :], coded)), status)
        return self._decode_unknown(block)

    def _decode_unknown(self, block: bytes) -> HeaderList:
        fields: list[Field] = []
        status = _STATUSES.get(block[0]) if block else 0
        try:
            at = self._read_updates(block) if status is None or self._update_due else 0
            last_value = self._read_fields(block, at, fields)
        except IndexError:  # the only thing indexed without a look at its length is the block
            raise _fault("a field block that ends within a field") from None
        if status is None:
            status = _status(fields)
        if self._dynamic or len(block) > self._short:
            self._dynamic = False
            if longer_than(fields, self.max_list_size):
                return HeaderList((), status, True)
        elif last_value and not at:
            self._remember(block, last_value, fields, status)
        return HeaderList(fields, status)

    def _remember(self, block: bytes, last_value: int, fields: list[Field], status: int) -> None:
        if last_value != self._split or len(self._known) >= MAX_KNOWN:
            self._split = last_value
            self._known.clear()
        name, _, coded = fields[-1]
        self._known[block[:last_value]] = (len(block), tuple(fields[:-1]), name, coded, status)

    def _read_updates(self, block: bytes) -> int:
        """Obeys the size updates that the block begins with; gives where they end."""
        at = 0
        while at < len(block) and block[at] & 0xE0 == 0x20:
            size = block[at] & 0x1F
            at += 1
            if size == 0x1F:
                size, at = _long_integer(block, at, size)
            if size > self._table_limit:
                raise _fault(f"a table of {size} bytes, allowed are {self._table_limit}")
            self.table.resize(size)
            self._known.clear()
            self._update_due = False
        if self._update_due:
            raise _fault(f"no size update, although the table may count {self._table_limit} bytes only")
        return at

    def _read_fields(self, block: bytes, at: int, fields: list[Field]) -> int:
        """Appends the fields of the block from `at` on. IndexError: the block ends too early.

        Gives where the last value begins if the block ends with one that is written out, and no field entered a table; else 0.
        """
        size, last_value, entered = len(block), 0, False
        while at < size:
            first = block[at]
            at += 1
            field = _FIELDS[first]
            if field is not None:
                fields.append(field)
                last_value = 0
                continue
            name, name_coded = _NAMES[first], 0
            if name is None:
                field, at = self._look_up(block, at, first)
                if first >= 0x80:
                    fields.append(field)
                    last_value = 0
                    continue
                name, name_coded = field[0], field[2] & NAME_CODED
            elif not name:
                length, name_coded = _NAME_LENGTHS[block[at]]
                at += 1
                if length == 0x7F:
                    length, at = _long_integer(block, at, length)
                name = block[at : at + length]
                at += length
            length, value_coded = _VALUE_LENGTHS[block[at]]
            at += 1
            if length == 0x7F:
                length, at = _long_integer(block, at, length)
            last_value = at
            field = (name, block[at : at + length], name_coded | value_coded)
            at += length
            fields.append(field)
            if first >= 0x40 and self.table.max_size:
                self.table.add(field)
                entered = True
        if at > size:
            raise _fault("a field block that ends within a string")
        return 0 if entered else last_value

    def _look_up(self, block: bytes, at: int, first: int) -> tuple[Field, int]:
        """The field that an index of several octets or into the dynamic table stands for, and where the index ends."""
        if first & 0xE0 == 0x20:
            raise _fault("a size update behind a field")
        full = 0x7F if first & 0x80 else 0x3F if first & 0x40 else 0x0F
        index = first & full
        if index == full:
            index, at = _long_integer(block, at, index)
        if not index:
            raise _fault("index 0")
        if index < _FIRST_DYNAMIC:
            return _STATIC[index - 1], at
        self._dynamic = True
        return self.table.find(index - _FIRST_DYNAMIC), at
