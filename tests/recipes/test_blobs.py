"""Content-addressed files."""

from __future__ import annotations

import hashlib
import os
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from recipes.blobs import BlobMissing, BlobStore


def test_a_blob_is_named_by_its_content(tmp_path: Path) -> None:
    blobs = BlobStore(tmp_path / "blobs")
    source = tmp_path / "model.tflite"
    source.write_bytes(b"weights" * 500_000)
    kept = blobs.put_file(source)
    digest = hashlib.sha256(source.read_bytes()).hexdigest()
    assert (kept.sha256, kept.size_bytes) == (digest, 3_500_000)
    assert kept.path == blobs.path(digest) == tmp_path / "blobs" / digest[:2] / digest
    assert kept.path.read_bytes() == source.read_bytes()
    assert blobs.put_bytes(source.read_bytes()) == kept
    assert not kept.path.stat().st_mode & 0o222
    assert list((tmp_path / "blobs" / "unfinished").iterdir()) == []


def test_what_is_missing_or_no_digest_is_said(tmp_path: Path) -> None:
    blobs = BlobStore(tmp_path)
    assert not blobs.has("0" * 64)
    with pytest.raises(BlobMissing, match="no blob 0000"):
        blobs.path("0" * 64)
    for wrong in ("../../etc/passwd", "ABC", "F" * 64):
        with pytest.raises(ValueError, match="expected 64 lower-case"):
            blobs.path(wrong)
    with pytest.raises(FileNotFoundError):
        blobs.put_file(tmp_path / "absent")
    assert list((tmp_path / "unfinished").iterdir()) == []


def test_removing_returns_what_it_frees(tmp_path: Path) -> None:
    blobs = BlobStore(tmp_path)
    kept = blobs.put_bytes(b"12345")
    assert blobs.remove(kept.sha256) == 5
    assert blobs.remove(kept.sha256) == 0
    assert not blobs.has(kept.sha256)


def test_leftovers_of_killed_processes_go_when_they_are_old(tmp_path: Path) -> None:
    blobs = BlobStore(tmp_path)
    blobs.put_bytes(b"1")
    old, new = tmp_path / "unfinished" / "old", tmp_path / "unfinished" / "new"
    old.write_bytes(b"123")
    new.write_bytes(b"12")
    os.utime(old, (time.time() - 100, time.time() - 100))
    assert blobs.remove_leftovers(older_than_s=50) == 3
    assert new.exists()


def test_many_writers_of_one_blob_agree(tmp_path: Path) -> None:
    blobs = BlobStore(tmp_path)
    with ThreadPoolExecutor(8) as pool:
        kept = set(pool.map(blobs.put_bytes, [b"same" * 10_000] * 64))
    assert len(kept) == 1
    assert kept.pop().path.read_bytes() == b"same" * 10_000
