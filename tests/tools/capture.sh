#!/bin/bash
# What is saved is what is loaded; what was cut off or changed is refused with record and offset, and
# leaves nothing behind; and inspect lists what is there, whatever is there.
# shellcheck source=tests/tools/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

readonly kib=1024 mib=$((1024 * 1024))
readonly saved=$scratch/capture
big=$((200 * mib))
[[ $scale == full ]] || big=$((20 * mib))

# save CODE ARGUMENT…, load CODE ARGUMENT…, inspect CODE ARGUMENT…: with that exit code.
save() { run save "$GODWIT" save --out "$saved" "${@:2}"; check_code "save ${*:2}" "$code" "$1" save.err; }
load() { run load "$GODWIT" load --in "$saved" "${@:2}"; check_code "load ${*:2}" "$code" "$1" load.err; }
inspect() { run inspect "$GODWIT" inspect "${@:2}"; check_code "inspect ${*:2}" "$code" "$1" inspect.err; }
fresh() { rm -f -- "$saved" "$scratch/B" "$scratch/C"; }

# bytes HEX…: the bytes. le WIDTH NUMBER: little-endian.
bytes() { local hex; for hex in "$@"; do printf '%b' "\\x$hex"; done; }
le() {
  local width=$1 number=$2 i
  for ((i = 0; i < width; i++)); do
    bytes "$(printf '%02x' $((number & 255)))"
    number=$((number >> 8))
  done
}
# record TAG FLAGS FILE: as mlx5 and virtio have it.
record() { le 8 "$(stat -c %s "$3")"; le 4 "$2"; le 4 "$1"; cat "$3"; }
# part TYPE FLAGS SELECTOR TEXT: a virtio device part.
part() { le 2 "$1"; le 1 "$2"; le 1 0; le 8 "$3"; le 4 "${#4}"; printf '%s' "$4"; }

# ---- What is saved is loaded.
for size in 0 1 $((4 * kib - 1)) $((mib + 1)) $big; do
  fresh
  head -c "$size" /dev/urandom > "$scratch/A"
  save 0 --device "file:$scratch/A" --json "$scratch/save.json"
  inspect 0 "$saved" --json "$scratch/inspect.json"
  load 0 --device "file:$scratch/B" --json "$scratch/load.json"
  cmp -- "$scratch/A" "$scratch/B" || fail "$size bytes: the files differ"
  [[ ! -e $saved.partial ]] || fail "$size bytes: a partial file is left"
  check_json "$size bytes" save.json /result 'done'
  check_json "$size bytes" load.json /bytes "$size"
  check_json "$size bytes" inspect.json /format capture
  check_json "$size bytes" inspect.json /whole true
  check_json "$size bytes" inspect.json /problems 0
  check_json "$size bytes" inspect.json /devices/0/bytes "$size"
  check_json "$size bytes" inspect.json /devices/0/complete true
  check_json "$size bytes" inspect.json /devices/0/crc32c "$(json load.json /devices/0/loaded_crc32c)"
  check_json "$size bytes" inspect.json /records "$(json save.json /packets)"
done
fresh
readonly pair=(--device "soft:size=$((big / 2)),seed=1" --device "soft:size=1MiB,seed=2")
save 0 "${pair[@]}" --packet-bytes 100KiB
load 0 "${pair[@]}"
check_says "two soft devices" load.out 'content as expected'
load 1 --device "soft:size=$((big / 2)),seed=3" --device soft:size=1MiB,seed=2
check_one_error "another device" load.err 'content is wrong'
load 1 --device soft:size=1MiB
check_one_error "one device for two" load.err 'holds 2 devices and 1 are to be loaded'
load 1 --device "file:$scratch/B" --device "file:$scratch/C"
check_one_error "other kinds" load.err "kind 'file'.*kind 'soft'.*pair by position"
[[ ! -e $scratch/B ]] || fail "a refused load left a file behind"

# Memory does not grow with the file.
peak=$(json load.json /peak_resident_bytes 2> /dev/null) || peak=0
say "the largest capture has $(stat -c %s "$saved") bytes; a load has at most $peak resident"

# ---- What stands in the way of saving.
save 1 "${pair[@]}"
check_one_error "an existing file" save.err 'exists: .*--force'
save 0 --device soft:size=1MiB --force
run save "$GODWIT" save --device soft:size=1MiB --out "$scratch/no/such"
check_one_error "no folder" save.err 'No such file'
run save "$GODWIT" save --device soft:size=1MiB --out "$scratch"
check_one_error "a folder" save.err 'not a regular file'
fresh
save 1 --device soft:size=1MiB,fail_state=STOP_COPY
check_one_error "a device that does not stop" save.err STOP_COPY
# A disk that is full looks like this limit, in blocks of 1 KiB.
code=0
(trap '' XFSZ; ulimit -f 512; exec "$GODWIT" save --device soft:size=10MiB --out "$saved") \
  > "$scratch/save.out" 2> "$scratch/save.err" || code=$?
