// Goal: one contract holds for every device that needs no hardware.
#include <absl/strings/str_cat.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <unistd.h>

#include <functional>
#include <memory>
#include <ostream>
#include <string>

#include "godwit/device.h"
#include "tests/vfio/stream_io.h"
#include "vfio/device_spec.h"
#include "vfio/state_table.h"

namespace godwit {
namespace {

constexpr size_t kStateBytes = 100'000;

struct Kind {
  const char* name;
  // Specs of a source that has kStateBytes of state and of a target that can take them, both
  // beside each other in the directory.
  std::function<std::string(const std::string& directory)> source;
  std::function<std::string(const std::string& directory)> target;

  friend std::ostream& operator<<(std::ostream& out, const Kind& kind) { return out << kind.name; }
};

class DeviceContractTest : public testing::TestWithParam<Kind> {
 protected:
  void SetUp() override {
    WriteFile(directory_.Path("source"), std::string(kStateBytes, 's'));
    auto source = OpenDevice(GetParam().source(directory_.path()), DeviceRole::kSource);
    auto target = OpenDevice(GetParam().target(directory_.path()), DeviceRole::kTarget);
    ASSERT_TRUE(source.ok()) << source.status();
    ASSERT_TRUE(target.ok()) << target.status();
    source_ = *std::move(source);
    target_ = *std::move(target);
  }

  static DeviceState Now(Device& device) { return device.State().value(); }

  TempDirectory directory_;
  std::unique_ptr<Device> source_;
  std::unique_ptr<Device> target_;
};

TEST_P(DeviceContractTest, IsFoundRunning) {
  EXPECT_EQ(Now(*source_), DeviceState::kRunning);
  EXPECT_EQ(Now(*target_), DeviceState::kRunning);
}

TEST_P(DeviceContractTest, WhatIsSavedLoads) {
  const UniqueFd saving = source_->SetState(DeviceState::kStopCopy).value();
  const std::string state = ReadToEnd(saving.get());
  EXPECT_EQ(state.size(), kStateBytes);
  EXPECT_EQ(source_->StopCopyBytes().value(), kStateBytes);

  const UniqueFd loading = target_->SetState(DeviceState::kResuming).value();
  WriteAll(loading.get(), state);
  ASSERT_TRUE(target_->SetState(DeviceState::kStop).ok());
  EXPECT_TRUE(target_->LoadConfig(source_->SaveConfig().value()).ok());
  EXPECT_TRUE(target_->SetState(DeviceState::kRunning).ok());
  EXPECT_EQ(Now(*target_), DeviceState::kRunning);
  EXPECT_EQ(target_->content_verified(), target_->kind() == "soft");
}

TEST_P(DeviceContractTest, OnlyOpeningASessionGivesAnFd) {
  for (const DeviceState state : {DeviceState::kStop, DeviceState::kRunning,
                                  DeviceState::kRunningP2p, DeviceState::kRunningP2p}) {
    EXPECT_FALSE(source_->SetState(state).value().valid()) << DeviceStateName(state);
  }
  EXPECT_TRUE(source_->SetState(DeviceState::kStopCopy).value().valid());
  EXPECT_FALSE(source_->SetState(DeviceState::kStopCopy).value().valid());
}

TEST_P(DeviceContractTest, AnFdIsClosedOnExec) {
  const UniqueFd saving = source_->SetState(DeviceState::kStopCopy).value();
  const UniqueFd loading = target_->SetState(DeviceState::kResuming).value();
  EXPECT_TRUE(ClosesOnExec(saving.get()));
  EXPECT_TRUE(ClosesOnExec(loading.get()));
}

TEST_P(DeviceContractTest, AnArcThatIsNotInTheTableChangesNothing) {
  const UniqueFd saving = source_->SetState(DeviceState::kStopCopy).value();
  for (const DeviceState state : {DeviceState::kError, DeviceState::kPreCopy}) {
    EXPECT_EQ(source_->SetState(state).status().code(), absl::StatusCode::kFailedPrecondition);
    EXPECT_EQ(Now(*source_), DeviceState::kStopCopy);
  }
  EXPECT_EQ(ReadToEnd(saving.get()).size(), kStateBytes);
}

TEST_P(DeviceContractTest, ASourceSavesTheSameStateAgainAfterItRan) {
  std::string first;
  {
    const UniqueFd saving = source_->SetState(DeviceState::kStopCopy).value();
    first = ReadToEnd(saving.get());
  }
  ASSERT_TRUE(source_->SetState(DeviceState::kRunning).ok());
  const UniqueFd saving = source_->SetState(DeviceState::kStopCopy).value();
  EXPECT_EQ(ReadToEnd(saving.get()), first);
}

TEST_P(DeviceContractTest, ResetLeadsToRunningFromEveryReachableState) {
  const std::pair<Device*, DeviceState> cases[] = {{source_.get(), DeviceState::kStop},
                                                   {source_.get(), DeviceState::kRunning},
                                                   {source_.get(), DeviceState::kStopCopy},
                                                   {source_.get(), DeviceState::kRunningP2p},
                                                   {target_.get(), DeviceState::kResuming}};
  for (const auto& [device, state] : cases) {
    const UniqueFd session = device->SetState(state).value();
    EXPECT_EQ(Now(*device), state);
    EXPECT_TRUE(device->Reset().ok());
    EXPECT_EQ(Now(*device), DeviceState::kRunning) << "from " << DeviceStateName(state);
    EXPECT_FALSE(device->content_verified());
  }
}

TEST_P(DeviceContractTest, ALoadWorksAfterOneThatWasResetHalfWay) {
  const UniqueFd saving = source_->SetState(DeviceState::kStopCopy).value();
  const std::string state = ReadToEnd(saving.get());
  {
    const UniqueFd loading = target_->SetState(DeviceState::kResuming).value();
    WriteAll(loading.get(), state.substr(0, kStateBytes / 2));
    ASSERT_TRUE(target_->Reset().ok());
  }
  const UniqueFd loading = target_->SetState(DeviceState::kResuming).value();
  WriteAll(loading.get(), state);
  EXPECT_TRUE(target_->SetState(DeviceState::kRunning).ok());
}

TEST_P(DeviceContractTest, AConfigOfAnotherKindIsRefused) {
  ASSERT_TRUE(target_->SetState(DeviceState::kStop).ok());
  EXPECT_EQ(target_->LoadConfig("of something else").code(), absl::StatusCode::kFailedPrecondition);
}

TEST_P(DeviceContractTest, ADeviceWithoutPreCopyHasNoPreCopyInformation) {
  const UniqueFd saving = source_->SetState(DeviceState::kStopCopy).value();
  EXPECT_EQ(source_->GetPrecopyInfo(saving.get()).status().code(),
            absl::StatusCode::kUnimplemented);
}

std::string SoftSpec(const std::string&) { return absl::StrCat("soft:size=", kStateBytes); }

INSTANTIATE_TEST_SUITE_P(
    All, DeviceContractTest,
    testing::Values(Kind{"Soft", SoftSpec, SoftSpec},
                    Kind{"File", [](const std::string& at) { return "file:" + at + "/source"; },
                         [](const std::string& at) { return "file:" + at + "/target"; }}),
    [](const testing::TestParamInfo<Kind>& kind) { return kind.param.name; });

}  // namespace
}  // namespace godwit
