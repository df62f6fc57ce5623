"""The typed options of a job: one dataclass per group, each option with its help text and its bounds.

Nothing here imports more than the standard library: this module is what ``bigembed --help`` and the page of options read.
"""

from dataclasses import dataclass, field
from enum import Enum
from typing import Any

MISSING = "???"  # OmegaConf's mark of an option that must be given


def option(
    default: Any,
    help: str,
    *,
    minimum: float | None = None,
    above: float | None = None,
    maximum: float | None = None,
    below: float | None = None,
    multiple: int | None = None,
) -> Any:
    """Declare an option: its default, what it does, and the bounds that ``check`` holds it to."""
    bounds = {"minimum": minimum, "above": above, "maximum": maximum, "below": below, "multiple": multiple}
    metadata = {"help": help, **{name: bound for name, bound in bounds.items() if bound is not None}}
    if callable(default):
        return field(default_factory=default, metadata=metadata)
    return field(default=default, metadata=metadata)


class Tokens(Enum):
    """How a text is cut into tokens."""

    words = "words"
    whitespace = "whitespace"
    regex = "regex"
    whole = "whole"


class Combine(Enum):
    """How a value's rows of several sub-tables become one vector."""

    add = "add"
    mult = "mult"
    concat = "concat"


class Algorithm(Enum):
    """How a tokenizer cuts words into pieces."""

    bpe = "bpe"
    wordpiece = "wordpiece"
    unigram = "unigram"


class Scheme(Enum):
    """Where the borders between the bins of a number come from."""

    quantiles = "quantiles"
    log = "log"
    given = "given"


class Policy(Enum):
    """Which value of a managed table gives up its row for a new one."""

    lfu = "lfu"
    lru = "lru"
    distance_lfu = "distance_lfu"


class Vocabulary(Enum):
    """Which words have a row of their own where a table starts from vectors."""

    data = "data"
    file = "file"
    intersection = "intersection"
    union = "union"


class Fallback(Enum):
    """What a word gets that is not in the file of vectors as it is."""

    case = "case"
    unicode = "unicode"
    digits = "digits"
    lemma = "lemma"
    piece = "piece"
    subwords = "subwords"
    mean = "mean"
    normal = "normal"
    zeros = "zeros"


class Join(Enum):
    """How several files of vectors become one start."""

    in_order = "in_order"
    concatenated = "concatenated"


class Mismatch(Enum):
    """What is done where vectors are not as wide as the table."""

    refuse = "refuse"
    project = "project"
    pad = "pad"


class Freeze(Enum):
    """Which rows stay as the file gave them."""

    none = "none"
    rows = "rows"
    table = "table"


class Of(Enum):
    """Whose value a feature is."""

    sample = "sample"
    user = "user"
    item = "item"


class Split(Enum):
    """Which interactions are set aside to be judged on."""

    rows = "rows"
    last = "last"
    one = "one"
    share = "share"
    time = "time"


class Candidates(Enum):
    """Among which items those of a test row are to be found."""

    all = "all"
    given = "given"
    sampled = "sampled"


class Unseen(Enum):
    """What a test row counts whose user or item was not in training."""

    miss = "miss"
    skip = "skip"


class RetrievalLoss(Enum):
    """What moves an item of a user away from the negatives."""

    softmax = "softmax"
    binary = "binary"
    bpr = "bpr"
    warp = "warp"


class Similarity(Enum):
    """How the vectors of a user and of an item become a score."""

    dot = "dot"
    cosine = "cosine"


class Sampling(Enum):
    """How negatives are drawn."""

    uniform = "uniform"
    popularity = "popularity"
    all = "all"


class RankingLoss(Enum):
    """What a label is: a click (binary) or a rating (squared)."""

    binary = "binary"
    squared = "squared"


class CrossNet(Enum):
    """How the cross layers of DCN-v2 stand to the deep ones."""

    stacked = "stacked"
    parallel = "parallel"


class Pooling(Enum):
    """How the rows of one bag become one vector."""

    mean = "mean"
    sum = "sum"
    none = "none"


class Kind(Enum):
    """How a table is laid over the ranks."""

    auto = "auto"
    table_wise = "table_wise"
    row_wise = "row_wise"
    column_wise = "column_wise"
    data_parallel = "data_parallel"
    table_row_wise = "table_row_wise"
    table_column_wise = "table_column_wise"
    grid = "grid"


class Kernel(Enum):
    """Where a shard lies and how it is updated."""

    auto = "auto"
    dense = "dense"
    fused = "fused"
    fused_uvm = "fused_uvm"
    fused_uvm_caching = "fused_uvm_caching"
    key_value = "key_value"


class DType(Enum):
    """The numbers of a table."""

    fp32 = "fp32"
    fp16 = "fp16"
    bf16 = "bf16"


class Rounding(Enum):
    """How an update of a table of fp16 or bf16 is rounded."""

    stochastic = "stochastic"
    nearest = "nearest"


class Precision(Enum):
    """The numbers that looked-up vectors, or their gradients, travel in between ranks."""

    fp32 = "fp32"
    fp16 = "fp16"
    bf16 = "bf16"
    int8 = "int8"


class Pipeline(Enum):
    """How the steps of several ranks overlap."""

    auto = "auto"
    none = "none"
    sparse_dist = "sparse_dist"
    prefetch = "prefetch"


class Format(Enum):
    """How data files are read."""

    auto = "auto"
    parquet = "parquet"
    csv = "csv"
    jsonl = "jsonl"
    datasets = "datasets"
    criteo = "criteo"
    movielens = "movielens"
    ncf = "ncf"
    user_items = "user_items"


class TableOptimizer(Enum):
    """The optimizers that FBGEMM fuses into the backward pass on every device."""

    rowwise_adagrad = "rowwise_adagrad"
    adagrad = "adagrad"
    sgd = "sgd"


class DenseOptimizer(Enum):
    """The optimizers of the dense parameters, from ``torch.optim``."""

    adagrad = "adagrad"
    adam = "adam"
    sgd = "sgd"


class Schedule(Enum):
    """How the learning rates move over the run, after the warm-up."""

    constant = "constant"
    linear = "linear"
    cosine = "cosine"


class Which(Enum):
    """Which checkpoint of a run."""

    best = "best"
    last = "last"


class Device(Enum):
    """Where the tables and the head lie."""

    auto = "auto"
    cpu = "cpu"
    cuda = "cuda"


