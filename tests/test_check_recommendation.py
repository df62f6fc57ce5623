"""Options of ranking and retrieval that do not go together: every refusal of the check is tried, each is one sentence."""

from pathlib import Path
from typing import Any

import pytest

from bigembed.config import check_recommendation, kinds, saved, schema
from bigembed.config.check import check
from bigembed.config.schema import FeatureConfig, FilesData, Job, NumberConfig, Of, VocabTable
from bigembed.errors import UserError


def ranking(name: str, features: int = 2, numbers: bool = False) -> Job:
    """A job that ranks by features a, b, …, each with a table of its own."""
    names = "abc"[:features]
    head: Any = kinds.HEADS[name]()
    if isinstance(head, schema.WideDeepHead):
        head.wide = ["a"]
    job = Job(data=FilesData(), tables={each: VocabTable() for each in names}, head=head)
    job.features = {each: FeatureConfig(each, column=each) for each in names}
    job.numbers = {"n": NumberConfig(column="n")} if numbers else {}
    return job


def retrieval(name: str = "two_tower") -> Job:
    """A job that finds items by their ids for users, or for histories."""
    head: Any = kinds.HEADS[name]()
    job = Job(data=FilesData(), tables={"i": VocabTable(dim=8)}, head=head)
    job.features = {"i": FeatureConfig("i", column="item", of=Of.item)}
    if name == "two_tower":
        job.tables["u"] = VocabTable(dim=8)
        job.features["u"] = FeatureConfig("u", column="user", of=Of.user)
    return job


def with_number(of: str) -> Job:
    job = retrieval()
    job.data.users = job.data.items = "FILE"  # type: ignore[attr-defined]
    job.numbers = {"n": NumberConfig(column="n", of=Of[of])}
    return job


def of_three() -> Job:
    job = retrieval()
    job.data.items = "FILE"  # type: ignore[attr-defined]
    job.tables["g"] = VocabTable(dim=16)
    job.features["g"] = FeatureConfig("g", column="genre", of=Of.item)
    return job


