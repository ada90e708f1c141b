#!/bin/sh
# Sets the machine up and builds: the one set-up script behind ./run, ./test and .ci/run.
#
#   scripts/setup.sh PRESET TARGET...     packages, then `cmake --preset PRESET` and these targets (none: packages only)
#
# On Debian missing packages are installed by apt-get (with sudo when not root). Elsewhere it goes on when the tools and
# libraries are there, and otherwise prints what to install and stops. All output goes to standard error, so that the
# output of what runs afterwards is its own. When everything is in place this takes well under a second.
set -eu

root=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd)
preset=${1:-release}
[ $# -eq 0 ] || shift

packages="gcc cmake ninja-build pkg-config libpcre2-dev libutf8proc-dev libyajl-dev zlib1g-dev libcurl4-openssl-dev \
libzip-dev libsodium-dev libopenblas0-pthread libedit-dev libcmocka-dev libc6-dev dpkg-dev python3 python3-pip ca-certificates"
libraries="libpcre2-8 libutf8proc yajl zlib libcurl libzip libsodium libedit cmocka"
tools="cc cmake ninja pkg-config python3"
case $preset in
fuzz)
    packages="$packages clang llvm libclang-rt-dev"
    tools="$tools clang" ;;
neon)
    packages="$packages gcc-aarch64-linux-gnu libc6-dev-arm64-cross qemu-user"
    tools="$tools aarch64-linux-gnu-gcc qemu-aarch64" ;;
esac

say() { printf '%s\n' "$*" >&2; }

# Names of the packages that dpkg does not have installed.
missing_packages() {
    for package in $packages; do
        status=$(dpkg-query -W -f='${db:Status-Status}' "$package" 2>/dev/null) || status=absent
        [ "$status" = installed ] || printf '%s ' "$package"
    done
}

# Names of the programs and pkg-config modules that are not there.
missing_tools() {
    for tool in $tools; do command -v "$tool" >/dev/null 2>&1 || printf '%s ' "$tool"; done
    for library in $libraries; do pkg-config --exists "$library" 2>/dev/null || printf '%s ' "$library"; done
}

install_packages() {
    if [ "$(id -u)" -eq 0 ]; then as_root="env"
    elif command -v sudo >/dev/null 2>&1; then as_root="sudo env"
    else
        say "setup: packages are missing and neither root nor sudo is at hand. As root:"
        say "    apt-get install $*"
        exit 1
    fi
    say "setup: installing $*"
    $as_root DEBIAN_FRONTEND=noninteractive apt-get -qq update >&2 || say "setup: apt-get update failed; trying anyway"
    # shellcheck disable=SC2086
    $as_root DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends "$@" >&2 || {
        say "setup: apt-get could not install the packages; see above"
        exit 1
    }
}

if command -v apt-get >/dev/null 2>&1 && command -v dpkg-query >/dev/null 2>&1; then
    missing=$(missing_packages)
    # shellcheck disable=SC2086
    [ -z "$missing" ] || install_packages $missing
else
    missing=$(missing_tools)
    if [ -n "$missing" ]; then
        say "setup: this is not Debian, so nothing is installed for you. Missing: $missing"
        say "setup: install a C17 compiler, CMake 3.25, Ninja, pkg-config, Python 3 with pip, and the development files of"
        say "       PCRE2, utf8proc, yajl, zlib, libcurl, libzip, libsodium, libedit and cmocka; then run this again."
        exit 1
    fi
fi

[ $# -gt 0 ] || exit 0
build=$root/build
[ "$preset" = release ] || build=$root/build/$preset
cd "$root"
if [ ! -f "$build/build.ninja" ]; then
    cmake --preset "$preset" >&2
fi
# Quiet when there is nothing to do or all goes well; the whole log when it does not.
log=$build/build.log
if [ -t 2 ]; then
    cmake --build "$build" --target "$@" >&2
elif ! cmake --build "$build" --target "$@" >"$log" 2>&1; then
    cat "$log" >&2
    exit 1
fi