@dataclass(slots=True)
class DataConfig:
    """What all kinds of data have in common."""

    validation_fraction: float = option(
        0.1,
        "Part of the training rows set aside for every choice made, drawn by the seed; unused where data.validation names a part.",
        minimum=0.0,
        below=1.0,
    )
    cache_mib: int = option(
        256,
        "Encoded training data up to this size (MiB) stays in memory; larger data is encoded anew in every epoch.",
        minimum=0,
    )


@dataclass(slots=True)
class GeneratedData(DataConfig):
    """Reviews made by a seeded generator: no files, no network, and a best accuracy that is known."""

    rows: int = option(40_000, "Training reviews to make.", minimum=1, maximum=100_000_000)
    test_rows: int = option(10_000, "Test reviews to make.", minimum=1, maximum=100_000_000)
    vocabulary: int = option(50_000, "Distinct words; their frequencies follow Zipf's law.", minimum=100)
    seed: int = option(0, "Seed of the generator, apart from the seed of the training.", minimum=0)


@dataclass(slots=True)
class ClicksData(DataConfig):
    """Clicks made by a seeded generator: any number of columns of Zipf ids and of numbers, and a best AUC that is known."""

    rows: int = option(200_000, "Training rows to make.", minimum=1, maximum=10_000_000_000)
    test_rows: int = option(50_000, "Test rows to make.", minimum=1, maximum=1_000_000_000)
    columns: int = option(8, "Columns of ids: id0, id1, … (whole numbers).", minimum=1, maximum=10_000)
    ids: int = option(1000, "Different ids of each column, from 0 on.", minimum=1, maximum=2**40)
    numbers: int = option(4, "Columns of numbers: number0, number1 and so on.", minimum=0, maximum=10_000)
    exponent: float = option(1.05, "Of Zipf's law, by which ids come.", minimum=0.0, maximum=10.0)
    seed: int = option(0, "Seed of the generator, apart from the seed of the training.", minimum=0)
    in_memory_mib: int = option(
        1024, "Parts larger than this (MiB) are written once to an Arrow file in work_dir and memory-mapped.", minimum=0
    )
    work_dir: str | None = option(None, "Where such files lie; null: bigembed's folder in the user's cache.")


@dataclass(slots=True)
class FilesData(DataConfig):
    """Rows from Parquet, CSV, JSON lines or saved `datasets` folders, or from the Hugging Face Hub."""

    path: str | None = option(
        None,
        "Folder that holds the parts named below, or one file, which is one part (set test=null to train on it). "
        "Null: the parts are paths themselves, or come from the Hub.",
    )
    hub: str | None = option(
        None, "Data set of the Hugging Face Hub to load where no path is given, e.g. stanfordnlp/imdb."
    )
    format: Format = option(Format.auto, "How the files are read; auto goes by the ending of the name.")
    train: str = option(
        "train", "Training part: a name (train finds train.parquet, train-*.parquet, train/ …), a file, or a pattern."
    )
    validation: str | None = option(None, "Validation part, like train; null splits it off the training part.")
    test: str | None = option("test", "Test part, like train, looked at once, at the end; null for none.")
    users: str | None = option(
        None, "A row for every user, like train: what features of=user read; interactions.user names the user."
    )
    items: str | None = option(
        None, "A row for every item, like train: what features of=item read; interactions.item names the item."
    )
    negatives: str | None = option(
        None, "The given negatives of every test row, like train: a column of lists of items, interactions.negatives."
    )
    in_memory_mib: int = option(
        1024,
        "Files larger than this (MiB, decoded) are converted once to an Arrow file in work_dir and memory-mapped.",
        minimum=0,
    )
    work_dir: str | None = option(None, "Where converted files lie; null: bigembed's folder in the user's cache.")


@dataclass(slots=True)
class TableShardingConfig:
    """How one table is laid over the ranks; what is null is as ``sharding`` says for all tables."""

    kind: Kind | None = option(None, "As sharding.kind, for this table; null: as all tables.")
    kernel: Kernel | None = option(None, "As sharding.kernel, for this table; null: as all tables.")
    min_partition: int | None = option(
        None, "As sharding.min_partition, for this table; null: as all tables.", minimum=4, multiple=4
    )
    pooling_factor: float | None = option(
        None,
        "Ids that one sample brings on average, by which the planner tells the cost; null: 1 where nothing is known.",
        above=0.0,
    )
    cache_load_factor: float | None = option(
        None, "As sharding.cache_load_factor, for this table; null: as all tables.", above=0.0, maximum=1.0
    )


@dataclass(slots=True)
class PretrainedConfig:
    """Vectors that a table starts from, instead of random rows."""

    path: str | None = option(
        None,
        "File of vectors, its format told by its content: word2vec (text, binary), GloVe, fastText (.vec, .bin, .ftz), .npy, safetensors, "
        "Parquet, as it is or compressed; a member of an archive is ARCHIVE::MEMBER; or a run folder. Null: none.",
    )
    others: list[str] = option(list, "Further files, for words that are not in the first, or side by side: join.")
    join: Join = option(
        Join.in_order,
        "in_order: a word has the vector of the first file that knows it; concatenated: of every file, side by side.",
    )
    word_list: str | None = option(
        None, "The words of a .npy or safetensors file, one a line; null: FILE.words.txt, or .vocab or .txt beside it."
    )
    table: str | None = option(None, "Table of the run that path names; null: the one of this name, or the only one.")
    vocabulary: Vocabulary = option(
        Vocabulary.data,
        "Words that have rows: the data's, the file's (all of them, known to the data or not), those in both, or in either.",
    )
    fallback: list[Fallback] = option(
        lambda: [Fallback.subwords],
        "For words that the file does not have, in order: case (another case), unicode (another form: NFC, NFKC, without accents), "
        "digits (each as 0 or #), lemma, piece (a tokenizer's, without the mark Ġ or ▁ of a space before it), subwords (put together of "
        "n-grams, where the file has them), mean (of the file), normal (drawn with its mean and deviation), zeros. What is left starts as "
        "the seed says.",
    )
    lemmas: str | None = option(None, "For the fall-back lemma: a file of lines 'word lemma'.")
    dimension: Mismatch = option(
        Mismatch.refuse,
        "Vectors of another width than dim: refuse; project (principal components of the file) to fewer; pad with zeros to more.",
    )
    normalise: bool = option(False, "Scale vectors to length 1, after all else.")
    centre: bool = option(False, "Subtract the mean of the file's vectors.")
    remove_components: int = option(
        0,
        "Take out of the vectors, centred, this many first principal components of the file (Mu & Viswanath 2018).",
        minimum=0,
        maximum=1000,
    )
    freeze: Freeze = option(
        Freeze.none, "none: all rows train; rows: those that have a vector of the file do not; table: none does."
    )
    freeze_steps: int | None = option(None, "Steps after which what is frozen trains too; null: never.", minimum=1)
    pull: float = option(
        0.0,
        "Pulls the rows back to where they started: each step by the share learning rate × pull (L2 to the initial value, decoupled), "
        "every 16 steps at once. The start is kept beside the table.",
        minimum=0.0,
        maximum=1e6,
    )


