"""Vectors as text: word2vec's, fastText's .vec and GloVe's, real, odd, wrong and mutated."""

import gzip
import re
from fractions import Fraction
from functools import cache
from pathlib import Path
from random import Random

import gensim
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from bigembed.errors import UserError
from bigembed.vectors import WRITERS, Source, open_source, text
from bigembed.vectors.blocks import Vectors

ONCE = [HealthCheck.function_scoped_fixture]  # a file is written over
NUMBER = rb"[-+]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][-+]?[0-9]+)?"


def read(source: Source) -> tuple[list[bytes], np.ndarray]:
    """All words and rows; the blocks are held to what the contract says of them."""
    words, rows = list[bytes](), [np.empty((0, source.dim), np.float32)]
    for block in source.blocks():
        assert block.first == len(words)
        assert block.words is not None and len(block.words) == len(block.rows)
        assert block.rows.dtype == np.float32 and block.rows.flags.c_contiguous and block.rows.shape[1] == source.dim
        words += block.words.to_pylist()
        rows.append(block.rows)
    assert [word for part in source.words() for word in part.to_pylist()] == words
    assert source.consumed <= source.size
    assert source.count in (None, len(words))
    return words, np.concatenate(rows)


def read_bytes(folder: Path, data: bytes) -> tuple[str, list[bytes], np.ndarray]:
    (folder / "v").write_bytes(data)
    source = open_source(str(folder / "v"))
    return source.format, *read(source)


def refused(folder: Path, data: bytes) -> str:
    with pytest.raises(UserError) as told:
        read_bytes(folder, data)
    message = str(told.value)
    assert message.startswith(f"{folder}/v") and "\n" not in message
    return message.removeprefix(f"{folder}/v")


@cache
def nearest(number: str) -> np.float32:
    """The float32 nearest to a decimal number, the even one of two, by exact fractions."""
    exact = Fraction(number)
    middle = np.float32(float(exact))
    with np.errstate(over="ignore"):
        around = {float(np.nextafter(middle, np.float32(end))) for end in (-np.inf, np.inf)} | {float(middle)}
    finite = [np.float32(value) for value in around if np.isfinite(value)]
    value = min(finite, key=lambda value: (abs(Fraction(float(value)) - exact), int(value.view(np.uint32)) & 1))
    return np.float32(-0.0) if value == 0 and number.startswith("-") else value


def same_bits(left: np.ndarray, right: np.ndarray) -> bool:
    return np.array_equal(left.view(np.uint32), np.asarray(right, np.float32).view(np.uint32))


# ---- real files


def test_real_glove_files_give_their_values(data_dir: Path) -> None:
    folder = data_dir / "vectors"
    for path, format, shape, word, start in [
        ("gensim/test_glove.txt", "glove", (76, 50), b"the", [0.418, 0.24968, -0.41242, 0.1217, 0.34527]),
        ("torchtext/glove.840B.300d.zip", "glove", (100, 300), b",", [-0.082752, 0.67204, -0.14987, -0.064983]),
        ("allennlp/glove.6B.100d.sample.txt.gz", "glove", (100, 100), b"the", [-0.038194, -0.24487, 0.72812]),
        ("allennlp/glove.6B.300d.sample.txt.gz", "glove", (100, 300), b"the", [0.04656, 0.21318, -0.0074364]),
        ("glove-6B-50d-part/glove.6B.50d.part.txt", "glove", (2445, 50), b"the", [0.418, 0.24968, -0.41242]),
        ("finalfusion/similarity.nodims", "glove", (41, 100), b"Berlin", [1.4724287, -3.0660472, 1.2919313]),
        ("finalfusion/similarity.txt", "word2vec", (41, 100), b"Berlin", [1.4724287, -3.0660472, 1.2919313]),
        ("gensim/word2vec_pre_kv_c", "word2vec", (1750, 10), b"the", [-0.561106, -1.975698, 1.663955]),
        (
            "gensim/crime-and-punishment.vec",
            "word2vec",
            (291, 5),
            "и".encode(),
            [-0.11189, 0.12135, -0.11379, 0.024496],
        ),
        ("gensim/lee_fasttext.vec", "word2vec", (1762, 10), b"the", [-0.65992, 0.20966, 0.47362]),
        ("gensim/pang_lee_polarity_fasttext.vec", "word2vec", (1694, 100), b".", [-0.0073677, 0.0085351, -0.006796]),
        ("vecto/text/plain_with_file_header/emb.txt", "word2vec", (9, 4), b"the", [0.4, 0.3, 0.2, 0.1]),
        ("vecto/text/plain_no_file_header/emb.txt", "glove", (5, 4), b"the", [0.4, 0.3, 0.2, 0.1]),
    ]:
        source = open_source(str(folder / path))
        words, rows = read(source)
        assert (source.format, source.dim, rows.shape, words[0]) == (format, shape[1], shape, word), path
        assert same_bits(rows[0, : len(start)], np.float32(start)), path


