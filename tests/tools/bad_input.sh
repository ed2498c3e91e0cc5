#!/bin/bash
# Whatever is wrong with a command line, a host or the other side: the exit code that --help
# documents, one clear line on stderr, no crash, and soon.
# shellcheck source=tests/tools/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

hang_s=10  # what the project promises

echo state > "$scratch/state"
mkdir "$scratch/folder"
readonly state=file:$scratch/state

# ---- Words that are no command.
refused 2 'subcommand is required; see godwit --help'
refused 2 "there is no subcommand 'frobnicate'" frobnicate
refused 2 "there is no option '--frobnicate'" --frobnicate
refused 2 '--to is required; see godwit send --help' send --device "$state"
refused 2 '--listen is required; see godwit receive --help' receive --device "$state"
refused 2 '--device is required' send --to "$there"
send_refused 2 'not expected: more' --device "$state" more
send_refused 2 'not expected: --colour' --device "$state" --colour
refused 2 '--devices.*missing' loopback --devices
for count in 0 65 -1 x; do
  refused 2 "--devices: Value $count not in range 1 to 64" loopback --devices "$count"
  send_refused 2 "--lanes: Value $count not in range 1 to 64" --device "$state" --lanes "$count"
  receive_refused 2 "--lanes: Value $count not in range 1 to 64" --device "$state" --lanes "$count"
done
for size in 0 9MiB 8MiB; do
  send_refused 2 "--packet-bytes: '$size' is out of range: .* 1 to 8388528" \
    --device "$state" --packet-bytes "$size"
  receive_refused 2 "--packet-bytes: '$size' is out of range: .* 1 to 8388528" \
    --device "$state" --packet-bytes "$size"
done
for size in garbage 1MB -1 1.5B 99999999TiB; do
  send_refused 2 "--packet-bytes: '$size' is not a size: .*64MiB" \
    --device "$state" --packet-bytes="$size"
  refused 2 "--size: '$size' is not a size: .*64MiB" loopback --size="$size"
done
for transport in pigeon 1 TCP; do
  send_refused 2 "--transport: '$transport' is not tcp, verbs or auto" \
    --device "$state" --transport "$transport"
  receive_refused 2 "--transport: '$transport' is not tcp, verbs or auto" \
    --device "$state" --transport "$transport"
done
refused 2 'convert: --seed' loopback --seed -1
receive_refused 2 "--port-fd: '77' is not .* open file descriptor" --device "$state" --port-fd 77

# ---- SPECs.
readonly forms='is no device: write vfio:.*soft:.*file:PATH'
for spec in '' disk:/dev/sda soft soft: file: vfio: "$scratch/state"; do
  send_refused 2 "'$spec' $forms" --device "$spec"
  receive_refused 2 "'$spec' $forms" --device "$spec"
done
send_refused 2 "soft:size=1GB.*'1GB' is not a size.*64MiB" --device soft:size=1GB
send_refused 2 "'size': '' is not a size" --device soft:size=
send_refused 2 'size is missing; the keys are' --device soft:seed=1
send_refused 2 "'colour': unknown key; the keys are size=" --device soft:size=1MiB,colour=red
send_refused 2 "'seed' is given twice" --device soft:size=1MiB,seed=1,seed=2
send_refused 2 "'flags': 'all' is not none, p2p" --device soft:size=1MiB,flags=all
send_refused 2 "'NOWHERE' is none of STOP, RUNNING" --device soft:size=1MiB,fail_state=NOWHERE
send_refused 2 "'1MiB\?' is not a size" --device $'soft:size=1MiB\n,'  # still one line
send_refused 2 "'xyz' is neither a PCI address such as .* nor a path" --device vfio:xyz
send_refused 1 '0000:ff:1f.7 does not exist: .godwit devices. lists' --device vfio:0000:ff:1f.7
mdev=/sys/bus/mdev/devices/00000000-0000-0000-0000-000000000000
send_refused 1 "$mdev does not exist" --device "vfio:$mdev"
receive_refused 1 "$mdev does not exist" --device "vfio:$mdev"

