#include "tools/progress_line.h"

#include <absl/strings/str_cat.h>
#include <absl/strings/str_format.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <utility>

#include "base/units.h"

namespace godwit {
namespace {

constexpr std::chrono::milliseconds kRedrawInterval{100};

constexpr size_t kBarCells = 8;
constexpr size_t kBarColumns = kBarCells + 3;  // " [########]"
constexpr size_t kMoreColumns = 4;             // " +64", the most devices that there are
constexpr size_t kColumnsDefault = 80;

std::string Bar(const DeviceStatistics& device) {
  if (device.bytes_expected == 0) return std::string(kBarCells, '?');
  const double share =
      static_cast<double>(device.bytes) / static_cast<double>(device.bytes_expected);
  const size_t full = std::min(kBarCells, static_cast<size_t>(share * kBarCells));
  return std::string(full, '#') + std::string(kBarCells - full, '-');
}

std::string Bars(const std::vector<DeviceStatistics>& devices, size_t columns) {
  size_t shown = std::min(devices.size(), columns / kBarColumns);
  while (shown > 0 && shown < devices.size() && shown * kBarColumns + kMoreColumns > columns) {
    --shown;
  }
  std::string bars;
  if (shown == 0) return bars;
  for (size_t i = 0; i < shown; ++i) absl::StrAppend(&bars, " [", Bar(devices[i]), "]");
  if (shown < devices.size()) absl::StrAppend(&bars, " +", devices.size() - shown);
  return bars;
}

size_t TerminalColumns() {
  struct winsize size {};
  const bool known = ::ioctl(STDERR_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0;
  return known ? size.ws_col : kColumnsDefault;
}

}  // namespace

std::string ProgressText(const SessionProgress& progress,
                         const std::vector<DeviceStatistics>& devices, double gib_per_second,
                         size_t columns) {
  std::string text = absl::StrFormat("%-12s", SessionPhaseName(progress.phase));
  if (progress.phase < SessionPhase::kPreCopying) return text.substr(0, columns);
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
  if (devices.size() > 1 && text.size() + 1 < columns) {
    const std::string bars = Bars(devices, columns - text.size() - 1);
    if (!bars.empty()) absl::StrAppend(&text, " ", bars);
  }
  return text.substr(0, columns);
}

ProgressLine::ProgressLine(std::function<Shown()> source) : source_(std::move(source)) {
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
    const Shown shown = source_();
    const SessionProgress& progress = shown.progress;
    const auto now = std::chrono::steady_clock::now();
    const double seconds = std::chrono::duration<double>(now - last).count();
    const double current =
        static_cast<double>(progress.bytes - last_bytes) / static_cast<double>(kGiB) / seconds;
    rate = rate == 0 ? current : 0.8 * rate + 0.2 * current;
    last = now;
    last_bytes = progress.bytes;
    // The last column stays free: a terminal may wrap after it.
    const std::string text = ProgressText(progress, shown.devices, rate, TerminalColumns() - 1);
    std::fprintf(stderr, "\r\x1b[K%s", text.c_str());
    std::fflush(stderr);
  }
}

}  // namespace godwit
