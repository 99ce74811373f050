"""The Merkle tree of RFC 6962 over the ledger: a root for all entries, and short proofs about some of them.

A root stands for exactly one sequence of entries. A proof of inclusion shows one entry to be part of it without showing
any other; a proof of consistency shows that a later root continues an earlier one, so that nothing was removed or
changed in between. Leaves are the 32 bytes of the entries' hashes.

Source: B. Laurie, A. Langley, E. Kasper (2013), Certificate Transparency, RFC 6962, section 2.1; verification after
RFC 9162, sections 2.1.3.2 and 2.1.4.2.
"""

from __future__ import annotations

import hashlib
from functools import reduce
from typing import TYPE_CHECKING

from seatrial.units import require_digest

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence


def leaf_of(entry_hash: str) -> bytes:
    """Return the data of the leaf of the entry with `entry_hash`, a digest as the ledger writes it."""
    return bytes.fromhex(require_digest(entry_hash).removeprefix("sha256:"))


def leaf_hash(data: bytes) -> bytes:
    """Return the hash of a leaf."""
    return hashlib.sha256(b"\x00" + data).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """Return the hash of an inner node."""
    return hashlib.sha256(b"\x01" + left + right).digest()


def root(leaves: Sequence[bytes]) -> bytes:
    """Return the root over the data of `leaves`; of none, the hash of nothing.

    >>> root([]).hex()[:16]
    'e3b0c44298fc1c14'
    """
    return _root([leaf_hash(data) for data in leaves])


def roots(leaves: Sequence[bytes], sizes: Iterable[int]) -> dict[int, bytes]:
    """Return by size the roots over the first so many of `leaves`, all in one pass; larger sizes are left out."""
    wanted, found, peaks = set(sizes), {}, list[tuple[int, bytes]]()
    for size in range(len(leaves) + 1):
        if size:
            level, top = 0, leaf_hash(leaves[size - 1])
            while peaks and peaks[-1][0] == level:
                level, top = level + 1, node_hash(peaks.pop()[1], top)
            peaks.append((level, top))
        if size in wanted:
            found[size] = (
                reduce(lambda right, left: node_hash(left, right), [top for _, top in reversed(peaks)])
                if peaks
                else root([])
            )
    return found


def inclusion(leaves: Sequence[bytes], index: int) -> list[bytes]:
    """Return the proof that leaf `index`, from 0, is one of `leaves`: siblings from the leaf to the root."""
    if not 0 <= index < len(leaves):
        raise ValueError(f"leaf {index}: not in a tree of {len(leaves)}")
    return _inclusion([leaf_hash(data) for data in leaves], index)


def consistency(leaves: Sequence[bytes], size: int) -> list[bytes]:
    """Return the proof that the tree of the first `size` of `leaves` is continued by the tree of all of them."""
    if not 0 <= size <= len(leaves):
        raise ValueError(f"size {size}: not of a tree of {len(leaves)}")
    if size in (0, len(leaves)):
        return []
    return _consistency([leaf_hash(data) for data in leaves], size, is_whole=True)


def is_included(data: bytes, index: int, size: int, proof: Sequence[bytes], tree_root: bytes) -> bool:
    """Return whether `proof` shows the leaf of `data` at `index` in the tree of `size` with `tree_root`."""
    if not 0 <= index < size:
        return False
    at, last, found = index, size - 1, leaf_hash(data)
    for sibling in proof:
        if last == 0:
            return False
        if at & 1 or at == last:
            found = node_hash(sibling, found)
            while not at & 1 and at:
                at, last = at >> 1, last >> 1
        else:
            found = node_hash(found, sibling)
        at, last = at >> 1, last >> 1
    return last == 0 and found == tree_root


def is_continued(size: int, tree_root: bytes, later_size: int, later_root: bytes, proof: Sequence[bytes]) -> bool:
    """Return whether `proof` shows that the tree of `later_size` begins with the whole tree of `size`."""
    if not 0 <= size <= later_size:
        return False
    if size == later_size:
        return not proof and tree_root == later_root
    if size == 0:
        return not proof and tree_root == root([])
    path = list(proof) if size & (size - 1) else [tree_root, *proof]
    if not path:
        return False
    at, last = size - 1, later_size - 1
    while at & 1:
        at, last = at >> 1, last >> 1
    first = second = path[0]
    for node in path[1:]:
        if last == 0:
            return False
        if at & 1 or at == last:
            first, second = node_hash(node, first), node_hash(node, second)
            while not at & 1 and at:
                at, last = at >> 1, last >> 1
        else:
            second = node_hash(second, node)
        at, last = at >> 1, last >> 1
    return last == 0 and first == tree_root and second == later_root


def _root(hashes: Sequence[bytes]) -> bytes:
    if not hashes:
        return hashlib.sha256().digest()
    if len(hashes) == 1:
        return hashes[0]
    split = _split(len(hashes))
    return node_hash(_root(hashes[:split]), _root(hashes[split:]))


def _inclusion(hashes: Sequence[bytes], index: int) -> list[bytes]:
    if len(hashes) == 1:
        return []
    split = _split(len(hashes))
    if index < split:
        return [*_inclusion(hashes[:split], index), _root(hashes[split:])]
    return [*_inclusion(hashes[split:], index - split), _root(hashes[:split])]


def _consistency(hashes: Sequence[bytes], size: int, *, is_whole: bool) -> list[bytes]:
    if size == len(hashes):
        return [] if is_whole else [_root(hashes)]
    split = _split(len(hashes))
    if size <= split:
        return [*_consistency(hashes[:split], size, is_whole=is_whole), _root(hashes[split:])]
    return [*_consistency(hashes[split:], size - split, is_whole=False), _root(hashes[:split])]


def _split(size: int) -> int:
    """Return the largest power of two below `size`."""
    return 1 << (size - 1).bit_length() - 1
