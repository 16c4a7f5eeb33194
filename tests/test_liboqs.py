"""The second KEM provider: like the first byte for byte, found before it is imported, or refused.

What needs the library is skipped by name where it is missing; what proves that nothing is fetched,
built or run for want of it goes everywhere.
"""

from __future__ import annotations

import ctypes
import json
import os
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from hypothesis import given, settings
from hypothesis import strategies as st
from test_cli import shell  # noqa: F401  (a fixture)
from test_docs import with_keystore
from test_keystore_cli import run
from test_outside_vectors import kat
from test_profiles import BY, PROVIDERS, VECTORS, WITHOUT_LIBOQS, published
from test_vectors import STREAMS, check_failure, in_order, sha256

import pqvault
from pqvault.crypto import hpke, kem, oqs_kem, oqs_library, pyca_kem
from pqvault.crypto.kems import KEMS
from pqvault.crypto.profiles import CNSA2, HIGH, PROFILES, Profile
from pqvault.errors import PQVaultError, UsageError
from pqvault.providers import describe, in_use

ROOT = Path(pqvault.__file__).parent.parent
needs_liboqs = pytest.mark.skipif(bool(WITHOUT_LIBOQS), reason=WITHOUT_LIBOQS)
each = pytest.mark.parametrize("profile", PROFILES.values(), ids=str)
both_ways = pytest.mark.parametrize(
    ("wraps", "unwraps"),
    [(pyca_kem, oqs_kem), (oqs_kem, pyca_kem), (oqs_kem, oqs_kem)],
    ids=["cryptography to liboqs", "liboqs to cryptography", "liboqs to liboqs"],
)


def seeds(profile: Profile) -> st.SearchStrategy[bytes]:
    return st.binary(min_size=profile.seed_size, max_size=profile.seed_size)


# -- ATTACKS row 21: the two agree ----------------------------------------------------------


@needs_liboqs
@each
@settings(max_examples=40, deadline=None)
@given(st.data())
def test_attack_21_one_seed_is_one_key(profile: Profile, data: st.DataObject) -> None:
    """The same seed gives the same public key, in every profile."""
    seed = data.draw(seeds(profile))
    assert oqs_kem.public_key_of(profile, seed) == pyca_kem.public_key_of(profile, seed)


@needs_liboqs
@each
@both_ways
@settings(max_examples=25, deadline=None)
@given(st.data())
def test_attack_21_what_one_wraps_the_other_opens(
    profile: Profile, wraps: Any, unwraps: Any, data: st.DataObject
) -> None:
    """Any key, any info; the sizes are those of the table."""
    seed, key = data.draw(seeds(profile)), data.draw(st.binary(min_size=32, max_size=32))
    info = data.draw(st.binary(max_size=200))
    public_key = unwraps.public_key_of(profile, seed)
    sealed = wraps.encrypt(profile, key, public_key, info)
    assert len(sealed) == profile.sealed_size
    assert unwraps.decrypt(profile, sealed, seed, info) == key


@needs_liboqs
@each
def test_attack_21_what_one_refuses_the_other_refuses(profile: Profile) -> None:
    """A bit anywhere in enc or ciphertext, another info, another seed: both say no, and no more."""
    seed, info = os.urandom(profile.seed_size), b"what it is for"
    sealed = pyca_kem.encrypt(profile, bytes(32), pyca_kem.public_key_of(profile, seed), info)
    lies = [(sealed, seed, info + b"!"), (sealed, os.urandom(profile.seed_size), info)]
    for at in range(0, len(sealed), 97):
        bad = bytearray(sealed)
        bad[at] ^= 1 << at % 8
        lies.append((bytes(bad), seed, info))
    for lie in lies:
        for provider in (pyca_kem, oqs_kem):
            with pytest.raises((InvalidTag, ValueError)):
                provider.decrypt(profile, *lie)


@needs_liboqs
@pytest.mark.parametrize("size", [768, 1024])
def test_mlkem_kat_of_both_sizes(size: int) -> None:
    """FIPS 203's vectors: seed to key, ciphertext to secret, and that of a rejected one."""
    row = next(row for row in KEMS.values() if row.mlkem == size)
    records = kat(f"asymmetric/MLKEM/kat_MLKEM_{size}.rsp")[:100]
    assert len(records) == 100
    for record in records:
        with oqs_kem._mlkem(row) as mlkem:
            assert mlkem.generate_keypair_seed(record["d"] + record["z"]) == record["pk"]
            assert mlkem.decap_secret(record["ct"]) == record["ss"]
            assert mlkem.decap_secret(record["ct_n"]) == record["ss_n"]


OURS = [v for v in VECTORS if v["kem_id"] in {row.kem_id for row in PROFILES.values()}]
vectors = pytest.mark.parametrize(
    "v", OURS, ids=[f"kem{v['kem_id']:04x}-kdf{v['kdf_id']}-aead{v['aead_id']}" for v in OURS]
)


