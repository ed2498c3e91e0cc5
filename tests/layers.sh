#!/bin/bash
# Holds the include rule: base ← {vfio, transport} ← engine ← {tools, bench}, each folder including
# only what stands left of it; include/godwit, which embedders see, only itself, the standard
# library and Abseil; examples, what embedders have.
set -euo pipefail
root=${1:-$(dirname "${BASH_SOURCE[0]}")/..}
cd "$root"

# Folder → the folders that it may include from ("" first: the rest is not ours).
declare -A allowed=(
  [base]="base"
  [vfio]="base vfio godwit"
  [transport]="base transport godwit"
  [engine]="base vfio transport engine godwit"
  [tools]="base vfio transport engine tools godwit"
  [bench]="base vfio transport engine bench godwit"
  [include/godwit]="godwit"
  [examples]="godwit"
)
readonly ours=" base vfio transport engine tools bench godwit tests examples "
# What the base layer needs of include/godwit: a descriptor's owner and nothing that knows devices.
readonly base_public=" godwit/unique_fd.h "

failed=0
complain() {
  printf 'layers: %s\n' "$*" >&2
  failed=1
}

# Lines "file:number:header" of every #include below a folder, quoted or in angle brackets.
includes_of() {
  grep -rnE --include='*.h' --include='*.cc' '^[[:space:]]*#[[:space:]]*include' "$1" \
    | sed -nE 's/^([^:]+:[0-9]+):[[:space:]]*#[[:space:]]*include[[:space:]]*(["<][^">]+)[">].*/\1:\2/p'
}

seen=0
for folder in "${!allowed[@]}"; do
  [[ -d $folder ]] || { complain "no folder $folder: this test names the wrong ones"; continue; }
  while IFS= read -r line; do
    seen=$((seen + 1))
    header=${line##*:}
    where=${line%:*}
    form=${header:0:1}
    header=${header:1}
    top=${header%%/*}
    if [[ $header == *..* ]]; then
      complain "$where includes \"$header\": paths start at the top of the repository"
      continue
    fi
    # Installed without a folder of their own to be named with.
    [[ $folder == examples && $form == '"' && -f examples/$header ]] && continue
    if [[ $ours != *" $top "* || $header != */* ]]; then
      # Headers that are ours are named with their folder, so a quoted name without one, or of
      # another folder, is a mistake; generated and system headers use theirs.
      [[ $form == '<' ]] \
        || complain "$where includes \"$header\", which is in no folder of this repository"
      if [[ $folder == include/godwit && $header == */* && $header != absl/* && $header != sys/* ]]; then
        complain "$where includes <$header>: public headers need the standard library and Abseil only"
      fi
      continue
    fi
    [[ $form == '"' ]] || complain "$where includes <$header>: our own headers are quoted"
    [[ $folder == base && $base_public == *" $header "* ]] && continue
    [[ " ${allowed[$folder]} " == *" $top "* ]] \
      || complain "$where includes \"$header\": $folder may include only ${allowed[$folder]}"
    [[ -f $header || -f include/$header || $header == transport/control.pb.h ]] \
      || complain "$where includes \"$header\", which does not exist"
  done < <(includes_of "$folder")
done

((seen > 100)) || complain "found only $seen #include lines: the test looks at the wrong place"

# CMake's targets say the same, or a header that needs no library would slip through.
declare -A links=([vfio]="transport engine" [transport]="vfio engine" [base]="vfio transport engine")
for folder in "${!links[@]}"; do
  for other in ${links[$folder]}; do
    if grep -nE "godwit(::|_)$other\b" "$folder/CMakeLists.txt" >&2; then
      complain "$folder/CMakeLists.txt links godwit::$other (above)"
    fi
  done
done

((failed == 0)) && echo "layers: $seen #include lines keep the rule"
exit "$failed"
