#!/bin/bash
# On a host without RDMA what asks for it is refused, before a peer is looked for.
# shellcheck source=tests/tools/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

"$GODWIT" devices | grep -q '^RDMA devices: none' || skip "this host has RDMA devices"

hang_s=10
readonly soft=soft:size=1MiB,seed=1
refused 1 'no RDMA device on this host: use TCP' send --to 127.0.0.1:9 --device "$soft" --transport verbs
refused 1 'no RDMA device on this host: use TCP' send --to 127.0.0.1:9 --device "$soft" --rdma-device rxe9
refused 1 'RDMA device rxe9 is named, but only TCP is asked for' send --to 127.0.0.1:9 --device "$soft" \
  --rdma-device rxe9 --transport tcp
refused 2 "'rxe9/0' is no RDMA device: name each as" send --to 127.0.0.1:9 --device "$soft" --rdma-device rxe9/0
receive_refused 1 'no RDMA device on this host' --device "$soft" --rdma-device rxe9
receive_refused 1 'no RDMA device on this host' --device "$soft" --transport verbs
refused 1 'no RDMA device on this host' loopback --transport verbs --size 1MiB
finish
