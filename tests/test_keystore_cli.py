"""The keystore from outside: secrets stay where they belong, passphrases come from everywhere."""

from __future__ import annotations

import os
import pty
import re
import select
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from shlex import quote

import pytest
from test_cli import shell  # noqa: F401  (a fixture)
from test_docs import with_keystore
from test_keystore import CHEAPEST, WORDS, path, store  # noqa: F401  (fixtures)

from pqvault.errors import IntegrityError, NoKeyFits, RolledBack, UsageError
from pqvault.keys import Identity
from pqvault.keystore import Keystore, audit, lifecycle
from pqvault.sealedfile import open_file, seal_file

CANARY = "canary-passphrase-7f3a"


@pytest.fixture
def desk(tmp_path: Path, shell: dict[str, str]) -> tuple[Path, dict[str, str]]:  # noqa: F811
    """A folder with a keystore and its environment."""
    folder = tmp_path / "work"
    folder.mkdir()
    return folder, with_keystore(folder, shell)


def run(
    desk: tuple[Path, dict[str, str]], command: str, **more: str
) -> subprocess.CompletedProcess[str]:
    """One shell command."""
    folder, env = desk
    return subprocess.run(
        ["bash", "-c", command],
        cwd=folder,
        env={**env, **more},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
    )


class CommandLines:
    """Watches /proc for what processes were called with."""

    def __init__(self) -> None:
        self.seen = b""
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch)

    def _watch(self) -> None:
        while not self._stop.is_set():
            for process in Path("/proc").glob("[0-9]*/cmdline"):
                try:
                    self.seen += process.read_bytes()
                except OSError:
                    pass
            time.sleep(0.02)

    def __enter__(self) -> CommandLines:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()


def test_no_command_shows_a_secret(desk: tuple[Path, dict[str, str]]) -> None:
    """ATTACKS row 40: all key commands with a canary; nothing in output, files or /proc."""
    folder, env = desk
    (folder / "words.txt").write_text(CANARY)
    Path(env["PQVAULT_HOME"], "keystore.sqlite").unlink()
    identity = Identity.generate()
    identity.save_file(folder / "mine.txt")
    commands = [
        *("init", "key import mine -i mine.txt", "key list -v --verify", "key show mine -v --json"),
        *("key new prod -v", "key rotate mine --json", "key suspend prod", "key activate prod"),
        *("key label mine a=b", "key expire mine@2 30d", "key floor mine --seal 1"),
        *("key export mine@2 --public", "key export mine@1 -o out.txt -v", "key rename prod p2"),
        *("audit-log show", "audit-log head", "audit-log verify --json", "key show mine"),
        *("encrypt out.txt -o x.pqv -r mine", "decrypt x.pqv -o y.txt", "key unlock-with keyring"),
        *("key compromise mine@1 --json", "key destroy mine@1 -v", "key passwd", "doctor -v"),
        *("key backup b.sqlite", "scan . -v", "key drill --backup b.sqlite x.pqv"),
        *("key new mine", "key destroy nothing", "key suspend mine@9", "keygen -p -o k.txt"),
    ]
    shown = ""
    with CommandLines() as lines:
        for command in commands:
            done = run(
                desk, f"PQVAULT_DEBUG=1 PQVAULT_NEW_PASSPHRASE_FILE=words.txt pqvault {command}"
            )
            shown += done.stdout + done.stderr
    (folder / "mine.txt").unlink()
    (folder / "words.txt").unlink()
    files = b"".join(
        file.read_bytes()
        for file in folder.parent.rglob("*")
        if file.is_file() and "bin" not in file.parts
    )
    everything = shown.encode() + files + lines.seen
    assert b"key\0rename\0prod" in lines.seen, "the watch saw nothing"
    for secret in (
        CANARY.encode(),
        identity.seed,
        identity.text.encode(),
        identity.seed.hex().encode(),
    ):
        assert secret not in everything


def test_export_and_import(desk: tuple[Path, dict[str, str]]) -> None:
    """Out under a passphrase or to a descriptor, in again elsewhere; what is public is public."""
    script = """
    pqvault key export default -o out.txt -q && head -1 out.txt && stat -c %a out.txt
    pqvault keygen -y out.txt | cmp - <(pqvault key export default --public)
    pqvault key export default --fd 3 -q 3> clear.txt && chmod 600 clear.txt
    pqvault keygen -y clear.txt | cmp - <(pqvault keygen -y out.txt)
    echo hi | pqvault encrypt -r default -o x.pqv
    pqvault decrypt x.pqv -i out.txt && pqvault decrypt x.pqv -i default
    export PQVAULT_HOME=$PWD/second && pqvault init -q --empty
    pqvault key import them -i out.txt -q && pqvault decrypt x.pqv
    pqvault key import them -i clear.txt || echo $?
    """
    done = run(desk, f"set -e; {script}")
    assert done.stdout.splitlines() == [
        *("pqvault.dev/sealed-identities@v1", "600", "hi", "hi", "hi", "2")
    ], done.stderr
    assert "in the keystore already, as them@1" in done.stderr


