// Header and trailer of a capture: docs/capture-format.md in code.
#ifndef GODWIT_ENGINE_CAPTURE_FORMAT_H_
#define GODWIT_ENGINE_CAPTURE_FORMAT_H_

#include <absl/status/statusor.h>
#include <absl/strings/string_view.h>

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "godwit/device.h"

namespace godwit {

inline constexpr absl::string_view kCaptureMagic = "GODWITCP";
inline constexpr absl::string_view kCaptureTrailerMagic = "GODWITCE";
inline constexpr uint16_t kCaptureVersion = 1;
inline constexpr size_t kCaptureFixedBytes = 32;
inline constexpr size_t kCaptureCrcBytes = 4;
inline constexpr size_t kCaptureRowBytes = 12;  // without kind and name
inline constexpr size_t kCaptureKindBytesMax = 64;
inline constexpr size_t kCaptureNameBytesMax = 512;
inline constexpr size_t kCaptureLengthBytes = 4;
inline constexpr size_t kCaptureTrailerBytes = 32;

struct CaptureDevice {
  std::string kind;
  std::string name;
  MigrationFlags flags;
  uint64_t stop_copy_bytes = 0;  // as foretold

  friend bool operator==(const CaptureDevice&, const CaptureDevice&) = default;
};

struct CaptureHeader {
  uint32_t packet_bytes = 0;
  std::vector<CaptureDevice> devices;

  friend bool operator==(const CaptureHeader&, const CaptureHeader&) = default;
};

// REQUIRES: everything is within the document's limits.
std::string EncodeCaptureHeader(const CaptureHeader& header);

// From the fixed part: how many bytes the whole header has, CRC included. Errors name the field:
// DataLoss for bytes that can't be a header, InvalidArgument for values out of range.
absl::StatusOr<size_t> CaptureHeaderBytes(absl::string_view fixed);
// REQUIRES: CaptureHeaderBytes() of its beginning gives bytes.size().
absl::StatusOr<CaptureHeader> DecodeCaptureHeader(absl::string_view bytes);

struct CaptureTrailer {
  uint64_t records = 0;
  uint64_t bytes = 0;  // before it

  friend bool operator==(const CaptureTrailer&, const CaptureTrailer&) = default;
};

std::string EncodeCaptureTrailer(const CaptureTrailer& trailer);
// REQUIRES: bytes.size() == kCaptureTrailerBytes
absl::StatusOr<CaptureTrailer> DecodeCaptureTrailer(absl::string_view bytes);

}  // namespace godwit

#endif  // GODWIT_ENGINE_CAPTURE_FORMAT_H_
