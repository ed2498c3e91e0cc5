#include "tools/trace_file.h"

#include <absl/strings/str_cat.h>
#include <absl/strings/str_format.h>
#include <spdlog/spdlog.h>
#include <unistd.h>

#include <algorithm>
#include <map>
#include <nlohmann/json.hpp>
#include <utility>

#include "base/status_macros.h"

namespace godwit {
namespace {

using Track = TraceSpan::Track;

constexpr size_t kPieceBytes = size_t{64} << 10;
// Of the tracks' numbers in the file: those of one kind stand together, in the order of Track.
constexpr uint32_t kTracksAKind = 1000;

uint32_t TrackId(const StoredSpan& span) {
  return 1 + static_cast<uint32_t>(span.track) * kTracksAKind + span.number;
}

std::string Quoted(absl::string_view text) {
  // Names come from the command line: bytes that are no UTF-8 must not throw.
  return nlohmann::json(std::string(text))
      .dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
}

std::string TrackName(const StoredSpan& span, const TraceLabels& labels) {
  const std::string of_device = span.number < labels.devices.size()
                                    ? absl::StrCat(span.number, ": ", labels.devices[span.number])
                                    : absl::StrCat(span.number);
  switch (span.track) {
    case Track::kControl:
      return "control";
    case Track::kDevice:
      return absl::StrCat("device ", of_device);
    case Track::kReader:
      return absl::StrCat("reader ", of_device);
    case Track::kLane:
      return absl::StrCat("lane ", span.number);
    case Track::kLoader:
      return absl::StrCat("loader ", of_device);
  }
  return "?";
}

// Microseconds, as the format has them, and not a nanosecond lost.
std::string Microseconds(int64_t ns) { return absl::StrFormat("%d.%03d", ns / 1000, ns % 1000); }

class Writer {
 public:
  Writer(const TraceLabels& labels, absl::FunctionRef<absl::Status(absl::string_view)> append)
      : labels_(labels), append_(append) {}

  absl::Status WriteAll(const TraceBuffer& spans) {
    absl::StrAppendFormat(&piece_,
                          "{\"displayTimeUnit\": \"ms\",\n\"otherData\": {\"clock\": "
                          "\"CLOCK_MONOTONIC\", \"spans\": %u, \"dropped_spans\": %u},\n"
                          "\"traceEvents\": [\n",
                          spans.steps().size() + spans.packet_spans().size(), spans.dropped());
    // First, and without the comma that begins every other line.
    absl::StrAppendFormat(&piece_,
                          "{\"ph\": \"M\", \"name\": \"process_name\", \"pid\": %d, \"tid\": 0, "
                          "\"args\": {\"name\": %s}}",
                          labels_.process_id, Quoted(labels_.process));
    for (const StoredSpan& span : spans.steps()) GODWIT_RETURN_IF_ERROR(Add(span));
    for (const StoredSpan& span : spans.packet_spans()) GODWIT_RETURN_IF_ERROR(Add(span));
    absl::StrAppend(&piece_, "\n]}\n");
    return append_(piece_);
  }

 private:
  absl::Status Add(const StoredSpan& span) {
    const uint32_t track = TrackId(span);
    const auto [seen, first] = last_end_ns_.try_emplace(track, 0);
    if (first) AddTrack(track, span);
    int64_t begin_ns = span.begin_ns;
    // A lane takes packets before it is done with those ahead of them, but spans of one track may
    // only nest. It is first in, first out: a packet has the lane to itself once the one ahead of
    // it is through, and what was before is its wait.
    if (span.track == Track::kLane) begin_ns = std::max(begin_ns, seen->second);
    const int64_t end_ns = std::max(begin_ns, span.end_ns);
    seen->second = end_ns;
    absl::StrAppendFormat(&piece_,
                          ",\n{\"ph\": \"X\", \"name\": %s, \"pid\": %d, \"tid\": %u, \"ts\": %s, "
                          "\"dur\": %s",
                          Quoted(span.name_text()), labels_.process_id, track,
                          Microseconds(begin_ns), Microseconds(end_ns - begin_ns));
    if (span.track != Track::kControl && span.track != Track::kDevice) {
      absl::StrAppendFormat(&piece_,
                            ", \"args\": {\"bytes\": %u, \"device\": %u, \"index\": %u, "
                            "\"queued_us\": %s}",
                            span.bytes, span.device, span.index,
                            Microseconds(begin_ns - span.begin_ns));
    }
    piece_ += '}';
    if (piece_.size() < kPieceBytes) return absl::OkStatus();
    const absl::Status appended = append_(piece_);
    piece_.clear();
    return appended;
  }

  void AddTrack(uint32_t track, const StoredSpan& span) {
    absl::StrAppendFormat(&piece_,
                          ",\n{\"ph\": \"M\", \"name\": \"thread_name\", \"pid\": %d, \"tid\": %u, "
                          "\"args\": {\"name\": %s}}"
                          ",\n{\"ph\": \"M\", \"name\": \"thread_sort_index\", \"pid\": %d, "
                          "\"tid\": %u, \"args\": {\"sort_index\": %u}}",
                          labels_.process_id, track, Quoted(TrackName(span, labels_)),
                          labels_.process_id, track, track);
  }

  const TraceLabels& labels_;
  const absl::FunctionRef<absl::Status(absl::string_view)> append_;
  std::map<uint32_t, int64_t> last_end_ns_;  // by track
  std::string piece_;
};

}  // namespace

absl::Status WriteTraceJson(const TraceBuffer& spans, const TraceLabels& labels,
                            absl::FunctionRef<absl::Status(absl::string_view piece)> append) {
  return Writer(labels, append).WriteAll(spans);
}

absl::StatusOr<TraceFile> TraceFile::Open(const std::string& path) {
  TraceFile trace;
  trace.path_ = path;
  GODWIT_ASSIGN_OR_RETURN(trace.output_, JsonOutput::Open(path, "--trace"));
  if (!path.empty()) trace.spans_ = std::make_unique<TraceBuffer>();
  return trace;
}

absl::Status TraceFile::Write(absl::string_view side, std::vector<std::string> device_names) {
  if (spans_ == nullptr) return absl::OkStatus();
  TraceLabels labels;
  labels.process = absl::StrCat("godwit ", side);
  labels.process_id = static_cast<int>(::getpid());
  labels.devices = std::move(device_names);
  GODWIT_RETURN_IF_ERROR(WriteTraceJson(
      *spans_, labels, [this](absl::string_view piece) { return output_.Append(piece); }));
  if (spans_->dropped() > 0) {
    spdlog::warn("--trace {}: {} spans had no room in it", OneLine(path_), spans_->dropped());
  }
  return output_.Close();
}

}  // namespace godwit
