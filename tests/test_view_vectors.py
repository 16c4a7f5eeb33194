"""The known-answer views of vectors/views (as of a part or time, and under a policy), read by
pqvault and by a reader that was written from docs/format.md alone."""

from __future__ import annotations

import base64
import hashlib
import importlib
import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any

import independent_reader as reader
import pytest
import testkit
from independent_keys import Damaged
from independent_policy import Policy as PolicyOfThePage
from independent_policy import Refused

import pqvault
from pqvault.errors import PQVaultError
from pqvault.format.entries import Kind
from pqvault.policy import Policy

views: Any = importlib.import_module("vectors.views")
assert testkit.kit  # which makes that folder importable
VECTORS: dict[str, dict[str, Any]] = {
    path.stem: json.loads(path.read_text())
    for path in sorted(views.FOLDER.glob("*.json"))
    if path.name != views.STORE
}
# Of several, the first of these is what a program says (README.md, exit codes).
RANKS = (2, 13, 15, 14, 12, 10)
EXITS: dict[type[Exception], int] = {
    Damaged: 13,
    reader.RolledBack: 15,
    Refused: 14,
    reader.NoKey: 12,
    reader.NotHeld: 10,
}


@cache
def store() -> dict[str, bytes]:
    """The files of all archives."""
    found = json.loads((views.FOLDER / views.STORE).read_text())
    return {key: base64.b64decode(text) for key, text in found.items()}


class Vector:
    """One vector, its archive unpacked; nobody writes to that."""

    def __init__(self, name: str, folder: Path) -> None:
        self.value = value = VECTORS[name]
        self.archive = folder / "v.pqv"
        for file, key in value["files"].items():
            path = self.archive / file
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(store()[key])
        self.unsigned: bool = value.get("allow_unsigned", False)
        self.key = pqvault.Identity.parse(value["identity"])


