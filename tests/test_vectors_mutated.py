"""Damaged and lying files of vectors, of every format and packed in every way: read right, or refused in a sentence."""

import bz2
import gzip
import json
import lzma
import re
import struct
import tarfile
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from mutations import LINES, MEGABYTES, PACK, ROWS, SAMPLES, SECONDS, WORDS, in_a_process, zipped
from safetensors.numpy import save
from test_vectors_fasttext import MODELS, Model
from test_vectors_parquet import file_of
from test_vectors_streams import tarred, zst
from test_vectors_streams import zipped as zipped_all

from bigembed.errors import UserError
from bigembed.vectors import open_source

READ = "READ"


def sound(told: list[dict[str, Any]]) -> Counter[str]:
    """Hold what was told of files to the bounds; return how many of each sample were read, and how many refused."""
    wrong = [each for each in told if each["wrong"]]
    assert not wrong, f"{len(wrong)} of {len(told)}: {wrong[:3]}"
    for what, bound in (("seconds", SECONDS), ("megabytes", MEGABYTES)):
        worst = max(told, key=lambda each: each[what])
        assert worst[what] < bound, worst
    return Counter(f"{each.get('sample')} {'read' if each['read'] else 'refused'}" for each in told)


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What is told of some mutated files, and of all that lie and the quicker ones that burst, which are named by their paths."""
    folder = tmp_path_factory.mktemp("mutated")
    return in_a_process(folder, 2 * len(PACK) * len(SAMPLES), written(folder, LIES | burst(QUICK)))


def test_mutated_files_are_read_right_or_refused(told: list[dict[str, Any]]) -> None:
    found = sound([each for each in told if "sample" in each])
    assert {f"{name} refused" for name in SAMPLES} <= set(found)
    assert sum(each.endswith("read") for each in found) > len(SAMPLES) // 2


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_ten_thousand_mutated_files_are_read_right_or_refused(tmp_path: Path) -> None:
    found = sound(in_a_process(tmp_path, 10_000))
    assert min(found[f"{name} {what}"] for name in SAMPLES for what in ("read", "refused")) > 20


@pytest.mark.slow
def test_mutated_real_files_are_read_right_or_refused(tmp_path: Path, data_dir: Path) -> None:
    names = [
        "fasttext-lid/lid.176.ftz",
        "gensim/toy-model.bin",
        "gensim/lee_fasttext.bin",
        "finalfusion/similarity.bin",
    ]
    names += ["gensim/high_precision.kv.bin", "gensim/toy-model.vec", "gensim/test_glove.txt", "vecto/npy/test.npy"]
    found = sound(in_a_process(tmp_path, 800, real=[str(data_dir / "vectors" / name) for name in names]))
    assert len(found) == 2 * len(names)


# ---- headers that lie

OLD, NEW, QUANTISED, PRUNED = (MODELS[name].bytes() for name in ("old", "new", "quantised, with lengths", "pruned"))
CODES = QUANTISED.index(MODELS["quantised, with lengths"].codes[0].tobytes())
SHAPE = NEW.index(MODELS["new"].matrix.tobytes()) - 16
PARQUET = file_of(pa.table({"w": WORDS, "v": pa.array(ROWS.tolist(), pa.list_(pa.float32()))}))


def lying(content: bytes, place: int, form: str, *numbers: int) -> bytes:
    told = struct.pack("<" + form, *numbers)
    return content[:place] + told + content[place + len(told) :]


def npy(shape: str, kind: str = "'<f4'") -> bytes:
    header = f"{{'descr': {kind}, 'fortran_order': False, 'shape': {shape}, }}\n".encode()
    return b"\x93NUMPY\1\0" + struct.pack("<H", len(header)) + header + bytes(64)


def tensors(header: Any, size: int | None = None, numbers: int = 16) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if size is None else size) + text + bytes(numbers)


def tensor(shape: list[int], begin: int = 0, end: int = 16) -> dict[str, Any]:
    return {"dtype": "F32", "shape": shape, "data_offsets": [begin, end]}


def zip_of(
    method: int, packed: bytes, size: int, check: int, said: int | None = None, inside: bytes = b"v.txt"
) -> bytes:
    """A zip by hand: its list of members says what the header of the member says, but for the name."""
    told = struct.pack("<HHHHIIIHH", 0, method, 0, 0, check, len(packed) if said is None else said, size, 5, 0)
    member = b"PK\3\4" + struct.pack("<H", 20) + told + inside + packed
    entry = b"PK\1\2" + struct.pack("<HH", 20, 20) + told + bytes(14) + b"v.txt"
    return member + entry + b"PK\5\6" + struct.pack("<HHHHIIH", 0, 0, 1, 1, len(entry), len(member), 0)


def pax(kind: bytes, content: bytes) -> bytes:
    """An entry of a tar that tells of the next one, or of all."""
    info = tarfile.TarInfo("told")
    info.type, info.size = kind, len(content)
    return info.tobuf(tarfile.USTAR_FORMAT) + content + bytes(-len(content) % 512)


def tar_of(size: bytes, kind: bytes = b"0") -> bytes:
    """A tar whose second entry has a header, with its checksum, that says this of its bytes."""
    head = bytearray(tarred({"v.txt": b""})[:512])
    head[124:136], head[148:156], head[156:157] = size, b" " * 8, kind
    head[148:156] = b"%06o\0 " % sum(head)
    return tarred({"README": b"x"})[:1024] + bytes(head) + LINES


DEFLATED = zlib.compress(LINES, wbits=-15)
CHECK = zlib.crc32(LINES)
GENTLE = b"{" + b",".join(b'"%d":[]' % number for number in range(100_000)) + b"}"

LIES: dict[str, tuple[bytes, str]] = {
    "2^63 lines": (b"%d 4\n" % 2**63 + LINES, "line 1: has 1 numbers behind its word, not 4"),
    "10^15 lines": (b"%d 4\n" % (10**15 - 1) + LINES, "first line says 999,999,999,999,999 rows, but there are 12"),
    "-1 lines": (b"-1 4\n" + LINES, "line 1: has 1 numbers behind its word, not 4"),
    "lines of nothing": (b"12 0\n" + LINES, "line 1: says vectors of 0 numbers"),
    "lines of 10^9": (b"12 1000000000\n" + LINES, "line 1: has 1 numbers behind its word, not 4"),
    "lines of 10^8": (b"12 100000000\n" + LINES, "line 1: says vectors of 100,000,000 numbers"),
    "a number of a million digits": (b"a 1 2\nb 1 " + b"7" * 1_000_000 + b"x\n", "line 2: '7+…' is no number"),
    "a word of a million digits": (b"a 1 2\n" + b"7" * 1_000_000 + b"x 1 2\n", READ),
    "10^15 rows": (
        b"%d 4\na " % (10**15 - 1) + ROWS.tobytes(),
        "first line says 999,999,999,999,999 words of 4 numbers",
    ),
    "2^63 rows": (b"%d 4\na " % 2**63 + ROWS.tobytes(), "as no known format does"),
    "rows of nothing": (b"12 0\na " + ROWS.tobytes(), "first line says vectors of 0 numbers"),
    "-1 words": (lying(NEW, 68, "i", -1), r"header \(the first 100 bytes\) says 4 entries, -1 words and 0 labels"),
    "2^31 - 1 words": (lying(NEW, 64, "2i", 2**31 - 1, 2**31 - 1), "the dictionary of 2,147,483,647 entries would end"),
    "vectors of 10^9": (lying(NEW, 8, "i", 10**9), "says vectors of 1,000,000,000 numbers"),
    "vectors of nothing": (lying(NEW, 8, "i", 0), "says vectors of 0 numbers"),
    "2^31 - 1 buckets": (lying(NEW, 40, "i", 2**31 - 1), r"vectors are 10 × 4 .* header says 2,147,483,651 × 4"),
    "-2^31 buckets": (lying(NEW, 40, "i", -(2**31)), "says -2,147,483,648 buckets"),
    "2^31 - 1 buckets, pruned": (lying(PRUNED, 40, "i", 2**31 - 1), "says 2,147,483,647 buckets, pruned"),
    "n-grams of 3 to 2": (lying(NEW, 44, "2i", 3, 2), "says n-grams of 3 to 2 characters"),
    "2^63 - 1 n-grams kept": (lying(PRUNED, 84, "q", 2**63 - 1), "says 9,223,372,036,854,775,807 n-grams of 6 kept"),
    "2^62 rows of a model": (lying(NEW, SHAPE, "q", 2**62), "its vectors are 4,611,686,018,427,387,904 × 4"),
    "2^62 weights": (lying(NEW, len(NEW) - 32, "q", 2**62), "weights of the output would end at byte 73,786,976,"),
    "2^31 - 1 codes": (lying(QUANTISED, CODES - 4, "i", 2**31 - 1), "codes of the rows would end at byte 2,147,483,8"),
    "-1 codes": (lying(QUANTISED, CODES - 4, "i", -1), "its quantiser .* which does not make 4"),
    "an old model of 10^9": (lying(OLD, 0, "i", 10**9), "as no known format does"),
    "a header of 10^18 bytes": (tensors({"a": tensor([1, 4])}, 10**18), "as no known format does"),
    "a header of 99,999,999 bytes": (
        tensors({"a": tensor([1, 4])}, 99_999_999),
        "header .* is to take 99,999,999 bytes",
    ),
    "a header of half a file": (tensors({"a": tensor([1, 4])}, 30), "header of this safetensors file cannot be read"),
    "a header of brackets": (tensors(b'{"a":' + b"[" * 4_000_000), "header of this safetensors file cannot be read"),
    "a header of a number": (tensors(b'{"a":' + b"9" * 4_000_000 + b"}"), "header of this safetensors file cannot be"),
    "a header of gentle entries": (tensors(GENTLE), "header of this safetensors file cannot be read"),
    "a tensor of 2^64 numbers": (tensors({"a": tensor([2**62, 4])}), "header of this safetensors file cannot be read"),
    "a tensor of -1 rows": (tensors({"a": tensor([-1, 4])}), "header of this safetensors file cannot be read"),
    "a tensor from behind": (tensors({"a": tensor([1, 4], 16, 0)}), "header of this safetensors file cannot be read"),
    "tensors in one place": (
        tensors({"a": tensor([1, 4]), "b": tensor([1, 4], 8, 24)}, numbers=24),
        "has tensors that overlap or leave a gap at byte 16",
    ),
    "a tensor of a long name": (
        tensors({"a\n" * 9999: tensor([1, 2], 0, 8), "b": tensor([1, 2], 8, 16)}),
        r"there are: a\\na\\n.*… \(F32, \[1, 2\]\); b",
    ),
    "2^64 numbers": (npy("(4611686018427387904, 4)"), "header of this .npy file cannot be read"),
    "10^9 numbers": (npy("(1000000000, 1)"), "up to byte 4,000,000,0.*, but has"),
    "-1 numbers": (npy("(-1, 4)"), "header of this .npy file cannot be read"),
    "objects": (npy("(4, 4)", "'|O'"), "numbers of the type '|O'"),
    "many dimensions": (npy("(" + "1, " * 9999 + ")"), "is an array of shape \\(1, 1, .*…; vectors are wanted"),
    "brackets": (npy("(" * 30_000), "header of this .npy file cannot be read"),
    "signs": (npy("-" * 60_000 + "1"), "header of this .npy file cannot be read"),
    "columns of no length": (lying(PARQUET, len(PARQUET) - 8, "I", 0), "list of columns, at byte .*, cannot be read"),
    "columns of 4 GB": (lying(PARQUET, len(PARQUET) - 8, "I", 2**32 - 1), "does not end as a Parquet file"),
    "columns of zeros": (b"PAR1" + bytes(1000) + struct.pack("<I", 900) + b"PAR1", "cannot be read as Parquet"),
    "columns in columns": (
        b"PAR1" + b"\x1c" * 999 + struct.pack("<I", 900) + b"PAR1",
        "list of columns, at byte 103, c",
    ),
    "columns by the million": (
        b"PAR1" + b"\x39\xfc\xff\xff\x7f" + bytes(2_097_151) + struct.pack("<I", 2_097_156) + b"PAR1",
        "its list of columns takes 2,097,156 bytes",
    ),
    "columns by the million, in 2 MB": (
        b"PAR1" + b"\x39\xfc\xf6\xff\x7f" + bytes(2_097_143) + struct.pack("<I", 2_097_148) + b"PAR1",
        "cannot be read as Parquet",
    ),
    "an end without a beginning": (b"PAR1", "does not end as a Parquet file"),
    "a member of 4 GB": (zip_of(8, DEFLATED, 2**32 - 2, CHECK), READ),
    "a member of 100 bytes": (zip_of(8, DEFLATED, 100, CHECK), "near byte .*: Bad CRC-32"),
    "a member of 100 bytes, and their sum": (
        zip_of(8, DEFLATED, 100, zlib.crc32(LINES[:100])),
        "line 3: has 3 numbers",
    ),
    "a member of no packed bytes": (zip_of(8, DEFLATED, len(LINES), CHECK, 0), "near byte .*: Bad CRC-32"),
    "a member of 4 GB as it is": (zip_of(0, LINES, 2**32 - 2, CHECK, 2**32 - 2), "cannot be unpacked .zip. near byte"),
    "a member of two names": (
        zip_of(8, DEFLATED, len(LINES), CHECK, None, b"w.txt"),
        "'v.txt' and header b'w.txt' differ",
    ),
    "a list without members": (b"PK\5\6" + bytes(18), "is an archive without files"),
    "an entry of 8 GB": (tar_of(b"77777777777\0"), "cannot be unpacked .tar. near byte"),
    "an entry of 2^88 bytes": (tar_of(b"\x80" + b"\xff" * 11), "cannot be unpacked .tar. near byte"),
    "an entry with holes": (tar_of(b"00000000000\0", b"S"), "its member .v.txt. is stored with holes"),
    "an entry with holes, told before": (
        tarred({"README": b"x"})[:1024] + pax(b"x", b"22 GNU.sparse.major=1\n") + tarred({"v.txt": LINES}),
        "its member .v.txt. is stored with holes",
    ),
    "an entry of a damaged name": (
        pax(b"x", b"9999 path=v\n") + tarred({"v.txt": LINES}),
        "tells of the next one is damaged",
    ),
    "an entry of -1 bytes": (tar_of(b"\xff" * 12), "what should be the header of an entry is none"),
    "a zip in a zip": (zipped(zipped(LINES), "v.zip"), "v.zip: is a zip inside of another archive"),
    "a zip in a tar": (tarred({"v.zip": zipped(LINES)}), "v.zip: is a zip inside of another archive"),
    "a tar in a tar": (tarred({"v.tar": tarred({"v": LINES})}), READ),
    "a tar in a tar in a tar …": (
        tarred({"v": tarred({"v": tarred({"v": tarred({"v": tarred({"v": LINES})})})})}),
        "4 times",
    ),
}


def written(folder: Path, files: dict[str, tuple[bytes, str]]) -> list[str]:
    """Write files, those that lie packed by gz too, and return where."""
    paths = []
    for name, (content, _) in files.items():
        packed = {f"{name}.gz": PACK["gz"](content)} if name in LIES and len(content) < 1 << 20 else {}
        for path, data in ({name: content} | packed).items():
            (folder / path).write_bytes(data)
            paths.append(str(folder / path))
    return paths


def as_expected(told: list[dict[str, Any]], files: Mapping[str, tuple[Any, str]]) -> None:
    """Hold what is told of files to the bounds, and to what is expected of them; of those packed by gz to the bounds."""
    found = {Path(each["path"]).name: each for each in told if "path" in each}
    sound([found[name] for name in found if name.removesuffix(".gz") in files])
    for name, (_, says) in files.items():
        assert found[name]["read"] == (says == READ), found[name]
        assert says == READ or re.search(says, found[name]["said"]), found[name]


def test_headers_that_lie_are_refused(told: list[dict[str, Any]]) -> None:
    as_expected(told, LIES)


@pytest.mark.parametrize("form", ["safetensors", "fasttext", "ftz"])
def test_a_number_that_was_changed_under_a_checksum_is_told(form: str, tmp_path: Path) -> None:
    behind = bytes(5 << 20)  # more than any reader holds at once
    rows = np.random.default_rng(0).normal(size=(1000, 20)).astype(np.float32)
    content = {
        "safetensors": lambda: save({"embedding": rows, "z": np.zeros(len(behind), np.uint8)}),
        "fasttext": lambda: (
            Model(words=[b"w%d" % row for row in range(1000)], buckets=0, dim=20, rows=rows).bytes() + behind
        ),
        "ftz": lambda: QUANTISED + behind,
    }[form]()
    path = tmp_path / "v.gz"
    path.write_bytes(gzip.compress(content, 0))
    good = [block.rows.copy() for block in open_source(str(path)).blocks()]
    part = good[0].tobytes()[4000:4008] if form != "ftz" else MODELS["quantised, with lengths"].codes[0].tobytes()[:8]
    damaged = bytearray(path.read_bytes())
    damaged[damaged.index(part) + 1] ^= 1
    path.write_bytes(damaged)
    with pytest.raises(UserError, match=r"v\.gz: cannot be unpacked"):
        list(open_source(str(path)).blocks())


# ---- files that burst


def endless(pack: Callable[[bytes], bytes], unit: bytes, size: int = 10 << 30) -> bytes:
    """Some gigabytes of the same, packed 16 MB at a time."""
    return pack(unit * ((16 << 20) // len(unit))) * (size >> 24)


def records(size: int) -> bytes:
    return b"".join(b"12 %07x=\n" % number for number in range(size // 12))


def zeros_of_parquet() -> bytes:
    lists = pa.FixedSizeListArray.from_arrays(pa.array(np.zeros(32_000_000, np.float32)), 16)
    return file_of(pa.table({"v": lists}), compression="zstd")


def a_word_often() -> bytes:
    words = pa.array(["x" * 60_000] * 20_000).dictionary_encode()
    numbers = np.random.default_rng(0).random(80_000).astype(np.float32)
    return file_of(pa.table({"w": words, "v": pa.FixedSizeListArray.from_arrays(pa.array(numbers), 4)}))


BURST, UNKNOWN = "holds more than 268,435,456 bytes", "as no known format does"
HEADS = {  # how a file begins, what then comes without end, and what is told of it
    "text": (b"99999999 3\n", b"\n", BURST),
    "text of lines": (b"99999999 2\n", b"a 1 2\n", BURST),
    "a long line": (b"2 3\na 1 2 ", b" ", "longer than 4,194,304 bytes"),
    "glove": (b"a 1 2\nb 3 4\n", b"a 1 2\n", BURST),
    "binary": (b"20000000 2\na " + bytes(8) + b"\n", b"\0", "has no word"),
    "npy": (npy("(60000000, 1)")[:-64], b"\0", "goes on at byte 240,000,0"),
    "npy of 10^12": (npy("(1000000000000, 1)"), b"\0", "up to byte 4,000,000,000,"),
    "safetensors": (tensors({"a": tensor([60_000_000, 1], 0, 240_000_000)}, numbers=0), b"\0", "goes on at byte"),
    "a model": (lying(NEW, 64, "3i", 26_000_000, 26_000_000, 0)[:92], b"\0", "its vectors are 0 × 0"),
}
MEMBER = tarred({"v.txt": LINES})
# Files of some kilobytes that stand for gigabytes, or for hours.
BOMBS: dict[str, tuple[Callable[[], bytes], str]] = {
    **{f"{unit!r}.bz2": (partial(endless, bz2.compress, unit), UNKNOWN) for unit in (b"\0", b" ", b"7", b"\n")},
    **{f"{unit!r}.zst": (partial(endless, zst, unit), UNKNOWN) for unit in (b"\0", b" ", b"7", b"\n")},
    **{
        f"{unit!r}.gz.gz": (lambda unit=unit: gzip.compress(endless(gzip.compress, unit), 1), UNKNOWN)
        for unit in (b"\0", b" ", b"7", b"\n")
    },
    **{
        f"{name}.bz2": (lambda head=head, unit=unit: bz2.compress(head) + endless(bz2.compress, unit, 1 << 30), says)
        for name, (head, unit, says) in HEADS.items()
    },
    "bz2 in a zip": (
        lambda: zip_of(zipfile.ZIP_BZIP2, bz2.compress(bytes(45 << 20)) * 50, 2 << 30, 0),
        "packed in a way that zips seldom are",
    ),
    "many empty.xz.xz": (lambda: lzma.compress(lzma.compress(b"") * 300_000, preset=0), "more than 4,096 of them"),
    "many empty.gz.gz": (lambda: gzip.compress(gzip.compress(b"", mtime=0) * 1_000_000, 1), "is empty"),
    "digits for a name": (lambda: pax(b"x", b"1" * 1_000_000) + MEMBER, "name of a member takes 1,000,000 bytes"),
    "names in names": (lambda: gzip.compress(pax(b"x", records(60_000)) * 400 + MEMBER, 1), "tar of so many files"),
    "names for all": (lambda: gzip.compress(pax(b"g", records(1_000_000)) * 60 + MEMBER, 1), READ),
    "many entries": (lambda: gzip.compress(tarfile.TarInfo("m").tobuf() * 100_000, 1), "is a tar of so many files"),
    "many members": (
        lambda: zipped_all({f"{number:0100}": b"" for number in range(9000)}),
        "is a zip of so many files",
    ),
    "a word, often": (a_word_often, READ),
    "zeros of Parquet": (zeros_of_parquet, "32,000,000 numbers stand in"),
}
QUICK = [
    "b'\\x00'.bz2",
    "b'7'.zst",
    "a long line.bz2",
    "npy of 10^12.bz2",
    "binary.bz2",
    "digits for a name",
    "many members",
]


def burst(names: Iterable[str]) -> dict[str, tuple[bytes, str]]:
    return {name: (BOMBS[name][0](), BOMBS[name][1]) for name in names}


def test_files_that_burst_are_refused_at_once(told: list[dict[str, Any]]) -> None:
    as_expected(told, {name: BOMBS[name] for name in QUICK})


@pytest.mark.slow
def test_files_that_burst_are_refused(tmp_path: Path) -> None:
    as_expected(in_a_process(tmp_path, 0, written(tmp_path, burst(BOMBS))), BOMBS)
