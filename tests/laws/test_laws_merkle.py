"""Laws of RFC 6962: true proofs verify, and no other statement does."""

from hypothesis import assume, given
from hypothesis import strategies as st

from seatrial.merkle import consistency, inclusion, is_continued, is_included, leaf_hash, root, roots

leaves = st.lists(st.binary(max_size=3), min_size=1, max_size=40)
nodes = st.binary(min_size=32, max_size=32)


@st.composite
def a_tree_and_index(draw):
    tree = draw(leaves)
    return tree, draw(st.integers(0, len(tree) - 1))


@given(a_tree_and_index())
def test_every_leaf_is_proven_to_be_where_it_is(given_tree):
    tree, index = given_tree
    proof = inclusion(tree, index)
    assert is_included(tree[index], index, len(tree), proof, root(tree))
    assert len(proof) <= (len(tree) - 1).bit_length()


@given(a_tree_and_index(), st.binary(max_size=3), st.integers(0, 39))
def test_no_other_leaf_and_no_other_place_is_proven(given_tree, other, place):
    tree, index = given_tree
    proof, tree_root = inclusion(tree, index), root(tree)
    assume(other != tree[index])
    assert not is_included(other, index, len(tree), proof, tree_root)
    if place < len(tree) and tree[place] != tree[index]:
        assert not is_included(tree[index], place, len(tree), proof, tree_root)


@given(a_tree_and_index(), st.data())
def test_a_proof_with_one_node_changed_dropped_or_added_proves_nothing(given_tree, data):
    tree, index = given_tree
    proof, tree_root = inclusion(tree, index), root(tree)
    assert not is_included(tree[index], index, len(tree), [*proof, leaf_hash(b"")], tree_root)
    if proof:
        at = data.draw(st.integers(0, len(proof) - 1))
        changed = data.draw(nodes.filter(lambda node: node != proof[at]))
        assert not is_included(tree[index], index, len(tree), [*proof[:at], changed, *proof[at + 1 :]], tree_root)
        assert not is_included(tree[index], index, len(tree), [*proof[:at], *proof[at + 1 :]], tree_root)


@given(a_tree_and_index())
def test_every_tree_is_proven_to_continue_what_it_began_with(given_tree):
    tree, size = given_tree
    for earlier in (size, len(tree)):
        proof = consistency(tree, earlier)
        assert is_continued(earlier, root(tree[:earlier]), len(tree), root(tree), proof)


@given(a_tree_and_index(), st.binary(max_size=3))
def test_a_tree_whose_past_was_changed_is_continued_by_no_proof_of_its_own(given_tree, other):
    tree, at = given_tree
    assume(other != tree[at])
    forged = [*tree[:at], other, *tree[at + 1 :]]
    for size in range(at + 1, len(tree) + 1):
        assert not is_continued(size, root(tree[:size]), len(tree), root(forged), consistency(forged, size))


@given(a_tree_and_index(), st.data())
def test_a_consistency_proof_with_one_node_changed_or_dropped_proves_nothing(given_tree, data):
    tree, size = given_tree
    proof = consistency(tree, size)
    assume(proof)
    at = data.draw(st.integers(0, len(proof) - 1))
    changed = data.draw(nodes.filter(lambda node: node != proof[at]))
    for wrong in ([*proof[:at], changed, *proof[at + 1 :]], [*proof[:at], *proof[at + 1 :]]):
        assert not is_continued(size, root(tree[:size]), len(tree), root(tree), wrong)


@given(leaves)
def test_the_roots_of_one_pass_are_those_of_the_trees(tree):
    sizes = range(len(tree) + 2)
    assert roots(tree, sizes) == {size: root(tree[:size]) for size in sizes if size <= len(tree)}
