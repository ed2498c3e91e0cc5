// All packet memory of one side of a session: one mapping, cut into equal buffers once.
#ifndef GODWIT_BASE_ARENA_H_
#define GODWIT_BASE_ARENA_H_

#include <absl/base/thread_annotations.h>
#include <absl/status/statusor.h>
#include <absl/types/span.h>

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <utility>
#include <vector>

#include "base/check.h"
#include "base/mutex.h"

namespace godwit {

class Arena;

// The bytes of a buffer that lie before its payload, for headers. One page, so that the payload
// is page-aligned; headers are written right-aligned, just before the payload.
inline constexpr size_t kHeaderRoomBytes = 4096;

// One of the arena's buffers: header room, then a page-aligned payload. A message on a lane is
// the last `header_bytes` of the header room and the first `payload_bytes` of the payload, which
// lie side by side.
//
// Ownership: move-only; gives the buffer back to its arena when destroyed. The arena outlives it.
// Threads:   one owner at a time; it may be handed to another thread and freed there.
// Blocking:  giving back takes the arena's lock, held for a few instructions.
// Errors:    none. A moved-from or default-made handle is empty (operator bool).
class Buffer {
 public:
  Buffer() = default;
  Buffer(Buffer&& other) noexcept { Swap(other); }
  Buffer& operator=(Buffer&& other) noexcept {
    Buffer(std::move(other)).Swap(*this);
    return *this;
  }
  inline ~Buffer();

  explicit operator bool() const { return arena_ != nullptr; }

  std::byte* payload() const { return payload_; }
  size_t payload_bytes() const { return payload_bytes_; }
  inline size_t payload_bytes_max() const;
  // REQUIRES: bytes <= payload_bytes_max()
  void set_payload_bytes(size_t bytes) {
    GODWIT_DCHECK(bytes <= payload_bytes_max());
    payload_bytes_ = static_cast<uint32_t>(bytes);
  }
  absl::Span<const std::byte> payload_span() const { return {payload_, payload_bytes_}; }

  // The `header_bytes` just before the payload. REQUIRES: header_bytes <= kHeaderRoomBytes
  std::byte* header(size_t header_bytes) const {
    GODWIT_DCHECK(header_bytes <= kHeaderRoomBytes);
    return payload_ - header_bytes;
  }

 private:
  friend class Arena;
  Buffer(Arena* arena, std::byte* payload) : arena_(arena), payload_(payload) {}
  void Swap(Buffer& other) {
    std::swap(arena_, other.arena_);
    std::swap(payload_, other.payload_);
    std::swap(payload_bytes_, other.payload_bytes_);
  }

  Arena* arena_ = nullptr;
  std::byte* payload_ = nullptr;
  uint32_t payload_bytes_ = 0;
};

// Ownership: owns the mapping. REQUIRES: every Buffer is back before it is destroyed.
// Threads:   every method from any thread.
// Blocking:  Create() touches every page; nothing later blocks or allocates.
// Errors:    Create() fails with ResourceExhausted when there is no memory, Cancelled when it was.
class Arena {
 public:
  enum class Backing { kHugePages, kTransparentHugePages, kPlainPages };

  // Maps `buffer_count` buffers of `payload_bytes_max` (1 to 1 GiB) and touches them all, so that
  // no page fault is left for the stop-copy phase. Hugepages if there are enough free ones, else
  // transparent hugepages, else plain pages. Every few MiB it asks `cancelled`, if there is one.
  static absl::StatusOr<std::unique_ptr<Arena>> Create(size_t buffer_count,
                                                       size_t payload_bytes_max,
                                                       const std::function<bool()>& cancelled = {});
  // Bytes of mapping that one buffer takes: payload rounded up to pages, and the header room.
  static size_t StrideBytes(size_t payload_bytes_max);

  ~Arena();
  Arena(const Arena&) = delete;
  Arena& operator=(const Arena&) = delete;

  // The most recently freed buffer (its cache lines are the warmest), or an empty handle.
  [[nodiscard]] Buffer TryAcquire();

  Backing backing() const { return backing_; }
  const char* backing_name() const;
  std::byte* address() const { return address_; }
  size_t size_bytes() const { return size_bytes_; }
  size_t buffer_count() const { return buffer_count_; }
  size_t payload_bytes_max() const { return payload_bytes_max_; }
  size_t free_count() const;
  size_t used_high_water() const;  // most buffers that were ever out at once

 private:
  friend class Buffer;
  Arena(std::byte* address, size_t size_bytes, Backing backing, size_t buffer_count,
        size_t payload_bytes_max);
  void Release(std::byte* payload);

  std::byte* const address_;
  const size_t size_bytes_;
  const Backing backing_;
  const size_t buffer_count_;
  const size_t payload_bytes_max_;

  mutable Mutex mutex_;
  // Capacity buffer_count_, reserved at construction: push_back never allocates.
  std::vector<std::byte*> free_payloads_ ABSL_GUARDED_BY(mutex_);
  size_t free_low_water_ ABSL_GUARDED_BY(mutex_);
};

inline Buffer::~Buffer() {
  if (arena_ != nullptr) arena_->Release(payload_);
}

inline size_t Buffer::payload_bytes_max() const { return arena_->payload_bytes_max(); }

}  // namespace godwit

#endif  // GODWIT_BASE_ARENA_H_
