// How many processors there are for this process.
#ifndef GODWIT_BASE_PROCESSORS_H_
#define GODWIT_BASE_PROCESSORS_H_

#include <sched.h>
#include <unistd.h>

#include <cstddef>
#include <limits>

namespace godwit {

// Those that the calling thread may run on (sched_getaffinity(2)), at least 1; what a cgroup's
// quota leaves of them is not looked at. On a machine with more than 1024 the kernel does not tell
// with this set: then as many as there can be.
inline int ProcessorsToRunOn() {
  cpu_set_t processors;
  if (::sched_getaffinity(0, sizeof(processors), &processors) != 0) {
    return std::numeric_limits<int>::max();
  }
  return CPU_COUNT(&processors);
}

// From so many on it is taken for better that one thread reads or writes while another sends or
// receives. With two that source and target share it is not, see docs/performance.md; nothing else
// was measured.
inline constexpr int kProcessorsToOverlap = 4;

// A processor's second-level cache, in bytes; 0: not known (sysconf(3)).
inline size_t SecondLevelCacheBytes() {
  const long bytes = ::sysconf(_SC_LEVEL2_CACHE_SIZE);
  return bytes > 0 ? static_cast<size_t>(bytes) : 0;
}

}  // namespace godwit

#endif  // GODWIT_BASE_PROCESSORS_H_
