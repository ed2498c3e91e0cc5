#!/bin/bash
# A network that flips bits where TCP does not see it costs lanes and no more: each damaged one is
# dropped and made again, and the devices have the right content.
# shellcheck source=tests/tools/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
: "${CORRUPTING_PROXY:?the corrupting_proxy test tool}"

readonly device=soft:size=96MiB,seed=7

proxy_port_is_known() { proxy_port=$(head -n 1 "$scratch/proxy.out") && [[ -n $proxy_port ]]; }

# Where a lane is damaged: in its first frame's header, in that one's payload, in a later frame's
# length or header or payload.
for after_bytes in 40 5000 3146000 9000000; do
  start_receiver "receive-$after_bytes" --device "$device" --json "$scratch/target.json"
  receiver=$pid
  start proxy "$CORRUPTING_PROXY" "$port" 5 "$after_bytes"
  proxy=$pid
  within 10 proxy_port_is_known || die "the proxy does not listen: $(text proxy.err)"
  run send "$GODWIT" send --to "127.0.0.1:$proxy_port" --device "$device" --transport tcp --lanes 3 \
    --json "$scratch/source.json"
  check_code "send, damaged at $after_bytes" "$code" 0 send.err
  await "$receiver"
  check_code "receive, damaged at $after_bytes" "$code" 0 "receive-$after_bytes.err"
  stop "$proxy"
  flipped=$(grep --count flipped "$scratch/proxy.out" || true)
  remade=0
  for lane in 0 1 2; do remade=$((remade + $(json source.json "/lanes/$lane/remade"))); done
  say "damaged at $after_bytes: $flipped bits flipped, $remade lanes made again"
  for report in source target; do
    check_json "$report" "$report.json" /result 'done'
    check_json "$report" "$report.json" /devices/0/content_verified true
  done
  ((flipped > 0)) || fail "damaged at $after_bytes: nothing was"
  ((remade > 0)) || fail "damaged at $after_bytes: no lane was made again"
done
finish
