#include "base/crc32c.h"

#include <isa-l/crc.h>

#include <cstddef>
#include <limits>

namespace godwit {

uint32_t Crc32cExtend(uint32_t crc, absl::Span<const std::byte> bytes) {
  // ISA-L works on the raw register: inversion before and after is the caller's. Its length is an
  // int and its pointer not const, though it only reads.
  constexpr auto kPartMax = static_cast<size_t>(std::numeric_limits<int>::max());
  auto* data = reinterpret_cast<unsigned char*>(const_cast<std::byte*>(bytes.data()));
  size_t left = bytes.size();
  uint32_t state = ~crc;
  for (; left > kPartMax; data += kPartMax, left -= kPartMax) {
    state = crc32_iscsi(data, std::numeric_limits<int>::max(), state);
  }
  return ~crc32_iscsi(data, static_cast<int>(left), state);
}

}  // namespace godwit
