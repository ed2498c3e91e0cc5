#!/bin/bash
# What may not be read or written is refused before anything begins.
# shellcheck source=tests/tools/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

hang_s=10
if ((EUID == 0)); then
  # Root may do anything: not without these capabilities.
  as=(setpriv --inh-caps -all --bounding-set "-dac_override,-dac_read_search")
  "${as[@]}" true 2> "$scratch/setpriv.err" \
    || skip "this is root, who may write anywhere and can't be kept from it: $(text setpriv.err)"
fi

mkdir "$scratch/closed"
chmod 555 "$scratch/closed"
receive_refused 1 "can't create a file in this directory: Permission denied" \
  --device "file:$scratch/closed/B"
echo state > "$scratch/state"
refused 1 'Permission denied' save --device "file:$scratch/state" --out "$scratch/closed/capture"
[[ -z $(ls -A "$scratch/closed") ]] || fail "something was made in the closed folder"
touch "$scratch/unreadable"
chmod 000 "$scratch/unreadable"
send_refused 1 "can't read the file: Permission denied" --device "file:$scratch/unreadable"
send_refused 1 '--json .*: .*Permission denied' --device "file:$scratch/state" --json "$scratch/unreadable"
say "$cases cases"
finish
