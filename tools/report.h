// What a session came to, for people and for programs.
#ifndef GODWIT_TOOLS_REPORT_H_
#define GODWIT_TOOLS_REPORT_H_

#include <absl/status/status.h>
#include <absl/status/statusor.h>
#include <absl/strings/string_view.h>

#include <cstdint>
#include <cstdio>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <string>

#include "godwit/session.h"
#include "tools/precopy_history.h"

namespace godwit {

// The JSON of --json, documented in docs/command.md.
nlohmann::json ReportJson(const SessionReport& report);
// Into it, what the session's statistics say beyond its report: of one side only.
void AddSourceStatistics(const SessionStatistics& statistics, const PrecopyHistory& history,
                         nlohmann::json& json);
void AddTargetStatistics(const SessionStatistics& statistics, nlohmann::json& json);
// Of a command that ended before its session began.
nlohmann::json RefusalJson(const absl::Status& status);
// "done", "rolled_back" or "in_doubt": the JSON's `result`.
const char* OutcomeName(SessionOutcome outcome);

// A few lines: bytes, rate, times, packets, lanes, devices.
std::string ReportText(const SessionReport& report);
// Of a session that failed, after its error: a line a device that its end had to wait for, or "".
std::string BlockedText(const SessionReport& report);

// `text` with control characters replaced: names from the command line can hold anything, and an
// error is one line.
std::string OneLine(absl::string_view text);
// Says it on stderr.
void LogError(const absl::Status& status);

double Seconds(std::chrono::nanoseconds duration);

// GiB/s over stream_time; 0 where nothing was measured.
double ThroughputGibPerSecond(const SessionReport& report);

// The most memory that this program has had resident, in bytes: VmHWM of proc(5). (getrusage(2)
// counts what ran in the process before exec, too.) 0 if it can't be read.
uint64_t PeakResidentBytes();

// Where --json or --trace goes. Opened before a session starts, so that a path that can't be
// written is found before anything is touched.
class JsonOutput {
 public:
  // "": nowhere; "-": stdout; else a file, replaced. `option` is what errors name.
  static absl::StatusOr<JsonOutput> Open(const std::string& path,
                                         absl::string_view option = "--json");
  // All of it, and closes the file: some file systems say only then that they have no room.
  absl::Status Write(const nlohmann::json& json);
  // The next piece of JSON that the caller puts together, for what may be larger than memory. Then
  // Close(), once.
  absl::Status Append(absl::string_view text);
  absl::Status Close();
  // Where text for people goes: stdout, unless that is taken by JSON.
  std::FILE* text_stream() const { return to_stdout_ ? stderr : stdout; }

 private:
  struct Closer {
    void operator()(std::FILE* file) const { std::fclose(file); }
  };
  std::string name_;  // "--json FILE": what errors begin with
  bool to_stdout_ = false;
  std::unique_ptr<std::FILE, Closer> file_;
};

}  // namespace godwit

#endif  // GODWIT_TOOLS_REPORT_H_
