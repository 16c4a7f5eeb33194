"""Keysets, docs/format.md section 11: which data key a reader gets out of a reference.

``python -m vectors.keysets`` writes them again, the same each time. Each is a JSON file with the
content of the keyset, without the stream it is sealed in, of which `streams/` has the vectors; see
README.md. Like all vectors they are made by hand from the page, with nothing of pqvault.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from vectors.registry import Registry, json_files, write_files
from vectors.testkit import HERE, b64, bind, expand, flip

FOLDER: Final = HERE / "keysets"
SECRET: Final = bytes(range(32))
OLD, NEW, OTHER = (bytes([first]) * 32 for first in (1, 2, 3))
DATA: Final = bytes(range(64, 96))
NONCE: Final = bytes(range(12))
GONE, STATE, BAD = 10, 16, 13  # exit codes: not there, destroyed, damaged

Key = dict[str, Any]


def key(name: str, version: Any, content: bytes, **more: Any) -> Key:
    """One version of a master key."""
    return {"name": name, "version": version, "created": 1795473946489, "key": b64(content), **more}


LAKE: Final = [key("lake", 1, OLD), key("lake", 2, NEW), key("pond", 1, OTHER)]


def content(keys: list[Key] = LAKE, secret: bytes = SECRET, **more: Any) -> bytes:
    """The line of JSON."""
    value = {"format": "pqvault.dev/keyset@v1", "secret": b64(secret), "keys": keys, **more}
    return json.dumps(value, separators=(",", ":")).encode() + b"\n"


def wrapped(
    master: bytes = NEW,
    version: str = "2",
    name: str = "lake",
    *,
    secret: bytes = SECRET,
    data: bytes = DATA,
) -> bytes:
    """A data key under a master key: nonce, ciphertext, tag."""
    keyset = expand(secret, bind("keyset id"), 16)
    aad = bind("keyset wrap", keyset, version.encode(), name.encode())
    return NONCE + AESGCM(master).encrypt(NONCE, data, aad)


def reference(sealed: bytes | None = None, version: str = "2", secret: bytes = SECRET) -> str:
    """What the Parquet file holds."""
    keyset = expand(secret, bind("keyset id"), 16)
    return f"pqk1:{keyset.hex()}:{version}:{b64(wrapped() if sealed is None else sealed)}"


Case = dict[str, Any]
case: Final = Registry[Case]()


def gives(text: str, keyset: bytes | None = None, name: str = "lake") -> Case:
    """A reference that opens."""
    made = content() if keyset is None else keyset
    return {"content": made.decode(), "name": name, "reference": text, "data_key": DATA.hex()}


def fails(
    code: int, text: str | None = None, keyset: bytes | None = None, name: str = "lake"
) -> Case:
    """One that must not."""
    made = content() if keyset is None else keyset
    text = reference() if text is None else text
    return {"content": made.decode(), "name": name, "reference": text, "error": code}


@case("wrapped under the newest version of its master key")
def newest() -> Case:
    return gives(reference())


@case("wrapped under an older version, which still opens")
def older() -> Case:
    return gives(reference(wrapped(OLD, "1"), "1"))


@case("another master key of the keyset")
def another_name() -> Case:
    return gives(reference(wrapped(OTHER, "1", "pond"), "1"), name="pond")


@case("an older version was destroyed, the newest opens")
def older_destroyed() -> Case:
    return gives(reference(), content([key("lake", 1, b""), key("lake", 2, NEW)]))


@case("the greatest version that there is")
def version_999999999() -> Case:
    keys = [key("lake", 999_999_999, NEW)]
    return gives(reference(wrapped(version="999999999"), "999999999"), content(keys))


@case("a name of 128 characters of every kind")
def long_name() -> Case:
    name = ("A-Za-z0._/@-9" * 10)[:128]
    return gives(reference(wrapped(name=name)), content([key(name, 2, NEW)]), name)


@case("its version was destroyed")
def destroyed() -> Case:
    return fails(STATE, keyset=content([key("lake", 1, OLD), key("lake", 2, b"")]))


@case("there is no such version")
def unknown_version() -> Case:
    return fails(GONE, reference(wrapped(version="3"), "3"))


@case("there is no such master key")
def unknown_name() -> Case:
    return fails(GONE, reference(wrapped(name="sea")), name="sea")


@case("a keyset without any keys")
def no_keys() -> Case:
    return fails(GONE, keyset=content([]))


@case("wrapped with another keyset that has the same master keys")
def another_keyset() -> Case:
    secret = bytes(32)
    return fails(GONE, reference(wrapped(secret=secret), secret=secret))


@case("attack 2: the id of this keyset put before what another one wrapped")
def id_exchanged() -> Case:
    return fails(BAD, reference(wrapped(secret=bytes(32))))


@case("attack 12: a bit of the ciphertext is flipped")
def flipped() -> Case:
    return fails(BAD, reference(flip(wrapped(), 20)))


@case("attack 12: a bit of the tag is flipped")
def tag_flipped() -> Case:
    return fails(BAD, reference(flip(wrapped(), 59)))


@case("attack 12: a bit of the nonce is flipped")
def nonce_flipped() -> Case:
    return fails(BAD, reference(flip(wrapped(), 3)))


@case("attack 2: wrapped under version 1, and said to be under version 2")
def version_exchanged() -> Case:
    return fails(BAD, reference(wrapped(OLD, "1")))


@case("attack 2: version 2 has the same key as version 1, and the AAD tells them apart")
def same_key_other_version() -> Case:
    keys = [key("lake", 1, OLD), key("lake", 2, OLD)]
    return fails(BAD, reference(wrapped(OLD, "1")), content(keys))


@case("attack 2: wrapped under another name with the same key")
def same_key_other_name() -> Case:
    keys = [key("lake", 2, NEW), key("pond", 2, NEW)]
    return fails(BAD, reference(), content(keys), "pond")


@case("a data key of 16 bytes: Parquet's short keys are not wrapped")
def short_data_key() -> Case:
    return fails(BAD, reference(wrapped(data=DATA[:16])))


@case("a reference of another version of the format")
def pqk2() -> Case:
    return fails(BAD, reference().replace("pqk1", "pqk2"))


@case("a version with a leading zero")
def version_02() -> Case:
    return fails(BAD, reference(version="02"))


@case("version zero")
def version_0() -> Case:
    return fails(BAD, reference(wrapped(version="0"), "0"))


@case("a version of ten digits")
def version_of_ten_digits() -> Case:
    return fails(BAD, reference(version="1000000000"))


@case("the id in capitals")
def capitals() -> Case:
    head, keyset, *rest = reference().split(":")
    return fails(BAD, ":".join([head, keyset.upper(), *rest]))


@case("base64 without its end")
def cut() -> Case:
    return fails(BAD, reference()[:-4])


@case("a line feed behind the reference")
def line_feed() -> Case:
    return fails(BAD, reference() + "\n")


@case("base64 of the other alphabet")
def url_alphabet() -> Case:
    head, _, text = reference(flip(wrapped(), 20)).rpartition(":")
    return fails(BAD, f"{head}:-{text[1:]}")


@case("the keyset has no LF at its end")
def no_line_feed() -> Case:
    return fails(BAD, keyset=content()[:-1])


@case("a second line in the keyset")
def two_lines() -> Case:
    return fails(BAD, keyset=content() + b"\n")


@case("a space in its JSON, which is not canonical")
def a_space() -> Case:
    return fails(BAD, keyset=content().replace(b'"keys":', b'"keys": '))


@case("its keys in another order")
def fields_out_of_order() -> Case:
    value = json.loads(content())
    turned = {name: value[name] for name in ("secret", "format", "keys")}
    return fails(BAD, keyset=json.dumps(turned, separators=(",", ":")).encode() + b"\n")


@case("attack 32: a key of JSON that stands twice")
def field_twice() -> Case:
    start = b'{"format":"pqvault.dev/keyset@v1",'
    return fails(BAD, keyset=content().replace(b"{", start, 1))


@case("a field that no keyset has")
def unknown_field() -> Case:
    return fails(BAD, keyset=content(more=1))


@case("a field that no master key has")
def unknown_field_of_a_key() -> Case:
    return fails(BAD, keyset=content([key("lake", 2, NEW, more=1)]))


@case("a keyset of another version")
def another_format() -> Case:
    return fails(BAD, keyset=content().replace(b"keyset@v1", b"keyset@v2"))


@case("a secret of 31 bytes")
def short_secret() -> Case:
    return fails(BAD, keyset=content(secret=SECRET[:31]))


@case("a master key of 16 bytes")
def short_key() -> Case:
    return fails(BAD, keyset=content([key("lake", 2, NEW[:16])]))


@case("master keys out of order")
def keys_out_of_order() -> Case:
    return fails(BAD, keyset=content([LAKE[1], LAKE[0]]))


@case("versions sorted as text: 10 before 9")
def versions_as_text() -> Case:
    return fails(BAD, keyset=content([key("lake", 10, OLD), key("lake", 9, NEW)]))


@case("a version that stands twice")
def version_twice() -> Case:
    return fails(BAD, keyset=content([LAKE[1], LAKE[1]]))


@case("a master key without a name")
def no_name() -> Case:
    return fails(BAD, keyset=content([key("", 2, NEW), LAKE[1]]))


@case("a name with a comma, at which Parquet's settings are split")
def comma_in_a_name() -> Case:
    return fails(BAD, keyset=content([LAKE[1], key("lake,pond", 1, OLD)]))


@case("a name of 129 characters")
def too_long_a_name() -> Case:
    return fails(BAD, keyset=content([LAKE[1], key("p" * 129, 1, OLD)]))


@case("version zero in the keyset")
def key_of_version_0() -> Case:
    return fails(BAD, keyset=content([key("lake", 0, OLD), LAKE[1]]))


@case("version 1,000,000,000 in the keyset")
def key_of_version_1000000000() -> Case:
    return fails(BAD, keyset=content([LAKE[1], key("lake", 1_000_000_000, OLD)]))


@case("a version that is text")
def version_as_text() -> Case:
    return fails(BAD, keyset=content([key("lake", "2", NEW)]))


def make_all() -> dict[Path, bytes]:
    """Every vector: the path of its file, and the bytes that belong there."""
    return json_files(FOLDER, case)


if __name__ == "__main__":
    write_files(FOLDER, make_all())
