"""What several parts hold together: histories of seals against a model in a dict."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from conftest import Box, make_tree, noise
from hypothesis import HealthCheck, given, note, settings
from hypothesis import strategies as st

import pqvault
from pqvault.format import catalog

Model = dict[str, Any]  # path -> ("d",) | ("f", content) | ("l", target) | None for a tombstone

# Few names, all near "/" in the order of bytes, so that histories meet each other.
near = st.sampled_from(["a", "a-", "a.b", "a0", "b"])
leaves = st.one_of(st.sampled_from([b"", b"1", b"22", b"x" * 100]), st.just("target"))
trees = st.dictionaries(
    near,
    st.recursive(leaves, lambda below: st.dictionaries(near, below, max_size=3), max_leaves=5),
    max_size=4,
)
steps = st.tuples(trees, st.sampled_from(["journal", "know", "delete", "append", "lost"]))


def flat(tree: dict[str, Any], path: str = "src") -> Model:
    """A tree as the entries that it makes."""
    entries: Model = {path: ("d",)}
    for name, value in tree.items():
        below = f"{path}/{name}"
        if isinstance(value, dict):
            entries |= flat(value, below)
        else:
            entries[below] = ("l", value.encode()) if isinstance(value, str) else ("f", value)
    return entries


def above(path: str) -> Iterator[str]:
    while path := path.rpartition("/")[0]:
        yield path


def say(standing: Model, said: Model) -> None:
    """docs/format.md section 5.3 rules 1 and 3: what a part says, on top of older ones."""
    for path, value in said.items():
        if value != ("d",):
            for below in [p for p in standing if p.startswith(path + "/")]:
                del standing[below]
    standing |= said


def shown(standing: Model) -> Model:
    """Rule 2: without tombstones."""
    return {path: value for path, value in standing.items() if value is not None}


def edit(source: Path, tree: dict[str, Any]) -> None:
    """Make the source hold ``tree``; what is equal already keeps its inode and times."""
    for path in sorted(source.iterdir()) if source.exists() else []:
        value = tree.get(path.name)
        if path.is_symlink():
            if not isinstance(value, str) or os.readlink(path) != value:
                path.unlink()
        elif path.is_dir():
            if isinstance(value, dict):
                edit(path, value)
            else:
                shutil.rmtree(path)
        elif not isinstance(value, bytes) or path.read_bytes() != value:
            path.unlink()
    make_tree(source, {n: v for n, v in tree.items() if not os.path.lexists(source / n)})
    for name, value in tree.items():
        if isinstance(value, dict) and not (source / name).exists():
            make_tree(source / name, value)


def read(box: Box, **options: Any) -> Model:
    found = box.contents(**options)  # compares find() with entries(), too
    return {p: ("d",) if kind == "d" else (kind, data) for p, (kind, data) in found.items()}


def check_hidden(box: Box, standing: Model) -> None:
    """find() does not see what is removed or hidden."""
    with box.open() as archive:
        for path in set(standing) - set(shown(standing)):
            assert archive.view.find(path.encode()) is None


@contextmanager
def place(identity: pqvault.Identity) -> Iterator[Box]:
    """Hypothesis runs many times in one test: each run needs its own places."""
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder, pytest.MonkeyPatch.context() as p:
        p.setenv("PQVAULT_HOME", folder + "/home")
        yield Box(Path(folder), identity)


@settings(
    max_examples=35, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(history=st.lists(steps, min_size=1, max_size=6))
def test_histories(history: list[tuple[dict[str, Any], str]], identity: pqvault.Identity) -> None:
    """After any history of runs the archive holds what the rules say, now and as of each part."""
    with place(identity) as box:
        standing: Model = {}
        states: list[tuple[str, Model]] = []
        for number, (tree, mode) in enumerate(history):
            edit(box.source, tree)
            now = flat(tree)
            if mode == "lost":
                os.environ["PQVAULT_HOME"] = f"{box.root}/home{number}"
            report = box.seal(
                know=mode in ("know", "delete", "lost"),
                delete=mode == "delete",
                yes=True,
                append=mode == "append" or (mode == "journal" and not states),
            )
            before = shown(standing)
            say(standing, now)
            if mode == "delete":
                say(standing, {path: None for path in before if path not in now})
            note(f"{mode} {tree} -> {report.parts}")
            assert read(box) == shown(standing)
            check_hidden(box, standing)
            if report.parts:
                states.append((report.parts[-1], shown(standing)))
        for part, state in states:
            assert read(box, as_of=part) == state
        box.check()
        out = box.unseal(links="as-is")
        assert {f"{p.relative_to(out)}" for p in out.rglob("*")} == set(shown(standing))


@settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data(), groups=st.integers(1, 5))
def test_find_agrees_with_entries_over_many_row_groups(
    data: st.DataObject, groups: int, identity: pqvault.Identity
) -> None:
    """find() answers as the list of entries does, for paths that are there and paths between."""
    with place(identity) as box, pytest.MonkeyPatch.context() as patch:
        patch.setattr(catalog, "ROW_GROUP", groups)
        patch.setattr("pqvault.archive.partwriter.ROW_GROUP", groups)
        for _ in range(data.draw(st.integers(1, 3))):
            edit(box.source, data.draw(trees))
            box.seal(append=True)
        with box.open() as archive:
            entries = {entry.path: entry for entry in archive.entries()}
            assert list(entries) == sorted(entries)
            check_folders(archive, entries)
            candidates = {
                f"src{tail}".encode() for tail in ("", "/a", "/a-", "/a/a", "/a/b", "/zz", "-")
            }
            for path in candidates | set(entries) | {p + b"/a" for p in entries} | {b"a", b"z"}:
                found = archive.view.find(path)
                assert (found[1] if found else None) == entries.get(path)


def check_folders(archive: pqvault.Archive, entries: dict[bytes, catalog.Entry]) -> None:
    """What is below a path, and what is in a folder, are those of the list of all entries."""
    for path in [*entries, b"", b"a", b"src/a", b"src/zz", b"src-"]:
        below = [
            e for p, e in entries.items() if p == path or p.startswith(path + b"/") or not path
        ]
        assert list(archive.entries(path)) == below
        assert list(archive.entries(path, direct=True)) == [
            e for p, e in entries.items() if p != path and p.rpartition(b"/")[0] == path
        ]


def test_histories_by_folder_over_row_groups_of_one(box: Box, monkeypatch: Any) -> None:
    """A tombstone, a file in a folder's place and a folder again, looked at folder by folder."""
    monkeypatch.setattr(catalog, "ROW_GROUP", 1)
    monkeypatch.setattr("pqvault.archive.partwriter.ROW_GROUP", 1)
    trees: list[dict[str, Any]] = [
        {"a": {"b": {"c": b"1", "d": {"e": b"2"}}}, "a-b": b"3", "z": {"y": b"4"}},
        {"a": {"b": b"file"}, "a-b": b"3", "z": {"y": b"4"}},
        {"a": {"b": {"c": b"5"}}, "a-b": {"a": b"6"}},
        {"a": b"no folder"},
        {"a": {"b": {"x": b"7"}}, "a0": b"8"},
    ]
    for tree in trees:
        edit(box.source, tree)
        box.seal(know=True, delete=True, yes=True)
        with box.open() as archive:
            check_folders(archive, {entry.path: entry for entry in archive.entries()})


