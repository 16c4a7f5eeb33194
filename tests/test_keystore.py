"""The keystore: life cycle, states, authentication of every row, several processes."""

from __future__ import annotations

import os
import pickle
import re
import shutil
import sqlite3
import stat
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from pqvault.crypto import kdf, passphrase, record
from pqvault.crypto.passphrase import COSTS, Cost
from pqvault.crypto.profiles import PROFILES
from pqvault.errors import (
    FormatError,
    IntegrityError,
    KeyStateForbids,
    Locked,
    NoKeyFits,
    NotFound,
    UsageError,
)
from pqvault.keys import Identity, Recipient
from pqvault.keystore import (
    Keystore,
    State,
    Unlocked,
    audit,
    authentic,
    edits,
    index,
    lifecycle,
    tables,
    transfer,
)
from pqvault.keystore import store as keystore_store
from pqvault.keystore.identities import identities
from pqvault.keystore.states import OPENS, TRANSITIONS
from pqvault.rootkey import RootKey, keyring
from pqvault.rotation.ledger import Ledger

CHEAPEST = Cost(8, 1, 1)  # only for testing
WORDS = b"correct horse"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where the keystore of a test is."""
    return tmp_path / "keystore.sqlite"


@pytest.fixture
def store(path: Path) -> Unlocked:
    """A new, unlocked keystore with one key."""
    unlocked = Keystore.create(WORDS, cost=CHEAPEST, path=path)
    lifecycle.new_key(unlocked, "prod")
    return unlocked


def unlock(path: Path, words: bytes = WORDS) -> Unlocked:
    """Open and unlock."""
    return Keystore(path).unlock(lambda: words)


def test_argon2id_is_the_one_of_rfc_9106() -> None:
    """Costs are the RFC's two options; different salts and costs give different keys."""
    assert COSTS["standard"] == Cost(65_536, 3, 4) and COSTS["high"] == Cost(2_097_152, 1, 4)
    one = passphrase.derive(b"x", bytes(16), CHEAPEST)
    assert one == passphrase.derive(b"x", bytes(16), CHEAPEST)
    for other in (
        passphrase.derive(b"y", bytes(16), CHEAPEST),
        passphrase.derive(b"x", bytes(15) + b"1", CHEAPEST),
        passphrase.derive(b"x", bytes(16), Cost(16, 1, 1)),
        passphrase.derive(b"x", bytes(16), Cost(8, 2, 1)),
    ):
        assert other.key != one.key and other.check != one.check
    assert one.key not in repr(one).encode() and repr(one.key) not in repr(one)


@pytest.mark.parametrize(
    "cost", [(1 << 32, 3, 4), (1 << 16, 17, 4), (1 << 16, 3, 17), (8, 1, 2), (0, 1, 1), (8, 0, 1)]
)
def test_bombs_are_refused_before_memory_is_taken(cost: tuple[int, int, int]) -> None:
    """ATTACKS row 41."""
    started = time.perf_counter()
    with pytest.raises(FormatError):
        Cost(*cost)
    assert time.perf_counter() - started < 0.1


def test_attack_16_each_record_has_a_nonce_of_its_own() -> None:
    """Two of one key and one text share nothing; so do locks of one passphrase."""
    sealed = [record.seal_record(bytes(32), b"a seed", b"") for _ in range(1000)]
    assert len({one[:12] for one in sealed}) == len({one[12:] for one in sealed}) == 1000
    locks = [passphrase.new_lock(b"words", CHEAPEST)[0] for _ in range(2)]
    assert locks[0].salt != locks[1].salt and locks[0].check != locks[1].check


def test_records_are_bound_and_committed() -> None:
    """A record opens with its key and AAD only; the vector pins the construction."""
    sealed = record._seal_with_nonce(bytes(32), b"seed", b"aad", bytes(12))
    assert sealed.hex() == "00" * 12 + "bdc225596358dd4e1f4f40debfd867a31b35039d"
    assert record.open_record(bytes(32), sealed, b"aad", "it") == b"seed"
    for key, data, aad in (
        (bytes(31) + b"1", sealed, b"aad"),
        (bytes(32), sealed, b"aae"),
        (bytes(32), sealed[:-1], b"aad"),
        (bytes(32), b"", b"aad"),
    ):
        with pytest.raises(IntegrityError):
            record.open_record(key, data, aad, "it")


