// The Buffers that a NIC holds, in the order in which they were posted.
#ifndef GODWIT_TRANSPORT_VERBS_BUFFER_FIFO_H_
#define GODWIT_TRANSPORT_VERBS_BUFFER_FIFO_H_

#include <cstddef>
#include <memory>
#include <utility>

#include "base/arena.h"
#include "base/check.h"

namespace godwit {

// Ownership: owns the Buffers in it.
// Threads:   one thread.
// Blocking:  never; no allocation after construction.
// Errors:    none; a full one must not be pushed to, nor an empty one popped.
class BufferFifo {
 public:
  explicit BufferFifo(size_t capacity) : capacity_(capacity), slots_(new Buffer[capacity]) {}

  size_t size() const { return size_; }
  size_t free() const { return capacity_ - size_; }
  bool empty() const { return size_ == 0; }

  void Push(Buffer&& buffer) {
    GODWIT_DCHECK(size_ < capacity_);
    const size_t slot = head_ + size_;
    slots_[slot < capacity_ ? slot : slot - capacity_] = std::move(buffer);
    ++size_;
  }
  Buffer Pop() {
    GODWIT_DCHECK(size_ > 0);
    Buffer buffer = std::move(slots_[head_]);
    if (++head_ == capacity_) head_ = 0;
    --size_;
    return buffer;
  }

 private:
  const size_t capacity_;
  const std::unique_ptr<Buffer[]> slots_;
  size_t head_ = 0;
  size_t size_ = 0;
};

}  // namespace godwit

#endif  // GODWIT_TRANSPORT_VERBS_BUFFER_FIFO_H_
