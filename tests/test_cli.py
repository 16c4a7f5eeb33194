"""The command line, as transcripts that a user could paste: ``tests/transcripts/*.txt``.

``$ command`` is run by a shell in an empty folder; what follows is all that it prints (standard
output and error as they come), ``…`` standing for any text within a line and, alone on one, for
any lines; ``[N]`` is its exit code, 0 when it is left out; ``#`` begins a comment.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from shlex import quote

import pytest
from conftest import heed_signals

TRANSCRIPTS = sorted((Path(__file__).parent / "transcripts").glob("*.txt"))


@pytest.fixture
def shell(tmp_path: Path) -> dict[str, str]:
    """An environment where ``pqvault`` is the package under test."""
    return environment(tmp_path)


def environment(root: Path) -> dict[str, str]:
    """The same below ``root``."""
    binaries = root / "bin"
    binaries.mkdir()
    program = binaries / "pqvault"
    program.write_text(f'#!/bin/sh\nexec {quote(sys.executable)} -m pqvault_cli "$@"\n')
    program.chmod(0o755)
    return {
        "PATH": f"{binaries}:{os.environ['PATH']}",
        "HOME": str(root),
        "PQVAULT_HOME": str(root / "home"),
        "LC_ALL": "C.UTF-8",
        "TZ": "UTC",
    }


def steps(text: str) -> list[tuple[str, str, int]]:
    """(command, expected output, exit code) of a transcript."""
    found: list[tuple[str, list[str], int]] = []
    for line in text.splitlines():
        if line.startswith("$ "):
            found.append((line[2:], [], 0))
        elif re.fullmatch(r"\[\d+\]", line):
            command, output, _ = found.pop()
            found.append((command, output, int(line[1:-1])))
        elif found and not line.startswith("#") and line:
            found[-1][1].append(line)
    return [(command, "\n".join(output), code) for command, output, code in found]


def pattern(expected: str) -> str:
    """A regular expression for expected output."""
    lines = []
    for line in expected.splitlines():
        lines.append(
            "(?:.*\n)*" if line == "…" else ".*".join(map(re.escape, line.split("…"))) + "\n"
        )
    return "".join(lines)


@pytest.mark.parametrize("code", [0, 3])
def test_the_end_of_the_command(shell: dict[str, str], code: int) -> None:
    """The interpreter is not taken apart; what is written and what waits for the end still is."""
    ending = (
        "import atexit, os, sys\n"
        "from pqvault_cli import main\n"
        "class Late:\n"
        "    def __del__(self): os.write(1, b'taken apart')\n"
        "main.late = Late()\n"
        "def run():\n"
        "    atexit.register(print, 'called at the end')\n"
        "    sys.stdout.write('not flushed yet; ')\n"
        f"    sys.exit({code})\n"
        "main.main = run\n"
        "main.program()\n"
    )
    done = subprocess.run([sys.executable, "-c", ending], env=shell, capture_output=True, text=True)
    assert done.stdout == "not flushed yet; called at the end\n", done.stderr
    assert (done.returncode, done.stderr) == (code, "")


def test_without_standard_streams(shell: dict[str, str]) -> None:
    """A daemon may have closed them: what needs none does its work, and nothing is blamed on us."""
    pqvault = f"{quote(sys.executable)} -m pqvault_cli"
    for command, code in (("doctor -q 2>&1 1>&-", 0), ("ls 1>&- 2>&-", 2)):
        done = subprocess.run(["sh", "-c", f"{pqvault} {command}"], env=shell, capture_output=True)
        assert (done.returncode, done.stdout, done.stderr) == (code, b"", b"")


def test_all_standard_streams_are_closed(tmp_path: Path, shell: dict[str, str]) -> None:
    """Work is done, progress is shown to nobody, and no file of ours gets one of their numbers."""
    script = f"""
        pqvault keygen -o key > pub && mkdir d && echo x > d/x
        pqvault seal d -R pub <&- >&- 2>&-
        pqvault verify d.pqv -i key 2>&-
        pqvault unseal d.pqv -o out -i key <&- >&- 2>&- && diff -r d out/d
        {quote(sys.executable)} -c 'import os, sys
