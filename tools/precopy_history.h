// The last rounds of pre-copy of each device.
#ifndef GODWIT_TOOLS_PRECOPY_HISTORY_H_
#define GODWIT_TOOLS_PRECOPY_HISTORY_H_

#include <cstddef>
#include <vector>

#include "godwit/session.h"

namespace godwit {

// Ownership: of copies. Threads: one at a time. Blocking: never. Errors: none.
class PrecopyHistory {
 public:
  static constexpr size_t kIterationsMax = 64;  // of a device; older ones are forgotten

  void Add(const PrecopyIteration& iteration) {
    if (iteration.device >= devices_.size()) devices_.resize(iteration.device + 1);
    Ring& ring = devices_[iteration.device];
    if (ring.iterations.size() < kIterationsMax) {
      ring.iterations.push_back(iteration);
      return;
    }
    ring.iterations[ring.oldest] = iteration;
    ring.oldest = (ring.oldest + 1) % kIterationsMax;
  }

  // Oldest first.
  std::vector<PrecopyIteration> Last(size_t device) const {
    std::vector<PrecopyIteration> last;
    if (device >= devices_.size()) return last;
    const Ring& ring = devices_[device];
    for (size_t i = 0; i < ring.iterations.size(); ++i) {
      last.push_back(ring.iterations[(ring.oldest + i) % ring.iterations.size()]);
    }
    return last;
  }

 private:
  struct Ring {
    std::vector<PrecopyIteration> iterations;
    size_t oldest = 0;
  };
  std::vector<Ring> devices_;
};

}  // namespace godwit

#endif  // GODWIT_TOOLS_PRECOPY_HISTORY_H_
