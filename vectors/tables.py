"""Tables, docs/format.md section 10: what a reader gets out of each, by description and files.

``python -m vectors.tables`` writes them again, the same each time. Each is a JSON file with the
root keys, so that nothing is wrapped; see README.md. The descriptions, keys and AAD prefixes are
made by hand from the page, with nothing of pqvault. The Parquet files were written once, by
pyarrow 26 (``--new-files``), and stand in ``tables.json``: their nonces are random.
"""

from __future__ import annotations

import base64
import json
import sys
from pathlib import Path
from typing import Any, Final

from vectors.registry import Registry, write_files
from vectors.testkit import ARCHIVE, HERE, Root, bind, flip

FOLDER: Final = HERE / "tables"
FILES: Final = HERE / "tables.json"
PART: Final = Root("a part with a table", ARCHIVE)
GROUP: Final = Root("a column group", ARCHIVE, part=PART.part)
MAIN: Final = "tables/6d61696e6d61696e6d61696e6d61696e.parquet"
ASIDE: Final = "tables/61736964656173696465617369646561.parquet"
ROWS: Final = {"n": [1, 2, 3], "text": ["a", "b", None]}

Case = dict[str, Any]
case: Final = Registry[Case]()


def known() -> dict[str, bytes]:
    """The files that stand in tables.json."""
    value = json.loads(FILES.read_text())
    return {name: base64.b64decode(text) for name, text in value.items()}


def root_of(root: Root) -> str:
    """``root`` of a file: section 10.1."""
    return root.derive(32, "commit id").hex()


def description(**changes: Any) -> str:
    """Section 10.1, by default of one file with both columns."""
    fields = {
        "mode": "replace",
        "rows": 3,
        "schema": base64.b64encode(known()["schema"]).decode(),
        "files": [one()],
        "source": [],
    }
    return json.dumps(fields | changes, separators=(",", ":"))


def one(**changes: Any) -> Case:
    """The file of both columns, as a description has it."""
    return {"group": "", "root": root_of(PART), "file": MAIN, "columns": [0, 1]} | changes


def aside(**changes: Any) -> Case:
    """The file of a column group."""
    return {"group": "pii", "root": root_of(GROUP), "file": ASIDE, "columns": [1]} | changes


def table(main: str | bytes = "both", **changes: Any) -> Case:
    """A table of one file: one of tables.json, or its bytes. ``changes``: of the description."""
    data = known()[main] if isinstance(main, str) else main
    return {"table": description(**changes), "files": {MAIN: data}}


def grouped(other: str = "text", **changes: Any) -> Case:
    """A table of two files."""
    files = [one(columns=[0]), aside(**changes)]
    data = {MAIN: known()["n"], ASIDE: known()[other]}
    return {"table": description(files=files), "files": data}


@case("one file, two columns, three rows")
def one_file() -> Case:
    return table() | {"rows": ROWS}


@case("a column in a group: two files under two root keys")
def two_files() -> Case:
    return grouped() | {"rows": ROWS}


@case("mode append, and the source that it was made from")
def appended() -> Case:
    return table(mode="append", source=[12, "ab" * 32]) | {"rows": ROWS}


@case("the rows are in two row groups")
def two_row_groups() -> Case:
    return table("two groups") | {"rows": ROWS}


@case("a plaintext Parquet file in the table's place")
def plaintext() -> Case:
    return table("plain")


@case("an encrypted file with a plaintext footer")
def plaintext_footer() -> Case:
    return table("plain footer")


@case("encrypted by AES_GCM_V1 under the right key, with an AAD prefix of its own stored in it")
def prefix_of_its_own() -> Case:
    return table("own prefix")


@case("encrypted under the right key for another name: the AAD prefix is not this file's")
def prefix_of_another_name() -> Case:
    return table("other prefix")


@case("the file of another name, whole: key and AAD prefix are that one's")
def file_of_another_name() -> Case:
    return table("elsewhere")


@case("one bit of a page flipped")
def page_flipped() -> Case:
    return table(flip(known()["both"], 40))


@case("one bit of the footer flipped")
def footer_flipped() -> Case:
    return table(flip(known()["both"], len(known()["both"]) - 40))


@case("the magic at the end is that of plaintext Parquet")
def magic_at_the_end() -> Case:
    return table(known()["both"][:-4] + b"PAR1")


@case("seven bytes: no file has fewer than both magics")
def seven_bytes() -> Case:
    return table(b"PAREPAR")


@case("the description says one row more than the file has")
def rows_too_many() -> Case:
    return table(rows=4)


@case("the file lacks a column of the description")
def column_missing() -> Case:
    return table("n")


@case("the columns are in another order than the description says")
def columns_swapped() -> Case:
    return table("swapped")


@case("`root` is not that of the part's root key")
def root_of_another_key() -> Case:
    return table(files=[one(root=root_of(GROUP))])


@case("`root` of the group is that of the part")
def root_of_the_part_in_a_group() -> Case:
    return grouped(root=root_of(PART))


@case("the group's file has other row groups than the other file")
def row_groups_that_do_not_fit() -> Case:
    return grouped("text in two groups")


@case("the schema is cut")
def schema_cut() -> Case:
    return table(schema=base64.b64encode(known()["schema"][:-16]).decode())


@case("bytes behind the schema")
def schema_with_bytes_behind() -> Case:
    return table(schema=base64.b64encode(known()["schema"] + bytes(8)).decode())


@case("a schema with two columns of one name")
def schema_of_one_name_twice() -> Case:
    return table(schema=base64.b64encode(known()["schema twice"]).decode())


