#!/bin/bash
# The command line of docs/embedding.md builds a program on what is installed.
# shellcheck source=tests/install/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

outside pkg_config
# The page's "c++" and "pkg-config" are those of this build.
mkdir bin
ln -s "$CXX" bin/c++
ln -s "$PKG_CONFIG" bin/pkg-config
snippet sh > build.sh
# So that what is named is needed, as with linkers that don't drop it by themselves.
export CXXFLAGS="$CXXFLAGS -Wl,--no-as-needed"
PATH=$PWD/bin:$PATH bash -eu build.sh || die "it does not build: $(cat build.sh)"
moves ./my_vmm

# RDMA's providers are plug-ins: a program that needed each of them would not start without one.
needed=$(objdump -p my_vmm | sed -nE 's/^ *NEEDED +(.*)/\1/p')
grep -q '^libibverbs\.' <<< "$needed" || die "the program was not linked with RDMA: $needed"
! grep -E '^lib(mlx|efa|mana)' <<< "$needed" || die "the program needs RDMA's providers (above)"
finish "built and run"
