"""Bad input: archives and streams that were altered, mixed up, or forged by someone who knows
the public key. Each is refused with a sentence and the right exit code; what is not touched by
the damage stays readable; nothing is written outside the target.
"""

from __future__ import annotations

import dataclasses
import io
import os
import random
import resource
import shutil
import signal
import stat
import struct
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hostile as h
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

import pqvault
from pqvault.errors import (
    FormatError,
    IntegrityError,
    NoKeyFits,
    NotFound,
    PQVaultError,
    RolledBack,
)
from pqvault.format import zstdseek
from pqvault.format.catalog import PLAIN_SCHEMA as SCHEMA
from pqvault.format.commit import Commit
from pqvault.format.envelope import Envelope
from pqvault.rootkey import RootKey

pytestmark = pytest.mark.usefixtures("home")

KEY = pqvault.Identity.generate()
OTHER = pqvault.Identity.generate()


def opened(archive: Path, *, strict: bool = True) -> pqvault.Archive:
    return pqvault.open(archive, identities=[KEY], strict=strict)


# ---- one honest archive of two parts, copied for each test -------------------------------


@pytest.fixture(scope="module")
def honest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``one`` in the first part (two objects), ``two`` in the second, which names it as parent."""
    base = tmp_path_factory.mktemp("honest")
    forger = h.Forger(base / "x.pqv", KEY.recipient)
    first = forger.part(
        [h.row(b"one", "d"), h.file_row(b"one/a", b"A" * 900), h.file_row(b"one/b", b"B" * 900, 1)],
        {0: h.plain_of(b"A" * 900), 1: h.plain_of(b"B" * 900)},
    )
    digest = h.blake((base / "x.pqv" / "commits" / first).read_bytes()).hex()
    forger.part(
        [h.row(b"two", "d"), h.file_row(b"two/c", b"C" * 900)],
        {0: h.plain_of(b"C" * 900)},
        seq=2,
        parents=[(first, digest)],
    )
    (base / "first").write_text(first)
    return base


ONE = {b"one": "folder", b"one/a": b"A" * 900, b"one/b": b"B" * 900}
TWO = {b"two": "folder", b"two/c": b"C" * 900}


@dataclasses.dataclass
class Sample:
    path: Path
    first: str
    second: str

    def file(self, pattern: str) -> Path:
        return next(iter(sorted(self.path.glob(pattern))))


@pytest.fixture
def sample(honest: Path, tmp_path: Path) -> Sample:
    path = tmp_path / "x.pqv"
    shutil.copytree(honest / "x.pqv", path)
    first = (honest / "first").read_text()
    (second,) = {p.name for p in (path / "commits").iterdir()} - {first}
    return Sample(path, first, second)


def left(sample: Sample) -> dict[bytes, bytes | str]:
    """What a lenient reader still gets; the problems must not be silent."""
    with opened(sample.path, strict=False) as archive:
        assert archive.problems
        for problem in archive.problems:
            h.check_error(problem)
        return h.contents(archive)


def test_the_sample_is_fine(sample: Sample) -> None:
    with opened(sample.path) as archive:
        assert h.contents(archive) == ONE | TWO
    assert pqvault.verify(sample.path, identities=[KEY]).problems == []
    assert pqvault.verify(sample.path).problems == []


# ---- mixed up ----------------------------------------------------------------------------


def swap(one: Path, other: Path) -> None:
    spare = one.with_name("spare")
    one.rename(spare)
    other.rename(one)
    spare.rename(other)


def test_two_objects_of_a_part_swapped(sample: Sample) -> None:
    one = sample.file(f"parts/{sample.first}/objects/000000*")
    swap(one, sample.file(f"parts/{sample.first}/objects/000001*"))
    with opened(sample.path) as archive:
        error = h.fails(lambda: archive.open_file("one/a").read(), code=13, kind=IntegrityError)
        assert one.name in error.message
        h.fails(lambda: archive.open_file("one/b").read(), code=13)
        assert archive.open_file("two/c").read() == b"C" * 900
    names = " ".join(p.message for p in pqvault.verify(sample.path, identities=[KEY]).problems)
    assert "objects/000000" in names and "objects/000001" in names
    assert pqvault.verify(sample.path).problems


def test_two_catalogs_swapped(sample: Sample) -> None:
    swap(
        sample.path / "parts" / sample.first / "catalog",
        sample.path / "parts" / sample.second / "catalog",
    )
    error = h.fails(lambda: opened(sample.path), code=13, kind=IntegrityError)
    assert "catalog" in error.message and sample.first in error.message
    assert left(sample) == {}


def test_a_renamed_object(sample: Sample) -> None:
    path = sample.file(f"parts/{sample.first}/objects/000000*")
    path.rename(path.with_name("000000-ffffffff"))
    with opened(sample.path) as archive:
        error = h.fails(lambda: archive.open_file("one/a").read(), code=13)
        assert path.name in error.message and "missing" in error.message
        assert archive.open_file("one/b").read() == b"B" * 900


def test_an_object_of_the_other_part(sample: Sample) -> None:
    theirs = sample.file(f"parts/{sample.second}/objects/*")
    ours = sample.file(f"parts/{sample.first}/objects/000000*")
    shutil.copy(theirs, ours)
    with opened(sample.path) as archive:
        h.fails(lambda: archive.open_file("one/a").read(), code=13, kind=IntegrityError)


def test_a_part_of_another_archive(sample: Sample, tmp_path: Path) -> None:
    forger = h.Forger(tmp_path / "other.pqv", KEY.recipient)
    part = forger.part([h.file_row(b"evil", b"E")], {0: h.plain_of(b"E")}, seq=9)
    for name in ("commits", "envelopes", "parts"):
        source, target = forger.archive / name / part, sample.path / name / part
        (shutil.copytree if source.is_dir() else shutil.copy)(source, target)
    error = h.fails(lambda: opened(sample.path), code=13, kind=IntegrityError)
    assert part in error.message and "another archive" in error.message
    assert left(sample) == ONE | TWO


@pytest.mark.parametrize(
    "folder, kind, other",
    [
        ("commits", Commit, {"archive": "00" * 16}),
        ("envelopes", Envelope, {"archive": "00" * 16}),
        ("envelopes", Envelope, {"group": "pii"}),
    ],
)
def test_attack_13_what_a_document_says_it_is_of_is_compared_without_a_key(
    sample: Sample, folder: str, kind: Any, other: dict[str, str]
) -> None:
    """Else a host that only seals would follow what was never a part of this archive."""
    path = sample.path / folder / sample.first
    path.write_bytes(dataclasses.replace(kind.parse(path.read_bytes()), **other).marshal())
    said = f"{folder}/{sample.first} belongs to another archive or part"
    assert any(said in p.message for p in pqvault.verify(sample.path).problems)
    assert left(sample) == TWO


def test_a_commit_of_another_part(sample: Sample) -> None:
    commits = sample.path / "commits"
    shutil.copy(commits / sample.first, commits / sample.second)
    error = h.fails(lambda: opened(sample.path), code=13)
    assert sample.second in error.message
    assert left(sample) == ONE


def test_an_envelope_of_another_part(sample: Sample) -> None:
    envelopes = sample.path / "envelopes"
    shutil.copy(envelopes / sample.first, envelopes / sample.second)
    error = h.fails(lambda: opened(sample.path), code=13)
    assert sample.second in error.message
    assert left(sample) == ONE


def test_an_envelope_replaced_by_a_valid_one(sample: Sample) -> None:
    """Whoever knows the public key can wrap a root key of his own; the commit tells."""
    archive = Envelope.parse((sample.path / "envelopes" / sample.first).read_bytes()).archive
    forged = RootKey.generate(archive, sample.first).envelope([KEY.recipient], created=1)
    (sample.path / "envelopes" / sample.first).write_bytes(forged.marshal())
    error = h.fails(lambda: opened(sample.path), code=13, kind=IntegrityError)
    assert "does not belong" in error.message and sample.first in error.message
    assert left(sample) == TWO
    problems = pqvault.verify(sample.path, identities=[KEY]).problems
    assert any("does not belong" in p.message for p in problems)


def test_an_envelope_with_a_recipient_struck_off(sample: Sample) -> None:
    """The MAC covers the list of recipients."""
    path = sample.path / "envelopes" / sample.first
    envelope = Envelope.parse(path.read_bytes())
    key = RootKey.unwrap(envelope, {KEY.recipient.key_id: KEY}, "it")
    both = key.envelope([KEY.recipient, OTHER.recipient], created=1)
    for recipients in (both.recipients[:1], both.recipients[::-1]):
        altered = dataclasses.replace(both, recipients=recipients)
        path.write_bytes(altered.marshal())
        error = h.fails(lambda: opened(sample.path), code=13, kind=IntegrityError)
        assert "authentication" in error.message


# ---- missing -----------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["envelopes/{first}", "parts/{first}/catalog"])
def test_a_missing_document(sample: Sample, name: str) -> None:
    name = name.format(first=sample.first)
    (sample.path / name).unlink()
    error = h.fails(lambda: opened(sample.path), code=13, kind=IntegrityError)
    assert "missing" in error.message and sample.first in error.message
    assert left(sample) == TWO
    for identities in ([], [KEY]):
        problems = pqvault.verify(sample.path, identities=identities).problems
        assert any("missing" in p.message and sample.first in p.message for p in problems)


def test_a_missing_object(sample: Sample, tmp_path: Path) -> None:
    path = sample.file(f"parts/{sample.first}/objects/000001*")
    path.unlink()
    with opened(sample.path) as archive:
        error = h.fails(lambda: archive.open_file("one/b").read(), code=13)
        assert path.name in error.message and "missing" in error.message
        report = archive.unseal(tmp_path / "out")
    (failed,) = report.failed
    h.check_error(failed, 13)
    expected = ONE | TWO
    del expected[b"one/b"]
    assert h.tree(tmp_path / "out") == expected


@pytest.mark.parametrize("fault", ["cut", "flipped", "gone"])
def test_a_damaged_catalog_is_one_problem(sample: Sample, fault: str) -> None:
    """Opening the part meets it and so does the check of its files: it is listed once."""
    path = sample.file(f"parts/{sample.first}/catalog")
    data = path.read_bytes()
    path.unlink()
    if fault != "gone":
        path.write_bytes(data[:-1] if fault == "cut" else h.flip(data, len(data) // 2, 1))
    for identities in ([], [KEY]):
        (problem,) = pqvault.verify(sample.path, identities=identities).problems
        assert f"parts/{sample.first}/catalog" in problem.message


def test_a_missing_parent_is_a_roll_back(sample: Sample) -> None:
    (sample.path / "commits" / sample.first).unlink()
    error = h.fails(lambda: opened(sample.path), code=15, kind=RolledBack)
    assert sample.first in error.message and sample.second in error.message
    assert left(sample) == TWO
    assert any(p.exit_code == 15 for p in pqvault.verify(sample.path).problems)
    src = sample.path.with_name("src")
    src.mkdir()
    h.fails(lambda: pqvault.seal(src, sample.path, recipients=[KEY.recipient]), code=15)


def test_a_removed_parent_is_not(sample: Sample) -> None:
    (sample.path / "removed").mkdir()
    (sample.path / "removed" / sample.first).touch()
    with opened(sample.path) as archive:
        assert h.contents(archive) == TWO


def test_an_exchanged_parent(sample: Sample) -> None:
    """Another valid commit under the parent's name: made by who knows its root key."""
    path = sample.path / "commits" / sample.first
    commit = Commit.parse(path.read_bytes())
    envelope = Envelope.parse((sample.path / "envelopes" / sample.first).read_bytes())
    key = RootKey.unwrap(envelope, {KEY.recipient.key_id: KEY}, "it")
    path.write_bytes(key.sign_off(dataclasses.replace(commit, created=1)).marshal())
    error = h.fails(lambda: opened(sample.path), code=15, kind=RolledBack)
    assert sample.first in error.message


