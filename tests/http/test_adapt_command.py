"""mp2 adapt without a server: who chooses the steps, a tuned prompt and head, a backbone of its own."""
import json
import subprocess

import pytest

from conftest import BIN

GOOD = ["味道很好", "质量不错", "服务周到", "很满意", "值得推荐", "非常喜欢"]
BAD = ["难吃死了", "质量太差", "态度恶劣", "很失望", "千万别买", "不敢再用"]


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    path = tmp_path_factory.mktemp("adapt") / "rows.jsonl"
    path.write_text("".join(
        json.dumps({"text": text, "label": label}, ensure_ascii=False) + "\n"
        for good, bad in zip(GOOD, BAD) for text, label in ((good, "乙"), (bad, "甲"))),
        encoding="utf-8")
    return path


def mp2(*args):
    return subprocess.run([str(BIN), *map(str, args)], capture_output=True, text=True, timeout=240,
                          check=False)


def adapt(rows, out, *args):
    done = mp2("adapt", "--train", rows, "--out", out, "--steps", "4", "--eval-every", "2",
               "--threads", "1", *args)
    assert done.returncode == 0, done.stderr
    return done


def predict(route, *args):
    done = mp2("predict", "--route", route, "--threads", "1", *args, GOOD[0])
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_few_rows_are_cross_validated_and_all_of_them_train(rows, tmp_path):
    done = adapt(rows, tmp_path / "route.json")
    assert "12 rows train; 4 folds choose the number of steps" in done.stderr
    version = json.loads((tmp_path / "route.json").read_text(encoding="utf-8"))
    assert version["metrics"]["folds"] == 4 and version["metrics"]["train_rows"] == 12
    assert version["metrics"]["best_step"] % 2 == 0 and "prompt" not in version
    assert adapt(rows, tmp_path / "half.json", "--folds", "0").stderr.startswith("6 rows train, 6")
    assert "乙" in predict(tmp_path / "route.json") or "甲" in predict(tmp_path / "route.json")


def test_a_tuned_prompt_and_head_are_in_the_file(rows, tmp_path):
    # the rows that train choose too, so that the prompt is certain to win
    adapt(rows, tmp_path / "r.json", "--method", "route+prompt", "--dev", rows, "--prompt-lr", "3e-3")
    version = json.loads((tmp_path / "r.json").read_text(encoding="utf-8"))
    assert len(version["prompt"]) > len(version["head"]) > 100
    whole = predict(tmp_path / "r.json")
    del version["head"]
    (tmp_path / "headless.json").write_text(json.dumps(version), encoding="utf-8")
    assert predict(tmp_path / "headless.json") != whole
    version["head"] = "AAAA"
    (tmp_path / "bad.json").write_text(json.dumps(version), encoding="utf-8")
    done = mp2("predict", "--route", tmp_path / "bad.json", "x")
    assert done.returncode != 0 and "head" in done.stderr


def test_full_writes_a_model_that_its_route_belongs_to(rows, tmp_path):
    out = tmp_path / "tuned"
    adapt(rows, out, "--method", "full", "--dev", rows)
    version = json.loads((out / "route.json").read_text(encoding="utf-8"))
    assert "head" in version and "prompt" not in version
    assert predict(out / "route.json", "--model", out)
    done = mp2("predict", "--route", out / "route.json", GOOD[0])  # on the embedded model
    assert done.returncode != 0 and "another backbone" in done.stderr
    done = mp2("adapt", "--train", rows, "--method", "full")
    assert done.returncode == 2 and "--out DIR" in done.stderr
