"""pqvault key split, join, backup, restore, drill"""

from __future__ import annotations

import os
from collections.abc import Sequence
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .main import fail_for, fail_with
from .options import Percent, output_options
from .output import Output, number, size
from .signing import policy_options
from .streams import standard_input

if TYPE_CHECKING:
    from pqvault.keystore import Keystore, Unlocked

shares_option = click.option(
    "--share",
    "share_files",
    multiple=True,
    type=click.Path(),
    metavar="FILE",
    help="Unlock with shares of `key split` instead of the passphrase. Repeatable.",
)


@click.command(epilog="Example: pqvault key split --threshold 3 --shares 5 -o shares/")
@click.option("--threshold", type=int, required=True, metavar="N", help="So many open it.")
@click.option("--shares", type=int, required=True, metavar="M", help="So many are made, up to 16.")
@click.option(
    "-o", "--output-folder", type=click.Path(), metavar="DIR", help="A file each, mode 0600."
)
@output_options
def split(threshold: int, shares: int, output_folder: str | None, output: Output) -> None:
    """Split the key of the keystore into shares of words (SLIP-39), for people to keep apart.

    Any N of them and a backup of the keystore open it without its passphrase; fewer are worth
    nothing. They stay good when the passphrase changes.
    """
    from pqvault.keystore import escrow

    from . import unlocking

    with unlocking.unlocked() as store:
        made = escrow.split(store, threshold, shares)
    files = [f"share-{share.number}-of-{shares}.txt" for share in made]
    paths = [Path(output_folder, file) for file in files] if output_folder is not None else []
    if paths:
        _write_secrets(paths, [share.text() for share in made])
    for share, path in zip_longest(made, paths):
        facts: dict[str, object] = {"number": share.number, "threshold": threshold}
        if path is None:
            output.document({**facts, "words": share.words})
            output.result(share.text())
        else:
            output.document({**facts, "file": str(path)})
            output.line(str(path))


@click.command(
    epilog="Example: PQVAULT_NEW_PASSPHRASE_FILE=new.txt pqvault key join"
    " shares/share-1-of-5.txt shares/share-3-of-5.txt shares/share-4-of-5.txt"
)
@click.argument("files", nargs=-1, required=True, type=click.Path(), metavar="FILE...")
@output_options
def join(files: tuple[str, ...], output: Output) -> None:
    """Open the keystore with shares, and give it a new passphrase.

    A FILE holds one share a line; - is standard input. The new passphrase is asked for, or
    comes from PQVAULT_NEW_PASSPHRASE_FILE, _FD or _COMMAND.
    """
    from pqvault import passphrases
    from pqvault.keystore import COSTS, Keystore, edits

    from . import unlocking

    locked = Keystore()
    with _unlock_by_shares(locked, files, f"the keystore {locked.path}") as store:
        words = unlocking.ask_new("new passphrase: ", passphrases.NEW)
        edits.passwd(store, words, COSTS["standard"])
        keystore = store.key.keystore
    output.document({"keystore": keystore, "changed": True})
    output.line(f"the keystore {keystore} has a new passphrase")


archives_option = click.option(
    "--archive",
    "archives",
    multiple=True,
    type=click.Path(),
    metavar="ARCHIVE",
    help="Envelopes and commits of it, or of all archives below a folder. Repeatable.",
)


@click.command(epilog="Example: pqvault key backup keystore-backup.sqlite --archive datasets.pqv")
@click.argument("file", type=click.Path())
@archives_option
@output_options
def backup(file: str, archives: tuple[str, ...], output: Output) -> None:
    """Write a verified copy of the whole keystore to FILE, mode 0600, never overwritten.

    It is sealed under the passphrase of today; names, states and public keys are readable. With
    --archive it keeps the small files without which an archive cannot be opened, checked with the
    keys that are here; `key restore --archive` puts back what is missing or damaged.
    """
    from pqvault.errors import PQVaultError
    from pqvault.keeping import archives_at, left_out, taken
    from pqvault.keystore import backup as backups
    from pqvault.keystore.identities import identities_of

    from . import unlocking

    places = list(archives_at(archives))
    for warning in left_out(archives, places):
        output.warning(warning)
    problems: list[PQVaultError] = []
    with unlocking.unlocked() as store:
        kept = taken(places, identities_of(store, lambda _: None), problems) if places else ()
        backups.backup(store, Path(file), kept)
        count = len(store.store.list())
    output.failures(problems)
    output.document({"backup": file, "keys": count, "archives": places, "problems": problems})
    of = f" and the envelopes of {number(len(places), 'archive')}" if places else ""
    output.line(f"{number(count, 'key version')}{of} in {file}; try it with `pqvault key drill`")
    if problems:
        fail_with(3)


