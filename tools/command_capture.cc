// godwit save and godwit load.

#include <absl/strings/str_cat.h>
#include <absl/strings/str_format.h>

#include <nlohmann/json.hpp>
#include <string>

#include "base/units.h"
#include "godwit/capture.h"
#include "tools/commands.h"
#include "tools/device_list.h"
#include "tools/report.h"
#include "tools/session_runner.h"

namespace godwit {
namespace {

std::string CaptureText(absl::string_view done, const SessionReport& report) {
  std::string text = absl::StrFormat(
      "%s %s: %u device%s, %s, at %.2f GiB/s\n"
      "  time       %.3f s in all, the devices stood still for %.3f s\n",
      done, report.peer, report.devices.size(), report.devices.size() == 1 ? "" : "s",
      FormatBytes(report.bytes), ThroughputGibPerSecond(report), Seconds(report.duration),
      Seconds(report.downtime));
  for (const DeviceReport& device : report.devices) {
    absl::StrAppendFormat(&text, "  device     %s: %s in %u packets, digest %08x%s\n", device.name,
                          FormatBytes(device.bytes), device.packets, device.sent_crc32c,
                          device.content_verified ? ", content as expected" : "");
  }
  return text;
}

template <typename Session>
ExitCode RunCapture(Session& session, absl::string_view done, JsonOutput& json) {
  return RunSession(session, json,
                    [done](const SessionReport& report) { return CaptureText(done, report); });
}

}  // namespace

ExitCode RunSave(const SaveCommand& command) {
  const auto packet_bytes = ParseBytes(command.packet_bytes);
  if (!packet_bytes.ok()) return Refuse(packet_bytes.status());
  auto json = JsonOutput::Open(command.json);
  if (!json.ok()) return Refuse(json.status());
  auto devices = OpenDevices(command.devices, DeviceRole::kSource);
  if (!devices.ok()) return Refuse(devices.status(), &*json);

  SaveOptions options;
  options.out = command.out;
  options.replace = command.force;
  options.leave_stopped = command.stop;
  options.packet_bytes = *packet_bytes;
  NoteObserver observer;
  SaveSession session(options, devices->borrowed, observer);
  return RunCapture(session, "saved to", *json);
}

ExitCode RunLoad(const LoadCommand& command) {
  auto checks = MakeChecks(command.checks, command.devices.size());
  if (!checks.ok()) return Refuse(checks.status());
  auto json = JsonOutput::Open(command.json);
  if (!json.ok()) return Refuse(json.status());
  auto devices = OpenDevices(command.devices, DeviceRole::kTarget);
  if (!devices.ok()) return Refuse(devices.status(), &*json);

  LoadOptions options;
  options.in = command.in;
  options.stream_check = *std::move(checks);
  NoteObserver observer;
  LoadSession session(options, devices->borrowed, observer);
  return RunCapture(session, "loaded from", *json);
}

}  // namespace godwit
