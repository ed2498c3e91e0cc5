// soak SESSIONS [SEED [tcp|verbs [ADDRESS [AFTER]]]]: sessions in a row in one process, each with
// devices, options and keys by chance, lanes that are killed, now and then a side that is
// cancelled, and now and then one that runs in a process of its own and is killed.
//
// Ends with 1 as soon as a session does not end as it must, and if at the end the process has more
// fds or threads than after the first few, or much more memory. AFTER, a shell command, runs after
// each session; what it prints must soon be what it printed at first: the lab counts RDMA resources
// so.
#include <absl/strings/numbers.h>
#include <absl/strings/str_cat.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <future>
#include <memory>
#include <optional>
#include <random>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "godwit/session.h"
#include "tests/soak/lane_killer.h"
#include "tests/soak/other_process.h"
#include "tests/soak/resource_counts.h"
#include "tests/soak/session_plan.h"
#include "vfio/device_spec.h"

namespace godwit {
namespace {

// Sessions before the first count: whatever is made once has been made.
constexpr int kWarmUp = 5;
// Among so many each kind of harm has been done.
constexpr int kAllHappenIn = 40;
// A target whose source may never have come to it, or was killed, ends by itself until then, or
// goes on waiting for one.
constexpr std::chrono::seconds kLossIsSeenIn{15};
// Until the kernel has taken back what a killed process had.
constexpr std::chrono::seconds kTakenBackIn{20};

class Listener final : public SessionObserver {
 public:
  void OnListening(absl::string_view /*address*/, uint16_t port) override { port_.set_value(port); }
  uint16_t Port() { return port_.get_future().get(); }

 private:
  std::promise<uint16_t> port_;
};

class Devices {
 public:
  Devices(const std::vector<std::string>& specs, DeviceRole role) {
    for (const std::string& spec : specs) {
      auto device = OpenDevice(spec, role);
      if (!device.ok()) {
        std::fprintf(stderr, "%s: %s\n", spec.c_str(), device.status().ToString().c_str());
        std::exit(2);
      }
      devices_.push_back(*std::move(device));
    }
  }
  std::vector<Device*> pointers() const {
    std::vector<Device*> pointers;
    pointers.reserve(devices_.size());
    for (const auto& device : devices_) pointers.push_back(device.get());
    return pointers;
  }
  bool AllIn(DeviceState wanted) const {
    return std::all_of(devices_.begin(), devices_.end(), [&](const auto& device) {
      const auto state = device->State();
      return state.ok() && *state == wanted;
    });
  }

 private:
  std::vector<std::unique_ptr<Device>> devices_;
};

bool AllVerified(const SessionReport& target) {
  return std::all_of(target.devices.begin(), target.devices.end(),
                     [](const DeviceReport& device) { return device.content_verified; });
}

struct Totals {
  uint64_t bytes = 0;
  uint64_t remade = 0;
  uint64_t sent_again = 0;
  int lanes_killed = 0;
  int cancelled = 0;
  int processes_killed = 0;
  int rolled_back = 0;
  int in_doubt = 0;
  int inside_tls = 0;

  // (A queue pair is killed by others than the soak.)
  bool AllHappened(TransportKind transport) const {
    const bool lanes_died =
        transport == TransportKind::kVerbs || (lanes_killed > 0 && remade > 0 && sent_again > 0);
    return lanes_died && cancelled > 0 && processes_killed > 0 && rolled_back > 0 && inside_tls > 0;
  }
  void Add(const SessionReport& survivor) {
    rolled_back += survivor.outcome == SessionOutcome::kRolledBack ? 1 : 0;
    in_doubt += survivor.outcome == SessionOutcome::kInDoubt ? 1 : 0;
  }
};

// Waits for a target whose source is gone.
SessionReport Settle(TargetSession& target, std::future<SessionReport>& done) {
  if (done.wait_for(kLossIsSeenIn) == std::future_status::ready) return done.get();
  constexpr std::chrono::milliseconds kPause{100};
  do {
    target.Cancel();
  } while (done.wait_for(kPause) != std::future_status::ready);
  return done.get();
}

class Session {
 public:
  Session(uint64_t seed, const SoakSetting& setting, Totals& totals)
      : seed_(seed), setting_(setting), plan_(MakePlan(seed, setting)), totals_(totals) {}

