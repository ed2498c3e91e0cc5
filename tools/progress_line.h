// The live line on a terminal.
#ifndef GODWIT_TOOLS_PROGRESS_LINE_H_
#define GODWIT_TOOLS_PROGRESS_LINE_H_

#include <chrono>
#include <functional>
#include <string>
#include <thread>

#include "base/mutex.h"
#include "godwit/session.h"

namespace godwit {

// "streaming  1.20 GiB of 2.00 GiB  60 %  1.31 GiB/s"
std::string ProgressText(const SessionProgress& progress, double gib_per_second);

// Redraws one line on stderr ten times a second while it lives; erases it at the end. Does nothing
// where stderr is no terminal.
//
// Ownership: owns its thread. Threads: made and destroyed by one thread; `source` is called on its
// own. Blocking: the destructor waits for a redraw. Errors: none.
class ProgressLine {
 public:
  explicit ProgressLine(std::function<SessionProgress()> source);
  ~ProgressLine();
  ProgressLine(const ProgressLine&) = delete;
  ProgressLine& operator=(const ProgressLine&) = delete;

 private:
  void Run();

  const std::function<SessionProgress()> source_;
  Mutex mutex_;
  CondVar stopped_changed_;
  bool stopped_ ABSL_GUARDED_BY(mutex_) = false;
  std::thread thread_;
};

}  // namespace godwit

#endif  // GODWIT_TOOLS_PROGRESS_LINE_H_
