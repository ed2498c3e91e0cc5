// The frame header: docs/wire-format.md, section 1, in code.
#ifndef GODWIT_ENGINE_PACKET_H_
#define GODWIT_ENGINE_PACKET_H_

#include <absl/status/status.h>
#include <absl/status/statusor.h>
#include <absl/types/span.h>

#include <cstddef>
#include <cstdint>

#include "base/arena.h"
#include "godwit/device.h"

namespace godwit {

inline constexpr uint32_t kFrameMagic = 0x47445754;  // "GDWT"
inline constexpr uint8_t kFrameVersion = 1;
inline constexpr uint8_t kFrameTypeDeviceState = 1;
inline constexpr uint8_t kFrameTypeSealed = 2;  // device state, sealed: packet_seal.h
inline constexpr size_t kFrameHeaderBytes = 80;
inline constexpr uint32_t kEpochMax = 0xffffffff;

// Offsets that a seal has to know.
inline constexpr size_t kDeviceAt = 6;
inline constexpr size_t kEpochAt = 8;
inline constexpr size_t kSealedAt = 24;  // stream offset and the CRCs of the stream
inline constexpr size_t kSealedBytes = 16;
inline constexpr size_t kSealTagAt = 40;
inline constexpr size_t kHeaderCrcAt = 64;
inline constexpr size_t kIndexAt = 72;

// QEMU's device-state packet (migration/vfio, multifd transfer): version, flag and invalid index.
inline constexpr uint32_t kPacketVersion = 0;
inline constexpr uint32_t kPacketFlagConfigState = 1U << 0;
inline constexpr uint32_t kPacketIndexInvalid = 0xffffffff;

// QEMU's marks around a device's configuration.
inline constexpr uint64_t kDevConfigStateMark = 0xffffffffef100002;
inline constexpr uint64_t kEndOfStateMark = 0xffffffffef100001;
inline constexpr size_t kConfigMarkBytes = 16;  // both
inline constexpr size_t kConfigPayloadBytesMax = kConfigBytesMax + kConfigMarkBytes;

inline constexpr uint32_t kDevicesMax = 64;
inline constexpr uint32_t kLanesMax = 64;
inline constexpr size_t kPacketBytesMax = (size_t{8} << 20) - kFrameHeaderBytes;

// A lane sequence, and a lane's receipt: which of the lanes of that number it is about, and how
// many frames of that one.
inline constexpr unsigned kLaneGenerationShift = 48;
inline constexpr uint16_t kLaneGenerationMax = 0xffff;
constexpr uint64_t LaneCount(uint16_t generation, uint64_t frames) {
  return uint64_t{generation} << kLaneGenerationShift | frames;
}
constexpr uint16_t LaneGenerationOf(uint64_t count) {
  return static_cast<uint16_t>(count >> kLaneGenerationShift);
}
constexpr uint64_t LaneFramesOf(uint64_t count) {
  return count & ((uint64_t{1} << kLaneGenerationShift) - 1);
}

struct PacketHeader {
  uint16_t device = 0;
  uint32_t epoch = 0;  // how often the packet was sent before
  uint32_t payload_bytes = 0;
  uint64_t lane_sequence = 0;
  uint64_t stream_offset = 0;  // bytes
  uint32_t crc_before = 0;
  uint32_t crc_after = 0;
  uint32_t config_crc = 0;
  uint32_t index = 0;
  uint32_t flags = 0;
  bool sealed = false;  // then config_crc is not sent: the seal's tag takes its place

  bool is_config() const { return (flags & kPacketFlagConfigState) != 0; }
  friend bool operator==(const PacketHeader&, const PacketHeader&) = default;
};

// Writes the header, its own CRC included, over the kFrameHeaderBytes at `out`. Of a sealed packet:
// as it is before sealing, with no tag.
void EncodePacketHeader(const PacketHeader& header, std::byte* out);
// Its own CRC alone, of what is there.
void WriteHeaderCrc(std::byte* header);

// For a packet that is sent again. ResourceExhausted: it has been sent so often that the next epoch
// would be one that it had.
absl::Status NextEpoch(PacketHeader& header);

// Magic and header CRC. DataLoss: it was damaged.
absl::Status CheckHeaderWhole(const std::byte* bytes);

// Reads and checks all that can be checked without a session: magic, header CRC, versions, type,
// flags, reserved bytes, payload_bytes == `payload_bytes` (what the message had). The error names
// field and value: DataLoss for damage, InvalidArgument for a value out of range.
absl::StatusOr<PacketHeader> DecodePacketHeader(const std::byte* bytes, size_t payload_bytes);
// The same of a sealed frame that CheckHeaderWhole() has found whole before PacketSeal opened it.
absl::StatusOr<PacketHeader> DecodeOpenedHeader(const std::byte* bytes, size_t payload_bytes);

// Whether the payload is what the header's CRCs say. REQUIRES: the session has them
bool PayloadMatches(const PacketHeader& header, absl::Span<const std::byte> payload);

// What a session, or a capture, allows in its packets.
struct PacketLimits {
  size_t packet_bytes = 0;  // of a data packet's payload
  size_t devices = 0;
  bool crc = true;  // else the CRCs of payload, stream and configuration are 0
};

// The checks of docs/wire-format.md, "Order of checks", that need a session and come after
// DecodePacketHeader()'s: all but the index against the window. `lane_sequence` is what is due.
absl::Status CheckPacket(const PacketHeader& header, absl::Span<const std::byte> payload,
                         const PacketLimits& limits, uint64_t lane_sequence);

// A Buffer and the header that goes, or came, with it.
struct Packet {
  Buffer buffer;
  PacketHeader header;
};

// Fills `buffer` with `config` between its marks. REQUIRES: config.size() <= kConfigBytesMax and
// the buffer has room for kConfigPayloadBytesMax.
void EncodeConfigPayload(absl::string_view config, Buffer& buffer);
// The configuration inside a config packet's payload; valid while the payload is. InvalidArgument
// where the marks are not.
absl::StatusOr<absl::string_view> DecodeConfigPayload(absl::Span<const std::byte> payload);

}  // namespace godwit

#endif  // GODWIT_ENGINE_PACKET_H_
