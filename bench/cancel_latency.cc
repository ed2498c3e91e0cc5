// cancel_latency GODWIT [SESSIONS]: how long a session takes to end once it is cancelled, by what
// it is doing, at either side: from the library, and by SIGINT to `godwit send` and `godwit
// receive`.
//
// SESSIONS (100) a phase and side from the library, which can wait for each phase; and as many a
// side by SIGINT with pre-copy and without, at random moments, whose phase is looked up in the
// trace afterwards. Over TCP on this machine, two soft devices, and what `godwit` has as defaults.
// By SIGINT it is the whole process that ends, and writing its trace is part of it.

#include <absl/strings/numbers.h>
#include <absl/strings/str_cat.h>
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <condition_variable>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <fstream>
#include <future>
#include <map>
#include <memory>
#include <mutex>
#include <nlohmann/json.hpp>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "base/clock.h"
#include "godwit/session.h"
#include "vfio/device_spec.h"

namespace godwit {
namespace {

constexpr uint64_t kSeed = 1;
constexpr std::array<const char*, 2> kSpecs = {"soft:profile=mlx5,dirty=64MiB,size=32MiB,seed=1",
                                               "soft:profile=mlx5,dirty=64MiB,size=32MiB,seed=2"};
constexpr std::chrono::milliseconds kPrecopyTime{150};

// What was measured of one phase.
struct Row {
  std::vector<double> latencies_ms;
  uint32_t late = 0;  // the target had been told to run them: the session ended as done
};
using Rows = std::map<SessionPhase, Row>;

double Milliseconds(Clock::Duration duration) {
  return std::chrono::duration<double, std::milli>(duration).count();
}

void Print(const char* how, const char* side, Rows& rows) {
  for (auto& [phase, row] : rows) {
    std::sort(row.latencies_ms.begin(), row.latencies_ms.end());
    const size_t count = row.latencies_ms.size();
    if (count == 0) continue;
    std::printf("| %s | %s | %s | %zu | %u | %.1f | %.1f | %.1f |\n", how, side,
                std::string(SessionPhaseName(phase)).c_str(), count, row.late,
                row.latencies_ms[count / 2], row.latencies_ms[(count * 99 + 99) / 100 - 1],
                row.latencies_ms.back());
  }
  std::fflush(stdout);
}

// ---- From the library.

struct Devices {
  explicit Devices(DeviceRole role) {
    for (const char* spec : kSpecs) {
      auto device = OpenDevice(spec, role);
      if (!device.ok()) std::abort();
      owned.push_back(*std::move(device));
      borrowed.push_back(owned.back().get());
    }
  }
  std::vector<std::unique_ptr<Device>> owned;
  std::vector<Device*> borrowed;
};

// Tells another thread that a phase has begun, or that none will begin any more.
class PhaseObserver final : public SessionObserver {
 public:
  explicit PhaseObserver(SessionPhase wanted) : wanted_(wanted) {}
  void OnListening(absl::string_view /*address*/, uint16_t port) override { port_.set_value(port); }
  void OnPhase(SessionPhase phase) override {
    std::lock_guard<std::mutex> lock(mutex_);
    phase_ = phase;
    changed_.notify_all();
  }
  uint16_t Port() { return port_.get_future().get(); }
  void WaitForPhase() {
    std::unique_lock<std::mutex> lock(mutex_);
    changed_.wait(lock, [this] { return phase_ >= wanted_; });
  }
  SessionPhase phase() {
    std::lock_guard<std::mutex> lock(mutex_);
    return phase_;
  }

