"""Keys as text: the example of C2SP age.md, files of keys, and what is refused."""

from __future__ import annotations

import traceback
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pqvault.crypto.profiles import PROFILES
from pqvault.errors import PQVaultError, UsageError
from pqvault.format import bech32
from pqvault.format.keytext import (
    FORMS,
    MAX_FILE_SIZE,
    MAX_KEYS,
    decode_identity,
    decode_recipient,
    encode_identity,
    encode_recipient,
    format_identity_file,
    parse_identity_file,
    parse_recipients_file,
)

# C2SP age.md at 5ba5ee8, "The MLKEM768-X25519 … hybrid post-quantum recipient type".
SPEC_RECIPIENT = (
    "age1pq1x34nzsvr0rxjsgdn8zgyhfe8j7ceq5r9rdelkjuh3y235jzxshfg87pzf5zrqtzdxz95paef6caq5aapd"
    "mwjjqpjfdyxnzr2zampc3uxy0dg4z2n2gm9su72p0pc3u0jvev55l694v78snxg3yzvcl7yda0eyytqj6a0ec477"
    "lnhcy5hzpz4zq3pxanve4cn62gqj3pjy5lqj9c6kyj4v2z8alktn8zh99970x79gjkv7522hv9kfz35zsnxhsx8w"
    "wtmu9cy3ftzjgwcp4sshn3llnylnpdsyz5jm72vefv4x5vfwytrefxg4wq3mv42wcrvkj742479zrxzpvp2p3e9f"
    "ed9f0739vcu80r7ma28qfhnvlv4gfzel9q654dj3zmuvvz893azhxdvs9fxd0r7jzchzcfcs5mkyyjxhw0n2z6dv"
    "p9yn9qfdp29h0azxqyjw6v7fhyuzj7zel0uq6j9rd7wgrpz7mf5dnj43jwsgvrc8qcnhy7tu6dkdujuxzkp9xj43"
    "xe8h92ktre2a3u3s8mm5mrp9nr9pwkgtz4mdlq9hgn4fps4k57ff6wddn2fy23t47sm20r8km8sd2pcyyafnet8f"
    "0dajsrlyjeah4n3mssr6aseevuuskdvq5lzguyvpgwpta742c6698vgutzqgny8usfg0w2he7kq5vyxjd0f9hqg8"
    "xk26y9e4th0gezq92q4cpp5p2y9hf5f2cje5l0c3sa3a2qxmm38pxxvhxh99yzmfz0zk7r2s64nnwjhkfgfr3gf8"
    "xnmppcgmaykvh5sh6g7vk9790rf8ws0axmr2t7z8aae5fq2029uvcn2ghgt4fu4wgwdc0k0cz52qkvwmuzj8p8k5"
    "jgf3xzk5zmrkavjekjrpeq408xz3zxazwkc6tyfmhayrkfpjhwtz5mp8j8guqe43k2q6m2kte03vrw27y3wmqyu5"
    "etmt9dnkwcnnpmu9gz9dekfhdevf42ucshphnrk38ra6hx8w5f8q5ru0xdhrjxmwqf6cused7zc5xvq43r0zscjg"
    "lpwlptpwydhqw64xz7ptjdyeyzpq2zkxtmzg29gzjpvzva4d3l0cenn9xs297wf4y4ukwrunf57xj6pm7nvrkwvt"
    "rt8hwcmgv8x7ajw7258ugf9wvkmk4052ekg87tw5vnx8nq2swyzv77v8yqlwsenvamr0zssknwts8rrhfuwj7yky"
    "snq9jxy0uv3kuyt22djszjdtvpz6d0s0kwh8ryynddzud92emeyvvyqktd0jtj7rvvg5gch25v8smlvny3kvn5ga"
    "gyz475ze2y6q466xqmz2n3hs77lddeqyta2nch5k2u5yacuk9ywnwfdzvyejnucz724hj77hrrmakm7pr3kxsrxq"
    "22ejexlud9fy2kdqmkg5yncz7jm5wv2qjk5w5kvcpqsry2yqffh2la52dxfjkjq5rzhjzeyn6dupn0qwtyv7s4lw"
    "g3xdarsdlwe2y3tujy480y7z39q259fzx6jhd2j0f5hagqpcpees7hzc2yrk5cy788uk3s7qvp5cpepx24gvws3m"
    "2g433exgwppnkjscec8qu4y9z9r7vccexjcjaen42245lmgmxmuavg9alej92322gvvyy2t6267v09ch64y0m53j"
    "ff0vjj96s0ypk60hr3jw4myd6m5hpn3xjstx7tl2szhpr5qe8jj08ydjc4wy2rch2fhuy3pdfjax5awe9j99ly5h"
    "kntzz9fe5zatgjvzdd0kgtxs25njnajyf6ssekp7gelxquusn4pt25czh3scj68kq79wdn5tgm6yvm9nzavrg043"
    "x3msnygf8dweknw5jmqd0uvny6ttsn09508k0c55zfnegrm9efhxpfqdkmhh6gjtqmwze9pyyzk3tlhl53k2ykx3"
    "qheyty7saeq0d3fzv49zc0k"
)
SPEC_IDENTITY = "AGE-SECRET-KEY-PQ-1XX76JRALNLXDMEW0CRK45QMCCH4X06SE84UN3VPM33W6HWDX0H3SK3ZQFR"

