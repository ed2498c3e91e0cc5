#include "engine/packet.h"

#include <absl/strings/str_format.h>

#include <cstring>
#include <limits>

#include "base/check.h"
#include "base/crc32c.h"

namespace godwit {
namespace {

// Offsets of docs/wire-format.md, section 1, in its order; with those in packet.h.
constexpr size_t kMagicAt = 0;
constexpr size_t kVersionAt = 4;
constexpr size_t kTypeAt = 5;
constexpr size_t kPayloadBytesAt = 12;
constexpr size_t kLaneSequenceAt = 16;
constexpr size_t kStreamOffsetAt = 24;
constexpr size_t kCrcBeforeAt = 32;
constexpr size_t kCrcAfterAt = 36;
constexpr size_t kConfigCrcAt = 40;
constexpr size_t kReservedAt = 44;
constexpr size_t kReservedBehindTagAt = 56;
constexpr size_t kPacketVersionAt = 68;
constexpr size_t kFlagsAt = 76;
constexpr uint64_t kStreamBytesMax = static_cast<uint64_t>(std::numeric_limits<int64_t>::max());
static_assert(kFlagsAt + 4 == kFrameHeaderBytes);
static_assert(kStreamOffsetAt == kSealedAt && kCrcAfterAt + 4 == kSealTagAt);
static_assert(kConfigCrcAt == kSealTagAt);
static_assert(kFrameHeaderBytes <= kHeaderRoomBytes);

void Put16(std::byte* at, uint16_t value) {
  at[0] = static_cast<std::byte>(value >> 8);
  at[1] = static_cast<std::byte>(value);
}
void Put32(std::byte* at, uint32_t value) {
  Put16(at, static_cast<uint16_t>(value >> 16));
  Put16(at + 2, static_cast<uint16_t>(value));
}
void Put64(std::byte* at, uint64_t value) {
  Put32(at, static_cast<uint32_t>(value >> 32));
  Put32(at + 4, static_cast<uint32_t>(value));
}
uint16_t Get16(const std::byte* at) {
  return static_cast<uint16_t>(std::to_integer<unsigned>(at[0]) << 8 |
                               std::to_integer<unsigned>(at[1]));
}
uint32_t Get32(const std::byte* at) {
  return static_cast<uint32_t>(Get16(at)) << 16 | Get16(at + 2);
}
uint64_t Get64(const std::byte* at) {
  return static_cast<uint64_t>(Get32(at)) << 32 | Get32(at + 4);
}

uint32_t HeaderCrc(const std::byte* bytes) {
  const uint32_t crc = Crc32cExtend(kCrc32cOfNothing, {bytes, kHeaderCrcAt});
  return Crc32cExtend(crc, {bytes + kPacketVersionAt, kFrameHeaderBytes - kPacketVersionAt});
}

bool AllZero(const std::byte* bytes, size_t count) {
  static constexpr std::byte kZeros[kHeaderCrcAt - kReservedAt] = {};
  return std::memcmp(bytes, kZeros, count) == 0;
}

absl::Status ReservedError(const std::byte* bytes, size_t at) {
  while (bytes[at] == std::byte{0}) ++at;
  return absl::InvalidArgumentError(
      absl::StrFormat("reserved byte %u of the frame header is 0x%02x, expected 0", at,
                      std::to_integer<unsigned>(bytes[at])));
}

// All but magic and header CRC.
absl::StatusOr<PacketHeader> DecodeFields(const std::byte* bytes, size_t payload_bytes,
                                          bool sealed) {
  const auto version = std::to_integer<unsigned>(bytes[kVersionAt]);
  if (version != kFrameVersion) {
    return absl::InvalidArgumentError(
        absl::StrFormat("frame version is %u, this side knows %u", version, kFrameVersion));
  }
  const auto type = std::to_integer<unsigned>(bytes[kTypeAt]);
  const unsigned known = sealed ? kFrameTypeSealed : kFrameTypeDeviceState;
  if (type != known) {
    return absl::InvalidArgumentError(
        absl::StrFormat("frame type is %u, this side knows %u", type, known));
  }
  const uint32_t packet_version = Get32(bytes + kPacketVersionAt);
  if (packet_version != kPacketVersion) {
    return absl::InvalidArgumentError(absl::StrFormat("packet version is %u, this side knows %u",
                                                      packet_version, kPacketVersion));
  }
  const uint32_t flags = Get32(bytes + kFlagsAt);
  if ((flags & ~kPacketFlagConfigState) != 0) {
    return absl::InvalidArgumentError(
        absl::StrFormat("packet flags 0x%x have a bit that this side does not know", flags));
  }
  const size_t reserved_at = sealed ? kReservedBehindTagAt : kReservedAt;
  if (!AllZero(bytes + reserved_at, kHeaderCrcAt - reserved_at)) {
    return ReservedError(bytes, reserved_at);
  }

  PacketHeader header;
  header.device = Get16(bytes + kDeviceAt);
  header.epoch = Get32(bytes + kEpochAt);
  header.payload_bytes = Get32(bytes + kPayloadBytesAt);
  header.lane_sequence = Get64(bytes + kLaneSequenceAt);
  header.stream_offset = Get64(bytes + kStreamOffsetAt);
  header.crc_before = Get32(bytes + kCrcBeforeAt);
  header.crc_after = Get32(bytes + kCrcAfterAt);
  header.config_crc = sealed ? 0 : Get32(bytes + kConfigCrcAt);
  header.index = Get32(bytes + kIndexAt);
  header.flags = flags;
  header.sealed = sealed;
  if (header.payload_bytes != payload_bytes) {
    return absl::DataLossError(absl::StrFormat("frame says %u payload bytes, its message has %u",
                                               header.payload_bytes, payload_bytes));
  }
  if (header.index == kPacketIndexInvalid) {
    return absl::InvalidArgumentError("packet index is 0xffffffff, which is never valid");
  }
  return header;
}

absl::Status CheckNoCrc(const PacketHeader& header) {
  if ((header.crc_before | header.crc_after | header.config_crc) == 0) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrFormat(
      "device %u, packet %u: its header has the CRCs 0x%08x, 0x%08x and 0x%08x in a session "
      "without them",
      header.device, header.index, header.crc_before, header.crc_after, header.config_crc));
}

}  // namespace

