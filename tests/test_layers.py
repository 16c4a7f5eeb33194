"""Walls: who may import whom, and what no module does. Each violation is a sentence."""

from __future__ import annotations

import ast
import importlib
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

import pqvault

ROOT = Path(pqvault.__file__).parent
CLI = ROOT.parent / "cli"

# Lower may not import higher; what shares a number are walls to each other, but for packages'
# own modules. DESIGN section 5.
LEVELS = {
    "closing": 0,
    "errors": 0,
    "lazy": 0,
    "names": 1,
    "progress": 1,
    "crypto": 2,
    "format": 2,
    "storage": 2,
    "sealedfile": 2.5,
    "keyfile": 2.7,
    "keys": 3,
    "providers": 3,
    "signing": 3,
    "policy": 3.5,
    "arguments": 3.6,
    "rootkey": 4,
    "handover": 4.2,
    "keystore": 4.5,
    "sealed": 5,
    "sources": 3,
    "tablefile": 5.5,
    "streams": 6,
    "keyset": 6.5,
    "archive": 7,
    "rotation": 7.5,
    "tables": 7.5,
    "logs": 7.8,
    "api": 8,
    "scan": 8,
    "attestation": 8,
    "drill": 9,
    "keeping": 9,
    "rotating": 9,
    "reencrypting": 9,
    "maintaining": 9,
    "doctor": 9,
    "leaks": 9,
    "integrations": 9.5,
}
APART = {
    "home": 1,
    "ids": 1,
    "memory": 1,
    "passphrases": 1,
    "wholefile": 2.6,
}  # small helpers: nothing of keys or formats in them
OUTSIDE = {
    "cryptography": {"crypto"},
    "oqs": {"crypto"},
    "blake3": {"crypto"},
    "pkcs11": {"crypto"},
    "keyring": {"keystore"},
    "shamir_mnemonic": {"keystore"},
    "sqlite3": {"archive", "keystore"},
    "zstandard": {"sealed", "doctor"},
    "rich": set[str](),
    "click": set[str](),
    "duckdb": {"tables"},
    "polars": {"integrations"},
    "fsspec": {"storage", "integrations"},
    "platformdirs": {"home"},
    "pickle": set[str](),
    "marshal": set[str](),
    "shelve": set[str](),
    "dill": set[str](),
    "yaml": set[str](),
    "tarfile": {"integrations"},
    "torch": {"integrations"},
    "litdata": {"integrations"},
    "safetensors": {"integrations"},
    "jax": set[str](),
    "subprocess": {"passphrases", "archive"},
    "urllib.request": set[str](),
    "requests": set[str](),
    "socket": set[str](),
}


# What integrations import and this package does not need.
HOSTS = {"torch", "ray", "litdata", "litellm", "opentelemetry", "polars"}


def modules(root: Path = ROOT) -> list[Path]:
    found = sorted(root.rglob("*.py"))
    assert len(found) > 20 or root != ROOT, "the walk found no modules"
    return found


def layer(path: Path) -> str:
    """`archive` for pqvault/archive/seal.py, `keys` for pqvault/keys.py."""
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


def imports(tree: ast.Module) -> Iterator[tuple[int, str, bool]]:
    """(line, module, whether it is for the type checker only)."""
    for_types = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        for child in node.body
        for inner in ast.walk(child)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name, id(node) in for_types
        elif isinstance(node, ast.ImportFrom):
            if node.level:
                yield node.lineno, "." * node.level + (node.module or ""), id(node) in for_types
                continue
            names = [f"{node.module}.{alias.name}" for alias in node.names]
            for name in names if node.module == "pqvault" else [node.module or ""]:
                yield node.lineno, name, id(node) in for_types


def wrong_imports(path: Path, tree: ast.Module) -> Iterator[str]:
    """A sentence for each import that goes through a wall."""
    here = layer(path)
    levels = LEVELS | APART
    for line, name, for_types in imports(tree):
        where = f"{path.relative_to(ROOT.parent)}:{line}"
        for outside, allowed in OUTSIDE.items():
            if (name == outside or name.startswith(outside + ".")) and here not in allowed:
                homes = " or ".join(sorted(allowed)) or "nothing"
                yield f"{where} imports {outside}, which {homes} of pqvault may."
        if name.startswith("."):
            yield f"{where} imports {name}: write the module's name in full."
        if not name.startswith("pqvault.") or here == "__init__" or for_types:
            continue
        there = name.split(".")[1]
        if there == "__version__":
            continue
        if there not in levels:
            yield f"{where} imports {name}, which has no place in the layers: give it one."
        elif there != here and levels[there] >= levels[here]:
            peers = "beside" if levels[there] == levels[here] else "above"
            yield f"{where} imports {name}, which stands {peers} {here}: imports go down only."


Trees = list[tuple[Path, ast.Module]]


@pytest.fixture(scope="module")
def trees() -> Trees:
    """Each module of pqvault, parsed once: that takes a second."""
    return [(path, ast.parse(path.read_text(), str(path))) for path in modules()]


