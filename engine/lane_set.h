// Which of a session's lanes.
#ifndef GODWIT_ENGINE_LANE_SET_H_
#define GODWIT_ENGINE_LANE_SET_H_

#include <bit>
#include <cstddef>
#include <cstdint>

#include "engine/packet.h"

namespace godwit {

// Ownership: a value. Threads: as a value. Blocking: never. Errors: none.
// REQUIRES: numbers under kLanesMax
class LaneSet {
 public:
  // Goes through the numbers from the lowest on.
  class Iterator {
   public:
    explicit Iterator(uint64_t left) : left_(left) {}
    size_t operator*() const { return static_cast<size_t>(std::countr_zero(left_)); }
    Iterator& operator++() {
      left_ &= left_ - 1;  // without the lowest
      return *this;
    }
    bool operator!=(const Iterator& other) const { return left_ != other.left_; }

   private:
    uint64_t left_;
  };

  void Add(size_t lane) { bits_ |= uint64_t{1} << lane; }
  void Remove(size_t lane) { bits_ &= ~(uint64_t{1} << lane); }
  void Set(size_t lane, bool in) { in ? Add(lane) : Remove(lane); }
  bool Has(size_t lane) const { return (bits_ >> lane & 1) != 0; }
  bool empty() const { return bits_ == 0; }
  Iterator begin() const { return Iterator(bits_); }
  Iterator end() const { return Iterator(0); }

  friend LaneSet operator|(LaneSet a, LaneSet b) { return LaneSet(a.bits_ | b.bits_); }
  friend LaneSet operator&(LaneSet a, LaneSet b) { return LaneSet(a.bits_ & b.bits_); }
  // Those of `a` that `b` has not.
  friend LaneSet operator-(LaneSet a, LaneSet b) { return LaneSet(a.bits_ & ~b.bits_); }
  friend bool operator==(LaneSet a, LaneSet b) { return a.bits_ == b.bits_; }

  LaneSet() = default;

 private:
  explicit LaneSet(uint64_t bits) : bits_(bits) {}
  static_assert(kLanesMax <= 64);

  uint64_t bits_ = 0;
};

}  // namespace godwit

#endif  // GODWIT_ENGINE_LANE_SET_H_
