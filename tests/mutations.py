"""Files of vectors of every format, packed in every way, and mutated: what they say by readers of other hands, and what ours says.

A crash or a hang would end the tests, so files are opened in a process of its own, which is this file run as a program. It prints
a line of JSON for each file. See ``test_vectors_mutated``.
"""

import bz2
import faulthandler
import gzip
import io
import json
import lzma
import re
import struct
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from random import Random
from time import perf_counter
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from safetensors.numpy import load, save
from test_pretrained_placing import FIRST, of_vocab
from test_subword import slow_hash, slow_pieces
from test_vectors_binary import binary
from test_vectors_fasttext import MODELS, plain_reader
from test_vectors_parquet import file_of
from test_vectors_streams import tarred, zst
from test_vectors_text import expected

from bigembed.errors import UserError
from bigembed.vectors import WRITERS, Source, array_source, fasttext, open_source, text, word2vec
from bigembed.vectors.blocks import Vectors

COUNT, DIM = 12, 4
ROWS = np.random.default_rng(0).normal(size=(COUNT, DIM)).astype(np.float32)
WORDS = ["</s>", "the", "été", "日本", "a", "A", "x.", "12a", "Paris", "w9", "w10", "the"]  # one is there twice
ASKED = ["été", "the", "nowhere", "Paris", "</s>"]  # of which a table is made
LIST = "\n".join(WORDS).encode() + b"\n"
LINES = b"".join(
    word.encode() + b"".join(b" %.5g" % number for number in row) + b"\n" for word, row in zip(WORDS, ROWS, strict=True)
)
HANG = 60  # seconds after which a file ends the process
SECONDS, MEGABYTES = 5, 256  # of one file, at most


@dataclass(frozen=True)
class Sample:
    """A good file: its bytes, where most can go wrong, where the rows lie as they are in memory, and its list of words."""

    content: bytes
    spots: tuple[slice, ...] = (slice(0, 160),)
    rows: np.ndarray | None = None
    words: bytes | None = None
    dim: int = DIM


