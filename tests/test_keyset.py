"""Keysets: master keys in a sealed stream, and the references that Parquet files hold."""

from __future__ import annotations

import base64
import io
import json
import os
import pickle
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import pqvault
from pqvault import Identity
from pqvault.crypto import kdf, record
from pqvault.errors import (
    FormatError,
    IntegrityError,
    KeyStateForbids,
    NoKeyFits,
    NotFound,
    PolicyRefused,
    UsageError,
)
from pqvault.format.keyset import KeysetContent, MasterKey, Reference, is_name
from pqvault.keyset import Keyset

ALICE, BOB = Identity.generate(), Identity.generate()
DATA_KEY = bytes(range(32))


@pytest.fixture
def keyset(tmp_path: Path) -> Keyset:
    path = tmp_path / "keys.pqv"
    Keyset.create(path, [ALICE.recipient], ["lake", "pii"])
    return Keyset.open(path, [ALICE])


# -- wrapping


def test_wrap_and_unwrap(keyset: Keyset) -> None:
    """A reference is short, has no secret in it, and opens under its own name only."""
    reference = keyset.wrap(DATA_KEY, "pii")
    assert reference.startswith(f"pqk1:{keyset.id}:1:") and len(reference) < 128
    assert keyset.unwrap(reference, "pii") == DATA_KEY
    assert reference != keyset.wrap(DATA_KEY, "pii")
    with pytest.raises(IntegrityError, match="under 'lake'"):
        keyset.unwrap(reference, "lake")
    with pytest.raises(NotFound, match="no master key 'other'"):
        keyset.wrap(DATA_KEY, "other")


def test_the_reference_is_as_the_page_says(keyset: Keyset) -> None:
    """docs/format.md section 11, by hand, from the decrypted stream."""
    out = io.BytesIO()
    with open(keyset.path, "rb") as file:
        pqvault.decrypt(file, out, [ALICE])
    content = json.loads(out.getvalue())
    label, keyset_id, version, body = keyset.wrap(DATA_KEY, "pii").split(":")
    secret = base64.b64decode(content["secret"])
    assert (label, version) == ("pqk1", "1") and keyset_id == keyset.id
    assert kdf.derive(secret, 16, "keyset id").hex() == keyset_id
    key = base64.b64decode(content["keys"][1]["key"])
    aad = b"pqvault.dev/keyset wrap@v1\0\0\x10" + bytes.fromhex(keyset_id) + b"\0\x011\0\x03pii"
    assert record.open_record(key, base64.b64decode(body), aad, "it") == DATA_KEY


@pytest.mark.parametrize("size", [0, 16, 24, 31, 33])
def test_shorter_data_keys_are_refused(keyset: Keyset, size: int) -> None:
    """What Parquet's double wrapping asks for is 128 bits."""
    with pytest.raises(UsageError, match=f"{8 * size} bits") as caught:
        keyset.wrap(bytes(size), "pii")
    assert "double_wrapping=False" in caught.value.hint


def test_every_byte_of_a_reference_counts(keyset: Keyset) -> None:
    """attack 43: no other text stands for the same key, and no altered one opens."""
    good = keyset.wrap(DATA_KEY, "pii")
    for at in range(len(good)):
        bad = good[:at] + ("A" if good[at] != "A" else "B") + good[at + 1 :]
        with pytest.raises((IntegrityError, NotFound)):
            keyset.unwrap(bad, "pii")
    for bad in (good + "\n", good + " ", good[:-1], "", good.replace(":1:", ":01:"),
                good.replace(":1:", ":0:"), good.replace(":1:", ":+1:"), good.upper()):  # fmt: skip
        with pytest.raises(FormatError, match="not one of a pqvault keyset"):
            keyset.unwrap(bad, "pii")


def test_another_keyset(tmp_path: Path, keyset: Keyset) -> None:
    """References name theirs."""
    other = Keyset.create(tmp_path / "other.pqv", [ALICE.recipient], ["pii"])
    with pytest.raises(NotFound, match=f"with the keyset {other.id}"):
        keyset.unwrap(other.wrap(DATA_KEY, "pii"), "pii")


