"""Which options of ranking and retrieval go together. No torch, no data."""

from dataclasses import fields, replace
from enum import Enum
from typing import Any

from bigembed.config.figures import figures_of
from bigembed.config.schema import (
    Candidates,
    DeepFMHead,
    DLRMHead,
    FeatureConfig,
    FilesData,
    IdsTable,
    InteractionsConfig,
    Job,
    NumberConfig,
    Of,
    ProtocolConfig,
    RankingHead,
    RankingLoss,
    RetrievalHead,
    RetrievalLoss,
    Sampling,
    SASRecHead,
    SequenceHead,
    Similarity,
    Split,
    TwoTowerHead,
    VocabTable,
    WideDeepHead,
)
from bigembed.errors import UserError


def check_recommendation(job: Job) -> None:
    """Refuse heads, features, interactions and protocols that contradict each other.

    Raises
    ------
    UserError
        Naming the option and what would be right.
    """
    _check_whose(job)
    factorised = isinstance(job.head, RetrievalHead) and job.head.als_sweeps
    if not job.trainer.epochs and job.trainer.steps is None and not factorised:
        raise UserError(
            "trainer.epochs is 0, so that nothing is trained; give 1 or more (head.als_sweeps alone needs none)"
        )
    if isinstance(job.head, RankingHead):
        _check_ranking(job, job.head)
    if isinstance(job.head, RetrievalHead):
        _check_retrieval(job, job.head)
        _check_protocol(job)
    else:
        _check_unused(job)
    known = figures_of(job)
    if job.trainer.monitor is not None and job.trainer.monitor not in known:
        raise UserError(
            f"trainer.monitor is {job.trainer.monitor}, which this head does not give; it gives {', '.join(known)}"
        )


def _check_unused(job: Job) -> None:
    """Refuse what is said of interactions and protocols where no items are found for users."""
    if isinstance(job.data, FilesData) and job.data.negatives is not None:
        raise UserError("data.negatives is for retrieval heads and protocol.candidates=given; leave it out")
    own = replace(InteractionsConfig(), user=job.interactions.user, item=job.interactions.item)
    groups = ("interactions", job.interactions, own), ("protocol", job.protocol, ProtocolConfig())
    changed = [
        f"{path}.{field.name}={_typed(getattr(plain, field.name))}"
        for path, given, plain in groups
        for field in fields(given)
        if getattr(given, field.name) != getattr(plain, field.name)
    ]
    if changed:
        raise UserError(
            f"{', '.join(each.partition('=')[0] for each in changed)}: for heads that find items for users; leave that out "
            f"({' '.join(changed)}), or use head=two_tower"
        )


def _typed(value: Any) -> str:
    """Return the default of an option as it is typed."""
    if isinstance(value, list):
        return f"[{','.join(map(str, value))}]"
    return "null" if value is None else str(value.name if isinstance(value, Enum) else value).lower()


def _check_whose(job: Job) -> None:
    """Refuse features of users and items that nothing tells of."""
    own = {Of.user: job.interactions.user, Of.item: job.interactions.item}
    if own[Of.user] == own[Of.item]:
        raise UserError(
            f"interactions.user and interactions.item are both '{own[Of.user]}'; users and items need a column each"
        )
    named: list[tuple[str, FeatureConfig | NumberConfig]] = [
        (f"features.{name}", each) for name, each in job.features.items()
    ]
    named += [(f"numbers.{name}", number) for name, number in job.numbers.items()]
    for path, each in named:
        if each.of is Of.sample:
            continue
        there = isinstance(job.data, FilesData) and getattr(job.data, f"{each.of.name}s") is not None
        crossed = each.crossed_with if isinstance(each, FeatureConfig) else []
        if not there and (each.column != own[each.of] or crossed):
            raise UserError(
                f"{path}.of is {each.of.name}, so that column '{each.column}' is one of data.{each.of.name}s; name that file, "
                f"or the column of the ids, interactions.{each.of.name}"
            )


