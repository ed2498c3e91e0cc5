#include "tools/progress_line.h"

#include <absl/strings/str_cat.h>
#include <absl/strings/str_format.h>
#include <unistd.h>

#include <cstdio>
#include <utility>

#include "base/units.h"

namespace godwit {
namespace {

constexpr std::chrono::milliseconds kRedrawInterval{100};

}  // namespace

std::string ProgressText(const SessionProgress& progress, double gib_per_second) {
  std::string text = absl::StrFormat("%-12s", SessionPhaseName(progress.phase));
  if (progress.phase < SessionPhase::kPreCopying) return text;
  absl::StrAppend(&text, " ", FormatBytes(progress.bytes));
  if (progress.bytes_total > 0) {
    const uint64_t percent = progress.bytes * 100 / progress.bytes_total;
    absl::StrAppendFormat(&text, " of %s  %u %%", FormatBytes(progress.bytes_total),
                          percent > 100 ? 100 : percent);
  }
  absl::StrAppendFormat(&text, "  %.2f GiB/s", gib_per_second);
  if (progress.downtime_estimate.count() > 0) {
    absl::StrAppendFormat(&text, "  downtime %s %.0f ms",
                          progress.phase == SessionPhase::kPreCopying ? "now" : "estimate",
                          static_cast<double>(progress.downtime_estimate.count()) / 1e6);
  }
  return text;
}

ProgressLine::ProgressLine(std::function<SessionProgress()> source) : source_(std::move(source)) {
  if (::isatty(STDERR_FILENO) == 1) thread_ = std::thread([this] { Run(); });
}

ProgressLine::~ProgressLine() {
  if (!thread_.joinable()) return;
  {
    MutexLock lock(mutex_);
    stopped_ = true;
    stopped_changed_.NotifyAll();
  }
  thread_.join();
  std::fputs("\r\x1b[K", stderr);
}

void ProgressLine::Run() {
  uint64_t last_bytes = 0;
  auto last = std::chrono::steady_clock::now();
  double rate = 0;  // smoothed over about half a second
  MutexLock lock(mutex_);
  while (!stopped_) {
    const auto next = std::chrono::steady_clock::now() + kRedrawInterval;
    while (!stopped_ && stopped_changed_.WaitUntil(mutex_, next)) {
    }
    if (stopped_) return;
    const SessionProgress progress = source_();
    const auto now = std::chrono::steady_clock::now();
    const double seconds = std::chrono::duration<double>(now - last).count();
    const double current =
        static_cast<double>(progress.bytes - last_bytes) / static_cast<double>(kGiB) / seconds;
    rate = rate == 0 ? current : 0.8 * rate + 0.2 * current;
    last = now;
    last_bytes = progress.bytes;
    std::fprintf(stderr, "\r\x1b[K%s", ProgressText(progress, rate).c_str());
    std::fflush(stderr);
  }
}

}  // namespace godwit
