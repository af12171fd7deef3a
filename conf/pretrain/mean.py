#!/usr/bin/env python3
"""mean.py: the mean of the weights of model directories and their banks, as one (float32).

    conf/pretrain/mean.py OUT MODEL...

Each MODEL is what one run of `mp2 pretrain prompts --train joint` left (its best, its last) or went on from, in float32.
Weights along one run lie in one valley, and their mean lower in it than each (Izmailov et al. 2018).
"""
import json
import pathlib
import shutil
import struct
import sys


def read(path):
    """The bytes before the numbers, what the header says of each tensor, and the numbers."""
    data = path.read_bytes()
    size = 8 + struct.unpack("<Q", data[:8])[0]
    tensors = json.loads(data[8:size])
    tensors.pop("__metadata__", None)
    if {tensor["dtype"] for tensor in tensors.values()} != {"F32"}:
        raise SystemExit(f"{path}: not all of it is float32")
    return data[:size], tensors, struct.unpack(f"<{(len(data) - size) // 4}f", data[size:])


def mean(paths):
    """The bytes of a file that is the first one with the mean of all numbers."""
    start, tensors, sums = read(paths[0])
    for path in paths[1:]:
        _, others, numbers = read(path)
        if others != tensors:
            raise SystemExit(f"{path}: other tensors than {paths[0]}")
        sums = [a + b for a, b in zip(sums, numbers)]
    return start + struct.pack(f"<{len(sums)}f", *(x / len(paths) for x in sums))


def main():
    if len(sys.argv) < 4:
        raise SystemExit(__doc__)
    out, *models = map(pathlib.Path, sys.argv[1:])
    files = {name: mean([model / name for model in models]) for name in ("model.safetensors", "shallow.bank.safetensors")}
    out.mkdir(parents=True)
    for name in ("config.json", "vocab.txt"):
        shutil.copy(models[0] / name, out / name)
    for name, data in files.items():
        (out / name).write_bytes(data)


if __name__ == "__main__":
    main()
