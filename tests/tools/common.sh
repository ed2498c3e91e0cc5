# shellcheck shell=bash
# What the command's tests share: a scratch folder, starting and awaiting processes, and a check's
# few words. Sourced, with these in the environment (tests/tools/CMakeLists.txt sets them):
#   GODWIT             the command
#   JSON_QUERY         json_query.cc, built
#   LISTENER           listener.cc, built
#   GODWIT_TEST_SCALE  full, or small where a sanitizer makes everything slow
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
finish() {
  ((failures == 0)) || die "$failures checks (above)"
  say "all checks pass"
}

# ---- Scratch space, gone at the end together with every process that was started here.

# Memory before disk: the tests are about the command and not about the disk.
for candidate in /dev/shm "${TMPDIR:-/tmp}"; do
  if [[ -d $candidate && -w $candidate ]] && scratch=$(mktemp -d "$candidate/godwit-test.XXXXXX"); then
    break
  fi
done
[[ -d ${scratch-} ]] || { echo "no folder to work in" >&2; exit 1; }

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

# Bytes free where the scratch folder is.
scratch_free_bytes() { df --block-size=1 --output=avail "$scratch" | tail -n 1; }

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

# start_receiver NAME ARGUMENT…: `godwit receive` on a free port of this host; its process in `pid`
# and its port in `port`.
start_receiver() {
  local name=$1
  shift
  rm -f -- "$scratch/$name.port"
  start "$name" "$GODWIT" receive --listen 127.0.0.1:0 --port-fd 9 "$@" 9> "$scratch/$name.port"
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
