"""Files of vectors as streams of bytes: packed in whatever way, damaged, or made to burst."""

import bz2
import gzip
import io
import lzma
import os
import random
import subprocess
import sys
import tarfile
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bigembed.errors import UserError
from bigembed.vectors import open_source, streams
from bigembed.vectors.streams import Stream, open_stream

BYTES = random.Random(5).randbytes(3000) + b"0.25 0.5 " * 400


def zst(data: bytes) -> bytes:
    return pa.Codec("zstd").compress(data, asbytes=True)


def zipped(files: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return buffer.getvalue()


def tarred(files: dict[str, bytes], form: int = tarfile.PAX_FORMAT) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=form) as archive:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size, info.type = len(data), tarfile.DIRTYPE if name.endswith("/") else tarfile.REGTYPE
            archive.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def whole(stream: Stream, step: int = 1000) -> bytes:
    parts = []
    with stream.open() as reader:
        while part := reader.read(step):
            parts.append(part)
    return b"".join(parts)


PACKED: dict[str, Callable[[bytes], bytes]] = {
    "gz": gzip.compress,
    "bz2": bz2.compress,
    "xz": lzma.compress,
    "zst": zst,
    "zip": lambda data: zipped({"a/v.txt": data}),
    "tar": lambda data: tarred({"a/": b"", "a/v.txt": data}),
    "tar.gz": lambda data: gzip.compress(tarred({"v.txt": data})),
    "tar.xz": lambda data: lzma.compress(tarred({"v.txt": data})),
    "tar.zst": lambda data: zst(tarred({"v.txt": data})),
    "gz.zip": lambda data: zipped({"v.txt.gz": gzip.compress(data)}),
    "gz.tar.bz2": lambda data: bz2.compress(tarred({"v.txt.gz": gzip.compress(data)})),
}
SAMPLES = {kind: pack(BYTES) for kind, pack in PACKED.items()}  # once, as the time of day is in some


@pytest.mark.parametrize("kind", PACKED)
@pytest.mark.parametrize("data", [BYTES, b"", b"x"])
def test_a_packed_file_gives_the_bytes_that_were_packed(tmp_path: Path, kind: str, data: bytes) -> None:
    path = tmp_path / "without_an_ending"
    path.write_bytes(PACKED[kind](data))
    stream = open_stream(str(path))
    assert (stream.compression, stream.file, stream.size) == (kind, None, path.stat().st_size)
    assert stream.consumed == 0
    assert whole(stream) == whole(stream, 7) == data
    assert 0 < stream.consumed <= stream.size


def test_the_usual_ways_of_packing_in_a_zip_are_read_and_others_refused(tmp_path: Path) -> None:
    for method in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA):
        (tmp_path / "v.zip").write_bytes(zipped({"v": BYTES}, method))
        if method in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            assert whole(open_stream(str(tmp_path / "v.zip"))) == BYTES
        else:
            with pytest.raises(UserError, match=rf"v.zip::v: is packed in a way that zips seldom are \({method}\)"):
                open_stream(str(tmp_path / "v.zip"))


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_every_kind_of_tar_is_read_with_long_names(tmp_path: Path, form: int) -> None:
    name = "/".join(["folder" * 8] * 4) + "/v.txt"
    (tmp_path / "v.tar").write_bytes(tarred({"first": b"1", name: BYTES, "last": b"3"}, form))
    assert whole(open_stream(f"{tmp_path}/v.tar::{name}")) == BYTES


def test_a_plain_file_is_read_as_it_is_and_known_as_one(tmp_path: Path) -> None:
    path = tmp_path / "v::1.txt"  # colons of its own
    path.write_bytes(BYTES)
    stream = open_stream(str(path))
    assert (stream.path, stream.file, stream.compression, stream.size) == (str(path), path, None, len(BYTES))
    assert whole(stream, len(BYTES) * 2) == BYTES
    assert stream.consumed == len(BYTES)


@pytest.mark.parametrize("kind", ["gz", "bz2", "xz", "zst"])
def test_packed_files_may_follow_one_another(tmp_path: Path, kind: str) -> None:
    (tmp_path / "v").write_bytes(
        b"".join(PACKED[kind](BYTES[start : start + 1000]) for start in range(0, len(BYTES), 1000))
    )
    assert whole(open_stream(str(tmp_path / "v"))) == BYTES


