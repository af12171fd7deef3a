"""mp2 beside Hugging Face's transformers: what both read from one directory, and what both answer.

Run by the stage `agree` of tests/run.sh, with Debian's PyTorch and a transformers that still supports it
(requirements.txt). Nothing is downloaded: the models are made here, from text written here, or embedded.
"""
import json
import os
import pathlib
import random
import subprocess

import pytest

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TRANSFORMERS_OFFLINE"] = "1"

TOP = pathlib.Path(__file__).resolve().parents[2]

SUBJECTS = ["早饭", "火车", "老师", "天气", "这家店的面", "The lamp", "Our neighbour", "2026 年的书"]
VERBS = ["来得很早", "比昨天好", "让人高兴", "不太新鲜", "looks fine", "was late again", "只剩 3 个了"]
ENDS = ["。", "！", ", 下次再说。", "（大家都这么说）。", "?", "，我也是。"]


def mp2(*arguments):
    """What the command prints; a failure is a failed test."""
    binary = os.environ.get("MP2_BIN", str(TOP / "build" / "mp2"))
    done = subprocess.run([binary, *map(str, arguments)], capture_output=True, text=True,
                          timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def mp2_json(*arguments):
    return json.loads(mp2(*arguments, "--json"))


@pytest.fixture(scope="session")
def made(tmp_path_factory):
    """A model directory of `mp2 pretrain vocab` and `mp2 pretrain backbone`: tiny, trained for some steps."""
    folder = tmp_path_factory.mktemp("made")
    lines = [a + b + c for a in SUBJECTS for b in VERBS for c in ENDS]
    random.Random(7).shuffle(lines)
    text, vocab, model = folder / "text.txt", folder / "vocab.txt", folder / "model"
    text.write_text("\n".join(lines) + "\n", encoding="utf-8")
    mp2("pretrain", "vocab", "--size", 600, "--min-count", 1, "--out", vocab, text)
    mp2("pretrain", "backbone", "--vocab", vocab, "--out", model, "--layers", 2, "--hidden", 48,
        "--heads", 4, "--ffn", 96, "--positions", 96, "--steps", 30, "--warmup", 5, "--lr", "5e-3",
        "--batch-tokens", 1024, "--max-len", 64, "--threads", 1, text)
    return model
