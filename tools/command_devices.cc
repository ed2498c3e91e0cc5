// godwit devices: what this host could move, and over what.

#include <absl/strings/str_cat.h>
#include <absl/strings/str_format.h>
#include <spdlog/spdlog.h>

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "tools/commands.h"
#include "tools/report.h"
#include "transport/verbs/rdma_discovery.h"
#include "vfio/discovery.h"

namespace godwit {
namespace {

// In the words of linux/vfio.h.
std::vector<std::string> FeatureNames(const VfioFeatures& features) {
  std::vector<std::string> names;
  if (features.data_size) names.emplace_back("MIG_DATA_SIZE");
  if (features.dma_logging) names.emplace_back("DMA_LOGGING");
  if (features.precopy_info_v2) names.emplace_back("MIG_PRECOPY_INFOv2");
  return names;
}

nlohmann::json VfioJson(const std::vector<VfioDeviceInfo>& devices) {
  nlohmann::json json = nlohmann::json::array();
  for (const VfioDeviceInfo& device : devices) {
    nlohmann::json row = {{"name", device.device.name},
                          {"spec", device.spec},
                          {"driver", device.device.driver},
                          {"migratable", device.flags.has_value()}};
    if (!device.device.cdev.empty()) row["cdev"] = device.device.cdev;
    if (device.flags.has_value()) {
      row["flags"] = MigrationFlagsName(*device.flags);
      row["features"] = FeatureNames(device.features);
    }
    if (device.state.has_value()) row["state"] = std::string(DeviceStateName(*device.state));
    if (!device.reason.empty()) row["reason"] = device.reason;
    json.push_back(std::move(row));
  }
  return json;
}

nlohmann::json RdmaJson(const std::vector<RdmaDeviceInfo>& devices) {
  nlohmann::json json = nlohmann::json::array();
  for (const RdmaDeviceInfo& device : devices) {
    nlohmann::json row = {{"name", device.name}, {"driver", device.driver}};
    if (!device.error.empty()) row["error"] = device.error;
    row["ports"] = nlohmann::json::array();
    for (const RdmaPort& port : device.ports) {
      nlohmann::json gids = nlohmann::json::array();
      for (const RdmaGid& gid : port.gids) {
        gids.push_back({{"index", gid.index},
                        {"type", RdmaGidTypeName(gid.type)},
                        {"gid", RdmaGidText(gid.bytes)}});
      }
      row["ports"].push_back({{"number", port.number},
                              {"state", port.state},
                              {"link_layer", port.link_layer},
                              {"mtu", RdmaMtuBytes(port.active_mtu)},
                              {"gids", gids}});
    }
    json.push_back(std::move(row));
  }
  return json;
}

std::string VfioText(const std::vector<VfioDeviceInfo>& devices) {
  if (devices.empty()) {
    return "VFIO devices: none. A PCI function shows here once it is bound to a VFIO driver, a\n"
           "mediated device once it has been created.\n";
  }
  std::string text = "VFIO devices:\n";
  for (const VfioDeviceInfo& device : devices) {
    absl::StrAppendFormat(&text, "  %s\n    driver %s, %s", device.spec, device.device.driver,
                          device.flags.has_value()
                              ? MigrationFlagsName(*device.flags)
                              : absl::StrCat("can't be moved: ", device.reason));
    for (const std::string& feature : FeatureNames(device.features)) {
      absl::StrAppend(&text, ", ", feature);
    }
    if (device.state.has_value()) {
      absl::StrAppend(&text, ", state ", DeviceStateName(*device.state));
    }
    absl::StrAppend(&text, "\n");
  }
  return text;
}

std::string RdmaText(const std::vector<RdmaDeviceInfo>& devices) {
  if (devices.empty()) {
    return "RDMA devices: none. Sessions use TCP; `rdma link add rxe0 type rxe netdev eth0` makes "
           "a\n"
           "software one.\n";
  }
  std::string text = "RDMA devices:\n";
  for (const RdmaDeviceInfo& device : devices) {
    absl::StrAppendFormat(&text, "  %s (%s)%s\n", device.name, device.driver,
                          device.error.empty() ? "" : absl::StrCat(": ", device.error));
    for (const RdmaPort& port : device.ports) {
      absl::StrAppendFormat(&text, "    port %u: %s, %s, MTU %u\n", port.number, port.state,
                            port.link_layer, RdmaMtuBytes(port.active_mtu));
      for (const RdmaGid& gid : port.gids) {
        absl::StrAppendFormat(&text, "      GID %u: %s (%s)\n", gid.index, RdmaGidText(gid.bytes),
                              RdmaGidTypeName(gid.type));
      }
    }
  }
  return text;
}

}  // namespace

ExitCode RunDevices(const DevicesCommand& command) {
  auto json = JsonOutput::Open(command.json);
  if (!json.ok()) {
    LogError(json.status());
    return kExitFailed;
  }
  const std::vector<VfioDeviceInfo> vfio = ListVfioDevices();
  const std::vector<RdmaDeviceInfo> rdma = ListRdmaDevices();
  std::fputs((VfioText(vfio) + RdmaText(rdma)).c_str(), json->text_stream());
  const absl::Status written = json->Write({{"vfio", VfioJson(vfio)}, {"rdma", RdmaJson(rdma)}});
  if (!written.ok()) {
    LogError(written);
    return kExitFailed;
  }
  return kExitDone;
}

}  // namespace godwit
