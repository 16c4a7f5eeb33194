"""Docs that cannot rot: help examples and README commands run as printed; options are named."""

from __future__ import annotations

import importlib
import re
import shutil
import subprocess
import sys
from pathlib import Path

import click
import pytest
from test_cli import environment, shell  # noqa: F401  (a fixture)

from pqvault_cli.main import COMMANDS, cli

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text()


def command_of(name: str) -> click.Command:
    """The click command of a name."""
    if name == "pqvault":
        return cli
    name, _, below = name.partition(" ")
    command: click.Command = importlib.import_module(
        f"pqvault_cli.{name.replace('-', '_')}"
    ).command
    if below:
        assert isinstance(command, click.Group)
        return command.commands[below]
    return command


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, dict[str, str]]:
    """A place with all that the examples name, a copy of it, and the environment there."""
    root = tmp_path_factory.mktemp("examples") / "here"
    folder = root / "work"
    folder.mkdir(parents=True)
    bare = environment(root)
    script = """
    mkdir -p datasets/train && echo '{"text": "hello"}' > datasets/train.jsonl
    cp datasets/train.jsonl datasets/train/a.jsonl && cp datasets/train.jsonl model.safetensors
    pqvault keygen -o key.txt > key.pub && cp key.pub team.pub
    pqvault seal datasets -r @key.pub -q && pqvault encrypt model.safetensors -o s -r @key.pub
    mv s model.safetensors.pqv && pqvault keygen --sign -o sign.txt > sign.pub
    cp datasets/train.jsonl events.jsonl && pqvault seal datasets/train.jsonl --tables \
      -o tables.pqv -r @key.pub -q
    pqvault seal datasets -o release.pqv -r @key.pub --sign sign.txt -q
    echo '{"model": "llama", "prompt": "hi"}' | pqvault log pipe serving.pqv -r @key.pub -q
    pqvault keyset new lake-keys.pqv lake pii -r @key.pub -q
    """
    subprocess.run(["sh", "-ec", script], cwd=folder, env=bare, check=True)
    env = with_keystore(folder, bare)
    kept = root.with_name("kept")
    shutil.copytree(root, kept, symlinks=True)
    return root, kept, env


@pytest.fixture
def prepared(pristine: tuple[Path, Path, dict[str, str]]) -> tuple[Path, dict[str, str]]:
    """A folder with all that the examples name, as it was before any of them ran."""
    root, kept, env = pristine
    shutil.rmtree(root)
    shutil.copytree(kept, root, symlinks=True)
    return root / "work", env


def with_keystore(folder: Path, env: dict[str, str]) -> dict[str, str]:
    """An environment with a keystore that is unlocked by a file."""
    script = """
    umask 077 && echo 'correct horse' > words.txt && echo 'battery staple' > new.txt
    pqvault init -q && pqvault audit-log head > head.txt
    echo hi > hi.txt && pqvault encrypt hi.txt -o mine.pqv -r default
    pqvault key backup backup.sqlite -q && pqvault key split --threshold 3 --shares 5 -o shares -q
    """
    env = {**env, "PQVAULT_PASSPHRASE_FILE": str(folder / "words.txt")}
    subprocess.run(["sh", "-ec", script], cwd=folder, env=env, check=True)
    return env


def encrypted_parquet(folder: Path) -> None:
    """A file of Parquet's own encryption, its keys under the keyset of the folder."""
    import pyarrow as pa

    from pqvault.keys import Identity
    from pqvault.keyset import Keyset
    from pqvault.tables.kms import Kms

    keyset = Keyset.open(folder / "lake-keys.pqv", Identity.load_file(folder / "key.txt"))
    table = pa.table({"email": ["a@b.c"]})
    Kms(keyset).write_table(table, folder / "users.parquet", footer_key="lake", external=True)


# What has to be out of the way, because an example makes it.
MAKES = {
    "keygen": "key.txt",
    "encrypt": "model.safetensors.pqv",
    "decrypt": "model.safetensors",
    "pqvault": "key.txt",
    "init": "../home/keystore.sqlite",
    "key split": "shares",
}


# Commands that run until they are ended, tried elsewhere: tests/integrations/test_mount.py.
LASTS = {"mount"}


def subcommands() -> list[str]:
    """``key list`` and its like: all commands of all groups."""
    groups = {name: command_of(name) for name in COMMANDS}
    return [
        f"{name} {below}"
        for name, group in groups.items()
        if isinstance(group, click.Group)
        for below in group.commands
    ]


