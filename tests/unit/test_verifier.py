"""The single file that verifies an export: it is alone, and its Ed25519 is that of RFC 8032."""

import ast
import importlib.util
import sys
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

FILE = Path(__file__).parents[2] / "verifier" / "verify_ledger.py"
_SPEC = importlib.util.spec_from_file_location("verify_ledger", FILE)
verifier = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(verifier)


def test_it_imports_the_standard_library_alone():
    tree = ast.parse(FILE.read_text())
    names = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    names |= {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert {name.split(".")[0] for name in names} <= set(sys.stdlib_module_names)


#: RFC 8032, section 7.1: public key, message, signature.
VECTORS = [
    (
        "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
        "",
        (
            "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e06522490155"
            "5fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24655141438e7a100b"
        ),
    ),
    (
        "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c",
        "72",
        (
            "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da"
            "085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00"
        ),
    ),
]


@pytest.mark.parametrize(("public", "message", "signature"), VECTORS)
def test_signatures_of_rfc_8032_are_verified(public, message, signature):
    public, message, signature = map(bytes.fromhex, (public, message, signature))
    assert verifier.is_signature(public, signature, message)
    assert not verifier.is_signature(public, signature, message + b"x")
    for at in (0, 31, 32, 63):
        changed = bytearray(signature)
        changed[at] ^= 1
        assert not verifier.is_signature(public, bytes(changed), message)


@pytest.mark.parametrize("seed", range(4))
def test_it_agrees_with_the_library_that_signs(seed):
    private = Ed25519PrivateKey.from_private_bytes(bytes([seed]) * 32)
    public, message = private.public_key().public_bytes_raw(), bytes(range(seed * 20))
    assert verifier.is_signature(public, private.sign(message), message)


def test_what_is_no_signature_is_none():
    public, _, signature = map(bytes.fromhex, VECTORS[0])
    scalar = int.from_bytes(signature[32:], "little") + verifier.ORDER
    assert not verifier.is_signature(public, signature[:32] + scalar.to_bytes(32, "little"), b"")  # malleable
    assert not verifier.is_signature(b"\xff" * 32, signature, b"")
    assert not verifier.is_signature(public, b"", b"")


def test_an_export_that_cannot_be_read_proves_nothing(tmp_path, capsys):
    assert verifier.main([str(tmp_path)]) == verifier.BAD_INPUT
    (tmp_path / "ledger.jsonl").write_text('{"number": 1}\n')
    for name in ("keys.txt", "checkpoints.jsonl", "anchors.jsonl"):
        (tmp_path / name).write_text("")
    assert verifier.main([str(tmp_path)]) == verifier.BAD_INPUT
    assert "cannot be read" in capsys.readouterr().out


def test_an_export_that_brings_its_own_keys_is_not_proven(tmp_path):
    for name in ("ledger.jsonl", "keys.txt", "checkpoints.jsonl", "anchors.jsonl"):
        (tmp_path / name).write_text("")
    assert verifier.main([str(tmp_path)]) == verifier.UNPROVEN
