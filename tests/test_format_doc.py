"""docs/format.md says what the code does: its examples are computed here and compared.

``python tests/test_format_doc.py`` writes them anew (the sealed stream with a fresh wrap).
"""

from __future__ import annotations

import base64
import hashlib
import io
import re
import textwrap
from pathlib import Path
from typing import Any

import pyarrow as pa

import pqvault
from pqvault.crypto import kdf, kem, record
from pqvault.crypto.profiles import PROFILES, STANDARD
from pqvault.format.keyset import KeysetContent, MasterKey, Reference
from pqvault.logs.wal import End, WalReader, WalWriter
from pqvault.rootkey import RootKey

DOC = Path(__file__).resolve().parent.parent / "docs" / "format.md"
ARCHIVE = "000102030405060708090a0b0c0d0e0f"
PART = "101112131415161718191a1b1c1d1e1f"
SECRET = bytes(range(32))
SEED = bytes(range(32, 64))
WAL_ROWS = pa.record_batch({"model": ["llama", None], "tokens": [12, 3]})
CONTENT = b"Harvest now, decrypt never.\n"


def profiles() -> str:
    """Section 1.1: a key of each profile, whose bytes count up from 0x20."""
    rows = ["| profile | identity | recipient | key id |", "|---|---|---|---|"]
    for profile in PROFILES.values():
        key = pqvault.Identity(bytes(range(32, 32 + profile.seed_size)), profile)
        digest = hashlib.sha256(key.recipient.public_key).hexdigest()
        rows.append(f"| `{profile}` | `{key.text}` | SHA-256 `{digest}` | `{key.key_id}` |")
    return "For example, of the identities 20 21 22 … (hex):\n\n" + "\n".join(rows)


def derivations() -> str:
    """Section 2.1: every purpose with fixed ids."""
    key_id = kem.key_id(STANDARD, kem.public_key_of(STANDARD, SEED))
    archive, part = bytes.fromhex(ARCHIVE), bytes.fromhex(PART)
    wrap = (archive, part, b"", b"standard", STANDARD.kem.encode(), key_id)
    lines = [
        f"archive           {ARCHIVE}",
        f"part              {PART}",
        f"root key          {SECRET.hex()}",
        f"identity          {SEED.hex()}",
        f"key id            {key_id.hex()}",
        "",
        "bind(envelope, archive, part, '', 'standard', 'MLKEM768-X25519', key id) =",
        *_hex(kdf.bind("envelope", *wrap)),
    ]
    for purpose, fields, size in (
        ("envelope mac", (archive, part, b""), 64),
        ("commit mac", (archive, part), 64),
        ("commit id", (archive, part), 32),
        ("object", (archive, part, b"catalog"), 32),
        ("table", (archive, part, b"tables/" + PART.encode() + b".parquet"), 32),
        ("wal", (archive, part, b"wal"), 32),
        ("retired mac", (archive, part), 64),
        ("removed mac", (archive, part), 64),
    ):
        names = ["archive", "part", *(repr(field.decode()) for field in fields[2:])]
        shown = ", ".join([purpose, *names[: len(fields)]])
        lines += ["", f"bind({shown}) =", *_hex(kdf.bind(purpose, *fields)), "derived ="]
        lines += _hex(kdf.derive(SECRET, size, purpose, *fields))
    return "```\n" + "\n".join(lines) + "\n```"


def _hex(data: bytes) -> list[str]:
    return ["  " + line for line in textwrap.wrap(data.hex(), 96)]


def stream() -> str:
    """Section 8.1: a whole sealed stream, in base64."""
    out = io.BytesIO()
    identity = pqvault.Identity(SEED)
    pqvault.encrypt(io.BytesIO(CONTENT), out, [identity.recipient])
    body = "\n".join(textwrap.wrap(base64.b64encode(out.getvalue()).decode(), 110))
    return (
        f"Content `{CONTENT.decode().strip()}` and a newline, sealed to the identity of"
        " section 2.1 =\n"
        f"`{identity.text}`; the whole file in base64:\n\n```base64\n{body}\n```"
    )


def reference() -> str:
    """Section 11.1: a data key wrapped under a fixed master key with a fixed nonce."""
    secret, master, data_key, nonce = SECRET, SEED, bytes(range(64, 96)), bytes(range(12))
    content = KeysetContent(secret, (MasterKey("lake", 2, 1795473946489, master),))
    keyset = kdf.derive(secret, 16, "keyset id")
    aad = kdf.bind("keyset wrap", keyset, b"2", b"lake")
    wrapped = record._seal_with_nonce(master, data_key, aad, nonce)
    lines = [
        f"content           {textwrap.fill(content.marshal().decode().strip(), 90)}".replace(
            "\n", "\n                  "
        ),
        f"keyset id         {keyset.hex()}",
        f"data key          {data_key.hex()}",
        f"nonce             {nonce.hex()}",
        "",
        "bind(keyset wrap, keyset id, '2', 'lake') =",
        *_hex(aad),
        "reference =",
        f"  {Reference(keyset.hex(), 2, wrapped).marshal()}",
    ]
    return "```\n" + "\n".join(lines) + "\n```"


