// What a thread is called in top -H, perf and gdb.
#ifndef GODWIT_BASE_THREAD_NAME_H_
#define GODWIT_BASE_THREAD_NAME_H_

#include <pthread.h>

#include <cstddef>

namespace godwit {

// Of the calling thread, a literal. The kernel has room for 15 bytes.
template <size_t kBytes>
void NameThisThread(const char (&name)[kBytes]) {
  static_assert(kBytes <= 16, "the kernel would refuse it");
  ::pthread_setname_np(::pthread_self(), name);
}

}  // namespace godwit

#endif  // GODWIT_BASE_THREAD_NAME_H_