  // As the plan says. False: it did not end as it must, which is then said.
  bool Run() {
    if (plan_.source.trust.kind() != TrustKind::kPlain) ++totals_.inside_tls;
    switch (plan_.harm) {
      case Harm::kKillSource:
        return RunTargetAlone();
      case Harm::kKillTarget:
        return RunSourceAlone();
      default:
        return RunBoth();
    }
  }

 private:
  // Both ends agree, and whoever has the devices has all of them, whole.
  bool RunBoth() {
    const bool cancel = plan_.harm != Harm::kNone;
    const Devices sources(plan_.specs, DeviceRole::kSource);
    const Devices targets(plan_.specs, DeviceRole::kTarget);
    Listener listener;
    TargetSession target(plan_.target, targets.pointers(), listener);
    auto target_done = std::async(std::launch::async, [&] { return target.Run(); });
    const uint16_t port = listener.Port();
    SessionObserver quiet;
    plan_.source.to = absl::StrCat(setting_.address, ":", port);
    SourceSession source(plan_.source, sources.pointers(), quiet);
    SessionReport source_report;
    {
      LaneKiller killer(port, plan_.lane_killer_seed, plan_.lane_killer_every_ms_max);
      auto source_done = std::async(std::launch::async, [&] { return source.Run(); });
      if (cancel) {
        std::this_thread::sleep_for(plan_.harm_after);
        plan_.harm == Harm::kCancelSource ? source.Cancel() : target.Cancel();
        ++totals_.cancelled;
      }
      source_report = source_done.get();
      totals_.lanes_killed += killer.killed();
    }
    // Maybe it never came there.
    if (cancel && source_report.outcome == SessionOutcome::kRolledBack) target.Cancel();
    const SessionReport target_report = target_done.get();
    totals_.bytes += target_report.bytes;
    totals_.Add(source_report);
    for (const LaneReport& lane : source_report.lanes) {
      totals_.remade += lane.remade;
      totals_.sent_again += lane.sent_again;
    }
    const bool right = source_report.outcome == target_report.outcome &&
                       (source_report.outcome == SessionOutcome::kDone
                            ? AllVerified(target_report) && sources.AllIn(DeviceState::kStop) &&
                                  targets.AllIn(DeviceState::kRunning)
                            : cancel && source_report.outcome == SessionOutcome::kRolledBack &&
                                  sources.AllIn(DeviceState::kRunning));
    return right || Say("source", source_report, "target", target_report);
  }

  // The source is killed: the target has all of it and runs it, or nothing.
  bool RunTargetAlone() {
    const Devices targets(plan_.specs, DeviceRole::kTarget);
    Listener listener;
    TargetSession target(plan_.target, targets.pointers(), listener);
    auto done = std::async(std::launch::async, [&] { return target.Run(); });
    OtherProcess source(OtherSide("source", listener.Port()));
    // It says something once it is there: one that can't run has not been killed.
    if (source.ReadLine().empty()) return Say("the source does not start");
    std::this_thread::sleep_for(plan_.harm_after);
    if (source.Kill()) ++totals_.processes_killed;
    const SessionReport report = Settle(target, done);
    totals_.bytes += report.bytes;
    totals_.Add(report);
    const bool right = report.outcome == SessionOutcome::kDone
                           ? AllVerified(report) && targets.AllIn(DeviceState::kRunning)
                           : report.outcome == SessionOutcome::kRolledBack && !AllVerified(report);
    return right || Say("target", report);
  }