def test_an_uncommitted_part_is_ignored(sample: Sample) -> None:
    (sample.path / "commits" / sample.second).unlink()
    with opened(sample.path) as archive:
        assert archive.problems == []
        assert h.contents(archive) == ONE
    assert pqvault.verify(sample.path, identities=[KEY]).problems == []


def test_not_an_archive(tmp_path: Path) -> None:
    error = h.fails(lambda: opened(tmp_path), code=10, kind=NotFound)
    assert str(tmp_path) in error.message
    h.fails(lambda: opened(tmp_path / "nowhere"), code=10, kind=NotFound)
    h.fails(lambda: pqvault.verify(tmp_path), code=10)
    h.fails(lambda: pqvault.inspect(tmp_path), code=10)
    h.fails(lambda: pqvault.gc(tmp_path), code=10)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{}",
        b"[" * 4000,
        b"\xff\xfe\0",
        b'{"format":"pqvault.dev/archive@v2","archive":"%s"}\n' % (b"0" * 32),
        b'{"format":"pqvault.dev/archive@v1", "archive":"%s"}\n' % (b"0" * 32),
        b'{"format":"pqvault.dev/archive@v1","archive":"%s"}\n' % (b"G" * 32),
        b'{"format":"pqvault.dev/archive@v1","archive":7}\n',
        b"0" * 5000,
    ],
)
def test_a_bad_header(sample: Sample, data: bytes) -> None:
    (sample.path / "pqvault.json").write_bytes(data)
    for do in (lambda: opened(sample.path), lambda: pqvault.verify(sample.path)):
        error = h.fails(do, code=13, kind=FormatError)
        assert "pqvault.json" in error.message


# ---- keys --------------------------------------------------------------------------------


def test_a_wrong_key(sample: Sample) -> None:
    for strict in (True, False):
        error = h.fails(
            lambda strict=strict: pqvault.open(sample.path, identities=[OTHER], strict=strict),
            code=12,
            kind=NoKeyFits,
        )
        assert KEY.recipient.key_id in error.message
    h.fails(lambda: pqvault.verify(sample.path, identities=[OTHER]), code=12)


def test_no_key(sample: Sample) -> None:
    h.fails(lambda: pqvault.open(sample.path, identities=[]), code=12, kind=NoKeyFits)


def test_a_wrong_key_for_a_stream() -> None:
    data = io.BytesIO(h.stream(KEY.recipient, h.plain_of(b"x")))
    h.fails(lambda: pqvault.decrypt(data, io.BytesIO(), [OTHER]), code=12, kind=NoKeyFits)


# ---- garbage next to what is good (ATTACKS row 45) ---------------------------------------

GARBAGE = b"\0\xffgarbage" * 40


def garbage_commit(sample: Sample, name: str = "ab" * 16) -> Path:
    path = sample.path / "commits" / name
    path.write_bytes(GARBAGE)
    return path


def test_garbage_among_commits(sample: Sample) -> None:
    garbage_commit(sample)
    garbage_commit(sample, "README")
    garbage_commit(sample, ".DS_Store")
    garbage_commit(sample, "evil\x1b[31m\n")
    os.close(os.open(os.fsencode(sample.path / "commits") + b"/\xff\xfe", os.O_CREAT))
    error = h.fails(lambda: opened(sample.path), code=13)
    assert "ab" * 16 in error.message
    assert left(sample) == ONE | TWO
    assert len(pqvault.verify(sample.path, identities=[KEY]).problems) == 1
    with opened(sample.path, strict=False) as archive:
        assert len(archive.strange) == 4


def test_a_valid_looking_commit_of_nobody(sample: Sample) -> None:
    """It parses, but no envelope and no key stand behind it."""
    commit = Commit.parse((sample.path / "commits" / sample.second).read_bytes())
    fake = dataclasses.replace(commit, part="ab" * 16, parents=(), mac=bytes(32))
    (sample.path / "commits" / fake.part).write_bytes(fake.marshal())
    h.fails(lambda: opened(sample.path), code=13)
    assert left(sample) == ONE | TWO


def test_garbage_everywhere_else_is_ignored(sample: Sample) -> None:
    part = sample.path / "parts" / sample.first
    for place in (
        "junk", "envelopes/junk", "envelopes/" + "cd" * 16, "parts/junk", "commits/junk",
        f"parts/{sample.first}/junk", f"parts/{sample.first}/objects/000009-00000000",
    ):  # fmt: skip
        (sample.path / place).write_bytes(GARBAGE)
    (sample.path / "removed").mkdir()
    (sample.path / "removed" / "junk").write_bytes(GARBAGE)
    (sample.path / "removed" / ("ef" * 16)).mkdir()
    os.mkfifo(part / "fifo")
    os.symlink("/etc/passwd", part / "link")
    with opened(sample.path) as archive:
        assert archive.problems == []
        assert h.contents(archive) == ONE | TWO
    assert pqvault.verify(sample.path, identities=[KEY]).problems == []
    assert pqvault.inspect(sample.path).problems == []


def test_sealing_goes_on_next_to_garbage(sample: Sample, tmp_path: Path) -> None:
    garbage_commit(sample)
    source = tmp_path / "src"
    source.mkdir()
    (source / "file").write_bytes(b"data")
    report = pqvault.seal(source, sample.path, recipients=[KEY.recipient], append=True)
    assert report.warnings
    assert left(sample) == ONE | TWO | {b"src": "folder", b"src/file": b"data"}


def test_a_commit_of_nobody_does_not_use_up_the_sequence(sample: Sample, tmp_path: Path) -> None:
    commit = Commit.parse((sample.path / "commits" / sample.second).read_bytes())
    fake = dataclasses.replace(commit, part="ab" * 16, parents=(), seq=2**53 - 1, mac=bytes(32))
    (sample.path / "commits" / fake.part).write_bytes(fake.marshal())
    source = tmp_path / "src"
    source.mkdir()
    (source / "file").write_bytes(b"data")
    pqvault.seal(source, sample.path, recipients=[KEY.recipient], append=True)


