// The source's side of a session while its devices still run: docs/switchover.md.

#include <absl/strings/str_cat.h>

#include <algorithm>
#include <utility>

#include "base/errno_status.h"
#include "base/status_macros.h"
#include "engine/device_steps.h"
#include "engine/source_impl.h"

namespace godwit {
namespace {

// A peer that knows no questions must not keep us.
constexpr std::chrono::milliseconds kProbesWait{100};

// Of those that were timed, which are not 0. All devices' packets go the same way.
Clock::Duration ShortestTrip(const std::vector<Clock::Duration>& trips) {
  Clock::Duration shortest{0};
  for (const Clock::Duration trip : trips) {
    if (trip.count() == 0) continue;
    shortest = shortest.count() == 0 ? trip : std::min(shortest, trip);
  }
  return shortest;
}

}  // namespace

absl::string_view SwitchoverReasonName(SwitchoverReason reason) {
  switch (reason) {
    case SwitchoverReason::kConverged:
      return "converged";
    case SwitchoverReason::kNothingMore:
      return "nothing more";
    case SwitchoverReason::kTimeMax:
      return "time limit";
    case SwitchoverReason::kBytesMax:
      return "byte limit";
  }
  return "?";
}

// Until it is time to stop the devices. At the end no stream is being read.
absl::Status SourceSession::Impl::PreCopy() {
  watches_.resize(devices_.size());
  const bool any = std::any_of(devices_.begin(), devices_.end(),
                               [](const Device* device) { return device->flags().pre_copy; });
  if (!options_.pre_copy || !any) return absl::OkStatus();
  SetPhase(SessionPhase::kPreCopying);
  precopy_at_ = Clock::Steady().Now();
  GODWIT_RETURN_IF_ERROR(CheckCancelled());
  GODWIT_RETURN_IF_ERROR(BeginPreCopy());
  SwitchoverVerdict verdict;
  while (verdict.decision == SwitchoverDecision::kGoOn) {
    GODWIT_ASSIGN_OR_RETURN(const control::ControlMessage* const message, Next());
    if (message != nullptr) {
      GODWIT_ASSIGN_OR_RETURN(const bool taken, TakeFlow(*message));
      if (!taken) return OutOfTurn(*message);
      GODWIT_RETURN_IF_ERROR(CheckCancelled());
      continue;
    }
    if (worker_->failed()) return worker_->status();
    GODWIT_RETURN_IF_ERROR(FollowLanes());
    GODWIT_RETURN_IF_ERROR(FollowPreCopy(verdict));
    PublishProgress();
    if (verdict.decision == SwitchoverDecision::kGoOn) GODWIT_RETURN_IF_ERROR(WaitForEvents());
  }
  precopy_time_ = Clock::Steady().Now() - precopy_at_;
  if (verdict.decision == SwitchoverDecision::kAbort) {
    return absl::DeadlineExceededError(absl::StrCat(
        "pre-copy does not get the downtime under ", options_.precopy_limits.downtime.count(),
        " ms (", SwitchoverReasonName(verdict.reason),
        "): allow more downtime, or let it switch all the same"));
  }
  return EndPreCopy();
}

absl::Status SourceSession::Impl::BeginPreCopy() {
  left_running_ = true;
  std::vector<UniqueFd> streams(devices_.size());
  const absl::Status begun = step_threads_.ForEach(
      [&](size_t i) -> absl::Status {
        if (!devices_[i]->flags().pre_copy) return absl::OkStatus();
        GODWIT_ASSIGN_OR_RETURN(streams[i],
                                OpenStream(*devices_[i], i, DeviceState::kPreCopy, &steps_));
        return absl::OkStatus();
      },
      [this] { KeepAlive(); });
  source_step_ = TellSteps() + step_threads_.Overhead();
  GODWIT_RETURN_IF_ERROR(begun);
  for (size_t i = 0; i < devices_.size(); ++i) {
    if (!streams[i].valid()) continue;
    GODWIT_ASSIGN_OR_RETURN(watches_[i],
                            PrecopyWatch::Make(*devices_[i], i, std::move(streams[i]), *worker_,
                                               options_.precopy_interval, events()));
    watches_[i]->Start();
  }
  return absl::OkStatus();
}

// The shortest counts: a longer one waited behind other packets, and for those there is the rate.
void SourceSession::Impl::NoteTrip(size_t device) {
  const auto trip = worker_->TakeTrip(device, loaded_packets_[device]);
  if (!trip.has_value()) return;
  Clock::Duration& shortest = packet_trips_[device];
  shortest = shortest.count() == 0 ? *trip : std::min(shortest, *trip);
}

absl::Status SourceSession::Impl::FollowPreCopy(SwitchoverVerdict& verdict) {
  GODWIT_RETURN_IF_ERROR(channel_->Probe());
  for (size_t i = 0; i < devices_.size(); ++i) {
    if (watches_[i] == nullptr) continue;
    GODWIT_RETURN_IF_ERROR(watches_[i]->status());
    for (const PrecopyIteration& iteration : watches_[i]->TakeIterations()) {
      ++device_reports_[i].precopy_iterations;
      observer_.OnPrecopyIteration(iteration);
    }
  }
  SwitchoverReport report;
  const SwitchoverFacts facts = Facts(report);
  if (facts.downtime.has_value()) {
    progress_downtime_.store(facts.downtime->count(), std::memory_order_relaxed);
    report.predicted_downtime = *facts.downtime;
  }
  verdict = DecideSwitchover(facts, options_.precopy_limits);
  if (verdict.decision != SwitchoverDecision::kSwitch) return absl::OkStatus();
  report.reason = verdict.reason;
  report.decided_downtime = report.predicted_downtime;
  switchover_ = report;
  return absl::OkStatus();
}

// Reads that were under way at the decision have ended, and their packets were loaded meanwhile:
// the report has what is left now.
void SourceSession::Impl::PredictDowntime() {
  SwitchoverReport report;
  report.reason = switchover_->reason;
  report.decided_downtime = switchover_->decided_downtime;
  report.predicted_downtime = Facts(report).downtime.value_or(Clock::Duration(0));
  switchover_ = report;
  observer_.OnSwitchover(report);
}

SwitchoverFacts SourceSession::Impl::Facts(SwitchoverReport& report) {
  SwitchoverFacts facts;
  SwitchoverBytes bytes;
  facts.all_asked = facts.initial_bytes_loaded = facts.exhausted = true;
  uint64_t loaded_bytes = 0;
  bool busy = false;
  const Clock::Duration now = Clock::Steady().Now();
  for (size_t i = 0; i < devices_.size(); ++i) {
    const SourceWorker::DeviceCounters& counters = worker_->device_counters(i);
    if (watches_[i] == nullptr) {
      bytes.with_devices += stop_copy_bytes_[i];
      continue;
    }
    const PrecopyEstimate estimate = watches_[i]->estimate();
    const uint64_t read_bytes = counters.read_bytes.load(std::memory_order_relaxed);
    const uint64_t on_the_way = read_bytes - std::min(read_bytes, loaded_bytes_[i]);
    bytes.with_devices += RemainingBytes(estimate, read_bytes, stop_copy_bytes_[i], now);
    bytes.on_the_way += on_the_way;
    // Before the first receipt of what is on the way nothing of that way is measured.
    const bool measured = on_the_way == 0 || packet_trips_[i].count() > 0;
    facts.all_asked &= estimate.asked > 0 && measured;
    // The target's receipts are its acknowledgement: what it has loaded is with the device.
    facts.initial_bytes_loaded &=
        estimate.initial_read && loaded_packets_[i] >= estimate.initial_packets;
    facts.exhausted &= estimate.exhausted && on_the_way == 0;
    facts.precopy_bytes += read_bytes;
    loaded_bytes += loaded_bytes_[i];
    busy |= on_the_way > 0 || !counters.dry.load(std::memory_order_relaxed);
  }
  facts.precopy_time = now - precopy_at_;
  facts.all_asked &= channel_->probed() || facts.precopy_time > kProbesWait;
  rate_.Sample(now, loaded_bytes, busy);
  const std::optional<double> rate = rate_.bytes_per_second();
  report.remaining_bytes = bytes.with_devices + bytes.on_the_way;
  report.on_the_way_bytes = bytes.on_the_way;
  report.bytes_per_second = rate.value_or(0);
  report.source_step = options_.expected_source_step.value_or(source_step_);
  report.target_step = options_.expected_target_step.value_or(target_step_);
  report.config = options_.expected_config;
  report.round_trip = channel_->round_trip();
  report.packet_trip = ShortestTrip(packet_trips_);
  // Before the first: no shorter than a message's.
  report.packet_trip = std::max(report.packet_trip, report.round_trip);
  SwitchoverCosts costs = {report.source_step, report.target_step, report.config,
                           report.packet_trip, report.round_trip};
  CountSteps(static_cast<uint32_t>(devices_.size()), costs);
  costs.fixed = options_.expected_fixed_downtime;
  facts.downtime = EstimateDowntime(bytes, rate, costs);
  return facts;
}

// A blocked call of a driver's must not let the peer think that we are gone.
absl::Status SourceSession::Impl::StopWatches(const std::function<void()>& meanwhile) {
  if (watches_.empty()) return absl::OkStatus();  // nor is there a worker yet, perhaps
  return step_threads_.ForEach(
      [this](size_t i) {
        if (i >= watches_.size() || watches_[i] == nullptr) return absl::OkStatus();
        watches_[i]->Stop();
        return watches_[i]->status();
      },
      [this, &meanwhile] {
        meanwhile();
        for (size_t i = 0; i < watches_.size(); ++i) {
          if (watches_[i] != nullptr) TellBlocked(i, watches_[i]->blocked_call());
        }
      });
}

absl::Status SourceSession::Impl::EndPreCopy() {
  GODWIT_RETURN_IF_ERROR(CheckCancelled());
  GODWIT_RETURN_IF_ERROR(StopWatches([this] { MeanwhileTakeReceipts(); }));
  worker_->HoldReads();
  while (!worker_->reads_held()) {
    GODWIT_ASSIGN_OR_RETURN(const control::ControlMessage* const message, Next());
    if (message != nullptr) {
      GODWIT_ASSIGN_OR_RETURN(const bool taken, TakeFlow(*message));
      if (!taken) return OutOfTurn(*message);
      continue;
    }
    if (worker_->failed()) return worker_->status();
    GODWIT_RETURN_IF_ERROR(FollowLanes());
    GODWIT_RETURN_IF_ERROR(WaitForEvents());
  }
  for (size_t i = 0; i < devices_.size(); ++i) {
    if (watches_[i] == nullptr) continue;
    device_reports_[i].precopy_bytes =
        worker_->device_counters(i).read_bytes.load(std::memory_order_relaxed);
  }
  PredictDowntime();
  return absl::OkStatus();
}

}  // namespace godwit
