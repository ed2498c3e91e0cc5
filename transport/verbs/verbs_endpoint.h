// What one end of a queue pair must know of the other; it crosses the control channel.
#ifndef GODWIT_TRANSPORT_VERBS_VERBS_ENDPOINT_H_
#define GODWIT_TRANSPORT_VERBS_VERBS_ENDPOINT_H_

#include <absl/status/status.h>

#include <cstdint>
#include <string>

#include "transport/verbs/rdma_discovery.h"

namespace godwit {

struct VerbsEndpoint {
  uint32_t queue_pair_number = 0;  // 24 bits
  uint32_t start_psn = 0;          // 24 bits, random: the first packet this end sends
  RdmaGidBytes gid{};
  uint32_t mtu = 0;        // as verbs count it: 1 is 256 bytes, 5 is 4096; the smaller one is used
  uint32_t gid_index = 0;  // of no use to the peer: for its messages
  uint32_t lid = 0;        // 16 bits; 0 on Ethernet
};

// InvalidArgument naming the field that no honest peer sends.
absl::Status ValidateVerbsEndpoint(const VerbsEndpoint& endpoint);

// "10.0.0.1 qp 0x11": for messages.
std::string VerbsEndpointText(const VerbsEndpoint& endpoint);

}  // namespace godwit

#endif  // GODWIT_TRANSPORT_VERBS_VERBS_ENDPOINT_H_
