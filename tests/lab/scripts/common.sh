# shellcheck shell=bash
# What the lab's test scripts share; they source it.

fail() {
  echo "FAILED on host $GODWIT_LAB_HOST: $*" >&2
  exit 1
}

# Runs a command until it succeeds, for at most $1 seconds.
within_s() {
  local end_s=$((SECONDS + $1))
  shift
  until "$@"; do
    ((SECONDS < end_s)) || return 1
    sleep 0.3
  done
}

port_is_open() { (exec 3<> "/dev/tcp/$1/$2") 2> /dev/null; }

# Waits until $1:$2 takes connections; $3, if given, is the local process that should listen there.
# The receiver takes a connection that says nothing for a stranger and goes on waiting.
wait_for_port() {
  local end_s=$((SECONDS + 60))
  until port_is_open "$1" "$2"; do
    [[ -z ${3-} ]] || kill -0 "$3" 2> /dev/null || fail "the receiver for port $2 has ended"
    ((SECONDS < end_s)) || fail "no one listens on $1:$2 after 60 s"
    sleep 0.3
  done
}

# The index of rxe0's RoCEv2 address that belongs to this host's IPv4 address.
ipv4_gid_index() {
  local wanted gids=/sys/class/infiniband/rxe0/ports/1/gids file
  # shellcheck disable=SC2046,SC2183
  wanted=$(printf '0000:0000:0000:0000:0000:ffff:%02x%02x:%02x%02x' $(tr . ' ' <<< "$GODWIT_LAB_IP"))
  for file in "$gids"/*; do
    [[ $(cat "$file" 2> /dev/null) != "$wanted" ]] || { basename "$file"; return; }
  done
  fail "rxe0 has no address for $GODWIT_LAB_IP"
}

# Makes a two-port mtty device, the kernel's migratable sample of a VFIO device; prints its folder.
make_mtty() {
  local uuid=83b8f4f2-509f-382f-3c1e-e6bfe0fa1001
  echo "$uuid" > /sys/class/mdev_bus/mtty/mdev_supported_types/mtty-2/create
  echo "/sys/bus/mdev/devices/$uuid"
}

# Makes a godwit_synth device, number $1 from 0 to 9; what follows sets its switches, NAME=VALUE each.
# Prints its folder.
make_synth() {
  local uuid=90d317e5-9bd1-4c3b-8f6e-4757595300$1$1 device
  device=/sys/bus/mdev/devices/$uuid
  echo "$uuid" > /sys/class/mdev_bus/godwit_synth/mdev_supported_types/godwit_synth-pci/create
  shift
  set_synth "$device" "$@"
  echo "$device"
}

# Sets switches of the godwit_synth device $1, NAME=VALUE each.
set_synth() {
  local device=$1 setting
  shift
  for setting in "$@"; do
    echo "${setting#*=}" > "$device/synth/${setting%%=*}" || fail "$device does not take $setting"
  done
}

# What the godwit_synth device $1 says of $2.
synth() { cat "$1/synth/$2"; }

# The report $1 of a godwit command says that the session used $3 lanes, all of transport $2.
lanes_are() {
  jq --exit-status --arg transport "$2" --argjson count "$3" \
    '(.lanes | length) == $count and all(.lanes[]; .transport == $transport)' "$1" > /dev/null \
    || fail "the session did not use $3 $2 lanes: $(jq --compact-output .lanes "$1")"
}
