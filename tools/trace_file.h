// --trace: a session's time line as a file for Perfetto and chrome://tracing.
#ifndef GODWIT_TOOLS_TRACE_FILE_H_
#define GODWIT_TOOLS_TRACE_FILE_H_

#include <absl/functional/function_ref.h>
#include <absl/status/status.h>
#include <absl/status/statusor.h>
#include <absl/strings/string_view.h>

#include <memory>
#include <string>
#include <vector>

#include "tools/report.h"
#include "tools/trace_buffer.h"

namespace godwit {

// What a trace says of its process beside the spans.
struct TraceLabels {
  std::string process;               // "godwit source"
  int process_id = 0;                // tells the tracks of two traces in one view apart
  std::vector<std::string> devices;  // names, by position
};

// The trace as JSON in pieces of bounded size, by the trace event format. docs/observability.md
// describes what stands in it.
absl::Status WriteTraceJson(const TraceBuffer& spans, const TraceLabels& labels,
                            absl::FunctionRef<absl::Status(absl::string_view piece)> append);

// Ownership: of the file and the spans. Outlives the session that sink() was given to.
// Threads:   sink() from any thread; all else on one.
// Blocking:  Write() writes the file.
// Errors:    Open() and Write() as JsonOutput's, and they name --trace.
class TraceFile {
 public:
  // Replaces the file, so that a path that can't be written is found before anything is touched.
  // "": no trace is wanted, and none is kept.
  static absl::StatusOr<TraceFile> Open(const std::string& path);

  TraceFile() = default;  // no trace is wanted

  TraceSink* sink() const { return spans_.get(); }  // null: no trace is wanted
  // Once, when the session has ended. Says on stderr how many spans had no room, if any.
  absl::Status Write(absl::string_view side, std::vector<std::string> device_names);

 private:
  std::string path_;
  JsonOutput output_;
  std::unique_ptr<TraceBuffer> spans_;
};

}  // namespace godwit

#endif  // GODWIT_TOOLS_TRACE_FILE_H_
