#!/bin/bash
# Installing puts there what is meant to be there and nothing else, and none of it minds being moved.
# shellcheck source=tests/install/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

rm -rf -- "$prefix" "$WORK/first"
"$CMAKE" --install "$BUILD" --prefix "$WORK/first" > "$WORK/install.log" || die "$(cat "$WORK/install.log")"
mv -- "$WORK/first" "$prefix"

expected() {
  echo bin/godwit
  echo "$LIBDIR/libgodwit.a"
  printf "$LIBDIR/cmake/godwit/%s.cmake\n" godwitConfig godwitConfigVersion godwitTargets
  echo "$LIBDIR/pkgconfig/godwit.pc"
  (cd "$SOURCE" && printf '%s\n' include/godwit/*.h)
  (cd "$SOURCE" && printf 'share/doc/godwit/%s\n' LICENSE README.md docs/*.md examples/*.cc examples/*.h)
}
# One file more is named after the build type.
installed() { (cd "$prefix" && find . -type f -printf '%P\n') | grep -v '/godwitTargets-[a-z]*\.cmake$'; }
differences=$(diff <(expected | sort) <(installed | sort)) \
  || fail "'<' should be installed and is not, '>' the other way round: $differences"

while IFS= read -r header; do
  cmp "$SOURCE/$header" "$prefix/$header" || fail "$header is not what the tree has"
done < <(cd "$SOURCE" && printf '%s\n' include/godwit/*.h)

for folder in "$WORK" "$BUILD" "$SOURCE"; do
  named=$(grep -rlIF -- "$folder" "$prefix") && fail "files that name $folder: $named"
done

version=$("$PKG_CONFIG" --modversion godwit)
[[ $("$prefix/bin/godwit" --version) == "godwit $version" ]] \
  || fail "the command is of version '$("$prefix/bin/godwit" --version)', the package of '$version'"
finish "$(installed | wc -l) files"
