// Where tools/host_checks.h gets its facts.

#include <absl/strings/ascii.h>
#include <absl/strings/str_split.h>
#include <absl/strings/strip.h>
#include <liburing.h>
#include <sys/resource.h>

#include <filesystem>
#include <fstream>
#include <iterator>
#include <system_error>

#include "tools/host_checks.h"

namespace godwit {
namespace {

// "" if it can't be read.
std::string Text(const char* path) {
  std::ifstream file(path);
  return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
}

std::string Line(const char* path) { return std::string(absl::StripAsciiWhitespace(Text(path))); }

// After "key:", of the first line that begins so.
std::string ValueOf(const std::string& text, absl::string_view key) {
  for (absl::string_view line : absl::StrSplit(text, '\n')) {
    if (!absl::ConsumePrefix(&line, key)) continue;
    line = absl::StripAsciiWhitespace(line);
    if (absl::ConsumePrefix(&line, ":")) return std::string(absl::StripAsciiWhitespace(line));
  }
  return "";
}

int IoUringError() {
  io_uring ring{};
  const int error = -::io_uring_queue_init(/*entries=*/4, &ring, /*flags=*/0);
  if (error == 0) ::io_uring_queue_exit(&ring);
  return error;
}

// The effective set's bit, of proc(5).
bool HasCapability(int number) {
  const std::string mask = ValueOf(Text("/proc/self/status"), "CapEff");
  return (std::strtoull(mask.c_str(), nullptr, 16) >> number & 1) != 0;
}

}  // namespace

HostFacts AskHost() {
  constexpr int kCapIpcLock = 14;  // linux/capability.h
  HostFacts facts;
  facts.kernel_release = Line("/proc/sys/kernel/osrelease");
  facts.io_uring_error = IoUringError();
  rlimit limit{};
  if (::getrlimit(RLIMIT_MEMLOCK, &limit) == 0 && limit.rlim_cur != RLIM_INFINITY) {
    facts.memlock_bytes = limit.rlim_cur;
  }
  facts.may_lock_any = HasCapability(kCapIpcLock);
  if (::getrlimit(RLIMIT_NOFILE, &limit) == 0) facts.open_files_max = limit.rlim_cur;
  facts.meminfo = Text("/proc/meminfo");
  facts.cpu_flags = ValueOf(Text("/proc/cpuinfo"), "flags");
  facts.transparent_hugepages = Line("/sys/kernel/mm/transparent_hugepage/enabled");
  facts.congestion_control = Line("/proc/sys/net/ipv4/tcp_congestion_control");
  facts.tcp_wmem = Line("/proc/sys/net/ipv4/tcp_wmem");
  std::error_code error;
  const std::filesystem::directory_iterator groups("/sys/kernel/iommu_groups", error);
  facts.iommu_groups = !error && groups != std::filesystem::directory_iterator();
  facts.vfio = ListVfioDevices();
  facts.rdma = ListRdmaDevices();
  return facts;
}

}  // namespace godwit
