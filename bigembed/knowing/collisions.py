"""How many values share a row, by formula: n values are put into one of m places each, independently and evenly."""

import math


def expected(values: float, places: float) -> float:
    """Return the share of ``values`` that are in a place with another one: 1 - (1 - 1/m)^(n - 1)."""
    if values <= 1:
        return 0.0
    return 1.0 if places <= 1 else -math.expm1((values - 1) * math.log1p(-1 / places))


def places_for(values: float, rate: float) -> int:
    """Return how many places there must be that at most the share ``rate``, between 0 and 1, of ``values`` is with another one."""
    return 1 if values <= 1 else math.ceil(-1 / math.expm1(math.log1p(-rate) / (values - 1)))


def places_of_functions(rows: int, functions: int) -> float:
    """Return how many sets of rows k independent hash functions into one table give, as good as: they are added, in no order."""
    return float(rows) ** functions / math.factorial(functions)


def rows_of_functions(places: float, functions: int) -> int:
    """Return the rows with which k hash functions give that many sets of rows."""
    return math.ceil((places * math.factorial(functions)) ** (1 / functions))
