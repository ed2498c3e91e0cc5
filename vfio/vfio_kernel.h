// The system calls by which VFIO is reached, so that tests can put a kernel of their own there.
#ifndef GODWIT_VFIO_VFIO_KERNEL_H_
#define GODWIT_VFIO_VFIO_KERNEL_H_

#include <sys/types.h>

#include <cstddef>
#include <cstdint>
#include <string>

namespace godwit {

// Ownership: an fd that a call gives is the caller's, to close(2).
// Threads:   any.
// Blocking:  as the system call does.
// Errors:    a negative errno.
class VfioKernel {
 public:
  virtual ~VfioKernel() = default;

  // An fd opened O_RDWR | O_CLOEXEC.
  virtual int Open(const std::string& path) = 0;
  virtual int Ioctl(int fd, unsigned long request, void* argument) = 0;
  int Ioctl(int fd, unsigned long request, uintptr_t value) {
    return Ioctl(fd, request, reinterpret_cast<void*>(value));
  }

  // At most `bytes`, from `offset` of a device's file, where each region has its place. How many,
  // or a negative errno.
  virtual ssize_t Pread(int fd, void* to, size_t bytes, uint64_t offset) = 0;
  virtual ssize_t Pwrite(int fd, const void* from, size_t bytes, uint64_t offset) = 0;

  // The one that this process runs on.
  static VfioKernel& Real();
};

}  // namespace godwit

#endif  // GODWIT_VFIO_VFIO_KERNEL_H_
