// Goal: a session that has to wait for a driver's call at its end says so while it waits and says
// how long it was; the peer doesn't wait with it. A device whose state the way back cost is named.
#include <absl/strings/match.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>
#include <future>
#include <memory>
#include <string>

#include "base/clock.h"
#include "tests/engine/gate_device.h"
#include "tests/engine/session_world.h"
#include "tests/engine/wrapped_device.h"

namespace godwit {
namespace {

using testing::HasSubstr;
using testing::Not;

constexpr char kNote[] = "to end a call that can't be interrupted";
// How long a device is kept blocked once it is known that somebody waits for it.
constexpr std::chrono::milliseconds kBlocked{20};

template <typename Done>
void WaitUntil(const Done& done) {
  while (!done()) std::this_thread::sleep_for(std::chrono::milliseconds(1));
}

// Keeps a device blocked a little longer, and then calls `unblock`; returns for how long at least
// somebody waited.
Clock::Duration UnblockAfterTheNote(const RecordingObserver& observer,
                                    const std::function<void()>& unblock) {
  WaitUntil([&] { return absl::StrContains(observer.Notes(), kNote); });
  const Clock::Duration waits = Clock::Steady().Now();
  std::this_thread::sleep_for(kBlocked);
  const Clock::Duration waited = Clock::Steady().Now() - waits;
  unblock();
  return waited;
}

// One soft device moves into a shut gate, in packets of which the gate's pipe holds half a one.
class ShutGateTest : public testing::Test {
 protected:
  ShutGateTest() {
    SourceOptions options = SourceOptionsFor(target_.Port());
    options.packet_bytes = size_t{128} << 10;
    source_.emplace(options, devices_.pointers(), observer_);
    source_->Start([this](const SessionReport& report) { ended_.set_value(report); });
    WaitUntil([this] { return gate_.full(); });
  }
  ~ShutGateTest() override { source_.reset(); }
  void ExpectBothRolledBack(const SessionReport& source) {
    EXPECT_EQ(source.outcome, SessionOutcome::kRolledBack) << source.status;
    EXPECT_EQ(target_.Report().outcome, SessionOutcome::kRolledBack) << target_.Report().status;
    devices_.ExpectAllIn(DeviceState::kRunning);
    EXPECT_EQ(gate_.State().value(), DeviceState::kRunning);
  }

  const Watchdog watchdog_{"a shut gate"};
  const Devices devices_{{"soft:size=4MiB,seed=1"}, DeviceRole::kSource};
  GateDevice gate_{/*open=*/false};
  RunningTarget target_{{&gate_}};
  RecordingObserver observer_;
  std::promise<SessionReport> ended_;
  std::optional<SourceSession> source_;
};

TEST_F(ShutGateTest, ACancelledTargetWaitsForItsWriteAndSaysHowLong) {
  target_.session().Cancel();
  const SessionReport source = ended_.get_future().get();  // while the gate is shut
  EXPECT_LT(source.duration, kShortestTimeout);
  EXPECT_THAT(std::string(source.status.message()), HasSubstr("gave up: cancelled"));
  EXPECT_NE(target_.observer().phase(), SessionPhase::kFinished);
  const Clock::Duration waited = UnblockAfterTheNote(target_.observer(), [this] { gate_.Open(); });
  EXPECT_GE(target_.Report().devices[0].blocked_time, waited);
  EXPECT_THAT(target_.observer().Notes(), HasSubstr("waiting for device gate"));
  EXPECT_TRUE(absl::IsCancelled(target_.Report().status)) << target_.Report().status;
  ExpectBothRolledBack(source);
}

TEST_F(ShutGateTest, ACancelledSourceDoesNotWaitForTheTargetsWrite) {
  source_->Cancel();
  const SessionReport source = ended_.get_future().get();  // while the gate is shut
  EXPECT_LT(source.duration, kShortestTimeout);
  EXPECT_TRUE(absl::IsCancelled(source.status)) << source.status;
  const Clock::Duration waited = UnblockAfterTheNote(target_.observer(), [this] { gate_.Open(); });
  EXPECT_GE(target_.Report().devices[0].blocked_time, waited);
  EXPECT_THAT(std::string(target_.Report().status.message()), HasSubstr("gave up: cancelled"));
  ExpectBothRolledBack(source);
}

TEST(SlowDeviceTest, ACancelledSourceWaitsForItsDriversAnswerAndSaysHowLong) {
  const Watchdog watchdog("a driver that is slow to answer");
  const Devices source_devices({"soft:profile=mlx5,dirty=64MiB,size=1MiB,seed=1"},
                               DeviceRole::kSource);
  const Devices target_devices({"soft:profile=mlx5,size=1MiB,seed=1"}, DeviceRole::kTarget);
  std::atomic<bool> asked{false};
  std::atomic<bool> may_answer{false};
  WrappedDevice slow(*source_devices.pointers()[0]);
  slow.before_precopy_info = [&] {
    asked = true;
    WaitUntil([&] { return may_answer.load(); });
  };
  RunningTarget target(target_devices.pointers());
  RecordingObserver observer;
  SourceSession source(SourceOptionsFor(target.Port()), {&slow}, observer);
  std::promise<SessionReport> ended;
  source.Start([&](const SessionReport& report) { ended.set_value(report); });
  WaitUntil([&] { return asked.load(); });
  source.Cancel();
  EXPECT_EQ(target.Report().outcome, SessionOutcome::kRolledBack);  // while the driver is at it
  EXPECT_EQ(target.Report().devices[0].blocked_time.count(), 0);
  EXPECT_LT(target.Report().duration, kShortestTimeout);
  const Clock::Duration waited = UnblockAfterTheNote(observer, [&] { may_answer = true; });
  const SessionReport report = ended.get_future().get();
  EXPECT_TRUE(absl::IsCancelled(report.status)) << report.status;
  EXPECT_EQ(report.outcome, SessionOutcome::kRolledBack);
  EXPECT_GE(report.devices[0].blocked_time, waited);
  EXPECT_FALSE(report.devices[0].state_lost);
  // The target, which was told, has let its lanes go meanwhile: of no interest any more.
  EXPECT_THAT(observer.Notes(), Not(HasSubstr("no lane is left")));
  source_devices.ExpectAllIn(DeviceState::kRunning);
}

TEST(StateLostTest, IsSaidOfTheDeviceThatHadToBeResetAndOfNoOther) {
  const Watchdog watchdog("a device that does not run again");
  const Devices sources({"soft:size=4MiB,seed=1", "soft:size=4MiB,seed=2,fail_state=RUNNING"},
                        DeviceRole::kSource);
  const Devices targets({"soft:size=4MiB,seed=1,fail_load=1", "soft:size=4MiB,seed=2"},
                        DeviceRole::kTarget);
  RunningTarget target(targets.pointers());
  RecordingObserver observer;
  SourceSession source(SourceOptionsFor(target.Port()), sources.pointers(), observer);
  const SessionReport report = source.Run();
  EXPECT_EQ(report.outcome, SessionOutcome::kRolledBack);
  EXPECT_THAT(std::string(report.status.message()), HasSubstr("its state is lost"));
  EXPECT_FALSE(report.devices[0].state_lost);
  EXPECT_TRUE(report.devices[1].state_lost);
  sources.ExpectAllIn(DeviceState::kRunning);
  for (const DeviceReport& device : target.Report().devices) EXPECT_FALSE(device.state_lost);
}

}  // namespace
}  // namespace godwit
