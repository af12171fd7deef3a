#!/usr/bin/env python3
"""quality.py: what a model makes of a few examples: every method of `mp2 eval`, SetFit beside them, and the goals.

    tests/bench/run.sh quality [--model DIR] [--methods M,...] [--seeds N,...] [--shots N,...] [--limit N]
                               [--text-limit N] [--no-setfit] [--results FILE.json] [--report FILE.md] TASKS...

Task by task; after each the results file is written, and a run with the same settings goes on behind the
tasks that it has. Without --shots the few-shot protocol's number a label; with several, one table each.
The method zero-shot is this bench's: the average route, its labels read as the model scores them, nothing learnt.
"""
import argparse
import json
import pathlib
import statistics
import subprocess
import tempfile

import torch

import bert
import setfit

METHODS = "zero-shot,average,retrieve,route,route+prompt,blackbox-route,blackbox,prompt,full"
ZERO_SHOT = "zero-shot"
# What the model is to reach, in %: the method named, the protocol's shots.
GOALS = {"chnsenticorp": ("route", 86), "chnsenticorp_neutral": ("route", 84), "tnews": ("route+prompt", 45),
         "smp_ewect_virus": ("route", 60), "lcqmc": ("route", 70), "ocnli": ("route", 48), "c3": ("route", 36),
         "drcd": ("route", 45)}


def run_eval(args, folder, shots, methods, *more):
    """Rows of `mp2 eval` of one task, one a method."""
    with tempfile.TemporaryDirectory() as scratch:
        report = pathlib.Path(scratch) / "report.json"
        command = ["build/mp2", "eval", "--tasks", str(folder), "--methods", ",".join(methods), "--seeds",
                   args.seeds, "--model", args.model, "--threads", str(args.threads), "--report", str(report), *more]
        for name in ("limit", "text_limit"):
            if getattr(args, name):
                command += ["--" + name.replace("_", "-"), str(getattr(args, name))]
        command += ["--shots", str(shots)] if shots else []
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        return json.loads(report.read_text(encoding="utf-8"))["results"]


def evaluate(args, folder, shots):
    """One task: {method: {...}}, majority and bag."""
    methods, rows = args.methods.split(","), []
    if ZERO_SHOT in methods:
        methods.remove(ZERO_SHOT)
        rows = run_eval(args, folder, shots, ["average"], "--no-label-scaling")
        rows[0]["method"] = ZERO_SHOT
    rows += run_eval(args, folder, shots, methods) if methods else []
    found = {"type": rows[0]["type"], "shots": rows[0]["shots"], "majority": rows[0]["majority"], "bag": rows[0]["bag"]}
    for row in rows:
        found[row["method"]] = {"mean": 100 * row["score_mean"], "deviation": 100 * row["score_deviation"],
                                "seconds": row["seconds"]}
    return found


def cell(result):
    return "" if result is None else f"{result['mean']:.1f} ± {result['deviation']:.1f}"


def share(value):
    return "n/a" if value is None else f"{100 * value:.1f}"


def mean_of(tasks, method):
    return statistics.mean(task[method]["mean"] for task in tasks if task.get(method))


def mean_cell(tasks, method):
    """Empty where no task has the method: of choices and spans there is no SetFit."""
    return f"{mean_of(tasks, method):.1f}" if any(task.get(method) for task in tasks) else ""


def table(tasks, methods, with_goals):
    head = ["task", "shots", "majority", "bag", *methods, *(["goal"] if with_goals else [])]
    yield "| " + " | ".join(head) + " |"
    yield "|---|" + "---:|" * (len(head) - 1)
    for name, task in sorted(tasks.items()):
        cells = [name, task["shots"], share(task["majority"]), share(task["bag"]), *(cell(task.get(m)) for m in methods)]
        if with_goals:
            method, goal = GOALS.get(name, ("", ""))
            cells.append(f"{goal} {method}".strip())
        yield "| " + " | ".join(map(str, cells)) + " |"
    means = [mean_cell(tasks.values(), m) for m in methods]
    yield f"| mean | | | | {' | '.join(means)} |{' |' if with_goals else ''}"


