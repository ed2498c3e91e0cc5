#!/bin/bash
# Interrupted and killed at the worst moment: the other side ends soon and says why, the devices are
# back where they were, and no process is left.
# shellcheck source=tests/tools/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

# Enough to be in the middle of when the signal comes.
readonly soft=soft:size=64GiB,seed=5
readonly soon_s=10

# begin SEND-SPEC RECEIVE-SPEC: a session in the middle of its stream; its processes in `sender` and
# `receiver`.
begin() {
  start_receiver receive --device "$2" --json "$scratch/target.json"
  receiver=$pid
  start send "$GODWIT" send --to "127.0.0.1:$port" --device "$1" --transport tcp --lanes 2 \
    --json "$scratch/source.json"
  sender=$pid
  within 60 is_streaming || die "no stream begins: $(text send.err) $(text receive.err)"
}
# Loaders write to their devices, and the kernel counts it.
is_streaming() {
  local bytes
  bytes=$(sed -n 's/^wchar: //p' "/proc/$receiver/io" 2> /dev/null) && ((bytes > 32 << 20))
}

# both_fail WHAT SEND-REGEX RECEIVE-REGEX: soon, with code 1 and one line each.
both_fail() {
  local began_s=$SECONDS
  await "$sender" "$soon_s"
  check_code "$1: send" "$code" 1 send.err
  [[ $1 != *'to the receiver' ]] || forget_lanes
  check_one_error "$1: send" send.err "$2"
  check_json "$1: send" source.json /result rolled_back
  await "$receiver" "$soon_s"
  check_code "$1: receive" "$code" 1 receive.err
  check_one_error "$1: receive" receive.err "$3"
  check_json "$1: receive" target.json /result rolled_back
  say "$1: ended after $((SECONDS - began_s)) s"
}

# A receiver that ends lets its connections go in any order, or so quickly behind its last word that
# the sender sees all at once: that no lane is left may have been said before.
forget_lanes() { sed -i '/^godwit: warning: no lane is left/d' "$scratch/send.err"; }

has_a_child() { [[ -n $(cat "/proc/$1/task/$1/children" 2> /dev/null) ]]; }

for signal in INT TERM; do
  begin "$soft" "$soft"
  kill -"$signal" "$sender"
  both_fail "SIG$signal to the sender" 'error: cancelled$' 'gave up: cancelled'

  begin "$soft" "$soft"
  kill -"$signal" "$receiver"
  both_fail "SIG$signal to the receiver" 'gave up: cancelled' 'error: cancelled$'

  start_receiver receive --device "$soft" --json "$scratch/target.json"
  kill -"$signal" "$pid"
  await "$pid" "$soon_s"
  check_code "SIG$signal to a receiver that waits" "$code" 1 receive.err
  check_one_error "SIG$signal to a receiver that waits" receive.err 'cancelled'
done

# A sender that is killed says nothing any more: its connections break.
begin "$soft" "$soft"
kill -KILL "$sender"
await "$sender"
await "$receiver" "$soon_s"
check_code "SIGKILL to the sender: receive" "$code" 1 receive.err
check_one_error "SIGKILL to the sender: receive" receive.err 'peer 127\.0\.0\.1:\d+|lane '
check_json "SIGKILL to the sender: receive" target.json /result rolled_back
say "SIGKILL to the sender: $(text receive.err)"

# The source of a killed receiver is as it was, and can be sent again.
begin "$soft" "$soft"
kill -KILL "$receiver"
await "$receiver"
await "$sender" "$soon_s"
check_code "SIGKILL to the receiver: send" "$code" 1 send.err
forget_lanes
check_one_error "SIGKILL to the receiver: send" send.err 'peer 127\.0\.0\.1:\d+|lane '
check_json "SIGKILL to the receiver: send" source.json /result rolled_back
say "SIGKILL to the receiver: $(text send.err)"

# A host that is there and answers nothing (stopped) is given up after eight seconds of silence.
begin "$soft" "$soft"
kill -STOP "$receiver"
await "$sender" 20
check_code "a stopped receiver: send" "$code" 1 send.err
check_one_error "a stopped receiver: send" send.err 'nothing has come from it for 8 s'
kill -CONT "$receiver"
await "$receiver" "$soon_s"
check_code "a stopped receiver, when it goes on" "$code" 1 receive.err

# Who cancels does not wait for that silence, whichever side it is.
begin "$soft" "$soft"
kill -STOP "$receiver"
kill -INT "$sender"
await "$sender" 5
check_code "SIGINT to a sender, its receiver stopped" "$code" 1 send.err
check_one_error "SIGINT to a sender, its receiver stopped" send.err 'error: cancelled$'
kill -CONT "$receiver"
await "$receiver" "$soon_s"
check_code "a receiver that goes on after that" "$code" 1 receive.err

begin "$soft" "$soft"
kill -STOP "$sender"
kill -INT "$receiver"
await "$receiver" 5
check_code "SIGINT to a receiver, its sender stopped" "$code" 1 receive.err
check_one_error "SIGINT to a receiver, its sender stopped" receive.err 'error: cancelled$'
kill -CONT "$sender"
await "$sender" "$soon_s"
check_code "a sender that goes on after that" "$code" 1 send.err

# A target file that a cancelled session made is gone; one that was there stays.
truncate --size=64G "$scratch/A" 2> /dev/null || truncate --size=8G "$scratch/A"  # a hole: takes no space
begin "file:$scratch/A" "file:$scratch/B"
kill -INT "$sender"
both_fail "SIGINT in a file's stream" 'cancelled' 'gave up: cancelled'
[[ ! -e $scratch/B ]] || fail "the cancelled session left its target file behind"
[[ -s $scratch/A ]] || fail "the cancelled session changed its source"

# Loopback's two processes end together.
start loopback "$GODWIT" loopback --devices 1 --size 64GiB
loopback=$pid
within 60 has_a_child "$loopback" || die "loopback starts no target: $(text loopback.err)"
child=$(cat "/proc/$loopback/task/$loopback/children")
child=${child%% *}
receiver=$child
within 60 is_streaming || die "loopback does not stream: $(text loopback.err)"
kill -INT "$loopback"
await "$loopback" "$soon_s"
check_code "SIGINT to loopback" "$code" 1 loopback.err
check_one_error "SIGINT to loopback" loopback.err 'cancelled'
has_ended "$child" || fail "SIGINT to loopback: its target process $child lives on"

start loopback "$GODWIT" loopback --devices 1 --size 64GiB
loopback=$pid
within 60 has_a_child "$loopback" || die "loopback starts no target: $(text loopback.err)"
child=$(cat "/proc/$loopback/task/$loopback/children")
child=${child%% *}
stop "$loopback"
within "$soon_s" has_ended "$child" || fail "SIGKILL to loopback: its target process $child lives on"
finish
