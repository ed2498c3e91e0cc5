#!/bin/bash
# Memory is bounded, whatever the size: of a session by its arenas, of an inspection by one record.
# shellcheck source=tests/tools/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

[[ $scale == full ]] || skip "a sanitizer's memory says nothing about the command's"

readonly mib=$((1024 * 1024))
hang_s=240

run memory "$GODWIT" loopback --devices 1 --size 16GiB --json "$scratch/memory.json"
check_code "16 GiB" "$code" 0 memory.err
for pointer in /peak_resident_bytes /target_peak_resident_bytes /target/peak_resident_bytes; do
  bytes=$(json memory.json "$pointer")
  ((bytes > 0 && bytes <= 400 * mib)) || fail "16 GiB: $pointer is $bytes, more than 400 MiB"
  say "16 GiB: $pointer $((bytes / mib)) MiB"
done
say "16 GiB: $(json memory.json /throughput_gib_s) GiB/s"

# A stream larger than memory is one that is not kept. Sparse: one record of mlx5's, of 1 TiB, cut off.
printf '\0\0\0\0\0\1\0\0\0\0\0\0\0\0\0\0' > "$scratch/huge"
truncate -s 3G "$scratch/huge"
code=0
(ulimit -v 400000; exec timeout "$hang_s" "$GODWIT" inspect "$scratch/huge") \
  > "$scratch/huge.out" 2> "$scratch/huge.err" || code=$?
check_code "3 GiB in 400 MB" "$code" 1 huge.err
check_says "3 GiB in 400 MB" huge.out "the stream ends in it: 3221225456 of its $((1 << 40)) bytes"
finish
