"""The S3 server that tests use: what is written there by one client, another reads."""

import subprocess
import sys

import fsspec
import pytest


def test_another_process_reads_what_this_one_wrote(s3: str) -> None:
    files = fsspec.filesystem("s3")
    files.pipe_file(f"{s3}/a/b", b"features")
    assert files.ls(f"{s3}/a", detail=False) == [f"{s3}/a/b".removeprefix("s3://")]
    code = f"import fsspec; print(fsspec.open({s3!r} + '/a/b').open().read().decode())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "features\n"


@pytest.mark.parametrize("test", ["one", "two"])
def test_each_test_has_an_empty_bucket(s3: str, test: str) -> None:
    files = fsspec.filesystem("s3")
    assert not files.ls(s3)
    files.pipe_file(f"{s3}/{test}", b"")