def npy(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def ours(form: str) -> bytes:
    words = [*WORDS[:-1], "last"]  # fastText's has each word once
    return b"".join(map(bytes, WRITERS[form](Vectors(ROWS, range(COUNT), pa.array(words)))))


def samples() -> dict[str, Sample]:
    """Every format, as others write it and as we do."""
    lists = pa.array(ROWS.tolist(), pa.list_(pa.float32(), DIM))
    columns = {f"c{column}": ROWS[:, column] for column in range(DIM)}
    plain = {"compression": "none", "use_dictionary": False}
    header, bare = b"%d %d\n" % (COUNT, DIM), [word.encode() for word in WORDS]
    tail = slice(-700, None)
    found = {
        "word2vec": Sample(header + LINES, (slice(0, 8), slice(0, 200))),
        ".vec": Sample(header + LINES.replace(b"\n", b" \n"), (slice(0, 8), slice(0, 200))),
        "glove": Sample(LINES),
        "binary": Sample(binary(bare, ROWS, True), (slice(0, 40),)),
        "binary without line ends": Sample(binary(bare, ROWS, False), (slice(0, 40),)),
        "npy with words": Sample(npy(ROWS), (slice(0, 128),), ROWS, LIST),
        "npy without words": Sample(npy(ROWS), (slice(0, 128),), ROWS),
        "npy of float64": Sample(npy(ROWS.astype(np.float64)), (slice(0, 128),), None, LIST),
        "npy of float16": Sample(npy(ROWS.astype(">f2")), (slice(0, 128),), None, LIST.replace(b"\n", b" 7\n")),
        "safetensors": Sample(save({"embedding": ROWS}), (slice(0, 100),), ROWS, LIST),
        "safetensors of two": Sample(save({"embedding": ROWS.astype(np.float16), "z": ROWS[:, 0]}), (slice(0, 180),)),
        "safetensors of ours": Sample(ours("safetensors"), (slice(0, 160),), ROWS, LIST),
        "parquet of ours": Sample(ours("parquet"), (tail,), ROWS),
        "parquet, lists": Sample(file_of(pa.table({"w": WORDS, "v": lists}), **plain), (tail,), ROWS),
        "parquet, usual": Sample(file_of(pa.table({"w": WORDS, "v": lists})), (tail,)),
        "parquet, columns": Sample(file_of(pa.table({"w": WORDS, **columns}), row_group_size=5), (tail,)),
        "fasttext of ours": Sample(ours("fasttext"), rows=ROWS),
    }
    for name in ("new", "old", "supervised", "quantised, with lengths", "pruned"):
        found[f"fasttext, {name}"] = Sample(MODELS[name].bytes())
    return found


SAMPLES = samples()


# ---- packing


def zipped(data: bytes, name: str = "v.txt") -> bytes:
    """A zip that is the same whenever it is made."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(zipfile.ZipInfo(name), data, zipfile.ZIP_DEFLATED)
    return file.getvalue()


PACK: dict[str, Callable[[bytes], bytes]] = {
    "plain": bytes,
    "gz": lambda data: gzip.compress(data, mtime=0),
    "bz2": bz2.compress,
    "xz": lzma.compress,
    "zst": zst,
    "zip": zipped,
    "tar": lambda data: tarred({"v.txt": data}),
    "tar.gz": lambda data: gzip.compress(tarred({"v.txt": data}), mtime=0),
}


def of_zip(data: bytes, member: str) -> bytes:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return archive.read(member)


def of_tar(data: bytes, member: str) -> bytes:
    with tarfile.open(fileobj=io.BytesIO(data), mode="r:") as archive:
        return next(archive.extractfile(info).read() for info in archive if info.isreg() and info.name == member)


UNPACK: dict[str, Callable[[bytes, str], bytes]] = {
    "gz": lambda data, _: gzip.decompress(data),
    "bz2": lambda data, _: bz2.decompress(data),
    "xz": lambda data, _: lzma.decompress(data.rstrip(b"\0")),  # which may follow, and Python takes for another one
    "zst": lambda data, _: pa.input_stream(io.BytesIO(data), compression="zstd").read(),
    "zip": of_zip,
    "tar": of_tar,
}


# ---- what a file says, by readers of other hands


@dataclass
class Said:
    """Words, none where there are none, and all rows; those behind the words' are of n-grams."""

    words: list[bytes] | None
    rows: np.ndarray
    ngrams: tuple[int, int, int] | None = None
    places: dict[int, int] = field(default_factory=dict)


def text_says(data: bytes, source: Source) -> Said:
    data = data.removeprefix(b"\xef\xbb\xbf")
    # As much zero or infinite, and no fraction of a million digits.
    data = re.sub(rb"(?<=[ \t])([-+]?[0-9.]+[eE][-+]?)0*[0-9]{4,}(?=[ \t\r\n])", rb"\g<1>999", data)
    count, dim = None, source.dim
    if source.format == "word2vec":
        found = re.match(rb"[ \t]*([0-9]+)[ \t]+([0-9]+)[ \t\r]*\n", data)
        count, dim, data = int(found[1]), int(found[2]), data[found.end() :]
    words, rows = expected(data, dim, count)
    return Said(words, np.array(rows, np.float32).reshape(-1, dim))


def binary_says(data: bytes, source: Source) -> Said:
    line, _, rest = data.partition(b"\n")
    count, dim = map(int, line.split())
    words, rows, place = [], np.empty((count, dim), np.float32), 0
    seams = rest[rest.index(b" ") + 1 + 4 * dim :][:1] == b"\n" if count > 1 else False
    for row in rows:
        if words and seams:
            assert rest[place] == 10
            place += 1
        space = rest.index(b" ", place)
        words.append(rest[place:space])
        row[:] = np.frombuffer(rest, "<f4", dim, space + 1)
        place = space + 1 + 4 * dim
    assert rest[place:] in (b"", b"\n")
    return Said(words, rows)


def fasttext_says(data: bytes, source: Source) -> Said:
    words, rows = plain_reader(data)
    new = struct.unpack_from("<i", data)[0] == fasttext.MAGIC
    buckets, min_n, max_n = struct.unpack_from("<3i", data, 40 if new else 32)
    if len(rows) == len(words) or min_n > max_n:
        return Said(words, rows)
    pruned, places = struct.unpack_from("<q", data, 84)[0] if new else -1, {}
    if pruned >= 0:
        place = 92
        for _ in range(struct.unpack_from("<i", data, 64)[0]):
            place = data.index(b"\0", place) + 10
        places = dict(struct.iter_unpack("<2i", data[place : place + 8 * pruned]))
    return Said(words, rows, (max(min_n, 1), max_n, buckets), places)


def npy_says(data: bytes, source: Source) -> Said:
    file = io.BytesIO(data)
    array = np.load(file, allow_pickle=False)
    assert array.ndim == 2 and not file.read(1)
    return Said(None, array.astype(np.float32))


def safetensors_says(data: bytes, source: Source) -> Said:
    size = int.from_bytes(data[:8], "little")
    kinds = {"F16": "<f2", "F32": "<f4", "F64": "<f8", "BF16": "<u2"}
    header = json.loads(data[8 : 8 + size])
    entry = header[source.details["tensor"]]
    begin, end = entry["data_offsets"]
    numbers = np.frombuffer(data[8 + size :][begin:end], kinds[entry["dtype"]]).reshape(entry["shape"])
    if entry["dtype"] == "BF16":
        return Said(None, (numbers.astype(np.uint32) << 16).view(np.float32))
    if all(other["dtype"] in kinds for name, other in header.items() if name != "__metadata__"):
        assert load(data)[source.details["tensor"]].tobytes() == numbers.tobytes()
    return Said(None, numbers.astype(np.float32))


def parquet_says(data: bytes, source: Source) -> Said:
    table = pq.read_table(io.BytesIO(data), columns=source.details["columns"], page_checksum_verification=True)
    names = source.details["columns"][source.has_words :]
    words = table[source.details["columns"][0]].cast(pa.binary()).to_pylist() if source.has_words else None
    rows = [table[name].to_pylist() for name in names]
    rows = rows[0] if pa.types.is_nested(table.schema.field(names[0]).type) else list(zip(*rows, strict=True))
    return Said(words, np.array(rows, np.float32).reshape(-1, source.dim))


SAYS: dict[str, Callable[[bytes, Source], Said]] = {
    "word2vec": text_says,
    "glove": text_says,
    "word2vec-binary": binary_says,
    "fasttext": fasttext_says,
    "fasttext-quantised": fasttext_says,
    "numpy": npy_says,
    "safetensors": safetensors_says,
    "parquet": parquet_says,
}


def says(data: bytes, word_list: bytes | None, source: Source) -> Said:
    """What a file says that was read as ``source``; any exception where it says nothing."""
    for kind in reversed((source.details.get("compression") or "").split(".")):
        data = UNPACK[kind](data, source.path.partition("::")[2]) if kind else data
    said = SAYS[source.format](data, source)
    if said.words is None and source.has_words:
        lines = (word_list[:-1] if word_list.endswith(b"\n") else word_list).split(b"\n") if word_list else []
        lines = [line.removesuffix(b"\r") for line in lines]
        counted = [re.fullmatch(rb"(.*[^ \t])[ \t]+[0-9]+", line, re.DOTALL) for line in lines]
        is_counted = source.details["words"].endswith(".vocab") and lines and all(counted)
        said.words = [found[1] for found in counted] if is_counted else lines
    return said


def placed(said: Said) -> dict[str, np.ndarray]:
    """What a table gets for the words that are asked for."""
    found = {}
    for word in ASKED:
        rows = [said.words.index(word.encode())] if word.encode() in said.words else []
        if said.ngrams is not None:
            min_n, max_n, buckets = said.ngrams
            hashes = [slow_hash(piece) % buckets for piece in slow_pieces(word, min_n, max_n)]
            hashes = [said.places[each] for each in hashes if each in said.places] if said.places else hashes
            rows += [len(said.words) + each for each in hashes]
        if rows:
            found[word] = said.rows[rows].astype(np.float64).mean(0)
    return found


# ---- mutations

PIECES = b'| |\t|\n|\r|\r\n|0|.|-|e|e9|e99|nan|-inf|1e39|\0|x|\xff|\xef\xbb\xbf| 7|\n\n|1e-9999|{|}|[|"|,'.split(b"|")
COUNTS = (0, 1, 2, 3, 5, 11, 13, 127, 1 << 16, 10**9, 1 << 31, 1 << 32, 1 << 62, 1 << 63, 10**18, 10**30)
INT32 = (0, 1, -1, 2, 3, 5, 100, 1 << 20, 2**31 - 1, -(2**31))
INT64 = (0, 1, -1, 4, 1 << 31, 1 << 40, 10**18, 2**63 - 1, -(2**63))
FLOATS = (float("nan"), float("inf"), float("-inf"), 3e38, -0.0, 1e-45)


def mutate(random: Random, content: bytes, spots: tuple[slice, ...]) -> bytes:
    """Change one to three places, most often those where most can go wrong."""
    data = bytearray(content)
    for _ in range(random.choice((1, 1, 1, 2, 3))):
        if not data:
            break
        spot = random.choice((*spots, slice(None), slice(None)))
        inside = range(len(data))[spot] or range(len(data))
        MUTATIONS[random.choice(list(MUTATIONS))](random, data, random.choice(inside), inside)
    return bytes(data)


def _put(data: bytearray, place: int, piece: bytes) -> None:
    data[place : place + len(piece)] = piece[: len(data) - place]


def _number(random: Random, data: bytearray, place: int, inside: range) -> None:
    """Let a number that is written out be another one."""
    found = list(re.finditer(rb"[0-9]+", bytes(data[inside.start : inside.stop])))
    if found:
        chosen = random.choice(found)
        lie = random.choice((*COUNTS, -1, int(chosen[0]) + 1, int(chosen[0]) - 1, int(chosen[0]) * 2))
        data[inside.start + chosen.start() : inside.start + chosen.end()] = str(lie).encode()


def _bit(random: Random, data: bytearray, place: int, inside: range) -> None:
    data[place] ^= 1 << random.randrange(8)


def _bits(random: Random, data: bytearray, place: int, inside: range) -> None:
    for _ in range(3):
        _bit(random, data, random.randrange(len(data)), inside)


def _cut(random: Random, data: bytearray, place: int, inside: range) -> None:
    del data[place:]


def _gone(random: Random, data: bytearray, place: int, inside: range) -> None:
    del data[place : place + random.choice((1, 2, 4, 8, 16, 100))]


def _twice(random: Random, data: bytearray, place: int, inside: range) -> None:
    data[place:place] = data[place : place + random.choice((1, 8, 20, 100))]


def _piece(random: Random, data: bytearray, place: int, inside: range) -> None:
    data[place : place + random.choice((0, 0, 1, 1, 5))] = random.choice(PIECES)


MUTATIONS: dict[str, Callable[[Random, bytearray, int, range], None]] = {
    "bit": _bit,
    "bits": _bits,
    "byte": lambda random, data, place, _: _put(data, place, random.randbytes(1)),
    "bytes": lambda random, data, place, _: _put(data, place, random.randbytes(8)),
    "cut": _cut,
    "gone": _gone,
    "twice": _twice,
    "more": lambda random, data, place, _: data.__setitem__(
        slice(place, place), random.randbytes(random.randrange(1, 20))
    ),
    "zeros": lambda random, data, place, _: _put(data, place, bytes(random.choice((1, 4, 8, 64)))),
    "ones": lambda random, data, place, _: _put(data, place, b"\xff" * random.choice((1, 4, 8))),
    "int32": lambda random, data, place, _: _put(data, place & -4, struct.pack("<i", random.choice(INT32))),
    "int64": lambda random, data, place, _: _put(data, place & -4, struct.pack("<q", random.choice(INT64))),
    "float": lambda random, data, place, _: _put(data, place & -4, struct.pack("<f", random.choice(FLOATS))),
    "number": _number,
    "piece": _piece,
    "behind": lambda random, data, place, _: data.extend(
        random.choice((b"\0", b"\n", b"x", bytes(data[:50]), bytes(600)))
    ),
}


@dataclass(frozen=True)
class Case:
    """A mutated file: how it was packed, its bytes, and the list of its words."""

    sample: Sample
    packed: str
    data: bytes
    words: bytes | None
    inner: bytes


def case(seed: int, chosen: dict[str, Sample]) -> tuple[str, Case]:
    """The mutated file of a seed, and the name of its sample; every one is packed in every way in turn."""
    random = Random(seed)
    name, packed = list(chosen)[seed % len(chosen)], list(PACK)[seed // len(chosen) % len(PACK)]
    if name.startswith("parquet") and random.random() < 0.8:  # which is refused if it is packed
        packed = "plain"
    sample, where = chosen[name], random.choice(("inside", "inside", "outside", "both", "words"))
    inner, words = sample.content, sample.words
    if where == "words" and words is not None:
        words = mutate(random, words, (slice(0, 20),))
    elif where in ("inside", "both", "words") or packed == "plain":
        inner = mutate(random, inner, sample.spots)
    data = PACK[packed](inner)
    if where in ("outside", "both") and packed != "plain":
        data = mutate(random, data, (slice(0, 64), slice(-64, None)))
    return name, Case(sample, packed, data, words, inner)


# ---- what we read


def memory(what: str) -> int:
    """Kilobytes, as the kernel says."""
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith(what))


def taken(source: Source) -> tuple[list[bytes] | None, np.ndarray]:
    """All words and rows; the blocks are held to what the contract says of them."""
    words, rows, after = list[bytes](), [np.empty((0, source.dim), np.float32)], 0
    for block in source.blocks():
        assert block.first == after and block.rows.dtype == np.float32 and block.rows.flags.c_contiguous
        assert block.rows.shape[1] == source.dim and np.isfinite(block.rows).all()
        if block.words is not None:
            block.words.validate(full=True)
            assert len(block.words) == len(block.rows) and len(words) == after
            words += block.words.to_pylist()
        after += len(block.rows)
        rows.append(block.rows)
    assert source.consumed <= source.size
    assert source.count in (None, len(words) if source.has_words else after)
    assert source.dictionary is None or source.dictionary.to_pylist() == words
    assert [word for part in source.words() for word in part.to_pylist()] == words
    return words if source.has_words else None, np.concatenate(rows)


# One of these is in every sentence: the place, or what in the file is wrong.
WHERE = re.compile(
    r"\b(lines?|bytes?|rows?|header|entry|member|columns?|tensor|shape|width|numbers of the type|wide|pruned|version|encrypted|"
    r"begins|empty|pickle|packed|archive|inside of|so many files|read as Parquet)\b"
)


def flaw(message: str, paths: list[str]) -> str | None:
    """What is wrong with the sentence by which a file is refused."""
    rest = message
    for path in paths:
        rest = rest.replace(path, "")
    if rest == message:
        return "it does not name the file"
    if not message.isprintable() or len(rest) > 700:
        return "it is not printable, or too long"
    if re.search(r"[.!?] +[A-Z]|\.$", re.sub(r"'.*'|as Parquet: .*; ", "", rest)):
        return "it is more than a sentence"
    return None if WHERE.search(rest) else "it does not tell where"


def same(left: np.ndarray, right: np.ndarray) -> bool:
    return left.shape == right.shape and left.tobytes() == right.tobytes()


def held(case: Case, path: Path, word_list: str | None) -> dict[str, Any]:
    """Open a mutated file, and hold what is read to what it says; whether it was read, why not, and what is wrong with that."""
    told: dict[str, Any] = {"read": False, "said": None, "wrong": None}
    start = perf_counter()
    try:
        source = open_source(str(path), word_list)
        words, rows = taken(source)
        told |= {"read": True, "format": source.format}
    except UserError as error:
        told |= {"said": str(error), "wrong": flaw(str(error), [str(path), str(word_list or path)])}
    told["seconds"] = perf_counter() - start
    said = None
    if told["read"]:
        try:
            said = says(case.data, case.words, source)
        except Exception as error:
            told["wrong"] = f"read, where another reader says {type(error).__name__}: {error}"[:300]
            return told
        if said.words != words or not same(rows, said.rows):
            told["wrong"] = f"other words or rows: {words}, {rows} and not {said.words}, {said.rows}"[:2000]
        told["wrong"] = told["wrong"] or _only_numbers(case, rows)
    told["wrong"] = told["wrong"] or _placed(case, said, path, word_list)
    return told


def _only_numbers(case: Case, rows: np.ndarray) -> str | None:
    """Hold rows of which numbers alone were changed to the bytes where they are."""
    sample = case.sample
    if sample.rows is None or len(case.inner) != len(sample.content) or case.data != PACK[case.packed](case.inner):
        return None
    start = sample.content.index(sample.rows.tobytes())
    end = start + sample.rows.nbytes
    numbers = case.inner[start:end]
    if case.inner[:start] + case.inner[end:] != sample.content[:start] + sample.content[end:]:
        return None
    return None if rows.tobytes() == numbers else "rows differ where no number was changed"


def _placed(case: Case, said: Said | None, path: Path, word_list: str | None) -> str | None:
    """Put a mutated file into a table; ``said`` is None where it was refused."""
    try:
        rows, given, _ = of_vocab(ASKED, open_source(str(path), word_list), dim=case.sample.dim)
    except UserError as error:
        flawed = flaw(str(error), [str(path), str(word_list or path)]) if said is None else None
        fits = said is not None and said.words is not None and said.rows.shape[1] == case.sample.dim
        return f"not placed: {error}" if fits else flawed and f"not placed: {flawed}: {error}"
    if said is None:
        return "placed, though refused" if given.any() else None
    wanted = placed(said)
    for word, row, is_given in zip(ASKED, rows, given, strict=True):
        near = 1e-5 * max(1.0, float(np.abs(said.rows).max(initial=0)))
        if is_given != (word in wanted) or not np.allclose(row, wanted.get(word, FIRST), atol=near, rtol=0):
            return f"{word} was placed as {row}, not {wanted.get(word)}"
    return None


def smaller_blocks(small: bool) -> None:
    """Let files of some hundred bytes have many blocks."""
    text.CHUNK = 1 << 10 if small else 1 << 22
    word2vec.CHUNK = 1 << 6 if small else 1 << 22
    array_source.BLOCK = 100 if small else 1 << 22
    fasttext.BLOCK, fasttext.CHUNK = (100, 64) if small else (1 << 22, 1 << 20)


def measured(act: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Return what an action tells, with the seconds and the megabytes that it took; a hang ends the process."""
    faulthandler.dump_traceback_later(HANG, exit=True)
    before = memory("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the peak is now what there is
    start = perf_counter()
    try:
        told = act()
    except Exception as error:
        told = {"read": False, "said": None, "wrong": f"{type(error).__name__}: {error}"[:500]}
    seconds, grown = perf_counter() - start, (memory("VmHWM") - before) >> 10
    faulthandler.cancel_dump_traceback_later()
    return {"seconds": seconds, "megabytes": grown} | told


def write_words(path: Path, words: bytes | None, packed: bool = False) -> str | None:
    """Write the words of an array beside it, and return where."""
    if words is None:
        return None
    beside = f"{path}.vocab" if b" 7" in words[:20] else f"{path}.words.txt"
    Path(beside).write_bytes(PACK["gz"](words) if packed else words)
    return beside


def hold(folder: Path, seed: int, chosen: dict[str, Sample]) -> dict[str, Any]:
    """Hold the mutated file of a seed to what it says."""
    (name, mutated), path = case(seed, chosen), folder / str(seed)
    smaller_blocks(seed % 3 == 0 and len(mutated.data) < 1 << 16)
    path.write_bytes(mutated.data)
    word_list = write_words(path, mutated.words, seed % 5 == 0)
    told = measured(lambda: held(mutated, path, word_list if seed % 2 else None))
    path.unlink()
    Path(word_list or path).unlink(missing_ok=True)
    return {"seed": seed, "sample": name, "packed": mutated.packed, **told}


def opened(path: str) -> dict[str, Any]:
    """Open a file and read it to its end, without keeping anything of it."""
    try:
        source, rows = open_source(path), 0
        for block in source.blocks():
            rows += len(block.rows)
        words = sum(map(len, source.words()))
    except UserError as error:
        return {"read": False, "said": str(error), "wrong": flaw(str(error), [path])}
    return {"read": True, "said": f"{rows} rows, {words} words", "wrong": None}


def real_samples(paths: tuple[str, ...]) -> dict[str, Sample]:
    return {Path(path).name: Sample(Path(path).read_bytes(), dim=open_source(path).dim) for path in paths}


def main(folder: str, first: str, last: str, *real: str) -> None:
    """Hold the mutated files of seeds, then open the files that are named on standard input."""
    here, chosen = Path(folder), real_samples(real) or SAMPLES
    for number, (name, sample) in enumerate(chosen.items()):  # compiles what there is to compile
        good = Case(sample, "plain", sample.content, sample.words, sample.content)
        path = here / f"good{number}"
        path.write_bytes(sample.content)
        told = held(good, path, write_words(path, sample.words))
        assert told["read"] and told["wrong"] is None, (name, told)
    for seed in range(int(first), int(last)):
        print(json.dumps(hold(here, seed, chosen)), flush=True)
    smaller_blocks(False)
    for line in sys.stdin:
        path = line.rstrip("\n")
        print(json.dumps({"path": path, **measured(partial(opened, path))}), flush=True)


def in_a_process(folder: Path, seeds: int, paths: Sequence[str] = (), real: Sequence[str] = ()) -> list[dict[str, Any]]:
    """Run this file as a program and return what it tells; an end before the last file is told with the file."""
    command = [sys.executable, __file__, str(folder), "0", str(seeds), *real]
    done = subprocess.run(command, input="".join(f"{path}\n" for path in paths), capture_output=True, text=True)
    told = [json.loads(line) for line in done.stdout.splitlines()]
    assert done.returncode == 0, f"ended with {done.returncode} at file {len(told)}: {done.stderr[-3000:]}"
    assert len(told) == seeds + len(paths)
    return told


if __name__ == "__main__":
    main(*sys.argv[1:])
