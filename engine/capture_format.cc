#include "engine/capture_format.h"

#include <absl/strings/match.h>
#include <absl/strings/str_cat.h>
#include <absl/strings/str_format.h>

#include "base/check.h"
#include "base/crc32c.h"
#include "engine/packet.h"

namespace godwit {
namespace {

// Offsets of docs/capture-format.md, in its order.
constexpr size_t kVersionAt = 8;
constexpr size_t kDevicesAt = 10;
constexpr size_t kPacketBytesAt = 12;
constexpr size_t kTableBytesAt = 16;
constexpr size_t kReservedAt = 20;

constexpr size_t kKindLengthAt = 1;
constexpr size_t kNameLengthAt = 2;
constexpr size_t kEstimateAt = 4;

constexpr size_t kTrailerMagicAt = 4;
constexpr size_t kTrailerRecordsAt = 12;
constexpr size_t kTrailerBytesAt = 20;
constexpr size_t kTrailerCrcAt = 28;
static_assert(kTrailerCrcAt + kCaptureCrcBytes == kCaptureTrailerBytes);

constexpr uint8_t kFlagP2p = 1U << 0;
constexpr uint8_t kFlagPreCopy = 1U << 1;

void Append(uint64_t value, size_t bytes, std::string& out) {
  for (size_t i = bytes; i-- > 0;) out.push_back(static_cast<char>(value >> (8 * i)));
}

uint64_t Big(absl::string_view bytes, size_t at, size_t size) {
  uint64_t value = 0;
  for (size_t i = 0; i < size; ++i) value = value << 8 | static_cast<uint8_t>(bytes[at + i]);
  return value;
}

uint32_t Crc(absl::string_view bytes) {
  return Crc32cExtend(kCrc32cOfNothing,
                      {reinterpret_cast<const std::byte*>(bytes.data()), bytes.size()});
}

absl::Status CheckCrc(absl::string_view bytes, const char* what) {
  const size_t at = bytes.size() - kCaptureCrcBytes;
  const auto said = static_cast<uint32_t>(Big(bytes, at, kCaptureCrcBytes));
  const uint32_t computed = Crc(bytes.substr(0, at));
  if (said == computed) return absl::OkStatus();
  return absl::DataLossError(
      absl::StrFormat("the %s's CRC is 0x%08x, its bytes give 0x%08x", what, said, computed));
}

// Takes one row off the front of `rows`.
absl::StatusOr<CaptureDevice> TakeRow(size_t device, absl::string_view& rows) {
  const auto wrong = [device](absl::string_view what) {
    return absl::InvalidArgumentError(absl::StrFormat("device %u of the table: %s", device, what));
  };
  if (rows.size() < kCaptureRowBytes) return wrong("the table ends before its row does");
  const auto flags = static_cast<uint8_t>(rows[0]);
  const auto kind_bytes = static_cast<size_t>(Big(rows, kKindLengthAt, 1));
  const auto name_bytes = static_cast<size_t>(Big(rows, kNameLengthAt, 2));
  if ((flags & ~(kFlagP2p | kFlagPreCopy)) != 0) {
    return wrong(absl::StrFormat("flags 0x%02x have a bit that this side does not know", flags));
  }
  if (kind_bytes < 1 || kind_bytes > kCaptureKindBytesMax || name_bytes < 1 ||
      name_bytes > kCaptureNameBytesMax) {
    return wrong(
        absl::StrFormat("its kind has %u and its name %u bytes, allowed are 1 to %u and "
                        "1 to %u",
                        kind_bytes, name_bytes, kCaptureKindBytesMax, kCaptureNameBytesMax));
  }
  if (rows.size() < kCaptureRowBytes + kind_bytes + name_bytes) {
    return wrong("the table ends before its row does");
  }
  CaptureDevice row;
  row.flags = {.p2p = (flags & kFlagP2p) != 0, .pre_copy = (flags & kFlagPreCopy) != 0};
  row.stop_copy_bytes = Big(rows, kEstimateAt, 8);
  row.kind = std::string(rows.substr(kCaptureRowBytes, kind_bytes));
  row.name = std::string(rows.substr(kCaptureRowBytes + kind_bytes, name_bytes));
  rows.remove_prefix(kCaptureRowBytes + kind_bytes + name_bytes);
  return row;
}

}  // namespace

std::string EncodeCaptureHeader(const CaptureHeader& header) {
  GODWIT_CHECK(!header.devices.empty() && header.devices.size() <= kDevicesMax);
  std::string rows;
  for (const CaptureDevice& device : header.devices) {
    GODWIT_CHECK(!device.kind.empty() && device.kind.size() <= kCaptureKindBytesMax);
    GODWIT_CHECK(!device.name.empty() && device.name.size() <= kCaptureNameBytesMax);
    const int flags =
        (device.flags.p2p ? kFlagP2p : 0) | (device.flags.pre_copy ? kFlagPreCopy : 0);
    Append(static_cast<uint64_t>(flags), 1, rows);
    Append(device.kind.size(), 1, rows);
    Append(device.name.size(), 2, rows);
    Append(device.stop_copy_bytes, 8, rows);
    absl::StrAppend(&rows, device.kind, device.name);
  }
  std::string out(kCaptureMagic);
  Append(kCaptureVersion, 2, out);
  Append(header.devices.size(), 2, out);
  Append(header.packet_bytes, 4, out);
  Append(rows.size(), 4, out);
  out.resize(kCaptureFixedBytes);
  out += rows;
  Append(Crc(out), kCaptureCrcBytes, out);
  return out;
}

absl::StatusOr<size_t> CaptureHeaderBytes(absl::string_view fixed) {
  if (!absl::StartsWith(fixed, kCaptureMagic)) {
    return absl::DataLossError("it does not begin with \"GODWITCP\", so it is no capture");
  }
  const uint64_t version = Big(fixed, kVersionAt, 2);
  const uint64_t devices = Big(fixed, kDevicesAt, 2);
  const uint64_t packet_bytes = Big(fixed, kPacketBytesAt, 4);
  const uint64_t table_bytes = Big(fixed, kTableBytesAt, 4);
  if (version != kCaptureVersion) {
    return absl::InvalidArgumentError(
        absl::StrFormat("capture version is %u, this side knows %u", version, kCaptureVersion));
  }
  if (devices < 1 || devices > kDevicesMax || packet_bytes < 1 || packet_bytes > kPacketBytesMax) {
    return absl::InvalidArgumentError(
        absl::StrFormat("it has %u devices and packets of %u bytes: allowed are 1 to %u and 1 to "
                        "%u",
                        devices, packet_bytes, kDevicesMax, kPacketBytesMax));
  }
  constexpr size_t kRowMax = kCaptureRowBytes + kCaptureKindBytesMax + kCaptureNameBytesMax;
  if (table_bytes < devices * (kCaptureRowBytes + 2) || table_bytes > devices * kRowMax) {
    return absl::InvalidArgumentError(absl::StrFormat(
        "its table has %u bytes, which can't be for %u devices", table_bytes, devices));
  }
  for (size_t at = kReservedAt; at < kCaptureFixedBytes; ++at) {
    if (fixed[at] == '\0') continue;
    return absl::InvalidArgumentError(
        absl::StrFormat("reserved byte %u of the header is not 0", at));
  }
  return kCaptureFixedBytes + static_cast<size_t>(table_bytes) + kCaptureCrcBytes;
}

absl::StatusOr<CaptureHeader> DecodeCaptureHeader(absl::string_view bytes) {
  const absl::Status intact = CheckCrc(bytes, "header");
  if (!intact.ok()) return intact;
  CaptureHeader header;
  header.packet_bytes = static_cast<uint32_t>(Big(bytes, kPacketBytesAt, 4));
  const auto devices = static_cast<size_t>(Big(bytes, kDevicesAt, 2));
  absl::string_view rows =
      bytes.substr(kCaptureFixedBytes, bytes.size() - kCaptureFixedBytes - kCaptureCrcBytes);
  for (size_t i = 0; i < devices; ++i) {
    absl::StatusOr<CaptureDevice> row = TakeRow(i, rows);
    if (!row.ok()) return row.status();
    header.devices.push_back(*std::move(row));
  }
  if (!rows.empty()) {
    return absl::InvalidArgumentError(
        absl::StrFormat("%u bytes follow the last row of the table", rows.size()));
  }
  return header;
}

std::string EncodeCaptureTrailer(const CaptureTrailer& trailer) {
  std::string out(kCaptureLengthBytes, '\0');
  absl::StrAppend(&out, kCaptureTrailerMagic);
  Append(trailer.records, 8, out);
  Append(trailer.bytes, 8, out);
  Append(Crc(out), kCaptureCrcBytes, out);
  return out;
}

absl::StatusOr<CaptureTrailer> DecodeCaptureTrailer(absl::string_view bytes) {
  if (Big(bytes, 0, kCaptureLengthBytes) != 0 ||
      bytes.substr(kTrailerMagicAt, kCaptureTrailerMagic.size()) != kCaptureTrailerMagic) {
    return absl::DataLossError("the trailer is not there");
  }
  const absl::Status intact = CheckCrc(bytes, "trailer");
  if (!intact.ok()) return intact;
  return CaptureTrailer{Big(bytes, kTrailerRecordsAt, 8), Big(bytes, kTrailerBytesAt, 8)};
}

}  // namespace godwit
