#!/usr/bin/env bash
# Prepares a checkout: .venv with the extras named as arguments and, as root on
# Debian, the packages that tests or benchmarks run. Quick and silent when all
# is there.
#
#   tools/setup.sh dev              what `make demo` needs
#   tools/setup.sh --apt=test dev   and the packages of tools/apt-packages-test.txt
#   tools/setup.sh --try=EXTRA      an extra that may not install everywhere
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

log=$(mktemp)
policy=/usr/sbin/policy-rc.d
made_policy= # the path above while the file is ours

clean_up() {
    rm -f ${made_policy:+"$made_policy"}
    made_policy=
}
trap 'clean_up; rm -f "$log"' EXIT
trap 'exit 130' INT TERM

say() { printf 'setup: %s\n' "$*" >&2; }

# Runs a command silently; when it fails, shows the end of what it said.
quietly() {
    "$@" >"$log" 2>&1 && return
    tail -n 20 "$log" >&2
    return 1
}

is_recent_python() {
    "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null
}

find_python() {
    local name
    for name in python3 python3.13 python3.12 python3.11 python3.14; do
        if is_recent_python "$name"; then
            echo "$name"
            return
        fi
    done
    say "no Python 3.11 or newer: python3 is $(python3 --version 2>&1 || true);" \
        "install one, on Debian 12 or later with: apt-get install python3 python3-venv"
    return 1
}

can_install() { [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; }

# A package such as nginx starts its service when it is installed; exit code
# 101 of policy-rc.d says no to that. An administrator's own policy stays.
apt_install() {
    local outcome=0
    if [ ! -e "$policy" ]; then
        made_policy=$policy
        printf '#!/bin/sh\nexit 101\n' >"$policy"
        chmod 755 "$policy"
    fi
    quietly apt-get update -q || say "apt-get update failed; trying with the lists of before"
    DEBIAN_FRONTEND=noninteractive \
        quietly apt-get install -qy --no-install-recommends "$@" || outcome=$?
    clean_up
    return "$outcome"
}

is_installed() {
    [ "$(dpkg-query -W -f '${db:Status-Status}' "$1" 2>/dev/null)" = installed ]
}

# The argument is the name of a list of packages, such as `test`.
setup_debian() {
    local list=tools/apt-packages-$1.txt
    command -v dpkg-query >/dev/null || {
        say "not Debian: what needs the programs of $list is skipped where they are missing"
        return
    }
    local package missing=()
    for package in $(grep -v '^#' "$list"); do
        is_installed "$package" || missing+=("$package")
    done
    [ "${#missing[@]}" = 0 ] && return
    if ! can_install; then
        say "not installed: ${missing[*]}; what needs them is skipped" \
            "(as root: apt-get install ${missing[*]})"
        return
    fi
    say "installing ${missing[*]}"
    apt_install "${missing[@]}" || say "apt-get failed; going on without"
}

setup_venv() {
    is_recent_python .venv/bin/python && return
    local python version
    python=$(find_python)
    # Debian keeps the part of venv that installs pip in a package of its own.
    if ! "$python" -c 'import ensurepip' 2>/dev/null; then
        version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
        can_install || {
            say "$python cannot make a .venv; as root: apt-get install python$version-venv"
            return 1
        }
        say "installing python$version-venv"
        apt_install "python$version-venv"
    fi
    say "making .venv with $("$python" --version)"
    "$python" -m venv --clear .venv
}

# A stamp per extra holds what pyproject.toml was when it was installed.
setup_extra() {
    local extra=$1 stamp=.venv/.installed-$1 wanted
    # The place counts: a .venv that was moved points to where it was.
    wanted=$(pwd && cksum pyproject.toml)
    [ "$(cat "$stamp" 2>/dev/null)" = "$wanted" ] && return
    say "installing sengu[$extra] into .venv"
    quietly .venv/bin/python -m pip install --quiet --editable ".[$extra]" || {
        say "pip could not install sengu[$extra]; the lines above say why"
        return 1
    }
    echo "$wanted" >"$stamp"
}

for argument; do
    case $argument in
        --apt=*)
            setup_debian "${argument#*=}"
            ;;
        --try=*)
            setup_venv
            setup_extra "${argument#*=}" || say "going on without"
            ;;
        *)
            # On lines of their own: `set -e` does not reach into `a && b`.
            setup_venv
            setup_extra "$argument"
            ;;
    esac
done
