#!/bin/bash
# run.sh: mp2 beside the peers a user would pick instead. Installs them (pinned; some 5 GiB, most of it
# PyTorch) into build/peers, builds mp2, measures in turns, prints a table. Let nothing else run.
#
#   tests/bench/run.sh [--rounds N] [--seconds S] [--threads N] [--json FILE] [CASE...]   peers.py
#   tests/bench/run.sh setfit [OPTIONS] TASKS...                                          setfit.py
#   tests/bench/run.sh quality [OPTIONS] TASKS...                                         quality.py
#   tests/bench/run.sh routes BANK OUT.svg                                                 routes.py
#   tests/bench/run.sh serving [--rounds N] [--seconds S] [http] [jobs] [beside]          serving.py
set -eu
top=$(cd "$(dirname "$0")/../.." && pwd)
cd "$top"
. conf/packages.sh
# shellcheck disable=SC2086
install_missing $BUILD_PACKAGES $RUN_PACKAGES python3 python3-venv
if ! cmp -s tests/bench/requirements.txt build/peers/installed.txt; then
    python3 -m venv build/peers
    build/peers/bin/pip install -q -r tests/bench/requirements.txt
    cp tests/bench/requirements.txt build/peers/installed.txt
fi
cmake -S . -B build -G Ninja -DCMAKE_BUILD_TYPE=Release >/dev/null
cmake --build build --target mp2 >/dev/null
# a BLAS core chosen for another library's sake would slow the peers' and ours alike
unset OPENBLAS_CORETYPE OPENBLAS_L2_SIZE
case "${1:-}" in
quality | routes | serving | setfit)
    script=$1
    shift
    ;;
*) script=peers ;;
esac
exec build/peers/bin/python "tests/bench/$script.py" "$@"
