// Goal: a stream that its driver would not know is refused at the record's header, by name and
// offset; one that it knows passes whatever pieces it comes in.
#include "godwit/stream_check.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/vfio/stream_images.h"

namespace godwit {
namespace {

using testing::HasSubstr;

absl::Span<const std::byte> AsBytes(absl::string_view text) {
  return {reinterpret_cast<const std::byte*>(text.data()), text.size()};
}

// What the check says to the stream, a byte at a time, and how many bytes it let pass.
struct Verdict {
  absl::Status status;
  size_t passed = 0;
};
Verdict Judge(absl::string_view profile, absl::string_view stream) {
  const auto check = MakeStreamCheck(profile).value();
  Verdict verdict;
  for (const char& byte : stream) {
    verdict.status = check->Feed(AsBytes({&byte, 1}));
    if (!verdict.status.ok()) return verdict;
    ++verdict.passed;
  }
  verdict.status = check->End();
  return verdict;
}

TEST(StreamCheckTest, LetsPassWhatTheDriverKnows) {
  EXPECT_TRUE(Judge("mlx5", image::Mlx5()).status.ok());
  EXPECT_TRUE(Judge("virtio", image::Virtio()).status.ok());
  EXPECT_TRUE(Judge("mtty", image::Mtty()).status.ok());
  EXPECT_TRUE(Judge("qat", image::Qat()).status.ok());
  EXPECT_TRUE(Judge("xe", image::Xe()).status.ok());
  EXPECT_TRUE(Judge("hisi", image::Hisi()).status.ok());
  EXPECT_TRUE(Judge("pds", "anything").status.ok());
  EXPECT_TRUE(Judge("raw", "anything").status.ok());
  EXPECT_TRUE(Judge("raw", "").status.ok());
}

TEST(StreamCheckTest, RefusesAtTheHeaderWithRecordAndOffset) {
  const std::string good = image::Record(0, 0, "state");
  const Verdict verdict = Judge("mlx5", good + image::Record(7, 0, std::string(1000, 'x')));
  EXPECT_EQ(verdict.passed, good.size() + 15);  // the header's last byte decides
  EXPECT_EQ(verdict.status.message(),
            "the stream is not one for mlx5: record 1 at byte 21: its tag 0x7 is mandatory, and "
            "mlx5 does not know it");
}

TEST(StreamCheckTest, RefusesPartsVersionsAndMagics) {
  EXPECT_THAT(
      std::string(
          Judge("virtio", image::Record(0, 0, image::Part(0x1f0, 0, 0, "v"))).status.message()),
      HasSubstr("part 0 at byte 16: its type 0x1f0 is mandatory"));
  EXPECT_THAT(std::string(Judge("mtty", image::MttyHeader(9, 1)).status.message()),
              HasSubstr("header 0 at byte 0: its version is 9, mtty knows 1"));
  EXPECT_THAT(std::string(Judge("hisi", image::Qat()).status.message()),
              HasSubstr("header 0 at byte 0: its magic is"));
  EXPECT_THAT(std::string(Judge("xe", image::Mlx5()).status.message()),
              HasSubstr("packet 0 at byte 0: its version is 8"));
}

TEST(StreamCheckTest, RefusesATruncatedStreamBeforeTheDeviceValidates) {
  const std::string stream = image::Mlx5();
  const Verdict verdict = Judge("mlx5", stream.substr(0, stream.size() - 1));
  EXPECT_EQ(verdict.passed, stream.size() - 1);
  EXPECT_THAT(std::string(verdict.status.message()),
              HasSubstr("record 3 at byte 165: the stream ends in it: 32 of its 33 bytes"));
}

TEST(StreamCheckTest, StaysWithItsFirstError) {
  const auto check = MakeStreamCheck("mtty").value();
  const absl::Status first = check->Feed(AsBytes(image::MttyHeader(9, 1)));
  EXPECT_FALSE(first.ok());
  EXPECT_EQ(check->Feed(AsBytes("more")), first);
  EXPECT_EQ(check->End(), first);
}

TEST(StreamCheckTest, ListsItsProfiles) {
  const auto check = MakeStreamCheck("mlx6");
  EXPECT_TRUE(absl::IsInvalidArgument(check.status()));
  EXPECT_THAT(std::string(check.status().message()), HasSubstr(StreamCheckProfiles()));
}

}  // namespace
}  // namespace godwit
