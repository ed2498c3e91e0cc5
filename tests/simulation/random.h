// The one source of chance in a simulated run.
#ifndef GODWIT_TESTS_SIMULATION_RANDOM_H_
#define GODWIT_TESTS_SIMULATION_RANDOM_H_

#include <cstdint>

namespace godwit::simulation {

// SplitMix64 (Steele, Lea, Flood 2014): the same numbers on every machine and with every library,
// which the standard's distributions don't promise.
class Random {
 public:
  explicit Random(uint64_t seed) : state_(seed) {}

  uint64_t Next() {
    uint64_t z = (state_ += 0x9e3779b97f4a7c15);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
    z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
    return z ^ (z >> 31);
  }
  // 0 to count - 1. REQUIRES: count > 0
  uint64_t Below(uint64_t count) { return Next() % count; }
  // Both ends included.
  uint64_t Between(uint64_t low, uint64_t high) { return low + Below(high - low + 1); }
  // True once in `times`.
  bool OneIn(uint64_t times) { return Below(times) == 0; }

 private:
  uint64_t state_;
};

}  // namespace godwit::simulation

#endif  // GODWIT_TESTS_SIMULATION_RANDOM_H_
