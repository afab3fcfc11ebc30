# SPDX-License-Identifier: Apache-2.0
"""Keys, certificates and tokens, and the frames of streams: what is made here, and what others may send."""

from __future__ import annotations

import contextlib
import os
import random
import subprocess
import threading
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sysd.model.errors import InvalidError
from sysd.remote import certificate, ed25519, frames, token
from sysd.remote.frames import DATA, HEAD, MESSAGE, ProtocolError, Splitter
from sysd.remote.token import Token

# RFC 8032, 7.1: secret key, public key, message, signature.
VECTORS = [
    ("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60",
     "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a", "",
     "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9b46b"
     "d25bf5f0595bbe24655141438e7a100b"),
    ("4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb",
     "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c", "72",
     "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da085ac1e43e15996e458f3613d0f11d8c"
     "387b2eaeb4302aeeb00d291612bb0c00"),
    ("c5aa8df43f9f837bedb7442f31dcb7b166d38535076f094b85ce3a2e0b4458f7",
     "fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025", "af82",
     "6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac18ff9b538d16f290ae67f760984dc659"
     "4a7c15e9716ed28dc027beceea1ec40a"),
]  # fmt: skip


@pytest.mark.parametrize(("secret", "public", "message", "signature"), VECTORS)
def test_the_vectors_of_the_standard(secret: str, public: str, message: str, signature: str) -> None:
    assert ed25519.public_key(bytes.fromhex(secret)).hex() == public
    assert ed25519.sign(bytes.fromhex(secret), bytes.fromhex(message)).hex() == signature


def test_what_openssl_makes_of_a_key(tmp_path: Path) -> None:
    """The same public key, and a certificate whose signature is good."""
    for number in range(5):
        secret = os.urandom(32)
        path = tmp_path / f"{number}.pem"
        path.write_text(certificate.bundle(secret))
        public = subprocess.run(
            ["openssl", "pkey", "-in", str(path), "-pubout", "-outform", "DER"], check=True, capture_output=True
        ).stdout
        assert public[-32:] == ed25519.public_key(secret)
        crt = tmp_path / f"{number}.crt"
        crt.write_text(certificate.pem(certificate.make(secret)))
        subprocess.run(["openssl", "verify", "-check_ss_sig", "-x509_strict", "-CAfile", str(crt), str(crt)],
                       check=True, capture_output=True)  # fmt: skip
        text = subprocess.run(["openssl", "x509", "-in", str(crt), "-noout", "-fingerprint", "-sha256", "-ext",
                               "basicConstraints,keyUsage", "-enddate"], check=True, capture_output=True,
                              text=True).stdout  # fmt: skip
        said = text.split("Fingerprint=")[1].split()[0].replace(":", "").lower()
        assert said == certificate.fingerprint(certificate.make(secret))
        assert "CA:FALSE" in text
        assert "Digital Signature" in text
        assert "9999" in text


def test_a_key_has_one_certificate() -> None:
    secret = os.urandom(32)
    assert certificate.make(secret) == certificate.make(secret)
    assert certificate.make(secret) != certificate.make(os.urandom(32))


