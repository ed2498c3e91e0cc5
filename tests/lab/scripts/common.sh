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

# The receiver takes a connection that says nothing for a stranger and goes on waiting.
wait_for_port() { within_s 60 port_is_open "$1" "$2" || fail "no one listens on $1:$2 after 60 s"; }

# The index of rxe0's RoCEv2 address that belongs to this host's IPv4 address.
ipv4_gid_index() {
  local wanted gids=/sys/class/infiniband/rxe0/ports/1/gids file
  # shellcheck disable=SC2046
  wanted=$(printf '0000:0000:0000:0000:0000:ffff:%02x%02x:%02x%02x' $(tr . ' ' <<< "$GODWIT_LAB_IP"))
  for file in "$gids"/*; do
    [[ $(cat "$file" 2> /dev/null) != "$wanted" ]] || { basename "$file"; return; }
  done
  fail "rxe0 has no address for $GODWIT_LAB_IP"
}