from pqvault_cli import main
main._fill_closed()
sys.exit(os.open("/", 0))' <&- >&- 2>&- || echo $?
    """
    done = subprocess.run(
        ["sh", "-ec", script], env=shell, cwd=tmp_path, capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert re.fullmatch(r"sealed: 1 part, .*\n[3-9]\n", done.stdout)


@pytest.mark.parametrize("when", ["pqvault_cli.main", "pqvault_cli.key_show", "sqlite3"])
def test_a_signal_at_any_time_is_no_traceback(shell: dict[str, str], when: str) -> None:
    """Ctrl-C while modules are imported, before there is any work or after it began."""
    pressed = (
        "import os, signal, sys\n"
        "class Pressed:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        f"        if name == {when!r}: os.kill(os.getpid(), signal.SIGINT)\n"
        "sys.meta_path.insert(0, Pressed())\n"
        "sys.argv = ['pqvault', 'key', 'list']\n"
        "from pqvault_cli.__main__ import program\n"
        "program()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", pressed],
        env=shell,
        capture_output=True,
        text=True,
        preexec_fn=heed_signals,
    )
    silent = when == "pqvault_cli.main"
    told = "" if silent else "pqvault: interrupted; nothing half-written is left\n"
    assert (done.returncode, done.stderr.lstrip()) == (-signal.SIGINT if silent else 130, told)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_leaves_no_half_of_a_file(
    tmp_path: Path, shell: dict[str, str], number: signal.Signals
) -> None:
    """Ctrl-C, `kill`, a terminal that closes: what was decrypted so far does not stay on disk."""
    setup = "pqvault keygen -o key > pub && head -c 9000000 /dev/urandom | pqvault encrypt -R pub"
    done = subprocess.run(["sh", "-c", setup], env=shell, cwd=tmp_path, stdout=subprocess.PIPE)
    words = [sys.executable, "-m", "pqvault_cli", "decrypt", "-o", "out", "-i", "key"]
    running = subprocess.Popen(
        words, env=shell, cwd=tmp_path, stdin=subprocess.PIPE, preexec_fn=heed_signals
    )
    assert running.stdin is not None
    running.stdin.write(done.stdout[:-1000])
    running.stdin.flush()
    while not any(p.stat().st_size > 100_000 for p in tmp_path.glob(".out.*")):
        time.sleep(0.01)
    for _ in range(10):  # one that comes just before Python begins to wait is seen by the next
        running.send_signal(number)
        with suppress(subprocess.TimeoutExpired):
            running.wait(2)
            break
    assert running.returncode == 130
    assert not [path for path in os.listdir(tmp_path) if "out" in path]
    running.stdin.close()


def test_content_on_a_terminal_is_not_drawn_over(tmp_path: Path, shell: dict[str, str]) -> None:
    """A bar beside it wiped the last line, and stood before the first."""
    setup = "pqvault keygen -o key > pub && printf 'one\\ntwo' | pqvault encrypt -R pub -o poem.pqv"
    subprocess.run(["sh", "-c", setup], env=shell, cwd=tmp_path, check=True)
    ours, theirs = os.openpty()
    words = [sys.executable, "-m", "pqvault_cli", "decrypt", "poem.pqv", "-i", "key"]
    env = shell | {"TERM": "xterm"}
    subprocess.run(words, env=env, cwd=tmp_path, stdout=theirs, stderr=theirs, check=True)
    assert os.read(ours, 1 << 16) == b"one\r\ntwo"
    os.close(ours)
    os.close(theirs)


def test_a_closed_standard_stream_that_is_needed(tmp_path: Path, shell: dict[str, str]) -> None:
    """It is named, and no bug of ours."""
    setup = "pqvault keygen -o key > pub && mkdir d && echo x > d/x && pqvault seal d -R pub -q"
    subprocess.run(["sh", "-c", setup], env=shell, cwd=tmp_path, check=True)
    for command, stream in (
        ("cat d.pqv d/x -i key >&-", "output"),
        ("encrypt d/x -R pub >&-", "output"),
        ("encrypt -R pub -o y <&-", "input"),
        ("seal d -R pub --files-from - <&-", "input"),
        ("log pipe log.pqv -R pub <&-", "input"),
        ("log pipe log.pqv -R pub --tee </dev/null >&-", "output"),
    ):
        words = ["sh", "-c", f"pqvault {command}"]
        done = subprocess.run(words, env=shell, cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 2 and f"standard {stream} is closed" in done.stderr, done
    assert not (tmp_path / "log.pqv").exists()


@pytest.mark.parametrize("words", ["cat a b --range :", "encrypt -r x --frame="])
def test_numbers_of_any_length(shell: dict[str, str], words: str) -> None:
    """Python reads no number of over 4,300 digits."""
    command = [sys.executable, "-m", "pqvault_cli", *f"{words}{'9' * 5000}".split(" ")]
    done = subprocess.run(command, env=shell, capture_output=True, text=True)
    assert done.returncode == 2 and "write it like" in done.stderr


def test_pandas_and_numpy_are_not_imported(tmp_path: Path, shell: dict[str, str]) -> None:
    """pyarrow would import them, where they are installed, in each command: 150 ms."""
    for name in ("pandas", "numpy"):
        (tmp_path / f"{name}.py").write_text(f"raise SystemExit('imported {name}')")
    (tmp_path / "data").write_text("x")
    path = os.pathsep.join([str(tmp_path), shell.get("PYTHONPATH", "")])
    for command in ("keygen -o key", "seal data -R pub", "unseal data.pqv -o out -i key"):
        words = [sys.executable, "-P", "-m", "pqvault_cli", *command.split()]
        env = shell | {"PYTHONPATH": path}
        done = subprocess.run(words, env=env, cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        if command.startswith("keygen"):
            (tmp_path / "pub").write_text(done.stdout)
    assert (tmp_path / "out").exists()


@pytest.mark.parametrize("encoding", ["utf-8:strict", "latin-1", "ascii"])
def test_names_that_the_locale_cannot_write(
    tmp_path: Path, shell: dict[str, str], encoding: str
) -> None:
    """A folder of a Latin-1 system is sealed and unsealed where the locale is UTF-8, and the other
    way round: what is done is not told as a failure for its name."""
    commands = (
        "pqvault keygen -o key > pub",
        'mkdir "$NAME" && echo x > "$NAME/x"',
        'pqvault seal "$NAME" -R pub && pqvault inspect "$NAME.pqv"',
        'pqvault unseal "$NAME.pqv" -i key -o "$NAME-out"',
    )
    for name in (b"caf\xe9", "日本".encode()):
        env = shell | {"PYTHONIOENCODING": encoding, "NAME": os.fsdecode(name)}
        script = " && ".join(commands)
        folder = tmp_path / str(len(name))
        folder.mkdir()
        done = subprocess.run(["sh", "-c", script], env=env, cwd=folder, capture_output=True)
        assert done.returncode == 0, done.stderr
        assert done.stdout.endswith(b"-out\n")


def test_names_in_json_are_those_of_the_archive(tmp_path: Path, shell: dict[str, str]) -> None:
    """The same text in every locale, an old one that is ASCII among them."""
    (tmp_path / "日本").mkdir()
    script = "pqvault keygen -o key > pub && pqvault seal 日本 -o a.pqv -R pub -q"
    subprocess.run(["sh", "-c", script], env=shell, cwd=tmp_path, check=True, capture_output=True)
    env = shell | {"LC_ALL": "POSIX", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    listing = "pqvault ls a.pqv -i key --json"
    done = subprocess.run(["sh", "-c", listing], env=env, cwd=tmp_path, capture_output=True)
    assert json.loads(done.stdout)["path"] == "日本", done.stderr


def test_errors_that_cannot_be_written_have_their_exit_code(shell: dict[str, str]) -> None:
    """A full disk behind standard error, or nobody who reads it, is not what went wrong."""
    commands = ("pqvault ls none.pqv -i none", "pqvault ls", "pqvault gc none.pqv --json")
    for command, code in zip(commands, (2, 2, 10), strict=True):
        for script in (f"{command} 2>/dev/full", f"({command}; echo $? >&3) 2>&1 | exec true"):
            script = f"exec 3>&1; {script}; echo $?"
            done = subprocess.run(["sh", "-c", script], env=shell, capture_output=True, text=True)
            assert int(done.stdout.split()[0]) == code, (script, done)


def test_output_that_cannot_be_written_is_told(shell: dict[str, str]) -> None:
    """attack 13: a full disk behind standard output is no success."""
    with open("/dev/full", "w") as full:
        command = [sys.executable, "-m", "pqvault_cli", "--version"]
        done = subprocess.run(command, env=shell, stdout=full, stderr=subprocess.PIPE, text=True)
    assert done.returncode and "standard output: No space left" in done.stderr


def test_a_working_folder_that_is_gone_is_named(tmp_path: Path, shell: dict[str, str]) -> None:
    """As a shell has it after another one removed the folder: no error without its object."""
    script = "pqvault keygen -o key > pub && mkdir x gone && pqvault seal x -R pub -q && cd gone"
    script += f" && rmdir {tmp_path}/gone && pqvault ls ../x.pqv -i ../key"
    done = subprocess.run(["sh", "-c", script], env=shell, cwd=tmp_path, capture_output=True)
    assert done.returncode == 1 and b"the folder that this runs in is gone" in done.stderr


def test_there_are_transcripts() -> None:
    """An empty glob passes every test."""
    assert len(TRANSCRIPTS) >= 8


def play(transcript: str, folder: Path, env: dict[str, str]) -> None:
    """Every command prints what the transcript says, and ends as it says."""
    commands = steps(transcript)
    assert commands
    for command, expected, code in commands:
        done = subprocess.run(
            ["sh", "-c", command],
            cwd=folder,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        assert re.fullmatch(pattern(expected), done.stdout), (
            f"$ {command}\n{done.stdout}\n--- is not ---\n{expected}"
        )
        assert done.returncode == code, f"$ {command} ended with {done.returncode}, not {code}"
        assert "Traceback" not in done.stdout


@pytest.mark.parametrize("path", TRANSCRIPTS, ids=lambda path: path.stem)
def test_transcript(path: Path, tmp_path: Path, shell: dict[str, str]) -> None:
    folder = tmp_path / "work"
    folder.mkdir()
    play(path.read_text(), folder, shell)


def test_no_core_is_dumped_and_the_limits_are_told(shell: dict[str, str]) -> None:
    """attack 39: a core would hold keys; and nobody is promised that memory is wiped."""
    import resource

    page = (Path(__file__).resolve().parent.parent / "docs" / "threat-model.md").read_text()
    assert "Python cannot wipe memory" in page and "core dumps off" in page
    code = (
        "import resource, sys\n"
        "from pqvault_cli.main import main\n"
        "try: main(['--version'])\n"
        "except SystemExit: print(resource.getrlimit(resource.RLIMIT_CORE)[0])"
    )
    hard = resource.getrlimit(resource.RLIMIT_CORE)[1]
    done = subprocess.run([sys.executable, "-c", code], env=shell, capture_output=True, text=True)
    assert int(done.stdout.splitlines()[-1]) == (1 if hard else 0), done.stderr
