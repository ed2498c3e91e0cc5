// The content of a software device's stream: made from a seed, checked byte by byte, and cheap
// enough to do both at memory speed.
//
// Word w of the stream (8 bytes, little-endian; the last one cut to the stream's size) is
//
//   table[w mod 8192] ^ mix(mix(seed) + w div 8192)
//   table[i] = mix(mix(seed ^ 0x676f647769740000) + i)
//
// where mix(x) is SplitMix64's step: x += 0x9e3779b97f4a7c15; x ^= x >> 30; x *=
// 0xbf58476d1ce4e5b9; x ^= x >> 27; x *= 0x94d049bb133111eb; x ^= x >> 31. Each word depends on its
// place in the block and on the block's number, so bytes that are lost, repeated, swapped or moved
// show.
#ifndef GODWIT_VFIO_SOFT_CONTENT_H_
#define GODWIT_VFIO_SOFT_CONTENT_H_

#include <absl/types/span.h>

#include <cstddef>
#include <cstdint>
#include <vector>

namespace godwit {

// Ownership: owns its table of 64 KiB.
// Threads:   constant after construction: any number of threads may use it.
// Blocking:  never.
// Errors:    none.
class SoftContent {
 public:
  explicit SoftContent(uint64_t seed);

  // Writes the stream's bytes [offset, offset + out.size()).
  void Fill(uint64_t offset, absl::Span<std::byte> out) const;

  // Index of the first byte of `in` that is not the stream's byte at offset + index, or in.size()
  // if all are right.
  size_t FirstMismatch(uint64_t offset, absl::Span<const std::byte> in) const;

 private:
  uint64_t block_key_;            // mix(seed)
  std::vector<std::byte> table_;  // one block
};

}  // namespace godwit

#endif  // GODWIT_VFIO_SOFT_CONTENT_H_
