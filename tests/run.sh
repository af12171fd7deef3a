#!/bin/bash
# run.sh: the test command of the README, and of CI.
#
#   tests/run.sh            installs what tests need, builds, runs every test and the lints
#   tests/run.sh all        the same, then transformers, clang, sanitizers and short fuzzing (what CI runs)
#   tests/run.sh STAGE...   only these: install build unit http browser contract clients crash load lint
#                           agree clang asan tsan fuzz
#
# Every stage adds to one total, printed last: "N passed, N failed, N skipped". A stage that runs
# fewer tests than tests/counts.txt records fails: a test that vanishes is a failure.
set -u
top=$(cd "$(dirname "$0")/.." && pwd)
cd "$top" || exit 1
. conf/packages.sh

default_stages="install build unit http browser contract clients crash load lint"
case "${1:-}" in
"") stages=$default_stages ;;
all) stages="$default_stages agree clang asan tsan fuzz" ;;
*) stages="$*" ;;
esac

logs=$(mktemp -d)
trap 'rm -rf "$logs"' EXIT
total_passed=0 total_failed=0 total_skipped=0

# add STAGE PASSED FAILED SKIPPED: to the totals, and against the recorded count.
add() {
    local recorded
    recorded=$(awk -v s="$1" '$1 == s { print $2 }' tests/counts.txt)
    total_passed=$((total_passed + $2)) total_failed=$((total_failed + $3))
    total_skipped=$((total_skipped + $4))
    echo "== $1: $2 passed, $3 failed, $4 skipped"
    if [ $(($2 + $3 + $4)) -lt "${recorded:-1}" ]; then
        echo "== $1: ran $(($2 + $3 + $4)) tests, tests/counts.txt records ${recorded:-1}"
        total_failed=$((total_failed + 1))
    fi
}

# sum LOG WORD: adds up every "N WORD" of the closing lines of our test programs.
sum() {
    grep -aoE "[0-9]+ $2" "$1" | awk '{ n += $1 } END { print n + 0 }'
}

# build_tree DIR CMAKE_OPTION...
build_tree() {
    local dir=$1
    shift
    cmake -S . -B "$dir" -G Ninja -DMP2_WERROR=ON "$@" >"$logs/build" 2>&1 &&
        cmake --build "$dir" >>"$logs/build" 2>&1
    local ok=$?
    [ $ok = 0 ] || tail -n 60 "$logs/build"
    return $ok
}

# unit_tests STAGE DIR [ctest option...]
unit_tests() {
    local stage=$1 dir=$2
    shift 2
    ctest --test-dir "$dir" -V -j2 "$@" >"$logs/unit" 2>&1
    local rc=$?
    grep -aE '^[0-9]+: .*[0-9]+ passed, [0-9]+ failed, [0-9]+ skipped' "$logs/unit" >"$logs/lines"
    local failed
    failed=$(sum "$logs/lines" failed)
    if [ $rc != 0 ]; then
        grep -aE 'FAILED|CHECK\(|REQUIRE\(|want |ERROR: |SUMMARY: |runtime error|\*\*\*' "$logs/unit" | head -n 60
        [ "$failed" = 0 ] && failed=1
    fi
    add "$stage" "$(sum "$logs/lines" passed)" "$failed" "$(sum "$logs/lines" skipped)"
}

# pytest_result STAGE RC: adds what the last line of the log counts.
pytest_result() {
    local failed
    tail -n 1 "$logs/py" >"$logs/lines"
    failed=$(($(sum "$logs/lines" failed) + $(sum "$logs/lines" error)))
    if [ "$2" != 0 ]; then
        tail -n 120 "$logs/py"
        [ $failed = 0 ] && failed=1
    fi
    add "$1" "$(sum "$logs/lines" passed)" "$failed" "$(sum "$logs/lines" skipped)"
}

