// Goal: a driver's stream is taken apart the same way whatever pieces it comes in; what its driver
// would refuse is named with record and offset; and no bytes whatever make a parser crash, lose
// bytes or grow.
#include "vfio/stream_format.h"

#include <absl/strings/match.h>
#include <absl/strings/str_cat.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <random>

#include "tests/vfio/stream_images.h"

namespace godwit {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

absl::Span<const std::byte> AsBytes(absl::string_view text) {
  return {reinterpret_cast<const std::byte*>(text.data()), text.size()};
}

// Keeps what it is told, a line a record: "  part 1 @44 DEV_FEATURES 16+16: problem".
class Lines final : public StreamSink {
 public:
  void OnHeader(const StreamRecord& record) override { header_problem_ = record.problem; }
  void OnRecord(const StreamRecord& record) override {
    lines.push_back(absl::StrCat(std::string(2 * record.depth, ' '), record.kind, " ", record.index,
                                 " @", record.offset, record.name.empty() ? "" : " ", record.name,
                                 " ", record.header_bytes, "+", record.payload_bytes,
                                 record.problem.empty() ? "" : ": ", record.problem));
    EXPECT_LE(record.first_bytes.size(), StreamRecord::kFirstBytes);
    if (!record.problem.empty()) problems.push_back(record.problem);
    first_bytes.push_back(record.first_bytes);
    // Bytes that lie in no other record.
    const bool container = record.kind == "record" && record.name == "DEVICE_DATA";
    bytes += record.header_bytes + (container ? 0 : record.payload_bytes);
    EXPECT_THAT(record.problem, testing::StartsWith(header_problem_));
  }

  std::vector<std::string> lines;
  std::vector<std::string> problems;
  std::vector<std::string> first_bytes;
  uint64_t bytes = 0;

