"""What a head gets: which columns of the pooled vectors are whose."""

from dataclasses import dataclass

from bigembed.config.schema import Of


@dataclass(frozen=True, slots=True)
class Layout:
    """The vectors of the features, as a head takes them.

    Attributes
    ----------
    features : dict of str to slice
        Of every pooled feature, its columns of the pooled vectors.
    numbers : dict of str to slice
        The same of the dense features, one column each; they come last.
    of, number_of : dict of str to Of
        Whose value each feature, sequences among them, and each dense feature is.
    sequences : dict of str to int
        Widths of the features that are sequences.
    """

    features: dict[str, slice]
    numbers: dict[str, slice]
    of: dict[str, Of]
    number_of: dict[str, Of]
    sequences: dict[str, int]

    @property
    def width(self) -> int:
        """Columns of the pooled vectors."""
        return max((columns.stop for columns in (*self.features.values(), *self.numbers.values())), default=0)
