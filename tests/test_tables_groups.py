"""Column groups: columns for other recipients, rows aligned, nothing silently left out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pytest
from tables_kit import GROUP, KEY, MEMBER, files, read, talk, write

import pqvault
from pqvault import tables
from pqvault.archive.publicstate import PublicState
from pqvault.errors import IntegrityError, NoKeyFits, NotFound, UsageError
from pqvault.rootkey import RootKey
from pqvault.storage import LocalStorage
from pqvault.tablefile import RowGroups
from pqvault.tables.facts import file_keys

SMALL = RowGroups(rows=100)


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    """Two parts of one table with a group."""
    for start in (0, 1000):
        write(
            tmp_path / "a.pqv", talk(1000, start), mode="append", groups=[GROUP], row_groups=SMALL
        )
    return tmp_path / "a.pqv"


def test_without_the_key_of_a_group_its_columns_are_not_there(archive: Path) -> None:
    """The other columns are read as if there were no group; naming one says whose key it takes."""
    data = tables.dataset(archive, "runs", identities=[KEY])
    assert data.schema.names == ["n", "model"]
    assert data.to_table().equals(pa.concat_tables([talk(2000)]).select(["n", "model"]))
    assert data.hidden == {"prompt": "pii", "answer": "pii"}
    for read_it in (
        lambda: data.to_table(["prompt"]),
        lambda: data.to_table(["n"], filter=pc.field("answer") == 1),
        lambda: data.count_rows(filter=pc.field("prompt") == "x"),
        lambda: data.head(1, columns=["answer"]),
        lambda: data.scanner(columns={"x": pc.field("answer") + 1}),
    ):
        with pytest.raises(NoKeyFits) as caught:
            read_it()
        assert MEMBER.key_id in caught.value.message and "'pii'" in caught.value.message
        assert caught.value.exit_code == 12
    with pytest.raises(NotFound, match="nothing"):
        data.to_table(filter=pc.field("nothing") == 1)


def test_members_read_everything_and_rows_stay_aligned(archive: Path) -> None:
    """A member has the part's root key too; columns of both files come together row by row."""
    data = tables.dataset(archive, "runs", identities=[MEMBER])
    assert data.to_table().equals(talk(2000)) and data.head(3).equals(talk(3))
    assert read(archive, key=MEMBER, columns=["answer", "n"]).equals(
        talk(2000).select(["answer", "n"])
    )
    reader = data.scanner(batch_size=10).to_reader()
    assert reader.schema == data.schema and max(map(len, reader)) == 10


def test_filters_on_one_group_select_rows_of_another(archive: Path) -> None:
    """Both ways, and over both at once; counted too."""
    data, whole = tables.dataset(archive, "runs", identities=[MEMBER]), talk(2000)
    for columns, filter in (
        (["n"], pc.field("answer") == 3),
        (["prompt"], pc.field("n") >= 1990),
        (["model", "answer"], (pc.field("n") > 100) & (pc.field("answer") < 2)),
        ([], pc.field("answer") == 3),
        (None, (pc.field("prompt") == "ask 7") | (pc.field("n") == 8)),
        (["prompt"], pc.field("answer") == 99),
    ):
        wanted = whole.filter(filter)
        found = data.to_table(columns, filter)
        assert found.num_rows == len(wanted) == data.count_rows(filter)
        assert found.equals(wanted.select(columns if columns is not None else wanted.schema.names))
    made = data.to_table({"x": pc.field("n") * 2}, filter=pc.field("answer") == 3)
    assert made.column("x").to_pylist() == [2 * n for n in range(2000) if n % 7 == 3]


