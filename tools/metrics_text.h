// A running session's numbers in the text format that Prometheus reads.
#ifndef GODWIT_TOOLS_METRICS_TEXT_H_
#define GODWIT_TOOLS_METRICS_TEXT_H_

#include <absl/strings/string_view.h>

#include <string>

#include "godwit/session.h"

namespace godwit {

enum class SessionSide { kSource, kTarget };
absl::string_view SessionSideName(SessionSide side);  // "source", "target"

// Exposition format 0.0.4. docs/observability.md has every name.
std::string MetricsText(SessionSide side, const SessionProgress& progress,
                        const SessionStatistics& statistics);

}  // namespace godwit

#endif  // GODWIT_TOOLS_METRICS_TEXT_H_
