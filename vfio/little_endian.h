// Integers as drivers' streams have them.
#ifndef GODWIT_VFIO_LITTLE_ENDIAN_H_
#define GODWIT_VFIO_LITTLE_ENDIAN_H_

#include <absl/strings/string_view.h>

#include <cstdint>
#include <string>

namespace godwit {

template <typename Integer>
void AppendLittle(Integer value, std::string& out) {
  for (size_t i = 0; i < sizeof(Integer); ++i) {
    out.push_back(static_cast<char>(static_cast<uint64_t>(value) >> (8 * i)));
  }
}

// REQUIRES: bytes.size() >= at + sizeof(Integer)
template <typename Integer>
Integer LoadLittle(absl::string_view bytes, size_t at = 0) {
  uint64_t value = 0;
  for (size_t i = 0; i < sizeof(Integer); ++i) {
    value |= static_cast<uint64_t>(static_cast<uint8_t>(bytes[at + i])) << (8 * i);
  }
  return static_cast<Integer>(value);
}

}  // namespace godwit

#endif  // GODWIT_VFIO_LITTLE_ENDIAN_H_
