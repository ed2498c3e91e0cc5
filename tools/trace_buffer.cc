#include "tools/trace_buffer.h"

#include <algorithm>
#include <cstring>
#include <type_traits>

namespace godwit {

static_assert(std::is_trivially_default_constructible_v<StoredSpan>,
              "making the rooms must not touch their pages");
static_assert(sizeof(StoredSpan) <= 64);

void TraceBuffer::OnSpan(const TraceSpan& span) {
  const bool step =
      span.track == TraceSpan::Track::kControl || span.track == TraceSpan::Track::kDevice;
  (step ? steps_ : packets_).Put(span);
}

void TraceBuffer::Room::Put(const TraceSpan& span) {
  const uint64_t place = asked_.fetch_add(1, std::memory_order_relaxed);
  if (place >= spans_max_) return;
  StoredSpan& stored = spans_[place];
  stored.track = span.track;
  stored.name_bytes =
      static_cast<uint8_t>(std::min<size_t>(span.name.size(), StoredSpan::kNameBytesMax));
  if (stored.name_bytes > 0) std::memcpy(stored.name, span.name.data(), stored.name_bytes);
  stored.number = span.number;
  stored.device = span.device;
  stored.index = span.index;
  stored.begin_ns = span.begin.count();
  stored.end_ns = span.end.count();
  stored.bytes = span.bytes;
}

absl::Span<const StoredSpan> TraceBuffer::Room::spans() const {
  const uint64_t asked = asked_.load(std::memory_order_relaxed);
  return {spans_.get(), static_cast<size_t>(std::min<uint64_t>(asked, spans_max_))};
}

uint64_t TraceBuffer::Room::dropped() const {
  const uint64_t asked = asked_.load(std::memory_order_relaxed);
  return asked > spans_max_ ? asked - spans_max_ : 0;
}

}  // namespace godwit
