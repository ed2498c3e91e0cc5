// An owned file descriptor.
#ifndef GODWIT_UNIQUE_FD_H_
#define GODWIT_UNIQUE_FD_H_

#include <unistd.h>

#include <utility>

namespace godwit {

// Ownership: closes the descriptor that it holds when destroyed or overwritten.
// Threads:   not synchronised.
// Blocking:  Reset() and the destructor may block in close(2).
// Errors:    none; a failing close(2) is ignored, as Linux has freed the number by then.
class UniqueFd {
 public:
  UniqueFd() = default;
  explicit UniqueFd(int fd) : fd_(fd) {}
  UniqueFd(UniqueFd&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  UniqueFd& operator=(UniqueFd&& other) noexcept {
    if (this != &other) Reset(std::exchange(other.fd_, -1));
    return *this;
  }
  ~UniqueFd() { Reset(); }

  int get() const { return fd_; }
  bool valid() const { return fd_ >= 0; }
  [[nodiscard]] int Release() { return std::exchange(fd_, -1); }
  void Reset(int fd = -1) {
    if (fd_ >= 0) ::close(fd_);
    fd_ = fd;
  }

 private:
  int fd_ = -1;
};

}  // namespace godwit

#endif  // GODWIT_UNIQUE_FD_H_
