// Goal: the devices are stopped when the formula of docs/switchover.md says so, and not for ever
// later.
#include "engine/switchover.h"

#include <gtest/gtest.h>

#include "engine/precopy_watch.h"

namespace godwit {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

constexpr uint64_t kMiB = uint64_t{1} << 20;

TEST(RateMeterTest, MeasuresNothingBelowAMebibyte) {
  RateMeter meter;
  meter.Sample(seconds(0), 0, true);
  meter.Sample(seconds(1), kMiB - 1, true);
  EXPECT_FALSE(meter.bytes_per_second().has_value());
  meter.Sample(seconds(2), kMiB, true);
  ASSERT_TRUE(meter.bytes_per_second().has_value());
  EXPECT_DOUBLE_EQ(*meter.bytes_per_second(), static_cast<double>(kMiB) / 2);
}

TEST(RateMeterTest, IdleTimeDoesNotCount) {
  RateMeter meter;
  meter.Sample(seconds(0), 0, true);
  meter.Sample(milliseconds(500), 50 * kMiB, false);
  for (int second = 1; second < 100; ++second) meter.Sample(seconds(second), 50 * kMiB, false);
  EXPECT_DOUBLE_EQ(*meter.bytes_per_second(), 100.0 * kMiB);
}

// What the first receipt takes is the packet's trip, which the estimate has as a term of its own.
TEST(RateMeterTest, TimeAndBytesCountFromTheFirstReceiptOn) {
  RateMeter meter;
  for (uint64_t second = 0; second < 10; ++second) {
    meter.Sample(seconds(second), 10 * kMiB * second, true);
    meter.Sample(seconds(second) + milliseconds(900), 10 * kMiB * second + kMiB, true);
    meter.Sample(seconds(second) + milliseconds(950), 10 * kMiB * (second + 1), false);
  }
  EXPECT_DOUBLE_EQ(*meter.bytes_per_second(), 9.0 * kMiB / 0.05);
}

// Or many that come in one piece each would be no rate, and what is large could not be estimated.
TEST(RateMeterTest, WhereOnlyFirstReceiptsComeAllOfTheirTimeCounts) {
  RateMeter meter;
  for (uint64_t second = 0; second < 10; ++second) {
    meter.Sample(seconds(second), kMiB * second, true);
    meter.Sample(seconds(second) + milliseconds(100), kMiB * (second + 1), false);
    meter.Sample(seconds(second) + milliseconds(900), kMiB * (second + 1), false);
  }
  EXPECT_NEAR(*meter.bytes_per_second(), 10.0 * kMiB / (10 * 0.1 + 9 * 0.1), 1);
}

TEST(RateMeterTest, TimeInWhichNothingCameThoughThereWasSomethingCounts) {
  RateMeter meter;
  meter.Sample(seconds(0), 0, true);
  meter.Sample(milliseconds(1500), 0, true);
  meter.Sample(milliseconds(2000), 50 * kMiB, true);
  EXPECT_DOUBLE_EQ(*meter.bytes_per_second(), 25.0 * kMiB);
}

TEST(RateMeterTest, TheDistantPastIsForgotten) {
  RateMeter meter;
  uint64_t bytes = 0;
  Clock::Duration now{0};
  const auto run = [&](uint64_t mib_a_second, int for_seconds) {
    for (int tick = 0; tick < 10 * for_seconds; ++tick) {
      meter.Sample(now, bytes, true);
      now += milliseconds(100);
      bytes += mib_a_second * kMiB / 10;
    }
    meter.Sample(now, bytes, true);
  };
  run(1000, 10);
  EXPECT_NEAR(*meter.bytes_per_second() / kMiB, 1000, 1);
  run(10, 3);
  EXPECT_NEAR(*meter.bytes_per_second() / kMiB, 10, 1);
}

SwitchoverCosts Costs(uint32_t devices) {
  SwitchoverCosts costs;
  costs.source_step = milliseconds(10);
  costs.target_step = milliseconds(7);
  costs.config = milliseconds(5);
  costs.packet_trip = milliseconds(3);
  costs.round_trip = milliseconds(1);
  CountSteps(devices, costs);
  return costs;
}

TEST(EstimateTest, IsTheSumOfItsTerms) {
  constexpr milliseconds kOne(2 * 10 + 2 * 7 + 5 + 3 + 1);
  EXPECT_EQ(*EstimateDowntime({}, std::nullopt, Costs(1)), kOne);
  EXPECT_EQ(*EstimateDowntime({50 * kMiB, 0}, 100.0 * kMiB, Costs(1)), kOne + milliseconds(500));
  // The P2P barrier of several is a step more on each side, however many there are.
  for (const uint32_t devices : {2U, 64U}) {
    EXPECT_EQ(*EstimateDowntime({}, std::nullopt, Costs(devices)), kOne + milliseconds(10 + 7));
  }
}

TEST(EstimateTest, WhatIsOnTheWayIsLoadedWhileTheDevicesStop) {
  const Clock::Duration nothing = *EstimateDowntime({}, std::nullopt, Costs(2));
  EXPECT_EQ(*EstimateDowntime({0, 2 * kMiB}, 100.0 * kMiB, Costs(2)), nothing);
  EXPECT_EQ(*EstimateDowntime({0, 3 * kMiB}, 100.0 * kMiB, Costs(2)), nothing + milliseconds(10));
  EXPECT_EQ(*EstimateDowntime({kMiB, 3 * kMiB}, 100.0 * kMiB, Costs(2)),
            nothing + milliseconds(20));
}

TEST(EstimateTest, AKnownFixedPartStandsForAllButTheBytes) {
  SwitchoverCosts costs = Costs(2);
  costs.fixed = milliseconds(5);
  EXPECT_EQ(*EstimateDowntime({}, std::nullopt, costs), milliseconds(5));
  EXPECT_EQ(*EstimateDowntime({kMiB, 0}, 100.0 * kMiB, costs), milliseconds(15));
  // What is on the way is loaded meanwhile.
  EXPECT_EQ(*EstimateDowntime({kMiB, kMiB / 4}, 100.0 * kMiB, costs), milliseconds(15));
  EXPECT_EQ(*EstimateDowntime({kMiB, 3 * kMiB}, 100.0 * kMiB, costs), milliseconds(40));
  EXPECT_FALSE(EstimateDowntime({kMiB + 1, 0}, std::nullopt, costs).has_value());
}

TEST(EstimateTest, WithoutARateOnlyLittleCanBeEstimated) {
  const SwitchoverCosts none;
  EXPECT_EQ(*EstimateDowntime({kMiB, 0}, std::nullopt, none), milliseconds(10));
  EXPECT_EQ(*EstimateDowntime({0, kMiB}, std::nullopt, none), milliseconds(10));
  EXPECT_FALSE(EstimateDowntime({kMiB + 1, 0}, std::nullopt, none).has_value());
  EXPECT_FALSE(EstimateDowntime({kMiB, 1}, std::nullopt, none).has_value());
}

TEST(EstimateTest, AStandstillDoesNotOverflow) {
  EXPECT_EQ(*EstimateDowntime({~uint64_t{0}, 0}, 1e-9, SwitchoverCosts()), std::chrono::hours(24));
}

TEST(RemainingTest, ReadsComeOffWhatWasAnnounced) {
  PrecopyEstimate estimate;
  estimate.initial_bytes = 100;
  estimate.dirty_bytes = 50;
  estimate.read_bytes_before = 1000;
  EXPECT_EQ(RemainingBytes(estimate, 1000, 0, {}), 150U);
  EXPECT_EQ(RemainingBytes(estimate, 1120, 0, {}), 30U);
  EXPECT_EQ(RemainingBytes(estimate, 1200, 0, {}), 0U);  // more came than was announced
  estimate.stop_copy_bytes = 70;
  EXPECT_EQ(RemainingBytes(estimate, 1000, 0, {}), 150U);
  EXPECT_EQ(RemainingBytes(estimate, 1120, 0, {}), 30U);
  estimate.stop_copy_bytes = 300;  // virtio: what was announced, and then a whole context more
  EXPECT_EQ(RemainingBytes(estimate, 1000, 0, {}), 300U);
  EXPECT_EQ(RemainingBytes(estimate, 1150, 0, {}), 150U);
}

// A chunk that has been read is no convergence: what got dirty behind it counts.
TEST(RemainingTest, WhatGetsDirtyMeanwhileCounts) {
  PrecopyEstimate estimate;
  estimate.dirty_bytes = 100;
  estimate.asked_at = estimate.more_at = seconds(5);
  estimate.dirty_bytes_per_second = 400;
  EXPECT_EQ(RemainingBytes(estimate, 0, 0, seconds(5)), 100U);
  EXPECT_EQ(RemainingBytes(estimate, 100, 0, milliseconds(5250)), 100U);
  EXPECT_EQ(RemainingBytes(estimate, 40, 0, seconds(6)), 460U);
  // Asked again, it said what is unread of the same chunk; what STOP_COPY would bring is newer.
  estimate.asked_at = milliseconds(5500);
  EXPECT_EQ(RemainingBytes(estimate, 0, 0, seconds(6)), 500U);
  estimate.stop_copy_bytes = 320;
  EXPECT_EQ(RemainingBytes(estimate, 0, 0, seconds(6)), 520U);
}

PrecopyInfo Dirty(uint64_t bytes) { return {.dirty_bytes = bytes}; }

// mlx5's way: a chunk is announced until it has been read, then the next one.
TEST(DirtyRateTest, AChunkThatIsAnnouncedTwiceGotDirtyOnce) {
  PrecopyEstimate estimate;
  TakeAnswer({.initial_bytes = 1000}, 0, seconds(1), estimate);
  EXPECT_EQ(estimate.dirty_bytes_per_second, 0);
  TakeAnswer(Dirty(300), 1000, seconds(2), estimate);
  EXPECT_EQ(estimate.dirty_bytes_per_second, 300);
  // What of it is unread says nothing new, however soon it is said.
  TakeAnswer(Dirty(200), 1100, milliseconds(2010), estimate);
  TakeAnswer(Dirty(200), 1100, milliseconds(2020), estimate);
  EXPECT_EQ(estimate.dirty_bytes_per_second, 300);
  EXPECT_EQ(RemainingBytes(estimate, 1100, 0, seconds(3)), 500U);
  TakeAnswer(Dirty(250), 1300, milliseconds(2500), estimate);
  EXPECT_EQ(estimate.dirty_bytes_per_second, 500);
  EXPECT_EQ(estimate.asked, 5U);
}

TEST(DirtyRateTest, OfWhatGrowsWhileItIsReadOnlyTheGrowthCounts) {
  PrecopyEstimate estimate;
  TakeAnswer(Dirty(100), 0, seconds(1), estimate);
  TakeAnswer(Dirty(120), 60, seconds(2), estimate);  // 40 of it were known
  EXPECT_EQ(estimate.dirty_bytes_per_second, 80);
}

TEST(DirtyRateTest, NothingDirtyIsARateOfNothing) {
  PrecopyEstimate estimate;
  TakeAnswer(Dirty(100), 0, seconds(1), estimate);
  TakeAnswer(Dirty(100), 100, seconds(2), estimate);
  EXPECT_EQ(estimate.dirty_bytes_per_second, 100);
  TakeAnswer(Dirty(0), 200, seconds(3), estimate);
  EXPECT_EQ(estimate.dirty_bytes_per_second, 0);
}

// virtio's dirty data is a whole context each time, and in 20 ms there is no second one.
TEST(RemainingTest, ADeviceHasNoMoreThanAllOfItsStateBehindWhatItAnnounced) {
  PrecopyEstimate estimate;
  estimate.dirty_bytes = 100;
  estimate.stop_copy_bytes = 200;
  estimate.dirty_bytes_per_second = 5000;
  EXPECT_EQ(RemainingBytes(estimate, 0, 100, milliseconds(20)), 200U);
  EXPECT_EQ(RemainingBytes(estimate, 60, 100, milliseconds(20)), 140U);
  EXPECT_EQ(RemainingBytes(estimate, 100, 100, milliseconds(20)), 100U);
  EXPECT_EQ(RemainingBytes(estimate, 100, 0, milliseconds(20)), 200U);
}

// Facts under which the answer is "switch: converged"; each test spoils one.
SwitchoverFacts Converged() {
  SwitchoverFacts facts;
  facts.all_asked = true;
  facts.initial_bytes_loaded = true;
  facts.downtime = milliseconds(300);
  facts.precopy_bytes = 1000;
  facts.precopy_time = seconds(1);
  return facts;
}

SwitchoverDecision Decide(const SwitchoverFacts& facts, const PrecopyLimits& limits = {}) {
  return DecideSwitchover(facts, limits).decision;
}

TEST(DecisionTest, SwitchesAtTheLimitAndNotAbove) {
  SwitchoverFacts facts = Converged();
  EXPECT_EQ(Decide(facts), SwitchoverDecision::kSwitch);
  EXPECT_EQ(DecideSwitchover(facts, {}).reason, SwitchoverReason::kConverged);
  *facts.downtime += std::chrono::nanoseconds(1);
  EXPECT_EQ(Decide(facts), SwitchoverDecision::kGoOn);
}

TEST(DecisionTest, WaitsForEveryAnswerForTheInitialBytesAndForAnEstimate) {
  SwitchoverFacts facts = Converged();
  facts.all_asked = false;
  EXPECT_EQ(Decide(facts), SwitchoverDecision::kGoOn);
  facts = Converged();
  facts.initial_bytes_loaded = false;
  EXPECT_EQ(Decide(facts), SwitchoverDecision::kGoOn);
  facts.exhausted = true;
  EXPECT_EQ(Decide(facts), SwitchoverDecision::kGoOn);
  facts = Converged();
  facts.downtime.reset();
  EXPECT_EQ(Decide(facts), SwitchoverDecision::kGoOn);
}

struct Bound {
  const char* name;
  void (*reach)(SwitchoverFacts& facts, PrecopyLimits& limits);
  SwitchoverReason reason;
};

class BoundTest : public testing::TestWithParam<Bound> {};

TEST_P(BoundTest, EndsPreCopyAsAskedTo) {
  SwitchoverFacts facts = Converged();
  facts.downtime = seconds(5);
  PrecopyLimits limits;
  EXPECT_EQ(Decide(facts, limits), SwitchoverDecision::kGoOn);
  GetParam().reach(facts, limits);
  EXPECT_EQ(DecideSwitchover(facts, limits).reason, GetParam().reason);
  EXPECT_EQ(Decide(facts, limits), SwitchoverDecision::kSwitch);
  limits.on_no_convergence = OnNoConvergence::kAbort;
  EXPECT_EQ(Decide(facts, limits), SwitchoverDecision::kAbort);
  // Short enough all the same: no reason to abort.
  facts.downtime = milliseconds(1);
  EXPECT_EQ(Decide(facts, limits), SwitchoverDecision::kSwitch);
  EXPECT_EQ(DecideSwitchover(facts, limits).reason, SwitchoverReason::kConverged);
}

INSTANTIATE_TEST_SUITE_P(Every, BoundTest,
                         testing::Values(Bound{"NothingMore",
                                               [](SwitchoverFacts& facts, PrecopyLimits&) {
                                                 facts.exhausted = true;
                                               },
                                               SwitchoverReason::kNothingMore},
                                         Bound{"TimeMax",
                                               [](SwitchoverFacts& facts, PrecopyLimits& limits) {
                                                 facts.precopy_time = limits.time_max;
                                               },
                                               SwitchoverReason::kTimeMax},
                                         Bound{"BytesMax",
                                               [](SwitchoverFacts& facts, PrecopyLimits& limits) {
                                                 limits.bytes_max = facts.precopy_bytes;
                                               },
                                               SwitchoverReason::kBytesMax}),
                         [](const auto& bound) { return std::string(bound.param.name); });

// A device that never brings its initial bytes must not keep us for ever.
TEST(DecisionTest, TheBoundsHoldAlsoWithoutInitialBytesOrAnswers) {
  SwitchoverFacts facts;
  facts.precopy_time = PrecopyLimits().time_max;
  EXPECT_EQ(Decide(facts), SwitchoverDecision::kSwitch);
}

}  // namespace
}  // namespace godwit