# Keys of the same document that a quantum computer or a plugin opens.
CLASSICAL_IDENTITY = "AGE-SECRET-KEY-1GFPYYSJZGFPYYSJZGFPYYSJZGFPYYSJZGFPYYSJZGFPYYSJZGFPQ4EGAEX"
CLASSICAL_RECIPIENT = "age1zvkyg2lqzraa2lnjvqej32nkuu0ues2s82hzrye869xeexvn73equnujwj"
TAG_RECIPIENT = "age1tag1qt8lw0ual6avlwmwatk888yqnmdamm7xfd0wak53ut6elz5c4swx2yqdj4e"

SEED_SIZE, PUBLIC_KEY_SIZE = FORMS["standard"].seed_size, FORMS["standard"].public_key_size
SEED = bytes(range(SEED_SIZE))
IDENTITY = encode_identity("standard", SEED)
PUBLIC_KEY = bytes(i * 7 % 256 for i in range(PUBLIC_KEY_SIZE))
RECIPIENT = encode_recipient("standard", PUBLIC_KEY)


def error_of(call: Callable[[], object]) -> UsageError:
    """The error of a call that must be refused."""
    with pytest.raises(UsageError) as caught:
        call()
    return caught.value


# --- The spec's example ---------------------------------------------------------------


def test_the_example_of_the_age_spec() -> None:
    profile, public_key = decode_recipient(SPEC_RECIPIENT)
    same, seed = decode_identity(SPEC_IDENTITY)
    assert (profile, same, len(public_key), len(seed)) == ("standard", "standard", 1_216, 32)
    assert encode_recipient(profile, public_key) == SPEC_RECIPIENT
    assert encode_identity(profile, seed) == SPEC_IDENTITY


def test_texts_have_the_documented_lengths() -> None:
    assert (len(RECIPIENT), len(IDENTITY)) == (1_959, 77)


def keys(size: str) -> st.SearchStrategy[tuple[str, bytes]]:
    """A profile and bytes of the size that its form says."""
    return st.sampled_from(sorted(FORMS)).flatmap(
        lambda name: st.tuples(
            st.just(name),
            st.binary(min_size=getattr(FORMS[name], size), max_size=getattr(FORMS[name], size)),
        )
    )


@given(keys("seed_size"))
def test_identity_round_trip(key: tuple[str, bytes]) -> None:
    assert decode_identity(encode_identity(*key)) == key


@given(keys("public_key_size"))
def test_recipient_round_trip(key: tuple[str, bytes]) -> None:
    assert decode_recipient(encode_recipient(*key)) == key


def test_sizes_are_those_of_the_profiles() -> None:
    """The table of forms and the table of profiles say the same."""
    assert FORMS.keys() == PROFILES.keys()
    for name, form in FORMS.items():
        row = PROFILES[name]
        assert (form.public_key_size, form.seed_size) == (row.public_key_size, row.seed_size)


# --- What is refused, and why ---------------------------------------------------------

REFUSED_RECIPIENTS = {
    CLASSICAL_RECIPIENT: "X25519.*quantum computer",
    TAG_RECIPIENT: "age1tag1.*quantum computer",
    "age1tagpq1m3e4wvp6hzcrn9exhy0": "age1tagpq1.* not supported",
    "age1yubikey1q0k7mwkz2y": "plugins are not supported",
    "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAA someone@host": "SSH key.*quantum computer",
    "ssh-rsa AAAAB3NzaC1yc2EAAAA": "SSH key.*quantum computer",
    "ecdsa-sha2-nistp256 AAAA": "SSH key.*quantum computer",
    "github:someone": "GitHub",
    "-----BEGIN PUBLIC KEY-----": "PEM",
    "keys.txt": "not a recipient",
    "": "not a recipient",
    RECIPIENT.upper(): "lower-case",
    " " + RECIPIENT: "spaces",
}

