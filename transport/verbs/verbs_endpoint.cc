#include "transport/verbs/verbs_endpoint.h"

#include <absl/strings/str_format.h>

namespace godwit {
namespace {

constexpr uint32_t kMax24Bits = 0xffffff;  // as a queue pair number it means multicast
constexpr uint32_t kLidMax = 0xffff;

absl::Status Bad(const char* field, uint32_t value) {
  return absl::InvalidArgumentError(
      absl::StrFormat("the peer's RDMA endpoint has a %s of %u", field, value));
}

}  // namespace

absl::Status ValidateVerbsEndpoint(const VerbsEndpoint& endpoint) {
  // 0 and 1 are the fabric's own.
  if (endpoint.queue_pair_number < 2 || endpoint.queue_pair_number >= kMax24Bits) {
    return Bad("queue pair number", endpoint.queue_pair_number);
  }
  if (endpoint.start_psn > kMax24Bits) return Bad("start PSN", endpoint.start_psn);
  if (RdmaMtuBytes(endpoint.mtu) == 0) return Bad("MTU code", endpoint.mtu);
  if (endpoint.lid > kLidMax) return Bad("LID", endpoint.lid);
  if (endpoint.gid == RdmaGidBytes{}) {
    return absl::InvalidArgumentError("the peer's RDMA endpoint has a GID of zeros");
  }
  return absl::OkStatus();
}

std::string VerbsEndpointText(const VerbsEndpoint& endpoint) {
  return absl::StrFormat("%s qp 0x%x", RdmaGidText(endpoint.gid), endpoint.queue_pair_number);
}

}  // namespace godwit
