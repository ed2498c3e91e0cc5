#!/bin/bash
# crashes.sh LAB SCRIPT OUT: what the lab does when a VM's kernel crashes. Once: it boots anew, says so and
# keeps what the first one left. Twice, or where godwit_synth is in the call trace: the run has failed.
set -u
lab=$1 script=$2 out=$3
failed=no

# run_lab CRASHES FUNCTION: prints the tries that it took and the lab's exit code.
run_lab() {
  local log code
  rm -rf "$out"
  log=$("$lab" --timeout 100 --out "$out" --env CRASHES="$1" --env FUNCTION="$2" -- "$script")
  code=$?
  echo "$(grep -c '^=== lab: .* s$' <<< "$log") $code"
}

# expect TRIES-AND-CODE CRASHES FUNCTION
expect() {
  local is
  is=$(run_lab "$2" "$3")
  if [[ $is != "$1" ]]; then
    echo "CRASHES=$2, in '$3': tries and exit code are '$is', not '$1'" >&2
    failed=yes
  fi
}

expect "2 0" 1 'net_rx_action+0xec/0x420'
if ! grep -q -a 'Kernel panic' "$out/crashed/a/console.log"; then
  echo "the first try's console is not kept" >&2
  failed=yes
fi
expect "2 1" 2 'rxe_xmit_packet+0x29e/0x320 [rdma_rxe]'
expect "1 1" 1 'godwit_synth_write+0x10/0x20 [godwit_synth]'
[[ $failed == no ]]