def test_a_key_that_cannot_leave_is_not_said_to_have_left(
    desk: tuple[Path, dict[str, str]],
) -> None:
    """A descriptor that is closed, or open to read: told before the audit log says anything."""
    for given in ("77", "5 5</dev/null"):
        done = run(desk, f"pqvault key export default --fd {given}")
        assert done.returncode == 2 and f"descriptor {given.split()[0]} " in done.stderr
        assert "hint: " in done.stderr
    assert "export" not in run(desk, "pqvault audit-log show").stdout
    done = run(desk, "PQVAULT_HOME=words.txt pqvault key list")
    assert "the keystore words.txt/" in done.stderr and "hint: " in done.stderr


def test_recipients_can_be_imported_and_open_nothing(desk: tuple[Path, dict[str, str]]) -> None:
    """A colleague's public key by name; their private key is not here."""
    script = """
    pqvault keygen -o them.txt > them.pub && pqvault key import them -R them.pub -q
    echo hi | pqvault encrypt -r them -o x.pqv && pqvault decrypt x.pqv -i them.txt
    pqvault decrypt x.pqv; echo $?; pqvault key export them --fd 1; echo $?
    echo age1zvkyg2lqzraa2lnjvqej32nkuu0ues2s82hzrye869xeexvn73equnujwj > old.pub
    pqvault key import old -R old.pub; echo $?
    """
    done = run(desk, script)
    assert done.stdout.splitlines() == ["hi", "12", "16", "2"], done.stderr
    assert "quantum" in done.stderr and "was never here" in done.stderr


def test_sealed_identity_files() -> None:
    """Whole and bound: each byte matters, a wrong passphrase is 12, not 13."""
    data = seal_file(b"text", b"words", CHEAPEST)
    assert open_file(data, b"words", "it") == b"text"
    with pytest.raises(NoKeyFits):
        open_file(data, b"word", "it")
    for at in range(0, len(data), 3):
        broken = data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]
        with pytest.raises((IntegrityError, NoKeyFits)):
            open_file(broken, b"words", "it")


def test_a_person_types_it_twice_and_it_is_not_shown(desk: tuple[Path, dict[str, str]]) -> None:
    """The prompt is on the terminal; what is typed is not echoed."""
    folder, env = desk
    env = {k: v for k, v in env.items() if not k.startswith("PQVAULT_PASS")}
    env["PQVAULT_HOME"] = str(folder / "typed")
    shown = _type(folder, env, ["init", "-q"], [CANARY, CANARY])
    assert "again: " in shown and CANARY not in shown
    shown = _type(folder, env, ["key", "list", "--verify"], [CANARY])
    assert "1 key version (verified)" in shown and CANARY not in shown
    assert "differ" in _type(
        folder, {**env, "PQVAULT_HOME": str(folder / "3")}, ["init"], ["a", "b"]
    )


def _type(folder: Path, env: dict[str, str], command: list[str], words: list[str]) -> str:
    pid, terminal = pty.fork()
    if pid == 0:
        os.chdir(folder)
        os.execvpe("pqvault", ["pqvault", *command], env)
    shown = b""
    for piece in _pieces(terminal):
        shown += piece
        if words and shown.endswith(b": "):
            os.write(terminal, words.pop(0).encode() + b"\n")
    os.waitpid(pid, 0)
    os.close(terminal)
    return shown.decode()


def _pieces(terminal: int) -> Iterator[bytes]:
    while select.select([terminal], [], [], 30)[0]:
        try:
            yield os.read(terminal, 4096)
        except OSError:  # the other end is closed
            return


