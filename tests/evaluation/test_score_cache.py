"""Scores come back as they went in, or not at all."""

from __future__ import annotations

import hashlib
import os
import signal
import sqlite3
import subprocess
import sys
import time

import pytest

from xalma.evaluation.score_cache import ScoreCache, text_key


def test_scores_outlive_the_process(tmp_path):
    path, many = tmp_path / "new" / "scores.sqlite", {text_key(i): i / 3 for i in range(2000)}
    with ScoreCache(path) as cache:
        cache.put(many)
    with ScoreCache(path) as cache:
        assert cache.get([*many, text_key("other")]) == many
        cache.put({text_key(0): 5.0})
        assert cache.get([text_key(0), text_key(0)]) == {text_key(0): 5.0}


def test_no_file_keeps_nothing():
    with ScoreCache(None) as cache:
        cache.put({b"a": 1.0})
        assert cache.get([b"a"]) == {}


def test_keys_tell_texts_apart():
    keys = [
        text_key("a", "bc"),
        text_key("ab", "c"),
        text_key("abc"),
        text_key("a", ""),
        text_key("a"),
        text_key("\ud800"),
    ]
    assert len(set(keys)) == len(keys)
    assert {len(key) for key in keys} == {32}


def test_a_killed_writer_leaves_whole_parts(tmp_path):
    path = tmp_path / "scores.sqlite"
    code = (
        "import sys; from xalma.evaluation.score_cache import *\n"
        "with ScoreCache(sys.argv[1]) as cache:\n"
        "    for part in range(10**6):\n"
        "        cache.put({text_key(part, i): float(part) for i in range(100)}); print(part, flush=True)\n"
    )
    writer = subprocess.Popen([sys.executable, "-c", code, str(path)], stdout=subprocess.PIPE, text=True)
    done = [int(writer.stdout.readline()) for _ in range(5)]
    time.sleep(0.01)
    os.kill(writer.pid, signal.SIGKILL)
    writer.communicate()
    with ScoreCache(path) as cache:
        for part in (*done, done[-1] + 1, done[-1] + 2):
            assert len(cache.get([text_key(part, i) for i in range(100)])) in (
                (100,) if part in done else (0, 100)
            )


def test_a_files_hash_is_kept_until_the_file_changes(tmp_path, monkeypatch):
    checkpoint = tmp_path / "model.ckpt"
    checkpoint.write_bytes(b"one")
    with ScoreCache(tmp_path / "scores.sqlite") as cache:
        assert cache.file_hash(checkpoint) == hashlib.sha256(b"one").hexdigest()
        with monkeypatch.context() as patch:
            patch.setattr("xalma.evaluation.score_cache.file_hash", None)
            assert cache.file_hash(checkpoint) == hashlib.sha256(b"one").hexdigest()
        checkpoint.write_bytes(b"other")
        assert cache.file_hash(checkpoint) == hashlib.sha256(b"other").hexdigest()


def test_a_file_that_is_no_cache_is_left_alone(tmp_path):
    path = tmp_path / "notes.txt"
    path.write_text("no database " * 100)
    with pytest.raises(OSError, match=r"notes\.txt can't be used as a score cache"), ScoreCache(path):
        pass
    assert path.read_text().startswith("no database")
    with pytest.raises(OSError, match="can't open the score cache"), ScoreCache(tmp_path):
        pass


def test_tables_of_an_older_version_are_left_alone(tmp_path):
    path = tmp_path / "scores.sqlite"
    with sqlite3.connect(path) as database:
        database.execute("CREATE TABLE scores (key BLOB PRIMARY KEY, score REAL NOT NULL) WITHOUT ROWID")
        database.execute("INSERT INTO scores VALUES (?, ?)", (b"a", 1.0))
    with ScoreCache(path) as cache:
        assert cache.get([b"a"]) == {}, "a score without a checksum may be any number"
        cache.put({b"a": 0.5})
        assert cache.get([b"a"]) == {b"a": 0.5}
    with sqlite3.connect(path) as database:
        assert database.execute("SELECT * FROM scores").fetchall() == [(b"a", 1.0)]
