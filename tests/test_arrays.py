"""Arrays on the disk, in blocks: what covers them, and rectangles of them by every way of reading and writing."""

import mmap
import os
import time
from typing import Any

import numpy as np
import pytest
import xxhash
from hypothesis import given
from hypothesis import strategies as st

from bigembed import run
from bigembed.arrays import ArrayFile, Bfloat16, Block, Damaged, covers, create, files, in_threads
from bigembed.vectors import WRITERS
from bigembed.vectors.blocks import Vectors


@st.composite
def tilings(draw: Any) -> tuple[tuple[int, int], list[Block]]:
    """A shape and blocks that cover it: cut again and again, in random order."""
    shape = draw(st.integers(1, 40)), draw(st.integers(1, 12))
    blocks = [(0, 0, *shape)]
    for _ in range(draw(st.integers(0, 6))):
        row, column, rows, columns = blocks.pop(draw(st.integers(0, len(blocks) - 1)))
        if draw(st.booleans()):
            cut = draw(st.integers(0, rows))
            blocks += [(row, column, cut, columns), (row + cut, column, rows - cut, columns)]
        else:
            cut = draw(st.integers(0, columns))
            blocks += [(row, column, rows, cut), (row, column + cut, rows, columns - cut)]
        blocks = [block for block in blocks if block[2] and block[3]]
    return shape, [Block(*block, "") for block in draw(st.permutations(blocks))]


def counted(shape: tuple[int, int], blocks: list[Block]) -> bool:
    """The same question, answered number by number."""
    seen = np.zeros(shape, int)
    for block in blocks:
        inside = 0 <= block.row <= shape[0] - block.rows and 0 <= block.column <= shape[1] - block.columns
        if not inside or block.rows < 1 or block.columns < 1:
            return False
        seen[block.row : block.row + block.rows, block.column : block.column + block.columns] += 1
    return bool((seen == 1).all())


@given(tilings())
def test_blocks_that_are_cut_out_of_an_array_cover_it(tiling):
    assert covers(*tiling)


@given(tilings(), st.data())
def test_blocks_cover_an_array_if_every_number_is_in_one(tiling, data):
    shape, blocks = tiling
    number = data.draw(st.integers(0, len(blocks) - 1))
    values = [blocks[number].row, blocks[number].column, blocks[number].rows, blocks[number].columns]
    values[data.draw(st.integers(0, 3))] += data.draw(st.integers(-2, 2))
    changed = [*blocks[:number], Block(*values, ""), *blocks[number + 1 :]]
    assert covers(shape, changed) == counted(shape, changed)
    assert covers(shape, [*blocks, blocks[number]]) is False
    assert covers(shape, blocks[:number] + blocks[number + 1 :]) is False


def test_lists_and_single_numbers_are_covered_too():
    assert covers((5,), [Block(0, 0, 3, 1, ""), Block(3, 0, 2, 1, "")]) and covers((), [Block(0, 0, 1, 1, "")])
    assert covers((0, 4), []) and not covers((1, 4), [])


def write_pieces(path: Any, shared: bool) -> np.ndarray:
    """Write an array by three pieces of columns, as three processes would."""
    array = np.random.default_rng(0).random((3001, 24), np.float32)
    entry = create(path, "float32", array.shape)
    with ArrayFile(path, entry, write=True, shared=shared) as file:
        for begin, end in ((0, 8), (8, 9), (9, 24)):
            part = np.ascontiguousarray(array[:, begin:end])
            for start in range(0, 3001, 1000):
                file.write(start, begin, part[start : start + 1000].view(np.uint8))
        file.sync()
    return array


def read_pieces(path: Any, array: np.ndarray) -> None:
    """Read pieces of columns, of rows, and of both, and compare them."""
    entry = create(path.with_name("other"), "float32", array.shape)  # the same file, as far as it is known before
    with ArrayFile.to_read(path, entry) as file:
        for row, column, rows, columns in ((0, 0, 3001, 24), (17, 5, 1234, 3), (3000, 23, 1, 1), (5, 0, 700, 24)):
            data = np.empty((rows, columns * 4), np.uint8)
            file.read(row, column, data)
            assert np.array_equal(data.view(np.float32), array[row : row + rows, column : column + columns])


