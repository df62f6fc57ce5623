#!/usr/bin/env bash
# Makes the checkout's .venv ready, if it is not: setup.sh runtime (what training needs) or test (the test tools too).
#
#   BIGEMBED_BUILD=auto|cpu|cuda   which builds of torch and FBGEMM; auto asks the NVIDIA driver
#   PYTHON=PROGRAM                 the Python to make .venv with, 3.11 or 3.12
#
# What .venv was made for is in .venv/.bigembed-made, what was installed in .venv/.bigembed-runtime and -test: as long as
# the files that decide it are the same, nothing is done.
set -euo pipefail

say() { printf 'bigembed: %s\n' "$*" >&2; }
die() {
    say "$*"
    exit 1
}

part=${1:-runtime}
root=$(CDPATH='' cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd -P)
venv=$root/.venv
marker=$venv/.bigembed-installing
log=$venv/setup.log

# Settings of the caller's that would send the packages elsewhere.
unset PYTHONHOME PYTHONPATH PIP_TARGET PIP_PREFIX PIP_USER PIP_ROOT

driver_answers() { command -v nvidia-smi >/dev/null && [[ $(nvidia-smi -L 2>/dev/null || true) == *'GPU '* ]]; }

# hatch_build.py makes the same choice for a plain `pip install`.
choose_build() {
    case ${BIGEMBED_BUILD:-auto} in
        cpu | cuda)
            build=$BIGEMBED_BUILD
            say "$build build: BIGEMBED_BUILD says so"
            ;;
        auto)
            if driver_answers; then
                build=cuda
                say "cuda build: an NVIDIA driver answers (BIGEMBED_BUILD=cpu forces the other)"
            else
                build=cpu
                say "cpu build: no NVIDIA driver answers (BIGEMBED_BUILD=cuda forces the other)"
            fi
            ;;
        *) die "BIGEMBED_BUILD is '$BIGEMBED_BUILD': it can be auto, cpu or cuda" ;;
    esac
}

version_of() { "$1" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null; }

choose_python() {
    local candidate without_venv=
    if [[ -n ${PYTHON:-} ]]; then
        version=$(version_of "$PYTHON") || die "PYTHON is '$PYTHON': that does not run as a Python"
        [[ $version == 3.11 || $version == 3.12 ]] || die "PYTHON is '$PYTHON', Python $version: bigembed needs 3.11 or 3.12"
        base=$PYTHON
        return
    fi
    # A name on the path need not run (version managers leave such), and on Debian venv is a package of its own.
    for candidate in python3.11 python3.12 python3 python; do
        version=$(version_of "$candidate") || continue
        [[ $version == 3.11 || $version == 3.12 ]] || continue
        base=$candidate
        "$candidate" -c 'import ensurepip, venv' 2>/dev/null && return
        without_venv=$candidate
    done
    [[ -z $without_venv ]] || die "$without_venv cannot make virtual environments: install its venv module (package python$version-venv), or set PYTHON"
    die "no Python 3.11 or 3.12 on the path: install one, or set PYTHON=/path/to/python"
}

# Sets made_for (what .venv must have been made for, else it is made anew) and wanted (what must have been installed).
describe() {
    made_for="build $build"$'\n'"python $version"$'\n'"root $root"
    wanted=$made_for
    local file
    for file in pyproject.toml hatch_build.py launch/constraints.txt launch/fbgemm-gpu-cpu-only/pyproject.toml; do
        wanted+=$'\n'$(<"$root/$file")
    done
}

# The test part holds the runtime part.
ready() {
    [[ -x $venv/bin/python && -x $venv/bin/bigembed ]] || return 1
    local stamp
    for stamp in "$venv/.bigembed-$part" "$venv/.bigembed-test"; do
        if [[ -f $stamp && $(<"$stamp") == "$wanted" ]]; then return 0; fi
    done
    return 1
}

# One set-up at a time: the lock lies on file descriptor 9 and goes with the last process that holds it, pip included.
# Python takes it because not every system has the program flock.
lock() {
    local take='import fcntl, sys; fcntl.flock(9, fcntl.LOCK_EX | (fcntl.LOCK_NB if len(sys.argv) > 1 else 0))'
    [[ -w $root ]] || die "cannot write to $root, where .venv is made"
    exec 9>>"$root/.venv.lock"
    if ! "$base" -c "$take" now 2>/dev/null; then
        say "another set-up of this checkout is running: waiting for it"
        "$base" -c "$take"
    fi
}

# On a terminal: the line that pip is at. The log has all of them.
show_progress() {
    local line
    if [[ -t 2 ]]; then
        while IFS= read -r line; do printf '\r\033[K%s' "${line:0:78}" >&2; done
        printf '\r\033[K' >&2
    else
        cat >/dev/null
    fi
}

logged() { "$@" 2>&1 </dev/null | tee -a "$log" | show_progress; }

