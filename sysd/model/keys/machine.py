# SPDX-License-Identifier: Apache-2.0
"""What only virtual machines have."""

from __future__ import annotations

import re
import shlex

from sysd.model.errors import InvalidError
from sysd.model.schema import Key
from sysd.model.values import boolean, integer, one_of, size

UEFI, DIRECT = "uefi", "direct"
HOST, LEVELS = "host", ("x86-64-v2", "x86-64-v3", "x86-64-v4")
COMPRESSIONS = ("none", "zstd")
"""As QEMU calls them (multifd-compression)."""
MOST_CHANNELS = 64


def options(text: str) -> list[str]:
    """The words of further options of QEMU's, as a shell would split them."""
    try:
        return shlex.split(text)
    except ValueError as error:
        raise InvalidError(f"not words as of a shell: {error}") from None


_COMMAND = re.compile(r"[ -~]{0,1024}", re.ASCII)


def kernel_command(text: str) -> str:
    if not _COMMAND.fullmatch(text):
        raise InvalidError("not words for a kernel's command line", "at most 1024 printable ASCII characters")
    return text


KEYS = (
    Key(
        "boot.kernel_command",
        kernel_command,
        "",
        "More words for the kernel's command line: of a kernel that is started directly, or by systemd-boot or "
        "systemd-stub, which don't heed them where secure boot is enforced.",
    ),
    Key(
        "boot.mode",
        one_of(UEFI, DIRECT),
        UEFI,
        "How the machine starts: uefi, by firmware from its disk; direct, with the kernel that came with its image, "
        "and a small initrd for it, which takes a second less, and which a newer kernel on the disk does not replace.",
    ),
    Key(
        "limits.cpu.model",
        one_of(HOST, *LEVELS),
        HOST,
        "The processor that the guest sees: the host's, with all that it can, or one of a level of x86-64, by which a "
        "machine that runs goes between hosts whose processors have that level. Such a one has none of the later means "
        "by which kernels keep programs' secrets apart.",
    ),
    Key(
        "limits.memory.hugepages",
        boolean,
        "false",
        "Have the machine's memory in huge pages, of those that the host keeps for that (vm.nr_hugepages).",
    ),
    Key(
        "migration.bandwidth",
        size(),
        "0",
        "Bytes of its memory that are sent in a second at most while the machine goes to another host; 0 for no limit.",
        live=True,
    ),
    Key(
        "migration.channels",
        integer(1, MOST_CHANNELS),
        "1",
        "Connections by which the machine's memory is sent when it goes to another host, each encrypted by a thread of "
        "its own: more than one pays where the network is faster than one thread.",
        live=True,
    ),
    Key(
        "migration.compression",
        one_of(*COMPRESSIONS),
        COMPRESSIONS[0],
        "What the machine's memory is compressed with when it goes to another host: zstd pays where the network is "
        "slower than the processors.",
        live=True,
    ),
    Key(
        "migration.downtime",
        integer(1, 600_000),
        "30",
        "Milliseconds for which the machine may stand still so that the rest of its memory is sent, when it goes to "
        "another host; what its devices and the network need comes on top. With more it arrives sooner.",
        live=True,
    ),
    Key(
        "migration.stateful",
        boolean,
        "false",
        "Let the machine be stopped with its memory, to go on later, and snapshots have its memory, and have move take "
        "it to another host while it runs. It then has no "
        "devices whose state can't be kept. The host's own default is instances.migration.stateful of its "
        "configuration.",
    ),
    Key("raw.qemu", options, "", "Further options for QEMU, at the end of its command line."),
    Key(
        "security.secureboot",
        boolean,
        "true",
        "Firmware runs only what is signed by those whom Microsoft's keys vouch for; with boot.mode=uefi.",
    ),
)
