# packages.sh: the Debian packages mp2 needs, and one function that installs what is missing.
# Sourced by conf/serve.sh and tests/run.sh.

BUILD_PACKAGES="gcc libc6-dev cmake ninja-build pkg-config libmicrohttpd-dev libuv1-dev
  libopenblas-pthread-dev libjansson-dev libsqlite3-dev libsodium-dev libutf8proc-dev
  libgnutls28-dev"
RUN_PACKAGES="curl jq"
TEST_PACKAGES="python3 python3-venv git sqlite3 chromium fonts-noto-cjk wrk"
AGREE_PACKAGES="python3-torch" # of the stage "agree" alone
LINT_PACKAGES="clang clang-format libclang-rt-14-dev"

# install_missing PACKAGE...: asks dpkg first, so that nothing is downloaded when all is there.
install_missing() {
    missing=""
    for package in "$@"; do
        state=$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null || true)
        [ "$state" = installed ] || missing="$missing $package"
    done
    [ -z "$missing" ] && return 0
    as_root=""
    if [ "$(id -u)" != 0 ]; then
        if ! command -v sudo >/dev/null; then
            echo "missing packages:$missing (run as root, or install sudo)" >&2
            return 1
        fi
        as_root=sudo
    fi
    echo "installing:$missing" >&2
    $as_root apt-get update -qq >&2
    # shellcheck disable=SC2086
    $as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \
        $missing >&2
}
