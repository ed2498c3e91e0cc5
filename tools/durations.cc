#include "tools/durations.h"

#include <absl/strings/str_cat.h>
#include <absl/time/time.h>

#include "base/status_macros.h"
#include "base/units.h"

namespace godwit {

absl::StatusOr<std::chrono::milliseconds> ParseMilliseconds(const std::string& text) {
  absl::Duration duration;
  if (absl::ParseDuration(text, &duration) && duration >= absl::Milliseconds(1) &&
      duration <= absl::Hours(24)) {
    return absl::ToChronoMilliseconds(duration);
  }
  return absl::InvalidArgumentError(
      absl::StrCat("'", text, "' is no duration from 1ms to 24h, such as 300ms, 1.5s or 2m"));
}

absl::StatusOr<std::chrono::nanoseconds> ParseNanoseconds(const std::string& text) {
  absl::Duration duration;
  if (absl::ParseDuration(text, &duration) && duration >= absl::Microseconds(1) &&
      duration <= absl::Hours(24)) {
    return absl::ToChronoNanoseconds(duration);
  }
  return absl::InvalidArgumentError(
      absl::StrCat("'", text, "' is no duration from 1us to 24h, such as 600us, 2.5ms or 1s"));
}

absl::Status ApplyPrecopy(const PrecopyArguments& arguments, SourceOptions& options) {
  options.pre_copy = !arguments.off;
  PrecopyLimits& limits = options.precopy_limits;
  GODWIT_ASSIGN_OR_RETURN(limits.downtime, ParseMilliseconds(arguments.downtime_limit));
  GODWIT_ASSIGN_OR_RETURN(limits.time_max, ParseMilliseconds(arguments.max_time));
  if (!arguments.max_bytes.empty()) {
    GODWIT_ASSIGN_OR_RETURN(limits.bytes_max, ParseBytes(arguments.max_bytes));
  }
  limits.on_no_convergence = arguments.on_no_convergence;
  if (!arguments.fixed_downtime.empty()) {
    GODWIT_ASSIGN_OR_RETURN(options.expected_fixed_downtime,
                            ParseNanoseconds(arguments.fixed_downtime));
  }
  return absl::OkStatus();
}

}  // namespace godwit