REFUSED_IDENTITIES = {
    CLASSICAL_IDENTITY: "X25519.*quantum computer",
    "AGE-PLUGIN-YUBIKEY-1QQPQYQ7": "plugins are not supported",
    RECIPIENT: "public key.* where an identity belongs",
    CLASSICAL_RECIPIENT: "public key.* where an identity belongs",
    "age-encryption.org/v1": "encrypted with age",
    "-----BEGIN AGE ENCRYPTED FILE-----": "encrypted with age",
    "-----BEGIN OPENSSH PRIVATE KEY-----": "PEM private keys",
    "hunter2": "not an identity",
    IDENTITY.lower(): "upper-case",
    " " + IDENTITY: "spaces",
}


@pytest.mark.parametrize(("text", "reason"), REFUSED_RECIPIENTS.items())
def test_attack_5_other_recipients_are_refused(text: str, reason: str) -> None:
    with pytest.raises(UsageError, match=reason) as caught:
        decode_recipient(text)
    assert caught.value.hint


@pytest.mark.parametrize(("text", "reason"), REFUSED_IDENTITIES.items())
def test_attack_5_other_identities_are_refused(text: str, reason: str) -> None:
    with pytest.raises(UsageError, match=reason) as caught:
        decode_identity(text)
    assert caught.value.hint


def test_a_classical_recipient_is_told_how_to_get_a_new_key() -> None:
    assert "pqvault keygen" in error_of(lambda: decode_recipient(CLASSICAL_RECIPIENT)).hint


@pytest.mark.parametrize("text", [IDENTITY, IDENTITY.lower(), CLASSICAL_IDENTITY])
def test_attack_40_an_identity_pasted_as_a_recipient_is_not_repeated(text: str) -> None:
    error = error_of(lambda: decode_recipient(text))
    assert "private key" in error.message
    assert "keygen -y" in error.hint
    assert text[19:] not in str(error) + error.hint


# --- Row 43: one text for one key -----------------------------------------------------


def test_attack_43_a_wrong_length_is_refused() -> None:
    short, long = bytes(PUBLIC_KEY_SIZE - 1), bytes(SEED_SIZE + 1)
    with pytest.raises(UsageError, match="1,215 bytes instead of 1,216"):
        decode_recipient(bech32.encode("age1pq", short))
    with pytest.raises(UsageError, match="33 bytes instead of 32"):
        decode_identity(bech32.encode("AGE-SECRET-KEY-PQ-", long))


def test_attack_43_mixed_case_is_refused() -> None:
    with pytest.raises(UsageError, match="mixes"):
        decode_recipient(RECIPIENT[:-1] + RECIPIENT[-1].upper() + "Q")
    with pytest.raises(UsageError, match="mixes"):
        decode_identity(IDENTITY[:-6] + IDENTITY[-6:].lower())


def test_attack_43_a_wrong_checksum_is_refused() -> None:
    last = "q" if RECIPIENT[-1] != "q" else "p"
    with pytest.raises(UsageError, match="checksum"):
        decode_recipient(RECIPIENT[:-1] + last)
    with pytest.raises(UsageError, match="checksum"):
        decode_identity(IDENTITY[:-8])


def test_attack_43_a_longer_prefix_is_refused() -> None:
    with pytest.raises(UsageError, match="'1' inside"):
        decode_recipient(bech32.encode("age1pq1qq", PUBLIC_KEY))
    with pytest.raises(UsageError, match="'1' inside"):
        decode_identity(bech32.encode("AGE-SECRET-KEY-PQ-1QQ", SEED))


def test_attack_43_characters_outside_the_alphabet_are_refused() -> None:
    with pytest.raises(UsageError, match="character 8 "):
        decode_recipient("age1pq1b" + RECIPIENT[8:])


def test_keys_of_another_length_are_not_encoded() -> None:
    with pytest.raises(UsageError, match="1,216 bytes, not 1,184"):
        encode_recipient("standard", bytes(1_184))
    with pytest.raises(UsageError, match="32 bytes, not 64"):
        encode_identity("standard", bytes(64))


# --- Files ----------------------------------------------------------------------------


