// Goal: sizes are read as written or refused, never guessed.
#include "base/units.h"

#include <gtest/gtest.h>

namespace godwit {
namespace {

TEST(UnitsTest, ReadsSizesInEverySpelling) {
  const std::pair<const char*, uint64_t> cases[] = {
      {"0", 0},
      {"1", 1},
      {"4096B", 4096},
      {"1KiB", 1024},
      {"64MiB", 64 << 20},
      {"1.5GiB", 3 * kGiB / 2},
      {"2T", 2048 * kGiB},
      {"0.5K", 512},
      {"9223372036854775807", 9223372036854775807ULL}};
  for (const auto& [text, bytes] : cases) {
    const auto parsed = ParseBytes(text);
    ASSERT_TRUE(parsed.ok()) << text << ": " << parsed.status();
    EXPECT_EQ(*parsed, bytes) << text;
  }
}

TEST(UnitsTest, RefusesWhatIsNoSize) {
  for (const char* text : {"", "GiB", "1 GiB", "-1", "1GB", "1XiB", "1.3B", "0x10", "1e6", "1..5K",
                           "9223372036854775808", "99999999TiB", "1KiBB", "."}) {
    EXPECT_FALSE(ParseBytes(text).ok()) << "'" << text << "'";
  }
}

TEST(UnitsTest, FormatsForPeople) {
  EXPECT_EQ(FormatBytes(0), "0 B");
  EXPECT_EQ(FormatBytes(1023), "1023 B");
  EXPECT_EQ(FormatBytes(kGiB), "1.00 GiB");
  EXPECT_EQ(FormatBytes(64 * kMiB), "64.0 MiB");
  EXPECT_EQ(FormatBytes(1000 * kMiB), "0.98 GiB");
}

}  // namespace
}  // namespace godwit
