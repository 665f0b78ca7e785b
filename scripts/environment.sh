# Sourced by the scripts beside it: makes `.venv` at the root of the clone, installs what is needed into it and
# builds the compiled parts. Each step leaves a stamp (a hash of what it depends on), so that a repeated run
# costs a fraction of a second. Nothing outside the clone is written.
#
#   prepare runtime    what it takes to run paravirt
#   prepare dev        that, and the linters and test tools
#
# Sets ROOT (the clone) and PY (its interpreter).

ROOT=$(cd -- "$(dirname -- "$(readlink -f -- "${BASH_SOURCE[0]}")")/.." && pwd)
VENV=$ROOT/.venv
PY=$VENV/bin/python
STAMPS=$VENV/.paravirt
DEBIAN_PACKAGES="python3 python3-venv python3-dev gcc libc6-dev make"

fail() {
    printf '%s: %s\n' "${0##*/}" "$1" >&2
    exit 2
}

say() {
    printf '%s: %s\n' "${0##*/}" "$1" >&2
}

# The newest way to get what the machine lacks: as root on Debian, install it; else say what is missing.
need_packages() {
    local why=$1
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null && [ -z "${PARAVIRT_APT_TRIED:-}" ]; then
        PARAVIRT_APT_TRIED=1
        say "$why; installing $DEBIAN_PACKAGES"
        # shellcheck disable=SC2086  # a list of words
        { DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends $DEBIAN_PACKAGES ||
            { apt-get update -q && DEBIAN_FRONTEND=noninteractive \
                apt-get install -y -q --no-install-recommends $DEBIAN_PACKAGES; }; } >&2 </dev/null ||
            fail "$why, and apt-get could not install it."
        return
    fi
    fail "$why (Debian: apt-get install $DEBIAN_PACKAGES)."
}

# Print the first Python that is new enough.
find_python() {
    local name
    for name in ${PYTHON:-} python3 python3.14 python3.13 python3.12 python3.11; do
        if command -v "$name" >/dev/null &&
            "$name" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            command -v "$name"
            return
        fi
    done
    return 1
}

# Whether interpreter $1 can make virtual environments and finds its own C headers.
can_make_venv() {
    "$1" -c 'import venv, ensurepip' 2>/dev/null
}

can_compile() {
    command -v "${CC:-gcc}" >/dev/null && "$1" -c '
import os, sys, sysconfig
sys.exit(not os.path.exists(os.path.join(sysconfig.get_paths()["include"], "Python.h")))'
}

# Hash of stdin, of the place of the clone and of the interpreter's version.
hash_of() {
    { printf '%s\n' "$ROOT" "$PYTHON_VERSION"; cat; } | sha256sum | cut -d' ' -f1
}

fresh() { # fresh NAME HASH: was this step done with these inputs?
    [ -f "$STAMPS/$1" ] && [ "$(<"$STAMPS/$1")" = "$2" ]
}

stamp() {
    mkdir -p "$STAMPS"
    printf '%s\n' "$2" >"$STAMPS/$1"
}

writable_or_fail() {
    if [ -e "$VENV" ] && [ ! -w "$VENV" ]; then
        fail "the environment $VENV is out of date and belongs to another user; remove it, or run this as its owner."
    elif [ ! -w "$ROOT" ]; then
        fail "the folder $ROOT cannot be written by this user."
    fi
}

make_venv() {
    if [ -x "$PY" ] && "$PY" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null &&
        [ "$(cat "$STAMPS/root" 2>/dev/null || printf '%s' "$ROOT")" = "$ROOT" ]; then
        return
    fi
    writable_or_fail
    local base
    base=$(find_python) || { need_packages "Python 3.11 or newer was not found"; base=$(find_python) ||
        fail "Python 3.11 or newer was not found."; }
    can_make_venv "$base" || need_packages "the module venv of $base is missing"
    say "making $VENV"
    rm -rf "$VENV"
    "$base" -m venv "$VENV" || { rm -rf "$VENV"; fail "$base could not make the environment $VENV."; }
    stamp root "$ROOT"
}

pip_install() {
    "$PY" -m pip install -q --disable-pip-version-check --no-input "$@" </dev/null >&2 ||
        fail "pip could not install what paravirt needs (its own words are above)."
}

# The files that the compiled parts are made of.
build_inputs() {
    {
        find src -name '*.pxd' -o -name '*.h' -o -path 'src/paravirt/machine/*.c' -o -path 'src/paravirt/abi/*.py'
        grep -rl --include='*.py' '^# cython:' src/paravirt/machine src/paravirt/hypervisor
        find guests/hello guests/lib -type f
        printf '%s\n' setup.py pyproject.toml guests/build.py
    } | grep -v -e '/paravirt_abi\.h$' -e '/constants\.pxd$' | LC_ALL=C sort -u
}

# The compiled files that are there, so that a removed one is noticed.
build_outputs() {
    find src -name '*.so' -o -path 'src/paravirt/data/hello' | LC_ALL=C sort
}

prepare() {
    local extra=$1 wanted lock
    cd "$ROOT" || exit 2
    if [ -w "$ROOT" ] && command -v flock >/dev/null; then
        mkdir -p .cache
        exec {lock}>.cache/environment.lock
        flock "$lock"
    fi
    make_venv
    PYTHON_VERSION=$("$PY" -c 'import sys; print(sys.version)')

    wanted=$({ printf '%s\n' "$extra"; cat pyproject.toml; } | hash_of)
    if ! fresh "packages-$extra" "$wanted"; then
        writable_or_fail
        can_compile "$PY" || need_packages "a C compiler or the headers of Python are missing"
        say "installing packages into $VENV"
        local -a packages
        mapfile -t packages < <("$PY" - "$extra" <<'PYTHON'
import sys, tomllib
data = tomllib.load(open("pyproject.toml", "rb"))
names = data["build-system"]["requires"] + data["project"]["dependencies"]
if sys.argv[1] == "dev":
    names += data["project"]["optional-dependencies"]["dev"]
print("\n".join(names))
PYTHON
        )
        pip_install "${packages[@]}"
        stamp "packages-$extra" "$wanted"
    fi

    wanted=$({ build_inputs | xargs -d '\n' sha256sum; build_outputs; } | hash_of)
    if ! fresh build "$wanted"; then
        writable_or_fail
        can_compile "$PY" || need_packages "a C compiler or the headers of Python are missing"
        say "building the compiled parts"
        mkdir -p build
        "$PY" -W ignore setup.py -q build_ext --inplace >build/build.log 2>&1 </dev/null || {
            tail -n 40 build/build.log >&2
            fail "the compiled parts could not be built (all of the output is in build/build.log)."
        }
        stamp build "$({ build_inputs | xargs -d '\n' sha256sum; build_outputs; } | hash_of)"
    fi

    wanted=$(hash_of <pyproject.toml)
    if ! fresh package "$wanted"; then
        writable_or_fail
        pip_install --no-deps --no-build-isolation --editable .
        stamp package "$wanted"
    fi
    [ -z "${lock:-}" ] || exec {lock}>&-
}