def test_a_new_keystore_is_private_and_never_overwritten(store: Unlocked, path: Path) -> None:
    """Mode 0600 under any umask (ATTACKS row 38); a second create refuses; others' is refused."""
    old = os.umask(0)
    try:
        lifecycle.rotate(store, "prod")
        for file in path.parent.iterdir():
            assert stat.S_IMODE(file.stat().st_mode) == 0o600, file
    finally:
        os.umask(old)
    with pytest.raises(UsageError, match="already"):
        Keystore.create(WORDS, cost=CHEAPEST, path=path)
    store.close()
    path.chmod(0o640)
    with pytest.raises(UsageError, match="other users"):
        Keystore(path)
    with pytest.raises(NotFound):
        Keystore(path.with_name("none"))


def test_a_stored_recipient_is_completed_by_its_private_key(store: Unlocked, path: Path) -> None:
    """The version keeps its number and state; all is authentic; nothing else gets a seed."""
    key, other = Identity.generate(), Identity.generate()
    transfer.import_keys(store, "team", [other.recipient, key.recipient])
    lifecycle.change_state(store, "team@2", State.SUSPENDED)
    with pytest.raises(UsageError, match="already, as team@2"):
        transfer.import_keys(store, "elsewhere", [key])
    (made,) = transfer.import_keys(store, "team", [key])
    assert (made.address, made.version.state) == ("team@2", State.SUSPENDED)
    unlocked = unlock(path)
    unlocked.verify()
    assert unlocked.seed(key.key_id) == key.seed
    with pytest.raises(KeyStateForbids, match="team@1 was never here"):
        unlocked.seed(other.key_id)
    with pytest.raises(UsageError, match="already, as team@2"):
        transfer.import_keys(store, "team", [key])
    entry = tables.read_audit(store.store.db)[-1]
    assert (entry.action, entry.subject) == ("import", "team@2") and '"completes":true' in (
        entry.detail
    )


def test_a_destroyed_version_does_not_come_back(store: Unlocked) -> None:
    """Its row has no seed either, and must not get it again by an import."""
    key = Identity.generate()
    transfer.import_keys(store, "old", [key])
    lifecycle.change_state(store, "old", State.DEACTIVATED)
    lifecycle.destroy(store, "old")
    with pytest.raises(KeyStateForbids, match="old@1 is destroyed"):
        transfer.import_keys(store, "old", [key])
    with pytest.raises(KeyStateForbids, match="was destroyed"):
        store.seed(key.key_id)


@pytest.mark.parametrize("profile", PROFILES)
def test_keys_of_every_profile(store: Unlocked, path: Path, profile: str) -> None:
    """Made, listed, rotated to the same profile, unsealed; one name has one profile."""
    lifecycle.new_key(store, "mine", profile=profile)
    lifecycle.rotate(store, "mine")
    facts = [f for f in store.store.list() if f.name == "mine"]
    assert [f.profile for f in facts] == [profile] * 2
    found = Identity(unlock(path).seed(facts[1].key_id), PROFILES[profile])
    assert found.recipient == store.store.recipient("mine")
    assert store.store.public_key(facts[0].key_id).profile.name == profile
    other = next(name for name in PROFILES if name != profile)
    with pytest.raises(UsageError, match=f"has keys of {profile}, and this one is of {other}"):
        transfer.import_keys(store, "mine", [Identity.generate(other)])
    with pytest.raises(UsageError, match="no profile 'low'"):
        lifecycle.new_key(store, "low", profile="low")


def test_wrong_passphrase(store: Unlocked, path: Path) -> None:
    """Exit 12, and not a word about damage."""
    with pytest.raises(NoKeyFits, match="passphrase"):
        unlock(path, b"wrong")


