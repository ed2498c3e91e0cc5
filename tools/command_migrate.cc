// godwit send and godwit receive.

#include <absl/strings/str_cat.h>
#include <spdlog/spdlog.h>
#include <unistd.h>

#include <atomic>
#include <csignal>
#include <memory>
#include <nlohmann/json.hpp>
#include <utility>

#include "base/status_macros.h"
#include "base/units.h"
#include "tools/commands.h"
#include "tools/device_list.h"
#include "tools/durations.h"
#include "tools/progress_line.h"
#include "tools/report.h"
#include "tools/session_runner.h"
#include "tools/trace_file.h"

namespace godwit {
namespace {

class ReceiveObserver final : public NoteObserver {
 public:
  explicit ReceiveObserver(int port_fd) : port_fd_(port_fd) {}
  void OnListening(absl::string_view address, uint16_t port) override {
    if (port_fd_ < 0) {
      spdlog::info("listening on {}:{}", std::string(address), port);
      return;
    }
    const std::string line = absl::StrCat(port, "\n");
    if (::write(port_fd_, line.data(), line.size()) < 0) spdlog::warn("--port-fd: write failed");
    ::close(port_fd_);
  }

 private:
  const int port_fd_;
};

// What a session of either side leaves behind.
struct Outputs {
  JsonOutput json;
  TraceFile trace;
};

absl::StatusOr<Outputs> OpenOutputs(const std::string& json, const std::string& trace) {
  GODWIT_ASSIGN_OR_RETURN(JsonOutput json_output, JsonOutput::Open(json));
  auto trace_file = TraceFile::Open(trace);
  if (!trace_file.ok()) {
    const absl::Status written = json_output.Write(RefusalJson(trace_file.status()));
    if (!written.ok()) LogError(written);
    return trace_file.status();
  }
  return Outputs{std::move(json_output), *std::move(trace_file)};
}

template <typename Session>
ExitCode RunAndReport(Session& session, absl::string_view side, const std::vector<Device*>& devices,
                      Outputs& outputs) {
  const SessionReport report = RunWithProgress(session);
  const absl::Status traced = outputs.trace.Write(side, DeviceNames(devices));
  const ExitCode code = FinishReport(report, ReportJson(report), outputs.json, ReportText);
  return ExitCodeAfterTrace(code, report.outcome, traced);
}

}  // namespace

ExitCode RunSend(const SendCommand& command) {
  const auto packet_bytes = ParseBytes(command.packet_bytes);
  if (!packet_bytes.ok()) return Refuse(packet_bytes.status());
  const auto resolve_timeout = ParseMilliseconds(command.resolve_timeout);
  if (!resolve_timeout.ok()) return Refuse(resolve_timeout.status());
  SourceOptions options;
  const absl::Status precopy = ApplyPrecopy(command.precopy, options);
  if (!precopy.ok()) return Refuse(precopy);
  auto outputs = OpenOutputs(command.json, command.trace);
  if (!outputs.ok()) return Refuse(outputs.status());
  auto devices = OpenDevices(command.devices, DeviceRole::kSource);
  if (!devices.ok()) return Refuse(devices.status(), &outputs->json);

  options.to = command.to;
  options.transport = command.transport;
  options.rdma_device = command.rdma_device;
  options.lanes = command.lanes;
  options.packet_bytes = *packet_bytes;
  options.resolve_timeout = *resolve_timeout;
  options.trace = outputs->trace.sink();
  NoteObserver observer;
  SourceSession session(options, devices->borrowed, observer);
  return RunAndReport(session, "source", devices->borrowed, *outputs);
}

ExitCode RunReceive(const ReceiveCommand& command) {
  const auto packet_bytes = ParseBytes(command.packet_bytes);
  if (!packet_bytes.ok()) return Refuse(packet_bytes.status());
  auto checks = MakeChecks(command.checks, command.devices.size());
  if (!checks.ok()) return Refuse(checks.status());
  const auto commit_timeout = ParseMilliseconds(command.commit_timeout);
  if (!commit_timeout.ok()) return Refuse(commit_timeout.status());
  const auto outcome_hold = ParseMilliseconds(command.outcome_hold);
  if (!outcome_hold.ok()) return Refuse(outcome_hold.status());
  auto outputs = OpenOutputs(command.json, command.trace);
  if (!outputs.ok()) return Refuse(outputs.status());
  auto devices = OpenDevices(command.devices, DeviceRole::kTarget);
  if (!devices.ok()) return Refuse(devices.status(), &outputs->json);

  TargetOptions options;
  options.listen = command.listen;
  options.transport = command.transport;
  options.lanes_max = command.lanes;
  options.packet_bytes_max = *packet_bytes;
  options.rdma_device = command.rdma_device;
  options.stream_check = *std::move(checks);
  options.commit_timeout = *commit_timeout;
  options.outcome_hold = *outcome_hold;
  options.trace = outputs->trace.sink();
  ReceiveObserver observer(command.port_fd);
  TargetSession session(options, devices->borrowed, observer);
  return RunAndReport(session, "target", devices->borrowed, *outputs);
}

}  // namespace godwit