 private:
  const SessionPhase wanted_;
  std::promise<uint16_t> port_;
  std::mutex mutex_;
  std::condition_variable changed_;
  SessionPhase phase_ = SessionPhase::kWaiting;
};

// Cancels a side at a random moment of up to `within` after the phase's begin.
template <typename Session>
Clock::Duration CancelIn(PhaseObserver& observer, Session& session, std::chrono::microseconds wait,
                         SessionPhase& cancelled_in) {
  observer.WaitForPhase();
  std::this_thread::sleep_for(wait);
  cancelled_in = session.progress().phase;
  const Clock::Duration now = Clock::Steady().Now();
  session.Cancel();
  return now;
}

void RunOne(bool at_source, SessionPhase wanted, std::chrono::microseconds wait, Rows& rows) {
  const Devices source_devices(DeviceRole::kSource);
  const Devices target_devices(DeviceRole::kTarget);
  const SessionPhase never = SessionPhase::kFinished;
  PhaseObserver source_observer(at_source ? wanted : never);
  PhaseObserver target_observer(at_source ? never : wanted);

  TargetOptions target_options;
  target_options.listen = "127.0.0.1:0";
  target_options.transport = TransportKind::kTcp;
  TargetSession target(target_options, target_devices.borrowed, target_observer);
  std::promise<std::pair<SessionOutcome, Clock::Duration>> target_ended;
  target.Start([&](const SessionReport& report) {
    target_ended.set_value({report.outcome, Clock::Steady().Now()});
  });
  SourceOptions options;
  options.to = absl::StrCat("127.0.0.1:", target_observer.Port());
  options.transport = TransportKind::kTcp;
  options.precopy_limits.downtime = std::chrono::milliseconds(1);
  options.precopy_limits.time_max = kPrecopyTime;
  SourceSession source(options, source_devices.borrowed, source_observer);

  SessionPhase cancelled_in = SessionPhase::kFinished;
  Clock::Duration cancelled_at{0};
  std::promise<std::pair<SessionOutcome, Clock::Duration>> source_ended;
  // A target that waits is cancelled before there is a source.
  const bool alone = !at_source && wanted == SessionPhase::kWaiting;
  if (!alone) {
    source.Start([&](const SessionReport& report) {
      source_ended.set_value({report.outcome, Clock::Steady().Now()});
    });
  }
  cancelled_at = at_source ? CancelIn(source_observer, source, wait, cancelled_in)
                           : CancelIn(target_observer, target, wait, cancelled_in);
  std::pair<SessionOutcome, Clock::Duration> ended;
  if (!alone) ended = source_ended.get_future().get();
  if (target_observer.phase() == SessionPhase::kWaiting) target.Cancel();
  const auto target_end = target_ended.get_future().get();
  if (!at_source) ended = target_end;
  if (cancelled_in == SessionPhase::kFinished) return;
  Row& row = rows[cancelled_in];
  if (ended.first == SessionOutcome::kDone) {
    ++row.late;
  } else {
    row.latencies_ms.push_back(Milliseconds(ended.second - cancelled_at));
  }
}

void MeasureLibrary(bool at_source, uint32_t sessions, std::mt19937& random) {
  Rows rows;
  for (const SessionPhase phase :
       {SessionPhase::kWaiting, SessionPhase::kConnecting, SessionPhase::kPreCopying,
        SessionPhase::kStopping, SessionPhase::kStreaming, SessionPhase::kHandingOver}) {
    if (at_source ? phase == SessionPhase::kWaiting : phase == SessionPhase::kStopping) continue;
    const uint32_t within_us = phase == SessionPhase::kPreCopying  ? 120'000
                               : phase == SessionPhase::kStreaming ? 10'000
                                                                   : 500;
    for (uint32_t i = 0; i < sessions; ++i) {
      RunOne(at_source, phase, std::chrono::microseconds(random() % within_us), rows);
    }
  }
  Print("`Cancel()`", at_source ? "source" : "target", rows);
}

// ---- By SIGINT.

// A godwit of its own; what it says is dropped.
class Process {
 public:
  Process(std::vector<std::string> words, int keep_fd) {
    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    for (const int fd : {STDIN_FILENO, STDOUT_FILENO, STDERR_FILENO}) {
      posix_spawn_file_actions_addopen(&actions, fd, "/dev/null", O_RDWR, 0);
    }
    // dup2 onto itself takes O_CLOEXEC away.
    if (keep_fd >= 0) posix_spawn_file_actions_adddup2(&actions, keep_fd, keep_fd);
    std::vector<char*> arguments;
    arguments.reserve(words.size() + 1);
    for (std::string& word : words) arguments.push_back(word.data());
    arguments.push_back(nullptr);
    if (::posix_spawn(&pid_, words[0].c_str(), &actions, nullptr, arguments.data(), environ) != 0) {
      std::fprintf(stderr, "%s can't be run\n", words[0].c_str());
      std::exit(1);
    }
    posix_spawn_file_actions_destroy(&actions);
  }
  void Signal(int signal) const { ::kill(pid_, signal); }
  // Its exit code.
  int Wait() const {
    int status = 0;
    ::waitpid(pid_, &status, 0);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  }