def profile_of(v: dict[str, Any]) -> Profile:
    return next(row for row in PROFILES.values() if row.kem_id == v["kem_id"])


@vectors
@BY
def test_hpke_vectors_key_pairs(v: dict[str, Any], by: Any) -> None:
    """draft-ietf-hpke-pq: skRm gives pkRm, by both providers."""
    assert len(OURS) == 5
    seed = bytes.fromhex(v["skRm"])
    assert by.public_key_of(profile_of(v), seed) == bytes.fromhex(v["pkRm"])


@needs_liboqs
@vectors
def test_hpke_vectors_shared_secrets(v: dict[str, Any]) -> None:
    """skRm and enc give shared_secret: ML-KEM from liboqs, the curve and the combiner around it."""
    found = oqs_kem.decapsulate(profile_of(v), bytes.fromhex(v["enc"]), bytes.fromhex(v["skRm"]))
    assert found == bytes.fromhex(v["shared_secret"])


@pytest.mark.parametrize("profile", [HIGH, CNSA2], ids=str)
def test_hpke_vectors_key_schedule(profile: Profile) -> None:
    """The schedule gives their key and nonce, which open all their messages. Needs no liboqs."""
    (v,) = [v for v in published(profile) if (v["kdf_id"], v["aead_id"]) == (2, 2)]
    secret, info = bytes.fromhex(v["shared_secret"]), bytes.fromhex(v["info"])
    key, nonce = hpke._schedule(profile, secret, info)
    assert (key.hex(), nonce.hex()) == (v["key"], v["base_nonce"])
    assert len(v["encryptions"]) > 1
    for message in v["encryptions"]:
        ct, aad = bytes.fromhex(message["ct"]), bytes.fromhex(message["aad"])
        opened = AESGCM(key).decrypt(bytes.fromhex(message["nonce"]), ct, aad)
        assert opened == bytes.fromhex(message["pt"])


@needs_liboqs
def test_vectors_of_envelopes_read_the_same() -> None:
    """Every vector of a sealed stream that has to do with its envelope: what opens, what comes
    out, and the exit code of what does not, as with the first provider."""
    pqvault.use_kem_provider("liboqs")
    chosen = [v for v in STREAMS if v.name.startswith(("envelope_", "stream_of_"))]
    assert len(chosen) > 80
    for vector in chosen:
        out, error = in_order(vector)
        if vector.expect == "success":
            assert error is None, vector.name
        else:
            check_failure(vector, error)
        assert sha256(out) == vector.released, vector.name


@needs_liboqs
def test_the_command_line_uses_it_and_the_audit_log_says_so(
    tmp_path: Path,
    shell: dict[str, str],  # noqa: F811
) -> None:
    """Sealed by one and opened by the other, in processes of their own; each use is named."""
    folder = tmp_path / "work"
    folder.mkdir()
    desk = (folder, with_keystore(folder, shell) | {"HOME": os.environ["HOME"]})
    script = """
    mkdir d && echo one > d/f
    pqvault key new mine --profile high --kem-provider liboqs -q
    pqvault seal d -r mine -q --kem-provider liboqs && pqvault cat d.pqv d/f
    echo two | pqvault encrypt -r mine -o s.pqv && pqvault --kem-provider liboqs decrypt s.pqv
    PQVAULT_KEM_PROVIDER=liboqs pqvault key rotate mine -q
    PQVAULT_KEM_PROVIDER=liboqs pqvault rotate d.pqv -q && pqvault cat d.pqv d/f
    pqvault rotate s.pqv -q
    """
    done = run(desk, script)
    assert (done.stdout, done.returncode) == ("one\ntwo\none\n", 0), done.stderr
    log = run(desk, "pqvault audit-log show --json").stdout.splitlines()
    details = [json.loads(line)["detail"].get("kem", "") for line in log]
    used = [detail.split()[0] for detail in details if detail]
    assert used == ["cryptography", "liboqs", "liboqs", "liboqs", "cryptography"]
    shown = run(desk, "PQVAULT_KEM_PROVIDER=liboqs pqvault doctor")
    assert shown.returncode == 0 and "in use, liboqs 0." in shown.stdout, shown.stdout
    assert f"profiles {', '.join(PROFILES)}\n" in shown.stdout


# -- ATTACKS row 22: nothing is fetched, built or run for want of it ------------------------

WATCHED = """
import os, sys
spawned = []
def watch(event, args):
    if event in ("subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.fork",
                 "os.forkpty", "os.spawn", "socket.connect", "socket.getaddrinfo"):
        spawned.append((event, str(args)[:200]))
sys.addaudithook(watch)
import io, pqvault
from pqvault.crypto import kem, oqs_library
"""