def test_every_module_has_a_place() -> None:
    """Each module of pqvault is in the table of layers, and the table names nothing else."""
    here = {layer(path) for path in modules()} - {"__init__"}
    assert here == set(LEVELS) | set(APART)


def test_imports_go_down_only(trees: Trees) -> None:
    """Imports go down only, and outside packages are imported where they belong."""
    assert [s for path, tree in trees for s in wrong_imports(path, tree)] == []


@pytest.mark.parametrize(
    ("where", "code", "words"),
    [
        ("format/envelope.py", "import pqvault.crypto.kem", "stands beside format"),
        ("crypto/kem.py", "from pqvault.storage import base", "stands beside crypto"),
        ("storage/base.py", "from pqvault.format import commit", "stands beside storage"),
        ("keys.py", "from pqvault import rootkey", "stands above keys"),
        ("streams.py", "from pqvault.archive import seal", "stands above streams"),
        ("keys.py", "from cryptography.x509 import X", "imports cryptography, which crypto"),
        ("keys.py", "import oqs", "imports oqs, which crypto of pqvault may"),
        ("archive/seal.py", "def f():\n    import pickle", "imports pickle, which nothing"),
        ("archive/seal.py", "from pqvault.other import x", "no place in the layers"),
    ],
)
def test_the_wall_stands(where: str, code: str, words: str) -> None:
    """The check of imports sees each kind of violation, and says it in a sentence."""
    (sentence,) = wrong_imports(ROOT / where, ast.parse(code))
    assert words in sentence and sentence.endswith(".")


def test_nothing_unpickles_or_evaluates(trees: Trees) -> None:
    """attack 32: no eval, exec, pickle or yaml anywhere, nor a shell."""
    banned = re.compile(r"\b(eval|exec|compile|__import__|system|popen)\b")
    found = []
    for path, tree in trees:
        for node in ast.walk(tree):
            if isinstance(node, ast.Call):
                name = ast.unparse(node.func)
                if banned.fullmatch(name) or name in ("os.system", "os.popen"):
                    found.append(f"{path.name}:{node.lineno} calls {name}.")
                if any(k.arg == "shell" for k in node.keywords):
                    found.append(f"{path.name}:{node.lineno} starts a shell.")
    assert found == []


SECRET = re.compile(r"mac|tag|digest|commitment|secret|seed|okm|root_key|salt", re.IGNORECASE)


def secret_comparisons(tree: ast.Module) -> Iterator[int]:
    for node in ast.walk(tree):
        if not isinstance(node, ast.Compare):
            continue
        if not any(isinstance(op, ast.Eq | ast.NotEq) for op in node.ops):
            continue
        sides = map(ast.unparse, (node.left, *node.comparators))
        if any(SECRET.search(t) and t[:4] != "len(" and not is_constant(t) for t in sides):
            yield node.lineno


def is_constant(text: str) -> bool:
    last = text.split(".")[-1]
    return last.isupper() or last.endswith("_size")


HOLD_SECRETS = {
    *("crypto", "keys", "keyset", "keystore", "passphrases", "providers", "rootkey"),
    *("sealed", "sealedfile", "signing", "streams"),
}


def test_no_plain_comparison_of_macs(trees: Trees) -> None:
    """attack 24: MACs, tags and commitments are compared in constant time, never with ==."""
    found = [
        f"{path.name}:{line} compares a secret with ==, use mac.equal."
        for path, tree in trees
        if layer(path) in HOLD_SECRETS
        for line in secret_comparisons(tree)
    ]
    assert found == []
    assert {layer(path) for path in modules()} >= HOLD_SECRETS
    broken = "if okm[44:] != commitment: pass\nif mac == m: pass\nif len(seed) != p.seed_size: pass"
    assert list(secret_comparisons(ast.parse(broken))) == [1, 2]


# How a log tells of what an object of its caller raised, which may be anything: it raises nothing.
TELLS = ("self._stats.drop", "self.handleError")


def test_no_error_is_swallowed_whole(trees: Trees) -> None:
    """No bare except, and no except of everything that goes on as if nothing had been."""
    found = []
    for path, tree in trees:
        for node in ast.walk(tree):
            if not isinstance(node, ast.ExceptHandler):
                continue
            broad = node.type is None or ast.unparse(node.type) in ("Exception", "BaseException")
            if broad and not any(
                isinstance(inner, ast.Raise)
                or (isinstance(inner, ast.Call) and ast.unparse(inner.func) in TELLS)
                for inner in ast.walk(node)
            ):
                found.append(f"{path.name}:{node.lineno} catches everything and does not raise.")
    assert found == []


def test_no_test_switch_in_production() -> None:
    """STYLE rule 8: no code asks whether it is tested, and nothing seeds randomness."""
    for path in modules():
        text = path.read_text()
        assert not re.search(r"PYTEST|_called_from_test|unittest|random\.seed", text), path
        if "random.Random" in text or re.search(r"\brandom\.(choice|randint|sample)\(", text):
            pytest.fail(f"{path.name} draws from a source that can be foretold.")


