"""The known-answer files of vectors/, each read in four ways, and by the generator once more."""

from __future__ import annotations

import hashlib
import io
import random
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import zstandard
from testkit import Pipe, generate, kit, load_vectors

import pqvault
from pqvault.errors import IntegrityError, NoKeyFits, NotFound, PQVaultError
from pqvault.format.catalog import Kind
from pqvault.format.commit import Commit
from pqvault.format.envelope import Envelope

VECTORS = load_vectors()
STREAMS = [v for v in VECTORS if v.kind == "stream"]
ARCHIVES = [v for v in VECTORS if v.kind == "archive"]

# Where pqvault does not yet do what docs/format.md says: vector of an archive -> why.
_HARD = "verify does not compare mode and time of a hard link (docs/format.md section 6 rule 3)"


def each(vectors: list[Any]) -> Any:
    """Run a test for each vector, under its name."""

    return pytest.mark.parametrize(
        "vector", [pytest.param(vector, id=vector.name) for vector in vectors]
    )


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def identities(vector: Any) -> list[pqvault.Identity]:
    return [pqvault.Identity.parse(vector.identity)]


def failure(call: Callable[[], object]) -> PQVaultError | None:
    """The error of our tree that a call raises; any other one is a failure of the test."""
    try:
        call()
    except PQVaultError as error:
        assert error.message.strip() and error.hint.strip() is not None
        return error
    return None


def check_failure(vector: Any, error: PQVaultError | None) -> None:
    """An error with the exit code of the vector, and of the class that goes with it."""
    assert error is not None, f"{vector.name} was accepted: {vector.comment}"
    assert error.exit_code == vector.exit, error.message
    if vector.exit == 13:
        assert isinstance(error, IntegrityError)
    if vector.exit == 12:
        assert isinstance(error, NoKeyFits)


# -- the folder -----------------------------------------------------------------------------


def test_vectors_are_there() -> None:
    """An empty folder would pass every test below."""
    assert len(VECTORS) >= 60
    assert set(Counter(v.expect for v in VECTORS)) == set(kit.CLASSES)
    assert len(STREAMS) >= 30 and len(ARCHIVES) >= 30


def test_generator_makes_the_very_same_files() -> None:
    """Nobody edits a vector by hand, and none is left over."""
    made = generate.make_all()
    there = {p for folder in generate.FOLDERS.values() for p in folder.iterdir()}
    assert there == set(made)
    assert [p.name for p, data in made.items() if p.read_bytes() != data] == []


def test_wrapped_keys_are_all_used() -> None:
    """wrapped.json holds what the vectors need and nothing else."""
    kit.WRAPS.start(new=False)
    generate.make_all()
    assert kit.WRAPS.used == set(kit.WRAPS.known)


def test_folder_is_small() -> None:
    assert sum(p.stat().st_size for p in kit.HERE.rglob("*.vec")) < 4_000_000


# -- sealed streams -------------------------------------------------------------------------


def decrypt(source: Any, vector: Any, **options: Any) -> tuple[bytes, PQVaultError | None]:
    """What came out, and the error that ended it."""
    out = io.BytesIO()
    error = failure(lambda: pqvault.decrypt(source, out, identities(vector), **options))
    return out.getvalue(), error


def in_order(vector: Any, step: int = 5000) -> tuple[bytes, PQVaultError | None]:
    """Read from a pipe that gives ``step`` bytes at a time, so that nothing comes too late."""
    return decrypt(Pipe(vector.files["stream"], step), vector)


@each(STREAMS)
def test_stream_in_order(vector: Any) -> None:
    """attack 11: exactly the bytes that may be released, then the error."""
    out, error = in_order(vector)
    if vector.expect == "success":
        assert error is None
    else:
        check_failure(vector, error)
    assert sha256(out) == vector.released
    # In larger pieces an error may come sooner, never later.
    whole, second = in_order(vector, 1 << 20)
    assert out.startswith(whole)
    assert (second is None) == (error is None)


