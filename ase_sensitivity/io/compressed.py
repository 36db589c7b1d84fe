"""Files as bytes. A damaged compressed file is read up to the damage."""

from __future__ import annotations

import bz2
import io
import lzma
import zlib
from typing import IO, Any

from ase.io.formats import get_compression

PIECE = 2**16
"""Number of compressed bytes that are read at a time."""

DECODERS = {
    "gz": lambda: zlib.decompressobj(wbits=31),
    "bz2": bz2.BZ2Decompressor,
    "xz": lzma.LZMADecompressor,
}


def opened(name: str) -> IO[bytes]:
    """A file to read bytes from. A damaged compressed file ends where the damage begins."""
    kind = get_compression(name)[1]
    if kind is None:
        return open(name, "rb")
    return io.BufferedReader(_Decompressed(name, kind))


def fault_of(file: IO[bytes]) -> str | None:
    """What is wrong with a compressed file that was read to its end, or None."""
    raw = getattr(file, "raw", None)
    return raw.fault if isinstance(raw, _Decompressed) else None


class _Decompressed(io.RawIOBase):
    """The bytes of a compressed file, as far as they can be decompressed.

    Attributes
    ----------
    fault
        Why the rest could not be read, or None.
    """

    def __init__(self, name: str, kind: str) -> None:
        self.name = name
        self.fault: str | None = None
        self._new = DECODERS[kind]
        self._decoder: Any = self._new()
        self._file = open(name, "rb")  # noqa: SIM115 (closed with this one)
        self._ready = b""

    def readable(self) -> bool:
        """Whether it can be read."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Fill a buffer, and return the number of bytes; 0 at the end."""
        while not self._ready and self.fault is None:
            if self._decoder.eof:  # another member may follow
                rest = self._decoder.unused_data or self._file.read(PIECE)
                if not rest.strip(b"\0"):
                    return 0
                self._decoder = self._new()
            else:
                rest = self._file.read(PIECE)
                if not rest:
                    self.fault = "the compressed file is torn"
                    return 0
            try:
                self._ready = self._decoder.decompress(rest)
            except (zlib.error, OSError, lzma.LZMAError, EOFError) as error:
                self.fault = f"the compressed file is damaged: {error}"
        count = min(len(buffer), len(self._ready))
        buffer[:count] = self._ready[:count]
        self._ready = self._ready[count:]
        return count

    def close(self) -> None:
        """Close the file."""
        self._file.close()
        super().close()