  // The target is killed: the source's devices run, or stay stopped where they may run elsewhere.
  bool RunSourceAlone() {
    const Devices sources(plan_.specs, DeviceRole::kSource);
    OtherProcess target(OtherSide("target", 0));
    const std::string port = target.ReadLine();
    if (port.empty()) return Say("the target does not start");
    plan_.source.to = absl::StrCat(setting_.address, ":", port);
    SessionObserver quiet;
    SourceSession source(plan_.source, sources.pointers(), quiet);
    auto done = std::async(std::launch::async, [&] { return source.Run(); });
    std::this_thread::sleep_for(plan_.harm_after);
    if (target.Kill()) ++totals_.processes_killed;
    const SessionReport report = done.get();
    totals_.bytes += report.bytes;
    totals_.Add(report);
    const bool right = sources.AllIn(
        report.outcome == SessionOutcome::kRolledBack ? DeviceState::kRunning : DeviceState::kStop);
    return right || Say("source", report);
  }

  std::vector<std::string> OtherSide(const char* side, uint16_t port) const {
    return {"side",
            side,
            absl::StrCat(seed_),
            setting_.transport == TransportKind::kVerbs ? "verbs" : "tcp",
            setting_.address,
            setting_.keys_folder,
            absl::StrCat(port)};
  }

  template <typename... Reports>
  bool Say(const Reports&... sides_and_reports) const {
    std::fprintf(stderr, "session of seed %llu (harm %d after %lld ms):",
                 static_cast<unsigned long long>(seed_), static_cast<int>(plan_.harm),
                 static_cast<long long>(plan_.harm_after.count()));
    SayEach(sides_and_reports...);
    return false;
  }
  static void SayEach() { std::fputc('\n', stderr); }
  static void SayEach(const char* what) { std::fprintf(stderr, " %s\n", what); }
  template <typename... More>
  static void SayEach(const char* side, const SessionReport& report, const More&... more) {
    std::fprintf(stderr, " %s: outcome %d, %s;", side, static_cast<int>(report.outcome),
                 report.status.ToString().c_str());
    SayEach(more...);
  }

