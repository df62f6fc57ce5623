"""The one 64-bit hash of words, n-grams and numbers, and random numbers that depend on a counter alone.

Tables and vocabularies are written with this hash, and rows are initialised by these numbers: both are part of the
file format. A change of any constant is a new ``NAME``, which loaders compare; the tests pin golden values. Kernels
elsewhere have these functions compiled into them, and numba's cache does not notice a change here: delete
``__pycache__`` then.
"""

import math
import os
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numba
import numpy as np
from llvmlite import ir
from numba.extending import intrinsic

NAME = "fnv1a64-mix-v1"

BASIS = np.uint64(0xCBF29CE484222325)
"""Where the hash of a string starts: FNV-1a's offset basis."""

_PRIME = np.uint64(0x100000001B3)
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
# splitmix64's finaliser, Stafford's variant 13: a flipped bit of the input flips each bit of the output half the time.
_MIX_1 = np.uint64(0xBF58476D1CE4E5B9)
_MIX_2 = np.uint64(0x94D049BB133111EB)
# Left and right part of an n-gram must not commute, so the left one is multiplied (by an odd number: nothing is lost).
_LEFT = np.uint64(0xD6E8FEB86659FD93)
_SIGN = np.uint64(0xA0761D6478BD642F)
# Four rounds make a Feistel network pseudo-random (Luby and Rackoff 1988); two more are margin for small halves.
_ROUNDS = 6
MASK = (1 << 64) - 1


def _upper_half_of_product(typing: Any, a: Any, b: Any) -> Any:
    """Multiply two uint64 and keep the upper 64 of the 128 bits."""

    def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        wide = ir.IntType(128)
        product = builder.mul(builder.zext(arguments[0], wide), builder.zext(arguments[1], wide))
        return builder.trunc(builder.lshr(product, ir.Constant(wide, 64)), ir.IntType(64))

    return numba.uint64(numba.uint64, numba.uint64), emit


_high_product: Any = intrinsic(_upper_half_of_product)


@numba.njit(nogil=True, cache=True)
def mix(x: np.uint64) -> np.uint64:
    """Return ``x`` stirred, so that each bit of it moves each bit of the result; one to one, and 0 stays 0."""
    x = (x ^ (x >> np.uint64(30))) * _MIX_1
    x = (x ^ (x >> np.uint64(27))) * _MIX_2
    return x ^ (x >> np.uint64(31))


@numba.njit(nogil=True, cache=True)
def feed(state: np.uint64, byte: np.uint64) -> np.uint64:
    """Return the state of a string's hash, at first ``BASIS``, after one more byte."""
    return (state ^ byte) * _PRIME


@numba.njit(nogil=True, cache=True)
def finish(state: np.uint64, salt: np.uint64) -> np.uint64:
    """Return the hash of a string from its state and ``mix(salt)``; never 0, which is free to mark empty slots."""
    return max(mix(state + salt), np.uint64(1))


@numba.njit(nogil=True, cache=True)
def combine(left: np.uint64, right: np.uint64) -> np.uint64:
    """Return the hash of an n-gram from those of all but its last word and of that word; the order matters."""
    return mix(left * _LEFT + right)


@numba.njit(nogil=True, cache=True)
def reduce(hashed: np.uint64, size: np.uint64) -> np.uint64:
    """Return a number in ``[0, size)`` from a hash: as far up as the hash is in its own range, without a division."""
    return _high_product(hashed, size)


@numba.njit(nogil=True, cache=True)
def split(hashed: np.uint64, size: np.uint64) -> tuple[np.uint64, np.uint64]:
    """Return ``reduce(hashed, size)`` and what the number of it leaves: a hash again, from which the next digit is taken."""
    return _high_product(hashed, size), hashed * size


@numba.njit(nogil=True, cache=True)
def nth_hash(hashed: np.uint64, number: np.uint64) -> np.uint64:
    """Return the hash of a value by function ``number``, from that by function 0: as good as independent of it."""
    return hashed if number == 0 else mix(hashed + number * _GOLDEN)


