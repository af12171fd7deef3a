#!/usr/bin/env python3
"""setfit.py: the rival that users of few-shot classification know, beside `mp2 eval`.

    tests/bench/run.sh setfit [--model DIR] [--seeds 8,13,...] [--shots N] [--limit N] [--text-limit N]
                              [--json FILE] TASKS...

SetFit (Tunstall et al. 2022), written anew: pairs of the training rows tune the encoder so that rows of
one label lie close (the squared error of their cosine against 1 or 0), then a linear head (logistic
regression) learns the labels from the tuned vectors, the mean over a text's tokens. The encoder is an mp2
model directory's backbone, so both start from the same weights; no prompt, no option words. The rows that
train and choose are those of `mp2 eval` (engine/split.c): the rows that choose pick the encoder's step
size, among RATES and not tuning it at all. Classification and pairs; a choice or a span has no labels to learn.
"""
import argparse
import json
import pathlib
import statistics
import sys

import numpy as np
import torch
from tokenizers import BertWordPieceTokenizer

import bert

WORD = (1 << 64) - 1
RATES = (0, 2e-4, 1e-3)
PAIRS_A_ROW = 20  # as many of one label as of two
BATCH = 16
EVAL_BATCH = 64


class Rng:
    """engine/rng.c: splitmix64 seeds xoshiro256**."""

    def __init__(self, seed):
        self.s = []
        for _ in range(4):
            seed = (seed + 0x9E3779B97F4A7C15) & WORD
            z = ((seed ^ (seed >> 30)) * 0xBF58476D1CE4E5B9) & WORD
            z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & WORD
            self.s.append(z ^ (z >> 31))

    def next(self):
        s = self.s
        x = (s[1] * 5) & WORD
        result = (((x << 7) | (x >> 57)) * 9) & WORD
        t = (s[1] << 17) & WORD
        s[2] ^= s[0]
        s[3] ^= s[1]
        s[1] ^= s[2]
        s[0] ^= s[3]
        s[2] ^= t
        s[3] = ((s[3] << 45) | (s[3] >> 19)) & WORD
        return result

    def below(self, n):
        skip, x = (1 << 64) % n, self.next()
        while x < skip:
            x = self.next()
        return x % n

    def shuffle(self, items):
        for i in range(len(items), 1, -1):
            j = self.below(i)
            items[i - 1], items[j] = items[j], items[i - 1]


def read_rows(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line]


