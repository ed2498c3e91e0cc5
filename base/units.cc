#include "base/units.h"

#include <absl/strings/ascii.h>
#include <absl/strings/match.h>
#include <absl/strings/numbers.h>
#include <absl/strings/str_cat.h>
#include <absl/strings/str_format.h>

#include <array>
#include <cmath>
#include <limits>
#include <utility>

namespace godwit {

absl::StatusOr<uint64_t> ParseBytes(absl::string_view text) {
  const absl::string_view whole = text;
  const auto bad = [whole] {
    return absl::InvalidArgumentError(absl::StrCat(
        "'", whole, "' is not a size: write a number with B, KiB, MiB, GiB or TiB, as in 64MiB"));
  };
  size_t digits = 0;
  while (digits < text.size() &&
         (absl::ascii_isdigit(static_cast<unsigned char>(text[digits])) || text[digits] == '.')) {
    ++digits;
  }
  const absl::string_view number = text.substr(0, digits);
  absl::string_view unit = text.substr(digits);
  uint64_t scale = 1;
  static constexpr std::array<std::pair<char, uint64_t>, 4> kScales = {
      {{'K', kKiB}, {'M', kMiB}, {'G', kGiB}, {'T', kGiB << 10}}};
  for (const auto& [letter, value] : kScales) {
    if (!unit.empty() && unit[0] == letter) {
      scale = value;
      unit.remove_prefix(1);
      if (!unit.empty() && unit != "iB") return bad();
      unit = {};
    }
  }
  if (unit == "B") unit = {};
  if (!unit.empty() || number.empty()) return bad();

  uint64_t integer = 0;
  if (absl::SimpleAtoi(number, &integer)) {
    if (integer > static_cast<uint64_t>(std::numeric_limits<int64_t>::max()) / scale) return bad();
    return integer * scale;
  }
  double fraction = 0;
  if (!absl::SimpleAtod(number, &fraction)) return bad();
  const double bytes = fraction * static_cast<double>(scale);
  if (bytes != std::floor(bytes) || bytes >= 9.2e18) return bad();
  return static_cast<uint64_t>(bytes);
}

std::string FormatBytes(uint64_t bytes) {
  if (bytes < kKiB) return absl::StrCat(bytes, " B");
  static constexpr std::array<const char*, 6> kUnits = {"KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
  double value = static_cast<double>(bytes) / 1024;
  size_t unit = 0;
  while (value >= 1000 && unit + 1 < kUnits.size()) {
    value /= 1024;
    ++unit;
  }
  const int decimals = value < 10 ? 2 : value < 100 ? 1 : 0;
  return absl::StrFormat("%.*f %s", decimals, value, kUnits[unit]);
}

}  // namespace godwit
