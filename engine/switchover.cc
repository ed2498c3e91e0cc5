#include "engine/switchover.h"

#include <algorithm>

namespace godwit {

void RateMeter::Sample(Clock::Duration now, uint64_t bytes, bool busy) {
  if (last_now_.has_value()) {
    const uint64_t came = bytes - std::min(bytes, last_bytes_);
    // What came belongs to the time that it took, also when nothing is left to move now.
    if (busy || came > 0) {
      all_.time += now - *last_now_;
      all_.bytes += came;
    }
    if (streaming_) Stream(now - *last_now_, came, !busy);
    streaming_ = busy && (streaming_ || came > 0);
  }
  last_now_ = now;
  last_bytes_ = bytes;
}

void RateMeter::Stream(Clock::Duration time, uint64_t bytes, bool ends) {
  if (ends && bytes == 0) time = Clock::Duration::zero();  // it had ended before
  open_.time += time;
  open_.bytes += bytes;
  if (open_.time < kSampleMin && !ends) return;
  slices_.push_back(open_);
  sum_.time += open_.time;
  sum_.bytes += open_.bytes;
  open_ = {};
  while (slices_.size() > kSamplesMax ||
         (slices_.size() > 1 && sum_.time - slices_.front().time > kWindow)) {
    sum_.time -= slices_.front().time;
    sum_.bytes -= slices_.front().bytes;
    slices_.pop_front();
  }
}

std::optional<double> RateMeter::bytes_per_second() const {
  const Slice streamed = {sum_.time + open_.time, sum_.bytes + open_.bytes};
  for (const Slice& slice : {streamed, all_}) {
    if (slice.bytes < kBytesMin || slice.time <= Clock::Duration::zero()) continue;
    return static_cast<double>(slice.bytes) / std::chrono::duration<double>(slice.time).count();
  }
  return std::nullopt;
}

void CountSteps(uint32_t devices, SwitchoverCosts& costs) {
  costs.source_steps = costs.target_steps = devices > 1 ? 3 : 2;
}

Clock::Duration TimeForBytes(uint64_t bytes, std::optional<double> bytes_per_second) {
  constexpr double kBytesPerSecondAssumed = 100.0 * 1024 * 1024;
  // A day is longer than any limit, and fits.
  constexpr double kSecondsMax = 86'400;
  const double seconds =
      static_cast<double>(bytes) / bytes_per_second.value_or(kBytesPerSecondAssumed);
  return std::chrono::duration_cast<Clock::Duration>(
      std::chrono::duration<double>(std::min(kSecondsMax, seconds)));
}

std::optional<Clock::Duration> EstimateDowntime(const SwitchoverBytes& bytes,
                                                std::optional<double> bytes_per_second,
                                                const SwitchoverCosts& costs) {
  const uint64_t total = bytes.with_devices + bytes.on_the_way;
  if (!bytes_per_second.has_value() && total > RateMeter::kBytesMin) return std::nullopt;
  const Clock::Duration on_the_way = TimeForBytes(bytes.on_the_way, bytes_per_second);
  const Clock::Duration with_devices = TimeForBytes(bytes.with_devices, bytes_per_second);
  if (costs.fixed.has_value()) return std::max(*costs.fixed, on_the_way) + with_devices;
  const Clock::Duration to_stop_copy = (costs.source_steps - 1) * costs.source_step;
  return std::max(to_stop_copy, on_the_way) + with_devices + costs.packet_trip + costs.source_step +
         costs.target_steps * costs.target_step + costs.config + costs.round_trip;
}

SwitchoverVerdict DecideSwitchover(const SwitchoverFacts& facts, const PrecopyLimits& limits) {
  const bool short_enough = facts.downtime.has_value() && *facts.downtime <= limits.downtime;
  if (facts.all_asked && facts.initial_bytes_loaded && short_enough) {
    return {SwitchoverDecision::kSwitch, SwitchoverReason::kConverged};
  }
  SwitchoverVerdict verdict;
  verdict.decision = limits.on_no_convergence == OnNoConvergence::kAbort
                         ? SwitchoverDecision::kAbort
                         : SwitchoverDecision::kSwitch;
  if (facts.all_asked && facts.initial_bytes_loaded && facts.exhausted) {
    verdict.reason = SwitchoverReason::kNothingMore;
  } else if (facts.precopy_time >= limits.time_max) {
    verdict.reason = SwitchoverReason::kTimeMax;
  } else if (limits.bytes_max > 0 && facts.precopy_bytes >= limits.bytes_max) {
    verdict.reason = SwitchoverReason::kBytesMax;
  } else {
    verdict.decision = SwitchoverDecision::kGoOn;
  }
  return verdict;
}

}  // namespace godwit