def test_recipients_file_gives_line_numbers_and_skips_comments() -> None:
    text = f"# ours\n\n{SPEC_RECIPIENT}\r\n\r\n# caf\xe9\n{RECIPIENT}".encode("latin-1")
    keys = [(3, decode_recipient(SPEC_RECIPIENT)), (6, ("standard", PUBLIC_KEY))]
    assert parse_recipients_file(text, "r.txt") == keys


def test_identity_file_round_trip() -> None:
    text = format_identity_file("standard", SEED, RECIPIENT, 1_784_737_382.999)
    assert text == (f"# created: 2026-07-22T16:23:02Z\n# public key: {RECIPIENT}\n{IDENTITY}\n")
    assert parse_identity_file(text.encode(), "key.txt") == [("standard", SEED)]
    assert parse_identity_file((text + SPEC_IDENTITY).encode(), "key.txt") == [
        ("standard", SEED),
        decode_identity(SPEC_IDENTITY),
    ]


def test_identity_file_takes_one_whole_recipient_only() -> None:
    with pytest.raises(UsageError, match="recipient"):
        format_identity_file("standard", SEED, RECIPIENT + "\nAGE-", 0)


@pytest.mark.parametrize("data", [b"", b"# only a comment\n", b"\r\n\n"])
def test_a_file_without_keys_is_refused(data: bytes) -> None:
    assert "r.txt: no recipients found" in str(
        error_of(lambda: parse_recipients_file(data, "r.txt"))
    )
    assert "k.txt: no identities found" in str(error_of(lambda: parse_identity_file(data, "k.txt")))


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (CLASSICAL_RECIPIENT, "X25519"),
        (RECIPIENT + " ", "not one that Bech32 uses"),
        ("  ", "spaces"),
        (RECIPIENT + "\r", "not one that Bech32 uses"),
        ("caf\xe9", "not ASCII"),
        ("q" * 8_193, "longer than 8,192 bytes"),
        (IDENTITY, "private key"),
    ],
)
def test_errors_in_a_recipients_file_name_file_and_line(line: str, reason: str) -> None:
    data = f"# one\n{RECIPIENT}\n{line}\r\n".encode("latin-1")
    with pytest.raises(UsageError, match=rf"^r\.txt, line 3: .*{reason}"):
        parse_recipients_file(data, "r.txt")


def test_attack_42_files_and_numbers_of_keys_are_bounded() -> None:
    with pytest.raises(UsageError, match="at most 16 MiB"):
        parse_recipients_file(b"\n" * (MAX_FILE_SIZE + 1), "r.txt")
    lines = f"{IDENTITY}\n".encode() * MAX_KEYS
    assert len(parse_identity_file(lines, "k.txt")) == MAX_KEYS
    with pytest.raises(UsageError, match=r"k\.txt, line 1025: .*at most 1,024 keys"):
        parse_identity_file(lines + IDENTITY.encode(), "k.txt")


# --- Canary ---------------------------------------------------------------------------

DAMAGE: dict[str, Callable[[str], str]] = {
    "cut": lambda text: text[:-3],
    "longer": lambda text: text + "Q",
    "mixed case": lambda text: text[:-20] + text[-20:].lower(),
    "lower case": str.lower,
    "space before": lambda text: " " + text,
    "space after": lambda text: text + " ",
    "space inside": lambda text: text[:40] + " " + text[40:],
    "foreign letter": lambda text: text[:-5] + "B" + text[-4:],
    "not ASCII": lambda text: text[:-5] + "\xe9" + text[-4:],
    "a 1 inside": lambda text: text[:40] + "1" + text[41:],
    "quoted": lambda text: f'"{text}"',
    "assignment": lambda text: f"KEY={text}",
    "as it is": lambda text: text,
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE.keys())
def test_attack_40_no_error_contains_a_piece_of_a_secret(damage: Callable[[str], str]) -> None:
    """Looks for any 8 characters of the secret in messages, hints and tracebacks."""
    text = damage(IDENTITY)
    data = text.encode()
    calls: list[Callable[[], object]] = [
        lambda: decode_identity(text),
        lambda: decode_recipient(text),
        lambda: parse_identity_file(data, "k.txt"),
        lambda: parse_recipients_file(data, "r.txt"),
    ]
    secret = IDENTITY[len("AGE-SECRET-KEY-PQ-1") :]
    for call in calls:
        try:
            call()
        except PQVaultError as error:
            shown = "".join(traceback.format_exception(error)) + error.hint + repr(error.args)
            pieces = [secret[i : i + 8] for i in range(len(secret) - 7)]
            assert not any(piece.lower() in shown.lower() for piece in pieces)