def test_a_passphrase_that_cannot_be_had_is_asked_for_once(
    desk: tuple[Path, dict[str, str]],
) -> None:
    """Nothing is called damaged for it, whatever the number of parts: the call was wrong (2)."""
    made = run(
        desk,
        "mkdir d && for i in 1 2 3; do echo $i > d/$i; pqvault seal d -r default"
        " -q; done && printf 'echo ran >> ran; exit 1' > ask.sh",
    )
    assert made.returncode == 0, made.stderr
    bad = {"PQVAULT_PASSPHRASE_FILE": "", "PQVAULT_PASSPHRASE_COMMAND": "sh ask.sh"}
    for command in ("ls", "verify -i default", "parts -i default", "unseal -o out", "log ls"):
        done = run(desk, f"pqvault {command} d.pqv; echo $? $(wc -l < ran); rm ran", **bad)
        assert done.stdout == "2 1\n", done
        assert done.stderr.count("PQVAULT_PASSPHRASE_COMMAND") == done.stderr.count("hint: ") == 1
    for name, value in (
        ("FILE", "none"), ("FILE", "/dev/null"), ("FD", "horse"), ("FD", "77"),
        ("COMMAND", " "), ("COMMAND", "no-command"), ("COMMAND", "'"),
    ):  # fmt: skip
        source = {"PQVAULT_PASSPHRASE_FILE": "", f"PQVAULT_PASSPHRASE_{name}": value}
        done = run(desk, "pqvault ls d.pqv", **source)
        assert (done.returncode, done.stderr.count("hint: ")) == (2, 1), done.stderr
        assert "horse" not in done.stderr  # a passphrase may stand there by mistake


def test_a_reason_in_any_letters_is_kept(desk: tuple[Path, dict[str, str]]) -> None:
    """Whatever the locale, and what is no text in any is shown as such."""
    plain = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    assert run(desk, "pqvault key new a --reason 'für uns'", **plain).returncode == 0
    assert run(desk, "pqvault key new b --reason $'broken \\xff'").returncode == 0
    for command in ("rotate", "label", "import -i words.txt", "floor", "show", "export --public"):
        done = run(desk, f"pqvault key {command} $'n\\xff'")
        assert done.returncode in (2, 10) and "hint: " in done.stderr, done.stderr
    shown = run(desk, "pqvault key show a; pqvault key show b", PYTHONUTF8="1").stdout
    assert "für uns" in shown and "broken \N{REPLACEMENT CHARACTER}" in shown


def test_next_steps_work_as_they_are_printed(desk: tuple[Path, dict[str, str]]) -> None:
    """Each hint is typed: what it says is what helps."""
    broken = "head -c 9000 /dev/urandom > $PQVAULT_HOME/keystore.sqlite"
    for fails, then in (
        ("key deactivate default; pqvault key activate default", "encrypt hi.txt -r default -o x"),
        ("key destroy default@2", "key destroy default@2 --force"),
        (f"key list 2>&1; {broken}; pqvault key list", "key list --verify"),
    ):
        done = run(desk, f"pqvault {fails}")
        (step,) = re.findall(r"`pqvault ([^`]*)`", done.stderr)
        step = step.replace("FILE", "backup.sqlite")
        assert done.returncode and run(desk, f"pqvault {step} && pqvault {then}").returncode == 0


def test_unicode_is_one_passphrase_however_it_is_typed(desk: tuple[Path, dict[str, str]]) -> None:
    """é as one character or two."""
    composed, decomposed = "caf\u00e9", "cafe\u0301"
    done = run(desk, "pqvault key passwd -q", PQVAULT_NEW_PASSPHRASE=composed)
    assert done.returncode == 0
    done = run(
        desk, "pqvault key list --verify", PQVAULT_PASSPHRASE_FILE="", PQVAULT_PASSPHRASE=decomposed
    )
    assert done.returncode == 0, done.stderr


def test_the_audit_log_shows_what_was_cut(store, path, tmp_path) -> None:  # type: ignore[no-untyped-def] # noqa: F811
    """ATTACKS row 46: an entry changed or taken away is 13; an older keystore put back is 15."""
    import shutil
    import sqlite3

    old = tmp_path / "old.sqlite"
    store.close()
    shutil.copy(path, old)
    unlocked = Keystore(path).unlock(lambda: WORDS)
    lifecycle.rotate(unlocked, "prod")
    head = audit.Head.parse(audit.export_head(unlocked).marshal())
    assert audit.verify(unlocked.store, unlocked.key, head).since_head == 0
    lifecycle.rotate(unlocked, "prod")
    assert audit.verify(unlocked.store, unlocked.key, head).since_head == 1
    assert [e.action for e in audit.entries(unlocked.store, 2)] == ["rotate", "rotate"]
    before = Keystore(old).unlock(lambda: WORDS)
    with pytest.raises(RolledBack):
        audit.verify(before.store, before.key, head)
    lifecycle.rotate(before, "prod")
    with pytest.raises(RolledBack):  # as long as the head saw, and another history
        audit.verify(before.store, None, head)
    with pytest.raises(UsageError):
        other = Keystore.create(WORDS, cost=CHEAPEST, path=tmp_path / "other")
        audit.verify(other.store, None, head)
    unlocked.close()
    for column in ("time", "action", "subject", "detail", "previous", "hash"):
        copy = tmp_path / f"{column}.sqlite"
        shutil.copy(path, copy)
        db = sqlite3.connect(copy)
        with db:
            db.execute(
                f"UPDATE audit SET {column} = ? WHERE seq = 2",
                (b"x" if column in ("previous", "hash") else 5 if column == "time" else "x",),
            )
        db.close()
        with pytest.raises(IntegrityError):
            audit.verify(Keystore(copy))