def test_a_folder_is_listed_without_reading_the_rest(box: Box, monkeypatch: Any) -> None:
    """Of a part of many row groups, what is in a folder costs a few of them."""
    monkeypatch.setattr(catalog, "ROW_GROUP", 4)
    monkeypatch.setattr("pqvault.archive.partwriter.ROW_GROUP", 4)
    tree: dict[str, Any] = {f"d{n:02}": {f"f{m:02}": b"" for m in range(40)} for n in range(20)}
    box.tree(tree)
    box.seal()
    read: list[int] = []
    batch = catalog.CatalogReader.batch

    def counting(self: catalog.CatalogReader, group: int) -> Any:
        read.append(group)
        return batch(self, group)

    monkeypatch.setattr(catalog.CatalogReader, "batch", counting)
    with box.open() as archive:
        groups = archive.parts[0].catalog.groups
        assert len(list(archive.entries("src/d07", direct=True))) == 40
        assert len(read) <= 13 < groups
        read.clear()
        assert len(list(archive.entries("src", direct=True))) == 20
        assert len(read) <= 20 * 3 < groups


def test_a_file_hides_what_was_below(box: Box) -> None:
    """A file in a folder's place hides the folder's children, and only them."""
    box.tree({"a": {"x": b"1", "y": {"z": b"2"}}, "a-b": b"3", "a0": b"4", "ab": {"x": b"5"}})
    box.seal()
    shutil.rmtree(box.source / "a")
    (box.source / "a").write_bytes(b"file")
    box.seal()
    assert read(box) == flat({"a": b"file", "a-b": b"3", "a0": b"4", "ab": {"x": b"5"}})
    with box.open() as archive:
        for path in (b"src/a/x", b"src/a/y", b"src/a/y/z"):
            assert archive.view.find(path) is None


def test_a_folder_takes_a_files_place(box: Box) -> None:
    """A folder in a file's place shows its children, the file is gone."""
    box.tree({"a": b"file", "a-b": b"3"})
    box.seal()
    (box.source / "a").unlink()
    box.tree({"a": {"x": b"1"}})
    box.seal()
    assert read(box) == flat({"a": {"x": b"1"}, "a-b": b"3"})


def test_a_link_hides_like_a_file(box: Box) -> None:
    """attack 27: below a link of a later part nothing of an older one is seen or extracted."""
    box.tree({"a": {"x": b"1"}, "b": {}})
    box.seal()
    shutil.rmtree(box.source / "a")
    (box.source / "a").symlink_to("b")
    box.seal()
    assert read(box) == flat({"a": "b", "b": {}})
    out = box.unseal()
    assert os.listdir(out / "src/b") == []


def test_order_of_parts_with_one_seq(box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    """Parts of one seq go by time, then by part id: every reader sees the same."""
    from pqvault.archive import seal as seal_module
    from pqvault.archive.committing import make_commit

    def of_one_seq(state: Any, key: Any, files: Any, **options: Any) -> Any:
        commit = make_commit(state, key, files, **options)
        return key.sign_off(replace(commit, seq=5, created=commit.created // 10**9))

    monkeypatch.setattr(seal_module, "make_commit", of_one_seq)
    contents = {}
    for number in range(6):
        box.tree({"x": b"%d" % number})
        contents[box.seal().parts[0]] = b"%d" % number
    with box.open() as archive:
        order = [(p.commit.seq, p.commit.created, p.id) for p in archive.parts]
    assert order == sorted(order)
    assert box.contents()["src/x"] == ("f", contents[order[-1][2]])


def test_batches_of_many_parts_are_bounded(box: Box) -> None:
    """Batches come sorted over all parts, with the columns of the catalog."""
    for number in range(5):
        box.tree({f"{n}-{number}": noise(10, n) for n in range(50)})
        box.seal(append=number % 2 == 1)
    with box.open() as archive:
        batches = list(archive.batches())
        paths = [path for batch in batches for path in batch.column(0).to_pylist()]
        assert all(batch.schema == catalog.SCHEMA for batch in batches)
    assert paths == sorted(set(paths)) and len(paths) == 251
