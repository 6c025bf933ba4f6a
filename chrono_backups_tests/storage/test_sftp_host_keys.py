"""What a known_hosts file says, line by line; ssh-keygen is the judge of the format."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from chrono_backups.storage.sftp_host_keys import find_host_keys, fingerprint, kind_of
from chrono_backups_tests.servers.sshd import make_key, sshd_program

pytestmark = pytest.mark.skipif(sshd_program() is None, reason="needs ssh-keygen")


@pytest.fixture(scope="module")
def lines(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """``<type> <key>`` of two keys of one type and one of another."""
    home = tmp_path_factory.mktemp("keys")
    made = {name: make_key(home / name, kind) for name, kind in (("a", "ed25519"), ("b", "ed25519"), ("c", "ecdsa"))}
    return {name: " ".join(path.with_suffix(".pub").read_text().split()[:2]) for name, path in made.items()}


def key_of(line: str) -> bytes:
    import base64

    return base64.b64decode(line.split()[1])


HOST, PORT = "Backup.example.com", 22


@pytest.mark.parametrize(
    ("names", "port", "found"),
    [
        ("backup.example.com", 22, True),
        ("BACKUP.example.com", 22, True),
        ("other,backup.example.com,10.0.0.1", 22, True),
        ("*.example.com", 22, True),
        ("backup.example.co?", 22, True),
        ("*.example.com,!backup.example.com", 22, False),
        ("!backup.example.com,*.example.com", 22, False),
        ("example.com", 22, False),
        ("backup.example.com.evil", 22, False),
        ("backupxexample.com", 22, False),
        ("[backup.example.com]:22", 22, False),
        ("backup.example.com", 2222, False),
        ("[backup.example.com]:2222", 2222, True),
        ("[*.example.com]:2222", 2222, True),
        ("[backup.example.com]:*", 2222, True),
        ("[backup.example.com]:222", 2222, False),
    ],
)
def test_names(lines: dict[str, str], names: str, port: int, found: bool) -> None:
    key = key_of(lines["a"])
    verdict = find_host_keys(f"{names} {lines['a']} a comment\n", HOST, port).judge(key)
    assert verdict == ("trusted" if found else "unknown")


@pytest.mark.parametrize(("port", "name"), [(22, "backup.example.com"), (2222, "[backup.example.com]:2222")])
def test_hashed_names(lines: dict[str, str], tmp_path: Path, port: int, name: str) -> None:
    path = tmp_path / "known_hosts"
    path.write_text(f"another.example.com {lines['b']}\n{name} {lines['a']}\n")
    subprocess.run(["ssh-keygen", "-q", "-H", "-f", path], check=True, capture_output=True)
    text = path.read_text()
    assert "example" not in text
    assert find_host_keys(text, HOST, port).trusted == (key_of(lines["a"]),)
    assert find_host_keys(text, HOST, port + 1).trusted == ()


def test_verdicts(lines: dict[str, str]) -> None:
    a, b, c = (key_of(lines[name]) for name in "abc")
    keys = find_host_keys(f"{HOST} {lines['a']}\n", HOST, PORT)
    assert [keys.judge(key) for key in (a, b, c)] == ["trusted", "changed", "unknown"]
    assert keys.kinds == ("ssh-ed25519",)
    both = find_host_keys(f"{HOST} {lines['c']}\n{HOST} {lines['a']}\n{HOST} {lines['b']}\n", HOST, PORT)
    assert [both.judge(key) for key in (a, b, c)] == ["trusted"] * 3
    assert both.kinds == ("ecdsa-sha2-nistp256", "ssh-ed25519")
    revoked = find_host_keys(f"{HOST} {lines['a']}\n@revoked * {lines['a']}\n", HOST, PORT)
    assert revoked.judge(a) == "revoked"
    authority = find_host_keys(f"@cert-authority * {lines['a']}\n", HOST, PORT)
    assert authority.judge(a) == "unknown"


@pytest.mark.parametrize(
    "line",
    [
        "", "# {host} {key}", "{host}", "{host} ssh-ed25519", "{host} ssh-ed25519 !!!", "{host} ssh-rsa {blob}",
        "{host} ssh-ed25519 AAAA", "|1|bad {key}", "|1|!!|!! {key}", "|2|a|b {key}", "@unknown {host} {key}",
    ],
)  # fmt: skip
def test_lines_that_make_no_sense_are_passed_over(lines: dict[str, str], line: str) -> None:
    text = line.format(host=HOST, key=lines["a"], blob=lines["a"].split()[1])
    keys = find_host_keys(f"{text}\n{HOST} {lines['b']}\n", HOST, PORT)
    assert keys.trusted == (key_of(lines["b"]),)
    assert keys.revoked == frozenset()


def test_fingerprints_are_those_of_ssh_keygen(lines: dict[str, str], tmp_path: Path) -> None:
    path = tmp_path / "key.pub"
    for line in lines.values():
        path.write_text(line + "\n")
        shown = subprocess.run(["ssh-keygen", "-lf", path], check=True, capture_output=True, text=True).stdout
        assert fingerprint(key_of(line)) == shown.split()[1]
        assert kind_of(key_of(line)) == line.split()[0]
    assert kind_of(b"") == kind_of(b"\0\0\0\xffssh") == ""