# own_packages FOLDER STAGE [PYTHON [OPTION...]]: a virtual environment, build/venv-STAGE, of what
# FOLDER pins.
own_packages() {
    local pins=$1/requirements.txt venv=build/venv-$2 python=${3:-python3}
    shift $(($# < 3 ? $# : 3))
    cmp -s "$pins" "$venv/installed.txt" && return 0
    "$python" -m venv "$@" "$venv" && "$venv/bin/pip" install -q -r "$pins" &&
        cp "$pins" "$venv/installed.txt"
}

# python_tests STAGE FOLDER BINARY [OPTION...]: pytest in a virtual environment.
python_tests() {
    local stage=$1 folder=$2
    export MP2_BIN=$top/$3
    shift 3
    if ! cmp -s tests/requirements.txt build/venv/installed.txt; then
        { python3 -m venv build/venv && build/venv/bin/pip install -q -r tests/requirements.txt &&
            cp tests/requirements.txt build/venv/installed.txt; } || { add "$stage" 0 1 0; return; }
    fi
    if [ -f "$folder/requirements.txt" ]; then
        build/venv/bin/pip install -q -r "$folder/requirements.txt" || { add "$stage" 0 1 0; return; }
    fi
    build/venv/bin/pytest -q -p no:cacheprovider --maxfail=20 "$@" "$folder" >"$logs/py" 2>&1
    pytest_result "$stage" $?
}

stage_install() {
    # shellcheck disable=SC2086
    install_missing $BUILD_PACKAGES $RUN_PACKAGES $TEST_PACKAGES $LINT_PACKAGES || exit 1
}

stage_build() {
    build_tree build -DCMAKE_BUILD_TYPE=Release || exit 1
}

stage_unit() {
    unit_tests unit build -LE crash
}

stage_http() {
    python_tests http tests/http build/mp2
}

# The dashboard in Debian's Chromium.
stage_browser() {
    python_tests browser tests/browser build/mp2
}

# Unmodified clients of several versions, each in an environment of its own (build/clients, kept).
stage_clients() {
    python_tests clients tests/clients build/mp2
}

# What /openapi.json promises, by requests made from it. Its packages have pins of their own.
stage_contract() {
    own_packages tests/contract contract || { add contract 0 1 0; return; }
    MP2_BIN=$top/build/mp2 build/venv-contract/bin/pytest -q -p no:cacheprovider tests/contract \
        >"$logs/py" 2>&1
    pytest_result contract $?
}

# A model directory of ours in transformers, on Debian's PyTorch: tokens and logits are the same.
stage_agree() {
    # shellcheck disable=SC2086
    { install_missing $AGREE_PACKAGES &&
        own_packages tests/agree agree /usr/bin/python3 --system-site-packages; } ||
        { add agree 0 1 0; return; }
    MP2_BIN=$top/build/mp2 build/venv-agree/bin/python -m pytest -q -p no:cacheprovider tests/agree \
        >"$logs/py" 2>&1
    pytest_result agree $?
}

# Mixed traffic for two minutes, floods, rates (MP2_LOAD_SECONDS; tests/load/load.py runs half an hour).
stage_load() {
    python_tests load tests/load build/mp2
}

stage_crash() {
    unit_tests crash build -L crash
    python_tests crash-server tests/crash build/mp2
}

stage_lint() {
    python3 tests/lint/lint.py >"$logs/lint" 2>&1
    local rc=$?
    grep -vE ': ok$' "$logs/lint"
    add lint "$(grep -cE ': ok$' "$logs/lint")" "$(grep -cE ': FAILED$' "$logs/lint")" 0
    [ $rc = 0 ] || [ "$(grep -cE ': FAILED$' "$logs/lint")" != 0 ] || total_failed=$((total_failed + 1))
}

stage_clang() {
    if build_tree build-clang -DCMAKE_C_COMPILER=clang -DCMAKE_BUILD_TYPE=Release; then
        add clang 1 0 0
    else
        add clang 0 1 0
    fi
}

# sanitizer STAGE SANITIZERS LABELS: the unit tests under the sanitizers, but for those of these labels
# (tests/CMakeLists.txt says why); then the HTTP tests against a server whose innermost loops, which the unit
# tests have just watched, run at full speed (engine/CMakeLists.txt), so that its jobs end.
sanitizer() {
    { build_tree "build-$1" "-DMP2_SANITIZE=$2" -DCMAKE_BUILD_TYPE=RelWithDebInfo &&
        build_tree "build-$1-http" "-DMP2_SANITIZE=$2" -DMP2_PLAIN_KERNELS=ON -DMP2_TESTS=OFF \
            -DCMAKE_BUILD_TYPE=RelWithDebInfo; } || { add "$1" 0 1 0; return; }
    export ASAN_OPTIONS=detect_leaks=1:abort_on_error=0 UBSAN_OPTIONS=print_stacktrace=1
    export TSAN_OPTIONS="halt_on_error=1 suppressions=$top/tests/lint/tsan.supp"
    MP2_SLOW_BUILD=1 unit_tests "$1" "build-$1" -LE "$3"
    MP2_SLOW_BUILD=1 python_tests "$1-http" tests/http "build-$1-http/mp2"
    unset ASAN_OPTIONS UBSAN_OPTIONS TSAN_OPTIONS
}

stage_asan() {
    sanitizer asan address,undefined crash
}

stage_tsan() {
    sanitizer tsan thread "crash|maths"
}

# Every fuzz target for a short while, from the kept corpus (tests/fuzz/corpus/NAME).
stage_fuzz() {
    local seconds=${FUZZ_SECONDS:-20} passed=0 failed=0
    build_tree build-fuzz -DCMAKE_C_COMPILER=clang -DMP2_FUZZ=ON -DMP2_SANITIZE=address,undefined \
        -DCMAKE_BUILD_TYPE=RelWithDebInfo || { add fuzz 0 1 0; return; }
    for target in build-fuzz/tests/fuzz_*; do
        [ -x "$target" ] || continue
        local name=${target##*/fuzz_}
        mkdir -p "$logs/corpus-$name"
        if [ -d "tests/fuzz/corpus/$name" ]; then
            cp -r "tests/fuzz/corpus/$name/." "$logs/corpus-$name/"
        fi
        if [ -f "tests/fuzz/corpus/$name.seeds" ]; then # files kept elsewhere, one path a line
            xargs -a "tests/fuzz/corpus/$name.seeds" -I{} cp {} "$logs/corpus-$name/"
        fi
        if "$target" -max_total_time="$seconds" -timeout=10 -rss_limit_mb=2048 -verbosity=0 \
            -artifact_prefix="$logs/" "$logs/corpus-$name" >"$logs/fuzz" 2>&1; then
            passed=$((passed + 1))
        else
            failed=$((failed + 1))
            echo "fuzz_$name:"
            tail -n 40 "$logs/fuzz"
        fi
    done
    add fuzz $passed $failed 0
}

for stage in $stages; do
    if ! declare -F "stage_$stage" >/dev/null; then
        echo "unknown stage \"$stage\"; see the head of tests/run.sh" >&2
        exit 2
    fi
    start=$(date +%s)
    "stage_$stage"
    echo "-- $stage took $(($(date +%s) - start)) s"
done

echo "$total_passed passed, $total_failed failed, $total_skipped skipped"
[ $total_failed = 0 ] && [ $total_passed -gt 0 ]