@pytest.mark.parametrize("kind", ["gz", "tar", None])
def test_a_reader_reads_into_buffers_and_skips(tmp_path: Path, kind: str | None) -> None:
    (tmp_path / "v").write_bytes(PACKED[kind](BYTES) if kind else BYTES)
    with open_stream(str(tmp_path / "v")).open() as reader:
        buffer = bytearray(100)
        assert reader.readinto(buffer) == 100
        assert buffer == BYTES[:100]
        assert reader.skip(2000) == 2000
        assert reader.read(50) == BYTES[2100:2150]
        assert reader.skip(10**9) == len(BYTES) - 2150
        assert (reader.read(10**18), reader.readinto(buffer), reader.skip(1)) == (b"", 0, 0)


ARCHIVES = {"zip": zipped, "tar": tarred, "tar.gz": lambda files: gzip.compress(tarred(files))}


@pytest.mark.parametrize("pack", ARCHIVES.values(), ids=ARCHIVES)
def test_the_file_of_an_archive_is_the_named_or_the_only_one(tmp_path: Path, pack: Callable[[dict], bytes]) -> None:
    path = str(tmp_path / "archive")
    Path(path).write_bytes(pack({"README.md": b"r", ".hidden": b"h", "__MACOSX/v.txt": b"m", "d/v.txt": b"v"}))
    assert open_stream(path).path == f"{path}::d/v.txt"
    assert whole(open_stream(path)) == b"v"
    assert whole(open_stream(f"{path}::README.md")) == b"r"
    Path(path).write_bytes(pack({"a.txt": b"a", "d/a.txt": b"da"}))
    assert whole(open_stream(f"{path}::d/a.txt")) == b"da"
    with pytest.raises(
        UserError, match=r"is an archive of 2 files; name one of them as .*archive::MEMBER: a.txt, d/a.txt"
    ):
        open_stream(path)
    with pytest.raises(UserError, match=r"has no member 'b.txt'; name one of them as .*::MEMBER: a.txt, d/a.txt"):
        open_stream(f"{path}::b.txt")
    Path(path).write_bytes(pack({}))
    if pack is not ARCHIVES["tar"] and pack is not ARCHIVES["tar.gz"]:  # an empty tar is zeros, which no one can tell
        with pytest.raises(UserError, match="is an archive without files"):
            open_stream(path)


@pytest.mark.parametrize("pack", [tarred, zipped])
def test_a_member_may_be_called_anything(tmp_path: Path, pack: Callable[[dict], bytes]) -> None:
    (tmp_path / "v").write_bytes(pack({"a\nb\x1b[2J": b"v"}))
    stream = open_stream(str(tmp_path / "v"))
    assert whole(stream) == b"v"
    assert stream.path == rf"{tmp_path}/v::a\nb\x1b[2J"
    (tmp_path / "v").write_bytes(pack({"a\n": b"v", "b\n": b"w"}))
    with pytest.raises(UserError, match=r"::MEMBER: a\\n, b\\n$"):
        open_stream(str(tmp_path / "v"))


def test_what_cannot_be_opened_is_refused(tmp_path: Path) -> None:
    def refused(data: bytes | None, member: str = "") -> str:
        if data is not None:
            (tmp_path / "v").write_bytes(data)
        with pytest.raises(UserError) as told:
            open_stream(f"{tmp_path}/v{member}")
        assert str(told.value).startswith(str(tmp_path))
        return str(told.value)

    assert "No such file or directory" in refused(None)
    assert "is no archive, so it has no members; leave '::x' away" in refused(b"the 0.1 0.2\n", "::x")
    assert "is no archive" in refused(gzip.compress(b"the"), "::x")
    assert "pickles are not read" in refused(zipped({"model/data.pkl": b"", "model/data/0": b""}))
    assert "is a zip inside of another archive" in refused(tarred({"v.zip": zipped({"v": b"v"})}))
    bomb = b"the 0.1"
    for _ in range(6):
        bomb = gzip.compress(bomb)
    assert "is packed more than 4 times over" in refused(bomb)
    secret = bytearray(zipped({"v": BYTES}))
    for mark in (b"PK\x03\x04", b"PK\x01\x02"):
        secret[secret.rindex(mark) + (6 if mark[2] == 3 else 8)] |= 1
    assert "is encrypted" in refused(bytes(secret))


