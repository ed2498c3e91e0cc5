#include "base/arena.h"

#include <absl/strings/str_cat.h>
#include <sys/mman.h>

#include <algorithm>
#include <cerrno>

#include "base/errno_status.h"
#include "base/units.h"

namespace godwit {
namespace {

constexpr size_t kPageBytes = 4096;
constexpr size_t kHugePageBytes = size_t{2} << 20;
// Some ms of work for the kernel. Whole hugepages.
constexpr size_t kTouchBytes = 2 * kHugePageBytes;
constexpr size_t kPayloadBytesLimit = size_t{1} << 30;

constexpr size_t RoundUp(size_t value, size_t multiple) {
  return (value + multiple - 1) / multiple * multiple;
}

void* Map(size_t bytes, int extra_flags) {
  return ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | extra_flags,
                -1, 0);
}

// A 2 MiB-aligned mapping of plain pages: without the alignment the kernel can't put transparent
// hugepages at its ends.
std::byte* MapAligned(size_t bytes) {
  void* const raw = Map(bytes + kHugePageBytes, MAP_NORESERVE);
  if (raw == MAP_FAILED) return nullptr;
  const auto start = reinterpret_cast<uintptr_t>(raw);
  const uintptr_t aligned = RoundUp(start, kHugePageBytes);
  if (aligned > start) ::munmap(raw, aligned - start);
  const uintptr_t end = aligned + bytes;
  const uintptr_t raw_end = start + bytes + kHugePageBytes;
  if (raw_end > end) ::munmap(reinterpret_cast<void*>(end), raw_end - end);
  return reinterpret_cast<std::byte*>(aligned);
}

// Gives every page its memory, in pieces, so that a cancel is soon heard.
absl::Status Touch(std::byte* address, size_t bytes, const std::function<bool()>& cancelled) {
  for (size_t at = 0; at < bytes; at += kTouchBytes) {
    if (cancelled && cancelled()) return absl::CancelledError("cancelled");
    const size_t piece = std::min(kTouchBytes, bytes - at);
    if (::madvise(address + at, piece, MADV_POPULATE_WRITE) == 0) continue;
    if (errno != EINVAL) {
      return ErrnoStatus(errno, absl::StrCat("no memory for an arena of ", FormatBytes(bytes)));
    }
    // Kernels before 5.14 have no such advice: touch the pages ourselves.
    for (size_t page = at; page < at + piece; page += kPageBytes) {
      reinterpret_cast<volatile char*>(address)[page] = 0;
    }
  }
  return absl::OkStatus();
}

}  // namespace

size_t Arena::StrideBytes(size_t payload_bytes_max) {
  return kHeaderRoomBytes + RoundUp(payload_bytes_max, kPageBytes);
}

absl::StatusOr<std::unique_ptr<Arena>> Arena::Create(size_t buffer_count, size_t payload_bytes_max,
                                                     const std::function<bool()>& cancelled) {
  GODWIT_CHECK(buffer_count > 0);
  GODWIT_CHECK(payload_bytes_max > 0 && payload_bytes_max <= kPayloadBytesLimit);
  const size_t bytes = RoundUp(buffer_count * StrideBytes(payload_bytes_max), kHugePageBytes);

  if (void* const address = Map(bytes, MAP_HUGETLB); address != MAP_FAILED) {
    const absl::Status touched = Touch(static_cast<std::byte*>(address), bytes, cancelled);
    if (touched.ok()) {
      return std::unique_ptr<Arena>(new Arena(static_cast<std::byte*>(address), bytes,
                                              Backing::kHugePages, buffer_count,
                                              payload_bytes_max));
    }
    // They were reserved, but a cgroup's limit or a memory policy can still refuse them.
    ::munmap(address, bytes);
    if (absl::IsCancelled(touched)) return touched;
  }
  std::byte* const address = MapAligned(bytes);
  if (address == nullptr) {
    return ErrnoStatus(errno, absl::StrCat("no memory for an arena of ", FormatBytes(bytes)));
  }
  const Backing backing = ::madvise(address, bytes, MADV_HUGEPAGE) == 0
                              ? Backing::kTransparentHugePages
                              : Backing::kPlainPages;
  if (absl::Status touched = Touch(address, bytes, cancelled); !touched.ok()) {
    ::munmap(address, bytes);
    return touched;
  }
  return std::unique_ptr<Arena>(
      new Arena(address, bytes, backing, buffer_count, payload_bytes_max));
}

Arena::Arena(std::byte* address, size_t size_bytes, Backing backing, size_t buffer_count,
             size_t payload_bytes_max)
    : address_(address),
      size_bytes_(size_bytes),
      backing_(backing),
      buffer_count_(buffer_count),
      payload_bytes_max_(payload_bytes_max),
      free_low_water_(buffer_count) {
  MutexLock lock(mutex_);
  free_payloads_.reserve(buffer_count);
  for (size_t i = buffer_count; i > 0; --i) {  // lowest address on top
    free_payloads_.push_back(address_ + (i - 1) * StrideBytes(payload_bytes_max) +
                             kHeaderRoomBytes);
  }
}

Arena::~Arena() {
  // A buffer that is still out would be freed memory in somebody's hands, perhaps a NIC's.
  GODWIT_CHECK(free_count() == buffer_count_);
  ::munmap(address_, size_bytes_);
}

Buffer Arena::TryAcquire() {
  MutexLock lock(mutex_);
  if (free_payloads_.empty()) return Buffer();
  std::byte* const payload = free_payloads_.back();
  free_payloads_.pop_back();
  free_low_water_ = std::min(free_low_water_, free_payloads_.size());
  return Buffer(this, payload);
}

void Arena::Release(std::byte* payload) {
  MutexLock lock(mutex_);
  GODWIT_DCHECK(free_payloads_.size() < buffer_count_);
  free_payloads_.push_back(payload);
}

size_t Arena::free_count() const {
  MutexLock lock(mutex_);
  return free_payloads_.size();
}

size_t Arena::used_high_water() const {
  MutexLock lock(mutex_);
  return buffer_count_ - free_low_water_;
}

const char* Arena::backing_name() const {
  switch (backing_) {
    case Backing::kHugePages:
      return "hugepages";
    case Backing::kTransparentHugePages:
      return "transparent hugepages";
    case Backing::kPlainPages:
      return "plain pages";
  }
  return "?";
}

}  // namespace godwit