@pytest.fixture(scope="module")
def vector(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Vector:
    return Vector(request.param, tmp_path_factory.mktemp("vector"))


@pytest.fixture(scope="module")
def policies(tmp_path_factory: pytest.TempPathFactory) -> Policies:
    return Policies(tmp_path_factory.mktemp("policies"))


class Policies:
    """The policies of vectors, each read once."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._known: dict[tuple[str, bool], Policy] = {}

    def of(self, vector: Vector) -> Policy:
        """Raises what pqvault does."""
        name, unsigned = vector.value.get("policy", ""), vector.unsigned
        if not name:
            return Policy(allow_unsigned=unsigned)
        if (name, unsigned) not in self._known:
            path = self._folder / name
            path.write_bytes(store()[name])
            self._known[name, unsigned] = Policy.load_file(path, allow_unsigned=unsigned)
        return self._known[name, unsigned]


def those(*, without: tuple[int, ...] = ()) -> Any:
    """Run a test for each vector but those of some exit codes."""
    names = [name for name, value in VECTORS.items() if value["exit"] not in without]
    return pytest.mark.parametrize("vector", names, indirect=True, scope="module")


def test_the_vectors_are_there_and_small() -> None:
    """That the generator makes the very same files is a test of test_vectors."""
    values = VECTORS.values()
    assert len(values) >= 150
    assert {value["exit"] for value in values} == {0, *RANKS}
    kept = {key for value in values for key in (*value["files"].values(), value.get("policy"))}
    assert kept - {None} == set(store())
    assert sum(path.stat().st_size for path in views.FOLDER.iterdir()) < 600_000


def line(kind: str, path: bytes, size: int, mode: int, mtime: int, link: Any, data: Any) -> str:
    """As vectors/README.md has it."""
    digest = "-" if data is None else hashlib.sha256(data).hexdigest()
    shown = "-" if link is None else link.hex()
    return f"{kind} {path.hex()} {size} {mode:o} {mtime} {shown} {digest}"


# -- pqvault --------------------------------------------------------------------------------


def exit_of(call: Callable[[], object]) -> int:
    """The exit code of what pqvault raises."""
    try:
        call()
    except PQVaultError as error:
        assert error.message.strip()
        return error.exit_code
    return 0


def opened(vector: Vector, policy: Policy, **options: Any) -> pqvault.Archive:
    as_of = vector.value.get("as_of")
    if isinstance(as_of, int):
        as_of = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=as_of)
    options |= {"identities": [vector.key], "as_of": as_of, "policy": policy}
    return pqvault.open(vector.archive, **options)


def listed(archive: pqvault.Archive) -> list[str]:
    """Every entry, found alone too."""
    lines = []
    for entry in archive.entries():
        assert archive.find(entry.path)[1] == entry
        data = None
        if entry.kind in (Kind.FILE, Kind.HARDLINK):
            with archive.open_file(entry.path) as file:
                data = file.read()
        row = (entry.kind.letter, entry.path, entry.size, entry.mode, entry.mtime_ns, entry.link)
        lines.append(line(*row, data))
    return lines


@those()
def test_pqvault(vector: Vector, policies: Policies) -> None:
    """The view, or the exit code."""
    found: list[str] = []

    def read() -> None:
        with opened(vector, policies.of(vector)) as archive:
            found.extend(listed(archive))

    assert exit_of(read) == vector.value["exit"]
    if not vector.value["exit"]:
        assert found == vector.value["view"]


@those(without=(0, 2))
def test_pqvault_leaves_out_what_it_refuses(vector: Vector, policies: Policies) -> None:
    """Who asks for what can be read is told of what a strict reader ends with, and no part that is
    a problem is in the view."""

    def read() -> None:
        with opened(vector, policies.of(vector), strict=False) as archive:
            assert not set(archive.unopened) & {part.id for part in archive.parts}
            problems.extend(archive.problems)
            listed(archive)
            problems.extend(archive.problems)

    problems: list[PQVaultError] = []
    codes = {exit_of(read)} | {problem.exit_code for problem in problems}
    assert worst(codes) == vector.value["exit"]


def test_what_nobody_signed_after_what_is_signed_is_left_out(
    tmp_path: Path, policies: Policies
) -> None:
    """attack 7: of a reader who is given no signers, and is not strict."""
    vector = Vector("nobody_asks_and_unsigned_after_signed", tmp_path)
    signed = VECTORS["nobody_asks_as_of_the_signed_part"]
    with opened(vector, policies.of(vector), strict=False) as archive:
        assert listed(archive) == signed["view"]
        assert [problem.exit_code for problem in archive.problems] == [14]


def worst(codes: set[int]) -> int:
    """Of several exit codes the one that a program ends with."""
    return next((code for code in RANKS if code in codes), 0)


@those()
def test_pqvault_verifies(vector: Vector, policies: Policies) -> None:
    """The whole archive, with the identity and without."""
    for level, who in (("sealed", [vector.key]), ("intact", [])):
        found: set[int] = set()

        def check(who: list[pqvault.Identity] = who, found: set[int] = found) -> None:
            policy = policies.of(vector)
            report = pqvault.verify(vector.archive, identities=who, policy=policy, jobs=1)
            found.update(problem.exit_code for problem in report.problems)

        found.add(exit_of(check))
        assert worst(found) == vector.value[level], level


# -- a reader from the page alone -----------------------------------------------------------


def exit_of_the_page(call: Callable[[], object]) -> int:
    try:
        call()
    except tuple(EXITS) as error:
        return EXITS[type(error)]
    return 0


@those()
def test_a_reader_from_the_page_alone(vector: Vector) -> None:
    """The view or the exit code, and both verifications."""
    value = vector.value
    text = store()[value["policy"]].decode() if "policy" in value else ""
    if value["exit"] == 2:
        with pytest.raises(Damaged):
            PolicyOfThePage.parse(text)
        return
    policy = PolicyOfThePage(unsigned=vector.unsigned)
    if text:
        policy = PolicyOfThePage.parse(text, unsigned=vector.unsigned)
    found: list[str] = []

    def read() -> None:
        view = reader.open_archive(vector.archive, value["identity"], policy, value.get("as_of"))
        for path, item in view.items():
            size = len(item.content or b"")
            row = (item.kind, path, size, item.mode, item.mtime_ns, item.link)
            found.append(line(*row, item.content))

    assert exit_of_the_page(read) == value["exit"]
    if not value["exit"]:
        assert found == value["view"]
    sealed = exit_of_the_page(lambda: reader.verify(vector.archive, value["identity"], policy))
    intact = exit_of_the_page(lambda: reader.verify_without_key(vector.archive, policy))
    assert (sealed, intact) == (value["sealed"], value["intact"])
