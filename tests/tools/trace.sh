#!/bin/bash
# --trace shows all that a session did: each phase, state change, read, send, arrival and write, on
# the track that it belongs to.
#
# Environment beside common.sh's: TRACE_FACTS, trace_facts.cc, built.
# shellcheck source=tests/tools/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

: "${TRACE_FACTS:?the trace_facts test tool}"

# facts NAME FILE: of a trace, in NAME.facts.
facts() {
  "$TRACE_FACTS" "$scratch/$2" > "$scratch/$1.facts" 2> "$scratch/$1.err" \
    || fail "$2 is no trace: $(text "$1.err")"
}
# sum FACTS TRACK COLUMN: spans (last but one) or bytes (last) of the tracks whose names begin so.
spans() { awk -v track="$2" '$1 == "track" && $2 == track { sum += $(NF - 1) } END { print sum + 0 }' "$scratch/$1.facts"; }
bytes() { awk -v track="$2" '$1 == "track" && $2 == track { sum += $NF } END { print sum + 0 }' "$scratch/$1.facts"; }
equal() { [[ $2 == "$3" ]] || fail "$1: $2, expected $3"; }

# ---- Two devices, with pre-copy.
run loopback "$GODWIT" loopback --soft profile=mlx5,dirty=1MiB --size 16MiB --lanes 3 --precopy-max-time 5s \
  --trace "$scratch/t.json" --json "$scratch/loopback.json"
check_code "loopback" "$code" 0 loopback.err
[[ ! -s $scratch/loopback.err ]] || fail "loopback says on stderr: $(text loopback.err)"
facts source t.json
facts target t.json.target
for track in control 'device [01]: soft:.*' 'reader [01]: soft:.*' 'lane [0-2]'; do
  check_says "the source's trace" source.facts "^track $track [1-9]"
done
for track in control 'device [01]: soft:.*' 'lane [0-2]' 'loader [01]: soft:.*'; do
  check_says "the target's trace" target.facts "^track $track [1-9]"
done
check_never_says "the source's trace" source.facts '^track (loader|lane 3)'
check_never_says "the target's trace" target.facts '^track (reader|lane 3)'
for side in source target; do
  check_never_says "the $side's trace" $side.facts '^overlaps '
  check_says "the $side's trace" $side.facts '^dropped 0$'
done
# Phases and states by name; the control thread's follow each other.
for name in connecting pre-copying stopping streaming 'handing over' PRE_COPY PRE_COPY_P2P STOP_COPY STOP send read; do
  check_says "the source's trace" t.json "\"X\", \"name\": \"$name\""
done
for name in waiting connecting pre-copying streaming 'handing over' RESUMING RUNNING_P2P RUNNING arrive write; do
  check_says "the target's trace" t.json.target "\"X\", \"name\": \"$name\""
done

# Every packet, once, and every byte: a lane's with the configurations, a loader's without.
packets=$(json loopback.json /packets) stream_bytes=$(json loopback.json /bytes)
lane_bytes=0
for lane in 0 1 2; do lane_bytes=$((lane_bytes + $(json loopback.json "/lanes/$lane/bytes"))); done
for side in source target; do
  equal "$side: packets on lanes" "$(spans $side lane)" "$packets"
  equal "$side: bytes on lanes" "$(bytes $side lane)" "$lane_bytes"
done
equal "bytes of the readers" "$(bytes source reader)" "$stream_bytes"
equal "bytes of the loaders" "$(bytes target loader)" "$stream_bytes"
equal "packets of the loaders" "$(spans target loader)" $((packets - 2))
check_never_says "loaders write in order" target.facts '^falls loader'

# ---- send and receive; a name that JSON must escape.
printf '%0100000d' 7 > "$scratch/a\"b"
start_receiver receive --device "file:$scratch/B" --trace "$scratch/r.json"
receiver=$pid
run send "$GODWIT" send --to "127.0.0.1:$port" --device "file:$scratch/a\"b" --transport tcp \
  --trace "$scratch/s.json"
check_code "send" "$code" 0 send.err
await "$receiver"
check_code "receive" "$code" 0 receive.err
facts send s.json
facts receive r.json
check_says "send" send.facts '^track reader 0: file:.*/a"b '
equal "bytes that receive loaded" "$(bytes receive loader)" 100000

# ---- A session that fails has a trace of what there was.
start_receiver receive --device soft:size=1MiB,seed=2 --trace "$scratch/r.json"
receiver=$pid
run send "$GODWIT" send --to "127.0.0.1:$port" --device soft:size=1MiB,seed=1 --trace "$scratch/s.json"
check_code "a failed send" "$code" 1 send.err
check_one_error "a failed send" send.err 'content is wrong'
await "$receiver"
facts send s.json
facts receive r.json
check_says "a failed send" send.facts '^track control [1-9]'
check_says "a failed receive" receive.facts '^track loader 0: .* [1-9]'

# ---- What can't be written is said before anything is touched, or in the exit code.
readonly soft=soft:size=1MiB,seed=1
for path in /nowhere/x "$scratch"; do
  run refused "$GODWIT" send --to 127.0.0.1:1 --device "$soft" --trace "$path" --json "$scratch/refused.json"
  check_code "--trace $path" "$code" 1 refused.err
  check_one_error "--trace $path" refused.err "--trace $path: it can't be written: "
  check_json "--trace $path" refused.json /result refused
done
run refused "$GODWIT" loopback --size 1MiB --trace /nowhere/x
check_code "loopback --trace /nowhere/x" "$code" 1 refused.err
check_one_error "loopback --trace /nowhere/x" refused.err "--trace /nowhere/x: it can't be written: "
mkdir "$scratch/u.json.target"
run refused "$GODWIT" loopback --size 1MiB --trace "$scratch/u.json"
check_code "the target's trace is a folder" "$code" 1 refused.err
check_one_error "the target's trace is a folder" refused.err '--trace .*/u.json.target: .*Is a directory'
run refused "$GODWIT" send --to 127.0.0.1:1 --device "$soft" --trace -
check_code "--trace -" "$code" 2 refused.err
start_receiver receive --device "$soft" --trace /dev/full
receiver=$pid
run send "$GODWIT" send --to "127.0.0.1:$port" --device "$soft" --trace /dev/full --json "$scratch/s.json"
check_code "--trace /dev/full: send" "$code" 1 send.err
check_one_error "--trace /dev/full: send" send.err \
  'the session ended as done, but its trace could not be written: --trace /dev/full: writing failed: No space'
check_json "--trace /dev/full: send" s.json /result 'done'
await "$receiver"
check_code "--trace /dev/full: receive" "$code" 1 receive.err
finish