@click.command(epilog="Example: pqvault key restore backup.sqlite --replace")
@click.argument("file", type=click.Path())
@click.option("--replace", is_flag=True, help="Although there is a keystore; it is kept beside.")
@archives_option
@click.option("--force", is_flag=True, help="With --archive: in place of newer envelopes too.")
@shares_option
@output_options
def restore(
    file: str,
    replace: bool,
    archives: tuple[str, ...],
    force: bool,
    share_files: tuple[str, ...],
    output: Output,
) -> None:
    """Put a backup in the keystore's place, after it was unlocked and every row was checked.

    With --archive the keystore stays as it is: of the archive only envelopes and commits that are
    missing or damaged are put back. Newer ones stay, and so do parts that were removed since.
    """
    from pqvault.errors import UsageError
    from pqvault.keystore import backup as backups

    if archives and replace:
        raise UsageError("--replace is about the keystore, which --archive leaves as it is")
    if archives:
        _put_back(file, archives, force, share_files, output)
        return
    if force:
        raise UsageError("--force goes with --archive", hint="--replace puts a keystore aside")
    old = backups.restore(
        Path(file), lambda store: _unlock(store, share_files, file), replace=replace
    )
    output.document({"restored": file, "replaced": None if old is None else str(old)})
    output.line(f"restored {file}")
    if old is not None:
        output.line(f"the keystore that was there is {old}")


def _put_back(
    file: str, archives: tuple[str, ...], force: bool, share_files: tuple[str, ...], output: Output
) -> None:
    from pqvault.keeping import archives_at, put_back
    from pqvault.keystore.backup import private_copy
    from pqvault.keystore.identities import identities_of

    failed = False
    with private_copy(Path(file)) as copy, _unlock(copy, share_files, file) as store:
        store.verify()
        keys = identities_of(store, lambda _: None)
        for place in archives_at(archives):
            report = put_back(copy, place, keys, force=force)
            output.failures(report.problems)
            output.document(report)
            for name in (*report.missing, *report.damaged, *report.forced):
                output.detail(f"put back {name}")
            output.line(
                f"{place}: {len(report.missing):,} missing and {len(report.damaged):,}"
                f" damaged put back, {len(report.left):,} newer left, {report.same:,} the same"
            )
            if report.forced:
                newer = number(len(report.forced), "newer one")
                output.warning(
                    f"{place}: {newer} gave way: whoever was taken off since opens it again"
                )
            failed |= bool(report.problems)
    if failed:
        fail_with(3)


@click.command(epilog="Example: pqvault key drill --backup backup.sqlite mine.pqv --sample 50%")
@click.argument("archive", type=click.Path())
@click.option("--backup", required=True, type=click.Path(), metavar="FILE", help="Of `key backup`.")
@click.option("--sample", type=Percent(), default="100%", metavar="5%", help="Look at a share.")
@shares_option
@policy_options
@output_options
def drill(
    archive: str,
    backup: str,
    sample: float,
    share_files: tuple[str, ...],
    policy: Any,
    output: Output,
) -> None:
    """Prove that a backup opens an archive or a sealed stream, without changing anything.

    Only keys of the backup are used, and its content is decrypted and checked.
    """
    from pqvault.drill import drill as run

    from . import unlocking

    report = run(
        backup,
        archive,
        lambda store: _unlock(store, share_files, backup),
        sample=sample,
        policy=policy,
        warn=unlocking.warn,
    )
    output.failures(report.problems)
    output.document(report)
    if report.problems:
        fail_for(report.problems)
    output.line(
        f"{backup} opens {archive}: {number(report.keys, 'key version')} tried, "
        f"{size(report.size)} of content checked"
    )


def _unlock(store: Keystore, share_files: tuple[str, ...], file: str) -> Unlocked:
    from pqvault import passphrases

    from . import unlocking

    if share_files:
        return _unlock_by_shares(store, share_files, f"the backup {file}")
    prompt = f"passphrase of {file}: "
    return store.unlock(lambda: passphrases.ask(prompt, passphrases.KEYSTORE, warn=unlocking.warn))


def _unlock_by_shares(store: Keystore, files: tuple[str, ...], what: str) -> Unlocked:
    from pqvault.errors import NoKeyFits
    from pqvault.keystore import escrow

    words = [share for file in files for share in escrow.parse(_read_secret(file))]
    secret = escrow.join(words)
    if not store.is_key(secret):
        raise NoKeyFits(
            f"these shares do not open {what}: they are of another keystore, or it was altered",
            hint="the first line of the file of a share names its keystore",
        )
    return store.unlock_with(secret)


def _read_secret(file: str) -> str:
    from pqvault.errors import UsageError

    try:
        if file == "-":
            return standard_input().read(1 << 16).decode("utf-8")
        with open(file, encoding="utf-8") as source:
            return source.read(1 << 16)
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not text"
        raise UsageError(
            f"the share {file} cannot be read: {reason}", hint="check the path"
        ) from None


def _write_secrets(paths: Sequence[Path], texts: Sequence[str]) -> None:
    """All of them, or none: what is left of a try would stand in the way of the next."""
    from pqvault.errors import UsageError
    from pqvault.wholefile import sync_folder

    made: list[Path] = []
    try:
        for path, text in zip(paths, texts, strict=True):
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
            made.append(path)
            with open(fd, "w", encoding="ascii") as file:
                file.write(text)
                file.flush()
                os.fsync(fd)
            sync_folder(path.parent)
    except BaseException as error:
        for one in made:
            one.unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise UsageError(
                f"{path} cannot be written: {error.strerror}", hint="choose another folder with -o"
            ) from None
        raise