@dataclass(slots=True)
class TableConfig:
    """What all kinds of tables have in common."""

    dim: int = option(16, "Width of a row; FBGEMM asks for a multiple of 4.", minimum=4, maximum=65_536, multiple=4)
    init_range: float | None = option(
        None, "Rows start uniform in [-init_range, init_range]; null: 1 / dim (fastText's).", above=0.0
    )
    dtype: DType = option(DType.fp32, "Numbers of the table: fp32, fp16, or (on CUDA) bf16.")
    rounding: Rounding = option(
        Rounding.stochastic,
        "How updates of fp16 and bf16 tables are rounded; CPUs know only nearest, which loses updates below half a unit.",
    )
    lr: float | None = option(
        None,
        "Learning rate of this table at the height of the schedule; null: optim.tables.lr.",
        minimum=0.0,
        maximum=1e38,
    )
    pretrained: PretrainedConfig = option(PretrainedConfig, "Vectors that the table starts from.")
    sharding: TableShardingConfig = option(TableShardingConfig, "How the table is laid over the ranks.")


@dataclass(slots=True)
class TextTable(TableConfig):
    """A table whose rows stand for the tokens of a text, or for values: texts taken whole, whole numbers, lists of either."""

    tokens: Tokens = option(
        Tokens.words,
        "How texts are cut. words: words and punctuation, by Unicode; whitespace; regex: every match of pattern (slower); "
        "whole: a text is one value. Whole numbers, and lists, are values as they are.",
    )
    pattern: str | None = option(
        None, "The regular expression (Python's) whose matches are the tokens; for tokens=regex."
    )
    lower: bool | None = option(
        None, "Lower-case the text first (Unicode's simple mapping); null: where texts are cut, not those taken whole."
    )
    ngrams: int = option(
        1, "Also use runs of 2 to this many tokens, hashed; conf/table/*.yaml set 2.", minimum=1, maximum=8
    )
    distinct: bool = option(
        False, "Use each row at most once in a text, however often its word occurs: a binary bag of words."
    )


@dataclass(slots=True)
class VocabTable(TextTable):
    """Row 0 for unknown words, one row a word of the training data, then the buckets of the hashed n-grams."""

    min_count: int = option(1, "Words seen less often in the training data are unknown.", minimum=1)
    max_size: int | None = option(
        None, "Keep at most this many words, the most frequent ones.", minimum=1, maximum=2**31
    )
    buckets: int = option(
        1_000_000,
        "Rows that n-grams are hashed into; needed when ngrams > 1, otherwise there are none.",
        minimum=1,
        maximum=2**40,
    )


@dataclass(slots=True)
class HashedTable(TextTable):
    """Every word and n-gram is hashed into one of the rows: no vocabulary, no first pass over the data."""

    buckets: int = option(1_000_000, "Rows of the table.", minimum=1, maximum=2**40)
    salt: int = option(0, "Another salt gives another, independent hash.", minimum=0, below=2**63)
    functions: int = option(
        1, "Hash functions: every value has this many rows of the table, which are added up.", minimum=1, maximum=8
    )
    sign: bool = option(
        False,
        "Half of the values, by another hash, count negative, so that collisions cancel out (Weinberger et al. 2009).",
    )
    importance: int | None = option(
        None,
        "Rows of a second table of learned weights, with which the rows of the functions are added up (Svenstrup et al. 2017); "
        "null: they count the same.",
        minimum=1,
        maximum=2**40,
    )


@dataclass(slots=True)
class CompositionalTable(TextTable):
    """A row of each of several small tables for every value, by the digits of its hash (quotient-remainder; Shi et al. 2019)."""

    partitions: list[int] = option(
        lambda: [1024, 1024],
        "Rows of each sub-table; their product is the number of vectors that can be told apart.",
        minimum=1,
        maximum=2**40,
    )
    combine: Combine = option(
        Combine.mult,
        "add: the rows are added; mult: multiplied, entry by entry; concat: put side by side, each dim / sub-tables wide.",
    )
    values: int | None = option(
        None,
        "The data's whole numbers are 0 … values - 1 and are taken as they are, so that no two have all their rows in common; "
        "null: values are hashed.",
        minimum=1,
        maximum=2**62,
    )
    salt: int = option(0, "Another salt gives another, independent hash.", minimum=0, below=2**63)


@dataclass(slots=True)
class SubwordTable(TextTable):
    """fastText's table: a row for every frequent word, and hashed rows for the character n-grams that words are made of."""

    min_count: int = option(1, "Words seen less often have no row of their own, only their n-grams.", minimum=1)
    max_size: int | None = option(
        None, "Keep at most this many words, the most frequent ones.", minimum=1, maximum=2**31
    )
    min_n: int = option(3, "Characters of the shortest n-grams.", minimum=1, maximum=16)
    max_n: int = option(6, "Characters of the longest n-grams.", minimum=1, maximum=16)
    buckets: int = option(
        2_000_000, "Rows that n-grams, of characters and of words, are hashed into.", minimum=1, maximum=2**31
    )


@dataclass(slots=True)
class TokenizerTable(TableConfig):
    """A row for every piece of a tokenizer of the tokenizers library, trained on the data or read from a file."""

    path: str | None = option(None, "tokenizer.json to use; null: one is trained on the training rows.")
    algorithm: Algorithm = option(
        Algorithm.bpe, "What is trained: bpe (of bytes), wordpiece or unigram. Unused where path names a file."
    )
    vocab_size: int = option(
        30_000,
        "Pieces of the trained tokenizer, at most; wordpiece and unigram need one for each different character. "
        "Unused where path names a file.",
        minimum=300,
        maximum=10_000_000,
    )
    min_frequency: int = option(
        2, "Pairs and words seen less often make no piece (bpe, wordpiece). Unused where path names a file.", minimum=1
    )
    lower: bool = option(
        False, "Lower-case the text first; wordpiece takes accents off as well. Unused where path names a file."
    )


