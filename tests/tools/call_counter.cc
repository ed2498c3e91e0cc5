// Preloaded into a program, counts what its threads allocate, and copy by memcpy() and the like in
// pieces as large as a page: of packets' payload, there is nothing else of that size.
//
// Environment: CALL_COUNTS: the file that a line a thread is written to when the program ends: its
// name, allocations, copies, bytes copied.
#include <dlfcn.h>
#include <pthread.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>

extern "C" {
void* __libc_malloc(size_t bytes);
void* __libc_calloc(size_t count, size_t bytes);
void* __libc_realloc(void* old, size_t bytes);
void* __libc_memalign(size_t alignment, size_t bytes);
}

namespace {

constexpr size_t kThreadsMax = 1024;
constexpr size_t kNameBytes = 16;
constexpr size_t kCopyBytesMin = 4096;

// Written by its thread, read at the end.
struct ThreadCounts {
  char name[kNameBytes];
  std::atomic<uint64_t> allocations;
  std::atomic<uint64_t> copies;
  std::atomic<uint64_t> copied_bytes;
};

ThreadCounts threads[kThreadsMax];
std::atomic<size_t> thread_count{0};
// (initial-exec: the other model may allocate.)
thread_local ThreadCounts* this_thread __attribute__((tls_model("initial-exec"))) = nullptr;

ThreadCounts& ThisThread() {
  if (this_thread == nullptr) {
    const size_t at = thread_count.fetch_add(1);
    if (at >= kThreadsMax) std::abort();
    this_thread = &threads[at];
  }
  return *this_thread;
}

void CountAllocation() { ThisThread().allocations.fetch_add(1, std::memory_order_relaxed); }

void CountCopy(size_t bytes) {
  if (bytes < kCopyBytesMin) return;
  ThreadCounts& counts = ThisThread();
  counts.copies.fetch_add(1, std::memory_order_relaxed);
  counts.copied_bytes.fetch_add(bytes, std::memory_order_relaxed);
}

using Copy = void*(void*, const void*, size_t);

// libc's, which the loader chooses for this CPU.
template <size_t kBytes>
Copy* Real(const char (&name)[kBytes], std::atomic<Copy*>& real) {
  Copy* found = real.load(std::memory_order_relaxed);
  if (found == nullptr) {
    found = reinterpret_cast<Copy*>(::dlsym(RTLD_NEXT, name));
    if (found == nullptr) std::abort();
    real.store(found, std::memory_order_relaxed);
  }
  return found;
}

std::atomic<Copy*> real_memcpy{nullptr};
std::atomic<Copy*> real_memmove{nullptr};

void* CountedCopy(void* to, const void* from, size_t bytes) {
  CountCopy(bytes);
  return Real("memcpy", real_memcpy)(to, from, bytes);
}

void* CountedMove(void* to, const void* from, size_t bytes) {
  CountCopy(bytes);
  return Real("memmove", real_memmove)(to, from, bytes);
}

__attribute__((constructor)) void FindRealOnes() {
  (void)Real("memcpy", real_memcpy);
  (void)Real("memmove", real_memmove);
}

__attribute__((destructor)) void Write() {
  const char* const path = std::getenv("CALL_COUNTS");
  FILE* const file = path == nullptr ? nullptr : std::fopen(path, "w");
  if (file == nullptr) return;
  const size_t count = thread_count.load();
  for (size_t i = 0; i < count; ++i) {
    const ThreadCounts& at = threads[i];
    std::fprintf(file, "%s %llu %llu %llu\n", at.name[0] == '\0' ? "-" : at.name,
                 static_cast<unsigned long long>(at.allocations.load()),
                 static_cast<unsigned long long>(at.copies.load()),
                 static_cast<unsigned long long>(at.copied_bytes.load()));
  }
  std::fclose(file);
}

}  // namespace

extern "C" {
// NOLINTBEGIN(readability-inconsistent-declaration-parameter-name): glibc's names are reserved

int pthread_setname_np(pthread_t thread, const char* name) {
  using SetName = int(pthread_t, const char*);
  if (::pthread_equal(thread, ::pthread_self()) != 0) {
    std::snprintf(ThisThread().name, kNameBytes, "%s", name);
  }
  return reinterpret_cast<SetName*>(::dlsym(RTLD_NEXT, "pthread_setname_np"))(thread, name);
}

void* malloc(size_t bytes) {
  CountAllocation();
  return __libc_malloc(bytes);
}
void* calloc(size_t count, size_t bytes) {
  CountAllocation();
  return __libc_calloc(count, bytes);
}
void* realloc(void* old, size_t bytes) {
  CountAllocation();
  return __libc_realloc(old, bytes);
}
void* memalign(size_t alignment, size_t bytes) {
  CountAllocation();
  return __libc_memalign(alignment, bytes);
}
void* aligned_alloc(size_t alignment, size_t bytes) { return memalign(alignment, bytes); }
int posix_memalign(void** at, size_t alignment, size_t bytes) {
  *at = memalign(alignment, bytes);
  return *at == nullptr ? ENOMEM : 0;
}

void* memcpy(void* to, const void* from, size_t bytes) { return CountedCopy(to, from, bytes); }
void* memmove(void* to, const void* from, size_t bytes) { return CountedMove(to, from, bytes); }
void* mempcpy(void* to, const void* from, size_t bytes) {
  return static_cast<char*>(CountedCopy(to, from, bytes)) + bytes;
}
void* __memcpy_chk(void* to, const void* from, size_t bytes, size_t /*room*/) {
  return CountedCopy(to, from, bytes);
}
void* __memmove_chk(void* to, const void* from, size_t bytes, size_t /*room*/) {
  return CountedMove(to, from, bytes);
}

// NOLINTEND(readability-inconsistent-declaration-parameter-name)
}  // extern "C"
