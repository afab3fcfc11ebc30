# SPDX-License-Identifier: Apache-2.0
"""Uploads as doors make them of a call's descriptors."""

from __future__ import annotations

from sysd.manager.images import Images, Upload
from sysd.model.operation import Operation


class OnceUpload(Upload):
    """Whoever finds that an import fails may close it: the second time does nothing."""

    __slots__ = ("_closed",)

    def close(self) -> None:
        if not getattr(self, "_closed", False):
            object.__setattr__(self, "_closed", True)
            Upload.close(self)


def import_upload(images: Images, fds: tuple[int, int, int], aliases: list[str], owner: int) -> Operation:
    """Begin an import from the descriptors of a unified image, metadata and root file system. They are closed at its
    end, or now if it can't begin."""
    upload = OnceUpload(*fds)
    try:
        return images.import_image(upload, aliases, owner)
    except BaseException:
        upload.close()
        raise
