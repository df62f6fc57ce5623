"""Files of vectors with their words: one file a family of formats, one explicit dictionary."""

from bigembed.vectors.arrays import write_numpy, write_safetensors, write_words
from bigembed.vectors.word2vec import write_binary, write_text

__all__ = ["WRITERS", "write_words"]

WRITERS = {
    "word2vec": write_text,
    "word2vec-binary": write_binary,
    "safetensors": write_safetensors,
    "numpy": write_numpy,
}