def write_ahead() -> str:
    """Section 12.4: a write-ahead file of two rows and its end, in base64."""
    file = io.BytesIO()
    writer = WalWriter(_Appending(file), RootKey(ARCHIVE, PART, SECRET))
    writer.write_batch(WAL_ROWS)
    writer.end(2, 0)
    body = "\n".join(textwrap.wrap(base64.b64encode(file.getvalue()).decode(), 110))
    return (
        'The rows `{"model": "llama", "tokens": 12}` and `{"model": null, "tokens": 3}`'
        " and the closing record, with archive id, part id and root key of section 2.1, as `wal`,"
        f" in base64:\n\n```base64\n{body}\n```"
    )


class _Appending:
    size = 0

    def __init__(self, file: io.BytesIO) -> None:
        self._file = file

    def append(self, buffer: Any) -> None:
        self._file.write(buffer)


class _Bytes:
    def __init__(self, data: bytes) -> None:
        self._data = data
        self.size = len(data)

    def pread_into(self, buffer: Any, offset: int) -> None:
        memoryview(buffer)[:] = self._data[offset : offset + len(buffer)]


def test_the_write_ahead_file_in_the_page_opens_to_what_the_page_says() -> None:
    """Section 12's byte example."""
    body = re.search(r"```base64\n(.*?)```", section("wal"), re.DOTALL)
    assert body
    source: Any = _Bytes(base64.b64decode(body[1]))
    reader = WalReader(source, RootKey(ARCHIVE, PART, SECRET), "", "the example")
    assert [batch for _, batch in reader.batches()] == [WAL_ROWS]
    assert reader.end == End(2, 0) and (reader.torn, reader.damaged) == (0, [])


def section(name: str) -> str:
    """What stands between a marker and its end in the page."""
    match = re.search(rf"<!-- example: {name} -->\n(.*?)<!-- end -->", DOC.read_text(), re.DOTALL)
    assert match, f"docs/format.md has no example {name!r}"
    return match[1].strip()


def test_every_derivation_in_the_page_is_what_the_code_derives() -> None:
    """A reader written from the page gets the keys that the writer used."""
    assert section("derivations") == derivations()
    assert set(kdf.PURPOSES) == set(
        re.findall(r"^\| `([a-z ]+)` \| archive, part", DOC.read_text(), re.M)
    )


def test_the_reference_in_the_page_is_what_the_code_makes() -> None:
    """A reader written from the page unwraps what Parquet files hold."""
    assert section("reference") == reference()
    text = DOC.read_text()
    for purpose, fields in kdf.KEYSET_PURPOSES.items():
        assert f"| `{purpose}` | {', '.join(fields) or '(none)'} |" in text


def test_the_keys_in_the_page_are_those_of_the_code() -> None:
    """An identity, its public key and its key id in each profile."""
    assert section("profiles") == profiles()


def test_the_sealed_stream_in_the_page_opens_to_what_the_page_says() -> None:
    """The one byte example of an envelope, a wrapped key and an object, all in one file."""
    text = section("stream")
    body = re.search(r"```base64\n(.*?)```", text, re.DOTALL)
    assert body and CONTENT.decode().strip() in text and pqvault.Identity(SEED).text in text
    out = io.BytesIO()
    pqvault.decrypt(io.BytesIO(base64.b64decode(body[1])), out, [pqvault.Identity(SEED)])
    assert out.getvalue() == CONTENT


def test_root_key_and_purposes_of_the_page_agree() -> None:
    """`RootKey` uses the same purposes: its commit id is the page's derived value."""
    assert RootKey(ARCHIVE, PART, SECRET).commit_id in section("derivations")


def _write() -> None:
    page = DOC.read_text()
    made = {"profiles": profiles(), "derivations": derivations()}
    made |= {"stream": stream(), "reference": reference(), "wal": write_ahead()}
    for name, text in made.items():
        old = rf"<!-- example: {name} -->\n(?:.*?<!-- end -->\n)?"
        new = f"<!-- example: {name} -->\n{text}\n<!-- end -->\n"
        page = re.sub(old, lambda _, new=new: new, page, flags=re.DOTALL)
    DOC.write_text(page)


if __name__ == "__main__":
    _write()
