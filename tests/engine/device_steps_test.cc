// Goal: devices move together only if all of them can wait for each other, and a state change that
// fails says whose and leaves no other half done.
#include "engine/device_steps.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cerrno>
#include <optional>

#include "base/errno_status.h"
#include "engine/packet.h"

namespace godwit {
namespace {

using testing::AllOf;
using testing::HasSubstr;

// Takes every state at once; or the one that it fails at, and stays.
class StubDevice final : public Device {
 public:
  StubDevice(std::string name, MigrationFlags flags) : name_(std::move(name)), flags_(flags) {}

  const std::string& name() const override { return name_; }
  absl::string_view kind() const override { return "stub"; }
  MigrationFlags flags() const override { return flags_; }
  absl::StatusOr<DeviceState> State() override { return state_; }
  absl::StatusOr<UniqueFd> SetState(DeviceState wanted) override {
    if (wanted == fails_at) return ErrnoStatus(EMFILE, "no fd for the stream");
    state_ = wanted;
    if (!opens_streams) return UniqueFd();
    return UniqueFd(::dup(STDIN_FILENO));
  }
  absl::Status Reset() override { return absl::OkStatus(); }
  absl::StatusOr<uint64_t> StopCopyBytes() override { return 0; }
  absl::StatusOr<PrecopyInfo> GetPrecopyInfo(int /*data_fd*/) override { return PrecopyInfo(); }
  absl::StatusOr<std::string> SaveConfig() override { return std::string(); }
  absl::Status LoadConfig(absl::string_view /*config*/) override { return absl::OkStatus(); }

  std::optional<DeviceState> fails_at;
  bool opens_streams = true;

 private:
  const std::string name_;
  const MigrationFlags flags_;
  DeviceState state_ = DeviceState::kRunning;
};

constexpr MigrationFlags kWithP2p = {.p2p = true, .pre_copy = false};
constexpr MigrationFlags kWithoutP2p = {.p2p = false, .pre_copy = true};

TEST(CheckMoveTogetherTest, OneWithoutP2pMovesAlone) {
  StubDevice nic("nic", kWithP2p);
  StubDevice accelerator("accelerator", kWithoutP2p);
  EXPECT_TRUE(CheckMoveTogether({&accelerator}).ok());
  EXPECT_TRUE(CheckMoveTogether({&nic, &nic}).ok());
  const std::vector<std::vector<Device*>> refused = {
      {&nic, &accelerator}, {&accelerator, &nic}, {&accelerator, &accelerator}};
  for (const std::vector<Device*>& devices : refused) {
    const absl::Status refusal = CheckMoveTogether(devices);
    EXPECT_EQ(refusal.code(), absl::StatusCode::kInvalidArgument);
    EXPECT_THAT(std::string(refusal.message()), HasSubstr("device accelerator has no P2P state"));
  }
}

TEST(CheckMoveTogetherTest, AtLeastOneAndAtMostTheLimit) {
  StubDevice nic("nic", kWithP2p);
  EXPECT_FALSE(CheckMoveTogether({}).ok());
  EXPECT_TRUE(CheckMoveTogether(std::vector<Device*>(kDevicesMax, &nic)).ok());
  EXPECT_FALSE(CheckMoveTogether(std::vector<Device*>(kDevicesMax + 1, &nic)).ok());
}

TEST(SetStatesTest, TheOneThatRanOutOfFdsIsNamedAndTheOthersAreThere) {
  StubDevice first("first", kWithP2p);
  StubDevice second("second", kWithP2p);
  second.fails_at = DeviceState::kStopCopy;
  StepThreads threads(2);
  std::vector<UniqueFd> streams;
  const absl::Status failed =
      SetStates(threads, {&first, &second}, DeviceState::kStopCopy, &streams, [] {});
  EXPECT_EQ(failed.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(std::string(failed.message()),
              AllOf(HasSubstr("device second: to STOP_COPY"), HasSubstr("no fd for the stream")));
  EXPECT_EQ(first.State().value(), DeviceState::kStopCopy);
  EXPECT_EQ(second.State().value(), DeviceState::kRunning);
  EXPECT_TRUE(streams[0].valid());
  EXPECT_FALSE(streams[1].valid());
}

TEST(SetStatesTest, ADeviceThatOpensNoStreamIsAnError) {
  StubDevice device("device", kWithP2p);
  device.opens_streams = false;
  StepThreads threads(1);
  std::vector<UniqueFd> streams;
  EXPECT_EQ(SetStates(threads, {&device}, DeviceState::kResuming, &streams, [] {}).code(),
            absl::StatusCode::kFailedPrecondition);
}

TEST(CheckStillStoppedTest, TheOneThatLeftStopCopyIsNamedWithItsState) {
  StubDevice nic("nic", kWithP2p);
  StubDevice accelerator("accelerator", kWithP2p);
  const std::vector<Device*> devices = {&nic, &accelerator};
  StepThreads threads(devices.size());
  ASSERT_TRUE(SetStates(threads, devices, DeviceState::kStopCopy, nullptr, [] {}).ok());
  EXPECT_TRUE(CheckStillStopped(threads, devices, [] {}).ok());
  for (const DeviceState state : {DeviceState::kRunning, DeviceState::kStop, DeviceState::kError}) {
    ASSERT_TRUE(accelerator.SetState(state).ok());
    const absl::Status status = CheckStillStopped(threads, devices, [] {});
    EXPECT_TRUE(absl::IsDataLoss(status)) << status;
    EXPECT_THAT(std::string(status.message()),
                HasSubstr(absl::StrCat("device accelerator: it is in ", DeviceStateName(state))));
  }
}

TEST(StopForGoodTest, OnlyWhatIsStillInStopCopyGoesToStop) {
  StubDevice nic("nic", kWithP2p);
  StubDevice accelerator("accelerator", kWithP2p);
  const std::vector<Device*> devices = {&nic, &accelerator};
  StepThreads threads(devices.size());
  ASSERT_TRUE(SetStates(threads, devices, DeviceState::kStopCopy, nullptr, [] {}).ok());
  ASSERT_TRUE(accelerator.SetState(DeviceState::kRunning).ok());
  StepLog log;
  const absl::Status status = StopForGood(
      threads, devices, [] {}, &log);
  EXPECT_TRUE(absl::IsDataLoss(status)) << status;
  EXPECT_THAT(std::string(status.message()), HasSubstr("device accelerator: it is in RUNNING"));
  EXPECT_EQ(nic.State().value(), DeviceState::kStop);
  EXPECT_EQ(accelerator.State().value(), DeviceState::kRunning);
  const std::vector<DeviceStep> steps = log.Take();
  ASSERT_EQ(steps.size(), 1U);
  EXPECT_EQ(steps[0].device, 0U);
  EXPECT_EQ(steps[0].to, DeviceState::kStop);
}

}  // namespace
}  // namespace godwit
