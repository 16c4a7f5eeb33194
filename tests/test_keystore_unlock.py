"""Other ways to unlock: a keyring that is a dict, and SoftHSM where it is installed."""

from __future__ import annotations

import os
import subprocess
import sys
import types
from pathlib import Path

import pytest
from test_cli import shell  # noqa: F401  (a fixture)
from test_docs import with_keystore
from test_keystore import path, store  # noqa: F401  (fixtures)

from pqvault.errors import IntegrityError, PQVaultError
from pqvault.keystore import Keystore, Unlocked, edits

SOFTHSM = Path("/usr/lib/softhsm/libsofthsm2.so")


class KeyringError(Exception):
    """As the package's."""


def never() -> bytes:
    """Nobody is asked."""
    raise AssertionError("a passphrase was asked for")


@pytest.fixture
def ring(monkeypatch: pytest.MonkeyPatch) -> dict[tuple[str, str], str]:
    """A keyring in memory, in place of the package."""
    kept: dict[tuple[str, str], str] = {}
    module, errors = types.ModuleType("keyring"), types.ModuleType("keyring.errors")
    errors.KeyringError = KeyringError  # type: ignore[attr-defined]
    module.errors = errors  # type: ignore[attr-defined]
    module.get_password = lambda *at: kept.get(at)  # type: ignore[attr-defined]
    module.set_password = lambda s, u, p: kept.update({(s, u): p})  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "keyring", module)
    monkeypatch.setitem(sys.modules, "keyring.errors", errors)
    for name in [n for n in os.environ if n.startswith("PQVAULT_")]:
        monkeypatch.delenv(name)
    return kept


def test_the_keyring_unlocks(
    store: Unlocked,  # noqa: F811
    path: Path,  # noqa: F811
    ring: dict[tuple[str, str], str],
) -> None:
    """Nobody is asked while it holds the key; without it the passphrase is asked for."""
    edits.add_keyring(store)
    (at,) = ring
    assert store.key.keystore in at
    assert Keystore(path).unlock(never).verify().keystore == store.key.keystore
    right = ring[at]
    ring[at] = "QUJD" * 10 + "QUI="
    assert len(ring[at]) == len(right)
    with pytest.raises(IntegrityError):
        Keystore(path).unlock(never)
    for useless in ("", "no base64!", "QUJD"):
        ring[at] = useless
        with pytest.raises(AssertionError):
            Keystore(path).unlock(never)
    ring[at] = right
    edits.remove_unlock(store, "keyring")
    with pytest.raises(AssertionError):
        Keystore(path).unlock(never)


def test_a_keyring_that_keeps_nothing_is_refused(
    store: Unlocked,  # noqa: F811
    path: Path,  # noqa: F811
    ring: dict[tuple[str, str], str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As keyring's own `null` does: nobody is told that the keystore unlocks now."""
    monkeypatch.setattr(sys.modules["keyring"], "set_password", lambda *_: None)
    with pytest.raises(PQVaultError, match="does not keep"):
        edits.add_keyring(store)
    with pytest.raises(AssertionError, match="was asked for"):
        Keystore(path).unlock(never)


def test_without_the_package_it_says_how_to_get_it(
    store: Unlocked,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """An optional extra that is missing is a sentence."""
    monkeypatch.setitem(sys.modules, "keyring", None)
    with pytest.raises(PQVaultError) as caught:
        edits.add_keyring(store)
    assert "pqvault[keyring]" in caught.value.hint


TOKEN_STORY = """
set -e
mkdir tokens && echo "directories.tokendir = $PWD/tokens" > softhsm.conf
softhsm2-util --init-token --free --label vault --so-pin 12345678 --pin 4321 > /dev/null
umask 077 && echo 4321 > pin.txt && echo 1234 > wrong.txt
export PQVAULT_PKCS11_PIN_FILE=pin.txt
pqvault key unlock-with pkcs11 --token vault
echo hi | pqvault encrypt -r default -o x.pqv
unset PQVAULT_PASSPHRASE_FILE
pqvault decrypt x.pqv
pqvault key rotate default -q && pqvault key list --verify -q | wc -l
PQVAULT_PKCS11_PIN_FILE=wrong.txt pqvault decrypt x.pqv || echo $?
PQVAULT_PKCS11_MODULE=$PWD/none.so pqvault decrypt x.pqv || echo $?
mv tokens away && mkdir tokens
pqvault decrypt x.pqv || echo $?
PQVAULT_PKCS11_MODULE= pqvault decrypt x.pqv || echo $?
PQVAULT_PASSPHRASE_FILE=words.txt pqvault decrypt x.pqv
rmdir tokens && mv away tokens
"$PYTHON" - <<'EOF'
import glob, os, pkcs11, sqlite3
token = pkcs11.lib(os.environ["PQVAULT_PKCS11_MODULE"]).get_token(token_label="vault")
with token.open(user_pin="4321") as session:
    (key,) = session.get_objects({pkcs11.Attribute.CLASS: pkcs11.ObjectClass.SECRET_KEY})
    print(key.key_length, key[pkcs11.Attribute.EXTRACTABLE], key[pkcs11.Attribute.SENSITIVE])
db = sqlite3.connect(os.environ["PQVAULT_HOME"] + "/keystore.sqlite")
(sealed,) = db.execute("SELECT sealed FROM unlocks WHERE kind='pkcs11'").fetchone()
with db:
    db.execute("UPDATE unlocks SET sealed=? WHERE kind='pkcs11'", (sealed[:-1] + b"x",))
EOF
pqvault decrypt x.pqv || echo $?
"""


@pytest.mark.skipif(not SOFTHSM.exists(), reason="SoftHSM is not installed")
def test_a_token_unlocks(tmp_path: Path, shell: dict[str, str]) -> None:  # noqa: F811
    """SoftHSM 2: its key never leaves it; wrong PIN 12, no such library 1, no token 10, and what it
    sealed is authenticated."""
    pytest.importorskip("pkcs11")
    folder = tmp_path / "work"
    folder.mkdir()
    env = with_keystore(folder, shell)
    env |= {"SOFTHSM2_CONF": str(folder / "softhsm.conf"), "PQVAULT_PKCS11_MODULE": str(SOFTHSM)}
    env["PYTHON"] = sys.executable
    done = subprocess.run(
        ["bash", "-c", TOKEN_STORY],
        cwd=folder,
        env=env,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
    )
    assert done.stdout.splitlines() == [
        "the keystore unlocks with the pkcs11",
        *("hi", "2", "12", "1", "10", "2", "hi"),
        *("256 False True", "13"),
    ], done.stderr
    assert "the PIN does not open the token 'vault'" in done.stderr
