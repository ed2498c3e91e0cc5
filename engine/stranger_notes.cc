#include "engine/stranger_notes.h"

#include <absl/strings/str_cat.h>

#include <algorithm>

namespace godwit {

void StrangerNotes::Tell(absl::string_view line) {
  const int64_t grown = (clock_.Now() - counted_at_) / kLineEvery;
  counted_at_ += grown * kLineEvery;
  lines_left_ = std::min(kLinesAtOnce, lines_left_ + grown);
  if (lines_left_ == 0) {
    ++untold_;
    return;
  }
  --lines_left_;
  TellCount();
  note_(std::string(line));
}

void StrangerNotes::TellCount() {
  if (untold_ == 0) return;
  note_(absl::StrCat("turned away ", untold_, " more, too many to name"));
  untold_ = 0;
}

}  // namespace godwit
