"""Who has which item: the catalogues of users and items, what is set aside, negatives, and how lists of items are judged. No torch."""

from bigembed.interactions.cases import Cases, cases
from bigembed.interactions.catalogue import Catalogue, catalogue_of, load, open_catalogue, save
from bigembed.interactions.known import Known, known
from bigembed.interactions.lists import ListFigures, by_decade
from bigembed.interactions.negatives import Sampler
from bigembed.interactions.splits import held_out

__all__ = [
    "Cases",
    "Catalogue",
    "Known",
    "ListFigures",
    "Sampler",
    "by_decade",
    "cases",
    "catalogue_of",
    "held_out",
    "known",
    "load",
    "open_catalogue",
    "save",
]
