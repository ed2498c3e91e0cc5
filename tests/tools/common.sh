# shellcheck shell=bash
# What the command's tests share: a scratch folder, starting and awaiting processes, and a check's
# few words. Sourced, with these in the environment (tests/tools/CMakeLists.txt sets them):
#   GODWIT             the command
#   JSON_QUERY         json_query.cc, built
#   LISTENER           listener.cc, built
#   GODWIT_TEST_SCALE  full, or small where a sanitizer makes everything slow
# and maybe, set by the script before: scratch_bytes_min, what it needs to be free in its folder.
set -euo pipefail

: "${GODWIT:?the godwit command to test}" "${JSON_QUERY:?the json_query test tool}" \
  "${LISTENER:?the listener test tool}"
readonly scale=${GODWIT_TEST_SCALE:-full}
export scale
# How long anything that has to end may take before it counts as hanging.
hang_s=60

say() { printf '%s: %s\n' "$(basename "$0" .sh)" "$*"; }
# A test goes on after a failed check, so that one run shows all of them; `finish` sums up.
failures=0
fail() {
  printf '%s: FAILED: %s\n' "$(basename "$0" .sh)" "$*" >&2
  failures=$((failures + 1))
}
die() { fail "$@"; exit 1; }
# For a test that can't be had here at all: a part that can't is a test of its own, so that ctest's
# summary lists it.
skip() {
  printf '%s: SKIPPED: %s\n' "$(basename "$0" .sh)" "$*"
  exit 77
}
finish() {
  ((failures == 0)) || die "$failures checks (above)"
  say "all checks pass"
}

# ---- Scratch space, gone at the end together with every process that was started here.

free_bytes() { df --block-size=1 --output=avail "$1" | tail -n 1; }

# Memory before disk: the tests are about the command and not about the disk.
too_full=
for candidate in /dev/shm "${TMPDIR:-/tmp}"; do
  [[ -d $candidate && -w $candidate ]] || continue
  if (($(free_bytes "$candidate") < ${scratch_bytes_min:-0})); then
    too_full+=" $candidate has $(($(free_bytes "$candidate") >> 20)) MiB free"
  elif scratch=$(mktemp -d "$candidate/godwit-test.XXXXXX"); then
    break
  fi
done
if [[ ! -d ${scratch-} ]]; then
  [[ -z $too_full ]] || skip "it needs $((scratch_bytes_min >> 20)) MiB, but:$too_full"
  echo "no folder to work in" >&2
  exit 1
fi

declare -A started=()  # process id → name; those not yet waited for, whose ids are still theirs
clean_up() {
  local code=$? pid
  trap - EXIT
  for pid in "${!started[@]}"; do kill -KILL "$pid" 2> /dev/null || true; done
  wait 2> /dev/null || true
  rm -rf -- "$scratch"
  exit "$code"
}
trap clean_up EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

# ---- Processes.

# run NAME COMMAND…: in the foreground, its output in NAME.out and NAME.err, its exit code in `code`;
# 124 if it hangs.
run() {
  local name=$1
  shift
  code=0
  timeout --kill-after=5 "$hang_s" "$@" \
    > "$scratch/$name.out" 2> "$scratch/$name.err" < /dev/null || code=$?
}

# start NAME COMMAND…: the same in the background, its process in `pid`.
start() {
  local name=$1
  shift
  # Here and not by the new process: what an earlier one of this name has said could be read till then.
  : > "$scratch/$name.out"
  : > "$scratch/$name.err"
  "$@" >> "$scratch/$name.out" 2>> "$scratch/$name.err" < /dev/null &
  pid=$!
  started[$pid]=$name
}

