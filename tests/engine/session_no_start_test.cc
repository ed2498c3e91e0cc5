// Goal: a target that was told to run the devices and can't says so only once none of them can run
// there any more (docs/handover.md, T7); where one may run all the same it says nothing (T9).
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <optional>
#include <string>

#include "tests/engine/raw_peer.h"
#include "tests/engine/right_stream.h"
#include "tests/engine/session_world.h"
#include "tests/engine/wrapped_device.h"

namespace godwit {
namespace {

using testing::HasSubstr;

// ---- A source of bare sockets, up to its Commit.

class NoStartTest : public testing::Test {
 protected:
  NoStartTest() {
    device_.before_state = [](DeviceState wanted) {
      return wanted == DeviceState::kRunning ? absl::InternalError("it would not start")
                                             : absl::OkStatus();
    };
    device_.before_reset = [this] {
      ++resets_;
      return reset_;
    };
  }
  void CommitAfterLoaded() {
    TargetOptions options = RunningTarget::DefaultOptions();
    options.arena_bytes = 1;
    target_.emplace(std::vector<Device*>{&device_}, options);
    source_.emplace(target_->Port());
    ASSERT_TRUE(source_->OpenLanes());
    Say(source_->lanes[0].get(), OnTheWire(TheFrames()));
    std::optional<control::ControlMessage> message;
    do message = source_->channel.Receive();
    while (message.has_value() && message->has_receipts());
    ASSERT_TRUE(message.has_value() && message->has_loaded());
    source_->channel.Send(Commit());
  }
  control::ControlMessage Commit() const {
    control::ControlMessage message;
    message.mutable_commit()->set_session_id(source_->session_id);
    return message;
  }

  const Watchdog watchdog_{"a device that does not start"};
  const Devices devices_{{kSpec}, DeviceRole::kTarget};
  WrappedDevice device_{*devices_.pointers()[0]};
  std::atomic<int> resets_{0};
  absl::Status reset_;
  std::optional<RunningTarget> target_;
  std::optional<RawSource> source_;
};

TEST_F(NoStartTest, RolledBackIsSaidOnceTheDeviceIsResetAndAsOftenAsItIsAsked) {
  CommitAfterLoaded();
  const auto answer = source_->channel.Receive();
  ASSERT_TRUE(answer.has_value() && answer->has_rolled_back());
  EXPECT_THAT(answer->rolled_back().reason(), HasSubstr("it would not start"));
  EXPECT_EQ(resets_, 1);
  source_->channel.Send(Commit());  // doubled on the way: T12
  const auto again = source_->channel.Receive();
  ASSERT_TRUE(again.has_value() && again->has_rolled_back());
  control::ControlMessage forget;
  forget.mutable_forget();
  source_->channel.Send(forget);
  source_->channel.Hang();
  EXPECT_EQ(target_->Report().outcome, SessionOutcome::kRolledBack);
  EXPECT_THAT(std::string(target_->Report().status.message()), HasSubstr("it would not start"));
  EXPECT_EQ(resets_, 1);
  devices_.ExpectAllIn(DeviceState::kRunning);  // reset, and nobody's
  EXPECT_FALSE(devices_.pointers()[0]->content_verified());
}

TEST_F(NoStartTest, NothingIsSaidWhereTheResetFails) {
  reset_ = absl::InternalError("it hangs");
  CommitAfterLoaded();
  EXPECT_FALSE(source_->channel.Receive().has_value());  // hung up on
  EXPECT_EQ(target_->Report().outcome, SessionOutcome::kInDoubt);
  EXPECT_THAT(std::string(target_->Report().status.message()),
              testing::AllOf(HasSubstr("it would not start"), HasSubstr("could not be reset"),
                             HasSubstr("it hangs")));
  EXPECT_EQ(resets_, 1);
}

// ---- Both sides' sessions, of two devices: the first has been started when the second fails.

struct TwoDevices {
  explicit TwoDevices(absl::Status reset) {
    first.before_state = [this](DeviceState wanted) {
      first_ran = first_ran || wanted == DeviceState::kRunningP2p;
      return absl::OkStatus();
    };
    second.before_state = [](DeviceState wanted) {
      return wanted == DeviceState::kRunning ? absl::InternalError("it would not start")
                                             : absl::OkStatus();
    };
    first.before_reset = [this] {
      ++resets;
      return absl::OkStatus();
    };
    second.before_reset = [this, reset] {
      ++resets;
      return reset;
    };
    TargetOptions target_options = RunningTarget::DefaultOptions();
    target_options.vm.start_vcpus = [this] {
      ++starts;
      return absl::OkStatus();
    };
    RunningTarget running({&first, &second}, target_options);
    SourceOptions options = SourceOptionsFor(running.Port());
    options.resolve_timeout = std::chrono::milliseconds(500);  // for an answer that does not come
    RecordingObserver observer;
    SourceSession session(options, source_devices.pointers(), observer);
    source = session.Run();
    target = running.Report();
  }

  const Watchdog watchdog{"two devices, of which one does not start"};
  const std::vector<std::string> specs = {"soft:size=5000,seed=1", "soft:size=5000,seed=2"};
  const Devices source_devices{specs, DeviceRole::kSource};
  const Devices target_devices{specs, DeviceRole::kTarget};
  WrappedDevice first{*target_devices.pointers()[0]};
  WrappedDevice second{*target_devices.pointers()[1]};
  std::atomic<bool> first_ran{false};
  std::atomic<int> resets{0};
  std::atomic<int> starts{0};
  SessionReport source;
  SessionReport target;
};

TEST(NoStartOfTwoTest, TheSourcesRunAgainAndBothOfTheTargetsAreReset) {
  const TwoDevices two(absl::OkStatus());
  EXPECT_EQ(two.source.outcome, SessionOutcome::kRolledBack) << two.source.status;
  EXPECT_EQ(two.target.outcome, SessionOutcome::kRolledBack) << two.target.status;
  EXPECT_THAT(std::string(two.source.status.message()), HasSubstr("it would not start"));
  EXPECT_TRUE(two.first_ran);
  EXPECT_EQ(two.resets, 2);
  EXPECT_EQ(two.starts, 0);
  two.source_devices.ExpectAllIn(DeviceState::kRunning);
  for (const DeviceReport& device : two.source.devices) EXPECT_FALSE(device.state_lost);
}

TEST(NoStartOfTwoTest, TheSourcesStayStoppedWhereOneOfTheTargetsMayRun) {
  const TwoDevices two(absl::InternalError("it hangs"));
  EXPECT_EQ(two.source.outcome, SessionOutcome::kInDoubt) << two.source.status;
  EXPECT_EQ(two.target.outcome, SessionOutcome::kInDoubt) << two.target.status;
  EXPECT_EQ(two.resets, 2);
  EXPECT_EQ(two.starts, 0);
  two.source_devices.ExpectAllIn(DeviceState::kStop);
}

}  // namespace
}  // namespace godwit