# -- the file


def test_no_private_key_is_needed_to_make_one(tmp_path: Path) -> None:
    """A host with public keys makes a keyset, wraps with it, and cannot open it again."""
    made = Keyset.create(tmp_path / "k.pqv", [ALICE.recipient, BOB.recipient], ["logs"])
    reference = made.wrap(DATA_KEY, "logs")
    assert made.unwrap(reference, "logs") == DATA_KEY
    for identity in (ALICE, BOB):
        assert Keyset.open(tmp_path / "k.pqv", [identity]).unwrap(reference, "logs") == DATA_KEY
    with pytest.raises(NoKeyFits):
        Keyset.open(tmp_path / "k.pqv", [Identity.generate()])
    with pytest.raises(NoKeyFits):
        made.add("more")


def test_a_keyset_in_the_place_of_another(tmp_path: Path, keyset: Keyset) -> None:
    """attacks 7 and 13: anybody can seal one to public keys; the id that is expected is not its."""
    assert Keyset.open(keyset.path, [ALICE], expect_id=keyset.id).id == keyset.id
    os.unlink(keyset.path)
    Keyset.create(keyset.path, [ALICE.recipient], ["lake", "pii"])
    with pytest.raises(PolicyRefused, match=f"and {keyset.id} is expected"):
        Keyset.open(keyset.path, [ALICE], expect_id=keyset.id)
    with pytest.raises(IntegrityError, match="another keyset was put"):
        keyset.add("more")


def test_what_is_no_keyset(tmp_path: Path) -> None:
    """Any other sealed stream, nothing, and one that has too much."""
    for data in (b"", b"hello", b"{}\n", b"x" * (4 * 2**20 + 1)):
        with open(tmp_path / "s.pqv", "wb") as out:
            pqvault.encrypt(io.BytesIO(data), out, [ALICE.recipient])
        with pytest.raises(FormatError):
            Keyset.open(tmp_path / "s.pqv", [ALICE])
    with pytest.raises(NotFound):
        Keyset.open(tmp_path / "none.pqv", [ALICE])


def test_every_byte_of_a_keyset_counts(keyset: Keyset) -> None:
    """attack 6: a flipped byte anywhere in the file is an error."""
    good = Path(keyset.path).read_bytes()
    object_at = good.index(b"\n--- ")
    for at in (*range(0, object_at, 97), *range(object_at, len(good))):
        bad = bytearray(good)
        bad[at] ^= 1
        Path(keyset.path).write_bytes(bad)
        with pytest.raises((IntegrityError, NoKeyFits)):
            Keyset.open(keyset.path, [ALICE])


# -- editing


def test_versions(keyset: Keyset) -> None:
    """A new version wraps, old ones open; a destroyed one is named, its number stays taken."""
    before = Path(keyset.path).read_bytes()
    old = keyset.wrap(DATA_KEY, "pii")
    assert keyset.renew("pii") == 2
    new = keyset.wrap(DATA_KEY, "pii")
    assert ":2:" in new and keyset.is_newest(new, "pii") and not keyset.is_newest(old, "pii")
    again = Keyset.open(keyset.path, [ALICE])
    assert again.id == keyset.id and again.unwrap(old, "pii") == again.unwrap(new, "pii")
    again.destroy("pii", 1)
    with pytest.raises(KeyStateForbids, match=r"pii@1 of .* was destroyed"):
        again.unwrap(old, "pii")
    again.destroy("pii", 2)
    with pytest.raises(KeyStateForbids, match="pii@2"):
        again.wrap(DATA_KEY, "pii")
    assert again.renew("pii") == 3
    with pytest.raises(NotFound, match="pii@9"):
        again.destroy("pii", 9)
    with pytest.raises(NotFound):
        again.renew("nothing")
    # The envelope, and so every recipient, stayed as it was.
    after = Path(keyset.path).read_bytes()
    end = before.index(b"\n--- ")
    assert after[:end] == before[:end] and after[end + 50 :] != before[end + 50 :]