def test_library_prints_nothing(trees: Trees) -> None:
    """The library never prints; it has a command line for that."""
    found = [
        f"{path.name}:{node.lineno} prints."
        for path, tree in trees
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and ast.unparse(node.func) in ("print", "sys.exit", "input")
    ]
    assert found == []


def test_cli_goes_by_the_api() -> None:
    """Commands stay on the surface: no module of theirs imports crypto, format or sealed."""
    found = []
    for path in modules(CLI):
        for line, name, _ in imports(ast.parse(path.read_text())):
            if re.match(r"pqvault\.(crypto|storage)\b|cryptography|oqs|pickle", name):
                found.append(f"cli/{path.name}:{line} imports {name}, which is below the API.")
    assert found == []


def run(code: str, **environment: str) -> str:
    result = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT.parent,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_import_is_light() -> None:
    """`import pqvault` and making a key load neither pyarrow nor rich nor oqs (attack 22)."""
    code = (
        "import sys, pqvault; heavy = {'pyarrow', 'rich', 'oqs', 'click', 'numpy', 'sqlite3'};"
        "print(sorted(heavy & set(sys.modules)));"
        "pqvault.Identity.generate().recipient; print(sorted(heavy & set(sys.modules)))"
    )
    assert run(code).split() == ["[]", "[]"]


def test_help_is_light() -> None:
    """`pqvault --help` loads neither pyarrow nor rich."""
    code = (
        "import sys\nfrom pqvault_cli.main import main\nsys.argv = ['pqvault', '--help']\n"
        "try:\n    main()\nexcept SystemExit:\n    pass\n"
        "print({'pyarrow', 'rich', 'oqs'} & set(sys.modules), file=sys.stderr)\n"
        "sys.exit(bool({'pyarrow', 'rich', 'oqs'} & set(sys.modules)))"
    )
    assert "Usage" in run(code)


@pytest.mark.parametrize("module", ["reencrypting", "rotating", "archive.worker"])
def test_who_needs_no_columns_begins_without_pyarrow(module: str) -> None:
    """Rotation, re-encryption and worker processes, of which there may be many."""
    assert run(f"import sys, pqvault.{module}; print('pyarrow' in sys.modules)").split() == [
        "False"
    ]


def test_public_names() -> None:
    """Every public name exists, has a docstring, and comes from where it is said to come from."""
    assert sorted(pqvault.__all__) == pqvault.__all__
    assert set(pqvault._HOMES) | {"__version__"} == set(pqvault.__all__)
    for name in pqvault.__all__:
        thing = getattr(pqvault, name)
        assert name == "__version__" or thing.__doc__, f"{name} has no docstring"
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        pqvault.nothing  # noqa: B018


def test_every_package_is_shipped() -> None:
    """pyproject.toml names every folder of modules, so that an installed copy is whole."""
    settings = tomllib.loads((ROOT.parent / "pyproject.toml").read_text())
    here = {".".join(p.parent.relative_to(ROOT.parent).parts) for p in modules()}
    assert set(settings["tool"]["setuptools"]["packages"]) == here | {"pqvault_cli"}


def test_all_lists_are_true() -> None:
    """What a module lists in __all__ is there."""
    for path in modules():
        name = ".".join(path.relative_to(ROOT.parent).with_suffix("").parts)
        try:
            module = importlib.import_module(name.removesuffix(".__init__"))
        except ModuleNotFoundError as error:
            if str(error.name).partition(".")[0] in HOSTS and "integrations" in name:
                continue  # `make test-hosts` has it
            raise
        for public in getattr(module, "__all__", []):
            assert hasattr(module, public), f"{name} lists {public} and has none"


def test_errors_are_one_tree() -> None:
    """attack 49: each error has an exit code of the table, its own kind and a sentence."""
    from pqvault import errors

    codes = {}
    for name in errors.__all__:
        kind = getattr(errors, name)
        assert issubclass(kind, errors.PQVaultError) and kind.__doc__
        error = kind("a sentence", hint="do this")
        assert (str(error), error.hint) == ("a sentence", "do this")
        codes[name] = kind.exit_code
    assert set(codes.values()) == {1, 2, 3, 10, 11, 12, 13, 14, 15, 16}
    same = [n for n in codes if codes[n] == 13]
    assert sorted(same) == ["FormatError", "IntegrityError"]


def test_refusals_about_keys_come_with_a_next_step() -> None:
    """Whoever guards the keys has to know what to do next, at night and for the first time."""
    classes = {"UsageError", "NotFound", "PQVaultError", "KeyStateForbids", "RolledBack"}
    files = [*(ROOT / "keystore").glob("*.py"), *(ROOT / f"{n}.py" for n in ("keyfile", "policy"))]
    files += [ROOT / f"{name}.py" for name in ("passphrases", "scan", "signing")]
    assert len(files) > 20
    bare = [
        f"{path.name}:{node.lineno} raises an error without a hint"
        for path in files
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Raise)
        and isinstance(node.exc, ast.Call)
        and isinstance(node.exc.func, ast.Name)
        and node.exc.func.id in classes
        and all(word.arg != "hint" for word in node.exc.keywords)
    ]
    assert bare == []