def test_a_folder_and_a_pipe_are_refused_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(UserError, match="is no regular file"):
        open_stream(str(tmp_path / "pipe"))
    with pytest.raises(UserError, match="is a folder"):
        open_stream(str(tmp_path))
    with pytest.raises(UserError, match="null byte"):
        open_stream("a\0b")


@pytest.mark.parametrize("kind", [kind for kind in PACKED if kind != "tar"])
def test_a_packed_file_that_was_cut_is_refused_with_the_byte(tmp_path: Path, kind: str) -> None:
    packed = PACKED[kind](BYTES)
    for length in (len(packed) * 3 // 4, len(packed) // 2):
        (tmp_path / "v").write_bytes(packed[:length])
        with pytest.raises(
            UserError, match=rf"{tmp_path}/v.*cannot be unpacked \([a-z0-9.]+\) near byte [\d,]+ of {length:,}: .*"
        ):
            whole(open_stream(str(tmp_path / "v")))


@pytest.mark.parametrize("kind", PACKED)
@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_damaged_packed_file_gives_its_bytes_or_is_refused(tmp_path: Path, kind: str, data: st.DataObject) -> None:
    packed = bytearray(SAMPLES[kind])
    for _ in range(data.draw(st.integers(1, 3))):
        place = data.draw(st.integers(0, len(packed) - 1))
        action = data.draw(st.sampled_from(["flip", "cut", "double", "zero", "ones"]))
        if action == "flip":
            packed[place] ^= 1 << data.draw(st.integers(0, 7))
        elif action == "cut":
            del packed[place : place + data.draw(st.integers(1, 600))]
        elif action == "double":
            packed[place:place] = packed[place : place + 100]
        else:
            packed[place : place + 8] = bytes([255 * (action == "ones")]) * min(8, len(packed) - place)
        packed = packed or bytearray(b"x")
    (tmp_path / "v").write_bytes(packed)
    try:
        stream = open_stream(str(tmp_path / "v"))
        got = whole(stream)
    except UserError as error:
        assert str(error).startswith(str(tmp_path)) and "\n" not in str(error)
        return
    if stream.compression == kind and kind in ("gz", "bz2", "xz", "tar.gz", "tar.xz"):  # which have checksums
        assert got == BYTES or bytes(packed) == got


@pytest.mark.parametrize("kind", ["gz", "tar.gz", "gz.tar", "zip"])
def test_a_letter_that_was_changed_under_a_checksum_is_told(tmp_path: Path, kind: str) -> None:
    def stored(data: bytes) -> bytes:
        return gzip.compress(data, 0)

    pack: dict[str, Callable[[bytes], bytes]] = {
        "gz": stored,
        "tar.gz": lambda data: stored(tarred({"v.txt": data, "v.md": bytes(3 << 20)})),
        "gz.tar": lambda data: tarred({"v.txt.gz": stored(data)}),
        "zip": lambda data: zipped({"v.txt": data}, zipfile.ZIP_STORED),
    }
    data = b"0.25 0.5 " * 100_000  # more than is looked at to tell how it is packed
    (tmp_path / "v").write_bytes(pack[kind](data).replace(b" 0.25 ", b" 0.75 ", 1))
    stream = open_stream(str(tmp_path / "v") + "::v.txt" * (kind == "tar.gz"))  # a name: the others are not listed
    with pytest.raises(UserError, match="cannot be unpacked"):
        whole(stream)
    with stream.open() as reader, pytest.raises(UserError, match="cannot be unpacked"):
        reader.read(10)
        reader.finish()


def test_a_packed_file_that_bursts_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "FREE", 1 << 20)
    zeros = bytes(5 << 20)
    many = gzip.compress(b"") * 100_000  # nothing, a hundred thousand times over
    bombs = {
        "gz": gzip.compress(gzip.compress(zeros)),
        "bz2": bz2.compress(zeros),
        "xz": lzma.compress(lzma.compress(zeros)),
        "zst": zst(zeros),
        "zip": zipped({"v": zeros}),
        "tar": gzip.compress(gzip.compress(tarred({"v": zeros}))),
        "nothing": gzip.compress(gzip.compress(many)),
    }
    for name, bomb in bombs.items():
        assert len(bomb) < 20_000, name
        (tmp_path / name).write_bytes(bomb)
        with pytest.raises(UserError, match=r"holds more than [\d,]+ bytes, 300 times its size"):
            whole(open_stream(str(tmp_path / name)), 1 << 16)


