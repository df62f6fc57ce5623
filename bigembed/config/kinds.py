"""One explicit dictionary per axis of the configuration: the name of a kind, and the dataclass of its options."""

from bigembed.config import schema

DATA = {"generated": schema.GeneratedData, "files": schema.FilesData}
TABLES = {"vocab": schema.VocabTable, "hashed": schema.HashedTable}
FEATURES = {"column": schema.FeatureConfig}
HEADS = {"bag": schema.BagHead}


def kind_of(options: object) -> str:
    """Return the name under which the class of ``options`` (of data, a table or a head) is known."""
    for kinds in (DATA, TABLES, HEADS):
        for name, options_class in kinds.items():
            if type(options) is options_class:
                return name
    raise KeyError(type(options).__name__)
