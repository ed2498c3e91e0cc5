#!/bin/bash
# Every installed header compiles by itself, without a warning, with what the package says that it
# needs; it includes nothing that is not installed; and its classes say what they promise.
# shellcheck source=tests/install/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
cd "$prefix/include"

read -ra cflags < <("$PKG_CONFIG" --cflags godwit)
read -ra more_cflags <<< "$CXXFLAGS"
readonly warnings=(-Wall -Wextra -Werror -Wshadow -Wconversion -Wsign-conversion -Wold-style-cast
  -Wnon-virtual-dtor -Woverloaded-virtual -Wundef -pedantic)

compiles() {
  printf '#include <%s>\n' "$1" "$1" \
    | "$CXX" -std=c++20 -fsyntax-only "${warnings[@]}" "${more_cflags[@]}" "${cflags[@]}" -x c++ -
}

# The package that has an Abseil header.
abseil_package() {
  case $1 in
    absl/strings/*) echo absl_strings ;;
    *) basename "$1" .h | sed 's/^/absl_/' ;;
  esac
}

# Classes whose comment lacks one of the four words and names no class that has them.
silent_classes() {
  awk '
    /^\/\// { comment = comment "\n" $0; next }
    /^class .*[^;]$/ {
      if (comment !~ /\n\/\/ As [A-Z]/)
        for (i = split("Ownership Threads Blocking Errors", words, " "); i > 0; --i)
          if (comment !~ "\n// ([A-Z][a-z]+, )*" words[i] "(, [A-Z][a-z]+)*:") print $2 ": " words[i]
    }
    { comment = "" }' "$1"
}

requires=$("$PKG_CONFIG" --print-requires godwit)
headers=0 classes=0
for header in godwit/*.h; do
  headers=$((headers + 1))
  compiles "$header" || fail "$header does not compile by itself (above)"

  while read -r form name; do
    case $form$name in
      '"godwit/'*) [[ -f $name ]] || fail "$header includes $name, which is not installed" ;;
      '<absl/'*) grep -qx "$(abseil_package "$name")" <<< "$requires" \
        || fail "$header includes $name, which godwit.pc does not require" ;;
      '<'*/*) [[ $name == sys/* ]] || fail "$header includes $name: what package has it?" ;;
      '<'*) ;;
      *) fail "$header includes \"$name\", which is not installed" ;;
    esac
  done < <(sed -nE 's/^[[:space:]]*#[[:space:]]*include[[:space:]]*(["<])([^">]+)[">].*/\1 \2/p' "$header" \
    | sed -E 's/^(.) /\1 /')

  [[ $(head -n 1 "$header") == '// '* ]] || fail "$header does not begin with what it is for"
  silent=$(silent_classes "$header")
  [[ -z $silent ]] || fail "$header: classes that do not say: $silent"
  classes=$((classes + $(grep -cE '^class .*[^;]$' "$header" || true)))
done
# Or the patterns above look for something else than what is there.
((headers >= 7 && classes >= 10)) || fail "only $headers headers and $classes classes"
finish "$headers headers, $classes classes"
