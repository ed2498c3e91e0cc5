#!/bin/bash
# bench/downtime makes the table that it says, of sessions and of figures that were kept.
#
# Environment beside common.sh's: DOWNTIME, bench/downtime.
# shellcheck source=tests/tools/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

: "${DOWNTIME:?bench/downtime}"

# ---- Of figures: medians, of an even number as well, and errors of the actual downtime either way;
# sessions that only measured count for nothing.
{
  printf 'hisi, 176 B\tnothing\t%s\t%s\n' 1.5 1 0.5 1 1 1
  printf 'hisi, 176 B\tfixed\t%s\t%s\n' 1 2
  printf 'hisi, 176 B\tlearning\t%s\t%s\n' 9 1
  printf '2 × qat, 4 KiB\tnothing\t%s\t%s\n' 10 20 30 40
  printf '2 × qat, 4 KiB\tfixed\t%s\t%s\n' 20 20
} > "$scratch/raw"
run kept "$DOWNTIME" --from "$scratch/raw"
check_code "bench/downtime --from" "$code" 0 kept.err
check_says "bench/downtime --from" kept.out \
  '^\| hisi, 176 B \| 1 \(1 to 1\) \| 1 \(0\.5 to 1\.5\) \| 50 % \| 2 \(2 to 2\) \| 1 \(1 to 1\) \| 50 % \|$'
check_says "bench/downtime --from" kept.out \
  '^\| 2 × qat, 4 KiB \| 30 \(20 to 40\) \| 20 \(10 to 30\) \| 38 % \| 20 \(20 to 20\) \| 20 \(20 to 20\) \| 0 % \|$'
check_says "bench/downtime --from" kept.out '^\| all \| \| \| 50 % \| \| \| 25 % \|$'

# ---- Of sessions: a row for each profile, and its figures are the sessions'.
if [[ $scale == full ]]; then
  run sessions "$DOWNTIME" --rounds 1 --godwit "$GODWIT" --raw "$scratch/raw"
  check_code "bench/downtime" "$code" 0 sessions.err
  rows=$(wc -l < "$scratch/raw")
  ((rows == 7 * 5)) || fail "bench/downtime kept $rows sessions of 7 x 5"
  [[ $(cut -f 1 "$scratch/raw" | sort -u | wc -l) == 7 ]] || fail "two profiles have one name"
  run again "$DOWNTIME" --from "$scratch/raw"
  check_code "bench/downtime --from its own" "$code" 0 again.err
  check_never_says "bench/downtime --from its own" again.out ' 0 \(0 to 0\)|nan|inf'
  [[ $(head -n "$(wc -l < "$scratch/again.out")" "$scratch/sessions.out") == "$(text again.out)" ]] \
    || fail "the table of the kept figures is another one: $(text again.out)"
fi

# ---- Wrong usage.
for arguments in '--rounds 0' '--rounds' '--rounds x' '--what'; do
  read -ra words <<< "$arguments"
  run wrong "$DOWNTIME" "${words[@]}"
  check_code "bench/downtime $arguments" "$code" 2 wrong.err
done
run missing "$DOWNTIME" --godwit "$scratch/none"
check_code "bench/downtime without a godwit" "$code" 1 missing.err
finish
