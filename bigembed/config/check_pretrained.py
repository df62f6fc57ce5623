"""Which options of pretrained vectors go together, and with which tables. No torch, no data, no file of vectors."""

from typing import Any

from bigembed.config.schema import (
    Fallback,
    Freeze,
    HashedTable,
    Job,
    Join,
    Mismatch,
    PretrainedConfig,
    SubwordTable,
    TableConfig,
    TableOptimizer,
    TokenizerTable,
    VocabTable,
    Vocabulary,
)
from bigembed.errors import UserError

ALWAYS = (Fallback.mean, Fallback.normal, Fallback.zeros)  # every word has these
HASHED = (Fallback.subwords, Fallback.case)  # lower-casing is its own: the file's words are cut as those of texts


def check_pretrained(job: Job) -> None:
    """Refuse options of pretrained vectors that contradict each other, or that mean nothing.

    Raises
    ------
    UserError
        Naming the option and what would be right.
    """
    for name, table in job.tables.items():
        path, pretrained = f"tables.{name}.pretrained", table.pretrained
        if pretrained.path is None:
            _check_unused(path, pretrained)
            continue
        _check_files(path, pretrained)
        _check_fallback(path, table)
        _check_vocabulary(path, table)
        _check_width(path, table)
        _check_frozen(path, f"tables.{name}", table, job.optim.tables.kind)


def _check_unused(path: str, pretrained: PretrainedConfig) -> None:
    """Refuse what is asked of vectors that are not named."""
    nothing: Any = PretrainedConfig()
    for option in PretrainedConfig.__dataclass_fields__:
        if getattr(pretrained, option) != getattr(nothing, option):
            raise UserError(f"{path}.{option} goes with {path}.path; name a file of vectors there, or leave it out")


def _check_files(path: str, pretrained: PretrainedConfig) -> None:
    if "" in (pretrained.path, *pretrained.others):
        raise UserError(
            f"{path}.path and {path}.others name files, but one of the names is empty; {path}.path=null is for no file"
        )
    if pretrained.word_list is not None and pretrained.table is not None:
        raise UserError(
            f"{path}.word_list is for a file of rows without words, {path}.table for a run folder; leave one of them out"
        )
    if pretrained.join is Join.concatenated and not pretrained.others:
        raise UserError(f"{path}.join says how several files are joined, but {path}.others is empty; name them there")
    if pretrained.join is Join.concatenated and pretrained.dimension is Mismatch.project:
        raise UserError(
            f"{path}.dimension=project is for the vectors of one file, not for those of several side by side; make "
            "the table as wide as all of them together, or leave out join"
        )


def _check_fallback(path: str, table: TableConfig) -> None:
    pretrained, fallback = table.pretrained, table.pretrained.fallback
    for number, each in enumerate(fallback):
        if each in fallback[:number]:
            raise UserError(f"{path}.fallback names {each.name} twice; name it once")
        before = [earlier for earlier in fallback[:number] if earlier in ALWAYS]
        if before:
            raise UserError(
                f"{path}.fallback: {each.name} comes after {before[0].name}, which every word has, so that none gets "
                f"there; name {before[0].name} last"
            )
    if Fallback.piece in fallback and not isinstance(table, TokenizerTable):
        raise UserError(f"{path}.fallback names piece, but only tokenizers cut words into pieces; leave it out")
    if (Fallback.lemma in fallback) != (pretrained.lemmas is not None):
        raise UserError(f"{path}.lemmas goes with the fall-back lemma, and {path}.fallback=[lemma] needs {path}.lemmas")


def _check_vocabulary(path: str, table: TableConfig) -> None:
    pretrained = table.pretrained
    if pretrained.vocabulary is not Vocabulary.data and type(table) not in (VocabTable, SubwordTable):
        raise UserError(
            f"{path}.vocabulary={pretrained.vocabulary.name} is for tables that learn words, of kind vocab or subword; "
            "leave it out, or take one of these"
        )
    if isinstance(table, VocabTable | SubwordTable | TokenizerTable):
        return
    allowed = HASHED if isinstance(table, HashedTable) else (Fallback.subwords,)
    for each in pretrained.fallback:
        if each not in allowed:
            raise UserError(
                f"{path}.fallback names {each.name}, which is for words that a file does not have, but a table of this kind "
                "does not know its words; leave it out"
            )


def _check_width(path: str, table: TableConfig) -> None:
    remove = table.pretrained.remove_components
    if remove >= table.dim and table.pretrained.dimension is not Mismatch.project:
        raise UserError(
            f"{path}.remove_components is {remove}, but vectors {table.dim} wide have nothing left after {table.dim}; "
            "take out fewer"
        )


def _check_frozen(path: str, table_path: str, table: TableConfig, optimizer: TableOptimizer) -> None:
    pretrained = table.pretrained
    if pretrained.freeze is Freeze.none and pretrained.freeze_steps is not None:
        raise UserError(f"{path}.freeze_steps needs {path}.freeze=rows or table, which says what is frozen so long")
    if pretrained.freeze is Freeze.rows and optimizer is TableOptimizer.sgd:
        raise UserError(
            f"{path}.freeze=rows needs the state of an Adagrad to hold rows by, which optim.tables.kind=sgd has not; "
            "take optim.tables.kind=rowwise_adagrad or adagrad, or freeze=table"
        )
    if pretrained.freeze is not Freeze.table or pretrained.freeze_steps is not None:
        return
    if pretrained.pull:
        raise UserError(
            f"{path}.pull pulls back what has moved, but with {path}.freeze=table no row moves; leave one out"
        )
    if table.lr is not None:
        raise UserError(f"{table_path}.lr has no meaning with {path}.freeze=table, as no row trains; leave one out")