 private:
  std::string header_problem_;
};

Lines Parse(StreamFormat format, absl::string_view stream, size_t piece_bytes = SIZE_MAX) {
  Lines lines;
  const auto parser = StreamParser::Make(format, lines);
  while (!stream.empty()) {
    parser->Feed(AsBytes(stream.substr(0, piece_bytes)));
    stream.remove_prefix(std::min(piece_bytes, stream.size()));
  }
  parser->Finish();
  return lines;
}

std::map<StreamFormat, std::string> Images() {
  return {{StreamFormat::kRaw, "anything"},         {StreamFormat::kMlx5, image::Mlx5()},
          {StreamFormat::kVirtio, image::Virtio()}, {StreamFormat::kMtty, image::Mtty()},
          {StreamFormat::kQat, image::Qat()},       {StreamFormat::kXe, image::Xe()},
          {StreamFormat::kHisi, image::Hisi()},     {StreamFormat::kPds, "anything"}};
}

TEST(StreamFormatTest, ListsTheRecordsOfMlx5) {
  EXPECT_THAT(Parse(StreamFormat::kMlx5, image::Mlx5()).lines,
              ElementsAre("record 0 @0 STOP_COPY_SIZE 16+8", "record 1 @24 FW_DATA 16+100",
                          "record 2 @140 16+9", "record 3 @165 FW_DATA 16+33"));
}

TEST(StreamFormatTest, ListsTheRecordsAndDevicePartsOfVirtio) {
  const std::string stream = image::Record(0, 0, image::VirtioParts()) + image::Record(9, 1, "x");
  EXPECT_THAT(Parse(StreamFormat::kVirtio, stream).lines,
              ElementsAre("record 0 @0 DEVICE_DATA 16+193", "  part 0 @16 DEV_FEATURES 16+16",
                          "  part 1 @48 DRV_FEATURES 16+16", "  part 2 @80 PCI_COMMON_CFG 16+1",
                          "  part 3 @97 DEVICE_STATUS 16+1", "  part 4 @114 VQ_CFG 16+32",
                          "  part 5 @162 VQ_NOTIFY_CFG 16+8", "  part 6 @186 device specific 16+7",
                          "record 1 @209 16+1"));
}

TEST(StreamFormatTest, ListsHeadersOfFixedLayouts) {
  EXPECT_THAT(Parse(StreamFormat::kMtty, image::Mtty()).lines,
              ElementsAre("header 0 @0 mtty 24+0", "port 1 @24 0+36", "port 2 @60 0+36"));
  EXPECT_THAT(Parse(StreamFormat::kQat, image::Qat()).lines,
              ElementsAre("header 0 @0 qat 16+0", "section 1 @16 CONFIG 16+40",
                          "section 2 @72 ETRBAR 16+200", "section 3 @288 GENER 16+0",
                          "padding 4 @304 0+3792"));
  EXPECT_THAT(Parse(StreamFormat::kXe, image::Xe()).lines,
              ElementsAre("packet 0 @0 DESCRIPTOR 24+16", "packet 1 @40 GGTT 24+64",
                          "packet 2 @128 VRAM 24+300", "packet 3 @452 VRAM 24+1",
                          "packet 4 @477 TRAILER 24+0"));
  EXPECT_THAT(Parse(StreamFormat::kHisi, image::Hisi()).lines,
              ElementsAre("header 0 @0 hisi 40+0", "state 1 @40 0+136"));
}

TEST(StreamFormatTest, ShowsTheFirstBytesOfAPayload) {
  const Lines lines = Parse(StreamFormat::kMlx5, image::Record(0x55, 1, "0123456789abcdefXYZ"));
  EXPECT_THAT(lines.first_bytes, ElementsAre("0123456789abcdef"));
}

TEST(StreamFormatTest, FindsTheSameWhereverTheStreamIsSplit) {
  for (const auto& [format, stream] : Images()) {
    const Lines whole = Parse(format, stream);
    EXPECT_THAT(whole.problems, testing::IsEmpty()) << StreamFormatName(format);
    EXPECT_EQ(whole.bytes, stream.size()) << StreamFormatName(format);
    for (size_t at = 0; at <= stream.size(); ++at) {
      Lines split;
      const auto parser = StreamParser::Make(format, split);
      parser->Feed(AsBytes(stream).subspan(0, at));
      parser->Feed(AsBytes(stream).subspan(at));
      parser->Finish();
      ASSERT_EQ(split.lines, whole.lines) << StreamFormatName(format) << " split at " << at;
      ASSERT_EQ(split.first_bytes, whole.first_bytes);
    }
    for (const size_t piece_bytes : {1U, 7U, 41U}) {
      EXPECT_EQ(Parse(format, stream, piece_bytes).lines, whole.lines) << StreamFormatName(format);
    }
  }
}

TEST(StreamFormatTest, NamesWhatIsMissingWhereverTheStreamIsCut) {
  for (const auto& [format, stream] : Images()) {
    if (format == StreamFormat::kRaw || format == StreamFormat::kPds) continue;
    for (size_t bytes = 0; bytes < stream.size(); ++bytes) {
      const Lines cut = Parse(format, stream.substr(0, bytes));
      const bool whole_records =
          (format == StreamFormat::kMlx5 &&
           (bytes == 0 || bytes == 24 || bytes == 140 || bytes == 165)) ||
          (format == StreamFormat::kVirtio && (bytes == 0 || bytes == 209 || bytes == 232));
      ASSERT_EQ(cut.problems.size(), whole_records ? 0U : 1U)
          << StreamFormatName(format) << " cut to " << bytes;
    }
  }
  EXPECT_THAT(Parse(StreamFormat::kMlx5, image::Mlx5().substr(0, 150)).lines,
              ElementsAre("record 0 @0 STOP_COPY_SIZE 16+8", "record 1 @24 FW_DATA 16+100",
                          "bytes 2 @140 0+10: the stream ends in a record's header: 10 of its 16 "
                          "bytes are there"));
  EXPECT_THAT(Parse(StreamFormat::kMlx5, image::Mlx5().substr(0, 30 + 16)).lines.back(),
              "record 1 @24 FW_DATA 16+100: the stream ends in it: 6 of its 100 bytes are there");
  EXPECT_THAT(Parse(StreamFormat::kMtty, "").lines,
              ElementsAre("bytes 0 @0 0+0: the stream ends before its header"));
}

TEST(StreamFormatTest, RefusesMandatoryTagsAndSkipsOptionalOnes) {
  EXPECT_THAT(Parse(StreamFormat::kMlx5, image::Record(2, 1, "x")).problems, testing::IsEmpty());
  EXPECT_THAT(Parse(StreamFormat::kMlx5, image::Record(2, 0, "x")).problems,
              ElementsAre("its tag 0x2 is mandatory, and mlx5 does not know it"));
  EXPECT_THAT(Parse(StreamFormat::kVirtio, image::Record(1, 0, "x")).problems,
              ElementsAre("its tag 0x1 is mandatory, and virtio does not know it"));
  const auto part = [](uint16_t type, uint8_t flags) {
    return Parse(StreamFormat::kVirtio, image::Record(0, 0, image::Part(type, flags, 0, "x")))
        .problems;
  };
  EXPECT_THAT(part(0x106, 1), testing::IsEmpty());
  EXPECT_THAT(part(0x106, 0), ElementsAre(HasSubstr("type 0x106 is mandatory")));
  EXPECT_THAT(part(0, 0), ElementsAre(HasSubstr("type 0x0 is mandatory")));
  EXPECT_THAT(part(0x300, 0), testing::IsEmpty());
}

TEST(StreamFormatTest, RefusesPartsThatDoNotFitTheirRecord) {
  std::string longer = image::Part(0x103, 0, 0, "\x0f");
  longer[12] = 2;
  EXPECT_THAT(Parse(StreamFormat::kVirtio, image::Record(0, 0, longer)).problems,
              ElementsAre("its value has 2 bytes, but its record ends after 1"));
  EXPECT_THAT(Parse(StreamFormat::kVirtio, image::Record(0, 0, "short") + image::Virtio()).problems,
              ElementsAre("its record ends in a device part's header"));
  std::string reserved = image::Part(0x103, 0, 0, "\x0f");
  reserved[3] = 1;
  EXPECT_THAT(Parse(StreamFormat::kVirtio, image::Record(0, 0, reserved)).problems,
              ElementsAre("its reserved byte is 0x01"));
}

TEST(StreamFormatTest, RefusesMagicsAndVersionsThatTheDriverDoesNotKnow) {
  EXPECT_THAT(Parse(StreamFormat::kMtty, image::MttyHeader(2, 1)).problems,
              ElementsAre("its version is 2, mtty knows 1"));
  EXPECT_THAT(Parse(StreamFormat::kMtty, image::MttyHeader(1, 3)).problems,
              ElementsAre("it has 3 ports, mtty has 1 to 2"));
  EXPECT_THAT(Parse(StreamFormat::kMtty, image::Hisi()).problems,
              ElementsAre(HasSubstr("its magic is 0xaaccfeeddecadede")));
  EXPECT_THAT(Parse(StreamFormat::kQat, image::QatPreamble(2, 0, 0)).problems,
              ElementsAre("its version is 2, qat knows 1"));
  EXPECT_THAT(Parse(StreamFormat::kQat, image::QatPreamble(1, 1, 5000)).problems,
              ElementsAre(HasSubstr("not within the state's 4096")));
  EXPECT_THAT(Parse(StreamFormat::kHisi, image::Hisi(0xaaccfeeddecadede, 2)).problems,
              ElementsAre("its version is 2, hisi knows 1"));
  EXPECT_THAT(Parse(StreamFormat::kHisi, image::Hisi(0xcdcdcdcdfeedaacc, 0)).problems,
              testing::IsEmpty());  // had no version yet
  EXPECT_THAT(Parse(StreamFormat::kHisi, image::Hisi(1)).problems,
              ElementsAre(HasSubstr("its magic is 0x0000000000000001")));
  EXPECT_THAT(Parse(StreamFormat::kXe, image::XePacket(1, 0, "", 2)).problems,
              ElementsAre("its version is 2, xe knows 1"));
  EXPECT_THAT(Parse(StreamFormat::kXe, image::XePacket(3, 0, "")).problems,
              ElementsAre("its type is 3, but the first is a descriptor, 1"));
  EXPECT_THAT(Parse(StreamFormat::kXe, image::XePacket(1, 0, "") + image::XePacket(7, 0, "x") +
                                           image::XePacket(2, 0, ""))
                  .problems,
              ElementsAre("its type 7 is not known to xe"));
}

TEST(StreamFormatTest, RefusesMoreThanTheStateHas) {
  const std::string more = "there are more bytes than the state has";
  EXPECT_THAT(Parse(StreamFormat::kMtty, image::Mtty() + "x").problems, ElementsAre(more));
  EXPECT_THAT(Parse(StreamFormat::kQat, image::Qat() + "x").problems, ElementsAre(more));
  EXPECT_THAT(Parse(StreamFormat::kHisi, image::Hisi() + "x").problems, ElementsAre(more));
  EXPECT_THAT(Parse(StreamFormat::kXe, image::Xe() + "x").problems, ElementsAre(more));
  EXPECT_THAT(Parse(StreamFormat::kPds, std::string(65536, 'p')).problems, testing::IsEmpty());
  EXPECT_THAT(Parse(StreamFormat::kPds, std::string(65537, 'p'), 1000).lines,
              ElementsAre("bytes 0 @0 0+65536", "bytes 1 @65536 0+1: " + more));
}

TEST(StreamFormatTest, RecognisesEachByItsFirstBytes) {
  for (const auto& [format, stream] : Images()) {
    const bool has_form = format != StreamFormat::kRaw && format != StreamFormat::kPds;
    EXPECT_EQ(RecogniseStream(AsBytes(stream)), has_form ? std::optional(format) : std::nullopt);
  }
  EXPECT_EQ(RecogniseStream({}), std::nullopt);
  EXPECT_EQ(RecogniseStream(AsBytes(std::string(4096, '\0'))), std::nullopt);
  // A first header that makes sense, and a second that doesn't.
  EXPECT_EQ(RecogniseStream(AsBytes(image::Record(0, 0, "x") + std::string(64, 'z'))),
            std::nullopt);
  // What is cut off is still of its kind.
  EXPECT_EQ(RecogniseStream(AsBytes(image::Mlx5().substr(0, 30))), StreamFormat::kMlx5);
}

TEST(StreamFormatTest, NamesFormatsBothWays) {
  for (const auto& [format, stream] : Images()) {
    const auto parsed = ParseStreamFormat(StreamFormatName(format));
    ASSERT_TRUE(parsed.ok());
    EXPECT_EQ(*parsed, format);
  }
  EXPECT_THAT(std::string(ParseStreamFormat("mlx6").status().message()),
              HasSubstr("'mlx6' is none of raw, mlx5, virtio, mtty, qat, xe, hisi, pds"));
}

// Seeded and so the same every time; as long as it is quick, more is better.
TEST(StreamFormatTest, SurvivesWhateverItIsFed) {
  constexpr int kMutationsAFormat = 4000;
  constexpr uint64_t kSeed = 20240613;
  SCOPED_TRACE(absl::StrCat("seed ", kSeed));
  std::mt19937_64 random(kSeed);
  const auto below = [&random](size_t limit) { return static_cast<size_t>(random() % limit); };
  for (const auto& [format, stream] : Images()) {
    for (int i = 0; i < kMutationsAFormat; ++i) {
      std::string mutated = stream;
      for (size_t changes = 1 + below(4); changes > 0; --changes) {
        const size_t at = below(mutated.size());
        switch (below(5)) {
          case 0:
            mutated[at] = static_cast<char>(random());
            break;
          case 1:
            mutated[at] = static_cast<char>(mutated[at] ^ 1 << below(8));
            break;
          case 2:
            mutated.resize(at + 1);
            break;
          case 3:
            mutated.insert(at, image::Little(UINT64_MAX >> below(64), 8));
            break;
          default:
            mutated.insert(at, mutated.substr(below(mutated.size()), below(64)));
            break;
        }
      }
      const Lines whole = Parse(format, mutated);
      const Lines pieces = Parse(format, mutated, 1 + below(50));
      ASSERT_EQ(whole.lines, pieces.lines) << StreamFormatName(format) << ", mutation " << i;
      // Every byte lies in some record; only one that the end cut short claims more than there is.
      const bool cut = !whole.problems.empty() &&
                       absl::StrContains(whole.problems.back(), "the stream ends in it");
      ASSERT_TRUE(cut || whole.bytes == mutated.size())
          << StreamFormatName(format) << ", mutation " << i << ": "
          << testing::PrintToString(whole.lines);
      (void)RecogniseStream(AsBytes(mutated));
    }
  }
}

}  // namespace
}  // namespace godwit
