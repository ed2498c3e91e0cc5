#include "tools/report.h"

#include <absl/strings/ascii.h>
#include <absl/strings/numbers.h>
#include <absl/strings/str_cat.h>
#include <absl/strings/str_format.h>
#include <absl/strings/str_join.h>
#include <absl/strings/strip.h>
#include <spdlog/spdlog.h>

#include <algorithm>
#include <cerrno>
#include <fstream>
#include <nlohmann/json.hpp>
#include <set>

#include "base/errno_status.h"
#include "base/units.h"

namespace godwit {
namespace {

// What is less is not worth a line.
constexpr std::chrono::milliseconds kBlockedTold{50};

double Milliseconds(std::chrono::nanoseconds duration) {
  return static_cast<double>(duration.count()) / 1e6;
}

std::string Hex(uint32_t crc) { return absl::StrFormat("%08x", crc); }

uint64_t OutOfOrderPackets(const SessionReport& report) {
  uint64_t packets = 0;
  for (const DeviceReport& device : report.devices) packets += device.out_of_order_packets;
  return packets;
}

// Of a session that is not plain.
std::string TrustText(const SessionReport& report) {
  if (report.trust == TrustKind::kPlain) return "";
  const char* const sealed = report.sealing == Sealing::kAllLanes   ? "packets sealed"
                             : report.sealing == Sealing::kTcpLanes ? "packets of TCP lanes sealed"
                                                                    : "packets not sealed";
  return absl::StrCat("  trust      ", TrustKindName(report.trust), ", ", sealed, "\n");
}

std::string VerifiedText(const SessionReport& report, const DeviceReport& device) {
  if (!report.crc) return "only its length verified: CRCs are off";
  return absl::StrFormat("state verified: digest %s sent, %s loaded", Hex(device.sent_crc32c),
                         Hex(device.loaded_crc32c));
}

std::string LaneFinishText(const SessionReport& report) {
  if (report.lanes.size() < 2) return "";
  return absl::StrFormat(", ended within %.1f ms", Milliseconds(report.lane_finish_lag));
}

std::string LanesText(const SessionReport& report) {
  uint64_t total = 0;
  for (const LaneReport& lane : report.lanes) total += lane.bytes;
  const auto share = [total](std::string* out, const LaneReport& lane) {
    const double percent =
        total == 0 ? 0 : 100.0 * static_cast<double>(lane.bytes) / static_cast<double>(total);
    absl::StrAppendFormat(out, "%.1f %%", percent);
  };
  std::set<std::string> transports;
  for (const LaneReport& lane : report.lanes) transports.insert(lane.transport);
  if (transports.empty()) transports.insert("?");
  return absl::StrCat(report.lanes.size(), " over ", absl::StrJoin(transports, " and "), ": ",
                      absl::StrJoin(report.lanes, "  ", share), LaneFinishText(report));
}

// Null where there was no pre-copy.
nlohmann::json SwitchoverJson(const SessionReport& report) {
  if (!report.switchover.has_value()) return nullptr;
  const SwitchoverReport& decision = *report.switchover;
  nlohmann::json json = {{"reason", SwitchoverReasonName(decision.reason)},
                         {"remaining_bytes", decision.remaining_bytes},
                         {"on_the_way_bytes", decision.on_the_way_bytes},
                         {"bytes_per_second", decision.bytes_per_second},
                         {"source_step_ms", Milliseconds(decision.source_step)},
                         {"target_step_ms", Milliseconds(decision.target_step)},
                         {"config_ms", Milliseconds(decision.config)},
                         {"packet_trip_ms", Milliseconds(decision.packet_trip)},
                         {"round_trip_ms", Milliseconds(decision.round_trip)},
                         {"decided_downtime_ms", nullptr},
                         {"predicted_downtime_ms", nullptr},
                         {"actual_minus_predicted_ms", nullptr},
                         {"fixed_downtime_ms", nullptr}};
  if (decision.decided_downtime.count() > 0) {
    json["decided_downtime_ms"] = Milliseconds(decision.decided_downtime);
  }
  if (report.outcome == SessionOutcome::kDone) {
    json["fixed_downtime_ms"] = Milliseconds(decision.fixed_downtime);
  }
  if (decision.predicted_downtime.count() == 0) return json;
  json["predicted_downtime_ms"] = Milliseconds(decision.predicted_downtime);
  if (report.outcome == SessionOutcome::kDone) {
    json["actual_minus_predicted_ms"] =
        Milliseconds(report.downtime) - Milliseconds(decision.predicted_downtime);
  }
  return json;
}

// Only where there is something to say.
std::string LaneLossText(const SessionReport& report) {
  uint64_t remade = 0;
  uint64_t sent_again = 0;
  for (const LaneReport& lane : report.lanes) {
    remade += lane.remade;
    sent_again += lane.sent_again;
  }
  if (remade + sent_again == 0) return "";
  return absl::StrFormat("  lanes lost %u made again, %u packets sent again\n", remade, sent_again);
}

std::string PrecopyText(const SessionReport& report) {
  if (!report.switchover.has_value()) return "";
  uint64_t bytes = 0;
  uint64_t iterations = 0;
  for (const DeviceReport& device : report.devices) {
    bytes += device.precopy_bytes;
    iterations += device.precopy_iterations;
  }
  const SwitchoverReport& decision = *report.switchover;
  return absl::StrFormat(
      "  pre-copy   %s in %.3f s, %u iterations; stopped (%s) with %s left\n"
      "  downtime   %.1f ms predicted, %.1f ms in fact\n",
      FormatBytes(bytes), Milliseconds(report.precopy_time) / 1000, iterations,
      SwitchoverReasonName(decision.reason), FormatBytes(decision.remaining_bytes),
      Milliseconds(decision.predicted_downtime), Milliseconds(report.downtime));
}

}  // namespace

const char* OutcomeName(SessionOutcome outcome) {
  switch (outcome) {
    case SessionOutcome::kDone:
      return "done";
    case SessionOutcome::kRolledBack:
      return "rolled_back";
    case SessionOutcome::kInDoubt:
      return "in_doubt";
  }
  return "?";
}

std::string OneLine(absl::string_view text) {
  std::string line(text);
  for (char& c : line) {
    if (absl::ascii_iscntrl(static_cast<unsigned char>(c))) c = '?';
  }
  return line;
}

void LogError(const absl::Status& status) { spdlog::error("{}", OneLine(status.message())); }

double Seconds(std::chrono::nanoseconds duration) { return Milliseconds(duration) / 1000; }

double ThroughputGibPerSecond(const SessionReport& report) {
  const double seconds = static_cast<double>(report.stream_time.count()) / 1e9;
  return seconds > 0 ? static_cast<double>(report.bytes) / static_cast<double>(kGiB) / seconds : 0;
}

uint64_t PeakResidentBytes() {
  std::ifstream status("/proc/self/status");
  for (std::string line; std::getline(status, line);) {
    absl::string_view rest = line;
    uint64_t kibibytes = 0;
    if (absl::ConsumePrefix(&rest, "VmHWM:") && absl::ConsumeSuffix(&rest, "kB") &&
        absl::SimpleAtoi(rest, &kibibytes)) {
      return kibibytes * kKiB;
    }
  }
  return 0;
}

nlohmann::json ReportJson(const SessionReport& report) {
  nlohmann::json json;
  json["result"] = OutcomeName(report.outcome);
  if (!report.status.ok()) json["error"] = std::string(report.status.message());
  json["peer"] = report.peer;
  json["trust"] = TrustKindName(report.trust);
  json["seal"] = SealingName(report.sealing);
  json["crc"] = report.crc ? "on" : "off";
  json["bytes"] = report.bytes;
  json["packets"] = report.packets;
  json["out_of_order_packets"] = OutOfOrderPackets(report);
  json["duration_ms"] = Milliseconds(report.duration);
  json["downtime_ms"] = Milliseconds(report.downtime);
  json["throughput_gib_s"] = ThroughputGibPerSecond(report);
  json["lane_finish_lag_ms"] = Milliseconds(report.lane_finish_lag);
  json["precopy_ms"] = Milliseconds(report.precopy_time);
  json["switchover"] = SwitchoverJson(report);
  json["devices"] = nlohmann::json::array();
  for (const DeviceReport& device : report.devices) {
    json["devices"].push_back({{"name", device.name},
                               {"kind", device.kind},
                               {"bytes", device.bytes},
                               {"packets", device.packets},
                               {"precopy_bytes", device.precopy_bytes},
                               {"precopy_iterations", device.precopy_iterations},
                               {"out_of_order_packets", device.out_of_order_packets},
                               {"sent_crc32c", Hex(device.sent_crc32c)},
                               {"loaded_crc32c", Hex(device.loaded_crc32c)},
                               {"content_verified", device.content_verified},
                               {"blocked_ms", Milliseconds(device.blocked_time)},
                               {"state_lost", device.state_lost}});
  }
  json["lanes"] = nlohmann::json::array();
  for (const LaneReport& lane : report.lanes) {
    json["lanes"].push_back({{"transport", lane.transport},
                             {"bytes", lane.bytes},
                             {"packets", lane.packets},
                             {"remade", lane.remade},
                             {"sent_again", lane.sent_again},
                             {"duplicates", lane.duplicates},
                             {"down_ms", Milliseconds(lane.down_time)},
                             {"down_longest_ms", Milliseconds(lane.down_longest)}});
  }
  json["arena"] = {{"bytes", report.arena_bytes}, {"backing", report.arena_backing}};
  json["peak_resident_bytes"] = PeakResidentBytes();
  return json;
}

void AddSourceStatistics(const SessionStatistics& statistics, const PrecopyHistory& history,
                         nlohmann::json& json) {
  json["starved_ms"] = Milliseconds(statistics.starved_time);
  json["stalled_ms"] = Milliseconds(statistics.stalled_time);
  nlohmann::json& devices = json["devices"];
  for (size_t i = 0; i < devices.size(); ++i) {
    nlohmann::json& rows = devices[i]["iterations"] = nlohmann::json::array();
    for (const PrecopyIteration& iteration : history.Last(i)) {
      const double seconds = Seconds(iteration.duration);
      rows.push_back(
          {{"number", iteration.number},
           {"bytes", iteration.bytes},
           {"duration_ms", Milliseconds(iteration.duration)},
           {"bytes_per_second", seconds > 0 ? static_cast<double>(iteration.bytes) / seconds : 0},
           {"initial_bytes", iteration.initial_bytes},
           {"dirty_bytes", iteration.dirty_bytes}});
    }
  }
}

void AddTargetStatistics(const SessionStatistics& statistics, nlohmann::json& json) {
  nlohmann::json& devices = json["devices"];
  for (size_t i = 0; i < devices.size() && i < statistics.devices.size(); ++i) {
    devices[i]["reorder_depth_high_water"] = statistics.devices[i].reorder_depth_high_water;
    devices[i]["write_ms"] = Milliseconds(statistics.devices[i].write_time);
  }
}

nlohmann::json RefusalJson(const absl::Status& status) {
  return {{"result", "refused"}, {"error", std::string(status.message())}};
}

std::string ReportText(const SessionReport& report) {
  const double seconds = Milliseconds(report.duration) / 1000;
  std::string text = absl::StrFormat(
      "moved %u device%s, %s, at %.2f GiB/s\n"
      "  time       %.3f s in all, %.3f s of it downtime\n"
      "%s"
      "  packets    %u, of which %u arrived out of order\n"
      "  lanes      %s\n"
      "%s",
      report.devices.size(), report.devices.size() == 1 ? "" : "s", FormatBytes(report.bytes),
      ThroughputGibPerSecond(report), seconds, Milliseconds(report.downtime) / 1000,
      PrecopyText(report), report.packets, OutOfOrderPackets(report), LanesText(report),
      TrustText(report));
  text += LaneLossText(report);
  for (const DeviceReport& device : report.devices) {
    absl::StrAppendFormat(&text, "  device     %s: %s, %s%s\n", device.name,
                          FormatBytes(device.bytes), VerifiedText(report, device),
                          device.content_verified ? ", content as expected" : "");
  }
  return text;
}

std::string BlockedText(const SessionReport& report) {
  std::string text;
  for (const DeviceReport& device : report.devices) {
    if (device.blocked_time < kBlockedTold) continue;
    absl::StrAppendFormat(&text,
                          "  device     %s: waited %.0f ms for a call that can't be interrupted\n",
                          OneLine(device.name), Milliseconds(device.blocked_time));
  }
  return text;
}

absl::StatusOr<JsonOutput> JsonOutput::Open(const std::string& path, absl::string_view option) {
  JsonOutput output;
  output.name_ = absl::StrCat(option, " ", path);
  output.to_stdout_ = path == "-";
  if (!path.empty() && !output.to_stdout_) {
    output.file_.reset(std::fopen(path.c_str(), "we"));
    if (output.file_ == nullptr) {
      return ErrnoStatus(errno, absl::StrCat(output.name_, ": it can't be written"));
    }
  }
  return output;
}

absl::Status JsonOutput::Write(const nlohmann::json& json) {
  // Names come from the command line and the peer: bytes that are no UTF-8 must not throw.
  const absl::Status written =
      Append(json.dump(2, ' ', false, nlohmann::json::error_handler_t::replace) + "\n");
  return written.ok() ? Close() : written;
}

absl::Status JsonOutput::Append(absl::string_view text) {
  std::FILE* const file = to_stdout_ ? stdout : file_.get();
  if (file == nullptr) return absl::OkStatus();
  if (std::fwrite(text.data(), 1, text.size(), file) != text.size() || std::fflush(file) != 0) {
    return ErrnoStatus(errno, absl::StrCat(name_, ": writing failed"));
  }
  return absl::OkStatus();
}

absl::Status JsonOutput::Close() {
  if (file_ != nullptr && std::fclose(file_.release()) != 0) {
    return ErrnoStatus(errno, absl::StrCat(name_, ": writing failed"));
  }
  return absl::OkStatus();
}

}  // namespace godwit
