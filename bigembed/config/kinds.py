"""One explicit dictionary per axis of the configuration: the name of a kind, and the dataclass of its options."""

from bigembed.config import schema

DATA: dict[str, type[schema.DataConfig]] = {
    "generated": schema.GeneratedData,
    "clicks": schema.ClicksData,
    "files": schema.FilesData,
}
TABLES: dict[str, type[schema.TableConfig]] = {
    "vocab": schema.VocabTable,
    "hashed": schema.HashedTable,
    "ids": schema.IdsTable,
    "compositional": schema.CompositionalTable,
    "subword": schema.SubwordTable,
    "tokenizer": schema.TokenizerTable,
    "bucketized": schema.BucketizedTable,
    "mixed": schema.MixedTable,
    "managed": schema.ManagedTable,
}
FEATURES: dict[str, type[schema.FeatureConfig]] = {"column": schema.FeatureConfig}
NUMBERS: dict[str, type[schema.NumberConfig]] = {"column": schema.NumberConfig}
HEADS: dict[str, type[schema.HeadConfig]] = {
    "bag": schema.BagHead,
    "attention": schema.AttentionHead,
    "autoencoder": schema.AutoencoderHead,
    "dlrm": schema.DLRMHead,
    "dcnv2": schema.DCNv2Head,
    "deepfm": schema.DeepFMHead,
    "wide_deep": schema.WideDeepHead,
    "two_tower": schema.TwoTowerHead,
    "sasrec": schema.SASRecHead,
    "gru4rec": schema.GRU4RecHead,
    "history": schema.HistoryHead,
}


def kind_of(options: object) -> str:
    """Return the name under which the class of ``options`` (of data, a table or a head) is known."""
    for kinds in (DATA, TABLES, HEADS):
        for name, options_class in kinds.items():
            if type(options) is options_class:
                return name
    raise KeyError(type(options).__name__)
