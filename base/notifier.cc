#include "base/notifier.h"

#include <sys/eventfd.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>

#include "base/errno_status.h"

namespace godwit {

absl::StatusOr<Notifier> Notifier::Create() {
  UniqueFd fd(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  if (!fd.valid()) return ErrnoStatus(errno, "eventfd");
  return Notifier(std::move(fd));
}

void Notifier::Notify() const {
  // Fails only with EAGAIN at 2^64 - 2 notifications, when the fd is readable anyway.
  const uint64_t one = 1;
  [[maybe_unused]] const ssize_t written = ::write(fd_.get(), &one, sizeof(one));
}

void Notifier::Clear() const {
  uint64_t count = 0;
  [[maybe_unused]] const ssize_t got = ::read(fd_.get(), &count, sizeof(count));
}

}  // namespace godwit
