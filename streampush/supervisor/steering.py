"""Which worker's queue gets a connection: by its client's address, so that a device that comes back finds its TLS session.

Theory of operation. The sockets of all workers share a port (SO_REUSEPORT), and the kernel picks one by a hash of addresses and
ports: a device that comes back has another port, and mostly finds another worker, which cannot open the ticket of the first
(each process has ticket keys of its own). A classic BPF program can pick in the kernel's place (SO_ATTACH_REUSEPORT_CBPF,
socket(7), Linux 4.5): it is given the packet and returns the number of a socket in the group, in the order in which they began to
listen. Ours takes the source address, of IPv6 its first half, which is what counts as one address for limits, too.

Where there is no socket of that number, while a worker is parked, the kernel goes by its own hash. So nothing depends on this but
how often a handshake is a short one.
"""

from __future__ import annotations

import ctypes
import socket
import struct
import sys
from typing import Final

BY_ADDRESS: Final = "address"
"""The value of `listen.steering` that asks for this."""

_SO_ATTACH_REUSEPORT_CBPF: Final = 51  # asm-generic/socket.h; Python has no name for it

_FROM_NETWORK_HEADER: Final = 0x100000000 - 0x100000  # SKF_NET_OFF, linux/filter.h
_FRACTION: Final = 0x9E3779B1
"""2^32 divided by the golden ratio: multiplying by it spreads neighbouring addresses over the upper bits."""

_INSTRUCTION: Final = struct.Struct("=HBBI")  # struct sock_filter: code, jumps if true and if false, operand

# linux/bpf_common.h: what an instruction loads, tests or computes
_LOAD_BYTE, _LOAD_WORD, _LOAD_INDEX_FROM_STORE, _STORE = 0x30, 0x20, 0x61, 0x02
_AND, _XOR_INDEX, _MULTIPLY, _SHIFT_RIGHT, _MODULO = 0x54, 0xAC, 0x24, 0x74, 0x94
_JUMP, _JUMP_IF_EQUAL, _RETURN = 0x05, 0x15, 0x16


def steer_by_address(sock: socket.socket, workers: int) -> bool:
    """From now on an address's connections to the port of `sock` all go to the same one of so many sockets.

    `sock` listens, and with it the others of its group; or it is to be the first that does, and they join it. Needs no
    privilege. False if the system has no such thing: connections are then spread by the kernel's own hash, as before.
    """
    if sys.platform != "linux":
        return False
    program = ctypes.create_string_buffer(b"".join(_INSTRUCTION.pack(*instruction) for instruction in _program(workers)))
    described = struct.pack("@HP", len(program) // _INSTRUCTION.size, ctypes.addressof(program))  # struct sock_fprog
    try:
        sock.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_REUSEPORT_CBPF, described)
    except OSError:
        return False
    return True


def _program(workers: int) -> list[tuple[int, int, int, int]]:
    return [
        (_LOAD_BYTE, 0, 0, _FROM_NETWORK_HEADER),
        (_AND, 0, 0, 0xF0),  # the version of IP
        (_JUMP_IF_EQUAL, 0, 2, 0x40),
        (_LOAD_WORD, 0, 0, _FROM_NETWORK_HEADER + 12),  # source address, IPv4
        (_JUMP, 0, 0, 5),
        (_LOAD_WORD, 0, 0, _FROM_NETWORK_HEADER + 8),  # source address, IPv6: both words of the network
        (_STORE, 0, 0, 0),
        (_LOAD_WORD, 0, 0, _FROM_NETWORK_HEADER + 12),
        (_LOAD_INDEX_FROM_STORE, 0, 0, 0),
        (_XOR_INDEX, 0, 0, 0),
        (_MULTIPLY, 0, 0, _FRACTION),
        (_SHIFT_RIGHT, 0, 0, 16),
        (_MODULO, 0, 0, workers),
        (_RETURN, 0, 0, 0),
    ]
