"""Programs for SO_REUSEPORT groups that also say where the queue of a closed socket goes: bpf(2).

Program type SK_REUSEPORT (Linux 4.19) with SELECT_OR_MIGRATE (5.14), from net/core/filter.c and
sock_reuseport.c:

- Loading takes CAP_BPF, where unprivileged_bpf_disabled is 0 nothing; attaching a program that was
  loaded takes no privilege, and it lasts as long as the group or until `reuseport.detach`.
- With such a program the accept queue of a member that closes moves to another one, half-open
  handshakes included, without net.ipv4.tcp_migrate_req.
- Kernels may fail to wake whoever waits in poll or accept for a connection that has moved: accept
  by a timer for a while after a close.

Imported by the server.
"""

import ctypes
import os
import struct
import sys
from socket import SOL_SOCKET

from sengu.posix import syscalls

_BPF = 280 if os.uname().machine == "aarch64" else 321
_MAP_CREATE = 0
_MAP_UPDATE_ELEM = 2
_MAP_DELETE_ELEM = 3
_PROG_LOAD = 5
_SOCKARRAY_ATTRIBUTES = struct.Struct("=IIII")  # type, bytes of a key, of a value, entries
_ELEMENT_ATTRIBUTES = struct.Struct("=IIQQQ")  # map, padding, key, value, flags
# type, instructions, where they are, where the licence is, log level, size and place, kernel
# version, flags, name, interface, expected attach type
_PROGRAM_ATTRIBUTES = struct.Struct("=IIQQIIQII16sII")

_MAP_TYPE_REUSEPORT_SOCKARRAY = 20
_PROG_TYPE_SK_REUSEPORT = 21
_SK_REUSEPORT_SELECT_OR_MIGRATE = 40
_SO_ATTACH_REUSEPORT_EBPF = 52
_LICENCE = b"MIT\0"  # none of the functions called here asks for the GPL

_INDEX_BYTES = 4
_INSTRUCTION = struct.Struct("=BBhi")  # bpf_insn: code, registers, offset, immediate
_SET = 0xB7  # BPF_ALU64 | BPF_MOV | BPF_K
_COPY = 0xBF  # BPF_ALU64 | BPF_MOV | BPF_X
_ADD = 0x07  # BPF_ALU64 | BPF_ADD | BPF_K
_MODULO = 0x94  # BPF_ALU | BPF_MOD | BPF_K: of 32 bits
_STORE_WORD = 0x63  # BPF_STX | BPF_MEM | BPF_W
_LOAD_DOUBLE = 0x18  # BPF_LD | BPF_IMM | BPF_DW, whose upper half is in the next instruction
_CALL = 0x85
_EXIT = 0x95
_MAP_BY_DESCRIPTOR = 1  # BPF_PSEUDO_MAP_FD, as the source register of _LOAD_DOUBLE
_GET_PRANDOM_U32 = 7
_SK_SELECT_REUSEPORT = 82
_SK_PASS = 1
_STACK = 10  # the register that points behind it


class SocketArray:
    """A REUSEPORT_SOCKARRAY: numbers that stay, whatever becomes of the numbers in the group.

    A closed socket leaves by itself. Raises PermissionError or OSError when it cannot be made.
    """

    def __init__(self, size: int) -> None:
        value_bytes = 8  # or 4; both hold a descriptor
        attributes = _SOCKARRAY_ATTRIBUTES.pack(
            _MAP_TYPE_REUSEPORT_SOCKARRAY, _INDEX_BYTES, value_bytes, size
        )
        self.fd = _bpf(_MAP_CREATE, attributes)

    def put(self, index: int, socket_fd: int) -> None:
        """Let a socket that listens (UDP: is bound) in an SO_REUSEPORT group have this number.

        Raises OSError with EBUSY when it has a number in this or another array.
        """
        value = ctypes.c_uint64(socket_fd)
        self._change(_MAP_UPDATE_ELEM, index, ctypes.addressof(value))

    def remove(self, index: int) -> None:
        """Free this number. Raises FileNotFoundError when nobody has it."""
        self._change(_MAP_DELETE_ELEM, index, 0)

    def close(self) -> None:
        """Programs that choose from it keep it as it is."""
        os.close(self.fd)

    def _change(self, command: int, index: int, value_address: int) -> None:
        key = ctypes.c_uint32(index)
        attributes = self.fd, 0, ctypes.addressof(key), value_address, 0
        _bpf(command, _ELEMENT_ATTRIBUTES.pack(*attributes))


