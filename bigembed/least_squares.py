"""Alternating least squares of who has which item: the vectors of one side solved while those of the other stay, in turn.

The loss, of the vectors x of users and y of items (Hu, Koren & Volinsky 2008; in the form of Rendle, Krichene, Zhang & Koren 2022,
"Revisiting the Performance of iALS on Item Recommendation Benchmarks", all of whose L2 is scaled by frequency), is

    Σ seen pairs (x·y - 1)² + weight Σ all pairs (x·y)² + l2 Σ users (n_x + weight |items|) |x|² + l2 Σ items (n_y + weight |users|) |y|²

where n is how many of the other side a row has. Rows that have none are zeros, and count in neither sum.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numba
import numpy as np

from bigembed.arrays import in_threads
from bigembed.ragged import Ragged

STEPS = 3  # of conjugate gradients for a row, from what it is: in every sweep it goes on from there (Takács, Pilászy & Tikk 2011)
PIECES = 32  # whose products are made one by one and added in order, so that neither threads nor ranks change a bit
AT_ONCE = 32  # rows of a product that are gone through together: they stay in the innermost cache
PARTS = 8  # of the rows for each thread, so that one that was held up does not hold up the others
FAST = {"reassoc", "contract", "nsz", "arcp", "nnan", "ninf"}  # sums in any order: vector instructions

Exchange = Callable[[np.ndarray, list[int]], None]


@dataclass(frozen=True, slots=True)
class Side:
    """What the vectors of one side, the users or the items, are solved from.

    Attributes
    ----------
    seen : Ragged of int32
        Of every row the distinct rows of the other side that it has.
    strengths : ndarray, shape (rows,), float32
        What the square of each row's vector counts.
    """

    seen: Ragged
    strengths: np.ndarray


def both_sides(seen: Ragged, items: int, weight: float, l2: float) -> tuple[Side, Side]:
    """Return the side of the users and that of the items.

    Parameters
    ----------
    seen : Ragged
        Of every user the distinct codes of his items, ascending.
    items : int
        How many items there are.
    weight, l2 : float
        See the module; above 0.
    """
    offsets = np.zeros(items + 1, np.int64)
    _count(seen.values, offsets[1:])
    np.cumsum(offsets, out=offsets)
    users = np.empty(len(seen.values), np.int32)
    _turn(seen.values, seen.offsets, offsets[:-1].copy(), users)
    of_users, of_items = Ragged(seen.values.astype(np.int32), seen.offsets), Ragged(users, offsets)
    pairs = (of_users, of_items), (of_items, of_users)
    first, second = (
        Side(own, (l2 * (own.lengths + weight * np.count_nonzero(other.lengths))).astype(np.float32))
        for own, other in pairs
    )
    return first, second


def keep(array: np.ndarray, borders: list[int]) -> None:
    """Exchange nothing: there is one process, which made all of ``array``."""


def improve(
    rows: np.ndarray,
    others: np.ndarray,
    side: Side,
    weight: float,
    threads: int,
    rank: int = 0,
    world: int = 1,
    exchange: Exchange = keep,
) -> None:
    """Solve the vectors of one side, in place, while those of the other stay: half a sweep.

    Parameters
    ----------
    rows, others : ndarray, shapes (n, dim) and (m, dim), float32, C-contiguous
        The vectors of this side and of the other; zeros of those in ``others`` that have nothing.
    side : Side
        What ``rows`` are solved from.
    weight : float
        That of pairs that were not seen, as ``side`` was made with.
    threads : int
        Threads to use; the result does not depend on it.
    rank, world : int
        Which of the processes this is that share the work. All hold the same, and end with the same, bit for bit on any number.
    exchange : callable
        Called with an array and where the rows begin that each process made of it, with the end; it gives all of them to all.
    """
    products = _products(others, weight, threads, rank, world, exchange)
    offsets, dim = side.seen.offsets, rows.shape[1]
    shares = _even(offsets, dim, 0, len(rows), world)
    cuts = _even(offsets, dim, shares[rank], shares[rank + 1], PARTS * threads)

    def solve(part: int) -> None:
        _solve(rows, others, side.seen.values, offsets, products, side.strengths, cuts[part], cuts[part + 1])

    in_threads(solve, range(len(cuts) - 1), threads)
    exchange(rows, shares)


def _even(offsets: np.ndarray, dim: int, begin: int, end: int, parts: int) -> list[int]:
    """Return where parts of the rows begin that are about the same work, with the end."""
    work = offsets[begin : end + 1] + dim * np.arange(end - begin + 1)
    inner = np.searchsorted(work, np.linspace(work[0], work[-1], parts + 1)[1:-1])
    return [begin, *(begin + inner).tolist(), end]


def _products(
    vectors: np.ndarray, weight: float, threads: int, rank: int, world: int, exchange: Exchange
) -> np.ndarray:
    """Return weight Σ y y', shape (dim, dim), float32."""
    dim = vectors.shape[1]
    pieces = np.zeros((PIECES, dim, dim), np.float32)
    cuts = [len(vectors) * piece // PIECES for piece in range(PIECES + 1)]
    shares = [PIECES * each // world for each in range(world + 1)]
    own = range(shares[rank], shares[rank + 1])
    in_threads(lambda piece: _add_products(vectors, cuts[piece], cuts[piece + 1], pieces[piece]), own, threads)
    exchange(pieces, shares)
    upper = weight * pieces.sum(0, dtype=np.float64)
    return (upper + np.triu(upper, 1).T).astype(np.float32)


@numba.njit(nogil=True, cache=True)
def _count(items: np.ndarray, counts: np.ndarray) -> None:
    for i in range(len(items)):
        counts[items[i]] += 1


@numba.njit(nogil=True, cache=True)
def _turn(items: np.ndarray, offsets: np.ndarray, ends: np.ndarray, users: np.ndarray) -> None:
    """Write the users of every item, in order, from where ``ends`` says that they begin."""
    for user in range(len(offsets) - 1):
        for at in range(offsets[user], offsets[user + 1]):
            item = items[at]
            users[ends[item]] = user
            ends[item] += 1


@numba.njit(nogil=True, cache=True, fastmath=FAST)
def _add_products(vectors: np.ndarray, begin: int, end: int, out: np.ndarray) -> None:
    """Add y y' of some vectors to ``out``, above its diagonal and on it."""
    dim = vectors.shape[1]
    for first in range(begin, end, AT_ONCE):
        for j in range(dim):
            for row in range(first, min(first + AT_ONCE, end)):
                factor = vectors[row, j]
                for k in range(j, dim):
                    out[j, k] += factor * vectors[row, k]


@numba.njit(nogil=True, cache=True, fastmath=FAST)
def _solve(
    rows: np.ndarray,
    others: np.ndarray,
    values: np.ndarray,
    offsets: np.ndarray,
    products: np.ndarray,
    strengths: np.ndarray,
    begin: int,
    end: int,
) -> None:
    """Go some steps of conjugate gradients toward A x = Σ seen y, with A = products + Σ seen y y' + strength, for some rows."""
    dim = rows.shape[1]
    residual, direction, image = np.empty(dim, np.float32), np.empty(dim, np.float32), np.empty(dim, np.float32)
    for row in range(begin, end):
        x, own = rows[row], values[offsets[row] : offsets[row + 1]]
        if len(own) == 0:
            x[:] = 0
            continue
        _apply(products, strengths[row], others, own, x, np.float32(1), residual)  # A x - Σ y
        left = np.float32(0)
        for k in range(dim):
            residual[k] = -residual[k]
            direction[k] = residual[k]
            left += residual[k] * residual[k]
        for _ in range(STEPS):
            if left < np.float32(1e-20):
                break
            _apply(products, strengths[row], others, own, direction, np.float32(0), image)
            curve = np.float32(0)
            for k in range(dim):
                curve += direction[k] * image[k]
            step, before = left / curve, left
            left = np.float32(0)
            for k in range(dim):
                x[k] += step * direction[k]
                residual[k] -= step * image[k]
                left += residual[k] * residual[k]
            for k in range(dim):
                direction[k] = residual[k] + left / before * direction[k]


@numba.njit(nogil=True, cache=True, fastmath=FAST)
def _apply(
    products: np.ndarray,
    strength: np.float32,
    others: np.ndarray,
    own: np.ndarray,
    vector: np.ndarray,
    target: np.float32,
    out: np.ndarray,
) -> None:
    """Write A v - target Σ seen y: A in the form that needs no matrix of the row's own."""
    dim = len(vector)
    for k in range(dim):
        out[k] = strength * vector[k]
    for j in range(dim):
        factor = vector[j]
        for k in range(dim):
            out[k] += factor * products[j, k]
    for at in range(len(own)):
        other = others[own[at]]
        score = -target
        for k in range(dim):
            score += other[k] * vector[k]
        for k in range(dim):
            out[k] += score * other[k]