def verdicts(tasks, methods):
    """A line for each goal that these results can answer."""
    for name, (method, goal) in GOALS.items():
        if name in tasks and method in methods:
            got = tasks[name][method]["mean"]
            yield f"{name}, {method}", f"≥ {goal}", f"{got:.1f}", got >= goal
    if "tnews" in tasks and "route+prompt" in methods and tasks["tnews"]["bag"] is not None:
        above = tasks["tnews"]["route+prompt"]["mean"] - 100 * tasks["tnews"]["bag"]
        yield "tnews, route+prompt above naive Bayes", "≥ 15", f"{above:.1f}", above >= 15
    every, labelled = tasks.values(), [task for task in tasks.values() if task.get("SetFit-style")]
    if {"route", ZERO_SHOT} <= set(methods):
        above = mean_of(every, "route") - mean_of(every, ZERO_SHOT)
        yield "mean, route above zero-shot (the average route, nothing learnt)", "≥ 8", f"{above:.1f}", above >= 8
    if {"route+prompt", "full"} <= set(methods):
        below = mean_of(every, "full") - mean_of(every, "route+prompt")
        yield "mean, route+prompt below full", "≤ 3", f"{below:.1f}", below <= 3
    if "route+prompt" in methods and labelled:
        above = mean_of(labelled, "route+prompt") - mean_of(labelled, "SetFit-style")
        yield "mean of tasks with labels, route+prompt above SetFit-style", "≥ 0", f"{above:.1f}", above >= 0


def report(results, methods):
    settings = results["settings"]
    yield "# What a few examples make of the model\n"
    yield "    tests/bench/run.sh quality " + " ".join(
        f"--{k.replace('_', '-')} {v}" for k, v in settings.items() if v and k != "setfit") + " TASKS\n"
    yield ("Scores in %: accuracy, of extractive tasks the F1 of characters; ± the standard deviation over the seeds. *shots*: rows a label\n"
           "that train (as many choose the step; of choice and extractive tasks rows in all). *bag*: naive Bayes over characters on the same rows,\n"
           "of a choice the option that shares most pairs of characters with the text. *SetFit-style*: contrastive tuning of the same backbone and a\n"
           "linear head, on the same rows (`tests/bench/setfit.py`); its mean is of the tasks with labels.\n")
    for shots, tasks in results["tasks"].items():
        yield f"## {shots} shots\n" if shots != "0" else "## The protocol's shots\n"
        yield from table(tasks, methods, shots == "0")
        yield ""
        if shots == "0":
            yield "| goal | wanted | found | |"
            yield "|---|---:|---:|---|"
            for what, wanted, found, reached in verdicts(tasks, methods):
                yield f"| {what} | {wanted} | {found} | {'reached' if reached else 'missed'} |"
            yield ""
    if len(results["tasks"]) > 1:
        yield "## Means by shots\n"
        yield "| shots | " + " | ".join(methods) + " |"
        yield "|---|" + "---:|" * len(methods)
        for shots, tasks in results["tasks"].items():
            means = (mean_cell(tasks.values(), method) for method in methods)
            yield f"| {'protocol' if shots == '0' else shots} | " + " | ".join(means) + " |"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=str(bert.EMBEDDED))
    parser.add_argument("--methods", default=METHODS)
    parser.add_argument("--seeds", default="8,13,21,42,100")
    parser.add_argument("--shots", default="0")
    parser.add_argument("--limit", type=int, default=None)
    parser.add_argument("--text-limit", type=int, default=None)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--no-setfit", dest="setfit", action="store_false")
    parser.add_argument("--results", type=pathlib.Path, default=pathlib.Path("build/quality.json"))
    parser.add_argument("--report", type=pathlib.Path)
    parser.add_argument("tasks", nargs="+")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    settings = {name: getattr(args, name) for name in
                ("methods", "seeds", "shots", "limit", "text_limit", "threads", "setfit")}
    results = json.loads(args.results.read_text(encoding="utf-8")) if args.results.exists() else {}
    if results.get("settings") != settings:
        results = {"settings": settings, "tasks": {}}
    encoder = setfit.Encoder(args.model, args.text_limit or 0) if args.setfit else None
    methods = args.methods.split(",") + (["SetFit-style"] if args.setfit else [])
    for shots in map(int, args.shots.split(",")):
        tasks = results["tasks"].setdefault(str(shots), {})
        for folder in setfit.find_tasks(args.tasks):
            if folder.name in tasks:
                continue
            tasks[folder.name] = evaluate(args, folder, shots)
            if args.setfit:
                tasks[folder.name]["SetFit-style"] = setfit.evaluate(encoder, folder, args.seeds, shots, args.limit)
            args.results.write_text(json.dumps(results, ensure_ascii=False, indent=1), encoding="utf-8")
            print(folder.name, *(f"{m} {cell(tasks[folder.name].get(m))}" for m in methods), flush=True)
    text = "\n".join(report(results, methods))
    if args.report:
        args.report.write_text(text, encoding="utf-8")
    else:
        print(text)


if __name__ == "__main__":
    main()
