# shellcheck shell=bash
# Two QEMUs in one VM, of which one migrates a device to the other; sourced after common.sh.
#
# Environment: QEMU, the folder that tests/lab/prepare --qemu prints.

qemu_libraries=$QEMU/usr/lib/x86_64-linux-gnu:$QEMU/lib/x86_64-linux-gnu
qemu_work=$(mktemp -d)

# start_qemu NAME DEVICE OPTION…: its process in `qemu_pid`; its QMP is at fds in NAME.in and NAME.out of
# $qemu_work, what it says in NAME.log.
start_qemu() {
  local name=$1 device=$2
  shift 2
  rm -f "$qemu_work/$name.in" "$qemu_work/$name.out"
  mkfifo "$qemu_work/$name.in" "$qemu_work/$name.out"
  LD_LIBRARY_PATH=$qemu_libraries "$QEMU/usr/bin/qemu-system-x86_64" \
    -L "$QEMU/usr/share/seabios" -L "$QEMU/usr/share/qemu" \
    -accel tcg -machine q35 -m 64 -nodefaults -display none \
    -device "vfio-pci,sysfsdev=$device,enable-migration=on,x-migration-multifd-transfer=on" \
    -chardev "pipe,id=qmp,path=$qemu_work/$name" -mon chardev=qmp,mode=control "$@" \
    > "$qemu_work/$name.log" 2>&1 &
  # shellcheck disable=SC2034  # read by who sources this
  qemu_pid=$!
}

# qmp FD_IN FD_OUT COMMAND [ARGUMENTS]: prints what it returns.
qmp() {
  local to=$1 from=$2 command=$3 arguments=${4-} line
  if [[ -z $arguments ]]; then arguments='{}'; fi
  printf '{"execute": "%s", "arguments": %s}\n' "$command" "$arguments" >&"$to"
  while IFS= read -r -t 60 line <&"$from"; do
    case $line in
      '{"return"'*) echo "$line"; return ;;
      '{"error"'*) fail "QEMU does not $command: $line" ;;
    esac
  done
  cat "$qemu_work"/*.log >&2
  fail "QEMU says nothing to $command"
}
source_qmp() { qmp 3 4 "$@"; }
target_qmp() { qmp 5 6 "$@"; }

# Starts both, `source_pid` with the device $1 and `target_pid` with $2, ready to migrate with 4 multifd
# channels, downtime of $3 ms at most. With $4, in bytes/s, QEMU takes that for the bandwidth of the switchover:
# what it measures while a guest's empty RAM goes is so little that a large device would keep it for ever.
start_both() {
  local side parameters="\"max-bandwidth\": 100000000000, \"downtime-limit\": $3, \"multifd-channels\": 4"
  [[ -z ${4-} ]] || parameters+=", \"avail-switchover-bandwidth\": $4"
  start_qemu source "$1" -S
  source_pid=$qemu_pid
  start_qemu target "$2" -incoming defer
  target_pid=$qemu_pid
  exec 3> "$qemu_work/source.in" 4< "$qemu_work/source.out" 5> "$qemu_work/target.in" 6< "$qemu_work/target.out"
  for side in source target; do
    "${side}_qmp" qmp_capabilities > /dev/null
    "${side}_qmp" migrate-set-capabilities '{"capabilities": [{"capability": "multifd", "state": true}]}' > /dev/null
    "${side}_qmp" migrate-set-parameters "{$parameters}" > /dev/null
  done
  source_qmp cont > /dev/null
}

# Migrates over port $1 and waits for the end, $2 s at most; query-migrate's last answer is in `answer`.
migrate() {
  local end_s=$((SECONDS + $2))
  target_qmp migrate-incoming "{\"uri\": \"tcp:127.0.0.1:$1\"}" > /dev/null
  source_qmp migrate "{\"uri\": \"tcp:127.0.0.1:$1\"}" > /dev/null
  while :; do
    answer=$(source_qmp query-migrate)
    case $(jq --raw-output .return.status <<< "$answer") in
      completed) break ;;
      failed | cancelled) cat "$qemu_work"/*.log >&2; fail "QEMU's migration ended so: $answer" ;;
    esac
    ((SECONDS < end_s)) || { cat "$qemu_work"/*.log >&2; fail "QEMU's migration takes too long: $answer"; }
    sleep 0.5
  done
}

# For those that don't end.
kill_both() {
  kill -KILL "$source_pid" "$target_pid"
  wait "$source_pid" "$target_pid" || true
  exec 3>&- 4<&- 5>&- 6<&-
}

end_both() {
  source_qmp quit > /dev/null
  target_qmp quit > /dev/null
  exec 3>&- 4<&- 5>&- 6<&-
  wait "$source_pid" "$target_pid" || true
}
