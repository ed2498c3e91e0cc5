#!/bin/bash
# The two example VMMs move a device: every byte arrives, and exit codes say how it went.
# shellcheck source=tests/tools/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/../tools/common.sh"
: "${SOURCE_VMM:?the example source_vmm}" "${TARGET_VMM:?the example target_vmm}"

# start_target DEVICE: waits on a free port; its process in `target`, its port in `port`.
start_target() {
  : > "$scratch/target.out"
  start target "$TARGET_VMM" 127.0.0.1:0 "$1"
  target=$pid
  port=
  within 30 listens || die "target_vmm does not listen: $(text target.err)"
}
listens() {
  port=$(sed -nE 's/^listening on 127\.0\.0\.1:([0-9]+)$/\1/p' "$scratch/target.out")
  [[ -n $port ]]
}

# moves BYTES: that many random ones.
moves() {
  head -c "$1" /dev/urandom > "$scratch/A"
  rm -f -- "$scratch/B"
  start_target "$scratch/B"
  run source "$SOURCE_VMM" "127.0.0.1:$port" "$scratch/A"
  check_code "$1 bytes: source" "$code" 0 source.err
  await "$target"
  check_code "$1 bytes: target" "$code" 0 target.err
  check_says "$1 bytes: source" source.out "^moved $1 bytes\$"
  check_says "$1 bytes: target" target.out "^loaded $1 bytes\$"
  cmp "$scratch/A" "$scratch/B" || fail "$1 bytes: what arrived is not what was sent"
  # vCPUs stop before the devices do, and only then does anything flow.
  local steps
  steps=$(sed -n 's/^source: //p' "$scratch/source.err" | paste -sd ,)
  [[ $steps == "connecting,stopping,vCPUs stop,streaming,handing over,finished" ]] \
    || fail "$1 bytes: the source went through $steps"
  steps=$(sed -n 's/^target: //p' "$scratch/target.err" | paste -sd ,)
  [[ $steps == *",handing over,vCPUs start,finished" ]] \
    || fail "$1 bytes: the target went through $steps"
}

# Nothing at all; less than a packet (1 MiB); a packet to the byte; several and some.
moves 0
moves 1
moves $((1 << 20))
moves $(((5 << 20) + 3))

# Ctrl-C: nobody runs the device elsewhere, and both say so.
start_target "$scratch/C"
kill -INT "$target"
await "$target"
check_code "SIGINT to a target that waits" "$code" 1 target.err
check_says "SIGINT to a target that waits" target.err '^target: error: .*cancelled'
[[ ! -e $scratch/C ]] || fail "a cancelled target left a file"

start listener "$LISTENER" hold ''
within 30 test -s "$scratch/listener.out" || die "the listener has no port: $(text listener.err)"
start waiting "$SOURCE_VMM" "127.0.0.1:$(text listener.out)" "$scratch/A"
source=$pid
within 30 grep -qs connecting "$scratch/waiting.err" || die "the source does not begin"
kill -INT "$source"
await "$source"
check_code "SIGINT to a source that waits" "$code" 1 waiting.err
check_says "SIGINT to a source that waits" waiting.err '^source: error: .*cancelled'

# What can't begin.
run source "$SOURCE_VMM" 127.0.0.1:1 "$scratch/A"
check_code "nobody listens" "$code" 1 source.err
check_says "nobody listens" source.err '^source: error: .*refused'
for vmm in "$SOURCE_VMM" "$TARGET_VMM"; do
  run wrong "$vmm" 127.0.0.1:0
  check_code "one argument" "$code" 2 wrong.err
  check_says "one argument" wrong.err '^usage: '
  run wrong "$vmm" 127.0.0.1:0 fd:0
  check_code "an fd that is no VFIO device's" "$code" 2 wrong.err
  check_says "an fd that is no VFIO device's" wrong.err 'fd 0 is not a VFIO device'
done
finish
