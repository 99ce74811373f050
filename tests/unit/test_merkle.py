import pytest

from seatrial.merkle import consistency, inclusion, is_continued, is_included, leaf_of, root
from seatrial.units import digest_of

#: Leaves and roots of the reference implementation's own tests, google/certificate-transparency, merkle_tree_test.cc.
LEAVES = [
    bytes.fromhex(text)
    for text in ("", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f")
]
ROOTS = [
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
]


@pytest.mark.parametrize("size", range(1, 9))
def test_the_root_is_that_of_the_reference_implementation(size):
    assert root(LEAVES[:size]).hex() == ROOTS[size - 1]


def test_the_root_of_nothing_is_the_hash_of_nothing():
    assert root([]).hex() == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"


def test_proofs_are_those_of_the_reference_implementation():
    assert [node.hex() for node in inclusion(LEAVES, 0)] == [
        "96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7",
        "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
        "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4",
    ]
    assert [node.hex() for node in consistency(LEAVES, 6)] == [
        "0ebc5d3437fbe2db158b9f126a1d118e308181031d0a949f8dededebc558ef6a",
        "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
        "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    ]


@pytest.mark.parametrize("index", [-1, 8])
def test_there_is_no_proof_for_what_is_not_there(index):
    with pytest.raises(ValueError, match="not in a tree of 8"):
        inclusion(LEAVES, index)
    assert not is_included(b"", index, 8, [], root(LEAVES))


@pytest.mark.parametrize("size", [-1, 9])
def test_no_tree_continues_a_larger_one(size):
    with pytest.raises(ValueError, match="not of a tree of 8"):
        consistency(LEAVES, size)
    assert not is_continued(size, root(LEAVES), 8, root(LEAVES), [])


def test_a_proof_that_is_empty_proves_nothing_but_sameness():
    assert is_continued(8, root(LEAVES), 8, root(LEAVES), [])
    assert not is_continued(8, root(LEAVES[:7]), 8, root(LEAVES), [])
    assert not is_continued(7, root(LEAVES[:7]), 8, root(LEAVES), [])
    assert not is_continued(4, root(LEAVES[:4]), 8, root(LEAVES), [])
    assert not is_continued(0, root(LEAVES), 8, root(LEAVES), [])


def test_a_leaf_is_the_bytes_of_an_entrys_hash():
    digest = digest_of("entry")
    assert leaf_of(digest).hex() == digest.removeprefix("sha256:")
    with pytest.raises(ValueError, match="expected a digest"):
        leaf_of("entry")