def test_names(keyset: Keyset) -> None:
    """Only what Parquet's settings do not split; each once."""
    for name in ("", "a:b", "a,b", "a;b", "a b", " a", "é", "x" * 129, 'a"b'):
        assert not is_name(name)
        with pytest.raises(UsageError, match="no name of a master key"):
            keyset.add(name)
    with pytest.raises(UsageError, match="already"):
        keyset.add("new", "pii")
    with pytest.raises(UsageError, match="already"):
        keyset.add("new", "new")
    keyset.add("team/a_b-c.d@e")
    assert keyset.names == ["lake", "pii", "team/a_b-c.d@e"]


def test_two_editors(keyset: Keyset) -> None:
    """An edit is made to the file as it is, not to what was read long ago."""
    other = Keyset.open(keyset.path, [ALICE])
    keyset.add("a")
    other.add("b")
    assert Keyset.open(keyset.path, [ALICE]).names == ["a", "b", "lake", "pii"]


def test_recipients_rotate_as_of_any_sealed_stream(tmp_path: Path, keyset: Keyset) -> None:
    """`pqvault rotate`: the id, the keys and all references stay, who can open changes."""
    reference = keyset.wrap(DATA_KEY, "pii")
    report = pqvault.rotate(keyset.path, identities=[ALICE], to=BOB.recipient)
    assert report.rewrapped == 1
    with pytest.raises(NoKeyFits):
        Keyset.open(keyset.path, [ALICE])
    rotated = Keyset.open(keyset.path, [BOB], expect_id=keyset.id)
    assert rotated.unwrap(reference, "pii") == DATA_KEY
    rotated.renew("pii")
    assert Keyset.open(keyset.path, [BOB]).keys == rotated.keys


