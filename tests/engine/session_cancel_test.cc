// Goal: Cancel() at any moment, from either side, ends both sides with the devices on exactly one.
#include <absl/strings/str_cat.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <future>
#include <random>
#include <string>
#include <vector>

#include "base/clock.h"
#include "tests/engine/session_world.h"

namespace godwit {
namespace {

using Milliseconds = std::chrono::duration<double, std::milli>;

struct Ending {
  SessionReport source;
  SessionReport target;
  Milliseconds source_latency{0};  // from the cancel to the end of that side
  Milliseconds target_latency{0};
};

Ending CancelAfter(std::chrono::microseconds delay, bool at_source, const Devices& source,
                   const Devices& target) {
  const Watchdog watchdog("a cancelled session");
  RunningTarget running(target.pointers());
  SourceOptions options = SourceOptionsFor(running.Port());
  options.precopy_limits.downtime = std::chrono::milliseconds(1);  // so that pre-copy takes a while
  options.precopy_limits.time_max = std::chrono::milliseconds(40);
  RecordingObserver observer;
  SourceSession session(options, source.pointers(), observer);
  std::promise<std::pair<SessionReport, Clock::Duration>> ended;
  session.Start([&](const SessionReport& report) {
    ended.set_value({report, Clock::Steady().Now()});
  });
  std::this_thread::sleep_for(delay);
  const Clock::Duration cancelled_at = Clock::Steady().Now();
  if (at_source) {
    session.Cancel();
  } else {
    running.session().Cancel();
  }
  Ending ending;
  const auto source_end = ended.get_future().get();
  ending.source = source_end.first;
  ending.source_latency = source_end.second - cancelled_at;
  // A target whose source ended before it had said Hello waits for another.
  if (running.observer().phase() == SessionPhase::kWaiting) running.session().Cancel();
  ending.target = running.Report();
  ending.target_latency = Clock::Steady().Now() - cancelled_at;
  return ending;
}

class CancelTest : public testing::TestWithParam<bool> {};

TEST_P(CancelTest, AtAnyMomentLeavesTheDevicesOnExactlyOneSide) {
  const bool at_source = GetParam();
  constexpr uint32_t kSessions = 60;
  const uint32_t seed = std::random_device()();
  SCOPED_TRACE(absl::StrCat("seed ", seed));
  std::mt19937 random(seed);
  std::vector<double> latencies_ms;
  uint32_t moved = 0;
  for (uint32_t i = 0; i < kSessions; ++i) {
    const std::vector<std::string> specs = {"soft:profile=mlx5,dirty=64MiB,size=4MiB,seed=1",
                                            "soft:size=1MiB,seed=2"};
    const Devices source(specs, DeviceRole::kSource);
    const Devices target(specs, DeviceRole::kTarget);
    const std::chrono::microseconds delay(random() % 80'000);
    SCOPED_TRACE(absl::StrCat("session ", i, ", cancelled after ", delay.count(), " us"));
    const Ending ending = CancelAfter(delay, at_source, source, target);
    latencies_ms.push_back((at_source ? ending.source_latency : ending.target_latency).count());
    ASSERT_NE(ending.source.outcome, SessionOutcome::kInDoubt) << ending.source.status;
    ASSERT_NE(ending.target.outcome, SessionOutcome::kInDoubt) << ending.target.status;
    ASSERT_EQ(ending.source.outcome, ending.target.outcome) << ending.source.status << "\n"
                                                            << ending.target.status;
    if (ending.source.outcome == SessionOutcome::kDone) {
      ++moved;
      source.ExpectAllIn(DeviceState::kStop);
    } else {
      source.ExpectAllIn(DeviceState::kRunning);
      for (Device* device : target.pointers()) EXPECT_FALSE(device->content_verified());
    }
    target.ExpectAllIn(DeviceState::kRunning);
  }
  EXPECT_LT(moved, kSessions);
  // For people: no time decides a test.
  std::sort(latencies_ms.begin(), latencies_ms.end());
  std::printf(
      "cancelled at the %s, %u sessions, %u too late: p50 %.2f ms, p99 %.2f ms, max %.2f ms\n",
      at_source ? "source" : "target", kSessions, moved, latencies_ms[kSessions / 2],
      latencies_ms[kSessions * 99 / 100], latencies_ms.back());
}

INSTANTIATE_TEST_SUITE_P(Sides, CancelTest, testing::Values(true, false),
                         [](const auto& side) { return side.param ? "source" : "target"; });

}  // namespace
}  // namespace godwit
