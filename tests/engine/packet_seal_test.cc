// Goal: what is sealed opens with the same key on the same lane and nowhere else, whatever bit of
// it was changed; and the bytes are docs/wire-format.md's.
#include "engine/packet_seal.h"

#include <absl/strings/escaping.h>
#include <absl/strings/str_cat.h>
#include <absl/strings/str_replace.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <openssl/evp.h>

#include <cstring>
#include <fstream>
#include <set>
#include <string>
#include <vector>

#include "engine/packet.h"
#include "tests/engine/packets.h"
#include "tests/engine/wire_image.h"

namespace godwit {
namespace {

using testing::HasSubstr;
using testing::Not;

TrafficKey Key(unsigned char first) {
  TrafficKey key;
  for (size_t i = 0; i < key.size(); ++i) key[i] = static_cast<unsigned char>(first + i);
  return key;
}

class PacketSealTest : public testing::Test {
 protected:
  static constexpr uint16_t kLane = 3;

  void SetUp() override {
    auto arena = Arena::Create(4, 4096);
    ASSERT_TRUE(arena.ok()) << arena.status();
    arena_ = *std::move(arena);
    seal_ = MadeWith(Key(0));
  }
  static std::unique_ptr<PacketSeal> MadeWith(const TrafficKey& key) {
    auto made = PacketSeal::Make(key);
    EXPECT_TRUE(made.ok()) << made.status();
    return *std::move(made);
  }
  // A packet with its header in place, ready to be sealed.
  Packet Ready(const wire::Frame& frame, uint32_t epoch = 0) {
    Packet packet = PacketOf(frame, *arena_);
    packet.header.epoch = epoch;
    packet.header.sealed = true;
    EncodePacketHeader(packet.header, packet.buffer.header(kFrameHeaderBytes));
    return packet;
  }
  static std::string Message(const Packet& packet) {
    return {reinterpret_cast<const char*>(packet.buffer.header(kFrameHeaderBytes)),
            kFrameHeaderBytes + packet.buffer.payload_bytes()};
  }
  static void SetMessage(Packet& packet, const std::string& message) {
    std::memcpy(packet.buffer.header(kFrameHeaderBytes), message.data(), message.size());
    packet.buffer.set_payload_bytes(message.size() - kFrameHeaderBytes);
  }
  // As a receiver does: nothing is believed before the seal has opened.
  absl::StatusOr<PacketHeader> Receive(PacketSeal& seal, uint16_t lane, const Packet& packet) {
    const std::byte* const header = packet.buffer.header(kFrameHeaderBytes);
    const absl::Status whole = CheckHeaderWhole(header);
    if (!whole.ok()) return whole;
    const absl::Status opened = seal.Open(lane, packet.buffer);
    if (!opened.ok()) return opened;
    return DecodeOpenedHeader(header, packet.buffer.payload_bytes());
  }

