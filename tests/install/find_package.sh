#!/bin/bash
# A CMake project outside of this tree, as docs/embedding.md has it, builds on what is installed.
# shellcheck source=tests/install/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

outside find_package
snippet cmake > CMakeLists.txt
configure() { "$CMAKE" -S . -B "$1" -G Ninja -DCMAKE_PREFIX_PATH="$prefix" > "$1.log" 2>&1; }

configure build || die "$(cat build.log)"
"$CMAKE" --build build >> build.log 2>&1 || die "$(cat build.log)"
moves build/my_vmm

# Another minor version may have another interface, so it is not taken for this one.
sed -i 's/find_package(godwit 0\.[0-9]*/find_package(godwit 0.999/' CMakeLists.txt
! configure other || die "a project that wants Godwit 0.999 gets this one"
grep -q 'requested version "0.999"' other.log || die "$(cat other.log)"
finish "built and run"
