"""Every byte of a small archive and of a sealed stream, changed in turn.

What is read afterwards is either what was sealed, or an error names it; and ``verify`` with
the key notices every single change. The fast run takes the head of every file and every 37th
byte, the slow one all of them.
"""

from __future__ import annotations

import io
import os
import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import hostile as h
import pytest

import pqvault
from pqvault.errors import PQVaultError
from pqvault.format.commit import Commit, object_number

KEY = pqvault.Identity.generate()
SPARE = pqvault.Identity.generate()


@pytest.fixture(scope="module")
def sealed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two parts: stored and compressed frames, a hard link, symbolic links, empty things."""
    base = tmp_path_factory.mktemp("sealed")
    source = base / "src"
    (source / "sub" / "empty").mkdir(parents=True)
    (source / "text").write_bytes(b"it compresses well, " * 60)
    (source / "sub" / "noise").write_bytes(random.Random(1).randbytes(700))
    os.link(source / "text", source / "hard")
    (source / "soft").symlink_to("sub/noise")
    (source / "nothing").touch()
    (source / "old").write_bytes(b"replaced in the second part")
    recipients = [KEY.recipient, SPARE.recipient]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PQVAULT_HOME", str(base / "home"))
        pqvault.seal(source, base / "x.pqv", recipients=recipients)
        (source / "old").write_bytes(b"new in the second part")
        (source / "more").write_bytes(b"more")
        pqvault.seal(source, base / "x.pqv", recipients=recipients)
    return base


def expected(sealed: Path) -> dict[bytes, bytes | str]:
    found = {b"src/" + path: content for path, content in h.tree(sealed / "src").items()}
    return {b"src": "folder", **found}


def unused_object(archive: Path) -> set[str]:
    """Files that no standing entry has content in."""
    with pqvault.open(archive, identities=[KEY]) as reader:
        used = {
            f"parts/{part.id}/{file.name}"
            for part, entry in reader.located()
            for file in part.commit.files
            if object_number(file.name) in {e.object for e in entry.extents}
        }
    files = {str(p.relative_to(archive)) for p in archive.glob("parts/*/objects/*")}
    return files - used


def read_all(
    archive: Path, good: dict[bytes, bytes | str], problems: list[PQVaultError] | None = None
) -> list[PQVaultError]:
    """Read everything leniently; no entry may be wrong, and what is not there needs an error.

    ``problems``: where to put those of ``verify`` with the key.
    """
    errors: list[PQVaultError] = []
    found: dict[bytes, bytes | str] = {}
    try:
        with pqvault.open(archive, identities=[KEY], strict=False) as reader:
            errors += reader.problems
            if problems is not None:
                problems += reader.verify(jobs=1).problems
            for entry in reader.entries():
                try:
                    if entry.kind.letter in "fh":
                        file = reader.open_file(entry.path)
                        content = file.read()
                        file.check_content(memoryview(content))
                        found[entry.path] = content
                        assert entry.size == len(content)
                    elif entry.kind.letter == "l":
                        found[entry.path] = "-> " + os.fsdecode(entry.link or b"")
                    else:
                        found[entry.path] = "folder"
                except PQVaultError as error:
                    errors.append(error)
    except PQVaultError as error:
        errors.append(error)
    for error in errors:
        h.check_error(error)
    if not errors:
        assert found == good, "read back wrong in silence"
    for path, content in found.items():
        # Without its part, an older version of an entry may stand; the error says so.
        old = path == b"src/old" and content == b"replaced in the second part" and errors
        assert old or content == good[path], f"{path!r} is wrong"
    return errors


def check(archive: Path, name: str, good: dict[bytes, bytes | str], unused: set[str]) -> None:
    problems: list[PQVaultError] = []
    errors = read_all(archive, good, problems)
    assert errors or name in unused, "no reader noticed"
    assert problems or name == "pqvault.json", "verify did not notice"
    for problem in problems:
        h.check_error(problem)


def changes(data: bytes, step: int) -> Iterator[tuple[int, int]]:
    """Places and what to flip there: the head, then every ``step``-th byte, and the end."""
    head = 24 if data.startswith(b"pqvault.dev/") else 56  # the label; salt and commitment
    places = {*range(min(len(data), head)), *h.every(len(data), step)}
    places |= set(range(max(0, len(data) - 8), len(data)))
    rng = random.Random(len(data))
    for place in sorted(places):
        yield place, rng.choice([1, 2, 4, 8, 16, 32, 64, 128, 255])


def flip_all(sealed: Path, copy: Path, step: int) -> int:
    shutil.copytree(sealed / "x.pqv", copy)
    good, unused = expected(sealed), unused_object(copy)
    assert len(unused) == 0 or len(unused) == 1
    count = 0
    for path in sorted(p for p in copy.rglob("*") if p.is_file()):
        name = str(path.relative_to(copy))
        data = path.read_bytes()
        for place, bits in changes(data, step):
            path.write_bytes(h.flip(data, place, bits))
            try:
                check(copy, name, good, unused)
            except AssertionError as error:
                raise AssertionError(f"byte {place} of {len(data)} of {name} ^ {bits}") from error
            count += 1
        path.write_bytes(data)
    assert read_all(copy, good) == []
    print(f"{count} bytes flipped, all noticed")
    return count


def test_every_37th_byte_of_an_archive(sealed: Path, tmp_path: Path) -> None:
    assert flip_all(sealed, tmp_path / "x.pqv", 37) > 500


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_every_byte_of_an_archive(sealed: Path, tmp_path: Path) -> None:
    count = flip_all(sealed, tmp_path / "x.pqv", 1)
    assert count == sum(p.stat().st_size for p in (sealed / "x.pqv").rglob("*") if p.is_file())


def cut_all(sealed: Path, copy: Path, step: int) -> None:
    shutil.copytree(sealed / "x.pqv", copy)
    good, unused = expected(sealed), unused_object(copy)
    for path in sorted(p for p in copy.rglob("*") if p.is_file()):
        name = str(path.relative_to(copy))
        data = path.read_bytes()
        lengths = {*range(0, len(data), step), len(data) - 1}
        more = [data + b"\0", data + b"\n", data + data[:1], data + data, data + bytes(16400)]
        for altered in [*(data[:length] for length in sorted(lengths)), *more]:
            path.write_bytes(altered)
            try:
                check(copy, name, good, unused)
            except AssertionError as error:
                raise AssertionError(f"{name}: {len(altered)} of {len(data)} bytes") from error
        path.write_bytes(data)
    assert read_all(copy, good) == []


def test_archive_files_cut_and_lengthened(sealed: Path, tmp_path: Path) -> None:
    cut_all(sealed, tmp_path / "x.pqv", 197)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_archive_files_cut_at_every_length(sealed: Path, tmp_path: Path) -> None:
    cut_all(sealed, tmp_path / "x.pqv", 1)


def test_without_a_key_files_of_parts_are_noticed(sealed: Path, tmp_path: Path) -> None:
    """*intact*: digests agree. Of the documents only what breaks their form is seen."""
    copy = tmp_path / "x.pqv"
    shutil.copytree(sealed / "x.pqv", copy)
    for path in sorted(copy.glob("parts/**/*")):
        if not path.is_file():
            continue
        data = path.read_bytes()
        for place, bits in changes(data, 29):
            path.write_bytes(h.flip(data, place, bits))
            problems = pqvault.verify(copy).problems
            assert len(problems) == 1 and path.name in problems[0].message
        path.write_bytes(data)
    assert pqvault.verify(copy).problems == []


@pytest.mark.parametrize("later", [False, True])
def test_a_damaged_catalog_costs_its_part_alone(tmp_path: Path, later: bool) -> None:
    """Bit rot in one part, also where opening does not look: the other part is still read."""
    forger = h.Forger(tmp_path / "x.pqv", KEY.recipient)
    forger.part([h.file_row(b"good", b"good")], {0: h.plain_of(b"good")})
    names = random.Random(3)
    rows = [h.row(b"z%06d%s" % (i, names.randbytes(20).hex().encode())) for i in range(30_000)]
    part = forger.part(rows, seq=2)
    path = forger.archive / "parts" / part / "catalog"
    data = path.read_bytes()
    path.write_bytes(h.flip(data, len(data) // 8 if later else len(data) - 20, 1))
    with pqvault.open(forger.archive, identities=[KEY], strict=False) as reader:
        assert reader.open_file("good").read() == b"good"
        assert b"good" in [entry.path for entry in reader.entries()]
        reader.unseal(tmp_path / "out", ["good"])
    assert (tmp_path / "out" / "good").read_bytes() == b"good"


# ---- sealed streams ----------------------------------------------------------------------

CONTENT = b"some text that compresses " * 40 + random.Random(2).randbytes(600)
LARGE = random.Random(4).randbytes(200_000) + bytes(300_000)


def stream(content: bytes) -> bytes:
    out = io.BytesIO()
    recipients = [KEY.recipient, SPARE.recipient]
    pqvault.encrypt(io.BytesIO(content), out, recipients, frame_size=65536)
    return out.getvalue()


def in_order(path: Path) -> tuple[bytes, PQVaultError | None]:
    """What a pipe reader gives out before the error, if there is one."""
    out = io.BytesIO()
    try:
        pqvault.decrypt(io.BytesIO(path.read_bytes()), out, [KEY])
    except PQVaultError as error:
        return out.getvalue(), error
    return out.getvalue(), None


def from_file(path: Path) -> tuple[bytes, PQVaultError | None]:
    out = io.BytesIO()
    with path.open("rb") as file:
        try:
            pqvault.decrypt(file, out, [KEY])
        except PQVaultError as error:
            return out.getvalue(), error
    return out.getvalue(), None


def at_random(path: Path) -> tuple[bytes, PQVaultError | None]:
    out = bytearray()
    try:
        with pqvault.open_stream(path, [KEY]) as reader:
            for at in range(0, reader.size, 50_000):
                out += reader.pread(at, 50_000)
    except PQVaultError as error:
        return bytes(out), error
    return bytes(out), None


def raw(path: Path) -> tuple[bytes, PQVaultError | None]:
    try:
        pqvault.decrypt(io.BytesIO(path.read_bytes()), io.BytesIO(), [KEY], raw=True)
    except PQVaultError as error:
        return b"", error
    return b"", None


WAYS: list[Callable[[Path], tuple[bytes, PQVaultError | None]]] = [
    in_order, from_file, at_random, raw,
]  # fmt: skip


def noticed(path: Path, content: bytes) -> None:
    for way in WAYS:
        given, error = way(path)
        assert error is not None, f"{way.__name__} did not notice"
        h.check_error(error)
        assert error.exit_code in (12, 13)
        # Authentic as far as it goes: what came out before the error is a prefix.
        assert content.startswith(given), f"{way.__name__} gave out something else"


def flip_stream(path: Path, content: bytes, step: int) -> None:
    data = stream(content)
    path.write_bytes(data)
    assert in_order(path) == from_file(path) == at_random(path) == (content, None)
    for place, bits in changes(data, step):
        path.write_bytes(h.flip(data, place, bits))
        try:
            noticed(path, content)
        except AssertionError as error:
            raise AssertionError(f"byte {place} of {len(data)} ^ {bits}") from error


def test_every_37th_byte_of_a_stream(tmp_path: Path) -> None:
    flip_stream(tmp_path / "s.pqv", CONTENT, 37)


def test_some_bytes_of_a_larger_stream(tmp_path: Path) -> None:
    flip_stream(tmp_path / "s.pqv", LARGE, 2003)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_every_byte_of_a_stream(tmp_path: Path) -> None:
    flip_stream(tmp_path / "s.pqv", CONTENT, 1)


@pytest.mark.parametrize(
    "step", [53, pytest.param(1, marks=[pytest.mark.slow, pytest.mark.timeout(3600)])]
)
def test_a_stream_cut_and_lengthened(tmp_path: Path, step: int) -> None:
    path, data = tmp_path / "s.pqv", stream(CONTENT)
    more = [data + b"\0", data + b"\n", data + data[-1:], data + data, data + bytes(16400)]
    for altered in [*(data[:length] for length in range(0, len(data), step)), data[:-1], *more]:
        path.write_bytes(altered)
        try:
            noticed(path, CONTENT)
        except AssertionError as error:
            raise AssertionError(f"{len(altered)} of {len(data)} bytes") from error


def test_a_stream_cut_at_chunk_borders(tmp_path: Path) -> None:
    """ATTACKS row 10: at every 16,400 bytes, and one before and behind."""
    path, data = tmp_path / "s.pqv", stream(LARGE)
    start = data.index(b"\n--- ") + 5 + 45
    borders = range(start + 56, len(data), 16400)
    for border in borders:
        for length in (border - 1, border, border + 1):
            path.write_bytes(data[:length])
            noticed(path, LARGE)
    for border in borders[:-2]:  # a chunk dropped, doubled, two exchanged
        one, two = data[border : border + 16400], data[border + 16400 : border + 32800]
        for middle in (two, one + one + two, two + one):
            path.write_bytes(data[:border] + middle + data[border + 32800 :])
            noticed(path, LARGE)


def test_a_stream_of_two_streams(tmp_path: Path) -> None:
    """The envelope of one and the object of the other."""
    path, one, two = tmp_path / "s.pqv", stream(CONTENT), stream(CONTENT)
    start = one.index(b"\n--- ") + 5 + 45
    path.write_bytes(one[:start] + two[start:])
    noticed(path, CONTENT)


def test_the_archive_has_what_this_is_about(sealed: Path) -> None:
    archive = sealed / "x.pqv"
    commits = [Commit.parse(p.read_bytes()) for p in (archive / "commits").iterdir()]
    assert len(commits) == 2
    total = sum(p.stat().st_size for p in archive.rglob("*") if p.is_file())
    assert total < 40_000
    with pqvault.open(archive, identities=[KEY]) as reader:
        assert {e.kind.letter for e in reader.entries()} == set("fdlh")
