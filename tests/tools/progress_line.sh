#!/bin/bash
# The progress line is drawn on a terminal, and only there; by one process, and taken away at the end.
# `script` makes a terminal, and is part of every Debian; it needs /dev/ptmx.
# shellcheck source=tests/tools/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

script -qec true /dev/null > /dev/null 2>&1 < /dev/null \
  || skip "no terminal can be made here: script fails"

size=512MiB
[[ $scale == full ]] || size=64MiB

printf -v command '%q loopback --size %q 2> >(cat > /dev/null)' "$GODWIT" "$size"
run redirected script -qec "bash -c '$command'" /dev/null
check_code "loopback with stderr redirected" "$code" 0 redirected.out
check_never_says "loopback with stderr redirected" redirected.out '\x1b\[K'

printf -v command '%q loopback --size %q' "$GODWIT" "$size"
run terminal script -qec "$command" /dev/null
check_code "loopback on a terminal" "$code" 0 terminal.out
check_says "loopback on a terminal" terminal.out '\r\x1b\[Kstreaming .*MiB of .*iB  \d+ %  [\d.]+ GiB/s'
# Taken away before the summary; and drawn by one process, not by both over each other.
check_says "loopback on a terminal" terminal.out '\x1b\[Kmoved 2 devices'
check_never_says "loopback on a terminal" terminal.out '\x1b\[Kwaiting'
finish