def test_row_groups_that_cannot_match_are_not_read(
    archive: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A filter on a column of one file spares the row groups of the other file too."""
    from pqvault.archive import tablerows

    seen: list[tuple[int, tuple[str, ...]]] = []
    real = tablerows.PartRows.pieces

    def read_group(self: Any, index: int, names: Any, *more: Any) -> Any:
        seen.append((index, tuple(names)))
        return real(self, index, names, *more)

    monkeypatch.setattr(tablerows.PartRows, "pieces", read_group)
    data = tables.dataset(archive, "runs", identities=[MEMBER])
    assert data.to_table(["prompt"], filter=pc.field("n") == 1501).num_rows == 1
    assert seen == [(5, ("n",)), (5, ("prompt",))]


def test_groups_of_other_row_groups_are_refused(tmp_path: Path) -> None:
    """Files of a table that do not fit together are exit 13, not rows that belong to others."""

    def torn(self: Any) -> None:
        real(self)
        # What a writer gone wrong would do: the file of the group gets its rows in two pieces.
        rows = talk(10)
        self._out[0].write(rows)
        self._out[1].write(rows.slice(0, 5))
        self._out[1].write(rows.slice(5))
        self.rows += 10

    from pqvault.tablefile import writer

    real = writer.TableSink.end_row_group
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(writer.TableSink, "end_row_group", torn)
        write(tmp_path / "a.pqv", talk(10), groups=[GROUP])
    assert read(tmp_path / "a.pqv").num_rows == 20
    with pytest.raises(IntegrityError, match="other row groups"):
        read(tmp_path / "a.pqv", key=MEMBER)


def test_the_envelope_of_a_group_of_another_part_is_refused(archive: Path) -> None:
    """`root` in the catalog ties a group's envelope to it; a copied one names the wrong part."""
    one, two = sorted(path for path in (archive / "envelopes").iterdir() if path.suffix == ".pii")
    kept = one.read_bytes()
    one.write_bytes(two.read_bytes())
    with pytest.raises(IntegrityError, match="copied here"):
        read(archive, key=MEMBER)
    # Made anew for this very part by somebody who knows the members: another root key.
    part = one.stem
    other = RootKey.generate(PublicState(LocalStorage(archive)).archive, part)
    envelope = other.envelope([MEMBER.recipient], created=1, group="pii")
    one.write_bytes(envelope.marshal())
    with pytest.raises(IntegrityError, match="does not belong to its column group 'pii'"):
        read(archive, key=MEMBER)
    one.unlink()
    with pytest.raises(IntegrityError, match=r"envelope of column group 'pii' .* is missing"):
        read(archive, key=MEMBER)
    one.write_bytes(kept)
    assert read(archive, key=MEMBER).num_rows == 2000


def test_a_rotation_rewrites_the_envelopes_of_groups(archive: Path) -> None:
    """Whose key is replaced reads on with the new one; who is added to parts is not to groups."""
    new, friend = pqvault.Identity.generate(), pqvault.Identity.generate()
    pqvault.rotate([archive], to=new.recipient, add=[friend.recipient], identities=[MEMBER])
    assert read(archive, key=new).equals(talk(2000))
    with pytest.raises(NoKeyFits):
        read(archive, key=MEMBER)
    with pytest.raises(NoKeyFits, match="'pii'"):
        read(archive, key=friend, columns=["prompt"])
    assert read(archive, key=friend, columns=["n"]).num_rows == 2000


def test_verify_and_unseal_without_the_key_of_a_group(archive: Path, tmp_path: Path) -> None:
    """Both say what they could not look at."""
    report = pqvault.verify(archive, identities=[KEY])
    assert report.problems == [] and report.tables == 2 and len(report.unread) == 2
    report = pqvault.verify(archive, identities=[MEMBER])
    assert report.tables == 4 and report.unread == []
    with pqvault.open(archive, identities=[KEY]) as opened:
        done = opened.unseal(tmp_path / "out")
    assert done.tables == 1 and "answer, prompt" in done.skipped[0]
    import pyarrow.parquet as pq

    assert pq.read_table(tmp_path / "out/runs.parquet").schema.names == ["n", "model"]
    with pqvault.open(archive, identities=[MEMBER]) as opened:
        opened.unseal(tmp_path / "all")
    assert pq.read_table(tmp_path / "all/runs.parquet").equals(talk(2000))


def test_a_damaged_group_is_found(tmp_path: Path) -> None:
    """A flipped bit in the file of a group: other columns are read, those of the group are not."""
    archive = tmp_path / "a.pqv"
    write(archive, talk(1000), groups=[GROUP])
    with pqvault.open(archive, identities=[MEMBER]) as opened:
        file = archive / file_keys(opened, "runs")[1].file
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)
    assert read(archive, columns=["n"]).num_rows == 1000
    with pytest.raises(IntegrityError, match="tables/"):
        read(archive, key=MEMBER)
    assert any(
        file.name in p.message for p in pqvault.verify(archive, identities=[MEMBER]).problems
    )