@pytest.mark.parametrize("way", ["mapped", "on several hosts", "on an old kernel"])
def test_pieces_of_columns_are_written_and_read_by_every_way(tmp_path, monkeypatch, way):
    maps, pieces = [], []
    mapped, pwrite = mmap.mmap, os.pwrite
    monkeypatch.setattr(mmap, "mmap", lambda *a, **k: maps.append(1) or mapped(*a, **k))
    monkeypatch.setattr(os, "pwrite", lambda *a: pieces.append(1) or pwrite(*a))
    if way == "on an old kernel":
        monkeypatch.setattr(files, "POPULATE_READ", 9998)
        monkeypatch.setattr(files, "POPULATE_WRITE", 9999)
    array = write_pieces(tmp_path / "a.npy", shared=way == "on several hosts")
    assert np.array_equal(np.load(tmp_path / "a.npy"), array)
    # Two hosts must not map one page, and what is not mapped is written piece by piece.
    assert (len(maps), len(pieces)) == {
        "mapped": (12, 0),
        "on several hosts": (0, 9003),
        "on an old kernel": (12, 9003),
    }[way]
    read_pieces(tmp_path / "a.npy", array)


def test_a_file_that_shrinks_or_goes_while_it_is_read_is_damaged(tmp_path):
    array = write_pieces(tmp_path / "a.npy", shared=False)
    entry = create(tmp_path / "other", "float32", array.shape)
    block = Block(0, 0, *array.shape, xxhash.xxh3_64_hexdigest(array.tobytes()))
    with ArrayFile.to_read(tmp_path / "a.npy", entry) as file:
        file.verify(block)
        os.truncate(tmp_path / "a.npy", 5000)
        for wanted in (block, Block(0, 3, 3001, 5, "")):
            with pytest.raises(Damaged, match=r"a\.npy was cut while it was read; the checkpoint is damaged"):
                file.verify(wanted)
    with pytest.raises(Damaged, match="has 5,000 bytes instead of 288,2"):
        ArrayFile.to_read(tmp_path / "a.npy", entry)


def test_bfloat16_is_torchs():
    torch = pytest.importorskip("torch")
    bits = np.arange(1 << 16, dtype=np.uint16)
    expected = torch.from_numpy(bits).view(torch.bfloat16).float().numpy()
    found = Bfloat16(bits)
    assert np.array_equal(found[...], expected, equal_nan=True) and found.dtype == np.float32
    finite = np.isfinite(expected)
    assert np.array_equal(np.asarray(Bfloat16(bits[finite]), np.float64), expected[finite].astype(np.float64))
    with pytest.raises(ValueError):
        np.asarray(found, copy=False)


def test_vectors_of_bfloat16_are_exported_as_numbers(tmp_path):
    bits = np.arange(0, 1 << 14, 16, dtype=np.uint16).reshape(-1, 8)
    np.save(tmp_path / "table.npy", bits)
    table = run.read_array(tmp_path / "table.npy")
    for rows in (range(3, 70), np.array([9, 3])):
        content = b"".join(bytes(block) for block in WRITERS["numpy"](Vectors(table, rows, None)))
        (tmp_path / "out.npy").write_bytes(content)
        assert np.array_equal(np.load(tmp_path / "out.npy"), Bfloat16(bits)[...][rows])


@pytest.mark.parametrize("threads", [1, 3])
def test_the_first_error_of_a_thread_ends_the_work(threads):
    begun = []

    def work(item: int) -> int:
        begun.append(item)
        if item == 5:
            raise ValueError(item)
        time.sleep(0.001)  # else all is done before the error is looked at
        return item * 2

    assert in_threads(lambda item: item * 2, range(20), threads) == list(range(0, 40, 2))
    with pytest.raises(ValueError, match="5"):
        in_threads(work, range(20_000), threads)
    assert len(begun) < 20_000
