// Which device, port and GID to use: pure functions of what discovery found.
#ifndef GODWIT_TRANSPORT_VERBS_DEVICE_SELECTION_H_
#define GODWIT_TRANSPORT_VERBS_DEVICE_SELECTION_H_

#include <absl/status/statusor.h>

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "transport/verbs/rdma_discovery.h"

namespace godwit {

// What the user asked for; by default the first that works.
struct VerbsDeviceOptions {
  std::string device_name;
  std::optional<uint32_t> port;  // from 1
  std::optional<uint32_t> gid_index;
};

// One way out of this host.
struct RdmaPath {
  std::string device_name;
  RdmaPort port;
  RdmaGid gid;
};

// Lower is better: RoCEv2 with an IPv4 address (0), with a global IPv6 address (1), with a
// link-local one (2), then RoCEv1 (3). InfiniBand's GIDs all rank 0.
int RdmaGidRank(const RdmaGid& gid);

// Every path that fits, best first: devices and ports as discovered, GIDs by rank, equal ranks in
// table order. Never empty. Errors, each naming what to do: NotFound when there is no device, or
// none of the given name, port or GID; FailedPrecondition when no port is active or none has a
// usable GID.
absl::StatusOr<std::vector<RdmaPath>> RankRdmaPaths(const std::vector<RdmaDeviceInfo>& devices,
                                                    const VerbsDeviceOptions& options);

}  // namespace godwit

#endif  // GODWIT_TRANSPORT_VERBS_DEVICE_SELECTION_H_
