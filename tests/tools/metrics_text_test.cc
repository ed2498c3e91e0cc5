#include "tools/metrics_text.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace godwit {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

std::string TextOfDevice(const std::string& name) {
  SessionStatistics statistics;
  statistics.devices.resize(1);
  statistics.devices[0].name = name;
  statistics.devices[0].bytes = 7;
  return MetricsText(SessionSide::kTarget, {}, statistics);
}
std::string BytesLine(const std::string& label) {
  return absl::StrCat("\ngodwit_device_bytes_total{device=\"", label, "\",position=\"0\"} 7\n");
}

TEST(MetricsText, EscapesWhatWouldEndALabelOrItsLine) {
  EXPECT_THAT(TextOfDevice("file:a\"b\\c\nd"), HasSubstr(BytesLine("file:a\\\"b\\\\c\\nd")));
}

TEST(MetricsText, KeepsUtf8AndReplacesWhatIsNone) {
  EXPECT_THAT(TextOfDevice("é€😀"), HasSubstr(BytesLine("é€😀")));
  EXPECT_THAT(TextOfDevice("a\xff\xc3z\xe2\x82"), HasSubstr(BytesLine("a??z??")));
}

TEST(MetricsText, HasSecondsWithoutRounding) {
  SessionStatistics statistics;
  statistics.starved_time = std::chrono::nanoseconds(12'000'000'034);
  EXPECT_THAT(MetricsText(SessionSide::kSource, {}, statistics),
              HasSubstr("\ngodwit_session_starved_seconds_total 12.000000034\n"));
}

TEST(MetricsText, HasOnlyItsOwnSidesFamilies) {
  EXPECT_THAT(MetricsText(SessionSide::kTarget, {}, {}), Not(HasSubstr("starved")));
  EXPECT_THAT(MetricsText(SessionSide::kSource, {}, {}), Not(HasSubstr("reorder")));
}

TEST(MetricsText, SaysOnePhase) {
  SessionProgress progress;
  progress.phase = SessionPhase::kHandingOver;
  const std::string text = MetricsText(SessionSide::kSource, progress, {});
  EXPECT_THAT(text, HasSubstr("godwit_session_phase{phase=\"handing over\"} 1\n"));
  EXPECT_THAT(text, HasSubstr("godwit_session_phase{phase=\"streaming\"} 0\n"));
}

}  // namespace
}  // namespace godwit