@numba.njit(nogil=True, cache=True)
def sign_of(hashed: np.uint64) -> np.int64:
    """Return 1 or -1 from a hash, as good as independent of the row that it is reduced to."""
    return 1 - 2 * np.int64(mix(hashed ^ _SIGN) & np.uint64(1))


def hash_bytes(values: np.ndarray, offsets: np.ndarray, salt: int = 0) -> np.ndarray:
    """Return the hash of each string of an Arrow layout.

    Parameters
    ----------
    values : ndarray, shape (bytes,), uint8
        The bytes of all strings.
    offsets : ndarray, shape (strings + 1,), int32 or int64
        String ``i`` is ``values[offsets[i]:offsets[i + 1]]``.
    salt : int
        Another salt gives another hash.

    Returns
    -------
    ndarray, shape (strings,), uint64
    """
    out = np.empty(len(offsets) - 1, np.uint64)
    _hash_bytes(values, offsets.astype(np.int64), np.uint64(salt & MASK), out)
    return out


def hash_string(text: str, salt: int = 0) -> int:
    """Return the hash of one string: that of its UTF-8 bytes."""
    values = np.frombuffer(text.encode(), np.uint8)
    return int(hash_bytes(values, np.array([0, len(values)]), salt)[0])


def hash_integers(values: np.ndarray, salt: int = 0) -> np.ndarray:
    """Return the hash (uint64) of each of ``values`` (int64); under one salt no two numbers share one."""
    out = np.empty(len(values), np.uint64)
    _hash_integers(values, np.uint64(salt & MASK), out)
    return out


def stream_of(name: str) -> int:
    """Return the stream of random numbers that belongs to a table of this name."""
    return hash_string(name)


def uniform(seed: int, stream: int, start: int, count: int) -> np.ndarray:
    """Return random numbers ``start`` to ``start + count`` of a stream.

    Returns
    -------
    ndarray, shape (count,), float64
        In ``[0, 1)``; each depends on the seed, the stream and its own number alone.
    """
    out = np.empty(count, np.float64)
    _uniform(out, np.uint64(seed & MASK), np.uint64(stream & MASK), np.uint64(start))
    return out


def fill_uniform(
    out: np.ndarray,
    seed: int,
    stream: int,
    row_start: int,
    col_start: int,
    width: int,
    low: float,
    high: float,
    threads: int | None = None,
) -> None:
    """Fill a part of a table with random numbers that depend on the seed, the stream and the place in the table alone.

    Parameters
    ----------
    out : ndarray, shape (rows, columns), float32, C-contiguous
        The part to fill.
    seed, stream : int
        Which random numbers; see ``stream_of``.
    row_start, col_start : int
        Where in the table the part begins.
    width : int
        Columns of the whole table.
    low, high : float
        The numbers lie in ``[low, high)``, on 2**24 equal steps.
    threads : int, optional
        Threads to use; by default one for every core this process may use.

    Raises
    ------
    ValueError
        ``out`` is of another type or layout, or does not fit into the table's columns.
    """
    if out.dtype != np.float32 or out.ndim != 2 or not out.flags.c_contiguous:
        raise ValueError(f"fill_uniform fills a C-contiguous float32 matrix, got {out.dtype} of shape {out.shape}")
    if not 0 <= col_start <= col_start + out.shape[1] <= width:
        raise ValueError(f"columns {col_start} to {col_start + out.shape[1]} do not lie in a table of width {width}")
    threads = threads or _cores()
    # Enough pieces that a thread that was held up does not hold up the others.
    pieces = max(1, min(len(out), 8 * threads, out.size >> 16))
    bounds = [len(out) * i // pieces for i in range(pieces + 1)]
    numbers = np.uint64(seed & MASK), np.uint64(stream & MASK)

    def fill(a: int, b: int) -> None:
        corner = np.uint64((row_start + a) * width + col_start)
        fill_block(out[a:b], *numbers, corner, np.uint64(width), float(low), float(high))

    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(fill, bounds[:-1], bounds[1:]))