def test_real_files_give_what_gensim_reads(data_dir: Path) -> None:
    folder = data_dir / "vectors" / "gensim"
    names = ["EN.1-10.cbow1_wind5_hs0_neg10_size300_smpl1e-05.txt", "toy-model.vec", "pang_lee_polarity_fasttext.vec"]
    for name in [*names, "high_precision.kv.txt", "w2v_keyedvectors_load_test.modeldata"]:
        words, rows = read(open_source(str(folder / name)))
        theirs = gensim.models.KeyedVectors.load_word2vec_format(str(folder / name), unicode_errors="replace")
        assert [word.decode("utf-8", "replace") for word in words] == theirs.index_to_key
        assert same_bits(rows, theirs.vectors)


def test_real_files_that_are_not_what_they_say_are_refused(data_dir: Path) -> None:
    folder = data_dir / "vectors"
    for path, match in [
        ("torchtext/wiki.en.vec", r"its first line says 2,519,370 rows, but there are 99: .*make that line '99 300'"),
        ("vecto/text/corrupted/emb.txt", r"emb.txt, line 2: has 3 numbers behind its word, not 4"),
        ("gensim/pretrained.vec", r"its first line says 3 rows, but there are 1: "),
        ("gensim/fb-ngrams.txt", r"fb-ngrams.txt, line \d+: has \d+ numbers behind its word, not \d+"),
        ("gensim/toy-data.txt", "as no known format does"),
        ("gensim/OPUS_en_it_europarl_train_one2ten.txt", "as no known format does"),
        ("gensim/compatible-hash-true.model", r"is a pickle .*save_word2vec_format"),
        ("finalfusion/similarity.fifu", r"is a file of finalfusion; convert it"),
        ("torchtext/SST-2.zip::train.tsv", "as no known format does"),
        ("googlenews-1000/wordvecs1000.js", "as no known format does"),
    ]:
        with pytest.raises(UserError, match=match):
            list(open_source(str(folder / path)).blocks())


def test_a_broken_character_stays_as_it_is_in_the_file(data_dir: Path) -> None:
    for name in ("utf8-incomplete.txt", "utf8-incomplete.dims"):
        words, rows = read(open_source(str(data_dir / "vectors" / "finalfusion" / name)))
        assert words == [b"meren", b"zee\xc3n", b"rivieren"]
        assert rows.tolist() == [[-1, 0, 1], [1, 0, -1], [0, -1, 1]]


# ---- numbers


DECIMALS = st.from_regex(r"[+-]?([0-9]{1,24}\.?[0-9]{0,24}|\.[0-9]{1,24})([eE][+-]?[0-9]{1,2})?", fullmatch=True)


@settings(max_examples=60, suppress_health_check=ONCE)
@given(st.lists(DECIMALS.filter(lambda number: abs(float(number)) < 3.4e38), min_size=3, max_size=12))
@example(["16777217", "16777217.00000000000000000000001", "16777216.99999999999999999999999", "16777219"])
@example(
    [
        "1.000000059604644775390625",
        "1.0000000596046447753906251",
        "1.0000000596046447753906249",
        "-16777217.0000000000001",
    ]
)
@example(["1e-45", "7e-46", "7.006492321624085e-46", "7.1e-46", "1.4e-45", "1.17549435e-38", "1.17549429e-38", "2e-40"])
@example(["3.4028235e38", "-3.4028235e38", "340282350000000000000000000000000000000", "0.00000000000000000001e58"])
@example(["0", "-0", "-0.0", "+0", "0e9", "1e-99", "-1e-70", "9999999999999999999e-71", "9e-71", "5.", ".5", "-1e-999"])
@example(["0.30000001192092896", "123456789012345678901234567890", "0." + "0" * 500 + "1", "1" + "0" * 30 + "e-30"])
def test_every_number_becomes_the_nearest_float32(tmp_path: Path, numbers: list[str]) -> None:
    _, words, rows = read_bytes(tmp_path, f"1 {len(numbers)}\nw {' '.join(numbers)}\n".encode())
    assert words == [b"w"]
    assert same_bits(rows[0], np.array([nearest(number) for number in numbers]))


