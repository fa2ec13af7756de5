"""The Huffman code of field names and values: RFC 7541 section 5.2 and appendix B.

The code of the appendix is canonical: codes of one length are consecutive in the order of their symbols, and each length begins
where the one before ends. So the lengths are the whole table.

Reading goes by half bytes. A state is an inner node of the code's tree; for each state and each half byte a table holds the next
state and the symbol that is complete by then (never more than one, the shortest code has five bits).
"""

from __future__ import annotations

from streampush.apns.http2.errors import ErrorCode, RemoteProtocolError

EOS = 256
"""The symbol behind the 256 bytes; a string never holds it whole, its first bits are the padding."""

# Bits of the code of each byte from 0 to 255, then of EOS.
# fmt: off
CODE_LENGTHS = bytes((
    13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28,
    28, 28, 28, 28, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 28,
    6, 10, 10, 12, 13, 6, 8, 11, 10, 10, 8, 11, 8, 6, 6, 6,
    5, 5, 5, 6, 6, 6, 6, 6, 6, 6, 7, 8, 15, 6, 12, 10,
    13, 6, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7,
    7, 7, 7, 7, 7, 7, 7, 7, 8, 7, 8, 13, 19, 13, 14, 6,
    15, 5, 6, 5, 6, 5, 6, 6, 6, 5, 7, 7, 6, 6, 6, 5,
    6, 7, 6, 5, 5, 6, 7, 7, 7, 7, 7, 15, 11, 14, 13, 28,
    20, 22, 20, 20, 22, 22, 22, 23, 22, 23, 23, 23, 23, 23, 24, 23,
    24, 24, 22, 23, 24, 23, 23, 23, 23, 21, 22, 23, 22, 23, 23, 24,
    22, 21, 20, 22, 22, 23, 23, 21, 23, 22, 22, 24, 21, 22, 23, 23,
    21, 21, 22, 21, 23, 22, 23, 23, 20, 22, 22, 22, 23, 22, 22, 23,
    26, 26, 20, 19, 22, 23, 22, 25, 26, 26, 26, 27, 27, 26, 24, 25,
    19, 21, 26, 27, 27, 26, 27, 24, 21, 21, 26, 26, 28, 27, 27, 27,
    20, 24, 20, 21, 22, 21, 21, 23, 22, 22, 25, 25, 24, 24, 26, 23,
    26, 27, 26, 26, 27, 27, 27, 27, 27, 28, 27, 27, 27, 27, 27, 26,
    30,
))
# fmt: on

_SHORTEST = 5
_LONGEST = 30
_LONGEST_PADDING = 7


def _codes() -> list[str]:
    """The code of each symbol as a string of bits."""
    codes = [""] * len(CODE_LENGTHS)
    code = 0
    length = 0
    for bits, symbol in sorted((bits, symbol) for symbol, bits in enumerate(CODE_LENGTHS)):
        code <<= bits - length
        length = bits
        codes[symbol] = f"{code:0{bits}b}"
        code += 1
    return codes


def _tree(codes: list[str]) -> list[list[int]]:
    """For each inner node, the root first, what its two branches lead to: a node, or ~symbol (negative)."""
    nodes = [[0, 0]]
    for symbol, code in enumerate(codes):
        node = 0
        for bit in code[:-1]:
            child = nodes[node][bit == "1"]
            if not child:
                child = nodes[node][bit == "1"] = len(nodes)
                nodes.append([0, 0])
            node = child
        nodes[node][code[-1] == "1"] = ~symbol
    return nodes


_CODES = _codes()
_NODES = _tree(_CODES)

# States are multiples of 16, so that a state plus a half byte is an index. The last state is the sink behind an EOS.
_SINK = 16 * len(_NODES)
_NOTHING = -1


def _step(node: int, half_byte: int) -> tuple[int, int]:
    """The next state and the symbol that is complete by then, or _NOTHING."""
    symbol = _NOTHING
    for shift in (3, 2, 1, 0):
        child = _NODES[node][half_byte >> shift & 1]
        if child == ~EOS:
            return _SINK, _NOTHING
        if child < 0:
            symbol = ~child
            child = 0
        node = child
    return 16 * node, symbol


def _padded_states() -> frozenset[int]:
    """States in which a string may end: behind a whole symbol, and up to seven bits of EOS further on."""
    node = 0
    states = [node]
    for _ in range(_LONGEST_PADDING):
        node = _NODES[node][1]
        states.append(node)
    return frozenset(16 * state for state in states)


_STEPS = [_step(node, half_byte) for node in range(len(_NODES)) for half_byte in range(16)] + [(_SINK, _NOTHING)] * 16
_FINAL = _padded_states()


def decode(data: bytes) -> bytes:
    """The string that `data` is the code of.

    Raises RemoteProtocolError (COMPRESSION_ERROR) for a padding of more than seven bits or of anything but ones, and for an EOS.
    """
    found = bytearray()
    state = 0
    for byte in data:
        state, symbol = _STEPS[state + (byte >> 4)]
        if symbol >= 0:
            found.append(symbol)
        state, symbol = _STEPS[state + (byte & 15)]
        if symbol >= 0:
            found.append(symbol)
    if state not in _FINAL:
        raise RemoteProtocolError(ErrorCode.COMPRESSION_ERROR, "a Huffman string with a wrong padding or an EOS")
    return bytes(found)


def encode(data: bytes) -> bytes:
    """The code of `data`, padded with ones. What it gives for a string is the only thing that `decode` reads as this string."""
    bits = "".join([_CODES[byte] for byte in data])
    if not bits:
        return b""
    size = (len(bits) + 7) // 8
    return int(bits.ljust(8 * size, "1"), 2).to_bytes(size, "big")


def least_decoded(size: int) -> int:
    """How long the string of a code of `size` bytes is at least, without looking at it."""
    return max(0, (8 * size - _LONGEST_PADDING + _LONGEST - 1) // _LONGEST)


def most_decoded(size: int) -> int:
    """How long the string of a code of `size` bytes is at most, without looking at it."""
    return 8 * size // _SHORTEST