@pytest.mark.parametrize("keys", [[], [KEY], [MEMBER]], ids=["none", "part's", "group's"])
def test_verify_names_the_envelope_of_a_group(archive: Path, keys: list[pqvault.Identity]) -> None:
    """Cut short it is named with any key and without one, and once."""
    path = next(path for path in (archive / "envelopes").iterdir() if path.suffix == ".pii")
    path.write_bytes(path.read_bytes()[:-5])
    [problem] = pqvault.verify(archive, identities=keys).problems
    assert f"envelopes/{path.name} has no whole MAC line" in problem.message


def test_what_no_group_can_be(tmp_path: Path) -> None:
    """Names, columns that are not there, two groups of one column, and nothing left outside."""
    archive = tmp_path / "a.pqv"
    with pytest.raises(UsageError, match="no name for a column group"):
        tables.ColumnGroup("../x", ("n",), (MEMBER.recipient,))
    with pytest.raises(UsageError, match="needs columns and recipients"):
        tables.ColumnGroup("x", ("n",), ())
    every = tables.ColumnGroup("x", tuple(talk(1).schema.names), (MEMBER.recipient,))
    for groups, words in (
        ([tables.ColumnGroup("x", ("q",), (MEMBER.recipient,))], "no column 'q'"),
        ([GROUP, tables.ColumnGroup("b", ("prompt",), (KEY.recipient,))], "in the groups"),
        ([GROUP, GROUP], "given twice"),
        ([every], "all columns"),
    ):
        with pytest.raises(UsageError, match=words):
            write(archive, talk(3), groups=groups)
    assert not any((archive / "commits").iterdir())


def test_a_column_hidden_in_one_part_is_hidden_in_all(tmp_path: Path) -> None:
    """None of its rows stand in for the whole."""
    archive = tmp_path / "a.pqv"
    write(archive, talk(5))
    write(archive, talk(5, 5), groups=[GROUP], mode="append")
    assert read(archive).schema.names == ["n", "model"] and read(archive).num_rows == 10
    both = [KEY, MEMBER]
    assert tables.read_table(archive, "runs", identities=both).equals(talk(10))


def test_reencrypt_gives_tables_and_groups_new_keys(archive: Path) -> None:
    """New root keys, new files, new envelopes of groups; rows, row groups and recipients stay."""
    before = {path.name for path in archive.rglob("*.parquet")}
    envelopes = {path.name for path in (archive / "envelopes").iterdir()}
    # Who lacks the key of a group cannot encrypt its columns again, and nothing is touched.
    with pytest.raises(NoKeyFits, match="column group 'pii'"):
        pqvault.reencrypt(archive, identities=[KEY], add=[MEMBER.recipient])
    assert {path.name for path in (archive / "envelopes").iterdir()} == envelopes
    report = pqvault.reencrypt(archive, identities=[MEMBER], add=[KEY.recipient])
    assert report.parts == 2
    assert read(archive, key=MEMBER).equals(talk(2000))
    assert read(archive).schema.names == ["n", "model"]
    left = {path.name for path in (archive / "envelopes").iterdir()}
    assert len(left) == 4 and not left & envelopes
    with pqvault.open(archive, identities=[MEMBER]) as opened:
        for entry in opened.find_table("runs"):
            assert entry.files[""].row_groups() == entry.files["pii"].row_groups() == [100] * 10
            assert not before & {file.file.partition("/")[2] for file in entry.doc.files}
    pqvault.gc(archive, older_than=0)
    assert not before & {path.name for path in archive.rglob("*.parquet")}
    assert pqvault.verify(archive, identities=[MEMBER]).problems == []


def test_leftovers_of_groups_are_collected(archive: Path) -> None:
    """gc takes the envelopes of groups with those of parts that are not there, and no others."""
    lost, kept = "0" * 32, {path.name for path in (archive / "envelopes").iterdir()}
    for name in (lost, f"{lost}.pii", f"{lost}.not a group"):
        (archive / "envelopes" / name).write_bytes(b"x")
    pqvault.gc(archive, older_than=0)
    assert {p.name for p in (archive / "envelopes").iterdir()} == kept | {f"{lost}.not a group"}


