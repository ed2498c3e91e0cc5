// godwit doctor: whether this host is fit, and what would make it so.

#include <absl/strings/str_format.h>

#include <cstdio>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "tools/commands.h"
#include "tools/host_checks.h"
#include "tools/report.h"

namespace godwit {
namespace {

// A line a check, and where there is advice, one more.
std::string Text(const std::vector<HostCheck>& checks) {
  std::string text;
  for (const HostCheck& check : checks) {
    absl::StrAppendFormat(&text, "%-8s%-20s%s\n", VerdictName(check.verdict), check.name,
                          OneLine(check.found));
    if (check.advice.empty()) continue;
    absl::StrAppendFormat(&text, "%-8s%-20s-> %s\n", "", "", OneLine(check.advice));
  }
  return text;
}

nlohmann::json Json(const std::vector<HostCheck>& checks) {
  nlohmann::json rows = nlohmann::json::array();
  for (const HostCheck& check : checks) {
    rows.push_back({{"name", check.name},
                    {"verdict", VerdictName(check.verdict)},
                    {"found", check.found},
                    {"advice", check.advice}});
  }
  return {{"checks", rows}};
}

}  // namespace

ExitCode RunDoctor(const DoctorCommand& command) {
  auto json = JsonOutput::Open(command.json);
  if (!json.ok()) {
    LogError(json.status());
    return kExitFailed;
  }
  const std::vector<HostCheck> checks = CheckHost(AskHost());
  std::fputs(Text(checks).c_str(), json->text_stream());
  if (const absl::Status written = json->Write(Json(checks)); !written.ok()) {
    LogError(written);
    return kExitFailed;
  }
  for (const HostCheck& check : checks) {
    if (check.verdict == Verdict::kMissing) return kExitFailed;
  }
  return kExitDone;
}

}  // namespace godwit