  const uint64_t seed_;
  const SoakSetting& setting_;
  SessionPlan plan_;
  Totals& totals_;
};

TransportKind TransportOf(const std::string& name) {
  return name == "verbs" ? TransportKind::kVerbs : TransportKind::kTcp;
}

// side source|target SEED TRANSPORT ADDRESS KEYS PORT: one side of that seed's session. A target
// writes its port, a source that it is there.
int RunSide(const std::vector<std::string>& arguments) {
  constexpr size_t kArguments = 6;
  uint64_t seed = 0;
  if (arguments.size() != kArguments || !absl::SimpleAtoi(arguments[1], &seed)) return 2;
  const SoakSetting setting = {TransportOf(arguments[2]), arguments[3], arguments[4]};
  SessionPlan plan = MakePlan(seed, setting);
  if (arguments[0] == "source") {
    const Devices devices(plan.specs, DeviceRole::kSource);
    plan.source.to = absl::StrCat(setting.address, ":", arguments[5]);
    SessionObserver quiet;
    std::puts("here");
    std::fflush(stdout);
    return static_cast<int>(SourceSession(plan.source, devices.pointers(), quiet).Run().outcome);
  }
  const Devices devices(plan.specs, DeviceRole::kTarget);
  Listener listener;
  TargetSession target(plan.target, devices.pointers(), listener);
  auto done = std::async(std::launch::async, [&] { return target.Run(); });
  std::printf("%u\n", listener.Port());
  std::fflush(stdout);
  return static_cast<int>(done.get().outcome);
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

// Whether a command's output comes to what it was.
bool ComesTo(const std::string& command, const std::string& wanted) {
  const auto deadline = std::chrono::steady_clock::now() + kTakenBackIn;
  constexpr std::chrono::milliseconds kPause{200};
  std::string output;
  while ((output = OutputOf(command)) != wanted) {
    if (std::chrono::steady_clock::now() > deadline) {
      std::fprintf(stderr, "it is now: %safter the first session: %s", output.c_str(),
                   wanted.c_str());
      return false;
    }
    std::this_thread::sleep_for(kPause);
  }
  return true;
}

void Print(const Totals& totals) {
  std::printf(
      "%llu MiB moved; %d sessions inside TLS; %d cancelled, %d whose other side was killed; of "
      "these %d rolled back and %d in doubt; %d TCP lanes shut down, %llu lanes made again, %llu "
      "packets sent again\n",
      static_cast<unsigned long long>(totals.bytes >> 20), totals.inside_tls, totals.cancelled,
      totals.processes_killed, totals.rolled_back, totals.in_doubt, totals.lanes_killed,
      static_cast<unsigned long long>(totals.remade),
      static_cast<unsigned long long>(totals.sent_again));
}

void Print(const char* when, const ResourceCounts& counts) {
  std::printf("after the %s: %zu fds, %zu threads, %lld KiB resident, %lld KiB allocated\n", when,
              counts.fds, counts.threads, static_cast<long long>(counts.resident_bytes >> 10),
              static_cast<long long>(counts.allocated_bytes >> 10));
}

int Soak(int sessions, uint64_t seed, const SoakSetting& setting, const std::string& after) {
  std::printf("%d sessions, seed %llu\n", sessions, static_cast<unsigned long long>(seed));
  std::fflush(stdout);
  Totals totals;
  std::optional<ResourceCounts> first;
  std::optional<std::string> first_output;
  for (int i = 0; i < sessions; ++i) {
    if (!Session(seed + static_cast<uint64_t>(i), setting, totals).Run()) return 1;
    if ((i + 1) % 20 == 0) {
      std::printf("%d\n", i + 1);
      std::fflush(stdout);
    }
    if (i + 1 == kWarmUp) first = CountResources();
    if (after.empty()) continue;
    if (!first_output.has_value()) first_output = OutputOf(after);
    if (ComesTo(after, *first_output)) continue;
    std::fprintf(stderr, "that was after session %d\n", i);
    return 1;
  }
  const ResourceCounts last = CountResources();
  Print(totals);
  Print("first few", first.value_or(last));
  Print("last", last);
  std::fflush(stdout);
  if (Leaks(first.value_or(last), last)) {
    std::fputs("that is a leak\n", stderr);
    return 1;
  }
  if (sessions >= kAllHappenIn && !totals.AllHappened(setting.transport)) {
    std::fputs("not everything that was to happen has happened\n", stderr);
    return 1;
  }
  return 0;
}

int Main(const std::vector<std::string>& arguments) {
  if (!arguments.empty() && arguments[0] == "side") {
    return RunSide({arguments.begin() + 1, arguments.end()});
  }
  int sessions = 0;
  uint64_t seed = std::random_device()();
  if (arguments.empty() || arguments.size() > 5 || !absl::SimpleAtoi(arguments[0], &sessions) ||
      (arguments.size() > 1 && !absl::SimpleAtoi(arguments[1], &seed))) {
    std::fputs("usage: soak SESSIONS [SEED [tcp|verbs [ADDRESS [AFTER]]]]\n", stderr);
    return 2;
  }
  FreeMemoryAtOnce();
  SoakSetting setting;
  if (arguments.size() > 2) setting.transport = TransportOf(arguments[2]);
  if (arguments.size() > 3) setting.address = arguments[3];
  setting.keys_folder = (std::filesystem::temp_directory_path() / "godwit-soak-XXXXXX").string();
  if (::mkdtemp(setting.keys_folder.data()) == nullptr) {
    std::perror(setting.keys_folder.c_str());
    return 2;
  }
  WriteKeys(setting);
  const int result = Soak(sessions, seed, setting, arguments.size() > 4 ? arguments[4] : "");
  std::filesystem::remove_all(setting.keys_folder);
  return result;
}

}  // namespace
}  // namespace godwit

int main(int argc, char** argv) {
  return godwit::Main(std::vector<std::string>(argv + 1, argv + argc));
}
