#!/bin/bash
# --help says all that there is to say, to a person with a terminal of 100 columns.
# shellcheck source=tests/tools/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

# helps "SUBCOMMAND" REGEX…: its --help has a line for each.
helps() {
  local words=() regex
  read -ra words <<< "$1"
  shift
  run help "$GODWIT" "${words[@]}" --help
  check_code "godwit ${words[*]} --help" "$code" 0 help.err
  [[ ! -s $scratch/help.err ]] || fail "godwit ${words[*]} --help writes to stderr: $(text help.err)"
  for regex in "$@" '-h,--help' 'Exit code: 0 done.*1 failed.*2 wrong usage'; do
    check_says "godwit ${words[*]} --help" help.out "$regex"
  done
  check_never_says "godwit ${words[*]} --help" help.out '^.{101}'
}

readonly session=('^  --transport tcp\|verbs\|auto=' '^  --lanes N=4 ' '^  --packet-bytes SIZE=1MiB '
  '^SIZE is .*KiB, MiB, GiB' '^3 contact was lost')
readonly specs=('^  --device SPEC \.\.\. REQUIRED ' '^SPEC names a device:' '^  vfio:/sys/bus/mdev/devices/UUID '
  '^  vfio:0000:01:00\.1 ' '^  soft:size=1GiB,seed=7 ' '^  file:PATH ')
readonly precopy=('^  --no-precopy ' '^  --downtime-limit DURATION=300ms( |$)' '^  --precopy-max-time DURATION=60s( |$)'
  '^  --precopy-max-bytes SIZE ' '^  --on-no-convergence switch\|abort=switch( |$)' '^  --fixed-downtime DURATION ' 'DURATION as in 300ms')
readonly trust=('^  --tls-cert FILE ' '^  --tls-key FILE ' '^  --tls-ca FILE ' '^  --tls-peer-name NAME ' '^  --psk-file FILE '
  '^  --seal on\|off\|auto=auto( |$)'  '^  --insecure ')
readonly crc='^  --crc on\|off=on( |$)' json='^  --json FILE ' trace='^  --trace FILE '

helps '' '^  loopback ' '^  send ' '^  receive ' '^  save ' '^  load ' '^  inspect ' '^  devices ' '^  doctor ' '^  ping ' '^  keygen ' '--version' 'godwit receive --listen .*--psk-file' \
  'godwit send --to .*--psk-file' "${specs[@]:1}"
helps loopback '^  --devices N=2 ' '^  --size SIZE=1GiB ' '^  --seed S=1 ' '^  --soft KEY=VALUE' "$crc" "${session[@]}" "${precopy[@]}" "$trace" "$json"
helps ping '^  --to ADDR:PORT REQUIRED ' '^  --transport tcp\|verbs\|auto=auto' '^  --lanes N=4 ' '^  --packet-bytes SIZE=1MiB ' \
  '^  --rdma-device NAME ' '^  --time DURATION=1s( |$)' "${trust[@]}" "$json"
helps send '^  --to ADDR:PORT REQUIRED ' '^  --rdma-device NAME ' '^  --spin-us N=0 ' "$crc" "${specs[@]}" "${session[@]}" "${precopy[@]}" \
  "${trust[@]}" '^  --reconnect-timeout DURATION=30s( |$)' '^  --resolve-timeout DURATION=60s( |$)' '^  --metrics ADDR:PORT ' "$trace" "$json"
helps receive '^  --listen ADDR:PORT REQUIRED ' '^  --transport tcp\|verbs\|auto=auto' '^  --lanes N=64 ' \
  '^  --packet-bytes SIZE=8388528( |$)' '^  --rdma-device NAME ' '^  --spin-us N=0 ' '^  --port-fd FD ' '^  --check PROFILE ' '^  --commit-timeout DURATION=10s( |$)' \
  '^  --outcome-hold DURATION=90s( |$)' '^  --metrics ADDR:PORT ' "${specs[@]}" "${trust[@]}" "$trace" "$json"
helps keygen '^  --out DIR REQUIRED ' '^  --psk ' '^  --name NAME \.\.\. '
helps save '^  --out FILE REQUIRED ' '^  --force ' '^  --stop ' '^  --packet-bytes SIZE=1MiB ' "${specs[@]}" "$json"
helps load '^  --in FILE REQUIRED ' '^  --check PROFILE ' "${specs[@]}" "$json"
helps inspect '^  --as raw\|mlx5\|virtio\|mtty\|qat\|xe\|hisi\|pds\|capture' '^  --records ' "$json"
helps devices "$json"

# No option without words, and none that this test, and so docs/command.md, does not know.
for subcommand in loopback send receive save load inspect devices keygen; do
  run help "$GODWIT" "$subcommand" --help
  while IFS= read -r option; do
    grep -qF -- "$option" "${BASH_SOURCE[0]}" || fail "this test does not know $subcommand's $option"
    [[ ! -f ${DOCUMENT-} ]] || grep -qF -- "$option" "$DOCUMENT" \
      || fail "$DOCUMENT does not know $subcommand's $option"
  done < <(grep -oP '^  (-\w,)?\K--[a-z-]+' "$scratch/help.out")
done

run version "$GODWIT" --version
check_code "godwit --version" "$code" 0 version.err
check_says "godwit --version" version.out '^godwit \d+\.\d+\.\d+$'

run devices "$GODWIT" devices --json "$scratch/devices.json"
check_code "godwit devices" "$code" 0 devices.err
check_says "godwit devices" devices.out '^VFIO devices:'
check_says "godwit devices" devices.out '^RDMA devices:'
check_json "godwit devices" devices.json /vfio '\d+'
check_json "godwit devices" devices.json /rdma '\d+'
run devices "$GODWIT" devices --json -
check_json "godwit devices --json -" devices.out /vfio '\d+'
check_says "godwit devices --json -" devices.err '^RDMA devices:'
finish