def _check_ranking(job: Job, head: RankingHead) -> None:
    if not head.labels:
        raise UserError("head.labels is empty; name the column of the labels")
    for path, count in (("head.losses", len(head.losses)), ("head.label_weights", len(head.label_weights))):
        fits = (1, len(head.labels)) if path == "head.losses" else (0, len(head.labels))
        if count not in fits:
            raise UserError(f"{path} has {count} entries for {len(head.labels)} labels; give one for each")
    if len(set(head.labels)) < len(head.labels):
        raise UserError("head.labels names a column twice")
    if head.label_weights and not any(head.label_weights):
        raise UserError("head.label_weights are all 0, so that nothing is learned; give one above 0")
    if head.group is not None and RankingLoss.binary not in head.losses:
        raise UserError("head.group is for binary labels, whose AUC is computed within groups; leave it out")
    if head.experts and not head.hidden:
        raise UserError(
            f"head.experts is {head.experts}, and an expert is the layers of head.hidden, which is empty; give their widths"
        )
    if isinstance(head, DLRMHead) and len(job.features) == 1 and not job.numbers:
        raise UserError(
            "head=dlrm takes dot products of pairs of vectors, but there is one feature alone; add features or numbers"
        )
    widths = {name: job.tables[feature.table].dim for name, feature in job.features.items()}
    alike = isinstance(head, DLRMHead | DeepFMHead)
    if alike and len(set(widths.values())) > 1:
        told = ", ".join(f"{name} {width}" for name, width in widths.items())
        raise UserError(
            f"head={_name(head)} takes dot products of the features' vectors, whose widths differ: {told}; give the tables one dim"
        )
    if isinstance(head, WideDeepHead):
        _check_wide(job, head)


def _name(head: RankingHead) -> str:
    return "dlrm" if isinstance(head, DLRMHead) else "deepfm"


def _check_wide(job: Job, head: WideDeepHead) -> None:
    if not head.wide:
        raise UserError("head=wide_deep needs features for its linear part; name them in head.wide")
    for name in head.wide:
        if name not in job.features:
            raise UserError(
                f"head.wide names '{name}', but there is no such feature; known features: {', '.join(job.features)}"
            )
    if len(set(head.wide)) < len(head.wide):
        raise UserError("head.wide names a feature twice")
    if set(head.wide) >= set(job.features) and not job.numbers:
        raise UserError(
            "head.wide names all features, so that nothing is left for the deep part; leave some out, or add numbers"
        )


def _check_retrieval(job: Job, head: RetrievalHead) -> None:
    sides = {of: [name for name, each in job.features.items() if each.of is of] for of in Of}
    numbers = {of: [name for name, each in job.numbers.items() if each.of is of] for of in Of}
    if sides[Of.sample] or numbers[Of.sample]:
        path = f"features.{sides[Of.sample][0]}" if sides[Of.sample] else f"numbers.{numbers[Of.sample][0]}"
        raise UserError(f"{path}.of is sample, but retrieval compares users with items; set {path}.of=user or item")
    if not sides[Of.item]:
        raise UserError("retrieval needs a feature of items; set features.NAME.of=item")
    if isinstance(head, TwoTowerHead) and not sides[Of.user]:
        raise UserError("head=two_tower needs a feature of users; set features.NAME.of=user")
    _check_towers(job, head, sides, numbers)
    _check_negatives(head)
    if isinstance(head, SequenceHead):
        _check_sequence(job, head)
    if head.als_sweeps:
        _check_als(job, head, sides)


def _check_towers(job: Job, head: RetrievalHead, sides: dict[Of, list[str]], numbers: dict[Of, list[str]]) -> None:
    """Refuse towers whose vectors cannot be compared."""
    ends = {}
    for of, hidden in ((Of.user, head.user_hidden), (Of.item, head.item_hidden)):
        widths = {job.tables[job.features[name].table].dim for name in sides[of]}
        if not hidden and len(widths) > 1:
            raise UserError(
                f"the features of {of.name}s differ in width, so that they cannot be added up; set head.{of.name}_hidden, or one dim"
            )
        if not hidden and numbers[of]:
            raise UserError(
                f"numbers.{numbers[of][0]} needs layers to become a part of the {of.name}'s vector; set head.{of.name}_hidden"
            )
        if hidden and not sides[of]:
            raise UserError(f"head.{of.name}_hidden has no features of {of.name}s to work on; leave it out")
        if sides[of]:
            ends[of] = hidden[-1] if hidden else widths.pop()
    if len(set(ends.values())) > 1:
        raise UserError(
            f"the vectors of users are {ends[Of.user]} wide, those of items {ends[Of.item]}; make head.user_hidden and head.item_hidden "
            "(or the tables' dim, where there are no layers) end with the same width"
        )
    if isinstance(head, SASRecHead) and ends[Of.item] % head.heads:
        raise UserError(
            f"head.heads is {head.heads}, which does not divide the width of the items' vectors, {ends[Of.item]}"
        )