@case("a schema with another type than the file has")
def schema_of_another_type() -> Case:
    return table(schema=base64.b64encode(known()["schema of floats"]).decode())


@case("mode that is not known")
def mode_unknown() -> Case:
    return table(mode="merge")


@case("a column in no file")
def column_in_no_file() -> Case:
    return table(files=[one(columns=[0])])


@case("a column in two files")
def column_in_two_files() -> Case:
    found = grouped()
    return found | {"table": description(files=[one(), aside()])}


@case("a column twice in one file")
def column_twice() -> Case:
    return table(files=[one(columns=[0, 1, 1])])


@case("the columns of a file do not ascend")
def columns_not_ascending() -> Case:
    return table(files=[one(columns=[1, 0])])


@case("a column that the schema does not have")
def column_behind_the_schema() -> Case:
    return table(files=[one(columns=[0, 1, 2])])


@case("no file")
def no_file() -> Case:
    return table(files=[])


@case("the first file is of a group")
def first_file_of_a_group() -> Case:
    return table(files=[one(group="pii")])


@case("the files do not ascend by group")
def files_in_other_order() -> Case:
    found = grouped()
    return found | {"table": description(files=[aside(), one(columns=[0])])}


@case("two files of one group")
def group_twice() -> Case:
    found = grouped()
    return found | {"table": description(files=[one(columns=[0]), aside(group="")])}


@case("one file named twice")
def file_twice() -> Case:
    return grouped(file=MAIN)


@case("a group of a name that none may have")
def group_in_capitals() -> Case:
    return grouped(group="PII")


@case("a file that is no table file")
def file_is_the_catalog() -> Case:
    return table(files=[one(file="catalog")])


@case("rows as text")
def rows_as_text() -> Case:
    return table(rows="3")


@case("a source without a digest")
def source_without_digest() -> Case:
    return table(source=[12])


def described(text: str) -> Case:
    """A good file, described by this text."""
    return table() | {"table": text}


@case("the keys of the description in another order")
def keys_in_other_order() -> Case:
    fields = json.loads(description())
    return described(json.dumps({"rows": 3, **fields}, separators=(",", ":")))


@case("a key that is not known")
def unknown_key() -> Case:
    return table(note="")


@case("a key twice")
def key_twice() -> Case:
    return described(description().replace('"rows":3', '"rows":3,"rows":3'))


@case("a space in the description")
def space() -> Case:
    return described(description().replace(",", ", ", 1))


@case("an LF behind the description")
def line_feed() -> Case:
    return described(description() + "\n")


def make_all() -> dict[Path, bytes]:
    """Every vector: the path of its file, and the bytes that belong there."""
    made = {}
    for name, (comment, make) in case.cases.items():
        found = make()
        value = {
            "comment": comment,
            "archive": PART.archive.hex(),
            "part": PART.part.hex(),
            "root_key": PART.secret.hex(),
            "group_key": GROUP.secret.hex(),
            "rows": found.get("rows"),
            "table": found["table"],
            "files": {n: base64.b64encode(data).decode() for n, data in found["files"].items()},
        }
        made[FOLDER / f"{name}.json"] = json.dumps(value, indent=1).encode() + b"\n"
    return made


def new_files() -> dict[str, bytes]:
    """Write the Parquet files anew."""
    import pyarrow as pa
    import pyarrow.parquet as pq
    import pyarrow.parquet.encryption as pe

    rows = pa.table({"n": pa.array(ROWS["n"], pa.int64()), "text": ROWS["text"]})

    def write(
        data: pa.Table, root: Root = PART, name: str = MAIN, group: int = 3, **options: Any
    ) -> bytes:
        fields = (root.archive, root.part, name.encode())
        key = root.derive(32, "table", name.encode())
        options = {
            "aad_prefix": bind("table", *fields), "store_aad_prefix": False, **options,
        }  # fmt: skip
        sink = pa.BufferOutputStream()
        properties = pe.create_encryption_properties(key, **options)
        pq.write_table(data, sink, row_group_size=group, encryption_properties=properties)
        return bytes(sink.getvalue())

    plain = pa.BufferOutputStream()
    pq.write_table(rows, plain)
    other = bind("table", PART.archive, PART.part, ASIDE.encode())
    n, text = rows.schema
    return {
        "schema": bytes(rows.schema.serialize()),
        "schema twice": bytes(pa.schema([n, text.with_name("n")]).serialize()),
        "schema of floats": bytes(pa.schema([n.with_type(pa.float64()), text]).serialize()),
        "both": write(rows),
        "two groups": write(rows, group=2),
        "n": write(rows.select(["n"])),
        "swapped": write(rows.select(["text", "n"])),
        "text": write(rows.select(["text"]), GROUP, ASIDE),
        "text in two groups": write(rows.select(["text"]), GROUP, ASIDE, group=2),
        "plain": bytes(plain.getvalue()),
        "plain footer": write(rows, plaintext_footer=True),
        "own prefix": write(rows, aad_prefix=b"its own", store_aad_prefix=True),
        "other prefix": write(rows, aad_prefix=other),
        "elsewhere": write(rows, name=ASIDE),
    }


def main(arguments: list[str]) -> None:
    """Write them, and remove those that are made no more."""
    if arguments == ["--new-files"]:
        files = {name: base64.b64encode(data).decode() for name, data in new_files().items()}
        FILES.write_text(json.dumps(files, indent=1) + "\n")
    write_files(FOLDER, make_all())


if __name__ == "__main__":
    main(sys.argv[1:])
