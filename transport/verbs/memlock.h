// Whether this process may pin the memory that RDMA needs.
#ifndef GODWIT_TRANSPORT_VERBS_MEMLOCK_H_
#define GODWIT_TRANSPORT_VERBS_MEMLOCK_H_

#include <absl/status/status.h>
#include <absl/strings/string_view.h>

#include <cstdint>

namespace godwit {

struct MemlockAllowance {
  uint64_t limit_bytes = 0;  // RLIMIT_MEMLOCK; UINT64_MAX when unlimited
  bool exempt = false;       // CAP_IPC_LOCK: the limit doesn't apply
};
MemlockAllowance CurrentMemlockAllowance();

// ResourceExhausted, with what to run, if `needed_bytes` are more than may be pinned.
absl::Status CheckMemlock(const MemlockAllowance& allowance, uint64_t needed_bytes,
                          absl::string_view device_name);

// "set `ulimit -l unlimited` ...": what to do when pinning was refused.
absl::string_view MemlockAdvice();

}  // namespace godwit

#endif  // GODWIT_TRANSPORT_VERBS_MEMLOCK_H_
