// godwit loopback: both sides of a session on this machine, in two processes.

#include <absl/strings/ascii.h>
#include <absl/strings/match.h>
#include <absl/strings/numbers.h>
#include <absl/strings/str_cat.h>
#include <absl/strings/str_format.h>
#include <fcntl.h>
#include <poll.h>
#include <spdlog/spdlog.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <nlohmann/json.hpp>
#include <utility>
#include <vector>

#include "base/errno_status.h"
#include "base/status_macros.h"
#include "base/units.h"
#include "godwit/unique_fd.h"
#include "tools/commands.h"
#include "tools/device_list.h"
#include "tools/durations.h"
#include "tools/session_runner.h"
#include "tools/trace_file.h"
#include "vfio/device_spec.h"

namespace godwit {
namespace {

// How long the target may take to notice a failure of the source. It has the reason by then, if
// there was a session.
constexpr int kTargetEndMs = 2000;

// The target: this very program as `godwit receive`, in a process of its own.
class TargetProcess {
 public:
  static absl::StatusOr<TargetProcess> Start(const std::vector<std::string>& specs, bool crc,
                                             const std::string& trace) {
    int port_pipe[2];
    int json_pipe[2];
    if (::pipe(port_pipe) != 0) return ErrnoStatus(errno, "pipe");
    UniqueFd port_read(port_pipe[0]);
    UniqueFd port_write(port_pipe[1]);
    if (::pipe(json_pipe) != 0) return ErrnoStatus(errno, "pipe");
    UniqueFd json_read(json_pipe[0]);
    UniqueFd json_write(json_pipe[1]);
    // Its words for people: shown at the end, and only where they say more than ours. A file takes
    // them all without being read meanwhile, and isn't a terminal to draw a progress line on.
    UniqueFd said(::memfd_create("godwit target's stderr", MFD_CLOEXEC));
    if (!said.valid()) return ErrnoStatus(errno, "memfd_create");

    std::vector<std::string> words = {"godwit",    "receive",
                                      "--listen",  "127.0.0.1:0",
                                      "--port-fd", absl::StrCat(port_write.get()),
                                      "--json",    absl::StrCat("/dev/fd/", json_write.get()),
                                      "--crc",     crc ? "on" : "off"};
    for (const std::string& spec : specs) {
      words.emplace_back("--device");
      words.push_back(spec);
    }
    if (!trace.empty()) {
      words.emplace_back("--trace");
      words.push_back(trace);
    }
    std::vector<char*> arguments;
    arguments.reserve(words.size() + 1);
    for (std::string& word : words) arguments.push_back(word.data());
    arguments.push_back(nullptr);

    // No thread has been started yet, so the child may do more than exec.
    const pid_t pid = ::fork();
    if (pid < 0) return ErrnoStatus(errno, "fork");
    if (pid == 0) {
      ::prctl(PR_SET_PDEATHSIG, SIGKILL);  // never outlives us
      ::close(port_read.Release());
      ::close(json_read.Release());
      const int quiet = ::open("/dev/null", O_WRONLY);
      if (quiet >= 0) ::dup2(quiet, STDOUT_FILENO);
      ::dup2(said.get(), STDERR_FILENO);
      ::execv("/proc/self/exe", arguments.data());
      ::_exit(127);
    }
    return TargetProcess(pid, std::move(port_read), std::move(json_read), std::move(said));
  }

  TargetProcess(TargetProcess&& other) noexcept
      : pid_(std::exchange(other.pid_, -1)),
        port_(std::move(other.port_)),
        json_(std::move(other.json_)),
        said_(std::move(other.said_)) {}
  ~TargetProcess() {
    if (pid_ < 0) return;
    ::kill(pid_, SIGKILL);
    ::waitpid(pid_, nullptr, 0);
  }

  // Blocks until the target listens; Internal, with what it said, if it ended instead.
  absl::StatusOr<uint16_t> Port() {
    uint32_t port = 0;
    if (!absl::SimpleAtoi(ReadAll(port_), &port) || port == 0 || port > 65535) {
      const std::string why = Said();
      return absl::InternalError(
          absl::StrCat("the target process did not start", why.empty() ? "" : ": ", why));
    }
    return static_cast<uint16_t>(port);
  }

  // Waits for its end; its report, and its exit code in `exit_code`.
  nlohmann::json Finish(int& exit_code) {
    const std::string text = ReadAll(json_);
    int status = 0;
    ::waitpid(std::exchange(pid_, -1), &status, 0);
    exit_code = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
    return nlohmann::json::parse(text, nullptr, /*allow_exceptions=*/false);
  }

  // After a failure on our side: the target notices by itself, unless it never had a peer. Asks it
  // to give up if it has not begun to report within `wait_ms`; returns whether it had to.
  bool GiveUpAfter(int wait_ms) const {
    pollfd report = {json_.get(), POLLIN, 0};
    if (::poll(&report, 1, wait_ms) != 0) return false;
    ::kill(pid_, SIGTERM);
    return true;
  }

  // What it has said on stderr so far, lines as they are but for the last line's end.
  std::string Said() const {
    ::lseek(said_.get(), 0, SEEK_SET);
    std::string text = ReadAll(said_);
    absl::StripTrailingAsciiWhitespace(&text);
    return text;
  }