def test_a_power_of_ten_that_no_one_can_write_out_takes_no_time(tmp_path: Path) -> None:
    _, _, rows = read_bytes(tmp_path, b"1 3\nw 0e99999999999999999999 1e-99999999999999999999 -1e-2147483649\n")
    assert same_bits(rows[0], np.array([0.0, 0.0, -0.0]))


@pytest.mark.parametrize("form", [".9g", ".17g", ".12f", "r"])
def test_every_float32_survives_its_text(tmp_path: Path, form: str) -> None:
    bits = np.random.default_rng(3).integers(0, 1 << 32, 4096).astype(np.uint32)
    rows = bits.view(np.float32)
    rows = rows[np.isfinite(rows)][:4000].reshape(40, 100)
    if form == ".12f":
        rows = (rows.view(np.uint32) % 2000001 - 1000000).astype(np.float32) / np.float32(1e6)
    write = str if form == "r" else lambda value: format(float(value), form)
    lines = "".join(f"w {' '.join(write(value) for value in row)}\n" for row in rows)
    assert same_bits(read_bytes(tmp_path, f"40 100\n{lines}".encode())[2], rows)


# ---- words and lines


def test_odd_words_are_what_they_are_in_the_file(tmp_path: Path) -> None:
    rows = [
        b". . .",
        b"at name@domain.com",
        b"5",
        b"\xff\xfe",
        "naïve\u00a0word".encode(),
        b"",
        b"nan",
        b"-1.5",
        b"a\x0bb\x01",
        b"a",
        b"a",
    ]
    lines = [b"%s %d.5 -0.25\n" % (word, number) for number, word in enumerate(rows)]
    expected = [[number + 0.5, -0.25] for number in range(len(rows))]
    for header, format in ((b"%d 2\n" % len(rows), "word2vec"), (b"", "glove")):
        assert read_bytes(tmp_path, header + b"".join(lines))[:2] == (format, rows)
        assert read_bytes(tmp_path, header + b"".join(lines))[2].tolist() == expected


@pytest.mark.parametrize("header", [b"2 3\n", b"", b"  2\t3 \r\n", b"\xef\xbb\xbf2 3\n", b"\xef\xbb\xbf"])
@pytest.mark.parametrize(
    "lines",
    [
        b"the 1 -2 3e0\nof +4 .5 6.\n",
        b"the 1 -2 3e0 \nof +4 .5 6. \n",
        b"the 1 -2 3E+0\r\nof 4 0.5 6\r\n",
        b"the\t1\t-2\t3\nof\t4\t5e-1\t6",
        b"the  1   -2 \t3\t \r\n of 4 .5 06",
    ],
)
def test_separators_and_line_ends_of_every_kind_are_read(tmp_path: Path, header: bytes, lines: bytes) -> None:
    format, words, rows = read_bytes(tmp_path, header + lines)
    assert (format, words, rows.tolist()) == (
        "word2vec" if b"2" in header else "glove",
        [b"the", b"of"],
        [[1, -2, 3], [4, 0.5, 6]],
    )


def test_files_without_rows_are_empty_and_not_wrong(tmp_path: Path) -> None:
    assert read_bytes(tmp_path, b"0 5\n")[:2] == ("word2vec", [])
    assert refused(tmp_path, b"") == ": is empty"