def watched(code: str, folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run code that sees every process and connection that Python begins."""
    return subprocess.run(
        [sys.executable, "-c", WATCHED + code],
        cwd=ROOT,
        env={"PATH": "", "HOME": str(folder), "PQVAULT_HOME": str(folder / "home"), **environment},
        capture_output=True,
        text=True,
        timeout=120,
    )


@pytest.fixture
def trap(tmp_path: Path) -> Path:
    """A liboqs-python that is installed and does what the real one does without a library."""
    (tmp_path / "oqs.py").write_text("import os\nos.system('git clone liboqs')\nraise SystemExit\n")
    info = tmp_path / "liboqs_python-0.16.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: liboqs-python\nVersion: 0.16.0\n")
    return tmp_path


def test_the_watch_sees_what_oqs_would_do(trap: Path) -> None:
    """The test below could fail: importing it is seen."""
    code = "try:\n    import oqs\nexcept SystemExit:\n    pass\nprint(spawned)"
    assert "git clone liboqs" in watched(code, trap, PYTHONPATH=str(trap)).stdout


NO_LIBRARY = "oqs_library._NAMES = ()  # whatever this machine's loader knows\n"

ASK_TWICE = """
from pqvault.errors import PQVaultError
for _ in range(2):
    try:
        pqvault.Identity.generate()
    except PQVaultError as error:
        print(error.message, '|', error.hint)
print('oqs' in sys.modules, spawned)
"""

GO_ROUND = """
key = pqvault.Identity.generate()
pqvault.encrypt(io.BytesIO(b'content'), out := io.BytesIO(), [key.recipient])
pqvault.decrypt(io.BytesIO(out.getvalue()), back := io.BytesIO(), [key])
from pqvault.doctor import examine
healthy = examine().healthy
"""


def test_attack_22_without_the_library_nothing_is_spawned(trap: Path) -> None:
    """No library, git or compiler: a sentence that says how to install it, each time anew and
    without a fallback; the first provider works as if nothing were there."""
    places = {"PYTHONPATH": str(trap), "OQS_INSTALL_PATH": str(trap / "none")}
    done = watched(NO_LIBRARY + ASK_TWICE, trap, PQVAULT_KEM_PROVIDER="liboqs", **places)
    assert done.returncode == 0, done.stderr
    first, second, nothing = done.stdout.splitlines()
    assert first == second
    assert first.startswith("no shared library of liboqs is found | install liboqs 0.15 or newer")
    assert "pip install pqvault[liboqs]" in first and nothing == "False []"
    say = "print(back.getvalue(), healthy, 'oqs' in sys.modules, spawned)"
    done = watched(NO_LIBRARY + GO_ROUND + say, trap, **places)
    assert done.stdout == "b'content' True False []\n", done.stderr


@needs_liboqs
def test_attack_22_with_the_library_nothing_is_spawned_either(tmp_path: Path) -> None:
    """`oqs` loads the file that was looked at, so no ldconfig or compiler is asked where it is;
    and nothing is written to standard output, where content goes."""
    library = oqs_library.find()
    assert library is not None
    say = "import oqs\nprint(back.getvalue(), healthy, oqs.native()._name, spawned)"
    places = {"HOME": os.environ["HOME"], "PATH": os.environ["PATH"]}
    for name in ("OQS_INSTALL_PATH", "LD_LIBRARY_PATH"):
        if name in os.environ:
            places[name] = os.environ[name]
    code = "kem.use('liboqs')\n" + GO_ROUND + say
    done = watched(code, tmp_path, **places)
    assert done.stdout == f"b'content' True {library.where} []\n", done.stderr


def test_a_missing_wrapper_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """The Python package and the library are two things to install."""
    monkeypatch.setattr(oqs_library, "wrapper_version", lambda: None)
    with pytest.raises(PQVaultError, match=r"^liboqs-python is not installed$") as caught:
        oqs_library.load()
    assert "pip install" in caught.value.hint


# -- ATTACKS row 23: a floor, and nothing of liboqs but ML-KEM ------------------------------


class OtherVersion:
    """A shared library of another version, as ctypes shows it."""

    def __init__(self, version: bytes) -> None:
        self.OQS_version = type("Function", (), {"__call__": lambda _: version})()


@pytest.fixture
def unloaded() -> Iterator[None]:
    """As in a process that has not loaded it yet."""
    oqs_kem.start.cache_clear()
    yield
    oqs_kem.start.cache_clear()


@pytest.mark.usefixtures("unloaded")
@pytest.mark.parametrize("version", ["0.14.0", "0.9.9", "0.4", "", "dev", "-1.0", "0"])
def test_attack_23_old_versions_are_refused(version: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the library and of the wrapper: a sentence with the version and the floor."""
    monkeypatch.setattr(oqs_library, "wrapper_version", lambda: "0.16.0")
    with monkeypatch.context() as patch:
        patch.setattr(ctypes, "CDLL", lambda where: OtherVersion(version.encode()))
        with pytest.raises(PQVaultError, match=rf"'{version}', and it must be 0\.15 or newer"):
            kem.use("liboqs")
        assert (
            f"not usable: liboqs in {next(iter(oqs_library._files()), 'liboqs.so')}"
            in (describe()["liboqs"])
        )
    monkeypatch.setattr(oqs_library, "wrapper_version", lambda: version)
    with pytest.raises(PQVaultError, match=r"^liboqs-python has version .* 0\.15 or newer"):
        oqs_library.load()


@pytest.mark.parametrize("version", ["0.15.0", "0.16.0-rc1", "0.20.1", "1.0.0", "1.0"])
def test_newer_versions_are_taken(version: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The floor is a floor; 0.20 is not below 0.15."""
    monkeypatch.setattr(ctypes, "CDLL", lambda where: OtherVersion(version.encode()))
    found = oqs_library.find()
    assert found is not None and found.version == version


def test_another_library_of_that_name_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A real shared library without OQS_version, below OQS_INSTALL_PATH."""
    modules = Path(sysconfig.get_paths()["stdlib"]) / "lib-dynload"
    some = min(modules.glob("*.so"))
    (tmp_path / "lib").mkdir()
    shutil.copy(some, tmp_path / "lib" / "liboqs.so")
    monkeypatch.setenv("OQS_INSTALL_PATH", str(tmp_path))
    with pytest.raises(PQVaultError, match=r"liboqs\.so is not liboqs"):
        oqs_library.find()
    (tmp_path / "other" / "lib").mkdir(parents=True)
    (tmp_path / "other" / "lib" / "liboqs.so").write_bytes(b"no library at all")
    monkeypatch.setenv("OQS_INSTALL_PATH", str(tmp_path / "other"))
    monkeypatch.setattr(oqs_library, "_NAMES", ())
    assert oqs_library.find() is None


@needs_liboqs
def test_attack_23_only_mlkem_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything works with a liboqs that has two algorithms and two functions and no more."""
    real, library = oqs_kem.start()
    asked: set[str] = set()

    def only(name: str) -> Any:
        asked.add(name)
        return real.KeyEncapsulation(name)

    little = SimpleNamespace(KeyEncapsulation=only, is_kem_enabled=real.is_kem_enabled)
    monkeypatch.setattr(oqs_kem, "start", lambda: (little, library))
    for profile in PROFILES.values():
        seed = bytes(profile.seed_size)
        public_key = oqs_kem.public_key_of(profile, seed)
        oqs_kem.check_public_key(profile, public_key)
        sealed = oqs_kem.encrypt(profile, bytes(32), public_key, b"")
        assert oqs_kem.decrypt(profile, sealed, seed, b"") == bytes(32)
    assert asked == {"ML-KEM-768", "ML-KEM-1024"} == set(oqs_kem._ALLOWED.values())


@pytest.mark.usefixtures("unloaded")
def test_a_library_without_mlkem_1024_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """A minimal build may lack it."""
    little = SimpleNamespace(is_kem_enabled=lambda name: name == "ML-KEM-768")
    where = oqs_library.Library("/opt/liboqs.so", "0.16.0")
    monkeypatch.setattr(oqs_library, "load", lambda: (little, where))
    with pytest.raises(PQVaultError, match=r"/opt/liboqs\.so was built without ML-KEM-1024"):
        kem.use("liboqs")


# -- which one it is ------------------------------------------------------------------------


def test_an_unknown_provider_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """By name, from the call and from the variable."""
    with pytest.raises(UsageError, match="no KEM provider 'openssl'"):
        pqvault.use_kem_provider("openssl")
    monkeypatch.setenv("PQVAULT_KEM_PROVIDER", "openssl")
    with pytest.raises(UsageError, match="no KEM provider 'openssl'"):
        pqvault.Identity.generate()
    assert describe()["chosen"] == "FAILED: there is no KEM provider 'openssl'"


@pytest.mark.parametrize("name", PROVIDERS)
def test_the_choice_holds(name: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A call wins over the variable; the variable over nothing; nothing is `cryptography`."""
    assert in_use().startswith("cryptography 50.")
    pqvault.use_kem_provider(name.NAME)
    assert in_use().startswith(name.NAME)
    monkeypatch.setattr(kem, "_chosen", None)
    monkeypatch.setenv("PQVAULT_KEM_PROVIDER", name.NAME)
    assert in_use().startswith(name.NAME) and kem.offered() == list(PROFILES)
    pqvault.use_kem_provider("cryptography")
    assert in_use().startswith("cryptography")
