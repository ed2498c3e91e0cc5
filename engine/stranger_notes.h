// Lines about strangers, as many as a log bears.
#ifndef GODWIT_ENGINE_STRANGER_NOTES_H_
#define GODWIT_ENGINE_STRANGER_NOTES_H_

#include <absl/strings/string_view.h>

#include <chrono>
#include <cstdint>
#include <functional>
#include <string>
#include <utility>

#include "base/clock.h"

namespace godwit {

// Whoever floods a port must not fill a disk with what is said about it: kLinesAtOnce are passed
// on, then one every kLineEvery; the others are counted, and the count is told.
//
// Threads: single-threaded. Blocking: as `note`. Errors: none.
class StrangerNotes {
 public:
  using Note = std::function<void(const std::string& line)>;
  static constexpr int64_t kLinesAtOnce = 256;
  static constexpr std::chrono::milliseconds kLineEvery{100};

  explicit StrangerNotes(Note note, const Clock& clock = Clock::Steady())
      : note_(std::move(note)), clock_(clock), counted_at_(clock.Now()) {}

  void Tell(absl::string_view line);
  // How many lines were not told since the last time, if any. The end of a session needs it.
  void TellCount();

 private:
  const Note note_;
  const Clock& clock_;
  int64_t lines_left_ = kLinesAtOnce;
  Clock::Duration counted_at_;  // up to when lines_left_ has grown
  uint64_t untold_ = 0;
};

}  // namespace godwit

#endif  // GODWIT_ENGINE_STRANGER_NOTES_H_
