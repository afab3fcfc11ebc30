# SPDX-License-Identifier: Apache-2.0
"""Where this host gets Debian from: its own apt configuration, so that no mirror's name stands in our code."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from sysd.model.errors import NotFoundError

ETC = Path("/etc/apt")
SUITES = frozenset(
    "buster bullseye bookworm trixie forky duke sid unstable testing stable oldstable oldoldstable experimental".split()
)
_ONE_LINE = re.compile(r"deb\s+(?:\[([^]]*)\]\s*)?(\S+)\s+(\S+)\s+(.+)")
_FETCHED = re.compile(r"(mirror\+)?https?://[^\s\[\]]+")
_MIRROR_FILE = "mirror+file:"
_PROXY = re.compile(r'Acquire::(https?)::Proxy "(\S+)";')


@dataclass(frozen=True, slots=True)
class Entry:
    """One archive and one suite of it."""

    uri: str
    suite: str
    components: tuple[str, ...]
    signed_by: str = ""
    trusted: bool = False

    @property
    def is_debian(self) -> bool:
        """Other archives use Debian's suite names too, but have a key of their own."""
        base = re.sub(r"-(updates|security|backports)$|/updates$", "", self.suite)
        ours = not self.signed_by or "debian-archive" in self.signed_by
        return ours and base in SUITES and "main" in self.components and bool(_FETCHED.fullmatch(self.uri))

    def line(self, suite: str) -> str:
        """The entry in sources.list's one-line form, for another suite."""
        return f"deb {'[trusted=yes] ' if self.trusted else ''}{self.uri} {suite} main"


def debian_lines(suite: str, etc: Path = ETC) -> list[str]:
    """Lines of sources.list for suite: the host's first Debian archive, and its updates if the host follows them.

    Raises NotFoundError when the host's apt knows no Debian archive.
    """
    found = [entry for entry in entries(etc) if entry.is_debian]
    plain = next((entry for entry in found if entry.suite in SUITES), None)
    if plain is None:
        raise NotFoundError(
            f"no Debian mirror in {etc}", "add one to sources.list, for example with `apt edit-sources`"
        )
    lines = [plain.line(suite)]
    for extra in (f"{suite}-updates", f"{suite}-security"):
        lines += [entry.line(extra) for entry in found if entry.suite == extra][:1]
    return lines


def entries(etc: Path = ETC) -> Iterator[Entry]:
    """All binary archives of the host's apt, in apt's order of reading."""
    for path in (etc / "sources.list", *sorted(etc.glob("sources.list.d/*"))):
        if path.suffix in (".list", ".sources") and path.is_file():
            text = path.read_text(errors="replace")
            yield from _deb822(text) if path.suffix == ".sources" else _one_line(text)


def proxies() -> dict[str, str]:
    """Environment variables for the proxies that the host's apt is told to use; mmdebstrap does not read those."""
    try:
        dump = subprocess.run(["apt-config", "dump"], capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return {}
    return {f"{match[1]}_proxy": match[2] for match in _PROXY.finditer(dump) if match[2] != "DIRECT"}


def _one_line(text: str) -> Iterator[Entry]:
    for line in text.splitlines():
        if match := _ONE_LINE.fullmatch(line.partition("#")[0].strip()):
            options = dict(option.partition("=")[::2] for option in (match[1] or "").split())
            yield Entry(
                _mirror(match[2]),
                match[3],
                tuple(match[4].split()),
                options.get("signed-by", ""),
                options.get("trusted") == "yes",
            )


def _deb822(text: str) -> Iterator[Entry]:
    for stanza in re.split(r"\n\s*\n", text):
        fields = _fields(stanza)
        if fields.get("enabled", "yes").lower() in ("no", "false", "0") or "deb" not in fields.get("types", "").split():
            continue
        for uri in fields.get("uris", "").split():
            for suite in fields.get("suites", "").split():
                yield Entry(
                    _mirror(uri),
                    suite,
                    tuple(fields.get("components", "").split()),
                    fields.get("signed-by", ""),
                    fields.get("trusted", "") == "yes",
                )


def _fields(stanza: str) -> dict[str, str]:
    fields: dict[str, str] = {}
    name = ""
    for line in stanza.splitlines():
        if line.startswith("#"):
            continue
        if line[:1].isspace():
            fields[name] = f"{fields.get(name, '')} {line.strip()}"
        else:
            key, _, value = line.partition(":")
            name = key.strip().lower()
            fields[name] = value.strip()
    return fields


def _mirror(uri: str) -> str:
    """The first mirror of a list of them, which is how Debian's cloud images name theirs; other URIs as they are."""
    if not uri.startswith(_MIRROR_FILE):
        return uri.rstrip("/")
    try:
        lines = Path("/" + uri.removeprefix(_MIRROR_FILE).lstrip("/")).read_text().splitlines()
    except OSError:
        return uri
    words = [line.split()[0] for line in lines if line.strip() and not line.startswith("#")]
    return words[0].rstrip("/") if words else uri
