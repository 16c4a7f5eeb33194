"""`pqvault compact`: many parts become few, and the archive holds what it held."""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from click.testing import CliRunner
from conftest import make_tree
from test_prune import KEY, listing, seal, states

import pqvault
from pqvault.archive import compact
from pqvault.archive.compact import Compaction, CompactReport
from pqvault.archive.differences import differences
from pqvault.archive.retired import retire
from pqvault.errors import (
    IntegrityError,
    Locked,
    NoKeyFits,
    NotFound,
    PolicyRefused,
    UsageError,
)
from pqvault.keys import Recipient
from pqvault.policy import Policy
from pqvault.signing import SigningKey
from pqvault.storage import LocalStorage
from pqvault.storage.localfiles import LocalSink
from pqvault_cli.main import cli

pytestmark = pytest.mark.usefixtures("home")


def ours(key_id: str) -> Recipient | None:
    return KEY.recipient if key_id == KEY.key_id else None


def run(
    archive: Path, find: Callable[[str], Recipient | None] = ours, **options: Any
) -> CompactReport:
    return Compaction(LocalStorage(archive), [KEY], find, **options).run()


def plain(found: list[Any]) -> list[Any]:
    """All but where content lies."""
    return [
        (e.path, "f" if e.kind.letter == "h" else e.kind.letter, e.size, e.mode, e.mtime_ns,
         None if e.kind.letter == "h" else e.link, e.digest, content)
        for e, content in found
    ]  # fmt: skip


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    """Six parts: files of many sizes, a link, a hard link whose first name changes, removals."""
    rng, source, path = random.Random(3), tmp_path / "src", tmp_path / "a.pqv"
    make_tree(source, {"first": b"f" * 3000, "big": rng.randbytes(9_000_000), "link": "first"})
    os.link(source / "first", source / "second")
    (source / "sparse").write_bytes(b"x")
    os.truncate(source / "sparse", 5_000_000)
    for number in range(6):
        (source / f"text{number}").write_bytes(b"line of text\n" * rng.randrange(9000))
        if number == 2:
            (source / "first").unlink()
            (source / "first").write_bytes(b"another")
        if number == 4:
            (source / "text1").unlink()
        seal(source, path)
    return path


def test_all_parts_become_one(archive: Path, tmp_path: Path) -> None:
    ids, before = states(archive), listing(archive)
    told = run(archive, dry_run=True)
    assert states(archive) == ids and told.merged == [ids] and told.left == 1
    report = run(archive)
    assert (report.parts, report.left, states(archive)) == (6, 1, report.new)
    assert plain(listing(archive)) == plain(before)
    assert report.copied >= 9_000_000 and report.after < report.before
    assert pqvault.verify(archive, identities=[KEY]).problems == []
    pqvault.gc(archive, older_than=0)
    assert len(list((archive / "parts").iterdir())) == 1
    assert plain(listing(archive)) == plain(before)
    with pqvault.open(archive, identities=[KEY]) as opened:
        assert opened.unseal(tmp_path / "out").failed == []
    # A host that has public keys only knows what it sealed.
    again = pqvault.seal(tmp_path / "src", archive, recipients=[KEY.recipient])
    assert again.parts == []
    assert run(archive).merged == []


def test_states_that_are_kept_stay(archive: Path) -> None:
    ids = states(archive)
    before = {part: plain(listing(archive, part)) for part in ids[3:]}
    report = run(archive, keep_last=3)
    now = states(archive)
    assert report.merged == [ids[:4]] and now[1:] == ids[4:]
    assert [plain(listing(archive, part)) for part in now] == [*before.values()]
    with pytest.raises(NotFound, match="replaced by part"):
        listing(archive, ids[1])


def test_a_large_part_stays_and_later_ones_remove_from_it(archive: Path) -> None:
    """Tombstones are kept where something before them is."""
    ids, before = states(archive), listing(archive)
    report = run(archive, large=5_000_000)
    assert report.merged == [ids[1:]] and states(archive)[0] == ids[0]
    assert plain(listing(archive)) == plain(before)
    assert pqvault.verify(archive, identities=[KEY]).problems == []


@pytest.mark.parametrize(
    "seed", [0, *(pytest.param(n, marks=pytest.mark.slow) for n in range(1, 20))]
)
def test_any_history(tmp_path: Path, seed: int) -> None:
    rng, source, path = random.Random(seed), tmp_path / "src", tmp_path / "a.pqv"
    make_tree(source, {"large": rng.randbytes(300_000)})
    for number in range(6):
        for name in "pqr":
            target = source / name
            if target.is_dir():
                shutil.rmtree(target)
            target.unlink(missing_ok=True)
            kind = rng.choice(["none", "file", "file", "folder", "folder"])
            if kind == "file":
                target.write_bytes(rng.choice([b"one", b"%d" % number]))
            elif kind == "folder":
                make_tree(target, {f: b"%d" % rng.randrange(2) for f in rng.sample("xyz", 2)})
        seal(source, path)
    before = plain(listing(path))
    report = run(path, large=rng.choice([200_000, 1 << 30]))
    assert len(report.new) == 1 and plain(listing(path)) == before
    assert pqvault.verify(path, identities=[KEY]).problems == []
    with pqvault.open(path, identities=[KEY]) as one, pqvault.open(path, identities=[KEY]) as two:
        assert list(differences(one, two)) == []


