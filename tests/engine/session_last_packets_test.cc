// Goal: lanes end together: packets get smaller towards an end that the device has foretold, and
// only then; and both sides say how far apart the lanes ended.
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <map>
#include <mutex>
#include <vector>

#include "base/units.h"
#include "tests/engine/session_world.h"
#include "tests/engine/wrapped_device.h"

namespace godwit {
namespace {

constexpr uint64_t kFileBytes = 16 * kMiB;

// The sizes of what was read, by index.
class ReadSizes final : public TraceSink {
 public:
  void OnSpan(const TraceSpan& span) override {
    if (span.track != TraceSpan::Track::kReader || span.bytes == 0) return;
    const std::lock_guard<std::mutex> lock(mutex_);
    of_[span.index] = span.bytes;
  }
  std::vector<uint64_t> InOrder() const {
    std::vector<uint64_t> sizes;
    for (const auto& [index, bytes] : of_) sizes.push_back(bytes);
    return sizes;
  }

 private:
  std::mutex mutex_;
  std::map<uint32_t, uint64_t> of_;
};

class SessionLastPacketsTest : public testing::Test {
 protected:
  void SetUp() override {
    folder_ = std::filesystem::temp_directory_path() /
              absl::StrCat("godwit-last-packets-", ::getpid(), "-",
                           testing::UnitTest::GetInstance()->random_seed());
    std::filesystem::create_directory(folder_);
    std::ofstream(folder_ / "from") << std::string(kFileBytes, 'x');
  }
  void TearDown() override { std::filesystem::remove_all(folder_); }

  // A file of 16 MiB over so many lanes, in packets of 1 MiB. What its device says of its size: the
  // truth where nothing is given.
  void Move(uint32_t lanes, std::optional<uint64_t> said = std::nullopt) {
    const Watchdog watchdog("a session");
    const Devices from({absl::StrCat("file:", (folder_ / "from").string())}, DeviceRole::kSource);
    const Devices to({absl::StrCat("file:", (folder_ / "to").string())}, DeviceRole::kTarget);
    WrappedDevice device(*from.pointers()[0]);
    device.stop_copy_bytes = said;
    TargetOptions target_options = RunningTarget::DefaultOptions();
    target_options.arena_bytes = 64 * kMiB;
    RunningTarget target(to.pointers(), target_options);
    SourceOptions options = SourceOptionsFor(target.Port());
    options.lanes = lanes;
    options.packet_bytes = kMiB;
    options.trace = &sizes_;
    RecordingObserver observer;
    SourceSession session(options, {&device}, observer);
    source_ = session.Run();
    target_ = target.Report();
    ASSERT_EQ(source_.outcome, SessionOutcome::kDone) << source_.status;
    ASSERT_EQ(target_.outcome, SessionOutcome::kDone) << target_.status;
    ASSERT_EQ(source_.bytes, kFileBytes);
  }

  std::filesystem::path folder_;
  ReadSizes sizes_;
  SessionReport source_;
  SessionReport target_;
};

TEST_F(SessionLastPacketsTest, GetSmallerTowardsAnEndThatIsKnown) {
  Move(2);
  const std::vector<uint64_t> sizes = sizes_.InOrder();
  EXPECT_TRUE(std::is_sorted(sizes.rbegin(), sizes.rend()));
  EXPECT_EQ(sizes.front(), kMiB);
  EXPECT_EQ(sizes.back(), 64 * kKiB);
  EXPECT_GE(std::count(sizes.begin(), sizes.end(), kMiB), 8);
  EXPECT_LE(sizes.size(), 40U);
}

TEST_F(SessionLastPacketsTest, StayWholeWhereTheDeviceDoesNotSayHowMuchThereIs) {
  Move(2, 0);
  EXPECT_EQ(sizes_.InOrder(), std::vector<uint64_t>(16, kMiB));
}

TEST_F(SessionLastPacketsTest, StayWholeOnOneLane) {
  Move(1);
  EXPECT_EQ(sizes_.InOrder(), std::vector<uint64_t>(16, kMiB));
}

TEST_F(SessionLastPacketsTest, AreWholeAgainWhereThereIsMoreThanTheDeviceSaid) {
  Move(2, 4 * kMiB);
  const std::vector<uint64_t> sizes = sizes_.InOrder();
  EXPECT_EQ(std::count(sizes.begin(), sizes.end(), kMiB), 11);
  EXPECT_LE(sizes.size(), 40U);
}

TEST_F(SessionLastPacketsTest, HowFarApartTheLanesEndedIsTheSameOnBothSides) {
  Move(4);
  EXPECT_EQ(source_.lane_finish_lag, target_.lane_finish_lag);
  EXPECT_LE(source_.lane_finish_lag, source_.stream_time);
}

TEST_F(SessionLastPacketsTest, OneLaneEndsWithItself) {
  Move(1);
  EXPECT_EQ(source_.lane_finish_lag.count(), 0);
  EXPECT_EQ(target_.lane_finish_lag.count(), 0);
}

}  // namespace
}  // namespace godwit
