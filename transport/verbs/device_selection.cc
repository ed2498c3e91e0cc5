#include "transport/verbs/device_selection.h"

#include <absl/strings/str_cat.h>
#include <absl/strings/str_join.h>
#include <netinet/in.h>

#include <algorithm>
#include <cstring>

#include "base/status_macros.h"

namespace godwit {
namespace {

std::string DeviceNames(const std::vector<RdmaDeviceInfo>& devices) {
  return absl::StrJoin(devices, ", ", [](std::string* out, const RdmaDeviceInfo& device) {
    absl::StrAppend(out, device.name);
  });
}

// The active ports of `device` that the options allow, or what is wrong with them.
absl::StatusOr<std::vector<RdmaPort>> UsablePorts(const RdmaDeviceInfo& device,
                                                  const VerbsDeviceOptions& options) {
  if (!device.error.empty()) {
    return absl::FailedPreconditionError(absl::StrCat(device.name, ": ", device.error));
  }
  std::vector<RdmaPort> usable;
  std::vector<std::string> others;
  for (const RdmaPort& port : device.ports) {
    if (options.port.has_value() && *options.port != port.number) continue;
    if (port.active) {
      usable.push_back(port);
    } else {
      others.push_back(absl::StrCat(device.name, "/", port.number, " is ", port.state));
    }
  }
  if (!usable.empty()) return usable;
  if (!others.empty()) {
    return absl::FailedPreconditionError(
        absl::StrCat("no active RDMA port: ", absl::StrJoin(others, ", "),
                     "; bring its link up (ip link set DEV up) and look at `rdma link`"));
  }
  return absl::NotFoundError(absl::StrCat("RDMA device ", device.name, " has no port ",
                                          options.port.value_or(0), "; its ports are 1 to ",
                                          device.ports.size()));
}

absl::StatusOr<std::vector<RdmaGid>> UsableGids(absl::string_view device_name, const RdmaPort& port,
                                                const VerbsDeviceOptions& options) {
  std::vector<RdmaGid> gids;
  for (const RdmaGid& gid : port.gids) {
    if (!options.gid_index.has_value() || *options.gid_index == gid.index) gids.push_back(gid);
  }
  if (gids.empty() && options.gid_index.has_value()) {
    return absl::NotFoundError(
        absl::StrCat("RDMA port ", device_name, "/", port.number, " has no GID with index ",
                     *options.gid_index, "; those in use: ",
                     absl::StrJoin(port.gids, ", ", [](std::string* out, const RdmaGid& gid) {
                       absl::StrAppend(out, gid.index, " (", RdmaGidText(gid.bytes), ")");
                     })));
  }
  if (gids.empty()) {
    return absl::FailedPreconditionError(
        absl::StrCat("RDMA port ", device_name, "/", port.number,
                     " has no usable GID: give its network interface an IP address (ip address add "
                     "ADDR/LEN dev DEV) and look at `rdma link`"));
  }
  std::stable_sort(gids.begin(), gids.end(), [](const RdmaGid& a, const RdmaGid& b) {
    return RdmaGidRank(a) < RdmaGidRank(b);
  });
  return gids;
}

}  // namespace

int RdmaGidRank(const RdmaGid& gid) {
  if (gid.type == RdmaGidType::kInfiniBand) return 0;
  if (gid.type == RdmaGidType::kRoceV1) return 3;
  in6_addr address;
  std::memcpy(&address, gid.bytes.data(), sizeof(address));
  if (IN6_IS_ADDR_V4MAPPED(&address)) return 0;
  return IN6_IS_ADDR_LINKLOCAL(&address) ? 2 : 1;
}

absl::StatusOr<std::vector<RdmaPath>> RankRdmaPaths(const std::vector<RdmaDeviceInfo>& devices,
                                                    const VerbsDeviceOptions& options) {
  if (devices.empty()) {
    return absl::NotFoundError(
        "no RDMA device on this host: use TCP, or make a soft-RoCE device with "
        "`modprobe rdma_rxe && rdma link add rxe0 type rxe netdev DEV`");
  }
  std::vector<RdmaPath> paths;
  absl::Status first_problem;  // the first device's: what a user with one device wants to read
  bool device_found = false;
  for (const RdmaDeviceInfo& device : devices) {
    if (!options.device_name.empty() && options.device_name != device.name) continue;
    device_found = true;
    absl::StatusOr<std::vector<RdmaPort>> ports = UsablePorts(device, options);
    first_problem.Update(ports.status());
    if (!ports.ok()) continue;
    for (const RdmaPort& port : *ports) {
      absl::StatusOr<std::vector<RdmaGid>> gids = UsableGids(device.name, port, options);
      first_problem.Update(gids.status());
      if (!gids.ok()) continue;
      for (const RdmaGid& gid : *gids) paths.push_back({device.name, port, gid});
    }
  }
  if (!device_found) {
    return absl::NotFoundError(absl::StrCat("no RDMA device named ", options.device_name,
                                            " on this host; there are: ", DeviceNames(devices)));
  }
  if (paths.empty()) return first_problem;
  return paths;
}

}  // namespace godwit
