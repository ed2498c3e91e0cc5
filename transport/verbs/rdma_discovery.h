// What RDMA hardware (or soft-RoCE) this host has, in plain data: for choosing and for showing.
#ifndef GODWIT_TRANSPORT_VERBS_RDMA_DISCOVERY_H_
#define GODWIT_TRANSPORT_VERBS_RDMA_DISCOVERY_H_

#include <absl/status/statusor.h>

#include <array>
#include <cstdint>
#include <string>
#include <vector>

struct ibv_context;

namespace godwit {

using RdmaGidBytes = std::array<uint8_t, 16>;

enum class RdmaGidType { kInfiniBand, kRoceV1, kRoceV2 };
// "IB", "RoCEv1", "RoCEv2".
const char* RdmaGidTypeName(RdmaGidType type);

struct RdmaGid {
  uint32_t index = 0;  // in its port's table
  RdmaGidType type = RdmaGidType::kInfiniBand;
  RdmaGidBytes bytes{};
};
// "10.0.0.1" for an IPv4-mapped GID, otherwise as an IPv6 address.
std::string RdmaGidText(const RdmaGidBytes& gid);

struct RdmaPort {
  uint8_t number = 0;  // from 1
  bool active = false;
  std::string state;        // "ACTIVE", "DOWN", ...
  std::string link_layer;   // "Ethernet", "InfiniBand"
  uint32_t active_mtu = 0;  // as verbs count it: 1 is 256 bytes, 5 is 4096
  uint32_t lid = 0;         // InfiniBand only
  uint64_t message_bytes_max = 0;
  std::vector<RdmaGid> gids;  // those in use, in table order
};
// 1 → 256, ..., 5 → 4096; 0 for anything else.
uint32_t RdmaMtuBytes(uint32_t mtu);

struct RdmaDeviceInfo {
  std::string name;        // "mlx5_0", "rxe0"
  std::string driver;      // "mlx5_core", "rdma_rxe", or "?" where sysfs doesn't say
  uint32_t vendor_id = 0;  // an OUI
  uint32_t vendor_part_id = 0;
  std::string firmware;
  std::string error;  // why it couldn't be opened; the fields below are then empty
  uint32_t queue_entries_max = 0;
  uint32_t completion_entries_max = 0;
  std::vector<RdmaPort> ports;
};

// Every RDMA device of this host; none, also where the kernel has no RDMA at all.
std::vector<RdmaDeviceInfo> ListRdmaDevices();

// One opened device, asked.
absl::StatusOr<RdmaDeviceInfo> QueryRdmaDevice(ibv_context* context);

}  // namespace godwit

#endif  // GODWIT_TRANSPORT_VERBS_RDMA_DISCOVERY_H_
