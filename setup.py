# SPDX-License-Identifier: Apache-2.0
"""What pyproject.toml cannot say: the extension, built once for every Python from 3.11 on."""

from setuptools import setup

setup(
    cffi_modules=["sysd/_cext/build.py:ffibuilder"],
    options={"bdist_wheel": {"py_limited_api": "cp311"}},
)