def test_a_commit_of_nobody_can_be_thrown_away(sample: Sample, tmp_path: Path) -> None:
    """With the key at hand (-i) the writer can see that the commit has nothing behind it."""
    commit = Commit.parse((sample.path / "commits" / sample.second).read_bytes())
    fake = dataclasses.replace(commit, part="ab" * 16, parents=(), mac=bytes(32))
    path = sample.path / "commits" / fake.part
    path.write_bytes(fake.marshal())
    source = tmp_path / "src"
    source.mkdir()
    (source / "file").write_bytes(b"data")
    pqvault.seal(source, sample.path, recipients=[KEY.recipient], append=True)
    path.unlink()
    with opened(sample.path) as archive:
        assert h.contents(archive)[b"src/file"] == b"data"


PLACES = [
    ("file in parts", lambda s: (s.path / "parts" / "junk").write_bytes(b"x")),
    ("FIFO in a part", lambda s: os.mkfifo(s.path / "parts" / s.first / "fifo")),
    ("link in a part", lambda s: os.symlink("/etc/passwd", s.path / "parts" / s.first / "link")),
    ("folder in envelopes", lambda s: (s.path / "envelopes" / "junk").mkdir()),
    ("link in an uncommitted part", lambda s: _uncommitted_link(s)),
]


@pytest.mark.parametrize("part", ["first", "nobody's", "nobody's, with an envelope"])
def test_gc_goes_past_a_link_in_a_folders_place(sample: Sample, tmp_path: Path, part: str) -> None:
    """It is named, what is behind it stays, and what else is left over goes."""
    at = sample.path / "parts" / (sample.first if part == "first" else "cd" * 16)
    if part == "first":
        shutil.move(at, tmp_path / "elsewhere")
    else:
        (tmp_path / "elsewhere").mkdir()
        (tmp_path / "elsewhere" / "kept").write_bytes(b"kept")
    at.symlink_to(tmp_path / "elsewhere")
    before = sorted((tmp_path / "elsewhere").rglob("*"))
    if part.endswith("envelope"):
        (sample.path / "envelopes" / ("cd" * 16)).write_bytes(b"x")
    leftover = sample.path / "parts" / ("fe" * 16)
    leftover.mkdir()
    (leftover / "catalog").write_bytes(b"leftover")
    report = pqvault.gc(sample.path, older_than=0)
    assert [f"parts/{at.name}" in problem.message for problem in report.problems] == [True]
    assert report.removed == [f"parts/{leftover.name}/catalog"]
    assert sorted((tmp_path / "elsewhere").rglob("*")) == before


def _uncommitted_link(sample: Sample) -> None:
    (sample.path / "parts" / ("cd" * 16)).mkdir()
    os.symlink("/etc/passwd", sample.path / "parts" / ("cd" * 16) / "link")


@pytest.mark.parametrize(("name", "put"), PLACES, ids=[name for name, _ in PLACES])
def test_gc_goes_past_garbage(sample: Sample, name: str, put: Callable[[Sample], object]) -> None:
    put(sample)
    leftover = sample.path / "parts" / ("fe" * 16)
    leftover.mkdir()
    (leftover / "catalog").write_bytes(b"leftover")
    pqvault.gc(sample.path, older_than=0)
    assert not leftover.exists()
    assert os.path.exists("/etc/passwd")
    with opened(sample.path) as archive:
        assert h.contents(archive) == ONE | TWO


# ---- something else in a file's place ----------------------------------------------------


def put_link(path: Path) -> None:
    path.symlink_to(path.parent.with_name("elsewhere"))


def put_good_link(path: Path) -> None:
    """A link to the very bytes: still not followed."""
    spare = path.with_name("spare-" + path.name)
    shutil.copy(REAL[0], spare)
    path.symlink_to(spare)


REAL: list[Path] = []


def put_device(path: Path) -> None:
    try:
        os.mknod(path, stat.S_IFCHR | 0o666, os.makedev(1, 5))  # /dev/zero
    except PermissionError:
        pytest.skip("making devices is not permitted here")


STAND_INS: dict[str, Callable[[Path], object]] = {
    "link": put_link,
    "good-link": put_good_link,
    "fifo": os.mkfifo,
    "folder": Path.mkdir,
    "device": put_device,
}
TARGETS = (
    "pqvault.json", "commits/{first}", "envelopes/{first}", "parts/{first}/catalog",
    "parts/{first}/objects/000000*",
)  # fmt: skip


@pytest.mark.timeout(20)
@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("stand_in", STAND_INS)
def test_no_file_but_something_else(
    sample: Sample, tmp_path: Path, target: str, stand_in: str
) -> None:
    """No hang, no following, and the other part stays readable."""
    path = sample.file(target.format(first=sample.first))
    REAL[:] = [tmp_path / "real"]
    path.rename(REAL[0])
    STAND_INS[stand_in](path)
    problems = []
    try:
        for identities in ([], [KEY]):
            report = pqvault.verify(sample.path, identities=identities)
            assert report.problems, f"not noticed with {len(identities)} keys"
            problems += report.problems
        with opened(sample.path, strict=False) as archive:
            found = h.contents_of_readable(archive)
            problems += archive.problems
            assert {k: v for k, v in found.items() if k.startswith(b"two")} == TWO
            for key, value in found.items():
                assert value == (ONE | TWO)[key]
    except PQVaultError as error:
        problems.append(error)
        assert target == "pqvault.json"
    for problem in problems:
        h.check_error(problem, 13)
    pqvault.gc(sample.path, older_than=0) if "objects" in target else None


@pytest.mark.timeout(20)
@pytest.mark.parametrize("folder", ["commits", "envelopes", "parts", "parts/{first}"])
def test_a_folder_that_is_a_link(sample: Sample, tmp_path: Path, folder: str) -> None:
    path = sample.path / folder.format(first=sample.first)
    path.rename(tmp_path / "moved")
    path.symlink_to(tmp_path / "moved")
    h.fails(lambda: opened(sample.path), code=13)
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "f").write_bytes(b"x")
    before = h.tree(tmp_path / "moved")
    try:
        pqvault.seal(tmp_path / "src", sample.path, recipients=[KEY.recipient], append=True)
    except PQVaultError as error:
        h.check_error(error)
    assert h.tree(tmp_path / "moved") == before


@pytest.mark.timeout(30)
@pytest.mark.parametrize("name", ["pqvault.json", "commits/{first}", "envelopes/{first}"])
def test_huge_documents_are_refused_unread(sample: Sample, name: str) -> None:
    """A sparse terabyte: refused by its size."""
    path = sample.path / name.format(first=sample.first)
    for size in (5 << 20, 1 << 40):
        try:
            os.truncate(path, size)
        except OSError:
            pytest.skip("no sparse terabyte here")
        began = time.monotonic()
        error = h.fails(lambda: opened(sample.path), code=13, kind=FormatError)
        assert path.name in error.message
        assert time.monotonic() - began < 2


MANY = """
import sys, time
import hostile as h, pqvault
archive, identity, wanted = sys.argv[1:]
key = pqvault.Identity.parse(identity)
began = time.monotonic()
before = h.peak()
error = h.fails(lambda: pqvault.open(archive, identities=[key]), code=int(wanted))
grown = h.peak() - before
print(f"{time.monotonic() - began:.2f} s, {grown} MiB, {error.message[:100]}")
assert time.monotonic() - began < 5 and grown < 200
"""


def recipients_text(count: int, sealed: str) -> str:
    item = '{"kem":"MLKEM768-X25519","key_id":"%032x","sealed":"' + sealed + '"}'
    return ",".join(item % number for number in range(count))


