#!/bin/bash
# docs/command.md has every field of every command's JSON, with its type, and no other.
#
# Environment beside common.sh's: DOCUMENT, docs/command.md; JSON_FIELDS, json_fields.cc, built.
# shellcheck source=tests/tools/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

: "${DOCUMENT:?docs/command.md}" "${JSON_FIELDS:?the json_fields test tool}"

# fields HEADING FILE…: the files' fields are those under the heading, and all of these are in them.
fields() {
  local heading=$1 files=("${@:2}")
  "$JSON_FIELDS" "$DOCUMENT" "### $heading" "${files[@]/#/$scratch/}" || fail "$heading (above)"
}
# ends CODE NAME ARGUMENT…: godwit ends with the code and leaves its JSON in NAME.json.
ends() {
  run "$2" "$GODWIT" "${@:3}" --json "$scratch/$2.json"
  check_code "godwit ${*:3}" "$code" "$1" "$2.err"
}

readonly soft=soft:profile=mlx5,size=1MiB,seed=1
readonly saved=$scratch/capture

# ---- Sessions that end well, and one that does not.
ends 0 loopback loopback --size 1MiB
ends 0 precopy loopback --size 1MiB --devices 1 --soft profile=mlx5
ends 0 save save --device "$soft" --out "$saved"
ends 0 load load --device "$soft" --in "$saved"
start_receiver receive --device soft:size=1MiB,seed=2 --json "$scratch/receive.json"
receiver=$pid
ends 1 send send --to "127.0.0.1:$port" --device soft:size=1MiB,seed=1
await "$receiver"
fields 'JSON of a session' loopback.json precopy.json save.json load.json send.json receive.json

# ---- What never began.
ends 1 refused send --to "127.0.0.1:$port" --device "file:$scratch/none"
ends 1 refused_save save --device "file:$scratch/none" --out "$scratch/never"
ends 1 refused_inspect inspect "$scratch/none"
fields 'JSON of what was refused' refused.json refused_save.json refused_inspect.json

# ---- Lists.
ends 0 records inspect "$saved" --records
head -c 700000 "$saved" > "$scratch/cut"
ends 1 cut inspect "$scratch/cut"
head -c 100 /dev/zero > "$scratch/zeros"
ends 0 raw inspect "$scratch/zeros"
ends 1 wrong inspect "$scratch/zeros" --as mtty
fields 'JSON of inspect' records.json cut.json raw.json wrong.json

# ---- Devices. This host may have none: what they have is compared in the lab, which has both kinds.
ends 0 devices devices
"$JSON_FIELDS" --some "$DOCUMENT" '### JSON of devices' "$scratch/devices.json" || fail "devices (above)"

# ---- A ping, and one that nobody answers.
start_receiver waits --device soft:size=1MiB,seed=1
waits=$pid
ends 0 ping ping --to "127.0.0.1:$port" --time 100ms
ends 1 refused_ping ping --to "127.0.0.1:$port" --transport tcp --lanes 64 --packet-bytes 8388528 \
  --psk-file "$scratch/none"
ends 0 send send --to "127.0.0.1:$port" --device soft:size=1MiB,seed=1
await "$waits"
check_code "receive after pings" "$code" 0 waits.err
fields 'JSON of ping' ping.json
[[ $(grep -cE '^(target|trust|devices|path|round trip|rate) ' "$scratch/ping.out") == 6 ]] \
  || fail "godwit ping: $(text ping.out)"

# ---- The doctor, whatever it finds here.
run doctor "$GODWIT" doctor --json "$scratch/doctor.json"
((code <= 1)) || fail "godwit doctor: exit code $code"
fields 'JSON of doctor' doctor.json
[[ $(grep -cE '^(good|advice|missing) ' "$scratch/doctor.out") == 12 ]] || fail "godwit doctor: $(text doctor.out)"
[[ $(grep -cE '^ +-> ' "$scratch/doctor.out") == $(grep -cE '^(advice|missing) ' "$scratch/doctor.out") ]] \
  || fail "godwit doctor: advice where none is due, or none where it is: $(text doctor.out)"
[[ $code == "$(grep -qE '^missing ' "$scratch/doctor.out" && echo 1 || echo 0)" ]] || fail "godwit doctor: exit code $code"

# ---- That a difference shows.
differs() {
  local what=$1 said=$2
  ! "$JSON_FIELDS" --some "$DOCUMENT" '### JSON of devices' "$scratch/other.json" \
    2> "$scratch/differs.err" || fail "$what passes"
  check_says "$what" differs.err "$said"
}
echo '{"vfio": [], "rdma": [], "more": 1}' > "$scratch/other.json"
differs "a field more" 'more is not documented'
echo '{"vfio": []}' > "$scratch/other.json"
differs "a field less" 'rdma\[\] is documented and missing'
echo '{"vfio": [], "rdma": [{"name": 1, "driver": "d", "ports": []}]}' > "$scratch/other.json"
differs "another type" 'rdma\[\]\.name is documented as string and is integer'
finish
