// A session's spans, kept for its trace file.
#ifndef GODWIT_TOOLS_TRACE_BUFFER_H_
#define GODWIT_TOOLS_TRACE_BUFFER_H_

#include <absl/strings/string_view.h>
#include <absl/types/span.h>

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>

#include "godwit/statistics.h"

namespace godwit {

// A TraceSpan with its name inside: who calls a sink may reuse the text.
struct StoredSpan {
  static constexpr size_t kNameBytesMax = 15;

  TraceSpan::Track track;
  uint8_t name_bytes;
  char name[kNameBytesMax];
  uint32_t number;
  uint32_t device;
  uint32_t index;
  int64_t begin_ns;
  int64_t end_ns;
  uint64_t bytes;

  absl::string_view name_text() const { return {name, name_bytes}; }
};

// Keeps the first spans and counts the rest. Phases and state changes, which are few and tell what
// the others belong to, have a room of their own: a long stream doesn't crowd out how it ended.
//
// Ownership: of its memory, asked for once; pages that no span has reached cost nothing.
// Threads:   OnSpan() from any, side by side; all else once those threads have been joined.
// Blocking:  never: a span takes one atomic addition and 64 bytes of copying.
// Errors:    none; what had no room is in dropped().
class TraceBuffer final : public TraceSink {
 public:
  static constexpr size_t kStepsMax = size_t{1} << 12;
  static constexpr size_t kPacketSpansMax = size_t{1} << 18;  // 16 MiB: both sides of 128 GiB

  explicit TraceBuffer(size_t steps_max = kStepsMax, size_t packet_spans_max = kPacketSpansMax)
      : steps_(steps_max), packets_(packet_spans_max) {}

  void OnSpan(const TraceSpan& span) override;

  // In the order in which they came; those of one thread in its own order.
  absl::Span<const StoredSpan> steps() const { return steps_.spans(); }
  absl::Span<const StoredSpan> packet_spans() const { return packets_.spans(); }
  uint64_t dropped() const { return steps_.dropped() + packets_.dropped(); }

 private:
  class Room {
   public:
    explicit Room(size_t spans_max) : spans_max_(spans_max), spans_(new StoredSpan[spans_max]) {}
    void Put(const TraceSpan& span);
    absl::Span<const StoredSpan> spans() const;
    uint64_t dropped() const;

   private:
    const size_t spans_max_;
    const std::unique_ptr<StoredSpan[]> spans_;
    // Hands out places. Relaxed: a place has one writer, and joining it is what shows its span.
    alignas(64) std::atomic<uint64_t> asked_{0};
  };

  Room steps_;    // kControl, kDevice
  Room packets_;  // all others
};

}  // namespace godwit

#endif  // GODWIT_TOOLS_TRACE_BUFFER_H_