 private:
  pid_t pid_ = -1;
};

// The phase that a trace has at a moment; kFinished where it has none.
SessionPhase PhaseAt(const std::string& trace, Clock::Duration moment) {
  std::ifstream file(trace);
  const auto json = nlohmann::json::parse(file, nullptr, /*allow_exceptions=*/false);
  if (json.is_discarded()) return SessionPhase::kFinished;
  const double at_us = std::chrono::duration<double, std::micro>(moment).count();
  for (const auto& event : json["traceEvents"]) {
    if (event.value("ph", "") != "X") continue;
    const double begin_us = event.value("ts", 0.0);
    if (at_us < begin_us || at_us >= begin_us + event.value("dur", 0.0)) continue;
    for (int i = 0; i < static_cast<int>(SessionPhase::kFinished); ++i) {
      const auto phase = static_cast<SessionPhase>(i);
      if (event.value("name", "") == SessionPhaseName(phase)) return phase;
    }
  }
  return SessionPhase::kFinished;
}

struct Ended {
  int code = 0;
  Clock::Duration at{0};
};

struct Way {
  std::string godwit;
  std::string folder;
  bool at_source = false;
  bool pre_copy = false;
};

// One session of two processes. With `delay_us` < 0 nobody is interrupted; returns what the session
// took.
Clock::Duration RunProcesses(const Way& way, int64_t delay_us, Rows& rows) {
  const bool at_source = way.at_source;
  const std::string& godwit = way.godwit;
  std::array<int, 2> port_fds = {};
  if (::pipe2(port_fds.data(), O_CLOEXEC) != 0) std::abort();
  const std::string trace = way.folder + "/trace";
  std::vector<std::string> receive = {
      godwit, "receive",        "--listen", "127.0.0.1:0", "--transport",
      "tcp",  "--outcome-hold", "2s",       "--port-fd",   absl::StrCat(port_fds[1])};
  std::vector<std::string> send = {godwit,
                                   "send",
                                   "--transport",
                                   "tcp",
                                   "--downtime-limit",
                                   "1ms",
                                   "--precopy-max-time",
                                   absl::StrCat(kPrecopyTime.count(), "ms")};
  if (!way.pre_copy) send.emplace_back("--no-precopy");
  for (std::vector<std::string>* words : {&receive, &send}) {
    for (const char* spec : kSpecs) words->insert(words->end(), {"--device", spec});
  }
  (at_source ? send : receive).insert((at_source ? send : receive).end(), {"--trace", trace});
  const Process target(receive, port_fds[1]);
  ::close(port_fds[1]);
  std::string port(16, '\0');
  const ssize_t got = ::read(port_fds[0], port.data(), port.size());
  ::close(port_fds[0]);
  if (got <= 1) std::exit(1);
  port.resize(static_cast<size_t>(got) - 1);
  send.insert(send.end(), {"--to", "127.0.0.1:" + port});
  const Clock::Duration began = Clock::Steady().Now();
  const Process source(send, -1);
  Ended source_end;
  std::thread source_waits([&] { source_end = {source.Wait(), Clock::Steady().Now()}; });
  std::promise<Ended> target_ended;
  std::thread target_waits([&] {
    const int code = target.Wait();
    target_ended.set_value({code, Clock::Steady().Now()});
  });
  Clock::Duration interrupted_at{0};
  if (delay_us >= 0) {
    std::this_thread::sleep_for(std::chrono::microseconds(delay_us));
    interrupted_at = Clock::Steady().Now();
    (at_source ? source : target).Signal(SIGINT);
  }
  source_waits.join();
  auto target_end = target_ended.get_future();
  // One that has never heard of its source waits for another.
  if (target_end.wait_for(std::chrono::seconds(4)) != std::future_status::ready) {
    target.Signal(SIGTERM);
  }
  const Ended target_result = target_end.get();
  target_waits.join();
  if (delay_us < 0) return source_end.at - began;

  const Ended& ended = at_source ? source_end : target_result;
  const SessionPhase phase = PhaseAt(trace, interrupted_at);
  if (phase == SessionPhase::kFinished) return {};  // before or after its session
  Row& row = rows[phase];
  if (ended.code == 0) {
    ++row.late;
  } else {
    row.latencies_ms.push_back(Milliseconds(ended.at - interrupted_at));
  }
  return {};
}

void MeasureProcesses(const std::string& godwit, bool at_source, uint32_t sessions,
                      std::mt19937& random) {
  std::string folder = "/tmp/cancel-latency.XXXXXX";
  if (::mkdtemp(folder.data()) == nullptr) std::abort();
  Rows rows;
  for (const bool pre_copy : {true, false}) {
    const Way way = {godwit, folder, at_source, pre_copy};
    const Clock::Duration whole = RunProcesses(way, -1, rows);
    const auto whole_us = std::chrono::duration_cast<std::chrono::microseconds>(whole).count();
    for (uint32_t i = 0; i < sessions; ++i) {
      const auto delay_us = static_cast<int64_t>(random() % static_cast<uint64_t>(whole_us));
      (void)RunProcesses(way, delay_us, rows);
    }
  }
  (void)::unlink((folder + "/trace").c_str());
  (void)::rmdir(folder.c_str());
  Print("SIGINT", at_source ? "source" : "target", rows);
}

int Main(int argc, char** argv) {
  uint32_t sessions = 100;
  if (argc < 2 || argc > 3 ||
      (argc == 3 && (!absl::SimpleAtoi(argv[2], &sessions) || sessions == 0))) {
    std::fputs("usage: cancel_latency GODWIT [SESSIONS]\n", stderr);
    return 2;
  }
  std::mt19937 random(kSeed);
  double load = 0;
  (void)::getloadavg(&load, 1);
  std::printf("%u cores, load %.1f, %u sessions\n\n", std::thread::hardware_concurrency(), load,
              sessions);
  std::puts("| by | at | while | cancelled | too late | p50 ms | p99 ms | max ms |");
  std::puts("|---|---|---|---:|---:|---:|---:|---:|");
  for (const bool at_source : {true, false}) MeasureLibrary(at_source, sessions, random);
  for (const bool at_source : {true, false}) MeasureProcesses(argv[1], at_source, sessions, random);
  return 0;
}

}  // namespace
}  // namespace godwit

int main(int argc, char** argv) {
  // Nothing of ours throws, but memory can run out, and libraries have bugs.
  try {
    return godwit::Main(argc, argv);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "cancel_latency: unexpected: %s\n", error.what());
    return 1;
  }
}
