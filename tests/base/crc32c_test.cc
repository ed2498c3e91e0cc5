// Goal: our CRC-32C is the world's CRC-32C, and extending it equals computing it in one go.
#include "base/crc32c.h"

#include <gtest/gtest.h>

#include <cstring>
#include <string>

namespace godwit {
namespace {

absl::Span<const std::byte> Bytes(const std::string& text) {
  return {reinterpret_cast<const std::byte*>(text.data()), text.size()};
}

TEST(Crc32cTest, MatchesTheStandardCheckValues) {
  EXPECT_EQ(Crc32cExtend(kCrc32cOfNothing, Bytes("123456789")), 0xe3069283U);
  // RFC 3720 B.4.
  EXPECT_EQ(Crc32cExtend(kCrc32cOfNothing, Bytes(std::string(32, '\0'))), 0x8a9136aaU);
  EXPECT_EQ(Crc32cExtend(kCrc32cOfNothing, Bytes(std::string(32, '\xff'))), 0x62a8ab43U);
}

TEST(Crc32cTest, ExtendingPieceByPieceEqualsOneGo) {
  std::string text;
  for (int i = 0; i < 1000; ++i) text.push_back(static_cast<char>(i * 7));
  const uint32_t whole = Crc32cExtend(kCrc32cOfNothing, Bytes(text));
  for (size_t cut = 0; cut <= text.size(); ++cut) {
    const uint32_t first = Crc32cExtend(kCrc32cOfNothing, Bytes(text.substr(0, cut)));
    ASSERT_EQ(Crc32cExtend(first, Bytes(text.substr(cut))), whole) << "cut at " << cut;
  }
}

TEST(Crc32cTest, NothingLeavesTheCrcAlone) {
  EXPECT_EQ(Crc32cExtend(kCrc32cOfNothing, {}), kCrc32cOfNothing);
  EXPECT_EQ(Crc32cExtend(0x12345678, {}), 0x12345678U);
}

}  // namespace
}  // namespace godwit
