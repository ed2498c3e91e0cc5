// What a worker tells its session's thread about its lanes.
#ifndef GODWIT_ENGINE_LANE_EVENTS_H_
#define GODWIT_ENGINE_LANE_EVENTS_H_

#include <absl/base/thread_annotations.h>
#include <absl/status/status.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "base/mutex.h"
#include "godwit/unique_fd.h"
#include "transport/lane.h"

namespace godwit {

// A lane went down, or one was made in the place of one that had.
struct LaneChange {
  uint32_t lane = 0;
  uint16_t generation = 0;
  bool up = false;
  absl::Status why;  // it went down
};

// A lane that was made again, until the worker can put it in its place.
struct NewLane {
  size_t lane = 0;
  uint16_t generation = 0;
  UniqueFd socket;              // of a TCP lane,
  std::unique_ptr<Lane> ready;  // or a lane that needs no ring
  std::string name;             // of the TCP lane
};

// Threads: any. Blocking: never for long. Errors: none.
class LaneEvents {
 public:
  void Add(LaneChange change) {
    MutexLock lock(mutex_);
    changes_.push_back(std::move(change));
  }
  std::vector<LaneChange> Take() {
    MutexLock lock(mutex_);
    return std::exchange(changes_, {});
  }

 private:
  Mutex mutex_;
  std::vector<LaneChange> changes_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace godwit

#endif  // GODWIT_ENGINE_LANE_EVENTS_H_
