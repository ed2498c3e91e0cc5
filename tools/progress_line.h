// The live line on a terminal.
#ifndef GODWIT_TOOLS_PROGRESS_LINE_H_
#define GODWIT_TOOLS_PROGRESS_LINE_H_

#include <chrono>
#include <cstddef>
#include <functional>
#include <string>
#include <thread>
#include <vector>

#include "base/mutex.h"
#include "godwit/session.h"

namespace godwit {

// "streaming    1.20 GiB of 2.00 GiB  60 %  1.31 GiB/s  [####----] [######--]", at most `columns`
// characters. A bar for each device where there are several, as many as fit, and then how many
// don't; "[????????]" of one that has no estimate of its state.
std::string ProgressText(const SessionProgress& progress,
                         const std::vector<DeviceStatistics>& devices, double gib_per_second,
                         size_t columns);

// Redraws one line on stderr ten times a second while it lives; erases it at the end. Does nothing
// where stderr is no terminal.
//
// Ownership: owns its thread. Threads: made and destroyed by one thread; `source` is called on its
// own. Blocking: the destructor waits for a redraw. Errors: none.
class ProgressLine {
 public:
  struct Shown {
    SessionProgress progress;
    std::vector<DeviceStatistics> devices;
  };
  explicit ProgressLine(std::function<Shown()> source);
  ~ProgressLine();
  ProgressLine(const ProgressLine&) = delete;
  ProgressLine& operator=(const ProgressLine&) = delete;

 private:
  void Run();

  const std::function<Shown()> source_;
  Mutex mutex_;
  CondVar stopped_changed_;
  bool stopped_ ABSL_GUARDED_BY(mutex_) = false;
  std::thread thread_;
};

}  // namespace godwit

#endif  // GODWIT_TOOLS_PROGRESS_LINE_H_