check_code "a file that can't grow" "$code" 1 save.err
check_one_error "a file that can't grow" save.err 'partial: writing at byte \d+ failed'
[[ ! -e $saved && ! -e $saved.partial ]] || fail "a failed save left a file behind"

# ---- Cut off and changed.
head -c 3000 /dev/urandom > "$scratch/A"
save 0 --device "file:$scratch/A" --packet-bytes 1KiB
cp "$saved" "$scratch/whole"
total=$(stat -c %s "$saved")
for cut in 0 7 40 100 1200 2500 $((total - 33)) $((total - 32)) $((total - 1)); do
  head -c "$cut" "$scratch/whole" > "$saved"
  load 1 --device "file:$scratch/B"
  check_one_error "cut to $cut bytes" load.err 'cut off'
  [[ ! -e $scratch/B ]] || fail "cut to $cut bytes: a file is left behind"
  ((cut < 100)) || { inspect 1 "$saved" --as capture --json "$scratch/inspect.json"
    check_says "inspect, cut to $cut bytes" inspect.out '  ! .*(cut off|not there)'
    check_json "inspect, cut to $cut bytes" inspect.json /whole false; }
done
head -c 1200 "$scratch/whole" > "$saved"
load 1 --device "file:$scratch/B"
check_one_error "cut in record 1" load.err 'capture: record 1 \(at byte \d+\): .* of its 1108 bytes'
for at in 3 20 70 300 1300 2000 $((total - 20)); do
  cp "$scratch/whole" "$saved"
  byte=$(od -An -tu1 -j "$at" -N 1 "$saved")
  bytes "$(printf '%02x' $((byte ^ 16)))" | dd of="$saved" bs=1 seek="$at" conv=notrunc status=none
  load 1 --device "file:$scratch/B"
  check_one_error "byte $at changed" load.err 'capture: '
  [[ ! -e $scratch/B ]] || fail "byte $at changed: a file is left behind"
  inspect 1 "$saved" --as capture
done
check_says "a changed payload" inspect.err '1 problem, each marked !|problems|trailer'

# ---- Streams of drivers.
printf 'firmware state' > "$scratch/payload"
printf '\x10\x00\x00\x00\x00\x00\x00\x00' > "$scratch/size"
{ record 1 1 "$scratch/size"; record 0 0 "$scratch/payload"; record 85 1 "$scratch/payload"; } > "$scratch/mlx5"
{ part 256 1 0 features; part 259 0 0 s; part 260 0 1 queue; } > "$scratch/parts"
{ record 0 0 "$scratch/parts"; record 9 1 "$scratch/payload"; } > "$scratch/virtio"
inspect 0 "$scratch/mlx5" --json "$scratch/inspect.json"
check_says mlx5 inspect.out 'looks like mlx5'
check_says mlx5 inspect.out ' record 1 size=14 flags=0x0 tag=0x0  FW_DATA'
check_says mlx5 inspect.out ' record 2 size=14 flags=0x1 tag=0x55  66 69 72 6d'
check_json mlx5 inspect.json /records 3
check_json mlx5 inspect.json /records/2/fields/tag 85
inspect 0 "$scratch/virtio" --json "$scratch/inspect.json"
check_says virtio inspect.out 'looks like virtio'
check_says virtio inspect.out ' part 2 type=0x104 flags=0x0 selector=1 length=5  VQ_CFG'
check_json virtio inspect.json /records 5
{ bytes 4e 2c 3e 8c 89 09 9d 7e; le 4 1; le 4 0; le 4 1; le 4 0; head -c 36 /dev/zero; } > "$scratch/mtty"
inspect 0 "$scratch/mtty"
check_says mtty inspect.out ' header 0 magic=0x7e9d09898c3e2c4e major_version=1 .*ports=1'
inspect 0 "$scratch/A" --json -
check_says "bytes of no known form" inspect.err 'of no known form'
check_json "bytes of no known form" inspect.out /recognised false
check_json "bytes of no known form" inspect.out /records/0/bytes 3000
inspect 0 "$scratch/A" --as raw
inspect 1 "$scratch/A" --as mtty
check_says "not mtty" inspect.out '! its magic is'
inspect 2 "$scratch/A" --as mlx6
check_one_error "no such format" inspect.err "'mlx6' is none of .*capture"
inspect 1 "$scratch/none"
check_one_error "no such file" inspect.err 'No such file'
inspect 2 "$scratch"
check_one_error "a folder" inspect.err 'is a directory'
inspect 1 /proc/self/mem --json "$scratch/inspect.json"
check_json "a file that can't be read to its end" inspect.json /error '.*'

