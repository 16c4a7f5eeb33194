"""The entry point: commands by name, errors as sentences, exit codes."""

from __future__ import annotations

import atexit
import errno
import gc
import importlib
import io
import os
import resource
import signal
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

import click

import pqvault
from pqvault.errors import PQVaultError

from .hidden import hide
from .options import use_kem_provider
from .output import Output

__all__ = ["InOrder", "cli", "end_with", "fail_for", "fail_with", "main", "program"]

# name -> one line for `pqvault --help`, which so imports no command.
COMMANDS = {
    "init": "Make a keystore with one key, `default`.",
    "key": "Make, list, rotate, retire, export and back up keys.",
    "audit-log": "Show, check or export the log of what happened to keys.",
    "keygen": "Make an identity, or show its recipient.",
    "seal": "Seal files and folders into an archive.",
    "unseal": "Extract an archive.",
    "ls": "List what an archive holds.",
    "cat": "Write one file of an archive to standard output.",
    "mount": "Show an archive as a read-only folder.",
    "diff": "List what changed between two states of an archive.",
    "parts": "List the parts of an archive and who can open them.",
    "table": "List, read, import and export the tables of an archive.",
    "query": "Answer SQL over the tables of an archive.",
    "inspect": "Show what can be read without a key.",
    "verify": "Check an archive, with or without a key.",
    "rotate": "Wrap the keys of archives to other recipients; content is not touched.",
    "reencrypt": "Give archives new root keys: everything is encrypted again.",
    "attest": "Write the signed list of files as an in-toto Statement.",
    "log": "Inference logs: write, read, recover, expire.",
    "prune": "Forget old states: remove the parts that no kept state needs.",
    "compact": "Merge many small parts into few.",
    "gc": "Remove leftovers of interrupted seals.",
    "scan": "Note which archives the keys of the keystore open.",
    "keyset": "Master keys for Parquet's own encryption, sealed to recipients.",
    "encrypt": "Seal one file or a pipe into a sealed stream.",
    "decrypt": "Open a sealed stream.",
    "doctor": "Show versions and features, and run a self-test.",
    "completion": "Print the shell completion script.",
}

_WORST = (13, 15, 14, 16, 12, 10, 11)  # exit codes
_ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class _Commands(click.Group):
    """Imports a command's module when it is called, not before."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(f".{cmd_name.replace('-', '_')}", __package__)
        command: click.Command = module.command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


class InOrder(click.Group):
    """Lists its commands in the order in which one needs them, and not in that of the alphabet."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)


@click.group(
    cls=_Commands,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Example: pqvault keygen -o key.txt > key.pub && pqvault seal datasets/ -r @key.pub",
)
@click.option(
    "--kem-provider",
    metavar="cryptography|liboqs",
    expose_value=False,
    callback=use_kem_provider,
    help="Who does ML-KEM [default: PQVAULT_KEM_PROVIDER, or cryptography]; also after a command.",
)
@click.version_option(pqvault.__version__, prog_name="pqvault")
def cli() -> None:
    """Post-quantum encryption for AI data: seal corpora, read them back at the speed of files."""


def program() -> NoReturn:
    """The command `pqvault`: :func:`main`, and then no taking apart of the interpreter, object by
    object, which takes 30 ms, and 100 ms after a large seal."""
    code = [1]
    atexit.register(_leave, code)  # the first, so that it is called last
    _fill_closed()
    try:
        _end_in_order()
        main()
    except SystemExit as stop:
        _end_at_once()
        code[0] = int(stop.code or 0)
        raise
    except KeyboardInterrupt:  # before the work, or while an error was being told
        _end_at_once()
        code[0] = 130
        sys.exit(130)


def _fill_closed() -> None:
    # Else a file of an archive gets the number of standard error, and whatever libraries say there.
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the least number that is free
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w")


def _end_in_order() -> None:
    # `kill`, `timeout` and a terminal that closes end a command as Ctrl-C does: a half of a file in
    # clear must not stay behind. What is ignored (nohup) stays so.
    for number in _ENDING:
        if signal.getsignal(number) is signal.SIG_DFL:
            signal.signal(number, signal.default_int_handler)


def _end_at_once() -> None:
    # Everything was done and said: a signal now would be a traceback and no more.
    for number in _ENDING:
        if signal.getsignal(number) is signal.default_int_handler:
            signal.signal(number, signal.SIG_DFL)


def _leave(code: list[int]) -> None:
    # SQLite moves what is in its log into the keystore's file when the last connection goes.
    database = sys.modules.get("pqvault.keystore.database")
    if database is not None and database.opened:
        return
    try:
        for stream in (sys.stdout, sys.stderr):
            if stream is not None:  # it is where the descriptor was closed before we began
                stream.flush()
    except (OSError, ValueError):
        return  # Python will say so
    os._exit(code[0])


