// soak SESSIONS [SEED [tcp|verbs [ADDRESS [AFTER]]]]: sessions in a row in one process, each with
// devices and options by chance, lanes that are killed and now and then a side that is cancelled.
//
// Ends with 1 as soon as a session does not end as it must, and if at the end the process has more
// fds or threads than after the first few, or much more memory. AFTER, a shell command, runs after
// each session; what it prints must never change: the lab counts RDMA resources so.
#include <absl/strings/str_cat.h>
#include <arpa/inet.h>
#include <dirent.h>
#include <malloc.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <future>
#include <optional>
#include <random>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "godwit/session.h"
#include "vfio/device_spec.h"

namespace godwit {
namespace {

using Random = std::mt19937_64;

// Sessions before the first count: whatever is made once has been made.
constexpr int kWarmUp = 5;
// By what resident memory may differ, with what malloc can give back given back.
constexpr int64_t kResidentGrowthMax = int64_t{16} << 20;
// Of what is allocated: threads come and go with small things of their own. A KiB a session would
// be seen in 200 of them.
constexpr int64_t kAllocatedGrowthMax = int64_t{192} << 10;

uint64_t Below(Random& random, uint64_t end) { return random() % end; }

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

struct Counts {
  size_t fds = 0;
  size_t threads = 0;
  int64_t resident_bytes = 0;
  int64_t allocated_bytes = 0;
};

Counts Now() {
  Counts counts;
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

// The inodes of sockets here that are connected to `port`, and their fds: the source's ends.
std::vector<std::pair<std::string, int>> SocketsTo(uint16_t port) {
  std::vector<std::pair<std::string, int>> sockets;
  for (const std::string& name : Entries("/proc/self/fd")) {
    const int fd = std::atoi(name.c_str());
    sockaddr_in peer = {};
    socklen_t length = sizeof(peer);
    if (::getpeername(fd, reinterpret_cast<sockaddr*>(&peer), &length) != 0) continue;
    if (peer.sin_family != AF_INET || ntohs(peer.sin_port) != port) continue;
    char inode[64] = {};
    if (::readlink(absl::StrCat("/proc/self/fd/", fd).c_str(), inode, sizeof(inode) - 1) <= 0) {
      continue;
    }
    sockets.emplace_back(inode, fd);
  }
  return sockets;
}

// Shuts TCP lanes down at random while it lives. The first connection is the control channel's: it
// is left alone, and so are all if that one was not seen alone.
class LaneKiller {
 public:
  LaneKiller(uint16_t port, uint64_t seed, uint64_t every_ms_max)
      : thread_([this, port, seed, every_ms_max] { Run(port, seed, every_ms_max); }) {}
  ~LaneKiller() {
    over_ = true;
    thread_.join();
  }
  int killed() const { return killed_; }

 private:
  void Run(uint16_t port, uint64_t seed, uint64_t every_ms_max) {
    Random random(seed);
    std::vector<std::pair<std::string, int>> sockets;
    while (!over_ && (sockets = SocketsTo(port)).empty()) std::this_thread::yield();
    if (sockets.size() != 1) return;
    const std::string control = sockets[0].first;
    while (!over_) {
      std::this_thread::sleep_for(std::chrono::milliseconds(1 + Below(random, every_ms_max)));
      sockets = SocketsTo(port);
      std::erase_if(sockets, [&](const auto& socket) { return socket.first == control; });
      if (sockets.empty()) continue;
      if (::shutdown(sockets[Below(random, sockets.size())].second, SHUT_RDWR) == 0) ++killed_;
    }
  }

  std::atomic<bool> over_{false};
  std::atomic<int> killed_{0};
  std::thread thread_;
};

class Listener final : public SessionObserver {
 public:
  void OnListening(absl::string_view /*address*/, uint16_t port) override { port_.set_value(port); }
  uint16_t Port() { return port_.get_future().get(); }

 private:
  std::promise<uint16_t> port_;
};

std::string DeviceSpec(Random& random) {
  static const std::vector<std::string> kinds = {"", ",flags=p2p+precopy",
                                                 ",profile=mlx5,dirty=1000000",
                                                 ",profile=virtio,precopy_calls=8", ",profile=xe"};
  const uint64_t bytes = 1 + Below(random, Below(random, 4) == 0 ? 16 << 20 : 2 << 20);
  return absl::StrCat("soft:size=", bytes, ",seed=", Below(random, 1000),
                      kinds[Below(random, kinds.size())]);
}

std::vector<std::unique_ptr<Device>> Open(const std::vector<std::string>& specs, DeviceRole role) {
  std::vector<std::unique_ptr<Device>> devices;
  for (const std::string& spec : specs) {
    auto device = OpenDevice(spec, role);
    if (!device.ok()) {
      std::fprintf(stderr, "%s: %s\n", spec.c_str(), device.status().ToString().c_str());
      std::exit(2);
    }
    devices.push_back(*std::move(device));
  }
  return devices;
}

std::vector<Device*> Pointers(const std::vector<std::unique_ptr<Device>>& devices) {
  std::vector<Device*> pointers;
  pointers.reserve(devices.size());
  for (const auto& device : devices) pointers.push_back(device.get());
  return pointers;
}

// Both ends agree, and whoever has the devices has all of them, whole.
bool Right(const SessionReport& source, const SessionReport& target, bool cancelled) {
  if (source.outcome != target.outcome) return false;
  if (source.outcome == SessionOutcome::kRolledBack) return cancelled;
  return source.outcome == SessionOutcome::kDone &&
         std::all_of(target.devices.begin(), target.devices.end(),
                     [](const DeviceReport& device) { return device.content_verified; });
}

struct Totals {
  uint64_t bytes = 0;
  uint64_t remade = 0;
  uint64_t sent_again = 0;
  int killed = 0;
  int rolled_back = 0;
};

bool RunOne(uint64_t seed, TransportKind transport, const std::string& address, Totals& totals) {
  Random random(seed);
  std::vector<std::string> specs(1 + Below(random, 3));
  for (std::string& spec : specs) spec = DeviceSpec(random);
  const auto sources = Open(specs, DeviceRole::kSource);
  const auto targets = Open(specs, DeviceRole::kTarget);
  TargetOptions target_options;
  target_options.listen = absl::StrCat(address, ":0");
  target_options.trust.insecure = true;
  target_options.arena_bytes = (size_t{1} << 20) << Below(random, 6);
  SourceOptions source_options;
  source_options.trust.insecure = true;
  source_options.transport = transport;
  source_options.lanes = static_cast<uint32_t>(1 + Below(random, 6));
  source_options.packet_bytes = 1 + Below(random, size_t{1} << (12 + Below(random, 9)));
  // A packet is copied a few times in all; millions of them would prove no more.
  source_options.packet_bytes = std::max<size_t>(source_options.packet_bytes, 4096);
  source_options.arena_bytes = (size_t{1} << 20) << Below(random, 6);
  source_options.pre_copy = Below(random, 4) != 0;
  source_options.precopy_limits.time_max = std::chrono::milliseconds(1000);
  const bool cancel = Below(random, 6) == 0;
  const bool cancel_source = Below(random, 2) == 0;
  const auto cancel_after = std::chrono::milliseconds(Below(random, 80));

  Listener listener;
  TargetSession target(target_options, Pointers(targets), listener);
  auto target_done = std::async(std::launch::async, [&] { return target.Run(); });
  const uint16_t port = listener.Port();
  source_options.to = absl::StrCat(address, ":", port);
  SessionObserver quiet;
  SourceSession source(source_options, Pointers(sources), quiet);
  SessionReport source_report;
  {
    // An emulated machine makes a lane again much more slowly.
    LaneKiller killer(port, random(), transport == TransportKind::kVerbs ? 1000 : 40);
    auto source_done = std::async(std::launch::async, [&] { return source.Run(); });
    if (cancel) {
      std::this_thread::sleep_for(cancel_after);
      cancel_source ? source.Cancel() : target.Cancel();
    }
    source_report = source_done.get();
    totals.killed += killer.killed();
  }
  const bool target_waits =
      cancel && source_report.outcome == SessionOutcome::kRolledBack;  // maybe it never came there
  if (target_waits) target.Cancel();
  const SessionReport target_report = target_done.get();
  totals.bytes += target_report.bytes;
  totals.rolled_back += source_report.outcome == SessionOutcome::kRolledBack ? 1 : 0;
  for (const LaneReport& lane : source_report.lanes) {
    totals.remade += lane.remade;
    totals.sent_again += lane.sent_again;
  }
  if (Right(source_report, target_report, cancel)) return true;
  std::fprintf(stderr, "session of seed %llu (%s): source %s, target %s\n",
               static_cast<unsigned long long>(seed), cancel ? "cancelled" : "not cancelled",
               source_report.status.ToString().c_str(), target_report.status.ToString().c_str());
  return false;
}

std::string OutputOf(const std::string& command) {
  std::string output;
  FILE* const pipe = ::popen(command.c_str(), "r");
  if (pipe == nullptr) return "?";
  char bytes[4096];
  while (const size_t got = std::fread(bytes, 1, sizeof(bytes), pipe)) output.append(bytes, got);
  ::pclose(pipe);
  return output;
}

int Main(int argc, char** argv) {
  if (argc < 2 || argc > 6) {
    std::fputs("usage: soak SESSIONS [SEED [tcp|verbs [ADDRESS [AFTER]]]]\n", stderr);
    return 2;
  }
  // Without these, malloc's arenas keep what large blocks were freed: tens of MiB a thread.
  ::mallopt(M_MMAP_THRESHOLD, 128 << 10);
  ::mallopt(M_TRIM_THRESHOLD, 128 << 10);
  const int sessions = std::atoi(argv[1]);
  const uint64_t seed = argc > 2 ? std::strtoull(argv[2], nullptr, 10) : std::random_device()();
  const bool verbs = argc > 3 && std::string(argv[3]) == "verbs";
  const std::string address = argc > 4 ? argv[4] : "127.0.0.1";
  const std::string after = argc > 5 ? argv[5] : "";
  std::printf("%d sessions, seed %llu\n", sessions, static_cast<unsigned long long>(seed));
  std::fflush(stdout);
  Totals totals;
  std::optional<Counts> first;
  std::optional<std::string> first_output;
  for (int i = 0; i < sessions; ++i) {
    if (!RunOne(seed + static_cast<uint64_t>(i),
                verbs ? TransportKind::kVerbs : TransportKind::kTcp, address, totals)) {
      return 1;
    }
    if ((i + 1) % 20 == 0) {
      std::printf("%d\n", i + 1);
      std::fflush(stdout);
    }
    if (i + 1 == kWarmUp) first = Now();
    if (after.empty()) continue;
    const std::string output = OutputOf(after);
    if (!first_output.has_value()) first_output = output;
    if (output == *first_output) continue;
    std::fprintf(stderr, "after session %d: %safter the first: %s", i, output.c_str(),
                 first_output->c_str());
    return 1;
  }
  const Counts last = Now();
  if (!first.has_value()) first = last;
  std::printf(
      "%llu MiB moved; %d sessions rolled back; %d TCP lanes shut down, %llu lanes made "
      "again, %llu packets sent again\n",
      static_cast<unsigned long long>(totals.bytes >> 20), totals.rolled_back, totals.killed,
      static_cast<unsigned long long>(totals.remade),
      static_cast<unsigned long long>(totals.sent_again));
  for (const auto& [when, counts] : {std::pair("first few", *first), std::pair("last", last)}) {
    std::printf("after the %s: %zu fds, %zu threads, %lld KiB resident, %lld KiB allocated\n", when,
                counts.fds, counts.threads, static_cast<long long>(counts.resident_bytes >> 10),
                static_cast<long long>(counts.allocated_bytes >> 10));
  }
  std::fflush(stdout);
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
  first->resident_bytes =
      last.resident_bytes;  // a sanitizer keeps what was freed, and looks itself
#endif
  const bool leaks = last.fds > first->fds || last.threads > first->threads ||
                     last.resident_bytes > first->resident_bytes + kResidentGrowthMax ||
                     last.allocated_bytes > first->allocated_bytes + kAllocatedGrowthMax;
  if (leaks) std::fputs("that is a leak\n", stderr);
  return leaks ? 1 : 0;
}

}  // namespace
}  // namespace godwit

int main(int argc, char** argv) { return godwit::Main(argc, argv); }
