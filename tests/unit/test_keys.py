import pytest
from builders import HOUR, POINT, T0
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from seatrial.adapters.keys import keyring, new_key, signing_key
from seatrial.errors import InvalidDocumentError, RefusedError, TamperedError, UnavailableError
from seatrial.routing import RoutingSnapshot
from seatrial.routing.signing import require_signed, signed

SNAPSHOT = RoutingSnapshot(POINT, 7, "a", "a", "b", "r1", slots=5, salt="s", lease_until=T0 + HOUR)


@pytest.mark.parametrize("is_hmac", [False, True], ids=["ed25519", "hmac"])
def test_what_a_new_key_signs_its_other_half_accepts(tmp_path, is_hmac):
    signs, checks = new_key(tmp_path / "keys", "router-1", is_hmac=is_hmac)
    made = signed(SNAPSHOT, signing_key(signs))
    assert made.signature.startswith("router-1:")
    require_signed(made, keyring([checks]))
    _, other = new_key(tmp_path / "keys", "router-2", is_hmac=is_hmac)
    with pytest.raises(TamperedError, match="signed by 'router-1'"):
        require_signed(made, keyring([other]))
    require_signed(made, keyring([other, checks]))


@pytest.mark.parametrize("is_hmac", [False, True])
def test_what_signs_is_for_its_owner_alone_and_never_written_over(tmp_path, is_hmac):
    signs, _ = new_key(tmp_path, "k", is_hmac=is_hmac)
    assert signs.stat().st_mode & 0o777 == 0o600
    before = signs.read_bytes()
    with pytest.raises(RefusedError, match="exists"):
        new_key(tmp_path, "k", is_hmac=not is_hmac)
    assert signs.read_bytes() == before
    signs.chmod(0o640)
    with pytest.raises(InvalidDocumentError, match="chmod 600"):
        signing_key(signs)


def rsa(is_private):
    key = generate_private_key(65537, 2048)
    if is_private:
        return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


@pytest.mark.parametrize(
    "content", [b"", b"secret", b"hmac-sha256 secret", b"hmac-sha256 00ff", rsa(is_private=True), rsa(is_private=False)]
)
def test_what_is_no_key_is_refused_without_repeating_it(tmp_path, content):
    path = tmp_path / "k.key"
    path.write_bytes(content)
    path.chmod(0o600)
    for read in (signing_key, lambda path: keyring([path])):
        with pytest.raises(InvalidDocumentError) as caught:
            read(path)
        assert "secret\n" not in str(caught.value)
        assert "00ff" not in str(caught.value)


def test_a_missing_key_and_two_of_one_name_are_refused(tmp_path):
    with pytest.raises(UnavailableError):
        signing_key(tmp_path / "none.key")
    _, one = new_key(tmp_path / "a", "k")
    _, two = new_key(tmp_path / "b", "k")
    with pytest.raises(RefusedError, match="second key named 'k'"):
        keyring([one, two])
