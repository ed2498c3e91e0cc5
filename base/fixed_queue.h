// A first-in first-out queue of one thread, with its room allocated once.
#ifndef GODWIT_BASE_FIXED_QUEUE_H_
#define GODWIT_BASE_FIXED_QUEUE_H_

#include <cstddef>
#include <utility>
#include <vector>

#include "base/check.h"

namespace godwit {

// Ownership: owns its elements. T is default-constructible; a popped slot is left moved-from.
// Threads:   single-threaded.
// Blocking:  never; no allocation after construction.
// Errors:    none; overflow and underflow are our own bugs and checked.
template <typename T>
class FixedQueue {
 public:
  explicit FixedQueue(size_t capacity) : slots_(capacity) {}

  void Push(T&& value) { PushInPlace() = std::move(value); }
  // The next one, to be filled in its slot, where it is as DropFront() or a move has left it.
  T& PushInPlace() {
    GODWIT_CHECK(size_ < slots_.size());
    const size_t slot = head_ + size_++;
    return slots_[slot < slots_.size() ? slot : slot - slots_.size()];
  }
  T Pop() {
    GODWIT_CHECK(size_ > 0);
    T value = std::move(slots_[head_]);
    DropFront();
    return value;
  }
  // Leaves it as it is in its slot, until that is used again: for a T that owns nothing, or out of
  // which what it owned has been moved.
  void DropFront() {
    GODWIT_CHECK(size_ > 0);
    if (++head_ == slots_.size()) head_ = 0;
    --size_;
  }
  T& front() {
    GODWIT_CHECK(size_ > 0);
    return slots_[head_];
  }

  bool empty() const { return size_ == 0; }
  size_t size() const { return size_; }
  size_t free() const { return slots_.size() - size_; }

 private:
  std::vector<T> slots_;
  size_t head_ = 0;
  size_t size_ = 0;
};

}  // namespace godwit

#endif  // GODWIT_BASE_FIXED_QUEUE_H_
