#!/usr/bin/env python3
"""mean.py: the mean of the weights of model directories and their banks, as one (float32).

    conf/pretrain/mean.py OUT MODEL...

Each MODEL is what one run of `mp2 pretrain prompts --train joint` left (its best, its last) or went on from, in float32.
Weights along one run lie in one valley, and their mean lower in it than each (Izmailov et al. 2018).
"""
import array
import json
import pathlib
import shutil
import struct
import sys


def read(path):
    """The bytes of the header, and the numbers behind it."""
    data = path.read_bytes()
    size = 8 + struct.unpack("<Q", data[:8])[0]
    header = json.loads(data[8:size])
    if {tensor["dtype"] for name, tensor in header.items() if name != "__metadata__"} != {"F32"}:
        raise SystemExit(f"{path}: not all of it is float32")
    numbers = array.array("f", data[size:])
    if sys.byteorder == "big":
        numbers.byteswap()
    return header, data[:size], numbers


def places(header):
    return {name: tensor for name, tensor in header.items() if name != "__metadata__"}


def mean(paths, to):
    header, start, numbers = read(paths[0])
    sums = array.array("d", numbers)
    for path in paths[1:]:
        other, _, numbers = read(path)
        if places(other) != places(header):
            raise SystemExit(f"{path}: other tensors than {paths[0]}")
        sums = array.array("d", map(sum, zip(sums, numbers)))
    result = array.array("f", (x / len(paths) for x in sums))
    if sys.byteorder == "big":
        result.byteswap()
    to.write_bytes(start + result.tobytes())


def main():
    if len(sys.argv) < 4:
        raise SystemExit(__doc__)
    out, *models = map(pathlib.Path, sys.argv[1:])
    out.mkdir(parents=True)
    for name in ("config.json", "vocab.txt"):
        shutil.copy(models[0] / name, out / name)
    for name in ("model.safetensors", "shallow.bank.safetensors"):
        mean([model / name for model in models], out / name)


if __name__ == "__main__":
    main()