def test_an_edit_that_is_killed_leaves_the_old_or_the_new(keyset: Keyset) -> None:
    """attack 33: kill -9 at any time in a process that edits without end."""
    code = (
        "import sys\n"
        "from pqvault import Identity\n"
        "from pqvault.keyset import Keyset\n"
        "keyset = Keyset.open(sys.argv[1], [Identity.parse(sys.stdin.read())])\n"
        "print('ready', flush=True)\n"
        "while True: keyset.renew('pii')\n"
    )
    last = 1
    for round_ in range(6):
        process = subprocess.Popen(
            [sys.executable, "-c", code, keyset.path],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert process.stdin and process.stdout
        process.stdin.write(ALICE.text)
        process.stdin.close()
        assert process.stdout.readline() == "ready\n"
        time.sleep(0.02 + 0.013 * round_)
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
        opened = Keyset.open(keyset.path, [ALICE], expect_id=keyset.id)
        versions = [key.version for key in opened.keys if key.name == "pii"]
        assert versions == list(range(1, len(versions) + 1)) and len(versions) >= last
        last = len(versions)
    assert last > 1


# -- secrets


def test_nothing_shows_a_key(keyset: Keyset) -> None:
    """attack 40: not by repr, not by pickle; after the block the keys are gone."""
    texts = [repr(keyset), repr(keyset.keys), repr(vars(keyset)["_content"])]
    for key in (*(k.key for k in keyset._content.keys), keyset._content.secret):
        for text in texts:
            assert repr(key)[2:-1] not in text and base64.b64encode(key).decode() not in text
    with pytest.raises(TypeError, match="not pickled"):
        pickle.dumps(keyset)
    with keyset:
        pass
    with pytest.raises(NotFound):
        keyset.wrap(DATA_KEY, "pii")


# -- the format


KEYS = st.builds(
    MasterKey,
    st.from_regex(r"\A[A-Za-z0-9._/@-]{1,8}\Z"),
    st.integers(1, 999_999_999),
    st.integers(0, 2**53 - 1),
    st.binary(min_size=32, max_size=32) | st.just(b""),
)
CONTENTS = st.builds(
    lambda secret, keys: KeysetContent(
        secret, tuple(sorted(keys, key=lambda k: (k.name, k.version)))
    ),
    st.binary(min_size=32, max_size=32),
    st.lists(KEYS, max_size=4, unique_by=lambda k: (k.name, k.version)),
)


GOOD = KeysetContent(bytes(32), (MasterKey("a", 1, 0, bytes(32)), MasterKey("a", 2, 5, b"")))
FAULTS = {
    "no newline": lambda t: t[:-1],
    "two newlines": lambda t: t + b"\n",
    "a space": lambda t: t.replace(b'"keys":', b'"keys": '),
    "another format": lambda t: t.replace(b"keyset@v1", b"keyset@v2"),
    "a key more": lambda t: t.replace(b'"keys"', b'"more":1,"keys"'),
    "a key less": lambda t: t.replace(b'"created":5,', b""),
    "another order": lambda t: t.replace(b'"name":"a","version":1', b'"version":1,"name":"a"'),
    "a key twice": lambda t: t.replace(b'"version":1', b'"version":1,"version":1'),
    "versions out of order": lambda t: t.replace(b'"version":1', b'"version":3'),
    "a version twice": lambda t: t.replace(b'"version":2', b'"version":1'),
    "version zero": lambda t: t.replace(b'"version":1', b'"version":0'),
    "a version too large": lambda t: t.replace(b'"version":2', b'"version":1000000000'),
    "a version as text": lambda t: t.replace(b'"version":1', b'"version":"1"'),
    "a version as a float": lambda t: t.replace(b'"version":1', b'"version":1.0'),
    "a name with a colon": lambda t: t.replace(
        b'"name":"a","version":1', b'"name":"a:","version":1'
    ),
    "no name": lambda t: t.replace(b'"name":"a","version":1', b'"name":"","version":1'),
    "a short key": lambda t: t.replace(b'"key":"' + b"A" * 43 + b"=", b'"key":"AAAA'),
    "base64 that is not canonical": lambda t: t.replace(b"A" * 43 + b"=", b"A" * 42 + b"B="),
    "no secret": lambda t: t.replace(b'"secret":"' + b"A" * 43 + b"=", b'"secret":"'),
    "too many keys": lambda t: KeysetContent(
        bytes(32), tuple(MasterKey("a", v + 1, 0, b"") for v in range(4097))
    ).marshal(),
    "too much": lambda t: t[:-1] + b" " * (4 * 2**20) + b"\n",
    "deep": lambda t: b"[" * 100_000 + b"\n",
}


@pytest.mark.parametrize("fault", FAULTS)
def test_one_fault_each(fault: str) -> None:
    """attacks 42 and 43: each is refused, and what they are made from is not."""
    text = GOOD.marshal()
    assert KeysetContent.parse(text) == GOOD
    bad = FAULTS[fault](text)
    assert bad != text
    with pytest.raises(FormatError):
        KeysetContent.parse(bad)


@given(CONTENTS)
def test_content_comes_back(content: KeysetContent) -> None:
    """What is written is read, and is written the same."""
    assert KeysetContent.parse(content.marshal()) == content


@given(CONTENTS, st.data())
def test_one_way_to_write(content: KeysetContent, data: st.DataObject) -> None:
    """attack 43: whatever is accepted is written as the same bytes."""
    text = bytearray(content.marshal())
    at = data.draw(st.integers(0, len(text) - 1))
    text[at : at + data.draw(st.integers(0, 2))] = data.draw(st.binary(max_size=3))
    try:
        parsed = KeysetContent.parse(bytes(text))
    except FormatError:
        return
    assert parsed.marshal() == text


@given(st.text(max_size=6) | st.from_regex(r"pqk1:[0-9a-f]{32}:[0-9]{1,3}:[A-Za-z0-9+/=]{80}"))
def test_references_come_back(text: str) -> None:
    """The same for references."""
    try:
        parsed = Reference.parse(text)
    except FormatError:
        return
    assert parsed.marshal() == text