@dataclass(slots=True)
class BucketizedTable(TableConfig):
    """A row for every interval of a number, and row 0 where there is none."""

    scheme: Scheme = option(
        Scheme.quantiles,
        "quantiles of the training rows; log: equal steps of sign(x) log(1 + |x|) between the least and the greatest of them; "
        "given: the borders below.",
    )
    bins: int = option(64, "Intervals, for quantiles and log.", minimum=2, maximum=1_000_000)
    borders: list[float] = option(
        list,
        "For given: where one interval ends and the next begins, in ascending order.",
        minimum=-1e308,
        maximum=1e308,
    )


@dataclass(slots=True)
class MixedTable(VocabTable):
    """A vocabulary whose frequent words have wide rows, and rare ones narrow rows with a projection (Ginart et al. 2019)."""

    widths: list[int] = option(
        lambda: [16, 8, 4],
        "Width of each block's rows, from the most frequent words on.",
        minimum=4,
        maximum=65_536,
        multiple=4,
    )
    blocks: list[int] = option(
        lambda: [10_000, 100_000],
        "Words of each block but the last, which has all others, the unknown ones and the n-grams.",
        minimum=1,
        maximum=2**31,
    )


@dataclass(slots=True)
class ManagedTable(TextTable):
    """A bounded table without collisions: values that matter have a row of their own, for which others give up theirs."""

    rows: int = option(
        1_000_000,
        "Rows; rounded up by at most 6 % so that ranks can share them. Of every 32, one is for the values that have none of their own.",
        minimum=32,
        maximum=2**40,
    )
    policy: Policy = option(
        Policy.lfu, "Who gives up a row: the least frequent (lfu), the longest unseen (lru), or by both (distance_lfu)."
    )
    decay: float = option(
        1.0,
        "For distance_lfu: a value scores its count / (steps since it was seen + 1)^decay.",
        above=0.0,
        maximum=100.0,
    )
    min_count: int = option(
        1,
        "A value gets a row once it was seen this often, as far as that is remembered while it waits.",
        minimum=1,
        maximum=2**31,
    )
    salt: int = option(0, "Another salt gives another, independent hash.", minimum=0, below=2**63)


@dataclass(slots=True)
class IdsTable(TableConfig):
    """The data names the rows: a column of whole numbers, or of lists of them, which are row ids already."""

    rows: int = option(1_000_000, "Rows of the table; the ids are 0 … rows - 1.", minimum=1, maximum=2**40)


@dataclass(slots=True)
class FeatureConfig:
    """A column of the data, looked up in a table."""

    table: str = option("text", "Table that the values are looked up in.")
    column: str = option("text", "Column of the data.")
    crossed_with: list[str] = option(
        list, "Columns whose values are hashed together with this one's: every combination is one value."
    )
    weights: str | None = option(
        None,
        "Column of weights, one for each value of the other; a mean is then divided by their sum. Null: all are 1.",
    )
    pooling: Pooling = option(Pooling.mean, "How the rows of one sample become one vector; none: they stay a sequence.")
    of: Of = option(
        Of.sample,
        "Whose value it is: sample (the column is one of the data's parts), user or item (one of data.users or data.items, or the "
        "column of the ids themselves, interactions.user or interactions.item).",
    )
    of_another: bool = option(
        False,
        "Take the values of another row, the next one of the same batch: what head=autoencoder tells a row's own from.",
    )


@dataclass(slots=True)
class NumberConfig:
    """A column of numbers that goes to the head as it is; missing ones count as the mean."""

    column: str = option(MISSING, "Column of the data.")
    log: bool = option(False, "Take sign(x) log(1 + |x|) of it.")
    standardise: bool = option(True, "Subtract the mean of the training rows and divide by their standard deviation.")
    of: Of = option(Of.sample, "Whose value it is, as for features.")


@dataclass(slots=True)
class HeadConfig:
    """What all heads have in common."""


@dataclass(slots=True)
class BagHead(HeadConfig):
    """fastText's classifier: the pooled vectors, side by side, through a linear layer."""

    label: str = option("label", "Column of the labels.")
    classes: int = option(2, "Number of classes; labels are 0 … classes - 1.", minimum=2, maximum=1_000_000)
    hidden: list[int] = option(
        list,
        "Widths of hidden layers (ReLU) between the pooled vectors and the classes, e.g. [64].",
        minimum=1,
        maximum=1_000_000,
    )
    dropout: float = option(
        0.0,
        "Share of the entries of the pooled vectors and of hidden layers that is dropped in training.",
        minimum=0.0,
        below=1.0,
    )


@dataclass(slots=True)
class AttentionHead(BagHead):
    """Sequences pooled by a learned attention (Yang et al. 2016), beside what is pooled already, then the bag's linear layers."""

    attention: int = option(64, "Width of the layer that scores the tokens.", minimum=1, maximum=65_536)


@dataclass(slots=True)
class AutoencoderHead(HeadConfig):
    """A denoising autoencoder of sequences whose table is encoder and decoder at once; it needs no labels."""

    feature: str = option("text", "The sequence (pooling=none) that is told from what is left of it.")
    another: str = option(
        "another", "The sequence of the same table, of_another=true, that the first one is to be told from."
    )
    corruption: float = option(
        0.5, "Share of a sequence's elements that is hidden, to be told from the others.", above=0.0, below=1.0
    )


@dataclass(slots=True)
class RankingHead(HeadConfig):
    """Scores a row: the probability of a click, or a rating; one label or several at once."""

    labels: list[str] = option(lambda: ["label"], "Columns of the labels.")
    losses: list[RankingLoss] = option(
        lambda: [RankingLoss.binary],
        "One for all labels, or one for each: binary (0 or 1; cross entropy) or squared (a rating; squared error).",
    )
    label_weights: list[float] = option(
        list, "What each label's loss counts; none given: all the same, 1.", minimum=0.0, maximum=1e6
    )
    group: str | None = option(
        None, "Column of groups (users), within which AUC is computed as well (gauc); null: none."
    )
    hidden: list[int] = option(
        lambda: [256, 128],
        "Widths of the hidden layers (ReLU) of the deep part that all labels share.",
        minimum=1,
        maximum=65_536,
    )
    towers: list[int] = option(list, "Widths of further hidden layers of each label's own.", minimum=1, maximum=65_536)
    experts: int = option(
        0,
        "Multi-gate mixture of experts (Ma et al. 2018): so many deep parts, mixed for every label by a gate of its own; 0: one part, "
        "shared.",
        minimum=0,
        maximum=1024,
    )
    dropout: float = option(0.0, "Share of the entries of hidden layers dropped in training.", minimum=0.0, below=1.0)


