"""pqvault seal"""

from __future__ import annotations

from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

import click

from . import unlocking
from .groups import GroupedCommand, group_option
from .main import fail_with
from .options import (
    Size,
    engine_options,
    identity_option,
    jobs_option,
    load_identities,
    load_recipients,
    memory_option,
    output_options,
    recipient_options,
)
from .output import Output, number, size
from .progress import shown
from .signing import policy_options, sign_option
from .streams import standard_input

if TYPE_CHECKING:
    from pqvault.sources import BadLines


@click.command(
    cls=GroupedCommand,
    epilog="Example: pqvault seal datasets/ -r @team.pub --exclude '**/.git'",
)
@click.argument("src", nargs=-1, required=True, type=click.Path())
@click.option("-o", "archive", type=click.Path(), metavar="ARCHIVE", help="[default: SRC.pqv]")
@recipient_options
@identity_option
@click.option("--prefix", default="", metavar="P", help="Put entries below P in the archive.")
@click.option(
    "--level", type=click.IntRange(0, 22), default=3, show_default=True, help="zstd; 0 stores."
)
@click.option(
    "--access",
    type=click.Choice(["scan", "random"]),
    default="scan",
    show_default=True,
    help="random: frames of 64 KiB, quicker to read at random; a tenth larger, text by half.",
)
@click.option("--frame", type=Size(), metavar="SIZE", help="Content of a frame, 64KiB to 8MiB.")
@jobs_option
@click.option("--exclude", multiple=True, metavar="GLOB", help="Leave out. Repeatable.")
@click.option(
    "--files-from",
    type=click.Path(),
    metavar="FILE",
    help="Seal only what FILE (- for stdin) lists.",
)
@click.option("-0", "--null", is_flag=True, help="Names of --files-from end with NUL.")
@click.option("--one-file-system", is_flag=True, help="Do not enter other file systems.")
@click.option("--checksum", is_flag=True, help="Compare content, not times (needs -i).")
@click.option("--delete", is_flag=True, help="Remove what is gone from SRC (needs -i).")
@click.option("--yes", is_flag=True, help="Let --delete remove more than half.")
@click.option("--append", is_flag=True, help="Add everything, without comparing.")
@click.option("--dry-run", is_flag=True, help="Say what would be done.")
@click.option("--allow-changed", is_flag=True, help="Keep files that change while they are read.")
@click.option("--allow-retired", is_flag=True, help="Seal to a key that is retired here.")
@click.option("--expect-key-id", multiple=True, metavar="ID", help="Refuse other recipients.")
@click.option("--tables", is_flag=True, help="Parquet, JSON lines, CSV, Arrow become tables.")
@click.option("--keep-files", is_flag=True, help="Seal what becomes a table as a file, too.")
@click.option(
    "--bad-lines", type=click.Path(), metavar="FILE", help="Put lines there that do not parse."
)
@group_option
@engine_options
@memory_option
@policy_options
@sign_option
@output_options
def command(src: tuple[str, ...], output: Output, **options: Any) -> None:
    """Seal files and folders into an archive. Run again, it seals only what has changed.

    Needs no private key: an archive on a host that was broken into cannot be read there.
    Owners, ACLs and extended attributes are not kept; sockets, FIFOs, devices and the keystore are
    skipped.

    With --tables, *.parquet, *.jsonl(.gz, .zst), *.csv and *.arrow become tables: encrypted Parquet
    that is queried without being extracted. A table is values, not bytes. Recipients behind a
    --group open its columns; those before it do not.
    """
    from pqvault import api
    from pqvault.archive.trim import keep_apart
    from pqvault.errors import Incomplete, PQVaultError, UsageError
    from pqvault.sealed.writer import DEFAULT_FRAME, RANDOM_FRAME

    keep_apart()
    frame = options["frame"]
    if frame is None:
        frame = RANDOM_FRAME if options["access"] == "random" else DEFAULT_FRAME
    elif options["access"] == "random":
        raise UsageError("--access random and --frame both set the frame", hint="leave one out")
    recipients = load_recipients(options["recipient"], options["recipients_file"])
    ended: PQVaultError | KeyboardInterrupt | None = None
    bad_lines = _bad_lines(options["bad_lines"])
    with bad_lines or nullcontext(), shown(output, "seal") as progress:
        run = api.sealing(
            src,
            options["archive"],
            recipients=recipients,
            identities=load_identities(options["identity"], needed=False),
            prefix=options["prefix"],
            level=options["level"],
            frame_size=frame,
            jobs=options["jobs"],
            exclude=options["exclude"],
            files_from=_listed(options["files_from"], options["null"]),
            one_file_system=options["one_file_system"],
            checksum=options["checksum"],
            delete=options["delete"],
            yes=options["yes"],
            append=options["append"],
            dry_run=options["dry_run"],
            allow_changed=options["allow_changed"],
            allow_retired=options["allow_retired"],
            expect_key_ids=options["expect_key_id"],
            **({} if options["engine"] is None else {"engine": options["engine"]}),
            memory=options["memory"],
            policy=options["policy"],
            sign=options["sign"],
            progress=progress,
            tables=options["tables"],
            keep_files=options["keep_files"],
            groups=options["groups"],
            bad_lines=bad_lines,
        )
        report = run.report

        def note() -> None:
            unlocking.remember(report.archive_id, report.archive, report.recipients)

        run.before_commit = note
        try:
            run.run()
        except (PQVaultError, KeyboardInterrupt) as error:
            ended = error
    if bad_lines is not None and bad_lines.count:
        lines = number(bad_lines.count, "line")
        output.warning(f"{lines} did not parse and went to {bad_lines.path}")
    if ended is None or isinstance(ended, Incomplete) or report.parts:
        _show(output, report, whole=ended is None)
    if isinstance(ended, Incomplete):
        output.failure(ended)
        fail_with(ended.exit_code)
    if ended is not None:
        raise ended


