#include "tests/soak/resource_counts.h"

#include <dirent.h>
#include <malloc.h>

#include <cstdlib>
#include <fstream>

namespace godwit {
namespace {

constexpr int kBlockBytes = 128 << 10;
// By what resident memory may differ, with what malloc can give back given back.
constexpr int64_t kResidentGrowthMax = int64_t{16} << 20;
// Of what is allocated: threads come and go with small things of their own. A KiB a session would
// be seen in 200 of them.
constexpr int64_t kAllocatedGrowthMax = int64_t{192} << 10;

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr bool kResidentTells = false;  // a sanitizer keeps what was freed, and looks itself
#else
constexpr bool kResidentTells = true;
#endif

}  // namespace

std::set<std::string> Entries(const char* folder) {
  std::set<std::string> names;
  DIR* const open = ::opendir(folder);
  if (open == nullptr) return names;
  while (const dirent* const entry = ::readdir(open)) {
    if (entry->d_name[0] != '.') names.insert(entry->d_name);
  }
  ::closedir(open);
  return names;
}

void FreeMemoryAtOnce() {
  // Without these, malloc's arenas keep what large blocks were freed: tens of MiB a thread.
  ::mallopt(M_MMAP_THRESHOLD, kBlockBytes);
  ::mallopt(M_TRIM_THRESHOLD, kBlockBytes);
}

ResourceCounts CountResources() {
  ResourceCounts counts;
  ::malloc_trim(0);
  const auto heap = ::mallinfo2();
  counts.allocated_bytes = static_cast<int64_t>(heap.uordblks + heap.hblkhd);
  counts.fds = Entries("/proc/self/fd").size();
  counts.threads = Entries("/proc/self/task").size();
  std::ifstream status("/proc/self/status");
  for (std::string line; std::getline(status, line);) {
    if (line.rfind("VmRSS:", 0) == 0) counts.resident_bytes = std::atoll(line.c_str() + 6) * 1024;
  }
  return counts;
}

bool Leaks(const ResourceCounts& before, const ResourceCounts& now) {
  return now.fds > before.fds || now.threads > before.threads ||
         (kResidentTells && now.resident_bytes > before.resident_bytes + kResidentGrowthMax) ||
         now.allocated_bytes > before.allocated_bytes + kAllocatedGrowthMax;
}

}  // namespace godwit
