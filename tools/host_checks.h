// What of this host helps or hinders a migration.
#ifndef GODWIT_TOOLS_HOST_CHECKS_H_
#define GODWIT_TOOLS_HOST_CHECKS_H_

#include <absl/strings/string_view.h>

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "transport/verbs/rdma_discovery.h"
#include "vfio/discovery.h"

namespace godwit {

enum class Verdict {
  kGood,
  kAdvice,   // it works, and could be better
  kMissing,  // what would need it does not work here
};
const char* VerdictName(Verdict verdict);  // "good", "advice", "missing"

struct HostCheck {
  std::string name;  // "kernel", "memlock", ...
  Verdict verdict = Verdict::kGood;
  std::string found;   // what there is
  std::string advice;  // what to do, in a line; "" if good
};

// What the checks look at; each is one line, or nothing where it can't be read.
struct HostFacts {
  std::string kernel_release;  // "6.1.0-18-amd64"
  // errno of io_uring_setup(2); 0: it works.
  int io_uring_error = 0;
  std::optional<uint64_t> memlock_bytes;  // nothing: no limit
  bool may_lock_any = false;              // CAP_IPC_LOCK
  uint64_t open_files_max = 0;
  std::string meminfo;                // /proc/meminfo
  std::string cpu_flags;              // of /proc/cpuinfo's first CPU
  std::string transparent_hugepages;  // "always [madvise] never"
  std::string congestion_control;     // "cubic"
  std::string tcp_wmem;               // "4096 16384 4194304"
  bool iommu_groups = false;          // the kernel has made some
  std::vector<VfioDeviceInfo> vfio;
  std::vector<RdmaDeviceInfo> rdma;
};

// Asks the kernel. Opens VFIO and RDMA devices for a moment, as ListVfioDevices() says.
HostFacts AskHost();

// Every check, always in the same order.
std::vector<HostCheck> CheckHost(const HostFacts& facts);

}  // namespace godwit

#endif  // GODWIT_TOOLS_HOST_CHECKS_H_
