#include "transport/verbs/rdma_discovery.h"

#include <absl/cleanup/cleanup.h>
#include <arpa/inet.h>
#include <infiniband/verbs.h>
#include <unistd.h>

#include <algorithm>
#include <climits>
#include <cstring>

#include "base/errno_status.h"
#include "base/status_macros.h"

namespace godwit {
namespace {

constexpr uint32_t kSoftRoceVendorId = 0xffffff;
constexpr RdmaGidBytes kZeroGid{};

RdmaGidType GidType(uint32_t verbs_type) {
  switch (verbs_type) {
    case IBV_GID_TYPE_ROCE_V2:
      return RdmaGidType::kRoceV2;
    case IBV_GID_TYPE_ROCE_V1:
      return RdmaGidType::kRoceV1;
    default:
      return RdmaGidType::kInfiniBand;
  }
}

const char* LinkLayerName(uint8_t link_layer) {
  switch (link_layer) {
    case IBV_LINK_LAYER_ETHERNET:
      return "Ethernet";
    case IBV_LINK_LAYER_INFINIBAND:
    case IBV_LINK_LAYER_UNSPECIFIED:  // InfiniBand, from a driver of before RoCE
      return "InfiniBand";
    default:
      return "?";
  }
}

const char* PortStateName(ibv_port_state state) {
  switch (state) {
    case IBV_PORT_DOWN:
      return "DOWN";
    case IBV_PORT_INIT:
      return "INIT";
    case IBV_PORT_ARMED:
      return "ARMED";
    case IBV_PORT_ACTIVE:
      return "ACTIVE";
    case IBV_PORT_ACTIVE_DEFER:
      return "ACTIVE_DEFER";
    default:
      return "?";
  }
}

// The kernel driver's name, which verbs don't tell: that of the device behind the RDMA device.
std::string DriverName(const ibv_device& device, uint32_t vendor_id) {
  char target[PATH_MAX];
  const std::string link =
      absl::StrCat(static_cast<const char*>(device.ibdev_path), "/device/driver");
  const ssize_t length = ::readlink(link.c_str(), target, sizeof(target));
  if (length > 0) {
    const absl::string_view path(target, static_cast<size_t>(length));
    return std::string(path.substr(path.rfind('/') + 1));
  }
  return vendor_id == kSoftRoceVendorId ? "rdma_rxe" : "?";  // soft-RoCE has no device behind it
}

// Adds the size of the port's GID table to `gid_entries`.
absl::StatusOr<RdmaPort> QueryPort(ibv_context* context, uint8_t number, size_t& gid_entries) {
  ibv_port_attr attributes{};
  if (const int error = ibv_query_port(context, number, &attributes); error != 0) {
    return ErrnoStatus(error, absl::StrCat("can't query port ", number));
  }
  RdmaPort port;
  port.number = number;
  port.active = attributes.state == IBV_PORT_ACTIVE;
  port.state = PortStateName(attributes.state);
  port.link_layer = LinkLayerName(attributes.link_layer);
  port.active_mtu = attributes.active_mtu;
  port.lid = attributes.lid;
  port.message_bytes_max = attributes.max_msg_sz;
  gid_entries += static_cast<size_t>(std::max(attributes.gid_tbl_len, 0));
  return port;
}

absl::Status CannotOpen(int error, const std::string& what) {
  const absl::Status status = ErrnoStatus(error, what);
  if (error != EACCES && error != EPERM) return status;
  return absl::Status(status.code(), absl::StrCat(status.message(), ": run as root, or as a user ",
                                                  "who may open /dev/infiniband/uverbs*"));
}

// The whole device's table in one system call: asking for each of soft-RoCE's 1024 slots takes
// long.
absl::Status QueryGids(ibv_context* context, size_t gid_entries, std::vector<RdmaPort>& ports) {
  std::vector<ibv_gid_entry> entries(gid_entries);
  if (entries.empty()) return absl::OkStatus();
  const ssize_t used = ibv_query_gid_table(context, entries.data(), entries.size(), 0);
  if (used < 0) return ErrnoStatus(static_cast<int>(-used), "can't query the table of GIDs");
  for (size_t i = 0; i < std::min(static_cast<size_t>(used), entries.size()); ++i) {
    const ibv_gid_entry& entry = entries[i];
    RdmaGid gid;
    gid.index = entry.gid_index;
    gid.type = GidType(entry.gid_type);
    std::memcpy(gid.bytes.data(), entry.gid.raw, gid.bytes.size());
    if (gid.bytes == kZeroGid) continue;
    for (RdmaPort& port : ports) {
      if (port.number == entry.port_num) port.gids.push_back(gid);
    }
  }
  return absl::OkStatus();
}

}  // namespace

const char* RdmaGidTypeName(RdmaGidType type) {
  switch (type) {
    case RdmaGidType::kInfiniBand:
      return "IB";
    case RdmaGidType::kRoceV1:
      return "RoCEv1";
    case RdmaGidType::kRoceV2:
      return "RoCEv2";
  }
  return "?";
}

std::string RdmaGidText(const RdmaGidBytes& gid) {
  in6_addr address;
  static_assert(sizeof(address) == sizeof(RdmaGidBytes));
  std::memcpy(&address, gid.data(), gid.size());
  char text[INET6_ADDRSTRLEN] = "?";
  if (IN6_IS_ADDR_V4MAPPED(&address)) {
    ::inet_ntop(AF_INET, gid.data() + 12, text, sizeof(text));
  } else {
    ::inet_ntop(AF_INET6, &address, text, sizeof(text));
  }
  return text;
}

uint32_t RdmaMtuBytes(uint32_t mtu) { return mtu >= 1 && mtu <= 5 ? 128U << mtu : 0; }

absl::StatusOr<RdmaDeviceInfo> QueryRdmaDevice(ibv_context* context) {
  ibv_device_attr attributes{};
  if (const int error = ibv_query_device(context, &attributes); error != 0) {
    return ErrnoStatus(error, "can't query the device");
  }
  RdmaDeviceInfo info;
  info.name = ibv_get_device_name(context->device);
  info.driver = DriverName(*context->device, attributes.vendor_id);
  info.vendor_id = attributes.vendor_id;
  info.vendor_part_id = attributes.vendor_part_id;
  info.firmware = attributes.fw_ver;
  info.queue_entries_max = static_cast<uint32_t>(std::max(attributes.max_qp_wr, 0));
  info.completion_entries_max = static_cast<uint32_t>(std::max(attributes.max_cqe, 0));
  size_t gid_entries = 0;
  for (unsigned number = 1; number <= attributes.phys_port_cnt; ++number) {
    GODWIT_ASSIGN_OR_RETURN(RdmaPort port,
                            QueryPort(context, static_cast<uint8_t>(number), gid_entries));
    info.ports.push_back(std::move(port));
  }
  GODWIT_RETURN_IF_ERROR(QueryGids(context, gid_entries, info.ports));
  return info;
}

std::vector<RdmaDeviceInfo> ListRdmaDevices() {
  std::vector<RdmaDeviceInfo> infos;
  int count = 0;
  ibv_device** const devices = ibv_get_device_list(&count);
  if (devices == nullptr) return infos;  // ENOSYS: no RDMA in this kernel
  const absl::Cleanup free_list = [devices] { ibv_free_device_list(devices); };

  for (int i = 0; i < count; ++i) {
    absl::StatusOr<RdmaDeviceInfo> info = absl::UnknownError("");
    if (ibv_context* const context = ibv_open_device(devices[i]); context != nullptr) {
      info = QueryRdmaDevice(context);
      ibv_close_device(context);
    } else {
      info = CannotOpen(errno, "can't open the device");
    }
    if (info.ok()) {
      infos.push_back(*std::move(info));
    } else {
      RdmaDeviceInfo unusable;
      unusable.name = ibv_get_device_name(devices[i]);
      unusable.driver = DriverName(*devices[i], 0);
      unusable.error = std::string(info.status().message());
      infos.push_back(std::move(unusable));
    }
  }
  return infos;
}

}  // namespace godwit