@dataclass(slots=True)
class DLRMHead(RankingHead):
    """DLRM (Naumov et al. 2019): numbers through layers, dot products of all pairs of vectors, then layers."""

    bottom: list[int] = option(
        lambda: [64],
        "Widths of the hidden layers of the numbers, before one as wide as the tables' rows.",
        minimum=1,
        maximum=65_536,
    )


@dataclass(slots=True)
class DCNv2Head(RankingHead):
    """DCN-v2 (Wang et al. 2021): cross layers of bounded degree, and deep layers."""

    cross_layers: int = option(3, "Cross layers.", minimum=1, maximum=100)
    rank: int | None = option(
        None, "Rank of the cross layers' matrices; null: full matrices.", minimum=1, maximum=65_536
    )
    structure: CrossNet = option(
        CrossNet.parallel, "Deep layers beside the cross layers (parallel), or after them (stacked)."
    )


@dataclass(slots=True)
class DeepFMHead(RankingHead):
    """DeepFM (Guo et al. 2017): a factorisation machine and deep layers over the same vectors.

    Of every row the first entry is the feature's weight of first order, the others are its factors.
    """


@dataclass(slots=True)
class WideDeepHead(RankingHead):
    """Wide & deep (Cheng et al. 2016): a linear model of the features named in wide, and deep layers over all others."""

    wide: list[str] = option(
        list, "Features of the linear part; of their rows the first entry is the weight, so dim=4 is enough."
    )


@dataclass(slots=True)
class RetrievalHead(HeadConfig):
    """Finds items for a user: vectors of both, trained so that the user's items score above others."""

    loss: RetrievalLoss = option(
        RetrievalLoss.softmax,
        "softmax (cross entropy of the item among the negatives), binary (cross entropy of each), bpr (of pairs) or warp "
        "(pairs weighed by the estimated rank; Weston et al. 2011).",
    )
    similarity: Similarity = option(Similarity.dot, "Score of two vectors: dot product or cosine.")
    temperature: float = option(1.0, "Scores are divided by it.", above=0.0, maximum=1e6)
    negatives: int = option(
        256, "Negatives drawn: for the whole batch (shared), or for each sample.", minimum=0, maximum=10_000_000
    )
    shared: bool = option(True, "All samples of a batch have the same negatives; false: each has its own.")
    sampling: Sampling = option(
        Sampling.uniform,
        "How negatives are drawn: uniform, popularity (in proportion to the training interactions^power); all: every item is one.",
    )
    power: float = option(0.75, "For sampling=popularity.", minimum=0.0, maximum=10.0)
    in_batch: bool = option(
        False,
        "The items of the other samples of the global batch are negatives as well (mixed with those that are drawn).",
    )
    logq: bool = option(
        True,
        "Subtract from the scores of shared negatives the logarithm of the probability that they are among the negatives, so that "
        "the loss estimates that of all items.",
    )
    leave_known: bool = option(
        False, "Leave negatives out that the user has in training; false: only the sample's own item is left out."
    )
    hard: int = option(0, "Of each sample's negatives only so many count, those that score highest; 0: all.", minimum=0)
    l2: float = option(
        0.0,
        "Added to a sample's loss: l2 times the squares of the vectors that it looked up.",
        minimum=0.0,
        maximum=1e6,
    )
    user_hidden: list[int] = option(
        list,
        "Widths of the layers (ReLU between them) over the user's vectors side by side; none: the vectors are added up.",
        minimum=1,
        maximum=65_536,
    )
    item_hidden: list[int] = option(
        list, "As user_hidden, for the item's vectors; the last of both must be the same.", minimum=1, maximum=65_536
    )
    dropout: float = option(
        0.0,
        "Share of the entries of looked-up vectors (and of hidden layers) dropped in training.",
        minimum=0.0,
        below=1.0,
    )
    als_sweeps: int = option(
        0,
        "Fill both tables first by so many sweeps of alternating least squares (Hu et al. 2008; Rendle et al. 2022), on the CPUs; for one "
        "table of user ids and one of item ids. With trainer.epochs=0 they are the whole training.",
        minimum=0,
        maximum=1000,
    )
    als_weight: float = option(
        0.2,
        "For als_sweeps: what the squared score of a pair counts that was not seen, of one that was its squared distance from 1 beside it; "
        "more for data that is dense.",
        above=0.0,
        maximum=1.0,
    )
    als_l2: float = option(
        0.007,
        "For als_sweeps: L2 of a user's vector, times his items + als_weight × all items; of an item's likewise.",
        minimum=1e-5,
        maximum=1.0,
    )


@dataclass(slots=True)
class TwoTowerHead(RetrievalHead):
    """Two towers: a user's features make one vector, an item's another. One table of ids on each side is matrix factorisation."""


@dataclass(slots=True)
class SequenceHead(RetrievalHead):
    """Finds the next item of a user by those before: a sample is a user's history, each item of which is told from those before it."""

    max_length: int = option(50, "Latest interactions that are read, at most.", minimum=1, maximum=100_000)
    time_buckets: int = option(
        0,
        "Buckets (by powers of two) of the time that has passed between an interaction and the one before, each with a vector; "
        "needs interactions.time; 0: none.",
        minimum=0,
        maximum=64,
    )
    layers: int = option(2, "Blocks (SASRec) or layers (GRU4Rec).", minimum=1, maximum=100)


@dataclass(slots=True)
class SASRecHead(SequenceHead):
    """SASRec (Kang & McAuley 2018): self-attention over the items before."""

    heads: int = option(1, "Attention heads.", minimum=1, maximum=1024)


@dataclass(slots=True)
class GRU4RecHead(SequenceHead):
    """GRU4Rec (Hidasi et al. 2016): a recurrent network over the items before."""

    width: int = option(128, "Width of the recurrent layers.", minimum=1, maximum=65_536)


