// Ends TCP lanes of a session whose source is in this process.
#ifndef GODWIT_TESTS_SOAK_LANE_KILLER_H_
#define GODWIT_TESTS_SOAK_LANE_KILLER_H_

#include <atomic>
#include <cstdint>
#include <random>
#include <thread>

namespace godwit {

// Shuts lanes to `port` down at random while it lives, each time after 1 to `every_ms_max`
// milliseconds. The first connection is the control channel's: it is left alone, and so are all if
// that one was not seen alone.
class LaneKiller {
 public:
  LaneKiller(uint16_t port, uint64_t seed, uint64_t every_ms_max)
      : thread_([this, port, seed, every_ms_max] { Run(port, seed, every_ms_max); }) {}
  ~LaneKiller() {
    over_ = true;
    thread_.join();
  }
  LaneKiller(const LaneKiller&) = delete;
  LaneKiller& operator=(const LaneKiller&) = delete;

  int killed() const { return killed_; }

 private:
  void Run(uint16_t port, uint64_t seed, uint64_t every_ms_max);

  std::atomic<bool> over_{false};
  std::atomic<int> killed_{0};
  std::thread thread_;
};

}  // namespace godwit

#endif  // GODWIT_TESTS_SOAK_LANE_KILLER_H_
