# SPDX-License-Identifier: Apache-2.0
"""Whether this host's processors can run guests by themselves (the kernel's virt/kvm/api.rst)."""

from __future__ import annotations

import fcntl
import functools
import os
import struct

DEVICE = "/dev/kvm"
_CREATE_VM = 0xAE01
_SUPPORTED_CPUID = 0xC008AE05
_ENTRIES = 256
_HEADER, _ENTRY = struct.Struct("=II"), struct.Struct("=10I")
_SSE3 = 1 << 0
"""Of CPUID.01H:ECX. All processors with VMX or SVM have it; what has not is no KVM on which usual kernels boot."""


@functools.cache
def refusal() -> str:
    """Why guests have to be emulated; empty when they have not."""
    try:
        fd = os.open(DEVICE, os.O_RDWR | os.O_CLOEXEC)
    except OSError as error:
        return f"{DEVICE}: {error.strerror}"
    try:
        os.close(fcntl.ioctl(fd, _CREATE_VM, 0))
        if os.uname().machine == "x86_64" and not _features(fd) & _SSE3:
            return f"{DEVICE} gives guests no complete processor"
    except OSError as error:
        return f"{DEVICE}: {error.strerror}"
    finally:
        os.close(fd)
    return ""


def _features(fd: int) -> int:
    """ECX of leaf 1, as KVM has it for guests."""
    table = bytearray(_HEADER.size + _ENTRIES * _ENTRY.size)
    _HEADER.pack_into(table, 0, _ENTRIES, 0)
    fcntl.ioctl(fd, _SUPPORTED_CPUID, table, True)
    count, _ = _HEADER.unpack_from(table)
    for number in range(min(count, _ENTRIES)):
        entry = _ENTRY.unpack_from(table, _HEADER.size + number * _ENTRY.size)
        if entry[0] == 1:
            return int(entry[5])
    return 0
