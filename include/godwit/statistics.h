// What a session is doing, in numbers, while it does it.
#ifndef GODWIT_STATISTICS_H_
#define GODWIT_STATISTICS_H_

#include <absl/strings/string_view.h>

#include <chrono>
#include <cstdint>
#include <string>
#include <vector>

namespace godwit {

// Counters only grow; bytes are of streams, headers not counted.
struct DeviceStatistics {
  std::string name;
  uint64_t bytes = 0;                      // source: sent; target: loaded
  uint64_t packets = 0;                    // same, config packet included
  uint64_t bytes_expected = 0;             // the device's estimate before the session; 0: none
  uint64_t read_bytes = 0;                 // source: from the device, sent or not
  uint64_t out_of_order_packets = 0;       // target
  uint32_t reorder_depth_high_water = 0;   // target: most packets that its window ever held
  std::chrono::nanoseconds write_time{0};  // target: in write(2) to the device
};

struct LaneStatistics {
  std::string transport;  // "tcp" or "verbs": what it is now
  uint64_t bytes = 0;     // payload
  uint64_t packets = 0;
  uint32_t queue_depth = 0;  // source: packets under way, now
};

// When the session has ended they stay as they were.
struct SessionStatistics {
  std::vector<DeviceStatistics> devices;  // by position; empty before lanes are set up
  std::vector<LaneStatistics> lanes;      // by number
  // Source: time in which lanes had room, and no packet was ready (starved: the devices are slow)
  // or the ready ones were past their window (stalled: the target is slow).
  std::chrono::nanoseconds starved_time{0};
  std::chrono::nanoseconds stalled_time{0};
};

// A piece of work on one track of a session's time line.
struct TraceSpan {
  enum class Track { kControl, kDevice, kReader, kLane, kLoader };
  Track track = Track::kControl;
  uint32_t number = 0;  // of the device or lane; 0 for control
  absl::string_view name;
  std::chrono::nanoseconds begin{0};  // CLOCK_MONOTONIC
  std::chrono::nanoseconds end{0};
  uint64_t bytes = 0;   // of packets
  uint32_t device = 0;  // of packets
  uint32_t index = 0;   // of packets
};

// Takes a session's spans: each read, send, receipt of a packet and write, each phase and state
// change.
//
// Ownership: the caller's; outlives the session.
// Threads:   called from any thread of the session's, several at once.
// Blocking:  must not: it is in the hot path.
// Errors:    none; a sink that is full drops spans.
class TraceSink {
 public:
  virtual ~TraceSink() = default;
  virtual void OnSpan(const TraceSpan& span) = 0;
};

}  // namespace godwit

#endif  // GODWIT_STATISTICS_H_
