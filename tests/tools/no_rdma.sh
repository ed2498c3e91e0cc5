#!/bin/bash
# On a host without RDMA what asks for it is refused, before a peer is looked for.
# shellcheck source=tests/tools/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

"$GODWIT" devices | grep -q '^RDMA devices: none' || skip "this host has RDMA devices"

hang_s=10
readonly soft=soft:size=1MiB,seed=1
refused 1 'no RDMA device on this host: use TCP' send --to 127.0.0.1:9 --device "$soft" --transport verbs
refused 1 'no RDMA device on this host: use TCP' send --to 127.0.0.1:9 --device "$soft" --rdma-device rxe9
receive_refused 1 'no RDMA device on this host' --device "$soft" --rdma-device rxe9
receive_refused 1 'no RDMA device on this host' --device "$soft" --transport verbs
refused 1 'no RDMA device on this host' loopback --transport verbs --size 1MiB
finish
