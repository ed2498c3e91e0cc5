# shellcheck shell=bash
# What the scripts of this folder share. Each moves the bytes of one file to another over TCP on
# loopback, or does what comes nearest to it, and prints one line of JSON:
#
#   {"bytes": …, "seconds": …, "source_cpu_seconds": …, "target_cpu_seconds": …, "command": "…", …}
#
# Exit code: 0 moved, 1 not, 2 wrong usage, 77 what it needs is not installed (a line on stderr says
# what). In the environment, from tools/bench:
#   BENCH_SOURCE, BENCH_TARGET  files in memory, as long as each other, their pages there
#   BENCH_SCRATCH               a folder of this run's own
#   BENCH_BUILD                 the build folder
# shellcheck disable=SC2034  # read by who sources this
set -euo pipefail

: "${BENCH_SOURCE:?}" "${BENCH_TARGET:?}" "${BENCH_SCRATCH:?}" "${BENCH_BUILD:?}"
name=$(basename "$0")
connections=1 packet_bytes=1048576
bytes=$(stat --format %s "$BENCH_SOURCE")
TIMEFORMAT='%U %S'

die() { printf '%s: %s\n' "$name" "$*" >&2; exit 1; }

# needs COMMAND PACKAGE
needs() {
  command -v "$1" > /dev/null && return
  printf '%s: no %s here: it is in the package %s\n' "$name" "$1" "$2" >&2
  exit 77
}

# options [ARGUMENT…]: those that all scripts know; sets `connections` and `packet_bytes`. A script
# with more of them takes those first.
options() {
  while (($# > 0)); do
    case $1 in
      --connections) connections=$2 ;;
      --packet-bytes) packet_bytes=$2 ;;
      *) printf '%s: unknown argument %s\n' "$name" "$1" >&2; exit 2 ;;
    esac
    shift 2
  done
}
# For what has one connection and no other.
only_one_connection() { ((connections == 1)) || die "it has one connection, not $connections"; }

# Listening sockets have the state 0A.
listens() {
  local hex
  printf -v hex ':%04X' "$1"
  grep --quiet "$hex 0*:0* 0A" /proc/net/tcp || grep --quiet "$hex 0*:0* 0A" /proc/net/tcp6
}
pick_port() {
  port=$((20000 + RANDOM % 10000))
  while listens "$port"; do port=$((port + 1)); done
}

# move TARGET SOURCE: runs these two functions, TARGET in the background; it listens on `port`. What
# they print on stderr is shown if one of them fails. Sets seconds, from the source's start to the
# end of both, and the CPU seconds of each.
move() {
  local target_job i began ended
  : > "$BENCH_SCRATCH/said"
  { time "$1" 2>> "$BENCH_SCRATCH/said"; } 2> "$BENCH_SCRATCH/target.time" &
  target_job=$!
  for ((i = 0; i < 500; i++)); do
    ! listens "$port" || break
    kill -0 "$target_job" 2> /dev/null || break
    sleep 0.02
  done
  listens "$port" || die "the target does not listen: $(cat "$BENCH_SCRATCH/said")"
  began=${EPOCHREALTIME/./}
  # In a shell of its own: `time` counts every child that ends meanwhile, so also the target.
  (time "$2" 2>> "$BENCH_SCRATCH/said") 2> "$BENCH_SCRATCH/source.time" \
    || die "the source failed: $(cat "$BENCH_SCRATCH/said")"
  wait "$target_job" || die "the target failed: $(cat "$BENCH_SCRATCH/said")"
  ended=${EPOCHREALTIME/./}
  seconds=$(awk -v us=$((ended - began)) 'BEGIN { print us / 1e6 }')
  source_cpu_seconds=$(awk '{ print $1 + $2 }' "$BENCH_SCRATCH/source.time")
  target_cpu_seconds=$(awk '{ print $1 + $2 }' "$BENCH_SCRATCH/target.time")
}

# result COMMAND [KEY=VALUE…]: the line of JSON; a VALUE is JSON.
result() {
  local command=$1 pair more=''
  shift
  for pair in "$@"; do more+=$(printf ', "%s": %s' "${pair%%=*}" "${pair#*=}"); done
  command=${command//\\/\\\\}
  printf '{"bytes": %s, "seconds": %s, "source_cpu_seconds": %s, "target_cpu_seconds": %s, "command": "%s"%s}\n' \
    "$bytes" "$seconds" "$source_cpu_seconds" "$target_cpu_seconds" "${command//\"/\\\"}" "$more"
}
