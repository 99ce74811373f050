#!/bin/sh
# `environment.sh install` makes .venv from requirements.lock; `environment.sh lock` makes requirements.lock from
# pyproject.toml, and the locks of model servers; `environment.sh servers` makes the environments of model servers, whose
# requirements contradict ours. Make decides when; this script says how long each part took and, when it cannot, what
# to do.
set -eu
cd "$(dirname "$0")/.."

UV_VERSION=0.13.9
OLDEST=3.11
NEWEST=3.14
SERVERS="mlserver kserve"
VENV="$(pwd -P)/.venv"
STAMP="$VENV/made-for"

say() { printf '%-12s %s\n' "$1" "$2"; }

refuse() {
    printf '%s\n' "$1" >&2
    exit 1
}

# Prints the version of interpreter $1, and succeeds, if this project runs on it.
suits() {
    "$1" - "$OLDEST" "$NEWEST" 2>/dev/null <<'PYTHON'
import sys
oldest, newest = (tuple(map(int, text.split("."))) for text in sys.argv[1:])
if not oldest <= sys.version_info[:2] <= newest:
    sys.exit(1)
print(sys.version.split()[0])
PYTHON
}

find_python() {
    for candidate in ${PYTHON:-python3 python3.14 python3.13 python3.12 python3.11}; do
        if suits "$candidate" >/dev/null; then
            printf '%s\n' "$candidate"
            return
        fi
    done
    found=$(${PYTHON:-python3} --version 2>&1) || found="no ${PYTHON:-python3}"
    refuse "python: found $found; expected Python $OLDEST to $NEWEST; \
install one (Debian, Ubuntu: apt-get install python3 python3-venv) or name one: make env PYTHON=/path/to/python3.12"
}

make_venv() {
    if [ -x "$VENV/bin/python" ] && [ "$(cat "$STAMP" 2>/dev/null)" = "$VENV" ] && suits "$VENV/bin/python" >/dev/null
    then
        return
    fi
    python=$(find_python)
    "$python" -c 'import venv, ensurepip' 2>/dev/null || refuse "$python: found no venv or ensurepip; \
expected the whole standard library; Debian and Ubuntu keep it in a package of its own: \
apt-get install python$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')-venv"
    began=$(date +%s)
    "$python" -m venv --clear "$VENV"
    printf '%s\n' "$VENV" >"$STAMP"
    say venv "$(($(date +%s) - began)) s, Python $(suits "$python") from $python"
}

install_uv() {
    if [ "$("$VENV/bin/uv" --version 2>/dev/null | cut -d' ' -f2)" = "$UV_VERSION" ]; then
        return
    fi
    began=$(date +%s)
    "$VENV/bin/python" -m pip install --quiet --disable-pip-version-check "uv==$UV_VERSION" ||
        refuse "uv $UV_VERSION: pip could not install it; expected a package index; \
read pip's reason above; behind a mirror set PIP_INDEX_URL"
    say uv "$(($(date +%s) - began)) s, version $UV_VERSION"
}

# uv reads neither pip's configuration nor its variables.
share_pip_settings() {
    if [ -z "${UV_DEFAULT_INDEX:-}${UV_INDEX_URL:-}" ]; then
        index=${PIP_INDEX_URL:-$("$VENV/bin/python" -m pip config get global.index-url 2>/dev/null || true)}
        [ -z "$index" ] || export UV_DEFAULT_INDEX="$index"
    fi
    if [ -n "${PIP_CERT:-}" ] && [ -z "${SSL_CERT_FILE:-}" ]; then
        export SSL_CERT_FILE="$PIP_CERT"
    fi
}

install_packages() {
    began=$(date +%s)
    "$VENV/bin/uv" pip sync --quiet requirements.lock ||
        refuse "requirements.lock: uv could not install it; expected every version on the package index; \
read uv's reason above; behind a mirror set UV_DEFAULT_INDEX"
    # The builder comes from the lock as well, so nothing unpinned is fetched.
    "$VENV/bin/uv" pip install --quiet --no-deps --no-build-isolation --editable .
    say packages "$(($(date +%s) - began)) s, $(grep -c '==' requirements.lock) locked"
    began=$(date +%s)
    # uv leaves no bytecode: every flow process would compile Prefect again, 7 s instead of 4. Some packages
    # carry files for other versions of Python, which do not compile and do not matter.
    packages=$("$VENV/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
    "$VENV/bin/python" -m compileall -qq -j 2 -x '/tests/' "$packages" || true
    say bytecode "$(($(date +%s) - began)) s"
}

# LightGBM's wheel leaves OpenMP to the system, and slim images have none.
find_openmp() {
    load='import ctypes; ctypes.CDLL("libgomp.so.1")'
    if [ "$(uname)" != Linux ] || "$VENV/bin/python" -c "$load" 2>/dev/null; then
        return
    fi
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
        began=$(date +%s)
        { apt-get --quiet update && apt-get --quiet install --yes --no-install-recommends libgomp1; } >/dev/null || true
        say openmp "$(($(date +%s) - began)) s"
    fi
    "$VENV/bin/python" -c "$load" 2>/dev/null || refuse "libgomp.so.1: not found; expected it for the models \
of the example; install libgomp1 (Debian, Ubuntu) or libgomp (Fedora)"
}

# The addresses of this machine's index stay out of the file, and so does its version of Python.
resolve() {
    "$VENV/bin/uv" pip compile --quiet --universal --python-version "$OLDEST" --all-extras --generate-hashes \
        --no-emit-index-url --no-emit-find-links --custom-compile-command "make lock" \
        --output-file requirements.lock pyproject.toml
    say lock "$(grep -c '==' requirements.lock) packages"
    for server in $SERVERS; do
        "$VENV/bin/uv" pip compile --quiet --universal --python-version "$OLDEST" --generate-hashes \
            --no-emit-index-url --no-emit-find-links --custom-compile-command "make lock" \
            --output-file "requirements-servers/$server.txt" "requirements-servers/$server.in"
        say "$server" "$(grep -c '==' "requirements-servers/$server.txt") packages"
    done
}

# Succeeds whether or not there is a server in the end: the tests say what its absence means.
install_server() {
    folder="$(pwd -P)/.venv-servers/$1"
    lock="requirements-servers/$1.txt"
    wanted="$folder $("$VENV/bin/python" --version) $(cksum <"$lock")"
    [ "$(cat "$folder/made-from" 2>/dev/null)" != "$wanted" ] || return 0
    began=$(date +%s)
    # Wheels of a hundred megabytes, over whatever network there is.
    export UV_HTTP_TIMEOUT="${UV_HTTP_TIMEOUT:-300}"
    # The second try goes on from what the first one fetched.
    for _ in 1 2; do
        "$VENV/bin/uv" venv --quiet --clear --python "$VENV/bin/python" "$folder" &&
            VIRTUAL_ENV="$folder" "$VENV/bin/uv" pip install --quiet --require-hashes --requirement "$lock" &&
            printf '%s\n' "$wanted" >"$folder/made-from" &&
            say "$1" "$(($(date +%s) - began)) s, $(grep -c '==' "$lock") locked" &&
            return 0
    done
    say "$1" "not installed, read uv's reason above; the tests of model servers need it"
}

make_venv
install_uv
share_pip_settings
export VIRTUAL_ENV="$VENV"
case "${1:-}" in
install)
    install_packages
    find_openmp
    touch "$VENV/ready"
    ;;
lock) resolve ;;
servers) for server in $SERVERS; do install_server "$server"; done ;;
*) refuse "environment.sh: found '${1:-}'; expected install, lock or servers; see the Makefile" ;;
esac
