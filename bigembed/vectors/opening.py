"""What a file of vectors is, told by its first bytes and not by its name."""

from collections.abc import Callable

from bigembed.errors import UserError
from bigembed.vectors import arrays, fasttext, parquet, text, word2vec
from bigembed.vectors.source import Source
from bigembed.vectors.streams import Stream, open_stream

# A file is of the first of these formats that its beginning fits: the format, whether it does, and what opens the file.
FORMATS: tuple[tuple[str, Callable[[bytes, Stream], bool], Callable[[Stream, str | None], Source]], ...] = (
    ("parquet", parquet.begins, parquet.open_parquet),
    ("numpy", arrays.begins_npy, arrays.open_npy),
    ("safetensors", arrays.begins_safetensors, arrays.open_safetensors),
    ("fasttext", fasttext.begins, fasttext.open_fasttext),
    ("word2vec-binary", word2vec.begins, word2vec.open_binary),
    ("word2vec", text.begins, text.open_text),
    ("glove", text.begins_without_header, text.open_glove),
)
WITHOUT_WORDS = ("numpy", "safetensors")

# What files begin with that are no vectors, or none that are read: what they are, and what to do.
REFUSED = (
    (b"FiFu", "a file of finalfusion", "convert it with 'finalfusion convert --to word2vec'"),
    (b"\x89HDF\r\n", "a file of HDF5", "save its array with numpy.save, and its words one a line beside it"),
    (b"SQLite format 3", "a database", "save its vectors in one of the formats of word2vec"),
    (b"version https://git-lfs", "a pointer of Git LFS and not the file itself", "fetch that with 'git lfs pull'"),
    (b"<!DOCTYPE", "a page of the web and not the file itself", "fetch it again"),
    (b"<html", "a page of the web and not the file itself", "fetch it again"),
    (b"\xff\xfe", "text in UTF-16", "convert it to UTF-8"),
    (b"\xfe\xff", "text in UTF-16", "convert it to UTF-8"),
    (b"7z\xbc\xaf", "an archive of 7-Zip", "unpack it first"),
    (b"Rar!", "an archive of RAR", "unpack it first"),
    (b"\x04\x22\x4d\x18", "packed by lz4", "unpack it first"),
)


def open_source(path: str, word_list: str | None = None) -> Source:
    """Open a file of vectors of any format, packed or not; a member of an archive is ARCHIVE::MEMBER.

    Parameters
    ----------
    path : str
    word_list : str or None
        A file with the words of an array, one a line; None: what lies beside the array, if any.

    Returns
    -------
    Source

    Raises
    ------
    UserError
        When there is no such file, it is of no known format, or its beginning says what cannot be.
    """
    stream = open_stream(path)
    with stream.open() as reader:
        head = reader.read(text.HEAD)
    for name, begins, open_one in FORMATS:
        if begins(head, stream):
            if word_list is not None and name not in WITHOUT_WORDS:
                raise UserError(
                    f"{stream.path}: is of the format {name}, which has its own words; leave {word_list} away"
                )
            return open_one(stream, word_list)
    raise _unknown(head, stream)


def _unknown(head: bytes, stream: Stream) -> UserError:
    """Return what a file of no known format is."""
    if not head:
        return UserError(f"{stream.path}: is empty")
    for magic, what, remedy in REFUSED:
        if head.lstrip().startswith(magic):
            return UserError(f"{stream.path}: is {what}; {remedy}")
    if head[:1] == b"\x80" and head[1:2] in (b"\2", b"\3", b"\4", b"\5"):
        return UserError(
            f"{stream.path}: is a pickle (gensim's .model and .kv, torch.save), which is not read, as it may run any code; in "
            f"gensim, save the vectors with save_word2vec_format(FILE, binary=True)"
        )
    return UserError(
        f"{stream.path}: begins with {head[:24]!r}, as no known format does: word2vec (text or binary), GloVe, fastText (.vec, .bin, "
        f".ftz), Parquet, numpy (.npy) and safetensors are read"
    )
