"""Arguments of the Python API as people write them: one or several, and mistakes that are named."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

import pqvault
from pqvault import Identity, tables
from pqvault.errors import NotFound, UsageError


@pytest.fixture
def key() -> Identity:
    return Identity.generate()


@pytest.fixture
def corpus(tmp_path: Path, key: Identity) -> Path:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "a.txt").write_bytes(b"1")
    (tmp_path / "data" / "b.bin").write_bytes(b"2")
    key.save_file(tmp_path / "key.txt")
    return tmp_path / "data"


def paths(archive: Path, identities: Any) -> list[str]:
    with pqvault.open(archive, identities=identities) as opened:
        return [entry.path.decode() for entry in opened.entries()]


def test_one_key_is_as_good_as_several(corpus: Path, key: Identity) -> None:
    """Objects, texts and paths, in a list or alone, for archives, streams and tables."""
    archive, file = corpus.with_suffix(".pqv"), corpus.with_name("key.txt")
    for recipients in (key.recipient, key.recipient.text, [key.recipient]):
        pqvault.seal(corpus, archive, recipients=recipients)
        tables.write_table(archive, "t", pa.table({"a": [1]}), recipients=recipients)
        for identities in (key, file, str(file), [key], [file]):
            assert "data/a.txt" in paths(archive, identities)
            assert tables.count_rows(archive, "t", identities=identities)
            sealed, plain = io.BytesIO(), io.BytesIO()
            pqvault.encrypt(io.BytesIO(b"abc"), sealed, recipients)
            corpus.with_name("s.pqv").write_bytes(sealed.getvalue())
            pqvault.decrypt(io.BytesIO(sealed.getvalue()), plain, identities)
            with pqvault.open_stream(corpus.with_name("s.pqv"), identities) as stream:
                assert stream.read() == plain.getvalue() == b"abc"


@pytest.mark.parametrize("given", [None, 3, b"AGE-SECRET-KEY-PQ-1", [None], [b"x"]])
def test_what_is_no_key_is_named_by_its_type(corpus: Path, key: Identity, given: Any) -> None:
    """It may be a secret that was read from somewhere, so it is not repeated."""
    archive = corpus.with_suffix(".pqv")
    with pytest.raises(UsageError, match=r"a recipient was given as (NoneType|int|bytes)"):
        pqvault.seal(corpus, archive, recipients=given)
    pqvault.seal(corpus, archive, recipients=key.recipient)
    with pytest.raises(UsageError, match=r"an identity was given as (NoneType|int|bytes)"):
        pqvault.open(archive, identities=given)


def test_keys_of_the_wrong_kind(corpus: Path, key: Identity) -> None:
    """A private key or a file where a recipient belongs, and the other way round."""
    archive = corpus.with_suffix(".pqv")
    for given in (key, corpus.with_name("key.pub")):
        with pytest.raises(UsageError, match=f"was given as {type(given).__name__}") as caught:
            pqvault.seal(corpus, archive, recipients=[given])  # type: ignore[list-item]
        assert "Recipient.load_file(path)" in caught.value.hint
    with pytest.raises(UsageError, match="an identity was given as Recipient"):
        pqvault.open(archive, identities=[key.recipient])  # type: ignore[list-item]


def test_options_that_are_misspelt_are_refused(corpus: Path, key: Identity) -> None:
    """Else what `exlude` was to keep out would be sealed."""
    wrong: dict[str, Any] = {"exlude": ["*.bin"]}
    with pytest.raises(UsageError, match="seal has no option 'exlude'"):
        pqvault.seal(corpus, recipients=key.recipient, **wrong)
    assert not corpus.with_suffix(".pqv").exists()


def test_one_glob_is_no_list_of_letters(corpus: Path, key: Identity) -> None:
    """`**/*.bin` alone is that glob, for what is left out and for what is unsealed."""
    archive, target = corpus.with_suffix(".pqv"), corpus.with_name("out")
    pqvault.seal(corpus, archive, recipients=key.recipient, exclude="**/*.bin")
    assert paths(archive, key) == ["data", "data/a.txt"]
    with pqvault.open(archive, identities=key) as opened:
        with pytest.raises(NotFound, match=r"matches \*\*/\*\.bin$"):
            opened.unseal(target, "**/*.bin")
        assert opened.unseal(target, "**/*.txt").files == 1


@pytest.mark.parametrize("sample", [-0.1, 5, float("nan")])
def test_samples_are_shares(corpus: Path, key: Identity, sample: float) -> None:
    """5 for 5 % would look at everything, and less than nothing at one object."""
    archive = corpus.with_suffix(".pqv")
    pqvault.seal(corpus, archive, recipients=key.recipient)
    with pytest.raises(UsageError, match=r"a sample of .* is not possible"):
        pqvault.verify(archive, sample=sample)


def test_jobs_are_not_negative(corpus: Path, key: Identity) -> None:
    """-1, which elsewhere means all processors, is no error of ours but a sentence."""
    archive = corpus.with_suffix(".pqv")
    with pytest.raises(UsageError, match="-1 jobs are not possible"):
        pqvault.seal(corpus, archive, recipients=key.recipient, jobs=-1)
    assert not archive.exists()
    pqvault.seal(corpus, archive, recipients=key.recipient)
    with pqvault.open(archive, identities=key) as opened:
        for verb in (opened.verify, lambda jobs: opened.unseal(corpus.parent / "o", jobs=jobs)):
            with pytest.raises(UsageError, match="-1 jobs are not possible"):
                verb(jobs=-1)


def test_an_archive_that_was_closed_is_not_damaged(corpus: Path, key: Identity) -> None:
    """Entries that are first asked for after the block are read; none are called damaged."""
    archive = corpus.with_suffix(".pqv")
    pqvault.seal(corpus, archive, recipients=key.recipient)
    with pqvault.open(archive, identities=key) as opened:
        entries = opened.entries()
        catalog = opened.parts[0].catalog
    assert [entry.path for entry in entries] == [b"data", b"data/a.txt", b"data/b.bin"]
    with pytest.raises(UsageError, match=r"the catalog of part .* was closed while it was read"):
        catalog.batch(0)


def test_what_is_no_file_is_said(corpus: Path, key: Identity) -> None:
    """A folder, a link and no path at all are named as such."""
    archive = corpus.with_suffix(".pqv")
    (corpus / "link").symlink_to("a.txt")
    pqvault.seal(corpus, archive, recipients=key.recipient)
    with pqvault.open(archive, identities=key) as opened:
        for path, what in (("data", "a folder"), ("data/link", "a symbolic link")):
            with pytest.raises(UsageError, match=f"{path} is {what} and not a file"):
                opened.open_file(path)
        with pytest.raises(NotFound, match="the empty path is not in the archive"):
            opened.open_file("")
