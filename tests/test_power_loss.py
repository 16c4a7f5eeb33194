"""attack 33: the power goes while an archive is changed, and takes along what no fsync has kept.

After each call that changes something, with everything lost that may be lost (and all removed that
was), with nothing lost, and with half of each unfinished write: what was promised by then is there,
and what is there opens.
"""

from __future__ import annotations

import io
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import steps_kit
from conftest import make_tree
from disks import Disk, State, restore

import pqvault
from pqvault import keyfile, wholefile
from pqvault.crypto.passphrase import Cost
from pqvault.keystore import Keystore
from pqvault.rotation import runs, streams
from pqvault.rotation.change import Change
from pqvault_cli import key_escrow

OLD, NEW = pqvault.Identity.generate(), pqvault.Identity.generate()


class Power:
    """An archive on a `Disk`, and each state that a power loss could have left of it."""

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.archive, self.source = root / "a.pqv", root / "src"
        self._root, self._patch = root, monkeypatch
        self._states: dict[str, tuple[State, list[bytes]]] = {}
        self.promised: list[bytes] = []  # names of files that a call which ended has sealed

    def during(self, work: Callable[[], object]) -> None:
        """Do it on the disk, which holds durably what is there by now."""
        self.archive.mkdir(exist_ok=True)
        disk = Disk(self.archive, lambda: self._remember(disk))
        disk.hold(self.archive)
        with self._patch.context() as patch:
            for module in steps_kit.storage_modules():
                patch.setattr(module, "os", disk)
            work()
        for path, data in disk.most().items():  # the model is the disk, where nothing is lost
            assert data is None or (self.archive / path).read_bytes() == data
        self._last = disk

    def seal(self, name: str, **options: Any) -> None:
        """One more file, in a part of its own; promised from now on."""
        make_tree(self.source, {name: name.encode() * 1000})
        options = {"recipients": [OLD.recipient], "jobs": 1, **options}
        self.during(lambda: pqvault.seal(self.source, self.archive, **options))
        self.promise(name.encode())

    def promise(self, *names: bytes) -> None:
        self.promised = [*self.promised, *names]
        self._remember(self._last)

    def _remember(self, disk: Disk) -> None:
        for state in (disk.least(), disk.swept(), disk.most(), disk.torn()):
            text = repr(sorted(state.items()))
            known = self._states.get(text, (state, []))[1]
            if text not in self._states or len(known) < len(self.promised):
                self._states[text] = (state, self.promised)

    def least(self) -> Path:
        """What is durable by now, as an archive."""
        root = self._root / "least"
        restore(self._last.least(), root)
        return root

    def states(self) -> Iterator[tuple[Path, list[bytes]]]:
        """Each as an archive, with what must be in it."""
        for number, (state, promised) in enumerate(self._states.values()):
            root = self._root / f"state{number}"
            restore(state, root)
            yield root, promised
            shutil.rmtree(root)


def contents(archive: Path, *keys: pqvault.Identity) -> dict[bytes, bytes]:
    """All files, every byte of the archive found good."""
    if not (archive / "pqvault.json").exists():
        return {}
    assert pqvault.verify(archive, identities=keys).problems == []
    with pqvault.open(archive, identities=keys) as opened:
        files = [e.path for e in opened.entries() if e.kind.letter == "f"]
        return {path.rpartition(b"/")[2]: opened.open_file(path).read() for path in files}


