// What this process holds, to see that sessions leave nothing behind.
#ifndef GODWIT_TESTS_SOAK_RESOURCE_COUNTS_H_
#define GODWIT_TESTS_SOAK_RESOURCE_COUNTS_H_

#include <cstddef>
#include <cstdint>
#include <set>
#include <string>

namespace godwit {

// The names in a folder, without those that begin with a dot.
std::set<std::string> Entries(const char* folder);

struct ResourceCounts {
  size_t fds = 0;
  size_t threads = 0;
  int64_t resident_bytes = 0;
  int64_t allocated_bytes = 0;
};

// Has malloc keep nothing that was freed, as far as it can: to be called before the first session.
void FreeMemoryAtOnce();
ResourceCounts CountResources();
// More fds or threads than before, or much more memory.
bool Leaks(const ResourceCounts& before, const ResourceCounts& now);

}  // namespace godwit

#endif  // GODWIT_TESTS_SOAK_RESOURCE_COUNTS_H_
