// docs/wire-format.md, section 1, written down a second time: bytes made and read without a line of
// the engine's, so that a mistake there isn't made here too.
#ifndef GODWIT_TESTS_ENGINE_WIRE_IMAGE_H_
#define GODWIT_TESTS_ENGINE_WIRE_IMAGE_H_

#include <absl/strings/string_view.h>

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>

namespace godwit::wire {

inline constexpr size_t kHeaderBytes = 80;

// Bit by bit, as the RFC has it; `crc` is that of what came before.
inline uint32_t Crc32c(absl::string_view bytes, uint32_t crc = 0) {
  crc = ~crc;
  for (const char c : bytes) {
    crc ^= static_cast<unsigned char>(c);
    for (int bit = 0; bit < 8; ++bit) crc = (crc & 1) != 0 ? crc >> 1 ^ 0x82f63b78 : crc >> 1;
  }
  return ~crc;
}

inline std::string BigEndian(uint64_t value, size_t bytes) {
  std::string text(bytes, '\0');
  for (size_t i = bytes; i-- > 0; value >>= 8) text[i] = static_cast<char>(value & 0xff);
  return text;
}

inline uint64_t Number(absl::string_view bytes) {
  uint64_t value = 0;
  for (const char c : bytes) value = value << 8 | static_cast<unsigned char>(c);
  return value;
}

// A frame with every field open to lies. Sizes are the table's.
struct Frame {
  uint32_t magic = 0x47445754;
  uint8_t version = 1;
  uint8_t type = 1;
  uint16_t device = 0;
  uint32_t epoch = 0;
  std::optional<uint32_t> payload_bytes;  // else the payload's
  uint64_t lane_sequence = 0;
  uint64_t stream_offset = 0;
  uint32_t crc_before = 0;
  uint32_t crc_after = 0;
  uint32_t config_crc = 0;
  std::string reserved = std::string(20, '\0');  // bytes 44 to 63
  std::optional<uint32_t> header_crc;            // else the right one
  uint32_t packet_version = 0;
  uint32_t index = 0;
  uint32_t flags = 0;
  std::string payload;
};

inline std::string Encode(const Frame& frame) {
  const std::string head =
      BigEndian(frame.magic, 4) + BigEndian(frame.version, 1) + BigEndian(frame.type, 1) +
      BigEndian(frame.device, 2) + BigEndian(frame.epoch, 4) +
      BigEndian(frame.payload_bytes.value_or(static_cast<uint32_t>(frame.payload.size())), 4) +
      BigEndian(frame.lane_sequence, 8) + BigEndian(frame.stream_offset, 8) +
      BigEndian(frame.crc_before, 4) + BigEndian(frame.crc_after, 4) +
      BigEndian(frame.config_crc, 4) + frame.reserved;
  const std::string tail =
      BigEndian(frame.packet_version, 4) + BigEndian(frame.index, 4) + BigEndian(frame.flags, 4);
  const uint32_t header_crc = frame.header_crc.value_or(Crc32c(tail, Crc32c(head)));
  return head + BigEndian(header_crc, 4) + tail + frame.payload;
}

// As it stands on a TCP lane.
inline std::string WithLength(const std::string& message) {
  return BigEndian(message.size(), 4) + message;
}

// Takes `message` apart and judges nothing. REQUIRES: message.size() >= kHeaderBytes
inline Frame Decode(absl::string_view message) {
  Frame frame;
  frame.magic = static_cast<uint32_t>(Number(message.substr(0, 4)));
  frame.version = static_cast<uint8_t>(Number(message.substr(4, 1)));
  frame.type = static_cast<uint8_t>(Number(message.substr(5, 1)));
  frame.device = static_cast<uint16_t>(Number(message.substr(6, 2)));
  frame.epoch = static_cast<uint32_t>(Number(message.substr(8, 4)));
  frame.payload_bytes = static_cast<uint32_t>(Number(message.substr(12, 4)));
  frame.lane_sequence = Number(message.substr(16, 8));
  frame.stream_offset = Number(message.substr(24, 8));
  frame.crc_before = static_cast<uint32_t>(Number(message.substr(32, 4)));
  frame.crc_after = static_cast<uint32_t>(Number(message.substr(36, 4)));
  frame.config_crc = static_cast<uint32_t>(Number(message.substr(40, 4)));
  frame.reserved = std::string(message.substr(44, 20));
  frame.header_crc = static_cast<uint32_t>(Number(message.substr(64, 4)));
  frame.packet_version = static_cast<uint32_t>(Number(message.substr(68, 4)));
  frame.index = static_cast<uint32_t>(Number(message.substr(72, 4)));
  frame.flags = static_cast<uint32_t>(Number(message.substr(76, 4)));
  frame.payload = std::string(message.substr(kHeaderBytes));
  return frame;
}

// Packet `index` of `device`: `payload` after `before` of its stream.
inline Frame DataFrame(uint16_t device, uint32_t index, absl::string_view before,
                       absl::string_view payload) {
  Frame frame;
  frame.device = device;
  frame.index = index;
  frame.stream_offset = before.size();
  frame.crc_before = Crc32c(before);
  frame.crc_after = Crc32c(payload, frame.crc_before);
  frame.payload = std::string(payload);
  return frame;
}

inline std::string ConfigPayload(absl::string_view config) {
  return BigEndian(0xffffffffef100002, 8) + std::string(config) + BigEndian(0xffffffffef100001, 8);
}

// The packet that closes `stream`.
inline Frame ConfigFrame(uint16_t device, uint32_t index, absl::string_view stream,
                         absl::string_view config) {
  Frame frame;
  frame.device = device;
  frame.index = index;
  frame.stream_offset = stream.size();
  frame.crc_before = frame.crc_after = Crc32c(stream);
  frame.payload = ConfigPayload(config);
  frame.config_crc = Crc32c(frame.payload);
  frame.flags = 1;
  return frame;
}

}  // namespace godwit::wire

#endif  // GODWIT_TESTS_ENGINE_WIRE_IMAGE_H_