def test_seeds_come_back_and_public_facts_need_no_passphrase(store: Unlocked, path: Path) -> None:
    """What is sealed is what opens; listings and recipients work locked."""
    name, version = store.store.find("prod")
    assert Identity(unlock(path).seed(version.key_id)).recipient.key_id == version.key_id
    locked = Keystore(path)
    assert [f.address for f in locked.list()] == ["prod@1"]
    assert locked.recipient("prod").key_id == version.key_id
    seed = store.seed(version.key_id)
    assert seed not in path.read_bytes() + path.with_name(path.name + "-wal").read_bytes()
    for thing in (store, version, name, store.key):
        assert repr(seed)[2:-1] not in repr(thing) and repr(store.key.secret) not in repr(thing)
    for secret in (store, store.key):
        with pytest.raises(TypeError):
            pickle.dumps(secret)


def test_rotation_retires_the_version_before(store: Unlocked) -> None:
    """The newest seals, the older opens; `prod@1` is refused by name, with exit 16."""
    made = lifecycle.rotate(store, "prod", reason="yearly")
    assert made.address == "prod@2"
    assert [f.state for f in store.store.list()] == ["deactivated", "active"]
    assert store.store.recipient("prod").key_id == made.version.key_id
    with pytest.raises(KeyStateForbids, match="prod@1 is deactivated"):
        store.store.recipient("prod@1")
    with pytest.raises(UsageError, match="may be any of"):
        store.store.find("prod")
    with pytest.raises(NotFound):
        lifecycle.rotate(store, "nobody")