void WriteHeaderCrc(std::byte* header) { Put32(header + kHeaderCrcAt, HeaderCrc(header)); }

absl::Status NextEpoch(PacketHeader& header) {
  if (header.epoch == kEpochMax) {
    return absl::ResourceExhaustedError(
        absl::StrFormat("device %u, packet %u: it was lost on its way %u times: is the network "
                        "between the two hosts whole?",
                        header.device, header.index, header.epoch));
  }
  ++header.epoch;
  return absl::OkStatus();
}

void EncodePacketHeader(const PacketHeader& header, std::byte* out) {
  Put32(out + kMagicAt, kFrameMagic);
  out[kVersionAt] = std::byte{kFrameVersion};
  out[kTypeAt] = std::byte{header.sealed ? kFrameTypeSealed : kFrameTypeDeviceState};
  Put16(out + kDeviceAt, header.device);
  Put32(out + kEpochAt, header.epoch);
  Put32(out + kPayloadBytesAt, header.payload_bytes);
  Put64(out + kLaneSequenceAt, header.lane_sequence);
  Put64(out + kStreamOffsetAt, header.stream_offset);
  Put32(out + kCrcBeforeAt, header.crc_before);
  Put32(out + kCrcAfterAt, header.crc_after);
  Put32(out + kConfigCrcAt, header.sealed ? 0 : header.config_crc);
  std::memset(out + kReservedAt, 0, kHeaderCrcAt - kReservedAt);
  Put32(out + kPacketVersionAt, kPacketVersion);
  Put32(out + kIndexAt, header.index);
  Put32(out + kFlagsAt, header.flags);
  WriteHeaderCrc(out);
}

absl::Status CheckHeaderWhole(const std::byte* bytes) {
  const uint32_t magic = Get32(bytes + kMagicAt);
  if (magic != kFrameMagic) {
    return absl::DataLossError(
        absl::StrFormat("frame magic is 0x%08x, expected 0x%08x", magic, kFrameMagic));
  }
  const uint32_t header_crc = Get32(bytes + kHeaderCrcAt);
  const uint32_t computed = HeaderCrc(bytes);
  if (header_crc == computed) return absl::OkStatus();
  return absl::DataLossError(
      absl::StrFormat("frame header CRC is 0x%08x, its bytes give 0x%08x", header_crc, computed));
}

