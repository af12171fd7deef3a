#!/usr/bin/env python3
"""peers.py: mp2 beside ONNX Runtime and PyTorch, in one run, turn by turn.

    tests/bench/run.sh                      every case; a table in Markdown at the end
    tests/bench/run.sh forward-large train  only cases whose names begin so
    tests/bench/run.sh --rounds 9 --json FILE

In every round each contestant runs alone, one after the other; a figure is the median over the rounds
and a ratio the median of the rounds' ratios (the machine's speed drifts, a round is short). All run on
the same number of threads. Nothing else should run.
"""
import argparse
import json
import os
import pathlib
import platform
import statistics
import subprocess
import sys
import tempfile
import time

import numpy as np

import bert

TOP = pathlib.Path(__file__).resolve().parents[2]
MP2 = os.environ.get("MP2_BIN", str(TOP / "build" / "mp2"))
DOWNSTREAM = TOP.parent / "shared" / "data" / "downstream"
PROMPT = {"large": 50, "base": 50, "embedded": 16}


def mp2(*arguments):
    out = subprocess.run([MP2, *map(str, arguments)], check=True, capture_output=True, text=True)
    return json.loads(out.stdout)


def median_seconds(call, seconds):
    """The median time of one call, over as many as fit, at least three; the first is not counted."""
    call()
    taken, end = [], time.perf_counter() + seconds
    while len(taken) < 3 or time.perf_counter() < end:
        start = time.perf_counter()
        call()
        taken.append(time.perf_counter() - start)
    return statistics.median(taken)


def bench(what, shape, *more, seconds):
    shape = bert.EMBEDDED if shape == "embedded" else shape
    return mp2("bench", what, "--shape", shape, "--threads", ARGS.threads, "--seconds", seconds, "--json",
               *more)


class Case:
    """Contestants by name, each a function that gives seconds (and what else it wants to tell)."""

    def __init__(self, name, goal, contestants):
        self.name, self.goal, self.contestants = name, goal, contestants

    def race(self, rounds):
        seconds = {name: [] for name in self.contestants}
        notes = {}
        for _ in range(rounds):
            for name, run in self.contestants.items():
                took, note = run()
                seconds[name].append(took)
                notes[name] = note
        return seconds, notes


# ---- the cases -----------------------------------------------------------------------------------


def check():
    """The peers compute what mp2 computes: logits of the embedded model, a prompt of a real route."""
    from safetensors.numpy import load_file
    w, _ = bert.embedded_weights()
    bank = load_file(bert.EMBEDDED / "shallow.bank.safetensors")
    mix = 1 / (1 + np.exp(-bank["router"][3].reshape(-1).astype(np.float64)))
    z, A = bank["z"].reshape(8, -1), bank["A"].reshape(bank["z"].shape[-1], -1).astype(np.float32)
    prompt = ((mix / mix.sum()) @ (z @ A)).reshape(-1, 128).astype(np.float32)
    ids = np.array([[2, *range(1, 17), *range(200, 240)]])
    said = mp2("inspect", "logits", "--model", bert.EMBEDDED, "--bank", bert.EMBEDDED / "shallow.bank.safetensors",
               "--row", 3, "--ids", ",".join(map(str, ids[0])), "--json")
    want = np.array([said["start"], said["end"]]).T
    padded = np.pad(ids, ((0, 0), (0, 9)))
    lengths = np.array([ids.shape[1]])
    for peer in (bert.Onnx, bert.Torch):
        for given in (ids, padded):
            got = peer(bert.SHAPES["embedded"], w, ARGS.threads).run(
                given, lengths, bert.spread(prompt, given.shape[1]))[0, :ids.shape[1]]
            worst = np.abs(got - want).max()
            print(f"  {peer.__name__}: logits within {worst:.1e} of mp2's")
            if not worst < 2e-4:
                sys.exit("a peer computes something else; its time would mean nothing")


def forward(shape_name, tokens, goal):
    shape = bert.SHAPES[shape_name]
    w = bert.random_weights(shape)
    prompt = bert.spread(w["word"][:PROMPT[shape_name]], tokens)
    ids = (np.arange(tokens) * 37 % shape["vocab"])[None]
    lengths = np.array([tokens])
    peers = {"ONNX Runtime": bert.Onnx(shape, w, ARGS.threads), "PyTorch": bert.Torch(shape, w, ARGS.threads)}

    def ours():
        said = bench("forward", shape_name, "--tokens", tokens, seconds=ARGS.seconds)
        return said["median_ms"] / 1e3, f"{said['percent_of_peak']:.0f} % of peak"

    contestants = {"mp2": ours}
    for name, peer in peers.items():
        contestants[name] = lambda peer=peer: (
            median_seconds(lambda: peer.run(ids, lengths, prompt), ARGS.seconds), "")
    return Case(f"forward, {shape_name}, 1 x {tokens}", goal, contestants)


def real_lengths():
    """Tokens of real examples: the characters of the texts, the prompt, template and options."""
    lens = []
    for task in sorted(DOWNSTREAM.iterdir()):
        with open(task / "test.jsonl", encoding="utf-8") as rows:
            for row in [json.loads(line) for _, line in zip(range(10), rows)]:
                text = sum(len(v) for v in row.values() if isinstance(v, str))
                options = sum(len(o) + 1 for o in row.get("options", ["甲", "乙"]))
                lens.append(min(512, 1 + 50 + 20 + text + options))
    return np.random.default_rng(1).permutation(lens)


def padded_batches(lens, size):
    """Batches of `size` after sorting by length: the padding a careful user would not avoid."""
    lens = np.sort(lens)
    return [lens[i:i + size] for i in range(0, len(lens), size)]


