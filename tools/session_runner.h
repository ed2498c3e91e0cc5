// Runs a session of either side under the command's signals, progress line and report.
#ifndef GODWIT_TOOLS_SESSION_RUNNER_H_
#define GODWIT_TOOLS_SESSION_RUNNER_H_

#include <spdlog/spdlog.h>

#include <atomic>
#include <csignal>
#include <nlohmann/json.hpp>
#include <string>

#include "godwit/session.h"
#include "tools/exit_code.h"
#include "tools/progress_line.h"
#include "tools/report.h"

namespace godwit {

// Notes go to stderr, a line each.
class NoteObserver : public SessionObserver {
 public:
  void OnNote(absl::string_view line) override { spdlog::warn("{}", OneLine(line)); }
};

// Says why nothing was begun, on stderr and in the JSON.
inline ExitCode Refuse(const absl::Status& status, JsonOutput* json = nullptr) {
  LogError(status);
  if (json != nullptr) {
    const absl::Status written = json->Write(RefusalJson(status));
    if (!written.ok()) spdlog::warn("{}", std::string(written.message()));
  }
  return absl::IsInvalidArgument(status) ? kExitUsage : kExitFailed;
}

// While it lives SIGINT, SIGHUP and SIGTERM cancel `session`. One at a time in a process.
template <typename Session>
class CancelOnSignal {
 public:
  explicit CancelOnSignal(Session& session) {
    current_.store(&session);
    struct sigaction action {};
    action.sa_handler = [](int) {
      if (Session* const running = current_.load()) running->Cancel();  // async-signal-safe
    };
    ::sigaction(SIGINT, &action, &old_int_);
    ::sigaction(SIGHUP, &action, &old_hup_);  // a lost terminal must not leave devices stopped
    ::sigaction(SIGTERM, &action, &old_term_);
  }
  ~CancelOnSignal() {
    ::sigaction(SIGINT, &old_int_, nullptr);
    ::sigaction(SIGHUP, &old_hup_, nullptr);
    ::sigaction(SIGTERM, &old_term_, nullptr);
    current_.store(nullptr);
  }
  CancelOnSignal(const CancelOnSignal&) = delete;
  CancelOnSignal& operator=(const CancelOnSignal&) = delete;

 private:
  static inline std::atomic<Session*> current_{nullptr};
  struct sigaction old_int_ {};
  struct sigaction old_hup_ {};
  struct sigaction old_term_ {};
};

template <typename Session>
SessionReport RunWithProgress(Session& session) {
  const CancelOnSignal<Session> cancel(session);
  const ProgressLine line([&session] { return session.progress(); });
  return session.Run();
}

// `text` makes the words for people of a report.
template <typename Session, typename Text>
ExitCode RunSession(Session& session, JsonOutput& json, const Text& text) {
  const SessionReport report = RunWithProgress(session);
  const absl::Status written = json.Write(ReportJson(report));
  if (!written.ok()) spdlog::warn("{}", std::string(written.message()));
  if (report.status.ok()) {
    std::fputs(text(report).c_str(), json.text_stream());
  } else {
    LogError(report.status);
  }
  return ExitCodeOf(report.outcome);
}

}  // namespace godwit

#endif  // GODWIT_TOOLS_SESSION_RUNNER_H_
