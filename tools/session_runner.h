// Runs a session of either side under the command's signals, progress line and report.
#ifndef GODWIT_TOOLS_SESSION_RUNNER_H_
#define GODWIT_TOOLS_SESSION_RUNNER_H_

#include <absl/strings/str_cat.h>
#include <spdlog/spdlog.h>

#include <atomic>
#include <csignal>
#include <nlohmann/json.hpp>
#include <string>

#include "base/errno_status.h"
#include "godwit/session.h"
#include "tools/exit_code.h"
#include "tools/precopy_history.h"
#include "tools/progress_line.h"
#include "tools/report.h"

namespace godwit {

// Notes go to stderr, a line each.
class NoteObserver : public SessionObserver {
 public:
  void OnNote(absl::string_view line) override { spdlog::warn("{}", OneLine(line)); }
};

// Keeps what the JSON of a source tells of pre-copy.
class SourceObserver final : public NoteObserver {
 public:
  void OnPrecopyIteration(const PrecopyIteration& iteration) override { history_.Add(iteration); }
  const PrecopyHistory& history() const { return history_; }

 private:
  PrecopyHistory history_;
};

// Says why nothing was begun, on stderr and in the JSON.
inline ExitCode Refuse(const absl::Status& status, JsonOutput* json = nullptr) {
  LogError(status);
  if (json != nullptr) {
    const absl::Status written = json->Write(RefusalJson(status));
    if (!written.ok()) LogError(written);
  }
  return absl::IsInvalidArgument(status) ? kExitUsage : kExitFailed;
}

// The exit code of a session, after its JSON: who reads only that must not take one that is missing
// for success. Says so, and what the session came to all the same.
inline ExitCode ExitCodeAfterJson(SessionOutcome outcome, const absl::Status& written) {
  const ExitCode code = ExitCodeOf(outcome);
  if (written.ok()) return code;
  LogError(Annotate(written, absl::StrCat("the session ended as ", OutcomeName(outcome),
                                          ", but its result could not be written")));
  return code == kExitDone ? kExitFailed : code;
}

// As that, of a session's trace; `code` is what it would have been without.
inline ExitCode ExitCodeAfterTrace(ExitCode code, SessionOutcome outcome,
                                   const absl::Status& written) {
  if (written.ok()) return code;
  LogError(Annotate(written, absl::StrCat("the session ended as ", OutcomeName(outcome),
                                          ", but its trace could not be written")));
  return code == kExitDone ? kExitFailed : code;
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
  const ProgressLine line([&session] {
    ProgressLine::Shown shown{session.progress(), {}};
    // A capture's session has no statistics, and needs none for its line.
    if constexpr (requires { session.statistics(); }) shown.devices = session.statistics().devices;
    return shown;
  });
  return session.Run();
}

// Says what a session came to, to programs and to people. `text` makes the words for people.
template <typename Text>
ExitCode FinishReport(const SessionReport& report, const nlohmann::json& report_json,
                      JsonOutput& json, const Text& text) {
  const absl::Status written = json.Write(report_json);
  if (report.status.ok()) {
    std::fputs(text(report).c_str(), json.text_stream());
  } else {
    LogError(report.status);
    std::fputs(BlockedText(report).c_str(), stderr);
  }
  return ExitCodeAfterJson(report.outcome, written);
}

template <typename Session, typename Text>
ExitCode RunSession(Session& session, JsonOutput& json, const Text& text) {
  const SessionReport report = RunWithProgress(session);
  return FinishReport(report, ReportJson(report), json, text);
}

}  // namespace godwit

#endif  // GODWIT_TOOLS_SESSION_RUNNER_H_