def mixed(shape_name, goal):
    shape, lens = bert.SHAPES[shape_name], real_lengths()
    w = bert.random_weights(shape)
    path = tempfile.NamedTemporaryFile("w", suffix=".lens", delete=False)
    path.write("".join(f"{n}\n" for n in lens))
    path.close()

    def ours():
        said = bench("forward", shape_name, "--lens", path.name, seconds=0.01)
        return said["median_ms"] / 1e3, f"{said['percent_of_peak']:.0f} % of peak"

    def one_pass(peer, size):
        for batch in padded_batches(lens, size):
            T = int(batch.max())
            ids = np.tile(np.arange(T) * 37 % shape["vocab"], (len(batch), 1))
            peer.run(ids, batch, bert.spread(w["word"][:50], T))

    best = {}

    def theirs(name, peer):
        """The first round tries every size, the others only the one that was fastest in it."""
        once = {}
        for size in [best[name]] if name in best else (1, 4, 16):
            start = time.perf_counter()
            one_pass(peer, size)
            once[size] = time.perf_counter() - start
        best[name] = min(once, key=once.get)
        return once[best[name]], f"its best of batches of 1, 4, 16: {best[name]}"

    peers = {"ONNX Runtime": bert.Onnx(shape, w, ARGS.threads), "PyTorch": bert.Torch(shape, w, ARGS.threads)}
    contestants = {"mp2": ours}
    contestants.update({name: lambda name=name, peer=peer: theirs(name, peer) for name, peer in peers.items()})
    return Case(f"{len(lens)} real lengths (mean {lens.mean():.0f}), {shape_name}", goal, contestants)


def train(shape_name, batch, tokens, goal):
    import torch
    shape = bert.SHAPES[shape_name]
    w = bert.random_weights(shape)
    peer = bert.Torch(shape, w, ARGS.threads)
    modules = 0.02 * torch.randn(8, PROMPT[shape_name], shape["hidden"])
    route = torch.zeros(8, requires_grad=True)
    ids = torch.from_numpy(np.tile(np.arange(tokens) * 37 % shape["vocab"], (batch, 1)))
    target = torch.full((batch,), tokens - 2)

    def ours():
        said = bench("train", shape_name, "--tokens", tokens, "--batch", batch, seconds=ARGS.seconds)
        return said["best_ms"] / 1e3, f"{said['percent_of_peak']:.0f} % of peak"

    return Case(f"training step of a route, {shape_name}, {batch} x {tokens}", goal,
                {"mp2": ours, "PyTorch": lambda: (
                    median_seconds(lambda: peer.train_step(ids, modules, route, target), ARGS.seconds), "")})


CASES = {
    "forward-large": lambda: forward("large", 178, "at most 0.9 x ONNX Runtime"),
    "forward-base": lambda: forward("base", 64, "at most 0.8 x ONNX Runtime"),
    "forward-embedded": lambda: forward("embedded", 48, "at most 0.7 x ONNX Runtime"),
    "mixed-base": lambda: mixed("base", "at most 0.67 x ONNX Runtime, 0.5 x PyTorch"),
    "train-base": lambda: train("base", 8, 178, "at most 0.5 x PyTorch"),
    "train-embedded": lambda: train("embedded", 32, 96, "at most 0.5 x PyTorch"),
}


# ---- the table -----------------------------------------------------------------------------------


def row(case, seconds, notes):
    mine = seconds["mp2"]
    cells = [case.name, f"{1e3 * statistics.median(mine):.3g} ms ({notes['mp2']})"]
    for peer in ("ONNX Runtime", "PyTorch"):
        if peer not in seconds:
            cells.append("")
            continue
        ratios = [a / b for a, b in zip(mine, seconds[peer])]
        text = f"{1e3 * statistics.median(seconds[peer]):.3g} ms; ratio **{statistics.median(ratios):.2f}**"
        cells.append(f"{text} ({min(ratios):.2f} to {max(ratios):.2f})"
                     + (f"; {notes[peer]}" if notes[peer] else ""))
    return "| " + " | ".join(cells + [case.goal]) + " |"


def machine():
    import onnxruntime
    import torch
    with open("/proc/cpuinfo", encoding="utf-8") as info:
        cpu = next(line.split(":", 1)[1].strip() for line in info if line.startswith("model name"))
    kernel = bench("gemm", "small", seconds=0.05)["kernel"]
    return (f"{time.strftime('%Y-%m-%d')}, {cpu}, {ARGS.threads} threads, mp2 kernel {kernel}, "
            f"ONNX Runtime {onnxruntime.__version__}, PyTorch {torch.__version__} "
            f"({torch.backends.cpu.get_cpu_capability()}), Python {platform.python_version()}")


def main():
    global ARGS
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n", maxsplit=1)[0])
    parser.add_argument("cases", nargs="*", help="beginnings of " + ", ".join(CASES))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2, help="of one contestant in one round")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--json", help="all times, to this file")
    ARGS = parser.parse_args()
    chosen = [name for name in CASES if not ARGS.cases or any(name.startswith(c) for c in ARGS.cases)]
    check()
    rows, record = [], {"machine": machine(), "cases": {}}
    for name in chosen:
        if name.startswith("mixed") and not DOWNSTREAM.is_dir():
            print(f"  {name}: skipped, no ../shared/data beside the project")
            continue
        case = CASES[name]()
        seconds, notes = case.race(ARGS.rounds)
        record["cases"][name] = seconds
        rows.append(row(case, seconds, notes))
        print("  " + rows[-1], flush=True)
    print(f"\n{record['machine']}\n\n| case | mp2 | ONNX Runtime | PyTorch | goal |\n|---|---|---|---|---|")
    print("\n".join(rows))
    if ARGS.json:
        pathlib.Path(ARGS.json).write_text(json.dumps(record, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
