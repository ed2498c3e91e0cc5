// Sizes as people write them.
#ifndef GODWIT_BASE_UNITS_H_
#define GODWIT_BASE_UNITS_H_

#include <absl/status/statusor.h>
#include <absl/strings/string_view.h>

#include <cstdint>
#include <string>

namespace godwit {

inline constexpr uint64_t kKiB = uint64_t{1} << 10;
inline constexpr uint64_t kMiB = uint64_t{1} << 20;
inline constexpr uint64_t kGiB = uint64_t{1} << 30;

// "4096", "4096B", "1KiB", "64MiB", "1.5GiB", "2TiB"; K, M, G and T alone mean the same powers of
// 1024. InvalidArgument for anything else, for a fraction of a byte and for more than 2^63 - 1.
absl::StatusOr<uint64_t> ParseBytes(absl::string_view text);

// "512 B", "1.00 GiB": for people, three significant digits.
std::string FormatBytes(uint64_t bytes);

}  // namespace godwit

#endif  // GODWIT_BASE_UNITS_H_
