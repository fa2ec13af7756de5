"""Which worker's queue gets a connection: by its client's address, so that a device that comes back finds its TLS session.

Theory of operation. The sockets of all workers share a port (SO_REUSEPORT), and the kernel picks one by a hash of addresses and
ports: a device that comes back has another port, and mostly finds another worker, which cannot open the ticket of the first
(each process has ticket keys of its own). A classic BPF program can pick in the kernel's place (SO_ATTACH_REUSEPORT_CBPF,
socket(7), Linux 4.5): it is given the packet and returns the number of a socket in the group, in the order in which they began to
listen. Ours takes the source address, of IPv6 its first half, which is what counts as one address for limits, too.

Where there is no socket of that number the kernel goes by its own hash. So nothing depends on this but how often a handshake is a
short one.

A program can also keep the kernel from giving connections to a worker that is leaving: they would wait in its queue until it has
gone and the next one is up, 12 s with the defaults, or be refused by it, while the others have room. Those that it would have got
are spread over the others at random.
"""

from __future__ import annotations

import ctypes
import errno
import socket
import struct
import sys
from collections.abc import Collection
from typing import Final

BY_ADDRESS: Final = "address"
"""The value of `listen.steering` that asks for this."""

_SO_ATTACH_REUSEPORT_CBPF, _SO_DETACH_REUSEPORT_BPF = 51, 68  # asm-generic/socket.h; Python has no names for them

_FROM_NETWORK_HEADER: Final = 0x100000000 - 0x100000  # SKF_NET_OFF, linux/filter.h
_RANDOM_NUMBER: Final = 0x100000000 - 0x1000 + 56  # SKF_AD_OFF + SKF_AD_RANDOM
_FRACTION: Final = 0x9E3779B1
"""2^32 divided by the golden ratio: multiplying by it spreads neighbouring addresses over the upper bits."""

_INSTRUCTION: Final = struct.Struct("=HBBI")  # struct sock_filter: code, jumps if true and if false, operand

# linux/bpf_common.h: what an instruction loads, tests or computes
_LOAD_BYTE, _LOAD_WORD, _LOAD_INDEX_FROM_STORE, _STORE = 0x30, 0x20, 0x61, 0x02
_AND, _XOR_INDEX, _MULTIPLY, _SHIFT_RIGHT, _MODULO = 0x54, 0xAC, 0x24, 0x74, 0x94
_JUMP, _JUMP_IF_EQUAL, _RETURN, _RETURN_CONSTANT = 0x05, 0x15, 0x16, 0x06

_Instruction = tuple[int, int, int, int]


def steer_by_address(sock: socket.socket, workers: int) -> bool:
    """From now on an address's connections to the port of `sock` all go to the same one of so many sockets.

    `sock` listens, and with it the others of its group; or it is to be the first that does, and they join it. Needs no
    privilege. False if the system has no such thing: connections are then spread by the kernel's own hash, as before.
    """
    return _attach(sock, [*_by_address(workers), (_RETURN, 0, 0, 0)])


class Group:
    """The sockets of all workers for one port, as the kernel numbers them: from 0 on, in the order in which they began to listen;
    if one is closed, the last one takes its number.

    `listening`: those that did before, in their order. `steer` needs Linux 5.3, and no privilege.
    """

    def __init__(self, workers: int, *, by_address: bool, listening: Collection[int] = ()) -> None:
        self._workers = workers
        self._by_address = by_address
        self._order = list(listening)

    @property
    def order(self) -> tuple[int, ...]:
        """Numbers of workers, from 1 on."""
        return tuple(self._order)

    def listens(self, number: int) -> None:
        """The socket of this worker listens."""
        if number not in self._order:
            self._order.append(number)

    def closed(self, number: int) -> None:
        """It no longer does, in any process."""
        if number in self._order:
            last = self._order.pop()
            if last != number:
                self._order[self._order.index(number)] = last

    def steer(self, sock: socket.socket, avoided: Collection[int]) -> bool:
        """From now on no connection goes to these workers, if there are others. `sock` is one that listens.

        False if the system has no such thing, or it failed: then they go where they went before.
        """
        takers = [index for index, number in enumerate(self._order) if number not in avoided]
        if not self._order:
            return False
        if self._by_address:
            return _attach(sock, self._program(takers or range(len(self._order))))
        if takers and len(takers) < len(self._order):
            return _attach(sock, self._program(takers))
        return _detach(sock)

    def _program(self, takers: Collection[int]) -> list[_Instruction]:
        """Everybody's own worker, if it is one of these; else any of them."""
        program: list[_Instruction] = []
        if self._by_address:
            program += _by_address(self._workers)
            for index in takers:
                program += _return_if(self._order[index] - 1, index)
        program += [(_LOAD_WORD, 0, 0, _RANDOM_NUMBER), (_MODULO, 0, 0, len(takers))]
        for number, index in enumerate(takers):
            program += _return_if(number, index)
        return [*program, (_RETURN, 0, 0, next(iter(takers)))]


def _return_if(value: int, index: int) -> list[_Instruction]:
    return [(_JUMP_IF_EQUAL, 0, 1, value), (_RETURN_CONSTANT, 0, 0, index)]


def _attach(sock: socket.socket, program: list[_Instruction]) -> bool:
    if sys.platform != "linux":
        return False
    code = ctypes.create_string_buffer(b"".join(_INSTRUCTION.pack(*instruction) for instruction in program))
    described = struct.pack("@HP", len(program), ctypes.addressof(code))  # struct sock_fprog
    try:
        sock.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_REUSEPORT_CBPF, described)
    except OSError:
        return False
    return True


def _detach(sock: socket.socket) -> bool:
    if sys.platform != "linux":
        return False
    try:
        sock.setsockopt(socket.SOL_SOCKET, _SO_DETACH_REUSEPORT_BPF, 0)
    except OSError as error:
        return error.errno == errno.ENOENT  # there was none
    return True


def _by_address(workers: int) -> list[_Instruction]:
    """Leaves the number of the address's worker, from 0 on."""
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
    ]