def test_an_exported_head_is_whole_in_json_too(desk: tuple[Path, dict[str, str]]) -> None:
    """attack 46: what --json gives is the head with its MAC, and `verify` takes it."""
    script = """
    pqvault audit-log head --json > head.json
    python3 -c 'import json; print(json.load(open("head.json"))["document"], end="")' > head.txt
    pqvault audit-log verify --head head.txt && sed -i 's/"seq":/"seq":1/' head.txt
    pqvault audit-log verify --head head.txt || echo $?
    """
    done = run(desk, script)
    lines = done.stdout.splitlines()
    assert lines[0].endswith("0 since the head") and lines[1] == "13", done.stderr


def test_the_pages_commands_and_python_run_as_printed(desk: tuple[Path, dict[str, str]]) -> None:
    """docs/keystore.md, its first two blocks."""
    folder, env = desk
    page = (Path(__file__).resolve().parent.parent / "docs" / "keystore.md").read_text()
    commands = re.search(r"```sh\n(.*?)```", page, re.DOTALL)
    code = re.search(r"```python\n(.*?)```", page, re.DOTALL)
    assert commands and code
    Path(env["PQVAULT_HOME"], "keystore.sqlite").unlink()
    (folder / "datasets").mkdir()
    (folder / "datasets" / "train.jsonl").write_text("{}\n")
    (folder / "words.txt").write_text("the passphrase\n")
    done = run(desk, f"set -e; {commands[1]}\n{quote(sys.executable)} -c '{code[1]}'")
    assert done.returncode == 0 and "b'{}\\n'" in done.stdout, done.stderr


def test_no_command_leaves_a_log_beside_the_keystore(desk: tuple[Path, dict[str, str]]) -> None:
    """attack 18: docs/keystore.md calls it one file: a copy of it knows all that was seen, and so
    the state that an archive was rolled back from."""
    folder, env = desk
    home = Path(env["PQVAULT_HOME"])
    (folder / "data").mkdir()
    (folder / "data/a").write_text("one")
    commands = [
        "pqvault seal data -r default -q",
        "pqvault ls data.pqv",
        "cp -a data.pqv old && echo two > data/b && pqvault seal data -r default -q",
        "pqvault parts data.pqv",
        "pqvault unseal data.pqv -o out -q",
        "pqvault rotate data.pqv -q --add default",
        "pqvault key list",
    ]
    for command in commands:
        done = run(desk, command)
        assert done.returncode == 0, (command, done.stderr)
        assert not [p.name for p in home.iterdir() if p.name.startswith("keystore.sqlite-")], (
            command
        )
    copy = folder / "copy"
    copy.mkdir(mode=0o700)
    (copy / "keystore.sqlite").write_bytes((home / "keystore.sqlite").read_bytes())
    (copy / "keystore.sqlite").chmod(0o600)
    run(desk, "rm -r data.pqv && mv old data.pqv")
    assert run(desk, "pqvault ls data.pqv", PQVAULT_HOME=str(copy)).returncode == 15


@pytest.mark.parametrize("home", ["/dev/null/x", "/proc/1/x"])
def test_a_home_that_cannot_be_made_is_in_nobodys_way(home: str, tmp_path: Path) -> None:
    """A recipient's text and an identity file need no keystore, and so no place for one."""
    environment = {**os.environ, "PQVAULT_HOME": home}

    def pqvault(*words: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "pqvault_cli", *words]
        return subprocess.run(command, env=environment, capture_output=True, text=True)

    plain, key = tmp_path / "plain", tmp_path / "key.txt"
    plain.write_text("text")
    assert pqvault("keygen", "-o", str(key)).returncode == 0
    recipient = pqvault("keygen", "-y", str(key)).stdout.strip()
    sealed = str(tmp_path / "sealed")
    done = pqvault("encrypt", str(plain), "-o", sealed, "-r", recipient)
    assert (done.returncode, done.stderr) == (0, "")
    done = pqvault("decrypt", sealed, "-i", str(key))
    assert (done.returncode, done.stdout, done.stderr) == (0, "text", "")
