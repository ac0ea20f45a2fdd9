#!/bin/sh
# Makes or repairs the environment in which `make` works: tools/environment.sh FOLDER.
#
# PYTHON         makes the environment (python3)
# TORCH=cpu      a torch without CUDA: 0.8 GB in place of 5.5
# TORCH_INDEX    package index that torch and torchvision come from, if not pip's own
# TORCH_VERSION  this version of torch in place of the newest
#
# What is missing is said before anything is downloaded; after a failure the next run goes on.
set -eu

venv=$1
python=${PYTHON:-python3}

stop() {
  printf 'repsim_fast: %s\n' "$*" >&2
  exit 1
}

"$python" -c 'import sys; sys.exit(sys.version_info < (3, 10))' ||
  stop "Python 3.10 or later is needed; give one: make PYTHON=python3.12 ..."
command -v "${CXX:-c++}" >/dev/null ||
  stop "no C++ compiler ${CXX:-c++}; on Debian and Ubuntu: apt-get install g++, or give one: CXX=..."
"$python" -c 'import os, sys, sysconfig
sys.exit(not os.path.exists(sysconfig.get_path("include") + "/Python.h"))' ||
  stop "the headers of $python are missing; on Debian and Ubuntu: apt-get install python3-dev"
if [ -e "$venv" ] && [ ! -e "$venv/pyvenv.cfg" ]; then
  stop "$venv is there and no Python environment; remove it or give another: make VENV=folder ..."
fi

# Debian's python3 without python3-venv leaves an environment without pip behind.
pip() { "$venv/bin/python" -m pip "$@"; }
if ! pip --version >/dev/null 2>&1; then
  "$python" -m venv --clear "$venv" && pip --version >/dev/null ||
    stop "$python cannot make an environment; on Debian and Ubuntu: apt-get install python3-venv"
fi

torch="torch>=2.11"
[ -z "${TORCH_VERSION:-}" ] || torch="torch==$TORCH_VERSION"
extras=all
set -- torchvision
case "${TORCH:-}" in
"") ;;
cpu)
  if [ -z "${TORCH_INDEX:-}" ] && [ "$(uname)" = Linux ]; then
    # The index has torchvision for its own torch alone.
    torch=$(pip index versions torch 2>/dev/null | tr ', ' '\n\n' |
      grep "^${TORCH_VERSION:-[0-9]}.*+cpu\$" | head -n 1)
    [ -n "$torch" ] ||
      stop "pip's index has no torch without CUDA here; give one that has: make TORCH_INDEX=URL ..."
    torch="torch==$torch"
    extras=parquet,sklearn,tables
    set --
  fi
  ;;
*) stop "TORCH must be cpu or nothing, got '$TORCH'" ;;
esac
[ -z "${TORCH_INDEX:-}" ] || pip install -q --index-url "$TORCH_INDEX" "$torch" "$@"
pip install -q "$torch" "$@" "setuptools>=77" wheel ninja numpy "pybind11>=2.13"

# Metadata, the command and what the package needs; make compiles the extension in place.
REPSIM_BUILD_EXTENSIONS=0 pip install -q --no-build-isolation -e ".[$extras,test,lint]"