# Several devices move together only if all have P2P: each side knows that by itself.
readonly alone=soft:size=1MiB,flags=none
send_refused 1 "$alone.*P2P" --device "$alone" --device soft:size=1MiB
receive_refused 1 "$alone.*P2P" --device soft:size=1MiB --device "$alone"

# ---- Files.
send_refused 1 "file:$scratch/none: .*No such file" --device "file:$scratch/none"
send_refused 2 'folder is a directory: give the path of a regular file' --device "file:$scratch/folder"
send_refused 2 '/dev/null is not a regular file' --device file:/dev/null
receive_refused 2 'folder is a directory' --device "file:$scratch/folder"
receive_refused 2 'names no file' --device "file:$scratch/folder/"
receive_refused 1 'the directory .*/none does not exist: make it first' --device "file:$scratch/none/B"
receive_refused 1 'Not a directory' --device "file:$scratch/state/B"
readonly no_json='--json /nowhere/x: .*No such file'
send_refused 1 "$no_json" --device "$state" --json /nowhere/x
receive_refused 1 "$no_json" --device "$state" --json /nowhere/x
refused 1 "$no_json" loopback --json /nowhere/x
refused 1 "$no_json" devices --json /nowhere/x
send_refused 1 '--json .*folder: .*Is a directory' --device "$state" --json "$scratch/folder"

# A result that can't be written is a failure, though the devices have moved: the one line says both.
readonly full='--json /dev/full: writing failed: No space left on device$'
readonly but_done="the session ended as done, but its result could not be written: $full"
refused 1 "$but_done" loopback --size 1MiB --devices 1 --json /dev/full
check_says "loopback --json /dev/full" refused.out '^moved 1 device'
refused 1 "$but_done" save --device "$state" --out "$scratch/saved" --json /dev/full
refused 1 "$but_done" load --device "file:$scratch/loaded" --in "$scratch/saved" --json /dev/full
cmp -- "$scratch/state" "$scratch/loaded" || fail "load --json /dev/full: the files differ"
refused 1 "$full" inspect "$scratch/saved" --json /dev/full
refused 1 "$full" devices --json /dev/full
start_receiver receive --device "file:$scratch/received" --json /dev/full
receiver=$pid
refused 1 "$but_done" send --to "127.0.0.1:$port" --device "$state" --json /dev/full
await "$receiver"
check_code "receive --json /dev/full" "$code" 1 receive.err
check_one_error "receive --json /dev/full" receive.err "$but_done"
cmp -- "$scratch/state" "$scratch/received" || fail "receive --json /dev/full: the files differ"
code=0
"$GODWIT" loopback --size 1MiB --json - > /dev/full 2> "$scratch/refused.err" || code=$?
check_code "--json - to a full disk" "$code" 1 refused.err
check_says "--json - to a full disk" refused.err 'error: the session ended as done, but .*--json -: writing'

# What ended before its session began says so in the JSON, too.
send_refused 1 'No such file' --device "file:$scratch/none" --json "$scratch/refused.json"
check_json "a refused send" refused.json /result refused
check_json "a refused send" refused.json /error '.*No such file.*'

# ---- Addresses.
send_refused 1 "can't connect to $there: Connection refused; is .godwit receive. running" \
  --device "$state"
send_refused 1 "can't connect" --device "$state" --json "$scratch/refused.json"
check_json "a closed port" refused.json /result rolled_back
check_json "a closed port" refused.json /error "can't connect.*"
refused 1 'no address for host "no-such-host\.invalid"' \
  send --to no-such-host.invalid:7471 --device "$state"
refused 1 'no address for host "no-such-host\.invalid"' \
  receive --listen no-such-host.invalid:0 --device "$state"
