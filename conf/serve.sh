#!/bin/sh
# serve.sh: from a bare Debian 12 to a running server, in one command.
#
#   conf/serve.sh [options of `mp2 serve`]
#
# Installs missing packages (root or sudo), builds into ./build (Release), and serves the embedded
# model at 127.0.0.1:8080 with its database in ./data. The first start prints the admin key, once.
set -eu
top=$(cd "$(dirname "$0")/.." && pwd)
. "$top/conf/packages.sh"

# shellcheck disable=SC2086
install_missing $BUILD_PACKAGES $RUN_PACKAGES
log=$(mktemp)
if ! { cmake -S "$top" -B "$top/build" -G Ninja -DCMAKE_BUILD_TYPE=Release &&
       cmake --build "$top/build" --target mp2; } >"$log" 2>&1; then
    cat "$log" >&2
    echo "the build failed; its output is above" >&2
    rm -f "$log"
    exit 1
fi
rm -f "$log"
exec "$top/build/mp2" serve "$@"
