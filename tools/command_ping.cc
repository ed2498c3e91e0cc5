// godwit ping: whether devices could move to a target, without moving one.

#include "godwit/ping.h"

#include <absl/strings/str_cat.h>
#include <absl/strings/str_format.h>
#include <absl/strings/str_join.h>

#include <cstdio>
#include <nlohmann/json.hpp>
#include <string>
#include <utility>
#include <vector>

#include "base/units.h"
#include "tools/commands.h"
#include "tools/durations.h"
#include "tools/report.h"
#include "transport/tls/tls_context.h"

namespace godwit {
namespace {

constexpr double kGib = 1 << 30;

double GibPerSecond(const PingReport& report) {
  return report.time.count() == 0 ? 0
                                  : static_cast<double>(report.bytes) / kGib / Seconds(report.time);
}

std::string TrustLine(const PingReport& report) {
  std::string text;
  switch (report.trust) {
    case TrustKind::kPlain:
      text = "plain: neither side proves who it is";
      break;
    case TrustKind::kCertificates:
      text = "TLS 1.3, certificates: both sides have proven who they are";
      break;
    case TrustKind::kPsk:
      text = "TLS 1.3, pre-shared key: both sides have it";
      break;
  }
  switch (report.sealing) {
    case Sealing::kOff:
      return absl::StrCat(text, "; packets would not be sealed");
    case Sealing::kTcpLanes:
      return absl::StrCat(text, "; packets would be sealed where TCP takes over");
    case Sealing::kAllLanes:
      return absl::StrCat(text, "; packets would be sealed, those of this rate are not");
  }
  return text;
}

std::string PathLine(const PingReport& report) {
  if (report.transport == TransportKind::kTcp) {
    return absl::StrCat(report.lanes.size(), " TCP connections; ", OneLine(report.why_not_rdma));
  }
  return absl::StrCat(report.lanes.size(), " RDMA queue pairs, path MTU ", report.mtu_bytes, ": ",
                      OneLine(absl::StrJoin(report.lanes, ", ")));
}

std::string Text(const PingReport& report) {
  std::vector<std::string> devices;
  for (const PingReport::Device& device : report.devices) {
    devices.push_back(absl::StrCat(device.name, " (", device.kind, ")"));
  }
  return absl::StrFormat(
      "target      %s, %s\n"
      "trust       %s\n"
      "devices     %d, that it waits with: %s\n"
      "path        %s\n"
      "round trip  %.3f ms\n"
      "rate        %.2f GiB/s: %s in %.2f s\n",
      OneLine(report.peer), OneLine(report.peer_software), TrustLine(report), report.devices.size(),
      OneLine(absl::StrJoin(devices, ", ")), PathLine(report), Seconds(report.round_trip) * 1e3,
      GibPerSecond(report), FormatBytes(report.bytes), Seconds(report.time));
}

nlohmann::json Json(const PingReport& report) {
  nlohmann::json devices = nlohmann::json::array();
  for (const PingReport::Device& device : report.devices) {
    devices.push_back({{"name", device.name}, {"kind", device.kind}});
  }
  return {{"result", "done"},
          {"peer", report.peer},
          {"peer_software", report.peer_software},
          {"trust", std::string(TrustKindName(report.trust))},
          {"seal", std::string(SealingName(report.sealing))},
          {"why_not_rdma", report.why_not_rdma},
          {"transport", std::string(TransportName(report.transport))},
          {"devices", devices},
          {"lanes", report.lanes},
          {"mtu_bytes", report.mtu_bytes},
          {"round_trip_ms", Seconds(report.round_trip) * 1e3},
          {"bytes", report.bytes},
          {"duration_ms", Seconds(report.time) * 1e3},
          {"throughput_gib_s", GibPerSecond(report)}};
}

}  // namespace

ExitCode RunPing(const PingCommand& command) {
  const auto refuse = [](const absl::Status& why, JsonOutput* json) {
    LogError(why);
    if (json != nullptr) {
      const absl::Status written = json->Write(RefusalJson(why));
      if (!written.ok()) LogError(written);
    }
    return kExitFailed;
  };
  if (const absl::Status trust = CheckTrust(command.trust); !trust.ok()) {
    return refuse(trust, nullptr);
  }
  PingOptions options;
  options.to = command.to;
  options.trust = command.trust;
  options.transport = command.transport;
  options.rdma_device = command.rdma_device;
  options.lanes = command.lanes;
  const auto packet_bytes = ParseBytes(command.packet_bytes);
  if (!packet_bytes.ok()) return refuse(packet_bytes.status(), nullptr);
  options.packet_bytes = *packet_bytes;
  const auto time = ParseMilliseconds(command.time);
  if (!time.ok()) return refuse(time.status(), nullptr);
  options.time = *time;
  auto json = JsonOutput::Open(command.json);
  if (!json.ok()) return refuse(json.status(), nullptr);

  const auto report = Ping(options);
  if (!report.ok()) return refuse(report.status(), &*json);
  std::fputs(Text(*report).c_str(), json->text_stream());
  if (const absl::Status written = json->Write(Json(*report)); !written.ok()) {
    LogError(written);
    return kExitFailed;
  }
  return kExitDone;
}

}  // namespace godwit