@pytest.mark.parametrize("size", [64, 65, 77, 128, 1000])
def test_blocks_of_any_size_give_the_same_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    random = np.random.default_rng(size)
    rows = random.normal(size=(500, 4)).astype(np.float32)
    words = [b"w" * int(random.integers(0, 9)) + b" x" * (row % 7 == 0) for row in range(500)]
    lines = [
        word + b"".join(b" %a" % float(value) for value in row) + (b"\r\n" if row[0] > 0 else b"\n")
        for word, row in zip(words, rows.round(2).astype(np.float32), strict=True)
    ]
    data = b"500 4\n" + b"".join(lines)
    monkeypatch.setattr(text, "CHUNK", max(size, 2 + max(map(len, lines))))
    _, ours, numbers = read_bytes(tmp_path, data)
    assert ours == [word.lstrip() for word in words]
    assert same_bits(numbers, rows.round(2))
    monkeypatch.setattr(text, "CHUNK", max(map(len, lines)) - 1)
    assert "so this is no text of vectors" in refused(tmp_path, data)


def test_the_first_rows_come_before_the_rest_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text, "CHUNK", 1 << 12)
    (tmp_path / "v").write_bytes(b"100000 2\n" + b"word 0.25 0.5\n" * 100_000)
    source = open_source(str(tmp_path / "v"))
    blocks = source.blocks()
    next(blocks)
    assert 0 < source.consumed < source.size / 4
    blocks.close()


# ---- what is refused


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"2 2\na 1 2\nb 1\n", ", line 3: has 1 numbers behind its word, not 2"),
        (b"2 2\na 1 2\nb 1 2 3\n", ", line 3: has 3 numbers behind its word, not 2"),
        (b"2 2\na 1 2\nb 1e99 2 3\n", ", line 3: has 3 numbers behind its word, not 2"),
        (b"2 2\na 1 2\n1 2\n", ", line 3: has 1 numbers behind its word, not 2"),
        (b"2 2\na 1 2\nb 1 x2\n", ", line 3: 'x2' is no number"),
        (b"2 2\na 1 2\nb 1,5 2\n", ", line 3: '1,5' is no number"),
        (b"2 2\na 1 2\nb 1_0 2\n", ", line 3: '1_0' is no number"),
        (b"2 2\na 1 2\nb 0x1 2\n", ", line 3: '0x1' is no number"),
        (b"2 2\na 1 2\nb 1e 2\n", ", line 3: '1e' is no number"),
        (b"2 2\na 1 2\nb 1 2\r \n", ", line 3: '2\\r' is no number"),
        (b"2 2\na 1 2\nb nan 2\n", ", line 3: 'nan' is no finite number as a float32"),
        (b"2 2\na 1 2\nb 1 -Inf\n", ", line 3: '-Inf' is no finite number as a float32"),
        (b"2 2\na 1 2\nb 1e39 2\n", ", line 3: '1e39' is no finite number as a float32"),
        (b"2 2\na 1 2\nb 3.4028236e38 2\n", ", line 3: '3.4028236e38' is no finite number as a float32"),
        (b"2 2\na 1 2\nb 3.4028235677973366e38 2\n", ", line 3: '3.4028235677973366e38' is no finite"),
        (b"2 2\na 1 2\nb 1e999999999999999999999 2\n", ", line 3: '1e999999999999999999999' is no finite"),
        (
            b"2 2\na 1 2\nb 0." + b"0" * 2000 + b"1 2\n",
            ", line 3: '0.00000000000000000000000000000000000000…' is no finite",
        ),
        (b"2 2\na 1 2\n\nb 1 2\n", ", line 3: is blank; delete it"),
        (b"2 2\na 1 2\nb 1 2\n\n", ", line 4: is one more than the 2 rows that the first line says; correct"),
        (b"1 2\na 1 2\nb 1 2\n", ", line 3: is one more than the 1 rows that the first line says; correct"),
        (b"0 2\na 1 2\n", ", line 2: is one more than the 0 rows"),
        (b"3 2\na 1 2\nb 1 2\n", ": its first line says 3 rows, but there are 2: it was cut short, so fetch it again"),
        (b"999999999999999 2\na 1 2\n", ": its first line says 999,999,999,999,999 rows, but there are 1: it was cut"),
        (b"2 999999999\na 1 2\n", ", line 1: says vectors of 999,999,999 numbers; 1 to 1,048,576 can be read"),
        (b"2 0\na\nb\n", ", line 1: says vectors of 0 numbers"),
        (b"2 3\na 1 2\nb 1 2\n", ", line 2: has 2 numbers behind its word, not 3"),
        (b"1000000000000000000 2\na 1 2\n", ", line 1: has 1 numbers behind its word, not 2"),
        (
            b"a 1 2\nb 1 2\nc 1",
            ", line 3: has 1 numbers behind its word, not 2; the file ends there, so it may be cut short",
        ),
        (b"a 1 2 3\nb 1 2 \n", ", line 2: has 2 numbers behind its word, not 3"),
        (b"a b\nc d\n", ": begins with b'a b\\nc d\\n', as no known format does"),
        (b"a 1\nb 2\n", ": begins with b'a 1\\nb 2\\n', as no known format does"),
        (b"a" * 5_000_000, ": begins with b'aaaaaaaaaaaaaaaaaaaaaaaa', as no known format does"),
        (b"9 9\n" + b"a" * 5_000_000, ": a line that goes on beyond byte 4,194,308 is longer than 4,194,304 bytes"),
        (b"<!DOCTYPE html><html>404</html>", ": is a page of the web and not the file itself"),
        (b"version https://git-lfs.github.com/spec/v1\n", ": is a pointer of Git LFS and not the file itself"),
        ("the 0.1 0.2\n".encode("utf-16"), ": is text in UTF-16; convert it to UTF-8"),
        (b"\x80\x04\x95\x10", ": is a pickle"),
        (b"\x89HDF\r\n\x1a\n", ": is a file of HDF5"),
        (b"\0" * 100, ": begins with b'"),
    ],
)
def test_what_is_wrong_is_told_with_its_line(tmp_path: Path, data: bytes, message: str) -> None:
    told = refused(tmp_path, data)
    assert told.startswith(message)
    (tmp_path / "v.gz").write_bytes(gzip.compress(data))
    with pytest.raises(UserError, match=re.escape(message.split(" beyond ")[0])):
        list(open_source(str(tmp_path / "v.gz")).blocks())