@pytest.mark.parametrize("name", ["pqvault", *COMMANDS, *subcommands()])
def test_every_help_ends_with_an_example_that_runs(
    name: str, prepared: tuple[Path, dict[str, str]]
) -> None:
    """The last line of a command's help, typed as it stands. attack 40: no private key and no
    passphrase is in what it prints, nor in what it leaves in PQVAULT_HOME."""
    folder, env = prepared
    secrets = secrets_in(folder)
    if name == "keyset rewrap":
        encrypted_parquet(folder)
    epilog = command_of(name).epilog or ""
    assert epilog.startswith("Example: ")
    if name in LASTS:
        return
    if name in MAKES:
        (folder / MAKES[name]).rename(folder / "moved")
    if name == "pqvault":
        (folder / "datasets.pqv").rename(folder / "old.pqv")
    done = subprocess.run(
        ["bash", "-c", epilog.removeprefix("Example: ")],
        cwd=folder,
        env=env,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    secrets |= secrets_in(folder)
    assert len(secrets) >= 4
    home = [p.read_bytes() for p in Path(env["PQVAULT_HOME"]).rglob("*") if p.is_file()]
    for shown in (done.stdout.encode(), done.stderr.encode(), *home):
        assert not [secret for secret in secrets if secret in shown]


def secrets_in(folder: Path) -> set[bytes]:
    """Private keys and passphrases in files that are none but theirs."""
    private = re.compile(rb"^(?:AGE-SECRET-KEY-PQ|PQVAULT-SIGNING-KEY)-\w+$", re.MULTILINE)
    files = [path.read_bytes() for path in folder.glob("*") if path.is_file()]
    words = [(folder / name).read_bytes().strip() for name in ("words.txt", "new.txt")]
    return {key for data in files for key in private.findall(data)}.union(words)


@pytest.mark.parametrize("name", [*COMMANDS, *subcommands()])
def test_every_command_and_option_explains_itself(name: str) -> None:
    """No command without a docstring, no option without help or a telling metavar."""
    command = command_of(name)
    assert command.help
    for parameter in command.params:
        if isinstance(parameter, click.Option):
            assert parameter.help, f"{name} {parameter.opts}"


@pytest.mark.parametrize("name", [*COMMANDS, *subcommands()])
def test_every_command_is_in_the_readme(name: str) -> None:
    """The README's table knows all commands."""
    assert re.search(rf"\b{name.split()[-1]}\b", README)


def test_the_readmes_commands_run_as_printed(prepared: tuple[Path, dict[str, str]]) -> None:
    """The first shell block of the README, and its Python example."""
    folder, env = prepared
    for name in ("key.txt", "key.pub", "datasets.pqv"):
        (folder / name).rename(folder / f"old-{name}")
    block = re.search(r"```sh\n(pqvault keygen.*?)```", README, re.DOTALL)
    code = re.search(r"```python\n(.*?)```", README, re.DOTALL)
    assert block and code
    subprocess.run(["bash", "-ec", block[1]], cwd=folder, env=env, check=True)
    assert (folder / "restored/datasets/train.jsonl").read_text() == '{"text": "hello"}\n'
    done = subprocess.run(
        [sys.executable, "-c", code[1]], cwd=folder, env=env, check=True, capture_output=True
    )
    assert b"hello" in done.stdout


def test_the_readme_names_commands_that_make_knows() -> None:
    """The two commands for a fresh machine are targets of the Makefile."""
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    for name in re.findall(r"^make ([a-z-]+)$", README, re.MULTILINE):
        assert name in targets
    assert {"demo", "test"} <= set(re.findall(r"^make ([a-z-]+)$", README, re.MULTILINE))


def test_help_is_quick_because_it_imports_little() -> None:
    """`pqvault --help` loads neither pyarrow nor rich nor cryptography."""
    code = (
        "import sys\n"
        "from pqvault_cli.main import cli\n"
        "try: cli(['--help'])\n"
        "except SystemExit: pass\n"
        "heavy = {'pyarrow', 'rich', 'cryptography', 'zstandard', 'fsspec'} & set(sys.modules)\n"
        "sys.exit(f'imported {heavy}' if heavy else 0)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL)


def test_exit_codes_in_the_readme_are_those_of_the_error_classes() -> None:
    """Each code once, in the tree and in the README."""
    from pqvault import errors

    codes = {getattr(errors, name).exit_code for name in errors.__all__}
    listed = README[README.index("### Exit codes") :]
    for code in codes | {0, 130}:
        assert re.search(rf"\b{code} [a-z]", listed), code


def test_the_commands_of_the_page_on_tables_run(tmp_path: Path, shell: dict[str, str]) -> None:  # noqa: F811
    """docs/tables.md: every command and the Python example, as printed."""
    (tmp_path / "events").mkdir()
    lines = [f'{{"n": {n}, "prompt": "p{n}", "answer": "a{n}"}}\n' for n in (1, 2, 3)]
    (tmp_path / "events/train.jsonl").write_text("".join(lines))
    page = (ROOT / "docs/tables.md").read_text()
    script = "\n".join(re.findall(r"```sh\n(.*?)```", page, re.DOTALL))
    code = re.search(r"```python\n(.*?)```", page, re.DOTALL)
    assert script.count("pqvault ") > 10 and code
    done = subprocess.run(
        ["bash", "-ec", script], cwd=tmp_path, env=shell, check=True, capture_output=True, text=True
    )
    assert "without answer, prompt" not in done.stdout and "p2" in done.stdout
    assert (tmp_path / "train.csv").read_text() == "n\n1\n2\n3\n"
    assert '"line": 2' in done.stdout and "the column 'n': NaN is no JSON number" in done.stdout
    done = subprocess.run(
        [sys.executable, "-c", code[1]], cwd=tmp_path, env=shell, check=True, capture_output=True
    )
    assert b'[["b","c"]]' in done.stdout
