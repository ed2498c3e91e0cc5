#!/bin/bash
# One side is killed at a random moment of a session, again and again: the other ends soon with one of
# the exit codes that docs/handover.md has for that, what it says of the devices is so, the source's
# file is as it was and can be sent again, and no process is left.
#
# killed.sh [ROUNDS [SEED]]
# shellcheck source=tests/tools/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

readonly rounds=${1:-20}
readonly seed=${2:-$((SRANDOM % 32768))}
RANDOM=$seed
say "seed $seed"

# A second and two: what is waited for where contact is lost at the handover.
readonly soon_s=20
readonly send_more=(--transport tcp --lanes 2 --resolve-timeout 2s)
readonly receive_more=(--transport tcp --commit-timeout 1s --outcome-hold 1s)
bytes=$((48 << 20))
[[ $scale == full ]] || bytes=$((8 << 20))
head -c "$bytes" /dev/urandom > "$scratch/A"
cp "$scratch/A" "$scratch/as-it-was"
readonly soft=soft:profile=mlx5,dirty=64MiB,size=$bytes,seed=5

# begin SEND-SPEC RECEIVE-SPEC: its processes in `sender` and `receiver`.
begin() {
  start_receiver receive --device "$2" "${receive_more[@]}" --json "$scratch/target.json"
  receiver=$pid
  start send "$GODWIT" send --to "127.0.0.1:$port" --device "$1" "${send_more[@]}" \
    --json "$scratch/source.json"
  sender=$pid
}
begin_with() {
  if [[ $1 == file ]]; then begin "file:$scratch/A" "file:$scratch/B"; else begin "$soft" "$soft"; fi
}
# whole KIND: a session that nobody disturbs; what it took goes to length_ms[KIND].
declare -A length_ms=()
whole() {
  local began_ms
  rm -f -- "$scratch/B"
  began_ms=$(date +%s%3N)
  begin_with "$1"
  await "$sender" "$soon_s"
  check_code "$1, undisturbed: send" "$code" 0 send.err
  length_ms[$1]=$(($(date +%s%3N) - began_ms))
  await "$receiver" "$soon_s"
  check_code "$1, undisturbed: receive" "$code" 0 receive.err
}
# The target has all of it: only so may it, or the source, say that the devices run there.
target_is_whole() {
  case $kind in
    file) cmp --quiet "$scratch/A" "$scratch/B" || fail "$what: the target's file is not the source's" ;;
    soft) [[ ! -s $scratch/target.json ]] ||
      check_json "$what" target.json /devices/0/content_verified true ;;
  esac
}

declare -A came_to=()
for ((round = 1; round <= rounds; ++round)); do
  # What the machine makes of it now: others may be busy on it.
  if ((round % 5 == 1)); then
    whole file
    whole soft
  fi
  kinds=(file soft)
  kind=${kinds[RANDOM % 2]}
  victims=(send receive)
  victim=${victims[RANDOM % 2]}
  delay_ms=$((RANDOM % (length_ms[$kind] + 1)))
  what="round $round, $kind, SIGKILL to $victim after $delay_ms ms"
  rm -f -- "$scratch/B" "$scratch/source.json" "$scratch/target.json"
  begin_with "$kind"
  sleep "$(printf '%d.%03d' $((delay_ms / 1000)) $((delay_ms % 1000)))"
  if [[ $victim == send ]]; then end=$sender; else end=$receiver; fi
  kill -KILL "$end" 2> /dev/null || true  # it may have ended by itself
  await "$sender" "$soon_s"
  sent=$code
  # One that has not heard of its source goes on waiting for one.
  alone=no
  if [[ $victim == send ]] && ! within 4 has_ended "$receiver"; then
    alone=yes
    kill -TERM "$receiver"
  fi
  await "$receiver" "$soon_s"
  received=$code
  say "$what: send $sent, receive $received"
  came_to["$kind send $sent receive $received"]=1

  [[ $alone == no ]] || check_json "$what: it waits on" target.json /peer ''
  case $sent,$received in
    0,0) target_is_whole ;;                         # too late to matter
    137,0) check_json "$what" target.json /result 'done'
      target_is_whole ;;
    137,1) check_json "$what" target.json /result rolled_back
      [[ ! -e $scratch/B ]] || fail "$what: the target gave up and left its new file" ;;
    0,137) check_json "$what" source.json /result 'done'
      target_is_whole ;;
    1,137) check_json "$what" source.json /result rolled_back
      check_json "$what" source.json /devices/0/state_lost false ;;
    3,137) check_json "$what" source.json /result in_doubt
      target_is_whole ;;                            # it was told to run them only then
    *) fail "$what: send ended with $sent, receive with $received: $(text send.err) $(text receive.err)" ;;
  esac
  cmp --quiet "$scratch/A" "$scratch/as-it-was" || fail "$what: the source's file has changed"
done
whole file
cmp --quiet "$scratch/A" "$scratch/B" || fail "after all that, the source's file does not move"
[[ -z ${!started[*]} ]] || fail "processes are left: ${!started[*]}"
((${#came_to[@]} > 1)) || fail "every round came to the same: ${!came_to[*]}"
for outcome in "${!came_to[@]}"; do say "came to: $outcome"; done
finish