@dataclass(slots=True)
class HistoryHead(SequenceHead):
    """The mean of the vectors of the items before, through layers (ReLU)."""


@dataclass(slots=True)
class InteractionsConfig:
    """Which columns say who has which item, and what of that is set aside to be judged on."""

    user: str = option("user", "Column of the users.")
    item: str = option("item", "Column of the items.")
    time: str | None = option(
        None,
        "Column of times (whole numbers), by which a user's interactions are in order; null: they are in order as they stand.",
    )
    rating: str | None = option(None, "Column of ratings, for min_rating.")
    min_rating: float | None = option(
        None,
        "Rows of the training part with a lower rating, or with none, are left out; of the test part they are no hits.",
    )
    negatives: str = option("negatives", "Column of data.negatives: lists of items.")
    split: Split = option(
        Split.rows,
        "The validation part, where data.validation names none: rows (data.validation_fraction of them), last (each user's last "
        "interaction), one (one of each user's), share (data.validation_fraction of each user's), time (the latest of all). "
        "data.validation_fraction=0: none.",
    )
    test_split: Split | None = option(
        None, "The test part, where data.test is null, as split; it is taken off first. Null: none."
    )
    test_fraction: float = option(0.1, "For test_split: rows, share, time.", above=0.0, below=1.0)


@dataclass(slots=True)
class ProtocolConfig:
    """How retrieval is judged: among which items a test row's are to be found."""

    candidates: Candidates = option(
        Candidates.all,
        "all items; given (the lists of data.negatives, with the test row's own item); sampled (so many as protocol.sampled, drawn from "
        "the items that the user does not have).",
    )
    sampled: int = option(
        99, "Negatives of each test row for candidates=sampled, and of the validation part for given.", minimum=1
    )
    remove_seen: bool = option(True, "Items that the user has in training are no candidates.")
    unseen: Unseen = option(
        Unseen.miss, "Test rows whose user or item is not in training: miss (not found) or skip (not counted)."
    )
    at: list[int] = option(lambda: [10, 20], "Lengths k of the lists that are judged.", minimum=1, maximum=10_000)
    slices: list[str] = option(
        list,
        "Figures by slice as well: columns of data.users, or activity (the user's interactions in training: 1-9, 10-99, …), or "
        "popularity (the item's).",
    )


@dataclass(slots=True)
class TableOptimConfig:
    """The optimizer of the tables, fused into the backward pass: only touched rows cost anything."""

    kind: TableOptimizer = option(
        TableOptimizer.rowwise_adagrad, "rowwise_adagrad keeps one number a row, adagrad one an entry, sgd none."
    )
    lr: float = option(0.1, "Learning rate at the height of the schedule.", minimum=0.0, maximum=1e38)
    eps: float | None = option(None, "Added to the root in the Adagrads; null: 1e-8.", above=0.0)


@dataclass(slots=True)
class DenseOptimConfig:
    """The optimizer of everything that is not a table."""

    kind: DenseOptimizer = option(DenseOptimizer.adagrad, "adagrad, adam or sgd, as in torch.optim.")
    lr: float = option(0.1, "Learning rate at the height of the schedule.", minimum=0.0, maximum=1e38)
    eps: float | None = option(None, "Added to the root in adagrad and adam; null: 1e-8.", above=0.0)


@dataclass(slots=True)
class OptimConfig:
    """Both optimizers and what moves their learning rates."""

    tables: TableOptimConfig = option(TableOptimConfig, "The optimizer of the tables.")
    dense: DenseOptimConfig = option(DenseOptimConfig, "The optimizer of the dense parameters.")
    schedule: Schedule = option(Schedule.linear, "constant, or falling to zero at the last step: linear or cosine.")
    warmup_steps: int = option(0, "Steps over which the learning rates first rise from zero.", minimum=0)
    clip_value: float | None = option(
        None,
        "Clamp every entry of the gradients to [-clip_value, clip_value]: those of the dense parameters, and what "
        "each id of a sample gives its row (where FBGEMM clips: a table's gradient never exists as a whole).",
        above=0.0,
        maximum=1e38,
    )


@dataclass(slots=True)
class TrainerConfig:
    """The loop."""

    epochs: int = option(5, "Passes over the training data; 0, with head.als_sweeps alone: none.", minimum=0)
    steps: int | None = option(None, "Stop after this many steps instead of after epochs.", minimum=1)
    batch_size: int = option(512, "Samples of one step, over all ranks together.", minimum=1)
    eval_batch_size: int = option(2048, "Samples of one step of an evaluation, over all ranks together.", minimum=1)
    eval_every: int | None = option(
        None, "Steps between evaluations on the validation part; null: after every epoch.", minimum=1
    )
    monitor: str | None = option(
        None,
        "Validation figure that chooses the best checkpoint and stops early: one that the head gives, such as accuracy, loss, auc, "
        "ndcg@10. Null: the first of accuracy, auc, squared_error and ndcg that it gives.",
    )
    early_stop: int | None = option(
        None, "Stop after this many evaluations without a better one; null: never.", minimum=1
    )
    save_every: int | None = option(None, "Steps between checkpoints; null: with every evaluation.", minimum=1)
    keep: int = option(1, "How many of the latest checkpoints stay on disk, apart from the best.", minimum=1)
    test_with: Which = option(Which.best, "Checkpoint that the test part is judged with.")
    report_every: int = option(50, "Steps between two lines of metrics.jsonl.", minimum=1)
    save_memory_mib: int = option(
        512,
        "Host memory (MiB, per rank) that a checkpoint may copy its part of the tables into, so that training goes on while it is "
        "written; larger ones, and 0, are written while training waits.",
        minimum=0,
    )
    pipeline: Pipeline = option(
        Pipeline.auto,
        "none, sparse_dist (the next batch's ids travel during the present step) or prefetch (cached tables are filled ahead, "
        "on CUDA); auto: sparse_dist on several ranks, prefetch with cached tables, else none.",
    )