@pytest.fixture
def power(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Power:
    return Power(tmp_path, monkeypatch)


def check(power: Power, *keys: pqvault.Identity) -> int:
    """Every state; returns how many there were."""
    count = 0
    for archive, promised in power.states():
        found = contents(archive, *keys)
        assert found.keys() >= set(promised), (count, promised)
        assert all(data == name * 1000 for name, data in found.items())
        count += 1
    return count


def test_a_seal_that_ended_outlives_the_power(power: Power) -> None:
    """A new archive, then a second part: no commit without all that it names."""
    power.seal("one")
    power.seal("two")
    assert check(power, OLD) > 40


def test_a_rotated_envelope_is_the_old_or_the_new(power: Power) -> None:
    power.seal("one")
    change = {"to": NEW.recipient, "identities": [OLD, NEW]}
    power.during(lambda: pqvault.rotate([power.archive], **change))
    power.promise()
    assert check(power, OLD, NEW) > 20
    assert contents(power.least(), NEW) == {b"one": b"one" * 1000}


def test_a_part_that_is_encrypted_again_goes_when_the_new_one_is_durable(power: Power) -> None:
    power.seal("one")
    change = {"to": NEW.recipient, "identities": [OLD, NEW]}
    power.during(lambda: pqvault.reencrypt([power.archive], **change))
    power.promise()
    assert check(power, OLD, NEW) > 30
    assert contents(power.least(), NEW) == {b"one": b"one" * 1000}


def test_parts_that_are_merged_go_when_the_new_one_is_durable(power: Power) -> None:
    power.seal("one")
    power.seal("two")
    power.during(lambda: pqvault.compact(power.archive, identities=[OLD]))
    power.promise()
    assert check(power, OLD) > 60
    with pqvault.open(power.least(), identities=[OLD]) as archive:
        assert len(archive.parts) == 1


class Calls:
    """`os` for a module under test, which notes what makes files and their names durable."""

    def __init__(self) -> None:
        self.said: list[tuple[str, Any]] = []

    def __getattr__(self, name: str) -> Any:
        real = getattr(os, name)
        if name not in ("fsync", "rename", "link"):
            return real

        def call(*args: Any, **options: Any) -> Any:
            done = real(*args, **options)
            if name == "fsync":
                info = os.fstat(args[0])
                self.said.append(("synced", (info.st_dev, info.st_ino)))
            else:
                self.said.append(("named", os.path.basename(args[1])))
            return done

        return call

    def check(self, path: Path, *, by_sqlite: bool = False) -> None:
        """The bytes were durable before they had the name, and then the name was made so."""
        file, folder = path.stat(), path.parent.stat()
        named = [at for at, said in enumerate(self.said) if said == ("named", path.name)]
        if not by_sqlite:
            synced = self.said.index(("synced", (file.st_dev, file.st_ino)))
            assert all(synced < at for at in named)
            named.append(synced)
        assert ("synced", (folder.st_dev, folder.st_ino)) in self.said[max(named) :]


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Calls:
    calls = Calls()
    for module in (wholefile, keyfile, streams, runs, key_escrow):
        monkeypatch.setattr(module, "os", calls)
    return calls


@pytest.mark.parametrize("force", [False, True])
def test_an_output_is_durable_before_it_has_its_name(
    tmp_path: Path, calls: Calls, force: bool
) -> None:
    out = tmp_path / "out"
    if force:
        out.write_bytes(b"old")
    with wholefile.whole_file(out, force=force) as file:
        file.write(b"new")
    calls.check(out)


@pytest.mark.parametrize("change", [pqvault.rotate, pqvault.reencrypt])
def test_a_stream_is_the_old_or_the_new_one(tmp_path: Path, calls: Calls, change: Any) -> None:
    path = tmp_path / "s.pqv"
    with path.open("wb") as out:
        pqvault.encrypt(io.BytesIO(b"of the stream"), out, [OLD.recipient])
    change([path], to=NEW.recipient, identities=[OLD, NEW])
    calls.check(path)


def test_what_opens_an_archive_is_durable_before_anything_is_sealed_to_it(
    tmp_path: Path, calls: Calls
) -> None:
    """Private keys, shares of a keystore, a keystore: nothing else opens what is sealed next."""
    OLD.save_file(tmp_path / "key")
    calls.check(tmp_path / "key")
    shares = [tmp_path / "home" / "share-1", tmp_path / "away" / "share-2"]
    key_escrow._write_secrets(shares, ["some", "words"])
    for path in shares:
        calls.check(path)
    Keystore.create(b"words", cost=Cost(8, 1, 1), path=tmp_path / "keystore").close()
    calls.check(tmp_path / "keystore", by_sqlite=True)


def test_a_plan_is_durable_before_anything_is_done(calls: Calls) -> None:
    with runs.Run.create(["/a.pqv"], Change()) as run:
        calls.check(run.path)
