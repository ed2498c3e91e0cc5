// A bounded queue between exactly two threads.
#ifndef GODWIT_BASE_BOUNDED_RING_H_
#define GODWIT_BASE_BOUNDED_RING_H_

#include <atomic>
#include <cstddef>
#include <memory>
#include <utility>

#include "base/check.h"

namespace godwit {

// Single producer, single consumer, never more than `capacity` elements.
//
// Ownership: an element belongs to the ring between Push and Pop.
// Threads:   one thread may push, one other may pop.
// Blocking:  never; no allocation after construction.
// Errors:    a full ring refuses (TryPush returns false and leaves `value` untouched).
template <typename T>
class BoundedRing {
 public:
  // REQUIRES: capacity is a power of two.
  explicit BoundedRing(size_t capacity) : mask_(capacity - 1), slots_(new T[capacity]()) {
    GODWIT_CHECK(capacity > 0 && (capacity & mask_) == 0);
  }

  [[nodiscard]] bool TryPush(T&& value) {
    const size_t tail = tail_.load(std::memory_order_relaxed);  // only we write it
    // Acquire pairs with TryPop's release of head_: the slot's old value has been moved out.
    if (tail - head_.load(std::memory_order_acquire) > mask_) return false;
    slots_[tail & mask_] = std::move(value);
    tail_.store(tail + 1, std::memory_order_release);  // pairs with TryPop's acquire
    return true;
  }

  [[nodiscard]] bool TryPop(T& value) {
    const size_t head = head_.load(std::memory_order_relaxed);  // only we write it
    if (head == tail_.load(std::memory_order_acquire)) return false;
    value = std::move(slots_[head & mask_]);
    head_.store(head + 1, std::memory_order_release);
    return true;
  }

  size_t capacity() const { return mask_ + 1; }

 private:
  const size_t mask_;
  const std::unique_ptr<T[]> slots_;
  // A cache line each: the two threads would otherwise fight over one.
  alignas(64) std::atomic<size_t> head_{0};
  alignas(64) std::atomic<size_t> tail_{0};
};

}  // namespace godwit

#endif  // GODWIT_BASE_BOUNDED_RING_H_
