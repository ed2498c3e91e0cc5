#include "transport/verbs/memlock.h"

#include <absl/strings/numbers.h>
#include <absl/strings/str_cat.h>
#include <absl/strings/strip.h>
#include <linux/capability.h>
#include <sys/resource.h>

#include <fstream>
#include <string>

#include "base/units.h"

namespace godwit {
namespace {

bool HasIpcLockCapability() {
  std::ifstream status("/proc/self/status");
  for (std::string line; std::getline(status, line);) {
    absl::string_view value = line;
    if (!absl::ConsumePrefix(&value, "CapEff:\t")) continue;
    uint64_t capabilities = 0;
    return absl::SimpleHexAtoi(value, &capabilities) &&
           (capabilities & (uint64_t{1} << CAP_IPC_LOCK)) != 0;
  }
  return false;
}

}  // namespace

MemlockAllowance CurrentMemlockAllowance() {
  MemlockAllowance allowance;
  allowance.exempt = HasIpcLockCapability();
  rlimit limit{};
  if (::getrlimit(RLIMIT_MEMLOCK, &limit) != 0 || limit.rlim_cur == RLIM_INFINITY) {
    allowance.limit_bytes = UINT64_MAX;
  } else {
    allowance.limit_bytes = limit.rlim_cur;
  }
  return allowance;
}

absl::Status CheckMemlock(const MemlockAllowance& allowance, uint64_t needed_bytes,
                          absl::string_view device_name) {
  if (allowance.exempt || allowance.limit_bytes >= needed_bytes) return absl::OkStatus();
  return absl::ResourceExhaustedError(
      absl::StrCat("RDMA device ", device_name, " needs ", FormatBytes(needed_bytes),
                   " of locked memory for packets, and this process may lock ",
                   FormatBytes(allowance.limit_bytes), ": ", MemlockAdvice()));
}

absl::string_view MemlockAdvice() {
  return "run `ulimit -l unlimited` first (systemd: LimitMEMLOCK=infinity; containers: --ulimit "
         "memlock=-1), or ask for fewer or smaller packets";
}

}  // namespace godwit
