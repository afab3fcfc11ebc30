# SPDX-License-Identifier: Apache-2.0
"""Builds sysd._cext._native (cffi API mode, abi3). Run as a script it builds in place."""

from __future__ import annotations

import shutil
import sys
import tempfile
from pathlib import Path

from cffi import FFI

HERE = Path(__file__).resolve().parent

ffibuilder = FFI()
ffibuilder.cdef((HERE / "native.h").read_text().replace("/* What", "\n/* What"))
# One translation unit, so that the sources need no path of their own wherever this is built.
ffibuilder.set_source(
    "sysd._cext._native",
    '#include "native.c"\n#include "layers.c"\n',
    include_dirs=[str(HERE)],
    depends=[str(HERE / name) for name in ("native.h", "native.c", "layers.c", "places.h", "clone.h")],
    py_limited_api=True,
    extra_compile_args=["-O2", "-Wall", "-std=gnu11"],
)


def build_in_place() -> None:
    with tempfile.TemporaryDirectory() as scratch:
        built = Path(ffibuilder.compile(tmpdir=scratch, verbose="-v" in sys.argv))
        shutil.copy(built, HERE / built.name)


if __name__ == "__main__":
    build_in_place()
