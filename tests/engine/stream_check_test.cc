// Goal: a stream that its driver would not know is refused at the record's header, by name and
// offset; one that it knows passes whatever pieces it comes in.
#include "godwit/stream_check.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/vfio/stream_images.h"
#include "tests/vfio/stream_io.h"
#include "vfio/device_spec.h"
#include "vfio/stream_format.h"

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

struct SoftStream {
  const char* profile;
  const char* options;
};
constexpr SoftStream kSoftStreams[] = {{"mlx5", ",size=100000"},
                                       {"hisi", ""},
                                       {"pds", ",size=64KiB"},
                                       {"qat", ""},
                                       {"virtio", ",size=100000"},
                                       {"xe", ",size=100000"},
                                       {"mtty", ""},
                                       {"mtty", ",size=96"}};

std::string SaveSoft(const SoftStream& soft, absl::string_view more = "") {
  const auto device =
      OpenDevice(absl::StrCat("soft:profile=", soft.profile, soft.options, ",seed=3", more),
                 DeviceRole::kSource);
  EXPECT_TRUE(device.ok()) << device.status();
  const absl::StatusOr<UniqueFd> saving = (*device)->SetState(DeviceState::kStopCopy);
  EXPECT_TRUE(saving.ok()) << saving.status();
  return ReadToEnd(saving->get());
}

TEST(StreamCheckTest, ASoftProfilesStreamIsItsDriversAndNoOthers) {
  for (const SoftStream& soft : kSoftStreams) {
    const std::string stream = SaveSoft(soft);
    for (const absl::string_view driver : {"mlx5", "hisi", "pds", "qat", "virtio", "xe", "mtty"}) {
      // virtio's records are mlx5's, whose payload only the firmware knows; pds has no form.
      const bool fits = driver == soft.profile ||
                        (driver == "mlx5" && absl::string_view(soft.profile) == "virtio") ||
                        (driver == "pds" && stream.size() <= kPdsBytesMax);
      const absl::Status status = Judge(driver, stream).status;
      EXPECT_EQ(status.ok(), fits)
          << soft.profile << soft.options << " as " << driver << ": " << status;
    }
  }
}

TEST(StreamCheckTest, ASoftProfilesStreamIsRecognisedByItsFirstBytes) {
  for (const SoftStream& soft : kSoftStreams) {
    const std::string stream = SaveSoft(soft);
    const std::optional<StreamFormat> recognised = RecogniseStream(AsBytes(stream));
    if (absl::string_view(soft.profile) == "pds") {
      EXPECT_FALSE(recognised.has_value());
      continue;
    }
    ASSERT_TRUE(recognised.has_value()) << soft.profile << soft.options;
    EXPECT_EQ(StreamFormatName(*recognised), soft.profile);
  }
}

TEST(StreamCheckTest, ASoftProfilesMandatoryTagIsRefusedAndItsOptionalOneIsNot) {
  for (const SoftStream& soft : kSoftStreams) {
    const absl::string_view profile = soft.profile;
    if (profile != "mlx5" && profile != "virtio") continue;
    EXPECT_TRUE(Judge(profile, SaveSoft(soft, ",unknown_tag=optional")).status.ok());
    EXPECT_THAT(
        std::string(Judge(profile, SaveSoft(soft, ",unknown_tag=mandatory")).status.message()),
        HasSubstr("its tag 0x63 is mandatory"));
  }
}

TEST(StreamCheckTest, ListsItsProfiles) {
  const auto check = MakeStreamCheck("mlx6");
  EXPECT_TRUE(absl::IsInvalidArgument(check.status()));
  EXPECT_THAT(std::string(check.status().message()), HasSubstr(StreamCheckProfiles()));
}

}  // namespace
}  // namespace godwit