def test_a_tar_whose_names_are_endless_is_refused(tmp_path: Path) -> None:
    head = tarfile.TarInfo("././@LongLink")
    head.type, head.size = tarfile.GNUTYPE_LONGNAME, 1 << 40
    (tmp_path / "v.tar").write_bytes(head.tobuf(tarfile.GNU_FORMAT) + bytes(1 << 16))
    with pytest.raises(UserError, match="the name of a member takes 1,099,511,627,776 bytes"):
        open_stream(str(tmp_path / "v.tar"))


def test_an_entry_of_a_tar_that_lies_before_itself_is_refused(tmp_path: Path) -> None:
    head = bytearray(tarfile.TarInfo("v.txt").tobuf(tarfile.GNU_FORMAT))
    head[124:136] = b"\xff" * 10 + b"\xf8\x00"  # a size of -2048
    head[148:156] = b" " * 8
    head[148:156] = f"{sum(head):06o}\0 ".encode()
    (tmp_path / "v.tar").write_bytes(tarred({"first": b"x"})[:1024] + bytes(head) + b"x" * 2048 + bytes(head))
    with pytest.raises(UserError, match="what should be the header of an entry is none"):
        open_stream(str(tmp_path / "v.tar"))


def test_an_xz_that_asks_for_memory_is_refused(tmp_path: Path) -> None:
    packed = bytearray(lzma.compress(b"the 0.1 0.2\n"))
    header = packed[12 : 12 + 4 * (packed[12] + 1)]
    assert header[2:4] == b"\x21\x01"  # LZMA2, whose property is the size of the dictionary
    header[4] = 40  # 4 GiB
    header[-4:] = zlib.crc32(header[:-4]).to_bytes(4, "little")
    packed[12 : 12 + len(header)] = header
    (tmp_path / "v.xz").write_bytes(packed)
    with pytest.raises(UserError, match="Memory usage limit"):
        open_stream(str(tmp_path / "v.xz"))


def test_a_zip_of_too_many_files_is_refused_before_they_are_listed(tmp_path: Path) -> None:
    packed = zipped({f"{number:0100}": b"" for number in range(9000)}, zipfile.ZIP_STORED)
    (tmp_path / "v.zip").write_bytes(packed)
    with pytest.raises(UserError, match="is a zip of so many files"):
        open_stream(str(tmp_path / "v.zip"))


def test_a_line_without_end_takes_no_memory(tmp_path: Path) -> None:
    """100 MB of one letter, packed into some kilobytes, are opened in a process that looks at its own memory."""
    paths = [tmp_path / kind for kind in ("gz", "zst", "zip")]
    for path in paths:
        path.write_bytes(PACKED[path.name](b"1 3\nthe " + b"0" * 100_000_000))
    code = (
        "import resource, sys\n"
        "from bigembed.errors import UserError\n"
        "from bigembed.vectors import open_source\n"
        "peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10\n"
        "before = peak()\n"
        "for path in sys.argv[1:]:\n"
        "    try:\n"
        "        list(open_source(path).blocks())\n"
        "    except UserError as error:\n"
        "        print(error)\n"
        "print(peak() - before)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, *map(str, paths)], capture_output=True, text=True, timeout=100)
    *messages, grown = done.stdout.splitlines()
    assert len(messages) == 3, done.stderr
    assert all("is longer than 4,194,304 bytes" in message for message in messages)
    assert int(grown) < 60


def test_the_archives_of_real_vectors_are_read(data_dir: Path) -> None:
    folder = data_dir / "vectors"
    plain = (folder / "allennlp" / "fake_embeddings.5d.txt").read_bytes()
    for ending in ("gz", "bz2", "xz", "zip", "tar.gz"):
        stream = open_stream(str(folder / "allennlp" / f"fake_embeddings.5d.txt.{ending}"))
        assert (stream.compression, whole(stream)) == (ending, plain)
    for ending in ("zip", "tar.gz"):
        path = str(folder / "allennlp" / f"multi-file-archive.{ending}")
        assert whole(open_stream(f"{path}::folder/fake_embeddings.5d.txt")) == plain
        with pytest.raises(UserError, match="is an archive of 2 files"):
            open_stream(path)
    glove = str(folder / "torchtext" / "glove.6B.zip")
    assert [open_source(f"{glove}::glove.6B.{dim}d.txt").dim for dim in (50, 100, 200, 300)] == [50, 100, 200, 300]
