// Frames whose bytes a fuzzer chose, with their CRCs made right where it wants: it would never
// guess one, and what stands behind the CRCs is to be looked at, too.
#ifndef GODWIT_TESTS_FUZZ_SEALED_FRAME_H_
#define GODWIT_TESTS_FUZZ_SEALED_FRAME_H_

#include <absl/strings/string_view.h>

#include <cstdint>
#include <string>

#include "tests/engine/wire_image.h"
#include "tests/fuzz/fuzz_input.h"

namespace godwit::fuzz {

// Bits that an input says it with.
inline constexpr uint8_t kSealHeader = 1U << 2;   // the header CRC is right
inline constexpr uint8_t kSealLength = 1U << 3;   // payload bytes are the payload's
inline constexpr uint8_t kSealPayload = 1U << 4;  // the payload's CRCs are right
inline constexpr uint8_t kSealPlace = 1U << 5;    // the lane sequence is what is due
inline constexpr uint8_t kSealForm = 1U << 6;  // magic, versions, type and reserved bytes are right

// 80 bytes of header, a length byte, and as many of payload; fewer where the input ends.
inline wire::Frame TakeFrame(FuzzInput& input) {
  std::string header(input.Take(wire::kHeaderBytes));
  header.resize(wire::kHeaderBytes);
  wire::Frame frame = wire::Decode(header);
  frame.payload_bytes = static_cast<uint32_t>(wire::Number(header.substr(12, 4)));
  frame.payload = std::string(input.Take(input.Byte()));
  return frame;
}

inline wire::Frame Seal(wire::Frame frame, uint8_t seals, uint64_t lane_sequence) {
  if ((seals & kSealForm) != 0) {
    const wire::Frame right;
    frame.magic = right.magic;
    frame.version = right.version;
    frame.type = right.type;
    frame.reserved = right.reserved;
    frame.packet_version = right.packet_version;
    frame.flags &= 1;
  }
  if ((seals & kSealLength) != 0) frame.payload_bytes.reset();
  if ((seals & kSealPlace) != 0) frame.lane_sequence = lane_sequence;
  if ((seals & kSealPayload) != 0) {
    const bool config = (frame.flags & 1) != 0;
    frame.crc_after = config ? frame.crc_before : wire::Crc32c(frame.payload, frame.crc_before);
    frame.config_crc = config ? wire::Crc32c(frame.payload) : 0;
  }
  if ((seals & kSealHeader) != 0) frame.header_crc.reset();
  return frame;
}

}  // namespace godwit::fuzz

#endif  // GODWIT_TESTS_FUZZ_SEALED_FRAME_H_
