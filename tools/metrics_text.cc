#include "tools/metrics_text.h"

#include <absl/strings/str_cat.h>
#include <absl/strings/str_format.h>

#include <chrono>

namespace godwit {
namespace {

constexpr SessionPhase kPhases[] = {
    SessionPhase::kWaiting,  SessionPhase::kConnecting, SessionPhase::kPreCopying,
    SessionPhase::kStopping, SessionPhase::kStreaming,  SessionPhase::kHandingOver,
    SessionPhase::kFinished,
};

// Between double quotes: what would end the value or the line is escaped, and what is no UTF-8,
// which a scraper would refuse with all the rest, is replaced.
std::string Label(absl::string_view text) {
  std::string label;
  for (size_t i = 0; i < text.size();) {
    const auto lead = static_cast<unsigned char>(text[i]);
    const size_t bytes = lead < 0x80   ? 1
                         : lead < 0xc2 ? 0
                         : lead < 0xe0 ? 2
                         : lead < 0xf0 ? 3
                         : lead < 0xf5 ? 4
                                       : 0;
    bool whole = bytes > 0 && i + bytes <= text.size();
    for (size_t k = 1; whole && k < bytes; ++k) {
      whole = (static_cast<unsigned char>(text[i + k]) & 0xc0) == 0x80;
    }
    if (!whole) {
      label += '?';
      ++i;
      continue;
    }
    if (text[i] == '\\' || text[i] == '"') label += '\\';
    if (text[i] == '\n') {
      label += "\\n";
    } else {
      absl::StrAppend(&label, text.substr(i, bytes));
    }
    i += bytes;
  }
  return label;
}

class Text {
 public:
  void Family(absl::string_view name, absl::string_view type, absl::string_view help) {
    name_ = std::string(name);
    absl::StrAppend(&text_, "# HELP ", name, " ", help, "\n# TYPE ", name, " ", type, "\n");
  }
  void Sample(absl::string_view labels, uint64_t value) { Add(labels, absl::StrCat(value)); }
  void Sample(absl::string_view labels, std::chrono::nanoseconds value) {
    Add(labels,
        absl::StrFormat("%d.%09d", value.count() / 1'000'000'000, value.count() % 1'000'000'000));
  }
  std::string Take() { return std::move(text_); }

 private:
  void Add(absl::string_view labels, absl::string_view value) {
    absl::StrAppend(&text_, name_);
    if (!labels.empty()) absl::StrAppend(&text_, "{", labels, "}");
    absl::StrAppend(&text_, " ", value, "\n");
  }

  std::string name_;
  std::string text_;
};

void AddSession(Text& text, SessionSide side, const SessionProgress& progress,
                const SessionStatistics& statistics) {
  text.Family("godwit_session_info", "gauge", "Always 1; which side of a session this is.");
  text.Sample(absl::StrCat("side=\"", SessionSideName(side), "\""), 1);
  text.Family("godwit_session_phase", "gauge", "1 for what the session is doing, 0 for the rest.");
  for (const SessionPhase phase : kPhases) {
    text.Sample(absl::StrCat("phase=\"", SessionPhaseName(phase), "\""),
                progress.phase == phase ? 1 : 0);
  }
  text.Family("godwit_session_bytes_total", "counter",
              "Device state sent (source) or loaded (target), all devices.");
  text.Sample("", progress.bytes);
  text.Family("godwit_session_expected_bytes", "gauge",
              "The devices' estimate of all their state; 0: they have none.");
  text.Sample("", progress.bytes_total);
  if (side != SessionSide::kSource) return;
  text.Family("godwit_session_downtime_estimate_seconds", "gauge",
              "Downtime if the devices were stopped now, in pre-copy; 0: no estimate yet.");
  text.Sample("", progress.downtime_estimate);
  text.Family("godwit_session_starved_seconds_total", "counter",
              "Time in which lanes had room and no packet was ready: the devices are slow.");
  text.Sample("", statistics.starved_time);
  text.Family("godwit_session_stalled_seconds_total", "counter",
              "Time in which lanes had room and no packet might be sent: the target is slow.");
  text.Sample("", statistics.stalled_time);
}

// One family: a sample a device, or a lane.
template <typename Rows, typename LabelOf, typename ValueOf>
void AddRows(Text& text, const Rows& rows, absl::string_view name, absl::string_view type,
             absl::string_view help, const LabelOf& label_of, const ValueOf& value_of) {
  text.Family(name, type, help);
  for (size_t i = 0; i < rows.size(); ++i) text.Sample(label_of(rows[i], i), value_of(rows[i]));
}

void AddDevices(Text& text, SessionSide side, const std::vector<DeviceStatistics>& devices) {
  const auto add = [&](absl::string_view name, absl::string_view type, absl::string_view help,
                       const auto& value_of) {
    const auto label_of = [](const DeviceStatistics& device, size_t position) {
      return absl::StrCat("device=\"", Label(device.name), "\",position=\"", position, "\"");
    };
    AddRows(text, devices, name, type, help, label_of, value_of);
  };
  using Row = DeviceStatistics;
  add("godwit_device_bytes_total", "counter", "State sent (source) or loaded (target).",
      [](const Row& row) { return row.bytes; });
  add("godwit_device_packets_total", "counter", "Packets sent (source) or loaded (target).",
      [](const Row& row) { return row.packets; });
  add("godwit_device_expected_bytes", "gauge", "The device's estimate of its state; 0: none.",
      [](const Row& row) { return row.bytes_expected; });
  if (side == SessionSide::kSource) {
    add("godwit_device_read_bytes_total", "counter", "State read from the device, sent or not.",
        [](const Row& row) { return row.read_bytes; });
    return;
  }
  add("godwit_device_out_of_order_packets_total", "counter",
      "Packets that had to wait for one before them.",
      [](const Row& row) { return row.out_of_order_packets; });
  add("godwit_device_reorder_depth_high_water", "gauge", "Most packets that have waited at once.",
      [](const Row& row) { return uint64_t{row.reorder_depth_high_water}; });
  add("godwit_device_write_seconds_total", "counter", "Time in writes to the device.",
      [](const Row& row) { return row.write_time; });
}

void AddLanes(Text& text, SessionSide side, const std::vector<LaneStatistics>& lanes) {
  const auto add = [&](absl::string_view name, absl::string_view type, absl::string_view help,
                       const auto& value_of) {
    const auto label_of = [](const LaneStatistics& lane, size_t number) {
      return absl::StrCat("lane=\"", number, "\",transport=\"", Label(lane.transport), "\"");
    };
    AddRows(text, lanes, name, type, help, label_of, value_of);
  };
  using Row = LaneStatistics;
  add("godwit_lane_bytes_total", "counter", "Payload that went over the lane.",
      [](const Row& row) { return row.bytes; });
  add("godwit_lane_packets_total", "counter", "Packets that went over the lane.",
      [](const Row& row) { return row.packets; });
  if (side != SessionSide::kSource) return;
  add("godwit_lane_queue_depth", "gauge", "Packets under way, now.",
      [](const Row& row) { return uint64_t{row.queue_depth}; });
}

}  // namespace

absl::string_view SessionSideName(SessionSide side) {
  return side == SessionSide::kSource ? "source" : "target";
}

std::string MetricsText(SessionSide side, const SessionProgress& progress,
                        const SessionStatistics& statistics) {
  Text text;
  AddSession(text, side, progress, statistics);
  AddDevices(text, side, statistics.devices);
  AddLanes(text, side, statistics.lanes);
  return text.Take();
}

}  // namespace godwit
