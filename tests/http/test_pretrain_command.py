"""mp2 pretrain prompts: a bank, another that goes on from it with weights and copies, and what is refused."""
import json
import struct
import subprocess

import pytest

from conftest import BIN, TOP

MODEL = TOP / "tests" / "models" / "boot"
SIZES = ["--modules", "4", "--prompt-tokens", "4", "--intrinsic", "8", "--batch", "4", "--warmup", "1",
         "--dev-every", "3", "--threads", "1"]


def pretrain(*args):
    return subprocess.run([str(BIN), "pretrain", *map(str, args)], capture_output=True, text=True,
                          timeout=240, check=False)


def rows_of(bank):
    """Names of the router's rows, from the file's header."""
    data = bank.read_bytes()
    size, = struct.unpack("<Q", data[:8])
    return json.loads(json.loads(data[8:8 + size])["__metadata__"]["tasks"])


@pytest.fixture(scope="module")
def bank(tasks):
    to = tasks.parent / f"{tasks.name}.bank.safetensors"
    done = pretrain("prompts", "--model", MODEL, "--out", to, "--steps", "6", *SIZES, tasks)
    assert done.returncode == 0, done.stderr
    return to


def test_goes_on_with_weights_and_copies(tasks, bank, tmp_path):
    to, metrics = tmp_path / "more.bank.safetensors", tmp_path / "more.jsonl"
    done = pretrain("prompts", "--model", MODEL, "--bank", bank, "--out", to, "--steps", "60", "--weights",
                    "one=20,two=1", "--neutral", "1", "--neutral-labels", "2", "--metrics", metrics, *SIZES, tasks)
    assert done.returncode == 0, done.stderr
    assert rows_of(bank) == ["one", "two"] and rows_of(to) == ["one", "one~1", "two", "two~1"]
    drawn = [json.loads(line).get("task") for line in metrics.read_text(encoding="utf-8").splitlines()]
    assert sum(str(name).startswith("one") for name in drawn) > sum(str(name).startswith("two") for name in drawn)


@pytest.mark.parametrize("args,code,text", [
    (["--weights", "one"], 2, "TASK=N"),
    (["--weights", "=3"], 2, "TASK=N"),
    (["--weights", "one=0"], 2, "--weights"),
    (["--weights", "one=2,two=many"], 2, "many"),
    (["--weights", "three=2"], 1, "no task is named three"),
    (["--neutral-labels", "0"], 2, "--neutral-labels"),
    (["--bank", "/nonexistent.bank.safetensors"], 3, "/nonexistent.bank.safetensors"),
    (["--train", "everything"], 2, "everything"),
])
def test_errors_name_what_is_wrong(tasks, tmp_path, args, code, text):
    to = tmp_path / "out.bank.safetensors"
    done = pretrain("prompts", "--model", MODEL, "--out", to, "--steps", "1", *SIZES, *args, tasks)
    assert done.returncode == code and text in done.stderr
    assert not to.exists()


def test_a_bank_of_other_sizes_is_refused(tasks, bank, tmp_path):
    done = pretrain("prompts", "--model", MODEL, "--bank", bank, "--out", tmp_path / "x.bank.safetensors",
                    "--steps", "1", *SIZES, "--modules", "5", tasks)
    assert done.returncode == 1 and "4 modules, this run has 5" in done.stderr


def test_mean_of_models(tmp_path):
    """conf/pretrain/mean.py: of two alike the same again; of float16 refused."""
    one = tmp_path / "one"
    subprocess.run([str(BIN), "convert", "model", MODEL, one, "--dtype", "F32"], capture_output=True, timeout=60, check=True)

    def mean(*models):
        return subprocess.run([TOP / "conf/pretrain/mean.py", tmp_path / "mean", *models], capture_output=True, text=True,
                              timeout=60, check=False)

    done = mean(MODEL, MODEL)
    assert done.returncode == 1 and "not all of it is float32" in done.stderr
    assert not (tmp_path / "mean").exists()
    assert mean(one, one).returncode == 0
    for name in ("config.json", "vocab.txt", "model.safetensors", "shallow.bank.safetensors"):
        assert (tmp_path / "mean" / name).read_bytes() == (one / name).read_bytes()
