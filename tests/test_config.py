"""From arguments to one typed job, and back from the file in which a run keeps it: every mistake is one sentence."""

import dataclasses
import errno
import functools
import math
import re
import shlex
import tempfile
import typing
from collections import Counter
from collections.abc import Callable, Iterator
from enum import Enum
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from bigembed.cli import main
from bigembed.config import compose, groups, kinds, options, saved, schema
from bigembed.config.arguments import parse
from bigembed.config.check import check
from bigembed.config.figures import figures_of
from bigembed.config.physical import physical
from bigembed.config.placement import check_placement
from bigembed.config.schema import (
    AttentionHead,
    AutoencoderHead,
    BagHead,
    BucketizedTable,
    CompositionalTable,
    FeatureConfig,
    FilesData,
    GeneratedData,
    HashedTable,
    IdsTable,
    Job,
    ManagedTable,
    MixedTable,
    NumberConfig,
    SubwordTable,
    TextTable,
    VocabTable,
)
from bigembed.errors import UserError

CONF = groups.conf_dir()
FILES = sorted(CONF.rglob("*.yaml"))


@pytest.fixture(autouse=True)
def working_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Hydra makes its folders here."""
    monkeypatch.chdir(tmp_path)


def jobs_of(arguments: str) -> list[Job]:
    """The jobs that a command line describes."""
    jobs: list[Job] = []
    compose.run(shlex.split(arguments), lambda job, folder: jobs.append(job))
    return jobs


def job_of(arguments: str) -> Job:
    """The only job that a command line describes."""
    (job,) = jobs_of(arguments)
    return job


def sentence_of(call: Callable[[], Any]) -> str:
    """What a call says that refuses: one sentence."""
    with pytest.raises(UserError) as caught:
        call()
    return checked(str(caught.value))


def checked(text: str) -> str:
    """The text, which must be one sentence."""
    assert text == text.strip() and text
    assert "\n" not in text and not text.endswith(".") and "Traceback" not in text
    return text


# ---------------------------------------------------------------- wrong arguments

DATA = "cache_mib, rows, seed, test_rows, validation_fraction, vocabulary"
TRAINER = (
    "batch_size, early_stop, epochs, eval_batch_size, eval_every, keep, monitor, pipeline, report_every, save_every, "
    "save_memory_mib, steps"
)
SHARDING = "backward, cache_load_factor, forward, kernel, kind, min_partition, plan"
TABLES = "bucketized, compositional, hashed, ids, managed, mixed, quotient_remainder, subword, tokenizer, vocab"
PRESETS = "a100_40, a100_80, b200, cpu, h100, h200, l4, l40s, this, v100"
GROUPS = "data, experiment, feature, head, number, optim, plan, runtime, table, trainer"
NODES = "data, features, grow, grow_drop, head, interactions, numbers, optim, plan, protocol, runtime, seed, sharding, tables, trainer"

UNKNOWN = {
    "trainer.epochz=2": ["'trainer.epochz'", "did you mean 'epochs'?", f"below 'trainer': {TRAINER}"],
    "+trainer.epochz=2": ["'trainer.epochz'", "did you mean 'epochs'?", TRAINER],
    "++trainer.epochz=2": ["'trainer.epochz'", "did you mean 'epochs'?", TRAINER],
    "-m trainer.epochz=1,2": ["'trainer.epochz'", TRAINER],
    "optim.tables.learning_rate=1": ["'optim.tables.learning_rate'", "below 'optim.tables': eps, kind, lr"],
    "optim/tables=sgd": ["'optim/tables'", NODES],
    "foo=1": ["'foo'", NODES],
    "+foo=1": ["'foo'", NODES],
    "+foo.bar=1": ["'foo'", NODES],
    "data.row=3": ["'data.row'", "did you mean 'rows'?", DATA],
    "data.path=/x": ["'data.path' here, only with data=files", DATA],
    "data=files data.rows=3": ["'data.rows' here, only with data=generated", "below 'data'", "in_memory_mib"],
    "tables.text.salt=1": ["'tables.text.salt' here, only with table=hashed", "min_count"],
    "table@tables.text=hashed tables.text.min_count=2": ["'tables.text.min_count'", "only with table=vocab", "salt"],
    "tables.text.rows=3": ["'tables.text.rows' here, only with table=ids", "min_count"],
    "table@tables.text=ids tables.text.lower=false": [
        "'tables.text.lower' here, only with table=vocab or table=hashed",
        "below 'tables.text': dim, dtype, init_range, lr, pretrained, rounding, rows, sharding",
    ],
    "tables.text.sharding.knid=grid": [
        "'tables.text.sharding.knid'",
        "did you mean 'kind'?",
        "cache_load_factor, kernel, kind, min_partition, pooling_factor",
    ],
    "sharding.kinds=grid": ["'sharding.kinds'", "did you mean 'kind'?", f"below 'sharding': {SHARDING}"],
    "+sharding.kinds=grid": ["'sharding.kinds'", "did you mean 'kind'?", SHARDING],
    "plan.hbm=80": ["'plan.hbm'", "did you mean 'hbm_gib'?", "below 'plan': ddr_gb_s, ddr_gib, device, hbm_gb_s"],
    "tables.word.dim=8": ["'tables.word.dim'", "below 'tables': text"],
    "tables.text.nope.deeper=1": ["'tables.text.nope.deeper'", "below 'tables.text'", "ngrams"],
    "table@tables.text=subword tables.text.partitions=[2,2]": [
        "only with table=compositional",
        "below 'tables.text': buckets",
    ],
    "table@tables.text=tokenizer tables.text.ngrams=2": [
        "only with table=vocab or table=hashed or",
        "algorithm, dim, dtype",
    ],
    "table@tables.text=bucketized tables.text.buckets=3": ["'tables.text.buckets'", "bins, borders, dim"],
    "table@tables.text=hashed tables.text.functionz=3": ["'tables.text.functionz'", "did you mean 'functions'?"],
    "table@tables.text=mixed tables.text.width=[4]": [
        "'tables.text.width'",
        "did you mean 'widths'?",
        "blocks, buckets",
    ],
    "table@tables.text=managed tables.text.decai=3": ["'tables.text.decai'", "did you mean 'decay'?", "policy"],
    "+number@numbers.price=column numbers.price.lag=true": ["'numbers.price.lag'", "column, log, of, standardise"],
    "numbers.price.column=price": ["'numbers.price.column'", "below 'numbers': none"],
    "features.text.colum=x": [
        "'features.text.colum'",
        "did you mean 'column'?",
        "column, crossed_with, of, of_another, pooling, table, weights",
    ],
    "head.attention=8": ["'head.attention' here, only with head=attention", "classes, dropout, hidden, label"],
    "head=autoencoder head.label=a": [
        "'head.label' here, only with head=bag or head=attention",
        "another, corruption, feature",
    ],
    "head.class=2": ["'head.class'", "did you mean 'classes'?", "classes, dropout, hidden, label"],
    "runtime.cores=2": ["'runtime.cores'", "device, tensorboard, threads"],
    "head._target_=os.system": ["'head._target_'", "classes, dropout, hidden, label"],
    "+head._target_=os.system": ["'head._target_'", "classes, dropout, hidden, label"],
    "data._partial_=true": ["'data._partial_'", DATA],
    "hydra.foo=1": ["'hydra.foo'", "below 'hydra'", "run, runtime"],
    "~foo": ["no 'foo' to take away"],
}
VALUES = {
    "trainer.epochs=two": ["trainer.epochs=two", "Integer"],
    "trainer.epochs=1.5": ["trainer.epochs=1.5", "Integer"],
    "trainer.epochs=nan": ["trainer.epochs=nan", "Integer"],
    "trainer.epochs=true": ["trainer.epochs=true", "Integer"],
    "trainer.epochs=": ["trainer.epochs=", "Integer"],
    "trainer.epochs=[1]": ["trainer.epochs=[1]", "Integer"],
    "trainer.epochs={a:1}": ["trainer.epochs={a:1}", "Integer"],
    "trainer.epochs.more=2": ["trainer.epochs.more=2", "Integer"],
    "trainer.epochs=null": ["trainer.epochs=null", "cannot be null"],
    "features.text.column=null": ["features.text.column=null", "cannot be null"],
    "optim.tables.lr=fast": ["optim.tables.lr=fast", "Float"],
    "tables.text.lower=maybe": ["tables.text.lower=maybe", "bool"],
    "head.hidden=64": ["head.hidden=64", "list"],
    "head.hidden=[64,a]": ["head.hidden=[64,a]", "Integer"],
    "optim.tables.kind=adam": ["optim.tables.kind=adam", "[rowwise_adagrad, adagrad, sgd]"],
    "optim.tables.kind=SGD": ["optim.tables.kind=SGD", "[rowwise_adagrad, adagrad, sgd]"],
    "optim.dense.kind=lamb": ["optim.dense.kind=lamb", "[adagrad, adam, sgd]"],
    "optim.schedule=step": ["optim.schedule=step", "[constant, linear, cosine]"],
    "runtime.device=tpu": ["runtime.device=tpu", "[auto, cpu, cuda]"],
    "trainer.test_with=first": ["trainer.test_with=first", "[best, last]"],
    "features.text.pooling=max": ["features.text.pooling=max", "[mean, sum, none]"],
    "sharding.kind=rows": [
        "sharding.kind=rows",
        "[auto, table_wise, row_wise, column_wise, data_parallel, table_row_wise, table_column_wise, grid]",
    ],
    "tables.text.sharding.kernel=fast": [
        "tables.text.sharding.kernel=fast",
        "[auto, dense, fused, fused_uvm, fused_uvm_caching, key_value]",
    ],
    "sharding.forward=fp8": ["sharding.forward=fp8", "[fp32, fp16, bf16, int8]"],
    "sharding.backward=null": ["sharding.backward=null", "cannot be null"],
    "tables.text.dtype=int8": ["tables.text.dtype=int8", "[fp32, fp16, bf16]"],
    "tables.text.rounding=up": ["tables.text.rounding=up", "[stochastic, nearest]"],
    "trainer.pipeline=fast": ["trainer.pipeline=fast", "[auto, none, sparse_dist, prefetch]"],
    "plan.device=tpu": ["plan.device=tpu", "[auto, cpu, cuda]"],
    "sharding=row_wise": ["sharding=row_wise", "ShardingConfig"],
    "tables.text.sharding=row_wise": ["tables.text.sharding=row_wise", "TableShardingConfig"],
    "tables.text.tokens=bytes": ["tables.text.tokens=bytes", "[words, whitespace, regex, whole]"],
    "table@tables.text=managed tables.text.policy=fifo": ["tables.text.policy=fifo", "[lfu, lru, distance_lfu]"],
    "table@tables.text=tokenizer tables.text.algorithm=bytes": ["algorithm=bytes", "[bpe, wordpiece, unigram]"],
    "table@tables.text=bucketized tables.text.scheme=equal": ["scheme=equal", "[quantiles, log, given]"],
    "table@tables.text=bucketized tables.text.borders=[a]": ["tables.text.borders=[a]", "Float"],
    "table@tables.text=compositional tables.text.combine=max": ["combine=max", "[add, mult, concat]"],
    "table@tables.text=compositional tables.text.partitions=[a,3]": ["partitions=[a,3]", "Integer"],
    "table@tables.text=compositional tables.text.partitions=3": ["partitions=3", "list"],
    "table@tables.text=hashed tables.text.importance=few": ["tables.text.importance=few", "Integer"],
    "features.text.crossed_with=b": ["features.text.crossed_with=b", "list"],
    "features.text.crossed_with=null": ["features.text.crossed_with=null", "cannot be null"],
    "features.text.weights=[a]": ["features.text.weights=[a]", "string"],
    "+number@numbers.price=column numbers.price.column=a numbers.price.log=maybe": ["numbers.price.log=maybe", "bool"],
    "+number@numbers.price=column": ["numbers.price.column must be given"],
    "data=files data.format=xml": [
        "data.format=xml",
        "[auto, parquet, csv, jsonl, datasets, criteo, movielens, ncf, user_items]",
    ],
    "-m optim.tables.kind=sgd,adam": ["optim.tables.kind=adam", "[rowwise_adagrad, adagrad, sgd]"],
    "optim.tables=sgd": ["optim.tables=sgd", "TableOptimConfig"],
    "trainer.epochs=${nope}": ["trainer.epochs", "'nope' not found"],
    "seed=???": ["seed must be given"],
    "features.text.column=???": ["features.text.column must be given"],
}
CHOICES = {
    "data=nope": ["no 'nope' in the group 'data'", "known: avazu, clicks, criteo, files, generated, imdb"],
    "data=generate": ["no 'generate'", "did you mean 'generated'?"],
    "head=nope": ["no 'nope' in the group 'head'", "known: attention, autoencoder, bag"],
    "optim=nope": ["no 'nope' in the group 'optim'", "known: adagrad, rowwise_adagrad, sgd"],
    "runtime=gpu": ["no 'gpu' in the group 'runtime'", "known: auto, cpu"],
    "trainer=nope": ["no 'nope' in the group 'trainer'", "known: default"],
    "plan=nope": ["no 'nope' in the group 'plan'", f"known: {PRESETS}"],
    "plan=h10": ["no 'h10'", "did you mean 'h100'?"],
    "experiment=nope": ["no 'nope' in the group 'experiment'", "known: autoencoder, avazu_deepfm, beauty_sasrec"],
    "-m experiment=imdb,nope": [
        "no 'nope' in the group 'experiment'",
        "known: autoencoder, avazu_deepfm, beauty_sasrec",
    ],
    "table@tables.text=nope": ["no 'nope' in the group 'table'", f"known: {TABLES}"],
    "+table@tables.word=nope": ["no 'nope' in the group 'table'", f"known: {TABLES}"],
    "hydra/launcher=nope": ["no 'nope' in the group 'hydra/launcher'"],
    "data=null": ["one of its choices", GROUPS],
    "plan=null": ["one of its choices", GROUPS],
    "head=null": ["one of its choices", GROUPS],
    "trainer=null": ["one of its choices", GROUPS],
    "table=hashed": ["no 'table' to change", "table@tables.text"],
    "table@tables.word=hashed": ["no 'table@tables.word' to change", "table@tables.text", "+table@tables.words=hashed"],
    "+experiment=imdb": ["'experiment' is made already", "without the +"],
    "+trainer.epochs=2": ["'trainer.epochs' already", "without the +"],
    "seed@foo=1": ["seed@foo=1"],
    "tables.text=hashed": [
        "tables.text takes its kind",
        "table@tables.text=bucketized or table@tables.text=compositional or table@tables.text=hashed or",
    ],
    "+tables.new.dim=8": ["tables.new takes its kind", "table@tables.new=hashed", "with a + in front"],
    "+tables.new={dim:8}": ["tables.new takes its kind", "table@tables.new=hashed", "with a + in front"],
    "+features.new.column=x": ["features.new takes its kind", "feature@features.new=column", "with a + in front"],
    "+numbers.new.column=x": ["numbers.new takes its kind", "number@numbers.new=column", "with a + in front"],
    "~trainer.epochs": ["~trainer.epochs", "only set"],
}
FORM = {
    "foo": ["'foo' is not an override of the form key=value"],
    "trainer.epochs": ["'trainer.epochs' is not an override of the form key=value"],
    "=1": ["'=1' is not an override of the form key=value"],
    "trainer.epochs==2": ["'trainer.epochs==2' is not an override of the form key=value"],
    "'trainer.epochs=[1'": ["'trainer.epochs=[1' is not an override"],
    "data=files data.path=~/x": ["'data.path=~/x'", "\"data.path='~/x'\""],
    "trainer.epochs=1,2": ["trainer.epochs=1,2 gives several values", "-m", "[1,2]"],
    "trainer.epochs=range(1,3)": ["trainer.epochs=range(1,3) gives several values", "-m"],
    "optim=adagrad,sgd": ["optim=adagrad,sgd gives several values", "-m"],
    "-m trainer.epochs=glob(*)": ["the sweep has no jobs"],
    "--epochs 3": ["unrecognized arguments: --epochs", "key=value", "-m", "--cfg job", "--config-dir DIR"],
    "--foo": ["unrecognized arguments: --foo", "key=value"],
    "--cfg nope": ["'nope'", "'job'"],
    "-m --cfg job": ["not allowed with"],
    "--config-dir": ["expected one argument"],
    "--config-dir /nope": ["'/nope' not found"],
    "--experimental-rerun=x.pickle": ["unrecognized arguments: --experimental-rerun"],
    "--config-name other": ["unrecognized arguments: --config-name"],
}


@pytest.mark.parametrize(("arguments", "parts"), [*UNKNOWN.items(), *VALUES.items(), *CHOICES.items(), *FORM.items()])
def test_a_wrong_argument_is_one_sentence(arguments: str, parts: list[str], tmp_path: Path) -> None:
    text = sentence_of(lambda: jobs_of(arguments))
    for part in parts:
        assert part in text
    assert not (tmp_path / "outputs").exists()


def test_wrong_arguments_of_every_sort_are_tried() -> None:
    assert [len(cases) for cases in (UNKNOWN, VALUES, CHOICES, FORM)] == [40, 51, 28, 18]


# One case or more for each sentence of check.py and of check_tables.py.
FILE_OF_A_KIND_LESS_TABLE = "+tables={b:{dim:8}} +features={b:{table:b}}"
TWO_SEQUENCES = (
    "head=attention features.text.pooling=none +table@tables.b=hashed "
    "+feature@features.b=column features.b.table=b features.b.pooling=none"
)
AUTOENCODER = (
    "head=autoencoder features.text.pooling=none +feature@features.another=column features.another.pooling=none "
    "features.another.of_another=true"
)
REFUSED = {
    "~data": ["data has no kind", "data=generated or data=clicks or data=files"],
    "~head": ["head has no kind", "head=bag or head=attention"],
    FILE_OF_A_KIND_LESS_TABLE: [
        "tables.b has no kind",
        "table@tables.b=vocab or table@tables.b=hashed or table@tables.b=ids",
    ],
    "trainer.epochs=0": ["trainer.epochs is 0, so that nothing is trained"],
    "trainer.monitor=f1": ["trainer.monitor is f1", "it gives accuracy, loss"],
    "seed=-1": ["seed is -1; it must be at least 0"],
    "seed=9223372036854775808": ["seed is 9223372036854775808; it must be below 9223372036854775808"],
    "data.validation_fraction=1": ["data.validation_fraction is 1.0; it must be below 1.0"],
    "tables.text.init_range=0": ["tables.text.init_range is 0.0; it must be above 0.0"],
    "tables.text.ngrams=9": ["tables.text.ngrams is 9; it must be at most 8"],
    "tables.text.dim=6": ["tables.text.dim is 6; it must be a multiple of 4"],
    "tables.text.sharding.min_partition=6": ["tables.text.sharding.min_partition is 6; it must be a multiple of 4"],
    "sharding.cache_load_factor=0": ["sharding.cache_load_factor is 0.0; it must be above 0.0"],
    "table@tables.text=ids tables.text.rows=0": ["tables.text.rows is 0; it must be at least 1"],
    "plan.world_size=0": ["plan.world_size is 0; it must be at least 1"],
    "plan.reserve=1": ["plan.reserve is 1.0; it must be below 1.0"],
    "trainer.save_memory_mib=-1": ["trainer.save_memory_mib is -1; it must be at least 0"],
    "tables.text.dim=0": ["tables.text.dim is 0; it must be at least 4"],
    "table@tables.text=hashed tables.text.dim=18": ["tables.text.dim is 18; it must be a multiple of 4"],
    "head.hidden=[[3]]": ["head.hidden"],
    "features.text.crossed_with=[[b]]": ["features.text.crossed_with"],
    "head.hidden=[64,0]": ["head.hidden is 0; it must be at least 1"],
    "optim.tables.lr=nan": ["optim.tables.lr is nan; it must be a finite number"],
    "optim.tables.lr=inf": ["optim.tables.lr is inf; it must be a finite number"],
    "optim.clip_value=-inf": ["optim.clip_value is -inf; it must be a finite number"],
    "trainer.early_stop=3 data.validation_fraction=0": ["trainer.early_stop", "data.validation_fraction is 0"],
    "~features.text": ["features is empty", "+feature@features.text=column"],
    "features.text.table=word": ["features.text.table is 'word'", "known tables: text"],
    "~tables.text": ["features.text.table is 'text'", "known tables: none"],
    "+feature@features.b=column features.b.pooling=none": [
        "tables.text differ in pooling (mean, none)",
        "sequences (none)",
    ],
    "features.text.pooling=none": ["features.text.pooling is none", "the head takes no sequences", "head=attention"],
    "features.text.of_another=true": ["features.text.of_another is for head=autoencoder alone"],
    "head=autoencoder": ["features.text.pooling=none"],
    "head=autoencoder features.text.pooling=none": [
        "head.another is 'another'",
        "no such feature",
        "known features: text",
    ],
    f"{AUTOENCODER} features.another.of_another=false": ["'another'", "features.another.of_another must be true"],
    f"{AUTOENCODER} head.another=text": ["'text'", "features.text.of_another must be true"],
    f"{AUTOENCODER} features.another.column=title": ["another table or column", "give both the same"],
    f"{AUTOENCODER} +number@numbers.n=column numbers.n.column=n": ["nothing beside", "drop numbers.n"],
    "head=attention": ["head=attention pools sequences, but no feature is one", "pooling=none", "head=bag"],
    "sharding.kernel=key_value": ["tables.text has the kernel key_value", "use fused_uvm"],  # others: test_placement.py
    "+table@tables.word=vocab": ["tables.word is used by no feature"],
    "+table@tables.a-b=vocab +feature@features.b=column features.b.table=a-b": ["tables.a-b", "letters, digits"],
    "tables.text.tokens=regex": ["tables.text.pattern goes with tables.text.tokens=regex"],
    "tables.text.pattern=a": ["tables.text.pattern goes with tables.text.tokens=regex"],
    "tables.text.tokens=regex \"tables.text.pattern='('\"": ["tables.text.pattern is no regular expression"],
    "optim=sgd optim.tables.eps=1e-6": ["optim.tables.eps has no meaning for optim.tables.kind=sgd"],
    "optim.dense.kind=sgd optim.dense.eps=1e-6": ["optim.dense.eps has no meaning for optim.dense.kind=sgd"],
}


def table_of(kind: str, *options: str) -> str:
    """The arguments for a kind of table with options of its own."""
    return " ".join([f"table@tables.text={kind}", *(f"tables.text.{option}" for option in options)])


LARGE = 2**40 + 1
REFUSED |= {
    "+number@numbers.a-b=column numbers.a-b.column=x": ["numbers.a-b", "letters, digits and underscores"],
    table_of("hashed", "buckets=0"): ["tables.text.buckets is 0; it must be at least 1"],
    table_of("hashed", f"buckets={LARGE}"): [f"tables.text.buckets is {LARGE}; it must be at most {2**40}"],
    table_of("hashed", "functions=0"): ["tables.text.functions is 0; it must be at least 1"],
    table_of("hashed", "importance=0"): ["tables.text.importance is 0; it must be at least 1"],
    table_of("hashed", f"importance={LARGE}"): [f"tables.text.importance is {LARGE}"],
    table_of("vocab", "buckets=0"): ["tables.text.buckets is 0; it must be at least 1"],
    table_of("mixed", f"buckets={LARGE}"): [f"tables.text.buckets is {LARGE}; it must be at most {2**40}"],
    table_of("subword", "buckets=0"): ["tables.text.buckets is 0; it must be at least 1"],
    table_of("subword", f"buckets={LARGE}"): [f"tables.text.buckets is {LARGE}; it must be at most {2**31}"],
    table_of("compositional", "partitions=[1024,0]"): ["tables.text.partitions is 0; it must be at least 1"],
    table_of("compositional", f"partitions=[1,{LARGE}]"): [f"tables.text.partitions is {LARGE}; it must be at most"],
    table_of("managed", "rows=31"): ["tables.text.rows is 31; it must be at least 32"],
    table_of("managed", f"rows={LARGE}"): [f"tables.text.rows is {LARGE}; it must be at most {2**40}"],
    table_of("bucketized", "bins=1"): ["tables.text.bins is 1; it must be at least 2"],
    table_of("bucketized", "scheme=given", "borders=[1.0,nan]"): ["tables.text.borders is nan", "finite"],
    table_of("mixed", "widths=[16,6]", "blocks=[10]"): ["tables.text.widths is 6; it must be a multiple of 4"],
    table_of("tokenizer", "vocab_size=0"): ["tables.text.vocab_size is 0; it must be at least"],
    table_of("hashed", "sign=true", "importance=10"): [
        "tables.text.importance learns signs",
        "leave out tables.text.sign",
    ],
    table_of("compositional", "partitions=[]"): ["tables.text.partitions is []", "two sub-tables or more"],
    table_of("compositional", "partitions=[1024]"): ["tables.text.partitions is [1024]", "use table=hashed"],
    table_of("compositional", f"partitions=[{2**31},{2**31},2]"): [f"multiply to {2**63:,}", "2^62"],
    table_of("compositional", "combine=concat", "partitions=[5,5,5]"): ["tables.text.dim is 16", "a multiple of 12"],
    table_of("compositional", "ngrams=1", "partitions=[5,5]", "values=26"): [
        "tables.text.values is 26",
        "only 25 apart",
    ],
    table_of("compositional", "values=26"): ["tables.text.values takes whole numbers as they are", "ngrams=1"],
    table_of("compositional", "ngrams=1", "values=26", "salt=1"): ["tables.text.values", "salt mean nothing"],
    table_of("subword", "min_n=4", "max_n=3"): ["tables.text.min_n is 4, above tables.text.max_n, which is 3"],
    table_of("bucketized", "scheme=given"): ["scheme=given needs borders"],
    table_of("bucketized", "borders=[1,2]"): ["tables.text.borders go with tables.text.scheme=given"],
    table_of("bucketized", "scheme=given", "borders=[1,3,3]"): ["must rise", "[1.0, 3.0, 3.0]"],
    table_of("mixed", "widths=[16]", "blocks=[]"): ["tables.text.widths are 1 and tables.text.blocks 0"],
    table_of("mixed", "widths=[16,4]", "blocks=[5,6]"): ["tables.text.widths are 2 and tables.text.blocks 2"],
    table_of("managed", "decay=2"): ["tables.text.decay has no meaning for tables.text.policy=lfu"],
    table_of("ids") + " features.text.crossed_with=[b]": ["features.text.crossed_with", "tables.text does not"],
    table_of("vocab") + " features.text.crossed_with=[b]": ["features.text.crossed_with", "use table=hashed"],
    table_of("mixed") + " features.text.crossed_with=[b]": ["features.text.crossed_with", "use table=hashed"],
    table_of("subword") + " features.text.crossed_with=[b]": ["features.text.crossed_with", "use table=hashed"],
    table_of("bucketized") + " features.text.crossed_with=[b]": ["features.text.crossed_with", "use table=hashed"],
    table_of("tokenizer") + " features.text.crossed_with=[b]": ["features.text.crossed_with", "use table=hashed"],
    table_of("compositional", "values=9", "ngrams=1") + " features.text.crossed_with=[b]": [
        "features.text.crossed_with",
        "takes whole numbers as they are",
    ],
    table_of("hashed") + " features.text.crossed_with=[text]": ["features.text.crossed_with names a column twice"],
    table_of("hashed") + " features.text.crossed_with=[b,b]": ["features.text.crossed_with names a column twice"],
    table_of("subword") + " features.text.weights=w": ["features.text.weights", "has several rows"],
    table_of("tokenizer") + " features.text.weights=w": ["features.text.weights", "has several rows"],
    table_of("hashed") + " features.text.weights=w": ["features.text.weights are one for each value", "ngrams=1"],
    table_of("vocab", "ngrams=1", "distinct=true") + " features.text.weights=w": ["tables.text.distinct=false"],
}


@functools.cache
def composed(arguments: str) -> Job:
    """The job that a command line describes; not to be changed."""
    return job_of(f"{arguments} hydra.run.dir=.")


@functools.cache
def refusal_of(arguments: str) -> tuple[str, tuple[str, int]]:
    """What is said of options that do not go together, and the file and line that say it."""
    kind, *others = shlex.split(arguments)
    with pytest.raises(UserError) as caught:
        if kind.startswith("table@tables.text="):
            check(saved.override(composed(kind), others))  # as much, without composing all anew
        else:
            jobs_of(arguments)
    last = caught.traceback[-1]
    return checked(str(caught.value)), (Path(last.path).name, last.lineno + 1)


@pytest.mark.parametrize(("arguments", "parts"), REFUSED.items())
def test_options_that_do_not_go_together_are_one_sentence(arguments: str, parts: list[str], tmp_path: Path) -> None:
    text, _ = refusal_of(arguments)
    for part in parts:
        assert part in text
    assert not (tmp_path / "outputs").exists()


def test_every_refusal_of_the_checks_is_tried() -> None:
    tried = Counter(place for _, place in map(refusal_of, REFUSED))
    raised = {
        (name, number)
        for name in ("bounds.py", "check.py", "check_tables.py")
        for number, line in enumerate(Path(compose.__file__).with_name(name).read_text().splitlines(), 1)
        if "raise UserError(" in line
    }
    assert raised <= tried.keys(), raised - tried.keys()
    assert len(raised) >= 29 and len(REFUSED) == 93
    # What is right but for the one thing that is refused above:
    for arguments in (
        table_of("hashed", f"buckets={2**40}", "functions=8", "sign=true"),
        table_of("compositional", f"partitions=[{2**31},{2**31}]"),
        table_of("compositional", "ngrams=1", "partitions=[5,5]", "values=25"),
        table_of("compositional", "combine=concat", "partitions=[5,5,5]", "dim=12"),
        table_of("subword", "min_n=3", "max_n=3"),
        table_of("bucketized", "scheme=given", "borders=[-1,2.5,3]"),
        table_of("mixed", "widths=[16,4]", "blocks=[5]"),
        table_of("managed", "policy=distance_lfu", "decay=2"),
        table_of("hashed", "ngrams=1") + " features.text.weights=w features.text.crossed_with=[b,c]",
    ):
        kind, *others = shlex.split(arguments)
        check(saved.override(composed(kind), others))


def test_features_of_one_table_may_differ_in_mean_and_sum_and_sequences_of_one_width_go_together() -> None:
    job = job_of("+feature@features.b=column features.b.pooling=sum")
    assert [feature.pooling.name for feature in job.features.values()] == ["mean", "sum"]
    assert {feature.table for feature in job.features.values()} == {"text"}
    job = job_of(f"{TWO_SEQUENCES} tables.b.dim=16 head.attention=8")
    assert isinstance(job.head, AttentionHead) and job.head.attention == 8
    beside = "+table@tables.c=ids +feature@features.c=column features.c.table=c tables.c.dim=8 tables.c.rows=7"
    job = job_of(f"{TWO_SEQUENCES} {beside}")  # what is pooled has a width of its own
    assert job.tables["c"] == IdsTable(dim=8, rows=7)


# ---------------------------------------------------------------- every option of the schema


def nodes_of(path: str, node: Any) -> Iterator[tuple[str, Any]]:
    """The path and the dataclass of every group of options below a node, itself included."""
    yield path, node
    for field in dataclasses.fields(node):
        value, here = getattr(node, field.name), f"{path}.{field.name}".removeprefix(".")
        if dataclasses.is_dataclass(value):
            yield from nodes_of(here, value)
        elif isinstance(value, dict):
            for name, entry in value.items():
                yield from nodes_of(f"{here}.{name}", entry)


RECOMMENDING = [
    name for name, head in kinds.HEADS.items() if issubclass(head, schema.RankingHead | schema.RetrievalHead)
]


def recommending(name: str) -> Job:
    """A job with a head for ranking or retrieval."""
    head: Any = kinds.HEADS[name]()
    tables: dict[str, Any] = {"t": VocabTable(), "u": VocabTable()}
    features = {
        "f": FeatureConfig("t", column="item", of=schema.Of.item),
        "u": FeatureConfig("u", column="user", of=schema.Of.user),
    }
    if isinstance(head, schema.WideDeepHead):
        head.wide = ["u"]
    if isinstance(head, schema.SequenceHead):
        del tables["u"], features["u"]
    return Job(data=FilesData(), tables=tables, features=features, head=head)


def example_jobs() -> list[Job]:
    """Jobs that together have every option of the schema."""
    jobs = []
    sequence = FeatureConfig("t", pooling=schema.Pooling.none)
    for data, table, feature, head in (
        (GeneratedData(), VocabTable(), FeatureConfig("t"), BagHead()),
        (FilesData(), HashedTable(), FeatureConfig("t"), BagHead()),
        (FilesData(), IdsTable(), sequence, AttentionHead()),
        *((FilesData(), table(), FeatureConfig("t"), BagHead()) for table in [*kinds.TABLES.values()][3:]),
    ):
        job = Job(data=data, tables={"t": table}, features={"f": feature}, head=head)
        job.numbers = {"n": NumberConfig(column="n")} if len(jobs) < 2 else {}
        jobs.append(job)
        check(job)
    other = dataclasses.replace(sequence, of_another=True)
    features, head = {"f": sequence, "another": other}, AutoencoderHead(feature="f")
    jobs.append(Job(data=FilesData(), tables={"t": VocabTable()}, features=features, head=head))
    check(jobs[-1])
    jobs.append(dataclasses.replace(jobs[0], data=schema.ClicksData()))
    jobs += [recommending(head) for head in RECOMMENDING]
    for job in jobs:
        check(job)
    assert {type(job.data) for job in jobs} == set(kinds.DATA.values())
    assert {type(table) for job in jobs for table in job.tables.values()} == set(kinds.TABLES.values())
    assert {type(job.head) for job in jobs} == set(kinds.HEADS.values())
    return jobs


def every_option() -> list[tuple[Job, str, "dataclasses.Field[Any]", Any]]:
    """A job that has it, its path, its field and its type, of every option that is no group; what kinds inherit comes once."""
    found, seen = [], set()
    for job in example_jobs():
        for path, node in nodes_of("", job):
            hints = typing.get_type_hints(type(node))
            for field in dataclasses.fields(node):
                hint = hints[field.name]
                if dataclasses.is_dataclass(hint) or typing.get_origin(hint) is dict:
                    continue
                if (path, id(field)) not in seen:
                    seen.add((path, id(field)))
                    found.append((job, f"{path}.{field.name}".removeprefix("."), field, hint))
    return found


def wrong_values(hint: Any) -> list[str]:
    """Values of another type, as a user would type them."""
    optional = type(None) in typing.get_args(hint)
    bare = next(part for part in typing.get_args(hint) if part is not type(None)) if optional else hint
    if bare is str:
        return [] if optional else ["null"]
    if typing.get_origin(bare) is list:
        return ["null", "3", "{a: 1}", *([] if typing.get_args(bare) == (str,) else ["[x]"])]
    return ["x", "[1]", "{a: 1}", "2024-01-01", *(["1.5"] if bare is int else []), *([] if optional else ["null"])]


def test_every_option_refuses_another_type() -> None:
    tried = set()
    for job, path, _, hint in every_option():
        for value in wrong_values(hint):
            text = sentence_of(lambda job=job, entry=f"{path}={value}": saved.override(job, [entry]))
            assert path in text
            tried.add(path)
    texts = {path for _, path, _, hint in every_option() if hint == str | None}
    assert tried == {path for _, path, _, _ in every_option()} - texts
    assert len(tried) >= 77


def test_every_bound_of_every_option_is_kept() -> None:
    tried = set()
    for job, path, field, hint in every_option():
        step = 1e-6 if float in (hint, *typing.get_args(hint)) else 1
        beyond = {
            "minimum": lambda bound, step=step: bound - max(step, type(step)(abs(bound) * 1e-6)),
            "above": lambda bound, step=step: bound,
            "maximum": lambda bound, step=step: bound + max(step, type(step)(abs(bound) * 1e-6)),
            "below": lambda bound, step=step: bound,
            "multiple": lambda bound, step=step: 5 * bound + 1,
        }
        for name in beyond.keys() & field.metadata.keys():
            value = beyond[name](field.metadata[name])
            listed = [value] if typing.get_origin(hint) is list else value
            text = sentence_of(lambda job=job, entry=f"{path}={listed}": check(saved.override(job, [entry])))
            assert text.startswith(f"{path} is ") and str(field.metadata[name]) in text
            tried.add((path, name))
    names = {"minimum", "above", "maximum", "below", "multiple"}
    assert tried == {(path, name) for _, path, field, _ in every_option() for name in names & field.metadata.keys()}
    assert len(tried) >= 75


def test_every_option_has_a_help_text() -> None:
    classes = [entry for entry in vars(schema).values() if dataclasses.is_dataclass(entry)]
    fields = [field for entry in classes for field in dataclasses.fields(entry)]
    assert len(classes) >= 25 and len(fields) >= 150
    for field in fields:
        text = field.metadata["help"]
        assert re.match(r"\S", text) and text.endswith("."), field.name


def test_every_option_is_in_the_help_of_train(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "--help"]) == 0
    lines = capsys.readouterr().out.splitlines()
    general = {re.sub(r"^(tables|features|numbers)\.\w+\.", r"\1.NAME.", path) for _, path, _, _ in every_option()}
    assert len(general) >= 84
    for path in general:
        assert any(line.startswith(f"  {path}=") for line in lines), path
    paths = [row.path for section in options.sections() for row in section.rows]
    assert sorted(set(paths)) == sorted(general)
    several = ["buckets", "lower", "max_size", "min_count", "rows", "salt"]
    # Two kinds may have options of one name; what kinds inherit is listed once.
    twice = {f"tables.NAME.{name}" for name in several}
    twice |= {f"data.{name}" for name in ("rows", "test_rows", "seed", "in_memory_mib", "work_dir")}
    assert {path for path in paths if paths.count(path) > 1} == twice | {"head.hidden", "head.dropout"}


@pytest.mark.parametrize("command", ["plan", "evaluate", "predict", "export"])
def test_every_option_of_the_other_commands_is_in_their_help(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([command, "--help"]) == 0
    text = capsys.readouterr().out
    fields = dataclasses.fields(options.COMMAND_OPTIONS[command])
    assert len(fields) >= 3
    for field in fields:
        assert f"  {field.name}=" in text and field.metadata["help"] in " ".join(text.split())


def test_every_choice_is_in_the_help_of_train(capsys: pytest.CaptureFixture[str]) -> None:
    main(["train", "--help"])
    text = capsys.readouterr().out
    choices = [(group, name, about) for group, names in groups.groups().items() for name, about in names.items()]
    assert len(choices) == len(FILES) - 1 >= 27
    for group, name, about in choices:
        assert f"  {group}={name}\n" in text and about


# ---------------------------------------------------------------- conf/


def leaves(path: str, node: Any) -> dict[str, Any]:
    """The values of a YAML file by their path."""
    if not isinstance(node, dict):
        return {path: node}
    entries = [leaves(f"{path}.{name}".removeprefix("."), entry) for name, entry in node.items() if name != "defaults"]
    return {name: value for part in entries for name, value in part.items()}


def test_every_choice_of_every_group_composes() -> None:
    place = {"table": "table@tables.text", "feature": "feature@features.text", "number": "+number@numbers.n"}
    besides = {"head=attention": " features.text.pooling=none", "+number@numbers.n=column": " numbers.n.column=n"}
    besides["head=autoencoder"] = f" {AUTOENCODER.removeprefix('head=autoencoder ')}"
    numbered = " +number@numbers.n=column numbers.n.column=n"
    besides |= {"head=dlrm": numbered, "head=wide_deep": f" head.wide=[text]{numbered}"}
    of_items = " features.text.of=item features.text.column=item"
    besides |= {f"head={name}": of_items for name in ("sasrec", "gru4rec", "history")}
    of_users = "+feature@features.u=column features.u.column=user features.u.of=user"
    besides["head=two_tower"] = f"{of_items} {of_users}"
    besides["data=ncf"] = f" head=two_tower protocol.candidates=given{of_items} {of_users}"
    composed, known = 0, set()
    for group, names in groups.groups().items():
        for name in names:
            choice = f"{place.get(group, group)}={name}"
            job = job_of(choice + besides.get(choice, ""))
            for axis, node in (("data", job.data), ("table", job.tables.get("text")), ("head", job.head)):
                if group == axis and name in (kinds.DATA | kinds.TABLES | kinds.HEADS):
                    assert kinds.kind_of(node) == name
                    known.add(name)
            composed += 1
    assert known == {*kinds.DATA, *kinds.TABLES, *kinds.HEADS}
    assert composed == len(FILES) - 1 >= 27


def test_every_experiment_composes_by_the_command_in_its_first_comment() -> None:
    experiments = sorted((CONF / "experiment").glob("*.yaml"))
    for file in experiments:
        (command,) = re.findall(r"^# bigembed train (.*?)(?:   |$)", file.read_text(), re.MULTILINE)
        assert f"experiment={file.stem}" in command.split()
        job_of(command.replace("DIR", "some/folder"))
    assert len(experiments) >= 2


def test_what_an_experiment_says_wins_over_the_default_job() -> None:
    compared = 0
    for file in sorted((CONF / "experiment").glob("*.yaml")):
        values = saved._flat("", saved.as_dict(job_of(f"experiment={file.stem}")))
        said = leaves("", yaml.safe_load(file.read_text()))
        assert said
        for path, value in said.items():
            as_another = re.fullmatch(r"\$\{(.*)\}", str(value))
            assert values[path] == (values[as_another[1]] if as_another else value), (file.name, path)
        compared += len(said)
    assert compared >= 8
    assert job_of("").data == GeneratedData()
    assert job_of("experiment=imdb").data.hub == "stanfordnlp/imdb"  # type: ignore[attr-defined]


def test_what_is_typed_wins_over_the_experiment() -> None:
    job = job_of("experiment=imdb trainer.epochs=9 tables.text.dim=32 optim=sgd optim.schedule=cosine")
    assert (job.trainer.epochs, job.tables["text"].dim) == (9, 32)
    assert (job.optim.tables.kind, job.optim.schedule) == (schema.TableOptimizer.sgd, schema.Schedule.cosine)


def test_no_class_path_and_no_code_stands_in_any_yaml() -> None:
    seen = 0
    for file in FILES:
        text = "\n".join(line.partition(" #")[0] for line in file.read_text().splitlines() if not line.startswith("#"))
        assert "!" not in text, file  # tags
        assert set(re.findall(r"\$\{(\w+)", text)) <= {"now", "tables"}, file
        for path, value in leaves("", yaml.safe_load(text)).items():
            assert not any(part.startswith("_") for part in path.split(".")), (file, path)
            assert not re.fullmatch(r"\w+(\.\w+)+", str(value)) or isinstance(value, float), (file, path, value)
            seen += 1
        assert file.read_text().startswith("# "), file  # the help shows it
    assert len(FILES) >= 28 and seen >= 80


def test_tables_and_features_can_be_added() -> None:
    job = job_of(
        "+table@tables.title=hashed tables.title.buckets=50 tables.title.salt=3 "
        "+feature@features.title=column features.title.table=title features.title.column=headline "
        "features.title.pooling=sum"
    )
    assert list(job.tables) == ["text", "title"] and list(job.features) == ["text", "title"]
    title = job.tables["title"]
    assert isinstance(title, HashedTable) and (title.buckets, title.salt) == (50, 3)
    assert job.features["title"] == FeatureConfig("title", "headline", pooling=schema.Pooling.sum)


def test_values_arrive_typed() -> None:
    job = job_of(
        "data=files \"data.path='/a b/ç'\" data.format=csv head.hidden=[64,32] tables.text.max_size=7 "
        "optim.tables.eps=1e-6 runtime.tensorboard=false seed=9223372036854775807"
    )
    assert job.data == FilesData(path="/a b/ç", format=schema.Format.csv)
    assert job.head == BagHead(hidden=[64, 32]) and job.seed == 2**63 - 1
    assert job.tables["text"].max_size == 7 and job.optim.tables.eps == 1e-6  # type: ignore[attr-defined]
    assert job.runtime.tensorboard is False


def test_ones_own_yaml_files_are_taken_from_a_folder(tmp_path: Path) -> None:
    (tmp_path / "own" / "experiment").mkdir(parents=True)
    wrong = {
        "key": ("trainer:\n  epochz: 3\n", ["experiment/key.yaml", "trainer.epochz"]),
        "value": ("trainer:\n  epochs: many\n", ["experiment/value.yaml", "trainer.epochs", "many"]),
        "form": ("trainer: {epochs: 3\n", ["form.yaml", "no YAML"]),
        "choice": ("defaults:\n  - override /data: nope\n", ["'nope'", "'data'", "files, generated, imdb"]),
        "bound": ("trainer:\n  epochs: 0\n", ["trainer.epochs is 0"]),
    }
    own = tmp_path / "own" / "experiment"
    (own / "mine.yaml").write_text("# @package _global_\ntrainer:\n  epochs: 9\n")
    assert job_of("--config-dir own experiment=mine").trainer.epochs == 9
    for name, (text, parts) in wrong.items():
        (own / f"{name}.yaml").write_text(f"# @package _global_\n{text}")
        said = sentence_of(lambda name=name: jobs_of(f"experiment={name} --config-dir=own"))
        for part in parts:
            assert part in said


# ---------------------------------------------------------------- run folders and sweeps


def test_the_run_folder_is_where_it_was_wished(tmp_path: Path) -> None:
    folders: list[Path] = []
    compose.run(["hydra.run.dir=here/it is"], lambda job, folder: folders.append(folder))
    compose.run([], lambda job, folder: folders.append(folder))
    assert folders[0] == tmp_path / "here" / "it is" and folders[0].is_dir()
    assert re.fullmatch(r"outputs/\d{4}-\d\d-\d\d/\d\d-\d\d-\d\d", str(folders[1].relative_to(tmp_path)))
    assert [path for path in tmp_path.rglob("*") if not path.is_dir()] == []  # Hydra keeps nothing of its own there


@pytest.mark.parametrize("place", ["file/below", "file", "/proc/nowhere"])
@pytest.mark.parametrize("kind", ["hydra.run.dir", "-m hydra.sweep.dir"])
def test_a_run_folder_that_cannot_be_made_is_one_sentence(place: str, kind: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    text = sentence_of(lambda: jobs_of(f"{kind}={place} seed=3"))
    assert place in text and "hydra.run.dir=DIR" in text and "hydra.sweep.dir=DIR" in text


def test_a_refused_job_leaves_no_folder_but_those_that_were_there(tmp_path: Path) -> None:
    def refused(arguments: str) -> None:
        sentence_of(lambda: jobs_of(f"trainer.epochs=0 {arguments}"))

    refused("")
    refused("hydra.run.dir=a/b/c")
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "mine").mkdir()
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").write_text("")
    refused("hydra.run.dir=mine/new")
    refused("hydra.run.dir=full")
    refused("hydra.run.dir=full/new/er")
    refused("hydra.run.dir=.")
    assert sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*")) == ["full", "full/file"]


def test_an_empty_folder_that_was_there_before_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine").mkdir()
    changed = (tmp_path / "mine").stat().st_ctime
    monkeypatch.setattr(compose.time, "time", lambda: changed + 1)
    sentence_of(lambda: jobs_of("trainer.epochs=0 hydra.run.dir=mine"))
    assert (tmp_path / "mine").is_dir()


def test_an_error_of_the_task_is_not_taken_for_one_of_the_run_folder() -> None:
    def task(job: Job, folder: Path) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", "shard")

    for arguments in (["seed=1"], ["-m", "seed=1,2"]):
        with pytest.raises(OSError, match="No space left on device: 'shard'"):
            compose.run(arguments, task)


@pytest.mark.parametrize("arguments", ["-m {}", "{} -m", "trainer.keep=2 --multirun {}"])
def test_a_sweep_is_every_combination_in_folders_of_their_own(arguments: str, tmp_path: Path) -> None:
    done: list[tuple[int, int, Path]] = []
    compose.run(
        arguments.format("trainer.epochs=1,2 seed=3,4").split(),
        lambda job, folder: done.append((job.trainer.epochs, job.seed, folder)),
    )
    assert [entry[:2] for entry in done] == [(1, 3), (1, 4), (2, 3), (2, 4)]
    assert [folder.name for _, _, folder in done] == ["0", "1", "2", "3"]
    (parent,) = {folder.parent for _, _, folder in done}
    assert parent.is_relative_to(tmp_path / "multirun") and all(folder.is_dir() for _, _, folder in done)


def test_a_sweep_goes_on_after_a_bad_job_and_then_reports(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    done = []

    def task(job: Job, folder: Path) -> None:
        if job.trainer.epochs == 3:
            raise UserError("the data is not to be found")
        done.append(job.trainer.epochs)

    text = sentence_of(lambda: compose.run(["-m", "trainer.epochs=1,0,2"], task))
    assert done == [1, 2] and text.startswith("trainer.epochs is 0, so that nothing")
    assert capsys.readouterr().err == f"job 1 of the sweep failed: {text}\n"
    (day,) = (tmp_path / "multirun").iterdir()
    assert sorted(path.name for path in day.glob("*/*") if path.is_dir()) == ["0", "2"]

    done.clear()
    text = sentence_of(lambda: compose.run(["-m", "trainer.epochs=3,0,2"], task))
    assert done == [2] and text == "2 jobs of the sweep failed, the first of them so: the data is not to be found"
    assert capsys.readouterr().err.splitlines() == [
        "job 0 of the sweep failed: the data is not to be found",
        "job 1 of the sweep failed: trainer.epochs is 0, so that nothing is trained; give 1 or more (head.als_sweeps alone needs none)",
    ]


def test_nothing_of_a_sweep_runs_when_a_value_has_the_wrong_type() -> None:
    done: list[Job] = []
    sentence_of(lambda: compose.run(["-m", "trainer.epochs=1,many"], lambda job, folder: done.append(job)))
    assert done == []


def test_the_arguments_of_the_process_stay_as_they_were(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["pytest", "--flag"])
    job_of("trainer.epochs=2")
    sentence_of(lambda: jobs_of("trainer.epochs=0"))
    import sys

    assert sys.argv == ["pytest", "--flag"]


def test_cfg_shows_the_job_and_runs_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert jobs_of("--cfg job experiment=imdb trainer.epochs=7") == []
    shown = yaml.safe_load(capsys.readouterr().out)
    assert shown["trainer"]["epochs"] == 7 and shown["data"]["hub"] == "stanfordnlp/imdb"
    assert list(tmp_path.iterdir()) == []


# ---------------------------------------------------------------- the job as a run keeps it

ODD = [
    "",
    " ",
    "null",
    "~",
    "on",
    "no",
    "010",
    "1e3",
    "1_000",
    "2024-01-01",
    "${seed}",
    r"\${seed}",
    r"a\\${b",
    "a\nb",
    "é",
    "\0",
    "...",
    "# x",
    "a\x85",
    "\u2028b",
    "\ufeff",
]


def value_of(field: "dataclasses.Field[Any]", hint: Any) -> st.SearchStrategy[Any]:
    """Values that an option may have."""
    bounds = field.metadata
    if dataclasses.is_dataclass(hint):
        return instance_of(typing.cast(type, hint))
    parts = typing.get_args(hint)
    if type(None) in parts:
        return st.none() | value_of(field, parts[0])
    if typing.get_origin(hint) is list:
        return st.lists(value_of(field, parts[0]), max_size=3)
    if isinstance(hint, type) and issubclass(hint, Enum):
        return st.sampled_from(hint)
    if hint is bool:
        return st.booleans()
    if hint is int:
        multiple = bounds.get("multiple", 1)
        top = bounds.get("maximum", bounds.get("below", 2**63) - 1)
        return st.integers(-(-bounds["minimum"] // multiple), top // multiple).map(lambda value: value * multiple)
    if hint is float:
        return st.floats(
            bounds.get("minimum", bounds.get("above", 0.0)),
            bounds.get("below", bounds.get("maximum", 1e300)),
            exclude_min="above" in bounds,
            exclude_max="below" in bounds,
        )
    assert hint is str
    return st.sampled_from(ODD) | st.text(st.characters(exclude_categories=["Cs"]), max_size=8).filter(
        lambda text: text != "???"
    )


def instance_of(options_class: type) -> st.SearchStrategy[Any]:
    """Instances of a class of options."""
    hints = typing.get_type_hints(options_class)
    axes = AXES if options_class is Job else {}
    values = {
        field.name: axes[field.name]() if field.name in axes else value_of(field, hints[field.name])
        for field in dataclasses.fields(options_class)
    }
    return st.builds(options_class, **values)


def one_of_the(axis: dict[str, Any]) -> st.SearchStrategy[Any]:
    """Instances of the kinds of an axis."""
    return st.one_of(*map(instance_of, axis.values()))


NAMES = st.from_regex(r"[A-Za-z0-9_]{1,6}", fullmatch=True) | st.sampled_from(["null", "on", "1", "1e3"])
PATTERNS = [r"\w+", "a|b", "[${]x}", r"\${seed}", "\u2028", "no"]
AXES: dict[str, Callable[[], st.SearchStrategy[Any]]] = {
    "data": lambda: one_of_the(kinds.DATA),
    "head": lambda: one_of_the(kinds.HEADS),
    "tables": lambda: st.dictionaries(NAMES, one_of_the(kinds.TABLES), min_size=1, max_size=3),
    "features": lambda: st.just({}),
    "numbers": lambda: st.dictionaries(NAMES, instance_of(NumberConfig), max_size=2),
}


@st.composite
def good_jobs(draw: st.DrawFn) -> Job:
    """Jobs whose options go together."""
    job = draw(instance_of(Job))
    if isinstance(job.head, AutoencoderHead):
        job.tables = dict([*job.tables.items()][:1])
        job.numbers = {}
    tables = list(job.tables)
    pooled = [schema.Pooling.mean, schema.Pooling.sum]
    sequences = (
        tables[: draw(st.integers(1, len(tables)))] if isinstance(job.head, AttentionHead | AutoencoderHead) else []
    )
    for name, table in job.tables.items():
        columns = draw(
            st.dictionaries(
                NAMES, st.lists(value_of(COLUMN, str), min_size=1, max_size=3, unique=True), min_size=1, max_size=2
            )
        )
        crosses = isinstance(table, HashedTable | CompositionalTable | ManagedTable)
        crosses = crosses and getattr(table, "values", None) is None
        weighs = isinstance(table, IdsTable | BucketizedTable | TextTable) and not isinstance(table, SubwordTable)
        weighs = weighs and draw(st.booleans())
        for feature, (column, *others) in columns.items():
            pooling = schema.Pooling.none if name in sequences else draw(st.sampled_from(pooled))
            weights = draw(value_of(COLUMN, str)) if weighs else None
            job.features[f"{name}_{feature}"] = FeatureConfig(name, column, others if crosses else [], weights, pooling)
        if isinstance(job.head, AutoencoderHead):
            job.head.feature, own = job.features.popitem()
            job.head.another = f"another_{job.head.feature}"
            job.features = {job.head.feature: own, job.head.another: dataclasses.replace(own, of_another=True)}
        blocks = schema.Precision.int8 in (job.sharding.forward, job.sharding.backward)
        go_together(draw, table, 32 if blocks else 4)  # what travels as int8 goes in blocks of 32
        let_start(draw, table, job.optim.tables.kind)
        if weighs and isinstance(table, TextTable):
            table.ngrams, table.distinct = 1, False
    for optimizer in (job.optim.tables, job.optim.dense):
        if optimizer.kind.name == "sgd":
            optimizer.eps = None
    if job.data.validation_fraction == 0:
        job.trainer.early_stop = None
    recommend(draw, job)
    keep_what_can_be_placed(job)
    return job


def recommend(draw: st.DrawFn, job: Job) -> None:
    """Change those options of interactions, of ranking and of retrieval that do not go with others."""
    if not isinstance(job.head, schema.RetrievalHead):
        job.interactions, job.protocol = schema.InteractionsConfig(), schema.ProtocolConfig()
    own, head = job.interactions, job.head
    own.user, own.item, own.test_split = "user", "item", None
    own.min_rating = None if own.rating is None else 3.5
    if own.time is None and own.split is schema.Split.time:
        own.split = schema.Split.last
    job.protocol.at, job.protocol.slices = job.protocol.at or [10], []
    if isinstance(job.data, FilesData):
        job.data.negatives = None
    if getattr(job.data, "validation", None) is not None:
        own.split = schema.Split.rows
    if isinstance(head, schema.RetrievalHead):
        job.protocol.sampled = max(job.protocol.sampled, *job.protocol.at)
        job.protocol.candidates = draw(st.sampled_from([schema.Candidates.all, schema.Candidates.sampled]))
    for number in job.numbers.values():
        number.of = schema.Of.sample
    if isinstance(head, schema.RankingHead):
        head.labels, head.losses, head.label_weights = ["a", "b"], [schema.RankingLoss.binary], []
        head.hidden = head.hidden or [4]
        if isinstance(head, schema.DLRMHead | schema.DeepFMHead):
            one_width(job)
        if isinstance(head, schema.WideDeepHead):
            head.wide = [*job.features][:1]
            job.numbers = job.numbers or {"n": NumberConfig("n")}
    if isinstance(head, schema.RetrievalHead):
        retrieve(job, head)
    job.trainer.epochs = max(job.trainer.epochs, 1)
    job.trainer.monitor = draw(st.sampled_from([None, *figures_of(job)]))


def one_width(job: Job) -> None:
    """Make one table with one width of all, which heads that compare vectors ask for."""
    name, table = next(iter(job.tables.items()))
    job.tables = {name: table}
    job.features = {key: each for key, each in job.features.items() if each.table == name}
    if isinstance(job.head, schema.DLRMHead) and len(job.features) == 1 and not job.numbers:
        job.numbers = {"n": NumberConfig("n")}


def retrieve(job: Job, head: schema.RetrievalHead) -> None:
    """Change what retrieval does not take."""
    one_width(job)
    job.numbers, head.user_hidden, head.item_hidden, head.als_sweeps, head.hard = {}, [], [], 0, 0
    feature = next(iter(job.features.values()))
    feature.crossed_with, feature.weights = [], None
    job.features = {"i": dataclasses.replace(feature, column="item", of=schema.Of.item)}
    if isinstance(head, schema.TwoTowerHead):
        job.features["u"] = dataclasses.replace(feature, column="user", of=schema.Of.user)
    head.shared = head.loss is not schema.RetrievalLoss.warp
    head.negatives, head.in_batch = max(head.negatives, 1), head.in_batch and head.shared
    if head.sampling is schema.Sampling.all:
        head.in_batch, head.sampling = False, schema.Sampling.all if head.shared else schema.Sampling.uniform
    if isinstance(head, schema.SequenceHead):
        head.time_buckets = 0
    if isinstance(head, schema.SASRecHead):
        head.heads = 1


def go_together(draw: st.DrawFn, table: schema.TableConfig, lane: int) -> None:
    """Change those options of a table that do not go with others; its parts become multiples of ``lane`` wide."""
    table.dim = min(-(-table.dim // lane) * lane, 65_536)
    if isinstance(table, TextTable):
        table.pattern = draw(st.sampled_from(PATTERNS)) if table.tokens is schema.Tokens.regex else None
    if isinstance(table, HashedTable):
        table.importance = None if table.sign or lane > 4 else table.importance
    elif isinstance(table, CompositionalTable):
        table.partitions = draw(st.lists(st.integers(1, 2**20), min_size=2, max_size=3))
        table.dim = lane * len(table.partitions) if table.combine is schema.Combine.concat else table.dim
        if table.values is not None:
            table.values = draw(st.integers(1, math.prod(table.partitions)))
            table.ngrams, table.salt = 1, 0
    elif isinstance(table, SubwordTable):
        table.min_n, table.max_n = sorted([table.min_n, table.max_n])
    elif isinstance(table, BucketizedTable):
        table.scheme = schema.Scheme.given if table.borders else schema.Scheme.log
        table.borders = sorted(set(table.borders))
    elif isinstance(table, MixedTable):
        table.blocks = table.blocks or [7]
        table.widths = draw(
            st.lists(st.sampled_from([32, 64, 96]), min_size=len(table.blocks) + 1, max_size=len(table.blocks) + 1)
        )
    elif isinstance(table, ManagedTable) and table.policy is not schema.Policy.distance_lfu:
        table.decay = 1.0


def let_start(draw: st.DrawFn, table: schema.TableConfig, optimizer: schema.TableOptimizer) -> None:
    """Change those options of pretrained vectors that do not go with others."""
    pretrained = table.pretrained
    if not pretrained.path:
        table.pretrained = schema.PretrainedConfig()
        return
    pretrained.others = [path for path in pretrained.others if path]
    if not pretrained.others or pretrained.dimension is schema.Mismatch.project:
        pretrained.join = schema.Join.in_order
    if pretrained.table is not None:
        pretrained.word_list = None
    if type(table) not in (VocabTable, SubwordTable):
        pretrained.vocabulary = schema.Vocabulary.data
    if not isinstance(table, schema.TokenizerTable):
        pretrained.fallback = [each for each in pretrained.fallback if each is not schema.Fallback.piece]
    ends = [schema.Fallback.mean, schema.Fallback.normal, schema.Fallback.zeros]
    if isinstance(table, VocabTable | SubwordTable | schema.TokenizerTable):
        forms = [each for each in dict.fromkeys(pretrained.fallback) if each not in ends]
        pretrained.fallback = forms + draw(st.sampled_from([[], *([each] for each in ends)]))
    else:
        pretrained.fallback = [schema.Fallback.subwords]
    pretrained.lemmas = draw(value_of(COLUMN, str)) if schema.Fallback.lemma in pretrained.fallback else None
    pretrained.remove_components = min(pretrained.remove_components, table.dim - 1)
    if pretrained.freeze is schema.Freeze.rows and optimizer is schema.TableOptimizer.sgd:
        pretrained.freeze = schema.Freeze.none
    if pretrained.freeze is schema.Freeze.none:
        pretrained.freeze_steps = None
    elif pretrained.freeze is schema.Freeze.table and pretrained.freeze_steps is None:
        pretrained.pull, table.lr = 0.0, None


def keep_what_can_be_placed(job: Job) -> None:
    """Take the sharding options of a job one after another, but not those that do not go with what was taken before."""
    device = "cpu" if job.runtime.device is schema.Device.cpu else "cuda"
    nodes: list[Any] = [*job.tables.values(), *(table.sharding for table in job.tables.values()), job.sharding]
    of_a_table = ["rounding", "dtype"]
    drawn = []
    for node in nodes:
        names = (
            of_a_table if isinstance(node, schema.TableConfig) else [field.name for field in dataclasses.fields(node)]
        )
        drawn += [(node, name, getattr(node, name)) for name in names]
    for node, name, _ in drawn:
        setattr(node, name, getattr(type(node)(), name))
    for node, name, value in drawn:
        before = getattr(node, name)
        setattr(node, name, value)
        try:
            check_placement(physical(job), device)
        except UserError:
            setattr(node, name, before)


COLUMN = next(field for field in dataclasses.fields(FeatureConfig) if field.name == "column")


def test_a_saved_job_is_the_same_job() -> None:
    seen: Counter[Any] = Counter()

    @settings(max_examples=220, derandomize=True, deadline=None)
    @given(job=good_jobs())
    def comes_back(job: Job) -> None:
        with tempfile.TemporaryDirectory() as folder:
            saved.save(job, Path(folder))
            again = saved.load(Path(folder))
        assert again == job
        assert [type(table) for table in again.tables.values()] == [type(table) for table in job.tables.values()]
        assert list(again.tables) == list(job.tables) and list(again.features) == list(job.features)
        assert saved.differences(job, again) == []
        chosen = {job.sharding.kind, job.sharding.kernel, job.sharding.forward, type(job.data), type(job.head)}
        for table in job.tables.values():
            chosen |= {table.sharding.kind, table.sharding.kernel, table.dtype, type(table)}
            chosen |= {table.combine} if isinstance(table, CompositionalTable) else set()
            chosen |= (
                {f"sign {table.sign}", f"importance {table.importance is not None}"}
                if isinstance(table, HashedTable)
                else set()
            )
        for feature in job.features.values():
            chosen |= {"crossed"} if feature.crossed_with else set()
            chosen |= {"weighted"} if feature.weights is not None else set()
        seen.update(chosen | ({"numbers"} if job.numbers else set()))

    comes_back()
    options_of_kinds = {"sign True", "sign False", "importance True", "importance False"}
    assert {*options_of_kinds, "crossed", "weighted", "numbers"} <= seen.keys()
    assert len({*schema.Combine} & seen.keys()) >= 2
    assert {*kinds.DATA.values(), *kinds.TABLES.values(), *kinds.HEADS.values()} <= seen.keys()
    choices = {*schema.Kind, *schema.DType, *schema.Precision, *schema.Kernel}
    assert len(choices & seen.keys()) >= 15


def test_every_kind_is_saved_and_read_back(tmp_path: Path) -> None:
    seen = set()
    for job in example_jobs():
        saved.save(job, tmp_path)
        again = saved.load(tmp_path)
        assert again == job and (type(again.data), type(again.head)) == (type(job.data), type(job.head))
        seen |= {type(again.data), type(again.head), type(again.tables["t"])}
        assert [path.name for path in tmp_path.iterdir()] == ["job.yaml"]
    assert seen == {*kinds.DATA.values(), *kinds.TABLES.values(), *kinds.HEADS.values()} and len(seen) == 23


def test_a_job_of_an_earlier_version_gets_the_defaults_of_newer_options(tmp_path: Path) -> None:
    job = example_jobs()[0]
    saved.save(job, tmp_path)
    text = (tmp_path / "job.yaml").read_text()
    assert text.count("report_every") == 1
    (tmp_path / "job.yaml").write_text(re.sub(r" *report_every: .*\n", "", text))
    assert saved.load(tmp_path) == job
    values = saved.as_dict(job)
    del values["sharding"], values["plan"], values["tables"]["t"]["sharding"], values["tables"]["t"]["dtype"]
    assert saved.from_dict(values) == job


DAMAGED: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "cut short"),
    "binary": (b"\xff\xfe\x00", "utf-8"),
    "no YAML": (b"job: [1\n...\n", "while parsing"),
    "code": (b"job: !!python/object/apply:os.getcwd []\n...\n", "python/object"),
    "a text": (b"hello\n...\n", "no node 'job'"),
    "a list": (b"- 1\n...\n", "no node 'job'"),
    "no job": (b"bigembed: 0.1.0\n...\n", "no node 'job'"),
    "a job that is a number": (b"job: 3\n...\n", "no node 'job'"),
    "an empty job": (b"job: {}\n...\n", "it has no 'data'"),
    "no head": (b"job: {data: {kind: files}, tables: {}}\n...\n", "it has no 'head'"),
    "no kind": (b"job: {data: {}, head: {kind: bag}, tables: {}}\n...\n", "it has no 'kind'"),
    "unknown kind": (
        b"job: {data: {kind: tape}, head: {kind: bag}, tables: {}}\n...\n",
        "data.kind is 'tape'; known: generated, clicks, files",
    ),
    "unknown table kind": (
        b"job: {data: {kind: files}, head: {kind: bag}, tables: {a: {kind: x}}}\n...\n",
        "tables.a.kind is 'x'; known: vocab, hashed, ids, compositional, subword",
    ),
    "unknown head": (
        b"job: {data: {kind: files}, head: {kind: x}, tables: {}}\n...\n",
        "head.kind is 'x'; known: bag, attention",
    ),
    "unknown kind of sharding": (
        b"job: {data: {kind: files}, head: {kind: bag}, tables: {a: {kind: ids, sharding: {kind: rows}}}}\n...\n",
        "tables.a.sharding.kind: Invalid value 'rows'",
    ),
    "a kind that is a list": (b"job: {data: {kind: [1]}, head: {kind: bag}, tables: {}}\n...\n", ""),
    "data that is a number": (b"job: {data: 3, head: {kind: bag}, tables: {}}\n...\n", ""),
    "tables that are a list": (b"job: {data: {kind: files}, head: {kind: bag}, tables: [1]}\n...\n", ""),
    "unknown option": (b"job: {data: {kind: files, pith: x}, head: {kind: bag}, tables: {}}\n...\n", "data.pith: "),
    "unknown node": (b"job: {data: {kind: files}, head: {kind: bag}, tables: {}, trains: 1}\n...\n", "trains"),
    "wrong type": (
        b"job: {data: {kind: files}, head: {kind: bag}, tables: {}, trainer: {epochs: x}}\n...\n",
        "trainer.epochs: Value 'x'",
    ),
    "null": (b"job: {data: {kind: files}, head: {kind: bag}, tables: {}, seed: null}\n...\n", "seed"),
}


@pytest.mark.parametrize("content", DAMAGED)
def test_a_damaged_job_file_is_refused_in_one_sentence(content: str, tmp_path: Path) -> None:
    written, part = DAMAGED[content]
    (tmp_path / "job.yaml").write_bytes(written)
    text = sentence_of(lambda: saved.load(tmp_path))
    assert text.startswith(f"{tmp_path / 'job.yaml'} cannot be read as a job: ") and part in text


def test_a_job_file_that_is_cut_anywhere_is_refused(tmp_path: Path) -> None:
    saved.save(example_jobs()[1], tmp_path)
    whole = (tmp_path / "job.yaml").read_bytes()
    cuts = [*range(0, len(whole) - 1, 37), *(match.end() for match in re.finditer(b"\n", whole[:-1]))]
    assert len(cuts) > 60
    for cut in cuts:
        (tmp_path / "job.yaml").write_bytes(whole[:cut])
        assert "cannot be read as a job" in sentence_of(lambda: saved.load(tmp_path))


def test_a_folder_that_is_no_run_is_refused_in_one_sentence(tmp_path: Path) -> None:
    assert "is no folder" in sentence_of(lambda: saved.load(tmp_path / "nowhere"))
    assert "holds no job.yaml" in sentence_of(lambda: saved.load(tmp_path))


def test_overrides_of_a_saved_job() -> None:
    generated, files, *_ = example_jobs()
    before = saved.as_dict(files)
    job = saved.override(
        files,
        [
            "trainer.keep=2",
            "data.path=/a=b c,d",
            "tables.t.dim=32",
            "optim.tables.kind=sgd",
            "head.hidden=[8, 4]",
            "runtime.threads=3",
            "tables.t.sharding.kind=row_wise",
            "sharding.forward=fp16",
            "plan.world_size=8",
        ],
    )
    assert (job.trainer.keep, job.tables["t"].dim, job.runtime.threads) == (2, 32, 3)
    assert job.data == FilesData(path="/a=b c,d") and job.head == BagHead(hidden=[8, 4])
    assert (job.tables["t"].sharding.kind, job.sharding.kind) == (schema.Kind.row_wise, schema.Kind.auto)
    assert (job.sharding.forward, job.plan.world_size) == (schema.Precision.fp16, 8)
    assert job.optim.tables.kind is schema.TableOptimizer.sgd
    assert saved.as_dict(files) == before, "the job that is overridden stays as it is"
    assert saved.override(generated, []) == generated


@pytest.mark.parametrize(
    ("text", "value"),
    [("010", "010"), ("no", "no"), ("1e3", "1e3"), ("2024-01-01", "2024-01-01"), ("~/x", "~/x"), ("'a b'", "a b"),
     ('"a"', "a"), ("null", None), ("${x}", "${x}"), ("[a]", "[a]"), ("a: b", "a: b")],
)  # fmt: skip
def test_an_override_of_a_text_is_taken_as_it_stands(text: str, value: str | None) -> None:
    job = saved.override(example_jobs()[1], [f"data.path={text}"])
    assert job.data == FilesData(path=value)


@pytest.mark.parametrize(
    ("override", "part"),
    [
        ("trainer.keep", "'trainer.keep' is not an override of the form key=value"),
        ("trainer.kept=1", "no option 'trainer.kept'"),
        ("trainer=1", "no option 'trainer'"),
        ("tables.t=1", "no option 'tables.t'"),
        ("tables.other.dim=8", "no option 'tables.other.dim'"),
        ("data.kind=generated", "no option 'data.kind'"),
        ("trainer.keep.more=1", "no option 'trainer.keep.more'"),
        ("=1", "no option ''"),
        ("trainer.keep=[1", "trainer.keep=[1: while parsing"),
        ("trainer.keep=", "trainer.keep"),
        ("data.path='x", "data.path='x: while scanning"),
    ],
)
def test_a_wrong_override_of_a_saved_job_is_one_sentence(override: str, part: str) -> None:
    assert part in sentence_of(lambda: saved.override(example_jobs()[1], [override]))


def test_differences_name_every_option_that_differs_and_no_other() -> None:
    named = set()
    for job, path, field, hint in every_option():
        values = {int: "8", float: "0.25", str: "other", bool: str(not field.default).lower()}
        bare = next((part for part in typing.get_args(hint) if part is not type(None)), hint)
        listed = {
            list[str]: "['8']",
            list[float]: "[8.0]",
            list[schema.Fallback]: "['case']",
            list[schema.RankingLoss]: "['squared']",
        }.get(hint, "[8]")
        value = listed if typing.get_origin(hint) is list else values.get(bare) or list(bare)[-1].name
        after = saved.override(job, [f"{path}={value}"])
        if after == job:
            value = {bool: "false", int: "12"}.get(bare) or next(iter(bare)).name
            after = saved.override(job, [f"{path}={value}"])
        (text,) = saved.differences(job, after)
        assert text.startswith(f"{path} (") and text.endswith(
            f" → {value})".replace("true)", "True)").replace("false)", "False)")
        )
        named.add(path)
    assert len(named) >= 84


def test_differences_between_kinds_name_the_kind() -> None:
    generated, files, *_ = example_jobs()
    texts = saved.differences(generated, files)
    assert "data.kind (generated → files)" in texts and "tables.t.kind (vocab → hashed)" in texts
    assert "tables.t.salt (None → 0)" in texts


# ---------------------------------------------------------------- the other commands


def test_arguments_of_a_command_are_typed() -> None:
    given, of_the_job = parse(["run=a=b", "checkpoint=last", "data.path=x", "output=null"], schema.EvaluateOptions)
    assert given == schema.EvaluateOptions(run="a=b", checkpoint=schema.Which.last)
    assert of_the_job == ["data.path=x"]


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["run"], ["'run' is not of the form key=value"]),
        (["rum=x"], ["no option 'rum'", "run, output, picture, checkpoint"]),
        ([], ["run= is missing: Run folder."]),
        (["run="], ["run= is missing"]),
        (["run=null"], ["run= is missing"]),
        (["run=x", "checkpoint=first"], ["checkpoint", "'first'", "[best, last]"]),
    ],
)
def test_a_wrong_argument_of_a_command_is_one_sentence(arguments: list[str], parts: list[str]) -> None:
    with pytest.raises(UserError) as caught:
        parse(arguments, schema.EvaluateOptions)
    assert "\n" not in str(caught.value)
    for part in parts:
        assert part in str(caught.value)