def test_the_line_is_told_of_a_block_far_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text, "CHUNK", 1 << 10)
    lines = [b"word 0.25 0.5\n"] * 5000
    lines[4321] = b"word 0.25\n"
    assert refused(tmp_path, b"".join(lines)).startswith(", line 4,322: has 1 numbers")
    assert refused(tmp_path, b"5000 2\n" + b"".join(lines)).startswith(", line 4,323: has 1 numbers")


def test_a_list_of_words_is_refused_by_a_file_that_has_its_own(tmp_path: Path) -> None:
    (tmp_path / "v").write_bytes(b"a 1 2\nb 3 4\n")
    with pytest.raises(UserError, match=r"is of the format glove, which has its own words; leave words\.txt away"):
        open_source(str(tmp_path / "v"), "words.txt")


# ---- any bytes


def expected(data: bytes, dim: int, count: int | None) -> tuple[list[bytes], list[list[np.float32]]] | None:
    """What the lines after the header hold, by one regular expression a line; None where any is wrong."""
    line_of = re.compile(rb"([ \t]*)(.*?)((?:[ \t]+%b){%d})[ \t]*\r?" % (NUMBER, dim), re.DOTALL)
    lines = data.split(b"\n")
    lines = lines if lines[-1] else lines[:-1]
    words, rows = [], []
    for line in lines:
        found = line_of.fullmatch(line)
        if found is None:
            return None
        ends = re.split(rb"[ \t]+", found[2])
        if re.fullmatch(NUMBER, ends[-1]) and (len(ends) > 1 or found[1]):
            return None
        row = [field.decode() for field in found[3].split()]
        if any(not abs(float(number)) < text.LARGEST for number in row):
            return None
        words.append(found[2])
        rows.append([nearest(number) for number in row])
    return None if count not in (None, len(lines)) else (words, rows)


