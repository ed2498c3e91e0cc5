// Goal: a context of device parts is taken whole or not at all.
#include "vfio/virtio_parts.h"

#include "vfio/little_endian.h"

namespace godwit {
namespace {

using testing::HasSubstr;

TEST(VirtioPartsTest, APartIsLaidOutAsTheStandardSays) {
  std::string bytes;
  AppendVirtioPart({0x104, 1, 7, "abc"}, bytes);
  EXPECT_EQ(bytes, std::string("\x04\x01"                          // part_type
                               "\x01\x00"                          // flags, reserved
                               "\x07\x00\x00\x00\x00\x00\x00\x00"  // selector
                               "\x03\x00\x00\x00"                  // length
                               "abc",
                               19));
}

TEST(VirtioPartsTest, AContextHoldsItsContentAndEveryPartOnce) {
  const std::string context = MakeVirtioContext("content");
  EXPECT_EQ(CheckVirtioContext(context).value(), "content");
  std::vector<uint16_t> types;
  const auto parts = ParseVirtioParts(context);
  for (const VirtioPart& part : *parts) types.push_back(part.type);
  EXPECT_THAT(types,
              testing::ElementsAre(0x100, 0x101, 0x102, 0x103, 0x104, 0x105, 0x104, 0x105, 0x200));
}

TEST(VirtioPartsTest, NoPrefixOfAContextIsOne) {
  const std::string context = MakeVirtioContext("content");
  for (size_t bytes = 0; bytes < context.size(); ++bytes) {
    EXPECT_FALSE(CheckVirtioContext(absl::string_view(context).substr(0, bytes)).ok()) << bytes;
  }
}

TEST(VirtioPartsTest, UnknownPartsAreSkippedOrRefused) {
  std::string optional = MakeVirtioContext("x");
  AppendVirtioPart({0x1ff, kVirtioPartOptional, 0, "later"}, optional);
  EXPECT_EQ(CheckVirtioContext(optional).value(), "x");
  std::string mandatory = MakeVirtioContext("x");
  AppendVirtioPart({0x1ff, 0, 0, "later"}, mandatory);
  EXPECT_THAT(std::string(CheckVirtioContext(mandatory).status().message()),
              HasSubstr("mandatory device part 0x1ff is unknown"));
}

TEST(VirtioPartsTest, APartThatIsThereTwiceOrOfTheWrongLengthIsRefused) {
  std::string twice = MakeVirtioContext("x");
  AppendVirtioPart({0x103, 0, 0, "\x0f"}, twice);
  EXPECT_THAT(std::string(CheckVirtioContext(twice).status().message()), HasSubstr("there twice"));
  std::string queue_twice = MakeVirtioContext("x");
  AppendVirtioPart({0x104, 0, 1, std::string(32, 'q')}, queue_twice);
  EXPECT_FALSE(CheckVirtioContext(queue_twice).ok());
  std::string long_part = MakeVirtioContext("x");
  AppendVirtioPart({0x105, 0, 5, "123456789"}, long_part);
  EXPECT_THAT(std::string(CheckVirtioContext(long_part).status().message()),
              HasSubstr("has 9 bytes, not 8"));
}

TEST(VirtioPartsTest, ALengthPastTheRecordIsRefusedAndNotFollowed) {
  std::string bytes;
  AppendVirtioPart({0x200, 0, 0, "abc"}, bytes);
  for (size_t i = 12; i < 16; ++i) bytes[i] = '\xff';
  EXPECT_THAT(std::string(ParseVirtioParts(bytes).status().message()),
              HasSubstr("3 of its 4294967295 bytes"));
}

}  // namespace
}  // namespace godwit
