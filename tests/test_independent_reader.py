"""What pqvault writes, read by a reader that was written from docs/format.md alone."""

from __future__ import annotations

import ast
import base64
import io
import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import independent_reader as reader
import pytest
from conftest import MTIME, make_tree, noise, snapshot

import pqvault

PAGE = Path(__file__).resolve().parent.parent / "docs" / "format.md"
SOURCE = Path(reader.__file__)
MIB = 1 << 20


def page(name: str) -> str:
    """An example of the page."""
    found = re.search(rf"<!-- example: {name} -->\n(.*?)<!-- end -->", PAGE.read_text(), re.DOTALL)
    assert found
    return found[1]


def seal(source: Path, archive: Path, key: pqvault.Identity, **options: object) -> str:
    """One more part; answers its id."""
    before = set(os.listdir(archive / "commits")) if archive.exists() else set()
    pqvault.seal([source], archive, recipients=[key.recipient], identities=[key], **options)
    (part,) = set(os.listdir(archive / "commits")) - before
    return part


def same(archive: Path, source: Path, key: pqvault.Identity) -> dict[bytes, reader.Item]:
    """The view is just what the source is, names, times, modes, links and content."""
    view = reader.open_archive(archive, key.text)
    top = os.fsencode(source.name)
    tree = {(top + b"/" + path if path else top): one for path, one in snapshot(source).items()}
    assert list(view) == sorted(tree)
    for path, node in tree.items():
        item = view[path]
        assert item.mtime_ns == node.mtime_ns, path
        assert (item.link if item.kind == "l" else item.content or b"") == node.data, path
        if item.kind == "h":
            assert view[item.link or b""].content == item.content
            assert node.kind == "f" and node.group in (
                path[len(top) + 1 :],
                item.link[len(top) + 1 :],
            )
        else:
            assert item.kind == node.kind, path
        if item.kind != "l":
            assert item.mode == node.mode, path
    return view


def parts(archive: Path, key: pqvault.Identity) -> list[reader.Part]:
    return reader.open_parts(archive, reader.load_identity(key.text))


def all_frames(part: reader.Part) -> list[tuple[bytes, int]]:
    """Every frame of every object of a part."""
    found = []
    for name in part.names.values():
        opened, sealed = part.opened, (part.folder / name).read_bytes()
        context = reader.bind("object", opened.archive, opened.part, name.encode())
        key = reader.expand(opened.root, context, 32)
        found += reader.frames(reader.cobblestone(key, context, sealed))
    return found