@pytest.mark.parametrize("groups", [[], [GROUP]], ids=["one file", "groups"])
def test_what_pyarrow_makes_of_a_dataset(archive: Path, groups: Any) -> None:
    """filter, take and sort_by give rows of all columns."""
    write(archive, talk(9), groups=groups)
    data = tables.dataset(archive, "runs", identities=[MEMBER if groups else KEY])
    late = data.filter(pc.field("n") > 4).filter(pc.field("prompt") != "ask 7")
    assert late.to_table(["answer", "n"]).to_pydict() == {"answer": [5, 6, 1], "n": [5, 6, 8]}
    assert late.count_rows() == 3 and late.count_rows(pc.field("answer") > 5) == 1
    assert late.head(1, columns=["n"]).to_pydict() == {"n": [5]}
    assert sum(map(len, late.to_batches())) == 3 == late.reader().read_all().num_rows
    assert data.take([8, 0])["prompt"].to_pylist() == ["ask 8", "ask 0"]
    assert data.sort_by([("answer", "descending")]).head(1)["n"].to_pylist() == [6]


@pytest.mark.parametrize("groups", [[], [GROUP]], ids=["one file", "groups"])
def test_an_expression_that_fails_is_not_damage(archive: Path, groups: Any) -> None:
    """Unless the rows are damaged too, which is said first."""
    part = write(archive, talk(9), groups=groups)
    data = tables.dataset(archive, "runs", identities=[MEMBER if groups else KEY])
    for wrong in (
        pc.scalar(1) / pc.field("answer") > 1,
        pc.field("prompt").cast("int64") > 1,
        pc.match_substring_regex(pc.field("prompt"), "("),
    ):
        for asked in ({"filter": wrong}, {"columns": {"it": wrong}}):
            with pytest.raises(UsageError, match="table runs does not take the expression"):
                data.to_table(**asked)
        with pytest.raises(UsageError, match="does not take"):
            data.count_rows(wrong)
    for file in files(archive, part):
        content = bytearray(file.read_bytes())
        content[len(content) // 3] ^= 1
        file.write_bytes(content)
    with pytest.raises(IntegrityError, match="failed authentication"):
        data.to_table(filter=pc.field("prompt").cast("int64") > 1)


@pytest.mark.parametrize("groups", [(), ("", "s.b")], ids=["one file", "groups"])
def test_columns_of_any_name(archive: Path, groups: Any) -> None:
    """The first of many CSV files has none; Arrow's scans have names of their own."""
    names = ["", "#", "##", "a.b", "A", "a", "s.b", "__filename", "__fragment_index", "*", 'q"q']
    columns = {name: [number, number + 100] for number, name in enumerate(names)}
    table = pa.table({**columns, "s": [{"b": 1}, {"b": 2}]})
    group = [tables.ColumnGroup("g", groups, (KEY.recipient,))] if groups else []
    write(archive, table, groups=group)
    data = tables.dataset(archive, "runs", identities=[KEY])
    assert data.to_table().equals(table)
    for number, name in enumerate(names):
        assert data.to_table([name])[name].to_pylist() == columns[name]
        if not name.startswith("__"):
            assert data.to_table(["s"], pc.field(name) > 50)["s"].to_pylist() == [{"b": 2}]
            assert data.count_rows(pc.field(name) == number) == 1


def test_columns_by_their_place(archive: Path) -> None:
    """`pc.field(0)` is the first of the columns that are seen, whatever file it is in."""
    write(archive, talk(9), groups=[tables.ColumnGroup("g", ("n", "prompt"), (MEMBER.recipient,))])
    data = tables.dataset(archive, "runs", identities=[MEMBER])
    assert data.to_table(["prompt"], pc.field(0) > 7).to_pydict() == {"prompt": ["ask 8"]}
    assert data.count_rows(pc.field(3) == 6) == 1
    both = {"model": pc.field("model"), "n": pc.field(0)}
    assert data.to_table(both, pc.field("n") == 3).to_pydict() == {"model": ["a"], "n": [3]}
    less = tables.dataset(archive, "runs", identities=[KEY])
    assert less.schema.names == ["model", "answer"]
    assert less.to_table({"it": pc.field(1)})["it"].to_pylist() == talk(9)["answer"].to_pylist()
    with pytest.raises(UsageError, match="evaluate to bool"):
        data.to_table(filter=pc.field("n"))