def test_an_identity_is_made_once(tmp_path: Path) -> None:
    path = str(tmp_path / "own.pem")
    found: list[str] = []

    def one() -> None:
        found.append(certificate.load_or_make(path).fingerprint)

    threads = [threading.Thread(target=one) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 8
    assert len(set(found)) == 1
    assert os.listdir(tmp_path) == ["own.pem"]
    assert os.stat(path).st_mode & 0o777 == 0o600


GOOD = certificate.pem(certificate.make(bytes(32)))


@pytest.mark.parametrize(
    "text",
    ["", "x", GOOD + GOOD, GOOD.replace("CERTIFICATE", "KEY"), GOOD[:200], GOOD.replace("M", "\u00e9", 1),
     GOOD.replace("-----END", "AAAA\n-----END"), certificate.pem(b"0\x03abc" * 3), certificate.pem(b"1" + b"x" * 99),
     certificate.pem(b"0\x82\xff\xff" + bytes(65535)), certificate.pem(b"")],
)  # fmt: skip
def test_what_is_no_certificate(text: str) -> None:
    with pytest.raises(InvalidError):
        certificate.parse(text)


def test_a_certificate_beside_other_text() -> None:
    beside = f"subject=x\r\n{certificate.bundle(bytes(32))}\ntrailing"
    assert certificate.parse(beside) == certificate.make(bytes(32))
    assert certificate.parse(GOOD.replace("\n", "\r\n")) == certificate.make(bytes(32))


@given(st.binary(max_size=300))
def test_bytes_of_others_as_certificates(data: bytes) -> None:
    for text in (data.decode("latin-1"), certificate.pem(data), GOOD[:40] + data.decode("latin-1") + GOOD[40:]):
        with contextlib.suppress(InvalidError):
            assert len(certificate.parse(text)) > 4


def test_tokens_say_what_they_were_made_of() -> None:
    addresses = ("192.0.2.1:8443", "[2001:db8::1]:8443", "host.example:1")
    made = Token("alice", addresses, "ab" * 32, os.urandom(32), 1 << 40)
    text = str(made)
    assert set(text) <= set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_")
    found = token.parse(f"  {text}\n")
    assert (found.name, tuple(found.addresses), found.fingerprint) == (made.name, made.addresses, made.fingerprint)
    assert (found.secret, found.expires) == (made.secret, made.expires)


BASE = {"name": "", "addresses": ["h:1"], "fingerprint": "ab" * 32, "secret": "cd" * 32, "expires": 5}


@pytest.mark.parametrize(
    "change",
    [{"addresses": []}, {"addresses": ["h"]}, {"addresses": "h:1"}, {"addresses": [5]}, {"addresses": ["h:1"] * 99},
     {"fingerprint": "ab"}, {"fingerprint": 5}, {"secret": "zz" * 32}, {"secret": None}, {"name": 5},
     {"expires": "soon"}, {"expires": None}, {"addresses": ["a b:1"]}, {"addresses": ["../x:1"]},
     {"addresses": ["h:0"]}, {"addresses": ["h:65536"]}, {"addresses": ["::1:5"]}, {"addresses": ["h:\u0661"]},
     {"addresses": ["-x:1"]}],
)  # fmt: skip
def test_tokens_of_another_form(change: dict[str, object]) -> None:
    from base64 import urlsafe_b64encode
    from json import dumps

    assert token.parse(urlsafe_b64encode(dumps(BASE).encode()).decode())
    with pytest.raises(InvalidError):
        token.parse(urlsafe_b64encode(dumps(BASE | change).encode()).decode())


@given(st.text(max_size=200))
def test_text_of_others_as_tokens(text: str) -> None:
    with pytest.raises(InvalidError):
        token.parse(text)


# frames


def split(data: bytes, sizes: list[int], most: int = 1000) -> list[tuple[int, int, bytes]]:
    """What comes of data in pieces of these sizes, over and over."""
    splitter, found, at, turn = Splitter(most), [], 0, 0
    while at < len(data):
        size = sizes[turn % len(sizes)]
        found += [(kind, stream, piece) for kind, stream, _, piece in splitter.split(data[at : at + size])]
        at, turn = at + size, turn + 1
    return found


def test_frames_come_in_any_pieces() -> None:
    data = (HEAD.pack(DATA, 1, 5) + b"hello" + HEAD.pack(MESSAGE, 2, 2) + b"{}" + HEAD.pack(frames.END, 1, 0)
            + HEAD.pack(DATA, 3, 0) + HEAD.pack(frames.CREDIT, 1, 99) + HEAD.pack(DATA, 1, 3) + b"end")  # fmt: skip
    for sizes in ([1], [2], [3, 1], [7], [1000]):
        found = split(data, sizes)
        assert b"".join(piece for kind, stream, piece in found if (kind, stream) == (DATA, 1)) == b"helloend"
        assert [one for one in found if one[0] != DATA] == [
            (MESSAGE, 2, b"{}"), (frames.END, 1, b""), (frames.CREDIT, 1, b"")
        ]  # fmt: skip


@given(st.binary(max_size=500), st.lists(st.integers(1, 50), min_size=1, max_size=5))
@settings(max_examples=300)
def test_bytes_of_others_as_frames(data: bytes, sizes: list[int]) -> None:
    try:
        found = split(data, sizes, most=50)
    except ProtocolError:
        return
    assert sum(len(piece) for _, _, piece in found) <= len(data)
    assert all(len(piece) <= 50 for kind, _, piece in found if kind == MESSAGE)


def test_no_more_is_kept_than_a_message() -> None:
    splitter = Splitter(1000)
    generator = random.Random(1)
    list(splitter.split(HEAD.pack(MESSAGE, 0, 1000)))
    list(splitter.split(generator.randbytes(999)))
    assert len(splitter._buffer) == 999
    with pytest.raises(ProtocolError):
        list(Splitter(1000).split(HEAD.pack(MESSAGE, 0, 1001)))
