"""Options of pretrained vectors: which go together, what becomes of their paths, and what a run may be continued with."""

import shlex
from collections import Counter
from pathlib import Path

import pytest

from bigembed import run
from bigembed.config import check_pretrained, saved
from bigembed.config.check import check
from bigembed.config.physical import physical
from bigembed.config.schema import (
    BucketizedTable,
    CompositionalTable,
    FeatureConfig,
    Freeze,
    HashedTable,
    IdsTable,
    Job,
    ManagedTable,
    MixedTable,
    PretrainedConfig,
    SubwordTable,
    TableConfig,
    TokenizerTable,
    VocabTable,
)
from bigembed.errors import UserError

TABLES = {
    "vocab": VocabTable,
    "subword": SubwordTable,
    "hashed": HashedTable,
    "ids": IdsTable,
    "mixed": MixedTable,
    "managed": ManagedTable,
    "compositional": CompositionalTable,
    "bucketized": BucketizedTable,
    "tokenizer": TokenizerTable,
}


def job_of(text: str) -> Job:
    """A job of one table, "word", from its kind and options; those without a path of their own are of its pretrained vectors."""
    kind, *options = shlex.split(text)
    table: TableConfig = TABLES[kind](dim=8)
    job = Job(tables={"word": table}, features={"text": FeatureConfig("word")})
    job = saved.from_dict(saved.as_dict(job) | {"data": {"kind": "generated"}, "head": {"kind": "bag"}})
    paths = [option if "." in option.partition("=")[0] else f"tables.word.pretrained.{option}" for option in options]
    return saved.override(job, paths)


# One case or more for each sentence.
REFUSED = {
    "vocab others=[b.vec]": "tables.word.pretrained.others goes with tables.word.pretrained.path",
    "vocab join=concatenated": "tables.word.pretrained.join goes with",
    "vocab word_list=w": "tables.word.pretrained.word_list goes with",
    "vocab table=t": "tables.word.pretrained.table goes with",
    "vocab vocabulary=union": "tables.word.pretrained.vocabulary goes with",
    "vocab fallback=[]": "tables.word.pretrained.fallback goes with",
    "vocab lemmas=l": "tables.word.pretrained.lemmas goes with",
    "vocab dimension=pad": "tables.word.pretrained.dimension goes with",
    "vocab normalise=true": "tables.word.pretrained.normalise goes with",
    "vocab centre=true": "tables.word.pretrained.centre goes with",
    "vocab remove_components=1": "tables.word.pretrained.remove_components goes with",
    "vocab freeze=rows": "tables.word.pretrained.freeze goes with",
    "vocab freeze_steps=3": "tables.word.pretrained.freeze_steps goes with",
    "vocab pull=0.1": "tables.word.pretrained.pull goes with",
    "vocab path=a \"others=['']\"": "one of the names is empty",
    "vocab path=a fallback=[piece]": "tables.word.pretrained.fallback names piece, but only tokenizers",
    "vocab path=a.npy word_list=w table=t": "tables.word.pretrained.word_list is for a file of rows without words",
    "vocab path=a join=concatenated": "tables.word.pretrained.others is empty",
    "vocab path=a others=[b] join=concatenated dimension=project": "tables.word.pretrained.dimension=project is for",
    "vocab path=a fallback=[case,digits,case]": "tables.word.pretrained.fallback names case twice",
    "vocab path=a fallback=[zeros,case]": "tables.word.pretrained.fallback: case comes after zeros",
    "vocab path=a fallback=[mean,normal]": "tables.word.pretrained.fallback: normal comes after mean",
    "vocab path=a fallback=[normal,subwords]": "subwords comes after normal",
    "vocab path=a fallback=[lemma]": "tables.word.pretrained.fallback=[lemma] needs tables.word.pretrained.lemmas",
    "vocab path=a lemmas=l": "tables.word.pretrained.lemmas goes with the fall-back lemma",
    "hashed path=a vocabulary=file": "tables.word.pretrained.vocabulary=file is for tables that learn words",
    "mixed path=a vocabulary=union": "tables.word.pretrained.vocabulary=union",
    "tokenizer path=a vocabulary=intersection": "tables.word.pretrained.vocabulary=intersection",
    "hashed path=a fallback=[case,unicode]": "tables.word.pretrained.fallback names unicode, which is for words",
    "hashed path=a fallback=[mean]": "fallback names mean, which is for words",
    "managed path=a fallback=[digits]": "fallback names digits",
    "compositional path=a fallback=[case]": "fallback names case",
    "ids path=a fallback=[lemma] lemmas=l": "fallback names lemma",
    "bucketized path=a fallback=[subwords,zeros]": "fallback names zeros",
    "vocab path=a remove_components=8": "tables.word.pretrained.remove_components is 8, but vectors 8 wide",
    "vocab path=a remove_components=9 dimension=pad": "tables.word.pretrained.remove_components is 9",
    "vocab path=a freeze_steps=3": "tables.word.pretrained.freeze_steps needs tables.word.pretrained.freeze=rows or table",
    "vocab path=a freeze=rows optim.tables.kind=sgd": "tables.word.pretrained.freeze=rows needs the state of an Adagrad",
    "vocab path=a freeze=rows freeze_steps=5 optim.tables.kind=sgd": "optim.tables.kind=sgd has not",
    "vocab path=a freeze=table pull=0.1": "tables.word.pretrained.pull pulls back what has moved",
    "vocab path=a freeze=table tables.word.lr=0.1": "tables.word.lr has no meaning with tables.word.pretrained.freeze=table",
}