end_of_log() {
    tail -n 15 -- "$log" | sed 's/^/    /' >&2
    say "the whole log: $log"
}

make_venv() {
    local reason
    if [[ -e $venv && -n $(ls -A -- "$venv") ]]; then
        if [[ -e $marker ]]; then
            reason="its set-up was interrupted"
        elif [[ ! -f $venv/.bigembed-made ]]; then
            die "$venv was not made by this script: move it away"
        elif [[ $(<"$venv/.bigembed-made") != "$made_for" ]]; then
            reason="it was made for another build, Python or folder"
        elif [[ ! -x $venv/bin/python ]]; then
            reason="its Python is gone"
        else
            : >"$marker"
            return
        fi
        say "making .venv anew: $reason"
        : >"$marker"
        find "$venv/" -mindepth 1 ! -path "$marker" -delete
    fi
    mkdir -p -- "$venv"
    : >"$marker"
    if ! logged "$base" -m venv "$venv"; then
        end_of_log
        die "$base could not make a virtual environment in $venv"
    fi
    printf '%s\n' "$made_for" >"$venv/.bigembed-made"
}

# The reason why pip failed, in one sentence where it is a known one.
explain() {
    if grep -qE 'connection broken by|Max retries exceeded|Could not fetch URL' "$log"; then
        end_of_log
        die "pip could not reach a package index: check the network and pip's configuration"
    elif grep -qE '(No matching distribution found for|Cannot install) torch==[^ ]*\+cpu( because|$)' "$log"; then
        die "none of the package indexes that pip is configured with has the CPU build $torch for Python $version:" \
            "add PyTorch's CPU index to pip's configuration, take another Python (PYTHON=...), or set" \
            "BIGEMBED_BUILD=cuda for the CUDA build (several GB)"
    fi
    end_of_log
    die "the set-up failed"
}

install() {
    local target=. status
    [[ $part == runtime ]] || target='.[test]'
    # By torch's version alone pip may take the CUDA build, several GB; the CPU build has a version of its own, on the
    # systems where the two are apart. It stands first, so that nothing is downloaded where it is missing.
    torch=
    if [[ $build == cpu && $OSTYPE == linux* && $HOSTTYPE == x86_64 ]]; then
        torch=$(grep '^torch==' launch/constraints.txt)+cpu
    fi
    say "installing pinned packages into .venv: about a minute for cpu, several GB for cuda (log: $log)"
    : >"$log"
    rm -f -- "$venv/.bigembed-runtime" "$venv/.bigembed-test"
    interrupted=
    trap 'interrupted=1' INT
    # The variables reach the builds of packages that come as source, where -c does not; which one pip reads there
    # depends on its version.
    status=0
    BIGEMBED_BUILD=$build PIP_CONSTRAINT=launch/constraints.txt PIP_BUILD_CONSTRAINT=launch/constraints.txt \
        logged "$venv/bin/python" -m pip install --disable-pip-version-check -c launch/constraints.txt \
        ${torch:+"$torch"} -e "$target" || status=$?
    if [[ -n $interrupted ]]; then
        say "interrupted: the next call makes .venv anew"
        exit 130
    fi
    trap - INT
    if ((status != 0)); then
        # pip ended by itself and has taken back what it could not finish: what is there can be built upon.
        ((status > 128)) || rm -f -- "$marker"
        explain
    fi
    if ! logged "$venv/bin/python" -m pip check; then
        end_of_log
        die "the installed packages do not fit together"
    fi
    if [[ $build == cuda ]] && ! driver_answers; then
        say "no NVIDIA driver answers here, and the CUDA build of FBGEMM loads only where one does"
    elif ! logged "$venv/bin/python" -c 'import torchrec'; then
        end_of_log
        die "TorchRec does not load as installed"
    fi
    printf '%s\n' "$wanted" >"$venv/.bigembed-$part"
    rm -f -- "$marker"
}

[[ $part == runtime || $part == test ]] || die "setup.sh takes runtime or test, not '$part'"
choose_build

# Without PYTHON the Python of a .venv that was once ready stays, and need not be started to know its version.
version=
if [[ -n ${PYTHON:-} ]]; then
    choose_python
elif [[ -x $venv/bin/bigembed && -f $venv/.bigembed-made && $(<"$venv/.bigembed-made") =~ python\ (3\.1[12]) ]]; then
    version=${BASH_REMATCH[1]}
fi
if [[ -n $version ]]; then
    describe
    if ready; then exit 0; fi
fi

cd -- "$root"
if [[ -z ${PYTHON:-} ]]; then
    # The Python behind .venv's own, since that one may be about to be deleted.
    behind='import sys; print(sys._base_executable)'
    if [[ -z $version ]] || ! base=$("$venv/bin/python" -c "$behind" 2>/dev/null); then choose_python; fi
fi
describe
lock
if ready; then exit 0; fi
make_venv
install
say "ready: Python $version, $("$venv/bin/python" -c 'import torch; print("torch", torch.__version__)')"