@dataclass(slots=True)
class ShardingConfig:
    """How the tables are laid over the ranks; a table's own ``sharding`` goes before."""

    kind: Kind = option(
        Kind.auto,
        "auto (the planner chooses by memory and estimated time), table_wise, row_wise, column_wise, data_parallel, "
        "table_row_wise, table_column_wise or grid.",
    )
    kernel: Kernel = option(
        Kernel.auto,
        "auto, fused (in the device's memory, updated in the backward pass), dense (as fused, updated by a dense optimizer), "
        "fused_uvm (in the host's memory), fused_uvm_caching (there, with a cache on the GPU); key_value (on SSD) is refused as yet.",
    )
    min_partition: int | None = option(
        None, "Columns that a shard has at least where columns are cut; null: TorchRec's 128.", minimum=4, multiple=4
    )
    cache_load_factor: float = option(
        0.2, "Part of the rows that fused_uvm_caching keeps on the GPU.", above=0.0, maximum=1.0
    )
    forward: Precision = option(Precision.fp32, "Precision in which looked-up vectors travel between ranks.")
    backward: Precision = option(Precision.fp32, "Precision in which their gradients travel between ranks.")
    plan: str | None = option(None, "A plan that bigembed plan wrote, to be followed instead of planning anew.")


@dataclass(slots=True)
class PlanConfig:
    """The cluster that is planned for; what is null is as the machine, or as the ranks that torchrun started."""

    world_size: int | None = option(None, "Ranks, one a GPU; null: those that torchrun started.", minimum=1)
    local_world_size: int | None = option(
        None, "Ranks of one host; null: those that torchrun started, 8 for a cluster on paper.", minimum=1
    )
    device: Device = option(Device.auto, "What the ranks compute on; auto: as runtime.device.")
    hbm_gib: float | None = option(None, "Memory of one GPU (GiB).", above=0.0)
    ddr_gib: float | None = option(None, "Memory of one host (GiB), shared by its ranks.", above=0.0)
    hbm_gb_s: float | None = option(None, "Bandwidth of a GPU's memory (GB/s).", above=0.0)
    ddr_gb_s: float | None = option(None, "Bandwidth of a host's memory (GB/s).", above=0.0)
    intra_gb_s: float | None = option(None, "Bandwidth between two ranks of a host (GB/s, one way).", above=0.0)
    inter_gb_s: float | None = option(
        None, "Bandwidth between two ranks of different hosts (GB/s, one way).", above=0.0
    )
    reserve: float = option(0.15, "Part of every memory left free, for what is not a table.", minimum=0.0, below=1.0)


@dataclass(slots=True)
class RuntimeConfig:
    """The machine."""

    device: Device = option(Device.auto, "auto takes the GPU where there is one.")
    threads: int | None = option(
        None,
        "Threads of the training step in each process; null: the cores this process may use, shared with the other ranks.",
        minimum=1,
        maximum=4096,
    )
    tensorboard: bool = option(True, "Write TensorBoard events into the run folder.")


@dataclass(slots=True)
class Job:
    """One training run."""

    seed: int = option(
        0,
        "Seed of the initial rows, the order of the samples, the validation split and dropout.",
        minimum=0,
        below=2**63,
    )
    data: DataConfig = option(DataConfig, "Where the rows come from.")
    tables: dict[str, TableConfig] = option(dict, "Embedding tables by name.")
    features: dict[str, FeatureConfig] = option(dict, "Features by name: which column is looked up in which table.")
    numbers: dict[str, NumberConfig] = option(
        dict, "Dense features by name: columns of numbers that go to the head without a table."
    )
    interactions: InteractionsConfig = option(InteractionsConfig, "Who has which item, for retrieval.")
    protocol: ProtocolConfig = option(ProtocolConfig, "How retrieval is judged.")
    head: HeadConfig = option(HeadConfig, "What is predicted from the looked-up vectors.")
    optim: OptimConfig = option(OptimConfig, "How the parameters move.")
    trainer: TrainerConfig = option(TrainerConfig, "The loop.")
    sharding: ShardingConfig = option(ShardingConfig, "How the tables are laid over the ranks.")
    plan: PlanConfig = option(PlanConfig, "The cluster that is planned for.")
    runtime: RuntimeConfig = option(RuntimeConfig, "The machine.")
    grow: str | None = option(
        None,
        "Run folder to grow from: its options are taken where no others are given, and its rows keep what they learned.",
    )
    grow_drop: bool = option(False, "With grow: rows of that run that find no place in this one may be lost.")


@dataclass(slots=True)
class EvaluateOptions:
    """What ``bigembed evaluate`` takes; options of the job, such as data.path, can be given besides."""

    run: str = option(MISSING, "Run folder.")
    output: str | None = option(None, "JSON file to write the figures to as well.")
    picture: str | None = option(
        None, "HTML file to draw the calibration of a ranking head to: predicted against true shares of ones."
    )
    checkpoint: Which | None = option(None, "best or last; null: the one that training judged by (trainer.test_with).")


@dataclass(slots=True)
class PredictOptions:
    """What ``bigembed predict`` takes; data.path, data.users and data.items can be given besides, where those of the run lie elsewhere."""

    run: str = option(MISSING, "Run folder.")
    input: str | None = option(
        None, "Parquet, CSV or JSON lines file with the columns of the features; null: lines of standard input."
    )
    output: str | None = option(None, "Parquet (.parquet) or text file to write; null: standard output.")
    checkpoint: Which | None = option(None, "best or last; null: the one that training judged by (trainer.test_with).")


@dataclass(slots=True)
class RecommendOptions:
    """What ``bigembed recommend`` takes, one process on the CPU; options of the data, such as data.path, can be given besides."""

    run: str = option(MISSING, "Run folder of a retrieval or sequence model.")
    users: str | None = option(
        None,
        "all, ids with commas between them, or a file (.parquet, .csv, .jsonl) with a row for each user: ids, and for users that were "
        "not in training the columns of their features; null: all.",
    )
    items: str | None = option(
        None,
        "Neighbours (by the cosine) of these items instead of items for users: all, ids, or a file, as for users.",
    )
    new_items: str | None = option(None, "File like data.items with further items, which are found by their features.")
    history: str | None = option(
        None,
        "File of interactions (the columns of the training part) to be read instead of those of the data: what users have already, and "
        "the histories that a sequence model reads, be they of new users.",
    )
    k: int = option(10, "Items for each user.", minimum=1, maximum=1_000_000)
    seen: bool = option(
        False,
        "Recommend what a user has already as well; false: whatever he has in the training, validation or test part of the data is left "
        "out, rated well or not.",
    )
    search: str = option(
        "exact", "exact, or approximate: an index of usearch (HNSW), with its recall measured on a sample."
    )
    output: str | None = option(
        None,
        "Parquet (.parquet: user, and lists item and score) or text file (a line an item) to write; null: text to standard output.",
    )
    checkpoint: Which | None = option(None, "best or last; null: the one that training judged by (trainer.test_with).")


