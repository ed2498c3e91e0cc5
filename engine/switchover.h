// When to stop the devices: the estimate of the downtime, and the decision.
#ifndef GODWIT_ENGINE_SWITCHOVER_H_
#define GODWIT_ENGINE_SWITCHOVER_H_

#include <cstdint>
#include <deque>
#include <optional>

#include "base/clock.h"
#include "godwit/session.h"

namespace godwit {

// Bytes loaded at the target over the time that they took to come, of the recent past. Each time
// that there is something to move again, time and bytes count from the first receipt on: what it
// takes until then is no matter of how much there is. Only where too little has come that way all
// bytes count, over all the time in which there was something to move.
//
// Threads: single-threaded. Blocking: never. Errors: none.
class RateMeter {
 public:
  static constexpr Clock::Duration kWindow = std::chrono::seconds(2);
  static constexpr size_t kSamplesMax = 256;
  static constexpr Clock::Duration kSampleMin = std::chrono::milliseconds(5);
  // Fewer bytes say more about latency than about the path.
  static constexpr uint64_t kBytesMin = uint64_t{1} << 20;

  // `bytes` are loaded in all by `now`; `busy`: there is more to move.
  void Sample(Clock::Duration now, uint64_t bytes, bool busy);

  // Bytes a second; nothing before kBytesMin were measured.
  std::optional<double> bytes_per_second() const;

 private:
  struct Slice {
    Clock::Duration time{0};
    uint64_t bytes = 0;
  };
  void Stream(Clock::Duration time, uint64_t bytes, bool ends);

  std::deque<Slice> slices_;
  Slice sum_;   // of slices_
  Slice open_;  // the next of them
  Slice all_;
  bool streaming_ = false;  // something has come since there was nothing to move
  std::optional<Clock::Duration> last_now_;
  uint64_t last_bytes_ = 0;
};

// How long a switchover's steps take but for the data.
struct SwitchoverCosts {
  Clock::Duration source_step{0};  // a state change of all devices at once, at the source
  Clock::Duration target_step{0};  // the same at the target
  Clock::Duration config{0};       // saving and loading the configurations
  Clock::Duration packet_trip{0};  // from the order to read the last packet until its receipt
  Clock::Duration round_trip{0};   // of the control channel, from thread to thread
  uint32_t source_steps = 2;
  uint32_t target_steps = 2;
  std::optional<Clock::Duration> fixed = std::nullopt;  // all of that together, where it is known
};

// Sets how many steps there are between "stop" and "they run" with this many devices:
// source: (to RUNNING_P2P where there are several,) to STOP_COPY, to STOP;
// target: to STOP, (to RUNNING_P2P,) to RUNNING.
void CountSteps(uint32_t devices, SwitchoverCosts& costs);

// What moving so many bytes takes. Without a measured rate 100 MiB/s are assumed.
Clock::Duration TimeForBytes(uint64_t bytes, std::optional<double> bytes_per_second);

// What there is to move when the devices are stopped.
struct SwitchoverBytes {
  uint64_t with_devices = 0;
  uint64_t on_the_way = 0;  // read, and not yet loaded
};

// downtime = the longer of (source_steps - 1) × source_step and on_the_way ÷ rate
//            + with_devices ÷ rate + packet_trip + target_step + config
//            + source_step + round_trip + (target_steps - 1) × target_step
// What is on the way is loaded while the source's devices stop. The trip is the last packet's to
// the target and Loaded's back, the round trip Commit's and Done's. With `fixed`:
// downtime = the longer of fixed and on_the_way ÷ rate + with_devices ÷ rate
// Without a measured rate there is no estimate for more than RateMeter::kBytesMin.
std::optional<Clock::Duration> EstimateDowntime(const SwitchoverBytes& bytes,
                                                std::optional<double> bytes_per_second,
                                                const SwitchoverCosts& costs);

// What the decision is made from.
struct SwitchoverFacts {
  // Every device has said what is left, and the way to the target has been timed.
  bool all_asked = false;
  bool initial_bytes_loaded = false;  // at the target, of every device
  bool exhausted = false;             // no device has more to give before it stops
  std::optional<Clock::Duration> downtime;
  uint64_t precopy_bytes = 0;
  Clock::Duration precopy_time{0};
};

enum class SwitchoverDecision { kGoOn, kSwitch, kAbort };
struct SwitchoverVerdict {
  SwitchoverDecision decision = SwitchoverDecision::kGoOn;
  SwitchoverReason reason = SwitchoverReason::kConverged;
};

// One pure function: switch when the estimate is under the limit and the target has the initial
// bytes; do what `limits.on_no_convergence` says when there is nothing more to gain or a bound of
// pre-copy is reached.
SwitchoverVerdict DecideSwitchover(const SwitchoverFacts& facts, const PrecopyLimits& limits);

}  // namespace godwit

#endif  // GODWIT_ENGINE_SWITCHOVER_H_
