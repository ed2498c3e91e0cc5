#include "tools/host_checks.h"

#include <absl/strings/match.h>
#include <absl/strings/numbers.h>
#include <absl/strings/str_cat.h>
#include <absl/strings/str_split.h>
#include <absl/strings/strip.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <utility>

#include "base/errno_status.h"
#include "base/units.h"
#include "godwit/session.h"

namespace godwit {
namespace {

// Of one side of a session, with its default options.
const uint64_t kArenaBytes = SourceOptions().arena_bytes;
// The arena, and what a session takes beside it.
const uint64_t kMemoryBytes = kArenaBytes + 128 * kMiB;
// 64 lanes, 64 devices and what else a process has open.
constexpr uint64_t kOpenFilesMin = 512;
// Bytes that one TCP lane may have under way: 10 Gbit/s over 3 ms.
constexpr uint64_t kSendBufferBytes = 4 * kMiB;

HostCheck Good(absl::string_view name, std::string found) {
  return {std::string(name), Verdict::kGood, std::move(found), ""};
}
HostCheck Advice(absl::string_view name, std::string found, std::string advice) {
  return {std::string(name), Verdict::kAdvice, std::move(found), std::move(advice)};
}
HostCheck Missing(absl::string_view name, std::string found, std::string advice) {
  return {std::string(name), Verdict::kMissing, std::move(found), std::move(advice)};
}

// "6.1.0-18-amd64" is {6, 1}; {0, 0} if it is nothing like that.
std::pair<int, int> KernelVersion(absl::string_view release) {
  const std::vector<absl::string_view> parts = absl::StrSplit(release, absl::ByAnyChar(".-"));
  std::pair<int, int> version{0, 0};
  if (parts.size() < 2 || !absl::SimpleAtoi(parts[0], &version.first) ||
      !absl::SimpleAtoi(parts[1], &version.second)) {
    return {0, 0};
  }
  return version;
}

// What /proc/meminfo says in that line, in bytes where it says kB.
uint64_t MeminfoValue(absl::string_view meminfo, absl::string_view key) {
  for (absl::string_view line : absl::StrSplit(meminfo, '\n')) {
    if (!absl::ConsumePrefix(&line, key) || !absl::ConsumePrefix(&line, ":")) continue;
    line = absl::StripAsciiWhitespace(line);
    const bool kib = absl::ConsumeSuffix(&line, " kB");
    uint64_t value = 0;
    if (!absl::SimpleAtoi(line, &value)) return 0;
    return kib ? value * kKiB : value;
  }
  return 0;
}

bool HasFlag(absl::string_view flags, absl::string_view flag) {
  const std::vector<absl::string_view> all = absl::StrSplit(flags, ' ', absl::SkipEmpty());
  return std::find(all.begin(), all.end(), flag) != all.end();
}

// VFIO's migration states came with Linux 5.18, PRE_COPY with 6.2 (linux/vfio.h's history).
HostCheck CheckKernel(const HostFacts& facts) {
  constexpr std::pair<int, int> kWithMigration{5, 18};
  constexpr std::pair<int, int> kWithPreCopy{6, 2};
  const auto version = KernelVersion(facts.kernel_release);
  if (version == std::pair<int, int>{0, 0}) {
    return Advice("kernel", absl::StrCat("Linux '", facts.kernel_release, "'"),
                  "its version can't be told: 6.2 or later is needed to copy running devices");
  }
  const std::string found = absl::StrCat("Linux ", facts.kernel_release);
  if (version < kWithMigration) {
    return Missing("kernel", found, "VFIO devices can be moved from Linux 5.18 on: update it");
  }
  if (version < kWithPreCopy) {
    return Advice("kernel", found,
                  "devices can be copied while they run from Linux 6.2 on; here they are stopped "
                  "for all of it");
  }
  return Good("kernel", found);
}

HostCheck CheckIoUring(const HostFacts& facts) {
  if (facts.io_uring_error == 0) return Good("io_uring", "works");
  const std::string found(ErrnoStatus(facts.io_uring_error, "io_uring_setup").message());
  if (facts.io_uring_error == EPERM) {
    return Missing("io_uring", found,
                   "it is forbidden: `sysctl kernel.io_uring_disabled=0`, or the container's "
                   "seccomp profile has to allow it");
  }
  if (facts.io_uring_error == ENOMEM) {
    return Missing("io_uring", found, "raise the memory that may be locked: `ulimit -l unlimited`");
  }
  return Missing("io_uring", found, "the kernel has none: it needs CONFIG_IO_URING");
}

HostCheck CheckIommu(const HostFacts& facts) {
  if (facts.iommu_groups) return Good("iommu", "the kernel has IOMMU groups");
  return Advice(
      "iommu", "no IOMMU groups",
      "physical devices can't be passed through: switch VT-d or AMD-Vi on in the firmware "
      "and boot with intel_iommu=on on Intel (mediated devices need none)");
}

HostCheck CheckVfio(const HostFacts& facts) {
  if (facts.vfio.empty()) {
    return Advice("vfio", "no VFIO device",
                  "bind a function to its migration driver, such as mlx5_vfio_pci, or create a "
                  "mediated device; `godwit devices` then shows it");
  }
  std::string why_not;
  size_t movable = 0;
  for (const VfioDeviceInfo& device : facts.vfio) {
    if (device.flags.has_value()) {
      ++movable;
    } else if (why_not.empty()) {
      why_not = absl::StrCat(device.spec, ": ", device.reason);
    }
  }
  const std::string found =
      absl::StrCat(movable, " of ", facts.vfio.size(), " VFIO devices can be moved");
  if (why_not.empty()) return Good("vfio", found);
  return Advice("vfio", found, absl::StrCat(why_not, "; `godwit devices` has all of them"));
}

HostCheck CheckRdmaPorts(const HostFacts& facts) {
  size_t active = 0;
  size_t with_gid = 0;
  std::string error;
  for (const RdmaDeviceInfo& device : facts.rdma) {
    if (!device.error.empty()) error = absl::StrCat(device.name, ": ", device.error);
    for (const RdmaPort& port : device.ports) {
      if (!port.active) continue;
      ++active;
      if (!port.gids.empty()) ++with_gid;
    }
  }
  if (facts.rdma.empty()) {
    return Advice("rdma", "no RDMA device",
                  "sessions use TCP; `rdma link add rxe0 type rxe netdev eth0` makes a software "
                  "device");
  }
  const std::string found = absl::StrCat(facts.rdma.size(), " RDMA devices, ", active, " ports up");
  if (with_gid > 0) return Good("rdma", found);
  if (!error.empty()) return Advice("rdma", found, error);
  return active > 0
             ? Advice("rdma", found, "no port has an address: `ip address add` on its netdev")
             : Advice("rdma", found, "no port is up: `ip link set dev NETDEV up`");
}

HostCheck CheckMemlock(const HostFacts& facts) {
  if (facts.may_lock_any) return Good("memlock", "any memory may be locked (CAP_IPC_LOCK)");
  if (!facts.memlock_bytes.has_value()) return Good("memlock", "unlimited");
  const std::string found = absl::StrCat(FormatBytes(*facts.memlock_bytes), " may be locked");
  if (*facts.memlock_bytes >= kArenaBytes) return Good("memlock", found);
  return Missing("memlock", found,
                 absl::StrCat("RDMA registers an arena of ", FormatBytes(kArenaBytes),
                              ": `ulimit -l unlimited`, or LimitMEMLOCK= of the service"));
}

HostCheck CheckMemory(const HostFacts& facts) {
  const uint64_t available = MeminfoValue(facts.meminfo, "MemAvailable");
  const std::string found = absl::StrCat(FormatBytes(available), " available");
  if (available >= kMemoryBytes) return Good("memory", found);
  return Advice("memory", found,
                absl::StrCat("a session takes up to ", FormatBytes(kMemoryBytes),
                             " on each side: docs/buffer-budget.md says for what"));
}

HostCheck CheckHugepages(const HostFacts& facts) {
  const uint64_t page_bytes = MeminfoValue(facts.meminfo, "Hugepagesize");
  const uint64_t free_bytes = MeminfoValue(facts.meminfo, "HugePages_Free") * page_bytes;
  const std::string found =
      absl::StrCat(FormatBytes(free_bytes), " in free hugepages, transparent ",
                   absl::StrContains(facts.transparent_hugepages, "[never]") ||
                           facts.transparent_hugepages.empty()
                       ? "ones off"
                       : "ones on");
  if (free_bytes >= kArenaBytes || absl::EndsWith(found, "ones on"))
    return Good("hugepages", found);
  return Advice(
      "hugepages", found,
      absl::StrCat("the arena gets plain pages: `echo madvise > "
                   "/sys/kernel/mm/transparent_hugepage/enabled`, or `sysctl "
                   "vm.nr_hugepages=",
                   page_bytes == 0 ? 64 : (kArenaBytes + page_bytes - 1) / page_bytes, "`"));
}

HostCheck CheckCongestion(const HostFacts& facts) {
  if (facts.congestion_control != "bbr") {
    return Good("congestion control", facts.congestion_control);
  }
  return Advice("congestion control", "bbr",
                "over loopback it is several times slower than cubic: to measure there, `sysctl "
                "net.ipv4.tcp_congestion_control=cubic`");
}

HostCheck CheckTcpBuffers(const HostFacts& facts) {
  const std::vector<absl::string_view> fields =
      absl::StrSplit(facts.tcp_wmem, absl::ByAnyChar(" \t"), absl::SkipEmpty());
  uint64_t most = 0;
  if (fields.size() == 3) (void)absl::SimpleAtoi(fields[2], &most);
  const std::string found = absl::StrCat("a TCP lane may have ", FormatBytes(most), " under way");
  if (most >= kSendBufferBytes) return Good("tcp buffers", found);
  return Advice("tcp buffers", found,
                "that bounds its rate to as much in a round trip: raise the last value of "
                "net.ipv4.tcp_wmem here and of net.ipv4.tcp_rmem at the target, or use more lanes");
}

HostCheck CheckOpenFiles(const HostFacts& facts) {
  const std::string found = absl::StrCat(facts.open_files_max, " files may be open");
  if (facts.open_files_max >= kOpenFilesMin) return Good("open files", found);
  return Advice("open files", found,
                absl::StrCat("a session of many devices and lanes opens some hundreds: `ulimit -n ",
                             kOpenFilesMin, "`"));
}

HostCheck CheckCpu(const HostFacts& facts) {
  const bool crc = HasFlag(facts.cpu_flags, "sse4_2") && HasFlag(facts.cpu_flags, "pclmulqdq");
  const bool aes = HasFlag(facts.cpu_flags, "aes");
  const bool wide = HasFlag(facts.cpu_flags, "vaes");
  std::string found = absl::StrCat(crc ? "fast" : "slow", " CRC-32C, ", aes ? "fast" : "slow",
                                   " AES", wide ? " (wide)" : "");
  if (crc && aes) return Good("cpu", std::move(found));
  return Advice("cpu", std::move(found),
                "the CPU shows no instructions for it: a guest may need another CPU model, such as "
                "host-passthrough");
}

}  // namespace

const char* VerdictName(Verdict verdict) {
  switch (verdict) {
    case Verdict::kGood:
      return "good";
    case Verdict::kAdvice:
      return "advice";
    case Verdict::kMissing:
      return "missing";
  }
  return "?";
}

std::vector<HostCheck> CheckHost(const HostFacts& facts) {
  constexpr std::array kChecks = {CheckKernel,     CheckIoUring,    CheckIommu,     CheckVfio,
                                  CheckRdmaPorts,  CheckMemlock,    CheckMemory,    CheckHugepages,
                                  CheckCongestion, CheckTcpBuffers, CheckOpenFiles, CheckCpu};
  std::vector<HostCheck> checks;
  checks.reserve(kChecks.size());
  for (const auto& check : kChecks) checks.push_back(check(facts));
  return checks;
}

}  // namespace godwit