 private:
  TargetProcess(pid_t pid, UniqueFd port, UniqueFd json, UniqueFd said)
      : pid_(pid), port_(std::move(port)), json_(std::move(json)), said_(std::move(said)) {}

  static std::string ReadAll(const UniqueFd& fd) {
    std::string text;
    char bytes[4096];
    ssize_t got = 0;
    while ((got = ::read(fd.get(), bytes, sizeof(bytes))) != 0) {
      if (got < 0 && errno == EINTR) continue;
      if (got < 0) break;
      text.append(bytes, static_cast<size_t>(got));
    }
    return text;
  }

  pid_t pid_;
  UniqueFd port_;
  UniqueFd json_;
  UniqueFd said_;
};

// Whether one of two errors of one session only repeats the other, as a peer's reason for giving
// up.
bool SayTheSame(absl::string_view ours, absl::string_view theirs) {
  return absl::StrContains(ours, theirs) || absl::StrContains(theirs, ours);
}

}  // namespace

ExitCode RunLoopback(const LoopbackCommand& command) {
  const auto size = ParseBytes(command.size);
  if (!size.ok()) return Refuse(size.status());
  const auto packet_bytes = ParseBytes(command.packet_bytes);
  if (!packet_bytes.ok()) return Refuse(packet_bytes.status());
  SourceOptions options;
  const absl::Status precopy = ApplyPrecopy(command.precopy, options);
  if (!precopy.ok()) return Refuse(precopy);
  auto json = JsonOutput::Open(command.json);
  if (!json.ok()) return Refuse(json.status());

  auto trace = TraceFile::Open(command.trace);
  if (!trace.ok()) return Refuse(trace.status(), &*json);
  const std::string target_trace =
      command.trace.empty() ? "" : absl::StrCat(command.trace, ".target");
  // The target opens it by itself; here only so that what is wrong with it is said as for the
  // other.
  const auto tried = JsonOutput::Open(target_trace, "--trace");
  if (!tried.ok()) return Refuse(tried.status(), &*json);

  std::vector<std::string> specs;
  for (uint32_t i = 0; i < command.devices; ++i) {
    specs.push_back(absl::StrFormat("soft:size=%u,seed=%u%s%s", *size, command.seed + i,
                                    command.soft.empty() ? "" : ",", command.soft));
  }
  auto target = TargetProcess::Start(specs, command.crc, target_trace);
  if (!target.ok()) return Refuse(target.status(), &*json);
  std::vector<std::unique_ptr<Device>> owned;
  std::vector<Device*> devices;
  for (const std::string& spec : specs) {
    auto device = OpenDevice(spec, DeviceRole::kSource);
    if (!device.ok()) return Refuse(device.status(), &*json);
    devices.push_back(device->get());
    owned.push_back(*std::move(device));
  }
  const auto port = target->Port();
  if (!port.ok()) return Refuse(port.status(), &*json);

  options.to = absl::StrCat("127.0.0.1:", *port);
  options.transport = command.transport;
  options.lanes = command.lanes;
  options.packet_bytes = *packet_bytes;
  options.crc = command.crc;
  options.trace = trace->sink();
  SourceObserver observer;
  SourceSession session(options, devices, observer);
  const SessionReport report = RunWithProgress(session);
  const absl::Status traced = trace->Write("source", DeviceNames(devices));

  bool told_to_give_up = false;
  if (!report.status.ok()) {
    LogError(report.status);
    std::fputs(BlockedText(report).c_str(), stderr);
    told_to_give_up = target->GiveUpAfter(kTargetEndMs);
  }
  int target_exit = 0;
  const nlohmann::json target_report = target->Finish(target_exit);
  nlohmann::json combined = ReportJson(report);
  AddSourceStatistics(session.statistics(), observer.history(), combined);
  combined["target"] = target_report.is_discarded() ? nlohmann::json(nullptr) : target_report;
  const uint64_t target_peak_bytes =
      target_report.is_object() ? target_report.value("peak_resident_bytes", uint64_t{0}) : 0;
  combined["target_peak_resident_bytes"] = target_peak_bytes;
  const std::string target_error =
      combined["target"].is_object() ? combined["target"].value("error", "") : "";
  const std::string said = target->Said();
  if (!said.empty() && !told_to_give_up &&
      !(target_exit == kExitFailed && !target_error.empty() && !report.status.ok() &&
        SayTheSame(report.status.message(), target_error))) {
    std::fprintf(stderr, "%s\n", said.c_str());
  }
  const absl::Status written = json->Write(combined);
  const ExitCode code =
      ExitCodeAfterTrace(ExitCodeAfterJson(report.outcome, written), report.outcome, traced);
  if (!report.status.ok()) return code;
  if (target_exit != 0) {
    spdlog::error("the target process ended with exit code {}", target_exit);
    return kExitFailed;
  }
  std::fprintf(json->text_stream(), "%s  memory     source %s, target %s at most; arena on %s\n",
               ReportText(report).c_str(), FormatBytes(PeakResidentBytes()).c_str(),
               FormatBytes(target_peak_bytes).c_str(), report.arena_backing.c_str());
  return code;
}

}  // namespace godwit