@each(STREAMS)
def test_stream_at_random(vector: Any, tmp_path: Path) -> None:
    """Two readers never see two contents: what opens at random is what comes in order."""
    path = tmp_path / "x.pqv"
    path.write_bytes(vector.files["stream"])
    released, _ = in_order(vector)

    with path.open("rb") as file:
        out, error = decrypt(file, vector)
    assert released.startswith(out)
    if vector.expect == "success":
        assert error is None and out == released
    else:
        check_failure(vector, error)

    error = failure(lambda: read_at_random(path, vector, released))
    if vector.expect == "success":
        assert error is None
    else:
        check_failure(vector, error)


def read_at_random(path: Path, vector: Any, released: bytes) -> None:
    with pqvault.open_stream(path, identities(vector)) as reader:
        rng = random.Random(vector.name)
        for _ in range(20):
            offset = rng.randrange(len(released) + 1)
            length = rng.choice([1, 13, 300, 20_000])
            end = min(offset + length, len(released))
            # What an in-order reader does not release may fail here or not; the rest must agree.
            try:
                data = reader.pread(offset, end - offset)
            except IntegrityError:
                assert vector.expect != "success"
            else:
                assert released[offset:end].startswith(data)
                assert len(data) == end - offset or vector.expect != "success"
        if vector.expect == "success":
            assert reader.size == len(released)
            assert reader.read() == released
            assert reader.pread(len(released), 10) == b""
        reader.seek(0)
        reader.read()


@each(STREAMS)
def test_stream_inspected(vector: Any, tmp_path: Path) -> None:
    """Without a key only what is public may fail."""
    path = tmp_path / "x.pqv"
    path.write_bytes(vector.files["stream"])
    if vector.inspect == "clean":
        inspection = pqvault.inspect(path)
        assert inspection.what == "stream"
        assert inspection.envelope is not None and inspection.envelope.recipients
    else:
        check_failure(vector, failure(lambda: pqvault.inspect(path)))


@each(STREAMS)
def test_stream_round_trip(vector: Any) -> None:
    """parse(b).marshal() == b, and what was opened can be sealed and opened again."""
    data = vector.files["stream"]
    if vector.inspect == "clean":
        envelope, used = Envelope.parse_prefix(data)
        assert envelope.marshal() == data[:used]
        assert Envelope.parse(data[:used]) == envelope
    if vector.expect != "success":
        return
    payload, _ = in_order(vector)
    who = identities(vector)
    again, back = io.BytesIO(), io.BytesIO()
    pqvault.encrypt(io.BytesIO(payload), again, [who[0].recipient], frame_size=1 << 16)
    again.seek(0)
    pqvault.decrypt(again, back, who)
    assert back.getvalue() == payload


@each([v for v in STREAMS if v.expect == "success"])
def test_stream_raw_is_what_zstd_takes(vector: Any) -> None:
    """``pqvault decrypt --raw X.pqv | zstd -d``, for whoever has no pqvault."""
    raw, error = decrypt(Pipe(vector.files["stream"]), vector, raw=True)
    assert error is None
    reader = zstandard.ZstdDecompressor().stream_reader(raw, read_across_frames=True)
    content, _ = in_order(vector)
    assert reader.read() == content


# -- archives -------------------------------------------------------------------------------


def unpack(vector: Any, root: Path) -> Path:
    archive = root / "v.pqv"
    archive.mkdir()
    for folder in ("commits", "envelopes", "parts"):
        (archive / folder).mkdir()
    for name, data in vector.files.items():
        path = archive / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return archive