def load_choice(array: SocketArray, numbers: range) -> int:
    """A descriptor of a program that picks evenly among `numbers` of `array`, of step 1.

    It does so for new connections (a datagram socket would get anybody's packets) and for those
    of a member that closes. The kernel's hash over the whole group picks where nobody has the
    number. Raises PermissionError or OSError.
    """
    context, key = 6, -_INDEX_BYTES  # a register that calls leave alone; where on the stack
    return _load(
        b"sengu_choice",
        (
            _instruction(_COPY, context, 1),
            _instruction(_CALL, immediate=_GET_PRANDOM_U32),
            _instruction(_MODULO, immediate=len(numbers)),
            _instruction(_ADD, immediate=numbers.start),
            _instruction(_STORE_WORD, _STACK, 0, offset=key),
            _instruction(_COPY, 1, context),
            _instruction(_LOAD_DOUBLE, 2, _MAP_BY_DESCRIPTOR, immediate=array.fd),
            _instruction(0),
            _instruction(_COPY, 3, _STACK),
            _instruction(_ADD, 3, immediate=key),
            _instruction(_SET, 4),  # flags
            _instruction(_CALL, immediate=_SK_SELECT_REUSEPORT),
            _instruction(_SET, immediate=_SK_PASS),  # whether or not it has found somebody
            _instruction(_EXIT),
        ),
    )


def load_migration() -> int:
    """A descriptor of a program that leaves every choice to the kernel's hash.

    It is enough for queues to move. Raises PermissionError or OSError.
    """
    return _load(b"sengu_migrate", (_instruction(_SET, immediate=_SK_PASS), _instruction(_EXIT)))


def attach(socket_fd: int, program_fd: int) -> None:
    """Let the group of that socket be governed by that program, as with `reuseport.attach`."""
    value = struct.pack("=i", program_fd)
    syscalls.set_option(socket_fd, SOL_SOCKET, _SO_ATTACH_REUSEPORT_EBPF, value)


def _load(name: bytes, instructions: tuple[bytes, ...]) -> int:
    """`name` is what `bpftool prog` shows."""
    code = b"".join(instructions)
    code_at = ctypes.create_string_buffer(code, len(code))
    licence_at = ctypes.create_string_buffer(_LICENCE, len(_LICENCE))
    attributes = _PROGRAM_ATTRIBUTES.pack(
        _PROG_TYPE_SK_REUSEPORT,
        len(instructions),
        ctypes.addressof(code_at),
        ctypes.addressof(licence_at),
        *(0, 0, 0),  # no log
        *(0, 0),  # any kernel, no flags
        name,
        0,
        _SK_REUSEPORT_SELECT_OR_MIGRATE,
    )
    return _bpf(_PROG_LOAD, attributes)


def _instruction(
    code: int, target: int = 0, source: int = 0, *, offset: int = 0, immediate: int = 0
) -> bytes:
    registers = target | source << 4 if sys.byteorder == "little" else target << 4 | source
    return _INSTRUCTION.pack(code, registers, offset, immediate)


def _bpf(command: int, attributes: bytes) -> int:
    """What the kernel makes is close-on-exec."""
    buffer = ctypes.create_string_buffer(attributes, len(attributes))
    return syscalls.call(_BPF, command, ctypes.addressof(buffer), len(attributes))
