// What kind of file an fd is: one in memory, or one of a driver's.
#ifndef GODWIT_BASE_IN_MEMORY_H_
#define GODWIT_BASE_IN_MEMORY_H_

#include <linux/magic.h>
#include <sys/stat.h>
#include <sys/vfs.h>

namespace godwit {

// A regular file where a read or a write is a copy and waits for no disk, no network and no device:
// fstatfs(2).
inline bool IsInMemory(int fd) {
  // (A FIFO or a device node is on the file system that its path is on.)
  struct stat file {};
  if (::fstat(fd, &file) != 0 || !S_ISREG(file.st_mode)) return false;
  struct statfs system {};
  if (::fstatfs(fd, &system) != 0) return false;
  // A data_fd of VFIO's is on anon_inodefs, a pipe on pipefs, a socket on sockfs.
  return system.f_type == TMPFS_MAGIC || system.f_type == RAMFS_MAGIC ||
         system.f_type == HUGETLBFS_MAGIC;
}

// Of no path and no file system: what drivers make for VFIO (anon_inode_getfile() in each of them).
inline bool IsAnonymous(int fd) {
  struct statfs system {};
  return ::fstatfs(fd, &system) == 0 && system.f_type == ANON_INODE_FS_MAGIC;
}

}  // namespace godwit

#endif  // GODWIT_BASE_IN_MEMORY_H_
