// godwit send and godwit receive.

#include <absl/strings/str_cat.h>
#include <spdlog/spdlog.h>
#include <unistd.h>

#include <atomic>
#include <csignal>
#include <memory>
#include <nlohmann/json.hpp>
#include <utility>

#include "base/errno_status.h"
#include "base/status_macros.h"
#include "base/units.h"
#include "tools/commands.h"
#include "tools/device_list.h"
#include "tools/durations.h"
#include "tools/metrics_server.h"
#include "tools/metrics_text.h"
#include "tools/progress_line.h"
#include "tools/report.h"
#include "tools/session_runner.h"
#include "tools/trace_file.h"
#include "transport/tls/tls_context.h"

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

// What a session of either side leaves behind, and shows meanwhile.
struct Outputs {
  JsonOutput json;
  TraceFile trace;
  std::unique_ptr<MetricsServer> metrics;  // null: none is wanted
};

absl::StatusOr<std::unique_ptr<MetricsServer>> OpenMetrics(const std::string& address) {
  if (address.empty()) return nullptr;
  auto server = MetricsServer::Listen(address);
  if (!server.ok()) return Annotate(server.status(), "--metrics");
  spdlog::info("metrics are at {}", (*server)->url());
  return server;
}

// A refusal for what comes after the JSON stands in the JSON, too.
absl::StatusOr<Outputs> OpenOutputs(const std::string& json, const std::string& trace,
                                    const std::string& metrics) {
  Outputs outputs;
  GODWIT_ASSIGN_OR_RETURN(outputs.json, JsonOutput::Open(json));
  const auto refused = [&outputs](const absl::Status& why) {
    const absl::Status written = outputs.json.Write(RefusalJson(why));
    if (!written.ok()) LogError(written);
    return why;
  };
  auto trace_file = TraceFile::Open(trace);
  if (!trace_file.ok()) return refused(trace_file.status());
  outputs.trace = *std::move(trace_file);
  auto server = OpenMetrics(metrics);
  if (!server.ok()) return refused(server.status());
  outputs.metrics = *std::move(server);
  return outputs;
}

// `add` puts into the JSON what only this side has.
template <typename Session, typename Add>
ExitCode RunAndReport(Session& session, SessionSide side, const std::vector<Device*>& devices,
                      Outputs& outputs, const Add& add) {
  if (outputs.metrics != nullptr) {
    outputs.metrics->Start(
        [&session, side] { return MetricsText(side, session.progress(), session.statistics()); });
  }
  const SessionReport report = RunWithProgress(session);
  if (outputs.metrics != nullptr) outputs.metrics->Stop();
  const absl::Status traced = outputs.trace.Write(SessionSideName(side), DeviceNames(devices));
  nlohmann::json json = ReportJson(report);
  add(json);
  const ExitCode code = FinishReport(report, json, outputs.json, ReportText);
  return ExitCodeAfterTrace(code, report.outcome, traced);
}

}  // namespace

ExitCode RunSend(const SendCommand& command) {
  if (const absl::Status trust = CheckTrust(command.trust); !trust.ok()) return Refuse(trust);
  const auto packet_bytes = ParseBytes(command.packet_bytes);
  if (!packet_bytes.ok()) return Refuse(packet_bytes.status());
  const auto resolve_timeout = ParseMilliseconds(command.resolve_timeout);
  if (!resolve_timeout.ok()) return Refuse(resolve_timeout.status());
  const auto reconnect_timeout = ParseMilliseconds(command.reconnect_timeout);
  if (!reconnect_timeout.ok()) return Refuse(reconnect_timeout.status());
  SourceOptions options;
  const absl::Status precopy = ApplyPrecopy(command.precopy, options);
  if (!precopy.ok()) return Refuse(precopy);
  auto outputs = OpenOutputs(command.json, command.trace, command.metrics);
  if (!outputs.ok()) return Refuse(outputs.status());
  auto devices = OpenDevices(command.devices, DeviceRole::kSource);
  if (!devices.ok()) return Refuse(devices.status(), &outputs->json);

  options.to = command.to;
  options.trust = command.trust;
  options.transport = command.transport;
  options.rdma_device = command.rdma_device;
  options.spin = std::chrono::microseconds(command.spin_us);
  options.lanes = command.lanes;
  options.packet_bytes = *packet_bytes;
  options.crc = command.crc;
  options.reconnect_timeout = *reconnect_timeout;
  options.resolve_timeout = *resolve_timeout;
  options.trace = outputs->trace.sink();
  SourceObserver observer;
  SourceSession session(options, devices->borrowed, observer);
  return RunAndReport(session, SessionSide::kSource, devices->borrowed, *outputs,
                      [&](nlohmann::json& json) {
                        AddSourceStatistics(session.statistics(), observer.history(), json);
                      });
}

ExitCode RunReceive(const ReceiveCommand& command) {
  if (const absl::Status trust = CheckTrust(command.trust); !trust.ok()) return Refuse(trust);
  const auto packet_bytes = ParseBytes(command.packet_bytes);
  if (!packet_bytes.ok()) return Refuse(packet_bytes.status());
  auto checks = MakeChecks(command.checks, command.devices.size());
  if (!checks.ok()) return Refuse(checks.status());
  const auto commit_timeout = ParseMilliseconds(command.commit_timeout);
  if (!commit_timeout.ok()) return Refuse(commit_timeout.status());
  const auto outcome_hold = ParseMilliseconds(command.outcome_hold);
  if (!outcome_hold.ok()) return Refuse(outcome_hold.status());
  auto outputs = OpenOutputs(command.json, command.trace, command.metrics);
  if (!outputs.ok()) return Refuse(outputs.status());
  auto devices = OpenDevices(command.devices, DeviceRole::kTarget);
  if (!devices.ok()) return Refuse(devices.status(), &outputs->json);

  TargetOptions options;
  options.listen = command.listen;
  options.trust = command.trust;
  options.transport = command.transport;
  options.lanes_max = command.lanes;
  options.packet_bytes_max = *packet_bytes;
  options.crc = command.crc;
  options.rdma_device = command.rdma_device;
  options.spin = std::chrono::microseconds(command.spin_us);
  options.stream_check = *std::move(checks);
  options.commit_timeout = *commit_timeout;
  options.outcome_hold = *outcome_hold;
  options.trace = outputs->trace.sink();
  ReceiveObserver observer(command.port_fd);
  TargetSession session(options, devices->borrowed, observer);
  return RunAndReport(
      session, SessionSide::kTarget, devices->borrowed, *outputs,
      [&session](nlohmann::json& json) { AddTargetStatistics(session.statistics(), json); });
}

}  // namespace godwit