def permuted(positions: np.ndarray, n: int, key: int) -> np.ndarray:
    """Return where a shuffle of ``range(n)`` sends each position, without storing the shuffle.

    Parameters
    ----------
    positions : ndarray, shape (count,), int64
        Each in ``[0, n)``.
    n : int
        Length of what is shuffled, in ``[1, 2**62]``.
    key : int
        Another key gives another shuffle.

    Returns
    -------
    ndarray, shape (count,), int64
        Each in ``[0, n)``; different positions go to different places.

    Raises
    ------
    ValueError
        ``n`` or a position is out of range.
    """
    if not 1 <= n <= 1 << 62:
        raise ValueError(f"permuted shuffles 1 to 2**62 positions, got n = {n}")
    out = np.empty(len(positions), np.int64)
    # Left and right half of the network: the smallest rectangle about square that holds n.
    left = math.isqrt(n - 1) + 1
    right = -(-n // left)
    if not _permute(positions, np.uint64(n), np.uint64(left), np.uint64(right), np.uint64(key & MASK), out):
        raise ValueError(f"positions must lie in [0, {n})")
    return out


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@numba.njit(nogil=True, cache=True)
def _hash_bytes(values: np.ndarray, offsets: np.ndarray, salt: np.uint64, out: np.ndarray) -> None:
    salt = mix(salt)
    for i in range(len(out)):
        state = BASIS
        for j in range(offsets[i], offsets[i + 1]):
            state = feed(state, np.uint64(values[j]))
        out[i] = finish(state, salt)


@numba.njit(nogil=True, cache=True)
def _hash_integers(values: np.ndarray, salt: np.uint64, out: np.ndarray) -> None:
    start = mix(salt) + _GOLDEN
    for i in range(len(out)):
        out[i] = mix(np.uint64(values[i]) + start)


@numba.njit(nogil=True, cache=True)
def _key(seed: np.uint64, stream: np.uint64) -> np.uint64:
    return mix(mix(seed + _GOLDEN) + stream)


@numba.njit(nogil=True, cache=True)
def _uniform(out: np.ndarray, seed: np.uint64, stream: np.uint64, start: np.uint64) -> None:
    key = _key(seed, stream)
    for i in range(len(out)):
        bits = mix(key + (start + np.uint64(i)) * _GOLDEN)
        out[i] = np.float64(bits >> np.uint64(11)) * 2.0**-53


@numba.njit(nogil=True, cache=True)
def fill_block(
    out: np.ndarray, seed: np.uint64, stream: np.uint64, corner: np.uint64, width: np.uint64, low: float, high: float
) -> None:
    """Fill rows of a table whose first number is number ``corner`` of the stream; see ``fill_uniform``."""
    key = _key(seed, stream)
    scale = np.float32((high - low) * 2.0**-24)
    base = np.float32(low)
    # Rounding may reach high itself, which does not belong to the interval.
    last = np.nextafter(np.float32(high), np.float32(low))
    for i in range(out.shape[0]):
        start = key + (corner + np.uint64(i) * width) * _GOLDEN
        for j in range(out.shape[1]):
            bits = mix(start + np.uint64(j) * _GOLDEN)
            out[i, j] = min(np.float32(np.uint32(bits >> np.uint64(40))) * scale + base, last)


@numba.njit(nogil=True, cache=True)
def _permute(
    positions: np.ndarray, n: np.uint64, left: np.uint64, right: np.uint64, key: np.uint64, out: np.ndarray
) -> bool:
    """Walk a Feistel network over ``left * right`` places until the place lies in range(n): rarely a second time."""
    keys = np.empty(_ROUNDS, np.uint64)
    for k in range(_ROUNDS):
        keys[k] = _key(key, np.uint64(k))
    for i in range(len(positions)):
        x = np.uint64(positions[i])
        if x >= n:
            return False
        while True:
            a = x // right
            b = x - a * right
            for k in range(0, _ROUNDS, 2):
                a += reduce(mix(b + keys[k]), left)
                if a >= left:
                    a -= left
                b += reduce(mix(a + keys[k + 1]), right)
                if b >= right:
                    b -= right
            x = a * right + b
            if x < n:
                break
        out[i] = np.int64(x)
    return True