def mutated(random: Random) -> tuple[bytes, int]:
    """Lines of text of some width, a few bytes of which have been changed."""
    dim, words = random.randint(2, 4), [b"the", b". .", b"\xff\xc3", b"5", b"x"]
    numbers = [b"0.25", b"-1", b"3e-2", b"16777217", b"-.125", b"1234.5678"]
    lines = [b" ".join([random.choice(words), *random.choices(numbers, k=dim)]) for _ in range(random.randint(9, 12))]
    data = bytearray(b"\n".join(lines) + b"\n" * random.randint(0, 1))
    pieces = b"| |\t|\n|\r|\r\n|0|.|-|e|e9|e99|nan|inf|\0|x|\xff| 7|\n\n".split(b"|")
    for _ in range(random.randint(1, 3)):
        place = random.randrange(len(data))
        data[place : place + random.choice([0, 0, 1, 1, 2, 9])] = random.choice(pieces)
    return bytes(data), dim


def hold_mutated(folder: Path, seed: int) -> bool:
    """Hold what is read of mutated lines to what a regular expression takes them for; return whether they could be read."""
    random = Random(seed)
    data, dim = mutated(random)
    header, count = random.random() < 0.5, data.count(b"\n") + (not data.endswith(b"\n"))
    said = count + random.choice([0, 0, 0, 0, 1, -1])
    hoped = expected(data, dim, said if header else None)
    try:
        _, words, rows = read_bytes(folder, (b"%d %d\n" % (said, dim) if header else b"") + data)
    except UserError as error:
        assert hoped is None, (seed, str(error))
        return False
    assert hoped is not None, seed
    assert words == hoped[0], seed
    assert same_bits(rows, np.array(hoped[1], np.float32)), seed
    return True


@settings(max_examples=120, suppress_health_check=ONCE)
@given(st.integers(0, 1 << 40))
def test_mutated_lines_are_read_right_or_refused(tmp_path: Path, seed: int) -> None:
    hold_mutated(tmp_path, seed)


@pytest.mark.slow
def test_ten_thousand_mutated_files_are_read_right_or_refused(tmp_path: Path) -> None:
    read = sum(hold_mutated(tmp_path, seed) for seed in range(10_000))
    assert 500 < read < 9000


@settings(max_examples=150, suppress_health_check=ONCE)
@given(data=st.data())
def test_any_bytes_are_read_or_refused(tmp_path: Path, data: st.DataObject) -> None:
    start = data.draw(
        st.sampled_from(
            [
                b"",
                b"3 2\n",
                b"99999999999999 3\n",
                b"1 1000000\n",
                b"\xef\xbb\xbf",
                b"a 1 2\nb 3 4\n",
                b"\x1f\x8b\x08",
                b"BZh9",
                b"PK\x03\x04",
            ]
        )
    )
    rest = data.draw(st.binary(max_size=200) | st.text("ab \t\r\n0123456789.-e", max_size=200).map(str.encode))
    try:
        _, _, rows = read_bytes(tmp_path, start + rest)
    except UserError as error:
        assert str(error).startswith(str(tmp_path)) and "\n" not in str(error)
        return
    assert np.isfinite(rows).all()


# ---- what we write


def test_glove_is_written_so_that_gensim_and_we_read_it(tmp_path: Path) -> None:
    rows = np.random.default_rng(0).normal(size=(300, 7)).astype(np.float32)
    words = [f"wörd{row}" for row in range(300)]
    data = b"".join(bytes(piece) for piece in WRITERS["glove"](Vectors(rows, range(300), pa.array(words))))
    assert data.startswith("wörd0 ".encode())
    format, ours, numbers = read_bytes(tmp_path, data)
    assert (format, ours) == ("glove", [word.encode() for word in words])
    assert same_bits(numbers, rows)
    theirs = gensim.models.KeyedVectors.load_word2vec_format(str(tmp_path / "v"), no_header=True)
    assert theirs.index_to_key == words
    assert same_bits(theirs.vectors, rows)
    with pytest.raises(UserError, match="stand for no words"):
        list(WRITERS["glove"](Vectors(rows, range(300), None)))


def test_a_last_line_without_an_end_is_kept_if_a_hand_may_have_written_it_and_else_left_out(tmp_path: Path) -> None:
    for lines, rows in ((100, 100), (20_000, 19_999)):
        path = tmp_path / f"{lines}.txt"
        path.write_text("\n".join(f"w{number} 0.5 0.25" for number in range(lines)))
        source = open_source(str(path))
        assert sum(len(block.rows) for block in source.blocks()) == sum(map(len, source.words())) == rows
        assert ("left out" in source.details) == (rows < lines)
