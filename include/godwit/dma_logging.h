// Which pages of memory a device has written: DMA logging, as VFIO has it.
#ifndef GODWIT_DMA_LOGGING_H_
#define GODWIT_DMA_LOGGING_H_

#include <absl/status/status.h>
#include <absl/types/span.h>

#include <cstddef>
#include <cstdint>

namespace godwit {

// Addresses as the device sees them. Neither may be 0 bytes long nor pass the end of 64 bits.
struct IovaRange {
  uint64_t iova = 0;
  uint64_t length_bytes = 0;
};

// What the kernel takes: one page of ranges.
inline constexpr size_t kIovaRangesMax = 256;
inline constexpr uint64_t kDirtyPageBytesMin = 4096;

// Words of a bitmap with a bit for each page of `range`, the last page counted whole.
// REQUIRES: page_bytes > 0.
constexpr uint64_t DirtyBitmapWords(IovaRange range, uint64_t page_bytes) {
  const uint64_t pages =
      range.length_bytes / page_bytes + (range.length_bytes % page_bytes != 0 ? 1 : 0);
  return pages / 64 + (pages % 64 != 0 ? 1 : 0);
}

// The DMA log of one device.
//
// Ownership: belongs to its device. It is stopped with it.
// Threads:   as Device.
// Blocking:  as the driver does; Report() reads the hardware's log.
// Errors:    InvalidArgument: ranges or page size that no kernel would take; nothing was asked of
//            the device. Unimplemented: its driver has no DMA logging. FailedPrecondition:
//            started twice, or not started. ResourceExhausted: the hardware can't follow as much.
class DmaLog {
 public:
  virtual ~DmaLog() = default;

  // Whether the driver has it: asked at open.
  virtual bool supported() const = 0;

  // From now on pages of `ranges` that the device writes are logged. `page_bytes`, a power of two,
  // is a wish: the driver may log in other units. 1 to kIovaRangesMax ranges, each a multiple of
  // page_bytes at a multiple of page_bytes, none overlapping.
  virtual absl::Status Start(uint64_t page_bytes, absl::Span<const IovaRange> ranges) = 0;

  // Reads the log of `range`, and clears it there. Bit i (bit i % 64 of word i / 64) is page i from
  // range.iova on; bits are only ever set, so that several devices can report into one bitmap.
  // After an error nothing is known and every bit of `bitmap` is set: all is dirty.
  // `page_bytes` is a power of two, at least kDirtyPageBytesMin; `bitmap` has at least
  // DirtyBitmapWords() words.
  virtual absl::Status Report(IovaRange range, uint64_t page_bytes,
                              absl::Span<uint64_t> bitmap) = 0;

  // What was not reported is lost. Also after an error of Report(), before a new Start().
  virtual absl::Status Stop() = 0;
};

}  // namespace godwit

#endif  // GODWIT_DMA_LOGGING_H_
