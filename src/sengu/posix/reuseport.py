"""Which socket of an SO_REUSEPORT group a new client gets: classic BPF on the group, socket(7).

The kernel numbers the sockets of a group in the order in which they began to listen, and runs the
program of the group for each first packet; what it returns is a number. From net/core/
sock_reuseport.c:

- Any member's descriptor governs the group, without privilege. The program outlives who attached
  it, and later members are governed as well.
- When a member is closed or shut down the *last* one gets its number.
- A number that nobody has means: the kernel's hash, over all members.

Nothing here knows what the numbers stand for. Imported by the server.
"""

import ctypes
import enum
import errno
import struct
from collections.abc import Iterator, Sequence
from socket import SOL_SOCKET

import msgspec

from sengu.posix import syscalls

_SO_ATTACH_REUSEPORT_CBPF = 51
_SO_DETACH_REUSEPORT_BPF = 68

_INSTRUCTION = struct.Struct("=HBBI")  # sock_filter: code, jump if true, jump if false, k
_PROGRAM = struct.Struct("HP")  # sock_fprog: how many, where

# Codes of linux/bpf_common.h.
_LOAD_BYTE = 0x30  # BPF_LD | BPF_B | BPF_ABS
_LOAD_HALF = 0x28  # BPF_LD | BPF_H | BPF_ABS
_LOAD_HALF_AT_X = 0x48  # BPF_LD | BPF_H | BPF_IND
_LOAD_WORD = 0x20  # BPF_LD | BPF_W | BPF_ABS
_X_HEADER_BYTES = 0xB1  # BPF_LDX | BPF_B | BPF_MSH: X = 4 * (byte & 15)
_ADD = 0x04
_MULTIPLY = 0x24
_AND = 0x54
_SHIFT_RIGHT = 0x74
_MODULO = 0x94
_JUMP = 0x05
_JUMP_IF_EQUAL = 0x15
_JUMP_IF_AT_LEAST = 0x35
_RETURN = 0x06
_RETURN_A = 0x16

_NETWORK = 0xFFF00000  # SKF_NET_OFF: offsets from here on are into the IP header
_RANDOM = 0xFFFFF038  # SKF_AD_OFF + SKF_AD_RANDOM
_IPV6_HEADER_BYTES = 40
_WORD = 1 << 32
_HASH = 0x9E3779B1  # 2**32 by the golden ratio: neighbours get far apart

_Instruction = tuple[int, int, int, int]


class Flow(enum.Enum):
    """What a choice depends on."""

    RANDOM = "random"  # for TCP, whose connections are chosen for once
    SOURCE_PORT = "source-port"  # for UDP: a client stays with its socket


class Branch(msgspec.Struct, frozen=True):
    """Who comes from source port `port` gets `index`."""

    port: int
    index: int


def choose(
    ranges: Sequence[range], pick: Flow, branch: Branch | None = None, *, ipv6: bool
) -> bytes:
    """A program that picks a number evenly among `ranges`, which are disjoint and have step 1.

    `ipv6` is of the group's sockets; one of them may get IPv4 packets as well. The source port
    is not found behind IPv6 extension headers: such a client gets an even choice all the same.
    Raises ValueError when there is nothing to choose from.
    """
    ranges = [one for one in ranges if one]
    if not ranges:
        raise ValueError("a choice among no sockets; detach the program instead")
    code: list[_Instruction] = []
    if branch is not None or pick is Flow.SOURCE_PORT:
        code += _source_port(ipv6)
    if branch is not None:
        code += [(_JUMP_IF_EQUAL, 0, 1, branch.port), (_RETURN, 0, 0, branch.index)]
    match pick:
        case Flow.RANDOM:
            code.append((_LOAD_WORD, 0, 0, _RANDOM))
        case Flow.SOURCE_PORT:
            # The upper half of the product: its lower bits depend on few bits of the port.
            code += [(_MULTIPLY, 0, 0, _HASH), (_SHIFT_RIGHT, 0, 0, 16)]
    code += _select(ranges)
    return b"".join(_INSTRUCTION.pack(*one) for one in code)


def attach(fd: int, program: bytes) -> None:
    """Let the group of that socket be governed by `program` from now on. Raises OSError.

    Only for a socket that listens (UDP: is bound). One that is bound and will listen later gets
    a group of its own by this, and cannot join the others: its listen() fails with EADDRINUSE.
    """
    code = ctypes.create_string_buffer(program, len(program))
    count = len(program) // _INSTRUCTION.size
    syscalls.set_option(
        fd,
        SOL_SOCKET,
        _SO_ATTACH_REUSEPORT_CBPF,
        _PROGRAM.pack(count, ctypes.addressof(code)),
    )


def detach(fd: int) -> None:
    """Give the choice back to the kernel's hash, whoever attached whatever kind of program."""
    try:
        syscalls.set_option(fd, SOL_SOCKET, _SO_DETACH_REUSEPORT_BPF, struct.pack("=i", 0))
    except OSError as error:
        if error.errno != errno.ENOENT:  # there was none
            raise


def _source_port(ipv6: bool) -> list[_Instruction]:
    """A = the source port: TCP and UDP both begin with it. IPv4 headers have variable length."""
    ipv4_code = [(_X_HEADER_BYTES, 0, 0, _NETWORK), (_LOAD_HALF_AT_X, 0, 0, _NETWORK)]
    if not ipv6:
        return ipv4_code
    return [
        (_LOAD_BYTE, 0, 0, _NETWORK),
        (_AND, 0, 0, 0xF0),
        (_JUMP_IF_EQUAL, 3, 0, 0x60),
        *ipv4_code,  # of a socket that takes both
        (_JUMP, 0, 0, 1),
        (_LOAD_HALF, 0, 0, _NETWORK + _IPV6_HEADER_BYTES),
    ]


def _select(ranges: Sequence[range]) -> Iterator[_Instruction]:
    """Return the number that A, which is any number, falls on in all ranges one after another."""
    yield _MODULO, 0, 0, sum(map(len, ranges))
    before = 0
    for one in ranges[:-1]:
        yield _JUMP_IF_AT_LEAST, 2, 0, before + len(one)
        yield from _return_from(one, before)
        before += len(one)
    yield from _return_from(ranges[-1], before)


def _return_from(one: range, before: int) -> Iterator[_Instruction]:
    yield _ADD, 0, 0, (one.start - before) % _WORD
    yield _RETURN_A, 0, 0, 0
