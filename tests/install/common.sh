# shellcheck shell=bash
# What the tests of the installed tree share. Sourced, with these in the environment
# (tests/install/CMakeLists.txt sets them):
#   BUILD, SOURCE     the build tree that is installed, and the tree that it is made of
#   WORK              a folder for these tests
#   LIBDIR            where libraries go below a prefix
#   CMAKE, PKG_CONFIG the tools
#   CXX, CXXFLAGS     the compiler of the build, and the flags that its programs cannot be without
set -euo pipefail

: "${BUILD:?}" "${SOURCE:?}" "${WORK:?}" "${LIBDIR:?}" "${CMAKE:?}" "${PKG_CONFIG:?}" "${CXX:?}"
readonly prefix=$WORK/prefix
readonly documents=$prefix/share/doc/godwit
export PKG_CONFIG_PATH=$prefix/$LIBDIR/pkgconfig
export CXX CXXFLAGS=${CXXFLAGS-}

failures=0
fail() {
  printf '%s: FAILED: %s\n' "$(basename "$0" .sh)" "$*" >&2
  failures=$((failures + 1))
}
die() { fail "$@"; exit 1; }
finish() {
  ((failures == 0)) || die "$failures checks (above)"
  printf '%s: %s\n' "$(basename "$0" .sh)" "$*"
}

# snippet LANGUAGE: the only block of that language in the page for embedders.
snippet() {
  local page=$documents/docs/embedding.md count
  count=$(grep -c "^\`\`\`$1\$" "$page") || true
  [[ $count == 1 ]] || die "$page has $count blocks of $1, expected one"
  sed -n "/^\`\`\`$1\$/,/^\`\`\`\$/p" "$page" | sed '1d;$d'
}

# outside NAME: a new folder with an embedder's sources and nothing of this tree; goes there.
outside() {
  rm -rf -- "${WORK:?}/$1"
  mkdir -p "$WORK/$1"
  cp "$SOURCE/tests/install/my_vmm.cc" "$documents/examples/memory_device.h" "$WORK/$1"
  cd "$WORK/$1"
}

# moves PROGRAM: it runs, and every byte arrives.
moves() {
  local said
  said=$(timeout --kill-after=5 120 "$1" < /dev/null) || die "$1: exit code $?"
  [[ $said == "moved 5242883 bytes, twice" ]] || die "$1 said: $said"
}