REFUSED: list[tuple[Job, str, list[str]]] = [
    (ranking("dlrm"), "trainer.epochs=0", ["trainer.epochs is 0"]),
    (ranking("dlrm"), "trainer.monitor=ndcg@10", ["trainer.monitor is ndcg@10", "auc"]),
    (ranking("dlrm"), "data.negatives=FILE", ["data.negatives"]),
    (ranking("dlrm"), "interactions.split=last", ["interactions.split", "two_tower"]),
    (ranking("dlrm"), "protocol.at=[7]", ["protocol.at"]),
    (ranking("dlrm"), "interactions.item=user", ["'user'"]),
    (ranking("dlrm"), "features.a.of=user", ["features.a.of is user", "'a'", "data.users"]),
    (ranking("dlrm"), "head.labels=[]", ["head.labels is empty"]),
    (ranking("dlrm"), "head.losses=[binary,squared]", ["head.losses has 2 entries for 1"]),
    (ranking("dlrm"), "head.label_weights=[1.0,2.0]", ["head.label_weights has 2"]),
    (ranking("dlrm"), "head.labels=[x,x]", ["names a column twice"]),
    (ranking("dlrm"), "head.label_weights=[0.0]", ["all 0"]),
    (ranking("dlrm"), "head.losses=[squared] head.group=user", ["head.group"]),
    (ranking("dlrm"), "head.experts=2 head.hidden=[]", ["head.experts is 2"]),
    (ranking("dlrm", 1), "seed=1", ["one feature alone"]),
    (ranking("deepfm"), "tables.a.dim=8", ["a 8, b 16"]),
    (ranking("wide_deep"), "head.wide=[]", ["head.wide"]),
    (ranking("wide_deep"), "head.wide=[nothing]", ["'nothing'", "a, b"]),
    (ranking("wide_deep"), "head.wide=[a,a]", ["twice"]),
    (ranking("wide_deep"), "head.wide=[a,b]", ["nothing is left"]),
    (retrieval(), "features.u.of=sample", ["features.u.of is sample"]),
    (retrieval(), "features.i.of=user features.i.column=user", ["a feature of items"]),
    (retrieval(), "features.u.of=item features.u.column=item", ["a feature of users"]),
    (of_three(), "seed=1", ["items differ in width", "head.item_hidden"]),
    (with_number("user"), "seed=1", ["numbers.n", "head.user_hidden"]),
    (retrieval("sasrec"), "head.user_hidden=[8]", ["head.user_hidden has no features"]),
    (retrieval(), "head.user_hidden=[4]", ["users are 4 wide", "items 8"]),
    (retrieval("sasrec"), "head.heads=3", ["head.heads is 3", "8"]),
    (retrieval(), "head.sampling=all head.in_batch=true", ["head.sampling=all"]),
    (retrieval(), "head.negatives=0", ["no negatives"]),
    (retrieval(), "head.negatives=0 head.in_batch=true head.shared=false", ["head.shared=false"]),
    (retrieval(), "head.loss=warp", ["head.loss=warp"]),
    (retrieval(), "head.hard=300", ["head.hard is 300", "256"]),
    (retrieval(), "head.loss=warp head.shared=false head.hard=2", ["head.hard"]),
    (retrieval(), "head.similarity=cosine head.als_sweeps=1", ["head.als_sweeps fits dot products"]),
    (retrieval("sasrec"), "head.time_buckets=4", ["interactions.time"]),
    (retrieval("sasrec"), "head.time_buckets=1 interactions.time=t", ["head.time_buckets is 1"]),
    (retrieval("sasrec"), "head.als_sweeps=1", ["one table of user ids"]),
    (retrieval(), "head.als_sweeps=1 tables.u.ngrams=2", ["tables.u"]),
    (retrieval(), "head.als_sweeps=1 tables.i.pretrained.path=FILE", ["tables.i.pretrained.path"]),
    (retrieval(), "head.als_sweeps=1 grow=RUN", ["head.als_sweeps"]),
    (retrieval(), "protocol.candidates=given", ["data.negatives"]),
    (retrieval(), "protocol.candidates=sampled protocol.sampled=9 protocol.at=[5,10]", ["lists of 10"]),
    (retrieval(), "protocol.candidates=given data.negatives=FILE data.test=null", ["data.test is null"]),
    (retrieval(), "interactions.split=last data.validation=FILE", ["interactions.split=last", "data.validation"]),
    (retrieval(), "data.negatives=FILE", ["protocol.candidates=given"]),
    (retrieval(), "protocol.at=[]", ["protocol.at is empty"]),
    (retrieval(), "interactions.min_rating=3", ["interactions.rating"]),
    (retrieval(), "interactions.test_split=last", ["data.test=null"]),
    (retrieval(), "interactions.split=time", ["interactions.time"]),
    (retrieval(), "protocol.slices=[age]", ["'age'", "data.users"]),
]


def refusal_of(job: Job, overrides: str) -> tuple[str, int]:
    """What is said, and the line of the check that says it."""
    with pytest.raises(UserError) as caught:
        check(saved.override(job, overrides.split()))
    last = caught.traceback[-1]
    assert Path(last.path).name == "check_recommendation.py", str(caught.value)
    return str(caught.value), last.lineno + 1


@pytest.mark.parametrize(("job", "overrides", "parts"), REFUSED, ids=[each[1] for each in REFUSED])
def test_options_that_do_not_go_together_are_one_sentence(job: Job, overrides: str, parts: list[str]) -> None:
    text, _ = refusal_of(job, overrides)
    assert all(part in text for part in parts), text
    assert "\n" not in text and not text.endswith(".")


def test_every_refusal_of_the_check_is_tried() -> None:
    tried = {refusal_of(job, overrides)[1] for job, overrides, _ in REFUSED}
    lines = Path(check_recommendation.__file__).read_text().splitlines()
    raised = {number for number, line in enumerate(lines, 1) if "raise UserError(" in line}
    assert raised <= tried, raised - tried
    assert len(raised) >= 45


def test_what_is_right_but_for_the_one_thing_refused_passes() -> None:
    jobs = [ranking(name) for name in ("dlrm", "dcnv2", "deepfm", "wide_deep")]
    jobs += [retrieval(name) for name in ("two_tower", "sasrec", "gru4rec", "history")]
    jobs += [saved.override(retrieval(), ["head.als_sweeps=1", "trainer.epochs=0"])]
    jobs += [saved.override(with_number("user"), ["head.user_hidden=[8]"])]
    for job in jobs:
        check(job)
    assert len(jobs) == 10