@pytest.mark.parametrize(
    ("what", "middle"),
    [
        ("a million recipients", lambda: recipients_text(10**6, "")),
        ("as many as fit", lambda: recipients_text(48_000, "")),
        ("1025 recipients", lambda: recipients_text(1025, "AAAA")),
        ("deep", lambda: "[" * 2_000_000 + "]" * 2_000_000),
        ("deep objects", lambda: '{"a":' * 500_000 + "1" + "}" * 500_000),
        ("a long number", lambda: "1" * 4_000_000),
        ("many numbers", lambda: "1," * 1_500_000 + "1"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_huge_envelopes(
    sample: Sample, tmp_path: Path, what: str, middle: Callable[[], str]
) -> None:
    path = sample.path / "envelopes" / sample.first
    good = path.read_text().splitlines()
    head = good[1][: good[1].index("[") + 1]
    path.write_text(f"{good[0]}\n{head}{middle()}]}}\n{good[2]}\n")
    run = h.run_child(MANY, sample.path, KEY.text, 13, home=tmp_path / "home")
    assert not run.returncode, run.stderr
    print(what, run.stdout)


@pytest.mark.parametrize("what", ["files", "parents", "replaces", "sealed_to"])
def test_huge_commits(sample: Sample, tmp_path: Path, what: str) -> None:
    path = sample.path / "commits" / sample.second
    commit = Commit.parse(path.read_bytes())
    ids = tuple(f"{number:032x}" for number in range(100_000))
    values: dict[str, Any] = {
        "files": commit.files * 10_000,
        "parents": tuple((i, i * 2) for i in ids[:35_000]),
        "replaces": tuple((i, i * 2) for i in ids[:35_000]),
        "sealed_to": ids,
    }
    path.write_bytes(dataclasses.replace(commit, **{what: values[what]}).marshal())
    wanted = 15 if what == "parents" else 13
    run = h.run_child(MANY, sample.path, KEY.text, wanted, home=tmp_path / "home")
    assert not run.returncode, run.stderr
    print(what, run.stdout)


@pytest.mark.parametrize(
    "change",
    [
        {"archive": "0" * 32},
        {"part": "0" * 32},
        {"seq": 7},
        {"created": 7},
        {"kind": "append"},
        {"digest": "sha256"},
        {"root": "0" * 64},
        {"sealed_to": ()},
        {"replaces": (("0" * 32, "0" * 64),)},
        {"files": ()},
        {"profile": "none"},
        {"mac": bytes(32)},
    ],
    ids=lambda change: next(iter(change)),
)
def test_an_altered_commit(sample: Sample, change: dict[str, Any]) -> None:
    path = sample.path / "commits" / sample.second
    commit = Commit.parse(path.read_bytes())
    path.write_bytes(dataclasses.replace(commit, **change).marshal())
    h.fails(lambda: opened(sample.path), code=13, kind=IntegrityError)
    assert left(sample) == ONE


# ---- forged catalogs ---------------------------------------------------------------------

C = b"hello world" * 10


def forge(tmp_path: Path, catalog: Any, *, victim: bool = True, **options: Any) -> Path:
    """An archive with one honest entry in one part and a forged catalog in another."""
    forger = h.Forger(tmp_path / "f.pqv", KEY.recipient)
    if victim:
        forger.part([h.file_row(b"victim", C)], {0: h.plain_of(C)}, seq=1)
    options.setdefault("objects", {0: h.plain_of(C)})
    forger.part(catalog, seq=2, **options)
    return forger.archive


def hard(path: bytes, link: bytes, content: bytes = C) -> dict[str, Any]:
    return {**h.file_row(path, content), "kind": ord("h"), "link": link}


BAD_PATHS = [
    b"", b".", b"..", b"/", b"/etc/x", b"../x", b"a/../../x", b"./a", b"a//b", b"a/", b"a/./b",
    b"a\0b", b"\0", b"x" * 256, b"a/" + b"x" * 256, b"/".join([b"a" * 200] * 330),
    b"a\n/../b", b"..\n/..",
]  # fmt: skip
BAD_ROWS: dict[str, list[dict[str, Any]]] = {
    "a path twice": [h.file_row(b"a", C), h.file_row(b"a", C[:5])],
    "unsorted": [h.file_row(b"b", C), h.file_row(b"a", C)],
    "a file under a file": [h.file_row(b"a", C), h.file_row(b"a/b", C)],
    "a file under a link": [h.row(b"a", "l", link=b"/etc"), h.file_row(b"a/b", C)],
    "no folder": [h.file_row(b"a/b", C)],
    "no folder, a like one": [h.row(b"a", "d"), h.row(b"a-", "d"), h.file_row(b"a-b/c", C)],
    "a tombstone for a folder": [h.row(b"a", "x"), h.file_row(b"a/b", C)],
    "negative size": [h.row(b"a", size=-1)],
    "size without extents": [h.row(b"a", size=5)],
    "extents without size": [h.row(b"a", extents=[(0, 0, 5)])],
    "overflow of the sum": [h.row(b"a", size=2, extents=[(-1, 0, 2**63 - 1)] * 2 + [(-1, 0, 4)])],
    "overflow to minus": [h.row(b"a", size=-(2**63), extents=[(-1, 0, 2**62)] * 2)],
    "overflow of an end": [h.row(b"a", size=4, extents=[(0, 2**63 - 2, 4)])],
    "negative offset": [h.row(b"a", size=4, extents=[(0, -1, 4)])],
    "negative length": [h.row(b"a", extents=[(0, 0, 4), (0, 0, -4)])],
    "an empty extent": [h.row(b"a", extents=[(0, 0, 0)])],
    "beyond the object": [h.row(b"a", size=len(C) + 1, extents=[(0, 0, len(C) + 1)])],
    "far beyond the object": [h.row(b"a", size=4, extents=[(0, 2**60, 4)])],
    "an object that is not": [h.row(b"a", size=4, extents=[(7, 0, 4)])],
    "an object below -1": [h.row(b"a", size=4, extents=[(-2, 0, 4)])],
    "an object too large": [h.row(b"a", size=4, extents=[(2**31 - 1, 0, 4)])],
    "a hole with an offset": [h.row(b"a", size=4, extents=[(-1, 4, 4)])],
    "an unknown kind": [h.row(b"a", "q")],
    "kind 0": [h.row(b"a", "\0")],
    "a mode too large": [h.row(b"a", mode=0o10000)],
    "a folder with content": [h.row(b"a", "d", 4, extents=[(0, 0, 4)])],
    "a link with content": [h.row(b"a", "l", 4, link=b"x", extents=[(0, 0, 4)])],
    "a tombstone with content": [h.row(b"a", "x", 4, extents=[(0, 0, 4)])],
    "a folder with a digest": [h.row(b"a", "d", digest=bytes(32))],
    "a link to nothing": [h.row(b"a", "l")],
    "an empty link": [h.row(b"a", "l", link=b"")],
    "a link with NUL": [h.row(b"a", "l", link=b"a\0b")],
    "a long link": [h.row(b"a", "l", link=b"x" * 65536)],
    "a file with a link": [h.row(b"a", link=b"x")],
    "a hard link to nothing": [hard(b"a", b"")],
    "a hard link outside": [h.file_row(b"a", C), hard(b"b", b"../../etc/passwd")],
    "an absolute hard link": [h.file_row(b"a", C), hard(b"b", b"/etc/passwd")],
    "no digest fits": [{**h.file_row(b"a", C), "digest": bytes(32)}],
    "a short digest": [{**h.file_row(b"a", C), "digest": b"x"}],
}
SCHEMAS: dict[str, bytes] = {
    "nothing": b"",
    "no Parquet": b"PAR1" + bytes(50) + b"PAR1",
    "no rows": h.parquet([]),
    "a column more": h.parquet([{**h.row(b"a"), "z": 1}], SCHEMA.append(pa.field("z", pa.int8()))),
    "a column less": h.parquet([h.row(b"a")], pa.schema(list(SCHEMA)[:-1])),
    "columns in another order": h.parquet([h.row(b"a")], pa.schema(list(SCHEMA)[::-1])),
    "paths as text": h.parquet(
        [{**h.row(b"a"), "path": "a"}], SCHEMA.set(0, pa.field("path", pa.string(), nullable=False))
    ),
    "sizes as floats": h.parquet(
        [h.row(b"a")], SCHEMA.set(2, pa.field("size", pa.float64(), nullable=False))
    ),
    "paths that may be null": h.parquet(
        [h.row(b"a")], SCHEMA.set(0, pa.field("path", pa.binary()))
    ),
    "a group too large": h.parquet([h.row(b"%07d" % i) for i in range(9000)], group=100_000),
    "groups out of order": h.parquet([h.row(b"b"), h.row(b"a")], group=1),
    "a path in two groups": h.parquet([h.row(b"a"), h.row(b"a")], group=1),
}
BAD_CATALOGS: dict[str, Any] = {
    **{f"path {path[:12]!r} {len(path)}": [h.file_row(path, C)] for path in BAD_PATHS},
    **BAD_ROWS,
    **SCHEMAS,
}


@pytest.mark.parametrize("name", BAD_CATALOGS)
def test_a_bad_catalog_is_refused(tmp_path: Path, name: str) -> None:
    """By whoever lists, reads, unseals or verifies; and nothing of it reaches the disk."""
    archive = forge(tmp_path, BAD_CATALOGS[name], victim=False)
    problems = pqvault.verify(archive, identities=[KEY]).problems
    assert problems
    for problem in problems:
        h.check_error(problem, 13)
    target = tmp_path / "in" / "out"
    target.parent.mkdir()
    try:
        with opened(archive) as reader:
            failed = reader.unseal(target).failed
    except PQVaultError as error:
        failed = [error]
    assert failed
    for error in failed:
        h.check_error(error, 13)
    assert set(h.tree(tmp_path / "in")) <= {b"out"}


PARTS = {"at open": SCHEMAS["no Parquet"], "later": [h.row(b"z", "q")]}


@pytest.mark.parametrize("when", ["at open", "later"])
def test_a_bad_catalog_does_not_poison_the_others(tmp_path: Path, when: str) -> None:
    archive = forge(tmp_path, PARTS[when])
    with opened(archive, strict=False) as reader:
        assert h.contents(reader)[b"victim"] == C
        reader.unseal(tmp_path / "out")
    assert h.tree(tmp_path / "out") == {b"victim": C}


@pytest.mark.parametrize("when", ["at open", "later"])
def test_a_bad_catalog_is_not_encrypted_again(tmp_path: Path, when: str) -> None:
    """What no reader takes stays what it was and where it was, and is named (13)."""
    archive = forge(tmp_path, PARTS[when])
    error = h.fails(lambda: pqvault.reencrypt(archive, identities=[KEY]), code=3)
    bad = error.message.partition("the catalog of part ")[2][:32]
    assert (archive / "envelopes" / bad).exists() and not (archive / "removed" / bad).exists()
    with opened(archive, strict=False) as reader:
        assert h.contents(reader)[b"victim"] == C


def test_tombstones_need_a_writer_that_could_read(tmp_path: Path) -> None:
    archive = forge(tmp_path, [h.row(b"victim", "x")], kind="append")
    with opened(archive) as reader:
        h.fails(lambda: list(reader.entries()), code=13)
        h.fails(lambda: reader.open_file("victim"), code=13)
        h.fails(lambda: reader.unseal(tmp_path / "out"), code=13)
    assert pqvault.verify(archive, identities=[KEY]).problems


def test_tombstones_of_a_single_part_are_no_entries(tmp_path: Path) -> None:
    archive = forge(tmp_path, [h.row(b"a", "x"), h.row(b"b", "d")], victim=False)
    with opened(archive) as reader:
        assert [entry.path for entry in reader.entries()] == [b"b"]


def test_odd_times_and_modes_are_harmless(tmp_path: Path) -> None:
    rows = [
        h.row(b"a", mtime_ns=-(2**63)), h.row(b"b", mtime_ns=2**63 - 1),
        h.row(b"c", "d", mtime_ns=-(2**63), mode=0o7777), h.row(b"c/d", mode=0o7777),
        h.row(b"e", "l", link=b"a", mtime_ns=-(2**63)), h.row(b"f", mode=0),
    ]  # fmt: skip
    with opened(forge(tmp_path, rows, victim=False)) as reader:
        report = reader.unseal(tmp_path / "out")
    for error in report.failed:
        h.check_error(error)
    for path in (tmp_path / "out").rglob("*"):
        assert not path.lstat().st_mode & 0o7000


def test_symbolic_links_stay_inside(tmp_path: Path) -> None:
    rows = [
        h.row(b"d", "d"), h.row(b"d/up", "l", link=b".."), h.row(b"evil", "l", link=b"d/up/../.."),
        h.row(b"out", "l", link=b"../x"), h.row(b"root", "l", link=b"/"),
    ]  # fmt: skip
    with opened(forge(tmp_path, rows, victim=False)) as reader:
        report = reader.unseal(tmp_path / "out")
    assert h.tree(tmp_path / "out") == {b"d": "folder", b"d/up": "-> .."}
    assert len(report.skipped) == 3 and not report.failed


@pytest.mark.parametrize(
    ("what", "rows"),
    [
        ("nowhere", [hard(b"b", b"a")]),
        ("itself", [hard(b"b", b"b")]),
        ("a symbolic link", [h.row(b"a", "l", link=b"/etc/passwd"), hard(b"b", b"a")]),
        ("a folder", [h.row(b"a", "d"), hard(b"b", b"a")]),
        ("a hard link", [h.file_row(b"a", C), hard(b"b", b"a"), hard(b"c", b"b")]),
        ("other content", [h.file_row(b"a", C), hard(b"b", b"a", C[:11])]),
    ],
)
def test_a_bad_hard_link_is_noticed(tmp_path: Path, what: str, rows: list[dict[str, Any]]) -> None:
    archive = forge(tmp_path, rows, victim=False)
    problems = pqvault.verify(archive, identities=[KEY]).problems
    assert problems and all(p.exit_code == 13 for p in problems)
    with opened(archive) as reader:
        reader.unseal(tmp_path / "out")
    for path in (tmp_path / "out").iterdir():
        assert path.is_symlink() or path.is_dir() or path.read_bytes() in (C, C[:11])
    assert os.stat("/etc/passwd").st_nlink == 1


def test_two_readers_see_one_content_of_a_hard_link(tmp_path: Path) -> None:
    rows = [h.file_row(b"a", C), hard(b"b", b"a", C[:11])]
    with opened(forge(tmp_path, rows, victim=False)) as reader:
        seen = reader.open_file("b").read()
        report = reader.unseal(tmp_path / "out")
    assert report.failed or (tmp_path / "out" / "b").read_bytes() == seen


@pytest.mark.parametrize("way", ["files_from", "no journal", "append"])
def test_a_hard_link_whose_first_name_was_replaced_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    """No attacker needed: an editor that saves by renaming is enough."""
    monkeypatch.chdir(tmp_path)
    source = tmp_path / "src"
    source.mkdir()
    (source / "a").write_bytes(b"OLD")
    os.link(source / "a", source / "b")
    pqvault.seal(source, tmp_path / "x.pqv", recipients=[KEY.recipient])
    (source / "new").write_bytes(b"NEW!!")
    (source / "new").rename(source / "a")
    options: dict[str, Any] = {}
    if way == "files_from":
        options["files_from"] = [os.fsencode(source / "a")]
    elif way == "append":
        options.update(append=True, exclude=["src/b"])
    else:
        shutil.rmtree(tmp_path / "home")
        options["identities"] = [KEY]
    pqvault.seal(source, tmp_path / "x.pqv", recipients=[KEY.recipient], **options)
    with opened(tmp_path / "x.pqv") as archive:
        assert archive.open_file("src/b").read() == b"OLD"
        assert archive.unseal(tmp_path / "out").failed == []
    assert h.tree(tmp_path / "out" / "src") == {b"a": b"NEW!!", b"b": b"OLD"}


def test_a_path_without_folders_is_not_found_either(tmp_path: Path) -> None:
    """Format section 6: each rule is checked on the rows that are used."""
    with opened(forge(tmp_path, [h.file_row(b"a/b", C)], victim=False)) as reader:
        h.fails(lambda: reader.open_file("a/b"), code=13)


def lying_statistics(first: bytes, claim: bytes) -> bytes:
    """Groups of one row; the statistics of the second say ``claim``."""
    rows = [h.row(b"aaaa"), h.row(first), h.row(b"zzzz")]
    data = h.parquet(
        rows, group=1, use_dictionary=False, compression="none", write_statistics=["path"]
    )
    footer = struct.unpack("<I", data[-8:-4])[0] + 8
    assert first in data[-footer:]
    return data[:-footer] + data[-footer:].replace(first, claim)


@pytest.mark.parametrize("claim", [b"mmmn", b"aaaa", b"zzzz", b"\0\0\0\0", b"\xff\xff\xff\xff"])
def test_lying_statistics(tmp_path: Path, claim: bytes) -> None:
    """A look-up that goes by them must not miss in silence what a listing shows."""
    archive = forge(tmp_path, lying_statistics(b"mmmm", claim), victim=False)
    assert pqvault.verify(archive, identities=[KEY]).problems
    with opened(archive) as reader:
        h.fails(lambda: list(reader.entries()), code=13)
    with opened(archive) as reader:
        try:
            found = [reader.find(p)[1].path for p in (b"aaaa", b"mmmm", b"zzzz")]
        except PQVaultError:
            return
    assert found == [b"aaaa", b"mmmm", b"zzzz"]


# ---- bounds ------------------------------------------------------------------------------

BOUNDED = """
import resource, sys, time
import hostile as h, pqvault
archive, identity, out, what = sys.argv[1:]
resource.setrlimit(resource.RLIMIT_AS, (3 << 30, 3 << 30))
key = pqvault.Identity.parse(identity)
def do():
    if what == "verify":
        for problem in pqvault.verify(archive, identities=[key]).problems:
            h.check_error(problem, 13)
            print(problem.message[-150:])
        return
    with pqvault.open(archive, identities=[key]) as reader:
        if what == "list":
            print(sum(1 for _ in reader.entries()))
        elif what == "read":
            for entry in reader.entries():
                reader.open_file(entry.path).pread(0, 1 << 20)
        else:
            for problem in reader.unseal(out).failed:
                h.check_error(problem, 13)
before = h.peak()
try:
    do()
except pqvault.errors.PQVaultError as error:
    h.check_error(error)
    print(error.message[-150:])
grown = h.peak() - before
print(f"{what}: {grown} MiB more")
assert grown < 300, f"{what}: {grown} MiB more"
"""


def bounded(archive: Path, tmp_path: Path, verbs: tuple[str, ...], timeout: float = 30) -> None:
    for verb in verbs:
        args = (archive, KEY.text, tmp_path / f"out-{verb}", verb)
        try:
            run = h.run_child(BOUNDED, *args, home=tmp_path / "home", timeout=timeout)
        except subprocess.TimeoutExpired:
            pytest.fail(f"{verb} did not end in {timeout} s")
        print(run.stdout)
        assert not run.returncode, run.stderr[-2000:]


VERBS = ("list", "read", "unseal", "verify")


def test_a_hole_of_a_gibibyte_is_bounded(tmp_path: Path) -> None:
    size = 1 << 30
    archive = forge(tmp_path, [h.row(b"a", size=size, extents=[(-1, 0, size)])], victim=False)
    bounded(archive, tmp_path, ("list", "read", "unseal", "verify"))
    assert (tmp_path / "out-unseal" / "a").stat().st_blocks < 100


@pytest.mark.parametrize("verb", ["unseal", pytest.param("verify", marks=pytest.mark.slow)])
def test_a_hole_of_8_eib_is_bounded(tmp_path: Path, verb: str) -> None:
    size = 2**63 - 1
    archive = forge(tmp_path, [h.row(b"a", size=size, extents=[(-1, 0, size)])], victim=False)
    bounded(archive, tmp_path, (verb,), timeout=30)  # a second, but machines are busy


def test_a_hole_of_8_eib_can_be_listed_and_read_in_part(tmp_path: Path) -> None:
    size = 2**63 - 1
    archive = forge(tmp_path, [h.row(b"a", size=size, extents=[(-1, 0, size)])], victim=False)
    bounded(archive, tmp_path, ("list", "read"))


def dictionary_bomb() -> bytes:
    """2 KB: 8,192 paths, all of them one megabyte in a dictionary."""
    paths = pa.DictionaryArray.from_arrays(
        pa.array([0] * 8192, pa.int32()), pa.array([b"x" * (1 << 20)], pa.binary())
    )
    rest = pa.Table.from_pylist([h.row(b"a")] * 8192, SCHEMA)
    field = pa.field("path", pa.dictionary(pa.int32(), pa.binary()), nullable=False)
    schema = SCHEMA.set(0, field)
    columns = [paths, *(rest.column(i).combine_chunks() for i in range(1, 8))]
    out = io.BytesIO()
    options = {"store_schema": False, "dictionary_pagesize_limit": 1 << 30}
    with pq.ParquetWriter(out, schema, compression="zstd", **options) as writer:
        writer.write_table(pa.Table.from_arrays(columns, schema=schema))
    return out.getvalue()


def extent_bomb(count: int = 20_000_000) -> bytes:
    """2 KB: one file of twenty million extents of one byte, run-length encoded."""
    kind = SCHEMA.field("extents").type
    fields = [
        pa.repeat(pa.scalar(value, kind.value_type.field(i).type), count)
        for i, value in enumerate((0, 0, 1))
    ]
    values = pa.StructArray.from_arrays(fields, fields=list(kind.value_type))
    extents = pa.ListArray.from_arrays(pa.array([0, count], pa.int32()), values, type=kind)
    rest = pa.Table.from_pylist([h.row(b"a", size=count)], SCHEMA)
    columns = [*(rest.column(i).combine_chunks() for i in range(7)), extents]
    out = io.BytesIO()
    with pq.ParquetWriter(out, SCHEMA, compression="zstd", store_schema=False) as writer:
        writer.write_table(pa.Table.from_arrays(columns, schema=SCHEMA))
    return out.getvalue()


def page_bomb() -> bytes:
    """A few KB: one digest of 150 MB of zeros."""
    row = h.row(b"a", digest=bytes(150 << 20))
    return h.parquet([row], use_dictionary=False, write_statistics=False)


def link_bomb() -> bytes:
    """3 MB, every value allowed: 8,192 links of 64 KiB each that compress well."""
    rows = [h.row(b"%05d" % i, "l", link=b"x" * 65535) for i in range(8192)]
    return h.parquet(rows, use_dictionary=False, write_statistics=False)


def group_bomb() -> bytes:
    """Row groups without number: the footer's metadata takes 25 KB of memory each."""
    out = io.BytesIO()
    rows = pa.Table.from_pylist([h.row(b"a")], SCHEMA)
    options = {"use_dictionary": False, "write_statistics": False, "store_schema": False}
    with pq.ParquetWriter(out, SCHEMA, compression="none", **options) as writer:
        for _ in range(60_000):
            writer.write_table(rows)
    return out.getvalue()


@pytest.mark.parametrize(
    "make",
    [
        page_bomb,
        *(
            pytest.param(make, marks=pytest.mark.slow)
            for make in (dictionary_bomb, extent_bomb, link_bomb, group_bomb)
        ),
    ],
    ids=lambda make: make.__name__,
)  # fmt: skip
def test_a_catalog_that_unpacks_to_gigabytes(tmp_path: Path, make: Callable[[], bytes]) -> None:
    data = make()
    plain = h.plain_of(data, frame=4 << 20)
    print(make.__name__, len(data), "bytes as Parquet,", len(plain), "sealed")
    archive = forge(tmp_path, b"", catalog_plain=plain, victim=False)
    bounded(archive, tmp_path, ("list",))


def link_dictionary() -> bytes:
    """8,192 links, all of them one megabyte in a dictionary."""
    name = SCHEMA.field(5).name
    rows = [h.row(b"%06d" % i, "l", link=b"x") for i in range(8192)]
    rest = pa.Table.from_pylist(rows, SCHEMA)
    links = pa.DictionaryArray.from_arrays(
        pa.array([0] * 8192, pa.int32()), pa.array([b"x" * (1 << 20)], pa.binary())
    )
    schema = SCHEMA.set(5, pa.field(name, pa.dictionary(pa.int32(), pa.binary())))
    columns = [rest.column(i).combine_chunks() for i in range(8)]
    columns[5] = links
    out = io.BytesIO()
    options = {"store_schema": False, "dictionary_pagesize_limit": 1 << 30}
    with pq.ParquetWriter(out, schema, use_dictionary=[name], compression="zstd", **options) as w:
        w.write_table(pa.Table.from_arrays(columns, schema=schema))
    return out.getvalue()


def unsaid_dictionary() -> bytes:
    """Its metadata knows of no dictionary and of few bytes: the first page simply is one."""
    data = link_dictionary()
    column = pq.ParquetFile(io.BytesIO(data)).metadata.row_group(0).column(5)
    return h.lie(data, 5, {11: None, 9: column.dictionary_page_offset, 6: 1000})


def dictionary_of_floats() -> bytes:
    """Its metadata says that links are FLOAT, so that nobody minds the dictionary."""
    return h.lie(link_dictionary(), 5, {1: 4, 6: 1000})


def shared_prefixes() -> bytes:
    """DELTA_BYTE_ARRAY: each of 1,024 links is a megabyte that it shares with the one before."""
    rows = [h.row(b"%06d" % i, "l", link=b"x" * (1 << 20)) for i in range(1024)]
    encoding = {"column_encoding": {"link": "DELTA_BYTE_ARRAY"}}
    return h.parquet(rows, **encoding, write_statistics=False, data_page_size=1 << 30)


def lying_extents() -> bytes:
    """The extent bomb; its metadata says one value of 100 bytes."""
    data = extent_bomb()
    for column in (7, 8, 9):
        data = h.lie(data, column, {5: 1, 6: 100})
    return data


def lying_page() -> bytes:
    """The page bomb; its metadata says 1,000 bytes, only the page's own header the truth."""
    return h.lie(page_bomb(), 6, {6: 1000})


@pytest.mark.parametrize(
    "make",
    [
        lying_extents,
        dictionary_of_floats,
        lying_page,
        unsaid_dictionary,
        shared_prefixes,
    ],
    ids=lambda make: make.__name__,
)
def test_a_catalog_whose_metadata_lies_about_sizes(
    tmp_path: Path, make: Callable[[], bytes]
) -> None:
    archive = forge(tmp_path, b"", catalog_plain=h.plain_of(make(), frame=4 << 20), victim=False)
    bounded(archive, tmp_path, ("list",))


def test_a_file_larger_than_its_object_is_bounded(tmp_path: Path) -> None:
    """512 times the same megabyte: what the catalog says is the cap."""
    content = bytes(1 << 20)
    row = h.row(b"a", size=512 << 20, extents=[(0, 0, 1 << 20)] * 512)
    objects = {0: h.plain_of(content, frame=1 << 20)}
    archive = forge(tmp_path, [row], objects=objects, victim=False)
    bounded(archive, tmp_path, VERBS)
    assert (tmp_path / "out-unseal" / "a").stat().st_size == 512 << 20


@pytest.mark.slow
def test_compressed_frames_as_dense_as_can_be(tmp_path: Path) -> None:
    """10 GB of zeros in 160 KB: read in part and verified within bounds."""
    frame = h.packed(bytes(8 << 20))
    count = 1280
    plain = h.tiled([frame] * count, [8 << 20] * count)
    rows = [h.row(b"a", size=count << 23, extents=[(0, 0, count << 23)])]
    archive = forge(tmp_path, rows, objects={0: plain}, victim=False)
    bounded(archive, tmp_path, ("list", "read", "verify"), timeout=60)


# ---- forged objects: one content for all readers, or an error ----------------------------


def readers(data: bytes, folder: Path) -> dict[str, bytes | PQVaultError]:
    """What each way of reading makes of a sealed stream."""
    path = folder / "s.pqv"
    path.write_bytes(data)

    def in_order() -> bytes:
        out = io.BytesIO()
        pqvault.decrypt(io.BytesIO(data), out, [KEY])
        return out.getvalue()

    def from_file() -> bytes:
        out = io.BytesIO()
        with path.open("rb") as file:
            pqvault.decrypt(file, out, [KEY])
        return out.getvalue()

    def whole() -> bytes:
        with pqvault.open_stream(path, [KEY]) as reader:
            return reader.read()

    def at_random() -> bytes:
        with pqvault.open_stream(path, [KEY]) as reader:
            out = bytearray(reader.size)
        offsets = list(range(0, len(out), 4999))
        random.Random(1).shuffle(offsets)
        for offset in offsets:  # a cold reader each time: nothing cached decides
            with pqvault.open_stream(path, [KEY]) as reader:
                out[offset : offset + 4999] = reader.pread(offset, 4999)
        return bytes(out)

    seen: dict[str, bytes | PQVaultError] = {}
    for read in (in_order, from_file, whole, at_random):
        try:
            seen[read.__name__] = read()
        except PQVaultError as error:
            h.check_error(error, 13)
            seen[read.__name__] = error
    return seen


A, B = b"A" * 70000, b"B" * 70000
FA, FB = h.packed(A), h.packed(B)
N = 300_000
NOISE = random.Random(7).randbytes(N)
STORED = h.stored(NOISE)
STORED_HEAD = struct.pack("<IBI", 0xFD2FB528, 0xA0, N)


def blocks(*parts: tuple[int, int, bytes]) -> bytes:
    """Blocks of (kind, size in the header, bytes)."""
    out = b""
    for index, (kind, size, data) in enumerate(parts):
        out += (size << 3 | kind << 1 | (index == len(parts) - 1)).to_bytes(3, "little") + data
    return out


def skippable(size: int, nibble: int = 0) -> bytes:
    return struct.pack("<II", 0x184D2A50 + nibble, size) + bytes(size)


def small_frame(descriptor: int, rest: bytes, content: bytes = b"hello") -> bytes:
    return struct.pack("<IB", 0xFD2FB528, descriptor) + rest + blocks((0, len(content), content))


_SAMPLES = [random.Random(i).randbytes(40) * 9 for i in range(200)]
DICTIONARY = zstandard.train_dictionary(4096, _SAMPLES)
SEALED = {
    "swapped sizes": FA + FB + h.table([(len(FB) + 1, 70000), (len(FA) - 1, 70000)]),
    "overlapping frames": FA + FB + h.table([(len(FA) + len(FB), 70000), (0, 70000)]),
    "a frame of no bytes": FA + h.table([(len(FA), 70000), (0, 1)]),
    "content 0": FA + h.table([(len(FA), 0)]),
    "content over 8 MiB": FA + h.table([(len(FA), (8 << 20) + 1)]),
    "content 4 GiB": FA + h.table([(len(FA), 2**32 - 1)]),
    "content one less": FA + h.table([(len(FA), 69999)]),
    "content one more": FA + h.table([(len(FA), 70001)]),
    "contents swapped": h.tiled([h.packed(A[:5000]), FB], [70000, 5000]),
    "too many frames": FA + h.table([(len(FA), 70000)], count=0x8000001),
    "all frames there can be": FA + h.table([(len(FA), 70000)], count=0x8000000),
    "one frame too many": FA + h.table([(len(FA), 70000)], count=2),
    "no frames": FA + h.table([(len(FA), 70000)], count=0),
    "a cut table": FA + h.table([(len(FA), 70000)])[:-1],
    "a table of another magic": FA + skippable(17, 1) + h.table([])[-9:],
    "bytes behind": h.tiled([FA], [70000]) + b"x",
    "two tables": h.tiled([FA], [70000]) + h.table([(0, 0)]),
    "two objects": h.tiled([FA], [70000]) + h.tiled([FB], [70000]),
    "table checksums": FA + h.flip(h.table([(len(FA), 70000)]), -5, 0x80),
    "a skippable frame, listed": (
        FA + skippable(10) + FB + h.table([(len(FA), 70000), (18, 1), (len(FB), 70000)])
    ),
    "a skippable frame, hidden": (
        FA + skippable(10) + FB + h.table([(len(FA) + 18, 70000), (len(FB), 70000)])
    ),
    "a skippable frame first": skippable(10) + FA + h.table([(len(FA) + 18, 70000)]),
    "a table first": h.table([]) + FA + h.table([(len(FA) + 17, 70000)]),
    "two frames as one": FA + FB + h.table([(len(FA) + len(FB), 70000)]),
    "two frames as one, summed": FA + FB + h.table([(len(FA) + len(FB), 140000)]),
    "the bomb": h.BOMB + h.table([(13, 8 << 20)]),
    "the bomb, small": h.BOMB + h.table([(13, 100)]),
    "a checksum": h.tiled([h.packed(A, write_checksum=True)], [70000]),
    "no content size": h.tiled([h.packed(A, write_content_size=False)], [70000]),
    "a dictionary": h.tiled(
        [zstandard.ZstdCompressor(dict_data=DICTIONARY).compress(_SAMPLES[0])], [360]
    ),
    "a window of 2 GiB": h.tiled([small_frame(0x80, b"\xa8" + struct.pack("<I", 5))], [5]),
    "a window just over 8 MiB": h.tiled([small_frame(0x80, b"\x69" + struct.pack("<I", 5))], [5]),
    "the reserved bit": h.tiled([small_frame(0xA8, struct.pack("<I", 5))], [5]),
    "content size 0": h.tiled([small_frame(0xA0, struct.pack("<I", 0), b"")], [1]),
    "a compressed block of nothing": h.tiled(
        [struct.pack("<IBI", 0xFD2FB528, 0xA0, 5) + blocks((2, 0, b""))], [5]
    ),
    "blocks less than the content": h.tiled([small_frame(0xA0, struct.pack("<I", 6))], [6]),
    "blocks more than the content": h.tiled([small_frame(0xA0, struct.pack("<I", 4))], [4]),
    "no zstd": b"hello" + h.table([(5, 5)]),
    "no table": FA,
    "nothing": b"",
    "stored, RLE inside, padded": h.tiled(
        [STORED_HEAD + blocks(
            (0, 131072, NOISE[:131072]), (1, 131072, b"R"), (0, N - 262144, NOISE[262144:])
        ) + bytes(131071)], [N]),
    "stored, ends early": h.tiled(
        [STORED_HEAD + blocks((0, 131072, NOISE[:131072])) + bytes(len(STORED) - 9 - 131075)], [N]),
    "stored, no last block": h.tiled(
        [h.flip(STORED, zstdseek.stored_block_offset(2), 1)], [N]),
    "stored, last block early": h.tiled(
        [h.flip(STORED, zstdseek.stored_block_offset(1), 1)], [N]),
    "stored, third block reserved": h.tiled(
        [h.flip(STORED, zstdseek.stored_block_offset(2), 6)], [N]),
    "stored, third block RLE": h.tiled(
        [h.flip(STORED, zstdseek.stored_block_offset(2), 2)], [N]),
    "stored, third block compressed": h.tiled(
        [h.flip(STORED, zstdseek.stored_block_offset(2), 4)], [N]),
    "stored, another size": h.tiled(
        [struct.pack("<IBI", 0xFD2FB528, 0xA0, N + 1) + STORED[9:]], [N]),
}  # fmt: skip


@pytest.mark.parametrize("name", SEALED)
def test_a_forged_object_is_refused_by_every_reader(tmp_path: Path, name: str) -> None:
    seen = readers(h.stream(KEY.recipient, SEALED[name]), tmp_path)
    read = {how: what[:20] for how, what in seen.items() if isinstance(what, bytes)}
    # "stored, third block …": a reader at random may see the blocks before, and only those.
    assert not read


UNUSUAL = {
    "RLE blocks": h.tiled(
        [STORED_HEAD + blocks(
            (0, 131072, NOISE[:131072]), (1, 131072, b"R"), (0, N - 262144, NOISE[262144:])
        )], [N]),
    "raw blocks of other sizes": h.tiled(
        [STORED_HEAD + blocks(
            (0, 131071, NOISE[:131071]), (0, 131072, NOISE[131071:262143]),
            (0, N - 262143, NOISE[262143:])
        )], [N]),
    "a content size of 8 bytes": h.tiled([small_frame(0xE0, struct.pack("<Q", 5))], [5]),
    "empty blocks": h.tiled(
        [struct.pack("<IBI", 0xFD2FB528, 0xA0, 5) + bytes(3) * 50_000 + blocks((0, 5, b"hello"))],
        [5]),
    "stored": h.tiled([STORED, FA], [N, 70000]),
    "nothing in it": h.tiled([], []),
}  # fmt: skip


@pytest.mark.parametrize("name", UNUSUAL)
def test_an_unusual_object_is_the_same_to_every_reader(tmp_path: Path, name: str) -> None:
    seen = readers(h.stream(KEY.recipient, UNUSUAL[name]), tmp_path)
    assert all(isinstance(content, bytes) for content in seen.values()), seen
    assert len(set(seen.values())) == 1


def test_the_unused_bit_of_a_frame_is_zero(tmp_path: Path) -> None:
    """docs/format.md 7.2: "Its reserved and unused bits are zero"."""
    frame = small_frame(0xB0, struct.pack("<I", 5))
    seen = readers(h.stream(KEY.recipient, h.tiled([frame], [5])), tmp_path)
    assert not any(isinstance(content, bytes) for content in seen.values())


def test_a_stored_frame_read_in_part_never_differs(tmp_path: Path) -> None:
    """Every single bit of the block headers and the frame header of a stored frame, flipped."""
    places = [*range(9)]
    for block in range(3):
        at = zstdseek.stored_block_offset(block)
        places += range(at, at + 3)
    for place in places:
        for bit in range(8):
            frame = h.flip(STORED, place, 1 << bit)
            data = h.stream(KEY.recipient, h.tiled([frame], [N]))
            path = tmp_path / "s.pqv"
            path.write_bytes(data)
            try:
                with pqvault.open_stream(path, [KEY]) as reader:
                    expected: bytes | None = reader.read()
            except PQVaultError:
                expected = None
            for offset in (0, 131072, 270_000):
                try:
                    with pqvault.open_stream(path, [KEY]) as reader:
                        got = bytes(reader.pread(offset, 1000))
                except PQVaultError:
                    continue
                if expected is not None:
                    assert got == expected[offset : offset + 1000], (place, bit, offset)
                else:
                    assert got == NOISE[offset : offset + 1000], (place, bit, offset)


def test_mutated_plaintexts_agree_or_fail(tmp_path: Path) -> None:
    """Random damage under a valid seal: frames, blocks and table."""
    rng = random.Random(20)
    base = h.tiled([h.packed(A[:3000] + NOISE[:3000]), h.stored(NOISE[:2000])], [6000, 2000])
    for _ in range(150):
        data = bytearray(base)
        for _ in range(rng.choice([1, 1, 2, 5])):
            data[rng.randrange(len(data))] = rng.randrange(256)
        seen = readers(h.stream(KEY.recipient, bytes(data)), tmp_path)
        contents = {what for what in seen.values() if isinstance(what, bytes)}
        assert len(contents) <= 1


def test_verify_looks_at_frames_that_no_entry_uses(tmp_path: Path) -> None:
    """Format 4.1: "every reader checks the frames that it touches, verify all"."""
    broken = h.flip(h.stored(C), 4, 0xFF)
    objects = {0: h.plain_of(C), 1: h.tiled([broken], [len(C)])}
    archive = forge(tmp_path, [h.file_row(b"a", C)], objects=objects, victim=False)
    assert pqvault.verify(archive, identities=[KEY]).problems


def test_verify_looks_at_frames_between_entries(tmp_path: Path) -> None:
    broken = h.flip(h.stored(C), 4, 0xFF)
    objects = {0: h.tiled([h.stored(C), broken], [len(C), len(C)])}
    archive = forge(tmp_path, [h.file_row(b"a", C)], objects=objects, victim=False)
    assert pqvault.verify(archive, identities=[KEY]).problems


# ---- garbage to pyarrow ------------------------------------------------------------------

FUZZ = """
import faulthandler, random, resource, sys
faulthandler.enable()
import io
import hostile as h
from pqvault.errors import PQVaultError
from pqvault.format.catalog import CatalogReader, check_ancestors, entries_of
resource.setrlimit(resource.RLIMIT_AS, (4 << 30, 4 << 30))
begin, end = int(sys.argv[1]), int(sys.argv[2])
rows = [h.row(b"d", "d")] + [h.file_row(b"d/%03d" % i, b"x" * i) for i in range(60)]
hard = {**h.file_row(b"f", b"x"), "kind": ord("h"), "link": b"d/001"}
rows += [h.row(b"e", "l", link=b"d"), hard]
bases = [h.parquet(rows, compression=c, group=g, use_dictionary=d, **more)
         for c, g, d, more in [
             ("zstd", 8192, True, {}), ("none", 20, False, {"write_statistics": ["path"]}),
             ("none", 8192, True, {"data_page_version": "2.0"}), ("snappy", 30, True, {})]]
outcomes = {}
for seed in range(begin, end):
    print(seed, file=sys.stderr, flush=True)
    rng = random.Random(seed)
    data = bytearray(rng.choice(bases))
    footer = len(data) - 8 - int.from_bytes(data[-8:-4], "little")
    low = rng.choice([0, 0, footer, footer, footer])
    for _ in range(rng.choice([1, 1, 1, 2, 4, 16])):
        place = rng.randrange(low, len(data))
        what = rng.randrange(5)
        if what == 0:
            data[place] = rng.randrange(256)
        elif what == 1:
            data[place] ^= 1 << rng.randrange(8)
        elif what == 2:
            del data[place : place + rng.randrange(1, 9)]
        elif what == 3:
            data[place:place] = rng.randbytes(rng.randrange(1, 9))
        else:
            data[place] = rng.choice([0, 0x7F, 0x80, 0xFF, 1])
        if rng.random() < 0.2 and len(data) > 12:
            data[-8:-4] = rng.choice([2**31 - 1, 2**32 - 1, 0, len(data)]).to_bytes(4, "little")
        if len(data) < 12:
            break
    try:
        reader = CatalogReader(io.BytesIO(bytes(data)), frozenset({0}), "the catalog")
        reader.find(b"d/030")
        for batch in check_ancestors(reader.batches(), "the catalog"):
            list(entries_of(batch))
        outcome = "read"
    except PQVaultError as error:
        outcome = type(error).__name__
        assert "\\n" not in error.message
    except BaseException as error:
        print(f"SEED {seed}: {error!r}", flush=True)
        outcome = repr(type(error))
    outcomes[outcome] = outcomes.get(outcome, 0) + 1
print(outcomes)
"""


def fuzz(begin: int, end: int, tmp_path: Path) -> list[str]:
    """The seeds that raised something else than PQVaultError or ended the process."""
    bad = []
    while begin < end:
        run = h.run_child(FUZZ, begin, end, home=tmp_path, timeout=280)
        bad += [line for line in run.stdout.splitlines() if line.startswith("SEED")]
        if not run.returncode:
            print(run.stdout.splitlines()[-1])
            return bad
        seeds = [line for line in run.stderr.splitlines() if line.isdigit()]
        assert seeds, run.stderr
        where = run.stderr[run.stderr.rindex(seeds[-1]) :][:2000]
        bad.append(f"CRASH at seed {seeds[-1]}, exit {run.returncode}: {where}")
        begin = int(seeds[-1]) + 1
    return bad


@pytest.mark.parametrize(("begin", "end"), [(0, 300), (11592, 11593)])
def test_mutated_catalogs(tmp_path: Path, begin: int, end: int) -> None:
    """Seed 11592 makes a statistic of another type, which Arrow passes over."""
    assert fuzz(begin, end, tmp_path) == []


ABORT = """
import sys
import hostile as h
import pqvault
archive, identity = sys.argv[1:]
key = pqvault.Identity.parse(identity)
def look():
    with pqvault.open(archive, identities=[key]) as reader:
        reader.find("a")
        return list(reader.entries())
h.fails(look, code=13)
"""


def test_a_column_chunk_of_another_type(tmp_path: Path) -> None:
    """The metadata of ``path`` says FLOAT: parquet::ParquetException goes through a noexcept."""
    data = h.parquet([h.row(b"a")], compression="none", use_dictionary=False)
    footer = len(data) - 8 - struct.unpack("<I", data[-8:-4])[0]
    # In Thrift's compact form: ColumnMetaData.type = 6 (BYTE_ARRAY), then a list of encodings.
    # Of link and digest pyarrow never looks at it; of path the statistics abort.
    places = [data.index(b"\x15\x0c\x19", footer)]
    outcomes = []
    for at in places:
        forged = data[:at] + b"\x15\x08" + data[at + 2 :]
        archive = forge(tmp_path / str(at), forged, victim=False)
        run = h.run_child(ABORT, archive, KEY.text, home=tmp_path / "home")
        outcomes.append(run.returncode)
    assert outcomes and not any(outcomes), outcomes


def test_a_level_histogram_of_another_length(tmp_path: Path) -> None:
    archive = forge(tmp_path, h.level_histogram(h.parquet([h.row(b"a")])), victim=False)
    run = h.run_child(ABORT, archive, KEY.text, home=tmp_path / "home")
    assert not run.returncode, run.stderr[:300]


@pytest.mark.slow
def test_many_mutated_catalogs(tmp_path: Path) -> None:
    """Seeds 4239 and 21705 abort (pyarrow 26.0.1)."""
    assert fuzz(300, 20_000, tmp_path) == []


# ---- what the errors of this file are ----------------------------------------------------


def test_nothing_here_left_the_limits_changed() -> None:
    assert resource.getrlimit(resource.RLIMIT_AS)[0] == resource.RLIM_INFINITY
    assert signal.getsignal(signal.SIGINT) is not signal.SIG_IGN
