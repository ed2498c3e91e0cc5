#!/bin/bash
# A seed is a run: twice the same seed gives the same turns, and another seed gives others.
set -euo pipefail
simulate=$1

run() { "$simulate" --seed "$1" | grep fingerprint; }

all=''
for seed in 1 2 3 5 8 13 21 34; do
  first=$(run "$seed")
  again=$(run "$seed")
  if [[ $first != "$again" ]]; then
    printf 'seed %s ran differently:\n%s\n%s\n' "$seed" "$first" "$again"
    exit 1
  fi
  # A trouble that comes too late leaves its run as calm as the one before.
  all+=$(grep -o '^calm.*' <<< "$first")$'\n'
done
if [[ $(sort -u <<< "$all" | wc -l) != $(wc -l <<< "$all") ]]; then
  printf 'two seeds ran alike:\n%s\n' "$all"
  exit 1
fi
echo "8 seeds ran twice, and alike"
