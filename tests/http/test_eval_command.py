"""mp2 eval on a task folder of our own: the table as text, Markdown and JSON, curves by shots, errors."""
import json
import subprocess

import pytest

from conftest import BIN


def mp2_eval(*args):
    return subprocess.run([str(BIN), "eval", *map(str, args)], capture_output=True, text=True,
                          timeout=240, check=False)


def test_reports_hold_every_method_and_task(tasks, tmp_path):
    md, js = tmp_path / "table.md", tmp_path / "table.json"
    done = mp2_eval("--tasks", tasks, "--methods", "average,retrieve,full", "--seeds", "8,13",
                    "--steps", "2", "--shots", "4", "--threads", "1", "--report", md, "--report", js)
    assert done.returncode == 0, done.stderr
    assert "[12/12] two full seed 13" in done.stderr
    text = md.read_text(encoding="utf-8")
    assert f"    mp2 eval --tasks {tasks} --methods average,retrieve,full" in text
    assert "| average | 0 |" in text and "| one | classification | 4 | 50.0 |" in text
    report = json.loads(js.read_text(encoding="utf-8"))
    assert [(r["task"], r["method"]) for r in report["results"]] == [
        (t, m) for t in ("one", "two") for m in ("average", "retrieve", "full")]
    for result in report["results"]:
        assert result["majority"] == 0.5 and 0.5 < result["bag"] <= 1 and result["shots"] == 4
        for run in result["runs"]:
            assert sum(map(sum, run["confusion"])) == run["test_rows"] == 16
            right = sum(run["confusion"][i][i] for i in range(2))
            assert abs(right / 16 - run["accuracy"]) < 1e-9
    full = report["results"][2]["runs"][0]
    assert full["tuned_parameters"] > 1_000_000
    # what was retrieved for it counts too: every row of the bank over 8 rows
    assert full["forward_passes"] > report["results"][0]["runs"][0]["forward_passes"] + 27 * 8


def test_shots_make_a_learning_curve(tasks, tmp_path):
    md = tmp_path / "curve.md"
    done = mp2_eval("--tasks", tasks / "one", "--method", "average", "--seeds", "8", "--shots",
                    "1,2,4", "--threads", "1", "--report", md)
    assert done.returncode == 0, done.stderr
    text = md.read_text(encoding="utf-8")
    assert "| method | 1 shots | 2 shots | 4 shots |" in text
    assert text.count("| one | classification |") == 3


def test_two_folders_behind_one_option(tasks):
    done = mp2_eval("--tasks", tasks / "two", tasks / "one", "--methods", "average", "--seeds", "8",
                    "--threads", "1", "--json")
    assert done.returncode == 0, done.stderr
    assert [r["task"] for r in json.loads(done.stdout)["results"]] == ["two", "one"]


@pytest.mark.parametrize("args,code,text", [
    (["--methods", "magic"], 2, "magic"),
    (["--shots", "0"], 2, "--shots"),
    (["--report", "/nonexistent/x.md"], 1, "/nonexistent/x.md"),
])
def test_what_is_wrong_is_named(tasks, args, code, text):
    done = mp2_eval("--tasks", tasks / "one", "--seeds", "8", "--threads", "1",
                    *(["--methods", "average"] if args[0] != "--methods" else []), *args)
    assert done.returncode == code and text in done.stderr


def test_a_folder_without_tasks_is_named(tmp_path):
    done = mp2_eval("--tasks", tmp_path)
    assert done.returncode != 0 and "task.json" in done.stderr