# Inside a capture.
fresh
save 0 --device "file:$scratch/virtio" --device "file:$scratch/mlx5" --packet-bytes 50
inspect 0 "$saved" --records --json "$scratch/inspect.json"
check_says "records in a capture" inspect.out 'device 0 +16  part 0 type=0x100 .*DEV_FEATURES'
check_says "records in a capture" inspect.out 'device 1 +24  record 0|device 1 +0  record 0'
check_json "records in a capture" inspect.json /devices/0/format virtio
inspect 0 "$saved" --records --as mlx5

# ---- What a software device saves as a driver's is that driver's.
# soft_as PROFILE OPTIONS RECORD: a line of the list matches RECORD, --check takes the stream, and
# that of another driver does not.
soft_as() {
  local device=soft:profile=$1$2,seed=9 other=mtty receiver
  [[ $1 != mtty ]] || other=qat
  fresh
  save 0 --device "$device"
  inspect 0 "$saved" --records --json "$scratch/inspect.json"
  check_says "soft $1" inspect.out "$3"
  [[ $1 == pds ]] || check_json "soft $1" inspect.json /devices/0/format "$1"
  load 0 --device "$device" --check "$1"
  check_says "soft $1" load.out 'content as expected'
  load 1 --device "$device" --check "$other"
  check_one_error "soft $1 as $other" load.err "the stream is not one for $other: "
  start_receiver receive --device "$device" --check "$1"
  receiver=$pid
  run send "$GODWIT" send --to "127.0.0.1:$port" --device "$device"
  check_code "soft $1: send" "$code" 0 send.err
  await "$receiver"
  check_code "soft $1: receive --check" "$code" 0 receive.err
}
soft_as mlx5 ,size=1MiB ' record 0 size=8 flags=0x1 tag=0x1  STOP_COPY_SIZE'
soft_as virtio ,size=1MiB ' part 1 type=0x101 flags=0x0 selector=0 length=16  DRV_FEATURES'
soft_as xe ,size=1MiB ' packet 1 version=1 type=6 .*  VRAM'
soft_as hisi '' ' header 0 magic=0xaaccfeeddecadede .* major_version=1 minor_version=0  hisi'
soft_as qat '' ' header 0 magic=0xadf5caea version=1 header_bytes=16 sections=1 size=4080  qat'
soft_as mtty '' ' header 0 magic=0x7e9d09898c3e2c4e major_version=1 minor_version=0 ports=1 .*  mtty'
soft_as mtty ,size=96 ' header 0 .* ports=2 flags=0x0  mtty'
soft_as pds ,size=64KiB ' device=0 index=0 offset=0 bytes=65536 '

# ---- --check.
fresh
{ cat "$scratch/mlx5"; record 7 0 "$scratch/payload"; } > "$scratch/newer"
save 0 --device "file:$scratch/newer"
load 1 --device "file:$scratch/B" --check mlx5
check_one_error "load --check" load.err "device file:.*B: the stream is not one for mlx5: record 3 at byte 84: its tag 0x7 is mandatory"
[[ ! -e $scratch/B ]] || fail "load --check: a file is left behind"
load 1 --device "file:$scratch/B" --check mtty
check_one_error "load --check" load.err 'header 0 at byte 0: its magic is'
load 0 --device "file:$scratch/B" --check raw
load 2 --device "file:$scratch/B" --check mlx6
check_one_error "load --check" load.err "--check: 'mlx6' is none of raw, mlx5"
load 2 --device "file:$scratch/B" --check mlx5 --check raw
check_one_error "load --check" load.err '--check is given 2 times for 1 devices'

# check_receive CODE PROFILE FILE REGEX: the same over the wire; both sides say why.
check_receive() {
  local receiver
  rm -f -- "$scratch/B"
  start_receiver receive --device "file:$scratch/B" --check "$2"
  receiver=$pid
  run send "$GODWIT" send --to "127.0.0.1:$port" --device "file:$3" --packet-bytes 40
  check_code "receive --check $2: send" "$code" "$1" send.err
  await "$receiver"
  check_code "receive --check $2" "$code" "$1" receive.err
  [[ $1 != 0 ]] || { cmp -- "$3" "$scratch/B" || fail "receive --check $2: the files differ"; return; }
  check_one_error "receive --check $2" receive.err "$4"
  check_one_error "receive --check $2: send" send.err "gave up: .*$4"
  [[ ! -e $scratch/B ]] || fail "receive --check $2: a file is left behind"
}
check_receive 0 mlx5 "$scratch/mlx5"
check_receive 0 virtio "$scratch/virtio"
check_receive 1 mlx5 "$scratch/newer" 'record 3 at byte 84: its tag 0x7 is mandatory'
head -c 70 "$scratch/mlx5" > "$scratch/short"
check_receive 1 mlx5 "$scratch/short" 'record 2 at byte 54: the stream ends in it'
finish
