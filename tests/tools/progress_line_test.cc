#include "tools/progress_line.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>

namespace godwit {
namespace {

using ::testing::EndsWith;
using ::testing::HasSubstr;
using ::testing::Not;

SessionProgress Progress(SessionPhase phase) {
  SessionProgress progress;
  progress.phase = phase;
  progress.bytes = 3 << 20;
  progress.bytes_total = 4 << 20;
  return progress;
}

std::vector<DeviceStatistics> Devices(size_t count, uint64_t bytes = 2, uint64_t expected = 4) {
  DeviceStatistics device;
  device.bytes = bytes;
  device.bytes_expected = expected;
  return std::vector<DeviceStatistics>(count, device);
}

TEST(ProgressText, HasNoNumbersBeforeAnythingMoves) {
  EXPECT_EQ(ProgressText(Progress(SessionPhase::kConnecting), Devices(2), 1, 100), "connecting  ");
}

TEST(ProgressText, HasPhaseBytesAndRate) {
  EXPECT_EQ(ProgressText(Progress(SessionPhase::kStreaming), {}, 1.25, 100),
            "streaming    3.00 MiB of 4.00 MiB  75 %  1.25 GiB/s");
}

TEST(ProgressText, HasTheDowntimeEstimateInPreCopy) {
  SessionProgress progress = Progress(SessionPhase::kPreCopying);
  progress.downtime_estimate = std::chrono::milliseconds(120);
  EXPECT_THAT(ProgressText(progress, {}, 1, 100), EndsWith("  downtime now 120 ms"));
}

TEST(ProgressText, HasABarForEachOfSeveralDevices) {
  const SessionProgress progress = Progress(SessionPhase::kStreaming);
  EXPECT_THAT(ProgressText(progress, Devices(2), 1, 100), EndsWith("  [####----] [####----]"));
  EXPECT_THAT(ProgressText(progress, Devices(1), 1, 100), Not(HasSubstr("[")));
}

TEST(ProgressText, FillsABarOfMoreThanWasExpectedAndDoubtsOneOfNoEstimate) {
  const SessionProgress progress = Progress(SessionPhase::kStreaming);
  EXPECT_THAT(ProgressText(progress, Devices(2, 9), 1, 100), EndsWith(" [########] [########]"));
  EXPECT_THAT(ProgressText(progress, Devices(2, 9, 0), 1, 100), EndsWith(" [????????]"));
}

TEST(ProgressText, NeverIsWiderThanTheTerminalAndSaysHowManyBarsDontFit) {
  const SessionProgress progress = Progress(SessionPhase::kStreaming);
  for (const size_t devices : {0U, 1U, 2U, 3U, 5U, 64U}) {
    size_t bars_before = 0;
    for (size_t columns = 0; columns <= 800; ++columns) {
      SCOPED_TRACE(absl::StrCat(devices, " devices, ", columns, " columns"));
      const std::string text = ProgressText(progress, Devices(devices), 1, columns);
      ASSERT_LE(text.size(), columns);
      const auto bars = static_cast<size_t>(std::count(text.begin(), text.end(), '['));
      ASSERT_GE(bars, bars_before);  // more room never shows fewer
      bars_before = bars;
      if (bars > 0 && bars < devices) {
        ASSERT_THAT(text, EndsWith(absl::StrCat("] +", devices - bars)));
      }
    }
    EXPECT_EQ(bars_before, devices > 1 ? devices : 0U);
  }
}

}  // namespace
}  // namespace godwit
