// Sealed frames as a lane delivers them: what opens is what went in, byte for byte, and nothing
// that was changed after it was sealed opens, also where whoever changed it made the CRCs right.
//
// Input: a byte of flags, the lane that it goes to (a byte) and comes from (a byte), a frame as
// TakeFrame() reads it, how many bytes of the message are left (two bytes, kCut), and changes: a
// place (two bytes) and what is XORed there (a byte). With kForeign the frame is nobody's seal.
#include <algorithm>
#include <cstring>
#include <memory>
#include <string>
#include <utility>

#include "base/arena.h"
#include "base/check.h"
#include "engine/packet.h"
#include "engine/packet_seal.h"
#include "tests/engine/wire_image.h"
#include "tests/fuzz/fuzz_input.h"
#include "tests/fuzz/sealed_frame.h"

namespace godwit::fuzz {
namespace {

constexpr uint8_t kForeign = 1U << 0;  // never sealed; its form alone is right
constexpr uint8_t kCut = 1U << 1;
constexpr uint8_t kRightCrc = 1U << 2;     // the header CRC is computed again after the changes
constexpr uint8_t kRightLength = 1U << 3;  // and the length of the payload in the header
constexpr size_t kPayloadBytesMax = 256;   // TakeFrame() gives 255

Arena& TheArena() {
  static const std::unique_ptr<Arena> arena = Arena::Create(2, kPayloadBytesMax).value();
  return *arena;
}

PacketSeal& TheSeal() {
  static const std::unique_ptr<PacketSeal> seal = PacketSeal::Make(TrafficKey{1, 2, 3}).value();
  return *seal;
}

Buffer Holding(absl::string_view message) {
  Buffer buffer = TheArena().TryAcquire();
  GODWIT_CHECK(static_cast<bool>(buffer));
  std::memcpy(buffer.header(kFrameHeaderBytes), message.data(), message.size());
  buffer.set_payload_bytes(message.size() - kFrameHeaderBytes);
  return buffer;
}

std::string MessageIn(const Buffer& buffer) {
  return {reinterpret_cast<const char*>(buffer.header(kFrameHeaderBytes)),
          kFrameHeaderBytes + buffer.payload_bytes()};
}

// What a receiver makes of it, as the target's worker does.
absl::StatusOr<PacketHeader> Receive(uint16_t lane, const Buffer& buffer) {
  const std::byte* const header = buffer.header(kFrameHeaderBytes);
  if (const absl::Status whole = CheckHeaderWhole(header); !whole.ok()) return whole;
  if (const absl::Status opened = TheSeal().Open(lane, buffer); !opened.ok()) return opened;
  return DecodeOpenedHeader(header, buffer.payload_bytes());
}

std::string Changed(std::string message, uint8_t flags, FuzzInput& input) {
  if ((flags & kCut) != 0) {
    message.resize(std::min(message.size(), kFrameHeaderBytes + input.Number16()));
  }
  while (!input.empty()) {
    const size_t at = input.Number16() % message.size();
    message[at] = static_cast<char>(message[at] ^ static_cast<char>(input.Byte()));
  }
  constexpr size_t kPayloadBytesAt = 12;
  if ((flags & kRightLength) != 0) {
    message.replace(kPayloadBytesAt, 4, wire::BigEndian(message.size() - kFrameHeaderBytes, 4));
  }
  if ((flags & kRightCrc) != 0) {
    WriteHeaderCrc(reinterpret_cast<std::byte*>(message.data()));
  }
  return message;
}

void TryForeign(uint8_t flags, uint16_t lane, const wire::Frame& frame, FuzzInput& input) {
  wire::Frame sealed = frame;
  sealed.magic = kFrameMagic;
  sealed.version = kFrameVersion;
  sealed.type = kFrameTypeSealed;
  sealed.payload_bytes.reset();
  sealed.header_crc.reset();
  const std::string message = Changed(wire::Encode(sealed), flags, input);
  GODWIT_CHECK(!Receive(lane, Holding(message)).ok());
}

void Run(FuzzInput input) {
  const uint8_t flags = input.Byte();
  const uint16_t to = input.Byte();
  const uint16_t from = input.Byte();
  const wire::Frame frame = Seal(TakeFrame(input), kSealForm | kSealLength | kSealHeader, 0);
  if ((flags & kForeign) != 0) return TryForeign(flags, from, frame, input);

  const std::string plain = wire::Encode(frame);
  auto header = DecodePacketHeader(reinterpret_cast<const std::byte*>(plain.data()),
                                   plain.size() - kFrameHeaderBytes);
  if (!header.ok()) return;
  header->sealed = true;
  Buffer packet = Holding(plain);
  EncodePacketHeader(*header, packet.header(kFrameHeaderBytes));
  TheSeal().Seal(to, packet);
  const std::string sealed = MessageIn(packet);

  const std::string message = Changed(sealed, flags, input);
  packet = Buffer();
  packet = Holding(message);
  const auto opened = Receive(from, packet);
  GODWIT_CHECK(opened.ok() == (message == sealed && from == to));
  if (!opened.ok()) return;
  PacketHeader sent = *header;
  sent.config_crc = 0;  // the tag has its place
  GODWIT_CHECK(*opened == sent);
  GODWIT_CHECK(MessageIn(packet).substr(kFrameHeaderBytes) == frame.payload);
}

}  // namespace
}  // namespace godwit::fuzz

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  godwit::fuzz::Run({data, size});
  return 0;
}
