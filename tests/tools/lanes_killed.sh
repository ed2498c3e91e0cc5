#!/bin/bash
# Lanes are reset under a stream by the kernel (ss -K), one after the other: each is made again, the
# devices move whole, and both reports say what was lost and sent again.
#
# lanes_killed.sh [KILLS [SEED]]
# shellcheck source=tests/tools/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

readonly kills=${1:-8}
readonly seed=${2:-$((SRANDOM % 32768))}
RANDOM=$seed
say "seed $seed"
command -v ss > /dev/null || skip "no ss here (iproute2)"

# The source's ends of the lanes: all of its connections but the control channel, which was first.
lane_ports() {
  ss -tnH state established "dport = :$port" 2> /dev/null | awk '{ sub(/.*:/, "", $3); print $3 }' \
    | grep -vx "$control_port" || true
}
# sum_of SIDE FIELD: over all lanes of that side's report.
sum_of() {
  local sum=0 lane
  for lane in 0 1 2; do sum=$((sum + $(json "$1.json" "/lanes/$lane/$2"))); done
  echo "$sum"
}
connected() { mapfile -t ports < <(lane_ports) && ((${#ports[@]} >= $1)); }

bytes=$((3 << 30))
[[ $scale == full ]] || bytes=$((256 << 20))
readonly device=soft:size=$bytes,seed=7
start_receiver receive --device "$device" --json "$scratch/target.json"
receiver=$pid
start send "$GODWIT" send --to "127.0.0.1:$port" --device "$device" --transport tcp --lanes 3 \
  --json "$scratch/source.json"
sender=$pid
control_port=none
within 10 connected 1 || die "nobody connects"
within 20 connected 4 || die "only ${#ports[@]} of 4 connections"
# Local ports of one host rise in the order of connecting.
control_port=$(printf '%s\n' "${ports[@]}" | sort -n | head -n 1)

killed=0
for ((i = 0; i < kills; ++i)); do
  within 10 connected 1 || break  # the stream is over
  victim=${ports[RANDOM % ${#ports[@]}]}
  ss -K -tnH "sport = :$victim" > /dev/null 2>&1 || true
  sleep 0.05
  if lane_ports | grep -qx "$victim"; then
    skip "ss -K resets no connection here: is it root, with CONFIG_INET_DIAG_DESTROY?"
  fi
  killed=$((killed + 1))
  sleep "0.0$((RANDOM % 10))"
  kill -0 "$sender" 2> /dev/null || break
done
await "$sender"
check_code "send" "$code" 0 send.err
await "$receiver"
check_code "receive" "$code" 0 receive.err
remade=$(sum_of source remade) again=$(sum_of source sent_again) twice=$(sum_of target duplicates)
say "$killed lanes reset, $remade made again; $again packets sent again, $twice of them had come"
for report in source target; do
  check_json "$report" "$report.json" /result 'done'
  check_json "$report" "$report.json" /devices/0/content_verified true
done
((killed > 0)) || fail "no lane was reset"
((remade <= killed)) || fail "$remade lanes made again, but only $killed reset"
((twice <= again)) || fail "$twice packets came twice, but only $again were sent again"
finish