for address in 127.0.0.1 127.0.0.1: 127.0.0.1:x 127.0.0.1:65536 127.0.0.1:-1 :7471 ::1:7471 ''; do
  refused 2 "--to: \"$address\" is not an address: .*ADDR:PORT" send --to "$address" --device "$state"
  refused 2 "--listen: \"$address\" is not an address" receive --listen "$address" --device "$state"
done
refused 2 'port 0 is for listening only' send --to 127.0.0.1:0 --device "$state"
refused 1 "can't listen on 192\.0\.2\.1:7471: .*give an address of this host" \
  receive --listen 192.0.2.1:7471 --device "$state"

# ---- What only the two sides together show. Both end, and both say why.

# pair_refused CODE REGEX-OF-SEND REGEX-OF-RECEIVE SEND-ARGUMENTS -- RECEIVE-ARGUMENTS
pair_refused() {
  local wanted=$1 send_regex=$2 receive_regex=$3 send_arguments=() what receiver
  shift 3
  what="send $*"
  while [[ $1 != -- ]]; do send_arguments+=("$1"); shift; done
  shift
  cases=$((cases + 1))
  start_receiver receive "$@"
  receiver=$pid
  run send "$GODWIT" send --to "127.0.0.1:$port" "${send_arguments[@]}"
  check_code "$what: send" "$code" "$wanted" send.err
  check_one_error "$what: send" send.err "$send_regex"
  await "$receiver" 10
  check_code "$what: receive" "$code" "$wanted" receive.err
  check_one_error "$what: receive" receive.err "$receive_regex"
}

readonly soft=soft:size=1MiB,seed=1
pair_refused 1 'has 2 devices.* this side 1: name as many --device' 'has 2 devices' \
  --device "$soft" --device "$soft" -- --device "$soft"
pair_refused 1 'has 1 devices.* this side 2' 'has 1 devices' \
  --device "$soft" -- --device "$soft" --device "$soft"
pair_refused 1 "device 0 is of kind 'file'.*pair by position" "device 0 is of kind 'file'" \
  --device "$soft" -- --device "file:$scratch/B"
[[ ! -e $scratch/B ]] || fail "a refused session left a target file behind"
# More than the receiver was told to accept.
readonly lower='at the source or raise it at the target$'
pair_refused 1 "gave up: .* asks for 3 lanes, .* at most 2: lower --lanes $lower" \
  "asks for 3 lanes, .* at most 2: lower --lanes $lower" \
  --device "$soft" --lanes 3 -- --device "$soft" --lanes 2
pair_refused 1 "gave up: .* packets of 65537 bytes, .* at most 65536: lower --packet-bytes $lower" \
  "packets of 65537 bytes, .* at most 65536: lower --packet-bytes $lower" \
  --device "$soft" --packet-bytes 65537 -- --device "$soft" --packet-bytes 64KiB
# The receiver's device is another: it refuses the stream.
pair_refused 1 'gave up: .*content is wrong' 'content is wrong' --device soft:size=1MiB,seed=2 -- --device "$soft"
pair_refused 1 'gave up: .*wrong length' 'wrong length' --device soft:size=2MiB,seed=1 -- --device "$soft"
pair_refused 1 'gave up: .*wrong length' 'wrong length' --device soft:size=512KiB,seed=1 -- --device "$soft"
for state_that_fails in STOP_COPY STOP; do
  pair_refused 1 "to $state_that_fails failed" "gave up: .*$state_that_fails" \
    --device "$soft,fail_state=$state_that_fails" -- --device "$soft"
done
pair_refused 1 'gave up: .*RESUMING' 'RESUMING' --device "$soft" -- --device "$soft,fail_state=RESUMING"

start_receiver first --device "$soft"
refused 1 "can't listen on 127\.0\.0\.1:$port: Address already in use.*; choose another port" \
  receive --listen "127.0.0.1:$port" --device "$soft"

say "$cases cases"
finish
