#!/bin/bash
# A file sent is the file received, byte for byte: any size, any number of lanes, over whatever was
# there before.
#
# usage: file_to_file.sh [large]; large is 3 GiB, past what 32 bits count, and nothing else.
if [[ ${1-} == large ]]; then scratch_bytes_min=$((7 << 30)); fi
# shellcheck source=tests/tools/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

readonly kib=1024 mib=$((1024 * 1024)) gib=$((1024 * 1024 * 1024))
readonly source_file=$scratch/A target_file=$scratch/B

make_source() { head -c "$1" /dev/urandom > "$source_file"; }

# put_target BEFORE BYTES: what the target file is before the session.
put_target() {
  rm -f -- "$target_file"
  case $1 in
    absent) ;;
    empty) : > "$target_file" ;;
    # Other content than the source's, or a byte that is never written would not show.
    longer) head -c $(($2 + 4097)) /dev/zero | tr '\0' '\377' > "$target_file" ;;
    shorter) head -c $(($2 / 2)) /dev/zero | tr '\0' '\377' > "$target_file" ;;
    *) die "no such target: $1" ;;
  esac
}

# move SIZE LANES BEFORE
move() {
  local bytes=$1 lanes=$2 what="$1 bytes, $2 lanes, target $3" receiver
  put_target "$3" "$bytes"
  start_receiver receive --device "file:$target_file" --json "$scratch/target.json"
  receiver=$pid
  run send "$GODWIT" send --to "127.0.0.1:$port" --device "file:$source_file" --lanes "$lanes" \
    --transport tcp --json "$scratch/source.json"
  check_code "$what: send" "$code" 0 send.err
  await "$receiver"
  check_code "$what: receive" "$code" 0 receive.err
  cmp -- "$source_file" "$target_file" || fail "$what: the files differ"
  check_report "$what: source's report" source.json "$bytes" "$lanes"
  check_report "$what: target's report" target.json "$bytes" "$lanes"
}

# Every documented field (docs/command.md), with a value that fits.
check_report() {
  local what=$1 file=$2 bytes=$3 lanes=$4
  local whole='[0-9]+' number='[0-9]+(\.[0-9]+)?(e-?[0-9]+)?' pointer crc lane sum=0
  check_json "$what" "$file" /result 'done'
  check_json "$what" "$file" /peer '127\.0\.0\.1:[0-9]+'
  check_json "$what" "$file" /bytes "$bytes"
  for pointer in packets out_of_order_packets arena/bytes peak_resident_bytes; do
    check_json "$what" "$file" "/$pointer" "$whole"
  done
  for pointer in duration_ms downtime_ms throughput_gib_s; do
    check_json "$what" "$file" "/$pointer" "$number"
  done
  check_json "$what" "$file" /arena/backing 'hugepages|transparent hugepages|plain pages'
  check_json "$what" "$file" /devices 1
  check_json "$what" "$file" /devices/0/name 'file:/.*'
  check_json "$what" "$file" /devices/0/kind file
  check_json "$what" "$file" /devices/0/bytes "$bytes"
  check_json "$what" "$file" /devices/0/packets '[1-9][0-9]*'
  check_json "$what" "$file" /devices/0/out_of_order_packets "$whole"
  check_json "$what" "$file" /devices/0/content_verified false  # a file has no opinion
  crc=$(json "$file" /devices/0/sent_crc32c) || crc='?'
  [[ $crc =~ ^[0-9a-f]{8}$ ]] || fail "$what: the digest is $crc"
  check_json "$what" "$file" /devices/0/loaded_crc32c "$crc"
  check_json "$what" "$file" /lanes "$lanes"
  for ((lane = 0; lane < lanes; lane++)); do
    check_json "$what" "$file" "/lanes/$lane/transport" tcp
    check_json "$what" "$file" "/lanes/$lane/packets" "$whole"
    sum=$((sum + $(json "$file" "/lanes/$lane/bytes")))
  done
  # The config packet's payload of 16 bytes is not the device's stream.
  ((sum == bytes || sum == bytes + 16)) || fail "$what: the lanes' bytes are $sum, not $bytes"
}

move_big() {
  make_source "$1"
  move "$1" 1 absent
  move "$1" 3 longer
  move "$1" 16 shorter
  say "$1 bytes: $(json source.json /throughput_gib_s) GiB/s over 16 lanes"
}

if [[ ${1-} == large ]]; then
  [[ $scale == full ]] || skip "a sanitizer would take too long over 3 GiB"
  move_big $((3 * gib))
  finish
  exit
fi

for bytes in 0 1 $((4 * kib - 1)) $mib $((mib + 1)); do
  make_source "$bytes"
  for lanes in 1 3 16; do
    for before in absent empty longer shorter; do move "$bytes" "$lanes" "$before"; done
  done
done

move_big $((64 * mib))
finish