# start_receiver NAME ARGUMENT…: `godwit receive` on a free port of this host, or as --listen says; its process in `pid`
# and its port in `port`.
start_receiver() {
  local name=$1
  shift
  rm -f -- "$scratch/$name.port"
  local listen=(--listen 127.0.0.1:0)
  [[ " $* " != *' --listen '* ]] || listen=()
  start "$name" "$GODWIT" receive "${listen[@]}" --port-fd 9 "$@" 9> "$scratch/$name.port"
  port=
  within 30 port_is_known "$name" || die "the receiver $name does not listen: $(text "$name.err")"
}
port_is_known() { port=$(cat "$scratch/$1.port") && [[ -n $port ]]; }

# within SECONDS COMMAND…: whether it succeeds in that time, tried again and again.
within() {
  local end_s=$((SECONDS + $1 + 1))
  shift
  until "$@"; do
    ((SECONDS < end_s)) || return 1
    sleep 0.05
  done
}

# await PID [SECONDS]: its exit code in `code`; kills it and says 124 if it does not end.
await() {
  local process=$1 limit_s=${2:-$hang_s} hangs=no
  code=0
  if ! within "$limit_s" has_ended "$process"; then
    hangs=yes
    kill -KILL "$process"
  fi
  wait "$process" 2> /dev/null || code=$?
  unset "started[$process]"
  [[ $hangs == no ]] || code=124
}

# stop PID: by force, for what does not end by itself.
stop() {
  kill -KILL "$1" 2> /dev/null || true
  await "$1"
}
# A process that nobody has waited for yet is a zombie.
has_ended() {
  local letter
  letter=$(sed -nE 's/^State:[[:space:]]*(.).*/\1/p' "/proc/$1/status" 2> /dev/null) || return 0
  [[ -z $letter || $letter == Z ]]
}

# ---- Checks.

text() { cat -- "$scratch/$1" 2> /dev/null || true; }

# check_code WHAT GOT WANTED ERR-FILE
check_code() {
  [[ $2 == "$3" ]] || fail "$1: exit code $2, expected $3; it said: $(text "$4")"
}

# check_says WHAT FILE REGEX: some line of the file matches the Perl regex.
check_says() {
  grep -qP -- "$3" "$scratch/$2" || fail "$1: no line of $2 matches /$3/; it has: $(text "$2")"
}
check_never_says() {
  ! grep -qP -- "$3" "$scratch/$2" || fail "$1: a line of $2 matches /$3/: $(text "$2")"
}

# check_one_error WHAT FILE REGEX: the file is one line, godwit's error, and matches.
check_one_error() {
  local lines
  lines=$(wc -l < "$scratch/$2")
  [[ $lines == 1 ]] || fail "$1: $lines lines on stderr, expected one: $(text "$2")"
  check_says "$1" "$2" "^(?=godwit: error: ).*(?:$3)"
}

# refused CODE REGEX ARGUMENT…: godwit ends with the code, and with one error line that matches. It is
# started by the command in `as`, if there is one, and counted in `cases`.
cases=0
as=()
refused() {
  local wanted=$1 regex=$2
  shift 2
  cases=$((cases + 1))
  run refused "${as[@]}" "$GODWIT" "$@"
  check_code "godwit $*" "$code" "$wanted" refused.err
  check_one_error "godwit $*" refused.err "$regex"
}
# send_refused CODE REGEX ARGUMENT…: `godwit send` to where nobody is: nobody listens on port 1.
readonly there=127.0.0.1:1
send_refused() { refused "$1" "$2" send --to "$there" "${@:3}"; }
receive_refused() { refused "$1" "$2" receive --listen 127.0.0.1:0 "${@:3}"; }

# The value at a JSON pointer, as /devices/0/bytes; an array's or object's value is its size.
json() { "$JSON_QUERY" "$scratch/$1" "$2"; }

# check_json WHAT FILE POINTER REGEX
check_json() {
  local value
  if ! value=$(json "$2" "$3" 2>&1); then
    fail "$1: $value"
  else
    grep -qP -- "^(?:$4)\$" <<< "$value" || fail "$1: $2 has $value at $3, expected $4"
  fi
}