def _bad_lines(path: str | None) -> BadLines | None:
    if path is None:
        return None
    from pqvault.sources import BadLines

    return BadLines(path)


def _listed(file: str | None, null: bool) -> list[bytes] | None:
    from pqvault.errors import UsageError

    if file is None:
        if null:
            raise UsageError("-0 says how --files-from ends its names, and there is none")
        return None
    try:
        if file == "-":
            data = standard_input().read()
        else:
            with open(file, "rb") as source:
                data = source.read()
    except OSError as error:
        raise UsageError(
            f"{file} cannot be read: {error.strerror}", hint="check the path"
        ) from None
    return [name for name in data.split(b"\0" if null else b"\n") if name]


def _show(output: Output, report: Any, *, whole: bool) -> None:
    for warning in report.warnings:
        output.warning(warning)
    for item in (*report.skipped, *report.failed):
        output.warning(item)
    output.document(report)
    changed = [
        number(report.files, "file"),
        *([number(report.tables, "table")] if report.tables else []),
        number(report.folders, "folder"),
        number(report.links, "link"),
    ]
    if report.deleted:
        changed.append(f"{report.deleted:,} removed")
    what = ", ".join(changed)
    for key_id in report.recipients:
        output.detail(f"sealed to {key_id}")
    if report.dry_run:
        output.line(f"would seal {what}, {size(report.size)}; {report.unchanged:,} unchanged")
    elif not report.parts:
        nothing = "nothing to seal" if whole else "nothing is sealed"
        entries = number(report.unchanged, "entry", "entries")
        output.line(f"{nothing}: {entries} unchanged in {report.archive}")
    else:
        small = report.sealed_size > 10 * report.size  # of which most is what any part has
        share = "" if small else f"{100 * report.sealed_size / report.size:.0f} %, "
        rate = size(int(report.size / max(report.seconds, 1e-9)))
        output.line(
            f"sealed {what}: {size(report.size)} into {size(report.sealed_size)}"
            f" ({share}{report.seconds:.1f} s, {rate}/s), {report.unchanged:,} unchanged"
        )
        output.line(f"archive {report.archive}, part {', '.join(report.parts)}")
        output.line(f"recipients {', '.join(report.recipients)}")