@dataclass(slots=True)
class ExportOptions:
    """What ``bigembed export`` takes."""

    run: str = option(MISSING, "Run folder.")
    out: str = option(MISSING, "File to write.")
    format: str | None = option(
        None,
        "word2vec (text), word2vec-binary, glove, fasttext, safetensors, numpy or parquet; null: by the ending .npy, .safetensors or "
        ".parquet of out, else word2vec.",
    )
    table: str | None = option(None, "Table to export; null: the only one.")
    words: str | None = option(
        None, "File of words, one a line, to export the vectors of; null: the words of the vocabulary."
    )
    checkpoint: Which | None = option(None, "best or last; null: the one that training judged by (trainer.test_with).")


@dataclass(slots=True)
class VectorsOptions:
    """What ``bigembed vectors`` takes."""

    path: str = option(MISSING, "File of vectors, a member of an archive (ARCHIVE::MEMBER), or a run folder.")
    word_list: str | None = option(
        None, "The words of a .npy or safetensors file, one a line; null: FILE.words.txt, or .vocab or .txt beside it."
    )
    table: str | None = option(None, "Table of the run that path names; null: the only one.")
    words: list[str] = option(list, "Words to print the vectors of; unseen ones too where the file has n-grams.")
    out: str | None = option(None, "File to write the vectors to.")
    format: str | None = option(
        None,
        "Of out: word2vec, word2vec-binary, glove, fasttext, safetensors, numpy or parquet; null: by the ending .npy, .safetensors or "
        ".parquet, else word2vec.",
    )


@dataclass(slots=True)
class CoverageOptions:
    """What ``bigembed coverage`` takes besides the choices and options of ``bigembed train``."""

    out: str | None = option(None, "JSON file to write everything to that is told.")
    picture: str | None = option(None, "HTML file to draw the coverage to.")
    top: int = option(20, "How many of the most frequent missing words to name.", minimum=1)


@dataclass(slots=True)
class CompareOptions:
    """What ``bigembed compare`` takes."""

    of: list[str] = option(list, "Run folders and files of vectors, one or more, side by side.")
    texts: list[str] = option(list, "Texts to compare in each, two or more; quote those with commas.")
    input: str | None = option(None, "File of texts, one a line, instead of texts.")
    out: str | None = option(None, "JSON file to write the similarities and places to.")
    picture: str | None = option(None, "HTML file to draw the texts to, side by side.")
    table: str | None = option(None, "Table of the runs that have several; null: the only one.")
    checkpoint: Which | None = option(None, "Of runs: best or last; null: the one that training judged by.")


@dataclass(slots=True)
class PlanOptions:
    """What ``bigembed plan`` takes besides the choices and options of ``bigembed train``."""

    out: str | None = option(None, "JSON file to write the plan to, for sharding.plan=FILE in training.")
    report: str | None = option(
        None, "JSON file to write everything to that is told: per table, per rank, the limits, what was tried."
    )
    picture: str | None = option(
        None, "HTML file to draw the ranks with their tables to, as bars of memory and of time."
    )


@dataclass(slots=True)
class InspectOptions:
    """What ``bigembed inspect`` takes: with a run, options of its job besides; without one, what ``bigembed train`` takes."""

    run: str | None = option(None, "Run folder; null: a job that has not run, its tables learned from the data first.")
    part: str = option("train", "Part of the data to look at: train (without the validation part), validation or test.")
    collision_rate: float = option(
        0.01,
        "Share of values that may share their rows with others; the rows that this takes are told.",
        above=0.0,
        below=1.0,
    )
    exact: int = option(
        1 << 22,
        "Different values of a table that are counted exactly, 48 bytes each; of more, a sample of rows is kept, and their number is "
        "an estimate (HyperLogLog).",
        minimum=1024,
    )
    top: int = option(10, "How many of the most frequent values to name.", minimum=1)
    out: str | None = option(None, "JSON file to write everything to that is told.")
    picture: str | None = option(None, "HTML file to draw to: frequencies, shared rows by frequency, norms of rows.")
    checkpoint: Which | None = option(None, "best or last; null: the one that training judged by (trainer.test_with).")


@dataclass(slots=True)
class ExplainOptions:
    """What ``bigembed explain`` takes; options of the job, such as data.path, can be given besides."""

    run: str = option(MISSING, "Run folder.")
    word: str | None = option(None, "A word, value or number: its rows are told. Either word or row.")
    row: int | None = option(
        None, "A row: the values of the data that have it are told, the most frequent first.", minimum=0
    )
    table: str | None = option(None, "Table; null: the only one.")
    part: int = option(0, "For row: which part of a table that has several.", minimum=0)
    limit: int = option(20, "For row: how many values to name.", minimum=1)
    out: str | None = option(None, "JSON file to write the same to.")
    checkpoint: Which | None = option(None, "best or last; null: the one that training judged by (trainer.test_with).")


@dataclass(slots=True)
class AdviseOptions:
    """What ``bigembed advise`` takes besides the choices and options of ``bigembed train``."""

    memory_mib: float = option(512.0, "Memory (MiB) for all tables together, with the optimizer's state.", above=0.0)
    sample: int = option(100_000, "Training rows to look at.", minimum=1)
    mixed: float = option(
        0.1,
        "Share of a row's occurrences that may be other values', on average over occurrences; hashed tables and the buckets of n-grams "
        "are made so large, and as many occurrences may be of unknown words.",
        above=0.0,
        below=1.0,
    )
    stream: bool = option(False, "New values go on coming after training: managed tables are proposed.")
    out: str | None = option(None, "JSON file to write everything to that is told.")
    sweep: str | None = option(
        None,
        "Folder to train in what could be proposed, kind by kind and size by size, one after the other; it then holds curves.json and "
        "curves.html, accuracy on the validation part against bytes. Runs that are there already are not made again.",
    )
    sizes: int = option(
        3, "For sweep: sizes, each a quarter of the one before; the first is what the proposal takes.", minimum=1
    )
    seeds: int = option(1, "For sweep: runs of each kind and size, with other seeds.", minimum=1)
