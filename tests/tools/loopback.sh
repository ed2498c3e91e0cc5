#!/bin/bash
# godwit loopback shows what it did to a person and to a program.
# shellcheck source=tests/tools/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

readonly mib=$((1024 * 1024))
size=512MiB size_bytes=$((512 * mib))
if [[ $scale == small ]]; then size=64MiB size_bytes=$((64 * mib)); fi

# ---- The summary, for people, on stdout; nothing on stderr, which is no terminal here.
run summary "$GODWIT" loopback --size "$size" --json "$scratch/summary.json"
check_code "loopback" "$code" 0 summary.err
[[ ! -s $scratch/summary.err ]] || fail "loopback without a terminal says on stderr: $(text summary.err)"
readonly number='\d+(\.\d+)?' crc='[0-9a-f]{8}'
check_says "summary" summary.out "^moved 2 devices, $number (MiB|GiB), at $number GiB/s\$"
check_says "summary" summary.out "^  time +$number s in all, $number s of it downtime\$"
check_says "summary" summary.out '^  packets +\d+, of which \d+ arrived out of order$'
check_says "summary" summary.out "^  lanes +4 over tcp: $number %  $number %  $number %  $number %, ended within $number ms\$"
for seed in 1 2; do
  check_says "summary" summary.out "^  device +soft:size=$size_bytes,seed=$seed: .*state verified: digest ($crc) sent, \\1 loaded, content as expected\$"
done
check_says "summary" summary.out '^  memory +source .*, target .*; arena on .*pages$'
check_json "summary" summary.json /result 'done'
check_json "summary" summary.json /bytes $((2 * size_bytes))
check_json "summary" summary.json /lanes 4
check_json "summary" summary.json /devices 2
check_json "summary" summary.json /devices/1/content_verified true
check_json "summary" summary.json /target/result 'done'
check_json "summary" summary.json /target/devices/0/content_verified true
check_json "summary" summary.json /target/bytes $((2 * size_bytes))
for side in '' /target; do
  [[ $(json summary.json $side/devices/0/sent_crc32c) == $(json summary.json /devices/0/loaded_crc32c) ]] \
    || fail "the two sides report different digests"
done

# ---- --json - leaves stdout to JSON, and people read on stderr.
run json "$GODWIT" loopback --size 8MiB --devices 3 --lanes 2 --seed 40 --packet-bytes 64KiB --json -
check_code "--json -" "$code" 0 json.err
check_json "--json -" json.out /result 'done'
check_json "--json -" json.out /devices 3
check_json "--json -" json.out /devices/2/name '.*seed=42'
check_json "--json -" json.out /lanes 2
check_says "--json -" json.err '^moved 3 devices'
# 128 packets a device hold the state where each is full; a device may fill them less.
(($(json json.out /packets) >= 3 * 129)) || fail "--packet-bytes 64KiB: $(json json.out /packets) packets"

# ---- The same seed gives the same digests, another one others.
run again "$GODWIT" loopback --size 8MiB --devices 3 --lanes 1 --seed 40 --json -
run other "$GODWIT" loopback --size 8MiB --devices 3 --lanes 1 --seed 41 --json -
digest() { json "$1.out" /devices/0/loaded_crc32c; }
[[ $(digest json) == "$(digest again)" ]] || fail "seed 40 gives two digests"
[[ $(digest json) != "$(digest other)" ]] || fail "seeds 40 and 41 give the same digest"

# ---- Without CRCs, which takes both sides.
run no_crc "$GODWIT" loopback --size 8MiB --crc off --json "$scratch/no_crc.json"
check_code "--crc off" "$code" 0 no_crc.err
for side in '' /target; do
  check_json "--crc off" no_crc.json $side/crc off
  check_json "--crc off" no_crc.json $side/devices/1/sent_crc32c 00000000
done
check_json "--crc off" no_crc.json /target/devices/1/content_verified true
check_says "--crc off" no_crc.out '^  device .* only its length verified: CRCs are off, content as expected$'
for one in send receive; do
  ours=on theirs=off
  [[ $one == send ]] || ours=off theirs=on
  start_receiver "crc_$one" --device soft:size=8MiB --crc "$theirs" --json "$scratch/crc_target.json"
  receiver=$pid
  run crc "$GODWIT" send --to "127.0.0.1:$port" --device soft:size=8MiB --crc "$ours" --json "$scratch/crc.json"
  check_code "--crc off at one side" "$code" 0 crc.err
  await "$receiver"
  check_json "--crc on at $one" crc.json /crc on
  check_json "--crc on at $one" crc_target.json /crc on
done
run wrong "$GODWIT" loopback --size 1MiB --crc maybe
check_code "--crc maybe" "$code" 2 wrong.err

# ---- Short sessions over one lane, again and again: a receipt that overtakes its packet's own
# completion, which is a matter of timing, once cost a packet and hung the session.
hang_s=20
for ((i = 1; i <= 20; i++)); do
  run short "$GODWIT" loopback --size 8MiB --devices 3 --lanes 1 --seed 40
  check_code "short session $i" "$code" 0 short.err
done
hang_s=60

# ---- Edges of sizes.
for edge in 0 1 1048575B 1MiB; do
  run edge "$GODWIT" loopback --size "$edge" --json "$scratch/edge.json"
  check_code "--size $edge" "$code" 0 edge.err
done
# Many of each; the source's memory is a sum over devices and lanes, so not the most of both at once.
run many "$GODWIT" loopback --size 1MiB --devices 16 --lanes 16
check_code "16 devices over 16 lanes" "$code" 0 many.err
run many "$GODWIT" loopback --size 8MiB --devices 1 --lanes 64
check_code "1 device over 64 lanes" "$code" 0 many.err
run many "$GODWIT" loopback --size 64KiB --devices 64 --lanes 1
check_code "64 devices over 1 lane" "$code" 0 many.err

finish
