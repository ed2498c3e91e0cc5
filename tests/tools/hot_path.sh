#!/bin/bash
# In steady state no byte of payload is copied in user space, and no packet costs an allocation: of two
# sessions of which one moves several times as much, plain, sealed and without CRCs.
#
# Environment, over queue pairs in the lab: TRANSPORT, ADDRESS, SMALL_MIB, LARGE_MIB.
# shellcheck source=tests/tools/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
: "${CALL_COUNTER:?the library that counts calls}"

[[ $scale == full ]] || skip "a sanitizer has its own malloc() and memcpy()"
readonly transport=${TRANSPORT:-tcp} address=${ADDRESS:-127.0.0.1}
readonly small_mib=${SMALL_MIB:-64} large_mib=${LARGE_MIB:-512}
[[ $transport == tcp ]] || hang_s=180  # emulated

head -c 32 /dev/urandom | od -An -tx1 | tr -d ' \n' > "$scratch/psk"
chmod 600 "$scratch/psk"

# counted NAME: makes $scratch/counted a command that is godwit, with its counts in NAME.counts. What starts
# it is not counted.
counted() {
  cat > "$scratch/counted" << SCRIPT
#!/bin/sh
CALL_COUNTS='$scratch/$1.counts' LD_PRELOAD='$CALL_COUNTER' exec '$GODWIT' "\$@"
SCRIPT
  chmod +x "$scratch/counted"
}

# moves NAME MIB ARGUMENT…: a file of so many MiB, in packets of 1 MiB; the counts are in NAME-send.counts and
# NAME-receive.counts.
moves() {
  local name=$1 mib=$2 receiver
  shift 2
  head -c "${mib}M" /dev/urandom > "$scratch/from"
  rm -f -- "$scratch/to"
  counted "$name-receive"
  GODWIT=$scratch/counted start_receiver "receive-$name" --listen "$address:0" --device "file:$scratch/to" "$@"
  receiver=$pid
  counted "$name-send"
  run "send-$name" "$scratch/counted" send \
    --to "$address:$port" --device "file:$scratch/from" --transport "$transport" --lanes 4 --packet-bytes 1MiB \
    --json "$scratch/$name.json" "$@"
  check_code "send, $name" "$code" 0 "send-$name.err"
  await "$receiver"
  check_code "receive, $name" "$code" 0 "receive-$name.err"
  cmp --quiet "$scratch/from" "$scratch/to" || fail "$name: the file differs"
  check_json "send, $name" "$name.json" /lanes/0/transport "$transport"
}

# threads FILE NAME: how many there are.
threads() { awk -v name="$2" '$1 == name' "$scratch/$1" | wc -l; }

# check_path KIND SIDE THREAD: of both sessions.
check_path() {
  local small=$1-small-$2.counts large=$1-large-$2.counts grown copies
  (($(threads "$large" "$3") > 0)) || fail "$large: there is no thread $3"
  grown=$(($(sum "$large" "$3" 2) - $(sum "$small" "$3" 2)))
  copies=$(sum "$large" "$3" 3)
  say "$1, $2, $3: $(sum "$large" "$3" 2) allocations, $grown of them for $((large_mib - small_mib)) packets more; $copies copies"
  ((grown == 0)) || fail "$1, $2: $3 allocates $grown times more for $((large_mib - small_mib)) packets more"
  ((copies == 0)) || fail "$1, $2: $3 copies $copies times, $(sum "$large" "$3" 4) bytes"
}

# check_control KIND SIDE: what its control thread, the main one, allocates differs from one session to the
# next by a few, since it notes the time's events too; it must not grow with packets or their receipts. Inside
# TLS OpenSSL allocates once for a record that it reads and three times for one that it writes.
# How many receipts there are goes with the machine: plain sessions prove it, sealed ones that it is no more than that.
check_control() {
  local small=$1-small-$2.counts large=$1-large-$2.counts grown packets=$((large_mib - small_mib)) most
  most=$((16 + packets / 10))
  [[ $1 != sealed ]] || most=$((most + 3 * packets))
  (($(sum "$small" - 2) > 0)) || fail "$small: there is no main thread"
  grown=$(($(sum "$large" - 2) - $(sum "$small" - 2)))
  say "$1, $2, control thread: $(sum "$large" - 2) allocations, $grown of them for $packets packets more"
  ((grown < most)) || fail "$1, $2: the control thread allocates $grown times more for $packets packets more"
}

# sum FILE NAME COLUMN: of the threads of that name.
sum() { awk -v name="$2" -v column="$3" '$1 == name { total += $column } END { print total + 0 }' "$scratch/$1"; }

# The counter sees what is copied: this device's thread copies its whole stream.
counted copies
run copies "$scratch/counted" save --device soft:size=8MiB,seed=1,profile=mlx5 --out "$scratch/capture"
check_code "save" "$code" 0 copies.err
bytes=$(awk '{ total += $4 } END { print total + 0 }' "$scratch/copies.counts")
((bytes >= 8 << 20)) || fail "the counter has seen $bytes bytes of 8 MiB that were copied"
(($(sum copies.counts - 2) > 100)) || fail "the counter has not seen the main thread's allocations"

for kind in plain crc-off sealed; do
  case $kind in
    plain) options=(--insecure) ;;
    crc-off) options=(--insecure --crc off) ;;
    sealed) options=(--psk-file "$scratch/psk" --seal on) ;;
  esac
  moves "$kind-small" "$small_mib" "${options[@]}"
  moves "$kind-large" "$large_mib" "${options[@]}"
  check_path "$kind" send godwit-worker
  check_path "$kind" receive godwit-worker
  check_path "$kind" receive godwit-loader
  check_control "$kind" send
  check_control "$kind" receive
  # Whoever does it: the payload is copied nowhere in the program.
  for side in send receive; do
    bytes=$(awk '{ total += $4 } END { print total + 0 }' "$scratch/$kind-large-$side.counts")
    ((bytes == 0)) || fail "$kind, $side: $bytes bytes are copied in pieces of a page or more"
    say "$kind, $side: $bytes bytes in all are copied in pieces of a page or more"
  done
done
finish