TAKEN = [
    "vocab",
    *(f"{kind} path=a" for kind in TABLES),
    "vocab path=a.zip::b.txt others=[c,d] join=concatenated dimension=pad",
    "vocab path=run table=other vocabulary=file fallback=[unicode,case,lemma,digits,subwords,mean] lemmas=l",
    "subword path=a word_list=w vocabulary=intersection fallback=[normal]",
    "tokenizer path=a fallback=[case]",
    "hashed path=a fallback=[case,subwords]",
    "ids path=a fallback=[]",
    "vocab path=a remove_components=7",
    "vocab path=a remove_components=9 dimension=project",
    "vocab path=a normalise=true centre=true freeze=rows freeze_steps=4 pull=0.5 tables.word.lr=0.1",
    "vocab path=a freeze=table optim.tables.kind=sgd",
    "vocab path=a freeze=table freeze_steps=4 pull=0.5 tables.word.lr=0.1",
    "vocab tables.word.lr=0.1",
]


def refusal_of(text: str) -> tuple[str, int]:
    """The sentence that refuses a job, and the line that says it."""
    with pytest.raises(UserError) as caught:
        check(job_of(text))
    last = caught.traceback[-1]
    assert Path(last.path).name == "check_pretrained.py"
    return str(caught.value), last.lineno + 1


@pytest.mark.parametrize(("text", "part"), REFUSED.items())
def test_options_that_do_not_go_together_are_one_sentence(text: str, part: str) -> None:
    sentence, _ = refusal_of(text)
    assert part in sentence and sentence == sentence.strip() and "\n" not in sentence and not sentence.endswith(".")


def test_every_refusal_is_tried_and_every_option_without_a_path() -> None:
    tried = Counter(line for _, line in map(refusal_of, REFUSED))
    source = Path(check_pretrained.__file__).read_text().splitlines()
    raised = {number for number, line in enumerate(source, 1) if "raise UserError(" in line}
    assert raised == tried.keys() and len(raised) == 16
    without = [text.split()[1].partition("=")[0] for text in REFUSED if " path=" not in text]
    assert {"path", *without} == set(PretrainedConfig.__dataclass_fields__)


@pytest.mark.parametrize("text", TAKEN)
def test_options_that_go_together_are_taken(text: str) -> None:
    check(job_of(text))


def test_every_part_of_a_table_starts_from_the_vectors_of_the_table() -> None:
    job = job_of("mixed path=a freeze=rows tables.word.lr=0.5 tables.word.widths=[16,8] tables.word.blocks=[3]")
    parts = physical(job).tables
    assert list(parts) == ["word-0", "word-1"]
    assert {(part.pretrained.path, part.pretrained.freeze, part.lr) for part in parts.values()} == {
        ("a", Freeze.rows, 0.5)
    }


def test_paths_become_absolute_and_members_of_archives_stay_such(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    job = job_of(
        "vocab path=v.zip::a/b.txt others=[~/c.vec,/d.bin,e::f] fallback=[lemma] lemmas=l.txt word_list=../words"
    )
    run.absolute_paths(job, Path("/base"))
    pretrained = job.tables["word"].pretrained
    assert pretrained.path == "/base/v.zip::a/b.txt"
    assert pretrained.others == ["/home/me/c.vec", "/d.bin", "/base/e::f"]
    assert (pretrained.lemmas, pretrained.word_list) == ("/base/l.txt", "/base/../words")
    untouched = job_of("vocab")
    run.absolute_paths(untouched, Path("/base"))
    assert untouched == job_of("vocab")


def test_a_run_goes_on_with_files_elsewhere_but_not_as_another_start() -> None:
    before = job_of("vocab path=a others=[b] word_list=w fallback=[lemma] lemmas=l")
    for option, value in (("path", "x"), ("others", "[x]"), ("word_list", "x"), ("lemmas", "x")):
        after = saved.override(before, [f"tables.word.pretrained.{option}={value}"])
        (difference,) = saved.differences(before, after)
        assert run.is_free(difference), difference
    others = set(PretrainedConfig.__dataclass_fields__) - {"path", "others", "word_list", "lemmas"}
    assert len(others) >= 11
    assert not any(run.is_free(f"tables.word.pretrained.{option} (a → b)") for option in others)
