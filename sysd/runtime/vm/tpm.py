# SPDX-License-Identifier: Apache-2.0
"""Where a TPM keeps what it knows: a folder among the files of its instance, for the user that QEMU is."""

from __future__ import annotations

import os

from sysd.model.instance import Instance
from sysd.runtime.vm.helpers import tpm_folder


def make_folder(instance: Instance) -> None:
    """Or give it, when it is a copy's, to its new owner. Whoever wrote there is not trusted: no link is followed."""
    folder = tpm_folder(instance)
    folder.mkdir(mode=0o700, exist_ok=True)
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        os.fchown(fd, instance.id_base, instance.id_base)
        for name in os.listdir(fd):
            os.chown(name, instance.id_base, instance.id_base, dir_fd=fd, follow_symlinks=False)
    finally:
        os.close(fd)
