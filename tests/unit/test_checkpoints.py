from dataclasses import replace

import pytest
from builders import DAY, T0
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from seatrial.checkpoints import Checkpoint, VerifierKey, key_id, open_note, read_note, signed_note
from seatrial.errors import TamperedError
from seatrial.merkle import root

ORIGIN = "ships.example/ledger"
OLD, NEW = (Ed25519PrivateKey.from_private_bytes(bytes([n]) * 32) for n in (1, 2))
CHECKPOINT = Checkpoint(ORIGIN, 8, root([b"a", b"b"]), T0)


def a_key(private, **validity):
    return VerifierKey(ORIGIN, private.public_key().public_bytes_raw(), **validity)


def test_a_signed_checkpoint_is_read_as_it_was_written():
    note = signed_note(CHECKPOINT, OLD)
    assert open_note(note, [a_key(NEW), a_key(OLD)]) == CHECKPOINT


def test_the_text_form_is_that_of_c2sp():
    note = signed_note(CHECKPOINT, OLD)
    origin, size, tree_root, at, empty, signature, end = note.split("\n")
    assert (origin, size, at, empty, end) == (ORIGIN, "8", "at 2013-06-01T00:00:00.000000Z", "", "")
    assert len(tree_root) == 44
    assert signature.startswith(f"— {ORIGIN} ")


def test_key_ids_are_those_of_the_signed_note_specification():
    # The example key in the documentation of golang.org/x/mod/sumdb/note.
    public = bytes.fromhex("1a5cd907143c384c41e830c5bce12aa8817ec5649aaabf2c31388b35b2d744d6")
    assert key_id("PeterNeumann", public).hex() == "c74f20a3"
    line = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW"
    assert VerifierKey("PeterNeumann", public).line() == line


@pytest.mark.parametrize(
    ("was", "forged"), [("8", "9"), (ORIGIN, "ships.example/other"), ("2013-06-01", "2013-06-02"), ("at ", "At ")]
)
def test_a_checkpoint_of_which_one_word_was_changed_is_refused(was, forged):
    note = signed_note(CHECKPOINT, OLD)
    text, signature = note.split("\n\n")
    with pytest.raises(TamperedError, match="checkpoint"):
        open_note(f"{text.replace(was, forged, 1)}\n\n{signature}", [a_key(OLD)])


@pytest.mark.parametrize("note", ["", "no checkpoint", f"{ORIGIN}\nmany\nAA==\nat 2013-06-01T00:00:00Z\n\n"])
def test_what_is_no_checkpoint_is_refused(note):
    with pytest.raises(TamperedError, match="checkpoint"):
        read_note(note)


def test_a_checkpoint_without_a_signature_is_refused():
    with pytest.raises(TamperedError, match="no signature"):
        open_note(f"{CHECKPOINT.text()}\n", [a_key(OLD)])


def test_a_key_that_is_not_the_ledgers_signs_nothing():
    with pytest.raises(TamperedError, match="not among the ledger's"):
        open_note(signed_note(CHECKPOINT, NEW), [a_key(OLD)])
    with pytest.raises(TamperedError, match="expected a signature of one of no key"):
        open_note(signed_note(CHECKPOINT, NEW), [])


def test_after_a_rotation_the_old_key_signs_its_own_time_and_no_other():
    keys = [a_key(OLD, until=T0 + DAY), a_key(NEW, since=T0 + DAY)]
    assert open_note(signed_note(CHECKPOINT, OLD), keys) == CHECKPOINT
    later = replace(CHECKPOINT, at=T0 + DAY)
    assert open_note(signed_note(later, NEW), keys) == later
    for forged, private in ((later, OLD), (CHECKPOINT, NEW)):
        with pytest.raises(TamperedError, match="outside the time"):
            open_note(signed_note(forged, private), keys)


def test_a_signature_of_another_checkpoint_is_refused():
    other = signed_note(replace(CHECKPOINT, size=9), OLD).partition("\n\n")[2]
    with pytest.raises(TamperedError, match="is not of key"):
        open_note(f"{CHECKPOINT.text()}\n{other}", [a_key(OLD)])