absl::StatusOr<PacketHeader> DecodePacketHeader(const std::byte* bytes, size_t payload_bytes) {
  const absl::Status whole = CheckHeaderWhole(bytes);
  if (!whole.ok()) return whole;
  return DecodeFields(bytes, payload_bytes, /*sealed=*/false);
}

absl::StatusOr<PacketHeader> DecodeOpenedHeader(const std::byte* bytes, size_t payload_bytes) {
  return DecodeFields(bytes, payload_bytes, /*sealed=*/true);
}

bool PayloadMatches(const PacketHeader& header, absl::Span<const std::byte> payload) {
  if (header.is_config()) {
    return header.crc_before == header.crc_after &&
           (header.sealed || Crc32cExtend(kCrc32cOfNothing, payload) == header.config_crc);
  }
  return header.config_crc == 0 && Crc32cExtend(header.crc_before, payload) == header.crc_after;
}

absl::Status CheckPacket(const PacketHeader& header, absl::Span<const std::byte> payload,
                         const PacketLimits& limits, uint64_t lane_sequence) {
  const size_t bytes_min = header.is_config() ? kConfigMarkBytes : 1;
  const size_t bytes_max = header.is_config() ? kConfigPayloadBytesMax : limits.packet_bytes;
  if (payload.size() < bytes_min || payload.size() > bytes_max) {
    return absl::InvalidArgumentError(
        absl::StrFormat("packet %u has %u bytes, allowed are %u to %u", header.index,
                        payload.size(), bytes_min, bytes_max));
  }
  if (header.device >= limits.devices) {
    return absl::InvalidArgumentError(absl::StrFormat("packet is for device %u, the session has %u",
                                                      header.device, limits.devices));
  }
  if (header.lane_sequence != lane_sequence) {
    return absl::DataLossError(
        absl::StrFormat("lane sequence is %u, expected %u", header.lane_sequence, lane_sequence));
  }
  if (header.stream_offset > kStreamBytesMax - payload.size()) {
    return absl::InvalidArgumentError(
        absl::StrFormat("stream offset %u is past 2^63 - 1", header.stream_offset));
  }
  if (!limits.crc) return CheckNoCrc(header);
  if (!PayloadMatches(header, payload)) {
    return absl::DataLossError(
        absl::StrFormat("device %u, packet %u: its %u bytes do not have the CRC that its header "
                        "says: they were damaged on the way",
                        header.device, header.index, payload.size()));
  }
  return absl::OkStatus();
}

void EncodeConfigPayload(absl::string_view config, Buffer& buffer) {
  GODWIT_CHECK(config.size() <= kConfigBytesMax);
  GODWIT_CHECK(buffer.payload_bytes_max() >= config.size() + kConfigMarkBytes);
  Put64(buffer.payload(), kDevConfigStateMark);
  if (!config.empty()) std::memcpy(buffer.payload() + 8, config.data(), config.size());
  Put64(buffer.payload() + 8 + config.size(), kEndOfStateMark);
  buffer.set_payload_bytes(config.size() + kConfigMarkBytes);
}

absl::StatusOr<absl::string_view> DecodeConfigPayload(absl::Span<const std::byte> payload) {
  if (payload.size() < kConfigMarkBytes || payload.size() > kConfigPayloadBytesMax) {
    return absl::InvalidArgumentError(
        absl::StrFormat("config packet of %u bytes, allowed are %u to %u", payload.size(),
                        kConfigMarkBytes, kConfigPayloadBytesMax));
  }
  const uint64_t begin = Get64(payload.data());
  const uint64_t end = Get64(payload.data() + payload.size() - 8);
  if (begin != kDevConfigStateMark || end != kEndOfStateMark) {
    return absl::InvalidArgumentError(
        absl::StrFormat("config packet is marked 0x%016x … 0x%016x, expected 0x%016x … 0x%016x",
                        begin, end, kDevConfigStateMark, kEndOfStateMark));
  }
  return absl::string_view(reinterpret_cast<const char*>(payload.data()) + 8,
                           payload.size() - kConfigMarkBytes);
}

}  // namespace godwit
