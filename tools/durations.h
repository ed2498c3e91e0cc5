// Durations and pre-copy limits as the command line has them.
#ifndef GODWIT_TOOLS_DURATIONS_H_
#define GODWIT_TOOLS_DURATIONS_H_

#include <absl/status/statusor.h>

#include <chrono>
#include <string>

#include "godwit/session.h"
#include "tools/commands.h"

namespace godwit {

// "300ms", "1.5s", "2m"; at least 1 ms, at most a day. InvalidArgument names the text.
absl::StatusOr<std::chrono::milliseconds> ParseMilliseconds(const std::string& text);

// "0.6ms", "20us"; at least 1 us, at most a day. InvalidArgument names the text.
absl::StatusOr<std::chrono::nanoseconds> ParseNanoseconds(const std::string& text);

// Puts what the arguments say into `options`.
absl::Status ApplyPrecopy(const PrecopyArguments& arguments, SourceOptions& options);

}  // namespace godwit

#endif  // GODWIT_TOOLS_DURATIONS_H_