def test_nobody_opens_more_than_before(archive: Path) -> None:
    """Parts of other recipients are not merged, and an unknown public key is an error."""
    other = pqvault.Identity.generate()
    source = archive.parent / "src"
    (source / "new").write_bytes(b"new")
    both = [KEY.recipient, other.recipient]
    pqvault.seal(source, archive, recipients=both, identities=[KEY])
    (source / "newer").write_bytes(b"newer")
    pqvault.seal(source, archive, recipients=both, identities=[KEY])
    ids = states(archive)
    assert run(archive, dry_run=True).merged == [ids[:6], ids[6:]]
    with pytest.raises(UsageError, match="not known here"):
        run(archive)
    run(archive, lambda key_id: other.recipient if key_id == other.key_id else ours(key_id))
    assert len(states(archive)) == 2
    with pytest.raises(NoKeyFits):
        listing_of(archive, other)


def listing_of(archive: Path, key: pqvault.Identity) -> None:
    with pqvault.open(archive, identities=[key]) as opened:
        list(opened.entries())


def test_signed_parts_need_a_signature(tmp_path: Path) -> None:
    signer, source, path = SigningKey.generate(), tmp_path / "src", tmp_path / "a.pqv"
    for number in range(2):
        make_tree(source, {f"f{number}": b"x"})
        pqvault.seal(source, path, recipients=[KEY.recipient], sign=[signer])
    with pytest.raises(PolicyRefused, match="signed"):
        run(path)
    assert len(states(path)) == 2
    run(path, sign=[signer])
    assert len(states(path)) == 1
    assert pqvault.verify(path, identities=[KEY]).problems == []


def test_what_was_added_unsigned_is_not_signed_unseen(tmp_path: Path) -> None:
    """attack 7: not with what is signed beside it, whoever accepts what is unsigned."""
    signer, source, path = SigningKey.generate(), tmp_path / "src", tmp_path / "a.pqv"
    anybody = Policy(allow_unsigned=True)
    for number, sign in enumerate(([signer], [])):
        make_tree(source, {f"f{number}": b"x"})
        pqvault.seal(source, path, recipients=[KEY.recipient], sign=sign, policy=anybody)
    report = run(path, sign=[signer], policy=anybody, dry_run=True)
    assert (report.merged, report.left) == ([], 2)


def test_a_retired_key_gets_no_new_part(archive: Path) -> None:
    """docs/format.md 5.4; one that opens only parts that stay as they are is in nobody's way."""
    other, ids = pqvault.Identity.generate(), states(archive)
    pqvault.rotate(archive, identities=[KEY], add=[other.recipient])
    with pqvault.open(archive, identities=[KEY]) as opened:
        key = opened.parts[0].key
    retire(LocalStorage(archive), key, other.key_id)
    for dry_run in (True, False):
        with pytest.raises(
            PolicyRefused, match=f"{other.key_id} is retired in .* opens part"
        ) as no:
            run(archive, lambda key_id: ours(key_id) or other.recipient, dry_run=dry_run)
        assert no.value.hint == f"take it off with `pqvault rotate --remove {other.key_id}`"
    assert states(archive) == ids
    pqvault.rotate(archive, identities=[KEY], remove=[other.key_id])
    run(archive)
    assert len(states(archive)) == 1


