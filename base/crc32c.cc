#include "base/crc32c.h"

#include <isa-l/crc.h>

#include <algorithm>
#include <limits>

namespace godwit {

uint32_t Crc32cExtend(uint32_t crc, absl::Span<const std::byte> bytes) {
  // ISA-L works on the raw register: inversion before and after is the caller's. Its length is an
  // int and its pointer not const, though it only reads.
  uint32_t state = ~crc;
  while (!bytes.empty()) {
    const size_t part =
        std::min<size_t>(bytes.size(), static_cast<size_t>(std::numeric_limits<int>::max()));
    auto* data = reinterpret_cast<unsigned char*>(const_cast<std::byte*>(bytes.data()));
    state = crc32_iscsi(data, static_cast<int>(part), state);
    bytes.remove_prefix(part);
  }
  return ~state;
}

}  // namespace godwit
