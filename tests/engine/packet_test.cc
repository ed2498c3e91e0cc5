// Goal: what the code writes and accepts is docs/wire-format.md, section 1, byte for byte; and no
// damaged or unknown header gets past it.
#include "engine/packet.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <fstream>
#include <limits>
#include <random>
#include <sstream>
#include <vector>

#include "tests/engine/wire_image.h"

namespace godwit {
namespace {

using testing::HasSubstr;

std::string BytesOf(const PacketHeader& header) {
  std::string bytes(kFrameHeaderBytes, '?');
  EncodePacketHeader(header, reinterpret_cast<std::byte*>(bytes.data()));
  return bytes;
}

absl::Span<const std::byte> AsBytes(const std::string& text) {
  return {reinterpret_cast<const std::byte*>(text.data()), text.size()};
}

// As a receiver meets a message: header, then payload.
absl::StatusOr<PacketHeader> Receive(const std::string& message) {
  const absl::Span<const std::byte> bytes = AsBytes(message);
  const auto payload = bytes.subspan(kFrameHeaderBytes);
  auto header = DecodePacketHeader(bytes.data(), payload.size());
  if (header.ok() && !PayloadMatches(*header, payload)) return absl::DataLossError("payload");
  return header;
}

PacketHeader FromImage(const wire::Frame& frame) {
  PacketHeader header;
  header.device = frame.device;
  header.epoch = frame.epoch;
  header.payload_bytes = static_cast<uint32_t>(frame.payload.size());
  header.lane_sequence = frame.lane_sequence;
  header.stream_offset = frame.stream_offset;
  header.crc_before = frame.crc_before;
  header.crc_after = frame.crc_after;
  header.config_crc = frame.config_crc;
  header.index = frame.index;
  header.flags = frame.flags;
  return header;
}

wire::Frame ExampleFrame() { return wire::DataFrame(1, 2, "GODWIT", "123456789"); }

// The hex block under "### An example", rows of bytes.
std::vector<std::string> DocumentedRows() {
  std::ifstream page(GODWIT_DOCS_DIR "/wire-format.md");
  EXPECT_TRUE(page.good()) << "no " GODWIT_DOCS_DIR "/wire-format.md";
  std::vector<std::string> rows;
  bool in_section = false;
  bool in_block = false;
  for (std::string line; std::getline(page, line);) {
    if (line == "### An example") in_section = true;
    if (!in_section) continue;
    if (line == "```") {
      if (in_block) break;
      in_block = true;
      continue;
    }
    if (!in_block) continue;
    std::istringstream words(line);
    std::string row;
    for (std::string word; words >> word;) {
      EXPECT_EQ(word.size(), 2U) << line;
      row.push_back(static_cast<char>(std::stoul(word, nullptr, 16)));
    }
    rows.push_back(row);
  }
  return rows;
}

TEST(PacketTest, TheDocumentsExampleIsOursByteForByte) {
  const std::vector<std::string> rows = DocumentedRows();
  ASSERT_EQ(rows.size(), 6U);  // five of header, one of payload
  std::string message;
  for (const std::string& row : rows) message += row;
  for (size_t i = 0; i < 5; ++i) EXPECT_EQ(rows[i].size(), 16U) << "row " << i;

  EXPECT_EQ(message, wire::Encode(ExampleFrame()));
  EXPECT_EQ(message, BytesOf(FromImage(ExampleFrame())) + "123456789");
  const auto header = Receive(message);
  ASSERT_TRUE(header.ok()) << header.status();
  EXPECT_EQ(*header, FromImage(ExampleFrame()));
}

TEST(PacketTest, OurOwnCrcOfThisTestIsTheRfcs) {
  EXPECT_EQ(wire::Crc32c("123456789"), 0xe3069283);
  EXPECT_EQ(wire::Crc32c(std::string(32, '\0')), 0x8a9136aa);  // RFC 3720, appendix B.4
  EXPECT_EQ(wire::Crc32c(""), 0U);
}

TEST(PacketTest, EveryFieldStandsWhereTheTableSays) {
  wire::Frame frame;
  frame.device = 0x1122;
  frame.payload = std::string(0x1234, 'x');
  frame.lane_sequence = 0x0102030405060708;
  frame.stream_offset = 0x1112131415161718;
  frame.crc_before = 0x21222324;
  frame.crc_after = 0x31323334;
  frame.config_crc = 0x41424344;
  frame.index = 0x51525354;
  frame.flags = 1;
  EXPECT_EQ(BytesOf(FromImage(frame)), wire::Encode(frame).substr(0, kFrameHeaderBytes));
}

TEST(PacketTest, TheTailIsQemusPacket) {
  PacketHeader header;
  header.index = 7;
  header.flags = kPacketFlagConfigState;
  const std::string tail = BytesOf(header).substr(68);
  EXPECT_EQ(tail, std::string("\0\0\0\0\0\0\0\7\0\0\0\1", 12));
}

TEST(PacketTest, HeadersComeBackAsTheyWent) {
  const unsigned seed = std::random_device()();
  SCOPED_TRACE(absl::StrCat("seed ", seed));
  std::mt19937_64 random(seed);
  for (int i = 0; i < 10'000; ++i) {
    PacketHeader header;
    header.device = static_cast<uint16_t>(random());
    header.payload_bytes = static_cast<uint32_t>(random());
    header.lane_sequence = random();
    header.stream_offset = random();
    header.crc_before = static_cast<uint32_t>(random());
    header.crc_after = static_cast<uint32_t>(random());
    header.config_crc = static_cast<uint32_t>(random());
    header.index = static_cast<uint32_t>(random() % kPacketIndexInvalid);
    header.flags = static_cast<uint32_t>(random() & 1);
    const std::string bytes = BytesOf(header);
    const auto back = DecodePacketHeader(AsBytes(bytes).data(), header.payload_bytes);
    ASSERT_TRUE(back.ok()) << back.status();
    ASSERT_EQ(*back, header);
  }
}

TEST(PacketTest, EveryFlippedBitIsNoticed) {
  for (const wire::Frame& frame :
       {ExampleFrame(), wire::ConfigFrame(3, 9, "GODWIT", "some configuration")}) {
    const std::string message = wire::Encode(frame);
    ASSERT_TRUE(Receive(message).ok());
    for (size_t bit = 0; bit < 8 * message.size(); ++bit) {
      std::string damaged = message;
      damaged[bit / 8] = static_cast<char>(damaged[bit / 8] ^ 1 << bit % 8);
      EXPECT_FALSE(Receive(damaged).ok()) << "byte " << bit / 8 << ", bit " << bit % 8;
    }
  }
}

TEST(PacketTest, AConfigPacketEndsTheStreamWhereItStands) {
  wire::Frame config = wire::ConfigFrame(0, 1, "GODWIT", "c");
  config.crc_after ^= 1;  // the stream can't go on inside it
  EXPECT_FALSE(Receive(wire::Encode(config)).ok());
  wire::Frame data = ExampleFrame();
  data.config_crc = 1;
  EXPECT_FALSE(Receive(wire::Encode(data)).ok());
}

struct Lie {
  const char* name;
  void (*tell)(wire::Frame&);
  absl::StatusCode code;
  std::vector<const char*> words;  // of the message
};

// In the order of checks of the document.
const std::vector<Lie>& Lies() {
  static const std::vector<Lie> lies = {
      {"Magic",
       [](wire::Frame& f) { f.magic = 0x47445755; },
       absl::StatusCode::kDataLoss,
       {"magic", "0x47445755"}},
      {"HeaderCrc",
       [](wire::Frame& f) { f.header_crc = 0x12345678; },
       absl::StatusCode::kDataLoss,
       {"header CRC", "0x12345678"}},
      {"FrameVersion",
       [](wire::Frame& f) { f.version = 2; },
       absl::StatusCode::kInvalidArgument,
       {"frame version", "2"}},
      {"Type",
       [](wire::Frame& f) { f.type = 7; },
       absl::StatusCode::kInvalidArgument,
       {"type", "7"}},
      {"PacketVersion",
       [](wire::Frame& f) { f.packet_version = 5; },
       absl::StatusCode::kInvalidArgument,
       {"packet version", "5"}},
      {"Flags",
       [](wire::Frame& f) { f.flags = 0x80000000; },
       absl::StatusCode::kInvalidArgument,
       {"flags", "0x80000000"}},
      {"Reserved",
       [](wire::Frame& f) { f.reserved[11] = '\x42'; },
       absl::StatusCode::kInvalidArgument,
       {"reserved", "55", "0x42"}},
      {"PayloadBytes",
       [](wire::Frame& f) { f.payload_bytes = 77; },
       absl::StatusCode::kDataLoss,
       {"77", "9"}},
      {"IndexInvalid",
       [](wire::Frame& f) { f.index = 0xffffffff; },
       absl::StatusCode::kInvalidArgument,
       {"index", "0xffffffff"}},
  };
  return lies;
}

class PacketLieTest : public testing::TestWithParam<Lie> {};

TEST_P(PacketLieTest, IsRefusedWithFieldAndValue) {
  wire::Frame frame = ExampleFrame();
  GetParam().tell(frame);
  const absl::Status status = Receive(wire::Encode(frame)).status();
  EXPECT_EQ(status.code(), GetParam().code) << status;
  for (const char* word : GetParam().words) {
    EXPECT_THAT(std::string(status.message()), HasSubstr(word));
  }
}

INSTANTIATE_TEST_SUITE_P(EveryField, PacketLieTest, testing::ValuesIn(Lies()),
                         [](const auto& lie) { return lie.param.name; });

TEST(PacketTest, OfTwoLiesTheFirstInTheDocumentsOrderIsNamed) {
  const std::vector<Lie>& lies = Lies();
  for (size_t first = 0; first < lies.size(); ++first) {
    for (size_t second = first + 1; second < lies.size(); ++second) {
      wire::Frame frame = ExampleFrame();
      lies[first].tell(frame);
      lies[second].tell(frame);
      const absl::Status status = Receive(wire::Encode(frame)).status();
      EXPECT_THAT(std::string(status.message()), HasSubstr(lies[first].words[0]))
          << lies[first].name << " and " << lies[second].name;
    }
  }
}

TEST(PacketTest, EveryReservedByteIsHeldTo0) {
  for (size_t i = 0; i < 20; ++i) {
    wire::Frame frame = ExampleFrame();
    frame.reserved[i] = '\1';
    EXPECT_THAT(std::string(Receive(wire::Encode(frame)).status().message()),
                HasSubstr(absl::StrCat(44 + i)));
  }
}

TEST(PacketTest, TheHighestIndexIsValid) {
  wire::Frame frame = ExampleFrame();
  frame.index = 0xfffffffe;
  EXPECT_TRUE(Receive(wire::Encode(frame)).ok());
}

class ConfigPayloadTest : public testing::Test {
 protected:
  void SetUp() override {
    auto arena = Arena::Create(1, kConfigPayloadBytesMax);
    ASSERT_TRUE(arena.ok()) << arena.status();
    arena_ = *std::move(arena);
  }
  std::unique_ptr<Arena> arena_;
};

TEST_F(ConfigPayloadTest, StandsBetweenQemusMarks) {
  for (const size_t size : {size_t{0}, size_t{1}, size_t{9}, kConfigBytesMax}) {
    const std::string config(size, 'c');
    Buffer buffer = arena_->TryAcquire();
    EncodeConfigPayload(config, buffer);
    const std::string payload(reinterpret_cast<const char*>(buffer.payload()),
                              buffer.payload_bytes());
    EXPECT_EQ(payload, wire::ConfigPayload(config));
    const auto back = DecodeConfigPayload(buffer.payload_span());
    ASSERT_TRUE(back.ok()) << back.status();
    EXPECT_EQ(*back, config);
  }
}

TEST_F(ConfigPayloadTest, RefusesWrongMarksAndLengths) {
  const std::string right = wire::ConfigPayload("abc");
  for (size_t i = 0; i < right.size(); ++i) {
    std::string wrong = right;
    wrong[i] = static_cast<char>(wrong[i] ^ 1);
    const bool in_config = i >= 8 && i < right.size() - 8;
    EXPECT_EQ(DecodeConfigPayload(AsBytes(wrong)).ok(), in_config) << "byte " << i;
  }
  for (size_t bytes = 0; bytes < 16; ++bytes) {
    EXPECT_FALSE(DecodeConfigPayload(AsBytes(right.substr(0, bytes))).ok()) << bytes;
  }
  EXPECT_TRUE(DecodeConfigPayload(AsBytes(wire::ConfigPayload(std::string(65'536, 'c')))).ok());
  EXPECT_FALSE(DecodeConfigPayload(AsBytes(wire::ConfigPayload(std::string(65'537, 'c')))).ok());
}

}  // namespace
}  // namespace godwit