def is_stored(frame: bytes, size: int) -> bool:
    """Section 7.3."""
    blocks = -(-size // 131072)
    if len(frame) != 9 + size + 3 * blocks:
        return False
    at = 9
    for index in range(blocks):
        length = min(131072, size - index * 131072)
        head = length * 8 + (index == blocks - 1)
        if frame[at : at + 3] != head.to_bytes(3, "little"):
            return False
        at += 3 + length
    return frame[:9] == b"\x28\xb5\x2f\xfd\xa0" + size.to_bytes(4, "little")


# The reader itself


@pytest.mark.parametrize("source", sorted(SOURCE.parent.glob("independent_*.py")))
def test_the_reader_shares_no_code_with_pqvault(source: Path) -> None:
    """No import of pqvault, of its command line or of the tests, and none that ast cannot see."""
    names = set()
    for node in ast.walk(ast.parse(source.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0
            names.add((node.module or "").partition(".")[0])
        elif isinstance(node, ast.Name):
            assert node.id not in ("__import__", "eval", "exec", "compile")
    known = "__future__ base64 collections dataclasses functools hashlib hmac json os pathlib re "
    known += "stat struct tomllib typing blake3 cryptography pyarrow zstandard "
    known += (
        "tomllib independent_catalog independent_documents independent_keys independent_policy "
    )
    known += "independent_policy independent_reader"
    assert names <= set(known.split())


def test_the_examples_of_the_page(tmp_path: Path) -> None:
    """Sections 2.1 and 8.1, derived and opened here."""
    text = page("derivations")
    value = dict(re.findall(r"^(\S[\w ]*?) {2,}([0-9a-f]+)$", text, re.MULTILINE))
    archive, part, root, _, key_id = (bytes.fromhex(one) for one in value.values())
    shown = {
        match[1]: bytes.fromhex("".join(match[2].split()))
        for match in re.finditer(r"bind\(([a-z ]+),.*\) =\n((?:  [0-9a-f]+\n)+)", text)
    }
    derived = [
        bytes.fromhex("".join(one.split()))
        for one in re.findall(r"derived =\n((?:  [0-9a-f]+\n)+)", text)
    ]
    fields = {
        "envelope": (b"", b"standard", b"MLKEM768-X25519", key_id),
        "envelope mac": (b"",),
        "commit mac": (),
        "commit id": (),
        "object": (b"catalog",),
        "table": (b"tables/101112131415161718191a1b1c1d1e1f.parquet",),
        "wal": (b"wal",),
        "retired mac": (),
        "removed mac": (),
    }
    assert shown == {name: reader.bind(name, archive, part, *more) for name, more in fields.items()}
    infos = [shown[name] for name in list(fields)[1:]]
    assert derived == [
        reader.expand(root, info, len(out)) for info, out in zip(infos, derived, strict=True)
    ]

    example = page("stream")
    found = re.search(r"`(AGE-SECRET-KEY-PQ-1\w+)`", example)
    body = re.search(r"```base64\n(.*?)```", example, re.DOTALL)
    assert found and body
    assert reader.load_identity(found[1]).key_id == key_id
    (tmp_path / "x.pqv").write_bytes(base64.b64decode("".join(body[1].split())))
    assert reader.open_stream(tmp_path / "x.pqv", found[1]) == b"Harvest now, decrypt never.\n"


def test_an_identity_is_read_strictly(identity: pqvault.Identity) -> None:
    text = identity.text
    assert reader.load_identity(text + "\n").key_id.hex() in identity_key_ids(identity)
    swapped = text[:-1] + ("Q" if text[-1] != "Q" else "P")
    for bad in (swapped, text.lower(), text[:-1], "", "1", text[:40] + "B" + text[41:], "é" + text):
        with pytest.raises(reader.Damaged):
            reader.load_identity(bad)


def identity_key_ids(identity: pqvault.Identity) -> list[str]:
    """Key ids that pqvault writes for an identity."""
    out = io.BytesIO()
    pqvault.encrypt(io.BytesIO(b""), out, [identity.recipient])
    line = out.getvalue().split(b"\n")[1]
    return [one["key_id"] for one in json.loads(line)["recipients"]]


# Streams

CONTENTS = {
    "empty": b"",
    "one byte": b"x",
    "one chunk": noise(16384 - 9 - 3 - 25),  # the plaintext fills a chunk: the last one is empty
    "text": b"a line of text\n" * 50_000,
    "one frame": noise(4 * MIB, 3),
    "mixed": noise(9 * MIB + 17, 4) + bytes(3 * MIB) + b"end",
}


@pytest.mark.parametrize("name", CONTENTS)
def test_streams(tmp_path: Path, identity: pqvault.Identity, name: str) -> None:
    """All sizes come back equal, with one recipient or the second of two."""
    other = pqvault.Identity.generate()
    for recipients in ([identity.recipient], [other.recipient, identity.recipient]):
        with open(tmp_path / "s.pqv", "wb") as out:
            pqvault.encrypt(io.BytesIO(CONTENTS[name]), out, recipients)
        assert reader.open_stream(tmp_path / "s.pqv", identity.text) == CONTENTS[name]
    with pytest.raises(reader.NoKey):
        reader.open_stream(tmp_path / "s.pqv", pqvault.Identity.generate().text)


def test_a_stream_with_any_byte_changed_is_refused(
    tmp_path: Path, identity: pqvault.Identity
) -> None:
    """So is one that ends early or late."""
    out = io.BytesIO()
    pqvault.encrypt(io.BytesIO(noise(40_000)), out, [identity.recipient])
    good, path = out.getvalue(), tmp_path / "s.pqv"
    changed = [flip(good, at) for at in [*range(0, 2100, 13), *range(2100, len(good), 997)]]
    changed += [good[:size] for size in (*range(0, len(good), 1500), len(good) - 1)]
    begin = len(good) - 56 - 3 * 16 - (40_000 + 9 + 3 + 25)
    assert good[begin - 1 : begin] == b"\n"
    changed += [good[: begin + 56 + 16400 * count] for count in (0, 1, 2)]
    changed += [good + b"\0", good + good[-17:], b"\n" + good]
    for data in changed:
        path.write_bytes(data)
        with pytest.raises((reader.Damaged, reader.NoKey)):
            reader.open_stream(path, identity.text)


# Archives


def test_one_part_with_everything(tmp_path: Path, identity: pqvault.Identity) -> None:
    """Odd names, links, holes, empty things, several frames, stored ones among them."""
    source = make_tree(
        tmp_path / "src",
        {
            "big": noise(9 * MIB + 4321, 7),
            "text": b'{"text": "hello"}\n' * 200_000,
            "empty": b"",
            "nothing": {},
            "images": {"a.png": noise(3000, 2), "b": {"c": {"d": b"deep"}}},
            "images-old": {"x": b"sorts between images and images/"},
            "images!": b"too",
            "n" * 255: b"a long name",
            "line\nfeed \x1b[31m \\ \"'": b"odd",
            "dangling": "../../../nowhere",
            "folder": "images/b",
        },
    )
    (source / os.fsdecode(b"\xff\xfe not utf-8")).write_bytes(b"raw")
    (source / "raw target").symlink_to(os.fsdecode(b"\x80\xff"))
    for name in ("a hard link", "z"):
        os.link(source / "images" / "a.png", source / name)
    with open(source / "sparse", "wb") as file:
        file.write(b"head")
        file.seek(3 * MIB)
        file.write(b"tail")
        file.truncate(5 * MIB)
    (source / "holes only").touch()
    os.truncate(source / "holes only", MIB)
    for mode, name in enumerate(("empty", "big", "images", "text")):
        (source / name).chmod((0o444, 0o600, 0o2750, 0o4755)[mode])
    os.utime(source / "empty", ns=(0, MTIME))
    os.utime(source / "text", ns=(0, -1))
    archive = tmp_path / "v.pqv"
    seal(source, archive, identity)

    view = same(archive, source, identity)
    kinds = "".join(sorted({item.kind for item in view.values()}))
    assert kinds == "dfhl" and view[b"src/empty"].content == b""
    (part,) = parts(archive, identity)
    extents = part.entries[b"src/sparse"].extents
    assert any(extent["object"] == -1 for extent in extents)
    found = all_frames(part)
    stored = [is_stored(frame, size) for frame, size in found]
    assert len(found) >= 3 and any(stored) and not all(stored)
    with pytest.raises(reader.NoKey):
        reader.open_archive(archive, pqvault.Identity.generate().text)


@pytest.mark.parametrize("frame_size", [65536, 8 * MIB])
@pytest.mark.parametrize("level", [1, 19])
def test_other_frames(
    tmp_path: Path, identity: pqvault.Identity, frame_size: int, level: int
) -> None:
    source = make_tree(
        tmp_path / "src", {"noise": noise(9 * MIB + 1), "text": b"0123456789abcdef" * 40_000}
    )
    seal(source, tmp_path / "v.pqv", identity, frame_size=frame_size, level=level)
    same(tmp_path / "v.pqv", source, identity)
    (part,) = parts(tmp_path / "v.pqv", identity)
    assert max(size for _, size in all_frames(part)) <= frame_size


def test_several_parts(tmp_path: Path, identity: pqvault.Identity) -> None:
    """Changed, added, removed, replaced by another kind, and back again."""
    source = make_tree(
        tmp_path / "src",
        {
            "keep": b"same in all parts",
            "change": b"first",
            "gone": {"a": b"1", "b": {"c": b"2"}},
            "turns": {"x": b"below a folder"},
            "first": b"linked",
            "s": "change",
        },
    )
    os.link(source / "first", source / "second")
    archive = tmp_path / "v.pqv"
    seal(source, archive, identity)
    same(archive, source, identity)

    (source / "change").write_bytes(noise(20_000))
    make_tree(source / "new", {"file": b"n"})
    seal(source, archive, identity)
    same(archive, source, identity)

    shutil.rmtree(source / "gone")
    shutil.rmtree(source / "turns")
    (source / "turns").write_bytes(b"a file now")
    (source / "first").unlink()
    (source / "first").write_bytes(b"no longer linked")
    (source / "s").unlink()
    (source / "s").mkdir()
    part = seal(source, archive, identity, delete=True, yes=True)
    view = same(archive, source, identity)
    assert b"src/gone/b/c" not in view and b"src/turns/x" not in view
    last = parts(archive, identity)[-1]
    assert last.commit["part"] == part and last.commit["kind"] == "seal"
    assert {chr(entry.kind) for entry in last.entries.values()} >= {"x"}

    (source / "turns").unlink()
    make_tree(source, {"turns": {"y": b"a folder again"}, "gone": {"a": b"back"}})
    seal(source, archive, identity, delete=True, yes=True)
    same(archive, source, identity)

    (source / "added").write_bytes(b"without a look at the rest")
    seal(source, archive, identity, append=True)
    same(archive, source, identity)
    opened = parts(archive, identity)
    assert [part.commit["seq"] for part in opened] == [1, 2, 3, 4, 5]
    assert opened[-1].commit["kind"] == "append"


def test_an_entry_below_what_is_no_folder_is_hidden(
    tmp_path: Path, identity: pqvault.Identity
) -> None:
    """Rule 3 of the view: nothing was deleted, and yet a file hides what was below it."""
    source, archive = make_tree(tmp_path / "src", {"d": {"a": b"1"}}), tmp_path / "v.pqv"
    seal(source, archive, identity)
    shutil.rmtree(source / "d")
    (source / "d").write_bytes(b"a file")
    seal(source, archive, identity, append=True)
    assert set(same(archive, source, identity)) == {b"src", b"src/d"}


def test_a_hard_link_keeps_its_content_when_its_first_name_changes(
    tmp_path: Path, identity: pqvault.Identity
) -> None:
    """Its own extents count, not what stands at the path of its link."""
    source = make_tree(tmp_path / "src", {"a": b"AAA", "b": b"BBB"})
    os.link(source / "b", source / "c")
    archive = tmp_path / "v.pqv"
    seal(source, archive, identity)
    (source / "b").unlink()
    (source / "c").unlink()
    os.link(source / "a", source / "b")
    seal(source, archive, identity)
    view = reader.open_archive(archive, identity.text)
    assert {path[4:]: item.content for path, item in view.items() if item.kind in "fh"} == {
        b"a": b"AAA",
        b"b": b"AAA",
        b"c": b"BBB",
    }


def test_a_tombstone_is_no_entry_even_when_it_hides_nothing(
    tmp_path: Path, identity: pqvault.Identity
) -> None:
    """The part that held what it hides was removed."""
    source, archive = make_tree(tmp_path / "src", {"a": b"1", "b": b"2"}), tmp_path / "v.pqv"
    first = seal(source, archive, identity)
    (source / "b").unlink()
    seal(source, archive, identity, delete=True, yes=True)
    (archive / "removed").mkdir(exist_ok=True)
    (archive / "removed" / first).touch()
    assert set(reader.open_archive(archive, identity.text)) == {b"src"}


# Refusals


def flip(data: bytes, at: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


@pytest.fixture
def two(tmp_path: Path, identity: pqvault.Identity) -> tuple[Path, str, str]:
    """An archive of two parts, alike in every size."""
    source, archive = make_tree(tmp_path / "src", {"a": noise(50_000, 1)}), tmp_path / "v.pqv"
    first = seal(source, archive, identity)
    (source / "a").write_bytes(noise(50_000, 2))
    return archive, first, seal(source, archive, identity)


def object_of(archive: Path, part: str) -> Path:
    (found,) = (archive / "parts" / part / "objects").iterdir()
    return found


def refused(archive: Path, key: pqvault.Identity, *kinds: type[Exception]) -> None:
    with pytest.raises(kinds):
        reader.open_archive(archive, key.text)


PLACES: dict[str, Callable[[Path, str], Path]] = {
    "envelope": lambda archive, part: archive / "envelopes" / part,
    "commit": lambda archive, part: archive / "commits" / part,
    "catalog": lambda archive, part: archive / "parts" / part / "catalog",
    "object": object_of,
}


@pytest.mark.parametrize("place", PLACES)
def test_changed_bytes(two: tuple[Path, str, str], identity: pqvault.Identity, place: str) -> None:
    """One bit anywhere, a byte more, a byte less, nothing at all."""
    archive, _, last = two
    path = PLACES[place](archive, last)
    good = path.read_bytes()
    step = max(1, len(good) // 40)
    kinds = (reader.Damaged, reader.NoKey) if place == "envelope" else (reader.Damaged,)
    changed = [flip(good, at) for at in [*range(0, len(good), step), len(good) - 1]]
    changed += [good[:-1], good + b"\n", b"", good[: len(good) // 2]]
    for data in changed:
        path.write_bytes(data)
        refused(archive, identity, *kinds)
    path.unlink()
    kind = reader.Damaged
    if place == "commit":  # then the part is not there, and none names it
        assert set(reader.open_archive(archive, identity.text)) == {b"src", b"src/a"}
    else:
        refused(archive, identity, kind)
    path.write_bytes(good)
    reader.open_archive(archive, identity.text)


def test_truncated_objects_do_not_open_whatever_the_commit_says(
    two: tuple[Path, str, str], identity: pqvault.Identity
) -> None:
    """Cut between chunks too: the last chunk is the short one."""
    archive, _, last = two
    part = parts(archive, identity)[-1]
    path = object_of(archive, last)
    name, good = f"objects/{path.name}", path.read_bytes()
    assert part.opened.open_object(name, good) == noise(50_000, 2)
    cuts = [0, 55, 56, 57, 72, 56 + 16400, 56 + 2 * 16400, 56 + 3 * 16400, len(good) - 1]
    for data in [good[:cut] for cut in cuts] + [good + bytes(16)]:
        with pytest.raises(reader.Damaged):
            part.opened.open_object(name, data)
    with pytest.raises(reader.Damaged):
        part.opened.open_object("catalog", good)
    path.write_bytes(good[: 56 + 16400])
    refused(archive, identity, reader.Damaged)


@pytest.mark.parametrize("place", PLACES)
def test_exchanged_files(
    two: tuple[Path, str, str], identity: pqvault.Identity, place: str
) -> None:
    """Each belongs to its part."""
    archive, first, last = two
    one, other = PLACES[place](archive, first), PLACES[place](archive, last)
    old, new = one.read_bytes(), other.read_bytes()
    if place != "commit":
        assert len(old) == len(new) or place == "catalog"
    one.write_bytes(new)
    other.write_bytes(old)
    refused(archive, identity, reader.Damaged)


def test_files_of_another_archive(
    tmp_path: Path, two: tuple[Path, str, str], identity: pqvault.Identity
) -> None:
    archive, _, _ = two
    seal(tmp_path / "src", tmp_path / "w.pqv", identity)
    shutil.copy(tmp_path / "w.pqv" / "pqvault.json", archive / "pqvault.json")
    refused(archive, identity, reader.Damaged)


def test_a_missing_parent_is_a_rollback(
    two: tuple[Path, str, str], identity: pqvault.Identity
) -> None:
    """Unless the archive says that the part was removed."""
    archive, first, last = two
    (archive / "commits" / first).unlink()
    refused(archive, identity, reader.RolledBack)
    (archive / "removed").mkdir(exist_ok=True)
    (archive / "removed" / first).write_bytes(b"any content")
    assert [part.commit["part"] for part in parts(archive, identity)] == [last]
    assert reader.open_archive(archive, identity.text)[b"src/a"].content == noise(50_000, 2)


def test_an_exchanged_parent_is_a_rollback(
    two: tuple[Path, str, str], identity: pqvault.Identity
) -> None:
    """By somebody who has the key: its MAC is good, and the child knows another digest."""
    archive, first, _ = two
    part, path = parts(archive, identity)[0], archive / "commits" / first
    label, line, _, _ = path.read_bytes().split(b"\n")
    value = {**json.loads(line), "created": 1}
    covered = b"\n".join((label, json.dumps(value, separators=(",", ":")).encode(), b"---"))
    mac = reader.hmac.digest(part.opened.derive("commit mac", 64), covered, "sha512")[:32]
    path.write_bytes(covered + b" " + base64.b64encode(mac) + b"\n")
    refused(archive, identity, reader.RolledBack)


def test_other_files_are_ignored(two: tuple[Path, str, str], identity: pqvault.Identity) -> None:
    archive, first, _ = two
    before = reader.open_archive(archive, identity.text)
    for name in ("README", "commits/.tmp", "commits/" + "A" * 32, "parts/x", f"parts/{first}/y"):
        (archive / name).write_bytes(b"?")
    assert reader.open_archive(archive, identity.text) == before
