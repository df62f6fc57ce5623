"""Files of vectors with their words: one file a family of formats, one explicit dictionary."""

from bigembed.vectors.arrays import write_numpy, write_safetensors, write_words
from bigembed.vectors.fasttext_writer import write_fasttext
from bigembed.vectors.opening import open_source
from bigembed.vectors.parquet import write_parquet
from bigembed.vectors.source import Block, Ngrams, Source
from bigembed.vectors.text import write_glove
from bigembed.vectors.word2vec import write_binary, write_text

__all__ = ["WRITERS", "Block", "Ngrams", "Source", "open_source", "write_words"]

WRITERS = {
    "word2vec": write_text,
    "word2vec-binary": write_binary,
    "glove": write_glove,
    "fasttext": write_fasttext,
    "parquet": write_parquet,
    "safetensors": write_safetensors,
    "numpy": write_numpy,
}