  std::unique_ptr<Arena> arena_;
  std::unique_ptr<PacketSeal> seal_;
};

wire::Frame ExampleFrame() { return wire::DataFrame(1, 2, "GODWIT", "123456789"); }

TEST_F(PacketSealTest, ComesBackAsItWent) {
  std::vector<wire::Frame> frames = {ExampleFrame(), wire::ConfigFrame(0, 1, "stream", "config"),
                                     wire::DataFrame(63, 0xfffffffe, "", std::string(4096, 'x'))};
  for (const wire::Frame& frame : frames) {
    Packet packet = Ready(frame);
    const std::string payload = PayloadOf(packet);
    const PacketHeader sent = packet.header;
    seal_->Seal(kLane, packet.buffer);
    EXPECT_THAT(Message(packet), Not(HasSubstr(payload)));
    const auto header = Receive(*seal_, kLane, packet);
    ASSERT_TRUE(header.ok()) << header.status();
    PacketHeader expected = sent;
    expected.config_crc = 0;  // the tag has its place
    EXPECT_EQ(*header, expected);
    EXPECT_EQ(PayloadOf(packet), payload);
    EXPECT_TRUE(PayloadMatches(*header, packet.buffer.payload_span()));
  }
}

// Sum and offset of what is hidden would tell of it: of a payload of 4 bytes everything.
TEST_F(PacketSealTest, HidesTheCrcsOfTheStream) {
  Packet packet = Ready(ExampleFrame());
  const std::string before = Message(packet).substr(kSealedAt, kSealedBytes);
  seal_->Seal(kLane, packet.buffer);
  const std::string hidden = Message(packet).substr(kSealedAt, kSealedBytes);
  for (size_t at = 0; at + 4 <= kSealedBytes; at += 4) {
    EXPECT_NE(hidden.substr(at, 4), before.substr(at, 4)) << "byte " << at;
  }
}

TEST_F(PacketSealTest, EveryFlippedBitIsNoticed) {
  Packet packet = Ready(ExampleFrame());
  seal_->Seal(kLane, packet.buffer);
  const std::string message = Message(packet);
  for (size_t bit = 0; bit < 8 * message.size(); ++bit) {
    std::string changed = message;
    changed[bit / 8] = static_cast<char>(changed[bit / 8] ^ (1 << (bit % 8)));
    SetMessage(packet, changed);
    EXPECT_TRUE(absl::IsDataLoss(Receive(*seal_, kLane, packet).status())) << "bit " << bit;
    // Also by who can compute a CRC.
    if (bit / 8 >= kHeaderCrcAt && bit / 8 < kHeaderCrcAt + 4) continue;
    SetMessage(packet, changed);
    WriteHeaderCrc(packet.buffer.header(kFrameHeaderBytes));
    EXPECT_TRUE(absl::IsDataLoss(Receive(*seal_, kLane, packet).status())) << "bit " << bit;
  }
  SetMessage(packet, message);
  EXPECT_TRUE(Receive(*seal_, kLane, packet).ok());
}

TEST_F(PacketSealTest, OpensOnlyOnItsLaneWithItsKeyAndItsLength) {
  Packet packet = Ready(ExampleFrame());
  seal_->Seal(kLane, packet.buffer);
  const std::string message = Message(packet);
  EXPECT_TRUE(absl::IsDataLoss(Receive(*seal_, kLane + 1, packet).status()));
  SetMessage(packet, message);
  EXPECT_TRUE(absl::IsDataLoss(Receive(*MadeWith(Key(1)), kLane, packet).status()));
  SetMessage(packet, message.substr(0, message.size() - 1));
  EXPECT_TRUE(absl::IsDataLoss(Receive(*seal_, kLane, packet).status()));
  SetMessage(packet, message);
  EXPECT_TRUE(Receive(*seal_, kLane, packet).ok());
}

TEST_F(PacketSealTest, AFrameThatIsNotSealedDoesNotOpen) {
  Packet packet = Ready(ExampleFrame());
  EXPECT_TRUE(absl::IsDataLoss(Receive(*seal_, kLane, packet).status()));
  packet.header.sealed = false;
  EncodePacketHeader(packet.header, packet.buffer.header(kFrameHeaderBytes));
  EXPECT_TRUE(absl::IsDataLoss(Receive(*seal_, kLane, packet).status()));
}

TEST_F(PacketSealTest, ASealedFrameIsRefusedWhereNoneIsExpected) {
  Packet packet = Ready(ExampleFrame());
  seal_->Seal(kLane, packet.buffer);
  const auto header =
      DecodePacketHeader(packet.buffer.header(kFrameHeaderBytes), packet.buffer.payload_bytes());
  EXPECT_TRUE(absl::IsInvalidArgument(header.status()));
  EXPECT_THAT(std::string(header.status().message()), HasSubstr("frame type is 2"));
}

// The keystream is seen by sealing zeros: none comes twice while one of the three differs.
TEST_F(PacketSealTest, DeviceIndexAndEpochEachMakeAnotherNonce) {
  std::set<std::string> keystreams;
  size_t sealed = 0;
  for (const uint16_t device : std::initializer_list<uint16_t>{0, 1, 0x100, 63}) {
    for (const uint32_t index : {0U, 1U, 0x100U, 0x10000U, 0x1000000U, 0xfffffffeU}) {
      for (const uint32_t epoch : {0U, 1U, 0x100U, 0x10000U, 0x1000000U, kEpochMax}) {
        Packet packet = Ready(wire::DataFrame(device, index, "", std::string(64, '\0')), epoch);
        seal_->Seal(kLane, packet.buffer);
        keystreams.insert(PayloadOf(packet));
        ++sealed;
      }
    }
  }
  EXPECT_EQ(keystreams.size(), sealed);
}

TEST_F(PacketSealTest, IsOpenedAndSealedAgainInPlaceForAnotherLane) {
  Packet packet = Ready(ExampleFrame());
  seal_->Seal(kLane, packet.buffer);
  const std::string first = Message(packet);
  ASSERT_TRUE(seal_->Open(kLane, packet.buffer).ok());
  ASSERT_TRUE(NextEpoch(packet.header).ok());
  packet.header.lane_sequence = 77;
  EncodePacketHeader(packet.header, packet.buffer.header(kFrameHeaderBytes));
  seal_->Seal(kLane + 1, packet.buffer);
  EXPECT_NE(Message(packet).substr(kFrameHeaderBytes), first.substr(kFrameHeaderBytes));
  const auto header = Receive(*seal_, kLane + 1, packet);
  ASSERT_TRUE(header.ok()) << header.status();
  EXPECT_EQ(header->epoch, 1U);
  EXPECT_EQ(PayloadOf(packet), "123456789");
}

TEST(EpochTest, NoneComesTwice) {
  PacketHeader header;
  header.epoch = kEpochMax - 1;
  EXPECT_TRUE(NextEpoch(header).ok());
  EXPECT_EQ(header.epoch, kEpochMax);
  const absl::Status past = NextEpoch(header);
  EXPECT_TRUE(absl::IsResourceExhausted(past)) << past;
  EXPECT_EQ(header.epoch, kEpochMax);
}

// By this page's words alone: nonce, associated data and what is encrypted are put together by
// hand.
TEST_F(PacketSealTest, IsWhatTheDocumentSays) {
  Packet packet = Ready(ExampleFrame(), /*epoch=*/0x01020304);
  const std::string plain = Message(packet);
  seal_->Seal(kLane, packet.buffer);
  const std::string sealed = Message(packet);

  std::string associated = plain;
  associated.resize(kFrameHeaderBytes);
  for (size_t at = 24; at < 56; ++at) associated[at] = '\0';
  for (size_t at = 64; at < 68; ++at) associated[at] = '\0';
  associated += std::string("\0\3", 2);
  const std::string nonce("\0\1\0\0\0\2\1\2\3\4\0\0", 12);
  std::string text = plain.substr(24, 16);
  text += plain.substr(80);

  const TrafficKey key = Key(0);
  EVP_CIPHER_CTX* const context = EVP_CIPHER_CTX_new();
  std::string out(text.size(), '?');
  std::string tag(16, '?');
  const auto* const in = reinterpret_cast<const unsigned char*>(text.data());
  auto* const to = reinterpret_cast<unsigned char*>(out.data());
  int done = 0;
  ASSERT_EQ(EVP_EncryptInit_ex(context, EVP_aes_256_gcm(), nullptr, key.data(),
                               reinterpret_cast<const unsigned char*>(nonce.data())),
            1);
  ASSERT_EQ(EVP_EncryptUpdate(context, nullptr, &done,
                              reinterpret_cast<const unsigned char*>(associated.data()),
                              static_cast<int>(associated.size())),
            1);
  ASSERT_EQ(EVP_EncryptUpdate(context, to, &done, in, static_cast<int>(text.size())), 1);
  ASSERT_EQ(EVP_EncryptFinal_ex(context, to, &done), 1);
  ASSERT_EQ(EVP_CIPHER_CTX_ctrl(context, EVP_CTRL_AEAD_GET_TAG, 16, tag.data()), 1);
  EVP_CIPHER_CTX_free(context);

  EXPECT_EQ(sealed.substr(0, 24), plain.substr(0, 24));
  EXPECT_EQ(sealed[5], '\2');
  EXPECT_EQ(sealed.substr(24, 16), out.substr(0, 16));
  EXPECT_EQ(sealed.substr(40, 16), tag);
  EXPECT_EQ(sealed.substr(56, 8), std::string(8, '\0'));
  EXPECT_EQ(sealed.substr(68, 12), plain.substr(68, 12));
  EXPECT_EQ(sealed.substr(80), out.substr(16));
}

// The bytes of the hex block under "### A sealed example".
std::string DocumentedExample() {
  std::ifstream page(GODWIT_DOCS_DIR "/wire-format.md");
  std::string bytes;
  bool in_section = false;
  bool in_block = false;
  for (std::string line; std::getline(page, line);) {
    in_section |= line == "### A sealed example";
    if (!in_section) continue;
    if (line == "```") {
      if (in_block) break;
      in_block = true;
      continue;
    }
    if (in_block) absl::StrAppend(&bytes, absl::StrReplaceAll(line, {{" ", ""}}));
  }
  return bytes;
}

// Another implementation has made it.
TEST_F(PacketSealTest, TheDocumentsExampleIsOursByteForByte) {
  Packet packet = Ready(ExampleFrame());
  seal_->Seal(3, packet.buffer);
  EXPECT_EQ(absl::BytesToHexString(Message(packet)), DocumentedExample());
}

}  // namespace
}  // namespace godwit
