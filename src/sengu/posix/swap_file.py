"""A memory file whose content is replaced while others read it: what they see is whole.

There are two heads at its beginning, and each says where its content is. The writer overwrites the
older head, after it has put the new content where the other's is not. One that was killed meanwhile
has changed nothing: half a head, or half a content, does not fit its checksum. One process writes
at a time. Imported by the server, which writes, and by workers, which read.
"""

import os
import struct
import zlib

_HEAD = struct.Struct("<QQII")  # version, offset, length, checksum of these and of the content
_SUMMED = struct.Struct("<QQI")
_BEGIN = 2 * _HEAD.size


class SwapFile:
    """`fd` stays its maker's."""

    def __init__(self, fd: int) -> None:
        self.fd = fd

    @property
    def version(self) -> int:
        return self.read()[0]

    def read(self) -> tuple[int, bytes]:
        """The newest content and its version, which grows. Version 0: nothing was written yet.

        One that reads while the content is replaced twice may get that answer too.
        """
        heads = os.pread(self.fd, _BEGIN, 0).ljust(_BEGIN, b"\0")
        found = (0, b"")
        for version, offset, length, checksum in _HEAD.iter_unpack(heads):
            if version > found[0]:
                content = os.pread(self.fd, length, offset)
                if checksum == _checksum(version, offset, content):
                    found = (version, content)
        return found

    def write(self, content: bytes) -> bool:
        """Replace what is there; whether it was anything else. Raises OSError."""
        version, present = self.read()
        if version and content == present:
            return False
        offset = _BEGIN
        if version:
            _, begin, length, _ = self._head(version)
            offset = _BEGIN if begin - _BEGIN >= len(content) else begin + length
        self._put(content, offset)
        version += 1
        head = _HEAD.pack(version, offset, len(content), _checksum(version, offset, content))
        self._put(head, version % 2 * _HEAD.size)
        os.ftruncate(self.fd, max(offset + len(content), self._end_of(version - 1)))
        return True

    def open_to_read(self) -> int:
        """A descriptor for who reads it only, and whoever that passes it on to. Raises OSError."""
        return os.open(f"/proc/self/fd/{self.fd}", os.O_RDONLY | os.O_CLOEXEC)

    def _head(self, version: int) -> tuple[int, int, int, int]:
        raw = os.pread(self.fd, _HEAD.size, version % 2 * _HEAD.size)
        found: tuple[int, int, int, int] = _HEAD.unpack(raw)
        return found

    def _end_of(self, version: int) -> int:
        """Where the former content ends, which somebody may be reading."""
        if version == 0:
            return 0
        _, begin, length, _ = self._head(version)
        return begin + length

    def _put(self, data: bytes, offset: int) -> None:
        while data:
            written = os.pwrite(self.fd, data, offset)
            offset += written
            data = data[written:]


def make_swap_file(name: str) -> SwapFile:
    """An empty one, which no other user can open to write. Raises OSError."""
    made = SwapFile(os.memfd_create(name, os.MFD_CLOEXEC))
    os.fchmod(made.fd, 0o400)
    return made


def _checksum(version: int, offset: int, content: bytes) -> int:
    return zlib.crc32(content, zlib.crc32(_SUMMED.pack(version, offset, len(content))))