def _check_negatives(head: RetrievalHead) -> None:
    every = head.sampling is Sampling.all
    if every and (head.in_batch or not head.shared):
        raise UserError("head.sampling=all makes every item a negative; leave head.in_batch and head.shared=false out")
    if not every and not head.negatives and not head.in_batch:
        raise UserError("there are no negatives; set head.negatives, head.in_batch=true or head.sampling=all")
    if not head.shared and not head.negatives:
        raise UserError("head.shared=false draws negatives for each sample, but head.negatives is 0")
    if head.loss is RetrievalLoss.warp and (head.shared or every or head.in_batch):
        raise UserError(
            "head.loss=warp tries one negative after the other: set head.shared=false, and leave head.in_batch and head.sampling=all out"
        )
    if not every and head.hard > head.negatives and not head.in_batch:
        raise UserError(f"head.hard is {head.hard}, but there are only {head.negatives} negatives (head.negatives)")
    if head.hard and head.loss is RetrievalLoss.warp:
        raise UserError("head.hard has no meaning for head.loss=warp, which looks for hard ones itself; leave it out")
    if head.similarity is Similarity.cosine and head.als_sweeps:
        raise UserError("head.als_sweeps fits dot products; use head.similarity=dot")


def _check_sequence(job: Job, head: SequenceHead) -> None:
    if head.time_buckets and job.interactions.time is None:
        raise UserError("head.time_buckets needs the column of times; name it: interactions.time")
    if head.time_buckets == 1:
        raise UserError("head.time_buckets is 1, which tells nothing apart; give 2 or more, or 0 for none")


def _check_als(job: Job, head: RetrievalHead, sides: dict[Of, list[str]]) -> None:
    alone = isinstance(head, TwoTowerHead) and all(len(sides[of]) == 1 for of in (Of.user, Of.item))
    own = {Of.user: job.interactions.user, Of.item: job.interactions.item}
    features = job.features.values()
    ids = all(each.column == own[each.of] and not each.crossed_with and each.weights is None for each in features)
    if not alone or len(job.tables) < 2 or not ids or head.user_hidden or head.item_hidden:
        raise UserError(
            "head.als_sweeps fills one table of user ids and one of item ids; use head=two_tower with one feature on each side, "
            "without layers"
        )
    for name, table in job.tables.items():
        if not isinstance(table, VocabTable | IdsTable) or (isinstance(table, VocabTable) and table.ngrams > 1):
            raise UserError(
                f"head.als_sweeps needs a row of its own for every user and item; make tables.{name} of kind vocab (with ngrams=1) or ids"
            )
        if table.pretrained.path is not None:
            raise UserError(
                f"tables.{name}.pretrained.path and head.als_sweeps both say what the rows start as; leave one of them out"
            )
    if job.grow is not None:
        raise UserError("head.als_sweeps would be lost under the rows that grow brings along; set head.als_sweeps=0")


def _check_protocol(job: Job) -> None:
    own, data = job.interactions, job.data
    files = data if isinstance(data, FilesData) else None
    if job.protocol.candidates is Candidates.given and (files is None or files.negatives is None):
        raise UserError("protocol.candidates=given needs the file of negatives; name it: data.negatives")
    if job.protocol.candidates is not Candidates.given and files is not None and files.negatives is not None:
        raise UserError("data.negatives is read for protocol.candidates=given alone; set that, or leave the file out")
    if not job.protocol.at:
        raise UserError("protocol.at is empty; give the lengths of the lists that are judged, e.g. [10,20]")
    if job.protocol.candidates is Candidates.sampled and max(job.protocol.at) > job.protocol.sampled:
        raise UserError(
            f"lists of {max(job.protocol.at)} (protocol.at) hold all candidates, the item and protocol.sampled={job.protocol.sampled} "
            "others, so that it would always be found; make protocol.sampled larger"
        )
    if (
        job.protocol.candidates is Candidates.given
        and files is not None
        and files.test is None
        and own.test_split is None
    ):
        raise UserError(
            "data.negatives is of a test part, but data.test is null; name one, or set interactions.test_split"
        )
    if own.split is not Split.rows and files is not None and files.validation is not None:
        raise UserError(
            f"interactions.split={own.split.name} takes the validation part off the training part, but data.validation names one; leave "
            "one of them out"
        )
    if (own.min_rating is None) != (own.rating is None):
        raise UserError("interactions.rating and interactions.min_rating go together; give both, or none")
    if own.test_split is not None and (files is None or files.test is not None):
        raise UserError("interactions.test_split takes the test part off the training part; set data.test=null with it")
    if Split.time in (own.split, own.test_split) and own.time is None:
        raise UserError("a split by time needs the column of times; name it: interactions.time")
    for name in job.protocol.slices:
        if name not in ("activity", "popularity") and (files is None or files.users is None):
            raise UserError(f"protocol.slices names '{name}', a column of data.users, which is null; name that file")
