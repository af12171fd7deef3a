#!/usr/bin/env python3
"""routes.py: a picture of a bank's routes, one row a task, nearest tasks next to each other.

    tests/bench/run.sh routes BANK.safetensors OUT.svg

A cell is the share of a module in the task's prompt, sigmoid(route) normalised over the modules (METHOD 3).
Rows are joined bottom-up, the nearest two groups first (mean distance), and each pair is turned so that the
ends that meet are the nearer ones. A deep bank shows its layers side by side.
"""
import html
import json
import pathlib
import sys

import numpy as np
from safetensors import safe_open

CELL, LEFT, TOP, LOW, HIGH = 18, 190, 28, (247, 250, 252), (8, 64, 129)


def read_routes(path):
    """(names, shares (rows, layers * modules), modules)."""
    with safe_open(path, framework="numpy") as bank:
        router, names = bank.get_tensor("router"), json.loads((bank.metadata() or {}).get("tasks", "[]"))
    router = router.reshape(router.shape[0], -1, router.shape[-1])
    weights = 1 / (1 + np.exp(-router.astype(np.float64)))
    shares = weights / weights.sum(axis=-1, keepdims=True)
    names += [f"row {i}" for i in range(len(names), len(shares))]
    return names, shares.reshape(len(shares), -1), router.shape[-1]


def in_order(x):
    """Row indices such that like rows lie together."""
    apart = np.linalg.norm(x[:, None] - x[None], axis=-1)
    groups = [[i] for i in range(len(x))]
    while len(groups) > 1:
        _, a, b = min((apart[np.ix_(groups[a], groups[b])].mean(), a, b)
                      for a in range(len(groups)) for b in range(a + 1, len(groups)))
        left, right = groups[a], groups[b]
        _, joined = min((apart[p[-1], q[0]], p + q) for p in (left, left[::-1]) for q in (right, right[::-1]))
        groups = [g for i, g in enumerate(groups) if i not in (a, b)] + [joined]
    return groups[0]


def colour(share, top):
    part = min(1.0, share / top)
    return "#" + "".join(f"{round(a + part * (b - a)):02x}" for a, b in zip(LOW, HIGH))


def draw(names, shares, modules):
    order, top = in_order(shares), shares.max()
    width, height = LEFT + CELL * shares.shape[1] + 10, TOP + CELL * len(names) + 10
    out = [f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
           f'font-family="sans-serif" font-size="12" role="img">',
           f"<title>Routes of {len(names)} tasks over {modules} modules</title>",
           f'<rect width="{width}" height="{height}" fill="#fff"/>']
    for column in range(shares.shape[1]):
        out.append(f'<text x="{LEFT + CELL * column + CELL // 2}" y="{TOP - 8}" text-anchor="middle">'
                   f"{column % modules + 1}</text>")
    for place, row in enumerate(order):
        y = TOP + CELL * place
        out.append(f'<text x="{LEFT - 6}" y="{y + 13}" text-anchor="end">{html.escape(names[row])}</text>')
        for column, share in enumerate(shares[row]):
            out.append(f'<rect x="{LEFT + CELL * column}" y="{y}" width="{CELL - 1}" height="{CELL - 1}" '
                       f'fill="{colour(share, top)}"><title>{html.escape(names[row])}, module '
                       f"{column % modules + 1}: {share:.3f}</title></rect>")
    return "\n".join(out + ["</svg>", ""])


def main():
    if len(sys.argv) != 3:
        raise SystemExit(__doc__)
    pathlib.Path(sys.argv[2]).write_text(draw(*read_routes(sys.argv[1])), encoding="utf-8")


if __name__ == "__main__":
    main()
