#!/bin/bash
# A lane that is ten times slower than the others carries about what its speed is good for, and does
# not hold them up; where all are alike none carries less than half of its part, nor more than twice.
# shellcheck source=tests/tools/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
: "${THROTTLING_PROXY:?the throttling_proxy test tool}"

size=256MiB
[[ $scale == full ]] || size=128MiB
readonly device=soft:size=$size,seed=7

proxy_port_is_known() { proxy_port=$(head -n 1 "$scratch/proxy.out") && [[ -n $proxy_port ]]; }

# moves NAME MEGABYTES_A_SECOND…: a session over four lanes of those rates; its JSON is in NAME.json.
moves() {
  local name=$1 receiver proxy
  shift
  start_receiver "receive-$name" --device "$device" --json "$scratch/$name-target.json"
  receiver=$pid
  start proxy "$THROTTLING_PROXY" "$port" "$@"
  proxy=$pid
  within 10 proxy_port_is_known || die "the proxy does not listen: $(text proxy.err)"
  run "send-$name" "$GODWIT" send --to "127.0.0.1:$proxy_port" --device "$device" --transport tcp \
    --lanes 4 --json "$scratch/$name.json"
  check_code "send, $name" "$code" 0 "send-$name.err"
  await "$receiver"
  check_code "receive, $name" "$code" 0 "receive-$name.err"
  stop "$proxy"
  check_json "$name" "$name.json" /devices/0/content_verified true
  check_says "$name" "send-$name.out" '^  lanes .* ended within [0-9.]+ ms$'
  local lag
  lag=$(json "$name.json" /lane_finish_lag_ms)
  [[ $lag == *[1-9]* ]] || fail "$name: four lanes that ended within $lag ms"
  check_json "$name, target" "$name-target.json" /lane_finish_lag_ms "$lag"
}

# permille NAME LANE: of the bytes, that it carried.
permille() { echo $(($(json "$1.json" "/lanes/$2/bytes") * 1000 / $(json "$1.json" /bytes))); }

# Its part of the rates is 32 in 1000.
moves slow 100 100 10 100
share=$(permille slow 2)
say "a lane a tenth as fast carried $share in 1000"
((share <= 50)) || fail "a lane a tenth as fast carried $share in 1000"
((share > 0)) || fail "a lane a tenth as fast carried nothing"

# A sanitizer leaves so little of the processors that lanes are as fast as they are given time.
if [[ $scale == full ]]; then
  moves alike 100
  for lane in 0 1 2 3; do
    share=$(permille alike "$lane")
    ((share >= 125 && share <= 500)) || fail "four lanes alike: lane $lane carried $share in 1000"
  done
else
  say "SKIPPED here: how four lanes alike carry"
fi
finish
