"""Verify an exported ledger without the system that wrote it: one file, the standard library alone.

    python verify_ledger.py FOLDER [--keys FILE] [--anchors FILE ...]

FOLDER is what `seatrial audit export` wrote: ``ledger.jsonl``, ``checkpoints.jsonl``, ``anchors.jsonl``, ``keys.txt``.
Give --keys and --anchors copies that you keep yourself: an export that brings its own keys proves only that it agrees
with itself. Ends with 0 when everything fits and an anchor's checkpoint covers every entry, 4 when nothing is wrong but
something stays unproven, 5 when something was changed, 2 when a file cannot be read.

Ed25519 is verified after RFC 8032, section 5.1.7, the Merkle tree is that of RFC 6962, section 2.1, checkpoints have
the text form of C2SP tlog-checkpoint and signed-note.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import json
import sys
from datetime import datetime, timedelta
from pathlib import Path

PROVEN, BAD_INPUT, UNPROVEN, TAMPERED = 0, 2, 4, 5
TOLERANCE = timedelta(hours=1)
REPORTED = ("kill.observed",)
GENESIS = "sha256:" + hashlib.sha256(b'"seatrial ledger"').hexdigest()

# -- Ed25519, RFC 8032 section 5.1; points are (X, Y, Z, T) with x = X/Z, y = Y/Z, x * y = T/Z

P = 2**255 - 19
ORDER = 2**252 + 27742317777372353535851937790883648493
D = -121665 * pow(121666, P - 2, P) % P
ROOT_OF_MINUS_ONE = pow(2, (P - 1) // 4, P)


def add(one, other):
    a = (one[1] - one[0]) * (other[1] - other[0]) % P
    b = (one[1] + one[0]) * (other[1] + other[0]) % P
    c = 2 * one[3] * other[3] * D % P
    d = 2 * one[2] * other[2] % P
    e, f, g, h = b - a, d - c, d + c, b + a
    return (e * f % P, g * h % P, f * g % P, e * h % P)


def times(scalar, point):
    result = (0, 1, 1, 0)
    while scalar:
        if scalar & 1:
            result = add(result, point)
        point, scalar = add(point, point), scalar >> 1
    return result


def point_of(encoded):
    """Return the point of 32 bytes, or None when they are none."""
    y = int.from_bytes(encoded, "little")
    sign, y = y >> 255, y & (1 << 255) - 1
    if y >= P:
        return None
    square = (y * y - 1) * pow(D * y * y + 1, P - 2, P) % P
    x = pow(square, (P + 3) // 8, P)
    if (x * x - square) % P:
        x = x * ROOT_OF_MINUS_ONE % P
    if (x * x - square) % P or (x == 0 and sign):
        return None
    if x & 1 != sign:
        x = P - x
    return (x, y, 1, x * y % P)


BASE_Y = 4 * pow(5, P - 2, P) % P
BASE = point_of(BASE_Y.to_bytes(32, "little"))


def is_signature(public, signature, content):
    """Return whether `signature` (64 bytes) is that of `public` (32 bytes) on `content`."""
    if len(public) != 32 or len(signature) != 64:
        return False
    key, commitment = point_of(public), point_of(signature[:32])
    scalar = int.from_bytes(signature[32:], "little")
    if key is None or commitment is None or scalar >= ORDER:
        return False
    digest = hashlib.sha512(signature[:32] + public + content).digest()
    left = times(scalar, BASE)
    right = add(commitment, times(int.from_bytes(digest, "little") % ORDER, key))
    return not ((left[0] * right[2] - right[0] * left[2]) % P or (left[1] * right[2] - right[1] * left[2]) % P)


# -- the chain


def digest_of(value):
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return "sha256:" + hashlib.sha256(text.encode()).hexdigest()


def when(text):
    return datetime.fromisoformat(text)


def chain_faults(entries):
    """Give what is wrong with entries by themselves and in their place."""
    previous, keys, newest = GENESIS, set(), None
    declared = {
        number
        for entry in entries
        if entry["record"]["kind"] == "ledger.erased"
        for number in entry["record"]["body"].get("numbers", ())
    }
    for number, entry in enumerate(entries, 1):
        record, where = entry["record"], f"entry {entry['number']}"
        if entry["number"] != number or entry["previous"] != previous:
            yield f"{where}: stands at place {number}; order or link differ from what was recorded"
        content = {"number": entry["number"], "previous": entry["previous"], "record": record}
        if entry["withheld"] is not None:
            content["withheld"] = entry["withheld"]
            if entry["salt"] is None:
                if entry["number"] not in declared:
                    yield f"{where}: its texts are gone, and no record says that they were erased"
            elif digest_of({"salt": entry["salt"], "texts": entry["texts"]}) != entry["withheld"]:
                yield f"{where}: its texts are not those that were recorded"
        if digest_of(content) != entry["hash"]:
            yield f"{where}: its content is not what was recorded"
        if record["key"] in keys:
            yield f"{where}: the act {record['key']!r} stands twice"
        at = when(record["at"])
        if newest is not None and at < newest - TOLERANCE and record["kind"] not in REPORTED:
            yield f"{where}: dated {record['at']}, after an entry of {newest.isoformat()}; back-dated, or a wrong clock"
        newest = at if newest is None else max(newest, at)
        keys.add(record["key"])
        previous = entry["hash"]


# -- the tree


def node(left, right):
    return hashlib.sha256(b"\x01" + left + right).digest()


def roots(hashes, sizes):
    """Return by size the Merkle root over the first so many hashes."""
    wanted, found, peaks = set(sizes), {}, []
    for size in range(len(hashes) + 1):
        if size:
            level, top = 0, hashlib.sha256(b"\x00" + bytes.fromhex(hashes[size - 1][7:])).digest()
            while peaks and peaks[-1][0] == level:
                level, top = level + 1, node(peaks.pop()[1], top)
            peaks.append((level, top))
        if size in wanted:
            whole = None
            for _, top in reversed(peaks):
                whole = top if whole is None else node(top, whole)
            found[size] = hashlib.sha256().digest() if whole is None else whole
    return found


# -- checkpoints


def keys_of(text):
    """Return by id (name, public key, since, until) of each line of a keys file."""
    keys = {}
    for line in text.splitlines():
        if not line.strip() or line.startswith("#"):
            continue
        verifier, *validity = line.split()
        name, key_id, encoded = verifier.split("+", 2)
        key = base64.b64decode(encoded, validate=True)
        times_given = dict(word.split("=", 1) for word in validity)
        since, until = (when(times_given[word]) if word in times_given else None for word in ("since", "until"))
        right = hashlib.sha256(name.encode() + b"\n" + key).digest()[:4]
        if key[:1] != b"\x01" or len(key) != 33 or right.hex() != key_id:
            raise ValueError(f"key {name}: its id is not that of an Ed25519 key")
        keys[right] = (name, key[1:], since, until)
    return keys


def opened(note, keys):
    """Return (origin, size, root, at) of a signed note; raises ValueError when no key signed exactly that."""
    text, _, signatures = note.partition("\n\n")
    origin, size, encoded, at = text.split("\n")
    written = f"{origin}\n{int(size)}\n{base64.b64encode(base64.b64decode(encoded, validate=True)).decode()}\n{at}"
    if written != text or not at.startswith("at "):
        raise ValueError("another spelling than the one that is signed")
    moment = when(at[3:])
    problem = "no signature of the ledger's name"
    for line in signatures.splitlines():
        dash, _, rest = line.partition(" ")
        name, _, encoded_signature = rest.partition(" ")
        if dash != "\N{EM DASH}" or name != origin:
            continue
        signature = base64.b64decode(encoded_signature, validate=True)
        key = keys.get(signature[:4])
        if key is None or key[0] != origin:
            problem = f"signed with key {signature[:4].hex()}, which is not among the ledger's"
        elif (key[2] is not None and moment < key[2]) or (key[3] is not None and moment >= key[3]):
            problem = f"signed with key {signature[:4].hex()} outside the time in which it is valid"
        elif not is_signature(key[1], signature[4:], f"{text}\n".encode()):
            problem = f"the signature is not of key {signature[:4].hex()} on this text"
        else:
            return origin, int(size), base64.b64decode(encoded), moment
    raise ValueError(problem)


def checkpoint_faults(entries, notes, keys):
    """Return what is wrong with checkpoints or contradicts them, and the size of the largest sound one at an anchor."""
    faults, sound = [], []
    for place, note in notes:
        try:
            sound.append((place, *opened(note, keys)))
        except ValueError as error:
            faults.append(f"{place}, checkpoint {note.splitlines()[1:2]}: {error}")
    present = roots([entry["hash"] for entry in entries], [size for _, _, size, _, _ in sound])
    signed = {}
    for _, origin, size, root, _ in sound:
        signed.setdefault(size, set()).add((origin, root))
    covered = 0
    if len({origin for _, origin, *_ in sound}) > 1:
        faults.append("checkpoints: they are of ledgers of different names")
    for place, _, size, root, at in sound:
        where = f"{place}, checkpoint {size}"
        if len(signed[size]) > 1:
            faults.append(f"{where}: {len(signed[size])} roots were signed for this size: there are two ledgers")
        elif size not in present:
            faults.append(f"{where}: the ledger has {len(entries)} entries; the newest were cut off")
        elif present[size] != root:
            faults.append(f"{where}: the first {size} entries are not those that were signed")
        else:
            covered = max(covered, size if place != "export" else 0)
            faults += time_faults(entries, size, at)
    return faults, covered


def time_faults(entries, size, at):
    for entry in entries:
        record, moment = entry["record"], when(entry["record"]["at"])
        if entry["number"] <= size and moment > at + TOLERANCE:
            yield f"entry {entry['number']}: dated {record['at']}, and signed at {at.isoformat()} already"
        if entry["number"] > size and moment < at - TOLERANCE and record["kind"] not in REPORTED:
            yield f"entry {entry['number']}: dated {record['at']}, and not among what was signed at {at.isoformat()}"


# -- the program


def lines_of(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line]


def verified(folder, keys_file=None, anchor_files=()):
    """Return the faults of an export, what stays unproven, and one line that sums up."""
    entries = lines_of(folder / "ledger.jsonl")
    keys = keys_of((keys_file or folder / "keys.txt").read_text(encoding="utf-8"))
    notes = [("export", each["note"]) for each in lines_of(folder / "checkpoints.jsonl")]
    for path in anchor_files or [folder / "anchors.jsonl"]:
        notes += [(str(each.get("anchor", path.name)), each["note"]) for each in lines_of(path)]
    faults = list(chain_faults(entries))
    more, covered = checkpoint_faults(entries, notes, keys)
    faults += more
    gaps = []
    if keys_file is None:
        gaps.append("the keys came with the export: compare keys.txt with the copy that you keep")
    if not anchor_files:
        gaps.append("the anchors came with the export: give --anchors what you keep yourself")
    if covered < len(entries):
        gaps.append(f"entries {covered + 1} to {len(entries)}: in no checkpoint of an anchor")
    erased = sum(entry["withheld"] is not None and entry["salt"] is None for entry in entries)
    return list(dict.fromkeys(faults)), gaps, f"{len(entries)} entries, {erased} erased, {len(notes)} checkpoints"


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--keys", type=Path, help="public keys that you keep yourself")
    parser.add_argument("--anchors", type=Path, nargs="+", default=[], help="checkpoints that you keep yourself")
    given = parser.parse_args(argv)
    try:
        faults, gaps, summary = verified(given.folder, given.keys, given.anchors)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        sys.stdout.write(f"cannot be read: {type(error).__name__}: {error}\n")
        return BAD_INPUT
    for word, found in (("TAMPERED", faults), ("unproven", gaps)):
        for each in found:
            sys.stdout.write(f"{word}  {each}\n")
    result = TAMPERED if faults else UNPROVEN if gaps else PROVEN
    sys.stdout.write(f"{summary}: {'tampered' if faults else 'unproven' if gaps else 'proven'}\n")
    return result


if __name__ == "__main__":
    sys.exit(main())
