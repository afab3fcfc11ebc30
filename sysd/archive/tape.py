# SPDX-License-Identifier: Apache-2.0
"""Reading a tar stream forwards only, with bounds on what a header may make the parser read.

Python's tarfile does the parsing; it trusts sizes in headers and takes a damaged header for the end of the archive,
so both are watched: the sizes from below (Tape), the end from above (TarReader).
"""

from __future__ import annotations

import re
import tarfile
from collections.abc import Callable, Iterator

from sysd.model.errors import InvalidError, SyscontError

CHUNK = 1 << 20
MAX_HEADER = 1 << 20
MAX_DIGITS = 1000
MAX_TRAILER = 64 << 20
_NOT_DIGITS = re.compile(rb"[^0-9]+")

Read = Callable[[int], bytes]
Member = tarfile.TarInfo


def damaged(why: str) -> InvalidError:
    return InvalidError(f"the archive is damaged: {why}", "get it again, and compare its checksum with the publisher's")


class Tape:
    """A forward-only file over a read function that may return less than it was asked for."""

    def __init__(self, read: Read) -> None:
        self._read = read
        self._position = 0
        self.header_budget: int | None = None

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, /) -> int:
        """Skip forwards to offset."""
        left = offset - self._position
        if left < 0:
            raise damaged("a size in it is negative")
        while left:
            left -= len(self.read_some(left))
        return offset

    def read(self, size: int = -1, /) -> bytes:
        """Up to size bytes, less only at the end of the stream."""
        self._charge_header(size)
        chunks = []
        while size > 0 and (chunk := self._read(min(size, CHUNK))):
            chunks.append(chunk)
            size -= len(chunk)
        data = b"".join(chunks)
        self._position += len(data)
        if self.header_budget is not None and len(data) > MAX_DIGITS:
            _check_digits(data)
        return data

    def read_some(self, most: int) -> bytes:
        """Between 1 and most bytes of a member's content; raises InvalidError at the end of the stream."""
        data = self._read(min(most, CHUNK))
        if not data:
            raise damaged("it ends in the middle of a file")
        self._position += len(data)
        return data

    def finish(self) -> None:
        """Read what follows the end mark, so that the program that unpacks sees the end of its input too."""
        left = MAX_TRAILER
        while chunk := self._read(CHUNK):
            left -= len(chunk)
            if left < 0:
                raise damaged("too much follows its end mark")

    def write(self, data: bytes, /) -> int:
        raise NotImplementedError

    def close(self) -> None:
        """The stream belongs to whoever made it."""

    def _charge_header(self, size: int) -> None:
        if size < 0:
            raise damaged("a size in it is negative")
        if self.header_budget is not None:
            self.header_budget -= size
            if self.header_budget < 0:
                raise damaged(f"a header of more than {MAX_HEADER} bytes")


def _check_digits(header: bytes) -> None:
    # CVE-2024-6232: older tarfile takes quadratic time over long runs of digits in a pax header.
    if any(len(run) > MAX_DIGITS for run in _NOT_DIGITS.split(header)):
        raise damaged("a header with a number of more than a thousand digits")


class TarReader:
    """Iterates over the members of a tar stream; the content of one must be read before the next is asked for."""

    def __init__(self, read: Read) -> None:
        self.tape = Tape(read)
        self._tar: tarfile.TarFile | None = None

    def __iter__(self) -> Iterator[Member]:
        while (member := self._next()) is not None:
            yield member
        self.tape.finish()

    def content_end(self) -> int:
        """Where on the tape the header after the current member is."""
        assert self._tar is not None
        return self._tar.offset

    def _next(self) -> Member | None:
        try:
            return self._parse()
        except tarfile.HeaderError as error:
            _end(error)
            return None
        except (SyscontError, OSError, MemoryError):
            raise
        except Exception as error:
            # tarfile raises many kinds (ValueError, IndexError, RecursionError...) on headers made to confuse it.
            raise damaged(f"a header can't be read: {error}") from error
        finally:
            self.tape.header_budget = None

    def _parse(self) -> Member | None:
        if self._tar is None:
            self.tape.header_budget = MAX_HEADER
            self._tar = tarfile.TarFile(fileobj=self.tape, encoding="utf-8", errors="surrogateescape")
            # Of tarfile's own next() only this first call is used: later ones take a damaged header for the end.
            return self._tar.next()
        self.tape.seek(self._tar.offset)
        self.tape.header_budget = MAX_HEADER
        member = tarfile.TarInfo.fromtarfile(self._tar)
        if sum(len(key) + len(value) for key, value in self._tar.pax_headers.items()) > MAX_HEADER:
            raise damaged(f"global headers of more than {MAX_HEADER} bytes")
        return member


def _end(error: tarfile.HeaderError) -> None:
    """Return if error stands for the archive's end mark, raise InvalidError otherwise."""
    # The classes are not public, but their names have not changed since Python 3.2.
    kind = type(error).__name__
    if kind == "EmptyHeaderError":
        raise damaged("it ends without an end mark") from error
    if kind != "EOFHeaderError":
        raise damaged(f"a header can't be read: {error}") from error