def few_shots(rows, labels, seed, shots):
    """(train, dev): engine/split.c's eng_few_shot_split."""
    k = shots or max(8, 32 // len(labels))
    order = list(range(len(rows)))
    Rng(seed).shuffle(order)
    seen, train, dev = {label: 0 for label in labels}, [], []
    for i in order:
        label = rows[i]["label"]
        place = seen[label]
        seen[label] += 1
        if place < 2 * k:
            (train if place < k else dev).append(rows[i])
    return train, dev


class Encoder:
    """Text -> the mean of its tokens' last vectors, (B, H)."""

    def __init__(self, model_dir, text_limit):
        self.shape, self.weights = bert.read_backbone(model_dir)
        self.tokenizer = BertWordPieceTokenizer(str(pathlib.Path(model_dir) / "vocab.txt"))
        self.text_limit = text_limit
        self.fresh()

    def fresh(self):
        weights = {name: tensor.copy() for name, tensor in self.weights.items()}  # PyTorch tunes in place
        self.net = bert.Torch(self.shape, weights, torch.get_num_threads())

    def ids(self, row):
        texts = [row[name] for name in ("text", "text_a", "text_b") if name in row]
        texts = [text[:self.text_limit] if self.text_limit else text for text in texts]
        return self.tokenizer.encode(*texts).ids[:self.shape["positions"]]

    def vectors(self, batch):
        n = max(map(len, batch))
        ids, mask = torch.zeros(len(batch), n, dtype=torch.long), torch.zeros(len(batch), n)
        for i, one in enumerate(batch):
            ids[i, :len(one)], mask[i, :len(one)] = torch.tensor(one), 1
        hidden = self.net.hidden(ids, mask.bool()[:, None, None, :], 0)
        return (hidden * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)

    def tune(self, ids, labels, rate, seed):
        params = [self.net.w[name].requires_grad_() for name in self.net.trained()]
        optimiser = torch.optim.AdamW(params, lr=rate, weight_decay=0.01)
        rng = np.random.default_rng(seed)
        pairs = list(draw_pairs(labels, rng))
        steps = -(-len(pairs) // BATCH)
        for step in range(steps):
            warmup = min(1.0, (step + 1) / (0.1 * steps))
            optimiser.param_groups[0]["lr"] = rate * min(warmup, (steps - step) / (0.9 * steps))
            part = pairs[step * BATCH:(step + 1) * BATCH]
            a, b = (self.vectors([ids[pair[side]] for pair in part]) for side in (0, 1))
            same = torch.tensor([float(labels[i] == labels[j]) for i, j in part])
            loss = ((torch.nn.functional.cosine_similarity(a, b) - same) ** 2).mean()
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()

    @torch.no_grad()
    def all_vectors(self, ids):
        parts = [self.vectors(ids[i:i + EVAL_BATCH]) for i in range(0, len(ids), EVAL_BATCH)]
        return torch.nn.functional.normalize(torch.cat(parts), dim=1)


def draw_pairs(labels, rng):
    """Each row with PAIRS_A_ROW others, in turn of its own label and of another; shuffled."""
    labels = np.array(labels)
    pairs = []
    for i, label in enumerate(labels):
        for like in (True, False):
            others = np.flatnonzero((labels == label) == like)
            others = others[others != i]
            if len(others):
                pairs += [(i, j) for j in rng.choice(others, PAIRS_A_ROW // 2)]
    rng.shuffle(pairs)
    return pairs


def linear_head(x, y, n_labels):
    """Logistic regression, the weights' squares at a half (scikit-learn's C = 1): (W, b)."""
    w = torch.zeros(n_labels, x.shape[1], requires_grad=True)
    b = torch.zeros(n_labels, requires_grad=True)
    optimiser = torch.optim.LBFGS([w, b], max_iter=200, line_search_fn="strong_wolfe")

    def closure():
        optimiser.zero_grad()
        loss = torch.nn.functional.cross_entropy(x @ w.T + b, y, reduction="sum") + 0.5 * (w * w).sum()
        loss.backward()
        return loss
    optimiser.step(closure)
    return w.detach(), b.detach()


def accuracy(encoder, head, ids, y):
    w, b = head
    return float(((encoder.all_vectors(ids) @ w.T + b).argmax(1) == y).float().mean())


def run(encoder, task, seed, shots):
    """Test accuracy of one seed, and the step size chosen."""
    labels = task["labels"]
    train, dev = few_shots(task["train"], labels, seed, shots)

    def given(rows):
        return [encoder.ids(r) for r in rows], torch.tensor([labels.index(r["label"]) for r in rows])
    (x, y), (dev_x, dev_y), (test_x, test_y) = map(given, (train, dev, task["test"]))
    best = None
    for rate in RATES:
        torch.manual_seed(seed)
        encoder.fresh()
        if rate:
            encoder.tune(x, y.tolist(), rate, seed)
        head = linear_head(encoder.all_vectors(x), y, len(labels))
        chosen = accuracy(encoder, head, dev_x, dev_y)
        if best is None or chosen > best[0]:
            best = (chosen, accuracy(encoder, head, test_x, test_y), rate)
    return best[1], best[2]


def find_tasks(paths):
    for path in map(pathlib.Path, paths):
        yield from [path] if (path / "task.json").exists() else sorted(
            p.parent for p in path.glob("*/task.json"))


def evaluate(encoder, folder, seeds, shots, limit):
    """Test accuracy in % over the seeds, {mean, deviation, scores, rates}; None of a task without labels."""
    task = json.loads((folder / "task.json").read_text(encoding="utf-8"))
    if task["type"] not in ("classification", "pair"):
        return None
    task["train"] = read_rows(folder / "train.jsonl")
    task["test"] = read_rows(folder / "test.jsonl")[:limit]
    runs = [run(encoder, task, int(seed), shots) for seed in seeds.split(",")]
    scores = [100 * score for score, _ in runs]
    return {"mean": statistics.mean(scores), "deviation": statistics.stdev(scores) if len(scores) > 1 else 0,
            "scores": scores, "rates": [rate for _, rate in runs]}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=str(bert.EMBEDDED))
    parser.add_argument("--seeds", default="8,13,21")
    parser.add_argument("--shots", type=int, default=0)
    parser.add_argument("--limit", type=int, default=None)
    parser.add_argument("--text-limit", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json")
    parser.add_argument("tasks", nargs="+")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    encoder, results = Encoder(args.model, args.text_limit), {}
    print("| task | SetFit-style | step sizes chosen |\n|---|---:|---|")
    for folder in find_tasks(args.tasks):
        result = evaluate(encoder, folder, args.seeds, args.shots, args.limit)
        if result is None:
            print(f"| {folder.name} | n/a | no labels |")
            continue
        results[folder.name] = result
        print(f"| {folder.name} | {result['mean']:.1f} ± {result['deviation']:.1f} | "
              f"{', '.join(map(str, result['rates']))} |", flush=True)
    if args.json:
        pathlib.Path(args.json).write_text(json.dumps(results, indent=1, ensure_ascii=False))
    if not results:
        sys.exit("no task with labels")


if __name__ == "__main__":
    main()