def test_keys_of_a_month(store: Unlocked, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a schedule: once a month a version, addressed by the month."""
    first = lifecycle.rotate(store, "prod", period="month")
    again = lifecycle.rotate(store, "prod", period="month")
    assert first.changed and not again.changed and again.version == first.version
    month = time.strftime("%Y-%m", time.gmtime())
    assert store.store.recipient(f"prod@{month}").key_id == first.version.key_id
    assert lifecycle.rotate(store, "prod", period="2031-01").address == "prod@3"
    with pytest.raises(UsageError):
        lifecycle.rotate(store, "prod", period="2031-13")


@pytest.mark.parametrize("old", State)
@pytest.mark.parametrize("new", State)
def test_every_transition(store: Unlocked, old: State, new: State) -> None:
    """The table says which changes of state there are, and nothing else is possible."""
    start = State.PRE_ACTIVE if old is State.PRE_ACTIVE else State.ACTIVE
    lifecycle.new_key(store, "key", state=start)
    if old is State.DESTROYED:
        lifecycle.change_state(store, "key", State.SUSPENDED)
    if old not in (State.PRE_ACTIVE, State.ACTIVE):
        _go(store, old)
    if new in TRANSITIONS[old]:
        _go(store, new)
        assert store.store.find("key")[1].state is new
    else:
        with pytest.raises(KeyStateForbids, match="cannot become"):
            _go(store, new)
    store.verify()


def _go(store: Unlocked, new: State) -> None:
    if new is State.DESTROYED:
        lifecycle.destroy(store, "key", "test")
    else:
        lifecycle.change_state(store, "key", new, "test")


def test_destroy_erases_the_seed_and_asks_the_index(store: Unlocked, path: Path) -> None:
    """ATTACKS row 36: what still depends on a version is named, and only force goes past it."""
    version = store.store.find("prod")[1]
    sealed = version.sealed_seed
    assert sealed
    index.record("00" * 16, "/data/corpus.pqv", [version.key_id], keystore=path)
    lifecycle.change_state(store, "prod", State.DEACTIVATED)
    with pytest.raises(KeyStateForbids, match=r"/data/corpus\.pqv"):
        lifecycle.destroy(store, "prod")
    lifecycle.destroy(store, "prod", force=True)
    assert store.store.find("prod")[1].sealed_seed is None
    for file in path.parent.glob(f"{path.name}*"):  # SQLite's log beside it too, at once
        assert sealed not in file.read_bytes()
    store.close()
    assert sealed not in path.read_bytes()
    assert unlock(path).store.find("prod")[1].state is State.DESTROYED


def test_what_may_seal_is_the_newest_that_floor_and_expiry_allow(
    store: Unlocked, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of two active versions: one below the floor does not seal, nor one from when it expires on;
    what is listed says why."""
    lifecycle.rotate(store, "prod", state=State.PRE_ACTIVE)
    lifecycle.change_state(store, "prod@2", State.ACTIVE)
    ids = [f.key_id for f in store.store.list()]
    assert store.store.recipient("prod").key_id == ids[1]
    assert store.store.recipient("prod@1").key_id == ids[0]
    when = int(time.time() * 1000) + 3_600_000
    edits.expire(store, "prod@2", when)
    assert store.store.recipient("prod").key_id == ids[1]
    monkeypatch.setattr(keystore_store, "now", lambda: when)
    assert store.store.recipient("prod").key_id == ids[0]
    with pytest.raises(KeyStateForbids, match="prod@2 has expired"):
        store.store.recipient("prod@2")
    edits.floor(store, "prod", seal=2, opens=None)
    with pytest.raises(KeyStateForbids, match="prod@1 is below version 2"):
        store.store.recipient("prod@1")
    why = ["prod@1 is below version 2, the lowest that may seal", "prod@2 has expired"]
    with pytest.raises(KeyStateForbids, match="; ".join(why)):
        store.store.recipient("prod")
    assert [f.refusal for f in store.store.list()] == why
    monkeypatch.setattr(keystore_store, "now", lambda: when - 1)
    assert store.store.recipient("prod").key_id == ids[1]


def test_slips_that_would_close_a_key_are_refused(store: Unlocked) -> None:
    """A floor above all versions, and a key that has expired before it is there."""
    for floors in ({"seal": 2, "opens": None}, {"seal": None, "opens": 99}):
        with pytest.raises(UsageError, match="prod@1 is its newest"):
            edits.floor(store, "prod", **floors)
    lifecycle.rotate(store, "prod")
    assert edits.floor(store, "prod", seal=2, opens=None).floor_seal == 2
    past = int(time.time() * 1000) - 1
    for make in (
        lambda: lifecycle.new_key(store, "new", expires=past),
        lambda: lifecycle.rotate(store, "prod", expires=past),
    ):
        with pytest.raises(UsageError, match="has passed"):
            make()
    assert len(store.store.list()) == 2


TABLES = {
    "meta": [
        "format",
        "keystore",
        "created",
        "generation",
        "audit_seq",
        "audit_hash",
        "root",
        "mac",
    ],
    "unlocks": ["kind", "parameters", "sealed"],
    "names": ["uid", "name", "created", "labels", "floor_seal", "floor_open", "mac"],
    "versions": [
        *("uid", "version", "profile", "key_id", "public_key", "sealed_seed", "state", "created"),
        *("expires", "period", "transitions", "history", "mac"),
    ],
    "transitions": ["uid", "version", "seq", "time", "old", "new", "reason"],
}


def edit(path: Path, *statements: str) -> None:
    """Somebody else's hands on the file."""
    db = sqlite3.connect(path)
    with db:
        for statement in statements:
            db.execute(statement)
    db.close()


def altered(db: sqlite3.Connection, table: str, column: str) -> object:
    """A value that differs from the one that stands there, of the same type."""
    (value,) = db.execute(f"SELECT {column} FROM {table} LIMIT 1").fetchone()
    if value is None:
        return 1
    if isinstance(value, int):
        return value + 1
    if isinstance(value, bytes):
        return bytes([value[0] ^ 1]) + value[1:]
    swaps = {"active": "deactivated", "{}": '{"a":"b"}', "passphrase": "keyring"}
    return swaps.get(value, ("0" if value[:1] != "0" else "1") + value[1:])


def test_the_columns_of_the_test_are_all_there_are(store: Unlocked) -> None:
    """A column that is added must be added here, and be authenticated."""
    for table, columns in TABLES.items():
        found = [row[1] for row in store.store.db.execute(f"PRAGMA table_info({table})")]
        assert [name for name in found if name != "id"] == columns


@pytest.mark.parametrize("wrong_type", [False, True])
@pytest.mark.parametrize("place", [f"{t}.{c}" for t, cs in TABLES.items() for c in cs])
def test_an_edited_database_is_refused(
    store: Unlocked, path: Path, place: str, wrong_type: bool
) -> None:
    """Every column that matters, one edit each: 13, or 12 where the passphrase is derived."""
    store.close()
    table, column = place.split(".")
    db = sqlite3.connect(path)
    value = 1.5 if wrong_type else altered(db, table, column)
    with db:
        db.execute(f"UPDATE {table} SET {column} = ?", (value,))
    db.close()
    with pytest.raises((IntegrityError, NoKeyFits)) as caught:
        unlock(path)
    if place != "unlocks.parameters":
        assert isinstance(caught.value, IntegrityError)


def test_rows_added_taken_away_or_put_back_are_refused(store: Unlocked, path: Path) -> None:
    """The root covers the list of rows, not only each row."""
    lifecycle.rotate(store, "prod")
    store.close()
    copy = path.with_name("copy")
    for statements in (
        ["DELETE FROM versions WHERE version = 2", "DELETE FROM transitions WHERE version = 2"],
        ["DELETE FROM names", "DELETE FROM versions", "DELETE FROM transitions"],
        ["DELETE FROM transitions WHERE version = 1 AND seq = 2"],
        ["DELETE FROM audit WHERE seq = 3"],
        ["INSERT INTO unlocks VALUES ('other', '{}', x'00')"],
        ["CREATE TRIGGER t AFTER INSERT ON audit BEGIN DELETE FROM audit; END"],
        ["CREATE VIEW v AS SELECT 1"],
        ["DELETE FROM unlocks"],
        ["DELETE FROM meta"],
    ):
        shutil.copy(path, copy)
        edit(copy, *statements)
        with pytest.raises(IntegrityError):
            unlock(copy)
    copy.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(IntegrityError):
        unlock(copy)


def test_what_was_said_before_the_last_word_is_authentic_too(store: Unlocked, path: Path) -> None:
    """attack 46: an old transition, and an old entry of the log whose hashes were made to fit."""
    lifecycle.change_state(store, "prod", State.SUSPENDED, "first")
    lifecycle.change_state(store, "prod", State.ACTIVE, "second")
    db = store.store.db
    db.execute("UPDATE transitions SET reason='never' WHERE reason='first'")
    with pytest.raises(IntegrityError, match="history of prod@1"):
        store.verify()
    db.execute("UPDATE transitions SET reason='first' WHERE reason='never'")
    store.verify()
    one, two, *_ = audit.entries(store.store)
    forged = replace(one, detail="{}")
    digest = authentic.audit_hash(forged)
    db.execute("UPDATE audit SET detail=?, hash=? WHERE seq=?", (forged.detail, digest, one.seq))
    db.execute("UPDATE audit SET previous=? WHERE seq=?", (digest, two.seq))
    with pytest.raises(IntegrityError, match="entry 2 of the audit log was altered"):
        audit.verify(store.store, store.key)


def test_swapped_seeds_are_refused(store: Unlocked) -> None:
    """Even with a valid MAC, a seed opens only in its own row: the AAD names the key."""
    other = lifecycle.new_key(store, "other").version
    forged = replace(store.store.find("prod")[1], sealed_seed=other.sealed_seed)
    with store.change() as change:
        change.put_version(forged)
    with pytest.raises(IntegrityError, match="seed of prod@1"):
        store.seed(forged.key_id)


@pytest.mark.parametrize("place", ["versions.state", "names.floor_open", "transitions.reason"])
def test_in_a_large_keystore_rows_are_checked_when_used(
    store: Unlocked, path: Path, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Unlocking costs Argon2id; an edited row is refused when it is used or anything changes."""
    monkeypatch.setattr(authentic, "AT_ONCE", 0)
    key_id = store.store.find("prod")[1].key_id
    table, column = place.split(".")
    edit(path, f"UPDATE {table} SET {column} = {2 if 'floor' in column else repr('suspended')}")
    unlocked = unlock(path)
    with pytest.raises(IntegrityError):
        unlocked.seed(key_id)
    with pytest.raises(IntegrityError):
        lifecycle.new_key(unlocked, "more")


def test_a_locked_keystore_says_so_after_a_bounded_wait(store: Unlocked, path: Path) -> None:
    """Exit 11, not a hang and not a traceback."""
    holder = sqlite3.connect(path, isolation_level=None)
    holder.execute("BEGIN IMMEDIATE")
    waiting = Keystore(path, wait=0.2).unlock(lambda: WORDS)
    with pytest.raises(Locked):
        lifecycle.rotate(waiting, "prod")
    holder.execute("ROLLBACK")
    holder.close()
    assert lifecycle.rotate(waiting, "prod").address == "prod@2"


def test_a_failed_change_leaves_nothing(store: Unlocked, path: Path) -> None:
    """An exception inside a change undoes its rows and its audit entry."""
    before = list(store.store.db.iterdump())
    with pytest.raises(RuntimeError), store.change() as change:
        lifecycle.add_key(change, "half")
        change.audit("new", "half")
        raise RuntimeError
    assert list(store.store.db.iterdump()) == before
    unlock(path)


ROTATE_100 = """
import sys
from pathlib import Path
from pqvault.keystore import Keystore, lifecycle
store = Keystore(Path(sys.argv[1])).unlock(lambda: b"correct horse")
for _ in range(100):
    lifecycle.rotate(store, "prod")
"""


def test_two_processes_rotate_one_key_a_hundred_times_each(store: Unlocked, path: Path) -> None:
    """ATTACKS row 37: no rotation is lost, one version is active, all is authentic."""
    command = [sys.executable, "-c", ROTATE_100, str(path)]
    racing = [subprocess.Popen(command) for _ in range(2)]
    assert [process.wait() for process in racing] == [0, 0]
    facts = store.store.list()
    assert [f.version for f in facts] == list(range(1, 202))
    assert [f.state for f in facts] == ["deactivated"] * 200 + ["active"]
    assert unlock(path).verify().generation == 1 + 1 + 200


def test_the_page_has_every_purpose_and_every_state() -> None:
    """docs/keystore.md and the code agree on the closed tables."""
    page = (Path(__file__).resolve().parent.parent / "docs" / "keystore.md").read_text()
    rows = re.findall(r"^\| `([a-z ]+)` \| ([a-z, ]+) \|", page, re.MULTILINE)
    assert {name: tuple(fields.split(", ")) for name, fields in rows} == dict(kdf.KEYSTORE_PURPOSES)
    for state, ways in TRANSITIONS.items():
        listed = re.search(
            rf"^\| {state} \| ([^|]*)\| ([^|]*)\| ([a-z, -]*)\|$", page, re.MULTILINE
        )
        assert listed is not None
        assert {way.strip() for way in listed[3].split(",")} - {""} == {str(w) for w in ways}
        assert listed[1].startswith("yes") == (state is State.ACTIVE)
        assert bool(listed[2].strip()) == (state in OPENS)


ROTATE_FOR_EVER = ROTATE_100.replace(
    "for _ in range(100):", "while True:\n    print(end='1', flush=True)"
)


def test_kill_9_at_any_moment_leaves_a_keystore_that_verifies(store: Unlocked, path: Path) -> None:
    """Whatever a rotation was doing: all of it is there, or nothing."""
    store.close()
    versions = 1
    for moment in range(20):
        process = subprocess.Popen(
            [sys.executable, "-c", ROTATE_FOR_EVER, str(path)], stdout=subprocess.PIPE
        )
        assert process.stdout is not None
        process.stdout.read(1 + moment % 2)  # before a rotation, or once one is done
        time.sleep(0.003 * moment)
        process.kill()
        process.communicate()
        with unlock(path) as again:
            facts = again.store.list()
            assert [f.version for f in facts] == list(range(1, len(facts) + 1))
            assert [f.state for f in facts].count("active") == 1 and facts[-1].state == "active"
            audit.verify(again.store, again.key)
            assert len(facts) >= versions
            versions = len(facts)
    assert versions > 5  # on a busy machine too


def test_two_who_make_a_keystore_at_once(path: Path) -> None:
    """One of them has made it, the others hear so; no file is left beside it."""
    code = (
        "import sys; from pathlib import Path; from pqvault.keystore import Keystore\n"
        "from pqvault.crypto.passphrase import Cost; from pqvault.errors import UsageError\n"
        "try: Keystore.create(b'correct horse', cost=Cost(8, 1, 1), path=Path(sys.argv[1]))\n"
        "except UsageError: sys.exit(2)"
    )
    command = [sys.executable, "-c", code, str(path)]
    racing = [subprocess.Popen(command) for _ in range(4)]
    assert sorted(process.wait() for process in racing) == [0, 2, 2, 2]
    unlock(path).close()
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_a_hostile_name_does_not_drive_the_terminal(store: Unlocked, path: Path) -> None:
    """ATTACKS row 28: unverified rows are shown with escapes."""
    store.close()
    edit(path, "UPDATE names SET name = 'a' || char(27) || '[2Jb'")
    done = subprocess.run(
        [sys.executable, "-m", "pqvault_cli", "key", "list"],
        env={**os.environ, "PQVAULT_HOME": str(path.parent)},
        capture_output=True,
        check=True,
    )
    assert b"\x1b" not in done.stdout and b"a%1B[2Jb" in done.stdout


def test_of_several_keys_that_fit_the_best_is_used(store: Unlocked, path: Path) -> None:
    """Not one that is refused, nor one with a warning, while another opens; one unlock for all."""
    names = ("suspended", "compromised", "good")
    made = [lifecycle.new_key(store, name).version for name in names]
    lifecycle.change_state(store, "suspended", State.SUSPENDED)
    lifecycle.change_state(store, "compromised", State.COMPROMISED)
    recipients = [Recipient(v.public_key) for v in made]
    warnings: list[str] = []
    asked: list[int] = []

    def ask() -> bytes:
        asked.append(1)
        return WORDS

    ours = keyring(identities(Keystore(path), ask, warnings.append))
    assert not asked
    key = RootKey.generate("00" * 16, "11" * 16)

    def opened(to: list[Recipient]) -> bytes:
        return RootKey.unwrap(key.envelope(to, created=1), ours, "it").secret

    assert opened(recipients) == key.secret and not warnings
    assert opened(recipients[:2]) == key.secret and "compromised@1" in warnings[0]
    with pytest.raises(KeyStateForbids, match="suspended@1"):
        opened(recipients[:1])
    with pytest.raises(NoKeyFits):
        opened([Identity.generate().recipient])
    assert asked == [1]
    (one,) = identities(Keystore(path), ask, warnings.append, ["good"])
    assert repr(one) == "StoredIdentity(good@1)" and one == Identity(store.seed(one.key_id))
    assert one.recipient.key_id == one.key_id and asked == [1]
    with pytest.raises(TypeError):
        pickle.dumps(one)


def test_the_index_follows_a_rotation(store: Unlocked, path: Path) -> None:
    """`record` adds, `replace` says which keys and no others."""
    db = store.store.db
    for archive in ("/a", "/a/b", "/ab"):
        index.record("00", archive, ["k1", "k2"], keystore=path)
    index.replace("00", "/a/b", ["k2"], keystore=path)
    assert [d.path for d in index.dependants(db, "k1")] == ["/a", "/ab"]
    index.replace_below("/a", [("00", "/a", "k3")], ["/a/b"], keystore=path)
    assert [d.path for d in index.dependants(db, "k1")] == ["/ab"]
    assert [d.path for d in index.dependants(db, "k2")] == ["/a/b", "/ab"]
    index.replace_below("/", [], ["/a"], keystore=path)
    assert [d.path for d in index.dependants(db, "k2")] == ["/a/b"]
    index.record("00", "/x", ["k1"], keystore=path.with_name("none"))
    store.verify()


def test_the_index_takes_paths_that_are_not_utf8(store: Unlocked, path: Path) -> None:
    """A folder may be named in Latin-1; what is below it is asked for before a key is destroyed."""
    db, latin = store.store.db, os.fsdecode(b"/caf\xe9/a.pqv")
    index.record("00", latin, ["k1"], keystore=path)
    assert [d.path for d in index.dependants(db, "k1")] == [latin]
    index.replace("00", latin, ["k2"], keystore=path)
    with Ledger(path) as ledger:
        ledger.expect("00", latin, ["k3"])
    assert index.dependants(db, "k1") == []
    assert [d.path for d in index.dependants(db, "k3")] == [latin]
    rows = [("00", latin, "k2")]
    assert index.replace_below("/", rows, keystore=path) == 1
    assert [d.path for d in index.dependants(db, "k2")] == [latin]
    assert index.replace_below("/", [], keystore=path) == 1
    assert index.dependants(db, "k2") == []