@each(ARCHIVES)
def test_archive_in_order(vector: Any, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    """Open, list, read every entry, verify: the fault is met where the vector says."""
    archive = unpack(vector, tmp_path)
    who = identities(vector)
    found, lines = read_archive(archive, who, whole=vector.expect == "success")
    assert sha256("".join(lines).encode()) == vector.released
    report = failure(lambda: list_problems(archive, who))
    if vector.expect == "success":
        assert found is None and report is None
        return
    if found is None:
        found = ("verify", report)
    check_failure(vector, found[1])
    assert found[0] == vector.found, found[1]
    check_failure(vector, report)


def read_archive(
    path: Path, who: list[pqvault.Identity], *, whole: bool
) -> tuple[tuple[str, PQVaultError] | None, list[str]]:
    """The first failure and the step that met it; a line for each entry that could be read.

    In a catalog that is not sorted a look-up may miss what the listing shows; not so if ``whole``.
    """
    first: tuple[str, PQVaultError] | None = None
    lines: list[str] = []
    try:
        archive = pqvault.open(path, identities=who, strict=True)
    except PQVaultError as error:
        return ("open", error), lines
    with archive:
        entries = archive.entries()
        while True:
            try:
                entry = next(entries, None)
            except PQVaultError as error:
                return first or ("list", error), lines
            if entry is None:
                return first, lines
            digest = "-"
            if entry.kind in (Kind.FILE, Kind.HARDLINK):
                try:
                    with archive.open_file(entry.path) as file:
                        file.pread(max(0, entry.size - 1), 1)
                        data = file.read()
                    assert len(data) == entry.size
                    digest = sha256(data)
                except NotFound:
                    assert not whole
                    continue
                except PQVaultError as error:
                    first = first or ("read", error)
                    continue
            # Found alone, it is what the listing says.
            assert archive.find(entry.path)[1] == entry
            link = "-" if entry.link is None else entry.link.hex()
            lines.append(
                f"{entry.kind.letter} {entry.path.hex()} {entry.size} {entry.mode:o}"
                f" {entry.mtime_ns} {link} {digest}\n"
            )


def list_problems(path: Path, who: list[pqvault.Identity]) -> None:
    """Verify; raise the first problem that is listed."""
    report = pqvault.verify(path, identities=who, jobs=1)
    assert report.level == ("sealed" if who else "intact")
    for problem in report.problems:
        raise problem


@each(ARCHIVES)
def test_archive_verified_without_key(vector: Any, tmp_path: Path) -> None:
    """Intact or not; and no opinion on what only a key can tell."""
    archive = unpack(vector, tmp_path)
    error = failure(lambda: list_problems(archive, []))
    if vector.intact == "yes":
        assert error is None, error
    else:
        check_failure(vector, error)


@each(ARCHIVES)
def test_archive_inspected(vector: Any, tmp_path: Path) -> None:
    """What is public, as far as it can be read; its problems are named."""
    archive = unpack(vector, tmp_path)
    if vector.expect == "header failure":
        check_failure(vector, failure(lambda: pqvault.inspect(archive)))
        return
    inspection = pqvault.inspect(archive)
    assert inspection.what == "archive"
    if vector.inspect == "clean":
        assert inspection.problems == []
    else:
        check_failure(vector, inspection.problems[0])


@each(ARCHIVES)
def test_archive_round_trip(vector: Any) -> None:
    """Every document that is accepted is written again as it was."""
    for name, data in vector.files.items():
        kind = {"commits": Commit, "envelopes": Envelope}.get(name.split("/")[0])
        if kind is None:
            continue
        try:
            document = kind.parse(data)
        except PQVaultError:
            assert vector.expect != "success" or name not in listed(vector)
        else:
            assert document.marshal() == data


def listed(vector: Any) -> set[str]:
    """The documents of the parts of a good archive."""
    ids = [n.split("/")[1] for n in vector.files if n.startswith("commits/")]
    ids = [i for i in ids if len(i) == 32 and i == i.lower()]
    return {f"{folder}/{i}" for folder in ("commits", "envelopes") for i in ids}


@each([v for v in ARCHIVES if v.expect == "success"])
def test_archive_entries_in_pieces(vector: Any, tmp_path: Path) -> None:
    """At random places, an entry's file gives what it gives as a whole."""
    with pqvault.open(unpack(vector, tmp_path), identities=identities(vector)) as archive:
        for entry in archive.entries():
            if not entry.size:
                continue
            with archive.open_file(entry.path) as file:
                whole = file.read()
                rng = random.Random(entry.path)
                for _ in range(10):
                    start, length = rng.randrange(len(whole)), rng.randrange(len(whole))
                    assert file.pread(start, length) == whole[start : start + length]