def main(args: list[str] | None = None) -> NoReturn:
    """Run and exit. Codes: 0 ok, 1 error, 2 usage, 3 incomplete, 10-16 see `pqvault.errors`,
    130 interrupted."""
    _no_core_dumps()
    _say_any_name()
    # Entries come and go by the hundred thousand and hold no cycles: look for some less often.
    gc.set_threshold(50_000)
    # pyarrow imports NumPy (50 ms), and then pandas (100 ms) to ask whether a list is one of its.
    hide("numpy", "pandas")
    # Of NumPy, where Ray wants it: no thread for each processor to multiply matrices with.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    argv = sys.argv[1:] if args is None else args
    output = Output(json="--json" in argv)
    ended = 0
    try:
        code = cli.main(argv, prog_name="pqvault", standalone_mode=False)
        ended = code if isinstance(code, int) else 0
        if sys.stdout is not None:
            sys.stdout.flush()  # here, where a full disk is still told in a sentence
        sys.exit(ended)
    except click.exceptions.Exit as stop:
        sys.exit(stop.exit_code)
    except click.ClickException as error:
        output.usage(error)
        sys.exit(error.exit_code)
    except (KeyboardInterrupt, click.Abort):
        output.failure(PQVaultError("interrupted; nothing half-written is left"), 130)
        sys.exit(130)
    except PQVaultError as error:
        output.failure(error)
        sys.exit(error.exit_code)
    except BrokenPipeError:
        # Whoever read our output has gone.
        _drop_output()
        sys.exit(ended or 1)
    except OSError as error:
        # Writes to files are explained where they are made: this one has no name.
        if error.filename is None and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            sentence = f"cannot write standard output: {os.strerror(error.errno)}"
            output.failure(PQVaultError(sentence, hint="free some space, then run it again"))
            _drop_output()
            sys.exit(ended or 1)
        where = f"{error.filename}: " if error.filename else ""
        if error.errno == errno.ENOENT and error.filename is None:
            where = "the folder that this runs in is gone: "  # os.getcwd() is what has no name
        sentence = f"{where}{error.strerror or error or type(error).__name__}"
        hint = "check the path, its owner and its mode"
        if isinstance(error, BlockingIOError):
            hint = "give a file, or a pipe that waits"
        output.failure(PQVaultError(sentence, hint=hint))
        sys.exit(1)
    except Exception as error:
        if (scarce := _scarce(error)) is not None:
            output.failure(scarce)
            sys.exit(1)
        # A bug. Its message might hold anything, so only its type is shown.
        if os.environ.get("PQVAULT_DEBUG") == "1":
            raise
        sentence = f"internal error ({type(error).__name__}): this is a bug in pqvault"
        output.failure(PQVaultError(sentence, hint="run again with PQVAULT_DEBUG=1 and report it"))
        sys.exit(1)


def _scarce(error: Exception) -> PQVaultError | None:
    # What a container's limits keep from us is no bug.
    if isinstance(error, MemoryError):
        hint = "raise the limit on memory: `ulimit -v`, or the container's; --jobs 1 takes least"
        return PQVaultError("there is not enough memory", hint=hint)
    if isinstance(error, RuntimeError) and "can't start new thread" in str(error):
        hint = "raise the limit on processes: `ulimit -u`, or the container's; --jobs 1 takes least"
        return PQVaultError("no more threads can be started", hint=hint)
    return None


def _drop_output() -> None:
    # Python would write what is left of it again at exit, and complain.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _say_any_name() -> None:
    # A path need not be UTF-8, and a locale may lack a letter: escaped, as standard error does it,
    # because a command that has done its work must not fail for the line that says so.
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")


def _no_core_dumps() -> None:
    # A core would hold keys. The limit 1 and not 0: Linux heeds 0 for files only, and 1 also
    # where cores are piped to a program (core(5), kernel/coredump.c).
    hard = resource.getrlimit(resource.RLIMIT_CORE)[1]
    soft = 1 if hard == resource.RLIM_INFINITY or hard >= 1 else hard
    resource.setrlimit(resource.RLIMIT_CORE, (soft, hard))


def fail_with(code: Any) -> NoReturn:
    """End with an exit code after everything has been said."""
    raise click.exceptions.Exit(int(code))


def end_with(output: Output, problems: Sequence[PQVaultError]) -> None:
    """Say what is wrong, and end for it if anything is."""
    output.failures(problems)
    if problems:
        fail_for(problems)


def fail_for(problems: Sequence[PQVaultError]) -> NoReturn:
    """End for what was listed: damage first, so that it does not hide behind a key that is not
    here; then what was rolled back or refused. 3 where nothing says more."""
    codes = [problem.exit_code for problem in problems]
    fail_with(next((code for code in _WORST if code in codes), 3))
