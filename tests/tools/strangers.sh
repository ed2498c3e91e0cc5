#!/bin/bash
# What a receiver's port may meet before its real peer: none of it ends the wait but a Godwit of
# another version, which is the real peer, wrongly installed.
# shellcheck source=tests/tools/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

readonly soft=soft:size=8MiB,seed=3

# call PRODUCER: connects, sends what PRODUCER writes, and leaves.
# The receiver may hang up first: that signal is the stranger's, not this script's.
call() { ("$@" > "/dev/tcp/127.0.0.1/$port") 2> /dev/null || true; }
http() { printf 'GET / HTTP/1.1\r\nHost: 127.0.0.1:%s\r\n\r\n' "$port"; }
nothing() { :; }
random_bytes() { head -c 65536 /dev/urandom; }
half_a_preface() { printf 'GOD'; }
lane_of_no_session() { printf 'GODWITLN0123456789abcdef\0\0\0\0'; }
# A right preface, and then a message that is none.
endless_message() { printf 'GODWIT\0\1\377\377\377\377'; }
no_message() { printf 'GODWIT\0\1\0\0\0\4\377\377\377\377'; }
empty_message() { printf 'GODWIT\0\1\0\0\0\0'; }
cut_message() { printf 'GODWIT\0\1\0\0\1\0half of it'; }
preface_only() { printf 'GODWIT\0\1'; }
out_of_turn() { printf 'GODWIT\0\1\0\0\0\2\42\0'; }

start_receiver receive --device "$soft" --json "$scratch/target.json"
receiver=$pid
readonly strangers=(http nothing random_bytes half_a_preface lane_of_no_session endless_message
  no_message empty_message cut_message preface_only out_of_turn)
for stranger in "${strangers[@]}"; do
  call "$stranger"
  if has_ended "$receiver"; then
    await "$receiver"
    die "$stranger ended the receiver, exit code $code: $(text receive.err)"
  fi
done
# Held open, saying nothing, while the real peer comes: more than the receiver's queue of half-open
# connections would do no harm either, but takes the shell's descriptors.
silent=()
for ((i = 0; i < 50; i++)); do
  exec {fd}<> "/dev/tcp/127.0.0.1/$port"
  silent+=("$fd")
done

run send "$GODWIT" send --to "127.0.0.1:$port" --device "$soft" --transport tcp --lanes 4
check_code "the real peer" "$code" 0 send.err
await "$receiver"
check_code "the receiver" "$code" 0 receive.err
check_json "the receiver" target.json /devices/0/content_verified true
for fd in "${silent[@]}"; do exec {fd}>&-; done

# Each was turned away in one line that names it, and nothing else was said.
check_says "strangers" receive.err 'warning: turned away 127\.0\.0\.1:\d+: .* not Godwit'
check_says "strangers" receive.err 'turned away .*: it left before saying what it wants'
check_says "strangers" receive.err 'turned away .*: a lane of no session'
check_never_says "strangers" receive.err '^(?!godwit: warning: turned away 127\.0\.0\.1:\d+: )'

# Another version, before the real peer.
start_receiver receive --device "$soft"
receiver=$pid
call printf 'GODWIT\0\11'
await "$receiver" 10
check_code "version 9" "$code" 1 receive.err
check_one_error "version 9" receive.err \
  'peer 127\.0\.0\.1:\d+: it speaks .* version 9, this side speaks 1: install the same'

# ---- The same seen from a source: what answers is no receiver of this version, or none at all.

# source_meets WHAT REGEX hold|close TEXT
source_meets() {
  local what=$1 regex=$2 listener
  start listener "$LISTENER" "$3" "$4"
  listener=$pid
  within 30 listener_said_its_port || die "the listener does not listen: $(text listener.err)"
  run send "$GODWIT" send --to "127.0.0.1:$port" --device "$soft" --transport tcp
  check_code "$what" "$code" 1 send.err
  check_one_error "$what" send.err "$regex"
  stop "$listener"
}
listener_said_its_port() { port=$(text listener.out) && [[ -n $port ]]; }

hang_s=10
source_meets "a source meets version 9" 'version 9, this side speaks 1: install the same' \
  hold 'GODWIT\000\011'
source_meets "a source meets a web server" 'not Godwit.s protocol' \
  close 'HTTP/1.1 400 Bad Request\015\012\015\012'
source_meets "a source meets silence" 'nothing has come from it for 8 s' hold ''
# (Closed behind what we said, or before it was read: then by a reset.)
source_meets "a source meets a closed door" '(it closed the control channel|control channel broke|sending on the control channel failed)' \
  close ''
source_meets "a source meets a long message" 'announced a control message of 4294967295 bytes' \
  hold 'GODWIT\000\001\377\377\377\377'
source_meets "a source meets a garbled message" 'does not parse' \
  hold 'GODWIT\000\001\000\000\000\004\377\377\377\377'
finish