def test_no_part_stays_unsigned_after_one_that_is_signed(
    archive: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Readers refuse that, and so would the next run, at every moment."""
    signer, source, ids = SigningKey.generate(), archive.parent / "src", states(archive)
    for dry_run in (True, False):
        with pytest.raises(PolicyRefused, match="is not signed, and would come after"):
            run(archive, keep_last=2, sign=[signer], dry_run=dry_run)
    assert states(archive) == ids
    other, put, counts = pqvault.Identity.generate(), compact.put_part, list[int]()
    for name in ("new", "newer"):
        (source / name).write_bytes(b"for both")
        pqvault.seal(source, archive, recipients=[KEY.recipient, other.recipient], identities=[KEY])

    def look(*args: Any) -> None:
        put(*args)
        counts.append(len(states(archive)))

    before = listing(archive)
    monkeypatch.setattr(compact, "put_part", look)
    run(archive, lambda key_id: ours(key_id) or other.recipient, sign=[signer])
    assert counts == [7, 2]
    assert plain(listing(archive)) == plain(before)


def test_a_rotation_meanwhile_is_not_undone(archive: Path) -> None:
    """The new part would be sealed to whom the old ones were: to the key that gave way, and not to
    the one in its place."""
    new = pqvault.Identity.generate()
    rotated: list[pqvault.RotateReport] = []

    def rotate(_: Any) -> None:
        if not rotated:
            rotated.append(pqvault.rotate(archive, identities=[KEY], to=new.recipient))

    with pytest.raises(Locked, match="changed by others"):
        run(archive, progress=rotate)
    assert rotated[0].rewrapped == 6
    with pqvault.open(archive, identities=[new]) as opened:
        assert len(opened.parts) == 6
    with pytest.raises(NoKeyFits):
        listing_of(archive, KEY)
    assert len(list((archive / "envelopes").iterdir())) == 6
    assert pqvault.compact(archive, identities=[new]).left == 1
    assert pqvault.verify(archive, identities=[new]).problems == []


def test_a_content_that_is_not_what_its_commit_says_is_not_taken(archive: Path) -> None:
    """Who has an old root key could have exchanged an object: authentic is not enough."""
    before = states(archive)
    name = next((archive / "parts" / before[0] / "objects").iterdir())
    data = bytearray(name.read_bytes())
    data[len(data) // 2] ^= 1
    name.write_bytes(data)
    with pytest.raises(pqvault.errors.IntegrityError):
        run(archive)
    assert states(archive) == before
    assert {p.name for p in (archive / "parts").iterdir()} == set(before)


@pytest.mark.parametrize("wrong", ["content", "entries"])
def test_what_does_not_read_back_as_it_was_takes_nothings_place(
    archive: Path, monkeypatch: pytest.MonkeyPatch, wrong: str
) -> None:
    """attack 33: a disk that keeps something else than was written; a merge that forgets a file."""
    before, finish, merge = states(archive), LocalSink.finish, compact.merged_table

    def forgetful(sink: LocalSink) -> None:
        path = Path(sink._storage.where(sink._name))
        finish(sink)
        if "/objects/" in sink._name and wrong == "content":
            data = bytearray(path.read_bytes())
            data[len(data) // 2] ^= 1
            path.write_bytes(data)

    def merged(*given: Any) -> Any:
        table = merge(*given)
        return table.slice(0, len(table) - (wrong == "entries"))

    monkeypatch.setattr(LocalSink, "finish", forgetful)
    monkeypatch.setattr(compact, "merged_table", merged)
    with pytest.raises(IntegrityError, match="not the same" if wrong == "entries" else "failed"):
        run(archive)
    assert states(archive) == before
    assert {p.name for p in (archive / "parts").iterdir()} == set(before)


def test_the_functions(archive: Path) -> None:
    """As programs call them."""
    before = listing(archive)
    pruned = pqvault.prune(archive, identities=[KEY], keep_last=2)
    merged = pqvault.compact(archive, identities=[KEY], recipients=[KEY.recipient])
    assert pruned.removed and len(merged.new) == 1 and merged.left == 1
    assert plain(listing(archive)) == plain(before)


def test_the_command(archive: Path, tmp_path: Path) -> None:
    KEY.save_file(tmp_path / "key.txt")
    args = ["compact", str(archive), "-i", str(tmp_path / "key.txt")]
    shown = CliRunner().invoke(cli, args)
    assert isinstance(shown.exception, UsageError)
    shown = CliRunner().invoke(cli, [*args, "--keep-last", "1"])
    assert shown.exit_code == 0 and "merged 6 parts into 1" in shown.output, shown.output


def test_parts_with_tables_are_named_and_left(archive: Path, tmp_path: Path) -> None:
    """They are not merged, and it is said: by the report, by the command, and by its dry run."""
    from pqvault.tables import write_table

    before = pa.table({"n": [1, 2]})
    write_table(archive, "t", before, recipients=[KEY.recipient])
    write_table(archive, "t", before, recipients=[KEY.recipient], mode="append")
    with pqvault.open(archive, identities=[KEY]) as opened:
        tables = [part.id for part in opened.parts[-2:]]
    KEY.save_file(tmp_path / "key.txt")
    args = ["compact", str(archive), "-i", str(tmp_path / "key.txt"), "--keep-last", "1"]
    for more, did in (["--dry-run"], "would merge 8 parts into 3"), ([], "merged 8 parts into 3"):
        shown = CliRunner().invoke(cli, [*args, *more, "-v"])
        assert shown.exit_code == 0 and did in shown.output, shown.output
        assert "2 parts with tables left as they are" in shown.output
        assert all(f"{part}: holds tables" in shown.output for part in tables)
    report = run(archive)
    assert (report.merged, report.tables, report.left) == ([], tables, 3)
